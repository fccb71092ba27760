r"""Schedules given as a table of levels: the DDPM and SMLD chains as processes in continuous time.

Level i of L stands at $t = i/L$ and is exact there; in between $\log\alpha$ (DDPM) or $\log\sigma$ (SMLD) is
linear, so the inverse is exact too.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
        return _interpolate(self.nodes, self.values, t)

    def inverse(self, value: Scalar) -> Scalar:
        return _interpolate(self.values, self.nodes, value)

    def slope(self, t: Scalar) -> Scalar:
        """The slope to the left of a node, which is the step that led there."""
        if isinstance(t, Tensor):
            x, y = (torch.tensor(a, dtype=t.dtype, device=t.device) for a in (self.nodes, self.values))
            i = torch.searchsorted(x, t.contiguous()).clamp(1, len(self.nodes) - 1)
            return (y[i] - y[i - 1]) / (x[i] - x[i - 1])
        i = _segment(self.nodes, t)
        return (self.values[i] - self.values[i - 1]) / (self.nodes[i] - self.nodes[i - 1])


def _segment(nodes: Sequence[float], t: float) -> int:
    return min(max(bisect.bisect_left(nodes, t), 1), len(nodes) - 1)


def _interpolate(nodes: Sequence[float], values: Sequence[float], t: Scalar) -> Scalar:
    """Linear interpolation, exact at the nodes."""
    if isinstance(t, Tensor):
        x, y = (torch.tensor(a, dtype=t.dtype, device=t.device) for a in (nodes, values))
        i = torch.searchsorted(x, t.contiguous()).clamp(1, len(nodes) - 1)
        w = (t - x[i - 1]) / (x[i] - x[i - 1])
        return y[i - 1] * (1.0 - w) + y[i] * w
    i = _segment(nodes, t)
    w = (t - nodes[i - 1]) / (nodes[i] - nodes[i - 1])
    return values[i - 1] * (1.0 - w) + values[i] * w


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
        if len(s) < 2 or s[0] <= 0 or any(b <= a for a, b in zip(s, s[1:], strict=False)):
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
