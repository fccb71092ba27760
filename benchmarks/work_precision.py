"""Adaptive SDE solvers: error against wall time, ours beside torchsde's and diffrax's, in one run.

Every library draws from a path of its own. The error of a sample is that to a fine solution on the same path, which is
read out of the library's Brownian motion after the run: increments and space-time Lévy areas on a uniform grid.

    python -m benchmarks.work_precision --out docs/images/work-precision

needs torchsde, and diffrax for its rows; without diffrax they are left out. Compilation is not timed: every run but
the first of a setting counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdekit as sk
from sdekit.dynamics import SDE

BATCH, FINE, SEED = 256, 2**11, 7
TOLERANCES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
PathOf = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Increments and Lévy areas between times, shape (N, B, 1) each."""
WEIGHTS, MEANS, SCALES = (0.3, 0.7), (-0.8, 0.6), (0.3, 0.2)


@dataclass(frozen=True)
class Task:
    """An SDE on [0, 1], and how fast each library is to be told that it is."""

    name: str
    sde: SDE
    start: float
    ours: str
    diffrax: str
    beta: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """One run."""

    final: Tensor
    seconds: float
    path: PathOf
    steps: float


def mixture_backwards() -> SDE:
    """The reverse SDE of a mixture under VP, told forwards: s = 1 − t, on [0, 0.99] stretched to [0, 1]."""
    process = sk.VP()
    law = sk.GaussianMixture(
        torch.tensor(WEIGHTS, dtype=torch.float64),
        torch.tensor(MEANS, dtype=torch.float64)[:, None],
        torch.tensor(SCALES, dtype=torch.float64)[:, None] ** 2,
    )
    reverse = sk.reverse_time(process, sk.exact_score(law, process))
    clock = lambda s: 1.0 - 0.99 * s  # noqa: E731
    return sk.sde(
        lambda s, x: -0.99 * reverse.drift(clock(s), x),
        lambda s, x: 0.99**0.5 * reverse.diffusion(clock(s), x),
        "additive",
    )


TASKS = (
    Task("geometric Brownian motion", sk.sde(lambda t, x: 1.5 * x, lambda t, x: 0.5 * x), 1.0, "sosri", "SPaRK"),
    Task(
        "double well",
        sk.sde(lambda t, x: 4.0 * (x - x**3), lambda t, x: torch.ones_like(x), "additive"),
        1.0,
        "sosra",
        "ShARK",
    ),
    Task("reverse SDE of a mixture", mixture_backwards(), 0.5, "sosra", "ShARK"),
)


def sdekit_run(task: Task, tol: float, compile: bool = False) -> Outcome:
    x = torch.full((BATCH, 1), task.start, dtype=torch.float64)
    tree = sk.BrownianTree((BATCH, 1), 0.0, 1.0, seed=SEED, levy="space-time")
    began = time.perf_counter()
    with torch.no_grad():
        solution = sk.solve(
            task.sde, x, [0.0, 1.0], task.ours, noise=tree, controller=sk.PID(tol, tol), compile=compile
        )
    seconds = time.perf_counter() - began
    steps = float(solution.diagnostics["accepted"].double().mean())

    def path(times: Tensor) -> tuple[Tensor, Tensor]:
        walk, level = tree.walk(), (len(times) - 1).bit_length() - 1
        drawn = [walk.step(level, i) for i in range(len(times) - 1)]
        return torch.stack([d.w for d in drawn]), torch.stack([d.h for d in drawn])

    return Outcome(solution.final, seconds, path, steps)


