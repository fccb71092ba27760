r"""The problem library: every exact answer is held to a second derivation, and every problem shows its mistake.

Paths by Itô's formula through autograd; means given W and H by Pythagoras on refined grids; laws by their generator;
means of functionals by quadrature or moment equations. Then the traps: a right method and one with a planted slip, told
apart by the problem (``test_traps_*``). What is sampled states its seed; limits of 6 standard errors are passed by
chance in 2e-9 of cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch import Tensor
from torch.func import jacfwd, jvp, vjp

import sdekit as sk
from sdekit import problems
from sdekit.problems import ClosedForm, Problem
from sdekit.problems.additive import benes_law
from sdekit.problems.cir import cox_ingersoll_ross
from sdekit.steppers import Spec
from sdekit.steppers.base import ALL_NOISE, Step, StepMethod
from sdekit.verify import law_error, linear_errors

TOLD = [name for name in problems.PROBLEMS if name.endswith("-strat")]  # of others, in another calculus
LIBRARY = {n: make() for n, make in problems.PROBLEMS.items() if n not in TOLD and not isinstance(make, partial)}
CLOSED = [name for name, p in LIBRARY.items() if isinstance(p.path, ClosedForm)]
AVERAGED = ["square", "nonautonomous-square", "heisenberg"]
LINEAR = [name for name, p in LIBRARY.items() if p.linear is not None]
TIMES = (0.2, 0.7)


def end(problem: Problem) -> float:
    return float(problem.grid(1)[-1])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def columns(problem: Problem, t: float, x: Tensor) -> Tensor:
    """The diffusion at one state as a (d, m) matrix."""
    g = problem.sde.diffusion(t, x[None])[0]
    if g.ndim == 2:
        return g
    return g[:, None] if problem.sde.noise_type == "scalar" else torch.diag(g)


def states(problem: Problem, n: int = 5) -> Tensor:
    """Where solutions go, more or less."""
    return problem.initial.sample(n, seed=1) + 0.2 * randn(n, *problem.initial.event_shape).abs()


# --- what is declared -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_a_problem_is_complete(name):
    problem = problems.get(name)
    answers = (problem.law, problem.path, problem.flow, problem.linear, problem.weak)
    assert problem.name == name
    assert problem.detects
    assert len(problem.summary) <= 33  # a table of 79 columns
    assert any(answer is not None for answer in answers)
    steps = problem.grid(8).diff()
    assert len(steps) == 8
    assert bool((steps > 0).all() | (steps < 0).all())
    x = problem.initial.sample(3)
    assert problem.sde.drift(float(problem.grid(1)[0]), x).shape == x.shape
    assert (problem.unresolved is None) or problem.levy == "space-time"


@pytest.mark.parametrize("name", LIBRARY)
def test_the_fields_take_times_per_sample(name):
    problem = LIBRARY[name]
    x, t = states(problem, 3), torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    for field in (problem.sde.drift, problem.sde.diffusion):
        single = torch.cat([field(float(s), y[None]) for s, y in zip(t, x, strict=True)])
        torch.testing.assert_close(field(t, x), single, rtol=1e-14, atol=1e-15)


def structure(problem: Problem, t: float, x: Tensor) -> str:
    """The narrowest class that the diffusion at a state is consistent with, by its Jacobian."""
    g = columns(problem, t, x)
    J = jacfwd(lambda y: columns(problem, t, y))(x)  # (d, m, d)
    if not J.any():
        return "additive"
    if g.shape[0] == g.shape[1] and not any(bool(J[i, j, k]) for i, j, k in np.ndindex(*J.shape) if len({i, j, k}) > 1):
        return "diagonal"
    brackets = torch.einsum("ijk,kl->ijl", J, g)
    return "commutative" if torch.allclose(brackets, brackets.mT, atol=1e-14) else "general"


@pytest.mark.parametrize("name", [n for n, p in LIBRARY.items() if p.sde.noise_type != "none"])
def test_the_declared_class_is_the_narrowest(name):
    problem = LIBRARY[name]
    found = {structure(problem, t, x) for t in TIMES for x in states(problem)}
    told = problem.noise_class.removeprefix("linear-")
    if name == "arctan-scalar":  # on the line a noise is diagonal and scalar at once
        assert (told, found) == ("commutative", {"diagonal"})
        return
    assert found == {told}


@pytest.mark.parametrize("name", LINEAR)
def test_coefficients_are_those_of_the_fields(name):
    problem, c = LIBRARY[name], LIBRARY[name].linear
    for t in TIMES:
        for x in states(problem):
            torch.testing.assert_close(problem.sde.drift(t, x[None])[0], c.A @ x + c.a, rtol=1e-14, atol=1e-15)
            wanted = (c.B @ x + c.b).T
            torch.testing.assert_close(columns(problem, t, x), wanted, rtol=1e-14, atol=1e-15)


# --- paths ------------------------------------------------------------------------------------------


def ito_defect(problem: Problem, t: float, y: Tensor, x0: Tensor) -> float:
    """By how much φ misses Itô's formula: ∂φ s = g, and ∂ₜφ + ½ s² Σ ∂²φ = f."""
    assert isinstance(problem.path, ClosedForm)

    def phi(t: Tensor, y: Tensor) -> Tensor:
        return problem.path.solution(t, y[None], x0[None])[0]

    time, s = torch.tensor(t, dtype=torch.float64), problem.path.rate[0] + problem.path.rate[1] * t
    x = phi(time, y)
    noise = s * jacfwd(phi, argnums=1)(time, y)
    second = jacfwd(jacfwd(phi, argnums=1), argnums=1)(time, y)
    drift = jacfwd(phi)(time, y) + 0.5 * s**2 * torch.einsum("ijj->i", second)
    off = (noise - columns(problem, t, x)).abs().max(), (drift - problem.sde.drift(t, x[None])[0]).abs().max()
    return float(max(off))


