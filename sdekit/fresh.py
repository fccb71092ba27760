r"""Normals that are no part of a Brownian path: what a Markov chain draws beside it.

A corrector, or the coin of a Metropolis step, needs noise that no path of the problem holds. A step lists what it
wants (:data:`Fresh`), and gets standard normals after its increments. They come from streams of their own, a function
of (seed, path, step index): the increments are the same numbers with them and without.

On a :class:`~sdekit.BrownianGrid` or a :class:`~sdekit.BrownianTree` they come from its seed: runs with other step
counts then share the path, but not what was drawn beside it. A path that has no seed knows none, and a run that needs
them refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import BrownianGrid, BrownianPath, BrownianTree, Increment, Noise, StepNoise
from sdekit.errors import SdekitError
from sdekit.keys import Keys
from sdekit.typing import Shape

Fresh = Literal["state", "sample"]
"""Standard normals beside the path: of the state's shape, or one for every sample."""

_STREAMS: dict[Fresh, int] = {"state": random.STREAM_FRESH, "sample": random.STREAM_FRESH_SAMPLE}


def fresh_shape(kind: Fresh, event_shape: Shape) -> torch.Size:
    """Event shape of a draw; one for a sample broadcasts against its state."""
    return torch.Size(event_shape) if kind == "state" else torch.Size([1] * len(event_shape))


@final
class FreshNoise:
    """The fresh normals of every step, each as an increment of variance one.

    Args:
        keys: Path keys, as in :class:`sdekit.keys.Keys`.
        event_shape: E, of the state.
        dtype: Type of the normals.
        fresh: For every step, what it draws.
    """

    def __init__(self, keys: Tensor, event_shape: Shape, dtype: torch.dtype, fresh: Sequence[Sequence[Fresh]]) -> None:
        self._fresh = fresh
        self._sources: dict[Fresh, StepNoise] = {}
        for kind, stream in _STREAMS.items():
            units = [[(0.0, 1.0)] * list(step).count(kind) for step in fresh]
            if any(units):
                self._sources[kind] = StepNoise(keys, fresh_shape(kind, event_shape), dtype, units, family=stream)

    def increments(self, k: int) -> tuple[Increment, ...]:
        drawn = {kind: iter(source.increments(k)) for kind, source in self._sources.items()}
        return tuple([next(drawn[kind]) for kind in self._fresh[k]])


@final
@dataclass(frozen=True)
class RecordedFresh:
    """A path, or None where no path is drawn from, with the fresh normals of a run; for probing a solver.

    Attributes:
        path: The Brownian path.
        normals: For every step its fresh normals, each of shape (B, *E) or (B, 1, …).
    """

    path: BrownianPath | None
    normals: Sequence[Sequence[Tensor]]

    @property
    def shape(self) -> torch.Size:
        """That of the path."""
        return torch.Size() if self.path is None else self.path.shape

    def increment(self, s: float, t: float) -> Increment:
        """That of the path."""
        assert self.path is not None
        return self.path.increment(s, t)

    def increments(self, k: int) -> tuple[Increment, ...]:
        """The fresh normals of step k."""
        return tuple([Increment(z) for z in self.normals[k]])


@final
@dataclass(frozen=True)
class Joined:
    """Several sources of noise, one after the other in every step."""

    parts: tuple[Noise, ...]

    def increments(self, k: int) -> tuple[Increment, ...]:
        return tuple([increment for part in self.parts for increment in part.increments(k)])


def fresh_source(noise: Keys | BrownianPath, x: Tensor, fresh: Sequence[Sequence[Fresh]]) -> Noise:
    """Where the fresh normals of a run come from.

    Args:
        noise: Keys of the samples, or the path of the run.
        x: Initial states.
        fresh: For every step, what it draws.

    Raises:
        SdekitError: a Brownian path that knows no fresh normals.
    """
    if isinstance(noise, RecordedFresh):
        return noise
    if isinstance(noise, Keys):
        return FreshNoise(noise.values, x.shape[1:], x.dtype, fresh)
    if isinstance(noise, BrownianGrid | BrownianTree):
        return FreshNoise(noise.keys, x.shape[1:], x.dtype, fresh)
    raise SdekitError(
        f"This stepper draws normals beside the Brownian path, and {type(noise).__name__} has no seed to draw them "
        "from: give noise=seed, or a BrownianGrid or BrownianTree."
    )
