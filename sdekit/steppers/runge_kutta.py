r"""Explicit Runge–Kutta methods for ODEs: a tableau each, one stage loop for all.

$$ k_i = f\bigl(t + c_i h,\; x + h \textstyle\sum_{j<i} a_{ij} k_j\bigr), \qquad x \leftarrow x + h \sum_i b_i k_i . $$

References: [hairer1993], §II.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.steppers.base import Memory, Spec, Step, StepMethod
from sdekit.typing import Calculus

_BOTH: frozenset[Calculus] = frozenset({"ito", "stratonovich"})


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit method, as exact fractions: rows of a, weights b; c is the row sums."""

    a: tuple[tuple[Fraction, ...], ...]
    b: tuple[Fraction, ...]

    @property
    def c(self) -> tuple[Fraction, ...]:
        return tuple(sum(row, Fraction(0)) for row in self.a)


def tableau(a: tuple[tuple[str, ...], ...], b: tuple[str, ...]) -> Tableau:
    """A tableau from fractions as printed."""
    return Tableau(tuple(tuple(map(Fraction, row)) for row in a), tuple(map(Fraction, b)))


class ExplicitRungeKutta(StepMethod):
    """The stage loop."""

    tableau: ClassVar[Tableau]

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h = t1 - t0
        slopes: list[Tensor] = []
        for row, c in zip(self.tableau.a, self.tableau.c, strict=True):
            # The last node is t1 itself: t0 + h may round past the end of the interval.
            t = t1 if c == 1 else t0 + float(c) * h
            slopes.append(sde.drift(t, _combine(x, h, row, slopes)))
        return Step(_combine(x, h, self.tableau.b, slopes))


def _combine(x: Tensor, h: float, weights: tuple[Fraction, ...], slopes: list[Tensor]) -> Tensor:
    r"""$x + h \sum_j w_j k_j$, one new tensor."""
    moved = None
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            alpha = h * float(weight)
            moved = x.add(slope, alpha=alpha) if moved is None else moved.add_(slope, alpha=alpha)
    return x if moved is None else moved


def _spec(name: str, summary: str, order: int, stages: int) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=("hairer1993",),
        kind="step",
        evaluations=stages,
        ode=float(order),
        calculus=_BOTH,
    )


@final
class Euler(ExplicitRungeKutta):
    """Explicit Euler, order 1."""

    spec = _spec("euler", "explicit Euler for ODEs, order 1", 1, 1)
    tableau = tableau(((),), ("1",))


@final
class Heun(ExplicitRungeKutta):
    """Heun's method (the explicit trapezoidal rule), order 2."""

    spec = _spec("heun", "Heun's method for ODEs, order 2", 2, 2)
    tableau = tableau(((), ("1",)), ("1/2", "1/2"))


@final
class RK4(ExplicitRungeKutta):
    """The classical Runge–Kutta method, order 4."""

    spec = _spec("rk4", "the classical Runge–Kutta method for ODEs, order 4", 4, 4)
    tableau = tableau(((), ("1/2",), ("0", "1/2"), ("0", "0", "1")), ("1/6", "1/3", "1/3", "1/6"))
