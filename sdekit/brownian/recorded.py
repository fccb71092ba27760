"""A path that was written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from sdekit.brownian.grid import GridPath
from sdekit.brownian.increment import Increment, Levy
from sdekit.errors import SdekitError


@final
class RecordedBrownian(GridPath):
    """A path given by its increments, for tests and for probing a solver.

    Args:
        times: N + 1 monotone times. If they decrease, so do the intervals of ``w``.
        w: Increments, shape (N, B, *noise).
        h: Space-time Lévy areas in the clock of the path, like ``w``; None if there are none.
        area: Lévy areas in the clock of the path, antisymmetric, shape (N, B, m, m) for noise of shape (m,); they take
            ``h`` beside them.
        coins: Two-point variables for a weak method, like ``w``; they belong to intervals, and have no sums.
    """

    def __init__(
        self,
        times: Sequence[float] | Tensor,
        w: Tensor,
        h: Tensor | None = None,
        area: Tensor | None = None,
        coins: Tensor | None = None,
    ) -> None:
        known: Levy = "none" if h is None else "space-time" if area is None else "full"
        if w.ndim < 2:
            raise SdekitError(f"Increments have shape (N, B, *noise); got {tuple(w.shape)}.")
        super().__init__(times, w.shape[1:], known)
        if len(w) != len(self.times) - 1:
            raise SdekitError(f"{len(self.times)} times need {len(self.times) - 1} increments; got {len(w)}.")
        if h is not None and h.shape != w.shape:
            raise SdekitError(f"Lévy areas must be like the increments, {tuple(w.shape)}; got {tuple(h.shape)}.")
        if area is not None:
            self._check(w, h, area)
        if coins is not None and coins.shape != w.shape:
            raise SdekitError(f"Two-point variables must be like w, {tuple(w.shape)}; got {tuple(coins.shape)}.")
        nodes = torch.as_tensor(times, dtype=torch.float64)
        down = bool(nodes[0] > nodes[-1])
        parts = [v.flip(0) if down and v is not None else v for v in (w, h, area, coins)]
        self._w, self._h, self._area, self._coins = parts

    @classmethod
    def of(cls, times: Sequence[float] | Tensor, increments: Sequence[Increment]) -> RecordedBrownian:
        """The path with these increments, in the order of the times; it knows what all of them know."""
        w, *rest = zip(*[(i.w, i.space_time, i.areas, i.coins) for i in increments], strict=True)
        return cls(times, torch.stack(w), *[None if any(v is None for v in p) else torch.stack(p) for p in rest])

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t], with the two-point variables of an interval of the grid where there are any."""
        drawn, i = super().increment(s, t), self._node(s)
        if self._coins is None or self._node(t) != i + 1:
            return drawn
        return replace(drawn, coins=self._coins[i])

    @staticmethod
    def _check(w: Tensor, h: Tensor | None, area: Tensor) -> None:
        if h is None:
            raise SdekitError("Lévy areas take space-time ones beside them: give h= too (zeros for straight pieces).")
        if area.shape != (*w.shape, w.shape[-1]):
            raise SdekitError(
                f"Areas of increments {tuple(w.shape)} have shape {(*w.shape, w.shape[-1])}; got {tuple(area.shape)}."
            )
        off = float((area + area.mT).abs().max()) if area.numel() else 0.0
        if not off <= 1e-6 * float(area.abs().max() if area.numel() else 0.0):
            raise SdekitError(f"Areas are antisymmetric, A = −Aᵀ; these are so but for {off:.2g}.")

    def fine(self, i: int, j: int) -> Tensor:
        assert self._w is not None
        return self._w[i:j]

    def fine_levy(self, i: int, j: int) -> Tensor:
        if self._h is None:
            raise self.unknown("space-time")
        return self._h[i:j]

    def fine_area(self, i: int, j: int) -> Tensor:
        if self._area is None:
            raise self.unknown("full")
        return self._area[i:j]
