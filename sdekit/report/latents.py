"""The section on latents of real digits, the way back, and bits per dimension."""

from __future__ import annotations

import torch

from sdekit.report.drawing import INK, SMALL, SOFT, Label, dress, grey_png, label_ends, look, new_figure, png, tile
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_GREY = 0.125  # between two grey values
_T = {5: 2.571, 7: 2.365}  # quantiles of Student's t at 97.5 %, by degrees of freedom
_ENDS = 8  # of the most and of the least likely digits that are shown


def section(study: Study) -> Section | None:
    """Figures and tables of the part ``latents``; None if nothing was measured."""
    records = list(study.part("latents"))
    if not records:
        return None
    trips, ways, runs = ([r for r in records if r["kind"] == kind] for kind in ("trip", "between", "likelihood"))
    figures: dict[str, bytes] = {}
    body: dict[str, str] = dict.fromkeys(("strip", "trip", "table", "bits", "probes", "likely"), "")
    if ways:
        figures["latents-between"] = _strips(study, ways)
        body["strip"] = figure(
            "latents-between", "Digits between two held-out ones, by latents and by images", "", "wide"
        )
    if trips:
        figures["latents-trips"] = _trips(trips)
        body["trip"] = figure("latents-trips", "Round-trip error against calls of the network")
        body["table"] = _trip_table(trips)
    if runs:
        body["bits"] = _bits_table(runs)
        exact, probed = _compared(runs)
        if exact and probed:
            figures["latents-probes"] = _probes(exact, probed)
            body["probes"] = figure(
                "latents-probes", "Bits per dimension by probes and by the exact trace, digit by digit"
            )
        most = max(runs, key=lambda r: r["n"])
        figures["latents-likely"] = _likely(study, most)
        caption = f"Of {most['n']} held-out digits the most likely, above, and the least likely, below."
        body["likely"] = figure("latents-likely", caption, caption)
    page = template("latents.html", points=str(ways[0]["points"] if ways else 0), **body)
    return Section("latents", "Latents, and how likely real digits are", page, _cards(trips, runs), figures)


def _compared(runs: list[Record]) -> tuple[Record | None, Record | None]:
    """The run with the exact trace, and that with probes at the same start."""
    exact = next((r for r in runs if r["divergence"] == "exact"), None)
    same = (r for r in runs if exact and r["divergence"] != "exact" and r["start"] == exact["start"])
    return exact, next(same, None)


def _cards(trips: list[Record], runs: list[Record]) -> tuple[Card, ...]:
    cards = []
    if runs:
        best = min((r for r in runs if r["n"] == max(q["n"] for q in runs)), key=lambda r: r["values"]["mean"])
        v = best["values"]
        text = (
            f"bits a pixel, at most, of {best['n']} held-out digits with 17 grey values, for 4.09 if all were alike: "
            f"± {number(v['over_data'], 1)} over the data, ± {number(v['over_probes'], 1)} over the probes."
        )
        cards.append(Card(f"{v['mean']:.2f}", text))
    return tuple(cards)


def _calls(record: Record) -> float:
    """Of both ways, on average."""
    up, down = record["values"]["calls"]
    return 0.5 * float(up + down)


def _trips(trips: list[Record]) -> bytes:
    """Round-trip error against calls, one line for each method, and the distance of two grey values."""
    canvas = new_figure(3.2)
    axes = canvas.add_axes((0.16, 0.16, 0.56, 0.72))
    dress(axes, "There and back", "network calls, one way", "RMS error of a pixel")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axhline(_GREY, color=SOFT, lw=0.8, ls="--")
    labels = []
    for solver in dict.fromkeys(r["solver"] for r in trips):
        line = [r for r in trips if r["solver"] == solver]
        x, y = [_calls(r) for r in line], [r["values"]["rms"] for r in line]
        colour, marker, _ = look(solver)
        axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.3, mew=0)
        labels.append(Label(solver, x[-1], y[-1], colour))
    axes.text(axes.get_xlim()[1], _GREY * 1.15, "one grey value", fontsize=7.5, color=SOFT, ha="right")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    label_ends(axes, labels)
    return png(canvas)


