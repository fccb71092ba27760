r"""Exact solutions with a polynomial in place of the network's output: the integrals of the papers, in 40 digits.

A :class:`Solution` says, for one way of writing the reverse-time equation at η, how a state is carried and what the
output q, taken as the polynomial in a clock through some times, contributes. Integrals are Gauss and Legendre's, over
Lagrange's basis; nothing is expanded.

| kind | q | $x_t = \Phi x_s + \int \dots$ | clock |
|---|---|---|---|
| ``D`` | D | 2309.05019 Prop. 4.2: $\frac{\sigma_t}{\sigma_s} e^{-\eta^2 h}$; $(1+\eta^2)\sigma_t e^{-\eta^2\lambda_t} \int e^{(1+\eta^2)\lambda} D\,d\lambda$ | λ |
| ``D in rho`` | D | 2309.06169: the same with $\phi = \rho^{1+\eta^2}$ | ρ |
| ``eps`` | ε | 2206.00927 Eq. (3.4), times 1 + η²: $\alpha_t/\alpha_s$; $-\alpha_t \int e^{-\lambda} \varepsilon\,d\lambda$ | λ |
| ``eps in t`` | ε | 2204.13902 Eq. (11)–(15): $\Psi x_s + \sum \varepsilon_j \int \tfrac12 \Psi G^2 \sigma^{-1} \ell_j\,d\tau$ | t |
| ``eps in rho`` | ε | $y = x/\alpha$, $dy = (1 + \eta^2)\,\varepsilon\,d\rho$ | ρ |
| ``v`` | ε − D | 2210.02747's straight line: $\tilde x = x/(\alpha+\sigma)$, $d\tilde x = (\varepsilon - D)\,du$ | u |
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from golden.form import Form, mp, noise
from golden.processes import Line, Process


@cache
def gauss(n: int = 48):
    """Nodes and weights on [0, 1], by Newton's method on Legendre's polynomial."""
    found = []
    for i in range(n):
        x = mp.cos(mp.pi * (i + mp.mpf(3) / 4) / (n + mp.mpf(1) / 2))
        for _ in range(8):
            p0, p1 = mp.one, x
            for k in range(2, n + 1):
                p0, p1 = p1, ((2 * k - 1) * x * p1 - (k - 1) * p0) / k
            slope = n * (x * p1 - p0) / (x**2 - 1)
            x = x - p1 / slope
        found.append(((1 + x) / 2, 1 / ((1 - x**2) * slope**2)))
    return found


def integral(f, a, b):
    """∫ f from a to b."""
    return (b - a) * mp.fsum(w * f(a + v * (b - a)) for v, w in gauss())


def lagrange(nodes, j, c):
    """1 at node j and 0 at the others."""
    return mp.fprod((c - other) / (nodes[j] - other) for i, other in enumerate(nodes) if i != j)


@cache
def lam(process: Process, t):
    return mp.log(process.alpha(t) / process.sigma(t))


@cache
def time_at(process: Process, value, s, t):
    """The time between s and t with λ = value."""
    low, high = min(s, t), max(s, t)
    return mp.findroot(lambda u: lam(process, u) - value, (low, high), solver="anderson", tol=mp.mpf(10) ** -38)


@cache
def contributions(process: Process, kind: str, eta, s, t, nodes) -> tuple:
    """What the outputs at ``nodes`` contribute to the step from s to t."""
    p, more = process, 1 + mp.mpf(eta) ** 2
    rho = lambda u: p.sigma(u) / p.alpha(u)  # noqa: E731
    of_lam, of_rho = (lambda l: l), (lambda l: mp.exp(-l))
    if kind == "v":
        u = [p.sigma(x) / (p.alpha(x) + p.sigma(x)) for x in (s, t, *nodes)]
        size = p.alpha(t) + p.sigma(t)
        return tuple(size * integral(lambda c, j=j: lagrange(u[2:], j, c), u[0], u[1]) for j in range(len(nodes)))
    if kind == "eps in t":
        rate = lambda tau: p.g2(tau) / (2 * p.alpha(tau) * p.sigma(tau))  # noqa: E731
        basis = lambda j, tau: p.alpha(t) * rate(tau) * lagrange(nodes, j, tau)  # noqa: E731
        return tuple(integral(lambda tau, j=j: basis(j, tau), s, t) for j in range(len(nodes)))
    if kind == "eps in rho":
        places = [rho(x) for x in nodes]
        return tuple(
            more * p.alpha(t) * integral(lambda c, j=j: lagrange(places, j, c), rho(s), rho(t))
            for j in range(len(nodes))
        )
    start, end = lam(p, s), lam(p, t)
    clock = of_rho if kind == "D in rho" else of_lam
    places = [clock(lam(p, x)) for x in nodes]
    if kind == "eps":
        density = lambda l: -more * p.alpha(t) * mp.exp(-l)  # noqa: E731
    else:
        density = lambda l: more * p.sigma(t) * mp.exp(-(mp.mpf(eta) ** 2) * end + more * l)  # noqa: E731
    return tuple(
        integral(lambda l, j=j: density(l) * lagrange(places, j, clock(l)), start, end) for j in range(len(nodes))
    )


@dataclass(frozen=True)
class Solution:
    """One way of writing the way back along an axis."""

    line: Line
    kind: str
    eta: object = 0

    def output(self, t, y: Form) -> Form:
        """q at the state y, which is x without the process's shift."""
        p, D = self.line.process, self.line.denoised(t, y + self.line.shift(t))
        epsilon = (y - p.alpha(t) * D) / p.sigma(t)
        return {"D": D, "e": epsilon, "v": epsilon - D}[self.kind[0]]

    def carried(self, s, t):
        """Φ."""
        p = self.line.process
        if self.kind == "v":
            return (p.alpha(t) + p.sigma(t)) / (p.alpha(s) + p.sigma(s))
        if self.kind[0] == "e":
            return p.alpha(t) / p.alpha(s)
        h = lam(p, t) - lam(p, s)
        return p.sigma(t) / p.sigma(s) * mp.exp(-(mp.mpf(self.eta) ** 2) * h)

    def kick(self, s, t):
        """The standard deviation of the noise gained."""
        p, square = self.line.process, mp.mpf(self.eta) ** 2
        if self.kind[0] == "e":
            rho = lambda u: p.sigma(u) / p.alpha(u)  # noqa: E731
            return self.eta * p.alpha(t) * mp.sqrt(rho(s) ** 2 - rho(t) ** 2)
        return p.sigma(t) * mp.sqrt(1 - mp.exp(-2 * square * (lam(p, t) - lam(p, s))))

    def between(self, s, t, fraction):
        """The time at this fraction of the way, in the clock in which q is a polynomial."""
        p = self.line.process
        if fraction == 1:
            return t
        if self.kind == "eps in t":
            return s + fraction * (t - s)
        clock = {
            "v": lambda u: p.sigma(u) / (p.alpha(u) + p.sigma(u)),
            "eps in rho": lambda u: p.sigma(u) / p.alpha(u),
            "D in rho": lambda u: p.sigma(u) / p.alpha(u),
        }.get(self.kind)
        if clock is None:
            value = lam(p, s) + fraction * (lam(p, t) - lam(p, s))
        else:
            c = clock(s) + fraction * (clock(t) - clock(s))
            value = mp.log((1 - c) / c) if self.kind == "v" else -mp.log(c)
        return time_at(p, value, s, t)

    def gain(self, s, t, known) -> Form:
        """What outputs contribute; ``known`` lists (time, output)."""
        process = self.line.process
        w = contributions(process, self.kind, self.eta, s, t, tuple(time for time, _ in known))
        return sum((weight * output for weight, (_, output) in zip(w, known, strict=True)), Form({}))

    def move(self, s, t, y: Form, known) -> Form:
        """The exact solution from s to t with q through the known outputs, without noise."""
        return self.carried(s, t) * y + self.gain(s, t, known)

    def draw(self, k, i, s, t) -> Form | int:
        """The noise of step k, if there is any."""
        return self.kick(s, t) * noise(k, i) if self.eta else 0
