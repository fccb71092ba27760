r"""Attempts as one graph: what ``solve(..., controller=, compile=True)`` does.

A sample stands on a node of its tree. Whatever it does next follows from that node and from the later halves of those
above it, one a level, which were drawn when their whole was cut: if the node is longer than the step that is wanted, it
is cut, and the sample stands on its first half; if the step is accepted, the sample goes on to the later half that
begins where the step ended. So every sample has a column of pending halves, and a path needs one draw a step, where a
rejected step is cut like any other. The path is that of :class:`~sdekit.brownian.Walk`.

All samples do the same in a round: who stands on a node that is too long cuts it, twice at most, and who then stands
on one that is short enough attempts a step. Who has to cut three times waits for the next round, so that a step takes
7/6 of a round: half of the nodes need no cut, a quarter one, an eighth two. Nothing depends on the data but values: a
round is compiled, and so is the loop over rounds, which ends when all samples have. One graph serves all seeds and
intervals. What is pending is written in place, for the loop would copy whatever it carries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from sdekit import random, tracing
from sdekit.adaptive.attempt import Attempt
from sdekit.brownian import BrownianTree, Increment
from sdekit.brownian.bridge import halved
from sdekit.observe import Counter
from sdekit.tracing import Known, own_code, traced

_ROUNDS = 256  # after which limits are looked at
_UNROLLED = {"cpu": 1}  # rounds between looks of the loop at who is still going
_UNROLLED_ELSEWHERE = 8  # where each makes the host wait
_CUTS = 2  # of a sample in a round
_LEVELS = 14  # of pending halves at first; a sample that wants shorter steps waits until there are more


class Column(NamedTuple):
    """Where samples are, a column each.

    Attributes:
        x: The states, shape (B, *E).
        place: In ticks, shape (B,).
        level: Of the node that the sample stands on.
        wanted: Ticks of the next step, float64.
        attempts: Of every sample.
        accepted: Of them.
        memory: Log errors of the last accepted steps, as many as the controller asks for.
        node: W, or W and H, of the node, shape (B, noises) each.
    """

    x: Tensor
    place: Tensor
    level: Tensor
    wanted: Tensor
    attempts: Tensor
    accepted: Tensor
    memory: list[Tensor]
    node: list[Tensor]

    @property
    def flat(self) -> list[Tensor]:
        """All tensors."""
        return [*self[:-2], *self.memory, *self.node]

    def filled(self, tensors: Sequence[Tensor]) -> Column:
        """With these in their places."""
        own, kept = len(self) - 2, len(self.memory)
        x, place, level, wanted, attempts, accepted = tensors[:own]
        lists = list(tensors[own : own + kept]), list(tensors[own + kept :])
        return Column(x, place, level, wanted, attempts, accepted, *lists)


class Seen(NamedTuple):
    """From where the times that are asked for were passed.

    Attributes:
        start: Where the step began that passed them, shape (T, B); infinite where none did.
        before: The states there, shape (T, B, *E).
    """

    start: Tensor
    before: Tensor


class Fixed(NamedTuple):
    """What rounds do not change.

    Attributes:
        keys: Of the paths.
        rows: 0 … B − 1.
        span: Both ends of the interval, in a clock that runs forwards.
        asked: The times that are asked for, in that clock, shape (T, 1).
        bounds: How many rounds there may be, and attempts of a sample.
    """

    keys: Tensor
    rows: Tensor
    span: Tensor
    asked: Tensor
    bounds: Tensor


@final
@dataclass(frozen=True)
class Course:
    """What a graph is made for.

    Attributes:
        attempt: How attempts are made.
        depth: Of the tree.
        noise: Shape of the noise of a sample.
        wide: Type in which it is drawn.
        x: Shape of a sample, type and device of the states.
    """

    attempt: Known[Attempt]
    depth: int
    noise: torch.Size
    wide: torch.dtype
    x: tuple[torch.Size, torch.dtype, torch.device]

    def going(self, at: Column, most: Tensor | int) -> Tensor:
        """Who has not arrived, nor ended before; ``most`` bounds the attempts of a sample."""
        return (at.place < 1 << self.depth) & (at.wanted >= 1.0) & (at.attempts < most)

    def goal(self, at: Column) -> Tensor:
        """The level of nodes as long as the steps that are wanted."""
        return (self.depth - _exponent(at.wanted)).clamp(0, self.depth)

    def round(self, at: Column, pending: list[Tensor], seen: Seen, fixed: Fixed) -> tuple[Column, Seen]:
        """Cut, attempt, go on; ``pending`` are later halves by level, for W and for H, (L + 2, B, noises), in place.

        The last of them is for those who have nothing to keep.
        """
        going, goal = self.going(at, fixed.bounds[1]), self.goal(at)
        place = at.place & ((1 << self.depth) - 1)  # those at the end are sent to the start
        node, level = at.node, at.level
        for _ in range(_CUTS):
            node, level = self._cut(node, level, going & (level < goal), place, pending, fixed)
        # Masks that are asked for again are told from numbers: a compiler keeps numbers for less.
        attempts = at.attempts + (going & (level >= goal))
        ready = attempts > at.attempts
        size = torch.bitwise_left_shift(torch.ones_like(place), self.depth - level)
        ends = [place.double() * 0.5**self.depth, (place + size).double() * 0.5**self.depth]
        start, end = (torch.lerp(fixed.span[0], fixed.span[1], part) for part in ends)
        lengths = size, torch.maximum(at.wanted, size)
        after, accept, wanted, memory = self.attempt.value.judge(
            start, end, at.x, self._increment(node), ready, lengths, at.memory
        )
        seen = self._see(seen, accept, start, end, at.x, fixed.asked)
        to = torch.where(accept, at.place + size, at.place)
        # The longest node that begins at a place: its ticks are the largest power of two that divides it.
        level = torch.where(accept, (self.depth - _exponent((to & -to).double())).clamp(0, self.depth), level)
        x = torch.where(accept.reshape(-1, *(1,) * (at.x.ndim - 1)), after, at.x)
        wanted = torch.where(ready, wanted, at.wanted)
        node = [torch.where(accept[:, None], kept[level, fixed.rows], v) for v, kept in zip(node, pending, strict=True)]
        return Column(x, to, level, wanted, attempts, at.accepted + accept, memory, node), seen

    def _see(self, seen: Seen, accept: Tensor, start: Tensor, end: Tensor, x: Tensor, asked: Tensor) -> Seen:
        """With the times that the steps pass."""
        if not len(asked):
            return seen
        passed = accept & (start < asked) & (asked <= end)
        return Seen(
            torch.where(passed, start, seen.start),
            torch.where(passed.reshape(*passed.shape, *(1,) * (x.ndim - 1)), x, seen.before),
        )

    def _cut(
        self, node: list[Tensor], level: Tensor, cut: Tensor, place: Tensor, pending: list[Tensor], fixed: Fixed
    ) -> tuple[list[Tensor], Tensor]:
        """The nodes that the samples stand on, and their levels, after some of them were cut."""
        before, most = level, self.deepest(pending)
        level = before + (cut & (before < most))
        if not pending:
            return [], level
        cut, backwards = level > before, self.attempt.value.backwards
        index = place >> (self.depth - before)
        if backwards:
            index = torch.bitwise_left_shift(torch.ones_like(index), before) - 1 - index
        stream = before + (random.STREAM_TREE + 1)
        z = random.normals_at(fixed.keys, (self.noise.numel(),), stream=stream, index=index, dtype=self.wide)
        root = (_power(-before) * (fixed.span[1] - fixed.span[0])).sqrt().to(self.wide)[:, None]
        parts = halved(node[0], node[1] if len(node) > 1 else None, root, z)
        first, later = reversed(parts) if backwards else parts
        slot = torch.where(cut, level, most + 1)
        for kept, part in zip(pending, later, strict=True):
            kept.index_put_((slot, fixed.rows), part)
        return [torch.where(cut[:, None], new, old) for new, old in zip(first, node, strict=True)], level

    def deepest(self, pending: list[Tensor]) -> int:
        """The finest level that there is room for."""
        return len(pending[0]) - 2 if pending else self.depth

    def _increment(self, node: list[Tensor]) -> Increment | None:
        """What the path does over a node, in the direction of the run."""
        if not node:
            return None
        increment = Increment(*(part.reshape(len(part), *self.noise) for part in node))
        return increment.reflected() if self.attempt.value.backwards else increment


def _exponent(x: Tensor) -> Tensor:
    """The whole part of log₂ x, from the bits of a double."""
    return (x.view(torch.int64) >> 52 & 0x7FF) - 1023


def _power(n: Tensor) -> Tensor:
    """2ⁿ, by the bits of a double."""
    return torch.bitwise_left_shift(n + 1023, 52).view(torch.float64)


@lru_cache(maxsize=16)
def _graph(course: Course, count: int, levels: int) -> Callable[..., tuple[Tensor, ...]]:
    """A loop over rounds of ``count`` samples, compiled; solving a problem again finds it."""
    unrolled = _UNROLLED.get(course.x[2].type, _UNROLLED_ELSEWHERE)

    def rounds(at: Column, pending: list[Tensor], seen: Seen, fixed: Fixed) -> tuple[Tensor, ...]:
        many = len(at.flat)

        def told(carried: Sequence[Tensor]) -> tuple[Column, Seen]:
            return at.filled(carried[:many]), Seen(*carried[many:]) if len(fixed.asked) else seen

        def more(n: Tensor, *carried: Tensor) -> Tensor:
            now, _ = told(carried)
            going = course.going(now, fixed.bounds[1])
            waiting = going & (course.goal(now) > course.deepest(pending))
            return (n < fixed.bounds[0]) & going.any() & ~waiting.any()

        def some(n: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            now, viewed = told(carried)
            for _ in range(unrolled):
                now, viewed = course.round(now, pending, viewed, fixed)
            return (n + unrolled, *now.flat, *(viewed if len(fixed.asked) else ()))

        n = torch.zeros((), dtype=torch.int64, device=at.place.device)
        carried = (n, *at.flat, *(seen if len(fixed.asked) else ()))
        looped: tuple[Tensor, ...] = while_loop(more, some, carried)  # type: ignore[no-untyped-call]
        return looped

    options = {"cpp_wrapper": True} if tracing.BACKEND == "inductor" else None  # the loop, too, without Python
    return torch.compile(
        own_code(rounds),  # type: ignore[arg-type]
        backend=tracing.BACKEND,
        fullgraph=True,
        dynamic=False,
        options=options,  # type: ignore[arg-type]
    )


@lru_cache(maxsize=64)
def _calls(course: Course) -> Counter:
    """What a step asks for; nothing until one was counted."""
    return Counter()


@final
class Lockstep:
    """Samples on their way, at least two of them, and what is pending for them.

    Args:
        attempt: How attempts are made.
        tree: The path.
        x: Initial states, shape (B, *E).
        wanted: Ticks of the first step.
        asked: The times that are asked for, in a clock that runs forwards.
        most: Attempts of a sample after which it ends.
    """

    def __init__(
        self, attempt: Attempt, tree: BrownianTree, x: Tensor, wanted: float, asked: Sequence[float], most: int
    ) -> None:
        parts = tree.root() if attempt.sde.noise_type != "none" else []
        wide = parts[0].dtype if parts else x.dtype
        form = (x.shape[1:], x.dtype, x.device)
        self._course = Course(Known.of(attempt), tree.depth, tree.shape[1:], wide, form)
        whole, real = (torch.zeros(len(x), dtype=t, device=x.device) for t in (torch.int64, torch.float64))
        memory = [real] * attempt.steering.memory
        at = Column(x, whole, whole, real + wanted, whole, whole, memory, parts)
        self.at = at.filled([v.clone() for v in at.flat])  # a graph is made for tensors that are not one another
        self._keys, self._rows = tree.keys.clone(), torch.arange(len(x), device=x.device)
        low, high = (-tree.t1, -tree.t0) if attempt.backwards else (tree.t0, tree.t1)
        self._span = torch.tensor([low, high], dtype=torch.float64, device=x.device)
        self._asked = torch.tensor(asked, dtype=torch.float64, device=x.device)[:, None]
        self._most = most
        self._pending = [part.new_zeros(min(_LEVELS, tree.depth) + 2, *part.shape) for part in parts]

    @property
    def calls(self) -> Counter:
        """What a step asks for, shared by all runs that one graph serves; nothing until it is filled in."""
        return _calls(self._course)

    def go(self, going: Tensor) -> tuple[int, Seen]:
        """Rounds of those that are still ``going``, until all have ended or there is something to look at.

        Returns:
            How many rounds, and which times they passed.

        Raises:
            SdekitError: the fields or the stepper cannot be traced.
        """
        course, at = self._course, self.at
        at = at._replace(place=torch.where(going, at.place, 1 << course.depth))
        self._deepen(course.depth - _exponent(torch.where(going, at.wanted, torch.inf).amin()))
        bounds = torch.tensor([_ROUNDS, self._most], device=going.device)
        times, levels = len(self._asked), course.deepest(self._pending)
        seen = Seen(at.wanted.new_full((times, len(going)), torch.inf), at.x.new_zeros(times, *at.x.shape))
        fixed = Fixed(self._keys, self._rows, self._span, self._asked, bounds)
        # Where nothing is recorded a loop may write in place.
        with torch.no_grad(), traced(course.attempt.value.stepper, course.attempt.value.sde, recompile=True):
            n, *carried = _graph(course, len(going), levels)(at, self._pending, seen, fixed)
        self.at = at.filled(carried[: len(at.flat)])
        return int(n), Seen(*carried[len(at.flat) :]) if times else seen

    def _deepen(self, level: Tensor) -> None:
        """Room for halves of a level."""
        most = self._course.depth
        if self._pending and (have := len(self._pending[0]) - 2) < most and have < int(level):
            more = min(2 * have, most) - have
            self._pending = [torch.cat((kept, kept.new_zeros(more, *kept.shape[1:]))) for kept in self._pending]
