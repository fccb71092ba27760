r"""Orders of convergence from errors: a fit of $e(h) = C h^p (1 + D h)$.

A bare line through log–log points reads a correct first-order method as 0.77 on coarse grids. The factor $1 + D h$
takes up the next term of an expansion in whole powers of h. What it neglects, $E h^2$, and what is not known of the
errors, covariance $\Sigma$ of their logarithms, weigh the levels: least squares in the metric
$\Sigma + \mathrm{diag}(0.1\,h^2/h_{\max}^2)^2$. For exact errors that is the weight $h^{-2}$.

Two errors of p are told apart.

- *Sampling*, $(a^\top \Sigma a)^{1/2}$ with $a = \partial p / \partial \log e$. Round-off puts one floor on each
  level. Sampled errors bring their standard errors; better, the squared errors of coupled paths, from which
  $\Sigma$ is had by a bootstrap that weights the paths alike on all levels [rubin1981].
- *Bias*: how far p moves when the fit is given the next term, $1 + D h + E h^2$, less what chance moves it,
  $\bigl((p - p_E)^2 - \mathrm{Var}(p - p_E)\bigr)_+^{1/2}$. To leading order in h it is the bias itself, where dropping
  the coarsest level moves p by a quarter of it. For random D, E and a further term of their size, twice the bias bounds
  the true error of p in more than nine cases of ten (``tests/test_order_estimate.py``).

*Window.* Levels within 50 floors, or within 50 of the height of a plateau (:mod:`sdekit.verify.plateau`), or with a
relative standard error above 1/3, are out, and so is what comes after round-off. The window is the finest four others,
and then each coarser one as long as the bias with it is at most half of the sampling error: exact errors want the
finest levels, noisy ones many.

References: [rubin1981].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.verify.plateau import CLEAR, RESOLVED, Array, Plateau, find_plateau

Verdict = Literal["agrees", "exceeds", "falls short", "exact", "inconclusive"]

_LEVELS = 4  # least number of levels in a window: one more than parameters
_NEGLECTED = 0.1  # relative size of the neglected term at the coarsest level
_SHARP = 0.1  # uncertainty beyond which claims half an order apart could both agree
_REPLICATES, _BLOCKS = 128, 1024  # of the bootstrap; a mean of block means is the mean
_ONE_SIGMA = (0.1587, 0.8413)  # quantiles one standard deviation from the median
_BOOTSTRAP = 0xB007  # keeps its draws apart from those that made the paths


@dataclass(frozen=True)
class OrderEstimate:
    """A measured order.

    Attributes:
        order: The fitted p; NaN when fewer than four levels can be used.
        uncertainty: Of ``order``, ``hypot(sampling, bias)``; NaN likewise. Twice it is allowed for.
        local: Orders between neighbouring levels, log(e₁/e₂)/log(N₂/N₁).
        steps: Step counts N of the levels.
        errors: Errors there.
        floor: Error below which only round-off is measured.
        sampling: Standard error of ``order`` from noise in the errors.
        bias: Size of the pre-asymptotic bias of ``order``, as far as it stands clear of noise.
        window: Step counts of the levels that were fitted.
        plateau: Where the errors stop falling and why; None if they do not.
    """

    order: float
    uncertainty: float
    local: tuple[float, ...]
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    floor: float
    sampling: float = math.nan
    bias: float = math.nan
    window: tuple[int, ...] = ()
    plateau: Plateau | None = None

    @property
    def exact(self) -> bool:
        """Whether every level is at the floor: there is no discretisation error to have an order."""
        return all(e <= CLEAR * self.floor for e in self.errors)

    def verdict(self, claim: float, tolerance: float = 0.05, sharp: float = _SHARP) -> Verdict:
        """The estimate against a claim; an infinite claim is that the method is exact.

        - ``exact``: every level is at the floor, whatever was claimed.
        - ``agrees``: within ``tolerance`` and twice the uncertainty, where the uncertainty is at most ``sharp``; at 0.1
          the estimate could not agree with a claim half an order away as well.
        - ``exceeds``: above by more; a superconvergent problem, or too modest a claim.
        - ``falls short``: below by more; or the errors level off at an end-point bias, so that they have no order; or
          a method that should be exact is not.
        - ``inconclusive``: no order could be fitted, or not well enough, or the errors grow like round-off well above
          the stated ``floor`` (state the right one).
        """
        if self.exact:
            return "exact"
        if claim == math.inf or (self.plateau is not None and self.plateau.cause == "end-point bias" and claim > 0):
            return "falls short"
        grows = self.plateau is not None and self.plateau.cause == "round-off" and self.plateau.above(self.floor)
        if grows or not math.isfinite(self.order + self.uncertainty + claim):
            return "inconclusive"
        excess, margin = self.order - claim, tolerance + 2.0 * self.uncertainty
        if abs(excess) <= margin:
            return "agrees" if self.uncertainty <= sharp else "inconclusive"
        return "exceeds" if excess > 0 else "falls short"

    def consistent_with(self, claim: float, tolerance: float = 0.05) -> bool:
        """Whether the estimate agrees with the claimed order, from both sides, or shows no error at all."""
        return self.verdict(claim, tolerance) in ("agrees", "exact")

    def reaches(self, claim: float, tolerance: float = 0.05, sharp: float = _SHARP) -> bool:
        """Whether the estimate is the claimed order or more."""
        return self.verdict(claim, tolerance, sharp) in ("agrees", "exceeds", "exact")

    def __str__(self) -> str:
        return "exact" if self.exact else f"{self.order:.3f} ± {self.uncertainty:.3f}"


def fit_order(
    steps: Sequence[int],
    errors: Sequence[float] | None = None,
    floor: float = 1e-14,
    sampled: Sequence[float] | None = None,
    *,
    squares: Tensor | None = None,
    seed: int = 0,
) -> OrderEstimate:
    """Fit an order to errors at increasing step counts.

    Args:
        steps: Step counts, increasing.
        errors: Errors there, at least zero; left out where ``squares`` are given.
        floor: Error of round-off; levels within 50 floors are left out.
        sampled: Relative standard errors of errors sampled independently; None where the errors are exact.
        squares: Squared errors of paths that all levels share, shape (levels, paths): the errors are then root mean
            squares.
        seed: Of the bootstrap over these paths.

    Raises:
        SdekitError: lengths differ, step counts do not increase, an error is negative or not finite, or errors come
            both ways or neither.

    References: [rubin1981].
    """
    e, noise, deviations = _read(errors, sampled, squares, seed)
    values = e.tolist()
    if len(steps) != len(e) or any(b <= a for a, b in pairwise(steps)):
        raise SdekitError(f"An order needs increasing step counts, each with an error; got {steps} and {values}.")
    if not (np.isfinite(e) & (e >= 0)).all():
        raise SdekitError(f"An order needs finite errors ≥ 0; got {values}.")
    pairs = zip(steps, values, steps[1:], values[1:], strict=False)
    local = tuple(math.log(a / b) / math.log(n / m) if a > 0 and b > 0 else math.nan for m, a, n, b in pairs)
    N, spread = np.array(steps, dtype=float), np.sqrt(np.diag(noise))
    plateau = find_plateau(N, e, spread, floor)
    height = max(floor, plateau.level) if plateau and plateau.above(floor) else floor
    end = plateau.first if plateau and plateau.cause == "round-off" else math.inf
    kept = np.flatnonzero((e > CLEAR * height) & (spread <= RESOLVED) & (end > N))
    fit = _Fit()
    if len(kept) >= _LEVELS:
        rounding = np.diag((floor / e[kept]) ** 2)
        fit = _Levels(1.0 / N[kept], np.log(e[kept]), noise[np.ix_(kept, kept)] + rounding).fit(deviations[:, kept])
    window = tuple(steps[k] for k in kept[len(kept) - fit.size :])
    uncertainty = math.hypot(fit.sampling, fit.bias)
    return OrderEstimate(
        fit.order, uncertainty, local, tuple(steps), tuple(values), floor, fit.sampling, fit.bias, window, plateau
    )


def _read(
    errors: Sequence[float] | None, sampled: Sequence[float] | None, squares: Tensor | None, seed: int
) -> tuple[Array, Array, Array]:
    """Errors, the covariance of their logarithms, and replicates of their deviations, (R, levels)."""
    if (errors is None) == (squares is None) or (squares is not None and sampled is not None):
        raise SdekitError("An order needs errors (sampled= are their relative standard errors) or squares, not both.")
    if squares is not None:
        if squares.ndim != 2 or squares.shape[1] < 2 or not (squares >= 0).all():
            raise SdekitError(
                f"squares must be numbers ≥ 0 of shape (levels, paths), two paths or more; got shape "
                f"{tuple(squares.shape)}, least {squares.min() if squares.numel() else 'none'}."
            )
        squares = squares.detach().cpu().double()
        deviations = _paths_anew(squares, seed)
        return squares.mean(1).sqrt().numpy(), np.atleast_2d(np.cov(deviations.T)), deviations
    e = np.array(errors, dtype=float)
    relative = np.zeros_like(e) if sampled is None else np.array(sampled, dtype=float)
    if relative.shape != e.shape or not (relative >= 0).all():
        raise SdekitError(f"sampled must be a relative standard error ≥ 0 for each error; got {sampled}.")
    return e, np.diag(relative**2), _normals(seed, _REPLICATES, len(e)).numpy() * relative


def _paths_anew(squares: Tensor, seed: int) -> Array:
    """Deviations of log root mean squares under Dirichlet weights on the paths, the same on all levels: (R, levels)."""
    block = torch.arange(squares.shape[1]) % _BLOCKS
    size = torch.bincount(block).double()
    sums = torch.zeros(len(squares), len(size), dtype=torch.float64).index_add_(1, block, squares)
    z = _normals(seed, 2 * _REPLICATES, len(size))
    weights = z.square().reshape(_REPLICATES, 2, -1).sum(1)  # χ² with two degrees of freedom: exponential
    tiny = torch.finfo(torch.float64).tiny  # a level without any error deviates by nothing
    means = (weights @ sums.mT / (weights @ size)[:, None]).clamp_min(tiny) / squares.mean(1).clamp_min(tiny)
    anew: Array = (0.5 * means.log()).numpy()
    return anew


def _normals(seed: int, replicates: int, columns: int) -> Tensor:
    keys = random.path_keys(random.key(seed, _BOOTSTRAP), columns)
    return random.normals(keys, (), stream=random.STREAM_LAW, count=replicates)


@dataclass(frozen=True)
class _Fit:
    order: float = math.nan
    sampling: float = math.nan
    bias: float = math.nan
    size: int = 0


@dataclass(frozen=True)
class _Levels:
    """Usable levels: step sizes, logarithms of errors, and the covariance of these."""

    h: Array
    log_e: Array
    noise: Array

    def fit(self, deviations: Array) -> _Fit:
        """The fit on the chosen window; with noise, each replicate chooses its own."""
        chosen = self.choose()
        if not deviations.any():
            return chosen
        anew = [replace(self, log_e=self.log_e + d).choose().order for d in deviations]
        low, high = np.quantile(anew, _ONE_SIGMA)
        return replace(chosen, sampling=float(high - low) / 2.0)

    def choose(self) -> _Fit:
        """The finest levels, as many as the bias allows."""
        best = self.finest(_LEVELS)
        while best.size < len(self.h):
            wider = self.finest(best.size + 1)
            if wider.bias > 0.5 * wider.sampling:
                break
            best = wider
        return best

    def finest(self, size: int) -> _Fit:
        """The fit on the finest levels."""
        h, y, noise = self.h[-size:], self.log_e[-size:], self.noise[-size:, -size:]
        metric = noise + np.diag(_NEGLECTED * (h / h[0]) ** 2) ** 2
        whiten = np.linalg.inv(np.linalg.cholesky(metric))
        order, row = _least_squares(h / h[0], y, whiten, 1)
        further, longer = _least_squares(h / h[0], y, whiten, 2)
        by_chance = float((longer - row) @ noise @ (longer - row))
        bias = math.sqrt(max(0.0, (order - further) ** 2 - by_chance))
        return _Fit(order, math.sqrt(float(row @ noise @ row)), bias, size)


def _least_squares(h: Array, y: Array, whiten: Array, terms: int) -> tuple[float, Array]:
    """P of log e = log C + p log h + log(1 + D h + …), h ≤ 1, and its derivatives by the log e."""
    from scipy.optimize import leastsq  # slow to import, and only orders need it

    powers, log_h = h[:, None] ** np.arange(1, terms + 1), np.log(h)

    def factor(q: Array) -> Array:
        positive: Array = np.maximum(1.0 + powers @ q[2:], 1e-3)
        return positive

    def residuals(q: Array) -> Array:
        scatter: Array = whiten @ (q[0] + q[1] * log_h + np.log(factor(q)) - y)
        return scatter

    def jacobian(q: Array) -> Array:
        slopes: Array = whiten @ np.column_stack([np.ones_like(h), log_h, powers / factor(q)[:, None]])
        return slopes

    slope = (y[-2] - y[-1]) / (log_h[-2] - log_h[-1])
    # From D = 0 only. A start at large D reads some smooth ladders as one order less with D h > 1 throughout, which is
    # no expansion (27 of 400 random ones, against none).
    start = [y[-1] - slope * log_h[-1], slope, *[0.0] * terms]
    q = leastsq(residuals, start, Dfun=jacobian, full_output=True, xtol=1e-10, ftol=1e-10)[0]
    return float(q[1]), np.linalg.pinv(jacobian(q))[1] @ whiten
