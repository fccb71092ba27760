"""The law of a stochastic run on the line: closed forms, orders, refusals; and faults that must be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit import grids
from sdekit.brownian import Increment
from sdekit.driver import solve
from sdekit.dynamics import SDE, sde, times_noise
from sdekit.errors import SdekitError
from sdekit.laws import Empirical, Gaussian, GaussianMixture
from sdekit.processes import VE, VP
from sdekit.reverse import Reverse, probability_flow, reverse_time
from sdekit.score import exact_score
from sdekit.steppers import DDIM, EulerMaruyama
from sdekit.steppers.base import Memory, Prepared, Spec, Step, StepMethod, Stepper
from sdekit.verify.transport import Density1D, transported_law

Law = Gaussian | GaussianMixture
MILD = GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], torch.tensor([[0.36], [0.25]], dtype=torch.float64))
NORMAL = Gaussian([0.5], torch.tensor([0.09], dtype=torch.float64))
PROCESSES = {"vp": VP(), "ve": VE(0.01, 50.0)}


@dataclass(frozen=True)
class Problem:
    """A reverse SDE with the exact score, and the exact laws at both ends of a grid."""

    process: VP | VE
    data: Law
    eta: float = 1.0

    @property
    def sde(self) -> Reverse:
        return reverse_time(self.process, exact_score(self.data, self.process), self.eta)

    def grid(self, steps: int) -> Tensor:
        return grids.log_snr(self.process, steps, t_min=0.02 if isinstance(self.process, VP) else None)

    def law(self, t: Tensor) -> Law:
        return self.process.marginal(self.data, float(t))

    def run(self, stepper: str | Stepper, steps: int, **options: float) -> Density1D:
        grid = self.grid(steps)
        return transported_law(self.sde, stepper, grid, self.law(grid[0]), **options)

    def error(self, stepper: str | Stepper, steps: int) -> float:
        return self.run(stepper, steps).wasserstein2(self.law(self.grid(steps)[-1]))


def coefficients(process: VP | VE, t: float) -> tuple[float, float, float, float]:
    """α, σ, d log α / dt and g² from the printed formulas."""
    if isinstance(process, VP):
        beta, alpha = 0.1 + 19.9 * t, math.exp(-0.05 * t - 0.25 * 19.9 * t * t)
        return alpha, math.sqrt(1 - alpha**2), -0.5 * beta, beta
    sigma = 0.01 * 5000.0**t
    return 1.0, sigma, 0.0, 2 * math.log(5000.0) * sigma**2


def recursion(problem: Problem, scheme: str, times: list[float]) -> tuple[float, float]:
    """Mean and variance on Gaussian data from the exact start: the affine maps of the schemes, written out."""
    m0, v0, eta2 = float(problem.data.mean), float(problem.data.covariance), problem.eta**2
    a, sig, _, _ = coefficients(problem.process, times[0])
    m, v = a * m0, a * a * v0 + sig * sig
    for s, t in pairwise(times):
        (a, sig, rate, g2), (at, sigt, _, _) = (coefficients(problem.process, r) for r in (s, t))
        total = a * a * v0 + sig * sig
        if scheme == "euler-maruyama":
            h, pull = s - t, 0.5 * (1 + eta2) * g2 / total
            slope, shift, noise = 1 - h * (rate + pull), h * pull * a * m0, eta2 * g2 * h
        else:
            fresh = eta2 * (1 - (a * sigt / (at * sig)) ** 2)
            rho, gain = math.sqrt(1 - fresh), a * v0 / total  # D = m0 + gain (x − a m0)
            onto = at - rho * a * sigt / sig
            slope, shift, noise = sigt / sig * rho + onto * gain, onto * m0 * (1 - gain * a), sigt**2 * fresh
        m, v = slope * m + shift, slope**2 * v + noise
    return m, v


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("scheme", ["euler-maruyama", "ddim"])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_gaussian_data_follow_the_recursion_of_the_scheme(name, scheme, eta):
    problem = Problem(PROCESSES[name], NORMAL, eta)
    law = problem.run(scheme, 24)
    mean, variance = recursion(problem, scheme, problem.grid(24).tolist())
    assert float(law.mean) == pytest.approx(mean, abs=1e-11)
    assert float(law.variance) == pytest.approx(variance, rel=1e-11)
    assert law.wasserstein2(Gaussian([mean], variance)) < 1e-11


@pytest.mark.parametrize("data", [MILD, NORMAL, Empirical([[-1.0], [0.3], [2.0]])])
@pytest.mark.parametrize("steps", [1, 8, 64])
def test_an_exact_stepper_leaves_only_the_floor(data, steps):
    process, grid = VP(), torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64) ** 2
    law = transported_law(process, "exact-linear", grid, data)
    assert law.wasserstein2(process.marginal(data, 1.0)) < 1e-12


def test_state_dependent_noise_and_several_noises_against_nested_quadrature():
    def diffusion(t: float, x: Tensor) -> Tensor:
        return torch.stack([0.5 + 0.2 * torch.tanh(x), torch.full_like(x, 0.3)], -1)

    def drift(x: np.ndarray) -> np.ndarray:
        return np.sin(x) - x

    problem = sde(lambda t, x: torch.sin(x) - x, diffusion, "general")
    law = transported_law(problem, "euler-maruyama", [0.0, 0.5, 1.2], Gaussian([0.4], 0.5))
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    x, weight = 0.4 + math.sqrt(0.5) * z, w
    for h in (0.5, 0.7):
        sd = np.sqrt((0.5 + 0.2 * np.tanh(x)) ** 2 + 0.09)
        x = (x + h * drift(x))[..., None] + math.sqrt(h) * sd[..., None] * z
        weight = weight[..., None] * w
    for power in (1, 2, 3, 4):
        own = float(torch.trapezoid(law.values * law.nodes**power, law.nodes))
        assert own == pytest.approx(float((weight * x**power).sum()), rel=1e-9)


@pytest.mark.statistical
def test_it_is_the_law_of_the_runs_of_solve():
    problem, n = Problem(VP(), MILD), 20_000
    grid = problem.grid(8)
    law = problem.run("euler-maruyama", 8)
    x = solve(problem.sde, problem.law(grid[0]).sample(n, seed=5), grid, "euler-maruyama", noise=6).final
    u = law.cdf(x.flatten()).sort().values
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    ks = float(torch.maximum((steps[1:] - u).max(), (u - steps[:-1]).max()))
    assert ks < 2.7 / math.sqrt(n)  # false-alarm rate 1e-6; the seed is fixed


# --- orders and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["euler-maruyama", "ddim"])
def test_w2_is_of_first_order_on_the_mild_mixture(scheme):
    errors = [Problem(VP(), MILD).error(scheme, n) for n in (16, 32, 64, 128, 256)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert 2 * slopes[-1] - slopes[-2] == pytest.approx(1.0, abs=0.005)
    assert all(abs(slope - 1) < 0.08 for slope in slopes)


@pytest.mark.parametrize("scheme", ["euler-maruyama", "ddim"])
def test_the_answer_does_not_depend_on_the_spacing(scheme):
    for process in PROCESSES.values():
        problem = Problem(process, MILD)
        usual, finer = problem.run(scheme, 16), problem.run(scheme, 16, spacing=0.25)
        assert usual.wasserstein2(finer) < 2e-10


def test_exploding_variance_starts_wide_and_ends_narrow():
    problem = Problem(VE(0.01, 50.0), MILD)
    errors = [problem.error("ddim", n) for n in (16, 32, 64)]
    assert errors == pytest.approx([0.179277, 0.0948902, 0.0488832], rel=1e-5)


# --- planted faults -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant(Stepper):
    """A stepper with a fault in every step, or with a step that does nothing."""

    stepper: Stepper
    fault: Callable[[int, Tensor, Tensor, Increment], Tensor]

    @property
    def spec(self) -> Spec:  # type: ignore[override]
        return self.stepper.spec

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        prepared = self.stepper.prepare(sde, times)

        def advance(k: int, x: Tensor, dw: Sequence[Increment], memory: Memory) -> tuple[Tensor, Any]:
            quiet = prepared.advance(k, x, [Increment(torch.zeros_like(d.w)) for d in dw], memory)[0]
            return self.fault(k, quiet, prepared.advance(k, x, dw, memory)[0], dw[0]), None

        return Prepared(prepared.draws, advance, prepared.noise_like_state)


FAULTS: dict[str, Callable[[int, Tensor, Tensor, Increment], Tensor]] = {
    "a variance where a deviation belongs": lambda k, quiet, noisy, dw: quiet + (noisy - quiet) * 0.9,
    "noise left out of the last step but 1 %": lambda k, quiet, noisy, dw: (
        quiet + (noisy - quiet) * (0.01 if k == 23 else 1)
    ),
    "a mean off by 1e-6": lambda k, quiet, noisy, dw: noisy + (1e-6 if k == 23 else 0.0),
}


@pytest.mark.parametrize("scheme", [EulerMaruyama(), DDIM()])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(scheme, fault):
    problem = Problem(VP(), NORMAL)
    truth = recursion(problem, scheme.spec.name, problem.grid(24).tolist())
    right, wrong = problem.run(scheme, 24), problem.run(Mutant(scheme, FAULTS[fault]), 24)
    golden = Gaussian([truth[0]], truth[1])
    assert right.wasserstein2(golden) < 1e-11
    assert wrong.wasserstein2(golden) > 5e-7
    assert wrong.wasserstein2(right) > 5e-7


@pytest.mark.parametrize("scheme", ["euler-maruyama", "ddim"])
def test_a_dropped_step_and_a_wrong_start_are_seen(scheme):
    problem = Problem(VP(), MILD)
    grid, right = problem.grid(24), problem.run(scheme, 24)
    dropped = torch.cat([grid[:10], grid[11:]])
    assert transported_law(problem.sde, scheme, dropped, problem.law(grid[0])).wasserstein2(right) > 1e-4
    prior = VP().prior((1,))
    assert transported_law(problem.sde, scheme, grid, prior).wasserstein2(right) > 1e-6
    repeated = torch.cat([grid[:10], grid[9:]])
    assert transported_law(problem.sde, scheme, repeated, problem.law(grid[0])).wasserstein2(right) == 0.0


# --- the density ----------------------------------------------------------------------------------


def test_density_knows_itself():
    law = Problem(VP(), MILD).run("ddim", 16)
    x = law.quantile(torch.tensor([1e-15, 1e-6, 0.2, 0.5, 0.8, 1 - 1e-6], dtype=torch.float64))
    mixture = GaussianMixture(law.weights, law.means[:, None], law.sds.square())
    torch.testing.assert_close(law.cdf(x), mixture.cdf(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(law.sf(x), mixture.sf(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(law.density(x), mixture.log_prob(x[:, None]).exp(), rtol=1e-12, atol=0)
    torch.testing.assert_close(law.quantile(law.sf(x[2:]), upper=True), x[2:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.density(law.nodes), law.values, rtol=1e-11, atol=1e-24)
    assert float(torch.trapezoid(law.values, law.nodes)) == pytest.approx(1.0, abs=1e-13)
    assert float(law.mean) == pytest.approx(float(mixture.mean), abs=1e-13)
    assert float(law.variance) == pytest.approx(float(mixture.variance), rel=1e-12)
    assert law.wasserstein2(law) == 0.0
    assert law.quantile(0.5).shape == ()
    assert law.cdf(torch.tensor([[-math.inf, math.inf]])).tolist() == [[0.0, pytest.approx(1.0)]]
    assert law.wasserstein2(x) > 0.1  # samples too


def test_runs_can_be_continued():
    problem = Problem(VP(), MILD)
    grid = problem.grid(12)
    half = transported_law(problem.sde, "ddim", grid[:7], problem.law(grid[0]))
    both = transported_law(problem.sde, "ddim", grid[6:], half)
    assert both.wasserstein2(problem.run("ddim", 12)) < 1e-12


def test_a_start_from_points_is_exact():
    problem = sde(lambda t, x: -x, lambda t, x: torch.ones_like(x))
    law = transported_law(problem, "euler-maruyama", [0.0, 0.1], Empirical([[1.0], [3.0]]))
    truth = GaussianMixture([0.5, 0.5], [[0.9], [2.7]], 0.1)
    assert law.wasserstein2(truth) < 1e-13


# --- refusals -------------------------------------------------------------------------------------


class Curved(StepMethod):
    """Adds ΔW² − h, as Milstein's method does."""

    spec = EulerMaruyama.spec

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        assert increment is not None
        w = increment.w
        return Step(x + sde.drift(t0, x) * (t1 - t0) + times_noise(sde.diffusion(t0, x), w) + 0.1 * (w**2 - t1 + t0))