def noises(problem: Problem) -> int:
    return columns(problem, 0.0, problem.initial.mean).shape[1]


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_form_obeys_itos_formula(name):
    problem = LIBRARY[name]
    x0 = problem.initial.mean
    for t in TIMES:
        for y in 0.8 * randn(5, noises(problem), seed=2):
            assert ito_defect(problem, t, y, x0) < 1e-12
    start = problem.path.solution(0.0, torch.zeros(1, noises(problem), dtype=torch.float64), x0[None])[0]
    torch.testing.assert_close(start, x0, rtol=1e-15, atol=1e-15)


def test_itos_formula_sees_a_missing_correction():
    gbm = LIBRARY["gbm"]
    stratonovich = replace(gbm, path=ClosedForm(lambda t, w, x0: x0 * torch.exp(0.5 * t + 0.8 * w)))
    assert ito_defect(stratonovich, 0.5, torch.tensor([0.3], dtype=torch.float64), gbm.initial.mean) > 0.1


@pytest.mark.parametrize("name", CLOSED + AVERAGED)
def test_euler_maruyama_gets_to_the_path(name):
    """Seed 5, 2000 paths: as steps fall by 4 the error falls by 4 (order 1) or 2 (order ½).

    Over seeds the ratio has a relative standard deviation of 0.08 at most (``sinh``).
    """
    problem, samples = LIBRARY[name], 2000
    x = problem.initial.sample(samples)
    path = sk.BrownianGrid.on(problem.grid(1024), (samples, noises(problem)), seed=5, levy=problem.levy)
    exact = problem.path(x, path)
    runs = [sk.solve(problem.sde, x, problem.grid(n), "euler-maruyama", noise=path).final for n in (64, 256)]
    coarse, fine = (float((run - exact).square().sum(1).mean().sqrt()) for run in runs)
    if name == "nilpotent":
        assert coarse < 1e-13
        return
    fall = 4.0 if problem.sde.noise_type == "additive" else 2.0
    assert 0.6 * fall < coarse / fine < 1.6 * fall


def test_time_integrals_of_noise_add_up():
    """∫ s dW of nonautonomous-gbm, from W and H of the whole and of jagged parts."""
    path = LIBRARY["nonautonomous-gbm"].path
    times = [0.0, 0.1, 0.4, 0.45, 0.9, 1.0]
    noise = sk.BrownianGrid.on(times, (7, 1), seed=3, levy="space-time")
    (a, b), parts = path.rate, torch.zeros(7, 1, dtype=torch.float64)
    for s, t in pairwise(times):
        piece = noise.increment(s, t)
        parts += a * piece.w + b * (t * piece.w - (t - s) * (piece.h + 0.5 * piece.w))
    seen = []
    replace(path, solution=lambda t, y, x0: seen.append(y) or x0)(torch.ones(7, 1, dtype=torch.float64), noise)
    torch.testing.assert_close(seen[0], parts, rtol=1e-13, atol=1e-14)


# --- means given W and H ----------------------------------------------------------------------------

SAMPLES = 20_000
NODES = (0.0, 0.3, 0.4, 1.0)
FINE = tuple(sorted({*NODES, *(k / 40 for k in range(41))}))


def scores(problem: Problem, slip: Callable[[sk.RecordedBrownian], sk.RecordedBrownian] = lambda path: path) -> Tensor:
    r"""Standard scores of what a conditional mean obeys; seed 11.

    With M for the mean given the coarse nodes and M′ for that given finer ones, M′ − M has mean zero, also when
    weighted by what the coarse nodes know; and E|M′ − M|² is the difference of what both leave.
    """
    m = noises(problem)
    x = problem.initial.sample(SAMPLES)
    fine = sk.BrownianGrid.on(FINE, (SAMPLES, m), seed=11, levy="space-time")
    pieces = [fine.increment(s, t) for s, t in pairwise(NODES)]
    w, h = torch.stack([p.w for p in pieces]), torch.stack([p.h for p in pieces])
    coarse = slip(sk.RecordedBrownian(NODES, w, h))
    gap = problem.path(x, fine) - problem.path(x, coarse)
    gap = gap[:, 1]  # the first state is known
    left = problem.unresolved(NODES) - problem.unresolved(FINE)
    known = [w[k, :, 0] for k in range(3)] + [h[k, :, -1] for k in range(3)]
    products = [known[i] * known[j] for i in range(6) for j in range(i, 6)]
    trials = torch.stack([gap, gap.square() - left, *(gap * f for f in (*known, *products))])
    return trials.mean(1) / (trials.std(1) / SAMPLES**0.5)


