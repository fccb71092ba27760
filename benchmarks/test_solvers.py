"""Every registered stepper on every problem that its Spec can integrate.

The rows come from the registry: a new stepper needs no line here. ``beside`` is the evaluations alone: the ratio says
what the solver costs over the fields that it must call.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sdekit as sk
from benchmarks.problems import PROBLEMS, Problem, Run, error, run_of
from sdekit.reverse import Reverse
from sdekit.solution import Statistics

STEPS = 20

SHAPES = [
    pytest.param((1, 1), marks=pytest.mark.full, id="1x1"),
    pytest.param((1000, 1), id="1000x1"),
    pytest.param((1000, 2), marks=pytest.mark.full, id="1000x2"),
    pytest.param((64, 3, 32, 32), marks=pytest.mark.full, id="64x3x32x32"),
]

ROWS = [
    pytest.param(problem, name, id=f"{name}-{problem.name}")
    for name in sk.STEPPERS
    for problem in PROBLEMS
    if run_of(problem, name, (1,), STEPS) is not None
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("problem", "stepper"), ROWS)
def test_solver(
    timed: Any, problem: Problem, stepper: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    batch, *event = shape
    run = run_of(problem, stepper, tuple(event), STEPS)
    assert run is not None
    x = run.start(tuple(event)).sample(batch).to(device, dtype)
    stats = run.solve(x).check().stats
    size, kind = error(problem, stepper, STEPS, dtype)
    timed(
        lambda: run.solve(x),
        _evaluations_alone(run, x, stats),
        steps=STEPS,
        group=problem.name,
        ours=stepper,
        beside="its evaluations",
        shape="x".join(map(str, shape)),
        dtype=str(dtype).removeprefix("torch."),
        evaluations=stats.drift_evaluations or stats.score_evaluations,
        error=size,
        error_kind=kind,
    )


def _evaluations_alone(run: Run, x: torch.Tensor, stats: Statistics) -> Any:
    """As many calls of the drift (or the score) and the diffusion as the solver made; None if it made none."""
    calls = stats.drift_evaluations or stats.score_evaluations
    field = run.sde.score if isinstance(run.sde, Reverse) and not stats.drift_evaluations else run.sde.drift
    middle = float(run.grid[len(run.grid) // 2])

    def evaluate() -> None:
        for _ in range(calls):
            field(middle, x)
        for _ in range(stats.diffusion_evaluations):
            run.sde.diffusion(middle, x)

    return evaluate if calls else None
