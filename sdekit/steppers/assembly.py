r"""Plans of exponential integrators: single-step ones from stages, multistep ones from their history.

A single-step method is a list of :class:`Stage` s, an exponential Runge–Kutta method as data: each stage carries an
earlier state on to a fraction of the step, with q interpolated through combinations of earlier outputs. A multistep
method interpolates q through the last p grid points; with a corrector, the output at the predicted state is used once
more to carry the previous state again, at no further evaluation.

A p-step method is started so that it keeps its order (``single-step``), or as most published codes do it, with as many
nodes as there are (``ramp``): one evaluation a step from the first, but a start of order one. With noise it is ``ramp``
in any case: the weak order is two at most, which that start has, and the stages of another would draw within a step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sdekit.brownian import Interval
from sdekit.schedules import Schedule
from sdekit.steppers.exponential import Form, Levels, weights
from sdekit.steppers.plan import Plan, Row

Start = Literal["single-step", "ramp"]

NEAR = 1.0 / 64.0
"""Nodes nearer to one another than this part of a step are one."""


@dataclass(frozen=True)
class Stage:
    r"""A state at a fraction of the step.

    Attributes:
        base: The state that is carried on: 0 for the start of the step, i for stage i.
        to: The fraction at which it arrives.
        samples: Fractions at which q is taken to be known, each a combination of outputs; output i is asked at state i.
        midpoint: Whether the slope of two samples is integrated as $M_1 = \tfrac12 h M_0$.
    """

    base: int
    to: float
    samples: Sequence[tuple[float, Mapping[int, float]]]
    midpoint: bool = False


def _at(fraction: float, output: int) -> tuple[float, Mapping[int, float]]:
    return fraction, {output: 1.0}


EULER = (Stage(0, 1.0, [_at(0.0, 0)]),)
SECOND = (Stage(0, 0.5, [_at(0.0, 0)]), Stage(0, 1.0, [_at(0.0, 0), _at(0.5, 1)]))
MIDPOINT = (SECOND[0], Stage(0, 1.0, [_at(0.0, 0), _at(0.5, 1)], midpoint=True))
THIRD = (
    Stage(0, 1 / 3, [_at(0.0, 0)]),
    Stage(0, 2 / 3, [_at(0.0, 0), _at(1 / 3, 1)]),
    Stage(0, 1.0, [_at(0.0, 0), _at(2 / 3, 2)]),
)
FOURTH = (
    Stage(0, 0.5, [_at(0.0, 0)]),
    Stage(0, 0.5, [_at(0.5, 1)]),
    Stage(1, 1.0, [(0.5, {2: 2.0, 0: -1.0})]),
    Stage(0, 1.0, [_at(0.0, 0), (0.5, {1: 0.5, 2: 0.5}), _at(1.0, 3)]),
)
"""ETDRK4 [cox2002]."""

SINGLE: dict[int, Sequence[Stage]] = {1: EULER, 2: SECOND, 3: THIRD, 4: FOURTH}
"""Order → a single-step method that has it."""


@dataclass
class Table:
    """The rows of a plan under construction, with states and outputs by number instead of by age."""

    steps: list[list[Row]] = field(default_factory=list)
    draws: list[Sequence[Interval]] = field(default_factory=list)
    states: int = 1
    outputs: int = 0
    one: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))

    def begin(self, draws: Sequence[Interval] = ()) -> None:
        """The next step, and what it draws."""
        self.steps.append([])
        self.draws.append(draws)

    def row(
        self,
        at: float | None,
        states: Mapping[int, Tensor],
        outputs: Mapping[int, Tensor],
        noises: Mapping[int, Tensor] | None = None,
    ) -> int:
        """Ask at the newest state (or not), form a new one; its number."""
        self.outputs += at is not None
        by_age = {self.states - 1 - number: weight for number, weight in states.items()}
        asked = {self.outputs - 1 - number: weight for number, weight in outputs.items()}
        self.steps[-1].append(Row(at, by_age, asked, noises or {}))
        self.states += 1
        return self.states - 1


# --- single-step ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """The stages of a single-step method with their coefficients on n steps."""

    stages: Sequence[Stage]
    times: list[list[float]]
    """Of every state, by stage and step."""
    carried: Sequence[Sequence[Tensor]]
    outputs: Sequence[Mapping[int, Sequence[Tensor]]]
    noises: Sequence[Mapping[int, Sequence[Tensor]]]
    draws: list[list[Interval]]

    @classmethod
    def of(cls, form: Form, stages: Sequence[Stage], s: Levels, t: Levels, eta: float) -> _Run:
        fractions = [0.0, *(stage.to for stage in stages)]
        nodes = sorted({*fractions})
        levels = {c: form.between(s, t, c) for c in nodes[1:-1]} | {0.0: s, 1.0: t}
        carried, outputs, noises = [], [], []
        for stage in stages:
            start, end = levels[fractions[stage.base]], levels[stage.to]
            carried.append(form.carried(start, end, eta).unbind())
            outputs.append({i: w.unbind() for i, w in _sampled(form, stage, levels, start, eta).items()})
            passed = [c for c in nodes if fractions[stage.base] <= c <= stage.to] if eta else []
            noises.append(
                {
                    nodes.index(low): (form.noise(levels[low], levels[high], eta) * onward).unbind()
                    for low, high in pairwise(passed)
                    for onward in [form.carried(levels[high], end, eta)]
                }
            )
        clock = {c: level.t.tolist() for c, level in levels.items()}
        draws = [list(pairwise(step)) if eta else [] for step in zip(*(clock[c] for c in nodes), strict=True)]
        return cls(stages, [clock[c] for c in fractions], carried, outputs, noises, draws)

    def append(self, table: Table, k: int) -> int:
        """The rows of step k; the number of the output at its start."""
        table.begin(self.draws[k])
        states, first = [table.states - 1], table.outputs
        for i, stage in enumerate(self.stages):
            outputs = {first + j: w[k] for j, w in self.outputs[i].items()}
            noises = {j: w[k] for j, w in self.noises[i].items()}
            states.append(table.row(self.times[i][k], {states[stage.base]: self.carried[i][k]}, outputs, noises))
        return first


def _sampled(form: Form, stage: Stage, levels: Mapping[float, Levels], start: Levels, eta: float) -> dict[int, Tensor]:
    """The weights of the outputs in a stage."""
    places = [levels[c] for c, _ in stage.samples]
    found: dict[int, Tensor] = {}
    on_samples = weights(form, start, levels[stage.to], places, eta, stage.midpoint)
    for weight, (_, parts) in zip(on_samples, stage.samples, strict=True):
        for i, part in parts.items():
            found[i] = found[i] + part * weight if i in found else part * weight
    return found


def single_step(form: Form, stages: Sequence[Stage], schedule: Schedule, eta: float, times: Tensor) -> Plan:
    """The plan of a single-step method."""
    levels, table = Levels.at(schedule, times), Table()
    run = _Run.of(form, stages, levels[:-1], levels[1:], eta)
    for k in range(len(times) - 1):
        run.append(table, k)
    return Plan(table.steps, table.draws, form.prediction)


# --- multistep --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Multistep:
    """A multistep method.

    Attributes:
        form: What is interpolated.
        order: p, the number of grid points whose outputs the predictor uses.
        corrector: The number that the corrector uses, the predicted one among them; 0 for none.
        start: How the first p − 1 steps are taken.
        midpoint: Whether the slope of two nodes is integrated by the short cut of DPM-Solver.
        single: Order → the single-step method that starts.
        apart: The least distance between nodes, in parts of the step. Outputs nearer to one another say nothing of a
            slope that is extrapolated over the step, but for their errors.
    """

    form: Form
    order: int
    corrector: int = 0
    start: Start = "single-step"
    midpoint: bool = False
    single: Mapping[int, Sequence[Stage]] = field(default_factory=lambda: SINGLE)
    apart: float = NEAR

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        """The plan on these times."""
        levels, steps = Levels.at(schedule, times), len(times) - 1
        s, t = levels[:-1], levels[1:]
        clock = self.form.clock(levels).tolist()
        predictor = self._interpolated(levels, eta, [self._history(clock, k, self.order) for k in range(steps)])
        corrector = []
        if self.corrector:
            corrector = [[k + 1, *self._history(clock, k, self.corrector - 1)][: self.corrector] for k in range(steps)]
        corrected = self._interpolated(levels, eta, corrector)
        carried, noise = self.form.carried(s, t, eta).unbind(), self.form.noise(s, t, eta).unbind()
        table, at = Table(), times.tolist()
        known: list[int] = []  # the output at every grid point
        starting = 0 if eta else self._starting
        single = self._starter(levels, starting)
        before = 0  # the state that the corrector carries again
        for k in range(steps):
            if k < starting:
                known.append(single.append(table, k))
                continue
            table.begin([(at[k], at[k + 1])] if eta else [])
            draw = {0: noise[k]} if eta else {}
            known.append(table.outputs)
            ask: float | None = at[k]
            start = table.states - 1
            if corrected and k > starting:
                again = {known[i]: w for i, w in corrected[k - 1].items()}
                kept = table.one if eta else carried[k - 1]
                start, ask = table.row(ask, {before: kept}, again), None
            if corrected and eta:
                # The part without outputs, noise included, is what the corrector starts from again.
                start, ask, draw = table.row(ask, {start: carried[k]}, {}, draw), None, {}
            before = start
            onward = table.one if corrected and eta else carried[k]
            table.row(ask, {start: onward}, {known[i]: w for i, w in predictor[k].items()}, draw)
        return Plan(table.steps, table.draws, self.form.prediction)

    @property
    def _starting(self) -> int:
        """Steps taken by a single-step method."""
        return max(self.order, self.corrector - 1) - 1 if self.start == "single-step" else 0

    def _starter(self, levels: Levels, starting: int) -> _Run:
        """A single-step method of one order less: p − 1 of its steps have an error of the order of the whole."""
        order = min(max(1, self.order - 1, self.corrector - 1), max(self.single))
        m = min(starting, len(levels) - 1)
        return _Run.of(self.form, self.single[order], levels[:m], levels[1 : m + 1], 0.0)

    def _interpolated(self, levels: Levels, eta: float, nodes: Sequence[Sequence[int]]) -> list[dict[int, Tensor]]:
        """For every step the weights of the outputs at ``nodes``; steps alike are computed at once."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for k, chosen in enumerate(nodes):
            alike[tuple(k - i for i in chosen)].append(k)
        found: list[dict[int, Tensor]] = [{} for _ in nodes]
        for lags, ks in alike.items():
            at = torch.tensor(ks)
            places = [levels[at - lag] for lag in lags]
            for lag, weight in zip(
                lags, weights(self.form, levels[at], levels[at + 1], places, eta, self.midpoint), strict=True
            ):
                for k, w in zip(ks, weight.unbind(), strict=True):
                    found[k][k - lag] = w
        return found

    def _history(self, clock: Sequence[float], k: int, count: int) -> list[int]:
        """Up to ``count`` grid points that the step from k interpolates through, the newest first.

        After a very short step, forced by an output time say, its two ends would make a slope of rounding errors: one
        of them is passed over. Where the clock is infinite there is only the newest.
        """
        step, chosen = abs(clock[k + 1] - clock[k]), [k]
        for j in reversed(range(max(0, k - 2 * count), k)):
            gap = abs(clock[chosen[-1]] - clock[j])
            if len(chosen) < count and self.apart * step <= gap < math.inf:
                chosen.append(j)
        return chosen
