"""The validation study: exact marginals, measured orders, rewinding, and a learned score, in one folder."""

from sdekit.study.runner import run
from sdekit.study.settings import CONVERGENCE, PROBLEMS, Settings

__all__ = ["CONVERGENCE", "PROBLEMS", "Settings", "run"]
