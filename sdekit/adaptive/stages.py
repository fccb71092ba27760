r"""One step of a Runge–Kutta pair for samples with times and lengths of their own, and the states inside it.

A sample knows the time it has still to go, r, so that its end is exact: a stage at $c\,h$ of the step is at
$t_{\mathrm{end}} \mp (r - c\,h)$, which no rounding carries out of the interval. What is kept of a stage is its move
$m_j = \pm h\,k_j$, so that whatever else there is, states, errors and the polynomial, is linear in moves with weights
of the tableau. A stage is a product of the matrix of states and moves with a row, one pass over the memory, whose
results do not depend on how many samples there are; the step adds up its moves before the state, to be rounded once.

:class:`Stages` takes the step out of place, and gradients go through it; :class:`Workspace` takes it in buffers that
are made once: a state-sized tensor that is new at every stage costs more than the stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.steppers.coefficients import Vector
from sdekit.steppers.embedded import Pair

_NARROW = 16  # numbers in a state: over fewer, what a sample has one of is spread out, for to broadcast it costs more


class _Weights(NamedTuple):
    """A pair in the type of the states; nodes and layers in float64, as times are."""

    stages: tuple[Tensor, ...]  # after the first, a one for the state before them
    step: Tensor
    errors: tuple[Tensor, ...]
    extra: tuple[Tensor, ...]
    nodes: Tensor  # of the stages after the first, negative, shape (S − 1, 1)
    layers: tuple[Tensor, ...]


@cache
def _weights(pair: Pair, dtype: torch.dtype, device: torch.device) -> _Weights:
    def rows(vectors: Sequence[Vector], kind: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(torch.tensor([float(v) for v in row], dtype=kind, device=device) for row in vectors)

    # What is kept must serve runs that record gradients, too.
    with torch.inference_mode(False), torch.no_grad():
        a, b, c = pair.tableau.a, pair.tableau.b, pair.tableau.c
        (nodes,) = rows([(*(-node for node in c[1:]), Fraction(-1))], torch.float64)
        (step,) = rows([b], dtype)
        return _Weights(
            rows([(Fraction(1), *row[:i]) for i, row in enumerate(a) if i], dtype),
            step,
            rows(pair.errors, dtype),
            rows(pair.extra, dtype),
            nodes[:, None],
            rows(pair.layers, torch.float64),
        )


@final
@dataclass(frozen=True)
class Stages:
    """A pair on a problem, from a first to a last time.

    Attributes:
        sde: The problem.
        pair: The method.
        first: Where the run begins.
        last: Where it ends, before or after.
        event: Shape of a sample; states are flat here, (B, D).
    """

    sde: SDE
    pair: Pair
    first: float
    last: float
    event: torch.Size

    @property
    def backwards(self) -> bool:
        """Whether time falls."""
        return self.last < self.first

    @property
    def span(self) -> float:
        """Length of the interval; a hair less where so much before the end would be rounded out of it."""
        span = abs(self.last - self.first)
        while (self.last + span > self.first) if self.backwards else (self.last - span < self.first):
            span = math.nextafter(span, 0.0)
        return span

    def weights(self, x: Tensor) -> _Weights:
        return _weights(self.pair, x.dtype, x.device)

    def times_(self, left: Tensor) -> Tensor:
        """The times with so much left to go, in place: exact at the end, and in the interval whatever is rounded."""
        return left.add_(self.last) if self.backwards else left.neg_().add_(self.last)

    def field(self, times: Tensor, x: Tensor) -> Tensor:
        """Slopes, flat."""
        return self.sde.drift(times, x.view(-1, *self.event)).reshape(x.shape)

    def signed(self, h: Tensor, x: Tensor) -> Tensor:
        """Steps with the sign of time, in the type of the states, shape (B, 1)."""
        return (h.neg() if self.backwards else h).to(x.dtype)[:, None]

    def step(self, x: Tensor, slope: Tensor, left: Tensor, h: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """After a step from where there is ``left`` to go: states, their slopes, and all moves, that of these last."""
        weights, length = self.weights(x), self.signed(h, x)
        moves = [slope * length]
        for i, c in enumerate(weights.nodes):
            after = (
                _combined(weights.stages[i], [x, *moves])
                if i < len(weights.stages)
                else _combined(weights.step, moves) + x
            )
            slope = self.field(self.times_(torch.addcmul(left, c, h)), after)
            moves.append(slope * length)
        return after, slope, moves

    def completed(self, x: Tensor, moves: list[Tensor], left: Tensor, h: Tensor) -> list[Tensor]:
        """The moves with those that only the polynomial needs."""
        length = self.signed(h, x)
        for row, c in zip(self.weights(x).extra, self.pair.extra_nodes, strict=True):
            times = self.times_(torch.add(left, h, alpha=-float(c)))
            moves = [*moves, self.field(times, _combined(row, moves) + x) * length]
        return moves

    def inside(self, x: Tensor, moves: list[Tensor], part: Tensor) -> Tensor:
        """States at a part θ of the steps."""
        theta = part[:, None]
        weights = torch.zeros_like(theta)
        layers = self.weights(x).layers
        for i in range(len(layers) - 1, -1, -1):
            weights = (weights + layers[i]) * (1.0 - theta if i % 2 else theta)
        shares = weights.to(x.dtype).unbind(1)
        total = moves[0] * shares[0][:, None]
        for share, move in zip(shares[1:], moves[1:], strict=True):
            total = torch.addcmul(total, move, share[:, None])
        return total + x


def _combined(row: Tensor, parts: list[Tensor]) -> Tensor:
    return torch.mv(torch.stack(parts).flatten(1).t(), row).view_as(parts[0])


@final
class Workspace:
    """Buffers of a batch, in one block: slopes, states, the moves of a step, the slopes after it, the states after it.

    Args:
        stages: The method on its problem.
        block: The buffers, shape (S + 4, B, D), where S counts all moves of a step.
        tolerance: atol and rtol.
    """

    def __init__(self, stages: Stages, block: Tensor, tolerance: tuple[float, float]) -> None:
        size, (_, count, width) = stages.pair.size, block.shape
        flat, weights, event = block.flatten(1), stages.weights(block), stages.event
        self._stages, self._weights, self._tolerance, self._block = stages, weights, tolerance, block
        self.slope, self.x, *moves, self._slope_after, self.after = block.unbind(0)
        self.moves, self._first_move, self._last_move = block[2:-2], moves[0], moves[-1]
        self._now, self._then, self._ends = block[:2], block[-2:], block[1 :: size + 2]
        self._before = flat[2 : size + 1].t()
        self._norms = torch.empty(len(weights.errors), count, dtype=torch.float64, device=block.device).unbind(0)
        self._estimates = [
            (flat[2 : 2 + len(row)].t(), row, norm) for row, norm in zip(weights.errors, self._norms, strict=True)
        ]
        self._two = block.new_empty(2, count, width)
        # All products go to the first: their last bits depend on whether the result begins at a multiple of 64 bytes.
        self._sum, self._scale = self._two.unbind(0)
        self._sum_flat = self._sum.view(-1)
        self._h = block.new_empty(count)
        self._length, lengths, self._owner = self._h[:, None], self._h.view(count, *(1 for _ in event)), None
        if width < _NARROW:
            self._owner = torch.arange(count, device=block.device).repeat_interleave(width)
            self._length = torch.empty_like(self.x)
            lengths = self._length.view(count, *event)
            self._mask = torch.empty_like(self.x, dtype=torch.bool)
            self._length_flat, self._mask_flat = self._length.view(-1), self._mask.view(-1)
        self._lengths = lengths
        seen = (self._sum, self.after, self._slope_after)
        self._stage, self._seen, self._answer = (v.view(count, *event) for v in seen)
        self._times = torch.empty(size - 1, count, dtype=torch.float64, device=block.device)
        *times, self._last = self._times.unbind(0)
        self._parts = [
            (flat[1 : 3 + i].t(), row, times[i], moves[i + 1].view(count, *event))
            for i, row in enumerate(weights.stages)
        ]
        self._end = torch.tensor(stages.last, dtype=torch.float64, device=block.device)
        # Scaled by √D, so that a norm is a root mean square; never zero, for 0/0 would refuse a state at rest.
        root = width**0.5
        self._atol = torch.tensor(
            max(root * tolerance[0], torch.finfo(block.dtype).tiny), dtype=block.dtype, device=block.device
        )
        self._rtol = root * tolerance[1]

    @classmethod
    def of(cls, stages: Stages, x: Tensor, slope: Tensor, tolerance: tuple[float, float]) -> Workspace:
        block = x.new_zeros(stages.pair.size + 4, *x.shape)
        block[0], block[1] = slope, x
        return cls(stages, block, tolerance)

    def select(self, rows: Tensor) -> Workspace:
        """Of some samples."""
        return Workspace(self._stages, self._block.index_select(1, rows), self._tolerance)

    def step(self, left: Tensor, h: Tensor) -> None:
        """Fill the block: one step from where there is ``left`` to go."""
        stages, length, lengths = self._stages, self._length, self._lengths
        drift, total, stage = stages.sde.drift, self._sum_flat, self._stage
        torch.addcmul(left, self._weights.nodes, h, out=self._times)
        backwards = stages.backwards
        (torch.add if backwards else torch.sub)(self._end, self._times, out=self._times)
        self._h.copy_(h)
        if backwards:
            self._h.neg_()
        if self._owner is not None:
            torch.index_select(self._h, 0, self._owner, out=self._length_flat)
        torch.mul(self.slope, length, out=self._first_move)
        for before, row, times, move in self._parts:
            torch.mv(before, row, out=total)
            torch.mul(drift(times, stage), lengths, out=move)
        torch.mv(self._before, self._weights.step, out=total)
        torch.add(self._sum, self.x, out=self.after)
        self._answer.copy_(drift(self._last, self._seen))
        torch.mul(self._slope_after, length, out=self._last_move)

    def errors(self) -> Tensor:
        """The error of the step in units of the tolerance, for every sample, float64."""
        total, scale = self._sum, self._scale
        torch.abs(self._ends, out=self._two)
        torch.maximum(total, scale, out=scale)
        torch.add(self._atol, scale, alpha=self._rtol, out=scale)
        for moves, row, norm in self._estimates:
            torch.mv(moves, row, out=self._sum_flat)
            norm.copy_(torch.linalg.vector_norm(total.div_(scale), dim=1))
        if len(self._norms) == 1:
            return self._norms[0]
        # Without torch.hypot, which has other last bits in another batch.
        fifth, third = (norm.square_() for norm in self._norms)
        whole = torch.add(fifth, third, alpha=0.01).sqrt_().clamp_(min=torch.finfo(fifth.dtype).tiny)
        return fifth.div_(whole)

    def advance(self, refuse: Tensor | None) -> None:
        """Go on from the end of the step: all samples, or those which do not ``refuse`` it."""
        now, then = self._now, self._then
        if refuse is None:
            now.copy_(then)
        elif self._owner is not None:
            torch.index_select(refuse, 0, self._owner, out=self._mask_flat)
            torch.where(self._mask, now, then, out=now)
        else:
            rows = refuse.nonzero()[:, 0]
            kept = now.index_select(1, rows)
            now.copy_(then).index_copy_(1, rows, kept)
