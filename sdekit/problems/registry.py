"""The registry of problems."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sdekit.errors import SdekitError, unknown_name
from sdekit.problems import additive, closed_form, linear, stratonovich
from sdekit.problems.base import Problem
from sdekit.problems.cir import cox_ingersoll_ross
from sdekit.problems.double_well import double_well
from sdekit.problems.langevin import langevin_gaussian, langevin_mixture
from sdekit.problems.ode import nonautonomous_ode
from sdekit.problems.reverse import DATA, PROCESSES, reverse_problem
from sdekit.problems.squares import nonautonomous_square, square

PROBLEMS: dict[str, Callable[..., Problem]] = {
    **{f"{p}-{d}": partial(reverse_problem, p, d) for d in DATA for p in PROCESSES},
    "gbm": linear.geometric_brownian_motion,
    "gbm-martingale": linear.martingale,
    "sinh": closed_form.hyperbolic_sine,
    "arctan": closed_form.arc_tangent,
    "arctan-scalar": closed_form.scalar_arc_tangent,
    "cir": cox_ingersoll_ross,
    "nonautonomous-gbm": closed_form.nonautonomous_gbm,
    "kubo": linear.kubo,
    "stiff": linear.stiff,
    "commuting": linear.commuting,
    "nilpotent": linear.nilpotent,
    "noncommuting": linear.noncommuting,
    "heisenberg": linear.heisenberg,
    "additive-nonlinear": additive.additive_nonlinear,
    "additive-decay": additive.additive_decay,
    "square": square,
    "nonautonomous-square": nonautonomous_square,
    "double-well": double_well,
    "langevin-gaussian": langevin_gaussian,
    "langevin-mixture": langevin_mixture,
    "rotation": linear.rotation,
    "gbm-strat": stratonovich.geometric_brownian_motion,
    "sinh-strat": stratonovich.hyperbolic_sine,
    "arctan-scalar-strat": stratonovich.scalar_arc_tangent,
    "nonautonomous-strat": stratonovich.nonautonomous_gbm,
    "kubo-strat": stratonovich.kubo,
    "commuting-strat": stratonovich.commuting,
    "noncommuting-strat": stratonovich.noncommuting,
    "nonautonomous-ode": nonautonomous_ode,
}
"""Name → maker. The generation problems take ``eta``."""


def get(name: str, **options: float) -> Problem:
    """A problem by name.

    Args:
        name: A key of :data:`PROBLEMS`.
        options: What the problem takes; ``eta`` for the generation problems.

    Raises:
        SdekitError: an unknown name, or an option that this problem does not take.
    """
    if name not in PROBLEMS:
        raise unknown_name("problem", name, PROBLEMS)
    try:
        return PROBLEMS[name](**options)
    except TypeError as error:
        raise SdekitError(f"The problem {name!r} does not take {', '.join(options)}.") from error
