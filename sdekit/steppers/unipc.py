"""UniPC."""

from __future__ import annotations

from typing import final

from sdekit.steppers.assembly import Multistep
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import Denoised
from sdekit.steppers.family import Family


@final
class UniPC(Family):
    r"""UniPC: D polynomial in λ; the predictor uses p evaluations, the corrector p + 1.

    $$ x_t = \frac{\sigma_t}{\sigma_s} x_s + \alpha_t \sum_j D_j \int_0^h e^{u-h}\,\ell_j(u)\,du $$

    twice a step: without, and then with, $D(t, x_t)$ at the predicted state, which is the next step's first evaluation
    as well. So one evaluation a step has order p + 1. The integrals are exact, and the paper's function B(h) cancels.

    References: [zhao2023unipc], Theorem 3.1.
    """

    orders = (1, 2, 3, 4)

    @classmethod
    def declared(cls, order: int) -> Spec:
        return Spec(
            name=f"unipc-{order}",
            summary=f"predictor–corrector in D over {order} evaluations: order {order + 1} on the flow",
            references=("zhao2023unipc",),
            kind="plan",
            evaluations=1,
            ode=order + 1.0,
            needs_schedule=True,
            min_steps=order,
        )

    def method(self) -> Multistep:
        return Multistep(Denoised(), self.order, self.order + 1, self.start, apart=self.apart)
