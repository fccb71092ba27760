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
            f"Lévy areas need noise of shape (m,), m noises in a row; got {tuple(event)}. Flatten the noise, or take "
            'levy="space-time".'
        )
    return event[0] * (event[0] + 1) // 2


def wedge(a: Tensor, b: Tensor) -> Tensor:
    r"""$a \wedge b$, shape (*, m, m), of vectors (*, m)."""
    product: Tensor = a[..., :, None] * b[..., None, :]
    return product - product.mT


def antisymmetric(upper: Tensor, m: int) -> Tensor:
    """The antisymmetric matrices (*, m, m) with these entries above the diagonal, row by row."""
    i, j = torch.triu_indices(m, m, 1, device=upper.device)
    out = upper.new_zeros(*upper.shape[:-1], m, m)
    out[..., i, j] = upper
    return out - out.mT


def areas_given(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    r"""Areas with the right mean and covariance given W and H.

    Args:
        w: Increments, shape (*, m).
        h: Space-time Lévy areas, like ``w``.
        z: Standard normals, shape (*, m(m+1)/2): ν and then ζ.
        roots: √h, to multiply ``w``.

    Returns:
        Shape (*, m, m).
    """
    m = w.shape[-1]
    spread = antisymmetric(z[..., m:], m) * (roots.square() * _REST)[..., None]
    bent = w + z[..., :m] * (roots * _MODE)
    return wedge(h, bent) + spread


def chen(w: Tensor, areas: Tensor) -> Tensor:
    """The area of a path from those of its n parts, in order.

    Neighbours are joined, as often as it takes: the order of additions does not depend on the batch.

    Args:
        w: Increments, shape (n, B, m).
        areas: Shape (n, B, m, m).

    Returns:
        Shape (B, m, m).
    """
    while len(w) > 1:
        n = len(w) // 2 * 2
        first, second = w[:n:2], w[1:n:2]
        joined = areas[:n:2] + areas[1:n:2] + wedge(first, second) * 0.5
        w, areas = torch.cat((first + second, w[n:])), torch.cat((joined, areas[n:]))
    return areas[0]
