"""The checks at the door of :func:`sdekit.solve`, and what it fills in when it is not told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Generator, Tensor

from sdekit import grids
from sdekit.brownian import BrownianPath, BrownianTree, GridPath, Noise, PathNoise, RecordedBrownian, StepNoise
from sdekit.controllers import PID
from sdekit.dynamics import SDE, GeneralSDE, noise_shape, samples_inside
from sdekit.errors import SdekitError, unknown_name
from sdekit.fresh import Joined, RecordedFresh, fresh_source
from sdekit.keys import Keys, Paths, Seed
from sdekit.langevin import Langevin
from sdekit.linear import LinearProcess
from sdekit.observe import finite_samples
from sdekit.reverse import Reverse
from sdekit.schedules import Schedule
from sdekit.score import ModelScore
from sdekit.steppers import registry
from sdekit.steppers.base import End, Prepared, Stepper
from sdekit.steppers.embedded import EmbeddedRungeKutta
from sdekit.steppers.er_sde import ERSDE
from sdekit.steppers.rectified import VABM
from sdekit.structure import Structure, check_once
from sdekit.typing import Inside


def check_sde(sde: SDE) -> None:
    """Refuse what is no SDE."""
    # The protocol comes last: to look at it takes a quarter of a millisecond.
    if not isinstance(sde, Reverse | LinearProcess | GeneralSDE | Langevin | SDE):
        raise SdekitError(
            f"solve needs an SDE: a process such as sk.VP(), sk.sde(...), reverse_time(...) or probability_flow(...); "
            f"got {type(sde).__name__}."
        )


def check_state(x: Tensor) -> None:
    """Refuse initial states that no solver can use."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise SdekitError(f"The initial state must be a floating-point tensor; got {kind}. Use x.to(torch.float64).")
    if x.ndim < 2 or x.numel() == 0:
        raise SdekitError(
            f"The initial state must have shape (batch, *event); got {tuple(x.shape)}. Use x[:, None] for scalars."
        )
    bad = int((~finite_samples(x)).sum())
    if bad:
        raise SdekitError(f"The initial state has NaN or Inf in {bad} of {len(x)} samples.")


def check_inside(inside: Inside, x: Tensor) -> None:
    """Refuse states that begin where they may not be, and an answer that does not say where that is."""
    answer = inside(x)
    if answer.dtype != torch.bool or answer.shape not in (x.shape, x.shape[:1]):
        raise SdekitError(
            f"inside must answer with a boolean for every element or sample of a state of shape {tuple(x.shape)}; got "
            f"{answer.dtype} of shape {tuple(answer.shape)}."
        )
    out = int((~samples_inside(inside, x)).sum())
    if out:
        raise SdekitError(f"{out} of {len(x)} samples begin outside of where states may be, by inside= of this SDE.")


def check_noise(sde: SDE, t: float, x: Tensor, structure: Structure) -> None:
    """Refuse noise that is not of the declared type, unless it is to be trusted."""
    if structure not in get_args(Structure):
        raise unknown_name("way to take the noise type", structure, get_args(Structure))
    if structure == "check":
        check_once(sde, t, x)


def check_times(sde: SDE, nodes: Tensor, safe_at: frozenset[End] = frozenset()) -> None:
    """Refuse a grid that runs the wrong way, leaves the process's time range, or meets a singular time.

    Args:
        sde: The problem.
        nodes: The grid.
        safe_at: The singular ends of a schedule on which it may stand.
    """
    first, last = float(nodes[0]), float(nodes[-1])
    way = "increasing" if last > first else "decreasing"
    if sde.direction == "increasing" and way == "decreasing":
        raise SdekitError(
            f"A forward SDE cannot be solved from t = {first:g} down to {last:g}: rewinding it does not undo the "
            "noise. Use reverse_time(process, score) or probability_flow(process, score); to go forwards, grid.flip(0)."
        )
    if sde.direction == "decreasing" and way == "increasing":
        raise SdekitError(
            f"A reverse-time SDE runs from noise to data; this grid rises from {first:g} to {last:g}: use grid.flip(0)."
        )
    process = sde.process if isinstance(sde, Reverse) else sde
    if isinstance(sde, Reverse) and isinstance(sde.score, ModelScore):
        for t in torch.unique_consecutive(nodes)[:-1].tolist():  # at the last one a run may stop without asking
            sde.score.check(t)
    if isinstance(process, LinearProcess) and process.schedule is not None:
        reverse = isinstance(sde, Reverse)
        _check_range(process, process.schedule, reverse, min(first, last), max(first, last), safe_at)


