r"""Samplers that run from noise to data by themselves: what they are told of a problem.

Such a sampler cannot be stepped, so it is no stepper: with a problem and a grid it is a map of states, which draws its
own noise. Where it is deterministic that map is all there is to ask; where it is not, its law on Gaussian data comes
from :func:`sdekit.verify.probe_sampler`. It knows a grid by the noise levels $\rho = \sigma/\alpha$, and a network as
a denoiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.reverse import Reverse
from sdekit.schedules import Schedule
from sdekit.score import convert, schedule_of
from sdekit.verify.foreign import Sampler

Method = Callable[[SDE, Tensor | Sequence[float]], Sampler]
"""``method(sde, times)`` is a sampler ``x -> x_N`` on these times, from and to states of the process's own scaling."""


@final
@dataclass(frozen=True)
class Way:
    """A reverse problem on a grid, as a denoising sampler sees it.

    Attributes:
        sde: The problem.
        schedule: Its schedule.
        times: From noise to data.
        alphas: α there.
        sigmas: σ there.
    """

    sde: Reverse
    schedule: Schedule
    times: tuple[float, ...]
    alphas: Tensor
    sigmas: Tensor

    @classmethod
    def of(cls, sde: SDE, times: Tensor | Sequence[float], name: str, eta: float) -> Way:
        """Checked.

        Args:
            sde: The problem.
            times: The grid.
            name: Of the method, for errors.
            eta: The η that it integrates.

        Raises:
            SdekitError: no reverse problem of a process with a schedule, another η, or a grid that does not decrease.
        """
        if not isinstance(sde, Reverse):
            raise SdekitError(f"{name} needs reverse_time(process, score); got {type(sde).__name__}.")
        if sde.eta != eta:
            raise SdekitError(f"{name} integrates eta = {eta:g} and this problem has eta = {sde.eta:g}.")
        schedule, nodes = schedule_of(sde.linear_process), torch.as_tensor(times, dtype=torch.float64)
        if nodes.ndim != 1 or len(nodes) < 2 or not bool((nodes.diff() < 0).all()):
            raise SdekitError(f"{name} runs from noise to data: give a decreasing grid; got {nodes.tolist()[:4]}.")
        return cls(sde, schedule, tuple(nodes.tolist()), schedule.alpha(nodes), schedule.sigma(nodes))

    @property
    def levels(self) -> Tensor:
        """ρ at the times."""
        return self.sigmas / self.alphas


def denoised(sde: Reverse, t: float, x: Tensor) -> Tensor:
    """$E[x_0 | x_t = x]$, as the score of a reverse problem has it."""
    return convert(sde.score.output(t, x), t, x, sde.linear_process, sde.score.prediction, "sample")
