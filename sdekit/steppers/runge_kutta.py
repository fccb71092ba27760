r"""Explicit Runge–Kutta methods for ODEs: a tableau each, one stage loop for all.

$$ k_i = f\bigl(t + c_i h,\; x + h \textstyle\sum_{j<i} a_{ij} k_j\bigr), \qquad x \leftarrow x + h \sum_i b_i k_i . $$

References: [hairer1993], §II.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.steppers.base import Memory, Spec, Step, StepMethod
from sdekit.steppers.coefficients import Matrix, Vector, combine, node, row_sums
from sdekit.typing import Calculus

BOTH: frozenset[Calculus] = frozenset({"ito", "stratonovich"})


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit method, as exact fractions: rows of a, weights b.

    The nodes c are the row sums, unless they are printed: sums of decimals may miss 1, and a step its end.
    """

    a: Matrix
    b: Vector
    nodes: Vector | None = None

    @property
    def c(self) -> Vector:
        return row_sums(self.a) if self.nodes is None else self.nodes


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
            slopes.append(sde.drift(node(t0, t1, float(c)), combine(x, _moves(h, row, slopes))))
        return Step(combine(x, _moves(h, self.tableau.b, slopes)))


def _moves(h: float, weights: Vector, slopes: list[Tensor]) -> Iterator[tuple[float, Tensor]]:
    """H wⱼ kⱼ, where there is a weight; a row may go on with zeros."""
    return ((h * float(weight), slope) for weight, slope in zip(weights, slopes, strict=False) if weight)


def _spec(name: str, summary: str, order: int, stages: int) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=("hairer1993",),
        kind="step",
        evaluations=stages,
        ode=float(order),
        calculus=BOTH,
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
class Midpoint(ExplicitRungeKutta):
    """The explicit midpoint rule, order 2."""

    spec = _spec("midpoint", "the explicit midpoint rule for ODEs, order 2", 2, 2)
    tableau = tableau(((), ("1/2",)), ("0", "1"))


@final
class RK4(ExplicitRungeKutta):
    """The classical Runge–Kutta method, order 4."""

    spec = _spec("rk4", "the classical Runge–Kutta method for ODEs, order 4", 4, 4)
    tableau = tableau(((), ("1/2",), ("0", "1/2"), ("0", "0", "1")), ("1/6", "1/3", "1/3", "1/6"))
