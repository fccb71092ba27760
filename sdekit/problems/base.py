"""What a problem is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.laws import Law

ExactPath = Callable[[Tensor, Tensor], Tensor]
"""``(x0, w) -> x1``: the solution at the end, from the initial state and the Brownian motion there."""


@dataclass(frozen=True)
class Problem:
    """An SDE with an exact answer.

    Attributes:
        name: Name in the registry.
        summary: One line for tables.
        detects: The mistake that this problem brings to light.
        sde: The dynamics.
        initial: Law of the state at the first time of the grid.
        grid: ``grid(steps)``, the times.
        law: Exact law at the last time, where it is known.
        path: Exact solution at the last time on the same Brownian path, where it is known.
        flow: Exact solution of a deterministic problem at the last time, where it is known.
    """

    name: str
    summary: str
    detects: str
    sde: SDE
    initial: Law
    grid: Callable[[int], Tensor]
    law: Law | None = None
    path: ExactPath | None = None
    flow: Callable[[Tensor], Tensor] | None = None
