r"""What a run draws, as standard normals: how a probe hands a solver its noise.

Over an interval of length δ the orthonormal coefficients of the path are $z_0 = \int \delta^{-1/2}\,dW$ and
$z_1 = \int \sqrt{12/\delta}\,\bigl(\tfrac12 - \tfrac{u - s}{\delta}\bigr)\,dW_u$, so that $W = \sqrt\delta\,z_0$ and
$H = \sqrt{\delta/12}\,z_1$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sdekit.brownian import Interval, RecordedBrownian
from sdekit.brownian.area import areas_given
from sdekit.doors import noise_event
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.fresh import RecordedFresh, fresh_shape
from sdekit.steppers.base import Stepper
from sdekit.typing import Increments, Shape

DISCRETE: tuple[Increments, ...] = ("three-point", "two-point")
"""What weak methods draw, of which laws are not Gaussian."""


def check_gaussian(stepper: Stepper) -> None:
    """Refuse a stepper whose draws are no function of W and H, nor variables of their own.

    Raises:
        SdekitError: names the stepper and what it draws.
    """
    if stepper.spec.increments == "full":
        raise SdekitError(
            f"{stepper.spec.name} draws Lévy areas of pairs of noises, and this is exact for functions of W and H "
            "alone: strong orders are measured on coupled paths, by verify.order(kind='strong')."
        )


@dataclass(frozen=True)
class Draws:
    """The normals of one sample in a run, in its order: for every interval m for W and, with Lévy areas, m for H.

    A weak method takes three-point variables for those of W, and two-point ones for m after them. Areas of pairs of
    noises take m(m+1)/2 more (:func:`sdekit.brownian.area.areas_given`).

    Attributes:
        intervals: What is drawn over, each in the direction of the run; no two overlap.
        noise: Event shape of the noise, of m elements.
        levy: Whether Lévy areas are drawn.
        coins: Whether two-point variables are drawn.
        areas: Whether areas of pairs of noises are drawn.
        fresh: Event shapes of the normals that every step of a chain draws beside the path; they come last.
    """

    intervals: tuple[Interval, ...]
    noise: torch.Size
    levy: bool
    fresh: tuple[tuple[torch.Size, ...], ...] = ()
    coins: bool = False
    areas: bool = False

    @classmethod
    def of(
        cls, sde: SDE, stepper: Stepper, times: Sequence[float], event_shape: Shape, *, areas: bool = False
    ) -> Draws:
        """What ``stepper`` draws on ``times``.

        Raises:
            SdekitError: two draws overlap, so that they are not independent; or the stepper draws areas of pairs of
                noises, and they are not asked for.
        """
        prepared = stepper.prepare(sde, times)
        if any(prepared.draws) and not areas:
            check_gaussian(stepper)
        one = torch.zeros(1, *event_shape, dtype=torch.float64)
        noise = noise_event(sde, one, prepared, times[0])
        intervals = tuple((s, t) for step in prepared.draws for s, t in step)
        upwards = sorted((min(i), max(i)) for i in intervals)
        for (_, end), (start, _) in pairwise(upwards):
            if start < end:
                raise SdekitError(
                    f"{stepper.spec.name} draws twice over t = {start:g} … {end:g}: draws of a run must not overlap."
                )
        fresh = tuple([tuple([fresh_shape(kind, event_shape) for kind in step]) for step in prepared.fresh])
        kind = stepper.spec.increments
        levy = kind in ("space-time", "full")
        return cls(intervals, noise or torch.Size(), levy, fresh, kind == "two-point", kind == "full")

    @property
    def per_interval(self) -> int:
        """Normals of one interval."""
        m = self.noise.numel()
        return m * (2 if self.levy or self.coins else 1) + (m * (m + 1) // 2 if self.areas else 0)

    @property
    def normals(self) -> int:
        """Normals of the whole run."""
        return len(self.intervals) * self.per_interval + sum(shape.numel() for step in self.fresh for shape in step)

    def path(self, z: Tensor) -> RecordedBrownian | RecordedFresh | None:
        """The noise with these normals, shape (rows, n); None where nothing is drawn."""
        own = len(self.intervals) * self.per_interval
        path = self._path(z[:, :own]) if self.intervals else None
        if not any(self.fresh):
            return path
        columns = iter(torch.split(z[:, own:], [shape.numel() for step in self.fresh for shape in step], dim=1))
        normals = [[next(columns).reshape(-1, *shape) for shape in step] for step in self.fresh]
        return RecordedFresh(path, normals)

    def _path(self, z: Tensor) -> RecordedBrownian:
        """The Brownian path."""
        nodes = sorted({t for i in self.intervals for t in i})
        place = {low: j for j, low in enumerate(nodes)}
        columns, m = z.reshape(len(z), len(self.intervals), -1), self.noise.numel()
        own = 2 * m if self.areas else columns.shape[-1]
        parts = columns[..., :own].reshape(len(z), len(self.intervals), -1, *self.noise)
        w = z.new_zeros(len(nodes) - 1, len(z), *self.noise)
        areas = z.new_zeros(*w.shape, m) if self.areas else None
        h, coins = (torch.zeros_like(w) if drawn else None for drawn in (self.levy, self.coins))
        for k, (s, t) in enumerate(self.intervals):
            j = place[min(s, t)]
            w[j] = parts[:, k, 0] * abs(t - s) ** 0.5
            if h is not None:
                # A path that is run backwards shows −H.
                h[j] = parts[:, k, 1] * ((1.0 if s < t else -1.0) * (abs(t - s) / 12.0) ** 0.5)
            if coins is not None:
                coins[j] = parts[:, k, 1] * abs(t - s) ** 0.5
            if areas is not None and h is not None:
                root = z.new_full((1, 1), abs(t - s) ** 0.5)
                areas[j] = areas_given(w[j], h[j], columns[:, k, own:], root)
        return RecordedBrownian(nodes, w, h, areas, coins=coins)


def points(noises: int) -> list[int]:
    """Points of the Gauss–Hermite rules that are the variables of a step: three, and two, of which the last is idle."""
    return [3] * noises + [2] * (noises - 1) + [1]
