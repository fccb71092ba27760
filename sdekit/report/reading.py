"""A study as the report reads it: records, arrays and settings of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from torch import Tensor

from sdekit.study.ledger import read_arrays, read_records, read_settings
from sdekit.study.tasks import Record


@final
@dataclass(frozen=True)
class Study:
    """What is in a study's folder.

    Attributes:
        folder: Where it is.
        settings: ``study.json``.
        records: By key, in order.
    """

    folder: Path
    settings: dict[str, Any]
    records: dict[str, Record]

    @classmethod
    def read(cls, folder: Path) -> Study:
        """From disk.

        Raises:
            SdekitError: no study there, or a damaged one.
        """
        records = read_records(folder)
        return cls(folder, read_settings(folder), records)

    def part(self, name: str) -> Iterator[Record]:
        """The records of a part."""
        return (record for record in self.records.values() if record["part"] == name)

    def arrays(self, record: Record) -> dict[str, Tensor]:
        """The arrays of a record.

        Raises:
            SdekitError: they are not there.
        """
        return read_arrays(self.folder / record["arrays"])


@final
@dataclass(frozen=True)
class Card:
    """One number of the headline."""

    number: str
    text: str


@final
@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        name: For links.
        title: Heading.
        body: HTML; ``{{name}}`` stands for the figure of that name.
        cards: For the headline.
        figures: PNG files by name.
    """

    name: str
    title: str
    body: str
    cards: tuple[Card, ...] = ()
    figures: dict[str, bytes] = field(default_factory=dict)
