r"""SEEDS: single-step exponential methods for the way back at any η, in D.

The stages stand on one Brownian path: with $z_i$ normal over the parts of a step, the noise of a state at λ is what
the exact solution carries there, $\sigma \int \sqrt2\,\eta\,e^{-\eta^2(\lambda - u)}\,dW_u$, over the same parts.
Independent draws for the stages would leave order one.
"""

from __future__ import annotations

import math
from typing import final

from torch import Tensor

from sdekit.schedules import Schedule
from sdekit.steppers.assembly import SECOND, THIRD, single_step
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import Denoised
from sdekit.steppers.plan import Plan, PlannedStepper


def _spec(stages: int, summary: str) -> Spec:
    return Spec(
        name=f"seeds{stages}",
        summary=summary,
        references=("gonzalez2023seeds",),
        kind="plan",
        evaluations=stages,
        ode=float(stages),
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 2.0},
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
    )


@final
class SEEDS2(PlannedStepper):
    r"""SEEDS-2 with $r = \tfrac12$: the slope of D from one stage at $\lambda_s + \tfrac12 h$, with its noise.

    $$ x_t = \frac{\sigma_t}{\sigma_s} e^{-\eta^2 h} x_s + \alpha_t\,[I_0 D_s + I_1 (D_u - D_s)/r] + \text{noise},
       \qquad I_0 = 1 - e^{-a},\; I_1 = 1 - I_0/a,\; a = (1 + \eta^2) h . $$

    References: [gonzalez2023seeds].
    """

    spec = _spec(2, "SEEDS-2: two stages on one Brownian path, any η, weak order 2")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Denoised(), SECOND, schedule, eta, times)


@final
class SEEDS3(PlannedStepper):
    r"""SEEDS-3 with stages at ⅓ and ⅔ of the step, as :class:`~sdekit.steppers.DPMpp3S` with their noise.

    Third order on the flow, weak order two with noise.

    References: [gonzalez2023seeds].
    """

    spec = _spec(3, "SEEDS-3: three stages on one Brownian path, any η")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Denoised(), THIRD, schedule, eta, times)
