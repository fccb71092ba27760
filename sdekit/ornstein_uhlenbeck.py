r"""Ornstein–Uhlenbeck processes and Brownian motion, with scalar, vector and matrix coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from sdekit import elementary as el
from sdekit import schedules
from sdekit.elementary import constant
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian, Law
from sdekit.linear import (
    GaussianKernel,
    LinearProcess,
    Operator,
    ScheduledProcess,
    apply_operator,
    check_interval,
)
from sdekit.typing import Shape, Time


@final
@dataclass(frozen=True)
class Brownian(ScheduledProcess):
    r"""Brownian motion with drift: $dx = c\,dt + s\,dW$, so $X_t \mid x_0 \sim \mathcal N(x_0 + c t, s^2 t)$."""

    rate: float | Tensor = 0.0
    noise: float = 1.0
    t_min: float = 1e-3
    t_max: float = 1.0

    @cached_property
    def schedule(self) -> schedules.SquareRootTime:
        return schedules.SquareRootTime(self.noise)

    def shift(self, t: Time) -> float | Tensor:
        time, rate = _beside(t, self.rate)
        return rate * time if rate.ndim or isinstance(t, Tensor) else float(rate) * float(t)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        rate = torch.as_tensor(self.rate, dtype=x.dtype, device=x.device)
        return rate.expand(x.shape)


def _beside(t: Time, *values: float | Tensor) -> list[Tensor]:
    """The time, one entry per sample in front of the event's dimensions, and ``values`` on its device; float64."""
    time = torch.as_tensor(t, dtype=torch.float64)
    tensors = [torch.as_tensor(v, dtype=torch.float64, device=time.device) for v in values]
    return [time.reshape(-1, *(1,) * max(v.ndim for v in tensors)) if time.ndim else time, *tensors]


