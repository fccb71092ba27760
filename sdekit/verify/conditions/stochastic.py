r"""Order conditions of Rößler's stochastic Runge–Kutta methods.

A condition fixes an elementary weight of a coloured tree, $w^\top \prod_k (M_k\,\varphi_k)$: the weights w of the
step, times for every branch at the root a matrix and what grows on it. It is written so: ``β4 B2 B2(B1 B1) = 0`` is
$\beta^{4\top} \bigl[(B^2 e) \cdot B^2 (B^1 e)^2\bigr] = 0$, products of vectors being taken entry by entry; ×
multiplies elementary weights. What is written is what is evaluated.

The strong conditions make all terms up to order 1.5 agree, and those of order 2 in the mean. The weak ones come from
the expansion of the mean of a functional up to $h^2$.

References: [rossler2010], SRA and SRI; [rossler2009], [debrabant2009], weak.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from math import prod

from sdekit.steppers.coefficients import Matrix, Vector
from sdekit.steppers.runge_kutta import Tableau
from sdekit.steppers.sra import SRATableau
from sdekit.steppers.sri import SRITableau
from sdekit.steppers.weak_runge_kutta import WeakTableau
from sdekit.verify.conditions.trees import dot, runge_kutta_residuals

SRA_STRONG = (
    "α = 1",
    "β1 = 1",
    "β2 = 0",
    "β1 c1 = 1",
    "β2 c1 = -1",
    "α A0 = 1/2",
    "α B0 = 1",
    "α B0 B0 = 3/2",
)
"""Strong order 1.5 for additive noise: 8 conditions."""

OWN_NODES = ("α c0 = 1/2",)
"""What is asked of nodes of the drift that are no row sums."""

SRI_STRONG = (
    "α = 1",
    *("β1 = 1", "β2 = 0", "β3 = 0", "β4 = 0"),
    *("β1 B1 = 0", "β2 B1 = 1", "β3 B1 = 0", "β4 B1 = 0"),
    *("α A0 = 1/2", "α B0 = 1", "α B0 B0 = 3/2"),
    *("β1 A1 = 1", "β2 A1 = 0", "β3 A1 = -1", "β4 A1 = 0"),
    *("β1 B1 B1 = 1", "β2 B1 B1 = 0", "β3 B1 B1 = -1", "β4 B1 B1 = 2"),
    *("β1 B1(B1) = 0", "β2 B1(B1) = 0", "β3 B1(B1) = 0", "β4 B1(B1) = 1"),
    "1/2 × β1 A1(B0) + 1/3 × β3 A1(B0) = 0",
)
"""Strong order 1.5 for diagonal and scalar noise: 25 conditions."""

WEAK_SECOND = (
    *("α = 1", "β4 = 0", "β3 = 0", "β1 × β1 = 1", "β2 = 0", "β1 B1 = 0", "β4 A2 = 0", "β3 B2 = 0", "β4 B2 B2 = 0"),
    *("α A0 = 1/2", "α B0 B0 = 1/2", "β1 × α B0 = 1/2", "β1 × β1 A1 = 1/2", "β3 A2 = 0", "β2 B1 = 1", "β4 B2 = 1"),
    *("β1 × β1 B1 B1 = 1/2", "β1 × β3 B2 B2 = 1/2", "β1 B1(B1) = 0", "β3 B2(B1) = 0", "β3 B2(B1(B1)) = 0"),
    *("β1 A1(B0) = 0", "β3 A2(B0) = 0", "β4 A2 A2 = 0", "β4 A2(A0) = 0", "α B0(B1) = 0", "β2 A1 = 0", "β1 A1 B1 = 0"),
    *("β3 A2 B2 = 0", "β4 A2(B0) = 0", "β2 A1(B0) = 0", "β4 B2 B2 A2 = 0", "β4 A2(B0 B0) = 0", "β2 A1(B0 B0) = 0"),
    *("β1 B1(A1) = 0", "β3 B2(A1) = 0", "β2 B1 B1 = 0", "β4 B2(B1) = 0", "β2 B1(B1) = 0", "β1 B1 B1 B1 = 0"),
    *("β3 B2 B2 B2 = 0", "β1 B1(B1 B1) = 0", "β3 B2(B1 B1) = 0", "β4 B2 B2 B2 B2 = 0", "β4 B2(B1) B2(B1) = 0"),
    *("β4 B2 B2(B1) = 0", "α B0 B0(B1) = 0", "β1 A1(B0) B1 = 0", "β3 A2(B0) B2 = 0", "β1 A1(B0(B1)) = 0"),
    *("β3 A2(B0(B1)) = 0", "β4 B2(A1) B2 = 0", "β1 B1(A1(B0)) = 0", "β3 B2(A1(B0)) = 0", "β1 B1 B1(B1) = 0"),
    *("β3 B2 B2(B1) = 0", "β1 B1(B1(B1)) = 0", "β4 B2 B2(B1 B1) = 0", "β4 B2 B2(B1(B1)) = 0"),
)
"""Weak order 2 for any Itô noise: 59 conditions, of which the first nine make order 1."""

Weights = Mapping[str, Vector]
Matrices = Mapping[str, Matrix]


def residuals(tableau: Tableau | SRATableau | SRITableau | WeakTableau, order: int) -> dict[str, Fraction]:
    """By how much every order condition is missed.

    Args:
        tableau: Of an ODE method, of a strong method of order 1.5 or of a weak method of order 2.
        order: Order on an ODE to which trees are looked at; a stochastic tableau is asked with its A0 and α.

    Returns:
        Condition to residual, exact for the coefficients as they are.
    """
    if isinstance(tableau, Tableau):
        return runge_kutta_residuals(tableau, order)
    found = runge_kutta_residuals(Tableau(tableau.A0, tableau.alpha), order)
    weights = {"α": tableau.alpha, "β1": tableau.beta1, "β2": tableau.beta2}
    matrices = {"A0": tableau.A0, "B0": tableau.B0}
    if not isinstance(tableau, WeakTableau) and tableau.nodes is not None:
        found |= _conditions(OWN_NODES, weights, {"c0": _diagonal(tableau.c0)})
    if isinstance(tableau, SRATableau):
        nodes = {"c1": _diagonal(tableau.c1)}
        return found | _conditions(SRA_STRONG, weights, matrices | nodes)
    weights |= {"β3": tableau.beta3, "β4": tableau.beta4}
    matrices |= {"A1": tableau.A1, "B1": tableau.B1}
    if isinstance(tableau, SRITableau):
        return found | _conditions(SRI_STRONG, weights, matrices)
    return found | _conditions(WEAK_SECOND, weights, matrices | {"A2": tableau.A2, "B2": tableau.B2})


def _diagonal(c: Vector) -> Matrix:
    """A matrix with row sums c."""
    return tuple(tuple(entry if i == j else Fraction(0) for j in range(len(c))) for i, entry in enumerate(c))


def _conditions(written: tuple[str, ...], weights: Weights, matrices: Matrices) -> dict[str, Fraction]:
    found = {}
    for condition in written:
        left, right = condition.split(" = ")
        terms = ([_factor(f, weights, matrices) for f in term.split(" × ")] for term in left.split(" + "))
        found[condition] = sum((prod(term, start=Fraction(1)) for term in terms), -Fraction(right))
    return found


def _factor(written: str, weights: Weights, matrices: Matrices) -> Fraction:
    """A number, or an elementary weight."""
    if written[0].isdigit():
        return Fraction(written)
    name, *branches = re.findall(r"\w+|[()]", written)
    return dot(weights[name], _stages(branches, len(weights[name]), matrices))


def _stages(branches: list[str], size: int, matrices: Matrices) -> Vector:
    """The product over branches; takes from the list up to a closing bracket or the end."""
    found = one = (Fraction(1),) * size
    while branches and (name := branches.pop(0)) != ")":
        inner = one
        if branches[:1] == ["("]:
            branches.pop(0)
            inner = _stages(branches, size, matrices)
        found = tuple(v * dot(row, inner) for v, row in zip(found, matrices[name], strict=True))
    return found
