r"""Adaptive steps, for every sample by itself, on a tree.

The interval is cut dyadically: a sample stands at a whole number p of the finest steps, the ticks, and takes $2^j$ of
them, where $2^j$ divides p. So a step that was taken back is followed by its halves: the path is seen again where it
was seen before, and the increments keep their law although they decide about the steps [foster2023adaptive]. Times are
never accumulated, and a sample takes the same steps alone as among others.

Between the ends of its steps a sample is looked at by a step of its own, from the start of the step that passes the
time: it sees the path there, and the steps that follow are what they were.

References: [foster2023adaptive]; [rackauckas2017].
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sdekit.adaptive.arrival import Arrival
from sdekit.adaptive.attempt import Attempt
from sdekit.adaptive.lockstep import Lockstep
from sdekit.brownian import BrownianPath, BrownianTree, Increment, Levy, Walk
from sdekit.controllers import PID
from sdekit.dynamics import SDE, noise_shape
from sdekit.errors import SdekitError
from sdekit.keys import Keys
from sdekit.observe import Counter
from sdekit.solution import Status
from sdekit.steppers import registry
from sdekit.steppers.base import EmbeddedMethod, Stepper
from sdekit.steppers.embedded import EmbeddedRungeKutta
from sdekit.typing import Inside

_LOOK_EVERY = {"cpu": 4}  # attempts between looks at who has arrived
_LOOK_ELSEWHERE = 16  # where each makes the host wait


@dataclass
class _Travellers:
    """The samples that are on their way, a row each."""

    sample: Tensor  # which one it is
    x: Tensor
    place: Tensor  # in ticks, int64
    wanted: Tensor  # ticks of the next step, float64
    memory: list[Tensor]  # log e of the steps that were accepted last
    due: Tensor  # which of the times asked for comes next
    attempts: Tensor
    accepted: Tensor
    status: Tensor

    @classmethod
    def at_start(cls, x: Tensor, wanted: float, remembered: int) -> _Travellers:
        count = len(x)
        zeros = torch.zeros(count, dtype=torch.int64, device=x.device)
        ones = torch.ones(count, dtype=torch.float64, device=x.device)
        fine = torch.full((count,), Status.SUCCESS, dtype=torch.int8, device=x.device)
        numbers = torch.arange(count, device=x.device)
        return cls(numbers, x, zeros, ones * wanted, [ones * 0.0] * remembered, zeros, zeros, zeros, fine)

    def select(self, rows: Tensor) -> _Travellers:
        chosen = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "memory"}
        return _Travellers(**chosen, memory=[error[rows] for error in self.memory])


class _View(NamedTuple):
    """Samples whose steps pass a time, from where they are seen at it."""

    sample: Tensor
    due: Tensor  # which time
    start: Tensor  # of the step
    to: Tensor  # the time, in a clock that runs forwards
    x: Tensor  # at the start


@final
@dataclass(frozen=True)
class Journey:
    """Adaptive steps of an SDE over the interval of a tree.

    Attributes:
        attempt: How attempts are made.
        tree: The path. Its interval is that of the run, in either direction.
        times: Those asked for inside the interval, in the order of the run.
        max_steps: Attempts of a sample after which it ends.
        max_seconds: Seconds after which all end.
        report: Called with the number of samples that have ended.
        compiled: The problem and its calls, if attempts are compiled; those of ``attempt`` are counted.
    """

    attempt: Attempt
    tree: BrownianTree
    times: Sequence[float] = ()
    max_steps: int = 100_000
    max_seconds: float | None = None
    report: Callable[[int], None] | None = None
    compiled: tuple[SDE, Counter] | None = None

    @property
    def ticks(self) -> int:
        """Of the whole interval."""
        return 1 << self.tree.depth

    def run(self, x: Tensor) -> Arrival:
        """From ``x``, shape (B, *E)."""
        if self.compiled is not None and len(x) == 1:  # a graph takes any number of samples but one
            both = replace(self, tree=self.tree.select(torch.zeros(2, dtype=torch.int64, device=x.device)))
            return both.run(x.expand(2, *x.shape[1:])).select(0)
        first = self.attempt.controller.first
        wanted = self.ticks / 128 if first is None else self.ticks * min(1.0, first / (self.tree.t1 - self.tree.t0))
        on, pace = _Travellers.at_start(x, wanted, self.attempt.steering.memory), self._pace(x, wanted)
        started, attempts = time.perf_counter(), 0
        ended: list[_Travellers] = []
        views: list[_View] = []
        while True:
            late = self.max_seconds is not None and time.perf_counter() - started > self.max_seconds
            on.status = self._verdict(on, late)
            going = self._going(on)
            left = int(going.sum())
            if self.report:
                self.report(len(x) - left)
            if left == 0:
                break
            # Rows that have ended cost nothing much while they are few, and packing the others costs a copy.
            if isinstance(pace, _OneByOne) and 2 * left <= len(going):
                ended.append(on.select((~going).nonzero()[:, 0]))
                rows = going.nonzero()[:, 0]
                on, going = on.select(rows), going[rows]
                pace.select(rows)
            made, seen = pace.go(on, going)
            attempts, views = attempts + made, views + seen
        pace.count(attempts)
        return self._arrival([*ended, on], views, attempts)

    def _pace(self, x: Tensor, wanted: float) -> _OneByOne | _Together:
        if self.compiled is None:
            return _OneByOne(self, self.tree.walk(), _LOOK_EVERY.get(x.device.type, _LOOK_ELSEWHERE))
        return _Together.of(self, x, wanted)

    def _going(self, on: _Travellers) -> Tensor:
        return (on.place < self.ticks) & (on.status == Status.SUCCESS)

    def _verdict(self, on: _Travellers, late: bool) -> Tensor:
        """How those that are still going are doing."""
        status, going = on.status, self._going(on)
        if late:
            status = torch.where(going, int(Status.TIME_LIMIT), status)
        spent = on.attempts >= self.max_steps
        status = torch.where(going & spent, int(Status.STEP_LIMIT), status)
        return torch.where(going & (on.wanted < 1.0), int(Status.STEP_UNDERFLOW), status).to(torch.int8)

    def _attempt(self, on: _Travellers, walk: Walk) -> list[_View]:
        """One attempt of every row, and what it passed; a row that has ended repeats what it did, to no effect."""
        going = self._going(on)
        place = on.place & (self.ticks - 1)  # those at the end are sent to the start
        # The largest power of two that divides the place; none divides the start.
        fits = place.bitwise_and(-place).masked_fill_(place == 0, self.ticks)
        log_step = torch.minimum(_log2(on.wanted.clamp(1.0, float(self.ticks))), _log2(fits.double()))
        step = torch.bitwise_left_shift(torch.ones_like(place), log_step)
        start, end = self._clock(place), self._clock(place + step)
        drawn = self._drawn(walk, place, log_step) if self.attempt.sde.noise_type != "none" else None
        lengths = step, torch.maximum(on.wanted, step)
        after, accept, wanted, on.memory = self.attempt.judge(start, end, on.x, drawn, going, lengths, on.memory)
        on.due, views = self._look(on, accept, start, end)
        on.x = torch.where(accept.reshape(-1, *(1,) * (after.ndim - 1)), after, on.x)
        on.wanted = torch.where(going, wanted, on.wanted)
        on.place = torch.addcmul(on.place, step, accept.long())
        on.attempts, on.accepted = on.attempts + going, on.accepted + accept
        return views

    def _clock(self, place: Tensor) -> Tensor:
        """The time of a place, in a clock that runs forwards; exact at both ends."""
        low, high = (-self.tree.t1, -self.tree.t0) if self.attempt.backwards else (self.tree.t0, self.tree.t1)
        part = place.double().mul_(1.0 / self.ticks)
        return torch.lerp(part.new_full((), low), part.new_full((), high), part)

    def _drawn(self, walk: Walk, place: Tensor, log_step: Tensor) -> Increment:
        """What the path does over the steps."""
        index = place >> log_step
        if self.attempt.backwards:
            index = (self.ticks >> log_step) - 1 - index
        increment = walk.step(self.tree.depth - log_step, index)
        return increment.reflected() if self.attempt.backwards else increment

    @property
    def _asked(self) -> list[float]:
        """The times asked for, in a clock that runs forwards."""
        return [-t for t in self.times] if self.attempt.backwards else list(self.times)

    @cached_property
    def _ahead(self) -> Tensor:
        """The same, and none after them."""
        return torch.tensor([*self._asked, torch.inf], dtype=torch.float64, device=self.tree.keys.device)

    def _look(self, on: _Travellers, accept: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, list[_View]]:
        """Which times the steps pass: how many of them are behind every row now, and from where they are seen."""
        if not self.times:
            return on.due, []
        asked, due, views = self._ahead, on.due, []
        while len(rows := (accept & (asked[due] <= end)).nonzero()[:, 0]):
            views.append(_View(on.sample[rows], due[rows], start[rows], asked[due[rows]], on.x[rows]))
            due = due.index_add(0, rows, torch.ones_like(rows))
        return due, views

    def _between(self, views: list[_View], x: Tensor) -> Tensor:
        """The states at the times asked for, shape (T, B, *E); the last ones, ``x``, where no step passed one."""
        between = x.expand(len(self.times), *x.shape).clone()
        if not views:
            return between
        sample, due, start, to, before = (torch.cat(parts) for parts in zip(*views, strict=True))
        for part in range(0, len(sample), len(x)):
            some = slice(part, part + len(x))
            drawn = (
                self._drawn_to(sample[some], start[some], to[some]) if self.attempt.sde.noise_type != "none" else None
            )
            between[due[some], sample[some]] = self.attempt.step(start[some], to[some], before[some], drawn)[0]
        return between

    def _drawn_to(self, sample: Tensor, start: Tensor, to: Tensor) -> Increment:
        tree = self.tree.select(sample)
        return tree.increment(-to, -start).reflected() if self.attempt.backwards else tree.increment(start, to)

    def _arrival(self, groups: list[_Travellers], views: list[_View], attempts: int) -> Arrival:
        order = torch.cat([group.sample for group in groups]).argsort()
        x, status, tried, accepted = (
            torch.cat([getattr(group, name) for group in groups])[order]
            for name in ("x", "status", "attempts", "accepted")
        )
        return Arrival(self._between(views, x), x, status, attempts, accepted, tried - accepted)


@final
@dataclass
class _OneByOne:
    """Attempts as they are written."""

    journey: Journey
    walk: Walk
    attempts: int

    def go(self, on: _Travellers, going: Tensor) -> tuple[int, list[_View]]:
        return self.attempts, [view for _ in range(self.attempts) for view in self.journey._attempt(on, self.walk)]

    def select(self, rows: Tensor) -> None:
        self.walk = self.walk.select(rows)

    def count(self, attempts: int) -> None:
        """Calls count themselves."""


@final
@dataclass
class _Together:
    """Attempts as one graph (:mod:`sdekit.adaptive.lockstep`), which belongs to a number of samples."""

    journey: Journey
    lockstep: Lockstep

    @classmethod
    def of(cls, journey: Journey, x: Tensor, wanted: float) -> _Together:
        """At the start of a run. A step, the first time and where gradients may be, shows what they ask for."""
        assert journey.compiled is not None
        sde, counter = journey.compiled
        attempt = replace(journey.attempt, sde=sde)
        lockstep = Lockstep(attempt, journey.tree, x, wanted, journey._asked, journey.max_steps)
        if lockstep.calls == Counter() or torch.is_grad_enabled():
            before, noise = replace(counter), None
            start, end = (journey._clock(torch.full((len(x),), k, device=x.device)) for k in (0, journey.ticks // 128))
            if sde.noise_type != "none":
                still = x.new_zeros(journey.tree.shape)
                noise = Increment(still, still)
            if journey.attempt.step(start, end, x, noise)[0].requires_grad:
                raise SdekitError(
                    "Compiled adaptive steps record no gradients, and these would have one: solve under "
                    "torch.no_grad(), or leave compile out."
                )
            for name, calls in vars(before).items():
                setattr(lockstep.calls, name, getattr(counter, name) - calls)
                setattr(counter, name, calls)
        return cls(journey, lockstep)

    def go(self, on: _Travellers, going: Tensor) -> tuple[int, list[_View]]:
        made, (starts, before) = self.lockstep.go(going)
        at = self.lockstep.at
        on.x, on.wanted, on.attempts, on.accepted = at.x, at.wanted, at.attempts, at.accepted
        on.place = torch.where(going, at.place, on.place)
        due, rows = starts.isfinite().nonzero(as_tuple=True)
        if not len(due):
            return made, []
        return made, [_View(on.sample[rows], due, starts[due, rows], self.journey._ahead[due], before[due, rows])]

    def count(self, attempts: int) -> None:
        """What the graphs asked for."""
        assert self.journey.compiled is not None
        counter = self.journey.compiled[1]
        for name, calls in vars(self.lockstep.calls).items():
            setattr(counter, name, getattr(counter, name) + attempts * calls)


def _log2(x: Tensor) -> Tensor:
    """The whole part of log₂ x, exactly: the exponent of a double."""
    return torch.frexp(x).exponent.long().sub_(1)


def journey(
    sde: SDE,
    stepper: Stepper,
    controller: PID,
    noise: Keys | BrownianPath | None,
    x: Tensor,
    first: float,
    last: float,
    times: Sequence[float],
    inside: Inside | None,
    **limits: Any,
) -> Journey:
    """The journey that :func:`sdekit.solve` makes with a controller.

    Args:
        sde: The problem.
        stepper: As given.
        controller: As given.
        noise: Keys, or a tree over the interval; None where there is no noise.
        x: Initial states.
        first: Where the run begins.
        last: Where it ends.
        times: Those asked for in between, in the order of the run.
        inside: Where states may be; None for everywhere.
        limits: The other attributes of the journey.

    Raises:
        SdekitError: a stepper without an error estimate; a path that is no tree over the interval, that has another
            shape, or that does not know the areas which the stepper needs.
    """
    if not isinstance(stepper, EmbeddedMethod):
        pairs = {n: cls for n, cls in registry.STEPPERS.items() if issubclass(cls, EmbeddedMethod | EmbeddedRungeKutta)}
        able = [name for name, cls in pairs.items() if registry.obstacle(cls.spec, sde) is None]
        raise SdekitError(
            f"{stepper.spec.name} does not estimate its error, so that no controller can choose its steps: leave out "
            f"controller=, or take one that does: {', '.join(able)}."
        )
    low, high = min(first, last), max(first, last)
    event = x.shape[1:] if sde.noise_type == "none" else noise_shape(sde, first, x)
    shape = torch.Size((len(x), *event))
    levy: Levy = "space-time" if stepper.spec.increments == "space-time" else "none"
    if isinstance(noise, Keys):
        tree = BrownianTree(
            shape, low, high, seed=noise.seed, paths=noise.paths, levy=levy, dtype=x.dtype, device=x.device
        )
    elif noise is None and sde.noise_type == "none":
        tree = BrownianTree(shape, low, high, dtype=x.dtype, device=x.device)
    else:
        tree = _tree_over(noise, shape, low, high, levy)
    return Journey(Attempt(sde, stepper, controller, first > last, inside), tree, times, **limits)


def _tree_over(noise: BrownianPath | None, shape: torch.Size, low: float, high: float, levy: Levy) -> BrownianTree:
    """``noise``, if it is a tree that fits."""
    if noise is None:
        raise SdekitError("This problem is stochastic: give noise=seed (an integer), or a BrownianTree.")
    if not isinstance(noise, BrownianTree) or noise.clock is not None:
        raise SdekitError(
            f"A controller chooses its times as it goes, and {type(noise).__name__} does not know them all: give "
            "noise=seed, or a BrownianTree in the clock t."
        )
    if (noise.t0, noise.t1) != (low, high) or noise.shape != shape or (levy != "none" and noise.levy == "none"):
        raise SdekitError(
            f"Adaptive steps halve the interval of the run, so its tree must be BrownianTree({tuple(shape)}, {low!r}, "
            f'{high!r}, levy="{levy}"); got shape {tuple(noise.shape)} over [{noise.t0!r}, {noise.t1!r}] with '
            f'levy="{noise.levy}".'
        )
    return noise
