r"""Schedules given as a table of levels: the DDPM and SMLD chains as processes in continuous time.

Level i of L stands at $t = i/L$ and is exact there; in between $\log\alpha$ (DDPM) or $\log\sigma$ (SMLD) is
linear, so the inverse is exact too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from sdekit import elementary as el
from sdekit.errors import SdekitError
from sdekit.schedules import ExplodingSchedule, PreservingSchedule
from sdekit.typing import Scalar


@dataclass(frozen=True)
class PiecewiseLinear:
    """A strictly increasing function through ``values[i]`` at ``nodes[i]``, its slope and its inverse."""

    nodes: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, t: Scalar) -> Scalar:
        return _each(lambda u: _interpolate(self._tensors[0], self._tensors[1], u), t)

    def inverse(self, value: Scalar) -> Scalar:
        """The time at which the function has this value."""
        return _each(lambda u: _interpolate(self._tensors[1], self._tensors[0], u), value)

    def slope(self, t: Scalar) -> Scalar:
        """The slope to the left of a node, which is the step that led there."""
        return _each(self._slope, t)

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.nodes, dtype=torch.float64), torch.tensor(self.values, dtype=torch.float64)

    def _slope(self, t: Tensor) -> Tensor:
        x, y = (a.to(t) for a in self._tensors)
        i = _segment(x, t)
        return (y[i] - y[i - 1]) / (x[i] - x[i - 1])


def _each(function: Callable[[Tensor], Tensor], t: Scalar) -> Scalar:
    """``function`` of a tensor, or of a float through a float64 tensor."""
    return function(t) if isinstance(t, Tensor) else float(function(torch.tensor(t, dtype=torch.float64)))


def _segment(x: Tensor, t: Tensor) -> Tensor:
    """The index i of the interval with x[i−1] < t ≤ x[i]; the outer intervals reach to infinity."""
    return torch.searchsorted(x, t.contiguous()).clamp(1, len(x) - 1)


def _interpolate(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Linear interpolation, exact at the nodes."""
    x, y = x.to(t), y.to(t)
    i = _segment(x, t)
    w = (t - x[i - 1]) / (x[i] - x[i - 1])
    return y[i - 1] * (1.0 - w) + y[i] * w


@final
@dataclass(frozen=True)
class ChainBeta(PreservingSchedule):
    r"""The DDPM chain $\beta_1 \dots \beta_L$: $t = i/L$, exact there, $\log\alpha$ linear between."""

    betas: tuple[float, ...]
    _line: PiecewiseLinear = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.betas) == 0 or not all(0.0 < b < 1.0 for b in self.betas):
            raise SdekitError(f"betas must lie strictly between 0 and 1; got {list(self.betas)[:4]}…")
        total, values = 0.0, [0.0]
        for b in self.betas:
            total -= math.log1p(-b)
            values.append(total)
        nodes = tuple(i / len(self.betas) for i in range(len(self.betas) + 1))
        object.__setattr__(self, "_line", PiecewiseLinear(nodes, tuple(values)))

    def integral(self, t: Scalar) -> Scalar:
        return self._line(t)

    def inverse_integral(self, value: Scalar) -> Scalar:
        return self._line.inverse(value)

    def beta(self, t: Scalar) -> Scalar:
        return self._line.slope(t)


@final
@dataclass(frozen=True)
class ChainSigma(ExplodingSchedule):
    r"""The SMLD chain $\sigma_1 < \dots < \sigma_L$: $t = i/L$, exact there, $\log\sigma$ linear between.

    Below $t = 1/L$ the line of the first interval is continued, so that σ is positive at 0.
    """

    sigmas: tuple[float, ...]
    _line: PiecewiseLinear = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        s = self.sigmas
        if len(s) < 2 or s[0] <= 0 or any(b <= a for a, b in pairwise(s)):
            raise SdekitError(
                f"sigmas must be positive and increasing, at least two; got {list(s)[:4]}… "
                "(flip them if they decrease)."
            )
        nodes = tuple((i + 1) / len(s) for i in range(len(s)))
        object.__setattr__(self, "_line", PiecewiseLinear(nodes, tuple(map(math.log, s))))

    def sigma(self, t: Scalar) -> Scalar:
        return el.exp(self._line(t))

    def lam(self, t: Scalar) -> Scalar:
        return -self._line(t)

    def time_at(self, lam: Scalar) -> Scalar:
        return self._line.inverse(-lam)

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return 2.0 * self._line.slope(t) * self.sigma(t) ** 2
