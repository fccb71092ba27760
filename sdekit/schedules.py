r"""Noise schedules: $x_t = \alpha_t x_0 + \sigma_t \varepsilon$.

A schedule is the pair $(\alpha, \sigma)$ as functions of time, with the half-log-SNR
$\lambda = \log(\alpha/\sigma)$, its inverse ``time_at``, and the rates of the linear SDE that has these
marginals, $dx = f x\,dt + g\,dW$:

$$ f = \frac{d\log\alpha}{dt}, \qquad g^2 = \frac{d\sigma^2}{dt} - 2 f \sigma^2 . $$

Every function takes a Python float or a float64 tensor and returns the same kind. All are closed forms,
written so that no digit is lost at either end: $\sigma^2$ through ``expm1``, $\lambda$ through logarithms of
integrals and never as a difference of logarithms of rounded numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import final

from sdekit import elementary as el
from sdekit.errors import SdekitError
from sdekit.typing import Scalar


class Schedule(ABC):
    """Signal and noise levels as functions of time, on ``[0, end]``."""

    end: float = 1.0
    """The last time at which the schedule is defined."""

    noiseless: float | None = None
    """The time with σ = 0 (λ = +∞), if any: no reverse problem may reach it."""

    signalless: float | None = None
    """The time with α = 0 (λ = −∞), if any: no problem may reach it."""

    @abstractmethod
    def log_alpha(self, t: Scalar) -> Scalar:
        r"""$\log \alpha_t$."""

    @abstractmethod
    def sigma(self, t: Scalar) -> Scalar:
        r"""$\sigma_t$."""

    @abstractmethod
    def lam(self, t: Scalar) -> Scalar:
        r"""$\lambda_t = \log(\alpha_t / \sigma_t)$, decreasing in time."""

    @abstractmethod
    def time_at(self, lam: Scalar) -> Scalar:
        r"""The time with $\lambda_t$ = ``lam``."""

    @abstractmethod
    def drift_rate(self, t: Scalar) -> Scalar:
        r"""$f(t) = d\log\alpha_t/dt$."""

    @abstractmethod
    def diffusion_rate(self, t: Scalar) -> Scalar:
        r"""$g^2(t) = d\sigma_t^2/dt - 2 f \sigma_t^2$."""

    def alpha(self, t: Scalar) -> Scalar:
        r"""$\alpha_t$."""
        return el.exp(self.log_alpha(t))

    def time_on_path(self, u: Scalar) -> Scalar:
        r"""The time with $\sigma/(\alpha + \sigma)$ = ``u``, strictly between 0 and 1: $\lambda = \log((1 - u)/u)$."""
        return self.time_at(el.log1p(-u) - el.log(u))


class PreservingSchedule(Schedule):
    r"""Variance-preserving schedules, $\alpha^2 + \sigma^2 = 1$, from $B = -2\log\alpha$.

    With $B_t = \int_0^t \beta$: $\sigma^2 = 1 - e^{-B}$, $\lambda = -\tfrac12 \log(e^B - 1)$, and $g^2 = -2f = \beta$.
    """

    noiseless = 0.0

    @abstractmethod
    def integral(self, t: Scalar) -> Scalar:
        r"""$B_t = -2 \log \alpha_t$, increasing from 0."""

    @abstractmethod
    def inverse_integral(self, value: Scalar) -> Scalar:
        r"""The time with $B_t$ = ``value``."""

    @abstractmethod
    def beta(self, t: Scalar) -> Scalar:
        r"""$\beta_t = dB/dt$."""

    def log_alpha(self, t: Scalar) -> Scalar:
        return -0.5 * self.integral(t)

    def sigma(self, t: Scalar) -> Scalar:
        return el.sqrt(-el.expm1(-self.integral(t)))

    def lam(self, t: Scalar) -> Scalar:
        return -0.5 * el.log_expm1(self.integral(t))

    def time_at(self, lam: Scalar) -> Scalar:
        return self.inverse_integral(el.softplus(-2.0 * lam))

    def drift_rate(self, t: Scalar) -> Scalar:
        return -0.5 * self.beta(t)

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return self.beta(t)


class ExplodingSchedule(Schedule):
    r"""Variance-exploding schedules, $\alpha = 1$: $\lambda = -\log\sigma$ and $g^2 = d\sigma^2/dt$."""

    def log_alpha(self, t: Scalar) -> Scalar:
        return 0.0 * t

    def lam(self, t: Scalar) -> Scalar:
        return -el.log(self.sigma(t))

    def drift_rate(self, t: Scalar) -> Scalar:
        return 0.0 * t


def _require(fits: bool, wanted: str, **parameters: float) -> None:
    if not fits:
        got = ", ".join(f"{name} = {value:g}" for name, value in parameters.items())
        raise SdekitError(f"This schedule needs {wanted}; got {got}.")


def _require_beta(beta_min: float, beta_max: float) -> None:
    fits = min(beta_min, beta_max) >= 0.0 < max(beta_min, beta_max) < math.inf
    _require(fits, "β(t) ≥ 0 and not 0 throughout", beta_min=beta_min, beta_max=beta_max)


def _linear_beta_integral(beta_min: float, beta_max: float, t: Scalar) -> Scalar:
    return t * (beta_min + 0.5 * (beta_max - beta_min) * t)


def _linear_beta_time(beta_min: float, beta_max: float, integral: Scalar) -> Scalar:
    """The positive root of the quadratic, in the form that does not cancel."""
    root = el.sqrt(beta_min**2 + 2.0 * (beta_max - beta_min) * integral)
    return 2.0 * integral / (beta_min + root)


@final
@dataclass(frozen=True)
class LinearBeta(PreservingSchedule):
    r"""$\beta_t = \beta_{\min} + (\beta_{\max} - \beta_{\min})\,t$ on [0, 1]."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _require_beta(self.beta_min, self.beta_max)

    def integral(self, t: Scalar) -> Scalar:
        return _linear_beta_integral(self.beta_min, self.beta_max, t)

    def inverse_integral(self, value: Scalar) -> Scalar:
        return _linear_beta_time(self.beta_min, self.beta_max, value)

    def beta(self, t: Scalar) -> Scalar:
        return self.beta_min + (self.beta_max - self.beta_min) * t


