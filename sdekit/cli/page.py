"""How results look: tables and paragraphs, at most 80 columns where they can be, plain when piped."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sdekit.cli.formula import readable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 79
_ENDLESS = 10_000  # columns of a pipe: nothing is folded, so that grep and awk see whole rows


def show(*parts: RenderableType) -> None:
    """Print tables and strings with a blank line between: for a terminal as it can, for anything else plain."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = None if terminal else _ENDLESS
    console = Console(width=width, force_terminal=terminal, markup=False, highlight=False, emoji=False)
    blocks = []
    for part in parts:
        with console.capture() as captured:
            console.print(part)
        blocks.append("\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n"))
    print("\n\n".join(blocks))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a heading; a column whose name starts with ``>`` is set flush right."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(columns):
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=i == 0)
    for row in rows:
        made.add_row(*row)
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, side by side."""
    known = list(pairs)
    width = max(len(name) for name, _ in known) + 2
    return "\n".join(fill(f"{name:<{width}}{value}", " " * width) for name, value in known)


def prose(document: str) -> str:
    """A docstring for a terminal: formulas readable, paragraphs refilled, cross-references as words."""
    document = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", readable(document)).replace("``", "")
    return "\n\n".join(_paragraph(part) for part in document.split("\n\n"))


def _paragraph(text: str) -> str:
    """One paragraph, refilled if it is words."""
    set_off = any(line.startswith((" ", "|", "- ")) for line in text.splitlines())
    return text if set_off else fill(text)


def first_sentence(document: str) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = " ".join(prose(document).split("\n\n")[0].split())
    return re.split(r"(?<=[.;]) ", paragraph)[0].rstrip(".;")


def fill(text: str, indent: str = "") -> str:
    """Words in lines of less than 80 characters."""
    words = re.sub(r"\n", " ", text)
    return textwrap.fill(words, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
