r"""Networks and schedulers of diffusers as a process and a score.

A network trained on L discrete steps knows the integer timesteps 0 … L − 1, which are the times $t = (i+1)/L$ of
:class:`~sdekit.processes.DiscreteVP`. Between them it is either asked at the fractional timestep $tL - 1$ (its time
embedding interpolates), or the caller puts the grid on the timesteps and asks for ``snap=True``, which refuses any
other time. Nothing is rounded silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.processes import DiscreteVP
from sdekit.score import ModelScore, from_model
from sdekit.typing import Prediction

_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "sample": "sample",
    "v_prediction": "v_prediction",
}
_SNAP = 1e-3  # of a timestep: float32 times carry that much rounding at L = 1000


@final
@dataclass(frozen=True)
class TimestepNet:
    """A diffusers model as ``net(x, t)`` in the clock of the process."""

    model: Any
    timesteps: int
    snap: bool

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        step = t * self.timesteps - 1.0
        if self.snap:
            off = (step - step.round()).abs().max()
            if float(off) > _SNAP:
                raise SdekitError(
                    f"t = {float(t[0]):.6g} is no timestep of this network (off by {float(off):.2g} of one): put the "
                    "grid on t = (i + 1)/L with grids.from_times, or use snap=False to interpolate."
                )
            step = step.round()
        output: Tensor = self.model(x, step).sample
        if output.ndim == x.ndim > 1 and output.shape[1] == 2 * x.shape[1]:
            raise SdekitError(
                f"The model returned {output.shape[1]} channels for {x.shape[1]}: it predicts its variance too, which "
                "no sampler here takes. Wrap it, so that its sample is the first half, sample.chunk(2, dim=1)[0]."
            )
        return output


def from_scheduler(scheduler: Any) -> DiscreteVP:
    """The process of a scheduler, from its ``betas``."""
    betas = getattr(scheduler, "betas", None)
    if not isinstance(betas, Tensor):
        raise SdekitError(
            f"{type(scheduler).__name__} has no betas, so it is no DiscreteVP: give a DDPM-style scheduler."
        )
    return DiscreteVP(tuple(betas.double().tolist()))


def from_diffusers(
    model: Any, scheduler: Any, snap: bool = False, prediction: Prediction | None = None
) -> tuple[DiscreteVP, ModelScore]:
    """A diffusers model and scheduler as a process and a score.

    Args:
        model: Called as ``model(x, timestep).sample``, such as a ``UNet2DModel``.
        scheduler: Gives the betas and, in its config, the prediction type.
        snap: Whether to insist on integer timesteps (on a device, one host sync per evaluation).
        prediction: What the network predicts, to be held against the scheduler's config.

    Returns:
        The process and the score, for :func:`sdekit.reverse_time` and :func:`sdekit.probability_flow`.

    Raises:
        SdekitError: a scheduler without betas, or a prediction type that is not known or contradicts ``prediction``.
            Later, a time outside of [1/L, 1], where the network has no timestep.
    """
    process = from_scheduler(scheduler)
    kind = str(scheduler.config.prediction_type)
    if kind not in _PREDICTIONS:
        raise SdekitError(f"The scheduler predicts {kind!r}; known are {', '.join(_PREDICTIONS)}.")
    if prediction not in (None, _PREDICTIONS[kind]):
        raise SdekitError(
            f"The scheduler's config says that the network predicts {kind!r}, and prediction = {prediction!r} was "
            f"given: make the scheduler with prediction_type={prediction!r}, or leave prediction out."
        )
    levels = len(process.schedule.betas)
    return process, from_model(TimestepNet(model, levels, snap), process, _PREDICTIONS[kind], (1.0 / levels, 1.0))
