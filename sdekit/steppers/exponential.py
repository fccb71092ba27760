r"""The coefficient generator: exact integrals of interpolated network outputs.

Write $q$ for what is interpolated: the denoised state D, the noise ε, or the rectified velocity ε − D. In each of them
the way back at η is a linear equation with an exact solution (variation of constants),

$$ x_t = \Phi_{ts}\,x_s + \int_s^t \Phi_{t\tau} B_\tau\,q_\tau\,d\tau + \text{noise} , $$

and a method is the choice of q, of a clock c, and of the nodes through which q is interpolated by a polynomial in c.
Its coefficients are $w_j = \int_s^t \Phi_{t\tau} B_\tau\,\ell_j(c_\tau)\,d\tau$ with Lagrange's polynomials $\ell_j$:
the moments $M_k = \int \Phi B\,(c - c_s)^k$ against the monomial coefficients of $\ell_j$. With
$h = \lambda_t - \lambda_s$, $a = (1 + \eta^2) h$, $u = \sigma/(\alpha + \sigma)$ and
$\psi_k(a) = \int_0^1 e^{-a(1-v)} v^k\,dv$:

| form | q | clock | $\Phi_{ts}$ | $M_k$ |
|---|---|---|---|---|
| :class:`Denoised` | D | λ | $e^{-\eta^2 h}\sigma_t/\sigma_s$ | $\alpha_t\,a\,\psi_k(a)\,h^k$ |
| :class:`Noise` | ε | λ | $\alpha_t/\alpha_s$ | $-(1 + \eta^2)\,\sigma_t\,h\,\psi_k(-h)\,h^k$ |
| :class:`Rectified` | ε − D | u | $r_t/r_s$ | $r_t\,(u_t - u_s)^{k+1}/(k+1)$, $r = \alpha + \sigma$ |

and :class:`Clocked` is D or ε in another clock, by quadrature. Nothing is divided by h, so an empty step has the
coefficients of the identity. Where h = ∞, at σ_t = 0 or α_s = 0, the weight of a single D is still exact; polynomials
belong to clocks that are finite there. All is differentiable with respect to the times.

References: [lu2022dpm], [lu2022dpmpp], [zhang2023deis], [xue2023sasolver], [hochbruck2010].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from sdekit import elementary as el
from sdekit.schedules import Schedule
from sdekit.typing import Prediction

_SERIES_BELOW = 3.0  # |a| under which ψ is summed; above it the recursion loses fewer than two digits
_TERMS = 32
_NODES = 64  # of Gauss and Legendre: exp(−100 (1 − v)) is integrated to rounding


@final
@dataclass(frozen=True)
class Levels:
    """Times with what a schedule says of them: float64, all of one shape."""

    schedule: Schedule
    t: Tensor
    lam: Tensor
    alpha: Tensor
    sigma: Tensor

    @classmethod
    def at(cls, schedule: Schedule, t: Tensor) -> Levels:
        """The levels at times t."""
        return cls(schedule, t, schedule.lam(t), schedule.alpha(t), schedule.sigma(t))

    def __getitem__(self, k: slice | Tensor) -> Levels:
        return Levels(self.schedule, self.t[k], self.lam[k], self.alpha[k], self.sigma[k])

    def __len__(self) -> int:
        return len(self.t)

    @property
    def rho(self) -> Tensor:
        r"""Noise to signal, $\rho = \sigma/\alpha = e^{-\lambda}$."""
        return torch.exp(-self.lam)


def psi(a: Tensor, count: int) -> list[Tensor]:
    r"""$\psi_k(a) = \int_0^1 e^{-a(1-v)} v^k\,dv$ for k < ``count``, at any real a.

    $\psi_k = (1 - k\,\psi_{k-1})/a$ from $\psi_0 = (1 - e^{-a})/a$; near 0 the series
    $\sum_j (-a)^j\,k!/(k + 1 + j)!$, since the recursion cancels there.
    """
    near = a.abs() < _SERIES_BELOW
    small, large = torch.where(near, a, 0.0), torch.where(near, 1.0, a)
    series = ((-small)[..., None] ** torch.arange(_TERMS)) @ _series(count)
    recursive = -el.expm1(-large) / large
    found = [torch.where(near, series[..., 0], recursive)]
    for k in range(1, count):
        recursive = (1.0 - k * recursive) / large
        found.append(torch.where(near, series[..., k], recursive))
    return found


@cache
def _series(count: int) -> Tensor:
    """The coefficients k!/(k + 1 + j)!, by j and k."""
    rows = [[math.factorial(k) / math.factorial(k + 1 + j) for k in range(count)] for j in range(_TERMS)]
    return torch.tensor(rows, dtype=torch.float64)


@cache
def gauss() -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return torch.from_numpy(0.5 * (nodes + 1.0)), torch.from_numpy(0.5 * weights)


class Form(ABC):
    """What is interpolated, in which clock, and the exact linear equation around it."""

    prediction: Prediction

    @abstractmethod
    def clock(self, at: Levels) -> Tensor:
        """c, in which q is a polynomial."""

    @abstractmethod
    def between(self, s: Levels, t: Levels, fraction: float) -> Levels:
        """The levels at this fraction of the way from s to t, in the clock."""

    @abstractmethod
    def carried(self, s: Levels, t: Levels, eta: float) -> Tensor:
        r"""$\Phi_{ts}$."""

    @abstractmethod
    def moments(self, s: Levels, t: Levels, eta: float, count: int) -> list[Tensor]:
        r"""$M_k = \int_s^t \Phi B\,(c - c_s)^k$, k < ``count``."""

    @abstractmethod
    def noise(self, s: Levels, t: Levels, eta: float) -> Tensor:
        """Standard deviation of the noise that a step adds."""


def weights(
    form: Form, s: Levels, t: Levels, nodes: Sequence[Levels], eta: float, midpoint: bool = False
) -> list[Tensor]:
    r"""$w_j = \int_s^t \Phi B\,\ell_j(c)$: what the outputs at ``nodes`` contribute to the step from s to t.

    Args:
        form: What is interpolated.
        s: Where the steps start, n of them.
        t: Where they end.
        nodes: Where q is known; p nodes make a polynomial of degree p − 1.
        eta: Of the reverse problem.
        midpoint: Whether to take the short cut $M_1 = \tfrac12 (c_t - c_s)\,M_0$ of DPM-Solver's second-order methods.
    """
    start = form.clock(s)
    places = [form.clock(node) - start for node in nodes]
    moments = form.moments(s, t, eta, len(nodes))
    if midpoint and len(nodes) > 1:
        moments[1] = 0.5 * (form.clock(t) - start) * moments[0]
    found = []
    for j, place in enumerate(places):
        others = [other for i, other in enumerate(places) if i != j]
        coefficients = [torch.ones_like(start)]  # of ∏ (c − others), lowest first
        scale = torch.ones_like(start)
        for other in others:
            shifted = [torch.zeros_like(start), *coefficients]
            kept = [*coefficients, torch.zeros_like(start)]
            coefficients = [a - other * b for a, b in zip(shifted, kept, strict=True)]
            scale = scale * (place - other)
        total = sum((m * c for m, c in zip(moments, coefficients, strict=True)), torch.zeros_like(start))
        found.append(total / scale)
    return found


class Exponential(Form):
    r"""D or ε in λ: $\Phi B\,d\lambda = b\,e^{-a(1-v)}\,dv$ with $v = (\lambda - \lambda_s)/h$."""

    @abstractmethod
    def kernel(self, s: Levels, t: Levels, eta: float) -> tuple[Tensor, Tensor]:
        """The pair (b, a)."""

    @abstractmethod
    def whole(self, s: Levels, t: Levels, eta: float) -> Tensor:
        r"""$M_0 = b\,(1 - e^{-a})/a$, in a form that is finite at both ends of a schedule."""

    def clock(self, at: Levels) -> Tensor:
        return at.lam

    def between(self, s: Levels, t: Levels, fraction: float) -> Levels:
        return Levels.at(s.schedule, s.schedule.time_at(torch.lerp(s.lam, t.lam, fraction)))

    def moments(self, s: Levels, t: Levels, eta: float, count: int) -> list[Tensor]:
        whole = self.whole(s, t, eta)
        if count == 1:
            return [whole]
        (b, a), h = self.kernel(s, t, eta), t.lam - s.lam
        return [whole, *[b * found * h**k for k, found in enumerate(psi(a, count)) if k]]


@final
@dataclass(frozen=True)
class Denoised(Exponential):
    """D, polynomial in λ."""

    prediction: Prediction = field(default="sample", init=False)

    def carried(self, s: Levels, t: Levels, eta: float) -> Tensor:
        ratio = t.sigma / s.sigma
        return ratio * torch.exp(-(eta**2) * (t.lam - s.lam)) if eta else ratio

    def kernel(self, s: Levels, t: Levels, eta: float) -> tuple[Tensor, Tensor]:
        a = (1.0 + eta**2) * (t.lam - s.lam)
        return t.alpha * a, a

    def whole(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return -t.alpha * el.expm1(-(1.0 + eta**2) * (t.lam - s.lam))

    def noise(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return t.sigma * torch.sqrt(-el.expm1(-2.0 * eta**2 * (t.lam - s.lam)))


@final
@dataclass(frozen=True)
class Noise(Exponential):
    """ε, polynomial in λ."""

    prediction: Prediction = field(default="epsilon", init=False)

    def carried(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return t.alpha / s.alpha

    def kernel(self, s: Levels, t: Levels, eta: float) -> tuple[Tensor, Tensor]:
        h = t.lam - s.lam
        return -(1.0 + eta**2) * t.sigma * h, -h

    def whole(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return (1.0 + eta**2) * t.alpha * s.rho * el.expm1(s.lam - t.lam)

    def noise(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return eta * t.alpha * s.rho * torch.sqrt(-el.expm1(2.0 * (s.lam - t.lam)))


Clock = tuple[Callable[[Levels], Tensor], Callable[[Schedule, Tensor], Tensor]]
"""What a clock reads at some levels, and the time at which a schedule's clock reads it."""


