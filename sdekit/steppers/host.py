r"""A plan for a network's own answers, in as few passes over the state as may be.

A network rarely answers in the prediction that a plan interpolates. With o its answer at the state y, the plan's
output is $D = a\,y + b\,o$ (:func:`sdekit.score.conversion`), and forming it costs two passes over state-sized memory.
Scalars are free on the host, so that fewer suffice:

- Nothing is formed: the rows hold o, and $c\,D = (c a)\,y + (c b)\,o$ adds $c a$ to the coefficient of y. That is free
  in a row that carries y, and one pass in any other.
- $D / b = o + (a/b)\,y$ is kept, or $D / a$, whichever scalar is at most 1, and the factor goes into the coefficients:
  one pass, into new memory, and no rounding error that forming D would not have.

The first is taken where it costs one pass at most.

Where α = 1 a row is an average, $\sum a + \sum b = 1$ or $\sum a = 1$. Then the registers beside the leading state x
are averaged among themselves, and x is drawn to their average L: $x' = x + (1 - a)(L - x)$, one pass less than the
sum, and one rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from sdekit.brownian import Interval
from sdekit.schedules import Schedule
from sdekit.score import conversion
from sdekit.typing import Prediction

if TYPE_CHECKING:
    from sdekit.steppers.plan import Plan, Row

_ONE = 1e-13  # coefficients as near to it are 1, but for rounding
_UNEVEN = 4.0  # an average with weights above it cancels

Terms = tuple[tuple[int, float], ...]
"""Registers by age, or draws by number, with their coefficients."""


@final
@dataclass(frozen=True)
class HostRow:
    """A row as Python floats."""

    at: float | None
    kept: tuple[float, float]
    """The register of the output keeps p·y + q·o: (0, 1) for o itself, else one of the two is 1."""
    states: Terms
    """One at least; a coefficient of 1 comes first."""
    drawn: tuple[tuple[bool, int, float], ...]
    """What the leading state is drawn to, instead of ``states`` after it: output or state, its age, and its weight
    beside what comes before."""
    outputs: Terms
    """What is added to that."""
    noises: Terms
    """Of increments, so that a coefficient of a normal is divided by √|t − s|."""


@final
@dataclass(frozen=True)
class HostPlan:
    """A plan as Python floats."""

    rows: Sequence[Sequence[HostRow]]
    draws: Sequence[Sequence[Interval]]
    states: int
    """How many states are looked back upon, the newest included."""
    outputs: int
    """How many outputs are."""

    @classmethod
    def of(cls, plan: Plan, schedule: Schedule, native: Prediction) -> HostPlan:
        """A plan for the answers of a network.

        Args:
            plan: The plan.
            schedule: Of the forward process.
            native: What the network predicts.
        """
        flat = fold(plan, schedule, native)
        left = iter(flat)
        rows = [[next(left) for _ in step] for step in plan.rows]
        states = 1 + max((age for row in flat for age, _ in row.states), default=0)
        drawn = [age for row in flat for is_output, age, _ in row.drawn if is_output]
        outputs = 1 + max([*drawn, *(age for row in flat for age, _ in row.outputs)], default=0)
        return cls(rows, plan.draws, states, outputs)


def fold(plan: Plan, schedule: Schedule, native: Prediction) -> list[HostRow]:
    """All rows of a plan, for the answers of a network.

    Args:
        plan: The plan.
        schedule: Of the forward process.
        native: What the network predicts.
    """
    rows = list(_rows(plan))
    about = [i for i, (row, _) in enumerate(rows) if row.at is not None]  # the state that output n was asked about
    passes = _passes(rows, about)
    made: list[tuple[float, float]] = []  # (a, b) of output n, in terms of what is kept of it
    host = []
    for i, (row, scale) in enumerate(rows):
        kept = (0.0, 1.0)
        if row.at is not None:
            a, b = conversion(schedule, row.at, native, plan.prediction)
            if passes[len(made)] > 1:
                larger = b if abs(b) >= abs(a) else a
                kept, (a, b) = (a / larger, b / larger), (0.0, larger)
            made.append((a, b))
        states, outputs = dict(_floats(row.states)), {}
        for age, c in _floats(row.outputs):
            number = len(made) - 1 - age
            a, b = made[number]
            outputs[age] = c * b
            if a:
                y = i - about[number]
                states[y] = states.get(y, 0.0) + c * a
        noises = tuple([(j, c * scale[j]) for j, c in _floats(row.noises)])
        led = _led(states)
        drawn = _drawn(led, outputs)
        if any(is_output for is_output, _, _ in drawn):
            outputs = {}
        host.append(HostRow(row.at, kept, led, drawn, tuple(outputs.items()), noises))
    return host


def _rows(plan: Plan) -> Iterator[tuple[Row, list[float]]]:
    """Every row, with 1/√|t − s| of the draws of its step."""
    for step, draws in zip(plan.rows, plan.draws, strict=True):
        scale = [abs(t - s) ** -0.5 for s, t in draws]
        for row in step:
            yield row, scale


def _passes(rows: Sequence[tuple[Row, list[float]]], about: Sequence[int]) -> Counter[int]:
    """For every output, in how many rows that use it the state it was asked about is not carried."""
    passes: Counter[int] = Counter()
    asked = 0
    for i, (row, _) in enumerate(rows):
        asked += row.at is not None
        numbers = [asked - 1 - age for age, _ in _floats(row.outputs)]
        passes.update(number for number in numbers if i - about[number] not in row.states)
    return passes


def _floats(weights: Mapping[int, Tensor]) -> list[tuple[int, float]]:
    """The coefficients that are not 0."""
    floats = [(age, float(c)) for age, c in weights.items()]
    return [(age, c) for age, c in floats if c]


def _led(states: dict[int, float]) -> Terms:
    """With a coefficient of 1 first, where there is one; the newest state times 0 if there is no state at all."""
    exact = {age: 1.0 if abs(a - 1.0) <= _ONE else a for age, a in states.items()}
    return tuple(sorted(exact.items(), key=lambda term: term[1] != 1.0)) or ((0, 0.0),)


def _drawn(states: Terms, outputs: Mapping[int, float]) -> tuple[tuple[bool, int, float], ...]:
    """The registers whose average the leading state is drawn to; none where the row is no average, or an uneven one."""
    (_, a), *others = states
    older = [(False, age, c) for age, c in others]
    for chain in (older + [(True, age, b) for age, b in outputs.items()], older):
        total, weighed = 0.0, []
        for is_output, age, c in chain:
            total += c
            weighed.append((is_output, age, c / total if total else math.inf))
        if chain and a != 1.0 and abs(a + total - 1.0) <= _ONE and all(abs(w) <= _UNEVEN for _, _, w in weighed):
            return tuple(weighed)
    return ()
