"""The coefficient generator: its integrals in 40 digits, its ends, its derivatives, and what it looks back to."""

from __future__ import annotations

import math
from functools import cache, partial
from itertools import cycle

import pytest
import torch
from golden import processes
from golden.form import mp
from mutants.generator import StagesApart
from torch import Tensor

import sdekit as sk
from sdekit.brownian import snr_clock
from sdekit.steppers import Plan, PlannedStepper
from sdekit.steppers.assembly import SINGLE, Multistep, single_step
from sdekit.steppers.exponential import IN_RHO, IN_TIME, Clocked, Denoised, Form, Levels, Noise, Rectified, psi, weights

FORMS: dict[str, Form] = {
    "D": Denoised(),
    "eps": Noise(),
    "D in rho": Clocked(Denoised(), *IN_RHO),
    "eps in rho": Clocked(Noise(), *IN_RHO),
    "eps in t": Clocked(Noise(), *IN_TIME),
    "v": Rectified(),
}
CASES = {
    "VP": (sk.VP(), processes.vp(0.1, 20.0)),
    "Cosine": (sk.Cosine(), processes.cosine(0.008)),
    "Flow": (sk.Flow(), processes.flow()),
}
PLANNED = {
    name: cls
    for name, cls in sk.STEPPERS.items()
    if issubclass(cls, PlannedStepper) and cls.spec.needs_schedule and cls.spec.alias is None
}
MULTISTEP = [
    n for n in PLANNED if n.startswith(("dpmpp-2m", "dpmpp-3m", "er-sde", "deis", "etd", "unipc", "v-a", "sa-"))
]


