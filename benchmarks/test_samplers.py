"""Samplers with a network that costs nothing: what a step takes beside the network, here and in the peers.

All rows count a whole run, from the state and the grid to the last state. A plan that was made is kept, so that ours
are of sampling again on the same grid; the peers get their tables made as well, where they take them from outside.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit as sk
from benchmarks.contests import Call, Contest, Make, Setting, rows
from sdekit.linear import ScheduledProcess as Process
from sdekit.typing import Prediction


def solving(s: Setting, stepper: str, prediction: Prediction, eta: float, process: Process) -> Call:
    x, output = s.state(), 0.5 * s.state()
    sde = sk.reverse_time(process, sk.score.from_model(lambda x, t: output, process, prediction), eta)
    grid = sk.grids.log_snr(process, s.steps)
    return lambda: sk.solve(sde, x, grid, stepper, noise=0 if eta else None)


def k_diffusion(stepper: str, prediction: Prediction, theirs: str, process: Process, eta: float = 0.0) -> Make:
    """Beside a sampler of k-diffusion, which takes a denoiser and has α = 1; one of an SDE draws from its tree."""

    def make(s: Setting) -> tuple[Call, Call]:
        from sdekit.interop.k_diffusion import sampling

        sample = getattr(sampling(), f"sample_{theirs}")
        x, denoised = s.state(), 0.5 * s.state()
        # Powers of two: torchsde warns where its interval and a level are rounded differently.
        sigmas = torch.logspace(6.0, -7.0, s.steps + 1, base=2.0, device=s.device, dtype=s.dtype)
        run = lambda: sample(lambda x, sigma: denoised, 64.0 * x, sigmas, disable=True)  # noqa: E731
        return solving(s, stepper, prediction, eta, process), run

    return make


def diffusers(stepper: str, prediction: Prediction, theirs: str, **options: Any) -> Make:
    """Beside a scheduler of diffusers, with its own defaults otherwise."""

    def make(s: Setting) -> tuple[Call, Call]:
        import diffusers

        scheduler = getattr(diffusers, theirs)(prediction_type=prediction, **options)
        x, output = s.state(), 0.5 * s.state()

        def run() -> Tensor:
            scheduler.set_timesteps(s.steps, device=s.device)  # which also forgets the last run
            state = x
            for t in scheduler.timesteps:
                state = scheduler.step(output, t, state, return_dict=False)[0]
            return state

        return solving(s, stepper, prediction, 0.0, sk.VP()), run

    return make


def randn(stepper: str, prediction: Prediction, eta: float = 1.0) -> Make:
    """A stochastic sampler, seeded by path, beside drawing its normals alone."""

    def make(s: Setting) -> tuple[Call, Call]:
        def run() -> None:
            for _ in range(s.steps):
                torch.randn(s.shape, dtype=s.dtype, device=s.device)

        return solving(s, stepper, prediction, eta, sk.VP()), run

    return make


_LATENT, _IMAGES = (1, 4, 64, 64), (64, 3, 32, 32)
_K, _D = "k_diffusion", "diffusers"
_2M, _2M_SDE, _DPM = "k-diffusion 2M", "k-diffusion 2M SDE", "DPMSolverMultistepScheduler"

# Add a row here: for both shapes; a target is what issue and documentation promise.
SAMPLERS = [
    ("dpmpp-2m on x0, EDM", _2M, k_diffusion("dpmpp-2m", "sample", "dpmpp_2m", sk.EDM()), 0.35, _K),
    ("dpmpp-2m on x0, VP", _2M, k_diffusion("dpmpp-2m", "sample", "dpmpp_2m", sk.VP()), 0.35, _K),
    ("dpmpp-2m on epsilon, EDM", _2M, k_diffusion("dpmpp-2m", "epsilon", "dpmpp_2m", sk.EDM()), 0.5, _K),
    ("dpmpp-2m on epsilon, VP", _2M, k_diffusion("dpmpp-2m", "epsilon", "dpmpp_2m", sk.VP()), 0.5, _K),
    ("dpmpp-3m on x0, EDM", _2M, k_diffusion("dpmpp-3m", "sample", "dpmpp_2m", sk.EDM()), 0.5, _K),
    ("dpmpp-3m on x0, VP", _2M, k_diffusion("dpmpp-3m", "sample", "dpmpp_2m", sk.VP()), 0.5, _K),
    ("dpmpp-2m on x0", "diffusers DPM++2M", diffusers("dpmpp-2m", "sample", _DPM), 0.15, _D),
    ("dpmpp-2m on epsilon", "diffusers DPM++2M", diffusers("dpmpp-2m", "epsilon", _DPM), 0.15, _D),
    ("ddim on epsilon", "diffusers DDIM", diffusers("ddim", "epsilon", "DDIMScheduler", clip_sample=False), 0.35, _D),
    ("unipc-2 on epsilon", "diffusers UniPC-2", diffusers("unipc-2", "epsilon", "UniPCMultistepScheduler"), 0.2, _D),
    ("ddim on epsilon, eta 1", "torch.randn", randn("ddim", "epsilon"), 2.5, None),
    ("sde-dpmpp-2m on x0", "torch.randn", randn("sde-dpmpp-2m", "sample"), 2.5, None),
    ("er-sde-2 on x0", "torch.randn", randn("er-sde-2", "sample"), 2.5, None),
]

CONTESTS = [
    Contest(work, beside, make, shape, 100, target, needs, full=work.startswith("unipc"))
    for work, beside, make, target, needs in SAMPLERS
    for shape in (_LATENT, _IMAGES)
]

# Drawing from the tree takes 50 ms a step of images.
CONTESTS += [
    Contest(
        "sde-dpmpp-2m on x0",
        _2M_SDE,
        k_diffusion("sde-dpmpp-2m", "sample", "dpmpp_2m_sde", sk.EDM(), 1.0),
        shape,
        5,
        needs=_K,
        full=True,
    )
    for shape in (_LATENT, _IMAGES)
]


@pytest.mark.parametrize("contest", rows(CONTESTS))
def test_sampler(timed: Any, contest: Contest, dtype: torch.dtype, device: torch.device) -> None:
    contest.hold(timed, dtype, device)
