r"""Single-step samplers, from their papers; $\varphi$ as DPM-Solver writes it.

Noise within a step: ``noise((k, j), i)`` is the normal of part j of step k, and a state's noise is what the exact
solution carries of the parts before it.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import Form, mp, noise
from golden.integrals import Solution, lam, time_at
from golden.processes import Line


def _at(line: Line, s, t, r):
    """The time at λ_s + r h."""
    p = line.process
    return time_at(p, lam(p, s) + r * (lam(p, t) - lam(p, s)), s, t)


def _epsilon(line: Line, t, y: Form) -> Form:
    return Solution(line, "eps").output(t, y)


def dpm_1(line: Line, eta, times, x: Form, i: int) -> Form:
    """2206.00927 Eq. (3.7)."""
    p, y = line.process, x - line.shift(times[0])
    for s, t in pairwise(times):
        h = lam(p, t) - lam(p, s)
        y = p.alpha(t) / p.alpha(s) * y - p.sigma(t) * mp.expm1(h) * _epsilon(line, s, y)
    return y + line.shift(times[-1])


def dpm_2(line: Line, eta, times, x: Form, i: int) -> Form:
    """2206.00927 Algorithm 1, r₁ = ½."""
    p, y = line.process, x - line.shift(times[0])
    for s, t in pairwise(times):
        h, m = lam(p, t) - lam(p, s), _at(line, s, t, mp.mpf(1) / 2)
        u = p.alpha(m) / p.alpha(s) * y - p.sigma(m) * mp.expm1(h / 2) * _epsilon(line, s, y)
        y = p.alpha(t) / p.alpha(s) * y - p.sigma(t) * mp.expm1(h) * _epsilon(line, m, u)
    return y + line.shift(times[-1])


def dpm_3(line: Line, eta, times, x: Form, i: int) -> Form:
    """2206.00927 Algorithm 2, r₁ = ⅓ and r₂ = ⅔."""
    p, y = line.process, x - line.shift(times[0])
    r1, r2 = mp.mpf(1) / 3, mp.mpf(2) / 3
    for s, t in pairwise(times):
        h, m, n = lam(p, t) - lam(p, s), _at(line, s, t, r1), _at(line, s, t, r2)
        first = _epsilon(line, s, y)
        u1 = p.alpha(m) / p.alpha(s) * y - p.sigma(m) * mp.expm1(r1 * h) * first
        D1 = _epsilon(line, m, u1) - first
        u2 = p.alpha(n) / p.alpha(s) * y - p.sigma(n) * mp.expm1(r2 * h) * first
        u2 = u2 - p.sigma(n) * r2 / r1 * (mp.expm1(r2 * h) / (r2 * h) - 1) * D1
        D2 = _epsilon(line, n, u2) - first
        y = p.alpha(t) / p.alpha(s) * y - p.sigma(t) * mp.expm1(h) * first
        y = y - p.sigma(t) / r2 * (mp.expm1(h) / h - 1) * D2
    return y + line.shift(times[-1])


def dpmpp_2s(line: Line, eta, times, x: Form, i: int) -> Form:
    """2211.01095 Algorithm 1, r = ½: D = (1 − 1/2r) D_s + 1/2r D_u."""
    p, y, w = line.process, x - line.shift(times[0]), Solution(line, "D")
    for s, t in pairwise(times):
        h, m = lam(p, t) - lam(p, s), _at(line, s, t, mp.mpf(1) / 2)
        u = p.sigma(m) / p.sigma(s) * y - p.alpha(m) * mp.expm1(-h / 2) * w.output(s, y)
        y = p.sigma(t) / p.sigma(s) * y - p.alpha(t) * mp.expm1(-h) * w.output(m, u)
    return y + line.shift(times[-1])


def _taylor(line: Line, eta, s, e, y: Form, first: Form, slope: Form) -> Form:
    """The exact solution from s to e with D = first + slope (λ − λ_s), without noise; by hand."""
    p, more = line.process, 1 + mp.mpf(eta) ** 2
    h = lam(p, e) - lam(p, s)
    a = more * h
    zeroth = 1 - mp.exp(-a)
    carried = p.sigma(e) / p.sigma(s) * mp.exp(-(mp.mpf(eta) ** 2) * h)
    return carried * y + p.alpha(e) * (zeroth * first + (h - zeroth / more) * slope)


def _parts(line: Line, eta, k, i, nodes):
    """The noise of the states at ``nodes`` of step k, one for each after the first."""
    w = Solution(line, "D", eta)
    states, current = [], Form({})
    for j, (s, t) in enumerate(pairwise(nodes)):
        fresh = w.kick(s, t) * noise((k, j), i) if eta else Form({})
        current = w.carried(s, t) * current + fresh
        states.append(current)
    return states


def seeds_2(line: Line, eta, times, x: Form, i: int) -> Form:
    """2305.14267, two stages, r = ½; the slope of D by a difference over h/2."""
    w, y, p = Solution(line, "D", eta), x - line.shift(times[0]), line.process
    nothing = Form({})
    for k, (s, t) in enumerate(pairwise(times)):
        m, h = _at(line, s, t, mp.mpf(1) / 2), lam(p, t) - lam(p, s)
        at_m, at_t = _parts(line, eta, k, i, (s, m, t))
        first = w.output(s, y)
        u = _taylor(line, eta, s, m, y, first, nothing) + at_m
        y = _taylor(line, eta, s, t, y, first, (w.output(m, u) - first) / (h / 2)) + at_t
    return y + line.shift(times[-1])


def seeds_3(line: Line, eta, times, x: Form, i: int) -> Form:
    """2305.14267, three stages, r₁ = ⅓ and r₂ = ⅔; at η = 0 DPM-Solver++(3S)."""
    w, y, p = Solution(line, "D", eta), x - line.shift(times[0]), line.process
    nothing = Form({})
    for k, (s, t) in enumerate(pairwise(times)):
        m, n = (_at(line, s, t, mp.mpf(j) / 3) for j in (1, 2))
        h = lam(p, t) - lam(p, s)
        at_m, at_n, at_t = _parts(line, eta, k, i, (s, m, n, t))
        first = w.output(s, y)
        u1 = _taylor(line, eta, s, m, y, first, nothing) + at_m
        u2 = _taylor(line, eta, s, n, y, first, (w.output(m, u1) - first) / (h / 3)) + at_n
        y = _taylor(line, eta, s, t, y, first, (w.output(n, u2) - first) / (2 * h / 3)) + at_t
    return y + line.shift(times[-1])


def sigma_midpoint(line: Line, eta, times, x: Form, i: int) -> Form:
    """dy = (1 + η²) ε dρ + η dM with Var M = ρ_s² − ρ_t²; ε at the middle in ρ, with the first half's noise."""
    p, y = line.process, (x - line.shift(times[0])) / line.process.alpha(times[0])
    rho = lambda u: p.sigma(u) / p.alpha(u)  # noqa: E731
    more = 1 + mp.mpf(eta) ** 2
    for k, (s, t) in enumerate(pairwise(times)):
        half = (rho(s) + rho(t)) / 2
        m = time_at(p, -mp.log(half), s, t)
        z = [noise((k, j), i) if eta else Form({}) for j in (0, 1)]
        gained = [eta * mp.sqrt(rho(a) ** 2 - rho(b) ** 2) if eta else 0 for a, b in ((s, m), (m, t))]
        u = y + more * (half - rho(s)) * _epsilon(line, s, p.alpha(s) * y) + gained[0] * z[0]
        epsilon = _epsilon(line, m, p.alpha(m) * u)
        y = y + more * (rho(t) - rho(s)) * epsilon + gained[0] * z[0] + gained[1] * z[1]
    return p.alpha(times[-1]) * y + line.shift(times[-1])
