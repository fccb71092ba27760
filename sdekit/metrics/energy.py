r"""The energy distance.

$$ D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'| $$

is at least zero, and zero only for equal laws. Between samples the expectations run over all pairs, a point with itself
included (a V-statistic: the energy distance of the two empirical laws, so it is never negative). On the line
it equals $2\int (F - G)^2 dx$, which takes a sort instead of all pairs and cancels nothing.

References: [szekely2013].
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.laws import Empirical
from sdekit.metrics.samples import check_events, event_of, pair, points

_CHUNK = 2**22  # distances held at once
_SCORES = torch.linspace(-10.0, 10.0, 401, dtype=torch.float64)
_GAUSS = (-0.7745966692414834, 0.0, 0.7745966692414834), (5 / 18, 8 / 18, 5 / 18)


@runtime_checkable
class Continuous(Protocol):
    """A law on the line."""

    @property
    def event_shape(self) -> torch.Size: ...
    def cdf(self, x: Tensor, /) -> Tensor: ...
    def sf(self, x: Tensor, /) -> Tensor: ...
    def quantile(self, p: Tensor, /, *, upper: bool = False) -> Tensor: ...


def energy_distance(x: Tensor | Continuous, y: Tensor | Continuous) -> float:
    r"""The energy distance D between two sets of samples; on the line also between laws, or samples and a law.

    Args:
        x: Samples, shape (n, \*E); or a law on the line.
        y: Samples, shape (m, \*E). All n × m distances are computed, in chunks (on the line: none of them). Or a law.

    Returns:
        D, the square root of $2E|X-Y| - E|X-X'| - E|Y-Y'|$, which is a metric.

    Raises:
        SdekitError: event shapes that differ, NaN, no samples, or a law in more than one dimension.

    References: [szekely2013].
    """
    if not (isinstance(x, Tensor | Empirical) and isinstance(y, Tensor | Empirical)):
        return math.sqrt(_with_laws(x, y))
    x, y = pair(x, y)
    y = y.to(x)
    if x.shape[1] == 1:
        return math.sqrt(_on_the_line(x[:, 0], y[:, 0]))
    squared = 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)
    return math.sqrt(max(squared, 0.0))


def _on_the_line(x: Tensor, y: Tensor) -> float:
    """2 ∫ (F − G)² dx; the steps of F − G are integers over nm."""
    n, m = len(x), len(y)
    pooled, order = torch.cat([x, y]).sort()
    steps = torch.cat([order.new_full((n,), m), order.new_full((m,), -n)])[order].cumsum(0)
    gaps = steps[:-1].double() / (n * m)
    return 2 * float(gaps.square() @ pooled.diff())


def _with_laws(a: Tensor | Continuous, b: Tensor | Continuous) -> float:
    """2 ∫ (F − G)² dx by Gauss's rule between all points and, densely, quantiles, where the integrand is smooth."""
    events, breaks = [], []
    for name, z in (("x", a), ("y", b)):
        if isinstance(z, Tensor | Empirical):
            breaks.append(points(name, z).flatten().cpu())
            events.append(event_of(z))
        elif isinstance(z, Continuous):
            events.append(z.event_shape)
        else:
            raise SdekitError(f"{name} must be samples, or a law with cdf and quantile; got {type(z).__name__}.")
    check_events(*events)
    if events[0].numel() != 1:
        raise SdekitError(
            f"Between a law and samples the energy distance is for the line; the event shape is {tuple(events[0])}: "
            "draw samples with law.sample(n)."
        )
    tail = 0.5 * torch.erfc(_SCORES.abs() * math.sqrt(0.5))
    for z in (a, b):
        if not isinstance(z, Tensor | Empirical):
            at = torch.where(_SCORES < 0, z.quantile(tail).double(), z.quantile(tail, upper=True).double())
            breaks.append(at)
    edges = torch.cat(breaks).sort().values
    nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in _GAUSS)
    inside = edges[:-1, None] + edges.diff()[:, None] * (0.5 + 0.5 * nodes)
    between = _distribution(a, inside) - _distribution(b, inside)
    return 2.0 * float(edges.diff() @ (between.square() @ weights))


def _distribution(a: Tensor | Continuous, x: Tensor) -> Tensor:
    if isinstance(a, Tensor):
        a = Empirical(a.detach().double().cpu().reshape(-1))
    return a.cdf(x).double()


def _mean_distance(x: Tensor, y: Tensor) -> float:
    """Mean over all pairs; differences first, since x² + y² − 2xy would lose half the digits."""
    rows = max(1, _CHUNK // len(y))
    total = 0.0
    for part in torch.split(x, rows):
        total += float(torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").sum())
    return total / (len(x) * len(y))
