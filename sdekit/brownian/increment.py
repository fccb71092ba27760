r"""What a path does over an interval, and what every path answers.

The increment is $W_t - W_s$. A path that was built with ``levy="space-time"`` knows the space-time Lévy area too,

$$ H_{s,t} = \frac{1}{t - s} \int_s^t (W_u - W_s)\,du - \tfrac12 (W_t - W_s)
          = \int_s^t \Bigl(\tfrac12 - \frac{u - s}{t - s}\Bigr)\,dW_u
   \;\sim\; \mathcal N\bigl(0, \tfrac{t - s}{12}\bigr), $$

which is independent of the increment, and one with ``levy="full"`` the Lévy areas A of its pairs of noises besides
(:mod:`sdekit.brownian.area`). A run backwards in time sees the path from its other end: the same W, −H and −A.

References: [foster2024].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.typing import Increments

Interval = tuple[float, float]
"""A time interval (s, t) over which a step draws noise."""

Levy = Literal["none", "space-time", "full"]
"""What a path knows beside its increments: nothing, H, or H and A."""

TWELFTH = 12.0**-0.5  # of √h: the standard deviation of H


@dataclass(frozen=True, slots=True)
class Increment:
    """What a path did over an interval.

    What was not drawn is None; ask for it by the names of mathematics, :attr:`h`, :attr:`area` and :attr:`two_point`,
    and its absence is an error that says how to have it.

    Attributes:
        w: The increment, shape (B, *noise).
        space_time: H, like ``w``.
        areas: A, antisymmetric, shape (B, m, m).
        coins: Two-point variables of a weak method, like ``w``.
    """

    w: Tensor
    space_time: Tensor | None = None
    areas: Tensor | None = None
    coins: Tensor | None = None

    @property
    def h(self) -> Tensor:
        """The space-time Lévy area, like ``w``."""
        if self.space_time is None:
            raise SdekitError(
                'Space-time Lévy areas were not drawn: build the path with levy="space-time"; a stepper asks for them '
                'by Spec(increments="space-time").'
            )
        return self.space_time

    @property
    def area(self) -> Tensor:
        """The Lévy areas of the pairs of noises, shape (B, m, m)."""
        if self.areas is None:
            raise SdekitError(
                'Lévy areas were not drawn: build the path with levy="full"; a stepper asks for them by '
                'Spec(increments="full").'
            )
        return self.areas

    @property
    def two_point(self) -> Tensor:
        """Independent ±√h, like ``w``; of a pair k < l the weak methods take the k-th."""
        if self.coins is None:
            raise SdekitError(
                'Two-point variables were not drawn: a weak stepper asks for them with Spec(increments="two-point").'
            )
        return self.coins

    def reflected(self) -> Increment:
        """The same piece of the path, run through from its end to its start."""
        if self.space_time is None:
            return self
        return Increment(self.w, -self.space_time, None if self.areas is None else -self.areas, self.coins)

    def to(self, dtype: torch.dtype) -> Increment:
        """In another floating-point type."""
        if self.w.dtype == dtype:
            return self
        rest = (self.space_time, self.areas, self.coins)
        return Increment(self.w.to(dtype), *(None if part is None else part.to(dtype) for part in rest))


def levy_for(increments: Increments, least: Levy = "none") -> Levy:
    """What a path must know for a method that draws ``increments``, if it is to know ``least`` anyway."""
    known = get_args(Levy)
    asked: Levy = increments if increments in ("space-time", "full") else "none"
    return max(asked, least, key=known.index)


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
