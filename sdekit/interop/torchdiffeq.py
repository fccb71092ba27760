"""Methods of torchdiffeq as steppers, and adaptive ones by the steps that they took.

A fixed-step run is one call of ``torchdiffeq.odeint`` with the grid as its output times, which is what it steps
through; a multistep method keeps its history that way. With a controller the run is torchdiffeq's own, cut at the times
that are asked for. For an exact law (:func:`adaptive_map`) it reports its accepted steps through
``callback_accept_step``, and takes them again when the norm of its error estimate is put to zero and its steps are cut
at the recorded times; both through the options of ``odeint``, by the code that users run.

References: [chen2018torchdiffeq].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.adaptive.whole_run import Cut, Leg, Watch, WholeRun
from sdekit.brownian import BrownianTree, Increment
from sdekit.controllers import PID
from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError, unknown_name
from sdekit.solution import Status
from sdekit.steppers.base import Memory, Prepared, Spec, Stepper
from sdekit.verify.affine import AffineMap
from sdekit.verify.foreign import replay

# The orders that torchdiffeq declares, and the evaluations of a step; of one that iterates, the least.
_FIXED = {
    "euler": (1.0, 1),
    "midpoint": (2.0, 2),
    "heun2": (2.0, 2),
    "heun3": (3.0, 3),
    "rk4": (4.0, 4),
    "explicit_adams": (4.0, 1),
    "implicit_adams": (4.0, 2),
}
_ADAPTIVE = {
    "dopri5": (5.0, 6),
    "dopri8": (8.0, 13),
    "bosh3": (3.0, 3),
    "fehlberg2": (2.0, 2),
    "adaptive_heun": (2.0, 1),
}


def stepper(method: str, **options: Any) -> Stepper:
    """A method of torchdiffeq; its spec declares what torchdiffeq declares.

    Args:
        method: ``euler``, ``midpoint``, ``heun2``, ``heun3``, ``rk4``, ``explicit_adams`` or ``implicit_adams``, in
            steps of a grid; ``dopri5``, ``dopri8``, ``bosh3``, ``fehlberg2`` or ``adaptive_heun``, which need a
            controller.
        options: Those of the method, such as ``max_order=4``.

    Raises:
        SdekitError: an unknown method.
    """
    if method not in _FIXED | _ADAPTIVE:
        raise unknown_name("method of torchdiffeq", method, _FIXED | _ADAPTIVE)
    order, evaluations = (_FIXED | _ADAPTIVE)[method]
    declared = Spec(
        name=f"torchdiffeq:{method}",
        summary=f"torchdiffeq's {method}" + (", with its own steps: give a controller" if method in _ADAPTIVE else ""),
        references=("chen2018torchdiffeq",),
        kind="step",
        evaluations=evaluations,
        ode=order,
    )
    base: type[_TorchdiffeqMethod] = _FixedMethod if method in _FIXED else _AdaptiveMethod

    class TorchdiffeqMethod(base):  # type: ignore[misc, valid-type]  # one of two
        __doc__ = base.__doc__
        spec: ClassVar[Spec] = declared

    return TorchdiffeqMethod(method, options)


class _TorchdiffeqMethod(Stepper):
    """What both kinds share."""

    def __init__(self, method: str, options: dict[str, Any]) -> None:
        self._method, self._options = method, options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"torchdiffeq.stepper({self._method!r}{options})"


class _FixedMethod(_TorchdiffeqMethod):
    """A method of torchdiffeq on a grid: the whole run at its first step, and the later ones read from it."""

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            if memory is None:
                memory = _odeint(_Field(sde, times[0], times[-1]), x, times, self._method, options=self._options)
            return memory[k + 1], memory

        return Prepared([()] * (len(times) - 1), advance)


class _AdaptiveMethod(_TorchdiffeqMethod, WholeRun):
    """A method of torchdiffeq in steps that it chooses: the same ones for all samples, from their root mean square."""

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        raise SdekitError(
            f"{self.spec.name} chooses its own steps: give controller=sk.PID(rtol, atol), of which it takes the "
            "tolerances. Of the grid the first and the last time count."
        )

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
        field = _Watched(sde, *ends, watch)
        tolerances = {"rtol": controller.rtol, "atol": controller.atol}
        try:
            states = _accepted(field, start.x, ends, start.step, self._method, **tolerances, **self._options)
        except AssertionError as error:
            raise next((Cut(s) for words, s in _ASSERTED.items() if words in str(error)), error) from error
        return Leg(states[-1], field.lengths[-2] if len(field.lengths) > 1 else start.step)


# What torchdiffeq asserts, and how a run ends by it.
_ASSERTED = {"underflow in dt": Status.STEP_UNDERFLOW, "non-finite values in state": Status.NON_FINITE}


class _Field:
    """A drift as torchdiffeq asks for it, kept in its interval: its times are rounded to the precision of the state."""

    def __init__(self, sde: SDE, start: float, end: float) -> None:
        self.sde = sde
        self._low, self._high = min(start, end), max(start, end)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.sde.drift(min(max(float(t), self._low), self._high), y)


class _Recording(_Field):
    """A drift that notes where every accepted step begins."""

    def __init__(self, sde: SDE, start: float, end: float) -> None:
        super().__init__(sde, start, end)
        self.starts: list[float] = []
        self.final = torch.empty(0)

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq."""
        self.starts.append(float(t))


