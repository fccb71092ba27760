"""Step methods on dx = f(t, x) dt + g(t) dW, in either direction of time: h = t − s has its sign.

``x`` is a form, or an array of forms; ``kick(k, t)`` is g(t) z_k.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import mp


def euler_maruyama(f, kick, times, x):
    """Maruyama 1955: Y + f h + g ΔW, both fields at the start of the step."""
    for k, (s, t) in enumerate(pairwise(times)):
        x = x + (t - s) * f(s, x) + mp.sqrt(abs(t - s)) * kick(k, s)
    return x


def euler(f, kick, times, x):
    """Euler 1768."""
    for s, t in pairwise(times):
        x = x + (t - s) * f(s, x)
    return x


def heun(f, kick, times, x):
    """The explicit trapezoidal rule (Heun 1900): the mean of the slopes at both ends, the second at the Euler point."""
    for s, t in pairwise(times):
        first = f(s, x)
        second = f(t, x + (t - s) * first)
        x = x + (t - s) / 2 * (first + second)
    return x


def rk4(f, kick, times, x):
    """Kutta 1901: the classical rule of order four."""
    for s, t in pairwise(times):
        h, middle = t - s, (s + t) / 2
        k1 = f(s, x)
        k2 = f(middle, x + h / 2 * k1)
        k3 = f(middle, x + h / 2 * k2)
        k4 = f(t, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
