"""Where states may be: a run that ends elsewhere says so, and adaptive steps that lead elsewhere are taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sdekit as sk
from sdekit import Status
from sdekit.dynamics import GeneralSDE

N = 400


def square_root(s: float, inside: bool = True) -> tuple[sk.problems.Problem, GeneralSDE, torch.Tensor]:
    problem = sk.problems.get("cir", s=s)
    assert isinstance(problem.sde, GeneralSDE)
    return problem, problem.sde if inside else replace(problem.sde, inside=None), problem.initial.sample(N)


@pytest.mark.parametrize("stepper", ["euler-maruyama", "sri1w1"])
@pytest.mark.parametrize("s", [0.15, 1.2, 2.0])
def test_on_a_grid_a_state_is_not_negative_or_says_so(stepper, s):
    problem, sde, x = square_root(s)
    solution = sk.solve(sde, x, problem.grid(32), stepper, noise=8)
    fine = solution.status == Status.SUCCESS
    assert bool((solution.final[fine] >= 0.0).all())
    assert bool((solution.status[solution.final[:, 0] < 0.0] == Status.OUTSIDE).all())
    assert bool(fine.all()) == (s == 0.15)


def test_what_is_not_told_is_not_seen():
    """The planted fault: without ``inside`` a run ends well below zero, and says nothing."""
    problem, sde, x = square_root(2.0, inside=False)
    solution = sk.solve(sde, x, problem.grid(32), "euler-maruyama", noise=8)
    assert bool((solution.final[solution.status == Status.SUCCESS] < 0.0).any())
    adaptive = sk.solve(sde, x, [0.0, 1.0], "sri1w1", noise=8, controller=sk.PID(1e-2, 1e-2))
    assert bool((adaptive.status == Status.STEP_UNDERFLOW).any())


@pytest.mark.parametrize("s", [0.15, 1.2, 2.0])
def test_adaptive_steps_stay_above_zero(s):
    """With s = 2 the solution touches 0, as 2κθ < s², and where it does a few samples ask for shorter steps than there
    are, and say so. The mean of the others is within 5 standard errors and the tolerance."""
    problem, sde, x = square_root(s)
    solution = sk.solve(sde, x, [0.0, 1.0], "sri1w1", noise=8, controller=sk.PID(1e-2, 1e-2), save=[0.3, 1.0])
    assert float(solution.final.min()) >= 0.0
    fine = solution.status == Status.SUCCESS
    assert bool((fine | (solution.status == Status.STEP_UNDERFLOW)).all())
    assert int(fine.sum()) >= (N if s < 2.0 else 0.98 * N)
    off = abs(float(solution.final.mean() - problem.law.mean))
    assert off < 5 * float(problem.law.variance / N) ** 0.5 + 1e-2


def test_a_sample_does_not_see_its_neighbours():
    _, sde, x = square_root(2.0)
    control = sk.PID(1e-2, 1e-2)
    every = sk.solve(sde, x, [0.0, 1.0], "sri1w1", noise=8, controller=control)
    some = sk.solve(sde, x[[7, 3]], [0.0, 1.0], "sri1w1", noise=8, paths=[7, 3], controller=control)
    assert torch.equal(every.final[[7, 3]], some.final)


def test_it_goes_over_into_the_other_calculus():
    gbm = sk.sde(lambda t, x: x, lambda t, x: 0.5 * x, inside=lambda x: x < 2.0)
    for told, stepper in ((gbm, "euler-maruyama"), (sk.to_stratonovich(gbm), "heun-strat")):
        solution = sk.solve(told, torch.ones(50, 1), [0.0, 0.5, 1.0], stepper, noise=8)
        assert 5 < int((solution.status == Status.OUTSIDE).sum()) < 50
        assert torch.equal(solution.status == Status.OUTSIDE, solution.final[:, 0] >= 2.0)


def test_an_ode_and_what_is_refused():
    drop = sk.sde(lambda t, x: -2.0 + 0.0 * x, inside=lambda x: x >= 0.0)
    with pytest.raises(sk.SdekitError, match=r"3 outside .*a controller"):
        sk.solve(drop, torch.full((3, 1), 0.4), [0.0, 0.1, 0.3], "euler").check()
    with pytest.raises(sk.SdekitError, match="1 of 2 samples begin outside"):
        sk.solve(drop, torch.tensor([[1.0], [-1.0]]), [0.0, 0.1], "euler")
    for answer in (lambda x: x, lambda x: torch.ones(3, dtype=torch.bool)):
        with pytest.raises(sk.SdekitError, match="inside must answer with a boolean"):
            sk.solve(sk.sde(lambda t, x: x, inside=answer), torch.ones(2, 1), [0.0, 0.1], "euler")
