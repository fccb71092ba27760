"""The section on the learned score of handwritten digits."""

from __future__ import annotations

from typing import Any

from sdekit.report.drawing import (
    GREEN,
    INK,
    SMALL,
    SOFT,
    Label,
    dress,
    grey_png,
    label_ends,
    look,
    new_figure,
    png,
    tile,
)
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_METRICS = (("energy", "energy distance"), ("sliced_w2", "sliced $W_2$"))
_TABLES = (("energy", "Energy distance"), ("sliced_w2", "Sliced W₂"))
_KINDS = {"flow": "Flow, η = 0", "sde": "SDE, η > 0"}
_FEW, _ACROSS = 9, 3
_RANGE = (3.5, 130.0)
_MOST = 20.0  # floors: what is further away is off the scale of the figure


def section(study: Study) -> Section | None:
    """Figures, images and tables of the digits part; None if nothing was sampled."""
    real = study.records.get("digits/real")
    records = [r for r in study.part("digits") if r["solver"] is not None]
    if real is None or not records:
        return None
    panels = [(m, k) for m, _ in _METRICS for k in _KINDS if any((r["eta"] == 0.0) == (k == "flow") for r in records)]
    figures = {f"digits-{m}-{k}": _distances(records, real, m, k) for m, k in panels}
    figures["digits-overview"] = _overview(study, records, real)
    gallery = ""
    for record in (real, *records):
        name = _sheet_name(record)
        figures[name] = grey_png(tile(study.arrays(record)["images"], 8), scale=3)
        gallery += figure(name, f"64 digits: {_title(record)}", escape(_title(record)), "sheet")
    body = template(
        "digits.html",
        n=str(real["values"]["n"]),
        budgets=_listed(sorted({r["budget"] for r in records})),
        repeats=str(real["values"]["repeats"]),
        distances="".join(figure(f"digits-{m}-{k}", f"{m} to held-out digits, {_KINDS[k]}") for m, k in panels),
        overview=figure("digits-overview", "A few digits of every solver at every budget", kind="wide"),
        tables="".join(_table(records, real, metric, words) for metric, words in _TABLES),
        gallery=gallery,
    )
    return Section("digits", "A learned score: handwritten digits", body, _cards(records, real), figures)


def _listed(values: list[int]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def _title(record: Record) -> str:
    if record["solver"] is None:
        return "real digits, held out"
    return f"{_name(record)}, {record['values']['evaluations']} evaluations"


def _name(record: Record) -> str:
    solver, eta = record["solver"], record["eta"]
    return str(solver) if solver not in ("ddim", "euler-maruyama") else f"{solver} η={eta:g}"


def _sheet_name(record: Record) -> str:
    return "-".join(record["key"].replace("eta=", "").replace("evaluations=", "").split("/"))


def _lines(records: list[Record]) -> dict[tuple[str, float], list[Record]]:
    lines: dict[tuple[str, float], list[Record]] = {}
    for record in records:
        lines.setdefault((record["solver"], record["eta"]), []).append(record)
    return lines


def _cards(records: list[Record], real: Record) -> tuple[Card, ...]:
    high = real["values"]["energy_high"]
    within = [r for r in records if r["values"]["energy"] <= high]
    best = min(within or records, key=lambda r: (r["values"]["evaluations"], r["values"]["energy"]))
    if not within:
        best = min(records, key=lambda r: r["values"]["energy"])
    values = best["values"]
    text = (
        f"is the energy distance of {values['n']} digits by {escape(_name(best))} with {values['evaluations']} "
        f"evaluations to as many held-out ones; between real digits it is {number(real['values']['energy'], 3)} "
        f"(up to {number(high, 3)})."
    )
    return (Card(number(values["energy"], 3), text),)


def _distances(records: list[Record], real: Record, metric: str, kind: str) -> bytes:
    """Distance against evaluations, one line a solver, over the band of real against real."""
    words = dict(_METRICS)[metric]
    floor = real["values"]
    canvas = new_figure(3.4)
    axes = canvas.add_axes((0.155, 0.155, 0.545, 0.71))
    dress(axes, "", "network evaluations", words)
    canvas.text(0.02, 0.94, f"{_KINDS[kind]}: {words}", fontsize=10, fontweight="bold", color=INK)
    axes.axhspan(floor[f"{metric}_low"], floor[f"{metric}_high"], color="#dcebdf", lw=0, zorder=0)
    axes.plot((5.0, _RANGE[1]), (floor[metric],) * 2, color=GREEN, lw=0.9, zorder=1)
    axes.text(_RANGE[0] * 1.05, floor[metric], "real", fontsize=8, color=SOFT, va="center")
    labels, low, high = [], floor[f"{metric}_low"], 0.0
    for (solver, eta), line in _lines(records).items():
        if (eta == 0.0) != (kind == "flow"):
            continue
        x = [r["values"]["evaluations"] for r in line]
        y = [r["values"][metric] for r in line]
        colour, marker, dashes = look(solver, eta)
        axes.plot(x, y, linestyle=dashes, color=colour, marker=marker, ms=4, lw=1.4, mew=0)
        labels.append(Label(_name(line[0]).replace("euler-maruyama", "EM"), x[-1], y[-1], colour))
        low, high = min(low, *y), max(high, *y)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*_RANGE)
    axes.set_ylim(0.85 * low, min(1.2 * high, _MOST * floor[metric]))
    axes.set_xticks([5, 10, 20, 50, 100])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    label_ends(axes, labels)
    return png(canvas)


