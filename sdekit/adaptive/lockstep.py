r"""Attempts as one graph: what ``solve(..., controller=, compile=True)`` does.

A sample stands on a node of its tree. Whatever it does next follows from that node and from the later halves of those
above it, one a level, which were drawn when their whole was cut: if the node is longer than the step that is wanted, it
is cut, and the sample stands on its first half; if the step is accepted, the sample goes on to the later half that
begins where the step ended. So every sample has a column of pending halves, and needs one draw a step, where a rejected
step is cut like any other. The path is that of :class:`~sdekit.brownian.Walk`.

All samples do the same in a round: who stands on a node that is too long cuts it, and who then stands on one that is
short enough attempts a step. Who has to cut twice waits for the next round, so that a step takes a round and a half.
Nothing depends on the data but values: rounds are compiled as one graph, for all seeds, intervals and batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from sdekit import random, tracing
from sdekit.adaptive.attempt import Attempt
from sdekit.brownian import BrownianTree, Increment
from sdekit.brownian.bridge import halved
from sdekit.tracing import Known, own_code, traced

ROUNDS = 8
"""Between looks at who has arrived."""

_TRACED = 4  # of them in a graph: a call costs 40 µs, and a round 2 s to compile

_LEVELS = 24  # of pending halves at first; a sample that wants shorter steps waits until there are more


class Column(NamedTuple):
    """Where samples are, a column each.

    Attributes:
        x: The states, shape (B, *E).
        place: In ticks, shape (B,).
        level: Of the node that the sample stands on.
        wanted: Ticks of the next step, float64.
        last: Log e of the two steps that were accepted last.
        older: The one before.
        attempts: Of every sample.
        accepted: Of them.
        node: W, or W and H, of the node, shape (B, noises) each.
    """

    x: Tensor
    place: Tensor
    level: Tensor
    wanted: Tensor
    last: Tensor
    older: Tensor
    attempts: Tensor
    accepted: Tensor
    node: list[Tensor]

    def map(self, change: Callable[[Tensor], Tensor]) -> Column:
        """With every tensor changed."""
        x, place, level, wanted, last, older, attempts, accepted = (change(v) for v in self[:-1])
        return Column(x, place, level, wanted, last, older, attempts, accepted, [change(part) for part in self.node])


class Passed(NamedTuple):
    """What a round did: which samples went on, from where to where."""

    accept: Tensor
    start: Tensor
    end: Tensor
    before: Tensor


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
        watched: Whether it matters what every round passed.
    """

    attempt: Known[Attempt]
    depth: int
    noise: torch.Size
    wide: torch.dtype
    x: tuple[torch.Size, torch.dtype, torch.device]
    watched: bool

    def round(
        self, at: Column, pending: list[Tensor], keys: Tensor, rows: Tensor, span: Tensor
    ) -> tuple[Column, Passed]:
        """Cut, attempt, go on.

        Args:
            at: Where the samples are.
            pending: Later halves by level, for W and for H, (L + 2, B, noises); the last one is for those with nothing
                to keep.
            keys: Of the paths.
            rows: 0 … B − 1.
            span: Both ends of the interval, in a clock that runs forwards.
        """
        going = at.place < 1 << self.depth
        goal = (self.depth - _exponent(at.wanted)).clamp(0, self.depth)
        place = at.place & ((1 << self.depth) - 1)  # those at the end are sent to the start
        node, level = self._cut(at, going & (at.level < goal), place, pending, keys, rows, span)
        ready = going & (level >= goal)
        size = torch.bitwise_left_shift(torch.ones_like(place), self.depth - level)
        ends = [place.double() * 0.5**self.depth, (place + size).double() * 0.5**self.depth]
        start, end = (torch.lerp(span[0], span[1], part) for part in ends)
        judged = self.attempt.value.judge(start, end, at.x, self._increment(node), ready, (at.last, at.older))
        accept, passed = judged.accept, Passed(judged.accept, start, end, at.x)
        to = torch.where(accept, at.place + size, at.place)
        # The longest node that begins at a place: its ticks are the largest power of two that divides it.
        level = torch.where(accept, (self.depth - _exponent((to & -to).double())).clamp(0, self.depth), level)
        x = torch.where(accept.reshape(-1, *(1,) * (at.x.ndim - 1)), judged.after, at.x)
        wanted = torch.where(ready, judged.factor * size, at.wanted)
        last, older = torch.where(accept, judged.error, at.last), torch.where(accept, at.last, at.older)
        node = [torch.where(accept[:, None], kept[level, rows], part) for part, kept in zip(node, pending, strict=True)]
        return Column(x, to, level, wanted, last, older, at.attempts + ready, at.accepted + accept, node), passed

    def _cut(
        self,
        at: Column,
        cut: Tensor,
        place: Tensor,
        pending: list[Tensor],
        keys: Tensor,
        rows: Tensor,
        span: Tensor,
    ) -> tuple[list[Tensor], Tensor]:
        """The nodes that the samples stand on after some of them were cut, and their levels."""
        most = self._deepest(pending)
        cut = cut & (at.level < most)
        level = at.level + cut
        if not pending:
            return [], level
        backwards = self.attempt.value.backwards
        index = place >> (self.depth - at.level)
        if backwards:
            index = torch.bitwise_left_shift(torch.ones_like(index), at.level) - 1 - index
        stream = at.level + (random.STREAM_TREE + 1)
        z = random.normals_at(keys, (self.noise.numel(),), stream=stream, index=index, dtype=self.wide)
        root = (_power(-at.level) * (span[1] - span[0])).sqrt().to(self.wide)[:, None]
        parts = halved(at.node[0], at.node[1] if len(at.node) > 1 else None, root, z)
        first, later = reversed(parts) if backwards else parts
        slot = torch.where(cut, level, most + 1)
        for kept, part in zip(pending, later, strict=True):
            kept.index_put_((slot, rows), part)
        return [torch.where(cut[:, None], new, old) for new, old in zip(first, at.node, strict=True)], level

    def _deepest(self, pending: list[Tensor]) -> int:
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
def _graph(course: Course) -> Callable[..., tuple[Column, list[Passed]]]:
    """Some rounds, compiled; solving a problem again finds them."""

    def rounds(
        at: Column, pending: list[Tensor], keys: Tensor, rows: Tensor, span: Tensor
    ) -> tuple[Column, list[Passed]]:
        passed = []
        for _ in range(_TRACED):
            at, what = course.round(at, pending, keys, rows, span)
            passed.append(what)
        return at, passed if course.watched else []

    return torch.compile(own_code(rounds), backend=tracing.BACKEND, fullgraph=True)  # type: ignore[arg-type]


