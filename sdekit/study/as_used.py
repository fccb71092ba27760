r"""Samplers as they are used: each library with its own noise levels, timesteps and last step, against the exact x₀.

The network is that of Stable Diffusion's noise, $\sqrt{\beta_i}$ linear from √0.00085 to √0.012 for i = 1 … 1000, and
knows the mixture $0.3\,N(-0.8, 0.3^2) + 0.7\,N(0.6, 0.2^2)$ exactly. A run starts at 48 quantiles of the noisy law
where the library starts, and ends where it ends; the error is the RMS distance from where the exact flow is at t = 0.
So it holds the discretisation, what is left out below the smallest σ, and timesteps that are rounded.

azula has no tables: its schedules run from $\sigma/\alpha = 10^3$ to $10^{-3}$, and its network is asked at their σ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, final

import torch
from torch import Tensor

from sdekit.driver import solve
from sdekit.laws import GaussianMixture
from sdekit.linear import LinearProcess
from sdekit.processes import EDM, DiscreteVP
from sdekit.reverse import Reverse, probability_flow
from sdekit.score import convert, exact_score
from sdekit.steppers.base import Stepper
from sdekit.verify import mid_quantiles, quantile_flow

CALLS = (10, 20, 50, 100, 200)
LENGTH = 1000
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_DATA = GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
_QUANTILES = 48


@final
@dataclass(frozen=True)
class Used:
    """A sampler with the settings of its library.

    Attributes:
        library: Its distribution.
        method: For people.
        error: ``calls -> (evaluations, error)``.
        prototype: Errors at :data:`CALLS` that an independent prototype measured; none for most.
    """

    library: str
    method: str
    error: Callable[[int], tuple[int, float]]
    prototype: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name of its record."""
        return f"as-used/{self.library}/{self.method.partition('(')[0].lower().replace(', ', '-')}"


def used() -> list[Used]:
    """Every one, whether its library is there or not."""
    default, karras = (8.0e-2, 5.6e-2, 3.2e-2, 1.8e-2, 1.0e-2), (3.9e-2, 7.6e-3, 1.7e-3, 1.9e-3, 1.9e-3)
    rectified = (6.6e-3, 1.3e-3, 1.2e-4, 2.1e-5, 4.6e-6)
    dpm, unipc = "DPMSolverMultistep", "UniPCMultistep"
    return [
        Used("sdekit", "solve(flow, x, steps=N)", _sdekit),
        Used("diffusers", "DDIM", partial(_diffusers, "DDIM", clip_sample=False)),
        Used("diffusers", "DPM++2M", partial(_diffusers, dpm), default),
        Used("diffusers", "DPM++2M, Karras", partial(_diffusers, dpm, use_karras_sigmas=True), karras),
        Used("diffusers", "UniPC", partial(_diffusers, unipc)),
        Used("diffusers", "UniPC, Karras", partial(_diffusers, unipc, use_karras_sigmas=True)),
        Used("diffusers", "DEIS", partial(_diffusers, "DEISMultistep")),
        Used("k-diffusion", "heun, Karras", partial(_k_diffusion, "heun")),
        Used("k-diffusion", "dpmpp_2m, Karras", partial(_k_diffusion, "dpmpp_2m")),
        Used("k-diffusion", "lms, Karras", partial(_k_diffusion, "lms")),
        Used("azula", "DDIM, rectified", partial(_azula, "DDIM")),
        Used("azula", "vAB-3, rectified", partial(_azula, "vAB", order=3), rectified),
        Used("azula", "vAB-4, rectified", partial(_azula, "vAB", order=4)),
    ]


@cache
def problem() -> tuple[Reverse, Tensor, Tensor]:
    """The flow of the exact network, quantiles at t = 1, and where the exact flow carries them."""
    roots = torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, LENGTH, dtype=torch.float64)  # type: ignore[operator]
    process = DiscreteVP(tuple((roots**2).tolist()))
    x = mid_quantiles(process.marginal(_DATA, 1.0), _QUANTILES)
    return probability_flow(process, exact_score(_DATA, process)), x, quantile_flow(process, _DATA, x, 1.0, 0.0)


def sdekit_error(steps: int, grid: Tensor | None = None, stepper: str | Stepper | None = None) -> tuple[int, float]:
    """Evaluations and error of sdekit with a grid or a number of steps, and a stepper or none."""
    flow, x, exact = problem()
    solution = solve(flow, x, grid, stepper, steps=steps if grid is None else None).check()
    return solution.stats.score_evaluations, _rms(solution.final, exact)


def _sdekit(calls: int) -> tuple[int, float]:
    return sdekit_error(calls)


def _rms(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


def _output(sde: Reverse, t: float, x: Tensor, wanted: Any) -> Tensor:
    return convert(sde.score.output(t, x), t, x, sde.linear_process, sde.score.prediction, wanted)


def _process(sde: Reverse) -> LinearProcess:
    return sde.linear_process


def _diffusers(name: str, calls: int, **options: Any) -> tuple[int, float]:
    """The network is asked at the timestep that the scheduler says, which is not always that of its σ."""
    from sdekit.study.peer_methods import scheduler_class

    flow, first, exact = problem()
    scheduler = scheduler_class(name)(num_train_timesteps=LENGTH, prediction_type="epsilon", **BETAS, **options)
    scheduler.set_timesteps(calls)
    times = ((scheduler.timesteps.double() + 1.0) / LENGTH).tolist()
    x = quantile_flow(_process(flow), _DATA, first, 1.0, times[0])
    for timestep, t in zip(scheduler.timesteps, times, strict=True):
        output = _output(flow, t, scheduler.scale_model_input(x, timestep), "epsilon")
        x = scheduler.step(output, timestep, x, return_dict=False)[0].double()
    return len(times), _rms(x, exact)


def _k_diffusion(name: str, calls: int) -> tuple[int, float]:
    """On Karras's levels between those of the tables, and to 0, where a last step of Heun's is one of Euler's."""
    from sdekit.interop import k_diffusion

    flow, x, exact = problem()
    schedule = _process(flow).schedule
    assert schedule is not None
    steps = calls // 2 + 1 if name == "heun" else calls
    ends = torch.exp(-schedule.lam(torch.tensor([1.0 / LENGTH, 1.0], dtype=torch.float64))).tolist()
    levels = k_diffusion.sampling().get_sigmas_karras(steps, *ends).double()
    inside = schedule.time_at(-levels[1:-1].log())
    times = torch.cat([torch.ones(1, dtype=torch.float64), inside, torch.zeros(1, dtype=torch.float64)])
    final = k_diffusion.method(name)(flow, times)(x)
    return 2 * steps - 1 if name == "heun" else steps, _rms(final, exact)


def _azula(name: str, calls: int, **options: Any) -> tuple[int, float]:
    import azula.noise
    import azula.sample

    from sdekit.interop.azula import with_schedule

    schedule = azula.noise.RectifiedSchedule()
    (alpha, sigma) = (float(v) for v in schedule(torch.ones((), dtype=torch.float64)))
    process = EDM(sigma_max=1.01 * sigma / alpha)
    flow = probability_flow(process, exact_score(_DATA, process))
    x = mid_quantiles(process.marginal(_DATA, sigma / alpha), _QUANTILES)
    kind = getattr(azula.sample, f"{name}Sampler")
    sampler = kind(with_schedule(flow, schedule), steps=calls, silent=True, dtype=torch.float64, **options)
    return calls, _rms(sampler(alpha * x), quantile_flow(process, _DATA, x, sigma / alpha, 0.0))
