"""An increment between any two points of the finest level, from the fewest nodes of a tree that cover it.

From the root to the smallest node that holds both points, and from its halves to each of them: what lies between is a
half that is passed by on the way, or the last node. Every piece is added once, to its neighbour; nothing is subtracted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.brownian.bridge import joined
from sdekit.brownian.nodes import Nodes, bit_length


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


def _towards(
    nodes: Nodes, node: Tensor, to_end: Tensor, level: Tensor, to_level: Tensor, to_index: Tensor
) -> tuple[Tensor, Tensor]:
    """What lies between the far side of nodes and the last nodes on chains towards a start, or an end; its lengths."""
    parts, sizes = torch.zeros_like(node), nodes.lengths.new_zeros(len(node))

    def add(chains: Tensor, piece: Tensor, levels: Tensor) -> None:
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


def _lowest_bit(x: Tensor) -> Tensor:
    return x & -x