@pytest.mark.parametrize("name", AVERAGED)
def test_a_mean_given_the_nodes_is_one(name):
    """29 scores per problem."""
    assert float(scores(LIBRARY[name]).abs().max()) < 6.0


def flipped(path: sk.RecordedBrownian) -> sk.RecordedBrownian:
    n = len(path.times) - 1
    return sk.RecordedBrownian(path.times, path.fine(0, n), -path.fine_levy(0, n))


@pytest.mark.parametrize("name", AVERAGED)
def test_slips_in_a_conditional_mean_are_seen(name):
    problem = LIBRARY[name]
    assert float(scores(problem, flipped).abs().max()) > 20.0
    halved = replace(problem, unresolved=lambda times: 0.5 * problem.unresolved(times))
    assert float(scores(halved).abs().max()) > 20.0
    shifted = replace(problem, path=lambda x, p: problem.path(x, p) - 0.05 * (len(p.times) == len(NODES)))
    assert float(scores(shifted).abs().max()) > 20.0


def test_what_the_nodes_leave():
    """7/900 h⁴ for the square, h²/12 for the area; on the nonautonomous square by a brute-force chaos expansion."""
    times = [0.0, 0.25, 0.5, 1.0]
    fourth, second = (sum((t - s) ** p for s, t in pairwise(times)) for p in (4, 2))
    assert LIBRARY["square"].unresolved(times) == pytest.approx(7 / 900 * fourth, rel=1e-12)
    assert LIBRARY["heisenberg"].unresolved(times) == pytest.approx(second / 12, rel=1e-14)
    assert LIBRARY["nonautonomous-square"].unresolved([0.0, 1.0]) == pytest.approx(chaos_left(400), rel=1e-4)


def chaos_left(n: int) -> float:
    """X₂ = E X₂ + ∬ κ dW dW, κ(u, v) = g(u) g(v) ∫_{u ∨ v}^1 c; the part of κ outside span(1, ½ − u)⊗², on n cells."""
    u = (np.arange(n) + 0.5) / n
    later = np.maximum(u[:, None], u)
    kernel = np.outer(1 + u, 1 + u) * ((2 - 0.5) - (2 * later - 0.5 * later**2))
    basis = np.linalg.qr(np.stack([np.ones(n), 0.5 - u], axis=1))[0]
    left = kernel - basis @ (basis.T @ kernel @ basis) @ basis.T
    return float(2.0 * (left**2).sum() / n**2)


# --- means of functionals ---------------------------------------------------------------------------


