"""Slips in methods for flows: nodes, weights, history, clocks and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, pairwise

import torch
from torch import Tensor

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import ACCEPTED, CONDITIONS, WITHIN, claim, conformance, golden
from sdekit.dynamics import Reflected
from sdekit.score import Score, convert
from sdekit.steppers import Plan, Prepared, Row, Step
from sdekit.steppers.runge_kutta import tableau


def rows(plan: Plan, change: Callable[[int, Row], Row]) -> Plan:
    """The plan with every row changed; k is the step."""
    return replace(plan, rows=[[change(k, row) for row in step] for k, step in enumerate(plan.rows)])


def history(plan: Plan, change: Callable[[Tensor], Tensor]) -> Plan:
    """A two-step plan b[(1 + w) D₀ − w D₋₁] with other weights w = ``change(w)``."""

    def changed(k: int, row: Row) -> Row:
        if 1 not in row.outputs:
            return row
        b = row.outputs[0] + row.outputs[1]
        w = change(-row.outputs[1] / b)
        return replace(row, outputs={0: b * (1 + w), 1: -b * w})

    return rows(plan, changed)


class RatioInverted(sk.DPMpp2M):
    """w = 1/(2r) becomes r/2. The leading errors telescope, Σ (h²_{n−1} − h²_n)/2: the order is kept on every grid."""

    def plan(self, schedule, eta, times) -> Plan:
        return history(super().plan(schedule, eta, times), lambda w: 1 / (4 * w))


class RatioOne(sk.DPMpp2M):
    """Steps are taken to be equal."""

    def plan(self, schedule, eta, times) -> Plan:
        return history(super().plan(schedule, eta, times), lambda w: 0 * w + 0.5)


class HistoryIgnored(sk.DPMpp2M):
    """The memory is lost: every step is a first step."""

    def plan(self, schedule, eta, times) -> Plan:
        return history(super().plan(schedule, eta, times), lambda w: 0 * w)


class StaleHistory(sk.DPMpp2M):
    """D₋₁ is that of two steps ago."""

    def plan(self, schedule, eta, times) -> Plan:
        def changed(k: int, row: Row) -> Row:
            return row if k < 2 else replace(row, outputs={0: row.outputs[0], 2: row.outputs[1]})

        return rows(super().plan(schedule, eta, times), changed)


class SingleTable(sk.DPMpp2M):
    """Coefficients in float32."""

    def plan(self, schedule, eta, times) -> Plan:
        def rounded(weights):
            return {j: c.float().double() for j, c in weights.items()}

        change = lambda k, row: replace(row, states=rounded(row.states), outputs=rounded(row.outputs))  # noqa: E731
        return rows(super().plan(schedule, eta, times), change)


class RoundedTimes(sk.DPMpp2M):
    """The network is asked at the nearest of 1000 times."""

    def plan(self, schedule, eta, times) -> Plan:
        change = lambda k, row: replace(row, at=round(1000 * row.at) / 1000)  # noqa: E731
        return rows(super().plan(schedule, eta, times), change)


class SingleClock(sk.Heun):
    """Times are the sums of the steps, in float32."""

    def prepare(self, sde, times) -> Prepared:
        steps = [torch.tensor(t - s, dtype=torch.float32) for s, t in pairwise(times)]
        clock = accumulate(steps, initial=torch.tensor(times[0], dtype=torch.float32))
        return super().prepare(sde, [float(t) for t in clock])


class LastStepDropped(sk.Heun):
    """N times make N − 2 steps."""

    def prepare(self, sde, times) -> Prepared:
        prepared, last = super().prepare(sde, times), len(times) - 2

        def advance(k, x, increments, memory):
            return (x, memory) if k == last else prepared.advance(k, x, increments, memory)

        return replace(prepared, advance=advance)


class HeunAtTheStart(sk.Heun):
    """The second slope at the Euler point, but at the time of the first."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        first = sde.drift(t0, x)
        second = sde.drift(t0, x + (t1 - t0) * first)
        return Step(x + (t1 - t0) / 2 * (first + second))


class PastTheEnd(sk.Heun):
    """Equal steps are added up: the last one may end past the end, by a rounding."""

    def prepare(self, sde, times) -> Prepared:
        n = len(times) - 1
        return super().prepare(sde, list(accumulate([(times[-1] - times[0]) / n] * n, initial=times[0])))


