r"""Milstein's method for several noises, whose fields are derived along one another.

$$ x \leftarrow x + f h + \sum_j g_j W_j + \sum_{i,j} (Dg_j\,g_i)\,I_{(i,j)}, \qquad
   I_{(i,j)} = \int_s^t (W^i_u - W^i_s)\,dW^j_u = \tfrac12 (W_i W_j - \delta_{ij} h) + A_{ij} . $$

The sum over i is inside: $\sum_j Dg_j v_j$ with $v_j = \sum_i g_i I_{(i,j)}$, one Jacobian–vector product a noise, by
forward derivatives. Noise that acts element by element, or is one for all coordinates, takes the one product of
:class:`~sdekit.steppers.milstein.Milstein`.

References: [milstein1975], [kloeden1992] §10.3.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.func import jvp

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import ALL_NOISE, Memory, Spec, Step, StepMethod
from sdekit.steppers.milstein import Milstein

_CLASSES = ("linear-additive", "additive", "diagonal", "commutative")


def iterated(w: Tensor, h: float) -> Tensor:
    r"""$\tfrac12 (W_i W_j - \delta_{ij} h)$, shape (B, m, m), of increments (B, m)."""
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    return torch.sub(w[..., :, None] * w[..., None, :], eye, alpha=h).mul_(0.5)


def _columns(sde: SDE, t: float, x: Tensor) -> Tensor:
    """G with a column for every noise, shape (*x, m)."""
    g = sde.diffusion(t, x)
    return g if g.ndim > x.ndim else torch.diag_embed(g.flatten(1)).reshape(*x.shape, -1)


def several_noises(sde: SDE, t0: float, h: float, x: Tensor, w: Tensor, integrals: Tensor) -> Tensor:
    """One step with increments (B, m) and integrals (B, m, m)."""
    moved = x.add(sde.drift(t0, x), alpha=h)
    g = _columns(sde, t0, x)
    moved = moved.add_(times_noise(g, w))
    for j in range(g.shape[-1]):
        moved = moved.add_(_derivative(sde, t0, x, j, times_noise(g, integrals[..., j])))
    return moved


def _derivative(sde: SDE, t: float, x: Tensor, j: int, v: Tensor) -> Tensor:
    """Dg_j v."""
    along: Tensor = jvp(lambda y: _columns(sde, t, y)[..., j], (x,), (v,))[1]
    return along


@final
class MilsteinCommutative(StepMethod):
    r"""Milstein's method for noises that commute, $Dg_j\,g_i = Dg_i\,g_j$: Lévy areas cancel.

    $$ x \leftarrow x + f h + \sum_j g_j W_j + \tfrac12 \sum_{i,j} (Dg_j\,g_i)\,(W_i W_j - \delta_{ij} h) . $$

    m Jacobian–vector products for m noises. Strong and weak order 1; where noises do not commute the strong order
    would be ½.

    References: [kloeden1992], equation (10.3.16).
    """

    spec = Spec(
        name="milstein-commutative",
        summary="Milstein for several noises that commute: strong order 1 without Lévy areas",
        references=("milstein1975", "kloeden1992"),
        kind="step",
        evaluations=1,
        ode=1.0,
        strong=dict.fromkeys(_CLASSES, 1.0),
        weak=dict.fromkeys(_CLASSES, 1.0),
        noise_types=ALL_NOISE - {"general"},
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        if increment is None or sde.noise_type != "commutative":
            return Milstein().step(sde, t0, t1, x, increment, memory)
        h, w = t1 - t0, increment.w.flatten(1)
        return Step(several_noises(sde, t0, h, x, w, iterated(w, h)))


@final
class MilsteinGeneral(StepMethod):
    r"""Milstein's method for any noise, with the Lévy areas of its pairs.

    $$ x \leftarrow x + f h + \sum_j g_j W_j + \sum_{i,j} (Dg_j\,g_i)\,I_{(i,j)} . $$

    m Jacobian–vector products for m noises. Strong and weak order 1. The areas come with the increments
    (:mod:`sdekit.brownian.area`); one that is not of the path, or of the other sign, leaves strong order ½.

    References: [kloeden1992], equation (10.3.3).
    """

    spec = Spec(
        name="milstein-general",
        summary="Milstein for any Itô noise: strong order 1 with the Lévy areas",
        references=("milstein1975", "kloeden1992"),
        kind="step",
        evaluations=1,
        ode=1.0,
        strong={"commutative": 1.0, "general": 1.0},
        weak={"commutative": 1.0, "general": 1.0},
        noise_types=frozenset({"none", "commutative", "general"}),
        increments="full",
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        if increment is None:
            return Milstein().step(sde, t0, t1, x, increment, memory)
        h, w = t1 - t0, increment.w
        return Step(several_noises(sde, t0, h, x, w, iterated(w, h).add_(increment.area)))
