"""One attempt of a step, for many samples at once: where it leads, how far off it may be, how long the next is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.controllers import PID
from sdekit.dynamics import SDE, Reflected, samples_inside
from sdekit.local_time import LocalTime
from sdekit.steppers.base import EmbeddedMethod
from sdekit.typing import Inside


class Judged(NamedTuple):
    """What came of an attempt.

    Attributes:
        after: The states after it, shape (B, *E).
        error: Log of their errors in units of the tolerance, shape (B,).
        accept: Who goes on from there.
        factor: What everyone's step is to be multiplied by.
    """

    after: Tensor
    error: Tensor
    accept: Tensor
    factor: Tensor


@final
@dataclass(frozen=True)
class Attempt:
    """How attempts are made.

    Attributes:
        sde: The problem.
        stepper: A method with an error estimate.
        controller: Of the step sizes.
        backwards: Whether time falls.
        inside: Where states may be: a step that leads elsewhere is taken back; None for everywhere.
    """

    sde: SDE
    stepper: EmbeddedMethod
    controller: PID
    backwards: bool
    inside: Inside | None = None

    def step(self, start: Tensor, end: Tensor, x: Tensor, drawn: Increment | None) -> tuple[Tensor, Tensor]:
        """The states after steps from ``start`` to ``end``, in a clock that runs forwards, and their estimates."""
        local = LocalTime(Reflected(self.sde) if self.backwards else self.sde, start, end, x)
        increment = None if drawn is None else local.scaled(drawn.to(x.dtype))
        return self.stepper.pair(local, 0.0, 1.0, x, increment)

    def judge(
        self,
        start: Tensor,
        end: Tensor,
        x: Tensor,
        drawn: Increment | None,
        may: Tensor,
        before: tuple[Tensor, Tensor],
    ) -> Judged:
        """A step of everyone; ``may`` says whose counts, ``before`` the log errors of the last two accepted ones."""
        after, estimate = self.step(start, end, x, drawn)
        error = self.controller.error(estimate, x, after)
        if self.inside is not None:
            error = error.masked_fill(~samples_inside(self.inside, after), torch.inf)
        accept = may & (error <= 0.0)
        order = self.stepper.estimate_order(self.sde.noise_type)
        return Judged(after, error, accept, self.controller.factor((error, *before), accept, order))
