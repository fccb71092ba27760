"""The section on grids that were made for a law: what they win on it, and what carries over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sdekit.report.drawing import (
    BLUE,
    GREEN,
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

_PLACES = {
    "spectrum": ("A Gaussian spectrum", "relative error of the standard deviations"),
    "mixture": ("Two modes on the line", "<i>W</i><sub>2</sub> over 1000 quantiles"),
    "digits": ("The learned digits", "mean distance to the learned flow"),
}
_AXES = {"spectrum": "relative error", "mixture": "$W_2$", "digits": "mean distance"}
_LOOKS = {
    "log_snr": ("log-SNR", SOFT, "o"),
    "karras": ("Karras", OCHRE, "s"),
    "spectrum": ("spectrum", BLUE, "D"),
    "covariance": ("covariance", TEAL, "^"),
    "48 quantiles": ("48 quantiles", GREEN, "v"),
    "mixture": ("mixture", INDIGO, "P"),
    "points": ("points", RED, "X"),
    "smoothed points": ("smoothed points", INDIGO, "P"),
}
_PLAIN = ("log_snr", "karras")
_MAIN, _OWN = "dpmpp-2m", {"spectrum": "spectrum", "mixture": "mixture", "digits": "smoothed points"}


def section(study: Study) -> Section | None:
    """Figures and tables of the grids part; None if nothing was measured."""
    records = list(study.part("grids"))
    if not records:
        return None
    places = [p for p in _PLACES if any(r["place"] == p for r in records)]
    figures = {f"grids-{place}": _figure(place, _of(records, place)) for place in places}
    body = template(
        "grids.html",
        finding=_finding(records),
        panels="".join(figure(f"grids-{place}", f"{_PLACES[place][0]}: error by steps") for place in places),
        tables="".join(_table(place, _of(records, place)) for place in places),
        first_order=_first_order([r for r in records if r["solver"] != _MAIN]),
    )
    return Section("grids", "Grids made for a law", body, _cards(records), figures)


def _of(records: Iterable[Record], place: str) -> list[Record]:
    """The records of a place with the second-order method."""
    return [r for r in records if r["place"] == place and r["solver"] == _MAIN]


def _gains(records: Iterable[Record], place: str, made_for: str) -> dict[int, float]:
    """By steps: the better of the errors on the two plain grids, over that on the grid made for a law."""
    found = {r["made_for"]: r for r in _of(records, place)}
    if made_for not in found or not set(_PLAIN) <= found.keys():
        return {}
    plain = [min(pair) for pair in zip(*(found[name]["values"]["errors"] for name in _PLAIN), strict=True)]
    own = found[made_for]["values"]["errors"]
    return {n: a / b for n, a, b in zip(found[made_for]["steps"], plain, own, strict=True)}


def _words(gains: dict[int, float]) -> str:
    *few, last = (f"{gain:.2g}" if gain < 1e2 else f"{gain:,.0f}" for gain in gains.values())
    return f"{', '.join(few)} and {last}" if few else last


def _finding(records: list[Record]) -> str:
    """How many times more accurate than the better of the two plain grids."""
    won = [
        f"{words} {_words(gains)} times at {_steps(gains)} steps"
        for place, words in (
            ("spectrum", "the Gaussian spectrum on the grid made for it"),
            ("mixture", "the mixture on its own"),
            ("digits", "the learned digits on the one made for smoothed training data"),
        )
        if (gains := _gains(records, place, _OWN[place]))
    ]
    carried = [
        f"{words} {_words(gains)} times"
        for place, made_for, words in (
            ("mixture", "covariance", "made for the variance of the mixture, and used on it,"),
            ("digits", "covariance", "made for the covariance of the digits"),
            ("digits", "points", "made for the bare training points"),
        )
        if (gains := _gains(records, place, made_for))
    ]
    text = f"More accurate than the better of log-SNR and Karras: {'; '.join(won)}." if won else ""
    return f"{text} Other laws are not to be relied on: {'; '.join(carried)}." if carried else text


def _steps(gains: dict[int, float]) -> str:
    *few, last = map(str, gains)
    return f"{', '.join(few)} and {last}" if few else last


def _cards(records: list[Record]) -> tuple[Card, ...]:
    gains = _gains(records, "digits", "smoothed points")
    if not gains:
        return ()
    steps = 10 if 10 in gains else next(iter(gains))
    text = (
        f"more accurate on the learned digits at {steps} calls: the grid of the least exact error for smoothed "
        "training data, against the better of log-SNR and Karras."
    )
    return (Card(f"{gains[steps]:.2g} ×", text),)


def _figure(place: str, records: list[Record]) -> bytes:
    """Error against steps, a line for every grid."""
    canvas = new_figure(3.1)
    axes = canvas.add_axes((0.165, 0.165, 0.52, 0.68))
    dress(axes, "", "steps", _AXES[place])
    canvas.text(0.02, 0.93, _PLACES[place][0], fontsize=10, fontweight="bold", color=INK)
    labels = []
    for record in records:
        words, colour, marker = _LOOKS[record["made_for"]]
        y = record["values"]["errors"]
        axes.plot(record["steps"], y, color=colour, marker=marker, ms=4, lw=1.4, mew=0)
        labels.append(Label(words, record["steps"][-1], y[-1], colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.93 * records[0]["steps"][0], 1.08 * records[0]["steps"][-1])
    axes.set_xticks(records[0]["steps"], map(str, records[0]["steps"]), fontsize=SMALL)
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    if place != "spectrum":  # less than two decades
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    label_ends(axes, labels, gap=0.085)
    return png(canvas)


def _table(place: str, records: list[Record]) -> str:
    """Grids down, steps across; below a row what a prototype measured."""
    steps, few = records[0]["steps"], place == "mixture"
    rows: list[list[Cell | str]] = []
    for record in records:
        values = record["values"]
        rows.append([_made_for(record), *map(number, values["errors"]), *map(number, values.get("few", []))])
        if values["prototype"]:
            figures = [f"<small>{number(f, 2)}</small>" for f in values["prototype"][: len(steps)]]
            blank = [""] * len(steps) if few else []
            rows.append([Cell("<small>prototype</small>"), *blank, *figures])
    head = ["grid", *(f"{n} steps" for n in steps), *(f"{n}, 48 quantiles" for n in steps if few)]
    title, measure = _PLACES[place]
    note = (
        " In small figures what an independent prototype measured."
        if any(r["values"]["prototype"] for r in records)
        else ""
    )
    return table(head, rows, f"{title}: {measure}.{note}")


def _made_for(record: Record) -> str:
    name: Any = record["made_for"]
    return f"<code>{name}</code>" if name in _PLAIN else f"made for: {escape(name)}"


def _first_order(records: list[Record]) -> str:
    if not records:
        return ""
    errors = {r["made_for"]: r["values"]["errors"] for r in records}
    pairs = [f"{number(a, 2)} → {number(b, 2)}" for a, b in zip(errors["log_snr"], errors["spectrum"], strict=True)]
    return (
        f'<p class="note">A first-order method has little to win: DDIM on the spectrum {", ".join(pairs)} '
        f"at {', '.join(map(str, records[0]['steps']))} steps, from log-SNR to the grid made for it.</p>"
    )
