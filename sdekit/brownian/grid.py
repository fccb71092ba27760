r"""Paths that are known at the nodes of a grid.

An increment between nodes is combined from the fine ones, exactly: W adds up, and with $Z = (t - s)(H + W/2)$,
$Z_{s,t} = \sum_i Z_i + W_i\,(t - t_{i+1})$; Lévy areas by Chen's relation (:mod:`sdekit.brownian.area`).
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import final, get_args

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import area
from sdekit.brownian.clock import Clock
from sdekit.brownian.increment import TWELFTH, Increment, Levy
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys, Paths, Seed
from sdekit.quantiles import fold
from sdekit.typing import Shape

_BLOCK_NORMALS = 2**18  # draw the intervals of small states together: a block costs what one interval does


class GridPath(ABC):
    """A path known at the nodes of a grid; an increment between nodes is combined from the fine ones."""

    clock: Clock | None = None

    def __init__(
        self, times: Sequence[float] | Tensor, shape: Shape, levy: Levy = "none", clock: Clock | None = None
    ) -> None:
        nodes = torch.as_tensor(times, dtype=torch.float64).cpu()
        if nodes.ndim != 1 or len(nodes) < 2 or not bool((nodes.diff() > 0).all() or (nodes.diff() < 0).all()):
            raise SdekitError(f"A Brownian path needs at least two strictly monotone times; got {nodes.tolist()[:6]}.")
        if levy not in get_args(Levy):
            raise unknown_name("Lévy area", levy, get_args(Levy))
        self.times: list[float] = sorted(nodes.tolist())
        self.clock = clock
        readings = nodes.sort().values if clock is None else clock(nodes.sort().values)
        steps = readings.diff()
        if not bool(readings.isfinite().all()) or not bool((steps > 0).all() or (steps < 0).all()):
            raise SdekitError(f"A clock must be finite and monotone on the times of the path; it reads {readings[:6]}.")
        if clock is not None and levy != "none":
            raise SdekitError("Lévy areas belong to the clock t: leave out levy=, or clock=.")
        self._readings: list[float] = readings.tolist()
        self.shape = torch.Size(shape)
        if not self.shape:
            raise SdekitError("A Brownian path has shape (B, *noise), a noise for every sample; got ().")
        if levy == "full":
            area.count(self.shape[1:])
        self.levy: Levy = levy

    @abstractmethod
    def fine(self, i: int, j: int) -> Tensor:
        """Increments over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    @abstractmethod
    def fine_levy(self, i: int, j: int) -> Tensor:
        """Space-time Lévy areas over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    @abstractmethod
    def fine_area(self, i: int, j: int) -> Tensor:
        """Lévy areas over the grid's intervals i … j−1, antisymmetric, shape (j − i, B, m, m)."""

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t]; both must be nodes of the grid.

        Raises:
            SdekitError: a reversed interval, or an end that is no node.
        """
        if not s <= t:
            raise SdekitError(f"An increment needs s ≤ t; got s = {s}, t = {t}.")
        i, j = self._node(s), self._node(t)
        if i == j:
            return self._nothing()
        fine = self.fine(i, j)
        w = fold(fine, 0)  # a fixed order: the same bits in any batch
        if self.levy == "none":
            return Increment(w)
        h = self._levy(i, j, fine, w)
        return Increment(w, h, area.chen(fine, self.fine_area(i, j)) if self.levy == "full" else None)

    def _nothing(self) -> Increment:
        """What the path does in no time."""
        w = torch.zeros_like(self.fine(0, 1)[0])
        if self.levy == "none":
            return Increment(w)
        return Increment(w, w, w.new_zeros(*w.shape, w.shape[1]) if self.levy == "full" else None)

    def _levy(self, i: int, j: int, fine: Tensor, w: Tensor) -> Tensor:
        """H of the whole, from those of its parts."""
        if j == i + 1:
            return self.fine_levy(i, j)[0]
        ends = torch.tensor(self.times[i : j + 1], dtype=torch.float64)
        lengths, rest = (v.to(fine).reshape(-1, *(1,) * w.ndim) for v in (ends.diff(), ends[-1] - ends[1:]))
        areas = (self.fine_levy(i, j) + 0.5 * fine) * lengths + fine * rest
        return fold(areas, 0) / float(ends[-1] - ends[0]) - 0.5 * w

    def unknown(self, levy: Levy) -> SdekitError:
        """That a Lévy area was asked for which this path does not know."""
        return SdekitError(f'This path was made with levy="{self.levy}": make it with levy="{levy}".')

    def variance(self, s: float, t: float) -> float:
        """Of the increment over [s, t]: how far the clock moves."""
        return abs(self._readings[self._node(t)] - self._readings[self._node(s)])

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
        first, last = self.times[0], self.times[-1]
        if not first <= t <= last:
            raise SdekitError(f"t = {t!r} lies outside of this path, which knows the times of [{first:g}, {last:g}].")
        raise SdekitError(
            f"t = {t!r} is no node of this path, which knows {len(self.times)} times in "
            f"[{self.times[0]:g}, {self.times[-1]:g}]. Build the path on the finest grid that you solve on: "
            "BrownianGrid.on(grid, shape)."
        )


@final
class BrownianGrid(GridPath):
    """Independent increments on a grid, which coarsen exactly: runs on sub-grids share one path.

    The fine increments are a function of the seed, drawn when asked for in blocks, of which the last one is kept.

    Args:
        shape: (B, *noise).
        t0: Start of the interval.
        t1: End of the interval.
        steps: Number of equal intervals.
        seed: Seed of the paths; None if ``paths`` are seeds, one per sample; or torch generators (:mod:`sdekit.keys`).
        levy: ``space-time`` for Lévy areas H beside the increments; ``full`` for the areas A of pairs of noises too,
            which takes noise of shape (m,). They leave what is there without them as it is.
        paths: Global path numbers, one per sample; 0 … B − 1 by default.
        dtype: Type of the increments.
        device: Where they are drawn.
        times: Nodes, in place of t0, t1 and steps.
        clock: Of the path; t if left out. :func:`snr_clock` is that of the exponential samplers.
    """

    def __init__(
        self,
        shape: Shape,
        t0: float = 0.0,
        t1: float = 1.0,
        steps: int = 256,
        seed: Seed | None = 0,
        levy: Levy = "none",
        *,
        paths: Paths | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        times: Sequence[float] | Tensor | None = None,
        clock: Clock | None = None,
    ) -> None:
        nodes = torch.linspace(t0, t1, steps + 1, dtype=torch.float64) if times is None else times
        super().__init__(nodes, shape, levy, clock)
        self.keys = Keys.of(seed, paths, self.shape[0], device).values
        self._dtype = dtype
        self._roots = torch.tensor(self._readings, dtype=torch.float64).diff().abs().sqrt().to(self.keys.device)
        numbers = math.prod(self.shape[1:]) ** (2 if levy == "full" else 1)
        self._block = max(2, _BLOCK_NORMALS // max(1, self.shape[0] * numbers) // 2 * 2)
        self._drawn: dict[int, tuple[int, Tensor]] = {}  # stream -> (first interval, what a block of them drew)

    @classmethod
    def on(cls, grid: Sequence[float] | Tensor, shape: Shape, seed: Seed | None = 0, **options: object) -> BrownianGrid:
        """A path whose nodes are the times of ``grid``, in either direction."""
        return cls(shape, seed=seed, times=grid, **options)  # type: ignore[arg-type]

    def fine(self, i: int, j: int) -> Tensor:
        return self._held(i, j, random.STREAM_GRID)

    def fine_levy(self, i: int, j: int) -> Tensor:
        if self.levy == "none":
            raise self.unknown("space-time")
        return self._held(i, j, random.STREAM_GRID_LEVY)

    def fine_area(self, i: int, j: int) -> Tensor:
        if self.levy != "full":
            raise self.unknown("full")
        return self._held(i, j, random.STREAM_GRID_AREA)

    def _held(self, i: int, j: int, stream: int) -> Tensor:
        """From the block in which the intervals lie, if one block holds them all."""
        first = i - i % self._block
        if j > first + self._block:
            return self._draw(i, j, stream)
        if stream not in self._drawn or self._drawn[stream][0] != first:
            self._drawn[stream] = first, self._draw(first, min(first + self._block, len(self._roots)), stream)
        return self._drawn[stream][1][i - first : j - first]

    def _draw(self, i: int, j: int, stream: int) -> Tensor:
        """W, H or A of the intervals i … j−1, by their stream."""
        event = (area.count(self.shape[1:]),) if stream == random.STREAM_GRID_AREA else self.shape[1:]
        z = random.normals(self.keys, event, stream=stream, start=i, count=j - i, dtype=self._dtype)
        factor = TWELFTH if stream == random.STREAM_GRID_LEVY else 1.0
        roots = (factor * self._roots[i:j]).to(self._dtype).reshape(-1, *(1,) * len(self.shape))
        if stream == random.STREAM_GRID_AREA:
            return area.areas_given(self.fine(i, j), self.fine_levy(i, j), z, roots)
        return z.mul_(roots)
