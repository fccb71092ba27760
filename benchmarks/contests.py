"""A contest: the same work done by sdekit and by a rival, timed side by side. One row of a table is one contest."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit import random

Call = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """Where and on what a contest is held."""

    shape: tuple[int, ...]
    steps: int
    dtype: torch.dtype
    device: torch.device

    def state(self) -> Tensor:
        """A batch of standard normals."""
        keys = random.path_keys(0, self.shape[0], self.device)
        return random.normals(keys, self.shape[1:], stream=random.STREAM_LAW, dtype=self.dtype)[0]


Make = Callable[[Setting], tuple[Call, Call]]
"""Makes what is timed: ours, theirs."""


@dataclass(frozen=True)
class Contest:
    """One row."""

    work: str
    """What is done."""
    beside: str
    """Who else does it."""
    make: Make
    shape: tuple[int, ...]
    steps: int
    target: float | None = None
    """The ratio ours / theirs to stay below, on one CPU thread in float32."""
    needs: str | None = None
    """A package that has to be there."""
    full: bool = False
    """Whether --quick leaves it out."""
    counted: bool = False
    """Whether a call says how many evaluations it took; times are then per evaluation."""

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))

    def hold(self, timed: Any, dtype: torch.dtype, device: torch.device) -> None:
        """Time it."""
        ours, theirs = self.make(Setting(self.shape, self.steps, dtype, device))
        steps, beside_steps = (ours(), theirs()) if self.counted else (self.steps, self.steps)
        comparable = device.type == "cpu" and dtype == torch.float32
        timed(
            ours,
            theirs,
            steps=steps,
            beside_steps=beside_steps,
            kind="contest",
            work=self.work,
            ours="sdekit",
            beside=self.beside,
            shape=self.size,
            dtype=str(dtype).removeprefix("torch."),
            target=self.target if comparable else None,
        )


def rows(contests: Sequence[Contest]) -> list[Any]:
    """The parameters of a test, one for each contest."""
    return [pytest.param(c, marks=_marks(c), id=f"{c.work}-{c.beside}-{c.size}".replace(" ", "-")) for c in contests]


def _marks(contest: Contest) -> list[pytest.MarkDecorator]:
    missing = contest.needs is not None and importlib.util.find_spec(contest.needs) is None
    marks = [pytest.mark.skip(reason=f"{contest.needs} is not installed")] if missing else []
    return [*marks, pytest.mark.full] if contest.full else marks
