r"""Clocks: the time in which a path runs.

A path may run in another :data:`Clock` c than t, with increments $W_{c(t)} - W_{c(s)}$. Samplers in λ add the noise
$\sigma_t e^{-\eta^2 \lambda_t} (W_{c(t)} - W_{c(s)})$ with $c = e^{2\eta^2\lambda}$, the SNR to the power η²
(:func:`snr_clock`); on a path in that clock a run of many steps adds up the same noise as one of few. To a stepper
increments always have the variance of the time that passes: :class:`~sdekit.brownian.PathNoise` scales them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.schedules import Schedule

Clock = Callable[[Tensor], Tensor]
"""A monotone function of time, on float64 tensors: the variance of an increment is how far it moves."""


def snr_clock(schedule: Schedule, eta: float = 1.0) -> Clock:
    r"""The clock $e^{2\eta^2\lambda}$ of the noise of exponential samplers: the signal-to-noise ratio to the power η².

    Args:
        schedule: Of the forward process.
        eta: Of the reverse problem, positive.

    Raises:
        SdekitError: η is not positive, so that there is no noise.
    """
    if not eta > 0.0:
        raise SdekitError(f"The clock SNR^(η²) needs η > 0; got eta = {eta:g}.")
    return lambda t: torch.exp(2.0 * eta**2 * schedule.lam(t))
