"""The section on marginals of forward simulations."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from sdekit.report.drawing import BLUE, INK, RED, SMALL, dress, new_figure, png
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_EXACT, _COARSE = ("exact-linear", 4), ("euler-maruyama", 20)


def section(study: Study) -> Section | None:
    """Figures and tables of the marginals part; None if there are none."""
    records = list(study.part("marginals"))
    if not records:
        return None
    figures, panels = {}, ""
    for process, group in groupby(records, key=lambda r: r["process"]):
        name = f"marginals-{process}"
        figures[name] = _densities(study, process, list(group))
        panels += figure(name, f"Histograms and exact densities under {process.upper()} at four times")
    first = records[0]["values"]
    body = template(
        "marginals.html",
        n=f"{first['n']:,}",
        tests=str(first["tests"]),
        false_alarms=f"{first['false_alarms']:g}",
        critical=f"{first['ks_critical']:.4f}",
        repeats=str(first["w2_floor_repeats"]),
        summary=_summary(records),
        panels=panels,
        table=_worst(records),
        all=_all(records),
    )
    return Section("marginals", "Forward marginals", body, _cards(records), figures)


def _of(records: list[Record], solver: str, steps: int) -> list[Record]:
    return [r for r in records if (r["solver"], r["steps"]) == (solver, steps)]


def _passes(values: dict[str, Any], name: str = "ks") -> bool:
    return bool(values[name] <= values["ks_critical"])


def _cards(records: list[Record]) -> tuple[Card, ...]:
    exact = _of(records, *_EXACT)
    if not exact:
        return ()
    passed = sum(_passes(r["values"]) for r in exact)
    n = exact[0]["values"]["n"]
    text = f"marginals of OU, VP and VE, sampled {n:,} times by exact kernels, pass a Kolmogorov–Smirnov test."
    return (Card(f"{passed} of {len(exact)}", text),)


def _summary(records: list[Record]) -> str:
    exact = _of(records, *_EXACT)
    own = sum(_passes(r["values"], "ks_own") for r in records)
    text = (
        f"{sum(_passes(r['values']) for r in exact)} of {len(exact)} exact simulations pass against the true marginal. "
    )
    for solver, steps in dict.fromkeys((r["solver"], r["steps"]) for r in records):
        if solver != _EXACT[0]:
            mine = _of(records, solver, steps)
            failing = sum(not _passes(r["values"]) for r in mine)
            text += f"Euler–Maruyama with {steps} steps is told from the truth in {failing} of {len(mine)} cases. "
    return text + f"Against the law that the solver itself produces, {own} of {len(records)} pass."


def _densities(study: Study, process: str, records: list[Record]) -> bytes:
    """Four times in one figure: histogram of exact samples, exact density, density that coarse Euler–Maruyama has."""
    exact, coarse = _of(records, *_EXACT), _of(records, *_COARSE)
    shown = exact or coarse
    canvas = new_figure(4.1)
    canvas.text(0.02, 0.955, f"{process.upper()} from the mixture", fontsize=10, fontweight="bold", color=INK)
    for i, record in enumerate(shown):
        left, bottom = 0.085 + 0.475 * (i % 2), 0.56 - 0.435 * (i // 2)
        axes = canvas.add_axes((left, bottom, 0.42, 0.29))
        dress(axes, grid=False)
        arrays = study.arrays(record)
        edges, heights = arrays["edges"].numpy(), arrays["histogram"].numpy()
        axes.stairs(heights / (edges[1:] - edges[:-1]), edges, fill=True, color="#b9d3e6", lw=0)
        axes.plot(arrays["x"], arrays["density"], color=INK, lw=1.2)
        if coarse and exact:
            biased = study.arrays(coarse[i])
            axes.plot(biased["x"], biased["produced"], color=RED, lw=1.1, ls=(0, (3, 1.6)))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0.0, 1.18 * float(arrays["density"].max()))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(f"t = {record['time']:g}", loc="left", fontsize=9, color=INK, pad=3)
    keys = (("samples, exact kernel", "#7fb0d2"), ("exact density", INK), ("law of EM, 20 steps", RED))
    for (words, colour), x in zip(keys, (0.08, 0.42, 0.67), strict=True):
        canvas.text(x, 0.022, words, fontsize=SMALL, color=BLUE if colour.startswith("#7f") else colour)
    return png(canvas)


def _worst(records: list[Record]) -> str:
    """A row for every process and solver: the worst of its times."""
    rows: list[list[Cell | str]] = []
    for process, solver, steps in dict.fromkeys((r["process"], r["solver"], r["steps"]) for r in records):
        mine = [r["values"] for r in _of(records, solver, steps) if r["process"] == process]
        ks, own = max(v["ks"] for v in mine), max(v["ks_own"] for v in mine)
        critical = mine[0]["ks_critical"]
        rows.append(
            [
                process.upper(),
                f"<code>{escape(solver)}</code>",
                str(steps),
                Cell(f"{ks:.4f}", "" if ks <= critical else "bad"),
                Cell(f"{own:.4f}", "" if own <= critical else "bad"),
                f"{max(v['w2'] / v['w2_floor'] for v in mine):.2f}",
                f"{max(v['w2_floor_high'] / v['w2_floor'] for v in mine):.2f}",
                number(max(v["bias"] for v in mine), 2),
            ]
        )
    head = [
        "process",
        "solver",
        "steps",
        "KS to the true law",
        "KS to its own law",
        "W₂ ÷ floor",
        "floor reaches",
        "bias, exact W₂",
    ]
    caption = f"The worst of four times. Red: above the critical value {records[0]['values']['ks_critical']:.4f}."
    return table(head, rows, caption, numbers_from=2)


def _all(records: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in records:
        v = r["values"]
        kinds = ["" if _passes(v, name) else "bad" for name in ("ks", "ks_own")]
        rows.append(
            [
                r["process"].upper(),
                f"<code>{escape(r['solver'])}</code>",
                str(r["steps"]),
                f"{r['time']:g}",
                Cell(f"{v['ks']:.4f}", kinds[0]),
                Cell(f"{v['ks_own']:.4f}", kinds[1]),
                number(v["w2"]),
                f"{number(v['w2_floor'])} … {number(v['w2_floor_high'])}",
                number(v["bias"], 2),
            ]
        )
    head = ["process", "solver", "steps", "t", "KS true", "KS own", "W₂", "W₂ floor: median … largest", "bias"]
    return table(head, rows, "Every comparison.", numbers_from=2)
