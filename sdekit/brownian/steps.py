"""What feeds the driver: increments step by step.

:class:`StepNoise` draws anew for every (seed, path, step), which is what ``noise=seed`` means; :class:`PathNoise` asks
a :class:`~sdekit.brownian.BrownianPath`, which lets runs with different step counts share one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        self._keys, self._shape, self._dtype, self._draws = keys, torch.Size(shape), dtype, draws
        self._kind, self._family = kind, family
        self._area = (area.count(self._shape),) if kind == "full" else None
        numbers = max(self._shape.numel(), self._shape.numel() ** 2 if self._area else 0)
        per_step = max(1, len(keys) * numbers * max(map(len, draws), default=1))
        self._block = max(2, _BLOCK_NORMALS // per_step // 2 * 2)
        self._drawn: dict[int, tuple[int, Sequence[Increment]]] = {}  # draw -> (first step, a block of steps)
        self._wide = torch.promote_types(dtype, torch.float32)
        lengths = [[t - s for s, t in column] for column in zip_longest(*draws, fillvalue=(0.0, 0.0))]
        # On the device once: a copy in the loop would make the host wait.
        self._roots = torch.tensor(lengths, dtype=torch.float64).abs().sqrt().to(keys.device, self._wide)

    def increments(self, k: int) -> tuple[Increment, ...]:
        return tuple([self._drawn_at(k, j) for j in range(len(self._draws[k]))])

    def _drawn_at(self, k: int, draw: int) -> Increment:
        first = k - k % self._block
        if draw not in self._drawn or self._drawn[draw][0] != first:
            self._drawn[draw] = first, self._block_from(first, draw)
        return self._drawn[draw][1][k - first]

    def _block_from(self, first: int, draw: int) -> Sequence[Increment]:
        """What a block of steps draws."""
        column = self._roots[draw, first : first + self._block]
        roots = column.reshape(-1, *(1,) * (1 + len(self._shape)))

        def normals(stream: int, shape: Shape) -> Tensor:
            return random.normals(
                self._keys, shape, stream=stream + draw, start=first, count=len(column), dtype=self._wide
            )

        z = normals(self._family, self._shape)
        if self._kind in ("three-point", "two-point"):
            z = (z.abs() > _THREE_POINT).to(z.dtype).mul_(3.0**0.5).copysign_(z)
        parts = [w := z.mul_(roots)]
        if self._kind in ("space-time", "full"):
            parts.append(h := normals(random.STREAM_STEP_LEVY, self._shape).mul_(roots * TWELFTH))
            if self._area:
                parts.append(area.areas_given(w, h, normals(random.STREAM_STEP_AREA, self._area), roots))
        rows = zip(*[part.to(self._dtype).unbind(0) for part in parts], strict=True)
        if self._kind != "two-point":
            return [Increment(*row) for row in rows]
        coins = torch.ones_like(z).copysign_(normals(random.STREAM_STEP_TWO_POINT, self._shape)).mul_(roots)
        return [Increment(w, coins=coin) for (w,), coin in zip(rows, coins.to(self._dtype).unbind(0), strict=True)]


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
