r"""Scores: exact ones, learned ones, and the predictions that a network can make instead.

With $x_t = m_t + \alpha D + \sigma\varepsilon$, where D is the denoised state and ε the noise, every prediction in
use is a fixed combination of D and ε:

| prediction | D | ε |
|---|---|---|
| ``epsilon`` | 0 | 1 |
| ``score`` | 0 | −1/σ |
| ``sample`` | 1 | 0 |
| ``v_prediction`` | −σ | α |
| ``flow_prediction`` (dx/dt) | dα/dt | dσ/dt |
| ``rectified`` (the velocity of the straight path) | −1 | 1 |

and so is $x - m_t$ itself, with (α, σ). Converting one into another is therefore one 2 × 2 solve, and
the result has the form $a\,(x - m_t) + b\,\text{prediction}$.

References: [song2021sde], [salimans2022].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final, get_args

import torch
from torch import Tensor

from sdekit.errors import SdekitError, unknown_name
from sdekit.laws import Gaussian, Law
from sdekit.linear import LinearProcess
from sdekit.schedules import Schedule
from sdekit.typing import Field, Prediction, Scalar, Time, along

_SLACK = 1e-9  # of a time: what a grid and a span may differ by in rounding


def _on_denoised_and_noise(schedule: Schedule, t: Scalar, prediction: Prediction) -> tuple[Scalar, Scalar]:
    """Weights of D and ε in a prediction; for ``score`` those of −σ·score."""
    zero = 0.0 * t
    if prediction in ("epsilon", "score"):
        return zero, zero + 1.0
    if prediction == "sample":
        return zero + 1.0, zero
    if prediction == "rectified":
        return zero - 1.0, zero + 1.0
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if prediction == "v_prediction":
        return -sigma, alpha
    # dα/dt = f α, and dσ/dt = f σ + g²/2σ from dσ²/dt = 2 f σ² + g².
    rate = schedule.drift_rate(t)
    return rate * alpha, rate * sigma + schedule.diffusion_rate(t) / (2.0 * sigma)


def conversion(schedule: Schedule, t: Scalar, source: Prediction, target: Prediction) -> tuple[Scalar, Scalar]:
    r"""The pair (a, b) with target = a·(x − m) + b·source at time t.

    Args:
        schedule: Gives α and σ.
        t: A float, or a tensor of times; a and b are of the same kind.
        source: The prediction that is given.
        target: The prediction that is wanted.
    """
    if source == target:
        return 0.0 * t, 0.0 * t + 1.0
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    s0, s1 = _on_denoised_and_noise(schedule, t, source)
    w0, w1 = _on_denoised_and_noise(schedule, t, target)
    determinant = alpha * s1 - sigma * s0
    a = (w0 * s1 - w1 * s0) / determinant
    b = (alpha * w1 - sigma * w0) / determinant
    if source == "score":
        b = -sigma * b
    if target == "score":
        a, b = -a / sigma, -b / sigma
    return a, b


def convert(
    value: Tensor, t: Time, x: Tensor, process: LinearProcess, source: Prediction, target: Prediction
) -> Tensor:
    """A prediction ``value`` at (t, x), turned into another.

    Args:
        value: The prediction, shape (B, *E).
        t: A float, or one time per sample.
        x: The noisy state, shape (B, *E).
        process: The forward process; must have a schedule.
        source: What ``value`` is.
        target: What is wanted.

    Raises:
        SdekitError: an unknown prediction, or a process without a schedule.
    """
    for name in (source, target):
        if name not in get_args(Prediction):
            raise unknown_name("prediction", name, get_args(Prediction))
    a, b = conversion(schedule_of(process), t, source, target)
    return along(a, x) * centred(process, t, x) + along(b, x) * value


def schedule_of(process: LinearProcess) -> Schedule:
    """The schedule of a process that has one."""
    if process.schedule is None:
        raise SdekitError(
            f"{process!r} has no schedule: its coordinates decay at different rates. "
            "Predictions other than the score, and planned steppers, need a common one."
        )
    return process.schedule


def centred(process: LinearProcess, t: Time, x: Tensor) -> Tensor:
    """$x - m_t$, which is ``x`` itself for most processes."""
    shift = process.shift(t)
    if isinstance(shift, float):
        return x - shift if shift else x
    if isinstance(t, Tensor) and t.ndim:
        shift = shift.reshape(*shift.shape, *(1,) * (x.ndim - shift.ndim))
    return x - shift.to(x)


def uncentred(process: LinearProcess, t: float, y: Tensor) -> Tensor:
    """$y + m_t$, which is ``y`` itself for most processes."""
    shift = process.shift(t)
    if isinstance(shift, float):
        return y + shift if shift else y
    return y + shift.to(y)


class Score(ABC):
    """A score ``(t, x) -> ∇ log p_t(x)``, in whatever prediction it is natively."""

    prediction: Prediction
    """What :meth:`output` returns."""

    law: Law | None
    """The data law, where it is known; a Gaussian one makes the score affine."""

    @abstractmethod
    def output(self, t: Time, x: Tensor) -> Tensor:
        """The native prediction, shape of ``x``."""

    @abstractmethod
    def __call__(self, t: Time, x: Tensor) -> Tensor:
        """The score, shape of ``x``."""

    @property
    def affine(self) -> bool:
        """Whether the score is affine in ``x``."""
        return isinstance(self.law, Gaussian)


@final
@dataclass(frozen=True)
class FunctionScore(Score):
    """A plain callable ``score(t, x)``."""

    function: Field
    prediction: Prediction = field(default="score", init=False)
    law: None = field(default=None, init=False)

    def output(self, t: Time, x: Tensor) -> Tensor:
        return self.function(t, x)

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        return self.function(t, x)


@final
@dataclass(frozen=True)
class ExactScore(Score):
    """The score of the exact marginal of a law under a process; made by :func:`exact_score`."""

    law: Law
    process: LinearProcess
    prediction: Prediction = field(default="score", init=False)

    def output(self, t: Time, x: Tensor) -> Tensor:
        return self(t, x)

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        schedule = self.process.schedule
        if schedule is not None:
            y = centred(self.process, t, x)
            return self.law.diffused_score(y, schedule.alpha(t), schedule.sigma(t))
        if isinstance(t, Tensor) and t.ndim:
            rows = [self(float(s), x[i : i + 1]) for i, s in enumerate(t)]
            return torch.cat(rows)
        return self.process.marginal(self.law, float(t)).score(x)


def exact_score(law: Law, process: LinearProcess) -> ExactScore:
    r"""$\nabla\log p_t$ for $X_0 \sim$ ``law``, in closed form.

    For an :class:`~sdekit.laws.Empirical` law this is the score of the optimal denoiser of a finite data set.
    """
    return ExactScore(law, process)


@final
@dataclass(frozen=True)
class ModelScore(Score):
    """A network's prediction as a score; made by :func:`from_model`."""

    net: Callable[[Tensor, Tensor], Tensor]
    process: LinearProcess
    prediction: Prediction
    law: None = field(default=None, init=False)
    span: tuple[float, float] | None = None
    """The first and the last time at which the network may be asked; None where nobody said."""

    def check(self, t: float) -> None:
        """Refuse a time at which the network was not trained.

        Raises:
            SdekitError: ``t`` is outside of ``span``.
        """
        if self.span is None or self.span[0] * (1.0 - _SLACK) <= t <= self.span[1] * (1.0 + _SLACK):
            return
        low, high = self.span
        levels = [f"{self.process.schedule.sigma(u):.3g}" for u in (t, low, high)] if self.process.schedule else []
        sigma, range_ = (f" (σ = {levels[0]})", f" (σ from {levels[1]} to {levels[2]})") if levels else ("", "")
        raise SdekitError(
            f"The network would be asked at t = {t:.6g}{sigma}; it was trained on [{low:g}, {high:g}]{range_}: "
            f"keep the grid inside, with t_min = {low:g}, and use end='denoise' for what is left."
        )

    def output(self, t: Time, x: Tensor) -> Tensor:
        if isinstance(t, float):
            self.check(t)
        try:
            return self.net(x, batch_times(t, x))
        except RuntimeError as error:
            weight = next(self.net.parameters(), x) if isinstance(self.net, torch.nn.Module) else x
            if (weight.dtype, weight.device) == (x.dtype, x.device):
                raise
            raise SdekitError(
                f"The network is {weight.dtype} on {weight.device}, the state {x.dtype} on {x.device}: "
                "move one of them, x.to(next(net.parameters())) say."
            ) from error

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        return convert(self.output(t, x), t, x, self.process, self.prediction, "score")


