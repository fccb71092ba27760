"""Milstein's method for noise that acts element by element."""

from __future__ import annotations

from typing import final

from torch import Tensor
from torch.func import jvp

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import Memory, Spec, Step, StepMethod


@final
class Milstein(StepMethod):
    r"""$x_{k+1} = x_k + f h + g\,\Delta W_k + \tfrac12 (Dg\,g)(\Delta W_k^2 - h)$, element by element.

    For diagonal noise $(Dg\,g)_i = g_i \partial_i g_i$; for scalar noise it is the derivative of g along itself. Both
    are one Jacobian–vector product, by forward derivatives. On additive noise it is Euler–Maruyama.

    Strong and weak order 1.

    References: [milstein1975], [kloeden1992] §10.3.
    """

    spec = Spec(
        name="milstein",
        summary="Milstein: diagonal or scalar Itô noise, strong order 1",
        references=("milstein1975", "kloeden1992"),
        kind="step",
        evaluations=1,
        ode=1.0,
        strong=dict.fromkeys(("linear-additive", "additive", "diagonal", "commutative"), 1.0),
        weak=dict.fromkeys(("linear-additive", "additive", "diagonal", "commutative"), 1.0),
        noise_types=frozenset({"none", "additive", "scalar", "diagonal"}),
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h = t1 - t0
        moved = x.add(sde.drift(t0, x), alpha=h)
        if increment is None:
            return Step(moved)
        g, w = sde.diffusion(t0, x), increment.w
        if sde.noise_type == "additive":
            return Step(moved.add_(times_noise(g, w)))
        g = g.reshape(x.shape)
        if sde.noise_type == "scalar":
            w = w.reshape(-1, *(1,) * (x.ndim - 1))
        along: Tensor = jvp(lambda y: sde.diffusion(t0, y).reshape(x.shape), (x,), (g,))[1]
        return Step(moved.add_(g * w).add_(along * (w * w - h), alpha=0.5))
