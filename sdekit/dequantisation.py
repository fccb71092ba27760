r"""From levels to densities: what a density says about data that are whole numbers.

Grey values k = 0 … L − 1 that stand at $a_k = \text{low} + k\Delta$ have no density. But a sample of a density p,
rounded to the nearest level, has a probability: the integral over a cell of width Δ about it. With uniform noise u in
the cell, $\tilde x = a + \Delta(u - \tfrac12)$, Jensen's inequality gives

$$ \log P(k) = \log \int_\text{cell} p(\tilde x)\,d\tilde x \;\ge\; E_u\bigl[\log p(\tilde x)\bigr] + d\log\Delta , $$

of which one draw of u is a value without bias: in the mean over its noise a bound from below. $d \log\Delta$ is the
log-volume of a cell in the units of the model; in units of levels it is the Jacobian of the scaling.

p may be the density of a flow at any time: the bound is that of its samples there, rounded, and nothing is left out. A
model that has seen the levels themselves is sharp about them, to the noise that is left at its least time. Where σ/α is
much less than Δ, uniform noise asks about places that no data had, and the bound is poor. A later start, near Δ/3,
is then the better model of the levels.

References: [theis2016].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.keys import Keys


@final
@dataclass(frozen=True)
class Dequantisation:
    """Uniform noise on the cells of evenly spaced levels.

    Attributes:
        levels: L, how many there are: 256 for bytes, 17 for the grey values 0 … 16 of the digits.
        low: Where the first stands in the model's range.
        high: Where the last stands.

    Raises:
        SdekitError: fewer than two levels, or a range that is none.

    References: [theis2016].
    """

    levels: int = 256
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.levels < 2 or not -math.inf < self.low < self.high < math.inf:
            raise SdekitError(f"A dequantisation needs levels ≥ 2 from low < high; got {self}.")

    @property
    def width(self) -> float:
        """Δ, the distance between levels."""
        return (self.high - self.low) / (self.levels - 1)

    def log_cell(self, dimensions: int) -> float:
        """D log Δ."""
        return dimensions * math.log(self.width)

    def filled(self, x: Tensor, keys: Keys) -> Tensor:
        """Levels (B, *E) with uniform noise, which is a function of (seed, path).

        Raises:
            SdekitError: something is no level.
        """
        place = (x.double() - self.low) / self.width
        level = place.round()
        off = ((place - level).abs() > 1e-3) | (level < 0) | (level >= self.levels)
        if bool(off.any()):
            raise SdekitError(
                f"{int(off.sum())} values are none of the {self.levels} levels from {self.low:g} to {self.high:g}, "
                f"such as {float(x[off][0]):.6g}: give the range that the model sees, and data without noise."
            )
        z = random.normals(keys.values, x.shape[1:], stream=random.STREAM_DEQUANTISATION)[0]
        noisy: Tensor = self.low + self.width * (level + torch.special.ndtr(z) - 0.5)
        return noisy.to(x.dtype)
