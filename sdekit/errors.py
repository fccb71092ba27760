"""The one exception of sdekit, and how it finds the name that you meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SdekitError(ValueError):
    """Bad input. The message says what is wrong, shows the value and names the cure."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> SdekitError:
    """The error for a name that is in no registry; it suggests the nearest one."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}."
    return SdekitError(f"There is no {kind} {name!r}: {hint}")
