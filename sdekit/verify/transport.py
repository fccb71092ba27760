r"""The exact law that a one-step stochastic solver produces on the line, without sampling.

Let step k of a solver, given x, be normal with mean $m_k(x)$ and standard deviation $s_k(x)$; both are read off the
production stepper, for any score. The densities obey Chapman–Kolmogorov,

$$ p_{k+1}(y) = \int p_k(x)\, N\bigl(y;\, m_k(x), s_k(x)^2\bigr)\, dx
   \approx \sum_i w_i\, N\bigl(y;\, m_k(x_i), s_k(x_i)^2\bigr), \qquad w_i = \delta_k\, p_k(x_i), $$

by the trapezoid rule on a uniform grid of spacing δ. The integrand is a smooth function that vanishes at both ends, so
the rule converges like $e^{-2\pi^2 w^2/\delta^2}$, where w is the narrower of what is being multiplied: the last kernel
$s_{k-1}$, and this one seen from x, $s_k / |m_k'|$. After each step the law is therefore a mixture of normals, to
rounding; so is the last one, whose distribution function and quantiles need no further approximation. All terms are
positive, hence tails keep their relative accuracy, down to probabilities of about 1e-22, where the grid ends.

The cost is one evaluation of the step on some hundred to some thousand points, and one banded sum, per step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from sdekit import doors
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.laws import Empirical, Gaussian, GaussianMixture, Law
from sdekit.metrics import wasserstein2
from sdekit.metrics.line import Quantiles
from sdekit.quantiles import check_probabilities
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.steps import Steps, witness

_TINY = 1e-24  # a component is cut where it holds less probability than this
_REACH = 10.2  # standard deviations beyond which a normal holds less than that
_PROBES = 513  # points at which the width of a kernel is looked up
_MAX_NODES = 200_000
_CHUNK = 2**20  # elements of one temporary
_CELLS = 512  # of the table in which quantiles are located
_ITERATIONS = 80
_MASS = 1e-10  # largest loss of probability in one step that is put down to rounding
_SUPERPOSITION, _ROUNDING = 1e-9, 1e-12  # of the noise's effect, and of the state


@final
@dataclass(frozen=True, eq=False)
class Density1D:
    r"""A law on the line as a mixture of many normals, $p(y) = \sum_i w_i N(y; m_i, s_i^2)$.

    Attributes:
        weights: Positive, of sum one, shape (n,), float64.
        means: Shape (n,).
        sds: Standard deviations, shape (n,).
    """

    weights: Tensor
    means: Tensor
    sds: Tensor

    @property
    def event_shape(self) -> torch.Size:
        """The line."""
        return torch.Size((1,))

    @property
    def mean(self) -> Tensor:
        """Shape ()."""
        return self.weights @ self.means

    @property
    def variance(self) -> Tensor:
        """Shape ()."""
        return self.weights @ (self.sds.square() + (self.means - self.mean).square())

    @cached_property
    def nodes(self) -> Tensor:
        """A uniform grid that holds all but about 1e-22 of the probability and resolves the density, shape (M,)."""
        return _uniform(*self.support, 0.5 * float(self.sds.min()))

    @cached_property
    def values(self) -> Tensor:
        """The density at the nodes, shape (M,)."""
        return self.on_grid(self.nodes)

    @cached_property
    def support(self) -> tuple[float, float]:
        """Where the probability is, but for 1e-24 of every component."""
        reach = self.sds * self._reach
        return float((self.means - reach).min()), float((self.means + reach).max())

    @property
    def _reach(self) -> Tensor:
        """How many standard deviations of a component matter: beyond, it holds less than 1e-24."""
        reach: Tensor = torch.special.ndtri((_TINY / self.weights).clamp(max=0.5))
        return reach.neg()

    def on_grid(self, nodes: Tensor) -> Tensor:
        """The density on equidistant nodes, by a band around every mean: cheap where the components are narrow."""
        low, step = float(nodes[0]), float(nodes[1] - nodes[0])
        band = min(int((self.sds * self._reach).max() / step) + 1, len(nodes))
        offsets = torch.arange(-band, band + 1)
        centre = ((self.means - low) / step).round().long().clamp(-band - 1, len(nodes) + band)
        total = torch.zeros(len(nodes) + 4 * band + 2, dtype=torch.float64)
        for part in torch.split(torch.arange(len(centre)), max(1, _CHUNK // len(offsets))):
            where = centre[part, None] + offsets
            z = (low + step * where.double() - self.means[part, None]) / self.sds[part, None]
            height = self.weights[part] / (self.sds[part] * math.sqrt(2 * math.pi))
            total.index_add_(0, (where + 2 * band + 1).flatten(), (height[:, None] * torch.exp(-0.5 * z * z)).flatten())
        return total[2 * band + 1 :][: len(nodes)]

    def density(self, x: Tensor) -> Tensor:
        """The density at any points, of the shape of ``x``."""
        return self._evaluate(x)[2]

    def cdf(self, x: float | Tensor) -> Tensor:
        """P(X ≤ x), of the shape of ``x``."""
        return self._evaluate(x)[0]

    def sf(self, x: float | Tensor) -> Tensor:
        """P(X > x), accurate where ``1 - cdf(x)`` is not."""
        return self._evaluate(x)[1]

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Weights, means and deviations by mean; the weight before, and from, every component."""
        order = self.means.argsort()
        weights, zero = self.weights[order], self.weights.new_zeros(1)
        before, after = torch.cat([zero, weights.cumsum(0)]), torch.cat([zero, weights.flip(0).cumsum(0)]).flip(0)
        return weights, self.means[order], self.sds[order], before, after

    def _evaluate(self, x: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both tails and the density; components out of reach count as wholly to one side."""
        x = torch.as_tensor(x, dtype=torch.float64)
        weights, means, sds, before, after = self._sorted
        flat, reach = x.flatten(), _REACH * float(sds.max())
        first, last = torch.searchsorted(means, flat - reach), torch.searchsorted(means, flat + reach)
        band = torch.arange(max(1, int((last - first).max())) if len(flat) else 1)
        rows = max(1, _CHUNK // len(band))
        parts = [flat[:0].expand(3, 0)]
        for y, i, j in zip(*(torch.split(v, rows) for v in (flat, first, last)), strict=True):
            near = i[:, None] + band
            inside, near = near < j[:, None], near.clamp(max=len(means) - 1)
            w, sd = weights[near] * inside, sds[near]
            z = (y[:, None] - means[near]) / sd
            below, above = (w * torch.erfc(sign * math.sqrt(0.5) * z) for sign in (-1.0, 1.0))
            height = w / sd * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
            parts.append(torch.stack([before[i] + 0.5 * below.sum(1), after[j] + 0.5 * above.sum(1), height.sum(1)]))
        lower, upper, density = torch.cat(parts, dim=1).reshape(3, *x.shape)
        return lower, upper, density

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.linspace(*self.support, _CELLS + 1, dtype=torch.float64)
        return x, *self._evaluate(x)[:2]

    def quantile(self, p: float | Tensor, *, upper: bool = False) -> Tensor:
        """The x with cdf(x) = p, or sf(x) = p if ``upper``; of the shape of ``p``."""
        p = torch.as_tensor(p, dtype=torch.float64)
        check_probabilities(p)
        beyond = (p > 0.5).flatten()  # 1 − p is then exact
        level = torch.where(beyond, 1 - p.flatten(), p.flatten())
        x = torch.empty_like(level)
        for in_upper in (False, True):
            mine = (beyond != upper) == in_upper
            x[mine] = self._solve(level[mine], in_upper)
        return x.reshape(p.shape)

    def _solve(self, level: Tensor, upper: bool) -> Tensor:
        """Newton on the logarithm of one tail, inside a cell of the table."""
        nodes, below, beyond = self._table
        edges, rising = (nodes.flip(0), beyond.flip(0)) if upper else (nodes, below)
        cell = torch.searchsorted(rising, level).clamp(1, _CELLS)
        near, far = edges[cell - 1], edges[cell]  # the tail is at most the level at one, at least at the other
        x, sign = (near + far) / 2, -1.0 if upper else 1.0
        active = torch.arange(len(x))
        for iteration in range(_ITERATIONS):
            at, wanted = x[active], level[active]
            lower_tail, upper_tail, density = self._evaluate(at)
            tail = upper_tail if upper else lower_tail
            width = tail / density
            short = tail < wanted
            near[active], far[active] = torch.where(short, at, near[active]), torch.where(short, far[active], at)
            low, high = torch.minimum(near[active], far[active]), torch.maximum(near[active], far[active])
            newton = at - sign * width * torch.log(tail / wanted)
            inside = (newton >= low) & (newton <= high) & (iteration % 8 != 7)
            x[active] = torch.where(inside, newton, (low + high) / 2)
            tolerance = 4 * torch.finfo(torch.float64).eps * (at.abs() + width.nan_to_num(0.0, 0.0))
            active = active[(x[active] - at).abs() > tolerance]
            if len(active) == 0:
                break
        return x

    def wasserstein2(self, law: Law | Quantiles | Tensor) -> float:
        """W2 to another law on the line, by the integral over quantiles."""
        return wasserstein2(self, law)


def transported_law(
    sde: SDE,
    stepper: str | Stepper,
    grid: Tensor | Sequence[float],
    initial: Law | Density1D,
    *,
    spacing: float = 0.4,
) -> Density1D:
    """The law of the end of a run on the line, to rounding; no sampling.

    Args:
        sde: A stochastic problem whose state is one number, with any score.
        stepper: A one-step method whose steps are normal given the state, such as ``euler-maruyama``, or ``ddim`` with
            η > 0; a registry name or a stepper.
        grid: Times of the run.
        initial: Law of the initial state: a Gaussian, a mixture, points, or the answer of another run.
        spacing: Of the nodes, over the width of what is integrated. Halve it to see that nothing changes.

    Returns:
        The law, for comparison with the exact one from the same initial law: ``.wasserstein2(law)``.

    Raises:
        SdekitError: a run without noise, a state of more than one number, a step that is not affine in its noise, that
            remembers the one before or that adds no noise, or a kernel too narrow for 200 000 nodes.
    """
    chosen, nodes = registry.get(stepper), doors.grid_of(sde, grid, None)
    registry.check(chosen, sde)
    times = list(dict.fromkeys(nodes.tolist()))
    law = _as_density(initial)
    with torch.no_grad():
        kernels = _kernels(sde, chosen, times, initial.event_shape)
        start = law.mean + torch.linspace(-1.5, 2.0, 5, dtype=torch.float64) * law.variance.sqrt()
        kernels.steps.check_memory(start[:, None], "transported_law")
        for k in range(len(times) - 1):
            x, weights = _quadrature(law, kernels, k, spacing)
            law = Density1D(weights, *kernels(k, x))
    return law


def _as_density(initial: Law | Density1D) -> Density1D:
    if isinstance(initial, Density1D):
        return initial
    if initial.event_shape.numel() != 1:
        raise SdekitError(f"transported_law is for the line; the initial law has shape {tuple(initial.event_shape)}.")
    if isinstance(initial, Empirical):
        points = initial.points.flatten().double().cpu()
        return Density1D(torch.full_like(points, 1 / len(points)), points, torch.zeros_like(points))
    if not isinstance(initial, Gaussian | GaussianMixture):
        raise SdekitError(f"The initial law must be a Gaussian, a mixture or points; got {type(initial).__name__}.")
    parts = initial.components if isinstance(initial, GaussianMixture) else (initial,)
    weights = initial.weights if isinstance(initial, GaussianMixture) else torch.ones(1, dtype=torch.float64)
    means = torch.stack([part.mean.flatten()[0] for part in parts])
    sds = torch.stack([part.variance.flatten()[0] for part in parts]).sqrt()
    used = weights > 0
    return Density1D(*(v[used].double().cpu() for v in (weights, means, sds)))


@dataclass(frozen=True)
class _Kernels:
    """The normal kernels of the production stepper, step by step."""

    steps: Steps

    @property
    def name(self) -> str:
        return self.steps.name

    def advance(self, k: int, x: Tensor, z: Tensor) -> Tensor:
        """Step k from states (B,) with standard normals (B, J)."""
        return self.steps.advance(k, x[:, None], z)[0][:, 0]

    def __call__(self, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Conditional means and standard deviations of step k at states ``x``."""
        n, count = len(x), self.steps.normals(k)
        z = torch.cat([torch.zeros(1, count), torch.eye(count), witness(1, count)]).double()
        y = self.advance(k, x.repeat(len(z)), z.repeat_interleave(n, 0)).reshape(-1, n)
        if not bool(y.isfinite().all()):
            span = f"[{float(x.min()):.3g}, {float(x.max()):.3g}]"
            raise SdekitError(
                f"Step {k} of {self.name} gives NaN or Inf for some states in {span}, where the law lives."
            )
        mean, effects = y[0], y[1:-1] - y[0]
        error = float((y[-1] - mean - z[-1] @ effects).abs().max())
        allowed = _SUPERPOSITION * float(effects.abs().max()) + _ROUNDING * float(y.abs().max())
        if error > allowed:
            raise SdekitError(
                f"Step {k} of {self.name} is not affine in its noise (superposition fails by {error:.2g}), so its "
                "kernel is not normal and transported_law does not apply: compare with samples instead."
            )
        return mean, effects.norm(dim=0)


def _kernels(sde: SDE, stepper: Stepper, times: list[float], shape: torch.Size) -> _Kernels:
    steps = Steps.of(sde, stepper, times, shape)
    silent = next((k for k in range(len(steps)) if steps.normals(k) == 0), None)
    if silent is not None:
        where = "draws no noise" if steps.noise is None else f"draws no noise in step {silent}"
        raise SdekitError(
            f"{stepper.spec.name} {where} on this problem, so it has no density to transport: a deterministic solver "
            "is compared with the exact flow, verify.quantile_flow."
        )
    return _Kernels(steps)


def _quadrature(law: Density1D, kernels: _Kernels, k: int, spacing: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights that integrate a law against the kernel of step k."""
    if not law.sds.any():
        return law.means, law.weights
    low, high = law.support
    probes = torch.linspace(low, high, _PROBES, dtype=torch.float64)
    mean, sd = kernels(k, probes)
    narrowest = min(float(law.sds.min()), float(sd.min()))
    if not narrowest > 0.0:
        raise SdekitError(
            f"Around step {k} of {kernels.name} some states get no noise: the law has no density there, and "
            "transported_law cannot follow it. Begin or end the run where the noise does not vanish."
        )
    stretch = float((mean.diff().abs() / probes.diff() / torch.minimum(sd[1:], sd[:-1])).max())
    width = spacing / math.hypot(1 / float(law.sds.min()), stretch)
    if (high - low) / width > _MAX_NODES:
        raise SdekitError(
            f"Step {k} of {kernels.name} needs {(high - low) / width:.2g} nodes, more than {_MAX_NODES}: its noise is "
            f"too small for a law that spans [{low:.3g}, {high:.3g}]. Take fewer steps, or a narrower law."
        )
    x = _uniform(low, high, width)
    weights = law.on_grid(x) * (x[1] - x[0])
    kept = weights > _TINY * 1e-3
    mass = float(weights[kept].sum())
    if not abs(mass - 1) < _MASS:
        raise SdekitError(f"Before step {k} of {kernels.name} the density holds {mass:.12g} on {len(x)} nodes, not 1.")
    return x[kept], weights[kept] / mass


def _uniform(low: float, high: float, spacing: float) -> Tensor:
    """Equidistant nodes from ``low`` to ``high``, no further apart than ``spacing``."""
    return torch.linspace(low, high, math.ceil((high - low) / spacing) + 1, dtype=torch.float64)
