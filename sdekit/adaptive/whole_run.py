"""Runs of other libraries that choose their own steps, the same ones for the whole batch.

Such a library measures one error over all samples, so that a sample depends on its batch; what is kept is that it runs
on the path of a seed, on a tree that it may ask anywhere, and stays in the interval. Every time that is asked for ends
a leg, which begins with the length of the last step of the one before.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sdekit.adaptive.arrival import Arrival
from sdekit.brownian import BrownianPath, BrownianTree, Levy
from sdekit.controllers import PID
from sdekit.dynamics import SDE, Reflected, noise_shape
from sdekit.errors import SdekitError
from sdekit.keys import Keys
from sdekit.solution import Status
from sdekit.steppers.base import Stepper

_FIRST = 1.0 / 128.0  # of the interval: the first step, where nobody chose it
_FINEST = 16.0 * 2.0**-52  # of the largest time: a shorter step is lost in its rounding


class Leg(NamedTuple):
    """What a leg came to: the state, the length of its last step that was not cut, and what the next one wants."""

    x: Tensor
    step: float
    memory: Any = None


@final
class Cut(Exception):  # noqa: N818 (nothing is wrong)
    """Raised inside a run to end it."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@final
@dataclass
class Watch:
    """Counts the steps of a run, and ends it.

    Attributes:
        max_steps: Attempts after which it ends.
        deadline: When it ends, by :func:`time.perf_counter`; infinite for never.
        finest: The least length of a step.
        state: The last state that is known to be good.
        attempts: So far.
        accepted: Of these.
    """

    max_steps: int
    deadline: float
    finest: float
    state: Tensor
    attempts: int = 0
    accepted: int = 0

    def attempt(self, length: float) -> None:
        """Before a step of this length.

        Raises:
            Cut: a limit is reached, or the step is too short to mean anything.
        """
        if self.attempts >= self.max_steps:
            raise Cut(Status.STEP_LIMIT)
        if time.perf_counter() > self.deadline:
            raise Cut(Status.TIME_LIMIT)
        if length < self.finest:
            raise Cut(Status.STEP_UNDERFLOW)
        self.attempts += 1


class WholeRun(Stepper, ABC):
    """A method of another library with that library's control of the step."""

    @abstractmethod
    def leg(
        self,
        sde: SDE,
        ends: tuple[float, float],
        start: Leg,
        path: BrownianTree | None,
        backwards: bool,
        controller: PID,
        watch: Watch,
    ) -> Leg:
        """From one time to the next.

        Args:
            sde: The problem, in a clock that runs forwards.
            ends: The two times, in that clock.
            start: Where the last leg ended, and the step to begin with.
            path: The noise, in the clock of the problem; None where there is none.
            backwards: Whether that clock runs backwards.
            controller: Of which ``rtol`` and ``atol`` are meant.
            watch: To be told of every step.

        Raises:
            Cut: the run ends here.
        """


def whole_run(
    sde: SDE,
    stepper: WholeRun,
    controller: PID,
    noise: Keys | BrownianPath | None,
    x: Tensor,
    first: float,
    last: float,
    times: Sequence[float],
    *,
    max_steps: int,
    max_seconds: float | None,
    report: Callable[[int], None] | None,
) -> Arrival:
    """The run that :func:`sdekit.solve` makes of it.

    Args:
        sde: The problem.
        stepper: The method.
        controller: As given.
        noise: Keys, or a tree that covers the interval; None where there is no noise.
        x: Initial states.
        first: Where the run begins.
        last: Where it ends.
        times: Those asked for in between, in the order of the run.
        max_steps: Attempts after which it ends.
        max_seconds: Seconds after which it ends.
        report: Called with the number of samples that have ended, when they have.

    Raises:
        SdekitError: a path that is no tree over the interval, of another shape, or without the areas that are needed.
    """
    path = _path(stepper, sde, noise, x, min(first, last), max(first, last))
    backwards = first > last
    clock = [-t if backwards else t for t in (first, *times, last)]
    dynamics = Reflected(sde) if backwards else sde
    span = clock[-1] - clock[0]
    deadline = math.inf if max_seconds is None else time.perf_counter() + max_seconds
    watch = Watch(max_steps, deadline, _FINEST * max(abs(first), abs(last)), x)
    status, reached = Status.SUCCESS, [x]
    leg = Leg(x, min(span, _FIRST * span if controller.first is None else controller.first))
    try:
        for ends in pairwise(clock):
            leg = stepper.leg(dynamics, ends, leg, path, backwards, controller, watch)
            watch.state = leg.x
            reached.append(leg.x)
    except Cut as cut:
        status = cut.status
    if report:
        report(len(x))
    reached += [watch.state] * (len(clock) - len(reached))
    each = torch.full((len(x),), status, dtype=torch.int8, device=x.device)
    accepted = torch.full((len(x),), watch.accepted, dtype=torch.int64, device=x.device)
    between = torch.stack(reached[1:-1]) if len(clock) > 2 else x.new_empty(0, *x.shape)
    return Arrival(between, reached[-1], each, watch.attempts, accepted, watch.attempts - accepted)


def _path(
    stepper: Stepper, sde: SDE, noise: Keys | BrownianPath | None, x: Tensor, low: float, high: float
) -> BrownianTree | None:
    """The noise of the run, to be asked anywhere."""
    if sde.noise_type == "none":
        return None
    if stepper.spec.increments == "full":
        raise SdekitError(
            f"{stepper.spec.name} needs the Lévy areas of its noises, and no path knows them at times that are chosen "
            "as it goes: leave out controller=."
        )
    shape = torch.Size((len(x), *noise_shape(sde, low, x)))
    levy: Levy = "space-time" if stepper.spec.increments == "space-time" else "none"
    if noise is None:
        raise SdekitError("This problem is stochastic: give noise=seed (an integer), or a BrownianTree.")
    if isinstance(noise, Keys):
        return BrownianTree(
            shape, low, high, seed=noise.seed, paths=noise.paths, levy=levy, dtype=x.dtype, device=x.device
        )
    if not isinstance(noise, BrownianTree) or noise.clock is not None:
        raise SdekitError(
            f"{stepper.spec.name} chooses its times as it goes, and {type(noise).__name__} does not know them all: "
            "give noise=seed, or a BrownianTree in the clock t."
        )
    noise.require((low, high))
    if noise.shape != shape or (levy != "none" and noise.levy == "none"):
        raise SdekitError(
            f'{stepper.spec.name} needs BrownianTree({tuple(shape)}, {low!r}, {high!r}, levy="{levy}") here; got shape '
            f'{tuple(noise.shape)} with levy="{noise.levy}".'
        )
    return noise
