r"""A law on the line that is known by the probability of each of its cells.

Inside cell i the density is taken to be log-linear: with s from 0 to 1 across the cell,

$$ F(s) = F_i + P_i\,\frac{e^{k_i s} - 1}{e^{k_i} - 1}, \qquad
   s(u) = \frac{1}{k_i} \log\bigl( 1 + u\,(e^{k_i} - 1) \bigr), $$

where $k_i$ is the slope of the logarithm of the neighbours' mean densities, times the width. The density is positive,
the cells keep their probability, distribution function and quantiles are closed forms that invert each other, and
Gaussian tails keep their relative accuracy. With exact cell probabilities, means of smooth functions are of order 4 in
the width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.keys import Keys, Paths, Seed
from sdekit.quantiles import check_probabilities

_FLAT = 1e-30  # a slope of zero, for which both formulas give s = u
_STEEP = 50.0
_MASS = 1e-9  # by which the probabilities may miss one


@final
@dataclass(frozen=True, eq=False)
class Marginal:
    """A law on the line by cells.

    Attributes:
        edges: Ends of the cells, increasing, shape (n + 1,), float64.
        masses: Their probabilities, of sum one, shape (n,).
    """

    edges: Tensor
    masses: Tensor

    def __post_init__(self) -> None:
        if self.edges.ndim != 1 or self.masses.shape != (len(self.edges) - 1,) or len(self.masses) < 2:
            shapes = tuple(self.edges.shape), tuple(self.masses.shape)
            raise SdekitError(f"A marginal needs n ≥ 2 masses between n + 1 edges; got edges and masses {shapes}.")
        if not bool((self.edges.diff() > 0).all() & self.edges.isfinite().all()):
            raise SdekitError("The edges of a marginal must be finite and increase: sort them, and drop repeated ones.")
        total = float(self.masses.sum())
        if not (bool((self.masses >= 0).all()) and abs(total - 1.0) < _MASS):
            low = float(self.masses.min())
            raise SdekitError(f"Masses must be non-negative with sum 1; the least is {low:g} and the sum {total:.12g}.")
        for name in ("edges", "masses"):
            object.__setattr__(self, name, getattr(self, name).detach().to("cpu", torch.float64))

    @property
    def event_shape(self) -> torch.Size:
        """The line."""
        return torch.Size((1,))

    @property
    def dtype(self) -> torch.dtype:
        """float64."""
        return torch.float64

    @property
    def device(self) -> torch.device:
        """The host."""
        return self.masses.device

    @cached_property
    def nodes(self) -> Tensor:
        """Midpoints of the cells, shape (n,)."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @cached_property
    def values(self) -> Tensor:
        """Mean density of the cells, shape (n,)."""
        return self.masses / self.edges.diff()

    @property
    def mean(self) -> Tensor:
        """Shape ()."""
        return self.expectation(lambda x: x)

    @property
    def variance(self) -> Tensor:
        """Shape ()."""
        mean = self.mean
        return self.expectation(lambda x: (x - mean).square())

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of ``function``, which sees many points as (M,) and answers in that shape; shape ()."""
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(5))
        s = 0.5 * (nodes + 1.0)
        share = weights * torch.exp(self._tilt[:, None] * (s - 0.5))
        share = self.masses[:, None] * share / share.sum(1, keepdim=True)
        x = self.edges[:-1, None] + self.edges.diff()[:, None] * s
        return share.flatten() @ function(x.flatten())

    @cached_property
    def _tilt(self) -> Tensor:
        """The slopes k; zero beside an empty cell."""
        height, x = torch.log(self.values), self.nodes
        slope = torch.empty_like(height)
        slope[1:-1] = (height[2:] - height[:-2]) / (x[2:] - x[:-2])
        slope[0], slope[-1] = (height[1] - height[0]) / (x[1] - x[0]), (height[-1] - height[-2]) / (x[-1] - x[-2])
        k = (slope * self.edges.diff()).nan_to_num(0.0, 0.0, 0.0).clamp(-_STEEP, _STEEP)
        return torch.where(k.abs() < _FLAT, torch.full_like(k, _FLAT), k)

    @cached_property
    def _below(self) -> Tensor:
        """P(X ≤ edge), shape (n + 1,)."""
        return torch.cat([self.masses.new_zeros(1), self.masses.cumsum(0)])

    @cached_property
    def _above(self) -> Tensor:
        """P(X > edge), summed from above, shape (n + 1,)."""
        return torch.cat([self.masses.new_zeros(1), self.masses.flip(0).cumsum(0)]).flip(0)

    def _locate(self, x: float | Tensor) -> tuple[Tensor, Tensor]:
        """The cell of every point, and where in it, from 0 to 1."""
        x = torch.as_tensor(x, dtype=torch.float64)
        cell = (torch.searchsorted(self.edges, x.contiguous()) - 1).clamp(0, len(self.masses) - 1)
        s = (x - self.edges[cell]) / (self.edges[cell + 1] - self.edges[cell])
        return cell, s.clamp(0.0, 1.0)

    def density(self, x: float | Tensor) -> Tensor:
        """The density, of the shape of ``x``; zero outside the cells."""
        x = torch.as_tensor(x, dtype=torch.float64)
        cell, s = self._locate(x)
        k = self._tilt[cell]
        inside = (x >= self.edges[0]) & (x <= self.edges[-1])
        return torch.where(inside, self.values[cell] * k * torch.exp(k * s) / torch.expm1(k), 0.0)

    def cdf(self, x: float | Tensor) -> Tensor:
        """P(X ≤ x), of the shape of ``x``."""
        cell, s = self._locate(x)
        return self._below[cell] + self.masses[cell] * _share(s, self._tilt[cell])

    def sf(self, x: float | Tensor) -> Tensor:
        """P(X > x), accurate where ``1 - cdf(x)`` is not."""
        cell, s = self._locate(x)
        return self._above[cell + 1] + self.masses[cell] * _share(1.0 - s, -self._tilt[cell])

    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor:
        """The x with cdf(x) = p, or sf(x) = p if ``upper``; of the shape of ``p``."""
        p = torch.as_tensor(p, dtype=torch.float64)
        check_probabilities(p)
        if upper:
            return -_mirrored(self).quantile(p)
        last = int(self.masses.nonzero().max())
        cell = (torch.searchsorted(self._below, p.contiguous()) - 1).clamp(0, last)
        u = ((p - self._below[cell]) / self.masses[cell]).clamp(0.0, 1.0)
        k = self._tilt[cell]
        s = (torch.log1p(u * torch.expm1(k)) / k).clamp(0.0, 1.0)
        return self.edges[cell] + s * (self.edges[cell + 1] - self.edges[cell])

    def sample(self, n: int | None = None, seed: Seed | None = 0, paths: Paths | None = None) -> Tensor:
        """Independent samples, shape (n, 1), by quantiles of normals; sample i is a function of (seed, path) alone."""
        keys = Keys.drawn(n, seed, paths).values
        z = random.normals(keys, (), stream=random.STREAM_LAW)[0]
        tail = 0.5 * torch.erfc(z.abs() * 0.5**0.5)
        return torch.where(z < 0, self.quantile(tail), self.quantile(tail, upper=True))[:, None]


def _share(s: Tensor, k: Tensor) -> Tensor:
    """How much of a cell's probability lies below s."""
    return torch.expm1(k * s) / torch.expm1(k)


def _mirrored(law: Marginal) -> Marginal:
    return Marginal(-law.edges.flip(0), law.masses.flip(0))


@final
@dataclass(frozen=True, eq=False)
class Marginals:
    """Laws on the line at several times: ``marginals[k]`` is the :class:`Marginal` at ``ts[k]``.

    Attributes:
        ts: Times, shape (K,).
        edges: Ends of the cells, shape (n + 1,).
        masses: Probabilities of the cells, shape (K, n).
    """

    ts: Tensor
    edges: Tensor
    masses: Tensor

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, k: int) -> Marginal:
        return Marginal(self.edges, self.masses[k])

    def __iter__(self) -> Iterator[Marginal]:
        return (self[k] for k in range(len(self)))

    @property
    def final(self) -> Marginal:
        """The law at the last time."""
        return self[-1]

    @property
    def mass_error(self) -> float:
        """By how much the total probability misses one, at worst."""
        return float((self.masses.sum(1) - 1.0).abs().max())
