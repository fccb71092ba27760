r"""Rößler's SRA methods: additive noise $dx = f(t, x)\,dt + G(t)\,dW$ at strong order 1.5, a tableau each.

With the increment W over the step, its space-time Lévy area H and $Z = I_{(1,0)}/h = \tfrac12 W + H$,

$$ H_i = x + h \textstyle\sum_j A^0_{ij} f(t + c^0_j h, H_j) + \sum_j B^0_{ij}\, G(t + c^1_j h)\,Z, $$

$$ x \leftarrow x + h \textstyle\sum_i \alpha_i f(t + c^0_i h, H_i)
             + \sum_i G(t + c^1_i h)\,\bigl(\beta^1_i W + \beta^2_i Z\bigr), $$

with $c^0 = A^0 e$. Of an explicit time in the drift order 1.5 asks $\alpha^\top c^0 = \tfrac12$ and no more, so that
nodes outside of the step may be replaced (``nodes``). On a linear drift the terms of order 2 are deterministic, so the
strong order is that of the ODE there, 2; weak order 2 follows from the parity of the terms that are left.

References: [rossler2010]; [rackauckas2020] for SOSRA and SOSRA2.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import EmbeddedMethod, Memory, Spec, Step
from sdekit.steppers.coefficients import Matrix, Terms, Vector, combine, matrix, node, row_sums, terms, vector
from sdekit.typing import Calculus


@dataclass(frozen=True)
class SRATableau:
    """Coefficients of an SRA method.

    Attributes:
        A0: Drifts in a stage.
        B0: Noises in a stage.
        c1: Nodes of the diffusion.
        alpha: Weights of the drifts.
        beta1: Weights of W.
        beta2: Weights of Z.
        ode: Order on an ODE.
        nodes: Of the drift, where they are not the row sums of A0.
    """

    A0: Matrix
    B0: Matrix
    c1: Vector
    alpha: Vector
    beta1: Vector
    beta2: Vector
    ode: int
    nodes: Vector | None = None

    @property
    def c0(self) -> Vector:
        """Nodes of the drift."""
        return row_sums(self.A0) if self.nodes is None else self.nodes

    @cached_property
    def plan(self) -> _Plan:
        """What the stage loop reads."""
        return _Plan.of(self)


@dataclass(frozen=True)
class _Plan:
    """A tableau in floats: the stages that are used, the distinct nodes of the diffusion, what is not zero."""

    stages: tuple[tuple[int, float, Terms, Terms], ...]
    nodes: tuple[float, ...]
    alpha: Terms
    weights: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, tableau: SRATableau) -> _Plan:
        used = {i for i, weight in enumerate(tableau.alpha) if weight}
        for i in reversed(range(len(tableau.alpha))):
            used |= {j for j, weight in enumerate(tableau.A0[i]) if weight and i in used}
        wanted = [j for j in range(len(tableau.c1)) if any((tableau.beta1[j], tableau.beta2[j], *_column(tableau, j)))]
        nodes = tuple(dict.fromkeys(tableau.c1[j] for j in wanted))

        def merged(row: Vector) -> Vector:
            return tuple(sum((row[j] for j in wanted if tableau.c1[j] == c), Fraction(0)) for c in nodes)

        stages = [(i, float(tableau.c0[i]), terms(tableau.A0[i]), terms(merged(tableau.B0[i]))) for i in sorted(used)]
        pairs = zip(map(float, merged(tableau.beta1)), map(float, merged(tableau.beta2)), strict=True)
        return cls(tuple(stages), tuple(map(float, nodes)), terms(tableau.alpha), tuple(pairs))


def _column(tableau: SRATableau, j: int) -> Vector:
    return tuple(row[j] for row in tableau.B0)


def additive_step(tableau: SRATableau, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None) -> Step:
    """The stage loop."""
    return Step(combine(x, _additive(tableau, sde, t0, t1, x, increment)[0]))


def additive_pair(
    tableau: SRATableau, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None
) -> tuple[Tensor, Tensor]:
    r"""The state after the step, and its difference from $x + h f(t, x) + \sum_i \beta^1_i\,G(t + c^1_i h)\,W$."""
    parts, difference = _additive(tableau, sde, t0, t1, x, increment)
    return combine(x, parts), combine(torch.zeros_like(x), difference)


Parts = list[tuple[float, Tensor]]


def _additive(
    tableau: SRATableau, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None
) -> tuple[Parts, Parts]:
    """What moves the state, and what of it the method of strong order 1 does not have."""
    plan, h = tableau.plan, t1 - t0
    kicks: list[Tensor] = []
    noise: list[Tensor] = []
    if increment is not None:
        w, z = increment.w, increment.h.add(increment.w, alpha=0.5)
        for c, (b1, b2) in zip(plan.nodes, plan.weights, strict=True):
            g = sde.diffusion(node(t0, t1, c), x)
            kicks.append(times_noise(g, z))
            if b1 or b2:
                noise.append(times_noise(g, b1 * w + b2 * z))
    slopes: dict[int, Tensor] = {}
    for i, c, drifts, noises in plan.stages:
        parts = [(h * a, slopes[j]) for j, a in drifts]
        parts += [(b, kicks[j]) for j, b in noises if kicks]
        slopes[i] = sde.drift(node(t0, t1, c), combine(x, parts))
    moved = [(h * a, slopes[i]) for i, a in plan.alpha]
    areas = [(b2, kick) for kick, (_, b2) in zip(kicks, plan.weights, strict=False) if b2]
    return [*moved, *((1.0, part) for part in noise)], [*moved, (-h, slopes[0]), *areas]


class SRA(EmbeddedMethod):
    """An SRA method: a tableau in the stage loop."""

    tableau: ClassVar[SRATableau]

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        return additive_step(self.tableau, sde, t0, t1, x, increment)

    def pair(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None) -> tuple[Tensor, Tensor]:
        return additive_pair(self.tableau, sde, t0, t1, x, increment)


TABLEAUS: dict[str, SRATableau] = {
    "sra1": SRATableau(
        A0=matrix("", "3/4"),
        B0=matrix("", "3/2"),
        c1=vector("1 0"),
        alpha=vector("1/3 2/3"),
        beta1=vector("1 0"),
        beta2=vector("-1 1"),
        ode=2,
    ),
    "sra2": SRATableau(
        A0=matrix("", "3/4"),
        B0=matrix("", "3/2"),
        c1=vector("1/3 1"),
        alpha=vector("1/3 2/3"),
        beta1=vector("0 1"),
        beta2=vector("3/2 -3/2"),
        ode=2,
    ),
    "sra3": SRATableau(
        A0=matrix("", "1", "1/4 1/4"),
        B0=matrix("", "", "1 1/2"),
        c1=vector("1 0 0"),
        alpha=vector("1/6 1/6 2/3"),
        beta1=vector("1 0 0"),
        beta2=vector("-1 1 0"),
        ode=3,
    ),
    "sosra": SRATableau(
        A0=matrix("", "0.6923962376159507", "-3.1609142252828395 4.1609142252828395"),
        B0=matrix("", "1.3371632704399763", "1.442371048468624 1.8632741501139225"),
        c1=vector("0 0.041248171110700504 1"),
        alpha=vector("0.2889874966892885 0.6859880440839937 0.025024459226717772"),
        beta1=vector("-16.792534242221663 17.514995785380226 0.27753845684143835"),
        beta2=vector("0.4237535769069274 0.6010381474428539 -1.0247917243497813"),
        ode=2,
    ),
    "sosra2": SRATableau(
        A0=matrix("", "1", "0.9511849235504364 0.04881507644956362"),
        B0=matrix("", "0.7686101171003622", "0.43886792994934987 0.7490415909204886"),
        c1=vector("0 1 1"),
        alpha=vector("0.4999999999999998 -0.9683897375354181 1.4683897375354185"),
        beta1=vector("0 0.92438032145683 0.07561967854316998"),
        beta2=vector("1 -0.8169981105823436 -0.18300188941765633"),
        ode=2,
    ),
}
"""Name → published tableau; a method may take any of them."""

BOTH: frozenset[Calculus] = frozenset({"ito", "stratonovich"})
"""With additive noise the two calculi agree."""


def _spec(name: str, summary: str, reference: str, evaluations: int, ode: float) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=(reference,),
        kind="step",
        evaluations=evaluations,
        ode=ode,
        strong={"linear-additive": 2.0, "additive": 1.5},
        weak={"linear-additive": 2.0, "additive": 2.0},
        noise_types=frozenset({"none", "additive"}),
        calculus=BOTH,
        increments="space-time",
        eta=(0.0, float("inf")),
    )


@final
class SRA1(SRA):
    r"""Rößler's SRA1, two drifts and two diffusions a step.

    $$ H_2 = x + \tfrac34 h f(t, x) + \tfrac32\,G(t + h)\,Z, \qquad
       x \leftarrow x + \tfrac h3 \bigl(f(t, x) + 2 f(t + \tfrac34 h, H_2)\bigr) + G(t + h)\,(W - Z) + G(t)\,Z . $$

    Strong order 1.5 for additive noise, 2 if the drift is linear too; weak order 2.

    References: [rossler2010].
    """

    spec = _spec(
        "sra1",
        "Rößler's SRA1: additive noise, strong order 1.5 (2 with a linear drift), weak order 2",
        "rossler2010",
        2,
        2.0,
    )
    tableau = TABLEAUS["sra1"]


@final
class SRA3(SRA):
    """Rößler's SRA3, three drifts and two diffusions a step: as :class:`SRA1`, and of order 3 where there is no noise.

    References: [rossler2010].
    """

    spec = _spec("sra3", "Rößler's SRA3: as SRA1, with order 3 on an ODE", "rossler2010", 3, 3.0)
    tableau = TABLEAUS["sra3"]


@final
class SOSRA(SRA):
    """Rackauckas and Nie's SOSRA, three drifts and three diffusions a step: as :class:`SRA1`, made to be stable.

    References: [rackauckas2020].
    """

    spec = _spec("sosra", "Rackauckas and Nie's SOSRA: as SRA1, stable on larger steps", "rackauckas2020", 3, 2.0)
    tableau = TABLEAUS["sosra"]