@final
@dataclass(frozen=True)
class SubLinearBeta(Schedule):
    r"""Sub-VP: α as for :class:`LinearBeta`, $\sigma = 1 - e^{-B}$, so $e^{-\lambda} = 2\sinh(B/2)$."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    noiseless = 0.0

    def __post_init__(self) -> None:
        _require_beta(self.beta_min, self.beta_max)

    def _integral(self, t: Scalar) -> Scalar:
        return _linear_beta_integral(self.beta_min, self.beta_max, t)

    def log_alpha(self, t: Scalar) -> Scalar:
        return -0.5 * self._integral(t)

    def sigma(self, t: Scalar) -> Scalar:
        return -el.expm1(-self._integral(t))

    def lam(self, t: Scalar) -> Scalar:
        integral = self._integral(t)
        return -0.5 * integral - el.log(-el.expm1(-integral))

    def time_at(self, lam: Scalar) -> Scalar:
        integral = 2.0 * el.asinh(0.5 * el.exp(-lam))
        return _linear_beta_time(self.beta_min, self.beta_max, integral)

    def drift_rate(self, t: Scalar) -> Scalar:
        return -0.5 * (self.beta_min + (self.beta_max - self.beta_min) * t)

    def diffusion_rate(self, t: Scalar) -> Scalar:
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        return -beta * el.expm1(-2.0 * self._integral(t))


@final
@dataclass(frozen=True)
class CosineAngle(PreservingSchedule):
    r"""$\alpha = \cos u / \cos u_0$ with $u = \tfrac{\pi}{2}\,\tfrac{t+s}{1+s}$; α = 0 at t = 1."""

    offset: float = 0.008
    signalless = 1.0

    def __post_init__(self) -> None:
        _require(0.0 <= self.offset < math.inf, "offset ≥ 0", offset=self.offset)

    @cached_property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1.0 + self.offset)

    @cached_property
    def _start(self) -> float:
        return self._rate * self.offset

    def _noise_to_signal(self, t: Scalar) -> Scalar:
        """σ²/α² = sin(u − u₀) sin(u + u₀) / cos²u, free of cancellation at t = 0."""
        u = self._rate * t
        return el.sin(u) * el.sin(u + 2.0 * self._start) / el.cos(u + self._start) ** 2

    def integral(self, t: Scalar) -> Scalar:
        return el.log1p(self._noise_to_signal(t))

    def lam(self, t: Scalar) -> Scalar:
        return -0.5 * el.log(self._noise_to_signal(t))

    def inverse_integral(self, value: Scalar) -> Scalar:
        # sin²u = sin²u₀ + σ² cos²u₀ and cos u = α cos u₀: atan2 is accurate at both ends.
        sine = el.sqrt(math.sin(self._start) ** 2 - el.expm1(-value) * math.cos(self._start) ** 2)
        cosine = el.exp(-0.5 * value) * math.cos(self._start)
        return el.atan2(sine, cosine) / self._rate - self.offset

    def beta(self, t: Scalar) -> Scalar:
        u = self._rate * t + self._start
        return 2.0 * self._rate * el.sin(u) / el.cos(u)


@final
@dataclass(frozen=True)
class GeometricSigma(ExplodingSchedule):
    r"""$\sigma_t = \sigma_{\min} (\sigma_{\max}/\sigma_{\min})^t$ on [0, 1]."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        fits = 0.0 < self.sigma_min < self.sigma_max < math.inf
        _require(fits, "0 < sigma_min < sigma_max", sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    @cached_property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Scalar) -> Scalar:
        return self.sigma_min * el.exp(self._log_ratio * t)

    def lam(self, t: Scalar) -> Scalar:
        return -math.log(self.sigma_min) - self._log_ratio * t

    def time_at(self, lam: Scalar) -> Scalar:
        return (-math.log(self.sigma_min) - lam) / self._log_ratio

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return 2.0 * self._log_ratio * self.sigma(t) ** 2


