r"""Adaptive steps of ODEs by Runge–Kutta pairs, for every sample by itself.

Every sample has its own time, its own step and its own end, so it takes the same steps, and asks for the field as
often, alone as among others. All that still have to go make an attempt together; who refuses a step makes a shorter one
in the next attempt. Samples that have arrived stand still, until they are left out: when half have arrived; sooner
where that saves more than it costs; and at once where the score is a network's. None of this looks at a clock, for the
last bits of a network's answer depend on the size of the batch.

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
from sdekit.controllers import PID
from sdekit.dynamics import SDE
from sdekit.solution import Status
from sdekit.steppers.embedded import Pair

_WORTH = 4096  # numbers that stand still, and at least an eighth of the others: packing costs less than one attempt
_TRIAL = 0.01  # of the interval: how far the field is asked before the first step
_GAINS = 0.2, 0.6  # K_P and K_I: half the rejections and the error of K_I = 1, for a tenth more steps
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
        self._control = plan.controller.filled(*_GAINS)
        self._remembers = self._control.remembers
        self._finest = _FINEST * max(abs(plan.first), abs(plan.last))
        self._deadline = math.inf if plan.max_seconds is None else time.perf_counter() + plan.max_seconds
        # Of the whole batch.
        self.final = x.clone()
        self.between = x.new_empty(0, *x.shape) if wanted is None else x.expand(len(wanted.left), *x.shape).clone()
        self._outcome = torch.zeros(4, count, dtype=torch.int64, device=x.device)
        self.tape: list[_Accepted] = []
        self.attempt = 0
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
        plan, going = self._plan, len(self._left)
        lost = ~self._work.slopes[0].isfinite().all(1)
        if bool(lost.any()):
            self._bad.masked_fill_(lost, Status.NON_FINITE)
            going = self._pack()
        while going:
            if self.attempt >= plan.max_steps or time.perf_counter() > self._deadline:
                limit = Status.STEP_LIMIT if self.attempt >= plan.max_steps else Status.TIME_LIMIT
                self._bad.masked_fill_(self._left > 0.0, limit)
                break
            self._try()
            on = int(torch.count_nonzero(self._left))
            if on < going:
                self._ended.masked_fill_((self._left == 0.0) & (self._ended == 0), self.attempt)
            going = on
            if self._worth_packing(on):
                going = self._pack()
            if plan.report:
                plan.report(len(self.final) - going)
        self._keep(torch.arange(len(self._left), device=self._left.device))

    def _worth_packing(self, on: int) -> bool:
        still = len(self._left) - on
        if still == 0 or on == 0:
            return False
        width = self._work.x.shape[1]
        return self._plan.eager or still >= on or still * width >= max(_WORTH, on * width // 8)

    def _try(self) -> None:
        """One attempt of all; who has arrived takes a step of length zero."""
        work, left, h, control = self._work, self._left, self._h, self._control
        self.attempt += 1
        work.step(left, h)
        error = control.log(self._shared(work.errors(h)))
        accept = None
        if float(error.max()) > 0.0:
            accept = error <= 0.0
        factor = control.factor((error, self._last, self._older), accept, self._plan.pair.estimate_order)
        if self._queue is not None or self._record:
            self._look(accept)
        wish = h * factor
        if accept is not None:
            self._refused.add_((left > 0.0).bitwise_and_(error > 0.0))
            h.mul_(accept)
        left.sub_(h)
        work.advance(accept)
        if self._remembers:
            self._older.copy_(self._last if accept is None else torch.where(accept, self._last, self._older))
            self._last.copy_(error if accept is None else torch.where(accept, error, self._last))
        torch.minimum(wish, left, out=h)
        if self.attempt % _LOOK_EVERY == 0 and bool((lost := (wish < self._finest) & (left > 0.0)).any()):
            self._bad.masked_fill_(lost, Status.STEP_UNDERFLOW)
            self._ended.masked_fill_(lost, self.attempt)
            self._pack()

    def _first_steps(self) -> Tensor:
        """Where to begin."""
        left, work, stages, pair = self._left, self._work, self._stages, self._plan.pair
        if self._control.first is not None:
            return left.clamp(max=self._control.first)
        self._asked += 1
        x, slope = work.x, work.slopes[0]
        scale = x.abs().mul_(self._control.rtol).add_(self._control.atol).clamp_(min=torch.finfo(x.dtype).tiny)

        def size(v: Tensor) -> Tensor:
            return self._shared(torch.linalg.vector_norm(v / scale, dim=1).double() / x.shape[1] ** 0.5)

        state, speed = size(x), size(slope)
        trial = torch.where((state < 1e-5) | (speed < 1e-5), 1e-6 * stages.span, _TRIAL * state / speed)
        trial = trial.nan_to_num_(nan=0.0, posinf=math.inf).clamp_(max=_TRIAL * stages.span)
        moved = torch.addcmul(x, stages.signed(trial, x), slope)
        bend = size(stages.field(stages.times_(left - trial), moved) - slope) / trial
        worst = torch.maximum(speed, bend)
        best = worst.reciprocal().mul_(_TRIAL).log_().div_(pair.estimate_order).exp_()
        best = torch.where(worst <= 1e-15 / stages.span, torch.clamp(trial * 1e-3, min=1e-6 * stages.span), best)
        # Nothing is known of a field that answers NaN near its start: as short a step as finds out.
        best = torch.where(best.isfinite() & (trial > 0.0), best, 1e-6 * stages.span)
        return torch.minimum(best, 100.0 * trial.clamp_(min=1e-8 * stages.span)).clamp_(max=stages.span)

    def _shared(self, norms: Tensor) -> Tensor:
        """Norms of samples, or the same one for all."""
        if self._plan.controller.norm == "sample":
            return norms
        return norms.square().mean().sqrt().expand_as(norms).clone()

    def _look(self, accept: Tensor | None) -> None:
        """See the samples at those of their times that the step passes, and write down the step."""
        moving = self._h > 0.0
        rows = (moving if accept is None else moving & accept).nonzero()[:, 0]
        left, h = self._left[rows], self._h[rows]
        views = [] if self._queue is None else self._views(rows, left, h)
        if self._record:
            self.tape.append(_Accepted(self._sample[rows], left, h, views))
        if not views:
            return
        seen = views[0].rows
        at = rows[seen]
        x, slopes = self._work.x[at], [slope[at] for slope in self._work.slopes]
        slopes = self._stages.completed(x, slopes, left[seen], h[seen])
        self._looks[at] += 1
        _see(self._stages, self.between, views, (self._sample[rows], x, slopes, h))

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
        self._keep((~going).nonzero()[:, 0])
        rows = going.nonzero()[:, 0]
        self._work = self._work.select(rows)
        self._unpack(self._numbers.index_select(1, rows), self._reals.index_select(1, rows))
        if self._queue is not None:
            self._queue = self._queue[:, rows]
        return len(rows)

    def _unpack(self, numbers: Tensor, reals: Tensor) -> None:
        self._numbers, self._reals = numbers, reals
        self._sample, self._due, self._refused, self._looks, self._ended, self._bad = numbers.unbind(0)
        self._left, self._h, self._last, self._older = reals.unbind(0)

    def _keep(self, rows: Tensor) -> None:
        """What became of some samples."""
        sample, due, refused, looks, ended, bad = self._numbers.index_select(1, rows).unbind(0)
        x = self._work.x.index_select(0, rows)
        tried = torch.where((ended == 0) & (bad != Status.NON_FINITE), self.attempt, ended)
        stages, extra = len(self._work.slopes) - 1, len(self._plan.pair.extra)
        evaluations = looks.mul_(extra).add_(tried, alpha=stages).add_(self._asked)
        self._outcome[:, sample] = torch.stack([bad, tried, refused, evaluations])
        self.final[sample] = x
        if self._queue is not None:
            # Where it did not get it is where it is; what it has passed it has seen.
            times = torch.arange(len(self.between), device=x.device)[:, None]
            missed = (times >= due)[..., None]
            self.between[:, sample] = torch.where(missed, x, self.between[:, sample])


def _see(
    stages: Stages, between: Tensor, views: list[_View], step: tuple[Tensor, Tensor, list[Tensor], Tensor]
) -> Tensor:
    """Write down the states inside a step; ``step`` holds all who took it, and of those seen states and slopes."""
    sample, x, slopes, h = step
    seen = views[0].rows
    for view in views:
        of = torch.searchsorted(seen, view.rows)
        states = stages.inside(x[of], [slope[of] for slope in slopes], h[view.rows], view.part)
        at = (view.due, sample[view.rows])
        between = between.index_put(at, states) if torch.is_grad_enabled() else between.index_put_(at, states)
    return between


def _again(stages: Stages, x: Tensor, slope: Tensor, tape: list[_Accepted], between: Tensor) -> tuple[Tensor, Tensor]:
    """Take accepted steps with gradients: final states, and those in between."""
    for sample, left, h, views in tape:
        everyone = len(sample) == len(x)
        before, first = (x, slope) if everyone else (x[sample], slope[sample])
        after, slopes = stages.step(before, first, left, h)
        if views:
            seen = views[0].rows
            some = stages.completed(before[seen], [k[seen] for k in slopes], left[seen], h[seen])
            between = _see(stages, between, views, (sample, before[seen], some, h))
        x = after if everyone else x.index_copy(0, sample, after)
        slope = slopes[-1] if everyone else slope.index_copy(0, sample, slopes[-1])
    return x, between
