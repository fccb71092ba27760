r"""Rößler's SRI methods: diagonal or scalar Itô noise at strong order 1.5, a tableau each.

With the increment W over the step, its space-time Lévy area H, and

$$ Z = I_{(1,0)}/h = \tfrac12 W + H, \qquad I_{(1,1)} = \tfrac12 (W^2 - h), \qquad
   I_{(1,1,1)} = \tfrac16 W (W^2 - 3h), $$

$$ H^0_i = x + h \textstyle\sum_j A^0_{ij} f(t + c^0_j h, H^0_j) + \sum_j B^0_{ij}\, g(t + c^1_j h, H^1_j)\,Z, $$

$$ H^1_i = x + h \textstyle\sum_j A^1_{ij} f(t + c^0_j h, H^0_j) + \sqrt h \sum_j B^1_{ij}\, g(t + c^1_j h, H^1_j), $$

$$ x \leftarrow x + h \textstyle\sum_i \alpha_i f(t + c^0_i h, H^0_i) + \sum_i g(t + c^1_i h, H^1_i)
   \bigl(\beta^1_i W + \beta^2_i I_{(1,1)}/\sqrt h + \beta^3_i Z + \beta^4_i I_{(1,1,1)}/h\bigr), $$

element by element, with $c^0 = A^0 e$ and $c^1 = A^1 e$: coordinate i of g may depend on coordinate i of x only, or
there is one noise for all coordinates. Of $c^0$ order 1.5 asks $\alpha^\top c^0 = \tfrac12$ alone.

The weak order is 1.5 too, not 2: $\sqrt h B^1 g$ does not change its sign with the noise, so means of order
$h^{5/2}$ are left in a step, such as that of $g\,g''(f, g)\,W^2 h^{3/2}$ in second moments. They vanish on linear
equations whose coefficients are constant.

Additive noise has no iterated integrals of W with itself, so $\beta^2$ and $\beta^4$ multiply nothing but error
there. They are left out, and what remains is the SRA method with weights $\beta^1$, $\beta^3$, at weak order 2:
several noises do no harm then.

References: [rossler2010]; [rackauckas2020] for SOSRI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.steppers.base import EmbeddedMethod, Memory, Spec, Step
from sdekit.steppers.coefficients import Matrix, Terms, Vector, combine, matrix, node, row_sums, terms, vector
from sdekit.steppers.sra import Parts, SRATableau, additive_pair, additive_step


@dataclass(frozen=True)
class SRITableau:
    """Coefficients of an SRI method.

    Attributes:
        A0: Drifts in a stage of the drift.
        A1: Drifts in a stage of the diffusion.
        B0: Noises in a stage of the drift.
        B1: Noises in a stage of the diffusion.
        alpha: Weights of the drifts.
        beta1: Weights of W.
        beta2: Weights of $I_{(1,1)}/√h$.
        beta3: Weights of Z.
        beta4: Weights of $I_{(1,1,1)}/h$.
        ode: Order on an ODE.
        nodes: Of the drift, where they are not the row sums of A0.
    """

    A0: Matrix
    A1: Matrix
    B0: Matrix
    B1: Matrix
    alpha: Vector
    beta1: Vector
    beta2: Vector
    beta3: Vector
    beta4: Vector
    ode: int
    nodes: Vector | None = None

    @property
    def c0(self) -> Vector:
        """Nodes of the drift."""
        return row_sums(self.A0) if self.nodes is None else self.nodes

    @property
    def c1(self) -> Vector:
        """Nodes of the diffusion."""
        return row_sums(self.A1)

    @cached_property
    def additive(self) -> SRATableau:
        """What it is for additive noise."""
        return SRATableau(self.A0, self.B0, self.c1, self.alpha, self.beta1, self.beta3, self.ode, self.nodes)

    @cached_property
    def plan(self) -> _Plan:
        """What the stage loop reads."""
        return _Plan.of(self)


def ends(alpha: Vector, late: int) -> Vector:
    r"""Nodes 0 and c, the last ``late`` of them c, such that $\alpha^\top c^0 = \tfrac12$."""
    c = Fraction(1, 2) / sum(alpha[-late:], Fraction(0))
    return (Fraction(0),) * (len(alpha) - late) + (c,) * late


@dataclass(frozen=True)
class _Stage:
    """A pair of stages; ``again`` is an earlier stage with the same drift, None if the drift is new or not used."""

    used: bool
    again: int | None
    c0: float
    A0: Terms
    B0: Terms
    c1: float
    A1: Terms
    B1: Terms
    betas: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Plan:
    """A tableau in floats."""

    stages: tuple[_Stage, ...]
    alpha: Terms

    @classmethod
    def of(cls, tableau: SRITableau) -> _Plan:
        s, betas = len(tableau.alpha), (tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4)
        used = {j for j in range(s) if tableau.alpha[j] or any(row[j] for row in tableau.A1)}
        for i in reversed(range(s)):
            used |= {j for j in range(i) if tableau.A0[i][j] and i in used}
        first: dict[tuple[Vector, Vector, Fraction], int] = {}
        stages = []
        for i in range(s):
            same = first.setdefault((tableau.A0[i], tableau.B0[i], tableau.c0[i]), i)
            stages.append(
                _Stage(
                    i in used,
                    None if same == i else same,
                    float(tableau.c0[i]),
                    terms(tableau.A0[i]),
                    terms(tableau.B0[i]),
                    float(tableau.c1[i]),
                    terms(tableau.A1[i]),
                    terms(tableau.B1[i]),
                    (float(betas[0][i]), float(betas[1][i]), float(betas[2][i]), float(betas[3][i])),
                )
            )
        return cls(tuple(stages), terms(tableau.alpha))


def _elementwise(
    tableau: SRITableau, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment
) -> tuple[Parts, Callable[[], Parts]]:
    """The stage loop: what moves the state, and what of it the method of strong order 1 does not have."""
    plan, h = tableau.plan, t1 - t0
    root = h**0.5
    w, levy = increment.w, increment.h
    if sde.noise_type == "scalar":
        w, levy = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (w, levy))
    z = levy.add(w, alpha=0.5)
    square = w * w
    integrals = w, (square - h) * (0.5 / root), z, w * (square - 3.0 * h) * (1.0 / (6.0 * h))
    f: dict[int, Tensor] = {}
    g: list[Tensor] = []
    for i, stage in enumerate(plan.stages):
        if stage.used and stage.again is not None:
            f[i] = f[stage.again]
        elif stage.used:
            parts = [(h * a, f[j]) for j, a in stage.A0] + [(b, g[j] * z) for j, b in stage.B0]
            f[i] = sde.drift(node(t0, t1, stage.c0), combine(x, parts))
        parts = [(h * a, f[j]) for j, a in stage.A1] + [(root * b, g[j]) for j, b in stage.B1]
        g.append(sde.diffusion(node(t0, t1, stage.c1), combine(x, parts)).reshape(x.shape))
    moved = [(h * a, f[i]) for i, a in plan.alpha]

    def noise(first: int) -> Parts:
        """The terms of the integrals from the first one on."""
        found = []
        for i, stage in enumerate(plan.stages):
            pairs = [(b, v) for b, v in zip(stage.betas[first:], integrals[first:], strict=True) if b]
            if pairs:
                (beta, integral), *rest = pairs
                found.append((1.0, g[i] * combine(beta * integral, rest)))
        return found

    return [*moved, *noise(0)], lambda: [*moved, (-h, f[0]), *noise(2)]


class SRI(EmbeddedMethod):
    """An SRI method: a tableau in the stage loop."""

    tableau: ClassVar[SRITableau]

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        if increment is None or sde.noise_type == "additive":
            return additive_step(self.tableau.additive, sde, t0, t1, x, increment)
        return Step(combine(x, _elementwise(self.tableau, sde, t0, t1, x, increment)[0]))

    def pair(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None) -> tuple[Tensor, Tensor]:
        r"""The difference is that from the weights $\beta^1$ and $\beta^2$ alone, with one drift: strong order 1."""
        if increment is None or sde.noise_type == "additive":
            return additive_pair(self.tableau.additive, sde, t0, t1, x, increment)
        parts, difference = _elementwise(self.tableau, sde, t0, t1, x, increment)
        return combine(x, parts), combine(torch.zeros_like(x), difference())


_SOSRI = vector("1.140099274172029 -0.6401334255743456 0.4736296532772559 0.026404498125060714")

TABLEAUS: dict[str, SRITableau] = {
    "sri1w1": SRITableau(
        A0=matrix("", "3/4", "", ""),
        A1=matrix("", "1/4", "1", "0 0 1/4"),
        B0=matrix("", "3/2", "", ""),
        B1=matrix("", "1/2", "-1", "-5 3 1/2"),
        alpha=vector("1/3 2/3 0 0"),
        beta1=vector("-1 4/3 2/3 0"),
        beta2=vector("-1 4/3 -1/3 0"),
        beta3=vector("2 -4/3 -2/3 0"),
        beta4=vector("-2 5/3 -2/3 1"),
        ode=2,
    ),
    "sri2w1": SRITableau(
        A0=matrix("", "1", "1/4 1/4", ""),
        A1=matrix("", "1/4", "1", "0 0 1/4"),
        B0=matrix("", "", "1 1/2", ""),
        B1=matrix("", "-1/2", "1", "2 -1 1/2"),
        alpha=vector("1/6 1/6 2/3 0"),
        beta1=vector("-1 4/3 2/3 0"),
        beta2=vector("1 -4/3 1/3 0"),
        beta3=vector("2 -4/3 -2/3 0"),
        beta4=vector("-2 5/3 -2/3 1"),
        ode=3,
    ),
    # The row sums of A0 are 0, −0.04, 0.79 and 3.75: fields would be asked before the step and after it.
    "sosri": SRITableau(
        A0=matrix(
            "",
            "-0.04199224421316468",
            "2.842612915017106 -2.0527723684000727",
            "4.338237071435815 -2.8895936137439793 2.3017575594644466",
        ),
        A1=matrix(
            "",
            "0.26204282091330466",
            "0.20903646383505375 -0.1502377115150361",
            "0.05836595312746999 0.6149440396332373 0.08535117634046772",
        ),
        B0=matrix(
            "",
            "-0.21641093549612528",
            "1.5336352863679572 0.26066223492647056",
            "-1.0536037558179159 1.7015284721089472 -0.20725685784180017",
        ),
        B1=matrix(
            "",
            "-0.5119011827621657",
            "2.67767339866713 -4.9395031322250995",
            "0.15580956238299215 3.2361551006624674 -1.4223118283355949",
        ),
        alpha=_SOSRI,
        beta1=vector("-1.8453464565104432 2.688764531100726 -0.2523866501071323 0.40896857551684956"),
        beta2=vector("0.4969658141589478 -0.5771202869753592 -0.12919702470322217 0.2093514975196336"),
        beta3=vector("2.8453464565104425 -2.688764531100725 0.2523866501071322 -0.40896857551684945"),
        beta4=vector("0.11522663875443433 -0.57877086147738 0.2857851028163886 0.17775911990655704"),
        ode=2,
        nodes=ends(_SOSRI, late=2),
    ),
}
"""Name → published tableau; a method may take any of them."""


def _spec(name: str, summary: str, reference: str, evaluations: int, ode: float) -> Spec:
    return Spec(
        name=name,
        summary=summary,
        references=(reference,),
        kind="step",
        evaluations=evaluations,
        ode=ode,
        strong={"linear-additive": 2.0, "additive": 1.5, "diagonal": 1.5, "commutative": 1.5},
        weak={"linear-additive": 2.0, "additive": 2.0, "diagonal": 1.5, "commutative": 1.5},
        noise_types=frozenset({"none", "additive", "scalar", "diagonal"}),
        increments="space-time",
        eta=(0.0, float("inf")),
    )


@final
class SRI1W1(SRI):
    """Rößler's SRI1W1, two drifts and four diffusions a step.

    Strong and weak order 1.5 for diagonal and scalar noise. On additive noise it is like :class:`SRA1`: weak order 2,
    and strong order 2 if the drift is linear too.

    References: [rossler2010].
    """

    spec = _spec("sri1w1", "Rößler's SRI1W1: diagonal or scalar Itô noise, strong order 1.5", "rossler2010", 2, 2.0)
    tableau = TABLEAUS["sri1w1"]


@final
class SRI2W1(SRI):
    """Rößler's SRI2W1, three drifts and four diffusions a step: as :class:`SRI1W1`, and of order 3 without noise.

    References: [rossler2010].
    """

    spec = _spec("sri2w1", "Rößler's SRI2W1: as SRI1W1, with order 3 on an ODE", "rossler2010", 3, 3.0)
    tableau = TABLEAUS["sri2w1"]


@final
class SOSRI(SRI):
    r"""Rackauckas and Nie's SOSRI, four drifts and four diffusions a step: as :class:`SRI1W1`, made to be stable.

    The paper's nodes of the drift are row sums of $A^0$, −0.04 and 3.75 among them, which lie outside of the step. The
    drift is asked at its two ends instead (:func:`ends`): where the drift does not depend on time, this is the paper's
    method, and where it does, it is another of the same orders that never looks past the interval.

    References: [rackauckas2020].
    """

    spec = _spec("sosri", "Rackauckas and Nie's SOSRI: as SRI1W1, stable on larger steps", "rackauckas2020", 4, 2.0)
    tableau = TABLEAUS["sosri"]
