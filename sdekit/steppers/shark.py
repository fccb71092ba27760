r"""Runge–Kutta methods for additive noise from straight paths that share W and H with the Brownian one.

A path of pieces that are straight, of the noise or of the time, turns $dx = f(t, x)\,dt + G(t)\,dW$ into ODEs, and
Runge–Kutta steps for these into a method. Noise that depends on the time moves the state by

$$ \int_{t_0}^{t_1} G\,dW = G(t_0)\,W + (G(t_1) - G(t_0))\,(\tfrac12 W - H) + O(h^{2.5}), $$

which is exact where G is linear. With additive noise the calculi of Itô and Stratonovich agree.

References: [foster2024srk].
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import Memory, Spec, Step, StepMethod
from sdekit.steppers.coefficients import node
from sdekit.typing import Calculus

BOTH: frozenset[Calculus] = frozenset({"ito", "stratonovich"})


def _moved(sde: SDE, t1: float, x: Tensor, g: Tensor, increment: Increment) -> Tensor:
    """X + ∫ G dW, with G as a line through its values at both ends; g is G(t₀)."""
    later = sde.diffusion(t1, x) - g
    moved = x + times_noise(g, increment.w)
    return moved.add_(times_noise(later, increment.w.mul(0.5).sub_(increment.h)))


@final
class SEA(StepMethod):
    r"""The shifted Euler method with additive noise.

    $$ x \leftarrow x + f\bigl(t, x + G(t)\,(\tfrac12 W + H)\bigr)\,h + \int G\,dW , $$

    the integral as above. The drift sees the mean of the path over the step, so that what is left is the error of
    Euler's method for ODEs: strong and weak order 1.

    References: [foster2024srk] (5.8).
    """

    spec = Spec(
        name="sea",
        summary="shifted Euler: additive noise for one drift a step, order 1",
        references=("foster2024srk",),
        kind="step",
        evaluations=1,
        ode=1.0,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 1.0, "additive": 1.0},
        noise_types=frozenset({"none", "additive"}),
        calculus=BOTH,
        increments="space-time",
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h = t1 - t0
        if increment is None:
            return Step(x.add(sde.drift(t0, x), alpha=h))
        g = sde.diffusion(t0, x)
        shifted = x + times_noise(g, increment.h.add(increment.w, alpha=0.5))
        return Step(_moved(sde, t1, x, g, increment).add_(sde.drift(t0, shifted), alpha=h))


@final
class ShARK(StepMethod):
    r"""The shifted additive-noise Runge–Kutta method, two drifts and two diffusions a step.

    $$ X_1 = x + G(t)\,H, \qquad
       X_2 = X_1 + \tfrac56 \bigl(f(t, X_1)\,h + G(t)\,W\bigr), $$

    $$ x \leftarrow x + \tfrac25 f(t, X_1)\,h + \tfrac35 f(t + \tfrac56 h, X_2)\,h + \int G\,dW , $$

    the integral as above. Strong order 1.5, 2 if the drift is linear too; weak order 2.

    References: [foster2024srk] (6.1).
    """

    spec = Spec(
        name="shark",
        summary="ShARK: additive noise, strong order 1.5 (2 with a linear drift), weak order 2",
        references=("foster2024srk",),
        kind="step",
        evaluations=2,
        ode=2.0,
        strong={"linear-additive": 2.0, "additive": 1.5},
        weak={"linear-additive": 2.0, "additive": 2.0},
        noise_types=frozenset({"none", "additive"}),
        calculus=BOTH,
        increments="space-time",
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h, late = t1 - t0, node(t0, t1, 5.0 / 6.0)
        if increment is None:
            first = sde.drift(t0, x)
            second = sde.drift(late, x.add(first, alpha=5.0 / 6.0 * h))
            return Step(x.add(first, alpha=0.4 * h).add_(second, alpha=0.6 * h))
        g = sde.diffusion(t0, x)
        start = x + times_noise(g, increment.h)
        first = sde.drift(t0, start)
        inner = start.add(first, alpha=5.0 / 6.0 * h).add_(times_noise(g, increment.w), alpha=5.0 / 6.0)
        second = sde.drift(late, inner)
        return Step(_moved(sde, t1, x, g, increment).add_(first, alpha=0.4 * h).add_(second, alpha=0.6 * h))
