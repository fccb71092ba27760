"""What every stepper must do, whatever its order: count, batch, dtype, direction, limits, gradients, tracing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import BrownianGrid, Increment, RecordedBrownian, levy_for
from sdekit.brownian.area import wedge
from sdekit.calculus import to_ito
from sdekit.doors import noise_event
from sdekit.driver import solve
from sdekit.dynamics import GeneralSDE, Reflected, noise_shape, times_noise
from sdekit.fresh import fresh_shape
from sdekit.problems.base import Problem
from sdekit.reverse import Reverse
from sdekit.solution import Solution
from sdekit.steppers.base import StepMethod, Stepper
from sdekit.verify.claims import subjects
from sdekit.verify.conformance.outcome import Check, require

_SEED = 20_260_301
_BATCH, _STEPS = 6, 7


@dataclass(frozen=True)
class Subject:
    """A stepper on a problem that it can integrate."""

    stepper: Stepper
    name: str
    problem: Problem
    device: str

    def start(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """A few initial states."""
        return self.problem.initial.sample(_BATCH, seed=_SEED).to(self.device, dtype)

    def grid(self, steps: int = _STEPS) -> Tensor:
        """Few, large steps."""
        return self.problem.grid(steps)

    def run(self, x: Tensor, grid: Tensor | None = None, **options: Any) -> Solution:
        """A run with seeded noise."""
        noise = None if self.silent else _SEED
        times = self.grid() if grid is None else grid
        return solve(self.problem.sde, x, times, self.stepper, **{"noise": noise, **options})

    @property
    def silent(self) -> bool:
        """Whether there is no noise."""
        return self.problem.sde.noise_type == "none" and not self.chain

    @property
    def chain(self) -> bool:
        """Whether the stepper draws normals beside the path."""
        return self.stepper.spec.kind == "chain"


def checks(stepper: Stepper, backend: str, device: str) -> Iterator[Check]:
    """The checks of behaviour, on one problem of each kind that the stepper integrates."""
    for subject in _subjects(stepper, device):
        for check in (_evaluations, _batch, _precision, _repeated_times, _small_steps, _gradient):
            if check is _small_steps and subject.chain:
                continue  # a chain moves by more than the drift
            yield Check(f"{check.__name__[1:]}/{subject.name}", partial(check, subject))
        if isinstance(stepper, StepMethod) and not stepper.spec.needs_langevin:
            yield Check(f"reflection/{subject.name}", partial(_reflection, subject))
        yield Check(f"trace/{subject.name}", partial(_trace, subject, backend))


def _subjects(stepper: Stepper, device: str) -> list[Subject]:
    """One problem for each (noise, calculus, way back or not, affine or not) that the stepper takes."""
    found: dict[object, Subject] = {}
    for name, eta, problem in subjects(stepper):
        reverse, sde = isinstance(problem.sde, Reverse), problem.sde
        kind = (sde.noise_type, sde.calculus, reverse, problem.affine)
        at = name if eta is None else f"{name}/eta={eta:g}"
        found.setdefault(kind, Subject(stepper, at, problem, device))
    return list(found.values())


def _evaluations(subject: Subject) -> str:
    """A step costs what is declared, from the second on; the first may cost more (a starting procedure).

    Without noise a method for noise may cost less: evaluations that differ by the noise are then one.
    """
    x, declared = subject.start(), subject.stepper.spec.evaluations
    few, many = (subject.run(x, subject.grid(n)).stats for n in (4, 9))
    scores = subject.chain or isinstance(subject.problem.sde, Reverse)
    calls = [s.score_evaluations if scores else s.drift_evaluations for s in (few, many)]
    cost = calls[1] - calls[0]
    if subject.silent and subject.stepper.spec.noise_types != {"none"} and cost < 5 * declared:
        return f"{cost / 5:g} a step without noise"
    require(cost == 5 * declared, f"5 more steps cost {cost} evaluations, not 5 × {declared}")
    require(calls[0] >= 4 * declared, f"4 steps cost {calls[0]} evaluations: fewer than 4 × {declared}")
    return f"{declared} a step"


def _batch(subject: Subject) -> str:
    """A sample is the same, to the last bit, alone, in another order and in another batch."""
    x = subject.start()
    whole = subject.run(x).final
    order = [4, 1, 5, 0]
    part = subject.run(x[order], paths=None if subject.silent else order).final
    alone = subject.run(x[3:4], paths=None if subject.silent else [3]).final
    off = max(float((part - whole[order]).abs().max()), float((alone - whole[3:4]).abs().max()))
    require(off == 0.0, f"a sample changes by {off:.2g} with its batch")
    return "bitwise the same in any batch"


def _precision(subject: Subject) -> str:
    """The state keeps its dtype and device, and float32 is float64 to its rounding."""
    exact, x = subject.run(subject.start()).final, subject.start(torch.float32)
    found = subject.run(x).final
    require(found.dtype == torch.float32, f"a float32 state becomes {found.dtype}")
    require(found.device == x.device, f"a state on {x.device} ends on {found.device}")
    off = float((found.double() - exact).abs().max() / exact.abs().max())
    require(off < 5e-4, f"float32 differs from float64 by {off:.2g}")
    return f"float32 within {off:.1g}"


def _repeated_times(subject: Subject) -> str:
    """A time that stands twice in a grid changes nothing and costs nothing."""
    x, grid = subject.start(), subject.grid()
    doubled = torch.cat([grid[:1], grid[:3], grid[2:], grid[-1:]])
    once, twice = subject.run(x, grid), subject.run(x, doubled)
    require(bool(twice.final.isfinite().all()), "a repeated time gives NaN or Inf")
    require(torch.equal(once.final, twice.final), "a repeated time changes the result")
    costs = [(s.stats.drift_evaluations, s.stats.score_evaluations) for s in (once, twice)]
    require(costs[0] == costs[1], f"a repeated time costs evaluations: {costs[0]} become {costs[1]}")
    return "a repeated time is no step"


def _small_steps(subject: Subject) -> str:
    """As h → 0 a step is f h + G ΔW: the mean over ±ΔW gives the drift, the difference the diffusion."""
    problem, x = subject.problem, subject.start()
    grid = subject.grid(4)
    s, span = float(grid[1]), float(grid[-1] - grid[0])
    h, count = 1e-6 * span, subject.stepper.spec.min_steps
    times = torch.linspace(s, s + h, count + 1, dtype=torch.float64)
    backwards = h < 0
    sde = Reflected(problem.sde) if backwards else problem.sde
    clock = -s if backwards else s
    drift = to_ito(sde).drift(clock, x)  # whatever the calculus, what is left of ΔW² has the mean h
    if subject.silent:
        moved = (subject.run(x, times).final - x) / abs(h)
        off = _relative(moved, drift)
        require(off < 1e-3, f"(x₁ − x₀)/h is not the drift: off by {off:.2g}")
        return f"drift within {off:.1g}"
    prepared = subject.stepper.prepare(problem.sde, times.tolist())
    event = noise_event(problem.sde, x, prepared, s) or torch.Size()
    kick = abs(h) ** 0.5 * torch.ones(1, _BATCH, *event, dtype=x.dtype, device=x.device)
    if len(event) and event.numel() > 1:
        kick = kick * (torch.arange(event.numel(), device=x.device) % 2).mul(2.0).sub(1.0).reshape(event)
    # A straight path: whatever parts of it are drawn, they sum to the kick.
    drawn = sorted({t for step in prepared.draws for interval in step for t in interval}, reverse=backwards)
    nodes = torch.tensor(drawn, dtype=torch.float64)
    parts = (nodes.diff() / (nodes[-1] - nodes[0])).to(kick).reshape(-1, *(1,) * (kick.ndim - 1))
    kicks = parts * kick
    ends = []
    for sign in (1.0, -1.0):
        path = RecordedBrownian.of(nodes, [_straight(w, subject) for w in sign * kicks])
        ends.append(solve(problem.sde, x, times, subject.stepper, noise=path).final)
    mean, half = (ends[0] + ends[1]) / 2 - x, (ends[0] - ends[1]) / 2
    g, noises = sde.diffusion(clock, x), noise_shape(problem.sde, s, x)
    if noises == event:
        off = _relative(half, times_noise(g, kick[0]))
        require(off < 2e-3, f"the noise of a small step is not G ΔW: off by {off:.2g}")
    if problem.noise_class in ("general", "commutative"):
        return "G ΔW"  # with several noises, what is left of ΔW ΔWᵀ − h does not vanish in the mean of two signs
    off = _relative(mean / abs(h), drift)
    require(off < 2e-3, f"the mean of a small step is not the drift: off by {off:.2g}")
    return f"f h + G ΔW within {off:.1g}"


def _straight(w: Tensor, subject: Subject) -> Increment:
    """A straight piece of a path, with the Lévy areas that the stepper asks for: they are zero."""
    levy = levy_for(subject.stepper.spec.increments)
    still = None if levy == "none" else torch.zeros_like(w)
    coins = torch.zeros_like(w) if subject.stepper.spec.increments == "two-point" else None
    return Increment(w, still, w.new_zeros(*w.shape, w.shape[-1]) if levy == "full" else None, coins)


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def _gradient(subject: Subject) -> str:
    """Autograd through a few steps agrees with differences."""
    x, grid = subject.start()[:2], subject.grid(max(3, subject.stepper.spec.min_steps))
    weights = random.normals(random.path_keys(_SEED, 2), x.shape[1:], stream=random.STREAM_LAW)[0].to(x)

    def value(y: Tensor) -> Tensor:
        return (subject.run(y, grid).final * weights).sum()

    (slope,) = torch.autograd.grad(value(start := x.clone().requires_grad_()), start)
    direction, step = weights / weights.norm(), 1e-5 * max(1.0, float(x.norm()))
    with torch.no_grad():
        difference = float(value(x + step * direction) - value(x - step * direction)) / (2 * step)
    found = float((slope * direction).sum())
    off = abs(found - difference) / max(abs(difference), 1e-6 * float(slope.norm()), 1e-12)
    require(off < 1e-5, f"the gradient {found:.6g} is not the difference quotient {difference:.6g}")
    return f"gradient within {off:.1g}"


def _reflection(subject: Subject) -> str:
    """A problem told in the clock −t, on the mirrored grid and path, has the same solution to the last bit."""
    sde, grid = subject.problem.sde, subject.grid()
    told = GeneralSDE(sde.drift, sde.diffusion, sde.noise_type, sde.calculus, "either")
    mirror = Reflected(told)
    again = GeneralSDE(mirror.drift, mirror.diffusion, sde.noise_type, sde.calculus, "either")
    x = subject.start()
    there = back = None
    if not subject.silent:
        shape = (_BATCH, *noise_shape(sde, float(grid[0]), x))
        levy = levy_for(subject.stepper.spec.increments)
        path = BrownianGrid.on(grid, shape, seed=_SEED, levy=levy, device=x.device)
        drawn = [path.increment(min(i), max(i)) for i in _pairs(grid)]
        if subject.stepper.spec.increments == "two-point":
            drawn = [replace(i, coins=i.w) for i in drawn]
        there, back = RecordedBrownian.of(grid, drawn), RecordedBrownian.of(-grid, [i.reflected() for i in drawn])
    a = solve(told, x, grid, subject.stepper, noise=there).final
    b = solve(again, x, -grid, subject.stepper, noise=back).final
    off = float((a - b).abs().max())
    require(off == 0.0, f"told in the clock −t the solution differs by {off:.2g}")
    return "the same in the clock −t"


def _pairs(grid: Tensor) -> list[Sequence[float]]:
    times = grid.tolist()
    return [times[i : i + 2] for i in range(len(times) - 1)]


def _trace(subject: Subject, backend: str) -> str:
    """One step is one graph, without breaks, and compiled it does the same."""
    problem, x = subject.problem, subject.start()
    times = subject.grid().tolist()
    prepared = subject.stepper.prepare(problem.sde, times)
    event = noise_event(problem.sde, x, prepared, times[0]) or torch.Size()
    count = len(prepared.draws[0])
    keys = random.path_keys(_SEED, _BATCH, x.device)
    z = random.normals(keys, event, stream=random.STREAM_STEP, count=2 * max(1, count), dtype=x.dtype) * 0.1
    levy = levy_for(subject.stepper.spec.increments)
    shapes = [fresh_shape(kind, x.shape[1:]) for kind in prepared.fresh[0]] if prepared.fresh else []
    beside = [
        Increment(random.normals(keys, shape, stream=random.STREAM_FRESH + j, dtype=x.dtype)[0])
        for j, shape in enumerate(shapes)
    ]

    def piece(w: Tensor, h: Tensor) -> Increment:
        coins = h if subject.stepper.spec.increments == "two-point" else None
        return Increment(w, None if levy == "none" else h, wedge(h, w) if levy == "full" else None, coins)

    def step(y: Tensor, w: Tensor) -> Tensor:
        drawn = tuple([piece(w[2 * i], w[2 * i + 1]) for i in range(count)])
        return prepared.advance(0, y, (*drawn, *beside), None)[0]

    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(step, backend=backend, fullgraph=True)(x, z)
        off = _relative(compiled, step(x, z))
    require(off < 1e-10, f"the compiled step differs by {off:.2g}")
    return f"one graph ({backend})"
