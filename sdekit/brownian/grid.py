r"""Paths that are known at the nodes of a grid.

An increment between nodes is combined from the fine ones, exactly: W adds up, and with $Z = (t - s)(H + W/2)$,
$Z_{s,t} = \sum_i Z_i + W_i\,(t - t_{i+1})$.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import final, get_args

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian.clock import Clock
from sdekit.brownian.increment import TWELFTH, Increment, Levy
from sdekit.errors import SdekitError, unknown_name
from sdekit.quantiles import fold
from sdekit.typing import Shape


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
        self.levy: Levy = levy

    @abstractmethod
    def fine(self, i: int, j: int) -> Tensor:
        """Increments over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    @abstractmethod
    def fine_levy(self, i: int, j: int) -> Tensor:
        """Space-time Lévy areas over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t]; both must be nodes of the grid.

        Raises:
            SdekitError: a reversed interval, or an end that is no node.
        """
        if not s <= t:
            raise SdekitError(f"An increment needs s ≤ t; got s = {s}, t = {t}.")
        i, j = self._node(s), self._node(t)
        if i == j:
            nothing = torch.zeros_like(self.fine(0, 1)[0])
            return Increment(nothing, None if self.levy == "none" else nothing)
        fine = self.fine(i, j)
        w = fold(fine, 0)  # a fixed order: the same bits in any batch
        return Increment(w, None if self.levy == "none" else self._levy(i, j, fine, w))

    def _levy(self, i: int, j: int, fine: Tensor, w: Tensor) -> Tensor:
        """H of the whole, from those of its parts."""
        if j == i + 1:
            return self.fine_levy(i, j)[0]
        ends = torch.tensor(self.times[i : j + 1], dtype=torch.float64)
        lengths, rest = (v.to(fine).reshape(-1, *(1,) * w.ndim) for v in (ends.diff(), ends[-1] - ends[1:]))
        areas = (self.fine_levy(i, j) + 0.5 * fine) * lengths + fine * rest
        return fold(areas, 0) / float(ends[-1] - ends[0]) - 0.5 * w

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
        levy: ``space-time`` for Lévy areas H beside the increments, which they leave as they are.
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
        seed: int = 0,
        levy: Levy = "none",
        *,
        paths: Sequence[int] | Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        times: Sequence[float] | Tensor | None = None,
        clock: Clock | None = None,
    ) -> None:
        nodes = torch.linspace(t0, t1, steps + 1, dtype=torch.float64) if times is None else times
        super().__init__(nodes, shape, levy, clock)
        self.keys = random.path_keys(seed, self.shape[0] if paths is None else paths, device)
        if len(self.keys) != self.shape[0]:
            raise SdekitError(
                f"paths has {len(self.keys)} entries for a batch of {self.shape[0]}: give one per sample."
            )
        self._dtype = dtype

    @classmethod
    def on(cls, grid: Sequence[float] | Tensor, shape: Shape, seed: int = 0, **options: object) -> BrownianGrid:
        """A path whose nodes are the times of ``grid``, in either direction."""
        return cls(shape, seed=seed, times=grid, **options)  # type: ignore[arg-type]

    def fine(self, i: int, j: int) -> Tensor:
        return self._scaled(i, j, random.STREAM_GRID, 1.0)

    def fine_levy(self, i: int, j: int) -> Tensor:
        return self._scaled(i, j, random.STREAM_GRID_LEVY, TWELFTH)

    def _scaled(self, i: int, j: int, stream: int, factor: float) -> Tensor:
        z = random.normals(self.keys, self.shape[1:], stream=stream, start=i, count=j - i, dtype=self._dtype)
        roots = factor * torch.tensor(self._readings[i : j + 1], dtype=torch.float64).diff().abs().sqrt()
        return z.mul_(roots.to(z).reshape(-1, *(1,) * len(self.shape)))
