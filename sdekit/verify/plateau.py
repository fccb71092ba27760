r"""Errors that stop falling, and why.

A method of order p measured against a truth that is off by a constant, or with noise of its own, does not show
$C h^p$ for ever. Four things end it, looked for in this order at the finest levels:

- *round-off*: errors within 50 of the stated floors, and all finer levels;
- *sampling*: errors less than three of their standard errors;
- *end-point bias*: the error tends to a constant $c$ well above round-off. Either the last three levels are level
  (local orders below 0.1), or one of

  $$ e = C h^p (1 + D h) + c, \qquad |C h^p (1 + D h) - c|, \qquad \bigl(C^2 h^{2p} (1 + D h)^2 + c^2\bigr)^{1/2} $$

  describes every level, c is at least half of the last error and at most a third of the first, local orders have
  fallen by half, and $C h^p (1 + D h)$ with $p \ge 1/4$ does not describe them. That the first form with
  p = 1 *is* $c\,h^0 (1 + D h)$, and so an excellent fit of order zero, is why a plateau is looked for before an order;
- *round-off* again: errors that have fallen and now grow like $N^{1/2}$ to $N$, as sums of N roundings do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Cause = Literal["round-off", "sampling", "end-point bias"]
Array = np.ndarray

CLEAR = 50.0
"""An error below this many floors is not used: its relative round-off would be 2 % or more."""
RESOLVED = 1.0 / 3.0
"""Largest relative standard error of a level that is used."""
_FLAT = 0.1  # local orders of a level tail
_LOWEST = 0.25  # orders come in halves: below half of the least there is none
_GROWTH = (-1.5, -0.25)  # local orders of accumulating round-off, −1 to −1/2, with room for its scatter
_TERMS = 6  # finest levels that a constant is sought in


@dataclass(frozen=True)
class Plateau:
    """Where errors stop falling.

    Attributes:
        level: The error that they stop at.
        first: Step count from which on what stops them is the larger part of the error.
        cause: ``round-off``, ``sampling`` or ``end-point bias``.
    """

    level: float
    first: int
    cause: Cause

    def above(self, floor: float) -> bool:
        """Whether it hides levels that the floor and their own standard errors do not."""
        return self.cause != "sampling" and self.level > CLEAR * floor

    def __str__(self) -> str:
        return f"{self.cause} at {self.level:.1e} from N = {self.first}"


def find_plateau(steps: Array, errors: Array, noise: Array, floor: float) -> Plateau | None:
    """The plateau that the finest levels have reached; None if there is none, or if all of it is floor.

    Args:
        steps: Step counts, increasing.
        errors: Errors there.
        noise: Relative standard errors of the errors.
        floor: Error of round-off.
    """
    at_floor, unresolved = errors <= CLEAR * floor, noise > RESOLVED
    tail = _tail(at_floor | unresolved)
    if tail == 0 or len(errors) == 0:
        return None
    if tail < len(errors):
        cause: Cause = "round-off" if at_floor[tail:].any() else "sampling"
        return Plateau(float(np.median(errors[tail:])), int(steps[tail]), cause)
    reached = int(np.argmax(at_floor))
    if at_floor.any() and reached > 0:  # and then rounding grew
        return Plateau(float(np.median(errors[at_floor])), int(steps[reached]), "round-off")
    if at_floor.any() or unresolved.any() or len(errors) < 4:
        return None
    return _levels_off(steps, errors, noise) or _grows(steps, errors)


def _tail(marked: Array) -> int:
    """Index at which the run of marks that reaches the end begins; the length if there is no such run."""
    return len(marked) - int(np.argmin(np.append(marked[::-1], False)))


def _local(steps: Array, errors: Array) -> Array:
    orders: Array = -np.diff(np.log(errors)) / np.diff(np.log(steps))
    return orders


def _grows(steps: Array, errors: Array) -> Plateau | None:
    least = int(errors.argmin())
    if least == 0 or len(errors) - least < 3 or errors[0] < 3.0 * errors[least]:
        return None
    ends = [least, len(errors) - 1]
    slopes = _local(steps[ends], errors[ends])[0], _local(steps, errors)[-1]
    if not all(_GROWTH[0] <= slope <= _GROWTH[1] for slope in slopes):
        return None
    return Plateau(float(errors[least]), int(steps[least]), "round-off")


def _levels_off(steps: Array, errors: Array, noise: Array) -> Plateau | None:
    constant = float(np.median(errors[-3:]))
    flat = np.abs(_local(steps, errors)[-2:]) <= _FLAT + 3.0 * (noise[-2:] + noise[-3:-1])
    if flat.all() and errors[0] >= 3.0 * constant:
        beyond = errors > (1.0 + _FLAT) * constant
        return Plateau(constant, int(steps[_tail(~beyond)]), "end-point bias")
    N, e, noise = steps[-_TERMS:], errors[-_TERMS:], noise[-_TERMS:]
    local = _local(N, e)
    if len(e) < 5 or local[-1] >= 0.5 * local.max():  # where c is half of the error, the order is halved
        return None
    fits = [_describe(form, N[0] / N, e, noise) for form in (_power, _sum, _difference, _root)]
    if fits[0] is not None and fits[0].p >= _LOWEST:
        return None
    for fit in filter(None, fits[1:]):
        if fit.p >= _LOWEST and e[-1] / 2.0 <= fit.c <= min(2.0 * e[-1], errors[0] / 3.0):
            return Plateau(fit.c, int(N[min(_tail(fit.term <= fit.c), len(N) - 1)]), "end-point bias")
    return None


def _power(term: Array, _: float) -> Array:
    return term


def _sum(term: Array, c: float) -> Array:
    return term + c


def _difference(term: Array, c: float) -> Array:
    return np.abs(term - c)


def _root(term: Array, c: float) -> Array:
    both: Array = np.hypot(term, c)
    return both


@dataclass(frozen=True)
class _Form:
    """C h^p (1 + D h) at the levels, and the constant c."""

    p: float
    c: float
    term: Array


def _describe(form: Callable[[Array, float], Array], h: Array, e: Array, noise: Array) -> _Form | None:
    """The form that is within 2 %, and 10 % at the coarsest level, of every error; None if there is none.

    Starts at several p; log C, p, D and log c are held to what errors can show. Five levels leave out D.
    """
    from scipy.optimize import leastsq  # slow to import, and only orders need it

    allowed = np.hypot(0.02 + 0.08 * h**2, 3.0 * noise) * e
    plain = form is _power

    last = math.log(e[-1])
    least, most = np.array([-7.0, -1.0, -0.95, last - 1.0]), np.array([3.0, 8.0, 1e3, last + 1.0])

    def parts(q: Array) -> tuple[Array, float]:
        log_c, p, d, log_constant = np.clip(q, least, most)
        term = e[0] * np.exp(log_c + p * np.log(h)) * (1.0 + (d if len(e) > 5 or plain else 0.0) * h)
        return term, 0.0 if plain else float(np.exp(log_constant))

    def residuals(q: Array) -> Array:
        misfit: Array = (form(*parts(q)) - e) / allowed
        return misfit

    starts = ((2.0, 0.0), (1.0, 0.0), (3.0, 0.0), *(((0.5, 10.0), (1.0, 10.0)) if plain else ()))
    for order, bend in starts:
        q = leastsq(
            residuals, [-math.log1p(bend), order, bend, last], full_output=True, ftol=1e-6, xtol=1e-6, maxfev=200
        )[0]
        if np.abs(residuals(q)).max() <= 1.0:
            term, c = parts(q)
            return _Form(float(np.clip(q[1], least[1], most[1])), c, term)
    return None