def _trip_table(trips: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in trips:
        v, how = r["values"], f"{r['steps']} steps" if r["steps"] else f"tolerance {number(r['tolerance'], 1)}"
        small = Cell(number(v["rms"]), "good" if v["largest"] < 0.5 * _GREY else "")
        rows.append(
            [f"<code>{escape(r['solver'])}</code>", how, "{} + {}".format(*v["calls"]), small, number(v["largest"])]
        )
    caption = (
        f"What is lost on the way to the latent and back, of {trips[0]['values']['n']} held-out digits; green: in the "
        "mean over its pixels, no digit is off by half a grey value. Calls of adaptive runs: until all have arrived."
    )
    return table(["method", "how", "calls", "RMS error", "worst digit"], rows, caption, 2)


def _bits_table(runs: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for r in runs:
        v = r["values"]
        trace = "exact" if r["divergence"] == "exact" else f"{r['probes']} probes"
        rows.append(
            [
                trace,
                f"{r['start']:g}",
                str(r["n"]),
                f"{v['mean']:.3f}",
                f"± {number(v['over_data'], 2)}",
                f"± {number(v['over_probes'], 2)}" if r["probes"] else "0",
                number(v["prior_at_most"], 1),
                f"{v['evaluations']} × {v['products']}",
            ]
        )
    caption = "Bits per dimension of held-out digits, with standard errors of the mean."
    head = ["trace", "start σ", "digits", "bits/dim", "over data", "over probes", "prior, at most", "calls × products"]
    return table(head, rows, caption)


def _probes(exact: Record, probed: Record) -> bytes:
    """Intervals of the probes, and the exact value, digit by digit."""
    n = exact["n"]
    bits, errors = probed["values"]["bits"][:n], probed["values"]["errors"][:n]
    wide = [_T.get(probed["probes"] - 1, 2.0) * e for e in errors]
    colour = look("ddim").colour
    canvas = new_figure(3.2)
    axes = canvas.add_axes((0.13, 0.16, 0.83, 0.72))
    dress(axes, "Probes against the exact trace", "held-out digit", "bits per dimension")
    places = list(range(1, n + 1))
    axes.errorbar(
        places, bits, yerr=wide, fmt="o", ms=4, color=colour, lw=1.2, capsize=3, label="probes, 95 % interval"
    )
    axes.plot(places, exact["values"]["bits"], ls="", marker="_", ms=14, mew=2, color=INK, label="exact trace")
    axes.set_xticks(places)
    axes.legend(fontsize=SMALL, frameon=False, labelcolor=INK)
    return png(canvas)


def _likely(study: Study, record: Record) -> bytes:
    images = study.arrays(record)["images"]
    shown = min(_ENDS, len(images) // 2)
    return grey_png(tile(torch.cat([images[:shown], images[-shown:]]), shown), scale=6)


def _strips(study: Study, ways: list[Record]) -> bytes:
    """A pair after another: above by the great circle between latents, below by the mean of the images."""
    size, left, top, gap = 0.5, 0.62, 0.1, 0.16
    points = ways[0]["points"]
    width, height = left + size * points + 0.1, top + len(ways) * (2 * size + gap)
    canvas = new_figure(height, width)
    for i, record in enumerate(ways):
        arrays = study.arrays(record)
        for j, (name, words) in enumerate((("circle", "latents"), ("line", "images"))):
            bottom = 1.0 - (top + i * (2 * size + gap) + (j + 1) * size) / height
            canvas.text(
                (left - 0.08) / width,
                bottom + 0.5 * size / height,
                words,
                fontsize=SMALL,
                color=INK,
                ha="right",
                va="center",
            )
            for k, image in enumerate(arrays[name]):
                axes = canvas.add_axes(((left + k * size) / width, bottom, 0.94 * size / width, 0.94 * size / height))
                axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_axis_off()
    return png(canvas)
