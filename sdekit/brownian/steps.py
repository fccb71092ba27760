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
from sdekit.brownian.grid import GridPath
from sdekit.brownian.increment import TWELFTH, BrownianPath, Increment, Interval
from sdekit.typing import Increments, Shape

_THREE_POINT = 0.967421566101701  # Φ⁻¹(5/6): a normal is above it one time in six
_BLOCK_NORMALS = 2**18  # draw small states for several steps at once: a block costs what one step does


@final
class StepNoise:
    r"""Independent increments, a function of (seed, path, step index) alone.

    Args:
        keys: Path keys from :func:`sdekit.random.path_keys`.
        shape: Event shape of the noise.
        dtype: Type of the increments.
        draws: For every step, the intervals that it draws.
        kind: ``w``; ``space-time`` for Lévy areas too; ``three-point`` for the variable of weak methods,
            $\pm\sqrt{3h}$ with probability ⅙ each, else 0.
        family: The stream of the first draw.
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
        per_step = max(1, len(keys) * self._shape.numel() * max(map(len, draws), default=1))
        self._block = max(2, _BLOCK_NORMALS // per_step // 2 * 2)
        self._drawn: dict[int, tuple[int, Sequence[Tensor]]] = {}  # stream -> (first step, increments)
        self._wide = torch.promote_types(dtype, torch.float32)
        lengths = [[t - s for s, t in column] for column in zip_longest(*draws, fillvalue=(0.0, 0.0))]
        # On the device once: a copy in the loop would make the host wait.
        self._roots = torch.tensor(lengths, dtype=torch.float64).abs().sqrt().to(keys.device, self._wide)

    def increments(self, k: int) -> tuple[Increment, ...]:
        draws = range(len(self._draws[k]))
        if self._kind == "space-time":
            areas = random.STREAM_STEP_LEVY
            return tuple(Increment(self._drawn_at(k, j, self._family), self._drawn_at(k, j, areas)) for j in draws)
        return tuple(Increment(self._drawn_at(k, j, self._family)) for j in draws)

    def _drawn_at(self, k: int, draw: int, family: int) -> Tensor:
        first, stream = k - k % self._block, family + draw
        if stream not in self._drawn or self._drawn[stream][0] != first:
            self._drawn[stream] = first, self._block_from(first, draw, family)
        return self._drawn[stream][1][k - first]

    def _block_from(self, first: int, draw: int, family: int) -> Sequence[Tensor]:
        """The increments, or the Lévy areas, of a block of steps."""
        roots = self._roots[draw, first : first + self._block]
        z = random.normals(
            self._keys, self._shape, stream=family + draw, start=first, count=len(roots), dtype=self._wide
        )
        if self._kind == "three-point":
            z = (z.abs() > _THREE_POINT).to(z.dtype).mul_(3.0**0.5).copysign_(z)
        scale = roots * TWELFTH if family == random.STREAM_STEP_LEVY else roots
        return z.mul_(scale.reshape(-1, *(1,) * (z.ndim - 1))).to(self._dtype).unbind(0)


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
        w = drawn.w
        if isinstance(self.path, GridPath) and self.path.clock is not None:
            w = w * (abs(t - s) / self.path.variance(s, t)) ** 0.5
        return Increment(w.to(self.dtype), None if drawn.h is None else drawn.h.to(self.dtype))
