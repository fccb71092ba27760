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

    As long as all samples take the same steps, by integers, they share one place.

    Args:
        nodes: Of the tree, the samples together.
        root: Of the tree, shape (1, C, E).
        shape: (B, *noise).
        dtype: Type of the increments.
    """

    def __init__(self, nodes: Nodes, root: Tensor, shape: Shape, dtype: torch.dtype) -> None:
        self._shape, self._dtype = torch.Size(shape), dtype
        self._place: _Shared | _Own = _Shared(nodes, root)

    @property
    def draws(self) -> Tensor:
        """How many nodes were drawn so far, the first one included, shape (B,)."""
        return torch.as_tensor(self._place.draws).expand(self._shape[0])

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
        place = self._place
        if isinstance(place, _Shared) and isinstance(level, int) and isinstance(index, int):
            return increment_of(place.step(level, index), self._shape, self._dtype)
        own = self._own()
        return increment_of(own.step(own.whole(level, "level"), own.whole(index, "index")), self._shape, self._dtype)

    def select(self, rows: Tensor) -> Walk:
        """The walk of some of the samples, from where they are: for when the others have arrived.

        Args:
            rows: Which samples of this walk, int64.
        """
        part = object.__new__(Walk)
        part._shape, part._dtype = torch.Size((len(rows), *self._shape[1:])), self._dtype
        part._place = self._own().select(rows)
        return part

    def _own(self) -> _Own:
        """From now on a place for every sample."""
        if isinstance(self._place, _Shared):
            self._place = self._place.spread()
        return self._place


class _Shared:
    """One place for all samples: pieces are (1, C, E), levels and indices Python's integers."""

    def __init__(self, nodes: Nodes, root: Tensor) -> None:
        self.nodes, self.draws = nodes, 1
        self._level, self._index = 0, 0
        # Level by level the two halves of the node above; at the top there is one node, whose side is never 1.
        self._kept = [torch.stack((root, root), 1)]

    def step(self, level: int, index: int) -> Tensor:
        depth = self.nodes.depth
        if not (0 <= level <= depth and 0 <= index < 1 << level):
            raise no_node(level, index, depth)
        apart = (index << (depth - level)) ^ (self._index << (depth - self._level))
        known = min(depth - apart.bit_length() + 1, self._level, level)
        if known < level:
            del self._kept[known + 1 :]
            for above in range(known, level):
                node = index >> (level - above)
                self._kept.append(self.nodes.split_shared(above, node, self._kept[above][:, node & 1]))
            self._level, self._index = level, index
            self.draws += level - known
        return self._kept[level][:, index & 1]

    def spread(self) -> _Own:
        """The same place for each sample."""
        batch = self.nodes.keys.numel()
        kept = torch.stack(self._kept)
        kept = kept.reshape(len(kept), *kept.shape[2:4], batch, self.nodes.numel).movedim(3, 1).contiguous()
        level, index, draws = (
            torch.full((batch,), n, device=kept.device) for n in (self._level, self._index, self.draws)
        )
        return _Own(self.nodes.apart(), kept, level, index, draws)


class _Own:
    """A place for every sample: pieces are (B, C, E), levels and indices int64 of shape (B,)."""

    def __init__(self, nodes: Nodes, kept: Tensor, level: Tensor, index: Tensor, draws: Tensor) -> None:
        self.nodes, self.draws = nodes, draws
        self._kept, self._level, self._index = kept, level, index
        self._rows = torch.arange(len(level), device=level.device)

    def step(self, level: Tensor, index: Tensor) -> Tensor:
        self._deepen(self._check(level, index))
        known = self._known(level, index)
        node = self._kept[known, self._rows, (index >> (level - known)) & 1]
        for chains, below, halves, _ in self.nodes.down(self._rows, known, node, level, index):
            self._kept[below, chains] = halves
        # Where nothing was drawn, what is kept further down stays good.
        moved = level > known
        self._level, self._index = torch.where(moved, level, self._level), torch.where(moved, index, self._index)
        self.draws = self.draws + (level - known)
        return self._kept[level, self._rows, index & 1]

    def select(self, rows: Tensor) -> _Own:
        kept = self._kept[:, rows]
        return _Own(self.nodes.select(rows), kept, self._level[rows], self._index[rows], self.draws[rows])

    def whole(self, value: int | Tensor, name: str) -> Tensor:
        """One integer per sample."""
        if isinstance(value, int):
            return torch.full_like(self._rows, value)
        if value.shape != self._rows.shape or value.dtype != torch.int64:
            raise SdekitError(
                f"{name} must be an integer, or int64 with one for each of {len(self._rows)} samples; "
                f"got shape {tuple(value.shape)} of {value.dtype}."
            )
        return value.to(self._rows.device)

    def _known(self, level: Tensor, index: Tensor) -> Tensor:
        """The deepest level on which the node above (level, index), or itself, is kept."""
        depth = self.nodes.depth
        apart = (index << (depth - level)) ^ (self._index << (depth - self._level))
        return torch.minimum(torch.minimum(depth - bit_length(apart) + 1, self._level), level)

    def _deepen(self, level: int) -> None:
        """Room for nodes of a level."""
        if level >= len(self._kept):
            more = max(level + 1, min(2 * len(self._kept), self.nodes.depth + 1)) - len(self._kept)
            self._kept = torch.cat((self._kept, self._kept.new_zeros(more, *self._kept.shape[1:])))

    def _check(self, level: Tensor, index: Tensor) -> int:
        """The deepest level."""
        depth = self.nodes.depth
        on = (level >= 0) & (level <= depth) & (index >= 0) & (index >> level.clamp(0, depth) == 0)
        good, deepest = torch.stack((on.all().long(), level.max())).tolist() if len(level) else (1, 0)
        if not good:
            worst = int((~on).nonzero()[0])
            raise no_node(int(level[worst]), int(index[worst]), depth)
        return int(deepest)


def no_node(level: int, index: int, depth: int) -> SdekitError:
    """That a tree does not have a node."""
    return SdekitError(
        f"Node {index} of level {level} is not on this tree: levels are 0 … {depth}, and level ℓ has the nodes "
        "0 … 2^ℓ − 1. Build a deeper tree, depth=, or take larger steps."
    )


def increment_of(piece: Tensor, shape: Shape, dtype: torch.dtype) -> Increment:
    """Of pieces (n, C, E)."""
    return Increment(*piece.transpose(0, 1).reshape(piece.shape[1], *shape).to(dtype).unbind(0))
