"""The section on other libraries: measured against claimed orders, errors, and the laws of adaptive runs."""

from __future__ import annotations

from sdekit.report.drawing import FAINT, GREEN, INK, RED, SMALL, SOFT, TEXT, dress, new_figure, png
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.settings import PEERS, SAMPLERS
from sdekit.study.tasks import Record

_MARKS = {
    "holds": ("✓", "good", "holds"),
    "more": ("+", "good", "more than claimed on this problem"),
    "undecided": ("?", "unsure", "undecided"),
    "short": ("✗", "bad", "falls short"),
}
_MEASURES = {"flow": "flow", "w2": "W₂", "strong": "strong"}


def section(study: Study) -> Section | None:
    """Figure and tables of the peers part; None if it was not asked for, or nothing was measured yet."""
    if "peers" not in study.settings["problems"]:
        return None
    versions = study.settings["versions"]
    missing = [name for name in PEERS if versions.get(name) is None]
    records = list(study.part("peers"))
    orders = [r for r in records if r["measure"] != "replay"]
    replays = [r for r in records if r["measure"] == "replay"]
    if not records and not missing:
        return None
    figures = {"peers-orders": _orders_figure(orders)} if orders else {}
    body = template(
        "peers.html",
        **{name.replace("-", "_"): escape(versions.get(name) or "(not installed)") for name in PEERS},
        summary=_summary(orders),
        missing=_missing(missing),
        overview=figure("peers-orders", "Claimed and measured order of every method", kind="wide") if orders else "",
        orders=_orders_table(orders) if orders else "",
        errors=_errors_table([r for r in orders if r["library"] in SAMPLERS]),
        replays=_replays_table(replays),
    )
    return Section("peers", "Peers under the same microscope", body, _cards(orders), figures)


def _missing(names: list[str]) -> str:
    if not names:
        return ""
    skipped, install = ", ".join(names), f"<code>{_install(names)}</code>"
    return f'<p class="note">Skipped, because not installed: {skipped}. After {install} a new study measures them.</p>'


def _install(names: list[str]) -> str:
    """k-diffusion asks for a dozen packages that its samplers do not need."""
    alone = [name for name in names if name == "k-diffusion"]
    others = [name for name in names if name not in alone]
    commands = [f"pip install {' '.join(others)}"] * bool(others) + ["pip install --no-deps k-diffusion"] * bool(alone)
    return " &amp;&amp; ".join(commands)


def _summary(orders: list[Record]) -> str:
    if not orders:
        return "Nothing was measured."
    short = [r for r in orders if r["values"]["verdict"] == "short"]
    text = f"{len(orders) - len(short)} of {len(orders)} claims are reached"
    if not short:
        return text + "."
    worst = (f"{escape(r['method'])} ({r['values']['order']:.2f} for {r['values']['claim']:g})" for r in short)
    return f"{text}; these are not: {', '.join(worst)}."


def _cards(orders: list[Record]) -> tuple[Card, ...]:
    if not orders:
        return ()
    short = sum(r["values"]["verdict"] == "short" for r in orders)
    libraries = dict.fromkeys(r["library"] for r in orders)
    text = f"orders claimed by {', '.join(libraries)} are not reached where errors are exact."
    return (Card(f"{short} of {len(orders)}", text),)


def _title(record: Record) -> str:
    measure = _MEASURES[record["measure"]]
    return f"{record['method']}, {measure}" if record["library"] == "torchsde" else str(record["method"])


