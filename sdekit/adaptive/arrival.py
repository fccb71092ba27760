"""What an adaptive run comes to, however it chose its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class Arrival:
    """What an adaptive run reached.

    Attributes:
        between: The states at the times inside the interval, shape (T, B, *E); where a sample did not get, its last.
        final: The last states, shape (B, *E).
        status: How each sample ended, int8 of shape (B,).
        attempts: Of the whole batch.
        accepted: Steps of every sample, shape (B,).
        rejected: Those that were taken back.
        evaluations: How often the field was asked for every sample, while it was on its way; None where all
            are asked alike.
    """

    between: Tensor
    final: Tensor
    status: Tensor
    attempts: int
    accepted: Tensor
    rejected: Tensor
    evaluations: Tensor | None = None

    def select(self, row: int) -> Arrival:
        """That of one sample."""
        one = slice(row, row + 1)
        each = (self.between[:, one], self.final[one], self.status[one], self.attempts, self.accepted[one])
        return Arrival(*each, self.rejected[one], None if self.evaluations is None else self.evaluations[one])
