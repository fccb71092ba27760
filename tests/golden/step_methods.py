"""Step methods on dx = f(t, x) dt + g(t) dW, in either direction of time: h = t − s has its sign.

``x`` is a form, or an array of forms; ``kick(k, t)`` is g(t) z_k, and ``kick(k, t, levy)`` the same with the normals of
the Lévy areas. Noise that does not depend on the state is all that golden laws know.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import levy, mp


def euler_maruyama(f, kick, times, x):
    """Maruyama 1955: Y + f h + g ΔW, both fields at the start of the step."""
    for k, (s, t) in enumerate(pairwise(times)):
        x = x + (t - s) * f(s, x) + mp.sqrt(abs(t - s)) * kick(k, s)
    return x


def milstein(f, kick, times, x):
    """Milstein 1975: g g′ (ΔW² − h)/2 is zero where g does not depend on the state."""
    return euler_maruyama(f, kick, times, x)


def area(kick, k, h):
    """g(t) I_(1,0)/h over a step, as a function of t: I_(1,0) = h (ΔW/2 + H), Var H = h/12."""
    return lambda t: mp.sqrt(abs(h)) * (kick(k, t) / 2 + kick(k, t, levy) / mp.sqrt(12))


def sra1(f, kick, times, x):
    """Rößler 2010, SRA1: drifts at 0 and 3/4, the diffusion at 1 and 0."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z = t - s, area(kick, k, t - s)
        first = f(s, x)
        second = f(s + 3 * h / 4, x + 3 * h / 4 * first + 3 * Z(t) / 2)
        x = x + h / 3 * (first + 2 * second) + mp.sqrt(abs(h)) * kick(k, t) - Z(t) + Z(s)
    return x


def sri1w1(f, kick, times, x):
    """Rößler 2010, SRI1W1: drifts at 0 and 3/4, the diffusion at 0, 1/4 and 1; I_(1,1) and I_(1,1,1) are zero here."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z = t - s, area(kick, k, t - s)
        W = lambda t, k=k, h=h: mp.sqrt(abs(h)) * kick(k, t)  # noqa: E731
        quarter = s + h / 4
        first = f(s, x)
        second = f(s + 3 * h / 4, x + 3 * h / 4 * first + 3 * Z(s) / 2)
        x = x + h / 3 * (first + 2 * second)
        x = x - W(s) + 4 * W(quarter) / 3 + 2 * W(t) / 3 + 2 * Z(s) - 4 * Z(quarter) / 3 - 2 * Z(t) / 3
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
