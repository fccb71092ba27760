"""Methods of torchdiffeq: fixed steps as steppers, adaptive ones by the steps that they took.

A fixed-step run is one call of ``torchdiffeq.odeint`` with the grid as its output times, which is what it steps
through; a multistep method keeps its history that way. An adaptive run reports its accepted steps through
``callback_accept_step``, and takes them again when the norm of its error estimate is put to zero and its steps are cut
at the recorded times; both through the options of ``odeint``, by the code that users run.

References: [chen2018torchdiffeq].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError, unknown_name
from sdekit.steppers.base import Memory, Prepared, Spec, Stepper
from sdekit.verify.affine import AffineMap
from sdekit.verify.foreign import replay

# The orders that torchdiffeq declares, and the evaluations of a step.
_FIXED = {
    "euler": (1.0, 1),
    "midpoint": (2.0, 2),
    "heun2": (2.0, 2),
    "heun3": (3.0, 3),
    "rk4": (4.0, 4),
    "explicit_adams": (4.0, 1),
}
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


def stepper(method: str, **options: Any) -> Stepper:
    """A fixed-step method of torchdiffeq; its spec declares what torchdiffeq declares.

    Args:
        method: ``euler``, ``midpoint``, ``heun2``, ``heun3``, ``rk4`` or ``explicit_adams``.
        options: Those of the method, such as ``max_order=4``.

    Raises:
        SdekitError: an unknown method.
    """
    if method not in _FIXED:
        raise unknown_name("fixed-step method of torchdiffeq", method, _FIXED)
    order, evaluations = _FIXED[method]

    class TorchdiffeqMethod(_TorchdiffeqMethod):
        spec: ClassVar[Spec] = Spec(
            name=f"torchdiffeq.{method}",
            summary=f"torchdiffeq's {method}",
            references=("chen2018torchdiffeq",),
            kind="step",
            evaluations=evaluations,
            ode=order,
        )

    return TorchdiffeqMethod(method, options)


class _TorchdiffeqMethod(Stepper):
    """The whole run at its first step; the later ones read from it."""

    def __init__(self, method: str, options: dict[str, Any]) -> None:
        self._method, self._options = method, options

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            states = _odeint(sde, times, x, self._method, options=self._options) if memory is None else memory
            return states[k + 1], states

        return Prepared([()] * (len(times) - 1), advance)


def _odeint(sde: SDE, times: Sequence[float], x: Tensor, method: str, **options: Any) -> Tensor:
    """All states of a run."""
    import torchdiffeq

    grid = torch.tensor(list(times), dtype=torch.float64)
    states: Tensor = torchdiffeq.odeint(lambda t, y: sde.drift(float(t), y), x, grid, method=method, **options)
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
        field = _Recording(forwards)
        return _accepted(field, states, first, last, tolerance, method), field.final

    def on_grid(times: Sequence[float], states: Tensor) -> Tensor:
        return _forced(forwards, times, states, method)

    clock, found = replay(adaptive, on_grid, x, f"torchdiffeq.{method}")
    return tuple(sign * t for t in clock), found


class _Recording:
    """A drift that notes where every accepted step begins."""

    def __init__(self, sde: SDE) -> None:
        self.sde = sde
        self.starts: list[float] = []
        self.final = torch.empty(0)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.sde.drift(float(t), y)

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq."""
        self.starts.append(float(t))


def _accepted(
    field: _Recording, x: Tensor, first: float, last: float, tolerance: float, method: str
) -> Sequence[float]:
    import torchdiffeq

    ends = torch.tensor([first, last], dtype=torch.float64)
    # Left to itself it steps past the end and interpolates, and begins with a step from the drift's size at the start,
    # which is nearly nothing where a flow begins: the score would be asked outside its interval.
    options = {"step_t": ends[1:], "first_step": 1e-3 * (last - first)}
    states = torchdiffeq.odeint(field, x, ends, rtol=tolerance, atol=tolerance, method=method, options=options)
    field.final = states[-1]
    return [*field.starts, last]


def _forced(sde: SDE, times: Sequence[float], x: Tensor, method: str) -> Tensor:
    """Every proposed step is longer than the interval, so it is cut there; its error counts as zero, so it is taken."""
    nodes = torch.tensor(times, dtype=torch.float64)
    longer = 2.0 * float(nodes[-1] - nodes[0])
    options = {"step_t": nodes[1:], "first_step": longer, "ifactor": 1e18, "max_step": longer, "norm": _nothing}
    return _odeint(sde, [times[0], times[-1]], x, method, options=options)[-1]


def _nothing(error: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.float64)