def float64(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def at(case: str, *times: float) -> list[Levels]:
    return [Levels.at(CASES[case][0].schedule, float64([t])) for t in times]


def etas(form: str) -> tuple[float, ...]:
    return (0.0,) if form == "v" else (0.0, 0.6, 1.0)


KINDS = [(form, eta) for form in FORMS for eta in etas(form)]


# --- ψ ----------------------------------------------------------------------------------------------


def test_psi_at_every_scale():
    sizes = [0.0, 1e-12, 1e-5, 0.1, 1.0, 2.0, 2.999, 3.0, 3.001, 4.5, 10.0, 30.0, 60.0]
    a = float64([*sizes, *(-size for size in sizes)])
    found = psi(a, 6)
    for k, values in enumerate(found):
        for x, value in zip(a.tolist(), values.tolist(), strict=True):
            exact = mp.hyp1f1(1, k + 2, -mp.mpf(x)) / (k + 1)  # Kummer: ∫ e^{−a(1−v)} v^k dv
            assert abs(value / exact - 1) < 1e-14, (k, x)


def test_psi_of_an_infinite_step():
    """e^{−∞} leaves nothing of D but at the end; its weight is a ψ₀ = 1, which M₀ states without dividing."""
    assert [float(value) for value in psi(float64([math.inf]), 3)] == [0.0, 0.0, 0.0]


# --- moments ----------------------------------------------------------------------------------------


@cache
def linear(form: str, eta: float, case: str):
    """Φ(t, τ), B(τ), and the part that noise is carried by, from dx = [f x − ½ (1 + η²) g² s] dt + η g dW.

    With s = (αD − x)/σ² = −ε/σ, and ε = (x + α v)/(α + σ) where v = ε − D.
    """
    p, more = CASES[case][1], 1 + mp.mpf(eta) ** 2
    lam = lambda t: mp.log(p.alpha(t) / p.sigma(t))  # noqa: E731
    rho = lambda t: p.sigma(t) / p.alpha(t)  # noqa: E731
    r = lambda t: p.alpha(t) + p.sigma(t)  # noqa: E731
    if form.startswith("D"):
        phi = lambda t, u: p.alpha(t) / p.alpha(u) * mp.exp(-more * (lam(t) - lam(u)))  # noqa: E731
        b = lambda u: -more / 2 * p.g2(u) * p.alpha(u) / p.sigma(u) ** 2  # noqa: E731
    elif form.startswith("eps"):
        phi = lambda t, u: p.alpha(t) / p.alpha(u)  # noqa: E731
        b = lambda u: more / 2 * p.g2(u) / p.sigma(u)  # noqa: E731
    else:
        phi = lambda t, u: r(t) / r(u)  # noqa: E731
        b = lambda u: p.g2(u) * p.alpha(u) / (2 * p.sigma(u) * r(u))  # noqa: E731
    clocks = {"D": lam, "eps": lam, "eps in t": mp.mpf, "v": lambda t: p.sigma(t) / r(t)}
    return phi, b, clocks.get(form, rho)


def quad(f, s, t):
    return mp.quad(f, [s, (s + t) / 2, t], method="gauss-legendre", maxdegree=5)


@pytest.mark.parametrize("interval", [(0.93, 0.2), (0.5, 0.49), (0.2, 0.7)])
@pytest.mark.parametrize(("form", "eta", "case"), [(f, e, c) for (f, e), c in zip(KINDS, cycle(CASES))])
def test_moments_are_integrals(form, eta, case, interval):
    """Φ, M_k and the variance of the noise, from rates that the generator never sees."""
    phi, b, clock = linear(form, eta, case)
    s, t = at(case, *interval)
    x, y = map(mp.mpf, interval)
    assert float(FORMS[form].carried(s, t, eta)) == pytest.approx(float(phi(y, x)), rel=1e-13)
    size, h = abs(quad(lambda u: phi(y, u) * b(u), x, y)), abs(clock(y) - clock(x))
    for k, value in enumerate(FORMS[form].moments(s, t, eta, 4)):
        exact = quad(lambda u, k=k: phi(y, u) * b(u) * (clock(u) - clock(x)) ** k, x, y)
        assert abs(float(value) - exact) < 1e-12 * size * h**k, k
    if y < x:
        rate = lambda u: (eta * phi(y, u)) ** 2 * CASES[case][1].g2(u)  # noqa: E731
        assert float(FORMS[form].noise(s, t, eta)) == pytest.approx(float(mp.sqrt(quad(rate, y, x))), rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("form", "eta"), KINDS)
def test_weights_reproduce_polynomials(form, eta, count):
    """Σ w_j (c_j − c_s)^m = M_m for m < p, through jagged nodes and one ahead."""
    made = FORMS[form]
    s, t, *nodes = at("VP", 0.5, 0.41, 0.5, 0.53, 0.66, 0.41, 0.71)
    nodes = nodes[:count]
    found = weights(made, s, t, nodes, eta)
    start = made.clock(s)
    for m, wanted in enumerate(made.moments(s, t, eta, count)):
        terms = [w * (made.clock(node) - start) ** m for w, node in zip(found, nodes, strict=True)]
        scale = max(abs(float(term)) for term in terms)
        assert float(sum(terms)) == pytest.approx(float(wanted), rel=1e-12, abs=1e-13 * scale)


def test_the_midpoint_slope_keeps_constants_and_misses_lines():
    """By h²/12 of M₀: the short cut of DPM-Solver is no integral, and the check above sees it."""
    s, t, before = at("VP", 0.5, 0.49, 0.51)
    made, h = FORMS["D"], float(t.lam - s.lam)
    now, then = weights(made, s, t, [s, before], 0.0, midpoint=True)
    whole, line = made.moments(s, t, 0.0, 2)
    assert float(now + then) == pytest.approx(float(whole), rel=1e-14)
    missed = float(then * (before.lam - s.lam) - line) / float(whole)
    assert missed == pytest.approx(-(h**2) / 12, rel=0.05)


@pytest.mark.parametrize(("form", "eta"), KINDS)
def test_an_empty_step_is_the_identity(form, eta):
    s, *nodes = at("VP", 0.5, 0.5, 0.53, 0.66, 0.71)
    made = FORMS[form]
    assert float(made.carried(s, s, eta)) == 1.0
    assert float(made.noise(s, s, eta)) == 0.0
    assert [float(w) for w in weights(made, s, s, nodes, eta)] == [0.0] * 4


# --- ends and derivatives ---------------------------------------------------------------------------


def numbers(plan: Plan) -> Tensor:
    """Every coefficient of a plan."""
    parts = [(*row.states.values(), *row.outputs.values(), *row.noises.values()) for rows in plan.rows for row in rows]
    return torch.stack([c for part in parts for c in part])


def eta_of(stepper: str) -> float:
    """The greatest η ≤ 1 that it takes."""
    return min(1.0, PLANNED[stepper].spec.eta[1])


ENDS = {"noiseless": [0.8, 0.55, 0.4, 0.28, 0.1, 0.04, 0.0], "signalless": [1.0, 0.8, 0.55, 0.4, 0.28, 0.1, 0.04]}


@pytest.mark.parametrize(
    ("stepper", "end"), [(name, end) for name, cls in PLANNED.items() for end in sorted(cls.spec.safe_at)]
)
@pytest.mark.parametrize("process", [sk.Flow(), sk.Cosine()])
def test_coefficients_are_finite_at_the_ends_that_are_safe(stepper, end, process):
    for eta in {0.0, eta_of(stepper)} - ({0.0} if PLANNED[stepper].spec.eta[0] else set()):
        plan = PLANNED[stepper]().plan(process.schedule, eta, float64(ENDS[end]))
        assert bool(numbers(plan).isfinite().all())
        assert float(numbers(plan).abs().max()) < 100.0


@pytest.mark.parametrize("stepper", PLANNED)
def test_derivatives_with_respect_to_the_grid(stepper):
    """Along one direction, against a difference of plans."""
    times = float64([0.9, 0.71, 0.6, 0.38, 0.3, 0.17, 0.1])
    way = float64([0.3, -0.5, 0.8, 0.4, -0.7, 0.2, 0.1])
    made = partial(PLANNED[stepper]().plan, sk.VP().schedule, eta_of(stepper))
    read = lambda t: (numbers(made(t)) * float64(range(1, 10_000))[: len(numbers(made(t)))].sin()).sum()  # noqa: E731
    grid = times.clone().requires_grad_()
    (slope,) = torch.autograd.grad(read(grid), grid)
    step = 1e-5
    difference = (read(times + step * way) - read(times - step * way)) / (2 * step)
    assert float(slope @ way) == pytest.approx(float(difference), rel=2e-7)


# --- history ----------------------------------------------------------------------------------------

DATA = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.5]], [0.09, 0.16])
COARSE = [0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]