@final
class Lockstep:
    """Samples on their way, at least two of them, and what is pending for them.

    Args:
        attempt: How attempts are made.
        tree: The path.
        x: Initial states, shape (B, *E).
        wanted: Ticks of the first step.
        watched: Whether it matters what every round passed.
    """

    def __init__(self, attempt: Attempt, tree: BrownianTree, x: Tensor, wanted: float, watched: bool) -> None:
        parts = tree.root() if attempt.sde.noise_type != "none" else []
        wide = parts[0].dtype if parts else x.dtype
        form = (x.shape[1:], x.dtype, x.device)
        self._course = Course(Known.of(attempt), tree.depth, tree.shape[1:], wide, form, watched)
        whole, real = (torch.zeros(len(x), dtype=t, device=x.device) for t in (torch.int64, torch.float64))
        at = Column(x, whole, whole, real + wanted, real, real, whole, whole, parts)
        self.at = at.map(torch.clone)  # a graph is made for tensors that are not one another
        self._keys, self._rows = tree.keys.clone(), torch.arange(len(x), device=x.device)
        low, high = (-tree.t1, -tree.t0) if attempt.backwards else (tree.t0, tree.t1)
        self._span = torch.tensor([low, high], dtype=torch.float64, device=x.device)
        self._pending = [part.new_zeros(min(_LEVELS, tree.depth) + 2, *part.shape) for part in parts]
        self._new = True  # to the graph, which may be made for it

    def go(self, going: Tensor) -> list[Passed]:
        """:data:`ROUNDS` of those that are still ``going``.

        Raises:
            SdekitError: the fields or the stepper cannot be traced.
        """
        course, at = self._course, self.at
        self.at = at._replace(place=torch.where(going, at.place, 1 << course.depth))
        self._deepen(course.depth - _exponent(torch.where(going, at.wanted, torch.inf).amin()))
        if self._new:
            self._any_length()
            self._new = False
        rounds, passed = _graph(course), []
        with traced(course.attempt.value.stepper, course.attempt.value.sde, recompile=True):
            for _ in range(ROUNDS // _TRACED):
                self.at, more = rounds(self.at, self._pending, self._keys, self._rows, self._span)
                passed += more
        return passed

    def select(self, rows: Tensor) -> None:
        """Keep some of the samples, two or more."""
        self.at = self.at.map(lambda v: v[rows])
        self._keys, self._rows = self._keys[rows], self._rows[: len(rows)].clone()
        self._pending = [kept[:, rows] for kept in self._pending]

    def _deepen(self, level: Tensor) -> None:
        """Room for halves of a level."""
        most = self._course.depth
        if self._pending and (have := len(self._pending[0]) - 2) < most and have < int(level):
            more = min(2 * have, most) - have
            self._pending = [torch.cat((kept, kept.new_zeros(more, *kept.shape[1:]))) for kept in self._pending]
            self._new = True

    def _any_length(self) -> None:
        """Take the number of samples for unknown where a graph is made: one serves all."""
        for v in (*self.at[:-1], *self.at.node, self._keys, self._rows):
            torch._dynamo.mark_dynamic(v, 0)
        for kept in self._pending:
            torch._dynamo.mark_dynamic(kept, 1)
