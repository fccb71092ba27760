r"""The one loop that runs plans, and how a plan is turned into the fewest passes over the state.

A network rarely answers in the prediction that a plan interpolates. With o its answer at the state y, the plan's
output is $D = a\,y + b\,o$ (:func:`sdekit.score.conversion`), and forming it costs two passes over state-sized memory.
Scalars are free on the host, so that fewer suffice:

- D is used in one row only, and that row carries y as well. Then nothing is formed: the row holds o, and
  $b_i D = (b_i a)\,y + (b_i b)\,o$ adds $b_i a$ to the coefficient of y. No pass.
- D is used again, or the row does not carry y. Then $D / b = o + (a/b)\,y$ is kept, or $D / a$, whichever scalar is at
  most 1, and the factor goes into the coefficients. One pass, and the same rounding errors as in forming D itself. To
  hold o instead would put y into every later row, a pass for each.

A row is then one product and a fused multiply–add in place for every further term; where a coefficient is 1, the
product is spared too. New states are new tensors: whoever holds an old one, or a gradient through it, keeps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from sdekit.brownian import Increment, Interval
from sdekit.linear import LinearProcess
from sdekit.schedules import Schedule
from sdekit.score import Score, centred, conversion
from sdekit.steppers.base import Memory
from sdekit.typing import Prediction

if TYPE_CHECKING:
    from sdekit.steppers.plan import Plan, Row

Terms = tuple[tuple[int, float], ...]
"""Registers by age, or draws by number, with their coefficients."""


@dataclass(frozen=True)
class HostRow:
    """A row with Python floats, for raw answers of the network."""

    at: float | None
    kept: tuple[float, float]
    """The register keeps p·y + q·o, (0, 1) for o itself; otherwise one of the two is 1."""
    states: Terms
    outputs: Terms
    noises: Terms
    """Of increments: a coefficient of a normal is divided by √|t − s|."""


def fold(plan: Plan, schedule: Schedule, native: Prediction) -> list[list[HostRow]]:
    """The plan for a network's own answers.

    Args:
        plan: A plan.
        schedule: Of the forward process.
        native: What the network predicts.
    """
    uses = Counter(number for _, row, asked in _numbered(plan) for number in _used(row, asked))
    units: list[float] = []  # of every output: it is this number times what its register keeps
    host: list[list[HostRow]] = [[] for _ in plan.rows]
    scales = [[abs(t - s) ** -0.5 for s, t in draws] for draws in plan.draws]
    for step, row, asked in _numbered(plan):
        states, kept = _floats(row.states), (0.0, 1.0)
        if row.at is not None:
            a, b = conversion(schedule, row.at, native, plan.prediction)
            once = 0 in row.outputs and 0 in row.states and uses[asked - 1] == 1
            if a and once:
                states[0] += float(row.outputs[0]) * a
                units.append(b)
            else:
                larger = b if abs(b) >= abs(a) else a
                kept = (a / larger, b / larger)
                units.append(larger)
        outputs = {age: b * units[asked - 1 - age] for age, b in _floats(row.outputs).items()}
        noises = {j: c * scales[step][j] for j, c in _floats(row.noises).items()}
        host[step].append(HostRow(row.at, kept, _terms(states, whole=True), _terms(outputs), _terms(noises)))
    return host


def _numbered(plan: Plan) -> Iterator[tuple[int, Row, int]]:
    """The rows with the number of their step, and of outputs asked so far, their own included."""
    asked = 0
    for step, rows in enumerate(plan.rows):
        for row in rows:
            asked += row.at is not None
            yield step, row, asked


def _used(row: Row, asked: int) -> Iterator[int]:
    """The numbers of the outputs that a row uses."""
    return (asked - 1 - age for age, b in _floats(row.outputs).items() if b)


def _floats(weights: Mapping[int, Tensor]) -> dict[int, float]:
    return {age: float(c) for age, c in weights.items()}


def _terms(weights: dict[int, float], whole: bool = False) -> Terms:
    """Without those that are 0; ``whole`` keeps one at least."""
    terms = tuple([(age, c) for age, c in weights.items() if c])
    return terms or (tuple(weights.items())[:1] if whole else ())


@final
@dataclass(frozen=True)
class HostPlan:
    """A plan for a network's own answers, as Python floats."""

    rows: Sequence[Sequence[HostRow]]
    draws: Sequence[Sequence[Interval]]
    states: int
    """How many states are looked back upon, the newest included."""
    outputs: int
    """How many outputs are."""

    @classmethod
    def of(cls, plan: Plan, schedule: Schedule, native: Prediction) -> HostPlan:
        """A plan in as few passes as may be.

        Args:
            plan: The plan.
            schedule: Of the forward process.
            native: What the network predicts.
        """
        steps = fold(plan, schedule, native)
        rows = [row for step in steps for row in step]
        states = 1 + max((age for row in rows for age, _ in row.states), default=0)
        outputs = 1 + max((age for row in rows for age, _ in row.outputs), default=0)
        return cls(steps, plan.draws, states, outputs)


@final
class Loop:
    """Runs a plan, without host synchronisation."""

    def __init__(self, score: Score, process: LinearProcess, plan: HostPlan, times: Sequence[float]) -> None:
        self._score, self._process, self._times = score, process, times
        self._rows, self._states, self._outputs = plan.rows, plan.states, plan.outputs

    def __call__(self, k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
        states: list[Tensor]
        outputs: list[Tensor]
        states, outputs = memory or ([centred(self._process, self._times[k], x)], [])
        for row in self._rows[k]:
            if row.at is not None:
                outputs = [self._ask(row.at, row.kept, states[0]), *outputs[: self._outputs - 1]]
            states = [_formed(row, states, outputs, increments), *states[: self._states - 1]]
        return self._uncentred(self._times[k + 1], states[0]), (states, outputs)

    def _ask(self, at: float, kept: tuple[float, float], y: Tensor) -> Tensor:
        output = self._score.output(at, self._uncentred(at, y))
        p, q = kept
        if p == 0.0:
            return output
        return torch.add(output, y, alpha=p) if q == 1.0 else torch.add(y, output, alpha=q)

    def _uncentred(self, t: float, y: Tensor) -> Tensor:
        shift = self._process.shift(t)
        if isinstance(shift, float):
            return y + shift if shift else y
        return y + shift.to(y)


def _formed(row: HostRow, states: list[Tensor], outputs: list[Tensor], increments: Sequence[Increment]) -> Tensor:
    (age, a), *rest = row.states
    new = states[age] * a
    for age, a in rest:
        new.add_(states[age], alpha=a)
    for age, b in row.outputs:
        new.add_(outputs[age], alpha=b)
    for j, c in row.noises:
        new.add_(increments[j].w, alpha=c)
    return new
