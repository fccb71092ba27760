"""A check, what came of it, and all of them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdekit.errors import SdekitError


class ViolationError(Exception):
    """A stepper does not do what its Spec says, or what every stepper must."""


@dataclass(frozen=True)
class Check:
    """Something that a stepper must do.

    Attributes:
        name: Such as ``batch/vp-mixture/eta=1``.
        run: Looks; returns what it saw in a few words, or raises :class:`ViolationError`.
    """

    name: str
    run: Callable[[], str]

    def outcome(self) -> Outcome:
        """Run it. Any exception of the stepper is a failure of the check, not of the suite."""
        try:
            return Outcome(self.name, True, self.run())
        except ViolationError as violation:
            return Outcome(self.name, False, str(violation))
        except Exception as error:
            return Outcome(self.name, False, f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Outcome:
    """What a check saw.

    Attributes:
        name: Of the check.
        passed: Whether the stepper conforms.
        detail: The figures.
    """

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.detail}"


@dataclass(frozen=True)
class Conformance:
    """The outcome of the whole suite on one stepper.

    Attributes:
        stepper: Its name.
        outcomes: One for each check.
    """

    stepper: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that did not."""
        return tuple(o for o in self.outcomes if not o.passed)

    def check(self) -> Conformance:
        """Itself, if all passed.

        Raises:
            SdekitError: lists every failure with its figures.
        """
        if self.failures:
            lines = "\n  ".join(map(str, self.failures))
            raise SdekitError(f"{self.stepper} fails {len(self.failures)} of {len(self.outcomes)} checks:\n  {lines}")
        return self

    def __str__(self) -> str:
        done = len(self.outcomes) - len(self.failures)
        return "\n".join([f"{self.stepper}: {done} of {len(self.outcomes)} checks pass", *map(str, self.failures)])


def require(holds: bool, complaint: str) -> None:
    """Raise a :class:`ViolationError` unless something holds."""
    if not holds:
        raise ViolationError(complaint)
