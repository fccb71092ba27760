"""Our paths under the solvers of others: torchsde's, and the samplers of k-diffusion, on one of our paths."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit.interop import k_diffusion
from sdekit.interop.brownian_interval import BrownianInterval
from sdekit.interop.noise_sampler import NoiseSampler, with_midpoints

torchsde = pytest.importorskip("torchsde")

STEPS = 16
GRID = torch.linspace(0.0, 1.0, STEPS + 1, dtype=torch.float64)


class Fields(torch.nn.Module):
    """dX = (sin X − t) dt + (0.3 + 0.2 X) dW for each coordinate, as torchsde has it."""

    noise_type = "diagonal"

    def __init__(self, calculus: str) -> None:
        super().__init__()
        self.sde_type = calculus

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(y) - t

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.3 + 0.2 * y


def ours(calculus):
    return sk.sde(lambda t, x: torch.sin(x) - t, lambda t, x: 0.3 + 0.2 * x, calculus=calculus)


def start(batch=5):
    return torch.linspace(0.2, 1.0, 2 * batch, dtype=torch.float64).reshape(batch, 2)


def solved(bm, method="euler", calculus="ito", x=None, dt=1.0 / STEPS, ts=(0.0, 1.0)):
    x = start() if x is None else x
    ts = torch.tensor(ts, dtype=x.dtype)
    return torchsde.sdeint(Fields(calculus), x, ts, bm=bm, method=method, dt=dt)[-1].detach()


@pytest.mark.parametrize(("method", "stepper"), [("euler", "euler-maruyama"), ("milstein", "milstein")])
def test_torchsde_on_our_path_is_our_solver_on_it(method, stepper):
    path = sk.BrownianGrid.on(GRID, (5, 2), seed=4)
    expected = sk.solve(ours("ito"), start(), GRID, stepper, noise=path).final
    torch.testing.assert_close(solved(BrownianInterval(path), method), expected, rtol=0, atol=1e-12)
    other = sk.BrownianGrid.on(GRID, (5, 2), seed=5)
    assert float((solved(BrownianInterval(other), method) - expected).abs().max()) > 1e-3


METHODS = {
    "ito": ("euler", "milstein", "srk"),
    "stratonovich": ("milstein", "heun", "midpoint", "euler_heun", "reversible_heun"),
}


@pytest.mark.parametrize(("calculus", "method"), [(c, m) for c, names in METHODS.items() for m in names])
def test_every_method_converges_on_one_path(calculus, method):
    """To one sample, at order one or more: from 16 to 64 steps the distance to 256 falls by 3 at least."""
    path = sk.BrownianGrid((40, 2), steps=256, seed=3, levy="space-time")
    bm, x = BrownianInterval(path), start(40)
    finest, *coarse = (solved(bm, method, calculus, x, dt=1.0 / n) for n in (256, 64, 16))
    fine, rough = (float((c - finest).square().mean().sqrt()) for c in coarse)
    strong_half = method == "euler" and calculus == "ito"
    assert fine < rough * (0.65 if strong_half else 1.0 / 3.0)


@pytest.mark.parametrize("method", ["milstein", "srk"])
def test_torchsde_runs_on_a_tree(method):
    """At steps that share no node; the path is the one that a grid of its dyadic points would show."""
    tree = sk.BrownianTree((5, 2), seed=3, levy="space-time", depth=12)
    bm = BrownianInterval(tree)
    fine, *coarse = (solved(bm, method, dt=1.0 / n) for n in (96, 24, 9))
    errors = [float((c - fine).square().mean().sqrt()) for c in coarse]
    assert errors[0] < errors[1] / 2
    expected = sk.solve(ours("ito"), start(), GRID, "euler-maruyama", noise=tree).final
    torch.testing.assert_close(solved(bm), expected, rtol=0, atol=1e-12)


def test_without_a_step_a_seed_is_a_tree():
    bm = BrownianInterval.seeded(0.0, 2.0, (3, 1), seed=1, dtype=torch.float64)
    assert isinstance(bm.path, sk.BrownianTree)
    torch.testing.assert_close(bm(0.1, 0.3) + bm(0.3, 1.7), bm(0.1, 1.7), rtol=0, atol=1e-14)
    assert BrownianInterval.seeded(size=(3, 1)).path.depth == 24


def test_a_wrong_integral_shows():
    """srk on U without its W/2 does not converge to the same sample."""
    path = sk.BrownianGrid((40, 2), steps=256, seed=3, levy="space-time")
    right, x = BrownianInterval(path), start(40)

    def slipped(ta, tb, return_U=False, return_A=False):
        w, u = right(ta, tb, return_U=True)
        return (w, u - 0.5 * float(tb - ta) * w) if return_U else w

    slip = SimpleNamespace(shape=right.shape, levy_area_approximation="space-time")
    wrong = type("Slip", (), {"__call__": staticmethod(slipped), **vars(slip)})()
    finest = solved(right, "srk", x=x, dt=1.0 / 256)
    errors = [float((solved(bm, "srk", x=x) - finest).square().mean().sqrt()) for bm in (right, wrong)]
    assert errors[1] > 5 * errors[0]


def test_areas_pass_through():
    """``log_ode`` asks for A; on a path that combines its areas it gets that of the whole."""
    path = sk.BrownianGrid((3, 2), steps=8, seed=1, levy="full")
    bm = BrownianInterval(path)
    assert bm.levy_area_approximation == "foster"
    w, u, area = bm(0.25, 0.75, return_U=True, return_A=True)
    expected = path.increment(0.25, 0.75)
    assert torch.equal(w, expected.w)
    assert torch.equal(u, 0.5 * (expected.h + 0.5 * expected.w))
    assert torch.equal(area, expected.area)
    # The integrals of W¹ dW² − W² dW¹ of a path that turns left are positive: the sign is torchsde's, A_ij = −A_ji.
    turn = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    left = sk.RecordedBrownian([0.0, 0.5, 1.0], turn, torch.zeros_like(turn), torch.zeros(2, 1, 2, 2).double())
    assert BrownianInterval(left)(0.0, 1.0, return_A=True)[1][0, 0, 1] == 0.5
    states = solved(bm, "log_ode", "stratonovich", start(3), dt=1.0 / 8)
    assert torch.isfinite(states).all()


class Rotations(torch.nn.Module):
    """dX = A₁X∘dW¹ + A₂X∘dW², which do not commute."""

    noise_type, sde_type = "general", "stratonovich"
    columns = torch.tensor([[[0.0, 1.0], [0.5, 0.0]], [[0.7, 0.0], [0.2, -0.7]]], dtype=torch.float64)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.0 * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("mij,bj->bim", self.columns, y)


@pytest.mark.parametrize("sign", [1.0, 0.0, -1.0])
def test_areas_raise_the_order_and_a_wrong_sign_lowers_it(sign):
    """``log_ode`` from 8 to 32 steps, seen from 256: the error falls by 3.2; without A, or with −A, by less than 2."""
    path = sk.BrownianGrid((300, 2), steps=256, seed=3, levy="full")
    right, x = BrownianInterval(path), torch.ones(300, 2, dtype=torch.float64)

    def turned(ta, tb, return_A=False):
        w, area = right(ta, tb, return_A=True)
        return w, sign * area

    slip = {"shape": right.shape, "levy_area_approximation": "foster", "__call__": staticmethod(turned)}
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    finest, rough, fine = (
        torchsde.sdeint(Rotations(), x, ts, bm=bm, method="log_ode", dt=1.0 / n)[-1].detach()
        for bm, n in ((right, 256), (type("Turned", (), slip)(), 8), (type("Turned", (), slip)(), 32))
    )
    ratio = float(((rough - finest).square().mean() / (fine - finest).square().mean()).sqrt())
    assert (ratio > 2.5) == (sign == 1.0), ratio


def test_times_that_were_added_up_in_float32_mean_nodes():
    """1,000 additions of 1e-3 miss the end by 1e-5; every step has its own increment all the same, once."""
    bm = BrownianInterval.seeded(0.0, 1.0, (4, 1), seed=2, dt=1e-3)
    whole, total, t = bm(0.0, 1.0), torch.zeros(4, 1), torch.zeros(())
    while t < 1.0:
        following = min(t + 1e-3, torch.ones(()))
        total, t = total + bm(t, following), following
    torch.testing.assert_close(total, whole, rtol=0, atol=1e-4)
    assert bm.dtype == torch.float32
    assert bm.size() == (4, 1)


def test_a_sample_is_the_same_in_any_batch():
    def at(batch, **options):
        bm = BrownianInterval.seeded(0.0, 1.0, (batch, 2), dt=1 / STEPS, dtype=torch.float64, **options)
        return solved(bm, x=torch.full((batch, 2), 0.5, dtype=torch.float64))

    whole = at(5, seed=7)
    assert torch.equal(at(2, seed=7, paths=[3, 1]), whole[[3, 1]])
    assert torch.equal(at(1, seed=9)[0], at(2, seed=None, paths=[8, 9])[1])
    assert not torch.equal(at(2, seed=7), whole[[3, 1]])  # paths forgotten


def test_events_are_flattened_and_times_in_full_or_from_the_start():
    path = sk.BrownianGrid((3, 2, 2), steps=8)
    bm = BrownianInterval(path)
    assert bm.shape == (3, 4)
    assert torch.equal(bm(0.5), path.increment(0.0, 0.5).w.flatten(1))
    assert "BrownianGrid(3, 2, 2)" in repr(bm)
    assert not bm(0.5, 0.5).any()


@pytest.mark.parametrize(
    ("provoke", "message"),
    [
        (lambda bm: bm(0.5, 0.25), r"needs ta ≤ tb; got ta = 0\.5, tb = 0\.25"),
        (
            lambda bm: bm(0.0, 0.3),
            r"t = 0\.3, which is no node of a path on \[0, 1\] with 8 steps; the nearest is 0\.25",
        ),
        (lambda bm: bm(0.0, 1.5), r"t = 1\.5, which is no node"),
        (lambda bm: bm(0.0, 0.5, return_U=True), r"levy=.space-time"),
        (lambda bm: bm(0.0, 0.5, return_A=True), r"levy=.full"),
        (lambda bm: BrownianInterval.seeded(1.0, 0.0, (2, 1), dt=0.1), r"t0 < t1 and dt > 0; got t0 = 1"),
        (lambda bm: BrownianInterval.seeded(dt=0.1, levy_area_approximation="fostr"), r"did you mean 'foster'"),
        (lambda bm: BrownianInterval.seeded(size=(2, 1), dt=0.1, paths=[1]), r"1 entries for 2 samples"),
    ],
)
def test_what_it_cannot_answer(provoke, message):
    with pytest.raises(sk.SdekitError, match=message):
        provoke(BrownianInterval(sk.BrownianGrid((3, 2), steps=8)))


# --- k-diffusion ----------------------------------------------------------------------------------

MIXTURE = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])
HIGH, LOW = 20.0, 0.03
kd = pytest.mark.skipif(not find_spec("k_diffusion"), reason="no k-diffusion here")


def levels(steps):
    return torch.logspace(1, 0, steps + 1, HIGH / LOW, dtype=torch.float64) * LOW


def sampled(name, noise_sampler, y, steps, law=MIXTURE):
    """By k-diffusion's own code, with the exact score."""
    run = getattr(k_diffusion.sampling(), f"sample_{name}")

    def denoised(y, sigma):
        s = float(sigma[0])
        return y + s**2 * law.diffused_score(y.double(), 1.0, s).to(y)

    return run(denoised, y, levels(steps).to(y.dtype), disable=True, noise_sampler=noise_sampler)


