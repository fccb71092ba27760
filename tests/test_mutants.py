"""Negative controls: slips that were planted on purpose, and which check sees each.

A check that cannot fail is a defect. Every mutant must be rejected by the golden law, and by the order test where the
slip costs an order. Most of them keep the order, some on every grid: that is why golden laws exist.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from golden.cases import CASES, deviation, golden_map, reverse_sde
from test_orders import hold, jagged
from torch import Tensor

import sdekit as sk
from sdekit import problems
from sdekit.steppers import Plan, Row, Step
from sdekit.verify import order


def history(plan: Plan, change) -> Plan:
    """A two-step plan b[(1 + w) D₀ − w D₋₁] with other weights w = ``change(w)``."""

    def changed(row: Row) -> Row:
        if 1 not in row.outputs:
            return row
        b = row.outputs[0] + row.outputs[1]
        w = change(-row.outputs[1] / b)
        return replace(row, outputs={0: b * (1 + w), 1: -b * w})

    return replace(plan, rows=[[changed(row) for row in rows] for rows in plan.rows])


class RatioInverted(sk.DPMpp2M):
    """w = 1/(2r) becomes r/2."""

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


class EtaNotSquared(sk.DDIM):
    """s² = η σ² (1 − e^{−2h}): still a sampler of the family, for another η."""

    def plan(self, schedule, eta, times) -> Plan:
        return super().plan(schedule, eta**0.5, times)


class NoiseOfTheStart(sk.DDIM):
    """σ_s for σ_t in the noise."""

    def plan(self, schedule, eta, times) -> Plan:
        plan, sigma = super().plan(schedule, eta, times), schedule.sigma(times)

        def changed(k: int, row: Row) -> Row:
            return replace(row, noises={j: c * sigma[k] / sigma[k + 1] for j, c in row.noises.items()})

        return replace(plan, rows=[[changed(k, row) for row in rows] for k, rows in enumerate(plan.rows)])


class HeunAtTheStart(sk.Heun):
    """The second slope at the Euler point, but at the time of the first."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        first = sde.drift(t0, x)
        second = sde.drift(t0, x + (t1 - t0) * first)
        return Step(x + (t1 - t0) / 2 * (first + second))


class LouderNoise(sk.EulerMaruyama):
    """Two per cent too much noise."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(1.02 * increment.w), memory)


class LateScore(sk.EulerMaruyama):
    """The drift at the end of the step: Euler's error has another constant, and the same order."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        noise: Tensor = super().step(sde, t0, t1, x, increment, memory).x - x - (t1 - t0) * sde.drift(t0, x)
        return Step(x + (t1 - t0) * sde.drift(t1, x) + noise)


MUTANTS = {
    # mutant: η, the grids on which the order test must reject it
    RatioInverted: (0.0, ()),  # the leading errors telescope: Σ (h²_{n−1} − h²_n)/2
    RatioOne: (0.0, ("jagged",)),
    HistoryIgnored: (0.0, ("smooth", "jagged")),
    EtaNotSquared: (0.5, ()),
    NoiseOfTheStart: (1.0, ()),
    HeunAtTheStart: (0.0, ("smooth", "jagged")),
    LouderNoise: (1.0, ("smooth", "jagged")),
    LateScore: (1.0, ()),
}
STEPS = {"smooth": (16, 32, 64, 128, 256, 512), "jagged": (48, 96, 192, 384, 768)}


def rejected(mutant: type[sk.steppers.Stepper], eta: float, grid: str) -> bool:
    """Whether the order test rejects a mutant."""
    problem = problems.get("vp-gaussian", eta=eta)
    problem = jagged(problem) if grid == "jagged" else problem
    weak = mutant.spec.weak.get("linear-additive")
    try:
        hold(order(problem, mutant(), steps=STEPS[grid]), mutant.spec.ode if eta == 0 else weak)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS)
def test_golden_laws_reject(mutant):
    eta, case = MUTANTS[mutant][0], CASES["VP"]
    times = case.grid(16)
    golden = golden_map(mutant.spec.name, case, eta, times)
    assert deviation(reverse_sde(case, eta), mutant.__base__(), times, golden) < 1e-12
    assert deviation(reverse_sde(case, eta), mutant(), times, golden) > 1e-4


@pytest.mark.parametrize("grid", STEPS)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_orders_reject_what_costs_an_order(mutant, grid):
    """And only that: where a mutant keeps its order, the golden law stands alone."""
    eta, seen = MUTANTS[mutant]
    assert rejected(mutant, eta, grid) == (grid in seen)
