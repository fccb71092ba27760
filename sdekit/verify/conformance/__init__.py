"""The conformance suite: what every stepper must do, and what its Spec says that it does, on the code that runs.

The checks follow from the declared facts, so a new stepper inherits them without a line of its own; they run on
third-party steppers too. They cannot know that a method is the one it is named after: a golden law does that.
"""

from sdekit.verify.conformance.outcome import Check, Conformance, Outcome, ViolationError
from sdekit.verify.conformance.suite import check_stepper, checks

__all__ = ["Check", "Conformance", "Outcome", "ViolationError", "check_stepper", "checks"]
