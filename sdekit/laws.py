r"""Laws that are known in closed form: Gaussians, their mixtures, and finite data sets.

All three are mixtures of $K$ Gaussians on the flattened event, $x \in \mathbb{R}^d$, each held by
its mean and the eigenvectors and eigenvalues of its covariance (a data set has eigenvalues zero):

$$ p(x) = \sum_k w_k\, N(x;\, m_k,\, Q_k \Lambda_k Q_k^\top). $$

Diffusion keeps the axes: $\alpha X + \sigma Z$ has components
$N(\alpha m_k,\; Q_k (\alpha^2 \Lambda_k + \sigma^2) Q_k^\top)$.
With $y_k = Q_k^\top (x - \alpha m_k)$ and
$v_k = \alpha^2 \lambda_k + \sigma^2$, its density and score are

$$ \log p = \operatorname*{logsumexp}_k \ell_k, \qquad
   \ell_k = \log w_k - \tfrac12 \sum_i \bigl( y_{ki}^2 / v_{ki} + \log 2\pi v_{ki} \bigr), \qquad
   \nabla \log p = -\sum_k \operatorname{softmax}(\ell)_k\, Q_k \frac{y_k}{v_k} . $$

The arithmetic is in :mod:`sdekit.components`, the distribution functions are in
:mod:`sdekit.quantiles`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Protocol, Self, final

import torch
from torch import Tensor

from sdekit import random
from sdekit.components import (
    VECTOR,
    Components,
    Level,
    Value,
    check_variances,
    chunk_rows,
    cut,
    level,
    mixture,
    operator,
    principal,
    spectrum,
    tensors,
)
from sdekit.errors import SdekitError
from sdekit.keys import Keys, Paths, Seed
from sdekit.quantiles import check_probabilities, mixture_cdf, mixture_quantile


class Law(Protocol):
    r"""What every law can do; B samples of event shape E have shape (B, \*E), and d = numel(E)."""

    @property
    def event_shape(self) -> torch.Size: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def covariance(self) -> Tensor: ...
    @property
    def variance(self) -> Tensor: ...
    def sample(self, n: int | None = None, seed: Seed | None = 0, paths: Paths | None = None) -> Tensor: ...
    def log_prob(self, x: Tensor) -> Tensor: ...
    def score(self, x: Tensor) -> Tensor: ...
    def diffused(self, alpha: float, sigma: float, shift: Value = 0.0) -> Law: ...
    def affine(self, matrix: Value, shift: Value = 0.0, covariance: Value = 0.0) -> Law: ...
    def diffused_score(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor: ...
    def diffused_log_prob(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor: ...
    def cdf(self, x: float | Tensor) -> Tensor: ...
    def sf(self, x: float | Tensor) -> Tensor: ...
    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor: ...


class _MixtureLaw(ABC):
    """What the laws share: everything that is read off the components."""

    _parts: Components
    event_shape: torch.Size

    @classmethod
    def _of(cls, parts: Components, event_shape: torch.Size) -> Self:
        law = cls.__new__(cls)
        law._parts, law.event_shape = parts, event_shape
        return law

    @abstractmethod
    def _moved(self, parts: Components) -> _MixtureLaw:
        """The law with these components instead."""

    def __repr__(self) -> str:
        k = len(self._parts.weights)
        return f"{type(self).__name__}(event_shape={tuple(self.event_shape)}, components={k})"

    @property
    def dtype(self) -> torch.dtype:
        return self._parts.means.dtype

    @property
    def device(self) -> torch.device:
        return self._parts.means.device

    @cached_property
    def _flat_mean(self) -> Tensor:
        return self._parts.weights @ self._parts.means

    @property
    def mean(self) -> Tensor:
        """Shape E."""
        return self._flat_mean.reshape(self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance, shape E, without building that matrix."""
        p = self._parts
        spread = p.diagonals + (p.means - self._flat_mean).square()
        return (p.weights @ spread).reshape(self.event_shape)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the flattened event, shape (d, d)."""
        p = self._parts
        between = torch.sqrt(p.weights)[:, None] * (p.means - self._flat_mean)
        if p.axes is None:
            return torch.diag(p.weights @ p.diagonals) + between.mT @ between
        within = torch.einsum("k,kij,klj->il", p.weights, p.root, p.root)
        return within + between.mT @ between

    def to(self, like: Tensor) -> Self:
        """The same law in the dtype and on the device of ``like``."""
        return self._of(self._parts.to(like), self.event_shape)

    def sample(self, n: int | None = None, seed: Seed | None = 0, paths: Paths | None = None) -> Tensor:
        r"""Independent samples; sample i is a function of (seed, path number) alone.

        Args:
            n: How many; may be left out if ``paths`` is given.
            seed: Any integer; None if ``paths`` are seeds; or torch generators (:mod:`sdekit.keys`).
            paths: Global path numbers, one per sample; 0 … n − 1 by default. Without a seed: seeds, one per sample.

        Returns:
            Tensor of shape (n, \*E).
        """
        parts, keys = self._parts, Keys.drawn(n, seed, paths, self.device).values
        which = torch.zeros_like(keys)
        if len(parts.weights) > 1:
            u = random.normals(keys, (), stream=random.STREAM_LAW + 1)[0]
            which = parts.chosen(torch.special.ndtr(u))
        x = parts.means[which]
        if parts.variances.any():
            shape = parts.means.shape[1:]
            z = random.normals(keys, shape, stream=random.STREAM_LAW, dtype=self.dtype)[0]
            x = parts.sample(which, z)
        return x.reshape(-1, *self.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log density at ``x``, (B, \*E), of shape (B,)."""
        return self.diffused_log_prob(x, 1.0, 0.0)

    def score(self, x: Tensor) -> Tensor:
        r"""Gradient of the log density at ``x``, (B, \*E), of the shape of ``x``."""
        return self.diffused_score(x, 1.0, 0.0)

    def diffused_log_prob(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        """Log density of α X + σ Z at ``x``, shape (B,); arguments as in :meth:`diffused_score`."""
        return self._by_chunks(Components.log_prob, x, alpha, sigma)

    def diffused_score(self, x: Tensor, alpha: Level, sigma: Level) -> Tensor:
        r"""Score of the law of α X + σ Z, Z standard normal, without building that law.

        Args:
            x: Shape (B, \*E); the answer has its dtype and device.
            alpha: Number, or tensor of shape (B,).
            sigma: Number, or tensor of shape (B,). Zero where the law has no density is an error
                for a number; a tensor is not read, and gives NaN or infinity there.

        Returns:
            Tensor of the shape of ``x``.
        """
        return self._by_chunks(Components.score, x, alpha, sigma).reshape(x.shape)

    def _by_chunks(
        self,
        function: Callable[[Components, Tensor, Level, Level], Tensor],
        x: Tensor,
        alpha: Level,
        sigma: Level,
    ) -> Tensor:
        if x.ndim != len(self.event_shape) + 1 or x.shape[1:] != self.event_shape:
            raise SdekitError(
                f"x has shape {tuple(x.shape)}, but this law wants (B, *E) with event shape "
                f"E = {tuple(self.event_shape)}; reshape it, or add a batch dimension with x[None]."
            )
        alpha, sigma = level("alpha", alpha, len(x)), level("sigma", sigma, len(x))
        if isinstance(sigma, float) and sigma == 0.0:
            self._require_density(alpha)
        parts, flat = self._parts.to(x), x.flatten(1) if x.ndim > 1 else x[:, None]
        rows = chunk_rows(parts.means.numel(), x.device)
        rows = rows if rows >= VECTOR else 1  # between, loops over samples are short, and one sample leaves none
        if len(x) <= rows:
            return function(parts, flat, alpha, sigma)
        cuts = [slice(i, i + rows) for i in range(0, len(x), rows)]
        return torch.cat([function(parts, flat[c], cut(alpha, c), cut(sigma, c)) for c in cuts])

    def _require_density(self, alpha: float | Tensor) -> None:
        if self._parts.singular or (isinstance(alpha, float) and alpha == 0.0):
            raise SdekitError(
                f"{self!r} has no density where a variance is zero (sigma = 0, smallest variance "
                f"{float(self._parts.variances.min()):g}): diffuse it with sigma > 0."
            )

    def diffused(self, alpha: float, sigma: float, shift: Value = 0.0) -> _MixtureLaw:
        """The law of α X + shift + σ Z, Z standard normal, ``shift`` a number or of shape E."""
        moved = self._parts.diffused(float(alpha), float(sigma), self._flat("shift", shift))
        return self._moved(moved)

    def affine(self, matrix: Value, shift: Value = 0.0, covariance: Value = 0.0) -> _MixtureLaw:
        """The law of M X + b + N(0, Q).

        Square-root factors are multiplied, never covariances: a standard deviation that should be
        zero comes out below 1e-15, not 1e-8.

        Args:
            matrix: M: a number, of shape E (diagonal), or (d, d) on the flattened event.
            shift: b: a number, or of shape E.
            covariance: Q: a number or of shape E (variances), or (d, d).
        """
        m = operator("matrix", matrix, self.event_shape, self._parts.means)
        q = operator("covariance", covariance, self.event_shape, self._parts.means)
        check_variances("covariance", q if q.ndim == 1 else q.diagonal())
        return self._moved(self._parts.affine(m, self._flat("shift", shift), q))

    def _flat(self, name: str, value: Value) -> Tensor:
        tensor = operator(name, value, self.event_shape, self._parts.means, matrices=False)
        return tensor.expand(self._parts.means.shape[1])

    def cdf(self, x: float | Tensor) -> Tensor:
        """P(X ≤ x) of a 1-D law, element by element: of the shape of ``x``."""
        return mixture_cdf(*self._line("cdf", x), upper=False)

    def sf(self, x: float | Tensor) -> Tensor:
        """P(X > x) of a 1-D law, accurate where ``1 - cdf(x)`` is not: of the shape of ``x``."""
        return mixture_cdf(*self._line("sf", x), upper=True)

    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor:
        r"""The x with cdf(x) = p, or sf(x) = p if ``upper``, of a 1-D law: of the shape of ``p``.

        Computed in float64. The quantile map $F_t^{-1} \circ F_s$ keeps its digits in both tails
        if values above the median go through ``sf`` and ``upper=True``.
        """
        p = self._line("quantile", p)[0]
        check_probabilities(p)
        wide, weights, means, sds = self._line("quantile", p.double())
        used = weights > 0
        x = mixture_quantile(wide, weights[used], means[used], sds[used], upper)
        return x.to(p.dtype)

    def _line(self, name: str, x: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.event_shape.numel() != 1:
            raise SdekitError(
                f"{name} is for 1-D laws; this one has event shape {tuple(self.event_shape)}: "
                "take a marginal, or use log_prob."
            )
        x = x if isinstance(x, Tensor) else torch.tensor(x, dtype=self.dtype, device=self.device)
        p = self._parts.to(x)
        return x, p.weights, p.means[:, 0], torch.sqrt(p.variances[:, 0])


@final
class Gaussian(_MixtureLaw):
    r"""$N(m, C)$.

    Args:
        mean: A number, a list, or a tensor of any event shape E.
        covariance: A number (isotropic), a tensor of shape E (variances), or of shape (d, d) on the
            flattened event. No shape is both: for E = (d,), a (d,) tensor is diagonal. Zero
            eigenvalues are allowed, negative ones and asymmetry are not.
    """

    def __init__(self, mean: Value, covariance: Value = 1.0) -> None:
        mean, covariance = tensors(mean=mean, covariance=covariance)
        c = operator("covariance", covariance, mean.shape, mean)
        variances, axes = spectrum("covariance", c[None]) if c.ndim == 2 else (c[None], None)
        check_variances("covariance", variances)
        self.event_shape = mean.shape
        self._parts = Components(mean.new_ones(1), mean.reshape(1, -1), variances, axes)

    @classmethod
    def from_root(cls, mean: Tensor, root: Tensor) -> Gaussian:
        r"""$N(m, F F^\top)$ from F of shape (d, n), n ≥ d, without squaring it."""
        variances, axes = principal(root[None])
        parts = Components(mean.new_ones(1), mean.reshape(1, -1), variances.to(mean), axes.to(mean))
        return cls._of(parts, mean.shape)

    def _moved(self, parts: Components) -> Gaussian:
        return Gaussian._of(parts, self.event_shape)

    @property
    def eigen(self) -> tuple[Tensor | None, Tensor]:
        """Eigenvectors in columns, (d, d), or None for the identity; eigenvalues, (d,)."""
        p = self._parts
        return None if p.axes is None else p.axes[0], p.variances.expand_as(p.means)[0]

    @property
    def root(self) -> Tensor:
        """F with F Fᵀ = covariance, (d, d); an eigenvalue zero is a zero column."""
        return self._parts.root[0]


@final
class GaussianMixture(_MixtureLaw):
    r"""$\sum_k w_k N(m_k, C_k)$.

    Args:
        weights: Shape (K,), non-negative, of sum one.
        means: Shape (K, \*E).
        covariances: A number, or a tensor that starts with K: (K,) isotropic, (K, \*E) variances,
            (K, d, d) full on the flattened event.
    """

    def __init__(self, weights: Value, means: Value, covariances: Value) -> None:
        weights, means, c = tensors(weights=weights, means=means, covariances=covariances)
        self.event_shape, self._parts = means.shape[1:], mixture(weights, means, c)

    def _moved(self, parts: Components) -> GaussianMixture:
        return GaussianMixture._of(parts, self.event_shape)

    @property
    def weights(self) -> Tensor:
        """Shape (K,)."""
        return self._parts.weights

    @property
    def components(self) -> tuple[Gaussian, ...]:
        """The K Gaussians."""
        p = self._parts
        one, rows = torch.ones_like(p.weights[:1]), [slice(k, k + 1) for k in range(len(p.weights))]
        axes = [None if p.axes is None else p.axes[k] for k in rows]
        parts = (Components(one, p.means[k], p.variances[k], q) for k, q in zip(rows, axes, strict=True))
        return tuple(Gaussian._of(part, self.event_shape) for part in parts)


@final
class Empirical(_MixtureLaw):
    r"""The uniform law on N points; diffused, a mixture with the optimal denoiser's score.

    Args:
        x: The points, shape (N, \*E).
    """

    def __init__(self, x: Value) -> None:
        (x,) = tensors(x=x)
        if x.ndim < 1 or len(x) == 0:
            raise SdekitError(f"Points must have shape (N, *E), N ≥ 1; got {tuple(x.shape)}.")
        self.event_shape = x.shape[1:]
        weights = x.new_full((len(x),), 1 / len(x))
        self._parts = Components(weights, x.reshape(len(x), -1), x.new_zeros(len(x), 1))

    def _moved(self, parts: Components) -> Empirical | GaussianMixture:
        law = GaussianMixture if parts.variances.any() else Empirical
        return law._of(parts, self.event_shape)

    @property
    def points(self) -> Tensor:
        r"""Shape (N, \*E)."""
        return self._parts.means.reshape(-1, *self.event_shape)

    def _sorted(self, name: str, x: float | Tensor) -> tuple[Tensor, Tensor]:
        x, _, means, _ = self._line(name, x)
        return x.contiguous(), means.sort().values

    def cdf(self, x: float | Tensor) -> Tensor:
        """Fraction of points ≤ x, of the shape of ``x``."""
        x, points = self._sorted("cdf", x)
        return torch.searchsorted(points, x, right=True).to(x) / len(points)

    def sf(self, x: float | Tensor) -> Tensor:
        """Fraction of points > x, of the shape of ``x``."""
        x, points = self._sorted("sf", x)
        return (len(points) - torch.searchsorted(points, x, right=True)).to(x) / len(points)

    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor:
        """The order statistic: the least point with cdf ≥ p, or with sf ≤ p if ``upper``."""
        p, points = self._sorted("quantile", p)
        check_probabilities(p)
        n = len(points)
        fractions = torch.arange(1, n + 1, device=p.device).to(p) / n
        if upper:
            return points[n - 1 - torch.searchsorted(fractions, p, right=True)]
        return points[torch.searchsorted(fractions, p)]