def _check_range(
    process: LinearProcess, schedule: Schedule, reverse: bool, low: float, high: float, safe_at: frozenset[str]
) -> None:
    name = type(process).__name__
    if low < 0.0 or high > schedule.end:
        raise SdekitError(f"The grid spans [{low:g}, {high:g}]; {name} lives on [0, {schedule.end:g}].")
    singular = {"signalless": schedule.signalless, "noiseless": schedule.noiseless if reverse else None}
    met = {t for name, t in singular.items() if name not in safe_at}
    for t in (low, high):
        if t in met:
            raise SdekitError(
                f"{name} is singular at t = {t:g}: end the grid before it (the defaults are t_min = "
                f"{process.t_min:g} and t_max = {process.t_max:g}), and use end='denoise' for the last bit of noise."
            )


def grid_of(
    sde: SDE,
    grid: Tensor | Sequence[float] | None,
    steps: int | None,
    safe_at: frozenset[End] = frozenset(),
) -> Tensor:
    """The grid that was given, or the default one, checked against the problem.

    Args:
        sde: The problem.
        grid: Times; None for the default.
        steps: Number of steps of the default grid.
        safe_at: The singular ends of a schedule on which it may stand.
    """
    nodes = _nodes(sde, grid, steps, None)
    check_times(sde, nodes, safe_at)
    return nodes


def _nodes(sde: SDE, grid: Tensor | Sequence[float] | None, steps: int | None, to_data: bool | None) -> Tensor:
    """The grid that was given, or the default one."""
    if grid is not None and steps is not None:
        raise SdekitError(f"Give a grid or steps, not both; got a grid and steps = {steps}.")
    return grids.from_times(default_grid(sde, steps, to_data) if grid is None else grid)


def grid_and_stepper(
    sde: SDE,
    grid: Tensor | Sequence[float] | None,
    steps: int | None,
    stepper: str | Stepper | None,
    controller: PID | None = None,
    *,
    to_data: bool = True,
) -> tuple[Tensor, Stepper]:
    """What a run uses, with defaults for what is left out, checked against the problem and one another."""
    if controller is not None and grid is None and steps is None:
        grid = _whole_range(sde)
    if stepper is None and controller is not None and sde.noise_type == "none":
        stepper = "dopri5"
    if stepper is not None:
        chosen = registry.get(stepper)
        registry.check(chosen, sde)
        return grid_of(sde, grid, steps, chosen.spec.safe_at), chosen
    nodes = _nodes(sde, grid, steps, to_data)
    chosen = default_stepper(sde, len(set(nodes.tolist())) - 1)
    registry.check(chosen, sde)
    # Not on α = 0, which is safe only for networks that do not predict the noise: whoever knows that names a stepper.
    check_times(sde, nodes, chosen.spec.safe_at & {"noiseless"})
    return nodes, chosen


def _whole_range(sde: SDE) -> list[float]:
    """From one end of a process's default range to the other; steps in between are a controller's."""
    process = sde.process if isinstance(sde, Reverse) else sde
    if not isinstance(process, LinearProcess):
        raise SdekitError("Give the first and the last time of the run as grid=[first, last].")
    low, high = process.t_min, process.t_max
    return [high, low] if isinstance(sde, Reverse) else [low, high]


