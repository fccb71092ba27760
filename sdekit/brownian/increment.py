r"""What a path does over an interval, and what every path answers.

The increment is $W_t - W_s$. A path that was built with ``levy="space-time"`` knows the space-time Lévy area too,

$$ H_{s,t} = \frac{1}{t - s} \int_s^t (W_u - W_s)\,du - \tfrac12 (W_t - W_s)
          = \int_s^t \Bigl(\tfrac12 - \frac{u - s}{t - s}\Bigr)\,dW_u
   \;\sim\; \mathcal N\bigl(0, \tfrac{t - s}{12}\bigr), $$

which is independent of the increment. A run backwards in time sees the path from its other end: the same W, and −H.

References: [foster2024].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Interval = tuple[float, float]
"""A time interval (s, t) over which a step draws noise."""

Levy = Literal["none", "space-time"]
"""What a path knows beside its increments."""

TWELFTH = 12.0**-0.5  # of √h: the standard deviation of H


@dataclass(frozen=True, slots=True)
class Increment:
    """What a path did over an interval: ``w`` and, where it is known, the Lévy area ``h``, of shape (B, *noise)."""

    w: Tensor
    h: Tensor | None = None

    def reflected(self) -> Increment:
        """The same piece of the path, run through from its end to its start."""
        return self if self.h is None else Increment(self.w, -self.h)


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

    def increments(self, k: int) -> tuple[Increment, ...]:
        """Those of step ``k``."""
