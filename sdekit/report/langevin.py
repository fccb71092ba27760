"""The section on Langevin chains and predictor–correctors: biases, a guarantee and its slack, spreads of samples."""

from __future__ import annotations

from sdekit.report.drawing import BLUE, RED, Label, dress, label_ends, new_figure, png
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_NAMES = {
    "snr": "2(r|z|/|s|)²",
    "level": "2r²σ²",
    "metropolis": "2r²σ², accepted or not",
}


def section(study: Study) -> Section | None:
    """Figure and tables of the part; None if nothing was measured."""
    records: dict[str, list[Record]] = {}
    for record in study.part("langevin"):
        records.setdefault(record["what"], []).append(record)
    if not records:
        return None
    laws, spreads = records.get("law", []), records.get("spread", [])
    body = template(
        "langevin.html",
        ula=_biases(records.get("bias", [])) + _guarantees(records.get("guarantee", [])),
        laws=figure("langevin-laws", "Exact W2 by levels, with and without correctors", kind="wide") if laws else "",
        orders=_orders(laws),
        spreads=_spreads(spreads),
    )
    figures = {"langevin-laws": _laws(laws)} if laws else {}
    return Section("langevin", "Langevin chains and correctors", body, _cards(records), figures)


def _cards(records: dict[str, list[Record]]) -> tuple[Card, ...]:
    slack = [r["values"]["slack"] for r in records.get("guarantee", [])]
    if not slack:
        return ()
    text = "better than its guarantee is the Langevin algorithm, at least, on a Gaussian."
    return (Card(f"{min(slack):,.0f} ×", text),)


def _biases(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        close = abs(v["w2"] / v["predicted"] - 1.0) < 3.0 * r["gamma"]
        rows.append(
            [f"{r['gamma']:g}", Cell(number(v["w2"], 5), "good" if close else "bad"), number(v["predicted"], 5)]
        )
    if not rows:
        return ""
    caption = (
        "ULA on N(0, Λ⁻¹), Λ = diag(1, 2, 5): exact W₂ of the law that it ends in, and γ/4 √tr Λ, its leading term."
    )
    return table(["γ", "W₂", "predicted"], rows, caption, 0)


def _guarantees(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        held = Cell(number(v["squared"]), "good" if v["squared"] < r["epsilon"] else "bad")
        rows.append([f"{r['epsilon']:g}", number(v["gamma"]), f"{v['steps']:,}", held, f"{v['slack']:,.0f}"])
    if not rows:
        return ""
    caption = (
        "What is guaranteed (Durmus, Majewski, Miasojedow 2019, Corollary 10): W₂² &lt; ε after so many steps of "
        "length γ. It holds, with so much room that it could not tell a right chain from a wrong one."
    )
    return table(["ε", "γ", "steps", "W₂² measured", "ε ÷ W₂²"], rows, caption, 0)


def _laws(records: list[Record]) -> bytes:
    """W2 against levels: a colour for a predictor, dashes for its correctors."""
    canvas = new_figure(3.4, width=5.4)
    axes = canvas.add_axes((0.12, 0.15, 0.5, 0.78))
    dress(axes, x="levels", y="exact $W_2$")
    labels = []
    for r in records:
        predictor, _, corrector = r["method"].partition(" + ")
        colour = BLUE if predictor == "dpmpp-2s" else RED
        dashes = {"": "-", "a share": (0, (4, 1.6)), "a level": (0, (1.5, 1.2))}[corrector]
        errors = r["values"]["errors"]
        axes.plot(r["steps"], errors, color=colour, ls=dashes, lw=1.3, marker="o", ms=3)
        labels.append(Label(r["method"], r["steps"][-1], errors[-1], colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(records[0]["steps"], [str(n) for n in records[0]["steps"]])
    label_ends(axes, labels)
    return png(canvas)


def _orders(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        order = "–" if v["order"] is None else f"{v['order']:.2f} <small>± {number(v['uncertainty'], 1)}</small>"
        rows.append([f"<code>{escape(r['method'])}</code>", *[number(e) for e in v["errors"]], order])
    if not rows:
        return ""
    caption = (
        "Exact W₂ on the flow of VP back to a Gaussian, by levels. <i>A share</i>: ε = ¼ σ²(1 − e<sup>−2h</sup>), "
        "whose bias is of order one. <i>A level</i>: ε = ¼ σ², which ends in the bias of ULA."
    )
    return table(["method", *map(str, records[0]["steps"]), "order"], rows, caption)


def _spreads(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        far = abs(v["ratio"] - 1.0) > 4.0 * v["error"]
        rows.append(
            [
                escape(_NAMES[r["corrector"]]),
                str(r["d"]),
                f"{r['r']:g}",
                Cell(f"{v['ratio']:.4f} <small>± {v['error']:.4f}</small>", "bad" if far else "good"),
                f"{v['limit']:.4f}",
                number(v["largest"]),
                "–" if v["acceptance"] is None else f"{v['acceptance']:.3f}",
            ]
        )
    if not rows:
        return ""
    caption = (
        "One corrector step on each of 40 levels behind a predictor without error, data N(0, ¼) in d dimensions: "
        "spread of the samples by quartiles over the exact one, with one standard error; what small steps tend to, if "
        "there were many; the largest |x| in standard deviations."
    )
    return table(["ε of the corrector", "d", "r", "spread", "for small steps", "largest", "accepted"], rows, caption)
