r"""Part 9: does one sample converge as its steps double?

The reverse SDE of the mild mixture under VP, from the same states, in 10, 20, 40, … steps of grids inside one another.
Where all of them follow one path of a :class:`~sdekit.BrownianGrid`, each sample tends to a limit, at strong order one
at least; how far it is from the run of most steps is measured, and the slope of the root mean square differences
between N and 2N steps, which no reference biases. Where every run draws noise of its own, from ``torch.randn`` or from
a seed, its law converges and its samples do not.

Samplers in λ follow a path in the clock of their noise, SNR (:func:`sdekit.brownian.snr_clock`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from sdekit import grids, random
from sdekit.brownian import BrownianGrid, BrownianPath, RecordedBrownian, snr_clock
from sdekit.driver import solve
from sdekit.problems.reverse import PROCESSES, mild_mixture
from sdekit.reverse import reverse_time
from sdekit.score import exact_score, schedule_of
from sdekit.steppers import ERSDE, registry
from sdekit.steppers.base import Stepper
from sdekit.study.settings import Settings
from sdekit.study.tasks import Records, Result, Task, grid_facts

STEPS, QUICK_STEPS = (10, 20, 40, 80, 160, 320, 640), (10, 20, 40, 80, 160)
CLAIM, TOLERANCE = 1.0, 0.1
"""The strong order of a sampler on a path, noise being additive, and how far below it a slope may be."""

NOISES = ("path", "seed", "randn")
"""One path for all step counts; a seed, which gives each its own; ``torch.randn``."""


@final
@dataclass(frozen=True)
class Sampler:
    """What is refined: a stepper by name or value, and whether its noise integral runs in λ."""

    name: str
    stepper: str | Stepper
    exponential: bool


SAMPLERS = (
    Sampler("euler-maruyama", "euler-maruyama", exponential=False),
    Sampler("er-sde-2", ERSDE(2, start="ramp", apart=1.0), exponential=True),
    Sampler("sde-dpmpp-2m", "sde-dpmpp-2m", exponential=True),
)
"""Euler–Maruyama, the default of :func:`sdekit.solve`, and one more of second order in the law."""

_START, _NOISE = 901, 902


def tasks(settings: Settings) -> Iterator[Task]:
    """A record for every sampler and noise."""
    if "refinement" not in settings.problems:
        return
    steps = QUICK_STEPS if settings.quick else STEPS
    grid = grids.log_snr(PROCESSES["vp"](), 2 * steps[-1])
    for sampler in SAMPLERS:
        for noise in NOISES:
            about: dict[str, Any] = {
                "problem": "vp-mixture",
                "solver": sampler.name,
                "method": repr(registry.get(sampler.stepper)),
                "eta": 1.0,
                "noise": noise,
                "steps": list(steps),
                "grid": grid_facts("log_snr", grid),
            }
            work = partial(_measure, sampler, noise, steps, settings.seed, 200 if settings.quick else 1000)
            yield Task("refinement", f"{sampler.name}/{noise}", about, work, cost=4e-4 * steps[-1])


def refined(sampler: Sampler, noise: str, steps: tuple[int, ...], seed: int, samples: int) -> Tensor:
    """Final states of every step count, the last of them twice the last of ``steps``; shape (levels, samples)."""
    process = PROCESSES["vp"]()
    sde = reverse_time(process, exact_score(mild_mixture(), process))
    most = 2 * steps[-1]
    grid = grids.log_snr(process, most)
    x = process.prior((1,)).sample(samples, seed=random.key(seed, _START))
    clock = snr_clock(schedule_of(process)) if sampler.exponential else None
    path = BrownianGrid.on(grid, x.shape, random.key(seed, _NOISE), clock=clock)
    finals = []
    for n in (*steps, most):
        nodes = grid[:: most // n]
        drawn: int | BrownianPath = random.key(seed, _NOISE)
        if noise == "path":
            drawn = path
        elif noise == "randn":
            drawn = _plain(nodes, x, seed + n)
        finals.append(solve(sde, x, nodes, sampler.stepper, noise=drawn).check().final.flatten())
    return torch.stack(finals)


def _plain(nodes: Tensor, x: Tensor, seed: int) -> RecordedBrownian:
    """Increments from torch's own generator."""
    z = torch.randn((len(nodes) - 1, *x.shape), generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    return RecordedBrownian(nodes, z * nodes.diff().abs().sqrt()[:, None, None])


def _measure(sampler: Sampler, noise: str, steps: tuple[int, ...], seed: int, samples: int, _: Records) -> Result:
    finals = refined(sampler, noise, steps, seed, samples)
    differences = _root_mean_squares(finals[1:] - finals[:-1])
    slope = _slope(steps, differences)
    return Result(
        {
            "samples": samples,
            "distances": _root_mean_squares(finals[:-1] - finals[-1]).tolist(),
            "differences": differences.tolist(),
            "slope": slope,
            "claim": CLAIM,
            "holds": slope >= CLAIM - TOLERANCE,
            "one": finals[:, 0].tolist(),
        }
    )


def _root_mean_squares(x: Tensor) -> Tensor:
    return x.square().mean(1).sqrt()


def _slope(steps: tuple[int, ...], errors: Tensor) -> float:
    """Of the straight line through the logarithms, the other way up."""
    x, y = torch.tensor(steps, dtype=torch.float64).log(), errors.log()
    x = x - x.mean()
    return -float((x * y).sum() / x.square().sum())
