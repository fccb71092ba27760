r"""The forward processes again, from the papers, in 40 digits.

$dx = (f x + b\,q)\,dt + g\,dW$ has $X_t = \alpha_t x_0 + \text{shift}_t\,q + \sigma_t\varepsilon$; q is a constant
vector: the mean μ of an Ornstein–Uhlenbeck process, the drift of Brownian motion. Each entry states α, σ, f and g²
separately; ``tests/test_golden.py`` checks that they belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from golden.form import Form, mp

Function = Callable[[object], object]


def _zero(t):
    return mp.zero


def _one(t):
    return mp.one


@dataclass(frozen=True)
class Process:
    """α, σ, drift rate f, squared diffusion g²; source b and shift, for one unit of q."""

    alpha: Function
    sigma: Function
    f: Function
    g2: Function
    source: Function = _zero
    shift: Function = _zero


def vp(beta_min, beta_max) -> Process:
    """2011.13456 Eq. (11), (32)–(33): β linear on [0, 1]."""
    a, b = mp.mpf(beta_min), mp.mpf(beta_max)
    beta = lambda t: a + t * (b - a)  # noqa: E731
    integral = lambda t: a * t + t**2 * (b - a) / 2  # noqa: E731
    return Process(
        alpha=lambda t: mp.exp(-integral(t) / 2),
        sigma=lambda t: mp.sqrt(1 - mp.exp(-integral(t))),
        f=lambda t: -beta(t) / 2,
        g2=beta,
    )


def sub_vp(beta_min, beta_max) -> Process:
    """2011.13456 Eq. (12), (29): g² = β(1 − e^{−2∫β}), variance [1 − e^{−∫β}]²."""
    a, b = mp.mpf(beta_min), mp.mpf(beta_max)
    beta = lambda t: a + t * (b - a)  # noqa: E731
    integral = lambda t: a * t + t**2 * (b - a) / 2  # noqa: E731
    return Process(
        alpha=lambda t: mp.exp(-integral(t) / 2),
        sigma=lambda t: 1 - mp.exp(-integral(t)),
        f=lambda t: -beta(t) / 2,
        g2=lambda t: beta(t) * (1 - mp.exp(-2 * integral(t))),
    )


def ve(sigma_min, sigma_max) -> Process:
    """2011.13456 Eq. (9), (30)–(31): σ geometric, g = σ √(2 log(σ_max/σ_min))."""
    low, high = mp.mpf(sigma_min), mp.mpf(sigma_max)
    sigma = lambda t: low * (high / low) ** t  # noqa: E731
    return Process(_one, sigma, _zero, lambda t: sigma(t) ** 2 * 2 * mp.log(high / low))


def cosine(offset) -> Process:
    """2102.09672 Eq. (17): ᾱ = [cos(π/2 (t + s)/(1 + s)) / cos(π/2 s/(1 + s))]², in continuous time."""
    s = mp.mpf(offset)
    angle = lambda t: mp.pi / 2 * (t + s) / (1 + s)  # noqa: E731
    alpha = lambda t: mp.cos(angle(t)) / mp.cos(angle(0))  # noqa: E731
    beta = lambda t: mp.pi / (1 + s) * mp.tan(angle(t))  # noqa: E731
    return Process(alpha, lambda t: mp.sqrt(1 - alpha(t) ** 2), lambda t: -beta(t) / 2, beta)


def edm() -> Process:
    """2206.00364 Table 1: σ = t, s = 1, so g² = 2t."""
    return Process(_one, mp.mpf, _zero, lambda t: 2 * mp.mpf(t))


def flow() -> Process:
    """2210.02747: x_t = (1 − t) x₀ + t ε, noise at t = 1; f = α'/α, g² = (σ²)' − 2fσ²."""
    return Process(
        alpha=lambda t: 1 - mp.mpf(t),
        sigma=mp.mpf,
        f=lambda t: -1 / (1 - mp.mpf(t)),
        g2=lambda t: 2 * t + 2 * mp.mpf(t) ** 2 / (1 - mp.mpf(t)),
    )


def ou(theta, sigma) -> Process:
    """dx = θ(μ − x) dt + σ dW, with q = μ."""
    rate, level = mp.mpf(theta), mp.mpf(sigma)
    return Process(
        alpha=lambda t: mp.exp(-rate * t),
        sigma=lambda t: level * mp.sqrt((1 - mp.exp(-2 * rate * t)) / (2 * rate)),
        f=lambda t: -rate,
        g2=lambda t: level**2,
        source=lambda t: rate,
        shift=lambda t: 1 - mp.exp(-rate * t),
    )


def ddpm_chain(betas) -> Process:
    """2006.11239 Eq. (2), (4): ᾱ_i = ∏(1 − β_j) at t = i/L. Nothing is said of other times, nor of a drift."""
    alpha_bar = [mp.one]
    for beta in betas:
        alpha_bar.append(alpha_bar[-1] * (1 - mp.mpf(beta)))
    at = lambda t: alpha_bar[int(mp.nint(t * len(betas)))]  # noqa: E731
    return Process(lambda t: mp.sqrt(at(t)), lambda t: mp.sqrt(1 - at(t)), _unknown, _unknown)


def _unknown(t):
    raise NotImplementedError("a chain has no drift between its times")


def brownian(noise) -> Process:
    """dx = q dt + s dW."""
    s = mp.mpf(noise)
    return Process(_one, lambda t: s * mp.sqrt(t), _zero, lambda t: s**2, _one, mp.mpf)


@dataclass(frozen=True)
class Line:
    """A process on one axis of Gaussian data: x₀ ~ N(mean, variance), and q there. Affine in x throughout."""

    process: Process
    mean: object
    variance: object
    q: object

    def shift(self, t):
        return self.process.shift(t) * self.q

    def score(self, t, x: Form) -> Form:
        """X_t ~ N(α m + shift, α² v + σ²)."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        return -(x - (alpha * self.mean + self.shift(t))) / (alpha**2 * self.variance + sigma**2)

    def denoised(self, t, x: Form) -> Form:
        """E[x₀ | x_t], by the rule for jointly Gaussian variables."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x - (alpha * self.mean + self.shift(t)))

    def drift(self, t, x: Form) -> Form:
        """Of the forward process."""
        return self.process.f(t) * x + self.process.source(t) * self.q

    def reverse_drift(self, t, x: Form, eta) -> Form:
        """2011.13456 Eq. (6) at η = 1 and Eq. (13) at η = 0, which differ in the weight of g² s; both run back."""
        return self.drift(t, x) - (1 + mp.mpf(eta) ** 2) / 2 * self.process.g2(t) * self.score(t, x)
