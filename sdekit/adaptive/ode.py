r"""Adaptive steps of ODEs by Runge–Kutta pairs, for every sample by itself.

Every sample has its own time, its own step and its own end, so it takes the same steps, and asks for the field as
often, alone as among others. All that still have to go make an attempt together; who refuses a step makes a shorter one
in the next attempt. Samples that have arrived stand still, until they are left out: when half have arrived, unless they
are few; sooner where that saves more than it costs; and at once where the score is a network's. None of this looks at a
clock, for the last bits of a network's answer depend on the size of the batch.

The first step is that of [hairer1993] §II.4, from the size of the state, of the field and of the field's change over
a trial step of at most a hundredth of the interval.

Gradients. Steps are looked for without recording. Where gradients are wanted, the steps that were accepted are then
taken a second time with recording, and lengths are constants to them: so what was refused leaves nothing on the
tape, and costs no memory.

References: [hairer1993] §II.4–II.6; [soderlind2003].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from sdekit.adaptive.arrival import Arrival
from sdekit.adaptive.stages import Stages, Workspace
from sdekit.controllers import LARGEST, PID
from sdekit.dynamics import SDE
from sdekit.solution import Status
from sdekit.steppers.embedded import Pair

_WORTH = 4096  # numbers that stand still, and at least an eighth of the others: packing costs less than one attempt
_WORTH_HALF = 1024  # enough of them if no more are on their way: fewer add nothing to the time of an attempt
_TRIAL = 0.01  # of the interval: how far the field is asked before the first step
_GAINS = 0.2, 0.6, 0.9  # K_P, K_I and s: half the rejections and the error of K_I = 1, for a tenth more steps
_LOOK_EVERY = 8  # attempts between looks at whose steps are lost
_FINEST = 16.0 * 2.0**-52  # of the largest time: a shorter step is lost in its rounding


class _View(NamedTuple):
    """Samples seen inside a step."""

    rows: Tensor  # among those that accept it
    due: Tensor  # which of their times, in the order of the run
    part: Tensor  # θ


class _Accepted(NamedTuple):
    """A step that samples took, to be taken again with gradients."""

    sample: Tensor
    left: Tensor
    h: Tensor
    views: list[_View]


@final
@dataclass(frozen=True)
class Descent:
    """Adaptive steps of an ODE.

    Attributes:
        sde: The problem, without noise.
        pair: The method.
        controller: Of the step sizes.
        first: Where the run begins.
        last: Where it ends, before or after.
        times: Those asked for, shape (T,) for all samples or (T, B) for each, inside the interval; None for none.
        eager: Whether a sample that has arrived is left out at once.
        max_steps: Attempts of a sample after which it ends.
        max_seconds: Seconds after which all end.
        report: Called with the number of samples that have ended.
    """

    sde: SDE
    pair: Pair
    controller: PID
    first: float
    last: float
    times: Tensor | None = None
    eager: bool = False
    max_steps: int = 100_000
    max_seconds: float | None = None
    report: Callable[[int], None] | None = None

    def run(self, x: Tensor) -> Arrival:
        """From ``x``, shape (B, *E)."""
        stages = Stages(self.sde, self.pair, self.first, self.last, x.shape[1:])
        flat = x.reshape(len(x), -1)
        start = torch.full((len(x),), self.first, dtype=torch.float64, device=x.device)
        slope = stages.field(start, flat)
        wanted = None if self.times is None else _Wanted.of(self.times, stages, flat)
        recorded = torch.is_grad_enabled() and (slope.requires_grad or x.requires_grad)
        with torch.no_grad():
            search = _Search(self, stages, flat.detach(), slope.detach(), wanted, recorded)
            search.run()
        final, between = search.final, search.between
        if recorded:
            final, between = _again(stages, flat, slope, search.tape, between)
        status, attempts, rejected, evaluations = search.outcome
        if wanted is not None:
            between = wanted.ordered(between, final, status)
        states = (between.reshape(len(between), *x.shape), final.reshape(x.shape))
        return Arrival(*states, status, search.attempt, attempts - rejected, rejected, evaluations)


class _Wanted:
    """The times that are asked for, as time to go, sorted in the order of the run, with none after the last."""

    def __init__(self, left: Tensor, order: Tensor) -> None:
        self.left, self._order = left, order
        self.queue = torch.cat([left, left.new_full((1, left.shape[1]), -1.0)])

    @classmethod
    def of(cls, times: Tensor, stages: Stages, x: Tensor) -> _Wanted:
        each = times.to(x.device, torch.float64).reshape(len(times), -1).expand(-1, len(x))
        left = (each - stages.last).abs().clamp_(max=stages.span)
        return cls(*left.sort(dim=0, descending=True, stable=True))

    def ordered(self, between: Tensor, final: Tensor, status: Tensor) -> Tensor:
        """As they were asked for. At its ends a run is where it began and where it arrived."""
        arrived = (self.left == 0.0) & (status == Status.SUCCESS)
        between = torch.where(arrived[..., None], final, between)
        back = self._order.argsort(0)[..., None].expand_as(between)
        return between.gather(0, back)


class _Search:
    """The run, and what has come of it so far."""

    def __init__(
        self, plan: Descent, stages: Stages, x: Tensor, slope: Tensor, wanted: _Wanted | None, record: bool
    ) -> None:
        count = len(x)
        self._plan, self._stages, self._wanted, self._record = plan, stages, wanted, record
        self._steering = plan.controller.steering(plan.pair.estimate_order, _GAINS)
        self._finest = _FINEST * max(abs(plan.first), abs(plan.last))
        self._deadline = math.inf if plan.max_seconds is None else time.perf_counter() + plan.max_seconds
        # Of the whole batch.
        self.final = x.clone()
        self.between = x.new_empty(0, *x.shape) if wanted is None else x.expand(len(wanted.left), *x.shape).clone()
        self._outcome = torch.zeros(4, count, dtype=torch.int64, device=x.device)
        self.tape: list[_Accepted] = []
        self.attempt = 0
        # Numbers and states of those that were left out.
        self._gone: list[tuple[Tensor, Tensor]] = []
        # Of those on their way: what they share is two tensors, so that to pack them is two copies.
        numbers = torch.zeros(6, count, dtype=torch.int64, device=x.device)
        numbers[0] = torch.arange(count, device=x.device)
        reals = torch.zeros(4, count, dtype=torch.float64, device=x.device)
        reals[0] = stages.span
        self._unpack(numbers, reals)
        self._work = Workspace.of(stages, x, slope, (plan.controller.atol, plan.controller.rtol))
        self._asked = 1
        self._h.copy_(self._first_steps())
        self._queue = None if wanted is None else wanted.queue

    @property
    def outcome(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of every sample: its status, and how many attempts, rejections and evaluations it took."""
        status, attempts, rejected, evaluations = self._outcome
        return status.to(torch.int8), attempts, rejected, evaluations

    def run(self) -> None:
        """Until all have ended."""
        plan, self._going = self._plan, len(self._left)
        lost = ~self._work.slope.isfinite().all(1)
        if bool(lost.any()):
            self._bad.masked_fill_(lost, Status.NON_FINITE)
            self._going = self._pack()
        while self._going:
            if self.attempt >= plan.max_steps or time.perf_counter() > self._deadline:
                limit = Status.STEP_LIMIT if self.attempt >= plan.max_steps else Status.TIME_LIMIT
                self._bad.masked_fill_(self._left > 0.0, limit)
                break
            self._try()
            on = int(torch.count_nonzero(self._left))
            if on < self._going:
                self._ended.masked_fill_((self._left == 0.0) & (self._ended == 0), self.attempt)
            self._going = on
            if self._worth_packing(on):
                self._going = self._pack()
            if plan.report:
                plan.report(len(self.final) - self._going)
        self._gone.append((self._numbers, self._work.x))
        self._settle()

    def _worth_packing(self, on: int) -> bool:
        still = len(self._left) - on
        if still == 0 or on == 0:
            return False
        width = self._work.x.shape[1]
        worth = _WORTH_HALF if still >= on else max(_WORTH, on * width // 8)
        return self._plan.eager or still * width >= worth

    def _try(self) -> None:
        """One attempt of all; who has arrived takes a step of length zero."""
        work, left, h = self._work, self._left, self._h
        self.attempt += 1
        work.step(left, h)
        error = self._shared(work.errors()).log_().clamp_(-LARGEST, LARGEST)
        worst = float(error.max())
        if math.isnan(worst):
            error.nan_to_num_(LARGEST)
        refuse = None if worst <= 0.0 else error > 0.0
        if self._queue is not None or self._record:
            self._look(refuse)
        wish = self._steering.factor((error, self._last, self._older), refuse).mul_(h)
        if refuse is None:
            left.sub_(h)
        else:
            self._refused.add_(refuse if self._going == len(left) else refuse & (left > 0.0))
            torch.where(refuse, left, left - h, out=left)
        work.advance(refuse)
        if self._steering.memory > 1:
            _replace(self._older, self._last, refuse)
        if self._steering.memory:
            _replace(self._last, error, refuse)
        torch.minimum(wish, left, out=h)
        if self.attempt % _LOOK_EVERY == 0 and bool((lost := (wish < self._finest) & (left > 0.0)).any()):
            self._bad.masked_fill_(lost, Status.STEP_UNDERFLOW)
            self._ended.masked_fill_(lost, self.attempt)
            self._pack()

    def _first_steps(self) -> Tensor:
        """Where to begin."""
        left, work, stages, control = self._left, self._work, self._stages, self._plan.controller
        if control.first is not None:
            return left.clamp(max=control.first)
        self._asked += 1
        x, slope = work.x, work.slope
        scale = x.abs().mul_(control.rtol).add_(control.atol).clamp_(min=torch.finfo(x.dtype).tiny)

        def size(v: Tensor) -> Tensor:
            return self._shared(torch.linalg.vector_norm(v / scale, dim=1).double() / x.shape[1] ** 0.5)

        state, speed = size(x), size(slope)
        trial = torch.where((state < 1e-5) | (speed < 1e-5), 1e-6 * stages.span, _TRIAL * state / speed)
        trial = trial.nan_to_num_(nan=0.0, posinf=math.inf).clamp_(max=_TRIAL * stages.span)
        moved = torch.addcmul(x, stages.signed(trial, x), slope)
        bend = size(stages.field(stages.times_(left - trial), moved) - slope) / trial
        worst = torch.maximum(speed, bend)
        best = worst.reciprocal().mul_(_TRIAL).log_().div_(self._plan.pair.estimate_order).exp_()
        best = torch.where(worst <= 1e-15 / stages.span, torch.clamp(trial * 1e-3, min=1e-6 * stages.span), best)
        # Nothing is known of a field that answers NaN near its start: as short a step as finds out.
        best = torch.where(best.isfinite() & (trial > 0.0), best, 1e-6 * stages.span)
        return torch.minimum(best, 100.0 * trial.clamp_(min=1e-8 * stages.span)).clamp_(max=stages.span)

    def _shared(self, norms: Tensor) -> Tensor:
        """Norms of samples, or the same one for all."""
        if self._plan.controller.norm == "sample":
            return norms
        return norms.square().mean().sqrt().expand_as(norms).clone()

    def _look(self, refuse: Tensor | None) -> None:
        """See the samples at those of their times that the step passes, and write down the step."""
        moving = self._h > 0.0
        rows = (moving if refuse is None else moving & ~refuse).nonzero()[:, 0]
        left, h = self._left[rows], self._h[rows]
        views = [] if self._queue is None else self._views(rows, left, h)
        if self._record:
            self.tape.append(_Accepted(self._sample[rows], left, h, views))
        if not views:
            return
        seen = views[0].rows
        at = rows[seen]
        x, moves = self._work.x[at], list(self._work.moves[:, at])
        moves = self._stages.completed(x, moves, left[seen], h[seen])
        self._looks[at] += 1
        _see(self._stages, self.between, views, (self._sample[rows], x, moves))

    def _views(self, rows: Tensor, left: Tensor, h: Tensor) -> list[_View]:
        """Which times are passed, one of every sample at a time; the samples of the first are those of all."""
        assert self._queue is not None
        after, views = left - h, []
        due = self._due[rows]
        while True:
            asked = self._queue[due, rows]
            passed = (asked >= after).nonzero()[:, 0]
            if len(passed) == 0:
                break
            views.append(_View(passed, due[passed], (left[passed] - asked[passed]) / h[passed]))
            due[passed] += 1
        self._due[rows] = due
        return views

    def _pack(self) -> int:
        """Leave out who has ended."""
        going = (self._left > 0.0) & (self._bad == Status.SUCCESS)
        gone, rows = (~going).nonzero()[:, 0], going.nonzero()[:, 0]
        self._gone.append((self._numbers.index_select(1, gone), self._work.x.index_select(0, gone)))
        self._work = self._work.select(rows)
        self._unpack(self._numbers.index_select(1, rows), self._reals.index_select(1, rows))
        if self._queue is not None:
            self._queue = self._queue[:, rows]
        return len(rows)

    def _unpack(self, numbers: Tensor, reals: Tensor) -> None:
        self._numbers, self._reals = numbers, reals
        self._sample, self._due, self._refused, self._looks, self._ended, self._bad = numbers.unbind(0)
        self._left, self._h, self._last, self._older = reals.unbind(0)

    def _settle(self) -> None:
        """Write down what became of everyone."""
        numbers, states = zip(*self._gone, strict=True)
        sample, due, refused, looks, ended, bad = torch.cat(numbers, 1).unbind(0)
        x = torch.cat(states)
        tried = torch.where((ended == 0) & (bad != Status.NON_FINITE), self.attempt, ended)
        stages, extra = self._plan.pair.size - 1, len(self._plan.pair.extra)
        evaluations = looks.mul_(extra).add_(tried, alpha=stages).add_(self._asked)
        self._outcome[:, sample] = torch.stack([bad, tried, refused, evaluations])
        self.final[sample] = x
        if self._queue is not None:
            # Where it did not get it is where it is; what it has passed it has seen.
            times = torch.arange(len(self.between), device=x.device)[:, None]
            missed = (times >= due)[..., None]
            self.between[:, sample] = torch.where(missed, x, self.between[:, sample])


def _replace(memory: Tensor, new: Tensor, refuse: Tensor | None) -> None:
    if refuse is None:
        memory.copy_(new)
    else:
        torch.where(refuse, memory, new, out=memory)


def _see(stages: Stages, between: Tensor, views: list[_View], step: tuple[Tensor, Tensor, list[Tensor]]) -> Tensor:
    """Write down the states inside a step; ``step`` holds all who took it, and of those seen states and moves."""
    sample, x, moves = step
    seen = views[0].rows
    for view in views:
        of = torch.searchsorted(seen, view.rows)
        states = stages.inside(x[of], [move[of] for move in moves], view.part)
        at = (view.due, sample[view.rows])
        between = between.index_put(at, states) if torch.is_grad_enabled() else between.index_put_(at, states)
    return between


def _again(stages: Stages, x: Tensor, slope: Tensor, tape: list[_Accepted], between: Tensor) -> tuple[Tensor, Tensor]:
    """Take accepted steps with gradients: final states, and those in between."""
    for sample, left, h, views in tape:
        everyone = len(sample) == len(x)
        before, first = (x, slope) if everyone else (x[sample], slope[sample])
        after, slope_after, moves = stages.step(before, first, left, h)
        if views:
            seen = views[0].rows
            some = stages.completed(before[seen], [move[seen] for move in moves], left[seen], h[seen])
            between = _see(stages, between, views, (sample, before[seen], some))
        x = after if everyone else x.index_copy(0, sample, after)
        slope = slope_after if everyone else slope.index_copy(0, sample, slope_after)
    return x, between
