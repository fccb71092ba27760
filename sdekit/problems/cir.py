r"""The Cox–Ingersoll–Ross process, whose law is known and whose state must not leave the half line.

$$ dx = \kappa (\theta - x)\,dt + s \sqrt x\,dW, \qquad
   x_t / c \sim \chi'^2_n(\lambda), \quad c = \frac{s^2 (1 - e^{-\kappa t})}{4 \kappa}, \quad
   n = \frac{4 \kappa \theta}{s^2}, \quad \lambda = \frac{x_0 e^{-\kappa t}}{c} , $$

a noncentral χ². With $2 \kappa\theta \ge s^2$ (Feller) the solution never touches 0; otherwise it does.

References: [cox1985].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from sdekit import random
from sdekit.dynamics import sde
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import uniform
from sdekit.quantiles import check_probabilities


@final
@dataclass(frozen=True)
class NoncentralChiSquare:
    r"""The law of $c\,\chi'^2_n(\lambda)$ on the half line.

    Attributes:
        scale: c.
        freedom: n.
        noncentrality: λ.
    """

    scale: float
    freedom: float
    noncentrality: float

    @property
    def event_shape(self) -> torch.Size:
        """The line."""
        return torch.Size((1,))

    @property
    def mean(self) -> Tensor:
        """Shape ()."""
        return torch.tensor(self.scale * (self.freedom + self.noncentrality), dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """Shape ()."""
        return torch.tensor(2.0 * self.scale**2 * (self.freedom + 2.0 * self.noncentrality), dtype=torch.float64)

    def density(self, x: float | Tensor) -> Tensor:
        """The density, of the shape of ``x``."""
        return self._scipy("pdf", torch.as_tensor(x, dtype=torch.float64) / self.scale) / self.scale

    def cdf(self, x: float | Tensor) -> Tensor:
        """P(X ≤ x), of the shape of ``x``."""
        return self._scipy("cdf", torch.as_tensor(x, dtype=torch.float64) / self.scale)

    def sf(self, x: float | Tensor) -> Tensor:
        """P(X > x), of the shape of ``x``."""
        return self._scipy("sf", torch.as_tensor(x, dtype=torch.float64) / self.scale)

    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor:
        """The x with cdf(x) = p, or sf(x) = p if ``upper``; of the shape of ``p``."""
        p = torch.as_tensor(p, dtype=torch.float64)
        check_probabilities(p)
        return self.scale * self._scipy("isf" if upper else "ppf", p)

    def sample(self, n: int | None = None, seed: int = 0, paths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Independent samples, shape (n, 1), by quantiles of normals; sample i is a function of (seed, path) alone."""
        if paths is None and n is None:
            raise SdekitError("sample() needs a number n, or the path numbers paths=.")
        keys = random.path_keys(seed, torch.arange(n or 0) if paths is None else paths)
        z = random.normals(keys, (), stream=random.STREAM_LAW)[0].double()
        tail = 0.5 * torch.erfc(z.abs() * 0.5**0.5)
        return torch.where(z < 0, self.quantile(tail), self.quantile(tail, upper=True))[:, None]

    def _scipy(self, name: str, x: Tensor) -> Tensor:
        from scipy.stats import ncx2  # slow to import

        function: Callable[..., Any] = getattr(ncx2, name)
        values = function(x.detach().cpu().numpy(), self.freedom, self.noncentrality)
        return torch.as_tensor(values, dtype=torch.float64)


def cox_ingersoll_ross(s: float = 0.3) -> Problem:
    r"""$dx = 2\,(0.5 - x)\,dt + s \sqrt x\,dW$ from 1, with s = 0.3: its law is a noncentral χ².

    The root of a negative state is NaN, and nothing is done about it here. From s = √2 on the solution touches 0
    (``problems.get("cir", s=2.0)``), and every explicit method steps over it sooner or later.

    References: [cox1985].
    """
    kappa, theta, start, end = 2.0, 0.5, 1.0, 1.0
    kept = math.exp(-kappa * end)
    scale = s**2 * (1.0 - kept) / (4.0 * kappa)
    law = NoncentralChiSquare(scale, 4.0 * kappa * theta / s**2, start * kept / scale)
    return Problem(
        name="cir",
        summary="Cox–Ingersoll–Ross process, noise √x, on [0, 1]",
        detects="a method that leaves the half line, where √x is NaN",
        sde=sde(lambda t, x: kappa * (theta - x), lambda t, x: s * torch.sqrt(x)),
        initial=Gaussian([start], 0.0),
        grid=uniform(end),
        law=law,
        weak=WeakAnswer(
            lambda x: torch.cat([x, x * x], dim=1), torch.stack([law.mean, law.variance + law.mean.square()])
        ),
        smooth=False,
    )
