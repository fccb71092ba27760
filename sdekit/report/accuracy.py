"""The section on accuracy: error against network evaluations, sdekit's samplers beside those of other libraries."""

from __future__ import annotations

import re
from typing import Any

from sdekit.report.drawing import BLUE, GREEN, INK, OCHRE, RED, Label, dress, label_ends, new_figure, png
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.settings import SAMPLERS
from sdekit.study.tasks import Record

_LOOKS = {"sdekit": (BLUE, "o"), "diffusers": (RED, "s"), "k-diffusion": (OCHRE, "^"), "azula": (GREEN, "D")}
_PARTS = {
    "flow": ("Flow, on one grid", "RMS error of the flow"),
    "w2": ("Reverse SDE, on one grid", "$W_2$ to the exact law"),
    "as-used": ("As used", "RMS error of $x_0$"),
}


def section(study: Study) -> Section | None:
    """Figures and tables of the accuracy part; None if it was not asked for, or nothing was measured yet."""
    records = list(study.part("accuracy"))
    if not records:
        return None
    versions = study.settings["versions"]
    missing = ", ".join(name for name in SAMPLERS if versions.get(name) is None)
    parts = {name: mine for name in _PARTS if (mine := [r for r in records if r["measure"] == name])}
    figures = {f"accuracy-{name}": _figure(*_PARTS[name], mine) for name, mine in parts.items()}
    body = template(
        "accuracy.html",
        libraries=", ".join(f"{name} {escape(versions[name])}" for name in SAMPLERS if versions.get(name)) or "nobody",
        summary=" ".join(_sentence(name, mine) for name, mine in parts.items()),
        missing=f'<p class="note">Not installed, so left out: {missing}.</p>' if missing else "",
        figures="".join(figure(f"accuracy-{name}", f"{_PARTS[name][0]}: error against evaluations") for name in parts),
        tables="".join(_table(name, mine) for name, mine in parts.items()),
    )
    return Section("accuracy", "Accuracy per evaluation", body, _cards(parts), figures)


def _errors(record: Record) -> dict[int, float]:
    """By budget."""
    values = record["values"]
    return dict(zip(values["budgets"], values["errors"], strict=True))


def _best(records: list[Record], budget: int) -> Record | None:
    """The most accurate of those that can run on a budget."""
    able = [r for r in records if budget in _errors(r)]
    return min(able, key=lambda r: _errors(r)[budget], default=None)


def _budgets(records: list[Record]) -> list[int]:
    return sorted({budget for r in records for budget in _errors(r)})


def _ratios(records: list[Record]) -> dict[int, float]:
    """By budget: the least error of the other libraries over that of sdekit, where both ran."""
    ours = [r for r in records if r["library"] == "sdekit"]
    others = [r for r in records if r["library"] != "sdekit"]
    found = {}
    for budget in _budgets(records):
        a, b = _best(ours, budget), _best(others, budget)
        if a is not None and b is not None:
            found[budget] = _errors(b)[budget] / _errors(a)[budget]
    return found


def _sentence(name: str, records: list[Record]) -> str:
    ratios = _ratios(records)
    if not ratios:
        return ""
    won = sum(ratio >= 1.0 - 1e-6 for ratio in ratios.values())
    words = f"at {won} of {len(ratios)} numbers of evaluations" if won < len(ratios) else "everywhere"
    low, high = (f"{v:.2g}" for v in (min(ratios.values()), max(ratios.values())))
    return (
        f"{_PARTS[name][0]}: sdekit is at least as accurate as the best other {words}, by factors of {low} to {high}."
    )


def _cards(parts: dict[str, list[Record]]) -> tuple[Card, ...]:
    ratios = _ratios(parts.get("as-used", []))
    if not ratios:
        return ()
    text = (
        "smaller error of <code>solve(flow, x, steps=N)</code> than of the best other sampler as used, "
        f"at {', '.join(map(str, ratios))} evaluations."
    )
    return (Card(f"{min(ratios.values()):.1f} to {max(ratios.values()):.0f} ×", text),)


def _figure(title: str, what: str, records: list[Record]) -> bytes:
    """A line for every library, through its best sampler at each budget; its label names the last of them."""
    canvas = new_figure(3.75)
    axes = canvas.add_axes((0.165, 0.15, 0.50, 0.73))
    dress(axes, "", "network evaluations", what)
    canvas.text(0.02, 0.945, title, fontsize=10, fontweight="bold", color=INK)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    budgets, labels = _budgets(records), []
    for library, (colour, marker) in _LOOKS.items():
        line = _envelope([r for r in records if r["library"] == library], budgets)
        if not line:
            continue
        x, y, names = zip(*line, strict=True)
        wide = 2.0 if library == "sdekit" else 1.3
        axes.plot(x, y, color=colour, marker=marker, ms=4, lw=wide, mew=0, zorder=3 if library == "sdekit" else 2)
        labels.append(Label(f"{library}\n{re.split(r'[,(]', names[-1])[0]}", x[-1], y[-1], colour))
    axes.set_xticks(budgets)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.minorticks_off()
    axes.set_xlim(budgets[0] * 0.85, budgets[-1] * 1.2)
    label_ends(axes, labels, gap=0.125)
    return png(canvas)


def _envelope(records: list[Record], budgets: list[int]) -> list[tuple[int, float, Any]]:
    best = {budget: found for budget in budgets if (found := _best(records, budget)) is not None}
    return [(budget, _errors(r)[budget], r["method"]) for budget, r in best.items()]


def _table(name: str, records: list[Record]) -> str:
    """All samplers; libraries in order, in each the most accurate on the largest budget first."""
    budgets = _budgets(records)
    best = {budget: found["key"] for budget in budgets if (found := _best(records, budget)) is not None}
    order = list(_LOOKS)
    rows: list[list[Cell | str]] = []
    for record in sorted(records, key=lambda r: (order.index(r["library"]), r["values"]["errors"][-1])):
        errors = _errors(record)
        cells = [
            Cell(f"<b>{number(errors[n])}</b>" if best[n] == record["key"] else number(errors[n]))
            if n in errors
            else Cell("–")
            for n in budgets
        ]
        rows.append([escape(record["library"]), Cell(f"<code>{escape(record['method'])}</code>"), *cells])
        if prototype := record["values"].get("prototype"):
            figures = [Cell(f"<small>{number(f)}</small>") for f in prototype]
            rows.append([Cell(""), Cell("<small>prototype</small>"), *figures])
    caption = (
        f"{_PARTS[name][0]}: errors by the number of evaluations that is allowed; the smallest of each column is bold."
    )
    return table(["library", "method", *map(str, budgets)], rows, caption, numbers_from=2)
