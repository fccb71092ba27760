r"""Metropolis-adjusted Langevin: the steps of ULA as proposals, accepted so that the target is kept exactly.

From x with the score s, propose $y = x + \gamma s_x + \sqrt{2\gamma}\,z$, and accept it with probability

$$ \min\Bigl(1, \frac{p(y)\,q(x \mid y)}{p(x)\,q(y \mid x)}\Bigr), \qquad
   \log\frac{q(x \mid y)}{q(y \mid x)} = -\sqrt{\tfrac\gamma2}\;z \cdot S - \tfrac\gamma4 |S|^2, \;\; S = s_x + s_y . $$

The ratio of proposals is written so that nothing cancels; without it the chain would be biased like ULA. The target is
stationary for every γ, and reached if the chain is ergodic; steps that are too long are rejected, not wrong.

References: [roberts1996].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.langevin import Density, Langevin
from sdekit.steppers.base import Memory, Prepared, Spec, Stepper


class Place(NamedTuple):
    """A state with what a Metropolis step knows of it: its score, (B, *E), and log density, (B,)."""

    x: Tensor
    score: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Metropolis:
    """Metropolis steps for one target.

    Attributes:
        score: States to scores.
        log_prob: States to log densities, up to a constant.
        gamma: γ.
    """

    score: Callable[[Tensor], Tensor]
    log_prob: Density
    gamma: float

    def place(self, x: Tensor) -> Place:
        """A state with its score and log density."""
        return Place(x, self.score(x), self.log_prob(x))

    def log_ratio(self, here: Place, there: Place, z: Tensor) -> Tensor:
        """The logarithm of p(y) q(x | y) / p(x) q(y | x), (B,)."""
        both = here.score + there.score
        proposals = (both * (math.sqrt(0.5 * self.gamma) * z + (0.25 * self.gamma) * both)).flatten(1).sum(1)
        return there.log_prob - here.log_prob - proposals

    def __call__(self, here: Place, z: Tensor, coin: Tensor) -> tuple[Place, Tensor]:
        """One step, and whether it was accepted, (B,).

        Args:
            here: Where the chain is.
            z: Standard normals like the state.
            coin: Standard normals, one for every sample: Φ of it is uniform.
        """
        there = self.place(here.x.add(here.score, alpha=self.gamma).add_(z, alpha=math.sqrt(2.0 * self.gamma)))
        accepted = torch.special.log_ndtr(coin.flatten()) < self.log_ratio(here, there, z)  # NaN is refused
        wide = accepted.reshape(-1, *(1,) * (z.ndim - 1))
        x, score = torch.where(wide, there.x, here.x), torch.where(wide, there.score, here.score)
        return Place(x, score, torch.where(accepted, there.log_prob, here.log_prob)), accepted


@final
class MALA(Stepper):
    r"""The Metropolis-adjusted Langevin algorithm on :class:`sdekit.Langevin`; γ is the step of the grid.

    Its stationary law is the target, for every γ. ``Solution.diagnostics["acceptance"]`` is the share of accepted steps
    of every sample; 0.574 is best in high dimensions [roberts1998].

    References: [roberts1996].
    """

    spec = Spec(
        name="mala",
        summary="Metropolis-adjusted Langevin: the target is kept exactly, acceptance is reported",
        references=("roberts1996",),
        kind="chain",
        evaluations=1,
        noise_types=frozenset({"additive"}),
        needs_langevin=True,
    )
    rule: ClassVar[type[Metropolis]] = Metropolis

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        if not isinstance(sde, Langevin):
            raise SdekitError(f"mala needs sk.Langevin(target); got {type(sde).__name__}.")
        log_prob, steps = sde.log_prob, list(pairwise(times))
        if log_prob is None:
            raise SdekitError(
                "mala needs the log density of its target, and a score does not tell it: Langevin(law), "
                "Langevin(score, log_prob=...), Langevin.from_log_prob(...), or ula, which is biased."
            )
        density = log_prob

        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            start, gamma = steps[k][0], steps[k][1] - steps[k][0]
            step = self.rule(lambda y: sde.score(start, y), density, gamma)
            here, count = memory or (step.place(x), Acceptance.none(x))
            moved, coin = increments
            here, accepted = step(here, moved.w * gamma**-0.5, coin.w)
            return here.x, (here, count.with_(accepted))

        return Prepared(
            [(step,) for step in steps],
            advance,
            noise_like_state=True,
            fresh=[("sample",)] * len(steps),
            report=lambda memory: memory[1].report(),
        )


class Acceptance(NamedTuple):
    """How many steps of every sample were accepted, (B,), of how many."""

    accepted: Tensor
    steps: int

    @classmethod
    def none(cls, x: Tensor) -> Acceptance:
        """Before the first step."""
        return cls(torch.zeros(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device), 0)

    def with_(self, accepted: Tensor) -> Acceptance:
        """After one more step."""
        return Acceptance(self.accepted + accepted, self.steps + 1)

    def report(self) -> Mapping[str, Tensor]:
        """The share of accepted steps."""
        return {"acceptance": self.accepted / max(1, self.steps)}
