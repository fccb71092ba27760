r"""ER-SDE: the way back at any η, in D, polynomial in ρ = σ/α.

In the paper's words the noise function is $\phi(\rho) = \rho^{1 + \eta^2}$, and

$$ x_t = \frac{\alpha_t}{\alpha_s}\frac{\phi_t}{\phi_s} x_s
   + \alpha_t \phi_t \int_s^t D\,d\!\left(\frac1\phi\right) + \text{noise} . $$
"""

from __future__ import annotations

import math
from typing import final

from sdekit.steppers.assembly import Multistep
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import IN_RHO, Clocked, Denoised
from sdekit.steppers.family import Family


@final
class ERSDE(Family):
    r"""ER-SDE of stage p: D is the polynomial in ρ through the last p evaluations.

    The paper's stage 3 takes its second difference without Newton's product, and is of second order on the flow; this
    one is of third. On a grid that ends at σ = 0 the last step extrapolates D to ρ = 0. p = 1 is SDE-DPM-Solver++(1).

    References: [cui2025ersde], Algorithms 1–5.
    """

    orders = (1, 2, 3)

    @classmethod
    def declared(cls, order: int) -> Spec:
        weak = min(2.0, float(order))
        return Spec(
            name=f"er-sde-{order}",
            summary=f"ER-SDE-{order}: D polynomial in σ/α over {order} evaluations, any η",
            references=("cui2025ersde",),
            kind="plan",
            evaluations=1,
            ode=float(order),
            strong={"linear-additive": 1.0, "additive": 1.0},
            weak={"linear-additive": weak} | ({"additive": 1.0} if order == 1 else {}),
            noise_types=frozenset({"none", "additive"}),
            eta=(0.0, math.inf),
            needs_schedule=True,
            min_steps=order,
            safe_at=frozenset({"noiseless"}),
            alias="sde-dpmpp-1" if order == 1 else None,
        )

    def method(self) -> Multistep:
        return Multistep(Clocked(Denoised(), *IN_RHO), self.order, start=self.start, apart=self.apart)
