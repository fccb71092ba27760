r"""Problems of Itô's calculus, told in that of Stratonovich.

The drift is less by $\tfrac12 \sum_j Dg_j\,g_j$, which leaves the solution, and so every exact answer, what it was.
"""

from __future__ import annotations

from dataclasses import replace

from sdekit.calculus import to_stratonovich
from sdekit.problems import closed_form, linear
from sdekit.problems.base import Problem


def told(problem: Problem) -> Problem:
    """The same problem with its SDE in the calculus of Stratonovich."""
    return replace(
        problem,
        name=f"{problem.name.removesuffix('-gbm')}-strat",
        summary=f"{problem.name} by Stratonovich",
        detects=f"a drift of the other calculus; {problem.detects}",
        sde=to_stratonovich(problem.sde),
    )


def geometric_brownian_motion() -> Problem:
    r"""$dx = (\mu - ½ s^2)\,x\,dt + s x \circ dW$ with μ = 0.5, s = 0.8: the problem ``gbm``."""
    return told(linear.geometric_brownian_motion())


def hyperbolic_sine() -> Problem:
    r"""$dx = g\,dt + g \circ dW$ with $g = \sqrt{x^2 + 1}$: the problem ``sinh``."""
    return told(closed_form.hyperbolic_sine())


def scalar_arc_tangent() -> Problem:
    r"""$dx = \cos^2 x \circ dW$: the problem ``arctan-scalar``."""
    return told(closed_form.scalar_arc_tangent())


def nonautonomous_gbm() -> Problem:
    r"""$dx = ½ (\cos 3t - s^2)\,x\,dt + s x \circ dW$ with $s(t) = 0.4 + 0.6\,t$: the problem ``nonautonomous-gbm``."""
    return told(closed_form.nonautonomous_gbm())


def kubo() -> Problem:
    r"""$dX = s J X \circ dW$ with $J = (0, -1; 1, 0)$, s = 0.9: the problem ``kubo``, without a drift."""
    return told(linear.kubo())


def commuting() -> Problem:
    r"""$dX = (A - ½ B_1^2 - ½ B_2^2) X\,dt + \sum_i B_i X \circ dW_i$: the problem ``commuting``."""
    return told(linear.commuting())


def noncommuting() -> Problem:
    r"""$dX = (A - ½ B_1^2 - ½ B_2^2) X\,dt + \sum_i B_i X \circ dW_i$: the problem ``noncommuting``."""
    return told(linear.noncommuting())
