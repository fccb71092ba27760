r"""One path for every sampler of k-diffusion: a drop-in for its ``noise_sampler(sigma, sigma_next)``.

A sampler there asks for a normal over [σ, σ'] and scales it itself. Here it is the increment of a Brownian path, over
its deviation, in the clock of the noise that such a sampler adds: on states x/α the exact solution with k-diffusion's η
has the noise $\sigma^{1 + \eta} (W_{c(\sigma')} - W_{c(\sigma)})$, $c = \sigma^{-2\eta}$. Runs with other levels then
follow one path, and converge to one sample. A sample's path is a function of its seed and path number alone.

References: [crowson2022].
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from sdekit.brownian import BrownianGrid, BrownianTree
from sdekit.errors import SdekitError
from sdekit.keys import Paths, Seed

_SAME = 5e-6  # distance in log σ of levels that are the same but for the rounding of float32
_DEPTH = 16  # of the tree: log σ is rounded to 1/65536 of its range, a level that is computed twice to the same point
_LEAVES = 1 << _DEPTH


@final
class NoiseSampler:
    """What the samplers of k-diffusion take as ``noise_sampler=``, instead of a ``BrownianTreeNoiseSampler``.

    Args:
        x: States; their shape, dtype and device count.
        sigma_min: The lowest level above zero that is asked for.
        sigma_max: The highest.
        seed: As in :mod:`sdekit.keys`.
        paths: As in :mod:`sdekit.keys`.
        levels: All levels that are asked for, in any order: those of the finest run, and :func:`with_midpoints` of them
            for a sampler that stops inside of its steps. Increments are then sums over a grid, at about the cost of a
            draw each; left out, they come down a tree, at any levels, for some ten. The two are different paths.
        eta: k-diffusion's η.

    Raises:
        SdekitError: levels that are not positive and finite; from a call, a level that the path does not know.
    """

    def __init__(
        self,
        x: Tensor,
        sigma_min: float | Tensor,
        sigma_max: float | Tensor,
        seed: Seed | None = 0,
        *,
        paths: Paths | None = None,
        levels: Tensor | Sequence[float] | None = None,
        eta: float = 1.0,
    ) -> None:
        low, high = float(sigma_min), float(sigma_max)
        if not (0.0 < low < high < math.inf and eta > 0.0):
            raise SdekitError(
                f"A path in sigma needs 0 < sigma_min < sigma_max and eta > 0; got [{low:g}, {high:g}], eta = {eta:g}."
            )
        self._first, self._last = -math.log(high), -math.log(low)
        self._lams = None if levels is None else self._known(torch.as_tensor(levels, dtype=torch.float64))

        def clock(lam: Tensor) -> Tensor:
            return torch.exp(2.0 * eta * (lam - self._first))

        drawn = {"seed": seed, "paths": paths, "dtype": x.dtype, "device": x.device, "clock": clock}
        self._path: BrownianGrid | BrownianTree
        if self._lams is None:
            self._path = BrownianTree(x.shape, self._first, self._last, depth=_DEPTH, **drawn)  # type: ignore[arg-type]
            self._walk = self._path.walk()
        else:
            self._path = BrownianGrid(x.shape, times=self._lams, **drawn)  # type: ignore[arg-type]

    def __call__(self, sigma: float | Tensor, sigma_next: float | Tensor) -> Tensor:
        """Standard normals over the step from σ to σ', of the shape of the states."""
        s, t = self._at(float(sigma)), self._at(float(sigma_next))
        if s > t:
            return self(sigma_next, sigma).neg()
        variance = self._path.variance(s, t)
        if variance == 0.0:
            raise SdekitError(f"There is no noise over a step of no length, at sigma = {float(sigma):g}.")
        if isinstance(self._path, BrownianGrid):
            return self._path.increment(s, t).w.mul(variance**-0.5)
        return self._walked(self._leaf(s), self._leaf(t)).mul_(variance**-0.5)

    def _leaf(self, lam: float) -> int:
        """The tree rounds to the same."""
        return round((lam - self._first) / (self._last - self._first) * _LEAVES)

    def _walked(self, i: int, j: int) -> Tensor:
        """The increment over the leaves i … j − 1 of the tree, put together from nodes."""
        (level, index), *others = _cover(i, j)
        total = self._walk.step(level, index).w.clone()
        for level, index in others:
            total.add_(self._walk.step(level, index).w)
        return total

    def _known(self, levels: Tensor) -> list[float]:
        """−log σ of the positive levels and of both ends, rising, without those that are the same but for rounding."""
        inside = (-levels[levels > 0.0].log()).tolist()
        lams = sorted([self._first, self._last, *(lam for lam in inside if self._first < lam < self._last)])
        apart = [b for a, b in pairwise(lams) if b - a > 2.0 * _SAME]
        return [lams[0], *apart]

    def _at(self, sigma: float) -> float:
        """−log σ, where it is that of a level of the path."""
        lam = -math.log(sigma) if sigma > 0.0 else math.inf
        if not self._first - _SAME <= lam <= self._last + _SAME:
            raise SdekitError(
                f"sigma = {sigma:g} lies outside of this path, which knows the levels from "
                f"{math.exp(-self._last):g} to {math.exp(-self._first):g}."
            )
        if self._lams is None:
            share = round((lam - self._first) / (self._last - self._first) * _LEAVES) / _LEAVES
            return self._first + min(max(share, 0.0), 1.0) * (self._last - self._first)
        i = bisect.bisect_left(self._lams, lam)
        near = min(self._lams[max(i - 1, 0) : i + 1], key=lambda node: abs(node - lam))
        if abs(near - lam) > _SAME:
            raise SdekitError(
                f"sigma = {sigma:g} is none of the {len(self._lams)} levels of this path: give levels= of the finest "
                "run, with_midpoints(levels) for a sampler that stops inside of its steps, or none for a path at all "
                "levels."
            )
        return near


def _cover(i: int, j: int) -> list[tuple[int, int]]:
    """The fewest nodes (level, index) over the leaves i … j − 1: from the left, the largest that fits."""
    nodes = []
    while i < j:
        size = min(i & -i or _LEAVES, 1 << ((j - i).bit_length() - 1))
        nodes.append((_DEPTH - size.bit_length() + 1, i // size))
        i += size
    return nodes


def with_midpoints(levels: Tensor | Sequence[float], r: float = 0.5) -> Tensor:
    """The positive levels, and those at a fraction ``r`` of every step in log σ, where ``dpmpp_sde`` stops."""
    sigmas = torch.as_tensor(levels, dtype=torch.float64)
    lams = -sigmas[sigmas > 0.0].log()
    return torch.cat([lams, lams[:-1] + r * lams.diff()]).sort().values.neg().exp()
