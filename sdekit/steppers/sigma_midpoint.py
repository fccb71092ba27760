"""The midpoint rule in σ/α."""

from __future__ import annotations

import math
from typing import final

from torch import Tensor

from sdekit.schedules import Schedule
from sdekit.steppers.assembly import SECOND, single_step
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import IN_RHO, Clocked, Noise
from sdekit.steppers.plan import Plan, PlannedStepper


@final
class SigmaMidpoint(PlannedStepper):
    r"""The explicit midpoint rule on $y = x/\alpha$ in the clock $\rho = \sigma/\alpha$, at any η.

    $$ dy = (1 + \eta^2)\,\varepsilon\,d\rho + \eta\,\sqrt{2\rho}\,d\bar W_\rho , $$

    with ε asked at the middle of the step in ρ, and the noise of both halves. Second order; on Gaussian data the law's
    error is of third order at every η.

    References: [karras2022edm], [kloeden1992].
    """

    spec = Spec(
        name="sigma-midpoint",
        summary="the midpoint rule in σ/α, any η: order 2; on Gaussian data 3",
        references=("karras2022edm", "kloeden1992"),
        kind="plan",
        evaluations=2,
        ode=2.0,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 3.0},
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Clocked(Noise(), *IN_RHO), SECOND, schedule, eta, times)
