"""Methods of other libraries under names of their own, ``library:method``.

A library is known by its name, what its methods are called, and how one of them becomes a stepper; nothing is imported
until one is asked for. What knows the library lives upstairs, and registers here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import final

from sdekit.errors import SdekitError, unknown_name
from sdekit.steppers.base import Stepper


@final
@dataclass(frozen=True)
class BackEnd:
    """A library whose methods can be asked for by name.

    Attributes:
        library: Its name, in front of the colon and behind ``pip install``.
        methods: What its methods are called there.
        make: A stepper from one of these names; imports what it needs.
    """

    library: str
    methods: tuple[str, ...]
    make: Callable[[str], Stepper]

    @property
    def installed(self) -> bool:
        """Whether the library can be imported."""
        return find_spec(self.library) is not None

    @property
    def names(self) -> tuple[str, ...]:
        """As the registry has them."""
        return tuple(f"{self.library}:{method}" for method in self.methods)


BACK_ENDS: dict[str, BackEnd] = {}
"""Library → its methods."""


def register(back_end: BackEnd) -> None:
    """Make the methods of a library known to the registry.

    Args:
        back_end: The library; one of the same name is replaced.
    """
    BACK_ENDS[back_end.library] = back_end
    method.cache_clear()


def names() -> tuple[str, ...]:
    """All names, whether the library is installed or not."""
    return tuple(name for back_end in BACK_ENDS.values() for name in back_end.names)


@cache
def method(name: str) -> Stepper:
    """A method by its name, ``library:method``.

    Raises:
        SdekitError: a library that is not known or not installed, or a method that it has not.
    """
    library, _, called = name.partition(":")
    if library not in BACK_ENDS:
        raise unknown_name("library with steppers", library, BACK_ENDS)
    back_end = BACK_ENDS[library]
    if called not in back_end.methods:
        raise SdekitError(f"{library} has no method {called!r} here; there are {', '.join(back_end.names)}.")
    if not back_end.installed:
        raise SdekitError(f"{name} is a method of {library}, which is not installed: pip install {library}.")
    return back_end.make(called)
