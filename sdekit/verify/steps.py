"""The steps of the production stepper one by one, with their noise as standard normals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit import doors
from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.fresh import fresh_shape
from sdekit.steppers.base import Memory, Prepared, Stepper
from sdekit.typing import Increments
from sdekit.verify.draws import check_gaussian

_ROUNDING = 1e-12  # of the state


@dataclass(frozen=True)
class Steps:
    """A stepper bound to a problem and its times, step by step.

    Attributes:
        name: Of the stepper.
        prepared: What it made of the problem.
        event: Shape of a state.
        noise: Event shape of the noise; None where nothing is drawn.
        increments: What the stepper asks of its noise.
    """

    name: str
    prepared: Prepared
    event: torch.Size
    noise: torch.Size | None
    increments: Increments

    @classmethod
    def of(cls, sde: SDE, stepper: Stepper, times: Sequence[float], event: torch.Size) -> Steps:
        """Bind a stepper to distinct times, for states of shape E, at least one-dimensional."""
        check_gaussian(stepper)
        prepared, shape = stepper.prepare(sde, times), event or torch.Size((1,))
        one = torch.zeros(1, *shape, dtype=torch.float64)
        noise = doors.noise_event(sde, one, prepared, times[0])
        return cls(stepper.spec.name, prepared, shape, noise, stepper.spec.increments)

    def __len__(self) -> int:
        return len(self.prepared.draws)

    def normals(self, k: int) -> int:
        """J, the standard normals of step k: of W, and H or two-point ones, for every draw and noise; those beside."""
        return self._of_path(k) + sum(shape.numel() for shape in self._fresh(k))

    def _fresh(self, k: int) -> list[torch.Size]:
        """Shapes of what step k draws beside the path."""
        return [fresh_shape(kind, self.event) for kind in self.prepared.fresh[k]] if self.prepared.fresh else []

    def _of_path(self, k: int) -> int:
        if self.noise is None:
            return 0
        pairs = self.increments in ("space-time", "two-point")
        return len(self.prepared.draws[k]) * self.noise.numel() * (2 if pairs else 1)

    def advance(self, k: int, x: Tensor, z: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        """Step k from states (B, d) with standard normals (B, J); a state is given and returned flat."""
        increments = []
        intervals = self.prepared.draws[k]
        if self.noise is not None and intervals:
            parts = z[:, : self._of_path(k)].reshape(len(x), len(intervals), -1, *self.noise)
            for i, (s, t) in enumerate(intervals):
                root = abs(t - s) ** 0.5
                w, h, coins = parts[:, i, 0] * root, None, None
                if self.increments == "space-time":
                    h = parts[:, i, 1] * (abs(t - s) / 12.0) ** 0.5
                if self.increments == "two-point":
                    coins = parts[:, i, 1] * root
                increments.append(Increment(w, h, coins=coins))
        beside = self._fresh(k)
        columns = torch.split(z[:, self._of_path(k) :], [shape.numel() for shape in beside], dim=1) if beside else ()
        increments += [Increment(c.reshape(-1, *shape)) for c, shape in zip(columns, beside, strict=True)]
        y, memory = self.prepared.advance(k, x.reshape(-1, *self.event), tuple(increments), memory)
        return y.flatten(1), memory

    def check_memory(self, x: Tensor, method: str) -> None:
        """Raise unless every step gives the same with and without what the last one left behind.

        Args:
            x: States to start from, (B, d).
            method: What needs it, for the message.
        """
        memory = None
        for k in range(len(self)):
            z = witness(len(x), self.normals(k))
            try:
                alone = self.advance(k, x, z)[0]
            except (IndexError, KeyError, TypeError):
                alone = torch.full_like(x, math.nan)
            x, memory = self.advance(k, x, z, memory)
            if not bool(x.isfinite().all()):
                return  # it explodes, which says nothing about memory
            if not bool((x - alone).abs().max() <= _ROUNDING * (1 + x.abs().max())):
                raise SdekitError(
                    f"Step {k} of {self.name} depends on the step before it: {method} is for one-step methods. "
                    "With Gaussian data, verify.numerical_law takes multistep methods too."
                )


def witness(rows: int, columns: int) -> Tensor:
    """Fixed generic noises, (rows, columns)."""
    numbers = torch.arange(1, rows * columns + 1, dtype=torch.float64)
    return 2.0 * torch.sin(numbers * 2.4).reshape(rows, columns)
