r"""Exact strong and weak errors on linear SDEs, by the production solver's own coefficients; no sampling.

Additive noise. A run is $Y = c + A x_0 + \sum_k b_k \Delta W_k$ and the solution is
$X = \text{shift} + \psi x_0 + \int K(u)\,dW_u$, so by Itô's isometry

$$ E|Y - X|^2 = E|(A - \psi) x_0 + c - \text{shift}|^2 + \sum_k \int_{t_k}^{t_{k+1}} |b_k - K(u)|^2 du . $$

Multiplicative noise, $dX = A X\,dt + \sum_i B_i X\,dW_i$. A step is $Y \mapsto \Psi(\xi) Y$ with a polynomial Ψ of
standard normals, the solution $X \mapsto \Phi X$. The means of $\Psi\otimes\Psi$ come from Gauss–Hermite quadrature of
the production step, those of $\Phi\otimes\Phi$ from a matrix exponential, and for $\Phi\otimes\Psi$ the theorem of
Cameron and Martin gives $E[\Phi\,\mathrm{He}_a(\Delta W/\sqrt h)] = h^{-|a|/2}\,
\partial_\lambda^a e^{(A + \sum\lambda_i B_i) h}|_{\lambda=0}$.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import factorial, prod

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss, hermeval
from numpy.polynomial.legendre import leggauss
from scipy.linalg import expm

import sdekit as sk
from sdekit.dynamics import SDE
from sdekit.verify import affine_map

_DEGREE = 3  # of the step as a polynomial of its normals, at most
_POINTS = 6  # of the quadratures


def additive_error(
    sde: SDE,
    stepper: str,
    times: Sequence[float],
    kernel: Callable[[np.ndarray], np.ndarray],
    solution: tuple[float, float],
    start: tuple[float, float],
) -> float:
    """Root mean square error of a run on the line, on the Brownian path that drives it.

    Args:
        sde: A scalar linear SDE with additive noise.
        stepper: Registry name.
        times: The grid.
        kernel: K(u).
        solution: The shift and ψ.
        start: Mean and variance of x₀.
    """
    run, t = affine_map(sde, stepper, times, (1,)), np.asarray(times)
    (shift, psi), (mean, variance) = solution, start
    A, c = float(run.matrix), float(run.constant)
    h, (nodes, weights) = np.abs(np.diff(t))[:, None], leggauss(_POINTS)
    u = np.minimum(t[1:], t[:-1])[:, None] + h * (1 + nodes) / 2
    b = run.noises.numpy().reshape(-1, 1) / np.sqrt(h)  # the probe's normals are ΔW/√h
    missed = (h * weights / 2 * (b - kernel(u)) ** 2).sum()
    return float(np.sqrt(((A - psi) * mean + c - shift) ** 2 + (A - psi) ** 2 * variance + missed))


def multiplicative_errors(
    A: np.ndarray, B: np.ndarray, diagonal: bool, stepper: str, steps: int, start: np.ndarray
) -> tuple[float, float]:
    """Strong (root mean square) and weak (second moments) error at time 1 of a linear SDE with noises B, (m, d, d)."""
    h, d = 1.0 / steps, len(A)
    indices = list(product(range(_DEGREE + 1), repeat=len(B)))
    psi, hermite = _step(A, B, diagonal, stepper, h, indices)
    phi = _solution(A, B, h, indices)
    for a, matrix in psi.items():
        assert sum(a) <= _DEGREE or np.abs(matrix).max() < 1e-12, "the step is a polynomial of higher degree"
    yy = sum(w * np.kron(m, m) for w, m in hermite)
    xy = sum(np.kron(phi[a], psi[a]) for a in indices)
    xx = expm(h * (np.kron(A, np.eye(d)) + np.kron(np.eye(d), A) + sum(np.kron(b, b) for b in B)))
    first = np.kron(start, start)
    yy, xy, xx = (np.linalg.matrix_power(m, steps) @ first for m in (yy, xy, xx))
    square = (yy - 2 * xy + xx).reshape(d, d).trace()
    return float(np.sqrt(max(square, 0.0))), float(np.abs(yy - xx).max())


def _step(A, B, diagonal, stepper, h, indices):
    """Coefficients Ψ_a of the step in Hermite polynomials, and its values with their weights."""
    d, m = len(A), len(B)
    x, w = hermegauss(_POINTS)
    points, weights = np.array(list(product(x, repeat=m))), np.array([prod(v) for v in product(w, repeat=m)])
    weights = weights / weights.sum()
    drift, noises = torch.from_numpy(A), torch.from_numpy(B)
    kind = "diagonal" if diagonal else "general"
    diffusion = (lambda t, y: y * noises.sum(0).diagonal()) if diagonal else (lambda t, y: _columns(noises, y))
    states, z = torch.eye(d).double().repeat(len(points), 1), torch.from_numpy(points).repeat_interleave(d, 0)
    path = sk.RecordedBrownian([0.0, h], h**0.5 * z[None])
    final = sk.solve(sk.sde(lambda t, y: y @ drift.T, diffusion, kind), states, [0.0, h], stepper, noise=path).final
    values = final.reshape(len(points), d, d).numpy().transpose(0, 2, 1)
    psi = {}
    for a in indices:
        he = np.prod([hermeval(points[:, i], np.eye(_POINTS)[k]) for i, k in enumerate(a)], axis=0)
        psi[a] = np.einsum("n,nij->ij", weights * he, values) / prod(map(factorial, a))
    return psi, list(zip(weights, values, strict=True))


def _columns(noises: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([y @ b.T for b in noises], dim=-1)


def _solution(A, B, h, indices):
    """E[Φ He_a]: derivatives of the matrix exponential, by Cauchy's formula on circles."""
    n, m = 16, len(B)
    roots = np.exp(2j * np.pi * np.arange(n) / n)
    values = {}
    for k in product(range(n), repeat=m):
        shifted = A + sum(roots[j] * b for j, b in zip(k, B, strict=True)) / np.sqrt(h)
        values[k] = expm(h * shifted)
    means = {}
    for a in indices:
        total = sum(v * np.prod([roots[j] ** -i for j, i in zip(k, a, strict=True)]) for k, v in values.items())
        means[a] = (total / n**m).real * prod(map(factorial, a))
    return means