def noised(batch, dtype=torch.float64):
    return (HIGH * sk.Gaussian([0.0], 1.0).sample(batch, seed=1)).to(dtype)


SAMPLERS = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "euler_ancestral", "dpmpp_2s_ancestral")
FORMS = {"grid": lambda: with_midpoints(levels(160)), "tree": lambda: None}


@kd
@pytest.mark.parametrize(("form", "name"), [*(("grid", name) for name in SAMPLERS), ("tree", "dpmpp_2m_sde")])
def test_samplers_of_k_diffusion_converge_on_one_path(form, name):
    """One sample at order one: from 10 to 40 steps the distance to 160 falls by 2.5; with noise anew it does not."""
    y = noised(100)
    path = NoiseSampler(y, LOW, HIGH, 3, levels=FORMS[form]())
    finest, *coarse = (sampled(name, path, y, n) for n in (160 if form == "grid" else 80, 40, 10))
    fine, rough = (float((c - finest).square().mean().sqrt()) for c in coarse)
    assert fine < rough / 2.5
    anew = NoiseSampler(y, LOW, HIGH, 4, levels=FORMS[form]())
    assert float((sampled(name, anew, y, 40) - finest).square().mean().sqrt()) > 3 * rough


@kd
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde"])
def test_a_sample_of_k_diffusion_is_the_same_in_any_batch(name, form, dtype):
    y, made = noised(6, dtype), {"levels": FORMS[form]()}
    whole = sampled(name, NoiseSampler(y, LOW, HIGH, 7, **made), y, 10)
    part = sampled(name, NoiseSampler(y[[4, 1]], LOW, HIGH, 7, paths=[4, 1], **made), y[[4, 1]], 10)
    assert torch.equal(part, whole[[4, 1]])
    forgotten = sampled(name, NoiseSampler(y[[4, 1]], LOW, HIGH, 7, **made), y[[4, 1]], 10)
    assert not torch.equal(forgotten, whole[[4, 1]])
    pair = NoiseSampler(y[:2], LOW, HIGH, None, paths=[8, 9], **made)
    assert torch.equal(pair(HIGH, LOW)[1:], NoiseSampler(y[:1], LOW, HIGH, 9, **made)(HIGH, LOW))


