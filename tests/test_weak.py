"""Exact weak errors: against closed forms and another algorithm, the orders they show, and the slips they see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import grids
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import uniform
from sdekit.problems.reverse import mild_mixture
from sdekit.steppers import Spec, Step, StepMethod
from sdekit.verify import fit_order, transported_law, trigonometric, weak_error
from sdekit.verify import weak as module

EVERY_NOISE = frozenset(("additive", "scalar", "diagonal"))


class Platen(StepMethod):
    """Platen's simplified scheme of weak order 2, as a third party would write it.

    References: [kloeden1992] (15.1.1), with a three-point variable for the increment.
    """

    spec = Spec(
        name="platen-weak-2",
        summary="simplified weak order 2",
        references=("kloeden1992",),
        kind="step",
        evaluations=2,
        weak={"additive": 2.0, "diagonal": 2.0, "commutative": 2.0},
        noise_types=EVERY_NOISE,
        increments="three-point",
    )

    def variable(self, w: Tensor) -> Tensor:
        return w

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        h, w = t1 - t0, self.variable(increment.w)
        a, b = sde.drift(t0, x), sde.diffusion(t0, x)
        up, down = (sde.diffusion(t1, x + a * h + sign * b * h**0.5) for sign in (1.0, -1.0))
        slope = 0.5 * (a + sde.drift(t1, x + a * h + b * w))
        return Step(x + slope * h + 0.25 * (up + down + 2.0 * b) * w + 0.25 * (up - down) * (w * w - h) / h**0.5)


class TwoForThree(Platen):
    """±√2 in place of ±√3: the second moment of the variable is wrong."""

    def variable(self, w: Tensor) -> Tensor:
        return w * (2.0 / 3.0) ** 0.5


class SignLost(Platen):
    """The variable is never negative."""

    def variable(self, w: Tensor) -> Tensor:
        return w.abs()


class Louder(sk.EulerMaruyama):
    """Noise off by 2 %."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(1.02 * increment.w), memory)


class AreaForgotten(sk.SRA1):
    """No space-time Lévy area."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(increment.w, 0.0 * increment.h), memory)


class DriftAtTheEnd(sk.EulerMaruyama):
    """The score at the wrong end of the step: still of order 1."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        return Step(x + (t1 - t0) * sde.drift(t1, x) + sde.diffusion(t0, x) * increment.w)


def mixture(eta: float = 1.0, end: float = 0.02) -> Problem:
    """VP back to the mild mixture; no functionals of its own."""
    process, data = sk.VP(), mild_mixture()
    return Problem(
        name="mild",
        summary="",
        detects="",
        sde=sk.reverse_time(process, sk.exact_score(data, process), eta),
        initial=process.marginal(data, 1.0),
        grid=lambda n: grids.log_snr(process, n, end, 1.0),
        law=process.marginal(data, end),
    )


def benes_in_the_plane() -> Problem:
    """dX = ∇log h dt + dW with h = Σ w cosh(a·x), |a| = 1: by Girsanov's theorem the law is a mixture of Gaussians."""
    a = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    w = torch.tensor([1.0, 0.7], dtype=torch.float64)
    start = torch.tensor([0.3, -0.2], dtype=torch.float64)

    def drift(t, x: Tensor) -> Tensor:
        return (w * torch.sinh(x @ a.T)) @ a / (w * torch.cosh(x @ a.T)).sum(1, keepdim=True)

    tilted = torch.cat([w * torch.exp(a @ start), w * torch.exp(-(a @ start))])
    law = sk.GaussianMixture(tilted / tilted.sum(), torch.cat([start + a, start - a]), torch.ones(4).double())
    answer = trigonometric(law, 4)
    noise = sk.sde(drift, lambda t, x: torch.ones_like(x), "additive")
    return Problem("benes-2d", "", "", noise, sk.Gaussian(start, 0.0), uniform(1.0), law=law, weak=answer)


def noncommuting(column: int = 1) -> Problem:
    """dX₁ = dW₁, dX₂ = X₁² dt + X₁ dW₂ from 0: the moments of a polynomial system that closes."""

    def diffusion(t, x: Tensor) -> Tensor:
        g = torch.zeros(len(x), 2, 2, dtype=x.dtype)
        g[:, 0, 0], g[:, 1, column] = 1.0, x[:, 0]
        return g

    def drift(t, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[:, 0]), x[:, 0] ** 2], dim=1)

    def functional(x: Tensor) -> Tensor:
        return torch.stack([x[:, 1], x[:, 0] ** 2 * x[:, 1], x[:, 1] ** 2], dim=1)

    answer = WeakAnswer(functional, torch.tensor([1 / 2, 7 / 6, 13 / 12], dtype=torch.float64))
    equation = sk.sde(drift, diffusion, "general")
    return Problem("noncommuting-square", "", "", equation, sk.Gaussian([0.0, 0.0], 0.0), uniform(1.0), weak=answer)


