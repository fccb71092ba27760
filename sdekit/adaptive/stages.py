r"""One step of a Runge–Kutta pair for samples with times and lengths of their own, and the states inside it.

A sample knows the time it has still to go, r, so that its end is exact: a stage at $c\,h$ of the step is at
$t_{\mathrm{end}} \mp (r - c\,h)$, which no rounding carries out of the interval. A stage is a product of the matrix of
slopes with a row of the tableau, one pass over the memory, whose results do not depend on how many samples there are.

:class:`Stages` takes the step out of place, and gradients go through it; :class:`Workspace` takes it in buffers that
are made once: a state-sized tensor that is new at every stage costs more than the stage.
"""

from __future__ import annotations

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


class _Weights(NamedTuple):
    """A pair in the type of the states; nodes and layers in float64, as times are."""

    stages: tuple[Tensor, ...]
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
        # Between the slopes of the stages and that at the end there is the new state, which counts nothing.
        errors = [e if len(e) < pair.size else (*e[:-1], Fraction(0), e[-1]) for e in pair.errors]
        return _Weights(
            rows([*(row[:i] for i, row in enumerate(a) if i), b], dtype),
            rows(errors, dtype),
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
        """Length of the interval."""
        return abs(self.last - self.first)

    def weights(self, x: Tensor) -> _Weights:
        return _weights(self.pair, x.dtype, x.device)

    def times_(self, left: Tensor) -> Tensor:
        """The times with so much left to go, in place: exact at the end, and in the interval whatever is rounded."""
        times = left.add_(self.last) if self.backwards else left.neg_().add_(self.last)
        return times.clamp_(min(self.first, self.last), max(self.first, self.last))

    def field(self, times: Tensor, x: Tensor) -> Tensor:
        """Slopes, flat."""
        return self.sde.drift(times, x.view(-1, *self.event)).reshape(x.shape)

    def signed(self, h: Tensor, x: Tensor) -> Tensor:
        """Steps with the sign of time, in the type of the states, shape (B, 1)."""
        return (h.neg() if self.backwards else h).to(x.dtype)[:, None]

    def step(self, x: Tensor, slope: Tensor, left: Tensor, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """States after a step from where there is ``left`` to go, and all slopes of it, that at its end last."""
        weights, length, slopes = self.weights(x), self.signed(h, x), [slope]
        after = x
        for row, c in zip(weights.stages, weights.nodes, strict=True):
            after = _moved(x, length, row, slopes)
            slopes.append(self.field(self.times_(torch.addcmul(left, c, h)), after))
        return after, slopes

    def completed(self, x: Tensor, slopes: list[Tensor], left: Tensor, h: Tensor) -> list[Tensor]:
        """The slopes with those that only the polynomial needs."""
        length = self.signed(h, x)
        for row, c in zip(self.weights(x).extra, self.pair.extra_nodes, strict=True):
            times = self.times_(torch.add(left, h, alpha=-float(c)))
            slopes = [*slopes, self.field(times, _moved(x, length, row, slopes))]
        return slopes

    def inside(self, x: Tensor, slopes: list[Tensor], h: Tensor, part: Tensor) -> Tensor:
        """States at a part θ of the steps."""
        theta = part[:, None]
        weights = torch.zeros_like(theta)
        layers = self.weights(x).layers
        for i in range(len(layers) - 1, -1, -1):
            weights = (weights + layers[i]) * (1.0 - theta if i % 2 else theta)
        shares = weights.to(x.dtype).unbind(1)
        total = slopes[0] * shares[0][:, None]
        for share, slope in zip(shares[1:], slopes[1:], strict=True):
            total = torch.addcmul(total, slope, share[:, None])
        return torch.addcmul(x, self.signed(h, x), total)


def _moved(x: Tensor, length: Tensor, row: Tensor, slopes: list[Tensor]) -> Tensor:
    """The states x + h Σ wⱼ kⱼ."""
    slope = torch.mv(torch.stack(slopes).flatten(1).t(), row).view_as(x)
    return torch.addcmul(x, length, slope)


@final
class Workspace:
    """Buffers of a batch: its states, the slopes of a step, the states after it, and the slopes there, in one block.

    Args:
        stages: The method on its problem.
        block: States and their slopes, shape (S + 2, B, D), where S counts all slopes of a step.
        tolerance: atol and rtol.
    """

    def __init__(self, stages: Stages, block: Tensor, tolerance: tuple[float, float]) -> None:
        size, (_, count, width) = stages.pair.size, block.shape
        flat = block.view(size + 2, -1)
        self._stages, self._weights, self._tolerance = stages, stages.weights(block), tolerance
        self.block, self.x, self.after = block, block[0], block[size]
        self.slopes = [*block[1:size], block[size + 1]]
        self._before, self._all = flat[1:size].t(), flat[1:].t()
        self._scale = block.new_empty(count, width)
        self._slope = block.new_empty(count * width)
        self._slopes = self._slope.view(count, width)
        self._length = block.new_empty(count, 1)
        self._mask = torch.empty(count, width, dtype=torch.bool, device=block.device)
        self._times = torch.empty(size - 1, count, dtype=torch.float64, device=block.device)
        self._parts = []
        for i, (row, times) in enumerate(zip(self._weights.stages, self._times.unbind(0), strict=True), start=1):
            # What the stages are computed in is free when they are done.
            state, before = self.after if i == size - 1 else self._scale, flat[1 : 1 + i].t()
            seen, slope = (v.view(count, *stages.event) for v in (state, self.slopes[i]))
            self._parts.append((row, before, times, state, seen, slope))
        self._end = torch.tensor(stages.last, dtype=torch.float64, device=block.device)
        # Scaled by √D, so that a norm is a root mean square; never zero, for 0/0 would refuse a state at rest.
        root = width**0.5
        self._atol = torch.tensor(
            max(root * tolerance[0], torch.finfo(block.dtype).tiny), dtype=block.dtype, device=block.device
        )
        self._rtol = root * tolerance[1]

    @classmethod
    def of(cls, stages: Stages, x: Tensor, slope: Tensor, tolerance: tuple[float, float]) -> Workspace:
        block = x.new_zeros(stages.pair.size + 2, *x.shape)
        block[0], block[1] = x, slope
        return cls(stages, block, tolerance)

    def select(self, rows: Tensor) -> Workspace:
        """Of some samples."""
        return Workspace(self._stages, self.block.index_select(1, rows), self._tolerance)

    def step(self, left: Tensor, h: Tensor) -> None:
        """Fill the block: one step from where there is ``left`` to go."""
        stages, x, length, direction = self._stages, self.x, self._length, self._slope
        drift, directions = stages.sde.drift, self._slopes
        torch.addcmul(left, self._weights.nodes, h, out=self._times)
        (torch.add if stages.backwards else torch.sub)(self._end, self._times, out=self._times)
        self._times.clamp_(min(stages.first, stages.last), max(stages.first, stages.last))
        torch.mul(h[:, None], -1.0 if stages.backwards else 1.0, out=length)
        for row, before, times, state, seen, slope in self._parts:
            torch.mv(before, row, out=direction)
            torch.addcmul(x, length, directions, out=state)
            slope.copy_(drift(times, seen))

    def errors(self, h: Tensor) -> Tensor:
        """The error of the step in units of the tolerance, for every sample, float64."""
        torch.abs(self.x, out=self._scale)
        torch.maximum(self._scale, torch.abs(self.after, out=self._slopes), out=self._scale)
        torch.add(self._atol, self._scale, alpha=self._rtol, out=self._scale)
        norms: list[Tensor] = []
        for row in self._weights.errors:
            torch.mv(self._all if len(row) == len(self.slopes) + 1 else self._before, row, out=self._slope)
            norms.append(torch.linalg.vector_norm(self._slopes.div_(self._scale), dim=1))
        if len(norms) == 1:
            return norms[0] * h
        fifth, third = norms
        whole = torch.hypot(fifth, third.mul_(0.1)).clamp_(min=torch.finfo(fifth.dtype).tiny)
        error: Tensor = fifth.square().div_(whole).mul(h)
        return error

    def advance(self, accept: Tensor | None) -> None:
        """Go on from the end of the step: all samples, or those which ``accept`` it."""
        now, then = self.block[:2], self.block[-2:]
        if accept is None:
            now.copy_(then)
        else:
            # Spread out first: a mask that is broadcast costs three times as much.
            torch.where(self._mask.copy_(accept[:, None]), then, now, out=now)
