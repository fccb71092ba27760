"""What ``sdekit solve`` solves: a problem, or a process with data and a score; and what is known of the end."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import sdekit as sk
from sdekit import random
from sdekit.brownian import BrownianPath, levy_for
from sdekit.cli import choices
from sdekit.doors import noise_event
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.linear import LinearProcess, ScheduledProcess
from sdekit.steppers import Stepper

if TYPE_CHECKING:
    from sdekit.laws import Law
    from sdekit.problems import Problem
    from sdekit.score import Score

EXACT, LEARNED = "exact", "learned"


@dataclass(frozen=True)
class Case:
    """A run to be made, and what its end is compared with.

    Attributes:
        title: What it is.
        sde: The dynamics.
        initial: Law of the initial state.
        grid: Times.
        truth: The law, or samples of it, that the end of the run is compared with; None if neither is known.
        truth_name: What that is.
        beside: Distances between laws that are no fault of the solver, by name.
        problem: The problem of the registry, if it is one.
        learned: Whether its score is a network.
    """

    title: str
    sde: SDE
    initial: Law
    grid: Tensor
    truth: Law | Tensor | None
    truth_name: str
    beside: dict[str, float]
    problem: Problem | None = None
    learned: bool = False

    def noise(self, stepper: Stepper, x: Tensor, seed: int) -> int | BrownianPath:
        """A seed; where the exact path is known, the Brownian path that both answers share."""
        if self.problem is None or self.problem.path is None:
            return seed
        prepared = stepper.prepare(self.sde, self.grid.tolist())
        event = noise_event(self.sde, x, prepared, float(self.grid[0]))
        shape = (len(x), *(event or ()))
        levy = levy_for(stepper.spec.increments, self.problem.levy)
        return sk.BrownianGrid.on(self.grid, shape, seed=random.key(seed, 1), device=x.device, levy=levy)


def case_of(options: argparse.Namespace) -> Case:
    """The case that the command line describes.

    Raises:
        SdekitError: options that exclude each other, or that the library refuses.
    """
    if options.problem is None:
        return _process_case(options)
    given = [f"--{n}" for n in ("process", "data", "score", "grid", "start") if getattr(options, n) is not None]
    given += [f"--{n.replace('_', '-')}" for n in ("t_min", "t_max") if getattr(options, n) is not None]
    given += ["--forward"] if options.forward else []
    if given:
        raise SdekitError(
            f"{', '.join(given)} cannot go with the problem {options.problem!r}, which brings its own process, data "
            "and grid: leave the problem out, or the options."
        )
    return _problem_case(options)


def _problem_case(options: argparse.Namespace) -> Case:
    from sdekit import problems

    found = problems.get(options.problem, **({} if options.eta is None else {"eta": options.eta}))
    grid = found.grid(options.steps)
    name = f"the exact law at t = {float(grid[-1]):g}"
    law = found.law if isinstance(found.law, sk.Gaussian | sk.GaussianMixture) else None
    return Case(found.summary, found.sde, found.initial, grid, law, name, {}, found)


def _process_case(options: argparse.Namespace) -> Case:
    data_name = options.data or "mixture"
    data, kind = choices.law(data_name), options.score or (LEARNED if data_name == "digits" else EXACT)
    asked = choices.process(options.process) if options.process else None
    if options.forward:
        return _forward_case(options, asked or sk.VP(), data, data_name)
    score: Score
    if kind == EXACT:
        process = asked or sk.VP()
        score = sk.exact_score(data, process)
    else:
        process, score = _learned_score(kind, data_name, asked)
    grid = _grid(options, process)
    start, end = float(grid[0]), float(grid[-1])
    from_prior = options.start != "exact"
    exact_start = process.marginal(data, start)
    initial = process.prior(data.event_shape) if from_prior else exact_start
    beside = _bias("prior mismatch (W2)", initial, exact_start) if from_prior else {}
    finished = options.end != "stop"
    beside |= {} if finished else _bias("bias of stopping (W2)", process.marginal(data, end), data)
    truth, truth_name = _truth(data_name, process, data, 0.0 if finished else end)
    title = f"{type(process).__name__} back to {data_name} data, {kind} score"
    sde = sk.reverse_time(process, score, options.eta or 0.0)
    return Case(title, sde, initial, grid, truth, truth_name, beside, learned=kind != EXACT)


def _forward_case(options: argparse.Namespace, process: LinearProcess, data: Law, data_name: str) -> Case:
    given = [n for n in ("eta", "score", "start") if getattr(options, n) is not None]
    if given:
        raise SdekitError(f"--{given[0]} is for the way back, and --forward goes from data to noise: leave one out.")
    grid = _grid(options, process).flip(0)
    start, end = float(grid[0]), float(grid[-1])
    title, name = f"{type(process).__name__} from {data_name} data, forwards", f"the exact law at t = {end:g}"
    return Case(title, process, process.marginal(data, start), grid, process.marginal(data, end), name, {})


def _grid(options: argparse.Namespace, process: LinearProcess) -> Tensor:
    name = options.grid or _default_grid(options, process)
    return choices.grids()[name](process, options.steps, options.t_min, options.t_max)


def _default_grid(options: argparse.Namespace, process: LinearProcess) -> str:
    """As in :func:`sdekit.solve`: uniform in log-SNR for a stepper of one's own; the default one goes to the data."""
    if process.schedule is None:
        return "uniform"
    return "log_snr" if options.stepper or options.forward or options.end != "stop" else "rectified"


def _learned_score(kind: str, data_name: str, process: LinearProcess | None) -> tuple[LinearProcess, Score]:
    """A learned score, for the process that was asked for or else the one it was trained on."""
    if kind == LEARNED and data_name not in choices.LEARNED:
        known = " or ".join(f"--data {name}" for name in choices.LEARNED)
        raise SdekitError(f"No learned score of {data_name!r} ships: take {known}, or --score exact.")
    if process is not None and not isinstance(process, ScheduledProcess):
        raise SdekitError(f"A learned score needs a process with a schedule and no shift; {process!r} is not one.")
    from sdekit import train

    return train.load_score(choices.LEARNED[data_name] if kind == LEARNED else kind, process)


def _truth(data_name: str, process: LinearProcess, data: Law, end: float) -> tuple[Law | Tensor | None, str]:
    """What samples at time ``end`` should be like; for images, images that no training saw."""
    if data_name == "digits":
        from sdekit import data as sets

        return sets.digits().held_out, "360 held-out images"
    law = process.marginal(data, end) if end > 0.0 else data
    return law, f"the exact law at t = {end:g}"


def _bias(name: str, a: Law, b: Law) -> dict[str, float]:
    """W2 between two laws under a name, if it has a closed form."""
    from sdekit import metrics

    gaussian = isinstance(a, sk.Gaussian) and isinstance(b, sk.Gaussian)
    if not gaussian and a.event_shape.numel() != 1:
        return {}
    return {name: metrics.wasserstein2(a, b)}


def start_states(case: Case, samples: int, seed: int, dtype: torch.dtype, device: str) -> Tensor:
    """Initial states."""
    return case.initial.sample(samples, seed=seed).to(device, dtype)
