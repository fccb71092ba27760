r"""A step with a length of its own for every sample, as a step over [0, 1].

In the time u of $t = s + u\,h$, with the step h of each sample,

$$ dx = h\,f(s + u h, x)\,du + \sqrt h\,G(s + u h, x)\,d\tilde W_u, \qquad
   \tilde W_u = (W_{s + u h} - W_s) / \sqrt h , $$

is an SDE whose step goes from 0 to 1 for all samples at once. So a step method that is written for one length works for
many, unchanged: only the fields and the increments are scaled. A Brownian scaling leaves the path a Brownian motion:
W and H are divided by √h, an area by h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.typing import Calculus, Direction, NoiseType, Time, along


@final
@dataclass(frozen=True)
class LocalTime:
    """An SDE in the time u of a step [start, end], which each sample has for itself.

    Attributes:
        sde: The dynamics, in a clock that runs forwards.
        start: Where the steps begin, float64 of shape (B,).
        end: Where they end.
    """

    sde: SDE
    start: Tensor
    end: Tensor

    @property
    def noise_type(self) -> NoiseType:
        return self.sde.noise_type

    @property
    def calculus(self) -> Calculus:
        return self.sde.calculus

    @property
    def direction(self) -> Direction:
        return "increasing"

    @property
    def length(self) -> Tensor:
        """H of every sample."""
        return self.end - self.start

    def at(self, u: Time) -> Tensor:
        """The times of u; the ends are themselves, for a sum may be rounded past one."""
        return torch.lerp(self.start, self.end, u)

    def drift(self, u: Time, x: Tensor) -> Tensor:
        f = self.sde.drift(self.at(u), x)
        return f * along(self.length, f)

    def diffusion(self, u: Time, x: Tensor) -> Tensor:
        g = self.sde.diffusion(self.at(u), x)
        return g * along(self.length.sqrt(), g)

    def scaled(self, increment: Increment) -> Increment:
        """An increment over the steps, as one over [0, 1]."""
        root = self.length.rsqrt()
        w, h = increment.w, increment.space_time
        return Increment(w * along(root, w), None if h is None else h * along(root, h))
