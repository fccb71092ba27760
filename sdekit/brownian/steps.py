"""What feeds the driver: increments step by step.

:class:`StepNoise` draws anew for every (seed, path, step), which is what ``noise=seed`` means; :class:`PathNoise` asks
a :class:`~sdekit.brownian.BrownianPath`, which lets runs with different step counts share one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import final

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import area
from sdekit.brownian.grid import GridPath
from sdekit.brownian.increment import TWELFTH, BrownianPath, Increment, Interval
from sdekit.brownian.tree import BrownianTree
from sdekit.typing import Increments, Shape

_THREE_POINT = 0.967421566101701  # Φ⁻¹(5/6): a normal is above it one time in six
_BLOCK_NORMALS = 2**18  # draw small states for several steps at once: a block costs what one step does


@final
@dataclass(frozen=True)
class Draws:
    """What is drawn in a step: everything about it but the seed, the times and the step.

    Attributes:
        shape: Event shape of the noise.
        dtype: Type of the increments.
        kind: As in :class:`StepNoise`.
        family: The stream of the first draw.
    """

    shape: torch.Size
    dtype: torch.dtype
    kind: Increments = "w"
    family: int = random.STREAM_STEP

    @property
    def wide(self) -> torch.dtype:
        """The type in which it is drawn."""
        return torch.promote_types(self.dtype, torch.float32)

    def block(self, keys: Tensor, roots: Tensor, first: int | Tensor, draw: int = 0) -> Sequence[Increment]:
        """What a block of steps draws.

        Args:
            keys: Path keys, shape (B,).
            roots: √h of every step.
            first: The first step; a tensor must be even.
            draw: Which draw of the steps.
        """
        count, roots = len(roots), roots.reshape(-1, *(1,) * (1 + len(self.shape)))

        def normals(stream: int, shape: Shape) -> Tensor:
            return random.normals(keys, shape, stream=stream + draw, start=first, count=count, dtype=self.wide)

        z = normals(self.family, self.shape)
        if self.kind in ("three-point", "two-point"):
            z = (z.abs() > _THREE_POINT).to(z.dtype).mul_(3.0**0.5).copysign_(z)
        parts = [w := z.mul_(roots)]
        if self.kind in ("space-time", "full"):
            parts.append(h := normals(random.STREAM_STEP_LEVY, self.shape).mul_(roots * TWELFTH))
            if self.kind == "full":
                pairs = normals(random.STREAM_STEP_AREA, (area.count(self.shape),))
                parts.append(area.areas_given(w, h, pairs, roots))
        rows = zip(*[part.to(self.dtype).unbind(0) for part in parts], strict=True)
        if self.kind != "two-point":
            return [Increment(*row) for row in rows]
        coins = torch.ones_like(z).copysign_(normals(random.STREAM_STEP_TWO_POINT, self.shape)).mul_(roots)
        return [Increment(w, coins=coin) for (w,), coin in zip(rows, coins.to(self.dtype).unbind(0), strict=True)]


@final
class StepNoise:
    r"""Independent increments, a function of (seed, path, step index) alone.

    Args:
        keys: Path keys, as in :class:`sdekit.keys.Keys`.
        shape: Event shape of the noise.
        dtype: Type of the increments.
        draws: For every step, the intervals that it draws.
        kind: ``w``; ``space-time`` for Lévy areas H too; ``full`` for those of the pairs of noises besides;
            ``three-point`` for the variable of weak methods, $\pm\sqrt{3h}$ with probability ⅙ each, else 0;
            ``two-point`` for the variables $\pm\sqrt h$ beside it that several noises need [rossler2009].
        family: The stream of the first draw.

    Raises:
        SdekitError: areas of noises that do not stand in a row.
    """

    def __init__(
        self,
        keys: Tensor,
        shape: Shape,
        dtype: torch.dtype,
        draws: Sequence[Sequence[Interval]],
        kind: Increments = "w",
        family: int = random.STREAM_STEP,
    ) -> None:
        self.keys, self.law, self._draws = keys, Draws(torch.Size(shape), dtype, kind, family), draws
        one = self.law.shape.numel()
        numbers = max(one, one**2 if kind == "full" and area.count(self.law.shape) else 0)
        per_step = max(1, len(keys) * numbers * max(map(len, draws), default=1))
        self._block = max(2, _BLOCK_NORMALS // per_step // 2 * 2)
        self._drawn: dict[int, tuple[int, Sequence[Increment]]] = {}  # draw -> (first step, a block of steps)

    @cached_property
    def _roots(self) -> Tensor:
        """√h by draw and step, on the device once: a copy in the loop would make the host wait."""
        lengths = [[t - s for s, t in column] for column in zip_longest(*self._draws, fillvalue=(0.0, 0.0))]
        return torch.tensor(lengths, dtype=torch.float64).abs().sqrt().to(self.keys.device, self.law.wide)

    def increments(self, k: int) -> tuple[Increment, ...]:
        return tuple([self._drawn_at(k, j) for j in range(len(self._draws[k]))])

    def _drawn_at(self, k: int, draw: int) -> Increment:
        first = k - k % self._block
        if draw not in self._drawn or self._drawn[draw][0] != first:
            self._drawn[draw] = first, self._block_from(first, draw)
        return self._drawn[draw][1][k - first]

    def _block_from(self, first: int, draw: int) -> Sequence[Increment]:
        return self.law.block(self.keys, self._roots[draw, first : first + self._block], first, draw)


@final
@dataclass(frozen=True)
class PathNoise:
    """The increments of a Brownian path, in the dtype of the state and in the direction of the run."""

    path: BrownianPath
    dtype: torch.dtype
    draws: Sequence[Sequence[Interval]]

    def increments(self, k: int) -> tuple[Increment, ...]:
        return tuple(self._increment(s, t) for s, t in self.draws[k])

    def _increment(self, s: float, t: float) -> Increment:
        drawn = self.path.increment(s, t) if s <= t else self.path.increment(t, s).reflected()
        if isinstance(self.path, GridPath | BrownianTree) and self.path.clock is not None:
            drawn = Increment(drawn.w * (abs(t - s) / self.path.variance(s, t)) ** 0.5)
        return drawn.to(self.dtype)
