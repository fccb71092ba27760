r"""Schedulers of diffusers as steppers, so that they solve our problems and are held to the same tests.

A scheduler knows a grid by its noise levels $\rho = \sigma/\alpha$ and steps a state of its own scaling,
$(x_0 + \rho\varepsilon)/\sqrt{1 + \rho^2}$ or, in methods from k-diffusion, $x_0 + \rho\varepsilon$. The adapter gives
a copy of it the levels of our grid in float64, in place of the table and the rounded timesteps of a trained network,
scales the state there and back, and asks our score. What steps is the scheduler's own ``step``, with its noise recorded
and its casts to float32 passed over (:class:`~sdekit.verify.RecordedNormals`).

The end of a grid is where we say: a scheduler should be made with ``lower_order_final=False`` and
``final_sigmas_type="sigma_min"`` where it has these, lest it drop to first order there.

The other way round, :func:`visited` is the grid that a scheduler chose for itself, for a sampler of ours.

References: [vonplaten2022diffusers].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.chains import ChainBeta
from sdekit.dynamics import SDE
from sdekit.ends import End
from sdekit.errors import SdekitError
from sdekit.interop.diffusers import from_scheduler
from sdekit.linear import LinearProcess
from sdekit.reverse import Reverse
from sdekit.score import Score, convert, schedule_of
from sdekit.steppers.base import Memory, Prepared, Spec, Stepper
from sdekit.typing import Prediction
from sdekit.verify.foreign import RecordedNormals

Scaling = Literal["preserving", "exploding"]


@final
@dataclass(frozen=True)
class _Family:
    """How a class of schedulers is told its grid, and what it claims."""

    scaling: Scaling
    order: Callable[[Any], float]
    """The order that it claims, from its config."""
    noise: Callable[[Any], tuple[float, float]] = lambda config: (0.0, 0.0)
    """The range of η that it integrates, from its config."""
    calls: int = 1
    """Calls of ``step``, each with a model output, in one step of ours."""


def _sde(config: Any) -> tuple[float, float]:
    stochastic = config.algorithm_type == "sde-dpmsolver++"
    return (1.0, 1.0) if stochastic else (0.0, 0.0)


_ALWAYS = (1.0, 1.0)
_FAMILIES = {
    "DDIMScheduler": _Family("preserving", lambda c: 1.0, lambda c: (0.0, 1.0)),
    "DDPMScheduler": _Family("preserving", lambda c: 1.0, lambda c: _ALWAYS),
    "EulerDiscreteScheduler": _Family("exploding", lambda c: 1.0),
    "EulerAncestralDiscreteScheduler": _Family("exploding", lambda c: 1.0, lambda c: _ALWAYS),
    "HeunDiscreteScheduler": _Family("exploding", lambda c: 2.0, calls=2),
    "DPMSolverMultistepScheduler": _Family("preserving", lambda c: float(c.solver_order), _sde),
    "DEISMultistepScheduler": _Family("preserving", lambda c: float(c.solver_order)),
    "UniPCMultistepScheduler": _Family("preserving", lambda c: c.solver_order + 1.0),
    "SASolverScheduler": _Family(
        "preserving", lambda c: float(max(c.predictor_order, c.corrector_order)), lambda c: _ALWAYS
    ),
}
_TABLES = ("DDIMScheduler", "DDPMScheduler")
_DRAWS_ALWAYS = ("SASolverScheduler",)
_PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "sample")
_SAME_LEVEL = 1e-4  # of λ: float32 tables carry 1e-6, neighbouring levels of a chain are 1e-3 apart and more


def stepper(scheduler: Any) -> Stepper:
    """A scheduler of diffusers as a stepper; its spec declares what its authors claim.

    Args:
        scheduler: Configured; it is copied, and keeps its state. An SASolverScheduler must have τ = 1 throughout.

    Raises:
        SdekitError: a scheduler that has no such form here, or a prediction type other than epsilon and sample.
    """
    name = type(scheduler).__name__
    if name not in _FAMILIES:
        raise SdekitError(f"{name} has no form as a stepper; known are {', '.join(_FAMILIES)}.")
    family, config = _FAMILIES[name], scheduler.config
    if config.prediction_type not in _PREDICTIONS:
        raise SdekitError(f"{name} predicts {config.prediction_type!r}: make it with prediction_type='epsilon'.")
    order, eta = family.order(config), family.noise(config)
    orders = {"linear-additive": order, "additive": order} if eta[1] else {}

    class Scheduler(_Scheduler):
        spec: ClassVar[Spec] = Spec(
            name=f"diffusers.{name.removesuffix('Scheduler')}",
            summary=f"diffusers' {name}",
            references=("vonplaten2022diffusers",),
            kind="plan",
            evaluations=family.calls,
            ode=order if eta[0] == 0.0 else None,
            weak=orders,
            noise_types=frozenset({"additive"} if eta[0] else {"none", "additive"} if eta[1] else {"none"}),
            eta=eta,
            needs_schedule=True,
        )

    return Scheduler(scheduler, family)


def visited(scheduler: Any) -> tuple[Tensor, End]:
    """The grid of a scheduler, once ``set_timesteps`` was called, and how it ends.

    A last level σ = 0, which schedulers reach by a step of first order, is the policy ``denoise``. Levels of integer
    timesteps i are the times (i + 1)/L of :class:`~sdekit.DiscreteVP`. Others (``use_karras_sigmas`` and its kin) are
    where that process has their σ; the scheduler itself asks the network at another timestep then, a rounded one.

    Args:
        scheduler: One of :func:`stepper`'s, with its betas.

    Returns:
        Decreasing times, and ``stop`` or ``denoise``, for :func:`sdekit.solve`.

    Raises:
        SdekitError: no timesteps yet, no betas, or timesteps that a DDIMScheduler does not step along.
    """
    name, schedule = type(scheduler).__name__, from_scheduler(scheduler).schedule
    if scheduler.num_inference_steps is None:
        raise SdekitError(f"This {name} has no timesteps yet: call set_timesteps(n).")
    levels = len(schedule.betas)
    steps = list(dict.fromkeys(scheduler.timesteps.tolist()))
    if name in _TABLES:
        low = _ddim_end(scheduler, steps) if name == "DDIMScheduler" else -1
        times = [(i + 1) / levels for i in (steps if low in (-1, steps[-1]) else [*steps, low])]
        return torch.tensor(times, dtype=torch.float64), "denoise" if low == -1 else "stop"
    sigmas = torch.unique_consecutive(scheduler.sigmas.double())
    noisy = sigmas[sigmas > 0.0]
    times = [_time_of(schedule, levels, i, rho) for i, rho in zip([*steps, 0], noisy.tolist(), strict=False)]
    return torch.tensor(times, dtype=torch.float64), "stop" if len(noisy) == len(sigmas) else "denoise"


def _ddim_end(scheduler: Any, steps: Sequence[int]) -> int:
    """The timestep at which a DDIMScheduler ends, −1 for the data."""
    leap = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    for i, j in pairwise(steps):
        if i - leap != j:
            raise SdekitError(
                f"This DDIMScheduler asks at timesteps {i} and {j}, but steps from {i} to {i - leap}: its states are "
                "not at the levels that the network is told. Use timestep_spacing='leading', or 'trailing' with a "
                "number of steps that divides num_train_timesteps."
            )
    if steps[-1] >= leap:
        low: int = steps[-1] - leap
        return low
    return -1 if float(scheduler.final_alpha_cumprod) == 1.0 else 0


def _time_of(schedule: ChainBeta, levels: int, timestep: float, rho: float) -> float:
    """The time of a timestep, if its level is the one that is meant; else that of the level."""
    time, lam = (timestep + 1) / levels, -math.log(rho)
    whole = float(timestep).is_integer() and abs(schedule.lam(time) - lam) < _SAME_LEVEL
    return time if whole else float(schedule.time_at(lam))


class _Scheduler(Stepper):
    def __init__(self, scheduler: Any, family: _Family) -> None:
        self._scheduler, self._family = scheduler, family

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        if not isinstance(sde, Reverse):
            raise SdekitError(f"{self.spec.name} needs reverse_time(process, score); got {type(sde).__name__}.")
        schedule, nodes = schedule_of(sde.linear_process), torch.tensor(list(times), dtype=torch.float64)
        levels = torch.exp(-schedule.lam(nodes))
        if not bool((levels.diff() < 0).all()):
            raise SdekitError(f"{self.spec.name} runs from noise to data: give a decreasing grid.")
        inner = torch.rsqrt(1.0 + levels**2) if self._family.scaling == "preserving" else torch.ones_like(levels)
        scales = (inner / schedule.alpha(nodes)).tolist()
        noisy = sde.eta > 0.0
        draws = [((s, t),) if noisy else () for s, t in pairwise(times)]

        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            walk = memory or self._walk(sde, levels, times, scales)
            z = None
            if increments:
                z = increments[0].w * abs(times[k + 1] - times[k]) ** -0.5
            return walk.step(k, x, z), walk

        return Prepared(draws, advance, noise_like_state=True)

    def _walk(self, sde: Reverse, levels: Tensor, times: Sequence[float], scales: Sequence[float]) -> _Walk:
        own = copy.deepcopy(self._scheduler)
        timesteps = _set_grid(own, levels)
        options = {"eta": sde.eta} if type(own).__name__ == "DDIMScheduler" else {}
        return _Walk(own, timesteps, self._family, sde.score, sde.linear_process, times, scales, options)


def _set_grid(scheduler: Any, levels: Tensor) -> list[Any]:
    """Give a scheduler the noise levels of a grid; returns the timesteps by which it knows them."""
    n, name = len(levels) - 1, type(scheduler).__name__
    if name in _TABLES:
        # A chain of n + 1 levels, walked one by one: timestep i is level n − i.
        scheduler.alphas_cumprod = (1.0 / (1.0 + levels**2)).flip(0)
        scheduler.register_to_config(num_train_timesteps=n + 1)
        if name == "DDIMScheduler":
            scheduler.set_timesteps(n + 1)
        return list(range(n, 0, -1))
    scheduler.set_timesteps(n)
    if _FAMILIES[name].calls == 2:  # every level inside the grid is stood on twice
        levels = torch.cat([levels[:1], levels[1:].repeat_interleave(2)])
    scheduler.sigmas = levels.clone()
    steps = n * _FAMILIES[name].calls
    scheduler.timesteps = torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    scheduler.num_inference_steps = n
    return list(scheduler.timesteps)


@final
@dataclass(frozen=True)
class _Walk:
    """One run of a scheduler, which keeps its own history."""

    scheduler: Any
    timesteps: Sequence[Any]
    family: _Family
    score: Score
    process: LinearProcess
    times: Sequence[float]
    scales: Sequence[float]
    options: dict[str, Any]

    def step(self, k: int, x: Tensor, z: Tensor | None) -> Tensor:
        y, calls = x * self.scales[k], self.family.calls
        for j in range(calls):
            timestep = self.timesteps[k * calls + j]
            output = self._output(k + j, y / self.scales[k + j])
            self.scheduler.scale_model_input(y, timestep)  # it insists; what our score sees is scaled by us
            with RecordedNormals(y.new_zeros(len(y), 0) if z is None else z.flatten(1)):
                y = self.scheduler.step(output, timestep, y, return_dict=False, **self.options)[0]
        return y / self.scales[k + 1]

    def _output(self, k: int, x: Tensor) -> Tensor:
        t, wanted = self.times[k], self.scheduler.config.prediction_type
        return convert(self.score.output(t, x), t, x, self.process, self.score.prediction, wanted)
