"""DEIS, and exponential Adams–Bashforth: ε is interpolated through the last p evaluations, and integrated exactly."""

from __future__ import annotations

from typing import final

from sdekit.steppers.assembly import Multistep
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import IN_TIME, Clocked, Noise
from sdekit.steppers.family import Family


def _spec(name: str, order: int, clock: str) -> Spec:
    return Spec(
        name=f"{name}-{order}",
        summary=f"ε polynomial in {clock} over {order} evaluations: order {order} on the flow" if order > 1 else "DDIM",
        references=("zhang2023deis",),
        kind="plan",
        evaluations=1,
        ode=float(order),
        needs_schedule=True,
        min_steps=order,
        alias="ddim" if order == 1 else None,
    )


@final
class DEIS(Family):
    r"""DEIS (tAB): the flow in ε, polynomial in t.

    $$ x_t = \frac{\alpha_t}{\alpha_s} x_s + \alpha_t \sum_{j<p} \varepsilon_j \int_s^t \ell_j(\tau)\,d\rho_\tau ,
       \qquad \rho = \sigma/\alpha , $$

    with Lagrange's polynomials $\ell_j$ in t through the last p evaluations; the integrals by Gauss and Legendre, to
    rounding. One evaluation a step, order p. p = 1 is DDIM.

    References: [zhang2023deis], equations (11)–(15).
    """

    orders = (1, 2, 3, 4)

    @classmethod
    def declared(cls, order: int) -> Spec:
        return _spec("deis", order, "t")

    def method(self) -> Multistep:
        return Multistep(Clocked(Noise(), *IN_TIME), self.order, start=self.start, apart=self.apart)


@final
class ETDAB(Family):
    r"""Exponential Adams–Bashforth: the flow in ε, polynomial in λ; what is called DEIS in log ρ elsewhere.

    $$ x_t = \frac{\alpha_t}{\alpha_s} x_s - \sigma_t \sum_{j<p} \varepsilon_j \int_0^h e^{h-u}\,\ell_j(u)\,du . $$

    One evaluation a step, order p. p = 1 is DDIM.

    References: [zhang2023deis], [hochbruck2010].
    """

    orders = (1, 2, 3, 4)

    @classmethod
    def declared(cls, order: int) -> Spec:
        return _spec("etd-ab", order, "λ")

    def method(self) -> Multistep:
        return Multistep(Noise(), self.order, start=self.start, apart=self.apart)
