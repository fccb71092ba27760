r"""The samplers of EDM: Euler and Heun on $y = x/\alpha$ in the clock $\rho = \sigma/\alpha$, with churn.

A step may first add noise, from $\rho_s$ up to $\hat\rho = (1 + \gamma)\rho_s$, and then go down the flow to $\rho_t$:

$$ \hat y = y_s + \sqrt{\hat\rho^2 - \rho_s^2}\;S_{noise}\,z, \qquad
   \gamma = \min(S_{churn}/N, \sqrt2 - 1) \text{ where } S_{min} \le \rho_s \le S_{max} . $$

The noise is the sampler's own: the problem is a flow, η = 0. (A step h of the reverse-time SDE has γ ≈ η² h.)
$\hat\rho$ does not go beyond the grid's first time, lest the network be asked outside its range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from sdekit.brownian import Interval
from sdekit.errors import SdekitError
from sdekit.schedules import Schedule
from sdekit.steppers.base import Spec
from sdekit.steppers.plan import Plan, PlannedStepper, Row


def _spec(name: str, order: int, summary: str) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=("karras2022edm",),
        kind="plan",
        evaluations=order,
        ode=float(order),
        needs_schedule=True,
        alias="ddim" if order == 1 else None,
    )


@dataclass(frozen=True)
class Churn:
    """How much noise a step adds before it goes down; the paper's S_churn, S_min, S_max and S_noise."""

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.amount < math.inf and 0.0 <= self.low <= self.high and self.scale > 0.0):
            raise SdekitError(f"Churn needs amount ≥ 0, 0 ≤ low ≤ high and scale > 0; got {self}.")


@dataclass(frozen=True)
class _Lifted:
    """Where the steps start after churning."""

    times: list[float]
    alpha: Tensor
    rho: Tensor
    noise: Tensor | None
    draws: Sequence[Sequence[Interval]]


def _lift(churn: Churn, schedule: Schedule, times: Tensor) -> _Lifted:
    s = times[:-1]
    rho, alpha, at = torch.exp(-schedule.lam(s)), schedule.alpha(s), times.tolist()
    inside = (rho >= churn.low) & (rho <= churn.high)
    gamma = min(churn.amount / len(s), math.sqrt(2.0) - 1.0)
    if gamma == 0.0 or not bool(inside.any()):
        return _Lifted(at[:-1], alpha, rho, None, [[] for _ in s])
    top = torch.exp(-torch.as_tensor(schedule.lam(times.max())))
    lifted = torch.where(inside, torch.minimum((1.0 + gamma) * rho, torch.maximum(rho, top)), rho)
    where = torch.where(lifted > rho, schedule.time_at(-torch.log(lifted)), s)
    noise = churn.scale * torch.sqrt((lifted - rho) * (lifted + rho))
    return _Lifted(where.tolist(), schedule.alpha(where), lifted, noise, [[i] for i in pairwise(at)])


def _plan(churn: Churn, schedule: Schedule, times: Tensor, heun: bool) -> Plan:
    up = _lift(churn, schedule, times)
    alpha, rho, at = schedule.alpha(times), torch.exp(-schedule.lam(times)), times.tolist()
    rise = (up.alpha / alpha[:-1]).unbind()
    down = (alpha[1:] / up.alpha).unbind()
    slope = (alpha[1:] * (rho[1:] - up.rho)).unbind()
    kick = None if up.noise is None else (up.alpha * up.noise).unbind()
    steps = []
    for k in range(len(times) - 1):
        rows = [] if kick is None else [Row(None, {0: rise[k]}, {}, {0: kick[k]})]
        rows.append(Row(up.times[k], {0: down[k]}, {0: slope[k]}))
        if heun and bool(rho[k + 1] > 0.0):  # at σ = 0 there is no second evaluation
            half = 0.5 * slope[k]
            rows.append(Row(at[k + 1], {1: down[k]}, {0: half, 1: half}))
        steps.append(rows)
    return Plan(steps, up.draws, "epsilon")


@final
class EDMEuler(PlannedStepper):
    r"""Euler's method in ρ: $y_t = \hat y + (\rho_t - \hat\rho)\,\varepsilon$; without churn it is DDIM.

    Args:
        churn: Noise added before every step; by default none.

    References: [karras2022edm], Algorithm 2 without its correction.
    """

    spec = _spec("edm-euler", 1, "Euler in σ/α, with churn; without, DDIM")

    def __init__(self, churn: Churn | None = None) -> None:
        self.churn = churn or Churn()

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return _plan(self.churn, schedule, times, heun=False)


@final
class EDMHeun(PlannedStepper):
    r"""Heun's method in ρ: $y_t = \hat y + \tfrac12 (\rho_t - \hat\rho)(\varepsilon + \varepsilon')$, ε′ at Euler's y.

    Args:
        churn: Noise added before every step; by default none.

    References: [karras2022edm], Algorithms 1 and 2.
    """

    spec = _spec("edm-heun", 2, "Heun in σ/α, with churn: order 2 on the flow")

    def __init__(self, churn: Churn | None = None) -> None:
        self.churn = churn or Churn()

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return _plan(self.churn, schedule, times, heun=True)
