r"""Brownian paths: noise as data, an argument of every solver.

A path answers ``increment(s, t)``, the increment $W_t - W_s$ of every sample. Two views of it feed the driver:
:class:`StepNoise` draws one normal for every (seed, path, step), which is what ``noise=seed`` means; a
:class:`BrownianPath` lets runs with different step counts share one path.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.quantiles import fold
from sdekit.typing import Shape

Interval = tuple[float, float]
"""A time interval (s, t) over which a step draws noise."""

_BLOCK_NORMALS = 65_536  # draw small states for several steps at once: a block costs what one step does


@dataclass(frozen=True, slots=True)
class Increment:
    """What a path did over an interval: ``w`` of shape (B, *noise)."""

    w: Tensor


@runtime_checkable
class BrownianPath(Protocol):
    """A Brownian path for every sample of a batch."""

    @property
    def shape(self) -> torch.Size:
        """(B, *noise)."""

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t], s ≤ t."""


class Noise(Protocol):
    """What the driver draws from: the increments of step ``k``, in the order of the step's draws."""

    def increments(self, k: int) -> tuple[Increment, ...]: ...


@final
class StepNoise:
    """Independent increments, a function of (seed, path, step index) alone.

    Args:
        keys: Path keys from :func:`sdekit.random.path_keys`.
        shape: Event shape of the noise.
        dtype: Type of the increments.
        draws: For every step, the intervals that it draws.
    """

    def __init__(self, keys: Tensor, shape: Shape, dtype: torch.dtype, draws: Sequence[Sequence[Interval]]) -> None:
        self._keys, self._shape, self._dtype, self._draws = keys, torch.Size(shape), dtype, draws
        per_step = max(1, len(keys) * self._shape.numel())
        self._block = max(2, _BLOCK_NORMALS // per_step // 2 * 2)
        self._drawn: dict[int, tuple[int, Sequence[Tensor]]] = {}  # draw -> (first step, increments)
        self._wide = torch.promote_types(dtype, torch.float32)
        lengths = [[t - s for s, t in column] for column in zip_longest(*draws, fillvalue=(0.0, 0.0))]
        # On the device once: a copy in the loop would make the host wait.
        self._roots = torch.tensor(lengths, dtype=torch.float64).abs().sqrt().to(keys.device, self._wide)

    def increments(self, k: int) -> tuple[Increment, ...]:
        return tuple(Increment(self._increment(k, draw)) for draw in range(len(self._draws[k])))

    def _increment(self, k: int, draw: int) -> Tensor:
        first = k - k % self._block
        if draw not in self._drawn or self._drawn[draw][0] != first:
            self._drawn[draw] = first, self._increments_from(first, draw)
        return self._drawn[draw][1][k - first]

    def _increments_from(self, first: int, draw: int) -> Sequence[Tensor]:
        """The increments of a block of steps."""
        roots = self._roots[draw, first : first + self._block]
        stream, count = random.STREAM_STEP + draw, len(roots)
        z = random.normals(self._keys, self._shape, stream=stream, start=first, count=count, dtype=self._wide)
        return z.mul_(roots.reshape(-1, *(1,) * (z.ndim - 1))).to(self._dtype).unbind(0)


@final
@dataclass(frozen=True)
class PathNoise:
    """The increments of a Brownian path, in the dtype of the state."""

    path: BrownianPath
    dtype: torch.dtype
    draws: Sequence[Sequence[Interval]]

    def increments(self, k: int) -> tuple[Increment, ...]:
        drawn = (self.path.increment(min(i), max(i)) for i in self.draws[k])
        return tuple(Increment(increment.w.to(self.dtype)) for increment in drawn)


class GridPath(ABC):
    """A path known at the nodes of a grid; an increment between nodes is the sum of the fine ones."""

    def __init__(self, times: Sequence[float] | Tensor, shape: Shape) -> None:
        nodes = torch.as_tensor(times, dtype=torch.float64).cpu()
        if nodes.ndim != 1 or len(nodes) < 2 or not bool((nodes.diff() > 0).all() or (nodes.diff() < 0).all()):
            raise SdekitError(f"A Brownian path needs at least two strictly monotone times; got {nodes.tolist()[:6]}.")
        self.times: list[float] = sorted(nodes.tolist())
        self.shape = torch.Size(shape)

    @abstractmethod
    def fine(self, i: int, j: int) -> Tensor:
        """Increments over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t]; both must be nodes of the grid.

        Raises:
            SdekitError: a reversed interval, or an end that is no node.
        """
        if not s <= t:
            raise SdekitError(f"An increment needs s ≤ t; got s = {s}, t = {t}.")
        i, j = self._node(s), self._node(t)
        if i == j:
            return Increment(torch.zeros_like(self.fine(0, 1)[0]))
        return Increment(fold(self.fine(i, j), 0))  # a fixed order: the same bits in any batch

    def require(self, times: Iterable[float]) -> None:
        """Refuse times that are no nodes of the grid.

        Raises:
            SdekitError: names the first that is none.
        """
        for t in times:
            self._node(t)

    def _node(self, t: float) -> int:
        near = bisect.bisect_left(self.times, t)
        tolerance = 1e-12 * (self.times[-1] - self.times[0])
        for i in (near, near - 1):
            if 0 <= i < len(self.times) and abs(self.times[i] - t) <= tolerance:
                return i
        raise SdekitError(
            f"t = {t!r} is no node of this path, which knows {len(self.times)} times in "
            f"[{self.times[0]:g}, {self.times[-1]:g}]. Build the path on the finest grid that you solve on: "
            "BrownianGrid.on(grid, shape)."
        )


@final
class BrownianGrid(GridPath):
    """Independent increments on a grid, which coarsen exactly: runs on sub-grids share one path.

    The fine increments are recomputed from the seed when asked for; nothing is stored.

    Args:
        shape: (B, *noise).
        t0: Start of the interval.
        t1: End of the interval.
        steps: Number of equal intervals.
        seed: Seed of the paths.
        paths: Global path numbers, one per sample; 0 … B − 1 by default.
        dtype: Type of the increments.
        device: Where they are drawn.
    """

    def __init__(
        self,
        shape: Shape,
        t0: float = 0.0,
        t1: float = 1.0,
        steps: int = 256,
        seed: int = 0,
        *,
        paths: Sequence[int] | Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        times: Sequence[float] | Tensor | None = None,
    ) -> None:
        nodes = torch.linspace(t0, t1, steps + 1, dtype=torch.float64) if times is None else times
        super().__init__(nodes, shape)
        self._keys = random.path_keys(seed, self.shape[0] if paths is None else paths, device)
        if len(self._keys) != self.shape[0]:
            raise SdekitError(
                f"paths has {len(self._keys)} entries for a batch of {self.shape[0]}: give one per sample."
            )
        self._dtype = dtype

    @classmethod
    def on(cls, grid: Sequence[float] | Tensor, shape: Shape, seed: int = 0, **options: object) -> BrownianGrid:
        """A path whose nodes are the times of ``grid``, in either direction."""
        return cls(shape, seed=seed, times=grid, **options)  # type: ignore[arg-type]

    def fine(self, i: int, j: int) -> Tensor:
        z = random.normals(
            self._keys,
            self.shape[1:],
            stream=random.STREAM_GRID,
            start=i,
            count=j - i,
            dtype=self._dtype,
        )
        roots = torch.tensor(self.times[i : j + 1], dtype=torch.float64).diff().sqrt()
        return z.mul_(roots.to(z).reshape(-1, *(1,) * len(self.shape)))


@final
class RecordedBrownian(GridPath):
    """A path given by its increments, for tests and for probing a solver.

    Args:
        times: N + 1 monotone times. If they decrease, so do the intervals of ``w``.
        w: Increments, shape (N, B, *noise).
    """

    def __init__(self, times: Sequence[float] | Tensor, w: Tensor) -> None:
        super().__init__(times, w.shape[1:])
        if len(w) != len(self.times) - 1:
            raise SdekitError(f"{len(self.times)} times need {len(self.times) - 1} increments; got {len(w)}.")
        nodes = torch.as_tensor(times, dtype=torch.float64)
        self._w = w.flip(0) if nodes[0] > nodes[-1] else w

    def fine(self, i: int, j: int) -> Tensor:
        return self._w[i:j]