def _orders_figure(orders: list[Record]) -> bytes:
    """A row for every method: the claim as a ring, the measured order as a dot."""
    known = [r for r in orders if r["values"]["order"] is not None]
    height = 0.75 + 0.215 * len(known)
    canvas = new_figure(height, width=5.4)
    axes = canvas.add_axes((0.44, 0.5 / height, 0.53, 1.0 - 0.8 / height))
    dress(axes)
    axes.set_xlabel("order (ring: claimed, dot: measured)", loc="right", fontsize=TEXT, color=INK)
    for row, record in enumerate(known):
        values = record["values"]
        colour = {"short": RED, "undecided": SOFT}.get(values["verdict"], GREEN)
        axes.plot([values["claim"], values["order"]], [row, row], color=colour if colour == RED else FAINT, lw=1.2)
        axes.plot(values["claim"], row, "o", ms=6.5, mfc="white", mec=SOFT, mew=1.0)
        axes.plot(values["order"], row, "o", ms=3.6, color=colour, mew=0)
    for row in range(1, len(known)):
        if known[row]["library"] != known[row - 1]["library"]:
            axes.axhline(row - 0.5, color=FAINT, lw=0.8)
    axes.set_xlim(0.0, 5.6)
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.set_yticks(range(len(known)), [f"{r['library']}  {_title(r)}" for r in known], fontsize=SMALL - 1)
    return png(canvas)


def _orders_table(orders: list[Record]) -> str:
    rows: list[list[Cell | str]] = []
    for record in orders:
        values = record["values"]
        mark, kind, words = _MARKS[values["verdict"]]
        order = (
            "–"
            if values["order"] is None
            else f"{values['order']:.3f} <small>± {number(values['uncertainty'], 1)}</small>"
        )
        rows.append(
            [
                escape(record["library"]),
                f"<code>{escape(record['method'])}</code>",
                _MEASURES[record["measure"]],
                f"{values['claim']:g}",
                order,
                Cell(f"{mark} {words}", kind),
            ]
        )
    tolerance = orders[0]["values"]["tolerance"]
    caption = (
        f"Orders fitted to exact errors. A claim is reached within {tolerance:g} and twice the uncertainty of the fit."
    )
    return table(["library", "method", "error of", "claimed", "measured", "verdict"], rows, caption, numbers_from=3)


def _errors_table(records: list[Record]) -> str:
    """Errors at every step count, beside those of a prototype."""
    if not records:
        return ""
    steps = records[0]["steps"]
    rows: list[list[Cell | str]] = []
    for record in records:
        values = record["values"]
        cells = [number(e) for e in values["errors"]]
        known = values["deviation"] is not None
        rows.append(
            [
                f"{escape(record['library'])} <code>{escape(record['method'])}</code>",
                *cells,
                f"{values['deviation']:.1%}" if known else "–",
            ]
        )
        if known:
            figures = [f"<small>{number(f)}</small>" for f in values["prototype"]]
            rows.append([Cell("<small>prototype</small>"), *figures, ""])
    compared = [r["values"]["deviation"] for r in records if r["values"]["deviation"] is not None]
    close = sum(d <= 0.05 for d in compared)
    caption = (
        "Exact errors of diffusion samplers by steps (two calls a step in Heun, dpm_2, 2s and dpmpp_sde). In small "
        "figures what an independent prototype measured, to two digits; last column: the largest deviation from it. "
        f"{close} of {len(compared)} rows agree within 5 %."
    )
    return table(["method", *map(str, steps), "deviation"], rows, caption)


def _replays_table(records: list[Record]) -> str:
    if not records:
        return ""
    rows = [
        [
            f"<code>{escape(r['method'])}</code>",
            f"{r['tolerance']:g}",
            str(r["values"]["accepted"]),
            number(r["values"]["w2"]),
            f"{r['values']['ratio']:.3g}",
            number(r["values"]["residual"], 1),
        ]
        for r in records
    ]
    caption = (
        "Adaptive methods of torchdiffeq on the flow of VP back to a Gaussian in three dimensions. An adaptive run is "
        "no affine map, but it is one on the steps that it took: they are recorded and taken again, and the law is "
        "exact for them."
    )
    head = ["method", "tolerance", "accepted steps", "W₂", "W₂ ÷ tolerance", "superposition residual"]
    return table(head, rows, caption)