def measured(problem, stepper, steps):
    found = [weak_error(problem, stepper, n) for n in steps]
    assert all(e.accuracy < 0.01 * e.norm for e in found)
    return fit_order(steps, [e.norm for e in found], 1e-10)


# Against closed forms and another algorithm


def gbm_moments(n: int, exact: Tensor) -> Tensor:
    """Of Euler–Maruyama on dX = 1.5 X dt + 0.5 X dW from 1 at time 1, less those of the solution."""
    h = 1.0 / n
    factors = torch.tensor([1.0 + 1.5 * h, (1.0 + 1.5 * h) ** 2 + 0.25 * h], dtype=torch.float64)
    return factors**n - exact


@pytest.mark.parametrize("n", [1, 2, 16])
def test_moments_of_euler_maruyama_on_gbm(n):
    exact = torch.tensor([math.exp(1.5), math.exp(3.25)], dtype=torch.float64)
    answer = WeakAnswer(lambda x: torch.cat([x, x * x], dim=1), exact)
    gbm = sk.sde(lambda t, x: 1.5 * x, lambda t, x: 0.5 * x)
    problem = Problem("gbm", "", "", gbm, sk.Gaussian([1.0], 0.0), uniform(1.0), weak=answer)
    found = weak_error(problem, "euler-maruyama", n)
    torch.testing.assert_close(found.errors, gbm_moments(n, exact), rtol=0.0, atol=max(1e-9, found.accuracy))


@pytest.mark.parametrize("n", [1, 4, 8])
def test_moments_of_euler_maruyama_in_the_plane(n):
    """With t = k/n: E X₂ = Σ h t, E X₁²X₂ = Σ h (t + 2t²), E X₂² = Σ h t + 2 Σ h E[X₁(t)² X₂(t)] + Σ h² 3 t²."""
    h = 1.0 / n
    t = torch.arange(n, dtype=torch.float64) * h
    both = torch.stack([(h * (t[k] * t[:k] + 2.0 * t[:k] ** 2)).sum() for k in range(n)])
    second = (h * t + 2.0 * h * both + 3.0 * h * h * t**2).sum()
    moments = torch.stack([(h * t).sum(), (h * (t + 2.0 * t**2)).sum(), second])
    problem = noncommuting()
    found = weak_error(problem, "euler-maruyama", n)
    assert problem.weak is not None
    torch.testing.assert_close(
        found.errors, moments - problem.weak.expectation, rtol=0.0, atol=1e-12 + 2.0 * found.accuracy
    )


def test_it_agrees_with_the_transport_of_the_density():
    problem, answer = mixture(), trigonometric(mixture().law)
    errors = weak_error(problem, "euler-maruyama", 24)
    law = transported_law(problem.sde, "euler-maruyama", problem.grid(24), problem.initial)
    z, weights = (v.flatten() for v in module._rule([40]))
    values = answer.functional((law.means[:, None] + law.sds[:, None] * z).reshape(-1, 1))
    transported = torch.einsum("k,q,kqm->m", law.weights, weights, values.reshape(len(law.means), len(z), -1))
    torch.testing.assert_close(
        errors.errors, transported - answer.expectation, rtol=0.0, atol=1e-9 + 2.0 * errors.accuracy
    )


@pytest.mark.parametrize(("name", "stepper"), [("sinh", "euler-maruyama"), ("additive-nonlinear", "sra1")])
def test_the_stated_accuracy_is_kept(name, stepper, monkeypatch):
    problem = sk.problems.get(name)
    quick = weak_error(problem, stepper, 16)
    monkeypatch.setattr(module, "_ENOUGH", 0.0)  # all levels
    best = weak_error(problem, stepper, 16)
    assert best.accuracy < quick.accuracy
    assert abs(best.norm - quick.norm) <= quick.accuracy


def test_trigonometric_means_are_those_of_samples():
    """Seed 5, 200 000 samples: a mean is within six standard errors but for a chance of 2e-9."""
    law = benes_in_the_plane().law
    answer = trigonometric(law)
    values = answer.functional(law.sample(200_000, seed=5))
    assert values.shape == (200_000, 12)
    z = (values.mean(0) - answer.expectation) / (values.std(0) / 200_000**0.5)
    assert float(z.abs().max()) < 6.0