def _overview(study: Study, records: list[Record], real: Record) -> bytes:
    """Solvers down, budgets across, nine digits each, all from the same noise."""
    lines = _lines(records)
    budgets = sorted({r["budget"] for r in records})
    size, left, top = 0.57, 0.78, 0.5
    width, height = left + size * (len(budgets) + 1) + 0.12, top + size * len(lines) + 0.08
    canvas = new_figure(height, width)

    def cell(row: int, column: int, record: Record) -> None:
        place = (left + size * column) / width, 1.0 - (top + size * (row + 1)) / height
        axes = canvas.add_axes((*place, 0.93 * size / width, 0.93 * size / height))
        sheet = tile(study.arrays(record)["images"][:_FEW], _ACROSS, gap=1)
        axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()

    def write(x: float, y: float, text: str, **how: Any) -> None:
        canvas.text(x / width, 1.0 - y / height, text, color=INK, fontsize=SMALL, **how)

    write(left, 0.17, "network evaluations", va="center")
    for column, budget in enumerate(budgets):
        write(left + size * (column + 0.46), 0.36, str(budget), ha="center", va="center")
    write(left + size * (len(budgets) + 0.46), 0.36, "real", ha="center", va="center")
    for row, line in enumerate(lines.values()):
        write(
            left - 0.08,
            top + size * (row + 0.48),
            _name(line[0]).replace("euler-maruyama", "EM").replace(" ", "\n"),
            ha="right",
            va="center",
        )
        for record in line:
            cell(row, budgets.index(record["budget"]), record)
        if row == 0:
            cell(0, len(budgets), real)
    return png(canvas)


def _table(records: list[Record], real: Record, metric: str, words: str) -> str:
    """Solvers down, budgets across."""
    floor, budgets = real["values"], sorted({r["budget"] for r in records})
    rows: list[list[Cell | str]] = []
    for (solver, eta), line in _lines(records).items():
        found = {r["budget"]: r["values"] for r in line}
        cells = [_distance_cell(found.get(budget), floor, metric, budget) for budget in budgets]
        rows.append([f"<code>{escape(solver)}</code>", f"{eta:g}", *cells])
    caption = (
        f"{words} to held-out digits. Real against real: {number(floor[metric])} "
        f"({number(floor[f'{metric}_low'])} … {number(floor[f'{metric}_high'])}); green: within that range."
    )
    return table(["solver", "η", *(f"{budget} calls" for budget in budgets)], rows, caption)


def _distance_cell(values: dict[str, Any] | None, floor: dict[str, Any], metric: str, budget: int) -> Cell:
    if values is None:
        return Cell("")
    used = "" if values["evaluations"] == budget else f"<small>({values['evaluations']} calls)</small> "
    return Cell(used + number(values[metric]), "good" if values[metric] <= floor[f"{metric}_high"] else "")