class Remembering(StepMethod):
    """Two-step Adams–Bashforth drift."""

    spec = EulerMaruyama.spec

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        assert increment is not None
        drift = sde.drift(t0, x)
        used = drift if memory is None else 1.5 * drift - 0.5 * memory
        return Step(x + used * (t1 - t0) + times_noise(sde.diffusion(t0, x), increment.w), drift)


class NeedsMemory(Remembering):
    """Cannot take its second step without the first."""

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        if t0 > -0.999:
            assert memory[0] is not None
        taken = EulerMaruyama().step(sde, t0, t1, x, increment, None)
        return Step(taken.x, [x])


def test_steps_that_are_not_normal_or_not_alone_are_refused():
    problem = Problem(VP(), MILD)
    with pytest.raises(SdekitError, match="not affine in its noise"):
        problem.run(Curved(), 8)
    for stepper in (Remembering(), NeedsMemory()):
        with pytest.raises(SdekitError, match="one-step methods"):
            problem.run(stepper, 8)


def test_runs_without_noise_are_sent_to_the_quantile_flow():
    process, flow = VP(), probability_flow(VP(), exact_score(MILD, VP()))
    with pytest.raises(SdekitError, match=r"verify\.quantile_flow"):
        transported_law(flow, "ddim", grids.log_snr(process, 8), process.marginal(MILD, 1.0))
    still = sde(lambda t, x: -x, lambda t, x: torch.zeros_like(x))
    with pytest.raises(SdekitError, match="get no noise"):
        transported_law(still, "euler-maruyama", [0.0, 1.0], NORMAL)


