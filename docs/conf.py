"""Sphinx configuration: MyST pages, an API reference from the docstrings, no network."""

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sphinx.ext.napoleon import Config, GoogleDocstring

import sdekit
from sdekit.cli import COMMANDS
from sdekit.cli.command import parser_of
from sdekit.report import drawing
from sdekit.verify import certificates
from sdekit.verify.certificates import Certificate

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
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"


# The docstrings are Google sections around Markdown mathematics; autodoc reads reStructuredText.

_KEYS = set(re.findall(r"@\w+\{(\w+),", Path(__file__).with_name("references.bib").read_text()))
_GOOGLE = Config(napoleon_use_ivar=True)


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
    """Rewrite ``$...$``, ``$$...$$``, ``[key]``, tables, bars and the star of a shape such as (B, *E)."""
    text = re.sub(r"(?m)^\|.*\|\n\|[-|: ]+\|\n(\|.*\|(\n|\Z))+", _table, text)
    text = re.sub(r"(?s)(\$\$.+?\$\$|\$[^$]+?\$|(`+).+?\2)|\|", lambda m: m[1] or r"\|", text)
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


# The tables of steppers and the command line are read off the registries, whenever a page is built.

_CLASSES = ("linear-additive", "additive", "diagonal", "commutative", "general")
_NOISES = ("none", "additive", "scalar", "diagonal", "commutative", "general")
_CALCULI = {"ito": "Itô", "stratonovich": "Stratonovich"}


def _number(value: float | None) -> str:
    return "–" if value is None else "exact" if math.isinf(value) else f"{value:g}"


def _etas(low: float, high: float) -> str:
    return _number(low) if low == high else f"≥\u00a0{low:g}" if math.isinf(high) else f"[{low:g},\u00a0{high:g}]"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


_ORIGINALS = {name: stepper for name, stepper in sdekit.STEPPERS.items() if stepper.spec.alias is None}


def _facts() -> str:
    """What each registered stepper is and what it takes."""
    rows = []
    for name, stepper in sdekit.STEPPERS.items():
        spec = stepper.spec
        noises = [noise for noise in _NOISES if noise in spec.noise_types]
        noise = "any" if len(noises) == len(_NOISES) else ", ".join(noises)
        if not spec.noise_types <= {"none", "additive"}:  # else the two calculi agree
            noise += f" ({' or '.join(_CALCULI[c] for c in sorted(spec.calculus))})"
        source = f" {{cite}}`{','.join(spec.references)}`" if spec.references else ""
        needs = "yes" if spec.needs_schedule else "no"
        other = f" (`{spec.alias}`)" if spec.alias else ""
        rows.append([f"`{name}`{other}", spec.summary + source, str(spec.evaluations), noise, _etas(*spec.eta), needs])
    return _markdown(["name", "method", "calls per step", "noise", "η", "needs λ"], rows)


def _orders() -> str:
    """The declared orders, strong / weak by class of problem."""
    rows = []
    for name, stepper in _ORIGINALS.items():
        spec = stepper.spec
        pairs = [(spec.strong.get(c), spec.weak.get(c)) for c in _CLASSES]
        cells = ["–" if pair == (None, None) else " / ".join(map(_number, pair)) for pair in pairs]
        rows.append([f"`{name}`", _number(spec.ode), *cells])
    return _markdown(["name", "ODE", *_CLASSES], rows)


_PICTURES = Path(__file__).parent / "_static" / "certificates"


def _certificates() -> str:
    """What was measured of every declared order, stepper by stepper, with a picture; the declared ones are the rest."""
    parts = []
    for name, stepper in _ORIGINALS.items():
        best = certificates.by_fact(certificates.load(name))
        facts = _declared(stepper.spec)
        rows = [_certified(fact, order, best.get(fact)) for fact, order in facts.items()]
        table = _markdown(["fact", "declared", "measured", "problem", "how"], rows)
        parts.append(f"### `{name}`\n\n{table}\n")
        drawn = [best[f] for f in facts if f in best and best[f].order is not None and min(best[f].errors) > 0.0]
        if drawn:
            _draw(drawn, _PICTURES / f"{name}.svg")
            parts.append(f"![Errors of {name} against steps](_static/certificates/{name}.svg)\n")
    return "\n".join(parts)


