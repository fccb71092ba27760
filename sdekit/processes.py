"""The forward processes of generative modelling: VP, VE, SubVP, Cosine, EDM, Flow, DiscreteVP, DiscreteVE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from sdekit import chains, schedules
from sdekit.linear import ScheduledProcess


@final
@dataclass(frozen=True)
class VP(ScheduledProcess):
    r"""Variance preserving: $dx = -\tfrac12 \beta_t x\,dt + \sqrt{\beta_t}\,dW$, β linear on [0, 1].

    References: [song2021sde].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    @cached_property
    def schedule(self) -> schedules.LinearBeta:
        return schedules.LinearBeta(self.beta_min, self.beta_max)


@final
@dataclass(frozen=True)
class SubVP(ScheduledProcess):
    r"""Sub-VP: the drift of VP with $g^2 = \beta_t (1 - e^{-2\int\beta})$, so that $\sigma = 1 - e^{-\int\beta}$.

    References: [song2021sde].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    @cached_property
    def schedule(self) -> schedules.SubLinearBeta:
        return schedules.SubLinearBeta(self.beta_min, self.beta_max)


@final
@dataclass(frozen=True)
class VE(ScheduledProcess):
    r"""Variance exploding: $dx = \sqrt{d\sigma^2/dt}\,dW$, $\sigma_t = \sigma_{\min}(\sigma_{\max}/\sigma_{\min})^t$.

    ``marginal(law, t)`` adds the variance $\sigma_t^2$, the level that a network is trained at;
    ``transition(0, t)`` adds $\sigma_t^2 - \sigma_0^2$, which is what the SDE does from time 0. The two
    differ by $\sigma_{\min}^2$: time 0 already carries that much noise.

    References: [song2021sde].
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    @cached_property
    def schedule(self) -> schedules.GeometricSigma:
        return schedules.GeometricSigma(self.sigma_min, self.sigma_max)


@final
@dataclass(frozen=True)
class Cosine(ScheduledProcess):
    r"""Variance preserving with $\alpha_t \propto \cos\tfrac{\pi}{2}\tfrac{t+s}{1+s}$. α vanishes at t = 1.

    References: [nichol2021].
    """

    offset: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.999

    @cached_property
    def schedule(self) -> schedules.CosineAngle:
        return schedules.CosineAngle(self.offset)


@final
@dataclass(frozen=True)
class EDM(ScheduledProcess):
    r"""$\sigma_t = t$ without scaling: $dx = \sqrt{2t}\,dW$.

    References: [karras2022edm].
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.sigma_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.sigma_max

    @cached_property
    def schedule(self) -> schedules.SigmaTime:
        return schedules.SigmaTime(self.sigma_max)


@final
@dataclass(frozen=True)
class Flow(ScheduledProcess):
    r"""The straight line $x_t = (1 - t) x_0 + t\,\varepsilon$ of rectified flow, as an SDE.

    References: [lipman2023], [liu2023].
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    @cached_property
    def schedule(self) -> schedules.Interpolant:
        return schedules.Interpolant()


@final
@dataclass(frozen=True)
class DiscreteVP(ScheduledProcess):
    r"""The DDPM chain $x_i = \sqrt{1-\beta_i}\,x_{i-1} + \sqrt{\beta_i}\,z$ as a process, t = i/L.

    Its marginals are exact at every t = i/L (a network's integer timestep is i − 1). Its rate β jumps there, so
    steppers that see the rates (euler-maruyama, heun, …) fall to first order once their steps are as short as the
    chain's; steppers written in λ (ddim, dpmpp-2m) keep their order.

    References: [ho2020ddpm].
    """

    betas: tuple[float, ...] | Sequence[float] | Tensor
    t_max: float = 1.0

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 1.0 / len(self.schedule.betas)

    @cached_property
    def schedule(self) -> chains.ChainBeta:
        return chains.ChainBeta(_floats(self.betas))


@final
@dataclass(frozen=True)
class DiscreteVE(ScheduledProcess):
    r"""The SMLD chain $x_i = x_{i-1} + \sqrt{\sigma_i^2 - \sigma_{i-1}^2}\,z$ as a process, t = i/L.

    References: [song2019ncsn], [song2021sde].
    """

    sigmas: tuple[float, ...] | Sequence[float] | Tensor
    t_max: float = 1.0

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 1.0 / len(self.schedule.sigmas)

    @cached_property
    def schedule(self) -> chains.ChainSigma:
        return chains.ChainSigma(_floats(self.sigmas))


def _floats(values: Sequence[float] | Tensor) -> tuple[float, ...]:
    return tuple(torch.as_tensor(values, dtype=torch.float64).tolist())
