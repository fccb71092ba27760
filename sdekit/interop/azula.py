r"""Samplers of azula on our problems, so that they are held to the same exact answers.

A sampler there walks down equal steps of its time, from 1 to 0, and asks a schedule for α and σ at each. The schedule
that it gets here has those of our grid at these times, in float64, and our score is its denoiser; what runs is its own
code.

References: [rozet2024].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.errors import unknown_name
from sdekit.interop.whole_runs import Method, Way, denoised
from sdekit.reverse import Reverse
from sdekit.score import schedule_of
from sdekit.verify.foreign import Sampler

_FLOWS = ("Euler", "Heun", "zAB", "vAB", "zEAB", "xEAB", "REAB")
_SDES = ("DDPM", "DDIM", "Ito")


def method(name: str, **options: Any) -> Method:
    """A sampler of azula: ``method(name)(sde, times)`` maps states at the first time to states at the last.

    Args:
        name: ``Euler``, ``Heun``, ``zAB``, ``vAB``, ``zEAB``, ``xEAB`` or ``REAB`` for a flow; ``DDPM``, ``DDIM`` or
            ``Ito`` for the SDE of the option ``eta`` (1 by default, which DDPM is always).
        options: Those of the sampler, such as ``order=3``.

    Raises:
        SdekitError: an unknown name; from the method, a problem that it does not integrate.
    """
    if name not in (*_FLOWS, *_SDES):
        raise unknown_name("sampler of azula", name, (*_FLOWS, *_SDES))
    import azula.sample

    kind = getattr(azula.sample, f"{name}Sampler")
    eta = float(options.get("eta", 1.0)) if name in _SDES else 0.0
    if name in ("DDIM", "Ito"):
        options = {**options, "eta": eta}

    def on(sde: SDE, times: Tensor | Sequence[float]) -> Sampler:
        way = Way.of(sde, times, f"azula's {name}", eta)
        sampler = kind(_denoiser(way), steps=len(way.times) - 1, silent=True, dtype=torch.float64, **options)

        def sample(x: Tensor) -> Tensor:
            final: Tensor = sampler(x)
            return final

        return sample

    return on


def with_schedule(flow: Reverse, schedule: Any) -> Any:
    """Our score as a denoiser of azula with one of its own schedules, for a sampler on its own times.

    Args:
        flow: A reverse problem; its score is asked at the time of the same σ/α.
        schedule: An ``azula.noise.Schedule``.
    """
    from azula.denoise import Denoiser, DiracPosterior

    known = schedule_of(flow.linear_process)

    class OnItsOwnGrid(Denoiser):  # type: ignore[misc]  # azula has no types
        def forward(self, x: Tensor, t: Tensor) -> Any:
            alpha, sigma = (float(v) for v in schedule(t))
            time = float(known.time_at(math.log(alpha / sigma)))
            return DiracPosterior(denoised(flow, time, x * (float(known.alpha(time)) / alpha)))

    denoiser = OnItsOwnGrid()
    denoiser.schedule = schedule
    return denoiser


def _denoiser(way: Way) -> Any:
    from azula.denoise import Denoiser, DiracPosterior

    steps = len(way.times) - 1

    def index(t: Tensor) -> Tensor:
        return ((1.0 - t) * steps).round().long()

    class OnOurGrid(Denoiser):  # type: ignore[misc]  # azula has no types
        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return way.alphas[index(t)], way.sigmas[index(t)]

        def forward(self, x: Tensor, t: Tensor) -> Any:
            return DiracPosterior(denoised(way.sde, way.times[int(index(t))], x))

    return OnOurGrid()
