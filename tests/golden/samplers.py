"""Samplers on one axis of Gaussian data: from noisier times s to cleaner times t.

Where the process has a shift (OU with μ ≠ 0), the papers' x is what is left without it.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import Form, mp, noise
from golden.processes import Line


def ddim(line: Line, eta, times, x: Form, i: int) -> Form:
    """2010.02502 Eq. (12) with Eq. (16).

    In terms of ᾱ = α² and 1 − ᾱ = σ²: x_t = √ᾱ_t x̂₀ + √(1 − ᾱ_t − s²) ε + s z with
    s² = η² (1 − ᾱ_t)/(1 − ᾱ_s) · (1 − ᾱ_s/ᾱ_t). Its second factor is the variance of X_s given X_t on VP; on any other
    process that variance is σ_s² − (α_s/α_t)² σ_t².
    """
    p = line.process
    for k, (s, t) in enumerate(pairwise(times)):
        denoised = line.denoised(s, x)
        epsilon = (x - line.shift(s) - p.alpha(s) * denoised) / p.sigma(s)
        gained = p.sigma(s) ** 2 - (p.alpha(s) / p.alpha(t)) ** 2 * p.sigma(t) ** 2
        variance = mp.mpf(eta) ** 2 * p.sigma(t) ** 2 / p.sigma(s) ** 2 * gained
        z = noise(k, i) if eta else 0
        x = p.alpha(t) * denoised + mp.sqrt(p.sigma(t) ** 2 - variance) * epsilon + mp.sqrt(variance) * z
        x = x + line.shift(t)
    return x


def dpmpp_2m(line: Line, eta, times, x: Form, i: int) -> Form:
    """2211.01095 Algorithm 2: the first step has order one; D extrapolates the last two predictions after that."""
    p = line.process
    lam = lambda t: mp.log(p.alpha(t) / p.sigma(t))  # noqa: E731
    x = x - line.shift(times[0])
    previous = None
    for k in range(1, len(times)):
        s, t = times[k - 1], times[k]
        h = lam(t) - lam(s)
        newest = line.denoised(s, x + line.shift(s))
        D = newest
        if previous is not None:
            r = (lam(s) - lam(times[k - 2])) / h
            D = (1 + 1 / (2 * r)) * newest - 1 / (2 * r) * previous
        x = p.sigma(t) / p.sigma(s) * x - p.alpha(t) * (mp.exp(-h) - 1) * D
        previous = newest
    return x + line.shift(times[-1])


def exact_linear(line: Line, eta, times, x: Form, i: int) -> Form:
    r"""The exact conditional law of the reverse-time SDE, which no grid enters.

    Along an axis $v_t = \alpha_t^2\lambda + \sigma_t^2$, so $g^2 = v' - 2 f v$ and the deviation y from the centre has
    $dy = [-\eta^2 f + \tfrac{1+\eta^2}{2} v'/v]\,y\,dt + \eta g\,d\bar W$. Its linear part integrates to
    $\psi = (\alpha_s/\alpha_t)^{\eta^2} (v_t/v_s)^{(1+\eta^2)/2}$; the variance gained is $v_t - \psi^2 v_s$ because
    the marginals are kept. η = 0 is the flow map √(v_t/v_s), η = 1 the regression of X_t on X_s.
    """
    p, (s, t) = line.process, (times[0], times[-1])
    centre = lambda u: p.alpha(u) * line.mean + line.shift(u)  # noqa: E731
    v = lambda u: p.alpha(u) ** 2 * line.variance + p.sigma(u) ** 2  # noqa: E731
    square = mp.mpf(eta) ** 2
    psi = (p.alpha(s) / p.alpha(t)) ** square * (v(t) / v(s)) ** ((1 + square) / 2)
    z = noise(0, i) if eta else 0
    return centre(t) + psi * (x - centre(s)) + mp.sqrt(v(t) - psi**2 * v(s) if eta else 0) * z


def exact_forward(line: Line, times, x: Form, i: int) -> Form:
    """X_t | X_s of the forward process: α_t/α_s x + … + N(0, σ_t² − (α_t/α_s)² σ_s²)."""
    p, (s, t) = line.process, (times[0], times[-1])
    kept = p.alpha(t) / p.alpha(s)
    gained = p.sigma(t) ** 2 - kept**2 * p.sigma(s) ** 2
    return kept * (x - line.shift(s)) + line.shift(t) + mp.sqrt(gained) * noise(0, i)
