r"""A run in blocks of steps, each one call of a graph: what ``solve(..., compile=True)`` does.

A step of a cheap field on a small state costs what it takes to launch its kernels, not what they do. So K steps are
traced as one graph (:mod:`sdekit.tracing`), their noise drawn inside, and compiled once for all blocks of a run, all
seeds, and all grids with as many steps to a block. Increments of a Brownian path are handed in.

A last block that is not full repeats the last step, and what is beyond the end is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from sdekit.brownian import Noise, StepNoise
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.observe import LOOK_EVERY
from sdekit.solution import Status
from sdekit.steppers.base import StepMethod, Stepper
from sdekit.tracing import Graph, Known, Parts, Problem, graph, parts_of, traced

BLOCK = 10
"""Steps of a block, about."""

SMALL, CHEAP = 2**14, 50
"""Elements of a state up to which a call costs more than the steps in it, and the steps of a block there, if a step is
one evaluation: of more a compiler has enough with ten."""

Report = Callable[[int, int], None] | None
Stop = Callable[[int, Tensor, bool], Status]


def block_size(steps: int, elements: int, evaluations: int) -> int:
    """K: an even number for which there are few blocks, and little of the last one is thrown away.

    Args:
        steps: Of the run; a block takes them all where they are few.
        elements: Of the state.
        evaluations: Of a step.
    """
    most = CHEAP if elements <= SMALL and evaluations == 1 else BLOCK
    if steps <= most:
        return steps
    return min(range(most, most // 2 - 1, -2), key=lambda size: 4 * -(-steps // size) + -steps % size)


@final
@dataclass
class _Reached:
    """How far a run is."""

    x: Tensor
    kept: dict[int, Tensor]
    done: int = 0
    due: bool = False
    """Whether it is time to look at the state."""
    cause: Status = Status.SUCCESS

    def add(self, states: Sequence[Tensor], count: int, keep: Container[int]) -> None:
        """After a block of ``count`` steps."""
        before, self.x = self.done, states[count - 1] if len(states) > 1 else states[0]
        self.done += count
        self.due = self.done // LOOK_EVERY > before // LOOK_EVERY
        self.kept |= {
            k: x for k, x in enumerate(states, before + 1) if len(states) > 1 and k <= self.done and k in keep
        }


@final
@dataclass(frozen=True)
class Blocks:
    """A run, cut into blocks.

    Attributes:
        graph: Of a block.
        times: Of the run.
        source: The noise; None for a deterministic run.
        keys: Of the paths, where the graph draws; None where the source is asked.
    """

    graph: Graph
    times: Sequence[float]
    source: Noise | None
    keys: Tensor | None

    @classmethod
    def of(
        cls, sde: SDE, stepper: Stepper, x: Tensor, times: Sequence[float], source: Noise | None, keep: bool
    ) -> Blocks:
        """The blocks of a run.

        Args:
            sde: The problem.
            stepper: The stepper.
            x: Initial states.
            times: To step through.
            source: The noise of the run.
            keep: Whether states between blocks are wanted.

        Raises:
            SdekitError: a stepper that is no step method, or one that cannot be compiled.
        """
        if not isinstance(stepper, StepMethod):
            raise SdekitError(
                f"compile=True takes step methods, such as euler-maruyama, sra1 or heun; {stepper.spec.name} is none. "
                "Leave compile out, and compile what costs most, the network: torch.compile(net)."
            )
        draws, keys = (source.law, source.keys) if isinstance(source, StepNoise) else (None, None)
        problem = Problem(
            Known.of(sde),
            Known.of(stepper),
            backwards=times[0] > times[-1],
            size=block_size(len(times) - 1, x.numel(), stepper.spec.evaluations),
            keep=keep,
            draws=draws,
            shape=x.shape,
            dtype=x.dtype,
            device=x.device,
            gradient=(torch.is_grad_enabled(), x.requires_grad),
        )
        made = graph(problem)
        if not made.checked:
            clock = [-t if problem.backwards else t for t in times[:2]]
            made.check(x, clock[0], 0.7 * clock[0] + 0.3 * clock[1], source.increments(0)[0] if source else None)
        return cls(made, times, source, keys)

    def run(
        self, x: Tensor, keep: Container[int], most: int, stop: Stop, report: Report
    ) -> tuple[dict[int, Tensor], int, Status]:
        """Kept states by index of time, steps done, and why the run ended.

        Args:
            x: Initial states.
            keep: Indices of the times to keep.
            most: Steps after which the run ends.
            stop: Why to end after so many steps, in this state; told whether to look at the state.
            report: What to call after a block.

        Raises:
            SdekitError: the fields or the stepper cannot be traced.
        """
        total = len(self.times) - 1
        # A copy, for a graph is not made for a state that a field holds too; a leaf is left as it is.
        start = x.contiguous() if x.requires_grad else x.clone(memory_format=torch.contiguous_format)
        reached = _Reached(start, {0: x} if 0 in keep else {})
        made = self.graph.problem
        tables = _tables(tuple(self.times), made.backwards, made.size, x.device, min(total, most))
        heads = 2 if torch.is_grad_enabled() else 1  # a state with a gradient behind it has a graph of its own
        for blocks, recompile in ((tables[:heads], True), (tables[heads:], False)):
            with traced(made.stepper.value, made.sde.value, recompile):
                for count, table in blocks:
                    reached.cause = stop(reached.done, reached.x, reached.due)
                    if reached.cause is not Status.SUCCESS:
                        break
                    states = self.graph.run(reached.x, *table, self.keys, self._given(reached.done))
                    reached.add(states, count, keep)
                    if report:
                        report(reached.done, total)
        if reached.cause is Status.SUCCESS and reached.done < total:
            reached.cause = Status.STEP_LIMIT
        reached.kept.setdefault(reached.done, reached.x)
        return reached.kept, reached.done, reached.cause

    def _given(self, first: int) -> list[Parts]:
        """The increments of a block that are handed in."""
        if self.source is None or self.keys is not None:
            return []
        last = len(self.times) - 2
        size = self.graph.problem.size
        parts = [parts_of(self.source.increments(k)[0]) for k in range(first, min(first + size, last + 1))]
        # Copies: a graph is made for tensors that are not one another.
        spare = [tuple([part if part is None else part.clone() for part in parts[-1]]) for _ in range(len(parts), size)]
        return parts + spare


@lru_cache(maxsize=16)
def _tables(
    times: tuple[float, ...], backwards: bool, size: int, device: torch.device, last: int
) -> list[tuple[int, tuple[Tensor, ...]]]:
    """For every block how many steps it has; starts and ends of steps, its first one, how many are left."""
    steps = len(times) - 1
    short = -steps % size
    clock = [-t for t in times] if backwards else list(times)
    pairs = torch.tensor([clock[:-1] + clock[-2:-1] * short, clock[1:] + clock[-1:] * short], dtype=torch.float64)
    firsts = torch.arange(0, steps, size)
    starts, ends = pairs.to(device).reshape(2, -1, size).unbind()
    columns = (starts, ends, firsts.to(device), (last - firsts).to(device))
    rows = zip(*(column.unbind() for column in columns), strict=True)
    return [(min(size, last - k), row) for k, row in zip(range(0, steps, size), rows, strict=True) if k < last]