def test_other_problems_are_refused():
    problem = Problem(VP(), MILD)
    plane = Gaussian([0.0, 0.0])
    with pytest.raises(SdekitError, match="for the line"):
        transported_law(reverse_time(VP(), exact_score(plane, VP())), "ddim", problem.grid(8), plane)
    with pytest.raises(SdekitError, match="did you mean 'ddim'"):
        problem.run("dim", 8)
    with pytest.raises(SdekitError, match="reverse-time SDE"):
        transported_law(problem.sde, "ddim", problem.grid(8).flip(0), MILD)
    faint = sde(lambda t, x: -x, lambda t, x: torch.full_like(x, 1e-9))
    with pytest.raises(SdekitError, match="nodes, more than"):
        transported_law(faint, "euler-maruyama", [0.0, 0.5, 1.0], NORMAL)
    atom = GaussianMixture([0.5, 0.5], [[0.0], [1.0]], torch.tensor([0.0, 1.0]))
    with pytest.raises(SdekitError, match="get no noise"):
        transported_law(VP(), "exact-linear", [0.1, 0.5], atom)
    broken = sde(lambda t, x: torch.where(x > 2, math.nan, -x), lambda t, x: torch.ones_like(x))
    with pytest.raises(SdekitError, match="NaN or Inf"):
        transported_law(broken, "euler-maruyama", [0.0, 0.5], NORMAL)
