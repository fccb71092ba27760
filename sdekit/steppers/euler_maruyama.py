"""Euler–Maruyama."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import ALL_NOISE, Memory, Spec, Step, StepMethod


@final
class EulerMaruyama(StepMethod):
    r"""$x_{k+1} = x_k + f(t_k, x_k)\,h + G(t_k, x_k)\,\Delta W_k$.

    Strong order ½, and 1 where the noise does not depend on the state; weak order 1.

    References: [maruyama1955], [kloeden1992] §10.2.
    """

    spec = Spec(
        name="euler-maruyama",
        summary="Euler–Maruyama: any Itô SDE, strong order ½ (1 for additive noise)",
        references=("maruyama1955", "kloeden1992"),
        kind="step",
        evaluations=1,
        ode=1.0,
        strong={
            "linear-additive": 1.0,
            "additive": 1.0,
            "diagonal": 0.5,
            "commutative": 0.5,
            "general": 0.5,
        },
        weak=dict.fromkeys(("linear-additive", "additive", "diagonal", "commutative", "general"), 1.0),
        noise_types=ALL_NOISE,
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        moved = x.add(sde.drift(t0, x), alpha=t1 - t0)
        if increment is None:
            return Step(moved)
        g, w = sde.diffusion(t0, x), increment.w
        return Step(moved.addcmul_(g, w) if g.ndim == w.ndim else moved.add_(times_noise(g, w)))
