r"""Rooted trees, and what a Runge–Kutta method makes of them.

The Taylor coefficients of the solution of $\dot x = f(x)$, and those of a Runge–Kutta method, are sums over rooted
trees. A method has order p if for every tree of at most p nodes its elementary weight is one over the tree's density,

$$ \Phi(t) = \sum_i b_i\,\varphi_i(t) = \frac{1}{\gamma(t)}, \qquad
   \varphi_i([t_1 \dots t_m]) = \prod_k \sum_j a_{ij}\,\varphi_j(t_k), \qquad
   \gamma([t_1 \dots t_m]) = |t| \prod_k \gamma(t_k). $$

There are 1, 1, 2, 4, 9, 20, 48, 115 trees of 1 to 8 nodes. Time is one more coordinate of the state, and is
integrated as such, if every node is its row sum, $c_i = \sum_j a_{ij}$.

References: [butcher1963], [hairer1993] §II.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import prod
from typing import Protocol, TypeAlias

from sdekit.steppers.coefficients import Matrix, Vector

Tree: TypeAlias = tuple["Tree", ...]
"""The subtrees of the root, in ascending order; ``()`` is the single node."""


class ButcherTableau(Protocol):
    """Weights of the stages, weights of the step, nodes."""

    @property
    def a(self) -> Matrix: ...
    @property
    def b(self) -> Vector: ...
    @property
    def c(self) -> Vector: ...


@cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with ``order`` nodes."""
    return tuple(sorted(tuple(sorted(forest)) for forest in _forests(order - 1, order - 1)))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    """Multisets of trees with ``nodes`` nodes in all, none with more than ``largest``."""
    if nodes == 0:
        yield ()
    for size in range(1, min(nodes, largest) + 1):
        for count in range(1, nodes // size + 1):
            for several in _multisets(trees(size), count):
                for rest in _forests(nodes - size * count, size - 1):
                    yield several + rest


def _multisets(choices: tuple[Tree, ...], count: int) -> Iterator[Tree]:
    if count == 0:
        yield ()
        return
    for i, first in enumerate(choices):
        for rest in _multisets(choices[i:], count - 1):
            yield (first, *rest)


def nodes(tree: Tree) -> int:
    """The number of nodes |t|."""
    return 1 + sum(map(nodes, tree))


def density(tree: Tree) -> int:
    """γ(t)."""
    return nodes(tree) * prod(map(density, tree))


def brackets(tree: Tree) -> str:
    """A tree as it is printed: τ for the single node, [t₁ t₂ …] for the others."""
    return f"[{' '.join(map(brackets, tree))}]" if tree else "τ"


def dot(v: Vector, w: Vector) -> Fraction:
    """The inner product; the shorter one ends in zeros."""
    return sum((a * b for a, b in zip(v, w, strict=False) if a and b), Fraction(0))


def runge_kutta_residuals(tableau: ButcherTableau, order: int) -> dict[str, Fraction]:
    """Φ(t) − 1/γ(t) for every tree of at most ``order`` nodes, and the row sums' distances from the nodes.

    Args:
        tableau: Of an explicit or implicit method; a row may break off where the rest is zero.
        order: The largest tree.

    Returns:
        Condition to residual, exact.
    """
    found = _row_sums(tableau)
    for p in range(1, order + 1):
        found |= {f"Φ({brackets(t)}) = 1/{density(t)}": r for t, r in _of_order(tableau, p).items()}
    return found


def runge_kutta_order(tableau: ButcherTableau, limit: int = 8, tolerance: float = 1e-15) -> int:
    """The order of a Runge–Kutta method: the largest p such that all conditions up to p hold.

    Args:
        tableau: Its coefficients.
        limit: Where to stop.
        tolerance: Of the residuals, for coefficients that are published as decimals.

    Returns:
        The order, at most ``limit``; 0 if a node is not its row sum, for time is not integrated like the state then.
    """
    if any(abs(r) > tolerance for r in _row_sums(tableau).values()):
        return 0
    for p in range(1, limit + 1):
        if any(abs(r) > tolerance for r in _of_order(tableau, p).values()):
            return p - 1
    return limit


def _row_sums(tableau: ButcherTableau) -> dict[str, Fraction]:
    rows = enumerate(zip(tableau.a, tableau.c, strict=True), start=1)
    return {f"a{i} = c{i}": sum(row, Fraction(0)) - c for i, (row, c) in rows}


def _of_order(tableau: ButcherTableau, order: int) -> dict[Tree, Fraction]:
    @cache
    def stages(tree: Tree) -> Vector:
        inner = [stages(subtree) for subtree in tree]
        return tuple(prod((dot(row, v) for v in inner), start=Fraction(1)) for row in tableau.a)

    return {tree: dot(tableau.b, stages(tree)) - Fraction(1, density(tree)) for tree in trees(order)}
