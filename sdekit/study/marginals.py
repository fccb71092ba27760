r"""Part 1: do forward simulations have the exact marginals?

20,000 samples of OU, VP and VE start from a mixture of two Gaussians and run forwards, by the exact kernel and by
Euler–Maruyama. At four times the samples meet two laws. One is the true marginal. The other is the law that the
solver produces, known without sampling: forwards the drift and the noise are linear, so a run is
$x_N = a x_0 + c + B z$ (:func:`sdekit.verify.affine_map`), and the mixture goes through it as a mixture. The distance
*between* the two laws is the solver's bias, free of sampling error.

The Kolmogorov–Smirnov statistic is $\sup_x |F_n(x) - F(x)|$. Its critical value comes from its exact distribution at
n, with a false-alarm rate of 1/1000 for all tests of this part together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, final

import torch
from scipy.stats import kstwo
from torch import Tensor

from sdekit import grids, random
from sdekit.driver import solve
from sdekit.laws import Law
from sdekit.linear import LinearProcess
from sdekit.metrics import wasserstein2
from sdekit.problems.reverse import PROCESSES, mild_mixture
from sdekit.steppers import registry
from sdekit.study.settings import Settings
from sdekit.study.tasks import Records, Result, Task, grid_facts
from sdekit.verify import affine_map, mid_quantiles

SOLVERS = (("exact-linear", 4), ("euler-maruyama", 20), ("euler-maruyama", 200))
"""Solvers and their steps from t = 0 to t_max."""

FALSE_ALARMS = 1e-3
"""Probability that any test of this part fails although all is well."""

_TIMES = {"ou": (0.25, 0.5, 1.0, 5.0), "vp": (0.1, 0.25, 0.5, 1.0), "ve": (0.25, 0.5, 0.75, 1.0)}
_REPEATS, _QUICK_REPEATS = 100, 40  # of exact samples, for the noise floor of W2
_BINS, _CURVE = 60, 241
_SAMPLE, _NOISE, _FLOOR = 101, 102, 103  # streams of the study's seed


@final
@dataclass(frozen=True)
class _Case:
    process: str
    solver: str
    steps: int
    time: float
    tests: int


def tasks(settings: Settings) -> Iterator[Task]:
    """Every process, solver and time; none where no problem of the convergence part was chosen."""
    chosen = [(s, n) for s, n in SOLVERS if s in settings.solvers]
    count = sum(2 * len(_TIMES[p]) for p in settings.processes) * len(chosen)
    for name in settings.processes:
        for solver, steps in chosen:
            for time in _TIMES[name]:
                case = _Case(name, solver, steps, time, count)
                about = {
                    "process": name,
                    "data": "mixture",
                    "solver": solver,
                    "steps": steps,
                    "time": time,
                    "device": settings.device,
                    "grid": grid_facts("uniform", _grid(name, steps)),
                }
                task_name = f"{name}/{solver}/steps={steps}/t={time:g}"
                yield Task("marginals", task_name, about, partial(_compare, settings, case), cost=0.3)


def _grid(name: str, steps: int) -> Tensor:
    """Uniform from 0 to t_max, through the times at which we look."""
    process = PROCESSES[name]()
    if steps == len(_TIMES[name]):
        return torch.tensor((0.0, *_TIMES[name]), dtype=torch.float64)
    return grids.uniform(process, steps, t_min=0.0).flip(0)


@cache
def _simulated(name: str, solver: str, steps: int, n: int, seed: int, device: str) -> Tensor:
    """Samples at the times of the process, (T, n, 1)."""
    process = PROCESSES[name]()
    start = process.marginal(mild_mixture(), 0.0).sample(n, seed=random.key(seed, _SAMPLE)).to(device)
    grid, noise = _grid(name, steps), random.key(seed, _NOISE, steps)
    return solve(process, start, grid, solver, noise=noise, save=_TIMES[name]).check().xs.cpu()


def _compare(settings: Settings, case: _Case, _: Records) -> Result:
    n = 4_000 if settings.quick else 20_000
    process = PROCESSES[case.process]()
    samples = _simulated(case.process, case.solver, case.steps, n, settings.seed, settings.device)
    x = samples[_TIMES[case.process].index(case.time)].flatten().sort().values
    true, produced = _true(case.process, case.time), _produced(process, case)
    curve = torch.linspace(*_window(true), _CURVE, dtype=torch.float64)
    edges = torch.linspace(*_window(true), _BINS + 1, dtype=torch.float64)
    repeats = _QUICK_REPEATS if settings.quick else _REPEATS
    floors = _floor(case.process, case.time, n, settings.seed, repeats)
    ks, own, critical = _ks(x, true), _ks(x, produced), float(kstwo.ppf(1.0 - FALSE_ALARMS / case.tests, n))
    exact = registry.get(case.solver).spec.kind == "exact"
    values: dict[str, Any] = {
        "n": n,
        "ks": ks,
        "ks_own": own,
        "ks_critical": critical,
        "passed": own <= critical and (ks <= critical or not exact),
        "false_alarms": FALSE_ALARMS,
        "tests": case.tests,
        "w2": _sample_distance(x, case.process, case.time),
        "w2_floor": float(floors.median()),
        "w2_floor_high": float(floors.max()),
        "w2_floor_repeats": repeats,
        "bias": wasserstein2(produced, true),
    }
    arrays = {
        "x": curve,
        "density": true.log_prob(curve[:, None]).exp(),
        "produced": produced.log_prob(curve[:, None]).exp(),
        "edges": edges,
        "histogram": torch.histogram(x, edges).hist / n,
    }
    return Result(values, arrays)


def _produced(process: LinearProcess, case: _Case) -> Law:
    """The exact law of the solver's samples."""
    grid = _grid(case.process, case.steps)
    grid = grid[grid <= case.time + 1e-12]
    run = affine_map(process, case.solver, grid, (1,))
    start = process.marginal(mild_mixture(), 0.0)
    spread = float(run.noises.square().sum())
    return start.affine(float(run.matrix), float(run.constant), spread)


def _window(law: Law) -> tuple[float, float]:
    p = torch.tensor([1e-3], dtype=torch.float64)
    return float(law.quantile(p)), float(law.quantile(p, upper=True))


def _ks(x: Tensor, law: Law) -> float:
    """The Kolmogorov–Smirnov statistic of sorted samples."""
    n = len(x)
    above, cdf = torch.arange(1, n + 1, dtype=torch.float64) / n, law.cdf(x)
    return float(torch.maximum(above - cdf, cdf - above + 1.0 / n).max())


@cache
def _true(process: str, time: float) -> Law:
    return PROCESSES[process]().marginal(mild_mixture(), time)


@cache
def _levels(process: str, time: float, n: int) -> Tensor:
    return mid_quantiles(_true(process, time), n).flatten()


def _sample_distance(x: Tensor, process: str, time: float) -> float:
    """W2 of n sorted samples to the n mid-quantiles that stand for the law."""
    return float((x - _levels(process, time, len(x))).square().mean().sqrt())


@cache
def _floor(process: str, time: float, n: int, seed: int, repeats: int) -> Tensor:
    """The same distance for exact samples of the law."""
    law, seeds = _true(process, time), [random.key(seed, _FLOOR, r) for r in range(repeats)]
    distances = [_sample_distance(law.sample(n, seed=s).flatten().sort().values, process, time) for s in seeds]
    return torch.tensor(distances, dtype=torch.float64)
