r"""Planned methods: exponential integrators as tables of coefficients.

Every diffusion sampler is linear in states, network outputs and noises. So a method is a function
``plan(schedule, eta, times) -> Plan``, and a :class:`Plan` lists, step by step, rows. A row asks the network about the
newest state (or does not), and then forms a new state

$$ x' = \sum_i a_i\,x_{(i)} + \sum_i b_i\,o_{(i)} + \sum_j c_j\,z_j , $$

where $x_{(i)}$ and $o_{(i)}$ are the states and outputs i places back and $z_j$ the step's standard normals. The
coefficients are computed in float64, as tensors, so that autograd reaches the grid through them, and
become Python floats once, before the loop.

Notation: a step goes s → t towards the data, $h = \lambda_t - \lambda_s > 0$; D is the denoised prediction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from sdekit.brownian import Interval
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.reverse import Reverse
from sdekit.schedules import Schedule
from sdekit.score import schedule_of
from sdekit.steppers.base import Prepared, Stepper
from sdekit.steppers.host import HostPlan
from sdekit.steppers.loop import Loop
from sdekit.typing import Prediction

Weights = Mapping[int, Tensor]
"""Coefficients (0-dim float64) of registers, by age: 0 is the newest."""


@dataclass(frozen=True)
class Row:
    """Ask the network at time ``at`` about the newest state (None: do not), then form a new state."""

    at: float | None
    states: Weights = field(default_factory=dict)
    outputs: Weights = field(default_factory=dict)
    noises: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A whole run as numbers: for every step its rows and the intervals that its normals stand for."""

    rows: Sequence[Sequence[Row]]
    draws: Sequence[Sequence[Interval]]
    prediction: Prediction
    """What the outputs are: the network's answer is converted to it, if it is something else."""


class PlannedStepper(Stepper):
    """A method given by its plan."""

    @abstractmethod
    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        """The table of coefficients.

        Args:
            schedule: Of the forward process.
            eta: Stochasticity of the reverse problem.
            times: Strictly monotone times, float64, shape (N + 1,).
        """

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        if not isinstance(sde, Reverse):
            raise SdekitError(f"{self.spec.name} needs reverse_time(process, score); got {type(sde).__name__}.")
        process = sde.linear_process
        schedule = schedule_of(process)
        steps, least = len(times) - 1, self.spec.min_steps
        if steps < least:
            raise SdekitError(
                f"{self.spec.name} looks back over {least} steps and cannot take {steps}: give {least} steps or more, "
                "or take a method of lower order."
            )
        make = _planned if isinstance(schedule, Hashable) else _planned.__wrapped__
        plan = make(self, schedule, sde.eta, tuple(times), sde.score.prediction)
        own_noise = sde.eta == 0.0 and any(plan.draws)
        return Prepared(plan.draws, Loop(sde.score, process, plan, times), noise_like_state=own_noise)


@lru_cache(maxsize=32)
def _planned(
    stepper: PlannedStepper, schedule: Schedule, eta: float, times: tuple[float, ...], native: Prediction
) -> HostPlan:
    """The plan of a run; sampling again on the same grid finds it made."""
    plan = stepper.plan(schedule, eta, torch.tensor(times, dtype=torch.float64))
    return HostPlan.of(plan, schedule, native)


def one_row_a_step(
    times: Tensor, prediction: Prediction, states: Tensor, outputs: Tensor, noises: Tensor | None
) -> Plan:
    """The plan of a method that asks once a step and keeps no history; coefficients of shape (N,)."""
    at = times.tolist()
    kicks = [{} for _ in states] if noises is None else [{0: c} for c in noises.unbind()]
    columns = zip(at, states.unbind(), outputs.unbind(), kicks, strict=False)
    rows = [[Row(t, {0: a}, {0: b}, c)] for t, a, b, c in columns]
    return Plan(rows, [[] if noises is None else [i] for i in pairwise(at)], prediction)


def h_of(schedule: Schedule, times: Tensor) -> Tensor:
    r"""Steps in half-log-SNR, $h_k = \lambda_{k+1} - \lambda_k$."""
    return schedule.lam(times).diff()
