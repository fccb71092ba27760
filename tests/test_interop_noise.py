"""Our paths under the solvers of others: torchsde's on one of our paths."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit.interop.brownian_interval import BrownianInterval

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
    """To one sample, at order one or more: from 16 to 64 steps the distance to 1024 falls by 3 at least."""
    path = sk.BrownianGrid((40, 2), steps=1024, seed=3, levy="space-time")
    bm, x = BrownianInterval(path), start(40)
    finest, *coarse = (solved(bm, method, calculus, x, dt=1.0 / n) for n in (1024, 64, 16))
    fine, rough = (float((c - finest).square().mean().sqrt()) for c in coarse)
    strong_half = method == "euler" and calculus == "ito"
    assert fine < rough * (0.65 if strong_half else 1.0 / 3.0)


def test_a_wrong_integral_shows():
    """srk on U without its W/2 does not converge to the same sample."""
    path = sk.BrownianGrid((40, 2), steps=1024, seed=3, levy="space-time")
    right, x = BrownianInterval(path), start(40)

    def slipped(ta, tb, return_U=False, return_A=False):
        w, u = right(ta, tb, return_U=True)
        return (w, u - 0.5 * float(tb - ta) * w) if return_U else w

    slip = SimpleNamespace(shape=right.shape, levy_area_approximation="space-time")
    wrong = type("Slip", (), {"__call__": staticmethod(slipped), **vars(slip)})()
    finest = solved(right, "srk", x=x, dt=1.0 / 1024)
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
