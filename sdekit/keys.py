"""Whose noise a sample gets: the keys of a batch, from a seed, from seeds of the samples, or from torch generators.

| seed | paths | sample i is |
|---|---|---|
| s | left out | path i of seed s |
| s | p, global numbers | path p[i] of seed s |
| None | s, one per sample | path 0 of seed s[i]: what a batch of one has with that seed |
| a `torch.Generator` | as above | as above, of a seed that is drawn from it |
| B generators | left out | path 0 of a seed that is drawn from generator i |

A generator moves on by one draw, whatever is solved with it: the same generator gives other noise the next time, and
one that was seeded anew gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TypeAlias, final

import torch
from torch import Generator, Tensor

from sdekit import random
from sdekit.errors import SdekitError

Seed: TypeAlias = int | Generator | Sequence[Generator]
"""What noise is drawn from: an integer, or one or many torch generators, from which integers are drawn."""

Paths: TypeAlias = Sequence[int] | Tensor
"""One whole number per sample: global path numbers of a seed, or seeds."""


@final
@dataclass(frozen=True)
class Keys:
    """The keys of a batch, and the integers that make them again.

    Attributes:
        seed: The seed; None if every sample has its own.
        paths: Path numbers, or the seeds; None for the paths 0 … B − 1.
        values: The keys, shape (B,), int64.
    """

    seed: int | None
    paths: Paths | None
    values: Tensor

    @classmethod
    def of(
        cls,
        seed: Seed | None,
        paths: Paths | None = None,
        batch: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Keys:
        """The keys of a batch.

        Args:
            seed: A seed; None if ``paths`` are seeds; a generator, or one per sample.
            paths: Path numbers, or seeds.
            batch: How many samples there are; as many as paths if left out.
            device: Where the keys live.

        Raises:
            SdekitError: neither a seed nor paths, both generators and paths, or not one number per sample.
        """
        if isinstance(seed, Generator):
            seed = _seed_of(seed)
        elif seed is not None and not isinstance(seed, int):
            paths, seed = _seeds(seed, paths), None
        if paths is None and (seed is None or batch is None):
            raise SdekitError("Noise needs a seed and a number of samples, or paths=, one whole number per sample.")
        if seed is None:
            keys = random.seed_keys(_whole(() if paths is None else paths), device)
        else:
            keys = random.path_keys(seed, batch or 0 if paths is None else paths, device)
        if batch is not None and len(keys) != batch:
            raise SdekitError(f"paths has {len(keys)} entries for {batch} samples: give one per sample.")
        return cls(seed, paths, keys)

    @classmethod
    def drawn(cls, n: int | None, seed: Seed | None, paths: Paths | None, device: torch.device | str = "cpu") -> Keys:
        """The keys of the samples of a law.

        Args:
            n: How many; None for as many as ``paths``, or as generators.
            seed: As in :meth:`of`.
            paths: As in :meth:`of`.
            device: Where the keys live.

        Raises:
            SdekitError: no number, a negative one, or one that is not that of the paths.
        """
        each = paths if paths is not None else seed if isinstance(seed, list | tuple) else None
        if each is None and n is None:
            raise SdekitError("sample() needs a number n, or the path numbers paths=.")
        if each is not None and n is not None and n != len(each):
            raise SdekitError(f"n = {n}, but there are {len(each)} paths: leave n out.")
        if n is not None and n < 0:
            raise SdekitError(f"n = {n} samples cannot be drawn: n must be at least 0.")
        return cls.of(seed, paths, n if each is None else len(each), device)


def _seeds(generators: Sequence[Generator], paths: Paths | None) -> list[int]:
    """One drawn from every generator."""
    for generator in generators:
        if not isinstance(generator, Generator):
            raise SdekitError(
                f"A list of noises must hold a torch.Generator for every sample; got {type(generator).__name__}. "
                "Seeds, one per sample, are paths=seeds with the seed left out."
            )
    if paths is not None:
        raise SdekitError("Generators, one per sample, leave nothing for paths= to say: leave it out.")
    return [_seed_of(generator) for generator in generators]


def _seed_of(generator: Generator) -> int:
    """63 bits; the generator moves on."""
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def _whole(paths: Paths) -> tuple[int, ...]:
    """Seeds as integers of any size."""
    seeds = paths.tolist() if isinstance(paths, Tensor) else paths
    if not all(isinstance(seed, Integral) for seed in seeds):
        raise SdekitError(f"Seeds in paths= must be whole numbers, one per sample; got {list(seeds)[:4]}.")
    return tuple(int(seed) for seed in seeds)
