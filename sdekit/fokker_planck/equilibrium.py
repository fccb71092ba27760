r"""The stationary law of an SDE on the line, by one integral.

On the line a stationary density carries no flux (unless probability comes in at one end and leaves at the other). With
$D = g^2/2$, $J = f p - \partial_x (D p) = 0$ gives

$$ p(x) \propto \frac{1}{D(x)} \exp \int^x \frac{f}{D}\,dy \quad \text{(Itô)}, \qquad
   p(x) \propto \frac{1}{\sqrt{D(x)}} \exp \int^x \frac{f}{D}\,dy \quad \text{(Stratonovich)} . $$

Both integrals are Gauss quadrature with 8 nodes in every cell, the inner one up to each node by the rule that
integrates the interpolating polynomial. The probabilities of the cells are exact to rounding where f/D is smooth.

References: [gardiner2009].
"""

from __future__ import annotations

import math

import numpy as np
import torch

from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError
from sdekit.fokker_planck.evolution import Boundary, far_ends
from sdekit.fokker_planck.finite_volume import Array, coefficients
from sdekit.fokker_planck.marginal import Marginal

_ORDER = 8
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
_LEAK = 1e-12  # most probability in the cell at a far end
_EMPTY = 80.0  # below the maximum of the log density nothing is left
_WIDEST = 2.0**30


def _inner_rule() -> Array:
    """Row j integrates from 0 to the j-th Gauss node of [0, 1] what is given at all of them, exactly to degree 7."""
    powers = np.arange(_ORDER)
    moments = (_NODES[:, None] ** (powers + 1) - (-1.0) ** (powers + 1)) / (2.0 * (powers + 1))  # ∫ (2r − 1)ⁿ dr
    rule: Array = np.linalg.solve(np.vander(_NODES, increasing=True).T, moments.T).T.astype(np.float64)
    return rule


_INNER = _inner_rule()


def stationary(
    sde: SDE,
    *,
    cells: int = 2000,
    domain: tuple[float, float] | None = None,
    boundary: Boundary | tuple[Boundary, Boundary] = "far",
    t: float = 0.0,
) -> Marginal:
    r"""The stationary law of an SDE whose state is one number.

    Args:
        sde: Any SDE with positive noise; its coefficients are taken at time ``t``. Of a reverse-time SDE, the law that
            is stationary backwards in time.
        cells: How many, of equal width. Means of smooth functions are of order 4 in the width.
        domain: Where to look. Chosen if left out: grown from [−1, 1] until the density at both ends is nothing.
        boundary: What the ends of the domain are, as for :func:`~sdekit.fokker_planck.solve`: at ``far`` ends the
            density must have died out.
        t: Time at which the coefficients are frozen.

    Raises:
        SdekitError: no density that can be normalised, or one whose tails reach the ends; fields that are not finite or
            have no noise inside the domain.

    References: [gardiner2009].
    """
    far = far_ends(boundary)
    if sde.direction == "decreasing":
        sde, t = Reflected(sde), -t
    if domain is None:
        if not all(far):
            raise SdekitError("A wall stands somewhere: give domain=(low, high).")
        domain = _found(sde, t)
    elif not (math.isfinite(domain[0]) and math.isfinite(domain[1]) and domain[0] < domain[1]):
        raise SdekitError(f"domain must be (low, high), finite and increasing; got {domain}.")
    edges = np.linspace(*domain, cells + 1)
    log_mass = _log_masses(sde, t, edges)
    masses = np.exp(log_mass - np.logaddexp.reduce(log_mass))
    for end, name, is_far in ((0, "low", far[0]), (-1, "high", far[1])):
        if is_far and masses[end] > _LEAK:
            raise SdekitError(
                f"The stationary density does not die out at the {name} end of [{edges[0]:.4g}, {edges[-1]:.4g}]: the "
                f"last cell holds {masses[end]:.2g}. Widen the domain, or say boundary='wall' if it is reflected there."
            )
    return Marginal(torch.from_numpy(edges), torch.from_numpy(masses / masses.sum()))


def _log_masses(sde: SDE, t: float, edges: Array) -> Array:
    """Logarithms of the cells' probabilities, up to a constant."""
    width = np.diff(edges)[:, None]
    f, d = coefficients(sde, t, edges[:-1, None] + width * (0.5 + 0.5 * _NODES), torch.Size((1,)))
    rate = f / d
    across = 0.5 * width[:, 0] * (rate @ _WEIGHTS)
    before = np.cumsum(across) - across
    power = 0.5 if sde.calculus == "stratonovich" else 1.0
    height = before[:, None] + width * (rate @ _INNER.T) - power * np.log(d)
    total: Array = np.logaddexp.reduce(height + np.log(0.5 * width * _WEIGHTS), axis=1)
    return total


def _found(sde: SDE, t: float, cells: int = 400) -> tuple[float, float]:
    """A domain at whose ends the density is e^{−80} of its maximum: widened until it is, then drawn together."""
    low, high = -1.0, 1.0
    while max(-low, high) < _WIDEST:
        depth = _depth(sde, t, np.linspace(low, high, cells + 1))
        open_ends = depth[0] < _EMPTY, depth[-1] < _EMPTY
        if not any(open_ends):
            return _drawn_together(sde, t, low, high, cells)
        low, high = (2.0 * low if open_ends[0] else low), (2.0 * high if open_ends[1] else high)
    raise SdekitError(
        f"Found no stationary law: its density has not died out within ±{_WIDEST:.1g}. Does the drift pull back from "
        "both sides? For heavy tails or a law on part of the line give domain=(low, high)."
    )


def _depth(sde: SDE, t: float, edges: Array) -> Array:
    """How far the log probability of every cell lies below the greatest."""
    log_mass = _log_masses(sde, t, edges)
    depth: Array = log_mass.max() - log_mass
    return depth


def _drawn_together(sde: SDE, t: float, low: float, high: float, cells: int) -> tuple[float, float]:
    """Closer ends, as long as that cuts the width."""
    while True:
        edges = np.linspace(low, high, cells + 1)
        full = np.flatnonzero(_depth(sde, t, edges) < _EMPTY)
        near = float(edges[max(full[0] - 1, 0)]), float(edges[min(full[-1] + 2, cells)])
        if near[1] - near[0] > 0.9 * (high - low):
            return near
        low, high = near
