"""A picture of convergence in characters: errors against steps, both logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MARKS = "ox+*#@%&"


def chart(series: Sequence[tuple[str, Sequence[int], Sequence[float]]], width: int = 56, height: int = 14) -> str:
    """Draw errors at step counts.

    Args:
        series: Name, step counts and errors of every line; errors of zero are left out.
        width: Columns of the plot.
        height: Rows of the plot.
    """
    points = [
        (math.log2(n), math.log10(e), mark)
        for mark, (_, steps, errors) in zip(_MARKS, series, strict=False)
        for n, e in zip(steps, errors, strict=True)
        if e > 0.0
    ]
    if not points:
        return "every error is zero"
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = math.floor(min(ys)), math.ceil(max(ys))
    high = max(high, low + 1)
    left, right = min(xs), max(max(xs), min(xs) + 1.0)
    canvas = [[" "] * width for _ in range(height)]
    for x, y, mark in points:
        column = round((x - left) / (right - left) * (width - 1))
        row = round((high - y) / (high - low) * (height - 1))
        canvas[row][column] = mark
    labels = {0: f"1e{high:+03d}", height - 1: f"1e{low:+03d}"}
    rows = [f"{labels.get(i, ''):>6} |{''.join(line).rstrip()}" for i, line in enumerate(canvas)]
    first, last = str(round(2**left)), str(round(2**right))
    axis = f"{'':>6} +{'-' * width}"
    ticks = f"{'':>8}{first}{'steps':^{width - len(first) - len(last)}}{last}"
    legend = [f"{mark} {name}" for mark, (name, _, _) in zip(_MARKS, series, strict=False)]
    return "\n".join([*rows, axis, ticks, "", *legend])
