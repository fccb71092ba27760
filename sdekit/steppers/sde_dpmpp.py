r"""SDE-DPM-Solver++: the way back at any η, in D, multistep.

With $a = (1 + \eta^2) h$ the linear part and the noise are exact, so that the law of a point mass is carried exactly:

$$ x_t = \frac{\sigma_t}{\sigma_s} e^{-\eta^2 h} x_s + \alpha_t \int_0^1 a\,e^{-a(1-v)} D(\lambda_s + v h)\,dv
   + \sigma_t \sqrt{1 - e^{-2\eta^2 h}}\,z . $$

What no method with one normal and one evaluation a step can see is how D moves with the noise inside a step; so the
weak order is two, however many evaluations D is interpolated through.
"""

from __future__ import annotations

import math
from typing import final

from torch import Tensor

from sdekit.schedules import Schedule
from sdekit.steppers.assembly import Multistep
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import Denoised
from sdekit.steppers.plan import Plan, PlannedStepper


def _spec(name: str, summary: str, order: float, steps: int) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=("lu2022dpmpp",),
        kind="plan",
        evaluations=1,
        ode=float(steps),
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": order} | ({"additive": 1.0} if steps == 1 else {}),
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
        min_steps=steps if steps > 2 else 1,
        safe_at=frozenset({"noiseless", "signalless"}) if steps < 3 else frozenset(),
    )


@final
class SDEDPMpp1(PlannedStepper):
    r"""SDE-DPM-Solver++(1), at any η: D is held over the step.

    $$ x_t = \frac{\sigma_t}{\sigma_s} e^{-\eta^2 h} x_s + \alpha_t (1 - e^{-(1 + \eta^2) h})\,D
       + \sigma_t \sqrt{1 - e^{-2\eta^2 h}}\,z . $$

    At η = 0 and at η = 1 it is DDIM; between them another discretisation of the same SDE.

    References: [lu2022dpmpp]; [xue2023sasolver] at p = 1; [cui2025ersde] at stage 1.
    """

    spec = _spec("sde-dpmpp-1", "SDE-DPM-Solver++(1): D held over a step, any η", 1.0, 1)

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return Multistep(Denoised(), 1).plan(schedule, eta, times)


@final
class SDEDPMpp2M(PlannedStepper):
    r"""SDE-DPM-Solver++(2M), at any η: the slope of D by its midpoint value, $I_1 = \tfrac12 I_0$.

    $$ x_t = \frac{\sigma_t}{\sigma_s} e^{-\eta^2 h} x_s + \alpha_t (1 - e^{-(1 + \eta^2) h})
       \Bigl[\bigl(1 + \tfrac{1}{2r}\bigr) D_0 - \tfrac{1}{2r} D_{-1}\Bigr]
       + \sigma_t \sqrt{1 - e^{-2\eta^2 h}}\,z . $$

    References: [lu2022dpmpp].
    """

    spec = _spec("sde-dpmpp-2m", "SDE-DPM-Solver++(2M): any η, weak order 2, one evaluation a step", 2.0, 2)

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return Multistep(Denoised(), 2, midpoint=True).plan(schedule, eta, times)


@final
class SDEDPMpp3M(PlannedStepper):
    r"""SDE-DPM-Solver++(3M), at any η: D is the parabola through the last three evaluations, integrated exactly.

    As published the second difference is halved and added with the wrong sign. Third order on the flow, weak order two
    with noise.

    References: [lu2022dpmpp].
    """

    spec = _spec("sde-dpmpp-3m", "SDE-DPM-Solver++(3M): any η, a parabola through three evaluations", 2.0, 3)

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return Multistep(Denoised(), 3).plan(schedule, eta, times)
