"""Adams methods: q through the last grid points, started by single-step methods that keep the order.

Notation: ``known`` lists (time, output), the newest first.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import Form, mp
from golden.integrals import Solution
from golden.processes import Line

DORMAND_PRINCE = (
    ("1/5", ("1/5",)),
    ("3/10", ("3/40", "9/40")),
    ("4/5", ("44/45", "-56/15", "32/9")),
    ("8/9", ("19372/6561", "-25360/2187", "64448/6561", "-212/729")),
    ("1", ("9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656")),
    ("1", ("35/384", "0", "500/1113", "125/192", "-2187/6784", "11/84")),
)
"""Nodes and rows of Hairer, Nørsett and Wanner, Table II.5.2."""


def fraction(text: str):
    numerator, _, denominator = text.partition("/")
    return mp.mpf(numerator) / mp.mpf(denominator or 1)


def single_step(w: Solution, order: int, s, t, y: Form) -> tuple[Form, Form]:
    """One step of a single-step method of this order, and the output at its start."""
    first = w.output(s, y)
    if order == 1:
        return w.move(s, t, y, [(s, first)]), first
    if order == 2:  # one stage in the middle
        m = w.between(s, t, mp.mpf(1) / 2)
        middle = w.output(m, w.move(s, m, y, [(s, first)]))
        return w.move(s, t, y, [(s, first), (m, middle)]), first
    if order == 3:  # as DPM-Solver-3
        m, n = (w.between(s, t, mp.mpf(k) / 3) for k in (1, 2))
        second = w.output(m, w.move(s, m, y, [(s, first)]))
        third = w.output(n, w.move(s, n, y, [(s, first), (m, second)]))
        return w.move(s, t, y, [(s, first), (n, third)]), first
    if order == 4:  # Cox and Matthews 2002, Eq. (26)–(29)
        m = w.between(s, t, mp.mpf(1) / 2)
        a = w.move(s, m, y, [(s, first)])
        N_a = w.output(m, a)
        N_b = w.output(m, w.move(s, m, y, [(m, N_a)]))
        N_c = w.output(t, w.move(m, t, a, [(m, 2 * N_b - first)]))
        return w.move(s, t, y, [(s, first), (m, (N_a + N_b) / 2), (t, N_c)]), first
    velocities = [first]  # on the straight path: y/(α + σ) moves by (u_t − u_s) Σ a v
    p = w.line.process
    size = lambda x: p.alpha(x) + p.sigma(x)  # noqa: E731
    u = lambda x: p.sigma(x) / size(x)  # noqa: E731
    state = y
    for c, row in DORMAND_PRINCE:
        m = w.between(s, t, fraction(c))
        mean = sum((fraction(a) * v for a, v in zip(row, velocities, strict=True)), Form({}))
        state = size(m) * (y / size(s) + (u(t) - u(s)) * mean)
        if len(velocities) < len(DORMAND_PRINCE):
            velocities.append(w.output(m, state))
    return state, first


def nodes(w: Solution, known, t, count: int, apart) -> list:
    """The newest outputs for a step to t, each at least this part of the step, in the clock, from the one before."""
    if apart is None:
        return known[:count]
    p = w.line.process
    rho = lambda x: p.sigma(x) / p.alpha(x)  # noqa: E731
    clock = rho if w.kind == "D in rho" else lambda x: rho(x) / (1 + rho(x))
    step, found = abs(clock(t) - clock(known[0][0])), known[:1]
    for time, output in known[1 : 1 + 2 * count]:
        if len(found) < count and abs(clock(time) - clock(found[-1][0])) >= apart * step:
            found.append((time, output))
    return found


def adams(w: Solution, times, y: Form, i: int, p: int, q: int = 0, ramp: bool = False, apart: object = None) -> Form:
    """Predict with the last p outputs; correct with q, that at the predicted state among them, on the same noise.

    The corrected state is what the next step starts from; its output is that at the predicted state. With noise, or
    where ``ramp`` says so, the start takes as many outputs as there are; else p − 1 steps of a single-step method.
    """
    starting = 0 if ramp or w.eta else max(p, q - 1) - 1
    order = max(1, p - 1, q - 1)
    known: list = []
    carried = None  # the last step's start, its noise, and its times
    for k, (s, t) in enumerate(pairwise(times)):
        if k < starting:
            y, output = single_step(w, order, s, t, y)
            known.insert(0, (s, output))
            continue
        known.insert(0, (s, w.output(s, y)))
        if q and carried is not None:
            before, start, kick = carried
            y = w.move(start, s, before, [known[0], *nodes(w, known[1:], s, q - 1, apart)]) + kick
        kick = w.draw(k, i, s, t)
        carried = (y, s, kick)
        y = w.move(s, t, y, nodes(w, known, t, p, apart)) + kick
    return y


def law(kind: str, p: int, q: int = 0, ramp: bool = False, apart: object = None):
    """A golden law from an Adams method."""

    def run(line: Line, eta, times, x: Form, i: int) -> Form:
        y = adams(Solution(line, kind, eta), times, x - line.shift(times[0]), i, p, q, ramp, apart)
        return y + line.shift(times[-1])

    return run


def midpoint_slope(line: Line, eta, times, x: Form, i: int) -> Form:
    """SDE-DPM-Solver++(2M) of 2211.01095, with η for its 1: (1 − e^{−(1+η²)h}) times D extrapolated by half a step."""
    w = Solution(line, "D", eta)
    p = line.process
    lam = lambda t: mp.log(p.alpha(t) / p.sigma(t))  # noqa: E731
    y, previous = x - line.shift(times[0]), None
    for k, (s, t) in enumerate(pairwise(times)):
        h, newest = lam(t) - lam(s), w.output(s, y)
        D = newest
        if previous is not None:
            r = (lam(s) - lam(times[k - 1])) / h
            D = newest + (newest - previous) / (2 * r)
        whole = 1 - mp.exp(-(1 + mp.mpf(eta) ** 2) * h)
        y = w.carried(s, t) * y + p.alpha(t) * whole * D + w.draw(k, i, s, t)
        previous = newest
    return y + line.shift(times[-1])
