r"""Langevin diffusions: SDEs whose stationary law is a given one.

$$ dx = \nabla\log p(x)\,dt + \sqrt2\,dW $$

leaves p as it is, and reaches it exponentially fast if p is strongly log-concave. Time is that of the chain, not that
of a diffusion model. A step of length γ is $x + \gamma s + \sqrt{2\gamma}\,z$, and papers write γ in three ways:

| convention | step | γ |
|---|---|---|
| ``gamma`` | $x + \gamma s + \sqrt{2\gamma}\,z$ | γ |
| ``alpha`` | $x + \tfrac\alpha2 s + \sqrt\alpha\,z$ | α/2 |
| ``sigma`` | $x + \tfrac{\sigma^2}2 s + \sigma z$ | σ²/2 |

sdekit writes γ everywhere; :class:`LangevinStep` converts.

References: [roberts1996], [song2019ncsn], [durmus2019].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.func import grad

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.laws import Empirical, Gaussian, GaussianMixture, Law
from sdekit.linear import LinearProcess
from sdekit.reverse import Reverse
from sdekit.score import ExactScore, FunctionScore, Score, as_score, centred, schedule_of
from sdekit.typing import Calculus, Direction, Field, NoiseType, Prediction, Time

Density = Callable[[Tensor], Tensor]
"""Log density up to a constant: states (B, *E) to values (B,)."""


@final
@dataclass(frozen=True)
class LangevinStep:
    """The length of a Langevin step, by its γ.

    Raises:
        SdekitError: it is not positive.
    """

    gamma: float

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma < math.inf:
            raise SdekitError(f"A Langevin step needs a positive length; got γ = {self.gamma}.")

    @classmethod
    def from_alpha(cls, alpha: float) -> LangevinStep:
        r"""That of $x + \tfrac\alpha2 s + \sqrt\alpha\,z$."""
        return cls(0.5 * alpha)

    @classmethod
    def from_sigma(cls, sigma: float) -> LangevinStep:
        r"""That of $x + \tfrac{\sigma^2}2 s + \sigma z$."""
        return cls(0.5 * sigma**2)

    @property
    def alpha(self) -> float:
        """α = 2γ."""
        return 2.0 * self.gamma

    @property
    def sigma(self) -> float:
        """σ = √(2γ)."""
        return math.sqrt(2.0 * self.gamma)

    def __call__(self, x: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""$x + \gamma s + \sqrt{2\gamma}\,z$."""
        return x.add(score, alpha=self.gamma).add_(z, alpha=self.sigma)


@final
@dataclass(frozen=True)
class TargetScore(Score):
    """The score of a law at any time."""

    law: Law
    prediction: Prediction = "score"

    def output(self, t: Time, x: Tensor) -> Tensor:
        return self.law.score(x)

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        return self.law.score(x)


@final
@dataclass(frozen=True)
class FrozenScore(Score):
    """A score at one time, whatever the clock says; made by :class:`Langevin`."""

    score: Score
    at: float
    law: None = None
    prediction: Prediction = "score"

    def output(self, t: Time, x: Tensor) -> Tensor:
        return self.score(self.at, x)

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        return self.score(self.at, x)


@final
class Langevin:
    r"""The Langevin diffusion of a target, $dx = \nabla\log p\,dt + \sqrt2\,dW$.

    Args:
        target: A law, or a score ``s(t, x)`` as everywhere.
        at: The time of the score that is meant; required for the score of a process, which has a law for every time.
        log_prob: Log density of the target up to a constant, (B, *E) to (B,), for Metropolis steps. Known where the
            target is a law or an exact score.

    Raises:
        SdekitError: no score, or one of a process without ``at``.
    """

    noise_type: NoiseType = "additive"
    calculus: Calculus = "ito"
    direction: Direction = "increasing"

    def __init__(
        self, target: Law | Score | Field, *, at: float | None = None, log_prob: Density | None = None
    ) -> None:
        self.score, self.log_prob = _target(target, at), log_prob
        if log_prob is None and isinstance(target, Gaussian | GaussianMixture):
            self.log_prob = target.log_prob
        elif log_prob is None and isinstance(target, ExactScore) and at is not None:
            self.log_prob = marginal_log_prob(target.law, target.process, at)

    def __repr__(self) -> str:
        return f"Langevin({self.score!r})"

    @classmethod
    def from_log_prob(cls, log_prob: Density) -> Langevin:
        """Of a log density, known up to a constant; the score is its gradient, by autograd."""
        gradient = grad(lambda x: log_prob(x).sum())
        return cls(lambda t, x: gradient(x), log_prob=log_prob)

    @classmethod
    def from_energy(cls, energy: Density) -> Langevin:
        r"""Of an energy-based model, $p \propto e^{-E}$."""
        return cls.from_log_prob(lambda x: -energy(x))

    def with_score(self, score: Score) -> Langevin:
        """The same target with another score."""
        return Langevin(score, log_prob=self.log_prob)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        """The score."""
        return self.score(t, x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        """√2."""
        return torch.full_like(x, math.sqrt(2.0))


def _target(target: Law | Score | Field, at: float | None) -> Score:
    if isinstance(target, Empirical):
        raise SdekitError("A data set has no density to sample: diffuse it, Langevin(data.diffused(1.0, sigma)).")
    if isinstance(target, Gaussian | GaussianMixture):
        return TargetScore(target)
    score = as_score(target)  # type: ignore[arg-type]
    if at is not None:
        return FrozenScore(score, float(at))
    if not isinstance(score, FunctionScore | TargetScore | FrozenScore) and isinstance(target, ExactScore):
        raise SdekitError("The score of a process has a law for every time: Langevin(score, at=t).")
    return score


def marginal_log_prob(law: Law, process: LinearProcess, t: float) -> Density:
    """The log density of $X_t$ when $X_0$ has ``law``, (B, *E) to (B,)."""
    if process.schedule is None:
        return process.marginal(law, t).log_prob
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    return lambda x: law.diffused_log_prob(centred(process, t, x), alpha, sigma)


def scheduled_reverse(sde: SDE, name: str) -> Reverse:
    """``sde``, if it is the reverse of a process with a schedule.

    Args:
        sde: The problem.
        name: Of what needs it.

    Raises:
        SdekitError: it is something else.
    """
    if not isinstance(sde, Reverse):
        raise SdekitError(f"{name} needs reverse_time(process, score); got {type(sde).__name__}.")
    schedule_of(sde.linear_process)
    return sde
