r"""Blocks of steps as one graph: what ``solve(..., compile=True)`` runs.

A step of a cheap field on a small state costs what it takes to launch its kernels, not what they do. So K steps are
traced as one graph, their noise drawn inside, and compiled once. Times and the index of the first step enter as
tensors: the same graph serves every block of a run, other seeds, and other grids with as many steps to a block.

Inside a block every step goes over [0, 1], in the time of :class:`~sdekit.local_time.LocalTime`: a step method is
traced as it is written, with numbers for the length of its step, and only fields see tensors. That asks of a method
that it take drift, diffusion and increments from its arguments and remember nothing, which is checked on one step
before the graph is made.

A last block that is not full repeats the last step; what is beyond the end is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from types import FunctionType
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from sdekit.brownian import Increment, Noise, StepNoise
from sdekit.brownian.steps import Draws
from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError
from sdekit.local_time import LocalTime
from sdekit.observe import LOOK_EVERY, Counter, observe
from sdekit.solution import Status
from sdekit.steppers.base import StepMethod, Stepper

T = TypeVar("T")

BLOCK = 10
"""Steps of a block, about."""

SMALL = 2**14
"""Elements of a state up to which a block has twice as many: there its call costs what its steps do."""

BACKEND = "inductor"
"""Of ``torch.compile``."""

_AGREE = {torch.float64: 1e-6, torch.float32: 1e-4}  # relative, of one step in two clocks; a wrong one is off by O(1)

Parts = tuple[Tensor | None, ...]
"""Of an increment: W, H, areas, two-point variables."""

Run = Callable[..., list[Tensor]]
"""From the state, the starts and ends of the steps, the number of the first, how many are left to the end of the run,
the keys of the paths or the increments: the states of a block, or its last one."""

Report = Callable[[int, int], None] | None
Stop = Callable[[int, Tensor, bool], Status]


def _key(value: object) -> Hashable:
    """What tells a value from others: of a dataclass its fields; else its hash, or which object it is."""
    if is_dataclass(value):
        return type(value), *(_key(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, Stepper) and not vars(value):
        return type(value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


@final
@dataclass(frozen=True, eq=False)
class _Known(Generic[T]):
    """A value, held and compared by its key."""

    value: T
    key: Hashable

    @classmethod
    def of(cls, value: T) -> _Known[T]:
        """``value``, known."""
        return cls(value, _key(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@final
@dataclass(frozen=True)
class Problem:
    """What a graph is made for.

    Attributes:
        sde: The problem.
        stepper: The step method.
        backwards: Whether time falls.
        size: K, the steps of a block.
        keep: Whether every state is wanted, or only the last one.
        draws: What is drawn inside; None where increments are handed in, or there are none.
        shape: Of the state.
        dtype: Of the state.
        device: Of the state.
        gradient: Whether gradients are recorded, and of the state.
    """

    sde: _Known[SDE]
    stepper: _Known[StepMethod]
    backwards: bool
    size: int
    keep: bool
    draws: Draws | None
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    gradient: tuple[bool, bool]

    def forwards(self, sde: SDE) -> SDE:
        """``sde`` in a clock that runs forwards."""
        return Reflected(sde) if self.backwards else sde


@final
class Graph:
    """A compiled block, and what a step of it asks for."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.calls, self.checked = problem, Counter(), False
        self.run: Run = torch.compile(_own(_block(problem)), backend=BACKEND, fullgraph=True, dynamic=False)

    def check(self, x: Tensor, s: float, t: float, increment: Increment | None) -> None:
        """A step as the driver takes it, which is counted, and the same over [0, 1]: they must agree.

        Raises:
            SdekitError: they do not, or the method remembers something.
        """
        made, stepper, calls = self.problem, self.problem.stepper.value, Counter()
        counted = made.forwards(observe(made.sde.value, calls, fields=True))
        plain = stepper.step(counted, s, t, x, increment, None)
        if plain.memory is not None:
            raise SdekitError(
                f"{stepper.spec.name} remembers its last step, and a block of steps does not: leave compile out."
            )
        start, end = torch.tensor([s, t], dtype=torch.float64, device=x.device).unbind()
        local = LocalTime(made.forwards(made.sde.value), start, end, x)
        scaled = None if increment is None else _scaled(end - start, _parts(increment))
        own = stepper.step(local, 0.0, 1.0, x, scaled, None).x
        off = (own - plain.x).abs().amax() / torch.maximum(x.abs().amax(), plain.x.abs().amax()).clamp_min(1.0)
        if bool(off > _AGREE.get(x.dtype, 0.1)):
            raise SdekitError(
                f"{stepper.spec.name} takes another step in another unit of time (off by {float(off):.2g}), so it "
                "cannot be compiled: let it take drift, diffusion and increments as arguments, or leave compile out."
            )
        self.calls, self.checked = calls, True

    def count(self, counter: Counter, steps: int) -> None:
        """Add what so many steps ask for; what a last block throws away is not counted."""
        counter.drift += self.calls.drift * steps
        counter.diffusion += self.calls.diffusion * steps
        counter.score += self.calls.score * steps

    @contextmanager
    def traced(self, recompile: bool) -> Iterator[None]:
        """Within it the graph may be made, or made anew only where ``recompile`` says so.

        Raises:
            SdekitError: the fields or the stepper cannot be traced.
        """
        from torch._dynamo import config, exc  # a second of imports

        try:
            with nullcontext() if recompile else config.patch(error_on_recompile=True):
                yield
        except exc.TorchDynamoException as error:
            name, what = self.problem.stepper.value.spec.name, type(self.problem.sde.value).__name__
            raise SdekitError(
                f"{name} on this {what} does not trace as one graph: {_reason(error)} Fields must be plain torch, the "
                "same for every step, with times that are tensors (torch.exp(t), no math.exp(t)) and no side effects; "
                "or leave compile out."
            ) from error