def _declared(spec: sdekit.steppers.Spec) -> dict[str, float]:
    """The facts of a Spec about orders."""
    found = {f"strong/{c}": spec.strong[c] for c in _CLASSES if c in spec.strong}
    found |= {f"weak/{c}": spec.weak[c] for c in _CLASSES if c in spec.weak}
    return {fact: order for fact, order in ({"ode": spec.ode} | found).items() if order is not None}


def _certified(fact: str, declared: float, c: Certificate | None) -> list[str]:
    kind, _, noise = fact.partition("/")
    name = "ODE" if kind == "ode" else f"{kind}, {noise}"
    if c is None:
        return [name, _number(declared), "–", "", ""]
    remark = "" if c.sharp else " (exceeds)" if c.holds else " (**falls short**)"
    return [name, _number(declared), c.measured + remark, c.where, certificates.METHODS[c.method]]


def _measured(stepper: str, fact: str) -> str:
    """The order of the certificate that speaks for a fact, and where it was had."""
    c = certificates.by_fact(certificates.load(stepper))[fact]
    return f"{c.measured} on {c.where}"


def _draw(drawn: Sequence[Certificate], path: Path) -> None:
    """Errors against steps, one line for each fact, with its slope."""
    figure = drawing.new_figure(3.0, 7.0)
    axes = figure.add_axes((0.09, 0.16, 0.5, 0.8))
    colours = [drawing.BLUE, drawing.RED, drawing.GREEN, drawing.WINE, drawing.INDIGO, drawing.OCHRE, drawing.TEAL]
    labels = []
    for i, c in enumerate(drawn):
        colour, (n, e) = colours[i % len(colours)], (c.steps, c.errors)
        if c.declared is not None:
            slope = [e[-1] * (n[-1] / m) ** c.declared for m in n]
            axes.loglog(n, slope, color=drawing.FAINT, linestyle="--", linewidth=0.9, zorder=1)
        axes.loglog(n, e, color=colour, marker="osD^vPXh"[i % 8], markersize=3.5, linewidth=1.2)
        labels.append(drawing.Label(f"{c.fact}: {c.measured}", n[-1], e[-1], colour))
    counts = sorted({m for c in drawn for m in c.steps})
    ticks = [m for m in counts if m & (m - 1) == 0] or counts
    axes.set_xticks(ticks, [str(m) for m in ticks])
    axes.minorticks_off()
    drawing.dress(axes, x="steps", y="error")
    drawing.label_ends(axes, labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


_ANSWERS = {
    "path": "path",
    "law": "law",
    "flow": "flow",
    "linear": "strong and weak error",
    "weak": "moments",
}


def _problems() -> str:
    """The problems that have a page of their own: all but those of generation."""
    rows = []
    for name, make in sdekit.problems.PROBLEMS.items():
        if isinstance(make, partial):
            continue
        problem = make()
        known = [word for field, word in _ANSWERS.items() if getattr(problem, field) is not None]
        if problem.unresolved is not None:
            known[0] = "mean given W and H"
        equation = make.__doc__.splitlines()[0]
        rows.append([f"`{name}`", equation, problem.noise_class, ", ".join(known), problem.detects])
    return _markdown(["name", "equation", "class", "what is exact", "the mistake that it shows"], rows)


def _commands() -> str:
    """The help of every command."""
    parser = parser_of(COMMANDS.values())
    (chosen,) = (action for action in parser._actions if action.dest == "command")
    helps = {f"sdekit {name}": one.format_help() for name, one in chosen.choices.items()}
    return "\n".join(f"## {name}\n\n```text\n{text}```\n" for name, text in helps.items())


_GENERATED = {
    "facts of the steppers": _facts,
    "orders of the steppers": _orders,
    "certificates": _certificates,
    "commands": _commands,
    "problems": _problems,
}


def _generate(app, docname, source):
    """Replace each comment ``<!-- generated: WHAT -->`` and ``<!-- measured: STEPPER FACT -->``."""
    text = re.sub(r"<!-- generated: (.+?) -->", lambda m: _GENERATED[m[1]](), source[0])
    source[0] = re.sub(r"<!-- measured: (\S+) (\S+) -->", lambda m: _measured(m[1], m[2]), text)


def setup(app):
    """Translate docstrings between autodoc and the parser; write what is generated."""
    app.connect("autodoc-process-docstring", _translate)
    app.connect("source-read", _generate)
