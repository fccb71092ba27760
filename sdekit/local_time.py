r"""A step with a length of its own for every sample, as a step over [0, 1].

In the time u of $t = s + u\,h$, with the step h of each sample,

$$ dx = h\,f(s + u h, x)\,du + \sqrt h\,G(s + u h, x)\,d\tilde W_u, \qquad
   \tilde W_u = (W_{s + u h} - W_s) / \sqrt h , $$

is an SDE whose step goes from 0 to 1 for all samples at once. So a step method that is written for one length works for
many, unchanged: only the fields and the increments are scaled. A Brownian scaling leaves the path a Brownian motion:
W and H are divided by √h, an area by h.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.typing import Calculus, Direction, NoiseType, Time


@final
class LocalTime:
    """An SDE in the time u of a step [start, end], which each sample has for itself.

    Args:
        sde: The dynamics, in a clock that runs forwards.
        start: Where the steps begin, float64 of shape (B,).
        end: Where they end.
        x: A state; fields are scaled in its type.
    """

    direction: Direction = "increasing"

    def __init__(self, sde: SDE, start: Tensor, end: Tensor, x: Tensor) -> None:
        self._sde, self._start, self._end = sde, start, end
        self.noise_type: NoiseType = sde.noise_type
        self.calculus: Calculus = sde.calculus
        # Made once: a step asks for them at every stage, and small states pay for every operation.
        self._h = (end - start).to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        self._root = self._h.sqrt()

    def at(self, u: Time) -> Tensor:
        """The times of u; the ends are themselves, for a sum may be rounded past one."""
        if isinstance(u, float) and u in (0.0, 1.0):
            return self._end if u else self._start
        return torch.lerp(self._start, self._end, u)

    def drift(self, u: Time, x: Tensor) -> Tensor:
        return self._sde.drift(self.at(u), x) * self._h

    def diffusion(self, u: Time, x: Tensor) -> Tensor:
        g = self._sde.diffusion(self.at(u), x)
        return g * (self._root if g.ndim == self._root.ndim else self._root[..., None])

    def scaled(self, increment: Increment) -> Increment:
        """An increment over the steps, as one over [0, 1]."""
        root = self._root.reshape(-1, *(1,) * (increment.w.ndim - 1))
        w, h, coins = (None if v is None else v / root for v in (increment.w, increment.space_time, increment.coins))
        assert w is not None
        areas = None if increment.areas is None else increment.areas / self._h.reshape(-1, 1, 1)
        return Increment(w, h, areas, coins)