def own_times(save: Any, nodes: Tensor, x: Tensor, stepper: Stepper, controller: PID | None) -> Tensor | None:
    """Times of every sample's own, float64 of shape (T, B), if ``save`` asks for such; else None.

    Raises:
        SdekitError: they are not one for every sample, not in the interval, or the run has no dense output.
    """
    if not (isinstance(save, Tensor) and save.ndim == 2):
        return None
    times = save.detach().to("cpu", torch.float64)
    low, high = float(nodes.min()), float(nodes.max())
    if controller is None or not isinstance(stepper, EmbeddedRungeKutta):
        raise SdekitError(
            f"Times of every sample's own (save of shape {tuple(save.shape)}) need dense output: an ODE, a stepper "
            f"such as dopri5, and a controller; got {stepper.spec.name} and controller={controller!r}."
        )
    if times.shape[1] != len(x) or len(times) == 0:
        raise SdekitError(f"save has shape {tuple(save.shape)}; for {len(x)} samples it must be (T, {len(x)}).")
    if not bool(((times >= low) & (times <= high)).all()):
        wrong = times[~((times >= low) & (times <= high))][:3].tolist()
        raise SdekitError(f"save asks for {wrong}; the grid spans [{low:g}, {high:g}].")
    return times


def default_stepper(sde: SDE, steps: int) -> Stepper:
    """The best that is known for few steps on this kind of problem."""
    if isinstance(sde, Reverse) and sde.schedule is not None:
        return VABM(min(4, steps), start="ramp") if sde.eta == 0.0 else ERSDE(min(2, steps), start="ramp", apart=1.0)
    if isinstance(sde, LinearProcess):
        return registry.get("exact-linear")
    return registry.get("rk4" if sde.noise_type == "none" else "euler-maruyama")


def default_grid(sde: SDE, steps: int | None, to_data: bool | None = None) -> Tensor:
    """``steps`` steps over the process's default range.

    Backwards they are uniform in log-SNR where ``to_data`` is None; else they are the rectified grid of the default
    stepper, which goes down to t = 0 if ``to_data`` is true.
    """
    process = sde.process if isinstance(sde, Reverse) else sde
    if steps is None or not isinstance(process, LinearProcess):
        raise SdekitError(
            "Give a grid (see sk.grids), or steps=N for a process that knows its time range; "
            f"got grid=None, steps={steps}."
        )
    if not isinstance(sde, Reverse):
        return grids.uniform(process, steps).flip(0)
    if process.schedule is None:
        return grids.uniform(process, steps)
    if to_data is None:
        return grids.log_snr(process, steps)
    if to_data or process.schedule.noiseless != 0.0:
        return grids.rectified(process, steps)
    return grids.rectified(process, steps + 1)[:-1]  # the last step is that to t = 0


def noise_of(noise: Seed | BrownianPath | None, paths: Paths | None, x: Tensor) -> Keys | BrownianPath | None:
    """What the noise of a run is made of, for every sample of ``x``; None if nothing was given.

    Args:
        noise: As given to :func:`sdekit.solve`.
        paths: As given to :func:`sdekit.solve`.
        x: Initial states.

    Raises:
        SdekitError: neither a seed nor a path, paths beside a path, or not one for every sample.
    """
    if not isinstance(noise, int | None) and isinstance(noise, BrownianPath):
        if paths is not None:
            raise SdekitError("paths belongs to noise=seed; a Brownian path has its own paths= argument.")
        return noise
    if noise is None and paths is None:
        return None
    if not (noise is None or isinstance(noise, int | Generator | list | tuple)):
        raise SdekitError(
            "noise must be a seed (an int), a torch.Generator or one per sample, or a Brownian path; "
            f"got {type(noise).__name__}: {noise!r}."
        )
    return Keys.of(noise, paths, len(x), x.device)


