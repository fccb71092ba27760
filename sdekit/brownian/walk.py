r"""Walking along a tree in dyadic steps, every sample with its own.

A walk keeps, for every sample, both halves of every node above the one that it stands on. A step to (ℓ, k) goes up to
the deepest node that it keeps above (ℓ, k) and splits from there. Walking forwards in steps of any levels, each node is
split at most once, also where a step is tried, refused, and tried again as two halves: a walk from end to end that
takes n steps splits the n − 1 nodes above them, one draw a step. What it keeps grows with the deepest level, not with
the steps.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sdekit.brownian.increment import Increment
from sdekit.brownian.nodes import Nodes, bit_length
from sdekit.errors import SdekitError
from sdekit.typing import Shape


@final
class Walk:
    """A place on a tree, for every sample; made by :meth:`BrownianTree.walk <sdekit.BrownianTree.walk>`.

    As long as all samples take the same steps they share one place.

    Args:
        nodes: Of the tree, the samples together.
        root: Of the tree, shape (1, C, E).
        shape: (B, *noise).
        dtype: Type of the increments.
    """

    def __init__(self, nodes: Nodes, root: Tensor, shape: Shape, dtype: torch.dtype) -> None:
        self._nodes, self._shape, self._dtype = nodes, torch.Size(shape), dtype
        # Level by level the two halves of the node above; at the top there is one node, whose side is never 1.
        self._kept = torch.stack((root, root), 1)[None]
        self._place(*torch.zeros(2, len(root), dtype=torch.int64, device=root.device))
        self._draws = torch.ones_like(self._level)

    @property
    def draws(self) -> Tensor:
        """How many nodes were drawn so far, the first one included, shape (B,)."""
        return self._draws.expand(self._shape[0])

    def step(self, level: int | Tensor, index: int | Tensor) -> Increment:
        r"""The increments over nodes: $[t_0 + k\,2^{-\ell} T,\; t_0 + (k+1)\,2^{-\ell} T]$ for level ℓ and index k.

        Args:
            level: An integer, or one per sample, int64 of shape (B,).
            index: Likewise, of 0 … 2^level − 1.

        Returns:
            An :class:`~sdekit.Increment` of shape (B, *noise).

        Raises:
            SdekitError: a level or an index that the tree does not have.
        """
        if isinstance(level, Tensor) or isinstance(index, Tensor):
            self._spread()
        level, index = self._whole(level, "level"), self._whole(index, "index")
        self._deepen(self._check(level, index))
        known = self._known(level, index)
        node = self._kept[known, self._rows, (index >> (level - known)) & 1]
        for chains, below, halves, _ in self._nodes.down(self._rows, known, node, level, index):
            self._kept[below, chains] = halves
        # Where nothing was drawn, what is kept further down stays good.
        moved = level > known
        self._place(torch.where(moved, level, self._level), torch.where(moved, index, self._index))
        self._draws = self._draws + (level - known)
        return increment_of(self._kept[level, self._rows, index & 1], self._shape, self._dtype)

    def select(self, rows: Tensor) -> Walk:
        """The walk of some of the samples, from where they are: for when the others have arrived.

        Args:
            rows: Which samples of this walk, int64.
        """
        self._spread()
        part = object.__new__(Walk)
        part._nodes, part._dtype = self._nodes.select(rows), self._dtype
        part._shape = torch.Size((len(rows), *self._shape[1:]))
        part._kept, part._draws = self._kept[:, rows], self._draws[rows]
        part._place(self._level[rows], self._index[rows])
        return part

    def _place(self, level: Tensor, index: Tensor) -> None:
        """Where it stands; one place for all samples, or one each."""
        self._level, self._index = level, index
        self._rows = torch.arange(len(level), device=level.device)

    def _spread(self) -> None:
        """A place for every sample."""
        batch = self._shape[0]
        if len(self._rows) == batch:
            return
        self._nodes = self._nodes.apart()
        levels, _, _, parts, _ = self._kept.shape
        self._kept = self._kept.reshape(levels, 2, parts, batch, -1).movedim(3, 1).contiguous()
        self._draws = self._draws.repeat(batch)
        self._place(self._level.repeat(batch), self._index.repeat(batch))

    def _deepen(self, level: int) -> None:
        """Room for nodes of a level."""
        more = max(level + 1, 2 * len(self._kept)) - len(self._kept)
        if level >= len(self._kept):
            self._kept = torch.cat((self._kept, self._kept.new_zeros(more, *self._kept.shape[1:])))

    def _known(self, level: Tensor, index: Tensor) -> Tensor:
        """The deepest level on which the node above (level, index), or itself, is kept."""
        depth = self._nodes.depth
        apart = (index << (depth - level)) ^ (self._index << (depth - self._level))
        return torch.minimum(torch.minimum(depth - bit_length(apart) + 1, self._level), level)

    def _whole(self, value: int | Tensor, name: str) -> Tensor:
        if isinstance(value, int):
            return torch.full_like(self._rows, value)
        if value.shape != self._rows.shape or value.dtype != torch.int64:
            raise SdekitError(
                f"{name} must be an integer, or int64 with one for each of {self._shape[0]} samples; "
                f"got shape {tuple(value.shape)} of {value.dtype}."
            )
        return value.to(self._rows.device)

    def _check(self, level: Tensor, index: Tensor) -> int:
        """The deepest level."""
        depth = self._nodes.depth
        on = (level >= 0) & (level <= depth)
        on &= (index >= 0) & (index >> level.clamp(0, depth) == 0)
        good, deepest = torch.stack((on.all().long(), level.max())).tolist() if len(level) else (1, 0)
        if not good:
            worst = int((~on).nonzero()[0])
            raise SdekitError(
                f"Node {int(index[worst])} of level {int(level[worst])} is not on this tree: levels are 0 … {depth}, "
                "and level ℓ has the nodes 0 … 2^ℓ − 1. Build a deeper tree, depth=, or take larger steps."
            )
        return int(deepest)


def increment_of(piece: Tensor, shape: Shape, dtype: torch.dtype) -> Increment:
    """Of pieces (n, C, E)."""
    return Increment(*piece.transpose(0, 1).reshape(piece.shape[1], *shape).to(dtype).unbind(0))