@final
@dataclass(frozen=True)
class SigmaTime(ExplodingSchedule):
    r"""EDM: $\sigma_t = t$, up to ``sigma_max``."""

    sigma_max: float = 80.0
    noiseless = 0.0

    def __post_init__(self) -> None:
        _require(0.0 < self.sigma_max < math.inf, "sigma_max > 0", sigma_max=self.sigma_max)

    @property
    def end(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def sigma(self, t: Scalar) -> Scalar:
        return 1.0 * t

    def time_at(self, lam: Scalar) -> Scalar:
        return el.exp(-lam)

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return 2.0 * t


@final
@dataclass(frozen=True)
class Interpolant(Schedule):
    r"""The straight line between data and noise, $\alpha = 1 - t$, $\sigma = t$."""

    noiseless = 0.0
    signalless = 1.0

    def log_alpha(self, t: Scalar) -> Scalar:
        return el.log(1.0 - t)

    def alpha(self, t: Scalar) -> Scalar:
        return 1.0 - t

    def sigma(self, t: Scalar) -> Scalar:
        return 1.0 * t

    def lam(self, t: Scalar) -> Scalar:
        return el.log(1.0 - t) - el.log(t)

    def time_at(self, lam: Scalar) -> Scalar:
        return el.expit(-lam)

    def drift_rate(self, t: Scalar) -> Scalar:
        return -1.0 / (1.0 - t)

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return 2.0 * t / (1.0 - t)


@final
@dataclass(frozen=True)
class DecayToStationary(Schedule):
    r"""Scalar Ornstein–Uhlenbeck: $\alpha = e^{-\theta t}$, $\sigma^2 = s^2 (1 - e^{-2\theta t}) / 2\theta$."""

    theta: float = 1.0
    noise: float = 1.0
    end: float = math.inf
    noiseless = 0.0

    @property
    def _log_scale(self) -> float:
        return math.log(self.noise) - 0.5 * math.log(2.0 * self.theta)

    def log_alpha(self, t: Scalar) -> Scalar:
        return -self.theta * t

    def sigma(self, t: Scalar) -> Scalar:
        return math.exp(self._log_scale) * el.sqrt(-el.expm1(-2.0 * self.theta * t))

    def lam(self, t: Scalar) -> Scalar:
        return -self._log_scale - 0.5 * el.log_expm1(2.0 * self.theta * t)

    def time_at(self, lam: Scalar) -> Scalar:
        return el.softplus(-2.0 * (lam + self._log_scale)) / (2.0 * self.theta)

    def drift_rate(self, t: Scalar) -> Scalar:
        return 0.0 * t - self.theta

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return 0.0 * t + self.noise**2


@final
@dataclass(frozen=True)
class SquareRootTime(ExplodingSchedule):
    r"""Brownian motion: $\sigma_t = s\sqrt t$."""

    noise: float = 1.0
    end: float = math.inf
    noiseless = 0.0

    def __post_init__(self) -> None:
        _require(0.0 < self.noise < math.inf, "noise > 0", noise=self.noise)

    def sigma(self, t: Scalar) -> Scalar:
        return self.noise * el.sqrt(t)

    def lam(self, t: Scalar) -> Scalar:
        return -math.log(self.noise) - 0.5 * el.log(t)

    def time_at(self, lam: Scalar) -> Scalar:
        return el.exp(-2.0 * lam) / self.noise**2

    def diffusion_rate(self, t: Scalar) -> Scalar:
        return 0.0 * t + self.noise**2