@kd
def test_a_point_mass_gives_the_same_sample_at_every_number_of_steps():
    """The clock is that of the noise: to 1e-12 for the samplers that are exact in their linear part; else it is not."""
    point, y = sk.Gaussian([0.7], 0.0), noised(5)
    path = NoiseSampler(y, LOW, HIGH, 3, levels=levels(80))
    runs = [sampled("dpmpp_2m_sde", path, y, n, point) for n in (10, 20, 40, 80)]
    assert max(float((run - runs[0]).abs().max()) for run in runs) < 1e-12
    other = NoiseSampler(y, LOW, HIGH, 3, levels=levels(80), eta=0.5)
    runs = [sampled("dpmpp_2m_sde", other, y, n, point) for n in (10, 20)]
    assert float((runs[0] - runs[1]).abs().max()) > 1e-4


@pytest.mark.statistical
@pytest.mark.parametrize("form", FORMS)
def test_increments_are_standard_normal_and_those_of_one_path(form):
    """20,000 samples, seed 5: means and variances at |z| < 5, rate 6e-7 each; overlaps correlate as they must."""
    n = 20_000
    x, sigmas = torch.zeros(n, 1, dtype=torch.float64), levels(8).tolist()
    path = NoiseSampler(x, LOW, HIGH, 5, levels=None if form == "tree" else levels(8))
    whole, half = path(sigmas[2], sigmas[4]), path(sigmas[2], sigmas[3])
    later = path(sigmas[3], sigmas[4])
    for z in (whole, half, later):
        assert abs(float(z.mean())) * n**0.5 < 5
        assert abs(float(z.var()) - 1.0) * (n / 2) ** 0.5 < 5
    a, b, c = (s**-2.0 for s in sigmas[2:5])
    expected = ((b - a) / (c - a)) ** 0.5
    assert abs(float((whole * half).mean()) - expected) * n**0.5 < 5 * (1 + expected**2) ** 0.5
    assert abs(float((half * later).mean())) * n**0.5 < 5
    torch.testing.assert_close(
        half * (b - a) ** 0.5 + later * (c - b) ** 0.5, whole * (c - a) ** 0.5, rtol=2e-3, atol=1e-3
    )
    assert torch.equal(path(sigmas[3], sigmas[2]), -half)


