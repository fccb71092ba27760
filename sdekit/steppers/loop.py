"""The one loop that runs plans: three in-place passes for a typical row, no host synchronisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.linear import LinearProcess
from sdekit.schedules import Schedule
from sdekit.score import Score, centred, conversion
from sdekit.steppers.base import Memory

if TYPE_CHECKING:
    from sdekit.steppers.plan import Plan, Weights


@dataclass(frozen=True)
class _HostRow:
    """A row with Python floats: noises are given per increment, so each is divided by √|t − s|."""

    at: float | None
    to_prediction: tuple[float, float]
    states: tuple[tuple[int, float], ...]
    outputs: tuple[tuple[int, float], ...]
    noises: tuple[tuple[int, float], ...]


@final
class Loop:
    """Runs a plan."""

    def __init__(
        self,
        score: Score,
        process: LinearProcess,
        schedule: Schedule,
        plan: Plan,
        times: Sequence[float],
    ) -> None:
        self._score, self._process, self._times = score, process, times
        native = score.prediction
        self._rows: list[list[_HostRow]] = []
        ages = [0]
        for rows, draws in zip(plan.rows, plan.draws, strict=True):
            scale = [abs(t - s) ** -0.5 for s, t in draws]
            host = []
            for row in rows:
                change = (0.0, 1.0)
                if row.at is not None:
                    change = conversion(schedule, row.at, native, plan.prediction)
                noises = tuple((j, float(c) * scale[j]) for j, c in row.noises.items())
                host.append(_HostRow(row.at, change, _floats(row.states), _floats(row.outputs), noises))
                ages += [*row.states, *row.outputs]
            self._rows.append(host)
        self._depth = max(ages) + 1

    def __call__(self, k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
        states: list[Tensor]
        outputs: list[Tensor]
        states, outputs = memory or ([centred(self._process, self._times[k], x)], [])
        for row in self._rows[k]:
            if row.at is not None:
                outputs = [self._ask(row, states[0]), *outputs][: self._depth]
            (age, a), *rest = row.states
            new = states[age] * a
            for age, a in rest:
                new.add_(states[age], alpha=a)
            for age, b in row.outputs:
                new.add_(outputs[age], alpha=b)
            for j, c in row.noises:
                new.add_(increments[j].w, alpha=c)
            states = [new, *states][: self._depth]
        return self._uncentred(self._times[k + 1], states[0]), (states, outputs)

    def _ask(self, row: _HostRow, y: Tensor) -> Tensor:
        assert row.at is not None
        output = self._score.output(row.at, self._uncentred(row.at, y))
        a, b = row.to_prediction
        if (a, b) == (0.0, 1.0):
            return output
        return (output * b).add_(y, alpha=a)

    def _uncentred(self, t: float, y: Tensor) -> Tensor:
        shift = self._process.shift(t)
        if isinstance(shift, float):
            return y + shift if shift else y
        return y + shift.to(y)


def _floats(weights: Weights) -> tuple[tuple[int, float], ...]:
    floats = [(age, float(c)) for age, c in weights.items()]
    return tuple([(age, c) for age, c in floats if c != 0.0 or age == 0])
