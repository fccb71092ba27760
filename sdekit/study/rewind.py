r"""Part 3: can a diffusion be undone without the score?

Samples of the mild mixture run forwards under VP to T. Then four ways back, along the same times: the forward drift
alone, $\dot x = f(t, x)$ with t falling; the same with noise, $dx = f\,dt + g\,dW$; the reverse-time SDE; the
probability flow. The first two need no score, and their laws are known: with $v$ the variance of the data,

$$ \operatorname{Var} = v + \frac{\sigma_T^2}{\alpha_T^2} \quad\text{(drift alone)}, \qquad
   \operatorname{Var} = v + \frac{2 \sigma_T^2}{\alpha_T^2} \quad\text{(drift and noise)}. $$
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from sdekit import grids, random
from sdekit.driver import solve
from sdekit.dynamics import GeneralSDE, sde
from sdekit.laws import Law
from sdekit.linear import LinearProcess
from sdekit.metrics import wasserstein2
from sdekit.problems.reverse import PROCESSES, mild_mixture
from sdekit.reverse import probability_flow, reverse_time
from sdekit.schedules import Schedule
from sdekit.score import exact_score, schedule_of
from sdekit.study.settings import Settings
from sdekit.study.tasks import Records, Result, Task, grid_facts
from sdekit.verify import mid_quantiles

WAYS = ("drift", "drift-noise", "reverse-sde", "flow")
"""The four ways back."""

_SOLVERS = {"drift": "rk4", "drift-noise": "euler-maruyama", "reverse-sde": "euler-maruyama", "flow": "heun"}
_STEPS = 500
_PATHS, _KEPT = 40, 100  # paths that are drawn, and the times kept of them
_BINS = 80
_WINDOW = 4.0
_REPEATS = 100  # of exact samples, for the noise floor of W2
_START, _FORTH, _BACK, _FLOOR = 301, 302, 303, 304


def tasks(settings: Settings) -> Iterator[Task]:
    """The way forth and the four ways back."""
    if "vp-mixture" not in settings.problems:
        return
    about = {"problem": "vp-mixture", "steps": _STEPS, "device": settings.device}
    process = PROCESSES["vp"]()
    forth = grids.log_snr(process, _STEPS).flip(0)
    yield Task(
        "rewind",
        "forth",
        {**about, "solver": "exact-linear", "grid": grid_facts("log_snr", forth)},
        partial(_forth, settings),
        cost=0.5,
    )
    for way in WAYS:
        facts = {**about, "way": way, "solver": _SOLVERS[way], "grid": grid_facts("log_snr", forth.flip(0))}
        yield Task("rewind", way, facts, partial(_back, settings, way), cost=1.5)


def _samples(settings: Settings) -> int:
    return 4_000 if settings.quick else 20_000


@cache
def _diffused(n: int, seed: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Times, the drawn paths (T, P), and all samples at the last time, (n, 1)."""
    process = PROCESSES["vp"]()
    grid = grids.log_snr(process, _STEPS).flip(0)
    start = process.marginal(mild_mixture(), float(grid[0])).sample(n, seed=random.key(seed, _START)).to(device)
    solution = solve(process, start, grid, "exact-linear", noise=random.key(seed, _FORTH), save=_kept(grid))
    return solution.ts, solution.xs[:, :_PATHS, 0].cpu(), solution.check().final


def _kept(grid: Tensor) -> Tensor:
    return grid[:: (len(grid) - 1) // _KEPT]


def _forth(settings: Settings, _: Records) -> Result:
    n = _samples(settings)
    ts, paths, end = _diffused(n, settings.seed, settings.device)
    law = PROCESSES["vp"]().marginal(mild_mixture(), float(ts[-1]))
    return Result({"n": n, **_distance(end, law, settings.seed)}, {"t": ts, "paths": paths})


def _back(settings: Settings, way: str, _: Records) -> Result:
    n = _samples(settings)
    _ts, _paths, start = _diffused(n, settings.seed, settings.device)
    process, data = PROCESSES["vp"](), mild_mixture()
    grid = grids.log_snr(process, _STEPS)
    noise = random.key(settings.seed, _BACK, WAYS.index(way))
    ts, xs = _pushed(process, way, start, grid, noise)
    end = xs[-1].flatten().cpu()
    reach = max(_WINDOW, 3.0 * float(end.std()))
    target = process.marginal(data, float(grid[-1]))
    edges = torch.linspace(-reach, reach, _BINS + 1, dtype=torch.float64)
    curve = torch.linspace(-reach, reach, 1601, dtype=torch.float64)
    values: dict[str, Any] = {
        "n": n,
        **_distance(end[:, None], target, settings.seed),
        "deviation": float(end.std()),
        "inside_window": float((end.abs() < _WINDOW).double().mean()),
        "w2_predicted": _predicted(process, way, target, float(grid[0])),
    }
    arrays = {
        "t": ts,
        "paths": xs[:, :_PATHS, 0].cpu(),
        "edges": edges,
        "histogram": torch.histogram(end, edges).hist / n,
        "x": curve,
        "density": target.log_prob(curve[:, None]).exp(),
    }
    return Result(values, arrays)


def _pushed(process: LinearProcess, way: str, x: Tensor, grid: Tensor, noise: int) -> tuple[Tensor, Tensor]:
    """Times and states on the way back."""
    score = exact_score(mild_mixture(), process)
    if way in ("reverse-sde", "flow"):
        problem = reverse_time(process, score) if way == "reverse-sde" else probability_flow(process, score)
        solution = solve(problem, x, grid, _SOLVERS[way], noise=noise, save=_kept(grid)).check()
        return solution.ts, solution.xs
    # solve refuses to run a forward process backwards, so the clock is turned round by hand: u = t_max − t.
    last = float(grid[0])
    rewound = _rewound(process, last, noisy=way == "drift-noise")
    clock = last - grid
    solution = solve(rewound, x, clock, _SOLVERS[way], noise=noise, save=_kept(clock)).check()
    return last - solution.ts, solution.xs


def _rewound(process: LinearProcess, last: float, noisy: bool) -> GeneralSDE:
    """The forward SDE with its drift turned round."""
    diffusion = (lambda u, x: process.diffusion(last - u, x)) if noisy else None
    return sde(lambda u, x: -process.drift(last - u, x), diffusion, noise_type="additive" if noisy else "none")


def _predicted(process: LinearProcess, way: str, target: Law, last: float) -> float | None:
    """W2 between the law that rewinding without a score must give and the data; None with the score."""
    if way not in ("drift", "drift-noise"):
        return None
    schedule: Schedule = schedule_of(process)
    noise = (schedule.sigma(last) / schedule.alpha(last)) ** 2
    return wasserstein2(mild_mixture().affine(1.0, 0.0, noise if way == "drift" else 2.0 * noise), target)


def _distance(x: Tensor, law: Law, seed: int) -> dict[str, float]:
    """W2 of samples to a law, and the same for exact samples of that law."""
    n = len(x)
    levels = mid_quantiles(law, n).flatten()

    def distance(y: Tensor) -> float:
        return float((y.flatten().cpu().sort().values - levels).square().mean().sqrt())

    floors = torch.tensor([distance(law.sample(n, seed=random.key(seed, _FLOOR, r))) for r in range(_REPEATS)])
    return {
        "w2": distance(x),
        "w2_floor": float(floors.median()),
        "w2_floor_high": float(floors.max()),
    }