def _reason(error: BaseException) -> str:
    """What torch says, in a line: of a graph that would have to be made anew, what changed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    changed = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return [*changed[-1:], *lines, type(error).__name__][0].rstrip(".") + "."


@lru_cache(maxsize=16)
def graph(problem: Problem) -> Graph:
    """The graph of a problem; solving it again finds it compiled."""
    return Graph(problem)


def _own(function: FunctionType) -> FunctionType:
    """``function`` with code of its own: torch keeps what it compiled by code, and limits how much."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _block(problem: Problem) -> FunctionType:
    """K steps, from the arguments of a graph."""
    stepper, draws, keep = problem.stepper.value, problem.draws, problem.keep
    sde = problem.forwards(problem.sde.value)

    def block(
        x: Tensor, starts: Tensor, ends: Tensor, first: Tensor, left: Tensor, keys: Tensor | None, given: list[Parts]
    ) -> list[Tensor]:
        drawn: Sequence[Increment | None] = [None] * len(starts)
        if keys is not None and draws is not None:
            drawn = draws.block(keys, torch.ones_like(starts, dtype=draws.wide), first)
        states = []
        for i, (start, end) in enumerate(zip(starts.unbind(), ends.unbind(), strict=True)):
            increment = _scaled(end - start, given[i]) if given else drawn[i]
            new = stepper.step(LocalTime(sde, start, end, x), 0.0, 1.0, x, increment, None).x
            x = new if keep else torch.where(left > i, new, x)
            states.append(x)
        return states if keep else states[-1:]

    return block  # type: ignore[return-value]


def _parts(increment: Increment) -> Parts:
    return increment.w, increment.space_time, increment.areas, increment.coins


def _scaled(h: Tensor, parts: Parts) -> Increment:
    """An increment over h as one over [0, 1]: Brownian scaling."""
    w, space_time, areas, coins = parts
    assert w is not None
    root, length = h.rsqrt().to(w.dtype), h.to(w.dtype)
    return Increment(
        w * root,
        None if space_time is None else space_time * root,
        None if areas is None else areas / length,
        None if coins is None else coins * root,
    )


def block_size(steps: int, elements: int) -> int:
    """K: the even number near :data:`BLOCK` that throws away least of the last block; all steps where they are few.

    Args:
        steps: Of the run.
        elements: Of the state.
    """
    most = 2 * BLOCK if elements <= SMALL else BLOCK
    return steps if steps <= most else min(range(most, most // 2 - 1, -2), key=lambda size: -steps % size)


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
            _Known.of(sde),
            _Known.of(stepper),
            backwards=times[0] > times[-1],
            size=block_size(len(times) - 1, x.numel()),
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
        tables = self._tables(x.device, min(total, most))
        heads = 2 if torch.is_grad_enabled() else 1  # a state with a gradient behind it has a graph of its own
        for blocks, recompile in ((tables[:heads], True), (tables[heads:], False)):
            with self.graph.traced(recompile):
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

    def _tables(self, device: torch.device, last: int) -> list[tuple[int, tuple[Tensor, ...]]]:
        """For every block how many steps it has; starts and ends of steps, its first one, how many are left."""
        steps, size = len(self.times) - 1, self.graph.problem.size
        short = -steps % size
        clock = [-t for t in self.times] if self.graph.problem.backwards else list(self.times)
        pairs = torch.tensor([clock[:-1] + clock[-2:-1] * short, clock[1:] + clock[-1:] * short], dtype=torch.float64)
        firsts = torch.arange(0, steps, size)
        starts, ends = pairs.to(device).reshape(2, -1, size).unbind()
        columns = (starts, ends, firsts.to(device), (last - firsts).to(device))
        rows = zip(*(column.unbind() for column in columns), strict=True)
        return [(min(size, last - k), row) for k, row in zip(range(0, steps, size), rows, strict=True) if k < last]

    def _given(self, first: int) -> list[Parts]:
        """The increments of a block that are handed in."""
        if self.source is None or self.keys is not None:
            return []
        last = len(self.times) - 2
        size = self.graph.problem.size
        parts = [_parts(self.source.increments(k)[0]) for k in range(first, min(first + size, last + 1))]
        # Copies: a graph is made for tensors that are not one another.
        spare = [tuple([part if part is None else part.clone() for part in parts[-1]]) for _ in range(len(parts), size)]
        return parts + spare