def noise_facts(noise: Keys | BrownianPath | None) -> dict[str, Any]:
    """The noise in a provenance: ``noise=`` and ``paths=`` that make it again, or the kind of path."""
    if isinstance(noise, Keys):
        return {"noise": noise.seed, "paths": _listed(noise.paths)}
    return {"noise": None if noise is None else type(noise).__name__, "paths": None}


def _listed(paths: Paths | None) -> list[int] | None:
    if isinstance(paths, Tensor):
        return [int(number) for number in paths.tolist()]
    return None if paths is None else [int(number) for number in paths]


def noise_event(sde: SDE, x: Tensor, prepared: Prepared, start: float) -> torch.Size | None:
    """Event shape of the noise that a run draws; None for a deterministic run."""
    if not any(prepared.draws):
        return None
    return x.shape[1:] if prepared.noise_like_state else noise_shape(sde, start, x)


def noise_source(
    sde: SDE,
    x: Tensor,
    stepper: Stepper,
    prepared: Prepared,
    start: float,
    noise: Keys | BrownianPath | None,
) -> Noise | None:
    """Where the driver draws from; None for a deterministic run."""
    if not any(prepared.fresh):
        return _path_source(sde, x, stepper, prepared, start, noise)
    if noise is None:
        raise SdekitError(f"{stepper.spec.name} is random on any problem: give noise=seed (an integer).")
    path = noise.path if isinstance(noise, RecordedFresh) else noise
    increments = _path_source(sde, x, stepper, prepared, start, path)
    beside = fresh_source(noise, x, prepared.fresh)
    return beside if increments is None else Joined((increments, beside))


def _path_source(
    sde: SDE,
    x: Tensor,
    stepper: Stepper,
    prepared: Prepared,
    start: float,
    noise: Keys | BrownianPath | None,
) -> Noise | None:
    """The increments of the steps; None where they draw none."""
    event, kind = noise_event(sde, x, prepared, start), stepper.spec.increments
    if event is None:
        return None
    if noise is None:
        raise SdekitError(
            "This problem is stochastic: give noise=seed (an integer), or a Brownian path, or seeds, one per sample, "
            "as paths=."
        )
    if isinstance(noise, Keys):
        return StepNoise(noise.values, event, x.dtype, prepared.draws, kind)
    if tuple(noise.shape) != (len(x), *event):
        raise SdekitError(
            f"The Brownian path has shape {tuple(noise.shape)}; this problem needs {(len(x), *event)}, "
            "a noise for every sample."
        )
    intervals = [(min(i), max(i)) for step in prepared.draws for i in step]
    if isinstance(noise, GridPath | BrownianTree):
        noise.require(t for interval in intervals for t in interval)
    if kind in ("three-point", "two-point") and not isinstance(noise, RecordedBrownian):
        raise SdekitError(
            f"{stepper.spec.name} is a weak method: it draws {kind} variables and cannot follow a Brownian path. "
            "Give noise=seed."
        )
    first = noise.increment(*intervals[0])
    if kind in ("space-time", "full") and first.space_time is None:
        raise SdekitError(
            f"{stepper.spec.name} needs space-time Lévy areas, which this path does not know: build it with "
            f'levy="{kind}".'
        )
    if kind == "full" and first.areas is None:
        raise SdekitError(
            f"{stepper.spec.name} needs the Lévy areas of its noises, which this path does not know: build it with "
            'levy="full".'
        )
    wanted = {"w": (first.w, 1), "h": (first.space_time, 1), "area": (first.areas, 2)}
    for name, (drawn, indices) in wanted.items():
        shape = (len(x), *event * indices)
        if drawn is not None and (drawn.device != x.device or tuple(drawn.shape) != shape):
            raise SdekitError(
                f"The Brownian path draws {name} of shape {tuple(drawn.shape)} on {drawn.device}; the state needs "
                f"{shape} on {x.device}."
            )
    return PathNoise(noise, x.dtype, prepared.draws)
