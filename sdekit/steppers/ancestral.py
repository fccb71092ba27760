r"""Ancestral samplers: what the discrete chains of DDPM and SMLD do, on any grid of any schedule.

From s to t the forward process gains the variance $G^2 = \sigma_s^2 - (\alpha_s/\alpha_t)^2 \sigma_t^2
= \sigma_s^2 (1 - e^{-2h})$, which is $\beta$ on neighbouring levels of DDPM and $\sigma_s^2 - \sigma_t^2$ on those of
SMLD.
"""

from __future__ import annotations

import math
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sdekit import elementary as el
from sdekit.errors import unknown_name
from sdekit.schedules import Schedule
from sdekit.steppers.base import Spec
from sdekit.steppers.ddim import DDIM
from sdekit.steppers.plan import Plan, PlannedStepper, h_of, one_row_a_step

Variance = Literal["posterior", "beta"]


def _spec(name: str, summary: str, reference: str, alias: str | None = None) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=(reference,),
        kind="plan",
        evaluations=1,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 1.0, "additive": 1.0},
        noise_types=frozenset({"additive"}),
        eta=(1.0, 1.0),
        needs_schedule=True,
        alias=alias,
    )


@final
class DDPM(PlannedStepper):
    r"""Ancestral sampling of DDPM: the mean of the chain's posterior, with one of its two variances.

    $$ x_t = \frac{\sigma_t}{\sigma_s} e^{-h} x_s + \alpha_t (1 - e^{-2h})\,D + v\,z , \qquad
       v^2 = \sigma_t^2 (1 - e^{-2h}) = \tilde\beta \quad\text{or}\quad v^2 = \sigma_s^2 (1 - e^{-2h}) = \beta . $$

    $\tilde\beta$ is DDIM at η = 1; it is exact for a point mass. β is exact for standard normal data on VP.

    Args:
        variance: ``posterior`` for $\tilde\beta$, ``beta`` for β.

    References: [ho2020ddpm], Algorithm 2, equations (7) and (15).
    """

    spec = _spec("ddpm", "DDPM's ancestral sampler, posterior variance: DDIM at η = 1", "ho2020ddpm", "ddim")

    def __init__(self, variance: Variance = "posterior") -> None:
        if variance not in get_args(Variance):
            raise unknown_name("variance", variance, get_args(Variance))
        self.variance = variance
        if variance == "beta":
            self.spec = DDPMBeta.spec  # type: ignore[misc]

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return DDIM().plan(schedule, 1.0, times) if self.variance == "posterior" else _larger_variance(schedule, times)


@final
class DDPMBeta(PlannedStepper):
    """DDPM with the variance β: ``DDPM(variance="beta")``.

    References: [ho2020ddpm], Algorithm 2, equation (15).
    """

    spec = _spec("ddpm-beta", "DDPM's ancestral sampler with the larger variance, β", "ho2020ddpm")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return _larger_variance(schedule, times)


def _larger_variance(schedule: Schedule, times: Tensor) -> Plan:
    sigma = schedule.sigma(times)
    lost = -el.expm1(-2.0 * h_of(schedule, times))
    alpha = schedule.alpha(times)
    kept = alpha[1:] / alpha[:-1]
    return one_row_a_step(times, "epsilon", kept, -kept * sigma[:-1] * lost, sigma[:-1] * torch.sqrt(lost))


@final
class AncestralVE(PlannedStepper):
    r"""Ancestral sampling of SMLD, with the score s.

    $$ x_t = x_s + (\sigma_s^2 - \sigma_t^2)\,s + \frac{\sigma_t}{\sigma_s}\sqrt{\sigma_s^2 - \sigma_t^2}\,z , $$

    which is DDIM at η = 1 on a variance-exploding process; on another it is taken to be that.

    References: [song2021sde], equation (47).
    """

    spec = _spec("ancestral-ve", "SMLD's ancestral sampler: DDIM at η = 1", "song2021sde", "ddim")

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return DDIM().plan(schedule, 1.0, times)


@final
class ReverseDiffusion(PlannedStepper):
    r"""The reverse diffusion sampler: the forward chain's own discretisation, reversed, at any η.

    The chain steps up from t to s by $x_s = x_t + f + G z$ with $f = (\alpha_s/\alpha_t - 1)\,x_t$; so down goes

    $$ x_t = \Bigl(2 - \frac{\alpha_s}{\alpha_t}\Bigr) x_s - \frac{1 + \eta^2}{2} \frac{G^2}{\sigma_s}\,\varepsilon
       + \eta\,G\,z . $$

    References: [song2021sde], equation (46).
    """

    spec = Spec(
        name="reverse-diffusion",
        summary="reverse diffusion: the forward chain's discretisation, any η",
        references=("song2021sde",),
        kind="plan",
        evaluations=1,
        ode=1.0,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 1.0, "additive": 1.0},
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
    )

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)[:-1]
        lost = -el.expm1(-2.0 * h_of(schedule, times))  # G²/σ_s²
        outputs = -0.5 * (1.0 + eta**2) * sigma * lost
        noises = eta * sigma * torch.sqrt(lost) if eta else None
        return one_row_a_step(times, "epsilon", 2.0 - alpha[:-1] / alpha[1:], outputs, noises)
