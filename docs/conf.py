"""Sphinx configuration: MyST pages, an API reference from the docstrings, no network."""

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


def _to_rst(text: str) -> str:
    """Rewrite ``$...$``, ``$$...$$``, ``[key]`` and the star of a shape such as (B, *E)."""
    text = re.sub(r"(?ms)^([ \t]*)\$\$(.+?)\$\$[ \t]*$", _block, text)
    text = re.sub(r"(?<![\\$`])\$([^$`]+?)\$", lambda m: f":math:`{' '.join(m[1].split())}`", text)
    text = re.sub(r"(`+).+?\1|\*(?=\w+[,)\]])", lambda m: m[0] if m[1] else r"\*", text)
    return re.sub(r"\[(\w+(?:,\s*\w+)*)\](?![_(])", _citation, text)


def _translate(app, what, name, obj, options, lines):
    text = _to_rst("\n".join(lines)).split("\n")
    # Of an attribute, napoleon would take the words before a colon for its type.
    if what not in {"attribute", "data", "property"}:
        text = GoogleDocstring(text, _GOOGLE, app, what, name, obj, options).lines()
    lines[:] = text


def setup(app):
    """Translate docstrings between autodoc and the parser."""
    app.connect("autodoc-process-docstring", _translate)
