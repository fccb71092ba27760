r"""Linear SDEs with multiplicative noise, each built to bring one term to light.

$$ dX = (A X + a)\,dt + \sum_i (B_i X + b_i)\,dW_i . $$

With a constant 1 behind the state there is no affine part, and first and second moments solve linear equations,

$$ E[X_t] = e^{tA} E[X_0], \qquad
   E[X_t \otimes X_t] = e^{t (A \oplus A + \sum_i B_i \otimes B_i)}\,E[X_0 \otimes X_0] . $$

Where all commute, $X_t = e^{(A - \frac12 \sum_i B_i^2)\,t + \sum_i B_i W_i} X_0$. Those of the form $p I + q K$
with $K^2 = -I$ do, and they are the complex numbers $p + i q$: $e^{pI + qK} = e^p (\cos q\,I + \sin q\,K)$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from sdekit.brownian import GridPath
from sdekit.dynamics import GeneralSDE, sde
from sdekit.laws import Gaussian
from sdekit.linear import apply_operator
from sdekit.ornstein_uhlenbeck import OU
from sdekit.problems.base import LinearCoefficients, Problem, WeakAnswer
from sdekit.problems.closed_form import ClosedForm, uniform
from sdekit.typing import NoiseType

Matrix = Sequence[Sequence[float]]


def coefficients(
    A: Matrix | Tensor, B: Sequence[Matrix] | Tensor, a: Sequence[float] | None = None, b: Matrix | None = None
) -> LinearCoefficients:
    """Coefficients as float64 tensors; a and b are zero where they are left out."""
    A, B = (torch.as_tensor(v, dtype=torch.float64) for v in (A, B))
    zeros = torch.zeros(B.shape[:2], dtype=torch.float64)
    return LinearCoefficients(
        A,
        zeros[0] if a is None else torch.tensor(a, dtype=torch.float64),
        B,
        zeros if b is None else torch.tensor(b, dtype=torch.float64),
    )


def linear_sde(c: LinearCoefficients, noise_type: NoiseType) -> GeneralSDE:
    """The SDE with these coefficients, on states of shape (B, d)."""

    def columns(x: Tensor) -> list[Tensor]:
        return [apply_operator(B, x) + b.to(x) for B, b in zip(c.B, c.b, strict=True)]

    def diffusion(t: object, x: Tensor) -> Tensor:
        return columns(x)[0] if noise_type == "scalar" else torch.stack(columns(x), dim=-1)

    return sde(lambda t, x: apply_operator(c.A, x) + c.a.to(x), diffusion, noise_type)


def moments(c: LinearCoefficients, initial: Gaussian, t: float) -> WeakAnswer:
    """The state and its products, x_i and x_i x_j for i ≤ j, with their means at time ``t``."""
    from scipy.linalg import expm  # slow to import

    d = len(c.A)
    matrices = torch.zeros(1 + len(c.B), d + 1, d + 1, dtype=torch.float64)
    matrices[0, :d, :d], matrices[0, :d, d] = c.A, c.a
    matrices[1:, :d, :d], matrices[1:, :d, d] = c.B, c.b
    eye = torch.eye(d + 1, dtype=torch.float64)
    generator = torch.kron(matrices[0], eye) + torch.kron(eye, matrices[0])
    generator = generator + sum(torch.kron(B, B) for B in matrices[1:])
    start = torch.cat([initial.mean.double(), torch.ones(1, dtype=torch.float64)])
    square = torch.outer(start, start)
    square[:d, :d] += initial.covariance
    end = (torch.from_numpy(expm(t * generator.numpy())) @ square.flatten()).reshape(d + 1, d + 1)
    i, j = torch.triu_indices(d, d)

    def functional(x: Tensor) -> Tensor:
        return torch.cat([x, x[:, i] * x[:, j]], dim=1)

    return WeakAnswer(functional, torch.cat([end[:d, d], end[i, j]]))


def _problem(
    name: str,
    summary: str,
    detects: str,
    c: LinearCoefficients,
    noise_type: NoiseType,
    start: Sequence[float],
    path: ClosedForm | None = None,
) -> Problem:
    """On [0, 1], from a point."""
    initial = Gaussian(list(start), 0.0)
    return Problem(
        name=name,
        summary=summary,
        detects=detects,
        sde=linear_sde(c, noise_type),
        initial=initial,
        grid=uniform(1.0),
        path=path,
        linear=c,
        weak=moments(c, initial, 1.0),
    )


def _gbm(name: str, mu: float, s: float, summary: str, detects: str) -> Problem:
    c = coefficients([[mu]], [[[s]]])
    path = ClosedForm(lambda t, w, x0: x0 * torch.exp((mu - 0.5 * s**2) * t + s * w))
    elementwise = sde(lambda t, x: mu * x, lambda t, x: s * x)
    return replace(_problem(name, summary, detects, c, "general", [1.0], path), sde=elementwise)


def geometric_brownian_motion() -> Problem:
    r"""$dx = \mu x\,dt + s x\,dW$ with μ = 0.5, s = 0.8, so $x_t = x_0 \exp((\mu - s^2/2)\,t + s W_t)$."""
    return _gbm(
        "gbm",
        0.5,
        0.8,
        "geometric Brownian motion",
        "a missing or wrong Itô correction: multiplicative noise separates order ½ from 1",
    )


def martingale() -> Problem:
    r"""$dx = s x\,dW$ with s = 0.8, so $x_t = x_0 \exp(s W_t - s^2 t/2)$.

    The mean is constant, and the error is that of the noise alone: order ½ shows on coarse grids.
    """
    return _gbm(
        "gbm-martingale",
        0.0,
        0.8,
        "GBM without drift",
        "noise that moves the mean, as a Stratonovich method does to an Itô equation",
    )


def nilpotent() -> Problem:
    r"""$dX = N X\,dW$ with $N = (0, 1; 0, 0)$, so $X_t = X_0 + W_t N X_0$.

    As $N^2 = 0$, there is no Itô correction, and one step is exact. But $N^\top N \neq 0$.
    """

    def solution(t: object, w: Tensor, x0: Tensor) -> Tensor:
        return torch.stack([x0[:, 0] + w[:, 0] * x0[:, 1], x0[:, 1]], dim=1)

    return _problem(
        "nilpotent",
        "a shear driven by one noise",
        "a vector–Jacobian product Jᵀg in place of Jg: the right Milstein term vanishes here, the wrong one does not",
        coefficients([[0.0, 0.0], [0.0, 0.0]], [[[0.0, 1.0], [0.0, 0.0]]]),
        "scalar",
        [1.0, 0.5],
        ClosedForm(solution),
    )


def _complex_path(K: Tensor, a: complex, b: Sequence[complex]) -> ClosedForm:
    """The solution of dX = a X dt + Σ bᵢ X dWᵢ, where p + iq stands for pI + qK."""
    ito = a - 0.5 * sum(z * z for z in b)

    def solution(t: float | Tensor, w: Tensor, x0: Tensor) -> Tensor:
        p, q = torch.zeros_like(w[:, :1]) + t * ito.real, torch.zeros_like(w[:, :1]) + t * ito.imag
        for i, z in enumerate(b):
            p, q = p + z.real * w[:, i : i + 1], q + z.imag * w[:, i : i + 1]
        return torch.exp(p) * (torch.cos(q) * x0 + torch.sin(q) * apply_operator(K, x0))

    return ClosedForm(solution)


def commuting() -> Problem:
    r"""$dX = A X\,dt + B_1 X\,dW_1 + B_2 X\,dW_2$, all matrices of the form $p I + q K$, $K = (½, 5/4; -1, -½)$.

    They commute, but are neither diagonal nor symmetric: A is $-½ + ½ i$ in complex notation, the noises are
    $0.4 + 0.3 i$ and $-0.2 + 0.5 i$.
    """
    K = torch.tensor([[0.5, 1.25], [-1.0, -0.5]], dtype=torch.float64)
    a, b = -0.5 + 0.5j, (0.4 + 0.3j, -0.2 + 0.5j)
    A, *B = (z.real * torch.eye(2, dtype=torch.float64) + z.imag * K for z in (a, *b))
    return _problem(
        "commuting",
        "two noises that commute",
        "a Milstein method without the mixed terms W₁W₂, or with the Jacobian transposed",
        coefficients(A, torch.stack(B)),
        "commutative",
        [1.0, 0.5],
        _complex_path(K, a, b),
    )


def noncommuting() -> Problem:
    r"""$dX = A X\,dt + B_1 X\,dW_1 + B_2 X\,dW_2$ where nothing commutes.

    $A = (-1, 0.5; 0, -0.7)$, $B_1 = (0.5, 0.2; 0, 0.1)$, $B_2 = (0.1, 0; 0.6, -0.3)$. There is no closed form, but the
    coefficients give exact strong and weak errors.
    """
    return _problem(
        "noncommuting",
        "two noises that do not commute",
        "strong order 1 claimed without Lévy areas; a wrong order of the indices in Dg_j g_i I_(i,j)",
        coefficients([[-1.0, 0.5], [0.0, -0.7]], [[[0.5, 0.2], [0.0, 0.1]], [[0.1, 0.0], [0.6, -0.3]]]),
        "general",
        [1.0, 0.5],
    )


def kubo() -> Problem:
    r"""$dX = -½ s^2 X\,dt + s J X\,dW$ with $J = (0, -1; 1, 0)$, s = 0.9: X turns by the angle $s W_t$ on a circle."""
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    s = 0.9
    return _problem(
        "kubo",
        "Kubo oscillator, on a circle",
        "a drift that is Itô's for one part of a method and Stratonovich's for another: it leaves the circle",
        coefficients(-0.5 * s**2 * torch.eye(2, dtype=torch.float64), s * J[None]),
        "scalar",
        [1.0, 0.0],
        _complex_path(J, complex(-0.5 * s**2), (1j * s,)),
    )


def stiff() -> Problem:
    r"""$dX = A X\,dt + m X\,dW$ with A symmetric, of eigenvalues −1 and −30, and m = 0.5.

    $X_t = e^{(A - m^2/2)\,t + m W_t} X_0$. An explicit step is stable for h < 1/15.
    """
    rates, m = torch.tensor([-1.0, -30.0], dtype=torch.float64), 0.5
    Q = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)

    def solution(t: float | Tensor, w: Tensor, x0: Tensor) -> Tensor:
        along_axes = apply_operator(Q.T, x0) * torch.exp((rates.to(x0) - 0.5 * m**2) * t + m * w)
        return apply_operator(Q, along_axes)

    return _problem(
        "stiff",
        "fast and slow decay, one noise",
        "an implicit step that is not implicit enough: explicit ones explode with fewer than 15 steps",
        coefficients(Q @ torch.diag(rates) @ Q.T, m * torch.eye(2, dtype=torch.float64)[None]),
        "scalar",
        [1.0, 0.5],
        ClosedForm(solution),
    )


def _heisenberg_path(x: Tensor, path: GridPath) -> Tensor:
    """Of an area, W and H determine the mean H₁W₂ − W₁H₂; a path that knows it gives the solution."""
    n = len(path.times) - 1
    w1, w2 = path.fine(0, n).unbind(-1)
    if path.levy == "full":
        area = path.fine_area(0, n)[..., 0, 1]
    else:
        h1, h2 = path.fine_levy(0, n).unbind(-1)
        area = h1 * w2 - w1 * h2
    before = x[:, 0] + w1.cumsum(0) - w1
    gained = ((before + 0.5 * w1) * w2 + area).sum(0)
    return torch.stack([x[:, 0] + w1.sum(0), x[:, 1] + gained], dim=1)


def heisenberg() -> Problem:
    r"""$dX_1 = dW_1$, $dX_2 = X_1\,dW_2$, so $X_2$ is an iterated integral: half a product, plus the Lévy area.

    Given W and H on an interval of length h, the area has mean $H_1 W_2 - W_1 H_2$ and mean square deviation $h^2/12$.
    No method with these draws has a smaller error than $\sqrt{T h/12}$, with W alone $½ \sqrt{T h}$. A path with
    ``levy="full"`` knows the area, and the solution.

    References: [clarkcameron1980].
    """
    c = coefficients(
        [[0.0, 0.0], [0.0, 0.0]], [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]], b=[[1.0, 0.0], [0.0, 0.0]]
    )
    made = _problem(
        "heisenberg",
        "an iterated integral",
        "a Lévy area that is missing, or has the wrong sign or variance",
        c,
        "general",
        [0.0, 0.0],
    )
    return replace(
        made,
        path=_heisenberg_path,
        unresolved=lambda times: sum((t - s) ** 2 / 12.0 for s, t in pairwise(times)),
        levy="space-time",
        resolved="full",
    )


def rotation() -> Problem:
    r"""$dX = \Theta(\mu - X)\,dt + \Sigma\,dW$ in the plane: an Ornstein–Uhlenbeck process that turns.

    $\Theta = (1, -2; 0.5, 0.3)$ is not normal; $\Sigma = (0.8, 0; 0.3, 0.5)$. From a Gaussian to a Gaussian.
    """
    theta, mu, sigma = (
        torch.tensor(v, dtype=torch.float64)
        for v in ([[1.0, -2.0], [0.5, 0.3]], [0.5, -0.25], [[0.8, 0.0], [0.3, 0.5]])
    )
    process, end = OU(theta, mu, sigma), 2.0
    start = Gaussian([1.0, 0.0], [[0.3, 0.1], [0.1, 0.2]])
    c = LinearCoefficients(-theta, theta @ mu, torch.zeros(2, 2, 2, dtype=torch.float64), sigma.T.contiguous())
    return Problem(
        name="rotation",
        summary="Ornstein–Uhlenbeck that turns",
        detects="a matrix transposed or taken for diagonal, a covariance that is not ΣΣᵀ",
        sde=process,
        initial=start,
        grid=uniform(end),
        law=process.transition(0.0, end).push(start),
        linear=c,
        weak=moments(c, start, end),
    )
