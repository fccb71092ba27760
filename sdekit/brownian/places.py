"""Where samples stand on a tree: the halves of the nodes above them, from which a step goes on."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sdekit.brownian.nodes import Nodes, bit_length
from sdekit.errors import SdekitError

_BLOCK_NORMALS = 2**15  # of one noise, of the nodes of one level that are drawn together


@final
class SharedPlace:
    """One place for all samples: pieces are (1, C, E), levels and indices Python's integers.

    The normals of neighbouring nodes are drawn together, twice as many every time that they were all used: a small
    state costs what its draws cost in blocks, and no more than twice what is needed is drawn.
    """

    def __init__(self, nodes: Nodes, root: Tensor) -> None:
        self.nodes, self.draws = nodes, 1
        self._level, self._index = 0, 0
        # Level by level the two halves of the node above; at the top there is one node, whose side is never 1.
        self._kept = [torch.stack((root, root), 1)]
        self._drawn: dict[int, tuple[int, Tensor]] = {}  # level -> (first node, normals of it and of those after it)
        self._most = max(1, _BLOCK_NORMALS // max(1, root.numel()))

    def apart(self, leaf: int) -> int:
        """How many levels above the finest one the way to a point of it parts from where this stands."""
        return (leaf ^ (self._index << (self.nodes.depth - self._level))).bit_length()

    def half(self, level: int, right: int) -> Tensor:
        """A half of the node above the place, on a level that is not below it."""
        return self._kept[level][:, right]

    def step(self, level: int, index: int) -> Tensor:
        depth = self.nodes.depth
        if not (0 <= level <= depth and 0 <= index < 1 << level):
            raise no_node(level, index, depth)
        known = min(depth - self.apart(index << (depth - level)) + 1, self._level, level)
        if known < level:
            del self._kept[known + 1 :]
            self._draw([(above, index >> (level - above)) for above in range(known, level)])
            for above in range(known, level):
                node = index >> (level - above)
                z = self._normals(above, node)
                self._kept.append(self.nodes.split_shared(above, node, self._kept[above][:, node & 1], z))
            self._level, self._index = level, index
        return self._kept[level][:, index & 1]

    def _normals(self, level: int, index: int) -> Tensor:
        """What a node is split with, shape (2, 1, E)."""
        first, block = self._drawn.get(level, (-2, ()))
        if not first <= index < first + len(block):
            beside = index in (first - 1, first + len(block))
            size = min(2 * len(block), self._most) if beside else 1
            first = max(0, index + 1 - size) if index < first else index
            size = min(size, (1 << level) - first)
            block = self.nodes.normals_shared(level, first, size)
            self._drawn[level] = first, block
            self.draws += size
        return block[index - first]

    def _draw(self, path: list[tuple[int, int]]) -> None:
        """The normals of a long way down, together."""
        missing = [(level, index) for level, index in path if not self._has(level, index)]
        if len(missing) > 2:
            self.draws += len(missing)
            for (level, index), z in zip(missing, self.nodes.normals_down(missing), strict=True):
                self._drawn[level] = index, z

    def _has(self, level: int, index: int) -> bool:
        first, block = self._drawn.get(level, (0, ()))
        return first <= index < first + len(block)

    def spread(self) -> OwnPlaces:
        """The same place for each sample."""
        batch = self.nodes.keys.numel()
        kept = torch.stack(self._kept)
        kept = kept.reshape(len(kept), *kept.shape[2:4], batch, self.nodes.numel).movedim(3, 1).contiguous()
        level, index, draws = (
            torch.full((batch,), n, device=kept.device) for n in (self._level, self._index, self.draws)
        )
        return OwnPlaces(self.nodes.apart(), kept, level, index, draws)


@final
class OwnPlaces:
    """A place for every sample: pieces are (B, C, E), levels and indices int64 of shape (B,)."""

    def __init__(self, nodes: Nodes, kept: Tensor, level: Tensor, index: Tensor, draws: Tensor) -> None:
        self.nodes, self.draws = nodes, draws
        self._kept, self._level, self._index = kept, level, index
        self._rows = torch.arange(len(level), device=level.device)

    def step(self, level: Tensor, index: Tensor) -> Tensor:
        self._deepen(self._check(level, index))
        known = self._known(level, index)
        node = self._kept[known, self._rows, (index >> (level - known)) & 1]
        found = list(self.nodes.down(self._rows, known, node, level, index))
        if found:
            chains, below, halves = (torch.cat(parts) for parts in list(zip(*found, strict=True))[:3])
            self._kept[below, chains] = halves
        # Where nothing was drawn, what is kept further down stays good.
        moved = level > known
        self._level, self._index = torch.where(moved, level, self._level), torch.where(moved, index, self._index)
        self.draws = self.draws + (level - known)
        return self._kept[level, self._rows, index & 1]

    def select(self, rows: Tensor) -> OwnPlaces:
        kept = self._kept[:, rows]
        return OwnPlaces(self.nodes.select(rows), kept, self._level[rows], self._index[rows], self.draws[rows])

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
