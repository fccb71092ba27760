"""Slips in Lévy areas: what W and H leave of them on one interval, and the check that sees it.

The truth is a bilinear form: of n fine increments u, v the area is ½ uᵀ S v with S_ab = sign(b − a), and given W and H
the increments are normal with a projection for their covariance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mutants.base import Check, Mutant
from sdekit.brownian import area

PAIRS = [(0, 1), (0, 2), (1, 2)]
W = torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)
H = torch.tensor([0.5, 0.2, -0.3], dtype=torch.float64)
LENGTH = 1.3
Areas = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def bilinear(n: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the areas of the three pairs, given W and H, of paths of n increments."""
    r = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    sign = torch.ones(n, n, dtype=torch.float64).triu(1)
    sign = sign - sign.T
    tilt = 0.5 - r
    means = W[:, None] / n + H[:, None] * tilt / tilt.square().sum()
    basis = torch.linalg.qr(torch.stack([torch.ones_like(r), tilt], 1)).Q
    left = torch.eye(n, dtype=torch.float64) - basis @ basis.T
    mean = torch.stack([0.5 * means[i] @ sign @ means[j] for i, j in PAIRS])
    slopes = torch.zeros(3, 3, n, dtype=torch.float64)  # of the area of a pair in the deviations of each noise
    for p, (i, j) in enumerate(PAIRS):
        slopes[p, i], slopes[p, j] = 0.5 * left @ sign @ means[j], -0.5 * left @ sign @ means[i]
    variance = LENGTH / n
    covariance = variance * torch.einsum("pia,qia->pq", slopes, slopes)
    square = (variance * 0.5 * left @ sign @ left).square().sum()
    return mean, covariance + square * torch.eye(3, dtype=torch.float64)


def moments(areas: Areas) -> tuple[Tensor, Tensor]:
    """Mean and covariance that a formula has: it is linear in its normals."""
    z = torch.cat([torch.zeros(1, 6), torch.eye(6)]).double()
    root = torch.full((7, 1), LENGTH**0.5, dtype=torch.float64)
    found = areas(W.expand(7, 3), H.expand(7, 3), z, root)
    values = torch.stack([found[:, i, j] for i, j in PAIRS], 1)
    slopes = values[1:] - values[0]
    return values[0], slopes.T @ slopes


def as_of_a_path(areas: Areas) -> bool:
    """Mean and covariance within 2e-3 of those of 400 increments, which are 1e-3 off."""
    found, limit = moments(areas), bilinear(400)
    return all(float((a - b).abs().max()) < 2e-3 for a, b in zip(found, limit, strict=True))


def turned(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    """W ∧ H for H ∧ W."""
    return area.areas_given(w, -h, z, roots)


def antisymmetric(upper: Tensor) -> Tensor:
    """Matrices with these entries above the diagonal."""
    out = upper.new_zeros(*upper.shape[:-1], 3, 3)
    for p, (i, j) in enumerate(PAIRS):
        out[..., i, j], out[..., j, i] = upper[..., p], -upper[..., p]
    return out


def davie(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    """h²/12 beside H, which is the mean of the variance that H leaves."""
    return area.wedge(h, w) + antisymmetric(z[..., 3:]) * (roots.square() * 12.0**-0.5)[..., None]


def without_h(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    """h²/20 alone."""
    return area.areas_given(w, h, torch.cat([0.0 * z[..., :3], z[..., 3:]], -1), roots)


def pair_by_pair(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    """The right variance of every pair, by one normal of its own."""
    squares = h.square()
    spread = (
        roots.square().square()[..., None] / 20
        + (squares[..., None] + squares[..., None, :]) * roots.square()[..., None] / 5
    ).sqrt()
    return area.wedge(h, w) + antisymmetric(z[..., 3:]) * spread


def shared(w: Tensor, h: Tensor, z: Tensor, roots: Tensor) -> Tensor:
    """One normal for all pairs."""
    return area.areas_given(w, h, torch.cat([z[..., :3], z[..., 3:4].expand(*z.shape[:-1], 3)], -1), roots)


MOMENTS = Check("moments given W and H", as_of_a_path)
MUTANTS = [
    Mutant("H and W exchanged", turned, area.areas_given, MOMENTS),
    Mutant("mean of the variance for the variance", davie, area.areas_given, MOMENTS),
    Mutant("variance without H", without_h, area.areas_given, MOMENTS),
    Mutant("covariance of pairs forgotten", pair_by_pair, area.areas_given, MOMENTS),
    Mutant("one normal for all pairs", shared, area.areas_given, MOMENTS),
]
