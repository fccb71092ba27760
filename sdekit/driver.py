"""The driver: one loop for every problem, every stepper and every kind of noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit import between as passing
from sdekit import doors, ends
from sdekit.adaptive import dyadic, ode
from sdekit.adaptive.whole_run import WholeRun, whole_run
from sdekit.between import Between, Passing
from sdekit.brownian import BrownianPath, Noise
from sdekit.calculus import inside_of
from sdekit.compiled import Blocks
from sdekit.controllers import PID
from sdekit.dynamics import SDE, samples_inside
from sdekit.ends import End
from sdekit.errors import SdekitError
from sdekit.keys import Keys, Paths, Seed
from sdekit.linear import LinearProcess
from sdekit.observe import LOOK_EVERY, Counter, finite_samples, observe
from sdekit.reverse import Reverse
from sdekit.saving import Save, Saving
from sdekit.solution import Solution, Statistics, Status, versions
from sdekit.steppers.base import EmbeddedMethod, Memory, Prepared, Stepper
from sdekit.steppers.embedded import EmbeddedRungeKutta
from sdekit.structure import Structure
from sdekit.typing import Inside

Progress = bool | Callable[[int, int], None] | None


def solve(
    sde: SDE,
    x: Tensor,
    grid: Tensor | Sequence[float] | None = None,
    stepper: str | Stepper | None = None,
    *,
    noise: Seed | BrownianPath | None = None,
    paths: Paths | None = None,
    save: Save = "final",
    between: Between = "step",
    end: End = "stop",
    steps: int | None = None,
    controller: PID | None = None,
    compile: bool = False,
    structure: Structure = "check",
    progress: Progress = None,
    max_steps: int = 100_000,
    max_seconds: float | None = None,
) -> Solution:
    r"""Solve an SDE or ODE from ``x`` along ``grid``.

    Gradients are recorded as everywhere in torch: sample under ``torch.no_grad()`` unless you want them.

    Args:
        sde: A forward process, ``sk.sde(...)``, a reverse-time SDE or a probability flow.
        x: Initial states, shape (B, *E), floating point.
        grid: Times from first to last, as from :mod:`sdekit.grids`; decreasing for a reverse problem.
            Default: made from ``steps``, uniform in time forwards; backwards uniform in log-SNR if the stepper is
            given, else :func:`sdekit.grids.rectified`: to t = 0, or to its last time before that, from where an ``end``
            other than ``stop`` goes on.
        stepper: A registry name or a :class:`~sdekit.steppers.Stepper`. Default: where there is a schedule,
            ``VABM(4, start="ramp")`` for a flow and ``ERSDE(2, start="ramp", apart=1.0)`` for a reverse SDE;
            ``exact-linear`` for a forward process; else ``rk4`` without noise and ``euler-maruyama`` with it. With a
            controller ``dopri5``, where there is no noise.
        noise: A seed, or a Brownian path. Required when the problem is stochastic, but for ``paths``. A
            ``torch.Generator`` stands for a seed that is drawn from it, a list of them for one per sample.
        paths: With a seed: the global path number of every sample (0 … B − 1 by default). Without: seeds, one per
            sample, each of which has what it would have alone with ``noise=seed``.
        save: ``final``, ``all``, or times; times off the grid as ``between`` says. With a controller they change no
            step; then a Runge–Kutta pair takes a tensor of shape (T, B), too: times of every sample's own.
        between: ``step`` adds times to the grid; ``bridge`` leaves it as it is, and draws the state within the step
            that passes the time, from its law given the step (:mod:`sdekit.between`).
        end: After the last time of a reverse problem: ``stop``; ``denoise``, which goes on to $E[x_0 \mid x_t]$ for one
            more evaluation; or ``exact-linear``, the exact way on where the score is affine, for none
            (:mod:`sdekit.ends`). What they reach is the final state, saved last whatever ``save`` says, at t = 0. It is
            no step of ``stats``, and a run that is cut off by a limit does not have it.
        steps: Number of steps, when ``grid`` is left out.
        controller: Steps of every sample's own choosing, :class:`~sdekit.PID`, for a stepper that estimates its error
            (:mod:`sdekit.adaptive`). Of ``grid`` the first and the last time count, and what ``save`` asks for.
        compile: Whether blocks of ten to fifty steps run as one graph, noise drawn inside, by ``torch.compile``: for
            step methods (:mod:`sdekit.compiled`). The first run of a problem takes the seconds that this takes. Fields
            see times as 0-dim tensors. With a controller, attempts of an SDE's pair, which record no gradients
            (:mod:`sdekit.adaptive.lockstep`).
        structure: Whether the noise type of an :func:`~sdekit.sde` is checked before the first step, once for every
            equation and shape of states (:func:`sdekit.check_structure`); ``trust`` leaves it to you.
        progress: True for a bar, or a callable ``(done, total)``, after every step or compiled block; with a controller
            samples are counted, not steps.
        max_steps: Steps after which the run ends with a status; with a controller, attempts of a sample.
        max_seconds: Seconds after which the run ends with a status.

    Returns:
        The :class:`~sdekit.Solution`. A sample that meets NaN or Inf says so in its status and leaves
        its neighbours alone.

    Raises:
        SdekitError: anything wrong with the arguments, before the first step.
    """
    doors.check_sde(sde)
    doors.check_state(x)
    drawn = doors.noise_of(noise, paths, x)
    nodes, chosen = doors.grid_and_stepper(sde, grid, steps, stepper, controller, to_data=end == "stop")
    if compile and controller is not None and not isinstance(chosen, EmbeddedMethod):
        raise SdekitError(
            f"compile=True takes steps of a grid, or with a controller those of an SDE's pair; {chosen.spec.name} with "
            f"{controller!r} is neither: leave one of them out."
        )
    doors.check_noise(sde, float(nodes[0]), x, structure)
    own = doors.own_times(save, nodes, x, chosen, controller)
    saving = Saving.of(nodes, "final" if own is not None else save)
    inside = inside_of(sde)
    if inside is not None:
        doors.check_inside(inside, x)
    counter = Counter()
    observed = observe(sde, counter, fields=chosen.spec.kind == "step")
    finish = ends.finish(observe(sde, counter, fields=False), nodes, end, x, drawn)
    steps_noise = drawn.steps if isinstance(drawn, ends.RecordedEnd) else drawn
    bridged, bridge = None, None
    if passing.check(between, sde, chosen, controller is not None) and not isinstance(save, str):
        bridged = Passing(list(dict.fromkeys(nodes.tolist())), [saving.times[i] for i in saving.order])
        bridge = passing.bridging_path(steps_noise, sde, x, bridged)
        saving = Saving(list(bridged.nodes), bridged.needed)
    started = time.perf_counter()
    limits = _Limits(max_steps, max_seconds, started)
    with ExitStack() as stack:
        report = _reporter(progress, stack)
        if compile and controller is None:
            ran = _in_blocks(sde, counter, chosen, saving, x, steps_noise, report, limits)
        elif controller is None:
            ran = _fixed(sde, observed, chosen, saving, x, steps_noise, report, limits)
        elif isinstance(chosen, EmbeddedRungeKutta):
            eager = isinstance(sde, Reverse) and sde.score.law is None
            ran = _descended(observed, chosen, saving, own, x, controller, eager, report, limits)
        else:
            ran = _adaptive(
                *(observed, chosen, saving, x, steps_noise, controller, inside, report, limits),
                (sde, counter) if compile else None,
            )
    ts, xs, final = ran.ts, ran.xs, ran.final
    if bridged is not None and bridge is not None:
        ts, xs = bridged.fill(ts, xs, observed, bridge)
    if finish is not None and bool((ran.status == Status.SUCCESS).any()):
        arrived = (ran.status == Status.SUCCESS).reshape(-1, *(1,) * (x.ndim - 1))
        final = torch.where(arrived, finish(final), final)
        before = 0 if isinstance(save, str) and save == "final" else len(ts)
        ts = torch.cat([ts[:before], ts.new_zeros(1, *ts.shape[1:])])
        xs = torch.cat([xs[:before], final[None]])
    status = ran.status.masked_fill(~finite_samples(final), Status.NON_FINITE)
    if inside is not None:
        left = (status == Status.SUCCESS) & ~samples_inside(inside, final)
        status = status.masked_fill(left, Status.OUTSIDE)
    seconds = time.perf_counter() - started
    stats = Statistics(ran.steps, counter.drift, counter.diffusion, counter.score, seconds)
    provenance = {
        **versions(),
        "stepper": chosen.spec.name,
        "method": repr(chosen),
        **_problem(sde),
        "times": saving.times,
        **({} if controller is None else {"controller": repr(controller)}),
        **doors.noise_facts(steps_noise),
        "between": between,
        "end": end,
        "dtype": str(x.dtype).removeprefix("torch."),
        "device": str(x.device),
    }
    return Solution(ts, xs, final, stats, status, provenance, ran.diagnostics)


@dataclass(frozen=True)
class _Limits:
    """Where a run ends whether it has arrived or not."""

    steps: int
    seconds: float | None
    started: float
    """When, by :func:`time.perf_counter`."""

    def stop(self, k: int, x: Tensor, look: bool) -> Status:
        """Why to end the run before step k; whether samples are finite is asked where it is time to ``look``."""
        if k >= self.steps:
            return Status.STEP_LIMIT
        if self.seconds is not None and time.perf_counter() > self.started + self.seconds:
            return Status.TIME_LIMIT
        return Status.NON_FINITE if look and not bool(finite_samples(x).any()) else Status.SUCCESS


@dataclass(frozen=True)
class _Ran:
    """What a run came to."""

    ts: Tensor
    xs: Tensor
    final: Tensor
    status: Tensor
    steps: int
    diagnostics: dict[str, Tensor]


def _fixed(
    sde: SDE,
    observed: SDE,
    stepper: Stepper,
    saving: Saving,
    x: Tensor,
    noise: Keys | BrownianPath | None,
    report: Callable[[int, int], None] | None,
    limits: _Limits,
) -> _Ran:
    """Step by step along the grid."""
    prepared = stepper.prepare(observed, saving.times)
    source = doors.noise_source(sde, x, stepper, prepared, saving.times[0], noise)
    kept, done, cause, memory = _Loop(prepared, source, saving, report, limits).run(x)
    status = torch.full((len(x),), cause, dtype=torch.int8, device=x.device)
    reported = prepared.report(memory) if prepared.report and memory is not None else {}
    return _Ran(*saving.gather(kept), kept[done], status, done, dict(reported))


def _in_blocks(
    sde: SDE,
    counter: Counter,
    stepper: Stepper,
    saving: Saving,
    x: Tensor,
    noise: Keys | BrownianPath | None,
    report: Callable[[int, int], None] | None,
    limits: _Limits,
) -> _Ran:
    """Along the grid in compiled blocks."""
    prepared = stepper.prepare(sde, saving.times)
    source = doors.noise_source(sde, x, stepper, prepared, saving.times[0], noise)
    last = len(saving.times) - 1
    blocks = Blocks.of(sde, stepper, x, saving.times, source, keep=any(i != last for i in saving.order))
    kept, done, cause = blocks.run(x, frozenset(saving.order), limits.steps, limits.stop, report)
    blocks.graph.count(counter, done)
    status = torch.full((len(x),), cause, dtype=torch.int8, device=x.device)
    return _Ran(*saving.gather(kept), kept[done], status, done, {})


def _adaptive(
    sde: SDE,
    stepper: Stepper,
    saving: Saving,
    x: Tensor,
    noise: Keys | BrownianPath | None,
    controller: PID,
    inside: Inside | None,
    report: Callable[[int, int], None] | None,
    limits: _Limits,
    compiled: tuple[SDE, Counter] | None,
) -> _Ran:
    """Every sample in steps of its own; all samples in those of another library."""
    first, last = saving.times[0], saving.times[-1]
    wanted = sorted({saving.times[i] for i in saving.order} - {first, last}, reverse=first > last)
    told = None if report is None else lambda arrived: report(arrived, len(x))
    bounds: dict[str, Any] = {"max_steps": limits.steps, "max_seconds": limits.seconds, "report": told}
    if isinstance(stepper, WholeRun):
        arrival = whole_run(sde, stepper, controller, noise, x, first, last, wanted, **bounds)
    else:
        journey = dyadic.journey(
            sde, stepper, controller, noise, x, first, last, wanted, inside, compiled=compiled, **bounds
        )
        arrival = journey.run(x)
    found = {first: x, last: arrival.final, **dict(zip(wanted, arrival.between, strict=True))}
    ts = [saving.times[i] for i in saving.order]
    diagnostics = {"accepted": arrival.accepted, "rejected": arrival.rejected}
    xs = torch.stack([found[t] for t in ts])
    return _Ran(torch.tensor(ts, dtype=torch.float64), xs, arrival.final, arrival.status, arrival.attempts, diagnostics)


def _descended(
    sde: SDE,
    stepper: EmbeddedRungeKutta,
    saving: Saving,
    own: Tensor | None,
    x: Tensor,
    controller: PID,
    eager: bool,
    report: Callable[[int, int], None] | None,
    limits: _Limits,
) -> _Ran:
    """Every sample in steps of its own, of an ODE."""
    first, last = saving.times[0], saving.times[-1]
    ts = torch.tensor([saving.times[i] for i in saving.order], dtype=torch.float64) if own is None else own
    only_final = own is None and saving.order == [len(saving.times) - 1]
    landing = ode.Descent(
        *(sde, stepper.pair, controller, first, last, None if only_final else ts, eager),
        max_steps=limits.steps,
        max_seconds=limits.seconds,
        report=None if report is None else lambda arrived: report(arrived, len(x)),
    ).run(x)
    diagnostics = {name: getattr(landing, name) for name in ("accepted", "rejected", "evaluations")}
    xs = landing.final[None] if only_final else landing.between
    return _Ran(ts, xs, landing.final, landing.status, landing.attempts, diagnostics)


def _problem(sde: SDE) -> dict[str, Any]:
    """What was solved, with the parameters of a process by its repr."""
    process = sde.process if isinstance(sde, Reverse) else sde
    known = isinstance(process, LinearProcess)
    return {
        "problem": type(process).__name__,
        "process": repr(process) if known else None,
        "reverse": isinstance(sde, Reverse),
        "eta": sde.eta if isinstance(sde, Reverse) else None,
    }


@dataclass(frozen=True)
class _Loop:
    """The loop over steps."""

    prepared: Prepared
    source: Noise | None
    saving: Saving
    report: Callable[[int, int], None] | None
    limits: _Limits

    def run(self, x: Tensor) -> tuple[dict[int, Tensor], int, Status, Memory]:
        """Kept states by index of time, steps done, why the run ended, and what the last step left behind."""
        total = len(self.saving.times) - 1
        keep = frozenset(self.saving.order)
        kept = {0: x} if 0 in keep else {}
        advance = self.prepared.advance
        memory: Memory = None
        done, cause, timed = 0, Status.SUCCESS, self.limits.seconds is not None
        for k in range(total):
            look = k % LOOK_EVERY == LOOK_EVERY - 1
            if look or timed or k == self.limits.steps:
                cause = self.limits.stop(k, x, look)
                if cause is not Status.SUCCESS:
                    break
            increments = self.source.increments(k) if self.source else ()
            x, memory = advance(k, x, increments, memory)
            done = k + 1
            if done in keep:
                kept[done] = x
            if self.report:
                self.report(done, total)
        kept.setdefault(done, x)
        return kept, done, cause, memory


def _reporter(progress: Progress, stack: ExitStack) -> Callable[[int, int], None] | None:
    """What to call after every step."""
    if progress is None or progress is False:
        return None
    if callable(progress):
        return progress
    from rich.progress import Progress as Bars

    bars = stack.enter_context(Bars(transient=True))
    task = bars.add_task("solve", total=None)
    return lambda done, total: bars.update(task, completed=done, total=total)
