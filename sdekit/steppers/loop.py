r"""The one loop that runs plans.

A row is a multiple of a state and a fused multiply–add in place for every further term; beside a coefficient of 1 the
multiple is spared. New states are new tensors: whoever holds an old one, or a gradient through it, keeps it. Nothing is
read back from the device, and the only branches are on the plan, so that a run can be traced.

A multiple near 1 is formed as $x + (a - 1)\,x$. In float32 $a$ itself would be rounded by u where a step moves the
state by a part $1 - a$ only. On a grid with one ratio that is the same error N times: a state drawn to D by
$x' = a x + (1 - a) D$ would settle off it by $u/(1 - a)$, which grows with N. The rounding of $a - 1$ does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.linear import LinearProcess
from sdekit.score import Score, centred, uncentred
from sdekit.steppers.base import Memory
from sdekit.steppers.host import HostPlan, HostRow


@final
class Loop:
    """Runs a plan."""

    def __init__(self, score: Score, process: LinearProcess, plan: HostPlan, times: Sequence[float]) -> None:
        self._score, self._process, self._times = score, process, times
        self._rows, self._states, self._outputs = plan.rows, plan.states - 1, plan.outputs - 1

    def __call__(self, k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
        states: list[Tensor]
        outputs: list[Tensor]
        states, outputs = memory or ([centred(self._process, self._times[k], x)], [])
        for row in self._rows[k]:
            if row.at is not None:
                outputs = [self._ask(row.at, row.kept, states[0]), *outputs[: self._outputs]]
            states = [_formed(row, states, outputs, increments), *states[: self._states]]
        return uncentred(self._process, self._times[k + 1], states[0]), (states, outputs)

    def _ask(self, at: float, kept: tuple[float, float], y: Tensor) -> Tensor:
        """What is kept of the network's answer about the state y."""
        output = self._score.output(at, uncentred(self._process, at, y))
        p, q = kept
        if p == 0.0:
            return output.to(y.dtype)  # itself, unless a network answers in a narrower type
        return torch.add(output, y, alpha=p) if q == 1.0 else torch.add(y, output, alpha=q)


def _formed(row: HostRow, states: list[Tensor], outputs: list[Tensor], increments: Sequence[Increment]) -> Tensor:
    (age, a), *others = row.states
    answers: Sequence[tuple[int, float]] = row.outputs
    if row.drawn:
        new, others = _drawn(row, states, outputs), []
    elif a == 1.0 and answers:
        (i, b), *answers = answers
        new = torch.add(states[age], outputs[i], alpha=b)
    elif 0.5 < a < 2.0:
        new = torch.add(states[age], states[age], alpha=a - 1.0)
    else:
        new = states[age] * a
    for age, a in others:
        new.add_(states[age], alpha=a)
    for i, b in answers:
        new.add_(outputs[i], alpha=b)
    for j, c in row.noises:
        new.add_(increments[j].w, alpha=c)
    return new


def _drawn(row: HostRow, states: list[Tensor], outputs: list[Tensor]) -> Tensor:
    """The leading state, drawn to the average of others."""
    lead, a = row.states[0]
    (is_output, age, _), *more = row.drawn
    average = outputs[age] if is_output else states[age]
    for i, (is_output, age, w) in enumerate(more):
        register = outputs[age] if is_output else states[age]
        average = average.lerp_(register, w) if i else torch.lerp(average, register, w)
    return torch.lerp(states[lead], average, 1.0 - a)
