"""The exact strong error on affine problems: closed forms, the bound that nothing beats, refusals, planted faults."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import sqrt

import pytest
import torch

import sdekit as sk
from sdekit.steppers import EulerMaruyama
from sdekit.verify import fit_order, strong_error

THETA, MU, S, T = 1.3, 0.7, 0.9, 2.0
START = sk.Gaussian([0.5], 0.25)
STEPS = (8, 16, 32, 64)


def uniform(steps: int, end: float = T) -> torch.Tensor:
    return torch.linspace(0.0, end, steps + 1, dtype=torch.float64)


def euler_maruyama_by_hand(times: torch.Tensor) -> tuple[float, float]:
    """dx = θ(μ − x) dt + s dW: K(u) = s e^{−θ(T − u)}, and b_k = s Π (1 − θ h) on step k; the integrals by hand."""
    t = times.tolist()
    squares, bound, kept = 0.0, 0.0, 1.0
    for a, b in reversed(list(pairwise(t))):
        h, c = b - a, S * kept
        ends = [S * torch.exp(torch.tensor(-THETA * (T - u), dtype=torch.float64)).item() for u in (a, b)]
        first, second = (ends[1] - ends[0]) / THETA, (ends[1] ** 2 - ends[0] ** 2) / (2 * THETA)
        squares += c * c * h - 2 * c * first + second
        bound += second - first**2 / h
        kept *= 1 - THETA * h
    gap = kept - torch.exp(torch.tensor(-THETA * T, dtype=torch.float64)).item()
    squares += gap**2 * (float(START.variance) + (float(START.mean) - MU) ** 2)
    return sqrt(squares), sqrt(bound)


@pytest.mark.parametrize(
    "times", [uniform(7), torch.tensor([0.0, 0.1, 0.5, 0.55, 1.2, T]).double()], ids=["even", "uneven"]
)
def test_euler_maruyama_on_a_line_is_what_it_is_by_hand(times):
    found = strong_error(sk.OU(THETA, MU, S), "euler-maruyama", times, START)
    error, bound = euler_maruyama_by_hand(times)
    assert found.error == pytest.approx(error, rel=1e-12)
    assert found.optimum == pytest.approx(bound, rel=1e-10)


@pytest.mark.statistical
def test_a_sampled_error_agrees():
    """Seed 4, 20 000 paths of 4096 intervals: within five standard errors (false alarm 6e-7)."""
    problem, n, grid = sk.OU(THETA, MU, S), 20_000, uniform(16)
    fine = uniform(1024)
    path = sk.BrownianGrid.on(fine, (n, 1), seed=4)
    x = START.sample(n, seed=4)
    coarse = sk.solve(problem, x, grid, "euler-maruyama", noise=path).final
    exact = sk.solve(problem, x, fine, "euler-maruyama", noise=path).final
    squares = (coarse - exact).square().flatten()
    found = strong_error(problem, "euler-maruyama", grid, START).error ** 2
    floor = strong_error(problem, "euler-maruyama", fine, START).error
    spread = 5 * float(squares.std()) / n**0.5
    assert abs(float(squares.mean()) - found) < spread + 2 * floor * found**0.5


@pytest.mark.parametrize("name", ["euler-maruyama", "exact-linear", "sra1", "ddim"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_nothing_beats_the_optimum(name, eta):
    problem = sk.problems.get("vp-gaussian", eta=eta)
    for steps in (4, 16):
        found = strong_error(problem.sde, name, problem.grid(steps), problem.initial)
        assert found.error >= found.optimum * (1 - 1e-10) > 0


def test_levy_areas_lower_the_optimum_by_an_order():
    problem = sk.problems.get("rotation")
    with_area, without = (
        [strong_error(problem.sde, name, problem.grid(n), problem.initial).optimum for n in STEPS]
        for name in ("sra1", "euler-maruyama")
    )
    assert fit_order(STEPS, without).order == pytest.approx(1.0, abs=0.02)
    assert fit_order(STEPS, with_area).order == pytest.approx(2.0, abs=0.02)


def test_a_reverse_problem_sees_the_path_from_its_end():
    """The same equation told forwards and in the clock −t: the same error, with W and with H."""
    problem = sk.problems.get("vp-gaussian", eta=1.0)
    grid = problem.grid(8)
    mirrored = sk.dynamics.Reflected(problem.sde)
    for name in ("euler-maruyama", "sra1"):
        there = strong_error(problem.sde, name, grid, problem.initial)
        back = strong_error(mirrored, name, -grid, problem.initial)
        assert there.error == pytest.approx(back.error, rel=1e-12)


class HalfArea(sk.SRA1):
    """H scaled by √3: the law keeps its order, the path does not."""

    def step(self, sde, t0, t1, x, increment, memory):
        return super().step(sde, t0, t1, x, replace(increment, space_time=sqrt(3.0) * increment.h), memory)


class WrongWay(sk.SRA1):
    """H of a path that runs the other way."""

    def step(self, sde, t0, t1, x, increment, memory):
        return super().step(sde, t0, t1, x, increment.reflected(), memory)


class OtherPath(EulerMaruyama):
    """The sign of W: the law cannot tell."""

    def step(self, sde, t0, t1, x, increment, memory):
        return super().step(sde, t0, t1, x, sk.Increment(-increment.w), memory)


@pytest.mark.parametrize(
    ("fault", "order", "right"), [(HalfArea, 1.0, 2.0), (WrongWay, 1.0, 2.0), (OtherPath, 0.0, 1.0)]
)
def test_faults_of_coupling_that_no_law_can_see(fault, order, right):
    problem = sk.problems.get("rotation")
    for stepper, wanted in ((fault(), order), (fault.__base__(), right)):
        errors = [strong_error(problem.sde, stepper, problem.grid(n), problem.initial).error for n in STEPS]
        assert fit_order(STEPS, errors).order == pytest.approx(wanted, abs=0.06)
    laws = [sk.verify.law_error(problem, s, 16) for s in (fault(), fault.__base__())]
    if fault is OtherPath:
        assert laws[0] == pytest.approx(laws[1], rel=1e-9)


def test_refusals():
    sde = sk.OU(torch.eye(2).double(), 0.0, torch.tensor([[0.7, 0.2, 0.0], [-0.3, 0.5, 0.4]]).double())
    start = sk.Gaussian([0.0, 0.0])
    with pytest.raises(sk.SdekitError, match="3 noises drive the SDE"):
        strong_error(sde, "exact-linear", uniform(4), start)
    problem = sk.problems.get("vp-mixture", eta=1.0)
    with pytest.raises(sk.SdekitError, match="was not affine"):
        strong_error(problem.sde, "euler-maruyama", problem.grid(4), sk.Gaussian([0.0]))
    stiff = sk.OU(1e9, 0.0, 1.0, t_max=T)
    with pytest.raises(sk.SdekitError, match="too stiff"):
        strong_error(stiff, "exact-linear", uniform(2), START)


def test_exact_linear_follows_a_path_that_drives_it_through_a_matrix():
    problem = sk.problems.get("rotation")
    errors = [strong_error(problem.sde, "exact-linear", problem.grid(n), problem.initial).error for n in STEPS]
    assert fit_order(STEPS, errors).order == pytest.approx(1.0, abs=0.02)
