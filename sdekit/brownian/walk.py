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
from sdekit.brownian.nodes import Nodes
from sdekit.brownian.places import OwnPlaces, SharedPlace
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
        self._place: SharedPlace | OwnPlaces = SharedPlace(nodes, root)

    @property
    def draws(self) -> Tensor:
        """How many nodes were drawn so far, the first one and what was drawn ahead included, shape (B,)."""
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
        if isinstance(place, SharedPlace) and isinstance(level, int) and isinstance(index, int):
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

    def _own(self) -> OwnPlaces:
        """From now on a place for every sample."""
        if isinstance(self._place, SharedPlace):
            self._place = self._place.spread()
        return self._place


def increment_of(piece: Tensor, shape: Shape, dtype: torch.dtype) -> Increment:
    """Of pieces (n, C, E)."""
    return Increment(*piece.transpose(0, 1).reshape(piece.shape[1], *shape).to(dtype).unbind(0))