@pytest.mark.parametrize(
    ("provoke", "message"),
    [
        (lambda x: NoiseSampler(x, 1.0, 0.5), r"0 < sigma_min < sigma_max and eta > 0; got \[1, 0\.5\]"),
        (lambda x: NoiseSampler(x, 0.0, 0.5), r"got \[0, 0\.5\]"),
        (lambda x: NoiseSampler(x, 0.1, 0.5, eta=0.0), r"eta = 0"),
        (lambda x: NoiseSampler(x, 0.1, 0.5)(0.6, 0.2), r"sigma = 0\.6 lies outside of this path.* from 0\.1 to 0\.5"),
        (lambda x: NoiseSampler(x, 0.1, 0.5)(0.2, 0.0), r"sigma = 0 lies outside"),
        (lambda x: NoiseSampler(x, 0.1, 0.5)(0.2, 0.2), r"no length, at sigma = 0\.2"),
        (
            lambda x: NoiseSampler(x, 0.1, 0.5, levels=[0.1, 0.3, 0.5])(0.5, 0.2),
            r"none of the 3 levels.*with_midpoints",
        ),
        (lambda x: NoiseSampler(x, 0.1, 0.5, paths=[1]), r"1 entries for 2 samples"),
    ],
)
def test_levels_that_are_none(provoke, message):
    with pytest.raises(sk.SdekitError, match=message):
        provoke(torch.zeros(2, 1))
