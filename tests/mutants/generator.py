"""Slips in what the coefficient generator makes: moments, clocks, starts, correctors and the noise of stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import claim, golden
from mutants.flows import rows
from sdekit.steppers import Plan, Row
from sdekit.steppers.assembly import EULER, Multistep
from sdekit.steppers.exponential import Denoised, Noise


@dataclass(frozen=True)
class SecondScaled(Denoised):
    """D in λ, with its second moment times a number: what multiplies the second difference d₂."""

    factor: float = 0.5

    def moments(self, s, t, eta, count) -> list[Tensor]:
        return [self.factor * m if k == 2 else m for k, m in enumerate(super().moments(s, t, eta, count))]


class SecondHalved(sk.DPMpp3M):
    """d₂/2 for d₂, as in three libraries."""

    def plan(self, schedule, eta, times) -> Plan:
        return Multistep(SecondScaled(), 3).plan(schedule, eta, times)


class SecondTurned(sk.SDEDPMpp3M):
    """−d₂/2 for d₂, as published with noise."""

    def plan(self, schedule, eta, times) -> Plan:
        return Multistep(SecondScaled(-0.5), 3).plan(schedule, eta, times)


class SlopeAtTheMiddle(sk.DPMpp3M):
    """M₁ = ½ h M₀ in a method of third order; in one of second order it is fair."""

    def plan(self, schedule, eta, times) -> Plan:
        return Multistep(Denoised(), 3, midpoint=True).plan(schedule, eta, times)


class EulerStart(sk.VAB):
    """The first steps are Euler's: their errors are of second order, and stay."""

    def method(self) -> Multistep:
        return replace(super().method(), single=dict.fromkeys(range(1, 5), EULER))


class ScaledByTheStart(sk.ETDAB):
    """σ_s for σ_t in front of the integrals."""

    def plan(self, schedule, eta, times) -> Plan:
        ratio = schedule.sigma(times[:-1]) / schedule.sigma(times[1:])

        def changed(k: int, row: Row) -> Row:
            return (
                row if k < self.order - 1 else replace(row, outputs={j: w * ratio[k] for j, w in row.outputs.items()})
            )

        return rows(super().plan(schedule, eta, times), changed)


class AnotherClock(sk.DEIS):
    """ε polynomial in λ for t: every order is kept."""

    def __init__(self, order: int = 3) -> None:
        super().__init__(order)

    def method(self) -> Multistep:
        return replace(super().method(), form=Noise())


class CorrectorTurned(sk.UniPC):
    """The corrected state is as far from the predicted one, but on its other side."""

    def plan(self, schedule, eta, times) -> Plan:
        plan = super().plan(schedule, eta, times)
        steps = [list(step) for step in plan.rows]
        for before, step in pairwise(steps):
            if len(step) == 2 and step[0].at is not None and step[1].at is None:  # correct, then predict
                step[0] = replace(step[0], outputs=_turned(before[-1].outputs, step[0].outputs))
        return replace(plan, rows=steps)


def _turned(predicted, corrected) -> dict[int, Tensor]:
    """2 predicted − corrected; the corrector's outputs are older by the one that it asked for."""
    return {j: (2.0 * predicted[j - 1] if j - 1 in predicted else 0.0) - w for j, w in corrected.items()}


class SingleTableOfThree(sk.UniPC):
    """Coefficients in float32, for a method of fourth order."""

    def plan(self, schedule, eta, times) -> Plan:
        def rounded(weights):
            return {j: c.float().double() for j, c in weights.items()}

        change = lambda k, row: replace(row, states=rounded(row.states), outputs=rounded(row.outputs))  # noqa: E731
        return rows(super().plan(schedule, eta, times), change)


class StagesApart(sk.SEEDS2):
    """The stage and the step draw for themselves: each has its own law, not the law of both."""

    def plan(self, schedule, eta, times) -> Plan:
        def changed(k: int, row: Row) -> Row:
            if len(row.noises) < 2:
                return row
            return replace(row, noises={1: (row.noises[0] ** 2 + row.noises[1] ** 2) ** 0.5})

        return rows(super().plan(schedule, eta, times), changed)


class FreshNoise(sk.SASolver):
    """The corrector draws anew, where the predictor's z belongs."""

    def plan(self, schedule, eta, times) -> Plan:
        plan = super().plan(schedule, eta, times)
        steps = []
        for step in plan.rows:  # the last row but one is what the corrector starts from again
            (c,) = step[-2].noises.values()
            kept, predicted = replace(step[-2], noises={1: c}), replace(step[-1], noises={0: c, 1: -c})
            steps.append([*step[:-2], kept, predicted])
        halves = [[(s, 0.5 * (s + t)), (0.5 * (s + t), t)] for ((s, t),) in plan.draws]
        return replace(plan, rows=steps, draws=halves)


FLOW, NOISY = claim("w2", "vp-gaussian", 0.0), claim("w2", "vp-gaussian", 1.0)

MUTANTS = [
    Mutant("second difference halved", SecondHalved(), sk.DPMpp3M(), golden(0.0)),
    Mutant("second difference halved", SecondHalved(), sk.DPMpp3M(), FLOW),
    Mutant("second difference of the wrong sign", SecondTurned(), sk.SDEDPMpp3M(), golden(1.0)),
    Mutant("second difference of the wrong sign", SecondTurned(), sk.SDEDPMpp3M(), FLOW),
    Mutant("midpoint slope at order 3", SlopeAtTheMiddle(), sk.DPMpp3M(), golden(0.0)),
    Mutant("midpoint slope at order 3", SlopeAtTheMiddle(), sk.DPMpp3M(), FLOW),
    Mutant("started by Euler", EulerStart(4), sk.VAB(4), golden(0.0)),
    Mutant("started by Euler", EulerStart(4), sk.VAB(4), claim("w2", "ve-gaussian", 0.0)),
    Mutant("sigma of the wrong end", ScaledByTheStart(3), sk.ETDAB(3), golden(0.0)),
    Mutant("sigma of the wrong end", ScaledByTheStart(3), sk.ETDAB(3), FLOW),
    Mutant("another clock", AnotherClock(), sk.DEIS(3), golden(0.0)),
    Mutant("corrector of the wrong sign", CorrectorTurned(2), sk.UniPC(2), golden(0.0)),
    Mutant("corrector of the wrong sign", CorrectorTurned(2), sk.UniPC(2), FLOW),
    Mutant("float32 table", SingleTableOfThree(3), sk.UniPC(3), golden(0.0, 1e-9)),
    Mutant("float32 table", SingleTableOfThree(3), sk.UniPC(3), FLOW),
    Mutant("independent stages", StagesApart(), sk.SEEDS2(), golden(1.0)),
    Mutant("independent stages", StagesApart(), sk.SEEDS2(), NOISY),
    Mutant("corrector with a fresh z", FreshNoise(), sk.SASolver(), golden(1.0)),
    Mutant("corrector with a fresh z", FreshNoise(), sk.SASolver(), NOISY),
]
