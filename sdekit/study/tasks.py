"""The unit of a study: one record, computed at once or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

from torch import Tensor

from sdekit.data import fingerprint
from sdekit.errors import SdekitError
from sdekit.solution import versions
from sdekit.study.settings import Settings

Record: TypeAlias = dict[str, Any]
"""One line of ``results.jsonl``."""

Records: TypeAlias = Mapping[str, Record]
"""Records so far, by key."""


@final
@dataclass(frozen=True)
class Result:
    """What a task found: numbers for the record, and the arrays that figures are drawn from."""

    values: Mapping[str, Any]
    arrays: Mapping[str, Tensor] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Task:
    """One record to be computed.

    Attributes:
        part: Its name in :data:`sdekit.study.parts.PARTS`.
        name: The rest of the key, such as ``vp-gaussian/ddim/eta=0.5/steps=64``.
        about: What the record is about: problem, solver, eta, steps, grid, dtype.
        compute: The work, given the records before it.
        cost: Seconds that it takes, roughly; for the time left.
        reads_records: Whether ``compute`` needs the records before it.
    """

    part: str
    name: str
    about: Mapping[str, Any]
    compute: Callable[[Records], Result]
    cost: float = 0.1
    reads_records: bool = False

    @property
    def key(self) -> str:
        """Name of the record."""
        return f"{self.part}/{self.name}"

    def record(self, settings: Settings, values: Mapping[str, Any], arrays: str | None) -> Record:
        """The record with its provenance.

        Raises:
            SdekitError: a number that is not finite.
        """
        for name, value in values.items():
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise SdekitError(f"{self.key}: {name} is {number}. Leave out this solver or use more steps.")
        provenance = {**versions(), "seed": settings.seed, "device": "cpu", "dtype": "float64"}
        provenance |= {k: v for k, v in self.about.items() if k in ("device", "dtype", "grid", "weights")}
        head = {k: v for k, v in self.about.items() if k not in provenance}
        files = {} if arrays is None else {"arrays": arrays}
        return {"key": self.key, "part": self.part, **head, **files, "values": dict(values), "provenance": provenance}


def grid_facts(name: str, grid: Tensor) -> dict[str, Any]:
    """A grid in a record: what it is called, its ends, and a fingerprint of all its times."""
    return {
        "name": name,
        "steps": len(grid) - 1,
        "first": float(grid[0]),
        "last": float(grid[-1]),
        "sha256": fingerprint(grid)[:16],
    }
