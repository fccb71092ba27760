r"""Every order that a ``Spec`` declares is measured, on problems where the error is known without sampling.

Laws: W2 between the exact law that the production solver produces and the true one, from the same start
(:func:`sdekit.verify.order`). Paths: :mod:`golden.strong`. Where nothing but coupled paths is left, the seed, the
number of paths and the margin are stated. An order may exceed its claim by no more than it may fall short: none of the
problems here is superconvergent. (Euler–Maruyama's law on VE would be on a log-SNR grid: see ``problems/reverse.py``.)
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from golden.strong import additive_error, multiplicative_errors

import sdekit as sk
from sdekit import problems
from sdekit.problems import Problem
from sdekit.problems.reverse import PROCESSES
from sdekit.steppers import registry
from sdekit.verify import OrderEstimate, fit_order, order

TOLERANCE = 0.02
SPECS = {name: cls.spec for name, cls in sk.STEPPERS.items()}


def etas(name: str, candidates: tuple[float, ...]) -> list[float]:
    low, high = SPECS[name].eta
    return [eta for eta in candidates if low <= eta <= high]


def claim(name: str, problem: Problem, weak: str) -> float:
    """The declared order of the law: of the ODE without noise, weak with it."""
    spec = SPECS[name]
    found = spec.ode if problem.sde.noise_type == "none" else spec.weak.get(weak)
    assert found is not None, f"{name} solves {problem.name} by its noise_types and eta, but declares no order there"
    return found


def hold(estimate: OrderEstimate, declared: float, tolerance: float = TOLERANCE) -> None:
    """The estimate is sharp, and it is what was declared; order infinity is an error of rounding at every level."""
    if declared == float("inf"):
        assert estimate.exact, f"measured {estimate}, declared exact: {estimate.errors}"
        return
    assert estimate.uncertainty <= tolerance, f"{estimate} is no measurement: {estimate.errors}"
    assert abs(estimate.order - declared) <= tolerance, f"measured {estimate}, declared {declared}: {estimate.local}"


def jagged(problem: Problem) -> Problem:
    """The same problem on steps as 1 : 3 : 2, taken out of its grid with twice as many; N is a multiple of 3."""

    def grid(steps: int) -> torch.Tensor:
        return problem.grid(2 * steps)[[0, *accumulate((1, 3, 2) * (steps // 3))]]

    return replace(problem, grid=grid)


# --- laws -------------------------------------------------------------------------------------------

APPROXIMATE = [name for name, spec in SPECS.items() if spec.kind != "exact"]
EXACT = [name for name, spec in SPECS.items() if spec.kind == "exact"]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("name", "eta"), [(n, e) for n in APPROXIMATE for e in etas(n, (0.0, 0.5, 1.0, 1.5))])
def test_law_on_gaussian_data(name, eta, process):
    problem = problems.get(f"{process}-gaussian", eta=eta)
    hold(order(problem, name), claim(name, problem, "linear-additive"))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("name", "eta"), [(n, e) for n in EXACT for e in etas(n, (0.0, 0.5, 1.0, 1.5))])
def test_exact_steppers_have_no_error(name, eta, process):
    problem = problems.get(f"{process}-gaussian", eta=eta)
    assert claim(name, problem, "linear-additive") == float("inf")
    hold(order(problem, name, steps=(1, 4, 64)), float("inf"))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("name", "eta"), [(n, e) for n in APPROXIMATE for e in etas(n, (0.0, 1.0))])
def test_law_on_a_mixture(name, eta, process):
    """Without noise the exact flow, with it transport of the density: Euler–Maruyama on VE needs 32 steps to settle."""
    problem = problems.get(f"{process}-mixture", eta=eta)
    if eta == 0.0:
        hold(order(problem, name, kind="ode"), claim(name, problem, "additive"))
        return
    steps = (32, 64, 128, 256, 512) if process == "ve" else (16, 32, 64, 128, 256)
    hold(order(problem, name, steps=steps), claim(name, problem, "additive"))


@pytest.mark.parametrize("problem", ["vp-gaussian", "ou-gaussian", "ve-gaussian", "vp-mixture", "ve-mixture"])
@pytest.mark.parametrize("name", [n for n in APPROXIMATE if etas(n, (0.0,))])
def test_flow_on_a_jagged_grid(name, problem):
    """Equal steps hide a wrong ratio of steps: with r = 1 throughout, a multistep method has order 1 here."""
    rough = jagged(problems.get(problem))
    hold(order(rough, name, steps=(48, 96, 192, 384, 768)), claim(name, rough, "linear-additive"))


@pytest.mark.parametrize("name", [n for n in APPROXIMATE if etas(n, (1.0,))])
def test_noise_on_a_jagged_grid(name):
    rough = jagged(problems.get("vp-gaussian", eta=1.0))
    hold(order(rough, name, steps=(24, 48, 96, 192, 384)), claim(name, rough, "linear-additive"))


# --- paths, additive noise --------------------------------------------------------------------------

LEVEL = 0.25  # variance of the data on the line
DATA = sk.Gaussian([0.5], LEVEL)
STEPS = (16, 32, 64, 128, 256, 512)


def on_paths(problem_class: str) -> list[str]:
    """The steppers that declare a strong order there.

    Even one that is exact in law has order 1: it sees no more of a path than the increments between the times of its
    grid (Clark and Cameron 1980).
    """
    return [name for name, spec in SPECS.items() if problem_class in spec.strong]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", on_paths("linear-additive"))
def test_paths_of_a_linear_reverse_problem(name, eta, process):
    """ψ(s → t) = (α_s/α_t)^{η²} (v_t/v_s)^{(1+η²)/2} and K(u) = ψ(u → t) η g(u), with v = α²ℓ + σ²."""
    if not etas(name, (eta,)):
        return
    forward, grid = PROCESSES[process](), problems.get(f"{process}-gaussian").grid
    sde, schedule, s, t = sk.reverse_time(forward, sk.exact_score(DATA, forward), eta), forward.schedule, *grid(1)

    def psi(u: torch.Tensor) -> torch.Tensor:
        v, end = ((schedule.alpha(w) ** 2 * LEVEL + schedule.sigma(w) ** 2) for w in (u, t))
        return (schedule.alpha(u) / schedule.alpha(t)) ** eta**2 * (end / v) ** ((1 + eta**2) / 2)

    def kernel(u: np.ndarray) -> np.ndarray:
        w = torch.from_numpy(u)
        return (psi(w) * eta * schedule.diffusion_rate(w) ** 0.5).numpy()

    start = forward.marginal(DATA, float(s))
    end = float(forward.marginal(DATA, float(t)).mean - psi(s) * start.mean), float(psi(s))
    law = float(start.mean), float(start.variance)
    errors = [additive_error(sde, name, grid(n).tolist(), kernel, end, law) for n in STEPS]
    hold(fit_order(STEPS, errors), SPECS[name].strong["linear-additive"])


@pytest.mark.parametrize("name", on_paths("linear-additive"))
def test_paths_of_a_forward_process(name):
    """dx = θ(μ − x) dt + s dW: K(u) = s e^{−θ(T − u)}."""
    theta, mu, s, T = 1.3, 0.7, 0.9, 2.0
    sde, keep = sk.OU(theta, mu, s), float(np.exp(-theta * T))
    if registry.obstacle(SPECS[name], sde) is not None:
        return
    grids = [np.linspace(0.0, T, n + 1).tolist() for n in STEPS]
    kernel = lambda u: s * np.exp(-theta * (T - u))  # noqa: E731
    errors = [additive_error(sde, name, grid, kernel, ((1 - keep) * mu, keep), (0.5, LEVEL)) for grid in grids]
    hold(fit_order(STEPS, errors), SPECS[name].strong["linear-additive"])


PATHS, SEED = 2048, 20_260_202
FINE = 4096


@pytest.fixture(scope="module")
def reference():
    """The problem, a Brownian path, a start, and Euler–Maruyama's answer with 4096 steps on that path."""
    problem = problems.get("vp-mixture", eta=1.0)
    finest = problem.grid(FINE)
    path = sk.BrownianGrid.on(finest, (PATHS, 1), seed=SEED)
    x = problem.initial.sample(PATHS, seed=SEED)
    return problem, path, x, sk.solve(problem.sde, x, finest, "euler-maruyama", noise=path).final


