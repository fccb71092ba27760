r"""Lévy areas: of what two noises do together, the part that their increments do not say.

$$ A_{ij} = \tfrac12 \Bigl( \int_s^t (W^i_u - W^i_s)\,dW^j_u - \int_s^t (W^j_u - W^j_s)\,dW^i_u \Bigr), \qquad
   \operatorname{Var} A_{ij} = \tfrac14 h^2, \quad h = t - s . $$

In Legendre polynomials on [s, t], $dW^i = h^{-1/2} \sum_k \sqrt{2k + 1}\,\xi^i_k P_k\,du$ with standard normals ξ, of
which $W = \sqrt h\,\xi_0$ and $H = -\sqrt{h/12}\,\xi_1$,

$$ A = \tfrac h2 \sum_{k \ge 1} \frac{\xi_{k-1} \wedge \xi_k}{\sqrt{4 k^2 - 1}}, \qquad
   (a \wedge b)_{ij} = a_i b_j - a_j b_i . $$

The term k = 1 is $H \wedge W$. Given W and H that of k = 2 is Gaussian, $\sqrt{h/5}\,H \wedge \nu$ with one normal ν a
noise; it is drawn as it is. Of the rest only the variance $h^2/20$ is kept, and the law taken to be normal,

$$ A = H \wedge \bigl( W + \sqrt{h/5}\,\nu \bigr) + \frac{h}{\sqrt{20}}\,\zeta, \qquad \zeta_{ij} = -\zeta_{ji} . $$

So given W and H the mean $H_i W_j - W_i H_j$, the variance $h^2/20 + (h/5)(H_i^2 + H_j^2)$ and the covariance
$(h/5) H_j H_k$ of $A_{ij}$ and $A_{ik}$ are those of Brownian motion, for any number of noises; one normal a pair would
lose the covariance. Higher moments are not: $E A_{ij}^4$ is $0.3075\,h^4$ for $0.3125\,h^4$.

Areas of longer intervals follow from Chen's relation,

$$ A_{su} = A_{st} + A_{tu} + \tfrac12 W_{st} \wedge W_{tu}, $$

which is exact. Over n fine intervals the excess of the fourth moment is off by $0.005\,h^4/n^3$: the coarse law is the
exact one but for the little that a fine interval adds.

References: [davie2014], [foster2020], [fosterhabermann2023].
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.typing import Shape

_MODE, _REST = 5.0**-0.5, 20.0**-0.5  # of √h H and of h: the standard deviations that W and H leave


def count(event: Shape) -> int:
    """Standard normals of one area: one a noise, and one a pair of noises.

    Raises:
        SdekitError: the noises do not stand in a row.
    """
    if len(event) != 1:
        raise SdekitError(
            f"Lévy areas need noise of shape (m,), m noises in a row; got {tuple(event)}. Give the diffusion as "
            '(*state, m), with m columns, a path as (B, m); or do without: another stepper, levy="space-time".'
        )
    return event[0] * (event[0] + 1) // 2


def wedge(a: Tensor, b: Tensor) -> Tensor:
    r"""$a \wedge b$, shape (*, m, m), of vectors (*, m)."""
    return _matrices(_wedge(_planes(a), _planes(b)), a.shape[-1])


def areas_given(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    r"""Areas with the right mean and covariance given W and H.

    Args:
        w: Increments, shape (..., m).
        h: Space-time Lévy areas, like ``w``.
        z: Standard normals, shape (..., m(m+1)/2): ν and then ζ.
        roots: √h, to multiply ``w``.

    Returns:
        Shape (..., m, m).
    """
    m, root, normals = w.shape[-1], _planes(roots), _planes(z)
    bent = _planes(w) + normals[:m] * (root * _MODE)
    return _matrices(_wedge(_planes(h), bent) + normals[m:] * (root.square() * _REST), m)


def chen(w: Tensor, areas: Tensor) -> Tensor:
    """The area of a path from those of its n parts, in order.

    Neighbours are joined, as often as it takes: the order of additions does not depend on the batch.

    Args:
        w: Increments, shape (n, B, m).
        areas: Shape (n, B, m, m).

    Returns:
        Shape (B, m, m).
    """
    if len(w) == 1:
        return areas[0]
    m, (i, j) = w.shape[-1], _pairs(w.shape[-1], w.device)
    w, upper = _planes(w), areas[..., i, j].movedim(-1, 0)
    while w.shape[1] > 1:
        n = w.shape[1] // 2 * 2
        first, second = w[:, :n:2], w[:, 1:n:2]
        joined = upper[:, :n:2] + upper[:, 1:n:2] + _wedge(first, second) * 0.5
        w, upper = torch.cat((first + second, w[:, n:]), 1), torch.cat((joined, upper[:, n:]), 1)
    return _matrices(upper[:, 0], m)


def _planes(v: Tensor) -> Tensor:
    """The elements of vectors (*, m) apart, (m, *): noises are few and samples many, and loops run along the last."""
    return v.movedim(-1, 0).contiguous()


def _pairs(m: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """I and j of the pairs i < j, row by row."""
    i, j = torch.triu_indices(m, m, 1, device=device)
    return i, j


def _wedge(a: Tensor, b: Tensor) -> Tensor:
    """Of the pairs i < j, from planes."""
    i, j = _pairs(len(a), a.device)
    return a[i] * b[j] - a[j] * b[i]


def _matrices(upper: Tensor, m: int) -> Tensor:
    """The antisymmetric matrices (*, m, m) with these planes above the diagonal."""
    i, j = _pairs(m, upper.device)
    out = upper.new_zeros(m, m, *upper.shape[1:])
    out[i, j], out[j, i] = upper, -upper
    return out.movedim((0, 1), (-2, -1))
