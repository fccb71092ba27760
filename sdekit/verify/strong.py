r"""The exact strong error of a solver on an affine problem with additive noise; no sampling.

The solution of $dx = (A_t x + b_t)\,dt + G_t\,dW$ and the run of a solver on the same Brownian path are

$$ X = \Psi x_0 + r + \int K(u)\,dW_u, \quad K(u) = \Phi(T, u)\,G_u, \qquad
   Y = M x_0 + c + \int K_h(u)\,dW_u , $$

where $K_h$ lies, interval by interval, in the span of what the run draws: $\delta^{-1/2}$ for W, and
$\sqrt{12/\delta}\,(\tfrac12 - \tfrac{u - s}{\delta})$ for H. By Itô's isometry

$$ E|Y - X|^2 = |(M - \Psi) m_0 + c - r|^2 + \lVert (M - \Psi) F_0 \rVert^2 + \int \lVert K_h - K \rVert^2\,du , $$

a sum of squares, in which nothing cancels. The distance of K from the span is the least that any method with these
draws can have [clarkcameron1980]; a smaller error means that the measurement is wrong.

K comes from the fields themselves. They are affine, so a few values give $A_t, b_t, G_t$, and Gauss collocation with
6 nodes on pieces of $\lVert A \rVert\,\delta \le \tfrac12$ solves the linear equation to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.affine import affine_map, run_times
from sdekit.verify.draws import Draws

_NODES = 6
_LENGTH = 0.5  # of a piece, times ‖A‖: the rule has order 12
_MAX_PIECES = 100_000


@dataclass(frozen=True)
class StrongError:
    """An exact root mean square error on paths.

    Attributes:
        error: $(E|Y - X|^2)^{1/2}$.
        optimum: The least that a method with the same draws can have.
    """

    error: float
    optimum: float


def strong_error(sde: SDE, stepper: str | Stepper, grid: Tensor | Sequence[float], initial: Gaussian) -> StrongError:
    """The exact strong error of a run at its last time.

    Args:
        sde: An affine problem with additive noise.
        stepper: A registry name or a stepper.
        grid: Times of the run.
        initial: Law of the initial state.

    Raises:
        SdekitError: the run or the fields were not affine, or the stepper draws noise of another shape than the SDE's.

    References: [clarkcameron1980].
    """
    chosen = registry.get(stepper)
    times = run_times(sde, grid, chosen)
    draws = Draws.of(sde, chosen, times, initial.event_shape)
    run = affine_map(sde, chosen, times, initial.event_shape)
    backwards = times[0] > times[-1]
    equation = _Equation(Reflected(sde) if backwards else sde, initial.event_shape)
    sign = -1.0 if backwards else 1.0
    d, m, count = len(run.matrix), draws.noise.numel(), len(draws.intervals)
    columns = run.noises.reshape(d, count, -1, m).permute(1, 2, 0, 3) if count else run.noises.new_zeros(0, 0, d, m)
    drawn = {(sign * s, sign * t): block for (s, t), block in zip(draws.intervals, columns, strict=True)}
    nodes = sorted({sign * t for t in times} | {t for interval in drawn for t in interval})
    flow, missed, least = torch.eye(d + 1, dtype=torch.float64), 0.0, 0.0
    for s, t in reversed(list(pairwise(nodes))):
        piece = equation.solve(s, t)
        kernel = (flow @ piece.onward)[:, :d, :d] @ piece.noise
        block = drawn.get((s, t), kernel.new_zeros(0, d, m))
        if len(block) and kernel.shape[2] != m:
            raise SdekitError(
                f"{chosen.spec.name} draws {m} normals a step where {kernel.shape[2]} noises drive the SDE, so the two "
                "do not share a path: compare laws with numerical_law."
            )
        basis = _basis(piece.u, s, t)[: len(block)]
        best = torch.einsum("u,ju,udm->jdm", piece.weights, basis, kernel)
        missed += float(piece.weights @ (torch.einsum("ju,jdm->udm", basis, block) - kernel).square().sum((1, 2)))
        least += float(piece.weights @ (torch.einsum("ju,jdm->udm", basis, best) - kernel).square().sum((1, 2)))
        flow = flow @ piece.whole
    gap, shift = run.matrix - flow[:d, :d], run.constant - flow[:d, d]
    bias = gap @ initial.mean.reshape(-1) + shift
    square = float(bias.square().sum() + (gap @ initial.root).square().sum())
    return StrongError(math.sqrt(square + missed), math.sqrt(least))


def _basis(u: Tensor, s: float, t: float) -> Tensor:
    """The orthonormal functions of z₀ and z₁ on [s, t], shape (2, n)."""
    length = t - s
    linear = (12.0 / length) ** 0.5 * (0.5 - (u - s) / length)
    return torch.stack([torch.full_like(u, length**-0.5), linear])


@dataclass(frozen=True)
class _Piece:
    """The fundamental solution of an augmented linear equation over [s, t], at n nodes u with quadrature weights."""

    u: Tensor
    weights: Tensor
    onward: Tensor
    """Φ(t, u), shape (n, d + 1, d + 1)."""
    noise: Tensor
    """G(u), shape (n, d, m)."""
    whole: Tensor
    """Φ(t, s)."""

    def then(self, later: _Piece) -> _Piece:
        """Over both."""
        return _Piece(
            torch.cat([self.u, later.u]),
            torch.cat([self.weights, later.weights]),
            torch.cat([later.whole @ self.onward, later.onward]),
            torch.cat([self.noise, later.noise]),
            later.whole @ self.whole,
        )


@cache
def _collocation() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, weights and matrix of the Gauss method on [0, 1]."""
    x, w = legendre.leggauss(_NODES)
    fits = np.linalg.solve(legendre.legvander(x, _NODES - 1).T, np.eye(_NODES))  # values at the nodes -> coefficients
    integrals = legendre.legint(np.eye(_NODES), lbnd=-1, axis=0)
    matrix = (legendre.legval(x, integrals).T @ fits.T).copy() / 2.0
    return torch.from_numpy((1 + x) / 2), torch.from_numpy(w / 2), torch.from_numpy(matrix)


