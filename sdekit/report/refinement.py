"""The section on one sample as the steps double: on one path it converges, with noise of each run's own it does not."""

from __future__ import annotations

from typing import Any

from sdekit.report.drawing import (
    BLUE,
    INDIGO,
    INK,
    OCHRE,
    RED,
    SMALL,
    SOFT,
    TEAL,
    Label,
    dress,
    label_ends,
    new_figure,
    png,
)
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_SAMPLERS = {
    "euler-maruyama": ("Euler–Maruyama", RED, "o"),
    "er-sde-2": ("ER-SDE-2", BLUE, "D"),
    "sde-dpmpp-2m": ("SDE-DPM++2M", INDIGO, "P"),
}
_NOISES = {
    "path": ("one path", INK, "o"),
    "seed": ("a seed", TEAL, "^"),
    "randn": ("torch.randn", OCHRE, "s"),
}
_DEFAULT = "er-sde-2"


def section(study: Study) -> Section | None:
    """Two figures and a table; None if nothing was refined."""
    records = list(study.part("refinement"))
    if not records:
        return None
    own = [r for r in records if r["solver"] == _DEFAULT]
    figures = {"refinement-all": _distances(records)}
    if own:
        figures["refinement-one"] = _one(own)
    titles = {"refinement-all": "Distance to the run of most steps", "refinement-one": "One sample as the steps double"}
    body = template(
        "refinement.html",
        finding=_finding(records),
        samples=f"{records[0]['values']['samples']:,}",
        panels="".join(figure(name, titles[name]) for name in figures),
        table=_table(records),
    )
    return Section("refinement", "One sample, more steps", body, _cards(records), figures)


def _of(records: list[Record], noise: str) -> list[Record]:
    return [r for r in records if r["noise"] == noise]


def _finding(records: list[Record]) -> str:
    on_path = _of(records, "path")
    if not on_path:
        return ""
    slopes = [r["values"]["slope"] for r in on_path]
    failed = [r["solver"] for r in on_path if not r["values"]["holds"]]
    spread = f"{min(slopes):.2f} to {max(slopes):.2f}" if len(slopes) > 1 else f"{slopes[0]:.2f}"
    claim = f"{on_path[0]['values']['claim']:g}"
    text = f"On one path every sample converges, with slopes of {spread} where {claim} is claimed"
    fresh = [abs(r["values"]["slope"]) for r in records if r["noise"] != "path"]
    rest = f"; with noise drawn anew by every run the slopes are at most {max(fresh):.2f} in size" if fresh else ""
    return f"{text}{rest}." if not failed else f"Too slow on one path: {escape(', '.join(failed))}."


def _cards(records: list[Record]) -> tuple[Card, ...]:
    on_path = {r["solver"]: r["values"] for r in _of(records, "path")}
    if _DEFAULT not in on_path:
        return ()
    text = (
        "is the slope at which one sample of the default stochastic sampler converges as its steps double, on one "
        "Brownian path. With plain normals it does not converge."
    )
    return (Card(number(on_path[_DEFAULT]["slope"], 2), text),)


def _axes(title: str, y: str, steps: list[int]) -> tuple[Any, Any]:
    canvas = new_figure(3.1)
    axes = canvas.add_axes((0.165, 0.165, 0.47, 0.68))
    dress(axes, "", "steps", y)
    canvas.text(0.02, 0.93, title, fontsize=10, fontweight="bold", color=INK)
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, list(map(str, steps)), fontsize=SMALL - 1.0)
    axes.minorticks_off()
    axes.set_xlim(0.85 * steps[0], 1.2 * steps[-1])
    return canvas, axes


def _distances(records: list[Record]) -> bytes:
    """Root mean square distance to the finest run against steps; all noises of a solver in its colour."""
    steps = records[0]["steps"]
    canvas, axes = _axes("Distance to the finest run", "RMS over samples", steps)
    axes.set_yscale("log")
    labels = []
    for record in records:
        words, colour, marker = _SAMPLERS[record["solver"]]
        y, fresh = record["values"]["distances"], record["noise"] != "path"
        looks = {"ls": (0, (1.5, 1.2)), "lw": 0.9, "alpha": 0.6} if fresh else {"lw": 1.4, "marker": marker}
        axes.plot(steps, y, color=SOFT if fresh else colour, ms=4, mew=0, **looks)
        if not fresh:
            labels.append(Label(f"{words} {record['values']['slope']:.2f}", steps[-1], y[-1], colour))
    fresh_ends = [r["values"]["distances"][-1] for r in records if r["noise"] != "path"]
    if fresh_ends:
        labels.append(Label("noise of its own", steps[-1], max(fresh_ends), SOFT))
    start = max(r["values"]["distances"][0] for r in records)
    line = [0.12 * start * steps[0] / n for n in steps]
    axes.plot(steps, line, color=SOFT, lw=0.9, ls="--")
    labels.append(Label("slope 1", steps[-1], line[-1], SOFT))
    label_ends(axes, labels)
    return png(canvas)


def _one(records: list[Record]) -> bytes:
    """Where the default sampler puts sample 0, by steps, for every noise."""
    steps = [*records[0]["steps"], 2 * records[0]["steps"][-1]]
    canvas, axes = _axes(f"Sample 0 by {_SAMPLERS[_DEFAULT][0]}", "state at the end", steps)
    labels = []
    for record in records:
        words, colour, marker = _NOISES[record["noise"]]
        y, thin = record["values"]["one"], record["noise"] != "path"
        axes.plot(steps, y, color=colour, marker=marker, ms=4, mew=0, lw=0.8 if thin else 1.8)
        labels.append(Label(words, steps[-1], y[-1], colour))
    label_ends(axes, labels, gap=0.085)
    return png(canvas)


def _table(records: list[Record]) -> str:
    steps = records[0]["steps"]
    rows: list[list[Cell | str]] = []
    for record in records:
        values, on_path = record["values"], record["noise"] == "path"
        kind = ("good" if values["holds"] else "bad") if on_path else ""
        rows.append(
            [
                f"<code>{escape(record['solver'])}</code>",
                escape(_NOISES[record["noise"]][0]),
                Cell(f"{values['slope']:.2f}", kind),
                *(number(d, 2) for d in values["differences"]),
            ]
        )
    head = ["sampler", "noise", "slope", *(f"{n} → {2 * n}" for n in steps)]
    caption = "Root mean square difference of the same samples at N and at 2N steps, and the slope of its decay."
    return table(head, rows, caption, numbers_from=2)
