r"""Distribution functions of 1-D mixtures, and their inverses, accurate in both tails.

$F(x) = \sum_k w_k \Phi(z_k)$ and $1 - F(x) = \sum_k w_k \Phi(-z_k)$ with $z_k = (x - m_k)/s_k$ and
$\Phi(z) = \tfrac12 \operatorname{erfc}(-z/\sqrt2)$: neither is formed as one minus the other. The
quantile solves for whichever of the two is at most one half, by Newton on its logarithm,

$$ x \leftarrow x - \frac{F}{F'} \log\frac{F}{p} , $$

kept inside a bracket. Component quantiles at the same level bracket the root: at the largest of
them every component has reached its level, and at the smallest none has passed it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdekit.errors import SdekitError

_ROOT_HALF = math.sqrt(0.5)
_MAX_ITERATIONS = 250  # every third one bisects: enough to halve any float64 bracket to its end


def fold(x: Tensor, dim: int = -1) -> Tensor:
    """Sum over one dimension as a binary tree of element-wise additions.

    ``torch.sum`` chooses its order of summation by layout and batch size; this does not, so a
    sample's sum is the same to the last bit in every batch.
    """
    while (size := x.shape[dim]) > 1:
        half = size // 2
        pairs = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
        x = torch.cat((pairs, x.narrow(dim, size - 1, 1)), dim) if size % 2 else pairs
    return x.squeeze(dim)


def standardise(y: Tensor, sds: Tensor) -> Tensor:
    """``y / sds``, with ±∞ where a standard deviation is zero (+∞ at the atom itself)."""
    atom = torch.where(y >= 0, math.inf, -math.inf).to(y)
    return torch.where(sds > 0, y / torch.where(sds > 0, sds, 1.0), atom)


def mixture_cdf(x: Tensor, weights: Tensor, means: Tensor, sds: Tensor, upper: bool) -> Tensor:
    r"""$P(X \le x)$, or $P(X > x)$ if ``upper``.

    Args:
        x: Points, any shape.
        weights: Component weights, shape (K,); likewise ``means`` and ``sds``.
        means: Component means.
        sds: Component standard deviations; zero is an atom.
        upper: Which tail.

    Returns:
        Probabilities, of the shape of ``x``.
    """
    z = standardise(x[..., None] - means, sds)
    return fold(weights * (0.5 * torch.erfc((z if upper else -z) * _ROOT_HALF)))


def mixture_quantile(p: Tensor, weights: Tensor, means: Tensor, sds: Tensor, upper: bool) -> Tensor:
    r"""The x with $P(X \le x) = p$, or $P(X > x) = p$ if ``upper``; all tensors float64.

    Args:
        p: Probabilities in (0, 1), any shape.
        weights: Positive component weights, shape (K,); likewise ``means`` and ``sds``.
        means: Component means.
        sds: Component standard deviations; zero is an atom.
        upper: Which tail ``p`` measures.

    Returns:
        Quantiles, of the shape of ``p``. Where the density vanishes between two modes the equation
        itself, not this solver, limits the accuracy to about eps · F / F'.
    """
    beyond = p > 0.5  # 1 − p is then exact
    level = torch.where(beyond, 1 - p, p)
    sign = torch.where(beyond != upper, -1.0, 1.0).to(p)  # −1: solve in the upper tail
    ends = means + (sign * torch.special.ndtri(level))[..., None] * sds
    low: Tensor = ends.amin(-1)
    high: Tensor = ends.amax(-1)
    if len(weights) == 1:
        return low
    x: Tensor = (low + high) / 2
    done = torch.zeros_like(p, dtype=torch.bool)
    for iteration in range(_MAX_ITERATIONS):
        tail, density = _tail_and_density(x, sign, weights, means, sds)
        right = sign * (tail - level) < 0
        low, high = torch.where(right, x, low), torch.where(right, high, x)
        width = tail / density
        newton = x - sign * width * torch.log(tail / level)
        tolerance = 4 * torch.finfo(p.dtype).eps * (x.abs() + width.nan_to_num(0.0, 0.0))
        inside = (newton >= low) & (newton <= high) & (iteration % 3 != 2)
        near = (newton - x).abs() <= tolerance
        step = torch.where(inside | near, newton, (low + high) / 2)
        x = torch.where(done, x, step)
        done = done | near | (high - low <= 2 * torch.finfo(p.dtype).eps * x.abs())
        if bool(done.all()):
            break
    return x


def _tail_and_density(x: Tensor, sign: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> tuple[Tensor, Tensor]:
    z = standardise(x[..., None] - means, sds) * sign[..., None]
    tail = fold(weights * (0.5 * torch.erfc(-z * _ROOT_HALF)))
    scale = torch.where(sds > 0, sds, 1.0) * math.sqrt(2 * math.pi)
    return tail, fold(weights * torch.exp(-0.5 * z * z) / scale)


def check_probabilities(p: Tensor) -> None:
    """Raise unless all lie in (0, 1)."""
    outside = ~((p > 0) & (p < 1))
    if bool(outside.any()):
        value = p[outside].flatten()[0].item()
        raise SdekitError(f"Probabilities must lie strictly between 0 and 1; got {value:g}.")
