r"""The way back: reverse-time SDEs and the probability flow.

For a forward SDE $dx = f\,dt + G\,dW$ with marginals $p_t$, score $s = \nabla\log p_t$ and $C = GG^\top$,

$$ dx = \bigl[f - \tfrac{1 + \eta^2}{2}\,(\nabla\cdot C + C s)\bigr]\,dt + \eta\,G\,d\bar W $$

run backwards in time has the same marginals for every $\eta \ge 0$: $\eta = 1$ is Anderson's reverse-time SDE,
$\eta = 0$ the probability flow. $\nabla\cdot C$ vanishes when the noise does not depend on the state.

References: [anderson1982], [song2021sde].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from sdekit.dynamics import GeneralSDE, covariance_divergence, covariance_times
from sdekit.errors import SdekitError
from sdekit.linear import LinearProcess, ScheduledProcess
from sdekit.schedules import Schedule
from sdekit.score import Score, as_score
from sdekit.typing import Calculus, Direction, Field, NoiseType, Time, along


@final
@dataclass(frozen=True)
class Reverse:
    """A forward SDE turned round; made by :func:`reverse_time` and :func:`probability_flow`."""

    process: LinearProcess | GeneralSDE
    score: Score
    eta: float = 1.0
    calculus: Calculus = "ito"

    @property
    def noise_type(self) -> NoiseType:
        return "none" if self.eta == 0.0 else self.process.noise_type

    @property
    def direction(self) -> Direction:
        return "either" if self.eta == 0.0 else "decreasing"

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the forward process, if it has one."""
        return None if isinstance(self.process, GeneralSDE) else self.process.schedule

    @property
    def linear_process(self) -> LinearProcess:
        """The forward process, where it is linear.

        Raises:
            SdekitError: it is a general SDE.
        """
        if isinstance(self.process, GeneralSDE):
            raise SdekitError("This needs the reverse of a linear process such as sk.VP, not of sk.sde(...).")
        return self.process

    def with_score(self, score: Score) -> Reverse:
        """The same dynamics with another score."""
        return replace(self, score=score)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        weight = 0.5 * (1.0 + self.eta**2)
        score = self.score(t, x)
        if isinstance(self.process, ScheduledProcess):
            factor = along(-weight * self.process.schedule.diffusion_rate(t), x)
            forward = self.process.drift(t, x)
            if isinstance(factor, float):
                return torch.add(forward, score, alpha=factor)
            return forward + factor * score
        push = covariance_times(self.process, t, x, score)
        push = push + covariance_divergence(self.process, t, x)
        return self.process.drift(t, x) - weight * push

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.eta * self.process.diffusion(t, x)


def reverse_time(process: LinearProcess | GeneralSDE, score: Score | Field, eta: float = 1.0) -> Reverse:
    """The reverse-time SDE of a forward one.

    Args:
        process: A forward process or a general Itô SDE.
        score: ``score(t, x)``, exact or learned.
        eta: Amount of noise on the way back: 1 for Anderson's SDE, 0 for the probability flow, any value ≥ 0.

    Returns:
        An SDE to be solved on a decreasing grid (either direction when eta is 0).

    Raises:
        SdekitError: a negative or non-finite eta, a Stratonovich SDE, or something that is not forward.
    """
    if not (math.isfinite(eta) and eta >= 0.0):
        raise SdekitError(f"eta must be a finite number ≥ 0; got {eta}.")
    if not isinstance(process, LinearProcess | GeneralSDE):
        raise SdekitError(f"reverse_time needs a forward process or sk.sde(...); got {type(process).__name__}.")
    if process.calculus != "ito":
        raise SdekitError(
            "reverse_time is written for Itô SDEs; this one is Stratonovich. "
            "Add ½ Σ (∂G_k) G_k to its drift and declare calculus='ito'."
        )
    return Reverse(process, as_score(score), float(eta))


def probability_flow(process: LinearProcess | GeneralSDE, score: Score | Field) -> Reverse:
    r"""The probability-flow ODE $\dot x = f - \tfrac12(\nabla\cdot C + C s)$: ``reverse_time`` with eta = 0."""
    return reverse_time(process, score, eta=0.0)
