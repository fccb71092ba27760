r"""DPM-Solver++: the flow in D, single-step (S) and multistep (M).

$$ x_t = \frac{\sigma_t}{\sigma_s} x_s + \alpha_t \int_0^h e^{u-h} D(\lambda_s + u)\,du . $$
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from sdekit.schedules import Schedule
from sdekit.steppers.assembly import MIDPOINT, THIRD, Multistep, single_step
from sdekit.steppers.base import Spec
from sdekit.steppers.exponential import Denoised
from sdekit.steppers.plan import Plan, PlannedStepper


@final
class DPMpp2S(PlannedStepper):
    r"""DPM-Solver++(2S) with $r = \tfrac12$.

    With u at $\lambda_s + \tfrac12 h$, from one step of DDIM,

    $$ x_t = \frac{\sigma_t}{\sigma_s} x_s + \alpha_t (1 - e^{-h})\,D_u . $$

    References: [lu2022dpmpp], Algorithm 1.
    """

    spec = Spec(
        name="dpmpp-2s",
        summary="DPM-Solver++(2S): single-step in D, order 2 on the flow",
        references=("lu2022dpmpp",),
        kind="plan",
        evaluations=2,
        ode=2.0,
        needs_schedule=True,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Denoised(), MIDPOINT, schedule, eta, times)


@final
class DPMpp3S(PlannedStepper):
    r"""DPM-Solver++(3S) with $r_1 = \tfrac13$, $r_2 = \tfrac23$.

    The slope of D is taken from the stage at r₂,

    $$ x_t = \frac{\sigma_t}{\sigma_s} x_s + \alpha_t (1 - e^{-h})\,D_s
       + \frac{\alpha_t}{r_2} \Bigl(1 - \frac{1 - e^{-h}}{h}\Bigr)(D_{u_2} - D_s) , $$

    and in the stage u₂ from u₁ in the same way.

    References: [lu2022dpmpp].
    """

    spec = Spec(
        name="dpmpp-3s",
        summary="DPM-Solver++(3S): single-step in D, order 3 on the flow",
        references=("lu2022dpmpp",),
        kind="plan",
        evaluations=3,
        ode=3.0,
        needs_schedule=True,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return single_step(Denoised(), THIRD, schedule, eta, times)


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
        safe_at=frozenset({"noiseless", "signalless"}),
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return Multistep(Denoised(), 2, midpoint=True).plan(schedule, eta, times)


@final
class DPMpp3M(PlannedStepper):
    r"""DPM-Solver++(3M), the true third order: D is the parabola through the last three evaluations.

    $$ x_t = \frac{\sigma_t}{\sigma_s} x_s + \alpha_t\,[I_0 D_0 + I_1 d_1 + I_2 d_2], \qquad
       I_0 = 1 - e^{-h},\quad I_k = 1 - k\,I_{k-1}/h , $$

    with the coefficients $d_k$ of $D(\lambda_s + uh)$ in powers of u. As published, and in diffusers, k-diffusion and
    the authors' code, $d_2$ is halved, which leaves order two. Started with a single-step method of order two.

    References: [lu2022dpmpp].
    """

    spec = Spec(
        name="dpmpp-3m",
        summary="DPM-Solver++(3M) as it should be: third-order multistep on the flow",
        references=("lu2022dpmpp",),
        kind="plan",
        evaluations=1,
        ode=3.0,
        needs_schedule=True,
        min_steps=3,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return Multistep(Denoised(), 3).plan(schedule, eta, times)
