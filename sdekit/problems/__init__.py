"""Problems whose solution is known: an SDE with its initial law, its times, and the exact law or path."""

from sdekit.problems.base import Problem
from sdekit.problems.registry import PROBLEMS, get

__all__ = ["PROBLEMS", "Problem", "get"]