class MiddleTaken(sk.RK4):
    """The third slope at the time of the first."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        h, middle = t1 - t0, 0.5 * (t0 + t1)
        k1 = sde.drift(t0, x)
        k2 = sde.drift(middle, x + h / 2 * k1)
        k3 = sde.drift(t0, x + h / 2 * k2)
        k4 = sde.drift(t1, x + h * k3)
        return Step(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


class WeightsPermuted(sk.RK4):
    """(1, 1, 2, 2)/6 for (1, 2, 2, 1)/6."""

    tableau = replace(sk.RK4().tableau, b=tuple(Fraction(n, 6) for n in (1, 1, 2, 2)))


class StagePermuted(sk.RK4):
    """The second half step starts with the first slope: the nodes are right, and so is every quadrature."""

    tableau = tableau(((), ("1/2",), ("1/2", "0"), ("0", "0", "1")), ("1/6", "1/3", "1/3", "1/6"))


@dataclass(frozen=True)
class Unturned(Reflected):
    """The clock −t with the drift of the clock t: a step of the wrong sign."""

    def drift(self, t, x) -> Tensor:
        return self.sde.drift(-t, x)


class SignForgotten(sk.Heun):
    """Time is reflected, the drift is not."""

    def prepare(self, sde, times) -> Prepared:
        backwards = times[0] > times[-1]
        return super().prepare(Unturned(sde), [-t for t in times]) if backwards else super().prepare(sde, times)


@dataclass(frozen=True)
class Clipped(Score):
    """D clipped to [−1, 1]."""

    score: Score
    process: sk.linear.LinearProcess
    prediction: str = field(default="sample")

    def output(self, t, x) -> Tensor:
        made = self.score.output(t, x)
        return convert(made, t, x, self.process, self.score.prediction, "sample").clamp(-1.0, 1.0)

    def __call__(self, t, x) -> Tensor:
        return convert(self.output(t, x), t, x, self.process, "sample", "score")


class ClippedSample(sk.DDIM):
    """The denoised state is clipped, as images are."""

    def prepare(self, sde, times) -> Prepared:
        return super().prepare(replace(sde, score=Clipped(sde.score, sde.linear_process)), times)


EQUAL, JAGGED = claim("w2", "vp-gaussian", 0.0), claim("w2", "vp-gaussian", 0.0, (48, 96, 192, 384, 768), jagged=True)
ODE = claim("ode", "nonautonomous-ode")

MUTANTS = [
    Mutant("inverted step ratio", RatioInverted(), sk.DPMpp2M(), golden(0.0)),
    Mutant("step ratio taken to be one", RatioOne(), sk.DPMpp2M(), golden(0.0)),
    Mutant("step ratio taken to be one", RatioOne(), sk.DPMpp2M(), JAGGED, slow=True),
    Mutant("history ignored", HistoryIgnored(), sk.DPMpp2M(), golden(0.0)),
    Mutant("history ignored", HistoryIgnored(), sk.DPMpp2M(), EQUAL),
    Mutant("stale history", StaleHistory(), sk.DPMpp2M(), EQUAL),
    Mutant("float32 table", SingleTable(), sk.DPMpp2M(), golden(0.0, 1e-9)),
    Mutant("times rounded to a table", RoundedTimes(), sk.DPMpp2M(), golden(0.0)),
    Mutant("float32 clock", SingleClock(), sk.Heun(), golden(0.0, 1e-9)),
    Mutant("last step dropped", LastStepDropped(), sk.Heun(), conformance("exact/quadrature/1")),
    Mutant("wrong node", HeunAtTheStart(), sk.Heun(), golden(0.0)),
    Mutant("wrong node", HeunAtTheStart(), sk.Heun(), ODE),
    Mutant("wrong node", MiddleTaken(), sk.RK4(), conformance("exact/quadrature/2")),
    Mutant("wrong weights", WeightsPermuted(), sk.RK4(), CONDITIONS),
    Mutant("wrong stage", StagePermuted(), sk.RK4(), CONDITIONS),
    Mutant("wrong stage", StagePermuted(), sk.RK4(), ODE),
    Mutant("asked outside the grid", PastTheEnd(), sk.Heun(), WITHIN),
    Mutant("step of the wrong sign", SignForgotten(), sk.Heun(), conformance("reflection/ou-gaussian/eta=0")),
    Mutant("x0 clipped", ClippedSample(), sk.DDIM(), ACCEPTED),
]
