"""The section on the learned score of handwritten digits."""

from __future__ import annotations

from typing import Any

from sdekit.report.drawing import (
    GREEN,
    INK,
    SMALL,
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
_FEW, _ACROSS = 9, 3


def section(study: Study) -> Section | None:
    """Figures, images and tables of the digits part; None if nothing was sampled."""
    real = study.records.get("digits/real")
    records = [r for r in study.part("digits") if r["solver"] is not None]
    if real is None or not records:
        return None
    figures = {f"digits-{name}": _distances(records, real, name, words) for name, words in _METRICS}
    figures["digits-overview"] = _overview(study, records, real)
    gallery = ""
    for record in (real, *records):
        name = _sheet_name(record)
        figures[name] = grey_png(tile(study.arrays(record)["images"], 8), scale=3)
        gallery += figure(name, f"64 digits: {_title(record)}", escape(_title(record)), "sheet")
    body = template(
        "digits.html",
        n=str(real["values"]["n"]),
        repeats=str(real["values"]["repeats"]),
        distances="".join(figure(f"digits-{m}", f"{w} to held-out digits against evaluations") for m, w in _METRICS),
        overview=figure("digits-overview", "A few digits of every solver at every budget", kind="wide"),
        table=_table(records, real),
        gallery=gallery,
    )
    return Section("digits", "A learned score: handwritten digits", body, _cards(records, real), figures)


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


def _distances(records: list[Record], real: Record, metric: str, words: str) -> bytes:
    """Distance against evaluations, one line a solver, over the band of real against real."""
    canvas = new_figure(3.6)
    axes = canvas.add_axes((0.15, 0.15, 0.535, 0.72))
    dress(axes, "", "network evaluations", words)
    canvas.text(0.02, 0.945, f"{words} to held-out digits", fontsize=10, fontweight="bold", color=INK)
    floor = real["values"]
    axes.axhspan(floor[f"{metric}_low"], floor[f"{metric}_high"], color="#dcebdf", lw=0, zorder=0)
    axes.axhline(floor[metric], color=GREEN, lw=0.9, zorder=1)
    labels = [Label("real vs real", 100.0, floor[metric], GREEN)]
    for (solver, eta), line in _lines(records).items():
        x = [r["values"]["evaluations"] for r in line]
        y = [r["values"][metric] for r in line]
        colour, marker, dashes = look(solver, eta)
        hollow = {"mfc": "white", "mew": 1.0} if eta == 0.0 and solver == "ddim" else {"mew": 0}
        axes.plot(x, y, linestyle=dashes, color=colour, marker=marker, ms=4, lw=1.3, **hollow)
        labels.append(Label(_name(line[0]), x[-1], y[-1], colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(3.5, 130.0)
    axes.set_xticks([5, 10, 20, 50, 100])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(f"{value:.0e}")[0] in "25" else "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(which="minor", labelsize=SMALL, labelcolor=INK)
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    label_ends(axes, labels)
    return png(canvas)


def _overview(study: Study, records: list[Record], real: Record) -> bytes:
    """Solvers down, budgets across, nine digits each, all from the same noise."""
    lines = _lines(records)
    budgets = sorted({r["budget"] for r in records})
    size, left, top = 0.66, 1.38, 0.5
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
        write(left - 0.08, top + size * (row + 0.48), _name(line[0]).replace(" ", "\n"), ha="right", va="center")
        for record in line:
            cell(row, budgets.index(record["budget"]), record)
        if row == 0:
            cell(0, len(budgets), real)
    return png(canvas)


def _table(records: list[Record], real: Record) -> str:
    floor = real["values"]
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        marks = ["good" if v[m] <= floor[f"{m}_high"] else "" for m, _ in _METRICS]
        cells = [Cell(number(v[m]), mark) for (m, _), mark in zip(_METRICS, marks, strict=True)]
        rows.append(
            [f"<code>{escape(r['solver'])}</code>", f"{r['eta']:g}", str(r["steps"]), str(v["evaluations"]), *cells]
        )
    rows.append(
        [
            "<b>real digits</b>",
            "",
            "",
            "",
            *(f"{number(floor[m])} ({number(floor[f'{m}_low'])} … {number(floor[f'{m}_high'])})" for m, _ in _METRICS),
        ]
    )
    head = ["solver", "η", "steps", "evaluations", "energy distance", "sliced W₂"]
    return table(head, rows, "Distance to held-out digits. Green: within the range of real against real digits.")
