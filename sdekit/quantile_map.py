r"""The exact probability flow of a law on the line: the quantile map.

In one dimension the flow keeps order and carries $p_s$ to $p_t$, so it can only be $x \mapsto F_t^{-1}(F_s(x))$. It is
evaluated in the nearer tail, so that no digit is lost there, and needs no ODE solver.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.laws import Law
from sdekit.linear import LinearProcess


def quantile_flow(process: LinearProcess, law: Law, x: Tensor, s: float, t: float) -> Tensor:
    """Where the probability flow carries states ``x`` from time s to time t.

    Args:
        process: The forward process.
        law: The data law, one-dimensional.
        x: States at time s, shape (B, 1).
        s: Start.
        t: End, before or after.

    Raises:
        SdekitError: the law is not one-dimensional.
    """
    if law.event_shape.numel() != 1:
        raise SdekitError(f"quantile_flow needs a law on the line; this one has event shape {tuple(law.event_shape)}.")
    start, end = process.marginal(law, s), process.marginal(law, t)
    below, above = start.cdf(x), start.sf(x)
    low = below <= 0.5
    half = torch.full_like(below, 0.5)
    lower = end.quantile(torch.where(low, below, half))
    upper = end.quantile(torch.where(low, half, above), upper=True)
    return torch.where(low, lower, upper)


def mid_quantiles(law: Law, n: int) -> Tensor:
    """The quantiles at (i + ½)/n, i = 0 … n − 1, shape (n, 1): n points that stand for the law."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    lower = law.quantile(p[: (n + 1) // 2])
    upper = law.quantile(1.0 - p[(n + 1) // 2 :], upper=True)
    return torch.cat([lower.reshape(-1), upper.reshape(-1)])[:, None]
