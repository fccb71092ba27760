r"""The Cox–Ingersoll–Ross process, whose law is known and whose state must not leave the half line.

$$ dx = \kappa (\theta - x)\,dt + s \sqrt x\,dW, \qquad
   x_t / c \sim \chi'^2_n(\lambda), \quad c = \frac{s^2 (1 - e^{-\kappa t})}{4 \kappa}, \quad
   n = \frac{4 \kappa \theta}{s^2}, \quad \lambda = \frac{x_0 e^{-\kappa t}}{c} , $$

a noncentral χ². With $2 \kappa\theta \ge s^2$ (Feller) the solution never touches 0; otherwise it does.

References: [cox1985].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from torch import Tensor

from sdekit import random
from sdekit.dynamics import sde
from sdekit.keys import Keys, Paths, Seed
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import uniform
from sdekit.quantiles import check_probabilities

_END, _DEGREE = 10.2, 120  # normal scores up to a tail of 1e-24; interpolation to 1e-12 standard deviations


@final
@dataclass(frozen=True)
class NoncentralChiSquare:
    r"""The law of $c\,\chi'^2_n(\lambda)$ on the half line.

    Quantiles are a smooth function of normal scores, $F^{-1}(\Phi(z))$, and are interpolated there by a polynomial;
    those beyond a tail of 1e-24 are cut off.

    Attributes:
        c: Scale.
        n: Degrees of freedom.
        lam: Noncentrality λ.
    """

    c: float
    n: float
    lam: float

    @property
    def event_shape(self) -> torch.Size:
        """The line."""
        return torch.Size((1,))

    @property
    def mean(self) -> Tensor:
        """Shape ()."""
        return torch.tensor(self.c * (self.n + self.lam), dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """Shape ()."""
        return torch.tensor(2.0 * self.c**2 * (self.n + 2.0 * self.lam), dtype=torch.float64)

    def density(self, x: float | Tensor) -> Tensor:
        """The density, of the shape of ``x``."""
        return self._scipy("pdf", torch.as_tensor(x, dtype=torch.float64) / self.c) / self.c

    def cdf(self, x: float | Tensor) -> Tensor:
        """P(X ≤ x), of the shape of ``x``."""
        return self._scipy("cdf", torch.as_tensor(x, dtype=torch.float64) / self.c)

    def sf(self, x: float | Tensor) -> Tensor:
        """P(X > x), of the shape of ``x``."""
        return self._scipy("sf", torch.as_tensor(x, dtype=torch.float64) / self.c)

    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor:
        """The x with cdf(x) = p, or sf(x) = p if ``upper``; of the shape of ``p``."""
        p = torch.as_tensor(p, dtype=torch.float64)
        check_probabilities(p)
        z = torch.special.ndtri(p).clamp(-_END, _END)
        return self._at(-z if upper else z)

    def sample(self, n: int | None = None, seed: Seed | None = 0, paths: Paths | None = None) -> Tensor:
        """Independent samples, shape (n, 1); sample i is a function of (seed, path number) alone."""
        keys = Keys.drawn(n, seed, paths).values
        z = random.normals(keys, (1,), stream=random.STREAM_LAW, dtype=torch.float64)[0]
        return self._at(z)

    def _at(self, z: Tensor) -> Tensor:
        """The quantile at normal scores."""
        return torch.from_numpy(np.asarray(self._of_scores(z.cpu().numpy()))).clamp(min=0.0)

    @cached_property
    def _of_scores(self) -> Chebyshev:
        """The quantile as a function of the normal score, each node asked in the nearer tail."""

        def quantile(z: np.ndarray) -> np.ndarray:
            tail = 0.5 * torch.erfc(torch.from_numpy(np.abs(z)) * 0.5**0.5)
            x: np.ndarray = torch.where(
                torch.from_numpy(z) < 0, self._scipy("ppf", tail), self._scipy("isf", tail)
            ).numpy()
            return self.c * x

        fit = Chebyshev.interpolate(quantile, _DEGREE, [-_END, _END])
        trimmed: Chebyshev = fit.trim(1e-14 * abs(fit.coef[0]))  # the rounding of the nodes, which is not smooth
        return trimmed

    def _scipy(self, name: str, x: Tensor) -> Tensor:
        from scipy.stats import ncx2  # slow to import

        function: Callable[..., Any] = getattr(ncx2, name)
        values = function(x.detach().cpu().numpy(), self.n, self.lam)
        return torch.as_tensor(values, dtype=torch.float64)


def cox_ingersoll_ross(s: float = 0.15) -> Problem:
    r"""$dx = 2\,(½ - x)\,dt + s \sqrt x\,dW$ from 1, with s = 0.15; its law is a noncentral χ².

    With s = 0.15 no step comes near 0; from s = √2 on the solution itself touches it (``problems.get("cir", s=2.0)``),
    and explicit methods step over it. The root of a negative state is NaN, so a sample that steps over 0 says so in its
    status: ``NON_FINITE``, or ``OUTSIDE`` if it was the last step. Adaptive steps that lead below 0 are refused.

    References: [cox1985].
    """
    kappa, theta, start, end = 2.0, 0.5, 1.0, 1.0
    kept = math.exp(-kappa * end)
    c = s**2 * (1.0 - kept) / (4.0 * kappa)
    law = NoncentralChiSquare(c, 4.0 * kappa * theta / s**2, start * kept / c)
    return Problem(
        name="cir",
        summary="Cox–Ingersoll–Ross process",
        detects="a method that leaves the half line, where √x is NaN",
        sde=sde(lambda t, x: kappa * (theta - x), lambda t, x: s * torch.sqrt(x), inside=lambda x: x >= 0.0),
        initial=Gaussian([start], 0.0),
        grid=uniform(end),
        law=law,
        smooth=s < 0.5,
        weak=WeakAnswer(
            lambda x: torch.cat([x, x * x], dim=1), torch.stack([law.mean, law.variance + law.mean.square()])
        ),
    )
