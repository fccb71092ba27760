"""What a mutant is: something right, the same with one slip, and the check that must tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """A question to a stepper (or to what else can be wrong).

    Attributes:
        name: Such as ``golden/eta=1``.
        passes: Whether it is right; raises AssertionError where the answer is neither yes nor no.
    """

    name: str
    passes: Callable[[Any], bool]


@dataclass(frozen=True)
class Mutant:
    """A slip that somebody made or could make.

    Attributes:
        trap: The slip, in the words of :data:`mutants.TRAPS`.
        wrong: With the slip.
        right: Without it.
        check: Passes ``right``, rejects ``wrong``.
        slow: Whether the check takes seconds.
    """

    trap: str
    wrong: Any
    right: Any
    check: Check
    slow: bool = False

    @property
    def name(self) -> str:
        """Of what is wrong, and of the check: a slip may have several."""
        made = getattr(self.wrong, "__name__", type(self.wrong).__name__)
        return f"{made}-{self.check.name}"
