r"""Order conditions of Runge–Kutta methods in the calculus of Stratonovich, for one noise or several that commute.

A step and the solution are both sums over trees whose nodes are f or g, and a tree of the solution is the sum of the
iterated integrals over the orders in which its nodes may be passed. Up to order 1.5 these are polynomials of h, the
increment W and the space-time Lévy area H,

$$ I_1 = W, \quad I_0 = h, \quad I_{11} = \tfrac12 W^2, \quad I_{111} = \tfrac16 W^3, \quad
   I_{10} = h\,(\tfrac12 W + H), \quad I_{01} = h\,(\tfrac12 W - H), $$

with the innermost integral first, and the trees of a method of that strong order are the same polynomials. Of order 2
the means have to agree, and $E I_w$ is the coefficient of the word w in $\exp h\,(0 + \tfrac12\,11)$.

For additive noise only the trees count in which a g has no branch but a leaf f, which stands for the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations_with_replacement, product
from math import factorial
from typing import Literal

from sdekit.steppers.coefficients import Matrix, Vector, matrix
from sdekit.steppers.stratonovich import StratonovichTableau

Tree = tuple[str, tuple["Tree", ...]]  # f or g, and its branches
Powers = tuple[int, int, int]
Polynomial = dict[Powers, Fraction]  # powers of h, W and H → coefficient

_ROUNDS = Fraction(1, 2)  # the weight of a g


def stratonovich_residuals(
    tableau: StratonovichTableau, order: float, noise: Literal["additive", "commutative"] = "commutative"
) -> dict[str, Fraction]:
    """By how much a tableau misses its conditions: the largest coefficient, tree by tree, in exact arithmetic.

    Args:
        tableau: The tableau.
        order: The strong order, ½, 1 or 1.5; for 1.5 the trees of order 2 are compared in the mean.
        noise: Whether it may depend on the state.
    """
    found = {}
    for weight in (Fraction(k, 2) for k in range(1, round(2 * order) + 1)):
        for tree in _trees(weight, noise == "additive"):
            found[_name(tree)] = _largest(_difference(_method(tableau, tree), _solution(tree)))
    if order == 1.5:
        for tree in _trees(Fraction(2), noise == "additive"):
            found[f"E {_name(tree)}"] = _mean(_method(tableau, tree)) - sum(map(_mean_word, _words(tree)), Fraction(0))
    return found


def _trees(weight: Fraction, additive: bool) -> Iterator[Tree]:
    """All trees of a weight, in which an f counts one and a g one half."""
    for colour, own in (("f", Fraction(1)), ("g", _ROUNDS)):
        for branches in _forests(weight - own, additive) if weight >= own else ():
            if not (additive and colour == "g") or all(b == ("f", ()) for b in branches):
                yield colour, branches


def _forests(weight: Fraction, additive: bool) -> Iterator[tuple[Tree, ...]]:
    """All multisets of trees of a total weight."""
    halves = round(2 * weight)
    small = [tree for k in range(1, halves + 1) for tree in _trees(Fraction(k, 2), additive)]
    for count in range(halves + 1):
        for forest in combinations_with_replacement(small, count):
            if sum(map(_weight, forest), Fraction(0)) == weight:
                yield forest


def _weight(tree: Tree) -> Fraction:
    return (Fraction(1) if tree[0] == "f" else _ROUNDS) + sum(map(_weight, tree[1]), Fraction(0))


def _name(tree: Tree) -> str:
    return tree[0] + (f"[{' '.join(map(_name, tree[1]))}]" if tree[1] else "")


def _words(tree: Tree) -> list[str]:
    """The orders in which the nodes may be passed, branches before their root, the innermost first."""
    inner = [""]
    for branch in tree[1]:
        inner = [w for a, b in product(inner, _words(branch)) for w in _shuffle(a, b)]
    return [w + ("0" if tree[0] == "f" else "1") for w in inner]


def _shuffle(a: str, b: str) -> list[str]:
    if not a or not b:
        return [a + b]
    return [a[0] + w for w in _shuffle(a[1:], b)] + [b[0] + w for w in _shuffle(a, b[1:])]


_HALF = Fraction(1, 2)
_INTEGRALS: dict[str, Polynomial] = {
    "0": {(1, 0, 0): Fraction(1)},
    "10": {(1, 1, 0): _HALF, (1, 0, 1): Fraction(1)},
    "01": {(1, 1, 0): _HALF, (1, 0, 1): Fraction(-1)},
    **{"1" * n: {(0, n, 0): Fraction(1, factorial(n))} for n in (1, 2, 3)},
}


def _solution(tree: Tree) -> Polynomial:
    total: Polynomial = {}
    for word in _words(tree):
        total = _sum(total, _INTEGRALS[word])
    return total


def _mean_word(word: str) -> Fraction:
    """Of an integral of order 2, in units of h²: two blocks, 0 or 11, in a row."""
    means = {"00": Fraction(1, 2), "011": Fraction(1, 4), "110": Fraction(1, 4), "1111": Fraction(1, 8)}
    return means.get(word, Fraction(0))


def _mean(value: Polynomial) -> Fraction:
    """Of a polynomial of order 2, in units of h²; Var W = h, Var H = h/12."""
    moments = {0: 1, 2: 1, 4: 3}
    parts = (a * moments.get(w, 0) * moments.get(q, 0) / 12 ** (q // 2) for (_, w, q), a in value.items())
    return sum(parts, Fraction(0))


def _method(t: StratonovichTableau, tree: Tree) -> Polynomial:
    """What the step has of a tree."""
    still = matrix(*[""] * len(t.b))
    rows = (t.a, t.aw, t.ah or still)
    return _weighed((t.b, t.bw, t.bh or still[0]), tree, rows)


def _weighed(weights: tuple[Vector, Vector, Vector], tree: Tree, rows: tuple[Matrix, Matrix, Matrix]) -> Polynomial:
    """Of a tree whose root has these weights of f, g W and g H."""
    total: Polynomial = {}
    for i in range(len(weights[0])):
        h, w, q = (part[i] for part in weights)
        value: Polynomial = {(1, 0, 0): h} if tree[0] == "f" else {(0, 1, 0): w, (0, 0, 1): q}
        if not any(value.values()):
            continue
        stage = rows[0][i], rows[1][i], rows[2][i]
        for branch in tree[1]:
            value = _product(value, _weighed(stage, branch, rows))
        total = _sum(total, value)
    return total


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    return {k: a.get(k, Fraction(0)) + b.get(k, Fraction(0)) for k in a.keys() | b.keys()}


def _difference(a: Polynomial, b: Polynomial) -> Polynomial:
    return _sum(a, {k: -v for k, v in b.items()})


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for ((i, j, k), u), ((p, q, r), v) in product(a.items(), b.items()):
        total = _sum(total, {(i + p, j + q, k + r): u * v})
    return total


def _largest(value: Polynomial) -> Fraction:
    return max(value.values(), key=abs, default=Fraction(0))