def by_quadrature(problem: Problem) -> Tensor:
    """Means of the functionals over the closed form, by Gauss–Hermite or adaptive quadrature in W."""
    T, x0, (a, b) = end(problem), problem.initial.mean[None], problem.path.rate
    sd = float(quad(lambda t: (a + b * t) ** 2, 0.0, T)[0] ** 0.5)
    m = noises(problem)

    def value(z: np.ndarray) -> np.ndarray:
        y = torch.from_numpy(sd * z)
        return problem.weak.functional(problem.path.solution(T, y, x0.expand(len(y), -1))).numpy()

    if m == 1:
        density = lambda z: np.exp(-0.5 * z * z) / (2 * np.pi) ** 0.5  # noqa: E731
        count = len(problem.weak.expectation)
        each = [
            quad(lambda z, k=k: density(z) * value(np.array([[z]]))[0, k], -12, 12, epsabs=1e-13, limit=400)[0]
            for k in range(count)
        ]
        return torch.tensor(each, dtype=torch.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    pairs = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    return torch.from_numpy(np.outer(weights, weights).reshape(-1) @ value(pairs) / weights.sum() ** 2)


@pytest.mark.parametrize("name", CLOSED)
def test_means_by_quadrature_over_the_path(name):
    problem = LIBRARY[name]
    torch.testing.assert_close(by_quadrature(problem), problem.weak.expectation, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LINEAR)
def test_means_by_the_moment_equations(name):
    """m′ = A m + a and S′ = A S + S Aᵀ + a mᵀ + m aᵀ + Σ E[g gᵀ], integrated numerically."""
    problem, c = LIBRARY[name], LIBRARY[name].linear
    A, a, B, b = (v.numpy() for v in (c.A, c.a, c.B, c.b))
    d, mean = len(A), problem.initial.mean.numpy()

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        m, S = y[:d], y[d:].reshape(d, d)
        spread = sum(
            Bi @ S @ Bi.T + np.outer(Bi @ m, bi) + np.outer(bi, Bi @ m) + np.outer(bi, bi)
            for Bi, bi in zip(B, b, strict=True)
        )
        return np.concatenate([A @ m + a, (A @ S + S @ A.T + np.outer(a, m) + np.outer(m, a) + spread).reshape(-1)])

    start = np.concatenate([mean, (np.outer(mean, mean) + problem.initial.covariance.numpy()).reshape(-1)])
    y = solve_ivp(slope, (0.0, end(problem)), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    S = y[d:].reshape(d, d)
    wanted = np.concatenate([y[:d], S[np.triu_indices(d)]])
    np.testing.assert_allclose(problem.weak.expectation.numpy(), wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["square", "nonautonomous-square"])
def test_means_of_squares_by_the_generator(name):
    """With L = ½ g² ∂₁² + c x₁² ∂₂ the moments (x₁², x₁⁴, x₂, x₁² x₂, x₂²) are a closed system."""
    g, c = (lambda t: 1 + t, lambda t: 2 - t) if "non" in name else (lambda t: 1.0, lambda t: 1.0)

    def slope(t: float, y: np.ndarray) -> list[float]:
        return [g(t) ** 2, 6 * g(t) ** 2 * y[0], c(t) * y[0], g(t) ** 2 * y[2] + c(t) * y[1], 2 * c(t) * y[3]]

    y = solve_ivp(slope, (0.0, 1.0), [0.0] * 5, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    np.testing.assert_allclose(LIBRARY[name].weak.expectation.numpy(), y[2:], rtol=1e-10)


@pytest.mark.parametrize("name", ["additive-nonlinear", "double-well", "cir"])
def test_means_by_quadrature_over_the_law(name):
    problem = LIBRARY[name]
    density = getattr(problem.law, "density", None) or (lambda x: problem.law.log_prob(x).exp())
    middle, reach = float(problem.law.mean), 12.0 * float(problem.law.variance) ** 0.5
    x = torch.linspace(middle - reach, middle + reach, 20_001, dtype=torch.float64)[:, None]
    mass = density(x).reshape(-1) * (x[1, 0] - x[0, 0])
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(mass @ problem.weak.functional(x), problem.weak.expectation, rtol=1e-11, atol=1e-12)


# --- laws -------------------------------------------------------------------------------------------


def generator_defect(law_at: Callable[[float], sk.GaussianMixture], problem: Problem, t: float) -> float:
    """d/dt E h(X) − E[f h′ + ½ g² h″] for h = sin, x² and cos 2x; the derivative by differences of order 4."""
    x = torch.linspace(-25.0, 25.0, 20_001, dtype=torch.float64)[:, None]
    dx = float(x[1, 0] - x[0, 0])
    tests = [
        (torch.sin, torch.cos, lambda y: -torch.sin(y)),
        (lambda y: y * y, lambda y: 2 * y, lambda y: 2 * torch.ones_like(y)),
        (lambda y: torch.cos(2 * y), lambda y: -2 * torch.sin(2 * y), lambda y: -4 * torch.cos(2 * y)),
    ]
    f, g = problem.sde.drift(t, x), problem.sde.diffusion(t, x)
    p = {s: law_at(t + s).log_prob(x).exp() * dx for s in (-2e-3, -1e-3, 0.0, 1e-3, 2e-3)}
    worst = 0.0
    for h, first, second in tests:
        m = {s: float(v @ h(x)[:, 0]) for s, v in p.items()}
        slope = (8 * (m[1e-3] - m[-1e-3]) - (m[2e-3] - m[-2e-3])) / 12e-3
        worst = max(worst, abs(slope - float(p[0.0] @ (f * first(x) + 0.5 * g * g * second(x))[:, 0])))
    return worst


def test_the_law_of_the_nonlinear_additive_problem():
    problem = LIBRARY["additive-nonlinear"]
    for t in (0.3, 0.6, 0.9):
        assert generator_defect(benes_law, problem, t) < 1e-9
    early = sk.sde(lambda t, x: problem.sde.drift(t - 0.01, x), problem.sde.diffusion, "additive")
    assert generator_defect(benes_law, replace(problem, sde=early), 0.3) > 1e-3
    start = benes_law(1e-12)
    assert float(start.mean) == pytest.approx(float(problem.initial.mean), abs=1e-9)


def test_the_double_well_is_in_equilibrium():
    """The score of the law is f/D to rounding over 20 decades of the density; D = ¼, figures by adaptive quadrature."""
    problem = LIBRARY["double-well"]
    x = torch.linspace(-2.3, 2.3, 47, dtype=torch.float64)[:, None]
    torch.testing.assert_close(problem.law.score(x), problem.sde.drift(0.0, x) / 0.25, rtol=1e-10, atol=1e-10)
    mass = lambda a, b: quad(lambda x: np.exp(2 * x**2 - x**4 - 1), a, b, epsabs=1e-300, epsrel=1e-12)[0]  # noqa: E731
    for a in (-2.2, -1.0, 0.3):
        assert float(problem.law.cdf(a)) == pytest.approx(mass(-5, a) / mass(-5, 5), rel=1e-11)
    assert float(problem.weak.expectation[0]) == pytest.approx(0.832745487128, abs=1e-12)
    assert float(problem.law.cdf(0.5) - problem.law.cdf(-0.5)) == pytest.approx(0.219437266058, abs=1e-12)


@pytest.mark.parametrize("s", [0.15, 0.3, 2.0])
def test_the_law_of_cir(s):
    """Moments by their equations; quantiles invert both tails; s = 2 violates Feller's condition."""
    problem = cox_ingersoll_ross(s)
    first = 0.5 + 0.5 * np.exp(-2.0)
    spread = s**2 * (np.exp(-2.0) - np.exp(-4.0)) / 2 + 0.5 * s**2 / 4 * (1 - np.exp(-2.0)) ** 2
    torch.testing.assert_close(
        problem.weak.expectation, torch.tensor([first, spread + first**2]).double(), rtol=1e-12, atol=0.0
    )
    p = torch.tensor([1e-12, 1e-6, 0.01, 0.3, 0.5], dtype=torch.float64)
    law, scale = problem.law, float(problem.law.variance.sqrt())
    for upper, tail in ((False, law.cdf), (True, law.sf)):
        x = law.quantile(p, upper=upper)
        missed = (tail(x) - p).abs() / law.density(x) / scale
        assert float(missed[2:].max()) < 1e-11
        if s < 1.0:
            assert float(missed.max()) < 1e-11
    tests = ("mean", "variance", "ks", "chi-square")
    assert sk.metrics.hold(law.sample(5000, seed=4), law, tests=tests).accepted
    assert not sk.metrics.hold(law.sample(5000, seed=4) + 0.2 * scale, law, tests=tests).accepted


def test_the_law_of_the_rotation():
    law = LIBRARY["rotation"].law
    i, j = torch.triu_indices(2, 2)
    second = law.covariance + torch.outer(law.mean, law.mean)
    torch.testing.assert_close(torch.cat([law.mean, second[i, j]]), LIBRARY["rotation"].weak.expectation)


@pytest.mark.parametrize("name", ["additive-decay", "cir", "rotation"])
def test_a_law_is_that_of_an_independent_simulation(name):
    """4000 paths of 400 steps of Euler–Maruyama, seed 6; the bias, of order 1/400, is far below 6 errors."""
    problem, n = LIBRARY[name], 4000
    x = problem.initial.sample(n, seed=6)
    run = sk.solve(problem.sde, x, problem.grid(400), "euler-maruyama", noise=6).final
    values = problem.weak.functional(run)
    z = (values.mean(0) - problem.weak.expectation) / values.std(0) * n**0.5
    assert float(z.abs().max()) < 6.0


def test_the_flow_of_the_nonautonomous_equation():
    problem = LIBRARY["nonautonomous-ode"]
    x = problem.initial.sample(6, seed=2)
    slope = lambda t, y: problem.sde.drift(t, torch.from_numpy(y)[:, None])[:, 0].numpy()  # noqa: E731
    found = solve_ivp(slope, (0.0, 1.0), x[:, 0].numpy(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    np.testing.assert_allclose(problem.flow(x)[:, 0].numpy(), found, rtol=1e-10)


# --- traps: methods, right and wrong ----------------------------------------------------------------


@dataclass(frozen=True)
class Taylor(StepMethod):
    r"""$x + f h + g\,\Delta W + \sum_{ij} (Dg_j g_i) \hat I_{ij}$, with slips to plant.

    ``ito`` weighs the h of $\hat I_{ii} = \frac12 (W_i^2 - h)$; ``mixed`` the terms i ≠ j; ``area`` the mean
    $H_i W_j - W_i H_j$ of the Lévy area; ``transposed`` takes Jᵀg; ``implicit`` is the weight of the new end in the
    drift.
    """

    ito: float = 1.0
    second: float = 1.0
    mixed: float = 1.0
    area: float = 0.0
    transposed: bool = False
    implicit: float = 0.0

    @property
    def spec(self) -> Spec:
        kind = "space-time" if self.area else "w"
        return Spec("taylor", "for this test", ("kloeden1992",), "step", 1, noise_types=ALL_NOISE, increments=kind)

    def step(self, sde, t0, t1, x, increment, memory):
        h, w = t1 - t0, increment.w
        g = lambda y: self._columns(sde, t0, y)  # noqa: E731
        G = g(x)
        m = G.shape[-1]
        moved = (G * w[:, None, :]).sum(-1)
        for i in range(m):
            for j in range(m):
                of = lambda y, j=j: g(y)[..., j]  # noqa: E731
                push = vjp(of, x)[1](G[..., i])[0] if self.transposed else jvp(of, (x,), (G[..., i],))[1]
                weight = 0.5 * (w[:, i] * w[:, j] - (self.ito * h if i == j else 0.0)) * (1 if i == j else self.mixed)
                if self.area and i != j:
                    weight = weight + self.area * (increment.h[:, i] * w[:, j] - w[:, i] * increment.h[:, j])
                moved = moved + self.second * weight[:, None] * push
        explicit = x + moved + (1 - self.implicit) * h * sde.drift(t0, x)
        if not self.implicit:
            return Step(explicit)
        A = jacfwd(lambda y: sde.drift(t1, y[None])[0])(x[0])  # of a linear drift
        return Step(torch.linalg.solve(torch.eye(len(A)).double() - self.implicit * h * A, explicit[..., None])[..., 0])

    @staticmethod
    def _columns(sde, t, x):
        g = sde.diffusion(t, x)
        if g.ndim == 3:
            return g
        return g[..., None] if sde.noise_type == "scalar" else torch.diag_embed(g)


MILSTEIN = Taylor()
EULER = Taylor(second=0.0)


def falls(name: str, stepper: StepMethod, steps: tuple[int, int] = (64, 256)) -> float:
    """The order between two step counts, from exact strong errors."""
    coarse, fine = (linear_errors(LIBRARY[name], stepper, n).strong for n in steps)
    return float(np.log(coarse / fine) / np.log(steps[1] / steps[0]))


@pytest.mark.parametrize(
    ("name", "right", "wrong", "orders"),
    [
        ("gbm", MILSTEIN, Taylor(ito=0.0), (1.0, 0.0)),
        ("gbm", MILSTEIN, EULER, (1.0, 0.55)),
        ("gbm-martingale", MILSTEIN, Taylor(ito=-1.0), (1.0, 0.0)),
        ("kubo", MILSTEIN, Taylor(ito=0.0), (1.0, 0.0)),
        ("kubo", MILSTEIN, Taylor(transposed=True), (1.0, 0.5)),
        ("stiff", MILSTEIN, Taylor(ito=0.0), (1.0, 0.0)),
        ("commuting", MILSTEIN, Taylor(mixed=0.0), (1.0, 0.5)),
        ("commuting", MILSTEIN, Taylor(transposed=True), (1.0, 0.5)),
    ],
)
def test_traps_of_multiplicative_noise(name, right, wrong, orders):
    assert falls(name, right) == pytest.approx(orders[0], abs=0.06)
    assert falls(name, wrong) == pytest.approx(orders[1], abs=0.06)


def test_traps_of_a_martingale():
    """Noise must not move the mean: a Stratonovich method adds the drift ½ s² x, an error of e^{0.32} − 1 = 0.377."""
    martingale = LIBRARY["gbm-martingale"]
    assert falls("gbm-martingale", EULER, (16, 32)) == pytest.approx(0.5, abs=0.02)
    assert linear_errors(martingale, EULER, 256).weak < 0.01
    assert linear_errors(martingale, Taylor(ito=0.0), 256).weak > 0.377


def test_traps_of_the_transposed_jacobian():
    assert linear_errors(LIBRARY["nilpotent"], MILSTEIN, 16).strong < 1e-14
    assert falls("nilpotent", Taylor(transposed=True)) == pytest.approx(0.5, abs=0.01)


def test_traps_of_the_area():
    """On T = 1: √(h/2), ½ √h, √(h/12), and √(3h/4) with the area's sign turned."""
    h = 1 / 16
    wanted = {EULER: h / 2, MILSTEIN: h / 4, Taylor(area=1.0): h / 12, Taylor(area=-1.0): 3 * h / 4}
    for stepper, square in wanted.items():
        assert linear_errors(LIBRARY["heisenberg"], stepper, 16).strong == pytest.approx(square**0.5, rel=1e-9)


def test_traps_of_matrices_that_do_not_commute():
    """Order ½ without areas, whatever is claimed; with their means it stays ½, but the error tells right from wrong."""
    assert falls("noncommuting", MILSTEIN, (256, 1024)) == pytest.approx(0.5, abs=0.03)
    none, right, wrong = (linear_errors(LIBRARY["noncommuting"], Taylor(area=a), 64).strong for a in (0.0, 1.0, -1.0))
    assert right < 0.75 * none
    assert wrong > 1.5 * none


@pytest.mark.statistical
def test_traps_of_stiffness():
    """4 steps: h·30 = 7.5."""
    explicit, weak, implicit = (Taylor(second=0.0, implicit=a) for a in (0.0, 0.2, 1.0))
    assert linear_errors(LIBRARY["stiff"], explicit, 4).strong > 100.0
    assert linear_errors(LIBRARY["stiff"], weak, 4).strong > 1.0
    assert linear_errors(LIBRARY["stiff"], implicit, 4).strong < 0.1


def coupled(problem: Problem, stepper: StepMethod | str, steps: tuple[int, ...], samples: int = 1000) -> list[float]:
    """Root mean square errors on shared paths, seed 7; on these problems they are known to a few per cent."""
    x = problem.initial.sample(samples)
    finest = problem.grid(steps[-1])
    path = sk.BrownianGrid.on(finest, (samples, noises(problem)), seed=7, levy="space-time")
    exact = problem.path(x, path)
    left = 0.0 if problem.unresolved is None else problem.unresolved(path.times)
    runs = [sk.solve(problem.sde, x, problem.grid(n), stepper, noise=path).final for n in steps]
    return [float(((run - exact).square().sum(1).mean() + left).sqrt()) for run in runs]


def slope(problem: Problem, stepper: StepMethod | str, steps: tuple[int, int] = (16, 64)) -> float:
    coarse, fine = coupled(problem, stepper, steps)
    return float(np.log(coarse / fine) / np.log(steps[1] / steps[0]))


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["sinh", "arctan"])
def test_traps_of_the_ito_correction(name):
    """Seed 7; over seeds the standard deviation is 0.04, with heavy tails: the margin is six of them."""
    assert slope(LIBRARY[name], MILSTEIN) == pytest.approx(1.0, abs=0.25)
    assert slope(LIBRARY[name], Taylor(ito=0.0)) < 0.15


@dataclass(frozen=True)
class SRA1(StepMethod):
    r"""Rößler's SRA1, with the scale of H, the nodes of the noise and the node of the second drift to play with."""

    scale: float = 1.0
    noise: tuple[float, float] = (1.0, 0.0)
    node: float = 0.75
    spec = Spec("sra1", "for this test", ("rossler2010",), "step", 2, noise_types=ALL_NOISE, increments="space-time")

    def step(self, sde, t0, t1, x, increment, memory):
        h, w = t1 - t0, increment.w
        z = 0.5 * w + self.scale * increment.h  # I_(1,0)/h
        first, second = (sde.diffusion(t0 + c * h, x) for c in self.noise)
        act = lambda g, v: (g * v[:, None, :]).sum(-1) if g.ndim == 3 else g * v  # noqa: E731
        f = sde.drift(t0, x)
        inner = sde.drift(t0 + self.node * h, x + 0.75 * h * f + 1.5 * act(first, z))
        return Step(x + h * (f / 3 + 2 * inner / 3) + act(first, w - z) + act(second, z))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("square", SRA1(scale=3.0**0.5)),
        ("square", "euler-maruyama"),
        ("nonautonomous-square", SRA1(noise=(0.0, 1.0))),
        ("nonautonomous-square", SRA1(node=0.0)),
    ],
)
def test_traps_of_order_one_and_a_half(name, wrong):
    """Seed 7: 1.5 and 1; over seeds the standard deviation is 0.03 at most."""
    assert slope(LIBRARY[name], SRA1(), (64, 256)) == pytest.approx(1.5, abs=0.2)
    assert slope(LIBRARY[name], wrong, (64, 256)) == pytest.approx(1.0, abs=0.2)


def test_an_autonomous_problem_hides_wrong_nodes():
    assert slope(LIBRARY["square"], SRA1(noise=(0.0, 1.0), node=0.0)) == pytest.approx(1.5, abs=0.2)


@pytest.mark.statistical
def test_the_constant_of_sra1():
    """h^{3/2}/√30 on the square; 4000 paths, seed 7: over seeds 1.002 with a standard deviation of 0.009."""
    (error, _) = coupled(LIBRARY["square"], SRA1(), (16, 32), 4000)
    assert error * 16**1.5 * 30**0.5 == pytest.approx(1.0, abs=0.1)


@dataclass(frozen=True)
class Geometric(StepMethod):
    """x exp(…) by the midpoint rule, with the noise affine between the ends that are named."""

    ends: tuple[float, float] = (0.0, 1.0)
    middle: float = 0.5
    spec = Spec(
        "geometric", "for this test", ("kloeden1992",), "step", 1, noise_types=ALL_NOISE, increments="space-time"
    )

    def step(self, sde, t0, t1, x, increment, memory):
        h = t1 - t0
        rate = lambda c: sde.diffusion(t0 + c * h, x) / x  # noqa: E731
        low, high = (rate(c) for c in self.ends)
        drift = sde.drift(t0 + self.middle * h, x) / x - 0.5 * rate(self.middle) ** 2
        return Step(x * torch.exp(drift * h + low * increment.w + (high - low) * (0.5 * increment.w - increment.h)))


def test_traps_of_time_in_multiplicative_noise():
    """Seed 7: order 2, and 1 with the drift or the noise taken at the start of the step."""
    problem = LIBRARY["nonautonomous-gbm"]
    assert slope(problem, Geometric()) == pytest.approx(2.0, abs=0.1)
    assert slope(problem, Geometric(middle=0.0)) == pytest.approx(1.0, abs=0.15)
    assert slope(problem, Geometric(ends=(0.0, 0.0))) == pytest.approx(1.0, abs=0.15)


@dataclass(frozen=True)
class Trapezoid(StepMethod):
    """Heun's method with the mean of the noise at both ends, or the noise at one."""

    ends: tuple[float, float] = (0.0, 1.0)
    spec = Spec("trapezoid", "for this test", ("kloeden1992",), "step", 2, noise_types=ALL_NOISE)

    def step(self, sde, t0, t1, x, increment, memory):
        h = t1 - t0
        g = sum(0.5 * sde.diffusion(t0 + c * h, x) for c in self.ends)
        moved = g * increment.w if g.ndim == 2 else (g * increment.w[:, None, :]).sum(-1)
        f = sde.drift(t0, x)
        return Step(x + moved + 0.5 * h * (f + sde.drift(t1, x + h * f + moved)))


def test_a_flattering_problem_flatters():
    """A method of strong order 1 with W alone looks like order 2 on additive-decay; the noise at one end shows."""
    flattering = LIBRARY["additive-decay"]
    assert slope(flattering, Trapezoid()) == pytest.approx(2.0, abs=0.1)
    assert slope(flattering, Trapezoid((0.0, 0.0))) == pytest.approx(1.0, abs=0.1)
    rotation = LIBRARY["rotation"]
    errors = [sk.verify.strong_error(rotation.sde, Trapezoid(), rotation.grid(n), rotation.initial) for n in (32, 128)]
    assert np.log(errors[0].error / errors[1].error) / np.log(4) == pytest.approx(1.0, abs=0.02)


def w2(problem: Problem, **changed: object) -> list[float]:
    """W2 of Euler–Maruyama with 16 and 32 steps, on a changed SDE."""
    other = replace(problem, sde=sk.sde(**{"drift": problem.sde.drift, "diffusion": problem.sde.diffusion, **changed}))
    return [law_error(other, "euler-maruyama", n) for n in (16, 32)]


def test_traps_of_laws():
    """Order 1 as it should be; a plateau where a field is wrong."""
    moved, well, rotation = (LIBRARY[n] for n in ("additive-nonlinear", "double-well", "rotation"))
    for problem in (moved, well, rotation):
        coarse, fine = w2(problem, noise_type="additive")
        assert 1.85 < coarse / fine < 2.15
        assert fine < 0.1
    late = {"drift": lambda t, x: moved.sde.drift(t + 0.1, x)}
    coarse, fine = w2(moved, noise_type="additive", **late)
    assert coarse < 1.5 * fine
    weak = {"diffusion": lambda t, x: torch.full_like(x, 0.5)}  # √D for √(2D)
    assert min(w2(well, noise_type="additive", **weak)) > 0.05
    theta = rotation.sde.theta
    turned = sk.OU(theta.T, rotation.sde.mu, rotation.sde.sigma)
    assert min(w2(rotation, noise_type="additive", drift=turned.drift)) > 0.1


def test_traps_of_large_states_and_negative_ones():
    """Explicit steps explode in the tails of the double well and leave the half line of CIR; seed 8."""
    well, cir = LIBRARY["double-well"], cox_ingersoll_ross(2.0)
    far = torch.full((4, 1), 8.0, dtype=torch.float64)
    exploded = sk.solve(well.sde, far, well.grid(16), "euler-maruyama", noise=8)
    assert bool((exploded.status != sk.Status.SUCCESS).all())
    tamed = sk.sde(lambda t, x: (x - x**3) / (1 + (x - x**3).abs() / 16), well.sde.diffusion, "additive")
    assert float(sk.solve(tamed, far, well.grid(16), "euler-maruyama", noise=8).check().final.abs().max()) < 8.0
    x = cir.initial.sample(200)
    left = sk.solve(cir.sde, x, cir.grid(32), "euler-maruyama", noise=8)
    assert bool((left.status != sk.Status.SUCCESS).any())
    truncated = sk.sde(cir.sde.drift, lambda t, x: 2.0 * x.clamp(min=0.0).sqrt())
    sk.solve(truncated, x, cir.grid(32), "euler-maruyama", noise=8).check()


@dataclass(frozen=True)
class Stages(StepMethod):
    """The classical Runge–Kutta method with stages at these times."""

    nodes: tuple[float, ...] = (0.0, 0.5, 0.5, 1.0)
    spec = Spec("stages", "for this test", ("kloeden1992",), "step", 4)

    def step(self, sde, t0, t1, x, increment, memory):
        h, slopes = t1 - t0, [torch.zeros_like(x)]
        for c, a in zip(self.nodes, (0.0, 0.5, 0.5, 1.0), strict=True):
            slopes.append(sde.drift(t0 + c * h, x + a * h * slopes[-1]))
        return Step(x + h / 6 * (slopes[1] + 2 * slopes[2] + 2 * slopes[3] + slopes[4]))


@pytest.mark.parametrize(("nodes", "order"), [((0.0, 0.5, 0.5, 1.0), 4), ((0.0, 0.5, 0.5, 0.5), 1), ((0.0,) * 4, 1)])
def test_traps_of_nodes(nodes, order):
    estimate = sk.verify.order(LIBRARY["nonautonomous-ode"], Stages(nodes), "ode", (16, 32, 64, 128))
    assert estimate.local[-1] == pytest.approx(order, abs=0.1)


# --- the study --------------------------------------------------------------------------------------


def test_the_study_is_what_it_was():
    from sdekit.study.settings import CONVERGENCE

    assert not set(CONVERGENCE) & set(LIBRARY)
    assert {*CONVERGENCE, *LIBRARY, *TOLD} == set(problems.PROBLEMS)
