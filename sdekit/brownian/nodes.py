r"""The nodes of a dyadic tree of Brownian paths, and the way down from one to those below it.

Node k of level ℓ is the interval $[t_0 + k\,2^{-\ell} T,\; t_0 + (k+1)\,2^{-\ell} T]$, $T = t_1 - t_0$. Its two halves
follow from it by :mod:`sdekit.brownian.bridge` with normals whose address is the path, the stream of level ℓ and k.
So a node is a function of the seed, the path and (ℓ, k), whatever was asked for before.

Samples go down on chains of their own, all chains one level a round; samples that are asked the same share one, and
differ in their normals alone. Chains that still have far to go come first, so that those that go on are a slice, and
the normals of many rounds are drawn at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian.bridge import halves, unequal
from sdekit.brownian.clock import Clock
from sdekit.brownian.increment import TWELFTH

DEEPEST = 52  # levels: times in units of the finest are integers that float64 holds exactly
_BLOCK_NORMALS = 2**20  # of the rounds that are drawn together


def bit_length(x: Tensor) -> Tensor:
    """Bits of integers of 0 … 2⁵³."""
    return torch.frexp(x.double()).exponent.long()


class Round(NamedTuple):
    """One level down, for the chains that go on.

    Attributes:
        chains: Which they are, shape (n,).
        level: Of the halves, shape (n,).
        halves: Left and right, shape (n, 2, C, E).
        right: Whether the chain goes on to the right, shape (n,): 0 or 1.
    """

    chains: Tensor
    level: Tensor
    halves: Tensor
    right: Tensor

    @property
    def next(self) -> Tensor:
        """The halves on the way."""
        return self.side(self.right)

    def side(self, right: Tensor) -> Tensor:
        """The left halves where ``right`` is 0, the right ones where it is 1."""
        if len(right) == 1:
            return self.halves[:, int(right)]
        return torch.where(right[:, None, None] == 1, self.halves[:, 1], self.halves[:, 0])


@dataclass(frozen=True)
class Nodes:
    """The nodes of a tree; a node of n chains is a tensor (n, C, E), with C = 2 where H is known and 1 where not.

    Attributes:
        keys: Of the paths, shape (rows, samples): those of a row share a chain.
        numel: The number of noises of a sample; E is that of a row.
        areas: Whether H is known.
        t0: Start of the interval.
        t1: End of the interval.
        depth: The finest level.
        dtype: Of the nodes, float64 or float32.
        clock: Of the paths; None for t.
    """

    keys: Tensor
    numel: int
    areas: bool
    t0: float
    t1: float
    depth: int
    dtype: torch.dtype
    clock: Clock | None = None

    @cached_property
    def lengths(self) -> Tensor:
        """Of the nodes of every level, in units of the whole."""
        lengths = [0.5**level for level in range(self.depth + 2)]
        return torch.tensor(lengths, dtype=torch.float64, device=self.keys.device)

    @cached_property
    def _roots(self) -> Tensor:
        """√h of the nodes of every level."""
        return (self.lengths * (self.t1 - self.t0)).sqrt().to(self.dtype)

    def select(self, rows: Tensor) -> Nodes:
        """The same of some of the rows."""
        return replace(self, keys=self.keys[rows])

    def apart(self) -> Nodes:
        """The same, each sample in a row of its own."""
        return replace(self, keys=self.keys.reshape(-1, 1))

    def root(self) -> Tensor:
        """Node 0 of level 0, for all rows."""
        nothing = self.keys.new_zeros(len(self.keys))
        z = self._normals(torch.arange(len(nothing), device=nothing.device), nothing - 1, nothing)
        whole = self.t1 - self.t0 if self.clock is None else abs(float(self._readings(0, nothing[:1], 1).diff()))
        parts = (z[0], z[1] * TWELFTH) if self.areas else (z[0],)
        return torch.stack(parts, 1).mul_(whole**0.5)

    def split(self, rows: Tensor, level: Tensor, index: Tensor, node: Tensor) -> Tensor:
        """Both halves of nodes of chains, shape (n, 2, C, E)."""
        return self._parts(self._shares(level, index), node, self._normals(rows, level, index))

    def normals_shared(self, level: int, first: int, count: int) -> Tensor:
        """What neighbouring nodes are split with, for all samples together, shape (count, 2, 1, E)."""
        stream = random.STREAM_TREE + 1 + level
        z = random.normals(
            self.keys[0], (self.numel,), stream=stream, start=2 * first, count=2 * count, dtype=self.dtype
        )
        return z.reshape(count, 2, 1, self.keys.shape[1] * self.numel)

    def normals_down(self, path: list[tuple[int, int]]) -> Tensor:
        """What nodes of different levels are split with, for all samples together, shape (n, 1, 2, 1, E)."""
        levels, indices = torch.tensor(path, device=self.keys.device).T
        return self._normals(torch.zeros_like(levels), levels, indices).transpose(0, 1)[:, None, :, None]

    def split_shared(self, level: int, index: int, node: Tensor, z: Tensor) -> Tensor:
        """Both halves of one node for all samples together, shape (1, 2, C, E)."""
        if self.clock is None:
            return halves(node, self._roots[level], z)
        place = torch.tensor([[level], [index]], device=node.device)
        return self._parts(self._shares(place[0], place[1]), node, z)

    def down(self, rows: Tensor, level: Tensor, node: Tensor, to_level: Tensor, to_index: Tensor) -> Iterator[Round]:
        """From nodes down to those below them, a level a round.

        Args:
            rows: What the chains are of, shape (n,).
            level: Levels that they start on, shape (n,).
            node: Nodes that they start from, shape (n, C, E).
            to_level: Levels to reach, at least ``level``, shape (n,).
            to_index: Nodes to reach, shape (n,); each is below its start.

        Yields:
            The :class:`Round` of every level; none where there is nowhere to go.
        """
        lengths = to_level - level
        order = lengths.argsort(descending=True, stable=True)
        ending = torch.bincount(lengths).tolist()  # chains of 0, 1, … rounds
        going = [len(rows) - sum(ending[: q + 1]) for q in range(len(ending) - 1)]
        if not going:
            return
        # The rounds one after the other: what does not depend on the nodes themselves is found for all at once.
        sizes = torch.tensor(going, device=rows.device)
        before = torch.arange(len(going), device=rows.device).repeat_interleave(sizes)
        chains = order[torch.arange(len(before), device=rows.device) - (sizes.cumsum(0) - sizes)[before]]
        here = level[chains] + before
        below = to_level[chains] - here
        index, right = to_index[chains] >> below, to_index[chains] >> (below - 1) & 1
        each = (v.split_with_sizes(going) for v in (chains, here + 1, right, self._shares(here, index)))
        node = node[order]
        for z, chain, reached, side, share in zip(self._rounds(going, rows[chains], here, index), *each, strict=True):
            found = Round(chain, reached, self._parts(share, node[: len(chain)], z), side)
            node = found.next
            yield found

    def _rounds(self, going: list[int], rows: Tensor, level: Tensor, index: Tensor) -> Iterator[Tensor]:
        """The normals of every round, drawn for many rounds together."""
        together, done = max(1, _BLOCK_NORMALS // max(1, going[0] * self.keys.shape[1] * self.numel)), 0
        for q in range(0, len(going), together):
            sizes = going[q : q + together]
            block = slice(done, done + sum(sizes))
            done = block.stop
            yield from self._normals(rows[block], level[block], index[block]).split_with_sizes(sizes, 1)

    def _normals(self, rows: Tensor, level: Tensor, index: Tensor) -> Tensor:
        """What nodes are split with, shape (2, n, E)."""
        keys = self.keys[rows]
        stream, index = (v[:, None].expand_as(keys).flatten() for v in (level + (random.STREAM_TREE + 1), index))
        z = random.normals_at(keys.flatten(), (self.numel,), stream=stream, index=index, dtype=self.dtype)
        return z.reshape(2, len(rows), keys.shape[1] * self.numel)

    def _shares(self, level: Tensor, index: Tensor) -> Tensor:
        """√h of nodes, shape (n, 1); in another clock the variances of their halves, shape (n, 2)."""
        return self._roots[level, None] if self.clock is None else self._readings(level, index, 2).diff().abs()

    def _parts(self, share: Tensor, node: Tensor, z: Tensor) -> Tensor:
        if self.clock is None:
            return halves(node, share, z)
        return unequal(node, share[:, :1], share[:, 1:], z)

    def _readings(self, level: Tensor | int, index: Tensor, parts: int) -> Tensor:
        """The clock at the ends of nodes and between ``parts`` of them, shape (n, parts + 1)."""
        assert self.clock is not None
        ends = torch.arange(parts + 1, device=index.device)
        share = (index[:, None] * parts + ends) * (self.lengths[level].reshape(-1, 1) / parts)
        times = (self.t0 + (self.t1 - self.t0) * share).clamp(max=self.t1)
        return self.clock(times.cpu()).to(index.device)