@dataclass(frozen=True)
class _Equation:
    """dx = (A x + b) dt + G dW, read off its fields, with states augmented by a 1."""

    sde: SDE
    event_shape: torch.Size

    def coefficients(self, t: float) -> tuple[Tensor, Tensor]:
        """The matrix [[A, b], [0, 0]] and G, (d, m)."""
        d = self.event_shape.numel()
        points = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().reshape(-1, *self.event_shape)
        values = self.sde.drift(t, points).detach().flatten(1)
        matrix = torch.zeros(d + 1, d + 1, dtype=torch.float64)
        matrix[:d, d], matrix[:d, :d] = values[0], (values[1:] - values[0]).T
        if self.sde.noise_type == "none":
            return matrix, matrix.new_zeros(d, 0)
        g = self.sde.diffusion(t, points[:1]).detach()[0]
        if g.shape != self.event_shape:
            return matrix, g.reshape(d, -1)
        return matrix, g.reshape(d, 1) if self.sde.noise_type == "scalar" else torch.diag(g.flatten())

    def solve(self, s: float, t: float) -> _Piece:
        """Φ over [s, t], in pieces that are short for it."""
        size = max(float(torch.linalg.matrix_norm(self.coefficients(u)[0], 2)) for u in (s, 0.5 * (s + t), t))
        count = max(1, math.ceil((t - s) * size / _LENGTH))
        if count > _MAX_PIECES:
            raise SdekitError(
                f"The equation is too stiff over [{s:g}, {t:g}] for an exact strong error: ‖A‖ = {size:.2g}."
            )
        ends = [s + (t - s) * i / count for i in range(count)] + [t]
        pieces = [self._piece(a, b) for a, b in pairwise(ends)]
        whole = pieces[0]
        for piece in pieces[1:]:
            whole = whole.then(piece)
        return whole

    def _piece(self, s: float, t: float) -> _Piece:
        nodes, weights, matrix = _collocation()
        u = s + (t - s) * nodes
        A, G = (torch.stack(values) for values in zip(*map(self.coefficients, u.tolist()), strict=True))
        n, k = len(u), A.shape[1]
        unit = torch.eye(k, dtype=torch.float64)
        # Stages Φ_i = I + h Σ_j a_ij A_j Φ_j, of Φ(u_i, s).
        system = torch.eye(n * k, dtype=torch.float64) - (t - s) * torch.einsum("ij,jab->iajb", matrix, A).reshape(
            n * k, n * k
        )
        stages = torch.linalg.solve(system, unit.repeat(n, 1)).reshape(n, k, k)
        whole = unit + (t - s) * torch.einsum("j,jab,jbc->ac", weights, A, stages)
        onward = torch.linalg.solve(stages, whole.expand(n, k, k), left=False)
        return _Piece(u, (t - s) * weights, onward, G, whole)
