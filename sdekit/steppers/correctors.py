r"""Correctors: Langevin steps at time t that keep the law $p_t$, or nearly, after a step s → t of a sampler.

$$ x \leftarrow x + \epsilon\,s(t, x) + \sqrt{2\epsilon}\,z . $$

The bias depends on how ε is chosen:

- :class:`LangevinCorrector`, $\epsilon = c\,\sigma_t^2 (1 - e^{-2h})$ with $h = |\lambda_t - \lambda_s|$: the share c
  of the variance that the step takes away. Its bias falls like the steps, at order one: in the limit n such
  corrections add noise, and solve the problem with $\eta^2 + 2 n c$ for $\eta^2$. Or $\epsilon = c\,\sigma_t^2$ on
  every level: in the limit the law has the bias of ULA with the last γ.
- :class:`SNRCorrector`, $\epsilon = 2 a\,(r \lVert z\rVert / \lVert s\rVert)^2$, sample by sample. The published code
  takes norms over the batch, so that samples depend on one another. It is biased however small r is, as below.
- :class:`MetropolisCorrector`: steps of a given size, accepted or not; it has no bias.

References: [song2021sde], Algorithms 4 and 5; [roberts1996].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.errors import SdekitError, unknown_name
from sdekit.fresh import Fresh
from sdekit.langevin import Density, LangevinStep, marginal_log_prob
from sdekit.reverse import Reverse
from sdekit.score import schedule_of
from sdekit.steppers.metropolis import Acceptance, Metropolis

Per = Literal["step", "level"]
"""What the size of a corrector is a multiple of: σ_t² (1 − e^{−2h}), or σ_t²."""

Correct = Callable[[Tensor, Sequence[Increment], Acceptance], tuple[Tensor, Acceptance]]


class Corrector(ABC):
    """Steps that keep the law of a level, or nearly.

    Attributes:
        steps: How many on a level.
    """

    steps: int
    draws: ClassVar[tuple[Fresh, ...]] = ("state",)

    @property
    def evaluations(self) -> int:
        """Of the score, on a level."""
        return self.steps

    @property
    def converges(self) -> bool:
        """Whether its bias is known to vanish at order one as the steps of the grid do."""
        return False

    @abstractmethod
    def bind(self, sde: Reverse, s: float, t: float) -> Correct:
        """The correction at t, after a step from s."""


def _check(steps: int, **sizes: float) -> None:
    if steps < 1:
        raise SdekitError(f"A corrector takes at least one step on a level; got steps = {steps}.")
    for name, value in sizes.items():
        if not 0.0 < value < math.inf:
            raise SdekitError(f"A corrector needs {name} > 0; got {value}.")


def _step(sde: Reverse, s: float, t: float, size: float, per: Per) -> LangevinStep:
    schedule = schedule_of(sde.linear_process)
    lost = -math.expm1(-2.0 * abs(schedule.lam(t) - schedule.lam(s))) if per == "step" else 1.0
    return LangevinStep(size * schedule.sigma(t) ** 2 * lost)


def _check_per(per: Per) -> None:
    if per not in get_args(Per):
        raise unknown_name("measure of a corrector's size", per, get_args(Per))


@final
@dataclass(frozen=True)
class LangevinCorrector(Corrector):
    r"""Unadjusted steps of a given size, which keep a run on Gaussian data affine.

    Args:
        size: c.
        steps: n.
        per: ``step`` for $\epsilon = c\,\sigma_t^2 (1 - e^{-2h})$, ``level`` for $\epsilon = c\,\sigma_t^2$.

    Raises:
        SdekitError: a size that is not positive, no steps, or an unknown ``per``.
    """

    size: float = 0.25
    steps: int = 1
    per: Per = "step"

    def __post_init__(self) -> None:
        _check(self.steps, size=self.size)
        _check_per(self.per)

    @property
    def converges(self) -> bool:
        return self.per == "step"

    def bind(self, sde: Reverse, s: float, t: float) -> Correct:
        step = _step(sde, s, t, self.size, self.per)

        def correct(x: Tensor, normals: Sequence[Increment], count: Acceptance) -> tuple[Tensor, Acceptance]:
            for z in normals:
                x = step(x, sde.score(t, x), z.w)
            return x, count

        return correct


@final
@dataclass(frozen=True)
class SNRCorrector(Corrector):
    r"""Steps $\epsilon = 2 a\,(r \lVert z\rVert/\lVert s\rVert)^2$ from the norms of every sample by itself.

    $a = 1 - \beta_i$ on the chain of VP and 1 on VE. The chain has $x_s = \sqrt{1 - \beta}\,x_t + \sqrt\beta\,z$, so on
    any process a is the square of the factor of the transition, $(\alpha_s/\alpha_t)^2$ for a step s → t towards the
    data. (The paper takes β of the step that follows, which the last level does not have.)

    A size that depends on the state and on z biases the chain even as $r \to 0$. The moves have mean $e\,d\,s$ and
    covariance $2 e\,(d + 2)$ with $e \propto \lVert s\rVert^{-2}$, so that their law tends to

    $$ \pi \propto p^{\,d/(d+2)}\,\lVert s\rVert^2 , $$

    which is wider than p: by $1 + 2/d$ in standard deviations if p is a round Gaussian in d dimensions. Near a mode,
    where s vanishes, a step may be enormous: for d < 3 it has no variance.

    Args:
        snr: r, the signal-to-noise ratio of a step; 0.16 in the paper.
        steps: n.

    Raises:
        SdekitError: a ratio that is not positive, or no steps.

    References: [song2021sde], Algorithms 4 and 5.
    """

    snr: float = 0.16
    steps: int = 1

    def __post_init__(self) -> None:
        _check(self.steps, snr=self.snr)

    def bind(self, sde: Reverse, s: float, t: float) -> Correct:
        schedule = schedule_of(sde.linear_process)
        factor = math.exp(-abs(schedule.log_alpha(s) - schedule.log_alpha(t)))
        most = math.sqrt(2.0) * self.snr * factor  # √ε ‖s‖/‖z‖

        def correct(x: Tensor, normals: Sequence[Increment], count: Acceptance) -> tuple[Tensor, Acceptance]:
            for z in normals:
                score = sde.score(t, x)
                root = most * _norm(z.w) / _norm(score)
                x = x + root.square() * score + (math.sqrt(2.0) * root) * z.w
            return x, count

        return correct


def _norm(x: Tensor) -> Tensor:
    """Norm of every sample, shaped to multiply it."""
    return x.flatten(1).square().sum(1).sqrt().reshape(-1, *(1,) * (x.ndim - 1))


@final
@dataclass(frozen=True)
class MetropolisCorrector(Corrector):
    r"""Steps of a given size, accepted so that $p_t$ is kept exactly; one evaluation more on every level.

    Args:
        size: c.
        steps: n.
        per: As of :class:`LangevinCorrector`.
        log_prob: ``(t, x)`` to log densities (B,), up to a constant of t; known where the score is exact.

    Raises:
        SdekitError: a size that is not positive, no steps, or an unknown ``per``; no density, when bound to a problem.

    References: [roberts1996].
    """

    size: float = 0.5
    steps: int = 1
    per: Per = "level"
    log_prob: Callable[[float, Tensor], Tensor] | None = None
    draws: ClassVar[tuple[Fresh, ...]] = ("state", "sample")

    def __post_init__(self) -> None:
        _check(self.steps, size=self.size)
        _check_per(self.per)

    @property
    def evaluations(self) -> int:
        return self.steps + 1

    def bind(self, sde: Reverse, s: float, t: float) -> Correct:
        step = Metropolis(lambda x: sde.score(t, x), self._density(sde, t), _step(sde, s, t, self.size, self.per).gamma)

        def correct(x: Tensor, normals: Sequence[Increment], count: Acceptance) -> tuple[Tensor, Acceptance]:
            here = step.place(x)
            for z, coin in zip(normals[::2], normals[1::2], strict=True):
                here, accepted = step(here, z.w, coin.w)
                count = count.with_(accepted)
            return here.x, count

        return correct

    def _density(self, sde: Reverse, t: float) -> Density:
        given, law = self.log_prob, sde.score.law
        if given is not None:
            return lambda x: given(t, x)
        if law is None:
            raise SdekitError(
                "MetropolisCorrector needs the density of the level, and this score does not tell it: take "
                "exact_score(law, process), MetropolisCorrector(log_prob=...), or LangevinCorrector, which is biased."
            )
        return marginal_log_prob(law, sde.linear_process, t)
