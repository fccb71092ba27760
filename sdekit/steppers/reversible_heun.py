r"""The reversible Heun method: a second state that the steps leave behind makes them exactly invertible.

$$ \hat x_{k+1} = 2 x_k - \hat x_k + \hat f_k h + \hat g_k W, \qquad
   \hat f_{k+1} = f(t_{k+1}, \hat x_{k+1}), \quad \hat g_{k+1} = g(t_{k+1}, \hat x_{k+1}), $$

$$ x_{k+1} = x_k + \tfrac12 (\hat f_k + \hat f_{k+1})\,h + \tfrac12 (\hat g_k + \hat g_{k+1})\,W , $$

from $\hat x_0 = x_0$. With −h and −W for h and W it is its own inverse, so that a gradient can be had without what
came before being stored. The price is stability: on $\dot x = \mu x$ a step has the eigenvalues
$\mu h \pm \sqrt{1 + \mu^2 h^2}$, of product −1. Both are bounded by 1 only for imaginary μh of modulus 1 at most, and
where x decays as $e^{-|\mu| t}$, $x - \hat x$ grows as $e^{|\mu| t}$, from $h^2$: not for stiff equations, nor for
reverse-time SDEs with noise, whose states shrink by orders of magnitude.

References: [kidger2021], Algorithms 1 and 2.
"""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import ALL_NOISE, Memory, Spec, Step, StepMethod


@final
class ReversibleHeun(StepMethod):
    r"""The reversible Heun method, one drift and one diffusion a step.

    Strong order ½, and 1 where noises commute or do not depend on the state; order 2 on ODEs, and in the law of linear
    equations with additive noise. Steps back are exact to round-off, by :meth:`back`.

    References: [kidger2021].
    """

    spec = Spec(
        name="reversible-heun",
        summary="reversible Heun: any Stratonovich SDE, algebraically reversible, not for stiff drifts",
        references=("kidger2021",),
        kind="step",
        evaluations=1,
        ode=2.0,
        strong={"linear-additive": 1.0, "additive": 1.0, "diagonal": 1.0, "commutative": 1.0, "general": 0.5},
        weak={"linear-additive": 2.0},
        noise_types=ALL_NOISE,
        calculus=frozenset({"stratonovich"}),
        remembers=True,
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h, w = t1 - t0, None if increment is None else increment.w
        hat, f, g = _seen(sde, t0, x, w) if memory is None else memory
        other, moved = x.mul(2.0).sub_(hat).add_(f, alpha=h), x.add(f, alpha=0.5 * h)
        if w is not None:
            kick = times_noise(g, w)
            other, moved = other.add_(kick), moved.add_(kick, alpha=0.5)
        seen = _seen(sde, t1, other, w)
        moved = moved.add_(seen[1], alpha=0.5 * h)
        return Step(moved if w is None else moved.add_(times_noise(seen[2], w), alpha=0.5), seen)

    def back(self, sde: SDE, t0: float, t1: float, step: Step, increment: Increment | None) -> Step:
        """The step that led here, undone.

        Args:
            sde: As for :meth:`step`.
            t0: Start of the step, where the result stands.
            t1: End of the step.
            step: What the step returned.
            increment: The Brownian increment over the step.
        """
        turned = None if increment is None else Increment(-increment.w)
        return self.step(sde, t1, t0, step.x, turned, step.memory)


def _seen(sde: SDE, t: float, x: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor, Any]:
    """The second state, with drift and diffusion there."""
    return x, sde.drift(t, x), None if w is None else sde.diffusion(t, x)