@final
@dataclass(frozen=True, eq=False)
class OU(LinearProcess):
    r"""Ornstein–Uhlenbeck: $dx = \Theta(\mu - x)\,dt + \Sigma\,dW$.

    The kernel over h has matrix $e^{-\Theta h}$, shift $(1 - e^{-\Theta h})\mu$ and covariance
    $\int_0^h e^{-\Theta u}\Sigma\Sigma^\top e^{-\Theta^\top u}du$, by Van Loan's block exponential over a short time
    and doubling from there (the block exponential alone overflows for stiff Θ and long h).

    Args:
        theta: Θ: a float, a vector of the event's shape, or a (d, d) matrix.
        mu: μ: a float or a tensor of the event's shape.
        sigma: Σ: a float, a vector of the event's shape, or a (d, m) matrix.
        t_min: Default end of a grid near the data.
        t_max: Default end of a grid at the noise.

    References: [vanloan1978].
    """

    theta: float | Tensor = 1.0
    mu: float | Tensor = 0.0
    sigma: float | Tensor = 1.0
    t_min: float = 1e-3
    t_max: float = 5.0
    _diagonal: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("theta", "mu", "sigma"):
            value = getattr(self, name)
            if isinstance(value, Tensor) and value.ndim == 0:
                value = float(value)
            converted = value.to(torch.float64) if isinstance(value, Tensor) else float(value)
            object.__setattr__(self, name, converted)
        matrices = [v for v in (self.theta, self.sigma) if isinstance(v, Tensor) and v.ndim == 2]
        object.__setattr__(self, "_diagonal", not matrices)
        if isinstance(self.theta, Tensor) and self.theta.ndim == 2 and len(set(self.theta.shape)) > 1:
            raise SdekitError(f"theta must be square; got shape {tuple(self.theta.shape)}.")

    @cached_property
    def schedule(self) -> schedules.DecayToStationary | None:
        if isinstance(self.theta, float) and isinstance(self.sigma, float) and self.theta > 0 and self.sigma > 0:
            return schedules.DecayToStationary(self.theta, self.sigma)
        return None

    def drift(self, t: Time, x: Tensor) -> Tensor:
        if isinstance(self.mu, float) and self.mu == 0.0:
            return constant(-self.theta, x) * x if isinstance(self.theta, float) else apply_operator(-self.theta, x)
        mu = self.mu if isinstance(self.mu, float) else self.mu.to(x)
        return apply_operator(self.theta, mu - x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        if isinstance(self.sigma, float):
            return constant(self.sigma, x, x.shape)
        sigma = self.sigma.to(x)
        if sigma.ndim == 2:
            return sigma.reshape(*x.shape[1:], -1).expand(*x.shape, sigma.shape[-1])
        return sigma.expand(x.shape)

    def shift(self, t: Time) -> float | Tensor:
        if isinstance(self.mu, float) and self.mu == 0.0:
            return 0.0
        if self._diagonal:
            time, theta, mu = _beside(t, self.theta, self.mu)
            moved = -el.expm1(-theta * time) * mu
            return moved if moved.ndim or isinstance(t, Tensor) else float(moved)
        return self.transition(0.0, float(t)).shift

    def transition(self, s: float, t: float) -> GaussianKernel:
        check_interval(s, t, math.inf)
        h = t - s
        if self._diagonal:
            theta, sigma = (torch.as_tensor(v, dtype=torch.float64) for v in (self.theta, self.sigma))
            factor, spread = torch.exp(-theta * h), sigma**2 * _decayed(2.0 * theta, h)
            return GaussianKernel(_operator(factor), self.shift(h), _operator(spread))
        factor, spread = matrix_kernel(*self._matrices(), h)
        mu = torch.as_tensor(self.mu, dtype=torch.float64)
        if mu.ndim == 0:
            mu = mu.expand(len(factor))
        shift = mu - (factor @ mu.reshape(-1)).reshape(mu.shape)
        return GaussianKernel(factor, shift, spread)

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """Θ and ΣΣᵀ as (d, d) matrices."""
        d = next(len(v) for v in (self.theta, self.sigma) if isinstance(v, Tensor) and v.ndim == 2)
        theta, sigma = (torch.as_tensor(v, dtype=torch.float64) for v in (self.theta, self.sigma))
        eye = torch.eye(d, dtype=torch.float64)
        theta = theta if theta.ndim == 2 else theta.reshape(-1) * eye
        sigma = sigma if sigma.ndim == 2 else sigma.reshape(-1) * eye
        return theta, sigma @ sigma.T

    def marginal(self, law: Law, t: float) -> Law:
        return self.transition(0.0, t).push(law)

    def prior(self, event_shape: Shape) -> Gaussian:
        kernel = self.transition(0.0, self.t_max)
        mean = torch.zeros(tuple(event_shape), dtype=torch.float64) + kernel.shift
        return Gaussian(mean, kernel.covariance)

    def stationary(self, event_shape: Shape) -> Gaussian:
        r"""The stationary law $\mathcal N(\mu, S)$, $\Theta S + S\Theta^\top = \Sigma\Sigma^\top$.

        Raises:
            SdekitError: an eigenvalue of Θ has no positive real part, so there is none.
        """
        theta = torch.as_tensor(self.theta, dtype=torch.float64)
        rates = torch.linalg.eigvals(theta).real if theta.ndim == 2 else theta
        if float(rates.min()) <= 0.0:
            raise SdekitError(f"No stationary law: theta has the rate {float(rates.min()):g} ≤ 0.")
        mean = torch.zeros(tuple(event_shape), dtype=torch.float64) + self.mu
        if self._diagonal:
            return Gaussian(mean, _operator(torch.as_tensor(self.sigma, dtype=torch.float64) ** 2 / (2 * theta)))
        from scipy.linalg import solve_continuous_lyapunov

        theta, spread = self._matrices()
        solution = solve_continuous_lyapunov(theta.numpy(), spread.numpy())
        return Gaussian(mean, torch.from_numpy(solution))


def matrix_kernel(theta: Tensor, spread: Tensor, h: float) -> tuple[Tensor, Tensor]:
    r"""Matrix and covariance of the kernel of $dx = -\Theta x\,dt + \Sigma\,dW$ over h.

    Args:
        theta: Θ, shape (d, d), float64.
        spread: ΣΣᵀ, shape (d, d).
        h: Time, ≥ 0.

    Returns:
        $e^{-\Theta h}$ and $Q_h$: Van Loan's block exponential over a time with $|\Theta| h \le 1$, then
        $Q_{2h} = e^{-\Theta h} Q_h e^{-\Theta^\top h} + Q_h$. The block exponential alone overflows for stiff Θ and
        long h.

    References: [vanloan1978].
    """
    from scipy.linalg import expm  # scipy.linalg is half the import time of sdekit

    d = len(theta)
    halvings = max(0, math.ceil(math.log2(max(1e-300, float(theta.abs().sum(1).max()) * h))))
    block = torch.zeros(2 * d, 2 * d, dtype=torch.float64)
    block[:d, :d], block[:d, d:], block[d:, d:] = theta, spread, -theta.T
    # scipy's, not torch.linalg.matrix_exp, which loses four digits at norms near 0.05 (torch 2.13).
    block = torch.from_numpy(expm((block * (h / 2**halvings)).numpy()))
    factor = block[d:, d:].T
    covariance = factor @ block[:d, d:]
    for _ in range(halvings):
        covariance = covariance + factor @ covariance @ factor.T
        factor = factor @ factor
    return factor, 0.5 * (covariance + covariance.T)


def _operator(value: Tensor) -> Operator:
    return float(value) if value.ndim == 0 else value


def _decayed(rate: Tensor, h: float) -> Tensor:
    """∫₀ʰ e^{−rate·u} du, which is h at rate 0."""
    safe = torch.where(rate == 0, torch.ones_like(rate), rate)
    return torch.where(rate == 0, torch.full_like(rate, h), -el.expm1(-safe * h) / safe)
