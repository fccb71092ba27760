"""Langevin chains, from their papers: linear ones as forms, Metropolis steps on numbers.

A normal that is drawn beside the path has a symbol of its own, for every step, draw and axis.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import Form, mp, noise
from golden.processes import Line


def fresh(k: int, j: int, i: int) -> Form:
    """Draw j beside the path in step k, along axis i."""
    return Form({("fresh", k, j, i): mp.one})


def ula(mean, variance, times, x: Form, i: int) -> Form:
    """Durmus et al. 2019, (1): X + γ ∇log q(X) + √(2γ) Z, on one axis of a Gaussian q."""
    for k, (s, t) in enumerate(pairwise(times)):
        x = x + (t - s) * (mean - x) / variance + mp.sqrt(2 * (t - s)) * noise(k, i)
    return x


def annealed(steps: int, epsilon=None):
    """1907.05600 Algorithm 1 on y = (x − m)/α, whose noise level is σ/α; levels are the times after the first."""

    def law(line: Line, eta, times, x: Form, i: int) -> Form:
        p, y = line.process, (x - line.shift(times[0])) / line.process.alpha(times[0])
        level = lambda t: p.sigma(t) / p.alpha(t)  # noqa: E731
        least = min(level(t) for t in times[1:])
        given = mp.mpf(1) / 5 * least**2 if epsilon is None else mp.mpf(epsilon)
        for k, t in enumerate(times[1:]):
            a = given * level(t) ** 2 / least**2
            for j in range(steps):
                score = p.alpha(t) * line.score(t, p.alpha(t) * y + line.shift(t))
                y = y + a / 2 * score + mp.sqrt(a) * fresh(k, j, i)
        return p.alpha(times[-1]) * y + line.shift(times[-1])

    return law


def corrected(predict, size, steps: int = 1, per_step: bool = True):
    """2011.13456 Algorithm 1 with x + ε s + √(2ε) z, of ε = c σ_t² or c times the variance σ_t² (1 − e^{−2h})."""

    def law(line: Line, eta, times, x: Form, i: int) -> Form:
        p = line.process
        for k, (s, t) in enumerate(pairwise(times)):
            x = predict(line, eta, k, s, t, x, i)
            ratio = (p.alpha(s) * p.sigma(t) / (p.alpha(t) * p.sigma(s))) ** 2
            share = 1 - min(ratio, 1 / ratio) if per_step else 1
            e = mp.mpf(size) * p.sigma(t) ** 2 * share
            for j in range(steps):
                x = x + e * line.score(t, x) + mp.sqrt(2 * e) * fresh(k, j, i)
        return x

    return law


def reverse_diffusion_step(line: Line, eta, k: int, s, t, x: Form, i: int) -> Form:
    """2011.13456 (46), with f = (a − 1) x and G² = σ_s² − a² σ_t² for a = α_s/α_t; half the score without noise."""
    p = line.process
    a = p.alpha(s) / p.alpha(t)
    square = p.sigma(s) ** 2 - a**2 * p.sigma(t) ** 2
    y = x - line.shift(s)
    y = (2 - a) * y + (1 + mp.mpf(eta) ** 2) / 2 * square * line.score(s, x)
    return y + line.shift(t) + (eta * mp.sqrt(square) * noise(k, i) if eta else 0)


def metropolis(log_prob, score, gamma, x, z, uniform):
    """Roberts & Tweedie 1996: a Langevin proposal, and the ratio π(y) q(y, x) / π(x) q(x, y) as it is printed.

    Numbers of 40 digits, a list for every coordinate; returns the new state and the probability of accepting.
    """
    y = [a + gamma * g + mp.sqrt(2 * gamma) * b for a, g, b in zip(x, score(x), z, strict=True)]

    def proposal(start, end):
        steps = zip(start, score(start), end, strict=True)
        return mp.exp(-sum((e - a - gamma * g) ** 2 for a, g, e in steps) / (4 * gamma))

    ratio = mp.exp(log_prob(y) - log_prob(x)) * proposal(y, x) / proposal(x, y)
    return (y if uniform < ratio else x), min(ratio, mp.one)
