r"""The arithmetic of Gaussian mixtures, each component a mean and an eigen-system.

Formulas in :mod:`sdekit.laws`. Every sum over a sample's components or coordinates is a tree of
element-wise additions (:func:`~sdekit.quantiles.fold`), so its value does not depend on the batch,
to the last bit. Rotations are such sums up to d = 64; beyond, they are matrix products, and the
independence holds to rounding.

References: [demmelveselic1992] for scaling a covariance to a correlation before its eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.quantiles import fold
from sdekit.typing import along

Value: TypeAlias = float | Sequence[Any] | Tensor
"""A number, nested lists of numbers, or a tensor."""

Level: TypeAlias = float | Tensor
"""α or σ: one number, or one per sample."""

CHUNK = {"cpu": 2**19}  # elements of one temporary: what stays in cache; elsewhere, what fills the device
UNROLLED = 64  # largest d whose rotations are sums of element-wise products
SHORT = 4  # largest d of events too short to be vectorised over
VECTOR = 8  # samples or coordinates enough for that


def chunk_rows(elements: int, device: torch.device) -> int:
    """How many samples to treat at once when each needs a temporary of so many elements."""
    return max(1, CHUNK.get(device.type, 2**25) // elements)


def rotate(x: Tensor, axes: Tensor) -> Tensor:
    """The rows of ``x``, (K, B, d), times ``axes``, (K, d, d); bitwise independent if d ≤ 64."""
    d = x.shape[-1]
    if d > UNROLLED:
        return x @ axes
    rows = chunk_rows(axes.shape[0] * d * d, x.device)
    x, dim = (x.mT.contiguous(), 1) if d <= VECTOR else (x, 2)
    samples = 3 - dim
    parts = torch.split(x, rows, samples)
    return torch.cat([fold(part[..., None] * axes.unsqueeze(samples), dim) for part in parts], dim=1)


@dataclass(frozen=True)
class Components:
    """K Gaussians on flattened events; ``variances`` are the eigenvalues, along ``axes``."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, d)
    variances: Tensor  # (K, d), or (K, 1) if isotropic
    axes: Tensor | None = None  # (K, d, d), eigenvectors in columns

    @cached_property
    def singular(self) -> bool:
        return bool((self.variances == 0).any())

    @cached_property
    def root(self) -> Tensor:
        """F = Q √λ with F Fᵀ = covariance, (K, d, d): one zero column per zero eigenvalue."""
        sds = torch.sqrt(self.variances).expand_as(self.means)
        return torch.diag_embed(sds) if self.axes is None else self.axes * sds[:, None, :]

    @property
    def diagonals(self) -> Tensor:
        if self.axes is None:
            return self.variances.expand_as(self.means)
        return self.root.square().sum(-1)

    def to(self, x: Tensor) -> Components:
        if self.means.dtype == x.dtype and self.means.device == x.device:
            return self
        axes = None if self.axes is None else self.axes.to(x)
        return Components(self.weights.to(x), self.means.to(x), self.variances.to(x), axes)

    def diffused(self, alpha: float, sigma: float, shift: Tensor) -> Components:
        variances = alpha * alpha * self.variances + sigma * sigma
        return replace(self, means=alpha * self.means + shift, variances=variances)

    def affine(self, matrix: Tensor, shift: Tensor, covariance: Tensor) -> Components:
        """Those of M X + b + N(0, Q); ``matrix`` and ``covariance`` as from :func:`operator`."""
        moved = self.means @ matrix.mT if matrix.ndim == 2 else matrix * self.means
        atoms = self.axes is None and not self.variances.any() and not covariance.any()
        if atoms:
            return replace(self, means=moved + shift)
        keeps_axes = max(matrix.numel(), covariance.numel()) == 1
        if keeps_axes or (self.axes is None and matrix.ndim == covariance.ndim == 1):
            variances = matrix * matrix * self.variances + covariance
            return replace(self, means=moved + shift, variances=variances)
        same = self.axes is None and bool((self.variances == self.variances[:1]).all())
        root = replace(self, means=self.means[:1], variances=self.variances[:1]).root if same else self.root
        factor = matrix @ root if matrix.ndim == 2 else matrix[:, None] * root
        if covariance.ndim == 2:
            noise = square_root(covariance).to(shift)
        else:
            noise = torch.diag(torch.sqrt(covariance).expand_as(shift))
        variances, axes = principal(torch.cat((factor, noise.expand_as(factor)), dim=-1))
        k, d = self.means.shape
        return Components(self.weights, moved + shift, variances.to(shift).expand(k, d), axes.to(shift).expand(k, d, d))

    @cached_property
    def coordinates(self) -> int:
        """The dimension of coordinates: 2 in (K, B, d); 1 in (K, d, B), for events too short to be vectorised over."""
        short = self.axes is None and len(self.weights) > 1 and 1 < self.means.shape[1] <= SHORT
        return 1 if short else 2

    def standardised(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """$y$, (K, B, d), and $v$, (K, 1, d) or (K, B, d), with size 1 for d if isotropic; or (K, d, B)."""
        samples, like = (2, x[:, 0]) if self.coordinates == 1 else (1, x)
        a, s = along(alpha, like), along(sigma, like)
        x = x.mT.contiguous() if self.coordinates == 1 else x
        y = x - a * self.means.unsqueeze(samples)
        if self.axes is not None:
            y = rotate(y, self.axes)
        return y, a * a * self.variances.unsqueeze(samples) + s * s

    def logits(self, y: Tensor, pull: Tensor, v: Tensor) -> Tensor:
        r"""$\ell_k$, shape (K, B), with ``pull`` = y / v."""
        dim, d = self.coordinates, self.means.shape[1]
        volume = (d // v.shape[dim]) * fold(torch.log(v), dim) + d * math.log(2 * math.pi)
        return torch.log(self.weights)[:, None] - 0.5 * (fold(y * pull, dim) + volume)

    def log_prob(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        y, v = self.standardised(x, alpha, sigma)
        logits = self.logits(y, y / v, v)
        peak = logits.amax(0).detach()
        return peak + torch.log(fold(torch.exp(logits - peak), 0))

    def score(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        y, v = self.standardised(x, alpha, sigma)
        pull = y / v
        back = pull if self.axes is None else rotate(pull, self.axes.mT)
        if len(self.weights) == 1:
            return -back[0]
        logits = self.logits(y, pull, v)
        weights = torch.exp(logits - logits.amax(0).detach())
        dim = self.coordinates
        pulls = fold(weights.unsqueeze(dim) * back, 0) / fold(weights, 0).unsqueeze(dim - 1)
        return -(pulls.mT.contiguous() if dim == 1 else pulls)

    def chosen(self, u: Tensor) -> Tensor:
        """The component of each uniform ``u``, shape (B,)."""
        ends = self.weights.double().cumsum(0)
        last = int(self.weights.nonzero()[-1])  # never a component of weight zero
        return torch.searchsorted(ends / ends[-1], u, right=True).clamp(max=last)

    def sample(self, which: Tensor, z: Tensor) -> Tensor:
        """M + C^{1/2} z of component ``which``; the symmetric root is unique, as Q is not."""
        if self.axes is None:
            return self.means[which] + torch.sqrt(self.variances)[which] * z
        out = self.means[which]
        for k, axes in enumerate(torch.split(self.axes, 1)):
            mine = (which == k).nonzero()[:, 0]
            y = torch.sqrt(self.variances[k]) * rotate(z[None, mine], axes)
            out[mine] += rotate(y, axes.mT)[0]
        return out


def tensors(**values: Value) -> list[Tensor]:
    """All values in the dtype and on the device of the tensors given; float64 if none is."""
    given = [v for v in values.values() if isinstance(v, Tensor)]
    floating = [v.dtype for v in given if v.is_floating_point()]
    dtype = reduce(torch.promote_types, floating) if floating else torch.float64
    device = given[0].device if given else None
    out = []
    for name, value in values.items():
        tensor = torch.as_tensor(value, dtype=dtype, device=device)
        if not bool(tensor.isfinite().all()):
            raise SdekitError(f"{name} must be finite; got {tensor[~tensor.isfinite()][0].item()}.")
        out.append(tensor)
    return out


def operator(name: str, value: Value, event_shape: torch.Size, like: Tensor, matrices: bool = True) -> Tensor:
    """A number as (1,), a diagonal of shape E as (d,), a matrix on the flattened event as (d, d)."""
    d = event_shape.numel()
    tensor = tensors(**{name: value})[0].to(like)
    if tensor.numel() == 1:
        return tensor.reshape(1)
    if tensor.shape == event_shape:
        return tensor.flatten()
    if matrices and tensor.shape == (d, d):
        return tensor
    raise SdekitError(
        f"{name} has shape {tuple(tensor.shape)}; give a number, a tensor of the event shape "
        f"{tuple(event_shape)}" + (f", or a matrix of shape {(d, d)}." if matrices else ".")
    )


def check_variances(name: str, variances: Tensor) -> None:
    """Raise unless all are at least zero."""
    if bool((variances < 0).any()):
        raise SdekitError(f"{name} has the negative variance {variances.min().item():g}.")


def spectrum(name: str, covariances: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K, d) and eigenvectors (K, d, d) of covariances; none if all are diagonal."""
    diagonals = covariances.diagonal(dim1=-2, dim2=-1)
    check_variances(name, diagonals)
    if torch.equal(torch.diag_embed(diagonals), covariances):
        return diagonals, None
    variances, axes = principal(square_root(covariances, name))
    return variances.to(covariances), axes.to(covariances)


def square_root(covariance: Tensor, name: str = "covariance") -> Tensor:
    r"""F with $F F^\top$ = ``covariance``, (..., d, d), in float64 on the host.

    The eigenvalues are those of the correlation matrix, so badly scaled covariances keep their
    small variances; those below rounding are zero, and give zero columns.
    """
    tolerance = covariance.shape[-1] * torch.finfo(covariance.dtype).eps
    c = covariance.detach().to("cpu", torch.float64)
    skew = float((c - c.mT).abs().max())
    if skew > 10 * tolerance * float(c.abs().max()):
        raise SdekitError(f"{name} is not symmetric: C and its transpose differ by {skew:g}; give (C + C.mT) / 2.")
    scale = torch.sqrt(c.diagonal(dim1=-2, dim2=-1))
    safe = torch.where(scale > 0, scale, 1.0)
    values, vectors = torch.linalg.eigh(c / safe[..., None] / safe[..., None, :])
    if float(values.min()) < -10 * tolerance:
        smallest = float(torch.linalg.eigvalsh(c).min())
        raise SdekitError(f"{name} is not positive semi-definite: an eigenvalue is {smallest:g}.")
    values = torch.where(values > tolerance, values, 0.0)
    factor: Tensor = safe[..., None] * vectors * torch.sqrt(values)[..., None, :]
    return factor


def principal(factor: Tensor) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues (K, d) and eigenvectors (K, d, d) of $F F^\top$, from the singular values of F.

    Squaring F would lose standard deviations below 1e-8. Each zero column beyond d is one zero
    eigenvalue, exactly. In float64 on the host.
    """
    factor = factor.detach().to("cpu", torch.float64)
    axes, sds, _ = torch.linalg.svd(factor, full_matrices=False)
    rank = (factor != 0).any(-2).sum(-1, keepdim=True)
    sds = torch.where(torch.arange(sds.shape[-1]) < rank, sds, 0.0)
    return sds.square(), axes


def mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> Components:
    """The components that :class:`~sdekit.laws.GaussianMixture` was given, checked."""
    if weights.ndim != 1 or means.ndim < 1 or not 0 < len(weights) == len(means):
        raise SdekitError(
            f"weights must have shape (K,) and means (K, *E), with one K ≥ 1; "
            f"got {tuple(weights.shape)} and {tuple(means.shape)}."
        )
    total = float(weights.sum())
    if bool((weights < 0).any()) or abs(total - 1) > torch.finfo(weights.dtype).eps ** 0.5:
        raise SdekitError(
            f"weights must be non-negative and sum to 1; the smallest is {float(weights.min()):g}, "
            f"the sum {total:.9g}. Give weights / weights.sum()."
        )
    flat, axes = means.reshape(len(means), -1), None
    k, d = flat.shape
    c = covariances.expand(k) if covariances.ndim == 0 else covariances
    if c.shape == (k, d, d):
        variances, axes = spectrum("covariances", c)
    elif c.shape in ((k,), means.shape):
        variances = c.reshape(k, -1)
    else:
        raise SdekitError(
            f"covariances have shape {tuple(c.shape)}; give a number, or one per component: "
            f"{(k,)}, {tuple(means.shape)} or {(k, d, d)}."
        )
    check_variances("covariances", variances)
    return Components(weights / total, flat, variances, axes)


def level(name: str, value: Level, batch: int) -> Level:
    """A signal or noise level, checked: a float, or one per sample."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.ndim and value.shape != (batch,):
        raise SdekitError(f"{name} has shape {tuple(value.shape)}; give a number or one per sample, ({batch},).")
    return value


def cut(value: Level, rows: slice) -> Level:
    """The level of some rows."""
    return value[rows] if isinstance(value, Tensor) and value.ndim else value
