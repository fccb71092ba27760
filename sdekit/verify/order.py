r"""Orders of convergence from errors: a fit of $e(h) = C h^p (1 + D h)$.

A bare line through log–log points reads a correct first-order method as 0.77 on coarse grids. The factor $1 + D h$
takes up the next term of the expansion. What it neglects is $O(h^2)$, so exact errors are weighted by $h^{-2}$; sampled
ones by their relative standard errors. The fit uses the finest levels that stand clear of the floor. Its uncertainty
is the larger of the least-squares standard error and of the change when the coarsest level is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sdekit.errors import SdekitError

_LEVELS = 5  # finest levels that the fit uses: two more than parameters
_CLEAR = 50.0  # an error below this many floors is not used


@dataclass(frozen=True)
class OrderEstimate:
    """A measured order.

    Attributes:
        order: The fitted p; NaN when fewer than four levels stand clear of the floor.
        uncertainty: Of ``order``: NaN likewise.
        local: Orders between neighbouring levels, log(e₁/e₂)/log(N₂/N₁).
        steps: Step counts N of the levels.
        errors: Errors there.
        floor: Error below which only round-off is measured.
    """

    order: float
    uncertainty: float
    local: tuple[float, ...]
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    floor: float

    @property
    def exact(self) -> bool:
        """Whether every level is at the floor: there is no discretisation error to have an order."""
        return all(e <= _CLEAR * self.floor for e in self.errors)

    def consistent_with(self, claim: float, tolerance: float = 0.05) -> bool:
        """Whether the estimate reaches the claimed order within ``tolerance`` and its uncertainty."""
        return self.exact or abs(self.order - claim) <= tolerance + 2.0 * self.uncertainty

    def __str__(self) -> str:
        return "exact" if self.exact else f"{self.order:.3f} ± {self.uncertainty:.3f}"


def fit_order(
    steps: Sequence[int],
    errors: Sequence[float],
    floor: float = 1e-14,
    sampled: Sequence[float] | None = None,
) -> OrderEstimate:
    """Fit an order to errors at increasing step counts.

    Args:
        steps: Step counts, increasing.
        errors: Errors there, positive.
        floor: Error of round-off; levels within 50 floors are left out.
        sampled: Relative standard errors of sampled errors; None where the errors are exact.

    Raises:
        SdekitError: lengths differ, step counts do not increase, or an error is negative or not finite.
    """
    if len(steps) != len(errors) or any(b <= a for a, b in pairwise(steps)):
        raise SdekitError(f"An order needs increasing step counts, each with an error; got {steps} and {errors}.")
    if not all(math.isfinite(e) and e >= 0 for e in errors):
        raise SdekitError(f"An order needs finite errors ≥ 0; got {list(errors)}.")
    pairs = zip(steps, errors, steps[1:], errors[1:], strict=False)
    local = tuple(math.log(a / b) / math.log(n / m) if a > 0 and b > 0 else math.nan for m, a, n, b in pairs)
    spread = sampled or [1.0 / n**2 for n in steps]
    levels = zip(steps, errors, spread, strict=True)
    clear = [(1.0 / n, e, s) for n, e, s in levels if e > _CLEAR * floor][-_LEVELS:]
    order, uncertainty = math.nan, math.nan
    if len(clear) >= 4:
        order, uncertainty = _fit(clear)
        shorter, _ = _fit(clear[1:])
        uncertainty = max(uncertainty, abs(order - shorter))
    return OrderEstimate(order, uncertainty, local, tuple(steps), tuple(errors), floor)


def _fit(levels: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """P and its standard error, by least squares on log e = log C + p log h + log(1 + D h)."""
    from scipy.optimize import least_squares  # slow to import, and only orders need it

    h, e, spread = np.array(levels).T
    weight = spread.min() / spread
    scaled = h / h.max()
    slope = np.log(e[-2] / e[-1]) / np.log(h[-2] / h[-1])

    def residuals(q: np.ndarray) -> np.ndarray:
        factor = np.maximum(1.0 + q[2] * scaled, 1e-3)
        scatter: np.ndarray = weight * (q[0] + q[1] * np.log(scaled) + np.log(factor) - np.log(e))
        return scatter

    start = [np.log(e[-1]) - slope * np.log(scaled[-1]), slope, 0.0]
    fit = least_squares(residuals, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    freedom = len(h) - 3
    if freedom == 0:
        return float(fit.x[1]), 0.0
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * (2.0 * fit.cost / freedom)
    return float(fit.x[1]), float(np.sqrt(covariance[1, 1]))