class _Watched(_Field):
    """A drift that tells of every step."""

    def __init__(self, sde: SDE, start: float, end: float, watch: Watch) -> None:
        super().__init__(sde, start, end)
        self._watch = watch
        self.lengths: list[float] = []

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq before a step, with the length that it wishes for."""
        self._watch.state = y
        self._watch.attempt(float(dt))

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq."""
        self._watch.accepted += 1
        self.lengths.append(float(dt))


def _odeint(field: _Field, x: Tensor, times: Sequence[float], method: str, **options: Any) -> Tensor:
    """All states of a run."""
    import torchdiffeq

    grid = torch.tensor(list(times), dtype=torch.float64, device=x.device)
    states: Tensor = torchdiffeq.odeint(field, x, grid, method=method, **options)
    return states


def adaptive_map(
    sde: SDE, x: Tensor, start: float, end: float, tolerance: float, method: str = "dopri5"
) -> tuple[tuple[float, ...], AffineMap]:
    """The steps that an adaptive method takes from ``x``, and its exact affine map on them.

    Args:
        sde: A deterministic problem with an affine drift.
        x: Initial states (rows, *E). torchdiffeq takes one norm, so one step size, for the whole batch.
        start: First time.
        end: Last time, in either direction.
        tolerance: Relative and absolute.
        method: ``dopri5``, ``dopri8``, ``bosh3``, ``fehlberg2`` or ``adaptive_heun``.

    Returns:
        Accepted times, in the clock of the problem, and the map on them.

    Raises:
        SdekitError: an unknown method, a stochastic problem, or a drift that is not affine.
    """
    if method not in _ADAPTIVE:
        raise unknown_name("adaptive method of torchdiffeq", method, _ADAPTIVE)
    if sde.noise_type != "none":
        raise SdekitError(f"torchdiffeq solves ODEs; this problem has {sde.noise_type} noise: use probability_flow.")
    sign = 1.0 if start < end else -1.0
    forwards = sde if sign > 0 else Reflected(sde)
    first, last = sign * start, sign * end

    def adaptive(states: Tensor) -> tuple[Sequence[float], Tensor]:
        field, step = _Recording(forwards, first, last), 1e-3 * (last - first)
        field.final = _accepted(field, states, (first, last), step, method, rtol=tolerance, atol=tolerance)[-1]
        return [*field.starts, last], field.final

    def on_grid(times: Sequence[float], states: Tensor) -> Tensor:
        return _forced(forwards, times, states, method)

    clock, found = replay(adaptive, on_grid, x, f"torchdiffeq:{method}")
    return tuple(sign * t for t in clock), found


def _accepted(
    field: _Field,
    x: Tensor,
    ends: tuple[float, float],
    step: float,
    method: str,
    *,
    rtol: float,
    atol: float,
    **own: Any,
) -> Tensor:
    """States at both ends of an adaptive run."""
    # Left to itself it steps past the end and interpolates, and begins with a step from the drift's size at the start,
    # which is nearly nothing where a flow begins: the score would be asked outside its interval.
    options = {"step_t": torch.tensor(ends[1:], dtype=torch.float64, device=x.device), "first_step": step, **own}
    return _odeint(field, x, ends, method, rtol=rtol, atol=atol, options=options)


def _forced(sde: SDE, times: Sequence[float], x: Tensor, method: str) -> Tensor:
    """Every proposed step is longer than the interval, so it is cut there; its error counts as zero, so it is taken."""
    nodes = torch.tensor(times, dtype=torch.float64)
    longer = 2.0 * float(nodes[-1] - nodes[0])
    options = {"step_t": nodes[1:], "first_step": longer, "ifactor": 1e18, "max_step": longer, "norm": _nothing}
    field = _Field(sde, times[0], times[-1])
    return _odeint(field, x, [times[0], times[-1]], method, options=options)[-1]


def _nothing(error: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.float64)
