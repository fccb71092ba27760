"""The section on going back without the score, and with it."""

from __future__ import annotations

from sdekit.report.drawing import BLUE, FAINT, GREEN, INK, RED, SMALL, SOFT, WINE, dress, new_figure, png
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_WAYS = {
    "drift": ("the drift alone", "Drift alone, backwards", RED),
    "drift-noise": ("the drift and fresh noise", "Drift and noise, backwards", WINE),
    "reverse-sde": ("the reverse-time SDE", "Reverse-time SDE", BLUE),
    "flow": ("the probability flow", "Probability flow", GREEN),
}


def section(study: Study) -> Section | None:
    """Figures and a table of the rewind part; None if no way back was tried."""
    records = [r for r in study.part("rewind") if r.get("way") in _WAYS]
    if not records:
        return None
    figures = {f"rewind-{r['way']}": _paths(study, r) for r in records}
    panels = "".join(figure(f"rewind-{r['way']}", f"Paths and final histogram: {_WAYS[r['way']][0]}") for r in records)
    n = records[0]["values"]["n"]
    percent = f"{100.0 / (2 * n) ** 0.5:.1g}"  # standard error of a standard deviation
    body = template("rewind.html", n=f"{n:,}", percent=percent, panels=panels, table=_table(records))
    return Section("rewind", "Rewinding needs the score", body, _cards(records), figures)


def _cards(records: list[Record]) -> tuple[Card, ...]:
    found = {r["way"]: r["values"] for r in records}
    if not {"drift", "flow"} <= set(found):
        return ()
    text = (
        "is how far (W₂) samples end from the data when the forward drift is run backwards. "
        f"With the score it is {number(found['flow']['w2'], 2)}, and the noise floor is "
        f"{number(found['flow']['w2_floor'], 2)}."
    )
    return (Card(number(found["drift"]["w2"], 3), text),)


def _paths(study: Study, record: Record) -> bytes:
    """Some paths against time, and the final histogram turned on its side."""
    arrays = study.arrays(record)
    _, title, colour = _WAYS[record["way"]]
    low, high = float(arrays["edges"][0]), float(arrays["edges"][-1])
    canvas = new_figure(3.1)
    canvas.text(0.02, 0.935, title, fontsize=10, fontweight="bold", color=INK)
    canvas.text(0.98, 0.935, f"$W_2$ = {record['values']['w2']:.3g}", fontsize=10, color=colour, ha="right")
    axes = canvas.add_axes((0.165, 0.165, 0.52, 0.7))
    dress(axes, x="t", y="state")
    axes.plot(arrays["t"], arrays["paths"], color=colour, lw=0.5, alpha=0.55)
    axes.set_xlim(float(arrays["t"][0]), 0.0)
    axes.set_ylim(low, high)
    side = canvas.add_axes((0.7, 0.165, 0.28, 0.7))
    dress(side, grid=False)
    edges, heights = arrays["edges"].numpy(), arrays["histogram"].numpy()
    side.stairs(heights / heights.max(), edges, orientation="horizontal", fill=True, color=colour, alpha=0.35, lw=0)
    side.plot(arrays["density"] / arrays["density"].max(), arrays["x"], color=INK, lw=1.1)
    side.set_ylim(low, high)
    side.set_xlim(0.0, 1.1)
    side.set_xticks([])
    side.tick_params(labelleft=False, left=False)
    side.spines["bottom"].set_visible(False)
    side.spines["left"].set_color(FAINT)
    side.set_xlabel("samples and data", fontsize=SMALL, color=SOFT, labelpad=16)
    return png(canvas)


def _table(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        far = v["w2"] > v["w2_floor_high"]
        rows.append(
            [
                escape(_WAYS[r["way"]][0]),
                f"<code>{escape(r['solver'])}</code>",
                Cell(number(v["w2"]), "bad" if far else "good"),
                number(v["w2_predicted"]),
                f"{number(v['w2_floor'])} … {number(v['w2_floor_high'])}",
                f"{100.0 * v['inside_window']:.1f} %",
            ]
        )
    head = ["way back", "solver", "W₂ to the data", "predicted", "noise floor: median … largest", "within ±4"]
    return table(
        head, rows, "Where the samples end. Red: further from the data than real samples of the data ever were.", 2
    )
