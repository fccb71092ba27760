r"""The Fokker–Planck equation on the line by finite volumes, as a Markov chain that hops between cells.

With $D = g^2/2$ and $u = D p$ the equation of an Itô SDE is

$$ \partial_t p = -\partial_x J, \qquad J = f p - \partial_x (D p) = \frac{f}{D}\,u - \partial_x u , $$

so no derivative of D is needed. Between neighbouring midpoints, a distance d apart, J and $f/D$ are taken to be
constant (Scharfetter and Gummel; Chang and Cooper):

$$ J = \frac{B(-z)\,u_i - B(z)\,u_{i+1}}{d}, \qquad B(z) = \frac{z}{e^z - 1}, \qquad
   z = \int_{x_i}^{x_{i+1}} \frac{f}{D}\,dx . $$

J vanishes exactly when $u_{i+1}/u_i = e^z$: with z from the difference of the potential (here Gauss quadrature of
order 8, exact for polynomials of degree 7), the equilibrium $p \propto e^{\int f/D}/D$ at the midpoints is kept to
rounding, whatever the width.
A Stratonovich drift adds $\tfrac12 \partial_x D$, hence $\tfrac12 \log (D_{i+1}/D_i)$ to z.

For the cells' probabilities $P_i = p_i V_i$ these are rates of hopping to the right and to the left, all positive.
Nothing crosses the two ends. Time steps are Crank–Nicolson with the rates of the middle of the step, after four
implicit half steps (Rannacher) that damp rough initial data: second order in both widths. The probability is conserved
by construction. Crank–Nicolson alone is positive while $h\,(r_i + l_i) \le 2$ in every cell. Beyond, where it would
make a probability negative, its fluxes are limited towards those of implicit Euler, which is positive for every h
(flux-corrected transport): this happens in the far tails, and the step stays conservative.

The trapezoidal rule damps what is much faster than a step only slowly: towards an equilibrium take steps no longer than
the relaxation that is looked at, or :func:`~sdekit.fokker_planck.stationary`.

References: [scharfetter1969], [chang1970], [rannacher1984], [zalesak1979].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


def coefficients(sde: SDE, t: float, x: Array, event: torch.Size) -> tuple[Array, Array]:
    """Drift and D = g²/2 at points of any shape.

    Raises:
        SdekitError: NaN or infinity, or no diffusion.
    """
    states = torch.from_numpy(x.reshape(-1)).reshape(-1, *event)
    with torch.no_grad():
        f = sde.drift(t, states).reshape(-1)
        d = 0.5 * sde.diffusion(t, states).reshape(len(states), -1).square().sum(1)
    bad = ~(f.isfinite() & d.isfinite() & (d > 0))
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise SdekitError(
            f"At t = {t:g}, x = {float(x.reshape(-1)[i]):g} the drift is {float(f[i]):g} and g² {2 * float(d[i]):g}: "
            "the density needs finite coefficients and g² > 0. Give a domain=(low, high) inside which both hold; "
            "without noise use verify.quantile_flow."
        )
    return f.double().numpy().reshape(x.shape), d.double().numpy().reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Chain:
    """Rates of hopping through the n − 1 inner faces."""

    right: Array
    left: Array

    def flux(self, p: Array) -> Array:
        """Probability per time through the inner faces, to the right."""
        return self.right * p[:-1] - self.left * p[1:]

    def implicit(self, p: Array, h: float) -> Array:
        """The solution of q = p + h A q, where A q is what flows in less what flows out."""
        from scipy.linalg import solve_banded  # scipy.linalg is half the import time of sdekit

        bands = np.zeros((3, len(p)))
        bands[0, 1:], bands[2, :-1] = -h * self.left, -h * self.right
        bands[1] = 1.0 - np.append(bands[2, :-1], 0.0) - np.append(0.0, bands[0, 1:])
        solution: Array = solve_banded((1, 1), bands, p, overwrite_ab=True, check_finite=False)
        return solution

    def crank_nicolson(self, p: Array, h: float) -> Array:
        """One step of the trapezoidal rule, with limited fluxes if it would be negative somewhere."""
        new = self.implicit(moved(p, 0.5 * h * self.flux(p)), 0.5 * h)
        if new.min() >= 0.0:
            return new
        low = self.implicit(p, h)
        return limited(low, h * (0.5 * (self.flux(p) + self.flux(new)) - self.flux(low)))


def moved(p: Array, through: Array) -> Array:
    """What cells hold after these amounts went through the inner faces."""
    return p - np.diff(through, prepend=0.0, append=0.0)


def limited(p: Array, through: Array) -> Array:
    """:func:`moved` by as much of ``through`` as leaves no cell negative."""
    out = np.maximum(np.append(through, 0.0), 0.0) + np.maximum(np.append(0.0, -through), 0.0)
    share = np.minimum(1.0, p / np.maximum(out, np.finfo(np.float64).tiny))
    return np.maximum(moved(p, np.where(through > 0.0, share[:-1], share[1:]) * through), 0.0)


@dataclass(frozen=True, eq=False)
class Mesh:
    """Cells of the line, and where fields are asked for."""

    edges: Array
    event: torch.Size

    @property
    def nodes(self) -> Array:
        """Midpoints, (n,)."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def steps_of_potential(self, sde: SDE, t: float) -> Array:
        """z, the integrals of f/D from midpoint to midpoint, (n − 1,)."""
        x, gaps = self.nodes, np.diff(self.nodes)
        f, d = coefficients(sde, t, x[:-1, None] + gaps[:, None] * (0.5 + 0.5 * _NODES), self.event)
        z: Array = 0.5 * gaps * ((f / d) @ _WEIGHTS)
        return z

    def chain(self, sde: SDE, t: float) -> Chain:
        """The rates at time t."""
        z, d = self.steps_of_potential(sde, t), coefficients(sde, t, self.nodes, self.event)[1]
        if sde.calculus == "stratonovich":
            z = z + 0.5 * np.diff(np.log(d))
        hop = d / np.diff(self.edges)
        gaps = np.diff(self.nodes)
        return Chain(bernoulli(-z) * hop[:-1] / gaps, bernoulli(z) * hop[1:] / gaps)


def bernoulli(z: Array) -> Array:
    """The function z / (eᶻ − 1), which is 1 at 0."""
    with np.errstate(over="ignore"):
        safe = np.where(z == 0.0, 1.0, z)
        return np.where(z == 0.0, 1.0, safe / np.expm1(safe))


def advance(sde: SDE, mesh: Mesh, p: Array, times: list[float], damped: int) -> Array:
    """Probabilities after the steps between ``times``, shape (len(times), n), with the start; increasing times.

    Args:
        sde: In the clock of ``times``.
        mesh: Its cells.
        p: Probabilities at the first time.
        times: Ends of the steps.
        damped: How many of the first steps are two implicit halves each.
    """
    path = [p]
    for k, (s, t) in enumerate(pairwise(times)):
        h = t - s
        if k < damped:
            for middle in (s + 0.25 * h, s + 0.75 * h):
                p = mesh.chain(sde, middle).implicit(p, 0.5 * h)
        else:
            p = mesh.chain(sde, s + 0.5 * h).crank_nicolson(p, h)
        path.append(p)
    return np.stack(path)
