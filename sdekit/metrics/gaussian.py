r"""W2 between Gaussians, without the squares that limit the textbook formula to 1e-5.

For $C_1 = F_1 F_1^\top$ and $C_2 = F_2 F_2^\top$,

$$ W_2^2 = |m_1 - m_2|^2 + \min_{R^\top R = 1} \lVert F_1 - F_2 R \rVert_F^2 , $$

an orthogonal Procrustes problem: $R = U V^\top$ from the singular value decomposition of $F_2^\top F_1 = U S V^\top$.
The norm of the difference is evaluated as it stands, so its error is that of the factors, about 1e-16 of their size.

Both factors are first turned to principal axes, $F = Q \operatorname{diag}(s)$. Then the error in each entry of
$F_2^\top F_1$ is relative to its row and column, and R stays accurate in directions of tiny variance: without that, two
covariances of condition 1e16 that agree come out 1e-11 apart.

References: [gelbrich1990].
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.laws import Gaussian, GaussianMixture


def gaussian_wasserstein2(mean_a: Tensor, factor_a: Tensor, mean_b: Tensor, factor_b: Tensor) -> float:
    """W2 between N(mean_a, F_a F_aᵀ) and N(mean_b, F_b F_bᵀ).

    Args:
        mean_a: Shape (d,), or any of d elements.
        factor_a: Shape (d, k), any k.
        mean_b: Like ``mean_a``.
        factor_b: Shape (d, l), any l.

    Returns:
        The distance (not its square), with an error of about 1e-15 of the larger factor.

    Raises:
        SdekitError: shapes that do not fit, or values that are not finite.
    """
    d = mean_a.numel()
    if mean_b.numel() != d or any(f.ndim != 2 or len(f) != d for f in (factor_a, factor_b)):
        shapes = [tuple(x.shape) for x in (mean_a, factor_a, mean_b, factor_b)]
        raise SdekitError(f"Means of d elements need factors of shape (d, k); got {shapes}.")
    given = [x.detach().to("cpu", torch.float64) for x in (mean_a, factor_a, mean_b, factor_b)]
    if not all(bool(x.isfinite().all()) for x in given):
        raise SdekitError("A mean or a factor has NaN or Inf.")
    mean_a, factor_a, mean_b, factor_b = given
    p, q = _graded(factor_a), _graded(factor_b)
    u, _, vh = torch.linalg.svd(q.mT @ p)
    between = p - q @ (u @ vh)
    return float(torch.cat([(mean_a.flatten() - mean_b.flatten())[:, None], between], dim=1).norm())


def _graded(factor: Tensor) -> Tensor:
    """The factor of the same covariance with orthogonal columns of falling length, (d, d)."""
    d, k = factor.shape
    if k < d:
        factor = torch.cat([factor, factor.new_zeros(d, d - k)], dim=1)
    axes, sds, _ = torch.linalg.svd(factor, full_matrices=False)
    graded: Tensor = axes * sds
    return graded


def between_gaussians(a: Gaussian, b: Gaussian) -> float:
    """W2 between Gaussian laws; element by element if both covariances are diagonal."""
    if a.eigen[0] is None and b.eigen[0] is None:
        sds = [torch.sqrt(law.eigen[1]).double().cpu() for law in (a, b)]
        means = [law.mean.flatten().double().cpu() for law in (a, b)]
        return float(torch.stack([means[0] - means[1], sds[0] - sds[1]]).norm())
    return gaussian_wasserstein2(a.mean, a.root, b.mean, b.root)


def moments(law: Gaussian | GaussianMixture | Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and a square-root factor (d, k) of the covariance of a law or of samples (n, d)."""
    if isinstance(law, Gaussian):
        return law.mean.flatten(), law.root
    if isinstance(law, Tensor):
        mean = law.mean(0)
        return mean, torch.linalg.qr(law - mean, mode="r").R.mT / len(law) ** 0.5
    mean, roots = law.mean.flatten(), torch.sqrt(law.weights)
    parts = list(zip(roots, law.components, strict=True))
    within = [r * part.root for r, part in parts]
    spread = [r * (part.mean.flatten() - mean)[:, None] for r, part in parts]
    return mean, torch.cat([*within, *spread], dim=1)
