"""An increment between any two points of the finest level, from the fewest nodes of a tree that cover it.

From the root to the smallest node that holds both points, and from its halves to each of them: what lies between is a
half that is passed by on the way, or the last node. Every piece is added once, to its neighbour; nothing is subtracted.
The order is the same for intervals of the samples' own and for one that they share, and so are the bits.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from sdekit.brownian.bridge import joined
from sdekit.brownian.nodes import Nodes, bit_length
from sdekit.brownian.places import SharedPlace


def between(nodes: Nodes, root: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Pieces over intervals that are given in units of the finest level.

    Args:
        nodes: With one row for every interval.
        root: Of the tree, shape (n, C, E).
        start: Where the intervals start, int64 of shape (n,).
        end: Where they end, start ≤ end.

    Returns:
        Shape (n, C, E).
    """
    depth, n = nodes.depth, len(start)
    rows = torch.arange(n, device=start.device)
    level = depth - bit_length(start ^ torch.maximum(end - 1, start))
    index, node = start >> (depth - level), root.clone()
    for found in nodes.down(rows, torch.zeros_like(level), node, level, index):
        node[found.chains] = found.next
    halves = nodes.split(rows, level, index, node)
    edge, low = torch.cat((start, end)), (level + 1).repeat(2)
    # The level on which a point is an edge between nodes, but not above the halves.
    to_level = torch.maximum(depth + 1 - bit_length(_lowest_bit(edge | 2**depth)), low)
    to_end = torch.arange(2, device=start.device).repeat_interleave(n)
    to_index = (edge >> (depth - to_level).clamp(min=0)) - to_end
    parts, sizes = _towards(nodes, torch.cat((halves[:, 0], halves[:, 1])), to_end, low, to_level, to_index)
    whole = (start == index << (depth - level)) & (end == (index + 1) << (depth - level))
    pieces = torch.where(whole[:, None, None], node, joined(parts[:n], sizes[:n], parts[n:], sizes[n:]))
    return torch.where((start == end)[:, None, None], torch.zeros_like(pieces), pieces)


def between_shared(places: list[SharedPlace], start: int, end: int) -> Tensor:
    """As :func:`between`, over one interval for all samples, from two places that go to its ends.

    The place that is nearer to the start goes there: in a run that is the one which went to the end of the last step.
    """
    near, far = sorted(places, key=lambda place: place.apart(start))
    depth = near.nodes.depth
    level = depth - (start ^ max(end - 1, start)).bit_length()
    index = start >> (depth - level)
    if start == end:
        return torch.zeros_like(near.half(0, 0))
    if start == index << (depth - level) and end == (index + 1) << (depth - level):
        return near.step(level, index)
    left = _towards_shared(near, start, level + 1, 0)
    right = _towards_shared(far, end, level + 1, 1)
    return joined(*left, *right)


def _towards_shared(place: SharedPlace, edge: int, level: int, to_end: int) -> tuple[Tensor, Tensor]:
    """What lies between an edge and the far side of the node above it on a level, and its length."""
    depth = place.nodes.depth
    to_level = max(depth + 1 - _lowest_bit(edge | 1 << depth).bit_length(), level)
    index = (edge >> (depth - to_level)) - to_end
    last = place.step(to_level, index)
    ways = [(k, index >> (to_level - k) & 1) for k in range(level + 1, to_level + 1)]
    passed = [(k, place.half(k, 1 - right)) for k, right in ways if right == to_end]
    (k, piece), *rest = [*passed, (to_level, last)]
    size = place.nodes.lengths[k : k + 1]
    for k, part in rest:
        more = place.nodes.lengths[k : k + 1]
        piece = joined(piece, size, part, more) if to_end else joined(part, more, piece, size)
        size = size + more
    return piece, size


def _towards(
    nodes: Nodes, node: Tensor, to_end: Tensor, level: Tensor, to_level: Tensor, to_index: Tensor
) -> tuple[Tensor, Tensor]:
    """What lies between the far side of nodes and the last nodes on chains towards a start, or an end; its lengths."""
    parts, sizes = torch.zeros_like(node), nodes.lengths.new_zeros(len(node))

    def add(chains: Tensor, piece: Tensor, levels: Tensor) -> None:
        if node.shape[1] == 1:  # W adds up, in whatever order the two stand
            parts[chains] += piece
            return
        have, size, more = parts[chains], sizes[chains], nodes.lengths[levels]
        before, behind = joined(piece, more, have, size), joined(have, size, piece, more)
        parts[chains] = torch.where(to_end[chains, None, None] == 1, behind, before)
        sizes[chains] = size + more

    rows, node = torch.arange(len(node) // 2, device=node.device).repeat(2), node.clone()
    for found in nodes.down(rows, level, node, to_level, to_index):
        node[found.chains] = found.next
        passed = found.right == to_end[found.chains]
        add(found.chains[passed], found.side(1 - found.right)[passed], found.level[passed])
    add(torch.arange(len(node), device=node.device), node, to_level)
    return parts, sizes


Whole = TypeVar("Whole", int, Tensor)


def _lowest_bit(x: Whole) -> Whole:
    return x & -x
