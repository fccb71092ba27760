"""DPM-Solver: single-step exponential Runge–Kutta methods for the flow, in ε."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sdekit.schedules import Schedule
from sdekit.steppers.assembly import EULER, MIDPOINT, THIRD, single_step
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import Noise
from sdekit.steppers.plan import Plan, PlannedStepper


def _spec(order: int, summary: str) -> Spec:
    return Spec(
        name=f"dpm-{order}",
        summary=summary,
        references=("lu2022dpm",),
        kind="plan",
        evaluations=order,
        ode=float(order),
        needs_schedule=True,
        alias="ddim" if order == 1 else None,
    )


@final
class DPM1(PlannedStepper):
    r"""DPM-Solver-1, which is DDIM: $x_t = \frac{\alpha_t}{\alpha_s} x_s - \sigma_t (e^h - 1)\,\varepsilon_s$.

    References: [lu2022dpm], equation (3.7).
    """

    spec = _spec(1, "DPM-Solver-1, which is DDIM")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Noise(), EULER, schedule, eta, times)


@final
class DPM2(PlannedStepper):
    r"""DPM-Solver-2 with $r_1 = \tfrac12$.

    With u at $\lambda_s + \tfrac12 h$, from one step of DPM-Solver-1,

    $$ x_t = \frac{\alpha_t}{\alpha_s} x_s - \sigma_t (e^h - 1)\,\varepsilon_u . $$

    References: [lu2022dpm], Algorithm 1.
    """

    spec = _spec(2, "DPM-Solver-2: single-step in ε, order 2 on the flow")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Noise(), MIDPOINT, schedule, eta, times)


@final
class DPM3(PlannedStepper):
    r"""DPM-Solver-3 with $r_1 = \tfrac13$, $r_2 = \tfrac23$.

    With $u_1, u_2$ at these parts of the step, the slope of ε is taken from u₂,

    $$ x_t = \frac{\alpha_t}{\alpha_s} x_s - \sigma_t (e^h - 1)\,\varepsilon_s
       - \frac{\sigma_t}{r_2} \Bigl(\frac{e^h - 1}{h} - 1\Bigr)(\varepsilon_{u_2} - \varepsilon_s) , $$

    and in the stage u₂ from u₁ in the same way.

    References: [lu2022dpm], Algorithm 2.
    """

    spec = _spec(3, "DPM-Solver-3: single-step in ε, order 3 on the flow")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Noise(), THIRD, schedule, eta, times)
