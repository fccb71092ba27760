r"""A block of steps as one graph.

Every step of a block goes over [0, 1], in the time of :class:`~sdekit.local_time.LocalTime`: a step method is traced as
it is written, with numbers for the length of its step, and only fields see tensors. That asks of a method that it take
drift, diffusion and increments from its arguments and remember nothing, which is checked on one step before the graph
is made.

A graph belongs to a problem, a stepper, the form of the state, and the number of steps of a block. Times, seeds and the
number of the first step are its arguments. Problems are told apart by their fields: ``sk.VP()`` is the same whenever
it is made, a callable is itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from types import FunctionType
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.brownian.steps import Draws
from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError
from sdekit.local_time import LocalTime
from sdekit.observe import Counter, observe
from sdekit.steppers.base import StepMethod, Stepper

T = TypeVar("T")

BACKEND = "inductor"
"""Of ``torch.compile``."""

_AGREE = {torch.float64: 1e-6, torch.float32: 1e-4}  # relative, of one step in two clocks; a wrong one is off by O(1)

Parts = tuple[Tensor | None, ...]
"""Of an increment: W, H, areas, two-point variables."""

Run = Callable[..., list[Tensor]]
"""From the state, the starts and ends of the steps, the number of the first, how many are left to the end of the run,
the keys of the paths or the increments: the states of a block, or its last one."""


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
class Known(Generic[T]):
    """A value, held and compared by its key."""

    value: T
    key: Hashable

    @classmethod
    def of(cls, value: T) -> Known[T]:
        """``value``, known."""
        return cls(value, _key(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and self.key == other.key

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

    sde: Known[SDE]
    stepper: Known[StepMethod]
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
        self.run: Run = torch.compile(own_code(_block(problem)), backend=BACKEND, fullgraph=True, dynamic=False)

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
        scaled = None if increment is None else local.scaled(increment)
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
def traced(stepper: Stepper, sde: SDE, recompile: bool) -> Iterator[None]:
    """Within it a graph of both may be made, or made anew only where ``recompile`` says so.

    Raises:
        SdekitError: the fields or the stepper cannot be traced.
    """
    from torch._dynamo import config, exc  # a second of imports

    try:
        with nullcontext() if recompile else config.patch(error_on_recompile=True):
            yield
    except exc.TorchDynamoException as error:
        raise SdekitError(
            f"{stepper.spec.name} on this {type(sde).__name__} does not trace as one graph: {_reason(error)} Fields "
            "must be plain torch, the same for every step, with times that are tensors (torch.exp(t), no math.exp(t)) "
            "and no side effects; or leave compile out."
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


def own_code(function: FunctionType) -> FunctionType:
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
            local = LocalTime(sde, start, end, x)
            increment = local.scaled(_increment(given[i])) if given else drawn[i]
            new = stepper.step(local, 0.0, 1.0, x, increment, None).x
            x = new if keep else torch.where(left > i, new, x)
            states.append(x)
        return states if keep else states[-1:]

    return block  # type: ignore[return-value]


def parts_of(increment: Increment) -> Parts:
    """Its parts, as a graph takes them."""
    return increment.w, increment.space_time, increment.areas, increment.coins


def _increment(parts: Parts) -> Increment:
    """What :func:`parts_of` took apart."""
    w, *rest = parts
    assert w is not None
    return Increment(w, *rest)
