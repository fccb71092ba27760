"""A path that was written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from sdekit.brownian.grid import GridPath
from sdekit.errors import SdekitError


@final
class RecordedBrownian(GridPath):
    """A path given by its increments, for tests and for probing a solver.

    Args:
        times: N + 1 monotone times. If they decrease, so do the intervals of ``w``.
        w: Increments, shape (N, B, *noise).
        h: Space-time Lévy areas in the clock of the path, like ``w``; None if there are none.
    """

    def __init__(self, times: Sequence[float] | Tensor, w: Tensor, h: Tensor | None = None) -> None:
        super().__init__(times, w.shape[1:], "none" if h is None else "space-time")
        if len(w) != len(self.times) - 1:
            raise SdekitError(f"{len(self.times)} times need {len(self.times) - 1} increments; got {len(w)}.")
        if h is not None and h.shape != w.shape:
            raise SdekitError(f"Lévy areas must be like the increments, {tuple(w.shape)}; got {tuple(h.shape)}.")
        nodes = torch.as_tensor(times, dtype=torch.float64)
        down = bool(nodes[0] > nodes[-1])
        self._w = w.flip(0) if down else w
        self._h = h.flip(0) if down and h is not None else h

    def fine(self, i: int, j: int) -> Tensor:
        return self._w[i:j]

    def fine_levy(self, i: int, j: int) -> Tensor:
        assert self._h is not None
        return self._h[i:j]
