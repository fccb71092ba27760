"""Counting what a stepper asks for, and checking the shape of every answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.langevin import Langevin
from sdekit.reverse import Reverse
from sdekit.score import Score
from sdekit.typing import Calculus, Direction, NoiseType, Time

LOOK_EVERY = 64
"""Steps between looks at whether any sample is still finite: each costs a host sync."""


@dataclass
class Counter:
    """Calls so far, each on the whole batch."""

    drift: int = 0
    diffusion: int = 0
    score: int = 0


def _check(name: str, answer: Tensor, x: Tensor) -> Tensor:
    if isinstance(answer, Tensor) and answer.shape == x.shape and answer.dtype is x.dtype and answer.device == x.device:
        return answer
    if not isinstance(answer, Tensor) or answer.shape != x.shape or answer.device != x.device:
        got = f"shape {tuple(answer.shape)} on {answer.device}" if isinstance(answer, Tensor) else type(answer).__name__
        raise SdekitError(
            f"The {name} returned {got} for a state of shape {tuple(x.shape)} on {x.device}: "
            "it must return one tensor like the state."
        )
    if answer.dtype != x.dtype and torch.promote_types(answer.dtype, x.dtype) != x.dtype:
        raise SdekitError(f"The {name} returned {answer.dtype} for a state of {x.dtype}: return value.to(x).")
    return answer


@final
class ObservedScore(Score):
    """A score that counts its calls."""

    def __init__(self, score: Score, counter: Counter) -> None:
        self._score, self._counter = score, counter
        self.prediction, self.law = score.prediction, score.law

    def output(self, t: Time, x: Tensor) -> Tensor:
        self._counter.score += 1
        return _check("score", self._score.output(t, x), x)

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        self._counter.score += 1
        return _check("score", self._score(t, x), x)


@final
@dataclass(frozen=True)
class ObservedSDE:
    """An SDE that counts its calls."""

    sde: SDE
    counter: Counter

    @property
    def noise_type(self) -> NoiseType:
        return self.sde.noise_type

    @property
    def calculus(self) -> Calculus:
        return self.sde.calculus

    @property
    def direction(self) -> Direction:
        return self.sde.direction

    def drift(self, t: Time, x: Tensor) -> Tensor:
        self.counter.drift += 1
        return _check("drift", self.sde.drift(t, x), x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        self.counter.diffusion += 1
        return self.sde.diffusion(t, x)


def observe(sde: SDE, counter: Counter, fields: bool) -> SDE:
    """``sde`` with its score counted, and with its fields counted too where a stepper calls them."""
    if isinstance(sde, Reverse | Langevin):
        sde = sde.with_score(ObservedScore(sde.score, counter))
    return ObservedSDE(sde, counter) if fields else sde


def finite_samples(x: Tensor) -> Tensor:
    """Which samples are finite everywhere, shape (B,)."""
    x = x.detach()
    # A sum is the cheapest look there is; elsewhere than on the CPU the host would have to wait for it.
    if x.device.type == "cpu" and math.isfinite(float(x.sum())):
        return torch.ones(len(x), dtype=torch.bool)
    # One reduction: torch.isfinite and its all() cost ten times as much, which is a step or two of Euler–Maruyama.
    return x.flatten(1).abs().amax(1) < math.inf
