"""DDIM."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sdekit import elementary as el
from sdekit.schedules import Schedule
from sdekit.steppers.base import Spec
from sdekit.steppers.plan import Plan, PlannedStepper, h_of, one_row_a_step


@final
class DDIM(PlannedStepper):
    r"""$x_t = \alpha_t D + \sqrt{\sigma_t^2 - s^2}\,\varepsilon + s z$, $s^2 = \eta^2\sigma_t^2 (1 - e^{-2h})$, η ≤ 1.

    With $\rho^2 = 1 - \eta^2 (1 - e^{-2h})$ and $\varepsilon = (x - \alpha_s D)/\sigma_s$ this is

    $$ x_t = \frac{\sigma_t}{\sigma_s}\rho\,x + \alpha_t (1 - \rho e^{-h})\,D + s z . $$

    η = 0 is Euler's method on the flow in σ/α, η = 1 the ancestral sampler of DDPM. At η = 1 the
    conditional mean is exact on Gaussian data for any step; the error is in the covariance.

    References: [song2021ddim], equations (12) and (16).
    """

    spec = Spec(
        name="ddim",
        summary="DDIM: first order in σ/α, any η from 0 (flow) to 1 (DDPM)",
        references=("song2021ddim",),
        kind="plan",
        evaluations=1,
        ode=1.0,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 1.0, "additive": 1.0},
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, 1.0),
        needs_schedule=True,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        h = h_of(schedule, times)
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        fresh = -(eta**2) * el.expm1(-2.0 * h)  # s² / σ_t²
        rho = torch.sqrt(1.0 - fresh)
        # 1 − ρe^{−h} = (1 − ρ) + ρ(1 − e^{−h}), and 1 − ρ = (s²/σ_t²)/(1 + ρ): nothing cancels.
        onto_denoised = fresh / (1.0 + rho) - rho * el.expm1(-h)
        noises = sigma[1:] * torch.sqrt(fresh) if eta > 0.0 else None
        return one_row_a_step(times, "sample", sigma[1:] / sigma[:-1] * rho, alpha[1:] * onto_denoised, noises)
