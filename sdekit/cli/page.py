"""How results look: tables and paragraphs, at most 80 columns where they can be, plain when piped."""

from __future__ import annotations

import io
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 79
_ENDLESS = 10_000  # columns of a pipe: nothing is folded, so that grep and awk see whole rows


def show(*parts: RenderableType) -> None:
    """Print tables and strings: in colour and to the width of a terminal, plain and unfolded to anything else."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(markup=False, highlight=False, emoji=False).print(*parts, sep="\n")
        return
    buffer = io.StringIO()
    console = Console(
        file=buffer, width=_ENDLESS, force_terminal=False, color_system=None, markup=False, highlight=False, emoji=False
    )
    console.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a heading; a column whose name starts with ``>`` is set flush right."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
    for i, column in enumerate(columns):
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=i == 0)
    for row in rows:
        made.add_row(*row)
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values, side by side."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, style="bold")
    made.add_column()
    for name, value in pairs:
        made.add_row(name, value)
    return made


def prose(document: str) -> str:
    """A docstring for a terminal: paragraphs refilled, formulas and tables left alone, cross-references as words."""
    document = re.sub(r":\w+:`~?(?:[\w.]*\.)?([\w]+)`", r"\1", document).replace("``", "")
    return "\n\n".join(_paragraph(part) for part in document.split("\n\n"))


def _paragraph(text: str) -> str:
    """One paragraph, refilled if it is words."""
    lines = text.splitlines()
    set_off = any(line.startswith((" ", "|", "$$", "- ")) for line in lines)
    return text if set_off else textwrap.fill(" ".join(lines), _WIDTH, break_long_words=False, break_on_hyphens=False)


def fill(text: str, indent: str = "") -> str:
    """A sentence of our own, in lines of less than 80 characters."""
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
