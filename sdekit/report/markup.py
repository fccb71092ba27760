"""Pieces of HTML: tables, figures, numbers."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources
from string import Template
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of a table: HTML, and a class that colours it."""

    content: str
    kind: str = ""


def escape(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits; powers of ten as people write them."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        return f"{float(text):.0f}" if "e" in text else text
    mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
    return f"{mantissa}·10<sup>{int(exponent)}</sup>".replace("-", "−")


def plain(value: float, digits: int = 2) -> str:
    """A number for a label in a figure."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("-", "−")


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]], caption: str, numbers_from: int = 1) -> str:
    """A table that scrolls inside its box.

    Args:
        head: HTML of the column heads.
        rows: Cells.
        caption: Says what is to be seen.
        numbers_from: First column that is set flush right.
    """
    heads = "".join(f'<th scope="col"{_right(i, numbers_from)}>{h}</th>' for i, h in enumerate(head))
    body = "".join(f"<tr>{''.join(_cell(c, i, numbers_from) for i, c in enumerate(row))}</tr>\n" for row in rows)
    return (
        f'<div class="box"><p class="caption">{caption}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div></div>"
    )


def _right(column: int, numbers_from: int) -> str:
    return ' class="n"' if column >= numbers_from else ""


def _cell(cell: Cell | str, column: int, numbers_from: int) -> str:
    content, kind = cell if isinstance(cell, Cell) else (cell, "")
    kinds = " ".join(k for k in ("n" if column >= numbers_from else "", kind) if k)
    return f"<td{f' class={kinds!r}' if kinds else ''}>{content}</td>".replace("'", '"')


def figure(name: str, alt: str, caption: str = "", kind: str = "") -> str:
    """A figure; the page puts the image where ``{{name}}`` stands."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><img src="{{{{{name}}}}}" alt="{escape(alt)}">{below}</figure>'


def template(name: str, **values: str) -> str:
    """A file of ``templates`` with its ``$names`` filled in."""
    text = (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
    return Template(text).substitute(values)
