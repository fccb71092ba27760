"""SA-Solver."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.schedules import Schedule
from sdekit.steppers.assembly import Multistep, Start
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import Denoised
from sdekit.steppers.plan import Plan, PlannedStepper


@final
class SASolver(PlannedStepper):
    r"""SA-Solver: stochastic Adams in D, predicted with p evaluations and corrected with q, at any η.

    $$ x_t = \frac{\sigma_t}{\sigma_s} e^{-\eta^2 h} x_s
       + \alpha_t \sum_j D_j \int_0^1 a\,e^{-a(1-v)}\,\ell_j(v)\,dv + \sigma_t \sqrt{1 - e^{-2\eta^2 h}}\,z , $$

    where the corrector has the evaluation at the predicted state among its q, and the predictor's z. What the paper
    calls τ is the problem's η.

    Args:
        predictor: p, from 1 to 4; 2 is what the spec declares the orders of.
        corrector: q, from 1 to 4; 0 for none.
        start: As for :class:`~sdekit.steppers.family.Family`.

    References: [xue2023sasolver], Algorithm 1.
    """

    spec = Spec(
        name="sa-solver",
        summary="SA-Solver: stochastic Adams predictor–corrector in D, any η, weak order 2",
        references=("xue2023sasolver",),
        kind="plan",
        evaluations=1,
        ode=2.0,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 2.0},
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
        min_steps=2,
    )

    def __init__(self, predictor: int = 2, corrector: int = 2, start: Start = "single-step") -> None:
        if predictor not in range(1, 5) or corrector not in range(5):
            raise SdekitError(f"SASolver takes orders up to 4; got predictor {predictor!r}, corrector {corrector!r}.")
        self._method = Multistep(Denoised(), predictor, corrector, start)
        self.spec = replace(SASolver.spec, min_steps=max(1, predictor, corrector - 1))  # type: ignore[misc]

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return self._method.plan(schedule, eta, times)
