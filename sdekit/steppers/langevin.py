r"""Unadjusted Langevin chains: steps $x + \gamma s + \sqrt{2\gamma}\,z$, on one target or down the levels of a process.

References: [roberts1996], [durmus2019], [song2019ncsn].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.fresh import Fresh
from sdekit.langevin import LangevinStep, scheduled_reverse
from sdekit.score import centred, uncentred
from sdekit.steppers.base import Memory, Prepared, Spec, Step, StepMethod, Stepper


@final
class ULA(StepMethod):
    r"""The unadjusted Langevin algorithm, $x_{k+1} = x_k + \gamma\,s(x_k) + \sqrt{2\gamma}\,z_k$.

    Euler–Maruyama on :class:`sdekit.Langevin`; γ is the step of the grid. It is biased: for $N(m, \Lambda^{-1})$ the
    stationary covariance is $\Lambda^{-1}(1 - \tfrac12\gamma\Lambda)^{-1}$, so that
    $W_2 = \gamma\sqrt{\operatorname{tr}\Lambda}/4 + O(\gamma^2)$. For a target that is m-strongly log-concave with
    an L-Lipschitz score in d dimensions, $W_2^2 < \epsilon$ is guaranteed once

    $$ \gamma < \min\bigl(m\epsilon/(4 L d),\; 1/L\bigr), \qquad
       k > \log\bigl(2 W_2^2(\mu_0, p)/\epsilon\bigr) / (\gamma m) . $$

    References: [durmus2019], Corollary 10; [roberts1996].
    """

    spec = Spec(
        name="ula",
        summary="unadjusted Langevin: Euler–Maruyama on a Langevin diffusion, biased by O(γ)",
        references=("durmus2019", "roberts1996"),
        kind="step",
        evaluations=1,
        strong={"linear-additive": 1.0, "additive": 1.0},
        weak={"linear-additive": 1.0, "additive": 1.0},
        noise_types=frozenset({"additive"}),
        needs_langevin=True,
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        assert increment is not None
        return Step(x.add(sde.drift(t0, x), alpha=t1 - t0).addcmul_(sde.diffusion(t0, x), increment.w))


@final
class AnnealedLangevin(Stepper):
    r"""Langevin chains down the levels of a grid, n steps on each.

    For SMLD the steps are $x + \tfrac12 a_i\,s(\sigma_i, x) + \sqrt{a_i}\,z$ with
    $a_i = \epsilon\,\sigma_i^2/\sigma_{\min}^2$. A process with a schedule is SMLD in $y = (x - m_t)/\alpha_t$, with
    levels $\rho = \sigma/\alpha$ and the score $\alpha s$. Written back in x, a step of the grid s → t is

    $$ x \leftarrow m_t + \tfrac{\alpha_t}{\alpha_s}(x - m_s), \qquad\text{then n times}\quad
       x \leftarrow x + \gamma_t\,s(t, x) + \sqrt{2\gamma_t}\,z, \qquad
       \gamma_t = \frac{\epsilon}{2}\,\frac{\sigma_t^2}{\rho_{\min}^2} , $$

    with $\rho_{\min}$ the least of the grid. The start stands for the first level; the problem's η does not matter. It
    integrates nothing: at fixed ε and n the law does not converge with the number of levels, it has the bias of ULA.

    Args:
        epsilon: ε, twice the γ of the last level where α = 1; by default $0.2\,\rho_{\min}^2$, the paper's choice.
        steps: n on each level; the paper takes 100 of them.

    Raises:
        SdekitError: a step size that is not positive, or no steps.

    References: [song2019ncsn], Algorithm 1.
    """

    spec = Spec(
        name="annealed-langevin",
        summary="annealed Langevin of NCSN: n unadjusted steps on every level of the grid, biased",
        references=("song2019ncsn",),
        kind="chain",
        evaluations=5,
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
    )

    def __init__(self, epsilon: float | None = None, steps: int = 5) -> None:
        if epsilon is not None and not 0.0 < epsilon < math.inf:
            raise SdekitError(f"annealed-langevin needs a step size epsilon > 0; got {epsilon}.")
        if steps < 1:
            raise SdekitError(f"annealed-langevin takes at least one step on a level; got steps = {steps}.")
        self.epsilon, self.steps = epsilon, steps
        self.spec = replace(type(self).spec, evaluations=steps)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"AnnealedLangevin(epsilon={self.epsilon}, steps={self.steps})"

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        reverse = scheduled_reverse(sde, self.spec.name)
        process, schedule, score = reverse.linear_process, reverse.schedule, reverse.score
        assert schedule is not None
        least = math.exp(-max(schedule.lam(t) for t in times[1:]))
        epsilon = 0.2 * least**2 if self.epsilon is None else self.epsilon
        chains = [LangevinStep.from_alpha(epsilon * schedule.sigma(t) ** 2 / least**2) for t in times[1:]]
        scales = [math.exp(schedule.log_alpha(t) - schedule.log_alpha(s)) for s, t in pairwise(times)]

        fresh: list[Fresh] = ["state"] * self.steps

        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            t = times[k + 1]
            x = uncentred(process, t, centred(process, times[k], x) * scales[k])
            for z in increments:
                x = chains[k](x, score(t, x), z.w)
            return x, None

        return Prepared([()] * len(chains), advance, fresh=[fresh] * len(chains))
