r"""Integrals of squares: additive noise on which strong order 1.5 is sharp.

$$ dX_1 = g(t)\,dW, \qquad dX_2 = c(t)\,X_1^2\,dt, \qquad g = g_0 + g_1 t, \quad c = c_0 + c_1 t . $$

Linear equations with additive noise cannot certify order 1.5, methods are of order 2 there. Here the increments W and
space-time Lévy areas H of a grid determine $X_1$ at its nodes, but not $X_2$. On an interval, $u = s + h r$, let
$z_0 = W/\sqrt h$ and $z_1 = H \sqrt{12/h}$ be the coordinates of dW along $e_0 = 1$ and
$e_1 = \sqrt{12}\,(\tfrac12 - r)$, and $A_i(r) = \int_0^r g e_i$. Given both, $X_1$ is Gaussian with

$$ m(r) = X_1(s) + \sqrt h\,(z_0 A_0 + z_1 A_1), \qquad
   k(r, q) = h \Bigl( \int_0^{r \wedge q} g^2 - A_0(r) A_0(q) - A_1(r) A_1(q) \Bigr), $$

hence $X_2$ gains $h \int c\,(m^2 + k)\,dr$ in mean, and the mean square that is left, which no method with these draws
can undercut [clarkcameron1980], is

$$ h^2 \iint c(r)\,c(q)\,\bigl( 4\,E[m(r) m(q)]\,k + 2 k^2 \bigr)\,dr\,dq , $$

for $g = c = 1$ just $\tfrac{7}{900} h^4$. All integrands are polynomials, and Gauss quadrature is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from sdekit.brownian import GridPath
from sdekit.dynamics import sde
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import uniform
from sdekit.typing import along

_GAUSS = tuple(torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
_R, _WEIGHTS = 0.5 * (_GAUSS[0] + 1.0), 0.5 * _GAUSS[1]
"""A rule on [0, 1], exact to degree 15."""
_TWELVE = 12.0**0.5


@final
@dataclass(frozen=True)
class SquareIntegral:
    """The problem with these coefficients, from the origin.

    Attributes:
        g: g₀ and g₁.
        c: c₀ and c₁.
    """

    g: tuple[float, float] = (1.0, 0.0)
    c: tuple[float, float] = (1.0, 0.0)

    def variance(self, t: Tensor) -> Tensor:
        """Of X₁ at time t: ∫₀ᵗ g²."""
        a, b = self.g
        return a * a * t + a * b * t**2 + b * b * t**3 / 3.0

    def _rate(self, t: Tensor) -> Tensor:
        return self.c[0] + self.c[1] * t

    def _known(self, s: Tensor, h: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """A₀ and A₁ at r, on intervals that start at s."""
        a, b = self.g[0] + self.g[1] * s, self.g[1] * h
        return a * r + 0.5 * b * r**2, _TWELVE * (0.5 * a * (r - r**2) + b * (r**2 / 4.0 - r**3 / 3.0))

    def _left(self, s: Tensor, h: Tensor, r: Tensor, q: Tensor) -> Tensor:
        """k(r, q) for r ≥ q."""
        (a0, a1), (b0, b1) = self._known(s, h, r), self._known(s, h, q)
        return self.variance(s + h * q) - self.variance(s) - h * (a0 * b0 + a1 * b1)

    def mean(self, x: Tensor, path: GridPath) -> Tensor:
        """The mean of the solution at the last node, given W and H."""
        n = len(path.times) - 1
        times = torch.tensor(path.times, dtype=x.dtype, device=x.device)[:, None]
        s, h = times[:-1], times.diff(dim=0)
        z0, z1 = path.fine(0, n)[..., 0] / h.sqrt(), path.fine_levy(0, n)[..., 0] * _TWELVE / h.sqrt()

        def moved(r: Tensor) -> Tensor:
            a0, a1 = self._known(s, h, r)
            return h.sqrt() * (z0 * a0 + z1 * a1)

        steps = moved(torch.ones_like(h))
        before = x[:, 0] + steps.cumsum(0) - steps
        gained = torch.zeros_like(x[:, 0])
        for r, weight in zip(_R.to(x), _WEIGHTS.to(x), strict=True):
            square = (before + moved(r)).square() + self._left(s, h, r, r)
            gained = gained + (weight * h * self._rate(s + h * r) * square).sum(0)
        return torch.stack([x[:, 0] + steps.sum(0), x[:, 1] + gained], dim=1)

    def unresolved(self, times: Sequence[float]) -> float:
        """The mean square distance of the solution from that mean."""
        nodes = torch.tensor(times, dtype=torch.float64)[:, None, None]
        s, h, r = nodes[:-1], nodes.diff(dim=0), _R[:, None]
        q = r * _R  # the triangle q ≤ r, where k is a polynomial
        k = self._left(s, h, r, q)
        known = self.variance(s + h * q) - k
        integrand = self._rate(s + h * r) * self._rate(s + h * q) * (4.0 * known * k + 2.0 * k * k)
        return float((2.0 * h.square() * _WEIGHTS[:, None] * _WEIGHTS * r * integrand).sum())

    def weak(self, end: float) -> WeakAnswer:
        """X₂, X₁²X₂ and X₂², with their means: $E[X_1(q)^2 X_1(u)^2] = v_q v_u + 2 v_q^2$ for q ≤ u."""
        u, q = end * _R, end * _R[:, None] * _R
        v, v_q, c = self.variance(u), self.variance(q), self._rate(u)
        inner = (_WEIGHTS * u[:, None] * self._rate(q) * (v_q * v[:, None] + 2.0 * v_q**2)).sum(1)
        last = self.variance(torch.tensor(end, dtype=torch.float64))
        integrands = torch.stack([c * v, c * (v * last + 2.0 * v**2), 2.0 * c * inner])

        def functional(x: Tensor) -> Tensor:
            return torch.stack([x[:, 1], x[:, 0] ** 2 * x[:, 1], x[:, 1] ** 2], dim=1)

        return WeakAnswer(functional, integrands @ (end * _WEIGHTS))

    def problem(self, name: str, summary: str, detects: str) -> Problem:
        """On [0, 1]."""

        def drift(t: float | Tensor, x: Tensor) -> Tensor:
            gained = along(self.c[0] + self.c[1] * t, x[:, 0]) * x[:, 0] ** 2
            return torch.stack([torch.zeros_like(gained), gained], dim=1)

        def diffusion(t: float | Tensor, x: Tensor) -> Tensor:
            first = torch.ones_like(x[:, 0]) * along(self.g[0] + self.g[1] * t, x[:, 0])
            return torch.stack([first, torch.zeros_like(first)], dim=1)[..., None]

        return Problem(
            name=name,
            summary=summary,
            detects=detects,
            sde=sde(drift, diffusion, "additive"),
            initial=Gaussian([0.0, 0.0], 0.0),
            grid=uniform(1.0),
            path=self.mean,
            unresolved=self.unresolved,
            levy="space-time",
            weak=self.weak(1.0),
        )


def square() -> Problem:
    r"""$dX_1 = dW$, $dX_2 = X_1^2\,dt$.

    Of $\int W^2 dt$ the increments and Lévy areas of a grid leave $\sqrt{7/900}\,h^{1.5}$ unknown, and no method can do
    better: strong order 1.5 is sharp, which no linear equation with additive noise can show.
    """
    return SquareIntegral().problem(
        "square",
        "∫ W² dt",
        "strong order 1.5 claimed for a method of order 1, or with the wrong covariance of W and H",
    )


def nonautonomous_square() -> Problem:
    r"""$dX_1 = (1 + t)\,dW$, $dX_2 = (2 - t)\,X_1^2\,dt$.

    The same with coefficients that depend on time: a method that takes one of them at the wrong time falls from strong
    order 1.5 to 1.
    """
    return SquareIntegral((1.0, 1.0), (2.0, -1.0)).problem(
        "nonautonomous-square",
        "∫ c(t) X² dt with X = ∫ g(t) dW",
        "additive noise, or a nonlinear drift, at the wrong time: order 1.5 falls to 1",
    )