class _Torchsde:
    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, sde: SDE) -> None:
        self._sde, self.calls = sde, 0

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self._sde.drift(float(t), y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self._sde.diffusion(float(t), y)


def torchsde_run(task: Task, tol: float) -> Outcome:
    import torchsde

    x, ts = torch.full((BATCH, 1), task.start, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    bm = torchsde.BrownianInterval(
        0.0, 1.0, x.shape, dtype=torch.float64, entropy=SEED, levy_area_approximation="space-time"
    )
    fields = _Torchsde(task.sde)
    began = time.perf_counter()
    final = torchsde.sdeint(fields, x, ts, bm=bm, method="srk", adaptive=True, rtol=tol, atol=tol, dt=1e-2)[-1]
    seconds = time.perf_counter() - began

    def path(times: Tensor) -> tuple[Tensor, Tensor]:
        drawn = [bm(s, t, return_U=True) for s, t in pairwise(times)]
        h = float(times[1] - times[0])
        return torch.stack([w for w, _ in drawn]), torch.stack([u / h - 0.5 * w for w, u in drawn])

    return Outcome(final, seconds, path, fields.calls / 10)


def diffrax_runs(task: Task) -> Callable[[Task, float], Outcome]:
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    drift, diffusion = _in_jax(task, jnp)
    keys = jax.random.split(jax.random.key(SEED), BATCH)

    def tree(key: Any) -> Any:
        return diffrax.VirtualBrownianTree(
            0.0, 1.0, tol=2.0**-14, shape=(), key=key, levy_area=diffrax.SpaceTimeLevyArea
        )

    @jax.jit
    def solve(keys: Any, tol: Any) -> tuple[Any, Any]:
        def one(key: Any) -> tuple[Any, Any]:
            noise = diffrax.ControlTerm(diffusion, tree(key))
            found = diffrax.diffeqsolve(
                diffrax.MultiTerm(diffrax.ODETerm(drift), noise),
                getattr(diffrax, task.diffrax)(),
                *(0.0, 1.0, 0.01, jnp.asarray(task.start)),
                stepsize_controller=diffrax.PIDController(
                    rtol=tol, atol=tol, pcoeff=0.1, icoeff=0.3, dcoeff=0.0, dtmin=2.0**-13
                ),
                saveat=diffrax.SaveAt(t1=True),
                max_steps=2**14,
            )
            return found.ys[0], found.stats["num_accepted_steps"]

        return jax.vmap(one)(keys)

    @jax.jit
    def read(keys: Any, times: Any) -> tuple[Any, Any]:
        def one(key: Any) -> Any:
            path = tree(key)
            return jax.vmap(lambda s, t: path.evaluate(s, t, use_levy=True))(times[:-1], times[1:])

        drawn = jax.vmap(one, out_axes=1)(keys)
        return drawn.W, drawn.H

    def run(task: Task, tol: float) -> Outcome:
        began = time.perf_counter()
        final, steps = jax.block_until_ready(solve(keys, tol))
        seconds = time.perf_counter() - began

        def path(times: Tensor) -> tuple[Tensor, Tensor]:
            w, h = read(keys, times.numpy())
            return torch.tensor(np.array(w))[..., None], torch.tensor(np.array(h))[..., None]

        return Outcome(torch.tensor(np.array(final))[:, None], seconds, path, float(steps.mean()))

    return run


def _in_jax(task: Task, jnp: Any) -> tuple[Any, Any]:
    """The same fields; for GBM with the drift of Stratonovich's calculus, which is what SPaRK solves in."""
    if task.sde.noise_type != "additive":
        return (lambda t, y, args: (1.5 - 0.125) * y), (lambda t, y, args: 0.5 * y)
    if task.name == "double well":
        return (lambda t, y, args: 4.0 * (y - y**3)), (lambda t, y, args: jnp.ones_like(y))
    low, high = 0.1, 20.0

    def parts(s: Any) -> tuple[Any, Any, Any]:
        t = 1.0 - 0.99 * s
        beta, whole = low + (high - low) * t, low * t + 0.5 * (high - low) * t * t
        return beta, jnp.exp(-0.5 * whole), -jnp.expm1(-whole)

    def drift(s: Any, y: Any, args: Any) -> Any:
        beta, alpha, variance = parts(s)
        v = alpha**2 * jnp.asarray(SCALES) ** 2 + variance
        off = alpha * jnp.asarray(MEANS) - y
        logs = jnp.log(jnp.asarray(WEIGHTS)) - 0.5 * jnp.log(v) - 0.5 * off**2 / v
        shares = jnp.exp(logs - logs.max())
        score = (shares * off / v).sum() / shares.sum()
        return 0.99 * (0.5 * beta * y + beta * score)

    return drift, (lambda s, y, args: jnp.sqrt(0.99 * parts(s)[0]) * jnp.ones_like(y))


def error(task: Task, outcome: Outcome) -> float:
    """Root mean square over the batch, to the fine solution on the same path."""
    times = torch.linspace(0.0, 1.0, FINE + 1, dtype=torch.float64)
    recorded = sk.RecordedBrownian(times, *outcome.path(times))
    x = torch.full((BATCH, 1), task.start, dtype=torch.float64)
    fixed = "sra1" if task.sde.noise_type == "additive" else "sri1w1"
    reference = sk.solve(task.sde, x, times, fixed, noise=recorded).final
    return float((outcome.final - reference).square().mean().sqrt())


def rows(rounds: int) -> Iterator[dict[str, Any]]:
    for task in TASKS:
        runs: dict[str, Callable[[Task, float], Outcome]] = {
            f"sdekit {task.ours}": sdekit_run,
            f"sdekit {task.ours} compiled": partial(sdekit_run, compile=True),
            "torchsde srk": torchsde_run,
        }
        if importlib.util.find_spec("diffrax"):
            runs[f"diffrax {task.diffrax}"] = diffrax_runs(task)
        for who, run in runs.items():
            for tol in TOLERANCES:
                run(task, tol)  # whatever is compiled is compiled
                outcomes = [run(task, tol) for _ in range(rounds)]
                best = min(outcomes, key=lambda o: o.seconds)
                row = {"task": task.name, "who": who, "tol": tol, "seconds": best.seconds, "steps": best.steps}
                yield {**row, "error": error(task, best)}


def draw(found: list[dict[str, Any]], file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(TASKS), figsize=(12.0, 3.8), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        mine = [row for row in found if row["task"] == task.name]
        for who in dict.fromkeys(row["who"] for row in mine):
            line = [row for row in mine if row["who"] == who]
            axis.loglog([r["seconds"] for r in line], [r["error"] for r in line], "o-", label=who, markersize=4)
        axis.set(title=task.name, xlabel="seconds", ylabel="strong error" if axis is axes[0] else None)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("work-precision"), help="file name without its end")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many runs counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for row in rows(options.rounds):
        found.append(row)
        print(
            "{task:28s} {who:24s} tol {tol:.0e}  error {error:.2e}  {seconds:8.3f} s  {steps:7.1f} steps".format(**row)
        )
    options.out.with_suffix(".json").write_text(json.dumps(found, indent=1))
    draw(found, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
