r"""Adams methods on the rectified path.

With $\tilde x = x/(\alpha + \sigma)$ and $u = \sigma/(\alpha + \sigma)$ every schedule is the straight line
$\tilde x = (1 - u) D + u\,\varepsilon$, and the flow is $d\tilde x/du = \varepsilon - D$. The velocity is smooth up to
both ends, u = 0 (data) and u = 1 (pure noise), so that a grid may stand on them.
"""

from __future__ import annotations

from typing import final

from sdekit.steppers.assembly import SINGLE, Multistep, Stage
from sdekit.steppers.base import Spec
from sdekit.steppers.coefficients import vector
from sdekit.steppers.exponential import Rectified
from sdekit.steppers.family import Family


def _runge_kutta(nodes: str, *rows: str) -> tuple[Stage, ...]:
    """A tableau as stages: on the straight path every row is one mean velocity, held over its fraction of the step."""
    stages = []
    for c, row in zip(vector(nodes), map(vector, rows), strict=True):
        stages.append(Stage(0, float(c), [(0.0, {j: float(a / c) for j, a in enumerate(row) if a})]))
    return tuple(stages)


FIFTH = _runge_kutta(
    "1/5 3/10 4/5 8/9 1 1",
    "1/5",
    "3/40 9/40",
    "44/45 -56/15 32/9",
    "19372/6561 -25360/2187 64448/6561 -212/729",
    "9017/3168 -355/33 46732/5247 49/176 -5103/18656",
    "35/384 0 500/1113 125/192 -2187/6784 11/84",
)
"""Dormand and Prince's fifth-order method [hairer1993], which starts the five-step one."""


@final
class VAB(Family):
    r"""Adams–Bashforth on the rectified path, with variable steps.

    $$ \tilde x_t = \tilde x_s + \sum_{j<p} (\varepsilon - D)_j \int_{u_s}^{u_t} \ell_j(u)\,du . $$

    One evaluation a step, order p. p = 1 is DDIM.

    References: [liu2023], [hairer1993] III.5.
    """

    orders = (1, 2, 3, 4)

    @classmethod
    def declared(cls, order: int) -> Spec:
        return Spec(
            name=f"v-ab-{order}",
            summary=f"Adams on the rectified path: order {order} on the flow, to σ = 0" if order > 1 else "DDIM",
            references=("liu2023", "hairer1993"),
            kind="plan",
            evaluations=1,
            ode=float(order),
            needs_schedule=True,
            min_steps=order,
            safe_at=frozenset({"noiseless", "signalless"}),
            alias="ddim" if order == 1 else None,
        )

    def method(self) -> Multistep:
        return Multistep(Rectified(), self.order, start=self.start, apart=self.apart)


@final
class VABM(Family):
    r"""Adams–Bashforth–Moulton on the rectified path: predict with p evaluations, correct with p + 1.

    The corrector uses the evaluation at the predicted state, which is the next step's first one as well: one
    evaluation a step, order p + 1. Nodes are a quarter of a step apart at least, so that the last
    step, from the least σ that a network knows to 0, does not magnify the network's errors. On a flow
    :func:`sdekit.solve` takes ``VABM(4, start="ramp")`` unless told otherwise.

    References: [liu2023], [hairer1993] III.5.
    """

    orders = (1, 2, 3, 4, 5)
    apart = 0.25

    @classmethod
    def declared(cls, order: int) -> Spec:
        return Spec(
            name=f"v-abm-{order}",
            summary=f"predictor–corrector on the rectified path: order {order + 1} on the flow, to σ = 0",
            references=("liu2023", "hairer1993"),
            kind="plan",
            evaluations=1,
            ode=order + 1.0,
            needs_schedule=True,
            min_steps=order,
            safe_at=frozenset({"noiseless", "signalless"}),
        )

    def method(self) -> Multistep:
        single = {**SINGLE, 5: FIFTH}
        return Multistep(Rectified(), self.order, self.order + 1, self.start, single=single, apart=self.apart)
