"""Sphinx configuration: MyST pages, an API reference from the docstrings, no network."""

import math
import re
from pathlib import Path

from sphinx.ext.napoleon import Config, GoogleDocstring

import sdekit

project = "sdekit"
author = "The sdekit authors"
copyright = f"2026, {author}"
version = release = sdekit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sdekit {version}"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"
bibtex_reference_style = "author_year"


# The docstrings are Google sections around Markdown mathematics; autodoc reads reStructuredText.

_KEYS = set(re.findall(r"@\w+\{(\w+),", Path(__file__).with_name("references.bib").read_text()))
_GOOGLE = Config()


def _block(match: re.Match[str]) -> str:
    indent = match[1]
    body = "\n".join(f"{indent}   {line.strip()}" for line in match[2].strip().splitlines())
    return f"\n{indent}.. math::\n\n{body}\n\n"


def _citation(match: re.Match[str]) -> str:
    keys = re.split(r",\s*", match[1])
    return f":cite:p:`{','.join(keys)}`" if _KEYS.issuperset(keys) else match[0]


def _table(match: re.Match[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in match[0].strip().splitlines()]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows[:1] + rows[2:]:
        lines += [f"   {'  ' if i else '* '}- {cell}" for i, cell in enumerate(row)]
    return "\n" + "\n".join(lines) + "\n\n"


def _to_rst(text: str) -> str:
    """Rewrite ``$...$``, ``$$...$$``, ``[key]``, tables and the star of a shape such as (B, *E)."""
    text = re.sub(r"(?m)^\|.*\|\n\|[-|: ]+\|\n(\|.*\|(\n|\Z))+", _table, text)
    text = re.sub(r"(?ms)^([ \t]*)\$\$(.+?)\$\$[ \t]*$", _block, text)
    text = re.sub(r"(?<![\\$`])\$([^$`]+?)\$", lambda m: f":math:`{' '.join(m[1].split())}`", text)
    text = re.sub(r"(`+).+?\1|(?<!\\)\*(?=\w+[,)\]])", lambda m: m[0] if m[1] else r"\*", text)
    return re.sub(r"\[(\w+(?:,\s*\w+)*)\](?![_(])", _citation, text)


def _translate(app, what, name, obj, options, lines):
    text = _to_rst("\n".join(lines)).split("\n")
    # Of an attribute, napoleon would take the words before a colon for its type.
    if what not in {"attribute", "data", "property"}:
        text = GoogleDocstring(text, _GOOGLE, app, what, name, obj, options).lines()
    lines[:] = text


# The tables of steppers are made from what the steppers declare, whenever the page is built.

_CLASSES = ("linear-additive", "additive", "diagonal", "commutative", "general")
_NOISES = ("none", "additive", "scalar", "diagonal", "commutative", "general")


def _number(value: float | None) -> str:
    return "–" if value is None else "∞" if math.isinf(value) else f"{value:g}"


def _etas(low: float, high: float) -> str:
    return _number(low) if low == high else f"≥ {low:g}" if math.isinf(high) else f"{low:g} … {high:g}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _facts() -> str:
    """What each registered stepper is and what it takes."""
    head = ["name", "method", "form", "calls per step", "noise", "calculus", "η backwards", "needs λ", "source"]
    rows = []
    for name, stepper in sdekit.STEPPERS.items():
        spec = stepper.spec
        noises = [noise for noise in _NOISES if noise in spec.noise_types]
        rows.append(
            [
                f"`{name}`",
                spec.summary,
                spec.kind,
                str(spec.evaluations),
                "any" if len(noises) == len(_NOISES) else ", ".join(noises),
                ", ".join({"ito": "Itô", "stratonovich": "Stratonovich"}[c] for c in sorted(spec.calculus)),
                _etas(*spec.eta),
                "yes" if spec.needs_schedule else "no",
                f"{{cite}}`{','.join(spec.references)}`" if spec.references else "–",
            ]
        )
    return _markdown(head, rows)


def _orders() -> str:
    """The declared orders, strong / weak by class of problem."""
    rows = []
    for name, stepper in sdekit.STEPPERS.items():
        spec = stepper.spec
        if spec.kind == "exact":
            rows.append([f"`{name}`", "exact", "exact", *["–"] * (len(_CLASSES) - 1)])
            continue
        pairs = [(spec.strong.get(c), spec.weak.get(c)) for c in _CLASSES]
        cells = ["–" if pair == (None, None) else " / ".join(map(_number, pair)) for pair in pairs]
        rows.append([f"`{name}`", _number(spec.ode), *cells])
    return _markdown(["name", "ODE", *_CLASSES], rows)


_TABLES = {"facts": _facts, "orders": _orders}


def _fill_tables(app, docname, source):
    """Replace the line ``<!-- stepper table: NAME -->``."""
    source[0] = re.sub(r"<!-- stepper table: (\w+) -->", lambda m: _TABLES[m[1]](), source[0])


def setup(app):
    """Translate docstrings between autodoc and the parser; write the tables of steppers."""
    app.connect("autodoc-process-docstring", _translate)
    app.connect("source-read", _fill_tables)
