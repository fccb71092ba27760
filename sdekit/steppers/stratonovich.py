r"""Runge–Kutta methods in the calculus of Stratonovich: a tableau each, one stage loop for all.

With the increment W over the step and its space-time Lévy area H,

$$ X_i = x + \sum_{j<i} \bigl( h\,a_{ij} f_j + g_j (a^W_{ij} W + a^H_{ij} H) \bigr), \qquad
   f_i = f(t + c_i h, X_i), \quad g_i = g(t + c_i h, X_i), $$

$$ x \leftarrow x + \sum_i \bigl( h\,b_i f_i + g_i (b^W_i W + b^H_i H) \bigr), $$

with the time as a coordinate of the state, so that $c = a e$, where a method does not say otherwise. Of the iterated
integrals of several noises nothing but W and H is known. So strong orders above ½ are for noises that commute; on
others the area that is missing leaves ½ [clarkcameron1980]. The sign of (W, H) does not change a law. So of a step all
that is odd in them has mean zero, and the weak order is a whole number.

References: [ruemelin1982], [kloeden1992] §13; [foster2024srk] for SlowRK, [foster2023adaptive] for SPaRK.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import ALL_NOISE, EmbeddedMethod, Memory, Spec, Step, StepMethod
from sdekit.steppers.coefficients import Matrix, Terms, Vector, combine, matrix, node, root, row_sums, terms, vector
from sdekit.typing import Calculus, Increments, NoiseType

STRATONOVICH: frozenset[Calculus] = frozenset({"stratonovich"})


@dataclass(frozen=True)
class StratonovichTableau:
    """Coefficients of a Stratonovich Runge–Kutta method.

    Attributes:
        a: Drifts in a stage.
        aw: Noises in a stage, times W.
        ah: Noises in a stage, times H; None for none.
        b: Weights of the drifts.
        bw: Weights of the noises, times W.
        bh: Weights of the noises, times H; None for none.
        nodes: The nodes; None for the row sums of ``a``.
    """

    a: Matrix
    aw: Matrix
    b: Vector
    bw: Vector
    ah: Matrix | None = None
    bh: Vector | None = None
    nodes: Vector | None = None

    @property
    def c(self) -> Vector:
        """Nodes of drift and diffusion."""
        return row_sums(self.a) if self.nodes is None else self.nodes

    @cached_property
    def plan(self) -> tuple[_Stage, ...]:
        """What the stage loop reads; the last entry is the new state."""
        still = matrix(*[""] * len(self.b))
        f, w, h = (*self.a, self.b), (*self.aw, self.bw), (*(self.ah or still), self.bh or still[0])
        return tuple(
            _Stage(
                float(c),
                *(terms(f[i]), terms(w[i]), terms(h[i])),
                *(_asked(f, i), _asked(w, i), _asked(h, i)),
            )
            for i, c in enumerate((*self.c, 1))
        )


def _asked(rows: tuple[Vector, ...], i: int) -> bool:
    """Whether a stage or the new state takes something from stage i."""
    return any(row[i] for row in rows if i < len(row))


@dataclass(frozen=True)
class _Stage:
    """A row of a tableau in floats, and which of f, g W and g H others take from it."""

    c: float
    drifts: Terms
    along_w: Terms
    along_h: Terms
    gives_f: bool
    gives_w: bool
    gives_h: bool


Parts = list[tuple[float, Tensor]]


def stratonovich_stages(
    tableau: StratonovichTableau, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None
) -> tuple[dict[int, Tensor], dict[int, Tensor], Parts]:
    """The stage loop: f and g W of the stages, and what moves the state."""
    h = t1 - t0
    f: dict[int, Tensor] = {}
    by_w: dict[int, Tensor] = {}
    by_h: dict[int, Tensor] = {}

    def taken(stage: _Stage) -> Parts:
        parts = [(h * a, f[j]) for j, a in stage.drifts]
        if increment is not None:
            parts += [(a, by_w[j]) for j, a in stage.along_w]
            parts += [(a, by_h[j]) for j, a in stage.along_h]
        return parts

    *stages, last = tableau.plan
    for i, stage in enumerate(stages):
        state, t = combine(x, taken(stage)), node(t0, t1, stage.c)
        if stage.gives_f:
            f[i] = sde.drift(t, state)
        if increment is not None and (stage.gives_w or stage.gives_h):
            g = sde.diffusion(t, state)
            if stage.gives_w:
                by_w[i] = times_noise(g, increment.w)
            if stage.gives_h:
                by_h[i] = times_noise(g, increment.h)
    return f, by_w, taken(last)


class StratonovichRungeKutta(StepMethod):
    """A method in the calculus of Stratonovich: a tableau in the stage loop."""

    tableau: ClassVar[StratonovichTableau]

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        return Step(combine(x, stratonovich_stages(self.tableau, sde, t0, t1, x, increment)[2]))


_NEAR, _FAR = (3 - root("3")) / 6, root("1/3")

TABLEAUS: dict[str, StratonovichTableau] = {
    "euler-heun": StratonovichTableau(
        a=matrix("", ""), aw=matrix("", "1"), b=vector("1 0"), bw=vector("1/2 1/2"), nodes=vector("0 1")
    ),
    "heun-strat": StratonovichTableau(a=matrix("", "1"), aw=matrix("", "1"), b=vector("1/2 1/2"), bw=vector("1/2 1/2")),
    "midpoint-strat": StratonovichTableau(a=matrix("", "1/2"), aw=matrix("", "1/2"), b=vector("0 1"), bw=vector("0 1")),
    "slowrk": StratonovichTableau(
        a=matrix("", "1/2", "1/2", "1/2", "1/2", "3/4", "1"),
        aw=matrix("", "", "0 1/2", "0 0 1/2", "0 0 0 1", "0 0 0 3/4", "0 0 1/2"),
        ah=matrix("", "", "", "", "", "0 0 0 3/2", ""),
        b=vector("1/3 0 0 0 0 2/3 0"),
        bw=vector("0 1/6 1/3 1/3 1/6 0 0"),
        bh=vector("0 0 0 2 0 0 -2"),
    ),
    "general-shark": StratonovichTableau(
        a=matrix("", "", "0 5/6"),
        aw=matrix("", "", "0 5/6"),
        ah=matrix("", "1", "1"),
        b=vector("0 2/5 3/5"),
        bw=vector("0 2/5 3/5"),
        bh=vector("0 6/5 -6/5"),
    ),
    "spark": StratonovichTableau(
        a=matrix("", "1/2", "0 1"),
        aw=matrix("", "1/2", "0 1"),
        ah=matrix("", (root("3"),), ""),
        b=vector((_NEAR, _FAR, _NEAR)),
        bw=vector((_NEAR, _FAR, _NEAR)),
        bh=vector("1 0 -1"),
    ),
}
"""Name → published tableau."""


def _spec(
    name: str,
    summary: str,
    references: tuple[str, ...],
    evaluations: int,
    ode: float,
    increments: Increments = "w",
    **orders: tuple[float | None, float | None],
) -> Spec:
    """Orders as (strong, weak) by class, an underscore for a hyphen; any noise."""
    named = {word.replace("_", "-"): pair for word, pair in orders.items()}
    return Spec(
        name=name,
        summary=summary,
        references=references,
        kind="step",
        evaluations=evaluations,
        ode=ode,
        strong={word: strong for word, (strong, _) in named.items() if strong is not None},
        weak={word: weak for word, (_, weak) in named.items() if weak is not None},
        noise_types=ALL_NOISE,
        calculus=STRATONOVICH,
        increments=increments,
        eta=(0.0, float("inf")),
    )


@final
class EulerHeun(StratonovichRungeKutta):
    r"""Heun's rule for the noise alone.

    $$ \bar x = x + g(t, x)\,W, \qquad
       x \leftarrow x + f(t, x)\,h + \tfrac12 \bigl(g(t, x) + g(t + h, \bar x)\bigr) W . $$

    Strong order ½, and 1 where noises commute or do not depend on the state; weak order 1.

    References: [kloeden1992] §13.
    """

    spec = _spec(
        "euler-heun",
        "Euler–Heun: any Stratonovich SDE for one drift a step, strong order ½ (1 where noises commute)",
        ("kloeden1992",),
        evaluations=1,
        ode=1.0,
        linear_additive=(1.0, 1.0),
        additive=(1.0, 1.0),
        diagonal=(1.0, 1.0),
        commutative=(1.0, 1.0),
        general=(0.5, 1.0),
    )
    tableau = TABLEAUS["euler-heun"]


@final
class HeunStratonovich(StratonovichRungeKutta, EmbeddedMethod):
    r"""Heun's rule for drift and noise.

    $$ \bar x = x + f h + g W, \qquad
       x \leftarrow x + \tfrac12 \bigl(f(t, x) + f(t + h, \bar x)\bigr) h
                      + \tfrac12 \bigl(g(t, x) + g(t + h, \bar x)\bigr) W . $$

    Strong order ½, and 1 where noises commute or do not depend on the state; weak order 1, and 2 for additive noise.
    Adaptive steps are chosen by the distance $|x - \bar x|$, whose order is 1 where the noise depends on the state.

    References: [ruemelin1982].
    """

    spec = _spec(
        "heun-strat",
        "stochastic Heun: any Stratonovich SDE, strong order ½ (1 where noises commute)",
        ("ruemelin1982",),
        evaluations=2,
        ode=2.0,
        linear_additive=(1.0, 2.0),
        additive=(1.0, 2.0),
        diagonal=(1.0, 1.0),
        commutative=(1.0, 1.0),
        general=(0.5, 1.0),
    )
    tableau = TABLEAUS["heun-strat"]

    def pair(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None) -> tuple[Tensor, Tensor]:
        f, by_w, moved = stratonovich_stages(self.tableau, sde, t0, t1, x, increment)
        h = t1 - t0
        apart = f[1].sub(f[0]).mul_(0.5 * h)
        if increment is not None:
            apart = apart.add_(by_w[1], alpha=0.5).sub_(by_w[0], alpha=0.5)
        return combine(x, moved), apart

    def estimate_order(self, noise_type: NoiseType) -> float:
        return {"none": 2.0, "additive": 1.5}.get(noise_type, 1.0)


@final
class MidpointStratonovich(StratonovichRungeKutta):
    r"""The explicit midpoint rule for drift and noise.

    $$ \bar x = x + \tfrac12 (f h + g W), \qquad
       x \leftarrow x + f(t + \tfrac h2, \bar x)\,h + g(t + \tfrac h2, \bar x)\,W . $$

    Strong order ½, and 1 where noises commute or do not depend on the state; weak order 1, and 2 for additive noise and
    a linear drift.

    References: [ruemelin1982].
    """

    spec = _spec(
        "midpoint-strat",
        "stochastic midpoint rule: any Stratonovich SDE, strong order ½ (1 where noises commute)",
        ("ruemelin1982",),
        evaluations=2,
        ode=2.0,
        linear_additive=(1.0, 2.0),
        additive=(1.0, 1.0),
        diagonal=(1.0, 1.0),
        commutative=(1.0, 1.0),
        general=(0.5, 1.0),
    )
    tableau = TABLEAUS["midpoint-strat"]


@final
class SlowRK(StratonovichRungeKutta):
    r"""Foster, dos Reis and Strange's SlowRK: noises that commute at strong order 1.5.

    Seven stages, two of them with a drift: Ralston's rule along $\tfrac34 (W + 2 H)$ for the drift, the classical rule
    of order four for the noise, and the noise at the midpoint against the noise at the end for H.

    Strong order 1.5 where noises commute, 2 for additive noise with a linear drift, ½ else; weak order 2, but 1 for
    noises that do not commute.

    References: [foster2024srk] (6.2).
    """

    spec = _spec(
        "slowrk",
        "SlowRK: Stratonovich noises that commute, strong order 1.5, two drifts a step",
        ("foster2024srk",),
        evaluations=2,
        ode=2.0,
        increments="space-time",
        linear_additive=(2.0, 2.0),
        additive=(1.5, 2.0),
        diagonal=(1.5, 2.0),
        commutative=(1.5, 2.0),
        general=(0.5, 1.0),
    )
    tableau = TABLEAUS["slowrk"]


@final
class SPaRK(StratonovichRungeKutta):
    r"""Foster and Jelinčič's SPaRK (splitting path Runge–Kutta), three drifts and three diffusions a step.

    $$ X_2 = x + \tfrac12 (f_1 h + g_1 W) + \sqrt3\,g_1 H, \qquad X_3 = x + f_2 h + g_2 W, $$

    $$ x \leftarrow x + \sum_i b_i (f_i h + g_i W) + (g_1 - g_3) H, \qquad
       b = \bigl(\tfrac{3 - \sqrt3}6, \tfrac1{\sqrt3}, \tfrac{3 - \sqrt3}6\bigr) . $$

    Strong order ½, 1 where noises commute, 1.5 for additive noise, 2 if the drift is linear too; weak order 1, and 2
    for additive noise.

    References: [foster2023adaptive], Definition 1.6.
    """

    spec = _spec(
        "spark",
        "SPaRK: any Stratonovich SDE, strong order ½ (1 where noises commute, 1.5 for additive noise)",
        ("foster2023adaptive",),
        evaluations=3,
        ode=2.0,
        increments="space-time",
        linear_additive=(2.0, 2.0),
        additive=(1.5, 2.0),
        diagonal=(1.0, 1.0),
        commutative=(1.0, 1.0),
        general=(0.5, 1.0),
    )
    tableau = TABLEAUS["spark"]
