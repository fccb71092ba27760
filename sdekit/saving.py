"""Which states of a run are kept: the end, every one, or those at times that are asked for."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sdekit.errors import SdekitError, unknown_name

Save = Literal["final", "all"] | Tensor | Sequence[float]


@final
@dataclass(frozen=True)
class Saving:
    """The distinct times to step through, and which of them to keep, in the order of the answer."""

    times: list[float]
    order: list[int]

    @classmethod
    def of(cls, nodes: Tensor, save: Save) -> Saving:
        grid: list[float] = nodes.tolist()
        if isinstance(save, str):
            if save not in ("final", "all"):
                raise unknown_name("way to save", save, ("final", "all"))
            if len(distinct := list(dict.fromkeys(grid))) == len(grid):
                return cls(grid, list(range(len(grid))) if save == "all" else [len(grid) - 1])
            wanted, grid = grid if save == "all" else grid[-1:], distinct
        else:
            wanted = torch.as_tensor(save, dtype=torch.float64).reshape(-1).tolist()
            nodes_up = sorted(grid)
            low, high = nodes_up[0], nodes_up[-1]
            for i, t in enumerate(wanted):
                # A time that misses a node by rounding is the node: multistep methods divide by the step between.
                node = _nearest(nodes_up, t)
                wanted[i] = node if abs(node - t) <= 1e-12 * (high - low) else t
            outside = [t for t in wanted if not low <= t <= high]
            if outside or not wanted:
                raise SdekitError(f"save asks for {outside[:3] or 'no time'}; the grid spans [{low:g}, {high:g}].")
        times = sorted({*grid, *wanted}, reverse=grid[0] > grid[-1])
        index = {t: i for i, t in enumerate(times)}
        return cls(times, [index[t] for t in wanted])

    def gather(self, kept: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Times and states as asked for; where the run ended early, what it reached and its last state."""
        reached = [i for i in self.order if i in kept]
        last = max(kept)
        if len(reached) < len(self.order) and last not in reached:
            reached.append(last)
        ts = torch.tensor([self.times[i] for i in reached], dtype=torch.float64)
        return ts, torch.stack([kept[i] for i in reached])


def _nearest(times: list[float], t: float) -> float:
    """The entry of the sorted ``times`` nearest to ``t``."""
    i = bisect.bisect_left(times, t)
    return min(times[max(i - 1, 0) : i + 1], key=lambda node: abs(node - t))
