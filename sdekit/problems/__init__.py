"""Problems whose solution is known: an SDE with its initial law, its times, and the exact law or path."""

from sdekit.problems.base import LinearCoefficients, Problem, WeakAnswer
from sdekit.problems.closed_form import ClosedForm
from sdekit.problems.registry import PROBLEMS, get

__all__ = ["PROBLEMS", "ClosedForm", "LinearCoefficients", "Problem", "WeakAnswer", "get"]
