r"""W2 on the line, where the optimal coupling joins quantile to quantile.

$$ W_2^2 = \int_0^1 \bigl( F^{-1}(u) - G^{-1}(u) \bigr)^2 du
         = \int_{-\infty}^{\infty} \bigl( F^{-1}(\Phi(z)) - G^{-1}(\Phi(z)) \bigr)^2 \varphi(z)\, dz . $$

In z both tails are resolved, each quantile is asked for in the tail that is nearer, and for laws with Gaussian-like
tails the integrand is smooth. What is beyond |z| = 10 has probability 1.5e-23. The integral is
adaptive Gauss–Kronrod (3, 7): panels are halved where the two rules disagree on the integrand, or on one of the
quantile functions, so that no jump hides between nodes. Sets of points jump at known places, which are panel ends from
the start.

Two sets of points need no integral: their quantile functions are constant between the levels i/n and j/m,
which are merged as integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

_END = 10.0
_PANELS = 32
_MAX_PANELS = 20_000  # beyond those that the points need
_ROUNDS = 60
_CHUNK = 2**18
_RELATIVE, _ROUNDING = 1e-11, 1e-14  # of W2, and of the laws' size
_RESOLVED = 1e-9  # disagreement on a quantile function, relative to that size

# Kronrod's extension of the 3-point Gauss rule, exact for degree 11. Nodes 1, 3 and 5 are Gauss's.
_NODES = [0.9604912687080202, 0.7745966692414834, 0.4342437493468026, 0.0]
_KRONROD = [0.1046562260264673, 0.2684880898683334, 0.4013974147759622, 0.4509165386584741]
_GAUSS = [0.0, 5 / 9, 0.0, 8 / 9]


@runtime_checkable
class Quantiles(Protocol):
    """Anything that knows its quantiles, as every 1-D law does."""

    def quantile(self, p: Tensor, *, upper: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class Line:
    """A distribution on the line as the function z ↦ F⁻¹(Φ(z)), and the z where it is known to jump."""

    at: Callable[[Tensor], Tensor]
    jumps: Tensor


def _below(z: Tensor) -> Tensor:
    """Φ(z). torch.special.ndtr is one minus something, and 0 from z = −8.3 on."""
    return 0.5 * torch.erfc(-z * math.sqrt(0.5))


def of_law(law: Quantiles) -> Line:
    """From quantiles in both tails."""

    def at(z: Tensor) -> Tensor:
        tail, above = _below(-z.abs()), z > 0
        x = torch.empty_like(z)
        x[~above] = law.quantile(tail[~above]).to(x)
        x[above] = law.quantile(tail[above], upper=True).to(x)
        return x

    return Line(at, torch.empty(0, dtype=torch.float64))


def of_function(quantile: Callable[[Tensor], Tensor]) -> Line:
    """From a function of u in (0, 1); of the upper tail it sees 1e-16, the distance of floats from 1."""
    inside = torch.finfo(torch.float64).eps / 2

    def at(z: Tensor) -> Tensor:
        return quantile(_below(z).clamp(max=1.0 - inside)).to(z)

    return Line(at, torch.empty(0, dtype=torch.float64))


def of_points(x: Tensor) -> Line:
    """From sorted points, (n,)."""
    n = len(x)
    i = torch.arange(1, n, dtype=torch.float64)
    jumps = torch.where(2 * i < n, torch.special.ndtri(i / n), -torch.special.ndtri((n - i) / n))
    return Line(lambda z: x[torch.searchsorted(jumps, z)], jumps)


def between_lines(a: Line, b: Line) -> float:
    """W2 by the integral over z, to 1e-11 of itself or 1e-14 of the laws' size."""
    uniform = torch.linspace(-_END, _END, _PANELS + 1, dtype=torch.float64)
    edges = torch.cat([uniform, a.jumps, b.jumps]).clamp(-_END, _END).sort().values
    panels = _panels(a, b, edges[:-1], edges[1:])
    size = math.sqrt(float(panels[4].sum()))
    most = panels.shape[1] + _MAX_PANELS
    for _ in range(_ROUNDS):
        low, high, integral, error, _, roughness = panels
        distance = math.sqrt(float(integral.sum().clamp(min=0)))
        allowed = max(_RELATIVE * distance, _ROUNDING * size)
        tolerance = allowed * (2 * distance + allowed)  # of W2², for `allowed` in W2
        coarse = roughness > _RESOLVED * size
        if float(error.sum()) > tolerance:
            coarse |= error > tolerance / len(low)
        if not bool(coarse.any()) or len(low) + int(coarse.sum()) > most:
            break
        l, h = low[coarse], high[coarse]
        middle = (l + h) / 2
        halves = _panels(a, b, torch.cat([l, middle]), torch.cat([middle, h]))
        panels = torch.cat([panels[:, ~coarse], halves], dim=1)
    return math.sqrt(float(panels[2].sum().clamp(min=0)))


def _panels(a: Line, b: Line, low: Tensor, high: Tensor) -> Tensor:
    """Rows: low, high, W2², its error, the laws' size squared, and the rules' disagreement on a quantile function."""
    cuts = zip(torch.split(low, _CHUNK // 7), torch.split(high, _CHUNK // 7), strict=True)
    return torch.cat([_rules(a, b, l, h) for l, h in cuts], dim=1)


def _rules(a: Line, b: Line, low: Tensor, high: Tensor) -> Tensor:
    half = (high - low) / 2
    nodes = torch.tensor([-x for x in _NODES] + _NODES[-2::-1], dtype=torch.float64)
    kronrod, gauss = (torch.tensor(w + w[-2::-1], dtype=torch.float64) for w in (_KRONROD, _GAUSS))
    z = ((low + high) / 2)[:, None] + half[:, None] * nodes
    x, y, density = a.at(z), b.at(z), torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    of_x, of_y, between = x * density, y * density, (x - y).square() * density
    differ = kronrod - gauss
    roughness = half * torch.maximum((of_x @ differ).abs(), (of_y @ differ).abs())
    size = half * ((x * of_x + y * of_y) @ kronrod)
    return torch.stack([low, high, half * (between @ kronrod), half * (between @ differ).abs(), size, roughness])


def merged(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Which order statistic of n, which of m, and how much of (0, 1) they share, along all merged levels."""
    i, j = (torch.arange(1, k + 1, device=device) for k in (n, m))
    ends = torch.cat([i * m, j * n]).sort().values  # multiples of 1 / nm: exact
    share = ends.diff(prepend=ends.new_zeros(1))
    ends, share = ends[share > 0], share[share > 0].double() / (n * m)
    return (ends - 1) // m, (ends - 1) // n, share


def squared_by_columns(x: Tensor, y: Tensor) -> Tensor:
    """W2² of each column of ``x``, (n, P), to the same column of ``y``, (m, P): shape (P,)."""
    i, j, share = merged(len(x), len(y), x.device)
    between = x.sort(dim=0).values[i] - y.sort(dim=0).values[j]
    return share @ between.square()