def batch_times(t: Time, x: Tensor) -> Tensor:
    """``t`` as a tensor with one entry per sample of ``x``, in its dtype."""
    if isinstance(t, float):
        return x.new_full((x.shape[0],), t)  # made on the device: as_tensor would copy from the host and wait
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])


def from_model(
    net: Callable[..., Any],
    process: LinearProcess,
    prediction: Prediction = "epsilon",
    span: tuple[float, float] | None = None,
) -> ModelScore:
    """The score of a network ``net(x, t)``.

    Args:
        net: Takes the state (B, *E) and the times (B,) in the clock of ``process``; returns shape (B, *E), in a
            tensor of its own each time, since multistep methods keep it.
        process: The forward process that it was trained on.
        prediction: What it predicts: ``score``, ``epsilon``, ``sample``, ``v_prediction``, ``flow_prediction`` or
            ``rectified``. Nothing in its answer tells, so a wrong name is not noticed here.
        span: The first and the last time that it was trained on, in the clock of ``process``; a run that would ask it
            outside is refused. By default nothing is refused.

    Raises:
        SdekitError: an unknown prediction, or one that needs a schedule of a process that has none; a span that is
            no interval.
    """
    if prediction not in get_args(Prediction):
        raise unknown_name("prediction", prediction, get_args(Prediction))
    if prediction != "score":
        schedule_of(process)
    if span is not None and not 0.0 <= span[0] < span[1]:
        raise SdekitError(f"span must be the first and the last time of training, 0 ≤ first < last; got {span}.")
    return ModelScore(net, process, prediction, span)


def as_score(score: Score | Field) -> Score:
    """A score object from a score object or a plain callable."""
    if isinstance(score, Score):
        return score
    if not callable(score):
        raise SdekitError(f"A score must be a callable (t, x) -> tensor; got {score!r}.")
    return FunctionScore(score)
