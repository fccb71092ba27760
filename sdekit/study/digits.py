r"""Part 4: what do solvers make of a learned score?

The digits network that ships with sdekit is put under each solver at 5 to 100 evaluations, from the same initial noise
and the same seed. Samples are compared with digits that no training saw, by the energy distance and the sliced $W_2$.
Neither is zero between two sets of *real* digits: the distance between the held-out digits and random sets of as many
training digits is the floor, and a value inside its range cannot be told from real data at this sample size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, final

import torch
from torch import Tensor

from sdekit import data, grids, random
from sdekit.driver import solve
from sdekit.linear import LinearProcess
from sdekit.metrics import energy_distance, sliced_wasserstein2
from sdekit.reverse import reverse_time
from sdekit.score import Score
from sdekit.steppers import registry
from sdekit.study.settings import Settings, weights_sha256
from sdekit.study.tasks import Records, Result, Task, grid_facts

SOLVERS = (
    ("euler-maruyama", 1.0),
    ("ddim", 1.0),
    ("ddim", 0.5),
    ("ddim", 0.0),
    ("heun", 0.0),
    ("rk4", 0.0),
    ("dpmpp-2m", 0.0),
)
"""Solvers and η."""

EVALUATIONS = (5, 10, 20, 50, 100)
SHOWN = 64

_QUICK_EVALUATIONS = (5, 10)
_REPEATS = 20
_START, _NOISE, _SUBSET, _PROJECTIONS = 401, 402, 403, 404


@final
@dataclass(frozen=True)
class Case:
    """A solver, its η and how many evaluations it may use."""

    solver: str
    eta: float
    evaluations: int

    @property
    def steps(self) -> int:
        """How many steps these evaluations pay for; 0 if not one."""
        return self.evaluations // registry.get(self.solver).spec.evaluations


def tasks(settings: Settings) -> Iterator[Task]:
    """The floor, then every solver at every number of evaluations that allows a step."""
    if "digits" not in settings.problems:
        return
    about = {"problem": "digits", "device": settings.device, "dtype": "float32", "weights": weights_sha256()}
    process, _ = model(settings.device)
    yield Task("digits", "real", {**about, "solver": None}, partial(_real, settings), cost=1.0)
    for solver, eta in SOLVERS:
        for evaluations in _QUICK_EVALUATIONS if settings.quick else EVALUATIONS:
            case = Case(solver, eta, evaluations)
            if solver not in settings.solvers or case.steps < 1:
                continue
            name = f"{solver}/eta={eta:g}/evaluations={evaluations}"
            facts = {**about, "solver": solver, "eta": eta, "budget": evaluations, "steps": case.steps}
            facts["grid"] = grid_facts("karras", grids.karras(process, case.steps))
            yield Task("digits", name, facts, partial(_sampled, settings, case), cost=0.015 * evaluations + 0.2)


@cache
def model(device: str) -> tuple[LinearProcess, Score]:
    """The process and the learned score of the digits."""
    from sdekit.train import load_score

    process, score = load_score("digits")
    if isinstance(score.net, torch.nn.Module):
        score.net.to(device)
    return process, score


def _real(settings: Settings, _: Records) -> Result:
    """The held-out digits against random sets of as many training digits."""
    digits = data.digits()
    n = len(digits.held_out)
    pairs = [_distances(_subset(digits.train, n, settings.seed, r), settings) for r in range(_REPEATS)]
    values: dict[str, Any] = {"n": n, "repeats": _REPEATS, "data_sha256": digits.sha256}
    for name in ("energy", "sliced_w2"):
        found = torch.tensor([pair[name] for pair in pairs], dtype=torch.float64)
        values |= {name: float(found.median()), f"{name}_low": float(found.min()), f"{name}_high": float(found.max())}
    return Result(values, {"images": pixels(digits.held_out[:SHOWN])})


def _subset(x: Tensor, n: int, seed: int, repeat: int) -> Tensor:
    keys = random.path_keys(random.key(seed, _SUBSET, repeat), len(x))
    order = random.normals(keys, (), stream=random.STREAM_LAW)[0].argsort()
    return x[order[:n]]


def _distances(x: Tensor, settings: Settings) -> dict[str, float]:
    real = data.digits().held_out
    seed = random.key(settings.seed, _PROJECTIONS)
    return {"energy": energy_distance(x, real), "sliced_w2": sliced_wasserstein2(x, real, seed=seed)}


def _sampled(settings: Settings, case: Case, _: Records) -> Result:
    process, score = model(settings.device)
    n = len(data.digits().held_out)
    start = (
        process.prior((1, 8, 8)).sample(n, seed=random.key(settings.seed, _START)).to(settings.device, torch.float32)
    )
    problem, grid = reverse_time(process, score, case.eta), grids.karras(process, case.steps)
    with torch.no_grad():
        solution = solve(problem, start, grid, case.solver, noise=random.key(settings.seed, _NOISE))
    x = solution.check().final.cpu()
    values = {"n": n, "evaluations": solution.stats.score_evaluations, **_distances(x, settings)}
    return Result(values, {"images": pixels(x[:SHOWN])})


def pixels(x: Tensor) -> Tensor:
    """Images in [−1, 1] as grey values 0 … 255, (n, H, W)."""
    return ((x[:, 0].float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
