"""The documentation runs, prints what it shows, and leaves out no public name."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sdekit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if page.exists()]
RUN = [page for page in PAGES if "```python" in page.read_text()]

# A block of code, and the text block that shows what it prints, if one follows it with nothing between.
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<shown>.*?)^```\n)?", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?![\w])")


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def unit(number: str) -> float:
    """One in the last printed digit."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def mismatch(shown: str, printed: str) -> str | None:
    """Why the two texts differ, beyond one unit in the last printed digit of a float; None if they do not."""
    shown, printed = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (shown, printed))
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)) for text in (shown, printed)]
    if words[0] != words[1]:
        return f"the page shows\n{shown}\nand the code prints\n{printed}"
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        integers = not set(".e") & set(a + b)
        if a != b and (integers or abs(float(a) - float(b)) > 1.01 * max(unit(a), unit(b))):
            return f"the page shows {a}, the code prints {b}:\n{printed}"
    return None


@pytest.mark.parametrize("page", RUN, ids=relative)
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, names = page.read_text(), {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        out = io.StringIO()
        # The newlines put the lines of a traceback where they are on the page.
        code = compile("\n" * line + block["code"], str(page), "exec")
        with contextlib.redirect_stdout(out):
            exec(code, names)
        if block["shown"] is not None:
            assert not (why := mismatch(block["shown"], out.getvalue())), f"{relative(page)}:{line}: {why}"
