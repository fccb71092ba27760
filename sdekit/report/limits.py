"""The section on discrete chains and the SDEs that they tend to."""

from __future__ import annotations

from sdekit.report.drawing import BLUE, GREEN, RED, SOFT, Label, dress, label_ends, new_figure, png
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_CHAINS = {"ddpm": "DDPM → VP", "smld": "SMLD → VE"}
_KINDS = {
    "marginal": ("marginal", BLUE, "o"),
    "transition": ("transition", GREEN, "^"),
    "ancestral": ("ancestral sampler", RED, "s"),
}
_AT = 0.5  # the time that is drawn
_ROOM = 0.05  # how far an order may be from 1


def section(study: Study) -> Section | None:
    """Figures and a table of the part ``limits``; None if nothing was measured."""
    records = list(study.part("limits"))
    if not records:
        return None
    drawn = {chain: [r for r in records if r["chain"] == chain and r["t"] == _AT] for chain in _CHAINS}
    figures = {f"limits-{chain}": _decay(_CHAINS[chain], found) for chain, found in drawn.items() if found}
    panels = "".join(
        figure(name, f"Distance to the limit against the number of levels: {_CHAINS[name.removeprefix('limits-')]}")
        for name in figures
    )
    most = max(n for r in records for n in r["levels"])
    body = template(
        "limits.html", most=f"{most:,}", figures=f'<div class="panels">{panels}</div>', table=_table(records)
    )
    return Section("limits", "Discrete chains and their limits", body, _cards(records), figures)


def _cards(records: list[Record]) -> tuple[Card, ...]:
    off = max(abs(r["values"]["order"] - 1.0) for r in records)
    text = (
        "is how far the order at which DDPM tends to VP, and SMLD to VE, is from 1 in 1/L, at most: "
        f"marginals, transitions and ancestral samplers, {len(records)} measurements."
    )
    return (Card(number(off, 1), text),)


def _decay(title: str, records: list[Record]) -> bytes:
    """W2 against L, one line for each comparison, and a slope of one."""
    canvas = new_figure(2.9)
    axes = canvas.add_axes((0.15, 0.17, 0.5, 0.7))
    dress(axes, title=f"{title}, t = {_AT:g}", x="levels L", y="W₂")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    labels = []
    for record in records:
        name, colour, marker = _KINDS[record["kind"]]
        levels, errors = record["levels"], record["values"]["errors"]
        axes.plot(levels, errors, color=colour, marker=marker, ms=4, lw=1.2, alpha=0.85)
        labels.append(Label(f"{name} {record['values']['order']:.2f}", levels[-1], errors[-1], colour))
    first = records[0]
    reach = max((r["levels"] for r in records), key=len)
    line = [0.5 * first["values"]["errors"][0] * reach[0] / n for n in reach]
    axes.plot(reach, line, color=SOFT, lw=0.9, ls="--")
    labels.append(Label("order 1", reach[-1], line[-1], SOFT))
    label_ends(axes, labels)
    return png(canvas)


def _table(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        good = abs(v["order"] - 1.0) < _ROOM
        rows.append(
            [
                escape(_CHAINS[r["chain"]]),
                escape(_KINDS[r["kind"]][0]),
                f"{r['t']:g}",
                Cell(f"{v['order']:.3f}", "good" if good else "bad"),
                number(v["errors"][0]),
                number(v["errors"][-1]),
                number(v["constant"], 4),
                number(v["predicted"], 4),
            ]
        )
    first, last = records[0]["levels"][0], "most levels"
    head = ["limit", "what", "t", "order", f"W₂, {first} levels", f"W₂, {last}", "constant", "predicted"]
    return table(head, rows, "Order of the distance in 1/L, and its constant.", 2)
