"""The section on orders: error against evaluations, and measured against declared orders."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, final

from sdekit.report.drawing import (
    FAINT,
    INK,
    RED,
    SMALL,
    SOFT,
    TEXT,
    Label,
    dress,
    label_ends,
    look,
    new_figure,
    png,
)
from sdekit.report.markup import Cell, escape, figure, number, table, template
from sdekit.report.reading import Card, Section, Study
from sdekit.study.tasks import Record

_MARKS = {"pass": ("✓", "good"), "undecided": ("?", "unsure"), "fail": ("✗", "bad")}
_SHAPES = {"ou": "o", "vp": "s", "ve": "^"}
_KINDS = (("flow", "probability flow, η = 0"), ("sde", "reverse SDE, η > 0"))


@final
@dataclass(frozen=True)
class _Line:
    """One solver on one problem."""

    solver: str
    eta: float
    evaluations: list[int]
    errors: list[float]
    record: Record

    @property
    def values(self) -> dict[str, Any]:
        return dict(self.record["values"])

    @property
    def short(self) -> str:
        return "EM" if self.solver == "euler-maruyama" else self.solver

    @property
    def name(self) -> str:
        return self.short if self.eta == 0.0 else f"{self.short} η={self.eta:g}"


def section(study: Study) -> Section | None:
    """Figures and tables of the convergence part; None if it has no orders yet."""
    orders = [r for r in study.part("convergence") if r["key"].endswith("/order")]
    if not orders:
        return None
    by_problem: dict[str, list[_Line]] = defaultdict(list)
    for record in orders:
        by_problem[record["problem"]].append(_line(study, record))
    figures: dict[str, bytes] = {"orders": _deviations([r for r in orders if r["problem"].endswith("-gaussian")])}
    pages = {"gaussian": "", "mixture": ""}
    for problem, lines in by_problem.items():
        for kind, words in _KINDS:
            chosen = [line for line in lines if (line.eta == 0.0) == (kind == "flow")]
            if not any(line.values["declared"] is not None for line in chosen):
                continue
            name = f"convergence-{problem}-{kind}"
            figures[name] = _errors(f"{_title(problem)}: {words}", chosen)
            alt = f"W2 error against score evaluations, {problem}, {words}"
            pages[problem.partition("-")[2]] += figure(name, alt)
    if not figures["orders"]:
        del figures["orders"]
    body = template(
        "convergence.html",
        overview=figure("orders", "Measured minus declared order of every solver", kind="wide")
        if "orders" in figures
        else "",
        summary=_summary(orders),
        gaussian=pages["gaussian"],
        mixture=pages["mixture"],
        gaussian_table=_table(orders, "gaussian"),
        mixture_table=_table(orders, "mixture"),
    )
    return Section("orders", "Orders of convergence", body, _cards(orders), figures)


def _line(study: Study, record: Record) -> _Line:
    start = record["key"].removesuffix("/order")
    steps = [study.records[f"{start}/steps={n}"] for n in record["steps"]]
    evaluations = [r["values"]["evaluations"] for r in steps]
    return _Line(record["solver"], record["eta"], evaluations, [r["values"]["w2"] for r in steps], record)


def _title(problem: str) -> str:
    process, _, data = problem.partition("-")
    return f"{process.upper()} → {data.capitalize() if data == 'gaussian' else data}"


def _rated(orders: list[Record], data: str) -> list[Record]:
    return [r for r in orders if r["problem"].endswith(data) and r["values"]["declared"] is not None]


def _cards(orders: list[Record]) -> tuple[Card, ...]:
    rated = _rated(orders, "gaussian")
    exact = [max(r["values"]["errors"]) for r in orders if r["values"]["declared"] is None]
    cards = []
    if rated:
        passed = sum(r["values"]["verdict"] == "pass" for r in rated)
        deviations = [abs(r["values"]["order"] - r["values"]["declared"]) for r in rated if r["values"]["order"]]
        worst = number(max(deviations), 2) if deviations else "–"
        text = (
            "orders measured on Gaussian data agree with the declared ones to within "
            f"{rated[0]['values']['tolerance']:g}. The largest deviation is {worst}."
        )
        cards.append(Card(f"{passed} of {len(rated)}", text))
    if exact:
        text = "is the largest W₂ error of the exact kernel run backwards, 16 to 512 steps: round-off, as it should be."
        steps = [n for r in orders if r["values"]["declared"] is None for n in r["steps"]]
        text = text.replace("16 to 512", f"{min(steps)} to {max(steps)}")
        cards.append(Card(number(max(exact), 2), text))
    return tuple(cards)


def _summary(orders: list[Record]) -> str:
    counts = {v: sum(r["values"]["verdict"] == v for r in orders) for v in _MARKS}
    text = f"{counts['pass']} of {len(orders)} solver–problem pairs pass"
    if counts["undecided"]:
        text += f", {counts['undecided']} cannot be decided at these step counts"
    return text + (f", {counts['fail']} fail." if counts["fail"] else "; none fails.")


# --- figures --------------------------------------------------------------------------------------


def _errors(title: str, lines: list[_Line]) -> bytes:
    """Log-log error against evaluations, lines labelled at their ends, reference slopes behind."""
    exact = [line for line in lines if line.values["declared"] is None]
    drawn = [line for line in lines if line.values["declared"] is not None]
    canvas = new_figure(3.75)
    axes = canvas.add_axes((0.165, 0.15, 0.42, 0.73))
    dress(axes, "", "score evaluations", "$W_2$ to the exact law")
    canvas.text(0.02, 0.945, title, fontsize=10, fontweight="bold", color=INK)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for group in _coinciding(drawn):
        first = group[0]
        colour, marker, dashes = look(first.solver, first.eta)
        axes.plot(first.evaluations, first.errors, linestyle=dashes, color=colour, marker=marker, ms=4, lw=1.4, mew=0)
    x = [n for line in drawn for n in line.evaluations]
    y = [e for line in drawn for e in line.errors if e > 0]
    axes.set_xlim(min(x) * 0.8, max(x) * 1.25)
    axes.set_ylim(min(y) * 0.25, max(y) * 3.0)
    ticks = [2**k for k in range(1, 14) if min(x) * 0.9 <= 2**k <= max(x) * 1.1]
    axes.set_xticks(ticks if len(ticks) < 7 else ticks[::2])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.minorticks_off()
    label_ends(axes, [*_slopes(axes, drawn), *(_label(group) for group in _coinciding(drawn))])
    if exact:
        worst = max(max(line.errors) for line in exact)
        canvas.text(0.695, 0.045, f"exact-linear: ≤ {worst:.0e}", fontsize=SMALL, color=SOFT)
    return png(canvas)


def _coinciding(lines: list[_Line]) -> list[list[_Line]]:
    """Lines in groups of equal errors: Euler–Maruyama without noise is Euler."""
    groups: list[list[_Line]] = []
    for line in lines:
        for group in groups:
            pairs = zip(line.errors, group[0].errors, strict=False)
            same = line.evaluations == group[0].evaluations
            if same and all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairs):
                group.append(line)
                break
        else:
            groups.append([line])
    return groups


def _label(group: list[_Line]) -> Label:
    first = group[0]
    order = first.values["order"]
    names = " = ".join([*(line.short for line in group[:-1]), group[-1].name])  # they share their η
    text = f"{names}   {order:.2f}" if order is not None else names
    return Label(text, first.evaluations[-1], first.errors[-1], look(first.solver, first.eta).colour)


def _slopes(axes: Any, lines: list[_Line]) -> list[Label]:
    """For each declared order a grey line below the lowest curve of that order; their labels."""
    labels = []
    for order in sorted({line.values["declared"] for line in lines}):
        mine = [line for line in lines if line.values["declared"] == order]
        scale = 0.42 * min(e * n**order for line in mine for n, e in zip(line.evaluations, line.errors, strict=True))
        reached = [n for line in mine for n in line.evaluations]
        ends = (min(reached), max(reached))
        axes.plot(ends, [scale * n**-order for n in ends], color=FAINT, lw=1.0, ls=(0, (2, 2)), zorder=0)
        labels.append(Label(f"slope {order:g}", ends[1], scale * ends[1] ** -order, SOFT))
    return labels


def _deviations(orders: list[Record]) -> bytes:
    """Measured minus declared, a row for every solver and η, a mark for every process."""
    rated = [r for r in orders if r["values"]["declared"] is not None and r["values"]["order"] is not None]
    if not rated:
        return b""
    rows = list(dict.fromkeys((r["solver"], r["eta"]) for r in rated))
    tolerance = rated[0]["values"]["tolerance"]
    canvas = new_figure(0.95 + 0.26 * len(rows))
    bottom = 0.55 / canvas.get_size_inches()[1]
    axes = canvas.add_axes((0.405, bottom, 0.555, 1.0 - bottom - 0.42 / canvas.get_size_inches()[1]))
    dress(axes)
    axes.set_xlabel(f"measured − declared order (band: ± {tolerance:g})", loc="right", fontsize=TEXT, color=INK)
    axes.axvspan(-tolerance, tolerance, color="#e3f0e6", zorder=0, lw=0)
    axes.axvline(0.0, color=FAINT, lw=0.8, zorder=1)
    for record in rated:
        row = rows.index((record["solver"], record["eta"]))
        process = record["problem"].partition("-")[0]
        shift = (list(_SHAPES).index(process) - 1) * 0.22 if process in _SHAPES else 0.0
        deviation = record["values"]["order"] - record["values"]["declared"]
        inside = record["values"]["verdict"] == "pass"
        axes.errorbar(
            deviation,
            row + shift,
            xerr=record["values"]["uncertainty"],
            fmt=_SHAPES.get(process, "o"),
            ms=4.2,
            mew=0,
            lw=0.8,
            color=look(record["solver"], record["eta"]).colour if inside else RED,
        )
    deviations = [abs(r["values"]["order"] - r["values"]["declared"]) for r in rated]
    reach = 1.25 * max(tolerance, min(max(deviations), 0.5))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [f"{solver}, η={eta:g}" for solver, eta in rows])
    handles = [axes.plot([], [], s, color=SOFT, ms=4.2, label=p.upper())[0] for p, s in _SHAPES.items()]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.1,
    )
    return png(canvas)


# --- tables ---------------------------------------------------------------------------------------


def _table(orders: list[Record], data: str) -> str:
    """Solvers by processes: fitted order, its uncertainty, and the mark."""
    mine = [r for r in orders if r["problem"].endswith(f"-{data}")]
    if not mine:
        return ""
    problems = list(dict.fromkeys(r["problem"] for r in mine))
    rows: list[list[Cell | str]] = []
    for solver, eta in dict.fromkeys((r["solver"], r["eta"]) for r in mine):
        found = {r["problem"]: r for r in mine if (r["solver"], r["eta"]) == (solver, eta)}
        any_record = next(iter(found.values()))["values"]
        declared = "exact" if any_record["declared"] is None else f"{any_record['declared']:g}"
        cells = [_order_cell(found[p]["values"]) if p in found else Cell("") for p in problems]
        rows.append([f"<code>{escape(solver)}</code>", f"{eta:g}", declared, *cells])
    words = "Gaussian" if data == "gaussian" else data
    tolerances = sorted({f"{r['values']['tolerance']:g}" for r in mine})
    caption = (
        f"Orders fitted to exact W₂ errors, {words} data. ✓: within {' or '.join(tolerances)} of the declared order"
        + (" (flows, stochastic runs)." if len(tolerances) > 1 else ".")
    )
    return table(["solver", "η", "declared", *(p.partition("-")[0].upper() for p in problems)], rows, caption)


def _order_cell(values: dict[str, Any]) -> Cell:
    mark, kind = _MARKS[values["verdict"]]
    word = f'<span class="{kind}" title="{values["verdict"]}">{mark}</span>'
    if values["declared"] is None:
        return Cell(f"error ≤ {number(max(values['errors']), 2)} {word}")
    if values["order"] is None:
        return Cell(f"no fit {word}")
    return Cell(f"{values['order']:.4f} <small>± {number(values['uncertainty'], 1)}</small> {word}")