# Orders


@pytest.mark.parametrize(
    ("stepper", "order", "steps"), [("euler-maruyama", 1, (16, 32, 64, 128)), ("sra1", 2, (12, 24, 48, 96))]
)
def test_orders_on_the_mild_mixture(stepper, order, steps):
    found = measured(mixture(), stepper, steps)
    assert found.consistent_with(order), found


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_planned_methods_are_carried_too(eta):
    found = measured(mixture(eta), "ddim", (16, 32, 64, 128))
    assert found.consistent_with(1), found


@pytest.mark.parametrize(("stepper", "order"), [("euler-maruyama", 1), (Platen(), 2)])
def test_orders_with_multiplicative_noise(stepper, order):
    found = measured(sk.problems.get("sinh"), stepper, (8, 16, 32, 64, 128))
    assert found.consistent_with(order), found


@pytest.mark.parametrize(("stepper", "order"), [("euler-maruyama", 1), (Platen(), 2)])
def test_orders_in_the_plane(stepper, order):
    found = measured(benes_in_the_plane(), stepper, (4, 8, 16, 32))
    assert found.consistent_with(order), found


@pytest.mark.certify
def test_order_two_of_space_time_areas_in_the_plane():
    found = measured(sk.problems.get("square"), "sra1", (4, 8, 16, 32))
    assert found.consistent_with(2), found


# Slips


def test_noise_off_by_two_percent_is_caught():
    found = measured(mixture(), Louder(), (16, 32, 64, 128))
    assert found.order < 0.8, found


def test_a_forgotten_area_is_caught():
    problem = sk.problems.get("additive-nonlinear")
    right, slipped = (measured(problem, stepper, (8, 16, 32, 64)) for stepper in ("sra1", AreaForgotten()))
    assert right.order > 1.9, right
    assert slipped.order < 1.5, slipped


@pytest.mark.parametrize("slip", [TwoForThree, SignLost])
def test_wrong_moments_of_the_three_points_are_caught(slip):
    found = [weak_error(sk.problems.get("sinh"), slip(), n).norm for n in (16, 32, 64)]
    assert found[-1] > 0.9 * found[0]  # it converges to something else


def test_the_score_at_the_wrong_end_changes_the_constant():
    right, wrong = (weak_error(mixture(), stepper, 32) for stepper in ("euler-maruyama", DriftAtTheEnd()))
    assert wrong.accuracy < 1e-5
    assert abs(wrong.norm / right.norm - 1.0) > 0.1, (wrong.norm, right.norm)


def test_the_wrong_noise_in_a_column_is_caught():
    """X₁ dW₁ for X₁ dW₂: E X₁²X₂ gains E[X₁² ½(X₁² − t)] = 1."""
    slipped, right = weak_error(noncommuting(0), "euler-maruyama", 4), weak_error(noncommuting(), "euler-maruyama", 4)
    assert abs(float(slipped.errors[1] - right.errors[1])) > 0.5
    assert abs(float(slipped.errors[0] - right.errors[0])) < 1e-3


# What cannot be done


def test_multistep_methods_are_refused():
    with pytest.raises(sk.SdekitError, match="depends on the step before it"):
        weak_error(mixture(0.0), "dpmpp-2m", 8)


def test_a_deterministic_run_is_a_weak_error_too():
    found = measured(mixture(0.0), "heun", (16, 32, 64, 128))
    assert found.consistent_with(2), found


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (lambda: replace(mixture(), law=None), "no functionals with exact means: give it weak= or law="),
        (lambda: sk.problems.get("vp-gaussian", eta=1.0), "one or two dimensions"),
    ],
)
def test_problems_that_are_refused(problem, message):
    with pytest.raises(sk.SdekitError, match=message):
        weak_error(problem(), "euler-maruyama", 4)


def test_a_run_that_explodes_is_refused():
    cubic = sk.sde(lambda t, x: -50.0 * x**3, lambda t, x: torch.full_like(x, 3.0), "additive")
    problem = Problem("cubic", "", "", cubic, sk.Gaussian([2.0], 1.0), uniform(4.0), law=sk.Gaussian([0.0], 1.0))
    with pytest.raises(sk.SdekitError, match="NaN or Inf far out"):
        weak_error(problem, "euler-maruyama", 16)


def test_what_does_not_settle_is_refused():
    """A functional that jumps is no smooth functional: levels never agree."""
    answer = WeakAnswer(lambda x: torch.sign(torch.sin(400.0 * x)), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(sk.SdekitError, match="but known to"):
        weak_error(replace(mixture(), weak=answer), "euler-maruyama", 4)
