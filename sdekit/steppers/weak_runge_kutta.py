r"""Rößler's weak Runge–Kutta methods, a tableau each: any Itô noise at weak order 2, at a cost linear in the noises.

With m noises, three-point variables $\hat I_k$, $\pm\sqrt{3h}$ with probability ⅙ each and else 0, and two-point
variables $\tilde I_k = \pm\sqrt h$, k < m, and $\tilde I_m = \sqrt h$,

$$ \hat I_{(k,l)} = \tfrac12 (\hat I_k \hat I_l \mp \tilde I_k \tilde I_l),\; k \lessgtr l; \qquad
   \tfrac12 (\hat I_k^2 - h),\; k = l, $$

$$ H^0_i = x + h \textstyle\sum_j A^0_{ij} f(H^0_j) + \sum_k \sum_j B^0_{ij}\, g_k(H^k_j)\,\hat I_k, $$

$$ H^k_i = x + h \textstyle\sum_j A^1_{ij} f(H^0_j) + \sqrt h \sum_j B^1_{ij}\, g_k(H^k_j), $$

$$ \hat H^k_i = x + h \textstyle\sum_j A^2_{ij} f(H^0_j) + \sum_{l \ne k} \sum_j B^2_{ij}\, g_l(H^l_j)\,
   \hat I_{(k,l)}/\sqrt h, $$

$$ x \leftarrow x + h \textstyle\sum_i \alpha_i f(H^0_i)
   + \sum_k \sum_i \bigl(\beta^1_i \hat I_k + \beta^2_i \hat I_{(k,k)}/\sqrt h\bigr)\,g_k(H^k_i)
   + \sum_k \sum_i \bigl(\beta^3_i \hat I_k + \beta^4_i \sqrt h\bigr)\,g_k(\hat H^k_i), $$

at the nodes $c^0 = A^0 e$, $c^1 = A^1 e$, $c^2 = A^2 e$.

With two noises $\hat I_{(1,2)} = \tfrac12 (\hat I_1 \hat I_2 - \sqrt h\,\tilde I_1)$. With $\sqrt h\,\tilde I_k$
for every l > k, as the rule is often given, $\hat I_{(k,l)}$ and $\hat I_{(k,l')}$ have the covariance $h^2/4$, not 0,
and three noises that do not commute have weak order 1. The products are uncorrelated, and take no variable more.

Noise of one column, and noise that is diagonal element by element, has no $\hat H^k$ to speak of: $\beta^3$ and
$\beta^4$ sum to zero. Nor has additive noise.

References: [rossler2009]; [debrabant2009] for DRI1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import ClassVar, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import ALL_NOISE, Memory, Spec, Step, StepMethod
from sdekit.steppers.coefficients import Matrix, Terms, Vector, combine, matrix, node, root, row_sums, terms, vector


@dataclass(frozen=True)
class WeakTableau:
    r"""Coefficients of a weak method.

    Attributes:
        A0: Drifts in a stage of the drift.
        A1: Drifts in a stage $H^k$.
        A2: Drifts in a stage $\hat H^k$.
        B0: Noises in a stage of the drift.
        B1: Noise k in a stage $H^k$.
        B2: The other noises in a stage $\hat H^k$.
        alpha: Weights of the drifts.
        beta1: Weights of $\hat I_k$ at $H^k$.
        beta2: Weights of $\hat I_{(k,k)}/\sqrt h$ at $H^k$.
        beta3: Weights of $\hat I_k$ at $\hat H^k$.
        beta4: Weights of $\sqrt h$ at $\hat H^k$.
        ode: Order on an ODE.
    """

    A0: Matrix
    A1: Matrix
    A2: Matrix
    B0: Matrix
    B1: Matrix
    B2: Matrix
    alpha: Vector
    beta1: Vector
    beta2: Vector
    beta3: Vector
    beta4: Vector
    ode: int

    @cached_property
    def plan(self) -> _Plan:
        """What the stage loop reads."""
        return _Plan.of(self)


@dataclass(frozen=True)
class _Stage:
    """Stage i of the drift, of the diffusion and of the hats: a node and a row of each matrix, and weights."""

    used: bool
    c0: float
    c1: float
    c2: float
    A0: Terms
    A1: Terms
    A2: Terms
    B0: Terms
    B1: Terms
    B2: Terms
    beta1: float
    beta2: float
    beta3: float
    beta4: float


@dataclass(frozen=True)
class _Plan:
    """A tableau in floats."""

    stages: tuple[_Stage, ...]
    alpha: Terms

    @classmethod
    def of(cls, t: WeakTableau) -> _Plan:
        size = range(len(t.alpha))
        used = {j for j in size if t.alpha[j] or any(row[j] for a in (t.A1, t.A2) for row in a)}
        for i in reversed(size):
            used |= {j for j in range(i) if t.A0[i][j] and i in used}

        def stage(i: int) -> _Stage:
            c0, c1, c2 = (float(row_sums(a)[i]) for a in (t.A0, t.A1, t.A2))
            A0, A1, A2, B0, B1, B2 = (terms(a[i]) for a in (t.A0, t.A1, t.A2, t.B0, t.B1, t.B2))
            betas = [float(beta[i]) for beta in (t.beta1, t.beta2, t.beta3, t.beta4)]
            return _Stage(i in used, c0, c1, c2, A0, A1, A2, B0, B1, B2, *betas)

        return cls(tuple(map(stage, size)), terms(t.alpha))


@dataclass(frozen=True)
class Columns:
    """The diffusion of an SDE as a weak method sees it.

    Attributes:
        diffusion: (t, x) to G: of the shape of x for a noise to every element, or one to all; else ``(*x, m)``.
        w: The three-point variables, such that :func:`~sdekit.dynamics.times_noise` multiplies G by them.
        mixing: Whether there are several noises whose columns depend on the state.
        additive: Whether none does.
    """

    diffusion: Callable[[float, Tensor], Tensor]
    w: Tensor
    mixing: bool
    additive: bool

    @classmethod
    def of(cls, sde: SDE, t: float, x: Tensor, increment: Increment) -> tuple[Columns, Tensor]:
        """From what the SDE says that it is; with G at the start of the step."""
        g, shape, additive = sde.diffusion(t, x), x.shape, sde.noise_type == "additive"
        if g.ndim > x.ndim and g.shape[-1] > 1:
            return cls(sde.diffusion, increment.w, not additive, additive), g
        if sde.noise_type == "general" and x[0].numel() > 1 and g.shape == shape:
            return cls(partial(_diagonal, sde), increment.w.flatten(1), True, False), _as_diagonal(g)
        single = g.ndim > x.ndim or sde.noise_type == "scalar"
        w = increment.w.reshape(-1, *(1,) * (x.ndim - 1)) if single else increment.w
        return cls(lambda t, y: sde.diffusion(t, y).reshape(shape), w, False, additive), g.reshape(shape)

    def at(self, t: float, x: Tensor, moved: Callable[[int], Tensor]) -> Tensor:
        """G whose column k is taken at the state ``moved(k)``."""
        if self.mixing:
            return torch.stack([self.diffusion(t, moved(k))[..., k] for k in range(self.w.shape[1])], -1)
        return self.diffusion(t, x if self.additive else moved(0))

    def own(self, g: Tensor, k: int) -> Tensor:
        """Column k of G; G itself where there is but one."""
        return g[..., k] if self.mixing else g


def _diagonal(sde: SDE, t: float, x: Tensor) -> Tensor:
    return _as_diagonal(sde.diffusion(t, x))


def _as_diagonal(g: Tensor) -> Tensor:
    return torch.diag_embed(g.flatten(1)).reshape(*g.shape, -1)


def double_integrals(increment: Increment, h: float) -> Tensor:
    r"""$\hat I_{(k,l)}$, shape (B, m, m)."""
    w, coins = (v.flatten(1) for v in (increment.w, increment.two_point))
    coins = torch.cat([coins[:, :-1], torch.full_like(coins[:, -1:], h**0.5)], 1)
    upper = torch.ones(w.shape[1], w.shape[1], dtype=w.dtype, device=w.device).triu()
    return 0.5 * (w[:, :, None] * w[:, None] - (2.0 * upper - 1.0) * (coins[:, :, None] * coins[:, None]))


def weak_step(tableau: WeakTableau, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None) -> Step:
    """One step; without an increment that of the Runge–Kutta method for the drift."""
    plan, h = tableau.plan, t1 - t0
    columns, start = (None, None) if increment is None else Columns.of(sde, t0, x, increment)
    f: dict[int, Tensor] = {}
    g: list[Tensor] = []
    for i, stage in enumerate(plan.stages):
        if stage.used:
            noises = [(b, times_noise(g[j], columns.w)) for j, b in stage.B0] if columns else []
            at = combine(x, [*((h * a, f[j]) for j, a in stage.A0), *noises])
            f[i] = sde.drift(node(t0, t1, stage.c0), at)
        if columns and start is not None:
            g.append(_column_stage(stage, columns, t0, t1, x, f, g) if i else start)
    parts = [(h * a, f[i]) for i, a in plan.alpha]
    if columns and increment is not None:
        square = (columns.w * columns.w - h) * (0.5 / h**0.5)
        weights = [s.beta1 * columns.w + s.beta2 * square for s in plan.stages]
        parts += [(1.0, times_noise(v, weight)) for v, weight in zip(g, weights, strict=True)]
        if columns.mixing:
            mixed = double_integrals(increment, h) / h**0.5
            parts += [(1.0, part) for part in _hats(plan, columns, t0, t1, x, f, g, mixed)]
    return Step(combine(x, parts))


def _column_stage(
    stage: _Stage, columns: Columns, t0: float, t1: float, x: Tensor, f: Mapping[int, Tensor], g: Sequence[Tensor]
) -> Tensor:
    """$g_k(H^k)$ of a stage, for every k."""
    h = t1 - t0
    base = combine(x, [(h * a, f[j]) for j, a in stage.A1])
    rows = [(h**0.5 * b, g[j]) for j, b in stage.B1]

    def moved(k: int) -> Tensor:
        return combine(base, [(b, columns.own(v, k)) for b, v in rows])

    return columns.at(node(t0, t1, stage.c1), x, moved)


def _hats(
    plan: _Plan,
    columns: Columns,
    t0: float,
    t1: float,
    x: Tensor,
    f: Mapping[int, Tensor],
    g: Sequence[Tensor],
    mixed: Tensor,
) -> Iterator[Tensor]:
    r"""What the $g_k(\hat H^k)$ add, stage by stage, with $\hat I_{(k,l)}/\sqrt h$ given."""
    h, others = t1 - t0, 1.0 - torch.eye(mixed.shape[1], dtype=mixed.dtype, device=mixed.device)
    mixed = mixed * others
    for i, stage in enumerate(plan.stages):
        base = combine(x, [(h * a, f[j]) for j, a in stage.A2])
        rows = [(b, g[j]) for j, b in stage.B2]
        spread = combine(torch.zeros_like(g[0]), rows)

        def moved(k: int, base: Tensor = base, spread: Tensor = spread) -> Tensor:
            return base + times_noise(spread, mixed[:, k])

        still = not (stage.A2 or rows)
        hat = g[0] if still and i == 0 else columns.at(node(t0, t1, stage.c2), x, moved)
        yield times_noise(hat, stage.beta3 * columns.w + stage.beta4 * h**0.5)


class WeakRungeKutta(StepMethod):
    """A weak Runge–Kutta method: a tableau in the stage loop."""

    tableau: ClassVar[WeakTableau]

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        return weak_step(self.tableau, sde, t0, t1, x, increment)


_ZERO = matrix("", "", "")
_ONE = matrix("", "1", "-1")
_ROOT6, _D1, _D2 = root("6"), root("38/491"), root("221/4955")
_MIXED = tuple(_D2 * v for v in vector("1070/513 491/513 491/513"))

TABLEAUS: dict[str, WeakTableau] = {
    "ri1": WeakTableau(
        A0=matrix("", "2/3", "-1/3 1"),
        A1=matrix("", "1", "1"),
        A2=_ZERO,
        B0=matrix("", "1", ""),
        B1=_ONE,
        B2=_ONE,
        alpha=vector("1/4 1/2 1/4"),
        beta1=vector("1/2 1/4 1/4"),
        beta2=vector("0 1/2 -1/2"),
        beta3=vector("-1/2 1/4 1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=3,
    ),
    "ri3": WeakTableau(
        A0=matrix("", "1", "1/4 1/4"),
        A1=matrix("", "1", "1"),
        A2=_ZERO,
        B0=matrix("", [(3 - 2 * _ROOT6) / 5], [(6 + _ROOT6) / 10]),
        B1=_ONE,
        B2=_ONE,
        alpha=vector("1/6 1/6 2/3"),
        beta1=vector("1/2 1/4 1/4"),
        beta2=vector("0 1/2 -1/2"),
        beta3=vector("-1/2 1/4 1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=3,
    ),
    "ri5": WeakTableau(
        A0=matrix("", "1", "25/144 35/144"),
        A1=matrix("", "1/4", "1/4"),
        A2=_ZERO,
        B0=matrix("", "1/3", "-5/6"),
        B1=matrix("", "1/2", "-1/2"),
        B2=_ONE,
        alpha=vector("1/10 3/14 24/35"),
        beta1=vector("1 -1 -1"),
        beta2=vector("0 1 -1"),
        beta3=vector("1/2 -1/4 -1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=3,
    ),
    "ri6": WeakTableau(
        A0=matrix("", "1", ""),
        A1=matrix("", "1", "1"),
        A2=_ZERO,
        B0=matrix("", "1", ""),
        B1=_ONE,
        B2=_ONE,
        alpha=vector("1/2 1/2 0"),
        beta1=vector("1/2 1/4 1/4"),
        beta2=vector("0 1/2 -1/2"),
        beta3=vector("-1/2 1/4 1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=2,
    ),
    "dri1": WeakTableau(
        A0=matrix("", "1/2", "-1 2"),
        A1=matrix("", "342/491", "342/491"),
        A2=_ZERO,
        B0=matrix("", [(6 - _ROOT6) / 10], [(3 + 2 * _ROOT6) / 5]),
        B1=matrix("", [3 * _D1], [-3 * _D1]),
        B2=matrix("", [-v for v in _MIXED], _MIXED),
        alpha=vector("1/6 2/3 1/6"),
        beta1=vector("193/684 491/1368 491/1368"),
        beta2=(Fraction(0), 1 / (6 * _D1), -1 / (6 * _D1)),
        beta3=vector("-4955/7072 4955/14144 4955/14144"),
        beta4=(Fraction(0), -1 / (8 * _D2), 1 / (8 * _D2)),
        ode=3,
    ),
}
"""Name → published tableau; a method may take any of them."""


def weak_spec(name: str, summary: str, reference: str, evaluations: int, ode: float) -> Spec:
    """The facts of a method of weak order 2 for any Itô noise."""
    classes = ("linear-additive", "additive", "diagonal", "commutative", "general")
    return Spec(
        name=name,
        summary=summary,
        references=(reference,),
        kind="step",
        evaluations=evaluations,
        ode=ode,
        weak=dict.fromkeys(classes, 2.0),
        noise_types=ALL_NOISE,
        increments="two-point",
        eta=(0.0, float("inf")),
    )


@final
class RI6(WeakRungeKutta):
    """Rößler's RI6: weak order 2 for any Itô noise, two drifts a step.

    One evaluation of the diffusion and four for every noise that mixes with others, three in all for diagonal, scalar
    and additive noise. With a single noise it is :class:`PlatenWeak2`.

    References: [rossler2009].
    """

    spec = weak_spec("ri6", "Rößler's RI6: any Itô noise, weak order 2", "rossler2009", 2, 2.0)
    tableau = TABLEAUS["ri6"]


@final
class DRI1(WeakRungeKutta):
    """Debrabant and Rößler's DRI1: weak order 2 for any Itô noise, three drifts a step, order 3 on an ODE.

    As many evaluations of the diffusion as :class:`RI6`; its errors are smaller where the drift is what matters.

    References: [debrabant2009].
    """

    spec = weak_spec("dri1", "Debrabant and Rößler's DRI1: any Itô noise, weak order 2", "debrabant2009", 3, 3.0)
    tableau = TABLEAUS["dri1"]