def run(stepper, times, dtype=torch.float32) -> Tensor:
    process = sk.VP()
    sde = sk.reverse_time(process, sk.exact_score(DATA, process), 0.0)
    x = process.prior((1,)).sample(64, seed=1).to(dtype)
    return sk.solve(sde, x, times, stepper, save=times).final.double()


def with_a_short_step(gap: float) -> list[float]:
    return sorted([*COARSE, 0.3 - gap], reverse=True)


@pytest.mark.parametrize("stepper", MULTISTEP)
def test_a_very_short_step_magnifies_nothing(stepper):
    """In float32, though an output time lies 1e-9 behind a node; and no coefficient is large."""
    short = with_a_short_step(1e-9)
    exact = run(stepper, short, torch.float64)
    assert float((run(stepper, short) - exact).abs().max()) < 3e-5
    assert float((run(stepper, with_a_short_step(1e-7), torch.float64) - exact).abs().max()) < 1e-5
    plan = PLANNED[stepper]().plan(sk.VP().schedule, 0.0, float64(short))
    assert float(numbers(plan).abs().max()) < 20.0


@pytest.mark.parametrize("stepper", [n for n in MULTISTEP if not n.startswith(("unipc", "v-abm", "sa-"))])
def test_a_very_short_step_leaves_the_rest_alone(stepper):
    """But for correctors, which ask there anew, at the corrected state."""
    assert float((run(stepper, with_a_short_step(1e-9)) - run(stepper, COARSE)).abs().max()) < 1e-5


def test_without_a_distance_between_nodes_rounding_blows_up():
    near, short = sk.DEIS(3, apart=1e-12), with_a_short_step(1e-9)
    assert float((run(near, short) - run(near, short, torch.float64)).abs().max()) > 1e-2


def test_history_is_the_newest_and_skips_what_is_near():
    chosen = Multistep(Denoised(), 3)._history
    assert chosen([0.0, 1.0, 2.0, 3.0], 2, 3) == [2, 1, 0]
    assert chosen([0.0, 1.0, 2.0, 2.001, 3.0], 3, 3) == [3, 1, 0]
    assert chosen([-math.inf, 1.0, 2.0, 3.0], 2, 3) == [2, 1]
    assert chosen([0.0, 1.0, 2.0, math.inf], 2, 3) == [2]


class Single(PlannedStepper):
    """A single-step method on its own."""

    spec = sk.DPM3.spec

    def __init__(self, form: str, order: int) -> None:
        self.form, self.order = FORMS[form], order

    def plan(self, schedule, eta, times) -> Plan:
        return single_step(self.form, SINGLE[self.order], schedule, eta, times)


@pytest.mark.parametrize("order", SINGLE)
@pytest.mark.parametrize("form", ["D", "eps", "v"])
def test_starts_have_their_orders(form, order):
    """One step of h from the same state: with h/2 the error is 2^{p+1} times less."""
    sde = sk.reverse_time(sk.VP(), sk.exact_score(DATA, sk.VP()), 0.0)

    def error(h: float) -> float:
        fine = torch.linspace(0.4, 0.4 - h, 33, dtype=torch.float64)
        ends = [
            sk.solve(sde, float64([[1.3]]), *how).final for how in ((fine, "rk4"), (fine[[0, -1]], Single(form, order)))
        ]
        return float((ends[0] - ends[1]).abs())

    assert math.log2(error(0.01) / error(0.005)) == pytest.approx(order + 1, abs=0.15)


# --- one path ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("stepper", ["seeds2", "seeds3"])
def test_stages_stand_on_the_path_of_the_step(stepper, eta):
    """A point mass: 2, 6 and 12 steps of one path end in the same sample, whatever their stages."""
    process = sk.VP()
    sde = sk.reverse_time(process, sk.exact_score(sk.Gaussian([1.5, -0.5], 0.0), process), eta)
    grid = sk.grids.log_snr(process, 72)
    path = sk.BrownianGrid.on(grid, (3, 2), seed=3, clock=snr_clock(process.schedule, eta))
    x = process.prior((2,)).sample(3, seed=1)
    spread = lambda made: [sk.solve(sde, x, grid[::k], made, noise=path).final for k in (36, 12, 6)]  # noqa: E731
    first, *others = spread(stepper)
    assert max(float((y - first).abs().max()) for y in others) < 1e-12
    if stepper == "seeds2":
        first, *others = spread(StagesApart())
        assert max(float((y - first).abs().max()) for y in others) > 1e-3
