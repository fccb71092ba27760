"""Ancestral samplers and those of EDM, from their papers.

Where a paper speaks of its own process only, a_s|t = α_s/α_t and b = σ_s² − a² σ_t² stand for its √α_t and β_t.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import Form, mp, noise
from golden.processes import Line


def _chain(line: Line, s, t):
    p = line.process
    a = p.alpha(s) / p.alpha(t)
    return a, p.sigma(s) ** 2 - a**2 * p.sigma(t) ** 2


def _ddpm(line: Line, times, x: Form, i: int, posterior: bool) -> Form:
    p, y = line.process, x - line.shift(times[0])
    for k, (s, t) in enumerate(pairwise(times)):
        a, b = _chain(line, s, t)
        epsilon = (y - p.alpha(s) * line.denoised(s, y + line.shift(s))) / p.sigma(s)
        variance = b * p.sigma(t) ** 2 / p.sigma(s) ** 2 if posterior else b
        y = (y - b / p.sigma(s) * epsilon) / a + mp.sqrt(variance) * noise(k, i)
    return y + line.shift(times[-1])


def ddpm(line: Line, eta, times, x: Form, i: int) -> Form:
    """2006.11239 Algorithm 2 with the variance β̃ of Eq. (7)."""
    return _ddpm(line, times, x, i, posterior=True)


def ddpm_beta(line: Line, eta, times, x: Form, i: int) -> Form:
    """2006.11239 Algorithm 2 with the variance β."""
    return _ddpm(line, times, x, i, posterior=False)


def ancestral_ve(line: Line, eta, times, x: Form, i: int) -> Form:
    """2011.13456 Eq. (47), on y = x/α, whose σ is σ/α and whose score is α times that of x."""
    p, y = line.process, (x - line.shift(times[0])) / line.process.alpha(times[0])
    rho = lambda u: p.sigma(u) / p.alpha(u)  # noqa: E731
    for k, (s, t) in enumerate(pairwise(times)):
        gained = rho(s) ** 2 - rho(t) ** 2
        score = p.alpha(s) * line.score(s, p.alpha(s) * y + line.shift(s))
        y = y + gained * score + mp.sqrt(rho(t) ** 2 * gained / rho(s) ** 2) * noise(k, i)
    return p.alpha(times[-1]) * y + line.shift(times[-1])


def reverse_diffusion(line: Line, eta, times, x: Form, i: int) -> Form:
    """2011.13456 Eq. (46) with f = (a − 1) x and G² = b; its probability flow has half the score and no noise."""
    y = x - line.shift(times[0])
    for k, (s, t) in enumerate(pairwise(times)):
        a, b = _chain(line, s, t)
        score = line.score(s, y + line.shift(s))
        z = eta * mp.sqrt(b) * noise(k, i) if eta else 0
        y = y - (a - 1) * y + (1 + mp.mpf(eta) ** 2) / 2 * b * score + z
    return y + line.shift(times[-1])


def edm(heun: bool, churn=None):
    """2206.00364 Algorithm 2, with its S_churn, S_min, S_max and S_noise; ``heun`` for the second half of a step."""

    def law(line: Line, eta, times, x: Form, i: int) -> Form:
        p, y = line.process, (x - line.shift(times[0])) / line.process.alpha(times[0])
        sigma = lambda u: p.sigma(u) / p.alpha(u)  # noqa: E731
        slope = lambda u, y: (y - line.denoised(u, p.alpha(u) * y + line.shift(u))) / sigma(u)  # noqa: E731
        for k, (s, t) in enumerate(pairwise(times)):
            level, at = sigma(s), s
            if churn is not None:
                amount, low, high, scale, time_of = churn
                gamma = min(mp.mpf(amount) / (len(times) - 1), mp.sqrt(2) - 1) if low <= level <= high else 0
                level = min(sigma(s) * (1 + gamma), sigma(times[0]))
                at = s if level == sigma(s) else time_of(level)
                y = y + mp.sqrt(level**2 - sigma(s) ** 2) * scale * noise(k, i)
            d = slope(at, y)
            new = y + (sigma(t) - level) * d
            if heun:
                new = y + (sigma(t) - level) * (d + slope(t, new)) / 2
            y = new
        return p.alpha(times[-1]) * y + line.shift(times[-1])

    return law
