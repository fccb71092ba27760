"""Every registered stepper on every problem that its Spec can integrate.

The rows come from the registry: a new stepper needs no line here. Beside it stand its evaluations alone, so the ratio
says what the solver costs over the fields that it has to call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit as sk
from benchmarks.problems import FAMILIES, Family, error, problem_for
from sdekit.problems import Problem
from sdekit.reverse import Reverse
from sdekit.solution import Statistics

STEPS = 20

# Add a shape here.
SHAPES = [
    pytest.param((1, 1), marks=pytest.mark.full, id="1x1"),
    pytest.param((1000, 1), id="1000x1"),
    pytest.param((1000, 2), marks=pytest.mark.full, id="1000x2"),
    pytest.param((64, 3, 32, 32), marks=pytest.mark.full, id="64x3x32x32"),
]

ROWS = [
    pytest.param(stepper, family, id=f"{stepper}-{family.name}")
    for stepper in sk.STEPPERS
    for family in FAMILIES
    if sk.STEPPERS[stepper].spec.alias is None and problem_for(stepper, family, (1,)) is not None
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("stepper", "family"), ROWS)
def test_solver(
    timed: Any, stepper: str, family: Family, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    problem = problem_for(stepper, family, shape[1:])
    assert problem is not None
    x, grid = problem.initial.sample(shape[0]).to(device, dtype), problem.grid(STEPS)
    noise = None if problem.sde.noise_type == "none" else 0

    def solve() -> sk.Solution:
        return sk.solve(problem.sde, x, grid, stepper, noise=noise)

    stats = solve().check().stats
    timed(
        solve,
        evaluations_alone(problem, x, float(grid[STEPS // 2]), stats),
        steps=STEPS,
        kind="solver",
        work=family.name,
        ours=stepper,
        beside="its evaluations",
        shape="x".join(map(str, shape)),
        dtype=str(dtype).removeprefix("torch."),
        evaluations=stats.drift_evaluations or stats.score_evaluations,
        error=error(stepper, family, STEPS),
    )


def evaluations_alone(problem: Problem, x: Tensor, t: float, stats: Statistics) -> Callable[[], None] | None:
    """As many calls of the drift (or the score) and of the diffusion as the solver made; None if it made none."""
    calls, sde = stats.drift_evaluations or stats.score_evaluations, problem.sde
    field = sde.score if isinstance(sde, Reverse) and not stats.drift_evaluations else sde.drift

    def evaluate() -> None:
        for _ in range(calls):
            field(t, x)
        for _ in range(stats.diffusion_evaluations):
            sde.diffusion(t, x)

    return evaluate if calls else None