@final
@dataclass(frozen=True)
class Clocked(Form):
    r"""D or ε, polynomial in a clock c of your own: $M_k = b \int_0^1 e^{-a(1-v)} (c - c_s)^k\,dv$ by quadrature.

    Attributes:
        inner: :class:`Denoised` or :class:`Noise`.
        reading: c at some levels.
        time: The time at which a schedule's clock reads c.
    """

    inner: Exponential
    reading: Callable[[Levels], Tensor]
    time: Callable[[Schedule, Tensor], Tensor]

    @property
    def prediction(self) -> Prediction:  # type: ignore[override]
        return self.inner.prediction

    def clock(self, at: Levels) -> Tensor:
        return self.reading(at)

    def between(self, s: Levels, t: Levels, fraction: float) -> Levels:
        c = torch.lerp(self.reading(s), self.reading(t), fraction)
        return Levels.at(s.schedule, self.time(s.schedule, c))

    def carried(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return self.inner.carried(s, t, eta)

    def moments(self, s: Levels, t: Levels, eta: float, count: int) -> list[Tensor]:
        whole = self.inner.whole(s, t, eta)
        if count == 1:
            return [whole]
        (b, a), (v, w) = self.inner.kernel(s, t, eta), gauss()
        lam = torch.lerp(s.lam[:, None], t.lam[:, None], v)
        within = self.reading(Levels.at(s.schedule, s.schedule.time_at(lam))) - self.reading(s)[:, None]
        density = b[:, None] * torch.exp(-a[:, None] * (1.0 - v)) * w
        end = whole * (self.reading(t) - self.reading(s))  # where h = ∞ the weight of D is all at the end
        return [whole, *[torch.where(a.isfinite(), (density * within**k).sum(1), end**k) for k in range(1, count)]]

    def noise(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return self.inner.noise(s, t, eta)


def _time_of_rho(schedule: Schedule, rho: Tensor) -> Tensor:
    return schedule.time_at(-torch.log(rho))


IN_TIME: Clock = (lambda at: at.t, lambda schedule, t: t)
"""The clock t."""

IN_RHO: Clock = (lambda at: at.rho, _time_of_rho)
"""The clock ρ = σ/α."""


@final
@dataclass(frozen=True)
class Rectified(Form):
    r"""The velocity ε − D of the straight path, in u: $\tilde x = x/(\alpha + \sigma)$, $d\tilde x/du = ε - D$.

    For the flow. Both ends are regular: u = 0 at σ = 0, u = 1 at α = 0.
    """

    prediction: Prediction = field(default="rectified", init=False)

    def clock(self, at: Levels) -> Tensor:
        return at.sigma / (at.alpha + at.sigma)

    def between(self, s: Levels, t: Levels, fraction: float) -> Levels:
        u = torch.lerp(self.clock(s), self.clock(t), fraction)
        return Levels.at(s.schedule, s.schedule.time_on_path(u))

    def carried(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return (t.alpha + t.sigma) / (s.alpha + s.sigma)

    def moments(self, s: Levels, t: Levels, eta: float, count: int) -> list[Tensor]:
        du = self.clock(t) - self.clock(s)
        return [(t.alpha + t.sigma) * du ** (k + 1) / (k + 1) for k in range(count)]

    def noise(self, s: Levels, t: Levels, eta: float) -> Tensor:
        return torch.zeros_like(t.t)