@pytest.mark.parametrize("name", [n for n in APPROXIMATE if "additive" in SPECS[n].strong])
def test_paths_of_a_nonlinear_reverse_problem(name, reference):
    """2048 coupled paths. Over seeds the order has a standard deviation of 0.04; the margin 0.15 is nearly four.

    The reference biases it by log₂(63/31) − 1 = 0.023 at most.
    """
    problem, path, x, exact = reference
    steps = (8, 16, 32, 64, 128)
    runs = [sk.solve(problem.sde, x, problem.grid(n), name, noise=path).final for n in steps]
    errors = [float((run - exact).square().mean().sqrt()) for run in runs]
    hold(fit_order(steps, errors), SPECS[name].strong["additive"], 0.15)


# --- paths and moments, multiplicative noise --------------------------------------------------------

LINEAR = {
    "diagonal": ([[0.3, 0.2], [-0.1, 0.4]], [[[0.5, 0], [0, 0]], [[0, 0], [0, 0.7]]]),
    "commutative": ([[-1, 0.5], [0, -0.7]], [[[0.4, 0.3], [0, 0.4]], [[0.2, -0.5], [0, 0.2]]]),
    "general": ([[-1, 0.5], [0, -0.7]], [[[0.5, 0.2], [0, 0.1]], [[0.1, 0], [0.6, -0.3]]]),
}


