"""The registry of problems."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sdekit.errors import SdekitError, unknown_name
from sdekit.problems.base import Problem
from sdekit.problems.forward import geometric_brownian_motion
from sdekit.problems.reverse import DATA, PROCESSES, reverse_problem

PROBLEMS: dict[str, Callable[..., Problem]] = {
    **{f"{p}-{d}": partial(reverse_problem, p, d) for d in DATA for p in PROCESSES},
    "gbm": geometric_brownian_motion,
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
