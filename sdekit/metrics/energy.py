r"""The energy distance.

$$ D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'| $$

is at least zero, and zero only for equal laws. Between samples the expectations run over all pairs, a point with itself
included (a V-statistic: the energy distance of the two empirical laws, so it is never negative). On the line
it equals $2\int (F - G)^2 dx$, which takes a sort instead of all pairs and cancels nothing.

References: [szekely2013].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdekit.laws import Empirical
from sdekit.metrics.samples import pair

_CHUNK = 2**22  # distances held at once


def energy_distance(x: Tensor | Empirical, y: Tensor | Empirical) -> float:
    r"""The energy distance D between two sets of samples.

    Args:
        x: Samples, shape (n, \*E).
        y: Samples, shape (m, \*E). All n × m distances are computed, in chunks (on the line: none of them).

    Returns:
        D, the square root of $2E|X-Y| - E|X-X'| - E|Y-Y'|$, which is a metric.

    Raises:
        SdekitError: event shapes that differ, NaN, or no samples.

    References: [szekely2013].
    """
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


def _mean_distance(x: Tensor, y: Tensor) -> float:
    """Mean over all pairs; differences first, since x² + y² − 2xy would lose half the digits."""
    rows = max(1, _CHUNK // len(y))
    total = 0.0
    for part in torch.split(x, rows):
        total += float(torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").sum())
    return total / (len(x) * len(y))
