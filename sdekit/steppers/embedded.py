r"""Runge–Kutta pairs for ODEs: a step, an estimate of its error, and a polynomial through it.

A pair of weights b and $\hat b$ over the same stages gives a step and its distance from one of lower order,
$h \sum_i (b_i - \hat b_i)\,k_i$. The slope at the end of the step counts among the stages, and is the first of the next
one (FSAL). In between, at $\theta$ of the step, the solution is

$$ x(\theta) = x + h\,\theta\,\bigl[\Delta + \bar\theta\,(k_1 - \Delta + \theta\,(2\Delta - k_1 - k_e +
   \bar\theta\,(d_1 + \theta\,(d_2 + \bar\theta\,(d_3 + \dots)))))\bigr], \qquad
   \Delta = \textstyle\sum_i b_i k_i, \quad \bar\theta = 1 - \theta , $$

with $k_e$ the slope at the end: the cubic of Hermite, which has values and slopes of both ends, and corrections
$d_j = \sum_i D_{ji} k_i$ that leave these alone.

References: [hairer1993] §II.4–II.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, final

from sdekit.steppers import dop853
from sdekit.steppers.base import Spec
from sdekit.steppers.coefficients import Vector, vector
from sdekit.steppers.runge_kutta import BOTH, ExplicitRungeKutta, Tableau


@final
@dataclass(frozen=True, eq=False)
class Pair:
    r"""What adaptive steps need beside a tableau.

    Attributes:
        tableau: Of the step, without the slope at its end.
        order: Of the step.
        errors: Weights of its estimates over the stages, the slope at the end last, if it counts. With two of them,
            $e_5$ and $e_3$, the error is $e_5^2 / \sqrt{e_5^2 + e_3^2 / 100}$.
        estimate_order: k, if that is of order $h^k$.
        dense: Rows of D, over stages, end and extra stages.
        dense_order: Of the polynomial.
        extra: Rows of the stages that only the polynomial needs.
        extra_nodes: Their nodes.
    """

    tableau: Tableau
    order: int
    errors: tuple[Vector, ...]
    estimate_order: int
    dense: tuple[Vector, ...]
    dense_order: int
    extra: tuple[Vector, ...] = ()
    extra_nodes: Vector = ()

    @property
    def size(self) -> int:
        """Stages, the slope at the end counted."""
        return len(self.tableau.b) + 1

    @property
    def layers(self) -> tuple[Vector, ...]:
        """The brackets of the polynomial from outside in, as weights of all slopes."""
        count = self.size + len(self.extra)
        step, first, last = (
            tuple(weights[i] if i in weights else Fraction(0) for i in range(count))
            for weights in (dict(enumerate(self.tableau.b)), {0: Fraction(1)}, {self.size - 1: Fraction(1)})
        )
        cubic = (
            step,
            tuple(k - b for k, b in zip(first, step, strict=True)),
            tuple(2 * b - k - e for b, k, e in zip(step, first, last, strict=True)),
        )
        return (*cubic, *self.dense)


class EmbeddedRungeKutta(ExplicitRungeKutta):
    """A pair. On a grid it is its step; with a controller it chooses its steps (:mod:`sdekit.adaptive.ode`)."""

    pair: ClassVar[Pair]


def _spec(name: str, summary: str, pair: Pair, *references: str) -> Spec:
    return Spec(
        name=name,
        summary=f"{summary}, order {pair.order}; adaptive, dense output of order {pair.dense_order}",
        references=references,
        kind="step",
        evaluations=len(pair.tableau.b),
        ode=float(pair.order),
        calculus=BOTH,
    )


_BOSH3 = Pair(
    Tableau((vector(""), vector("1/2"), vector("0 3/4")), vector("2/9 1/3 4/9")),
    order=3,
    errors=(vector("-5/72 1/12 1/9 -1/8"),),
    estimate_order=3,
    dense=(),
    dense_order=3,
)

_DOPRI5 = Pair(
    Tableau(
        (
            vector(""),
            vector("1/5"),
            vector("3/40 9/40"),
            vector("44/45 -56/15 32/9"),
            vector("19372/6561 -25360/2187 64448/6561 -212/729"),
            vector("9017/3168 -355/33 46732/5247 49/176 -5103/18656"),
        ),
        vector("35/384 0 500/1113 125/192 -2187/6784 11/84"),
    ),
    order=5,
    errors=(vector("71/57600 0 -71/16695 71/1920 -17253/339200 22/525 -1/40"),),
    estimate_order=5,
    dense=(
        vector(
            "-12715105075/11282082432 0 87487479700/32700410799 -10690763975/1880347072 "
            "701980252875/199316789632 -1453857185/822651844 69997945/29380423"
        ),
    ),
    dense_order=4,
)

_TSIT5 = Pair(
    Tableau(
        (
            vector(""),
            vector("0.161"),
            vector("-0.008480655492356989 0.335480655492357"),
            vector("2.8971530571054935 -6.359448489975075 4.3622954328695815"),
            vector("5.325864828439257 -11.748883564062828 7.4955393428898365 -0.09249506636175525"),
            vector("5.86145544294642 -12.92096931784711 8.159367898576159 -0.071584973281401 -0.028269050394068383"),
        ),
        vector("0.09646076681806523 0.01 0.4798896504144996 1.379008574103742 -3.290069515436081 2.324710524099774"),
        vector("0 0.161 0.327 0.9 0.9800255409045097 1"),
    ),
    order=5,
    # The last one is printed with the other sign; the sum, which must be zero, tells.
    errors=(
        vector(
            "0.00178001105222577714 0.0008164344596567469 -0.007880878010261995 0.1447110071732629 "
            "-0.5823571654525552 0.45808210592918697 -1/66"
        ),
    ),
    estimate_order=5,
    # What the published polynomials have before θ⁴; the rest of them is the cubic.
    dense=(
        vector(
            "-1.0530884977290216 0.1017 2.490627285651252793 -16.54810288924490272 47.37952196281928122 "
            "-34.87065786149660974 5/2"
        ),
    ),
    dense_order=4,
)

_DOPRI8 = Pair(
    Tableau(dop853.A, dop853.B, dop853.C),
    order=8,
    errors=(dop853.FIFTH, dop853.THIRD),
    estimate_order=8,
    dense=dop853.DENSE,
    dense_order=7,
    extra=dop853.EXTRA,
    extra_nodes=dop853.EXTRA_C,
)


@final
class BoSh3(EmbeddedRungeKutta):
    """Bogacki and Shampine's pair of orders 3 and 2."""

    pair = _BOSH3
    spec = _spec("bosh3", "Bogacki and Shampine's pair for ODEs", pair, "bogacki1989", "hairer1993")
    tableau = pair.tableau


@final
class DoPri5(EmbeddedRungeKutta):
    """Dormand and Prince's pair of orders 5 and 4, with Shampine's polynomial."""

    pair = _DOPRI5
    spec = _spec("dopri5", "Dormand and Prince's pair for ODEs", pair, "dormand1980", "shampine1986", "hairer1993")
    tableau = pair.tableau


@final
class Tsit5(EmbeddedRungeKutta):
    """Tsitouras' pair of orders 5 and 4."""

    pair = _TSIT5
    spec = _spec("tsit5", "Tsitouras' pair for ODEs", pair, "tsitouras2011")
    tableau = pair.tableau


@final
class DoPri8(EmbeddedRungeKutta):
    """DOP853 of Hairer, Nørsett and Wanner: order 8, with estimates of orders 5 and 3."""

    pair = _DOPRI8
    spec = _spec("dopri8", "DOP853 for ODEs", pair, "hairer1993")
    tableau = pair.tableau
