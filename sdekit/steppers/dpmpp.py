"""DPM-Solver++, multistep."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sdekit.schedules import Schedule
from sdekit.steppers.base import Spec
from sdekit.steppers.plan import Plan, PlannedStepper, Row, h_of


@final
class DPMpp2M(PlannedStepper):
    r"""DPM-Solver++(2M): the flow, second order, one evaluation per step.

    $$ x_t = \frac{\sigma_t}{\sigma_s} x
         + \alpha_t (1 - e^{-h}) \Bigl[\bigl(1 + \tfrac{1}{2r}\bigr) D_0 - \tfrac{1}{2r} D_{-1}\Bigr],
       \qquad r = \frac{h_{\text{prev}}}{h}, $$

    started with one DDIM step (r = ∞), whose local error is of second order and happens once.

    References: [lu2022dpmpp], Algorithm 2.
    """

    spec = Spec(
        name="dpmpp-2m",
        summary="DPM-Solver++(2M): second-order multistep on the flow, one evaluation a step",
        references=("lu2022dpmpp",),
        kind="plan",
        evaluations=1,
        ode=2.0,
        needs_schedule=True,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        h = h_of(schedule, times)
        a = schedule.sigma(times[1:]) / schedule.sigma(times[:-1])
        b = -schedule.alpha(times[1:]) * torch.expm1(-h)
        slope = torch.cat([torch.zeros(1, dtype=h.dtype), h[1:] / (2.0 * h[:-1])])
        at = times.tolist()
        on_state, newest, older = a.unbind(), (b * (1.0 + slope)).unbind(), (-b * slope).unbind()
        rows = []
        for k in range(len(h)):
            outputs = {0: newest[k], 1: older[k]} if k > 0 else {0: newest[k]}
            rows.append([Row(at[k], {0: on_state[k]}, outputs)])
        return Plan(rows, [[] for _ in rows], "sample")
