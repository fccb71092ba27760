"""One attempt of a step, for many samples at once: where it leads, how far off it may be, how long the next is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.controllers import PID, Steering
from sdekit.dynamics import SDE, Reflected, samples_inside
from sdekit.local_time import LocalTime
from sdekit.steppers.base import EmbeddedMethod
from sdekit.typing import Inside

# K_P, K_I and s. Errors of single steps are noise, and steps that follow it are of unequal lengths for nothing: that
# takes twice the attempts to the same accuracy. Aimed at is s^(k / K_I), 0.2 for k = 3/2: of a hundred steps one is
# refused.
_GAINS = 0.0, 0.05, 0.95


class Judged(NamedTuple):
    """What came of an attempt.

    Attributes:
        after: The states after it, shape (B, *E).
        accept: Who goes on from there.
        wanted: How long everyone's next step is to be.
        memory: Log errors of the last accepted steps, as many as the controller asks for.
    """

    after: Tensor
    accept: Tensor
    wanted: Tensor
    memory: list[Tensor]


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

    @cached_property
    def steering(self) -> Steering:
        """The controller's law for this method."""
        return self.controller.steering(self.stepper.estimate_order(self.sde.noise_type), _GAINS)

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
        lengths: tuple[Tensor, Tensor],
        memory: list[Tensor],
    ) -> Judged:
        """A step of everyone.

        Args:
            start: Of the steps, in a clock that runs forwards.
            end: Of the steps.
            x: The states there.
            drawn: What the path does.
            may: Whose step counts; what is said about the others does not.
            lengths: Of the steps, in any unit, and of those that were wanted, which are not shorter.
            memory: As it was left.
        """
        after, estimate = self.step(start, end, x, drawn)
        error = self.controller.error(estimate, x, after)
        if self.inside is not None:
            error = error.masked_fill(~samples_inside(self.inside, after), torch.inf)
        accept = may & (error <= 0.0)
        # A tree seldom has a step of the length that is wanted: control is of the error that such a one would have.
        length, wanted = lengths[0].double(), lengths[1]
        error = error + self.steering.order * (wanted / length).log()
        longer = wanted * self.steering.factor([error, *memory], ~accept)
        shorter = torch.minimum(longer, self.steering.safety * length)  # factors are bounded from below
        kept = [torch.where(accept, new, old) for new, old in zip([error, *memory], memory, strict=False)]
        return Judged(after, accept, torch.where(accept, longer, shorter), kept)