@pytest.mark.parametrize("structure", LINEAR)
@pytest.mark.parametrize("name", [n for n in APPROXIMATE if SPECS[n].strong.keys() & LINEAR.keys()])
def test_paths_and_moments_under_multiplicative_noise(name, structure):
    """Exact for linear equations with two noises: elementwise, commuting, and neither."""
    A, B = (np.array(v, dtype=float) for v in LINEAR[structure])
    start = np.array([1.0, 0.5])
    pairs = [multiplicative_errors(A, B, structure == "diagonal", name, n, start) for n in STEPS]
    strong, weak = zip(*pairs, strict=True)
    hold(fit_order(STEPS, strong, floor=1e-8), SPECS[name].strong[structure])
    hold(fit_order(STEPS, weak, floor=1e-13), SPECS[name].weak[structure])


def gbm_square_error(n: int, mu: float = 0.5, s: float = 0.8) -> float:
    """E(Y − X)² of Euler–Maruyama at time 1: the three products of second moments are geometric."""
    h = 1.0 / n
    yy, xy, xx = (1 + mu * h) ** 2 + s**2 * h, np.exp(mu * h) * (1 + mu * h + s**2 * h), np.exp((2 * mu + s**2) * h)
    return float(yy**n - 2 * xy**n + xx**n)


def test_euler_maruyama_on_geometric_brownian_motion():
    """Coupled paths: seed 3, 4096 of them. At every level the mean square is within five of its standard errors."""
    problem, samples, seed = problems.get("gbm"), 4096, 3
    x = problem.initial.sample(samples, seed=seed)
    path = sk.BrownianGrid.on(problem.grid(512), (samples, 1), seed=seed)
    exact = problem.path(x, path.increment(0.0, 1.0).w)
    for n in (8, 64, 512):
        squares = (sk.solve(problem.sde, x, problem.grid(n), "euler-maruyama", noise=path).final - exact).square()
        assert abs(float(squares.mean()) - gbm_square_error(n)) < 5 * float(squares.std()) / samples**0.5
    hold(fit_order(STEPS, [gbm_square_error(n) ** 0.5 for n in STEPS], 1e-8), 0.5)


def test_the_measured_strong_order_of_euler_maruyama():
    """Seed 2, 4096 paths: half, within three of the uncertainties that the estimate states, and those are small."""
    estimate = order(problems.get("gbm"), "euler-maruyama", kind="strong", seed=2)
    assert estimate.uncertainty < 0.1
    assert abs(estimate.order - SPECS["euler-maruyama"].strong["diagonal"]) < 3 * estimate.uncertainty
