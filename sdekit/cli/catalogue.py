"""``sdekit list`` and ``sdekit show``: what there is, generated from what it declares."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sdekit.cli import page
from sdekit.cli.command import Command, choice
from sdekit.errors import SdekitError, unknown_name
from sdekit.verify.claims import fits, kinds, takes_eta

if TYPE_CHECKING:
    from rich.table import Table

    from sdekit.steppers import Spec, Stepper

_CLASSES = ("linear-additive", "additive", "diagonal", "commutative", "general")
_LEGEND = """\
Orders and noise by class: l linear with additive noise, a additive, s scalar,
d diagonal, c commutative, g general; -- where it does not apply.
ev: evaluations of the drift or network in a step.  eta: the reverse-time
SDEs it integrates.  λ: needs the reverse of a process with a schedule."""


def orders(by_class: Mapping[str, float]) -> str:
    """Orders by problem class, such as ``1la 0.5dcg``."""
    values = dict.fromkeys(by_class[c] for c in _CLASSES if c in by_class)
    parts = (f"{v:g}{''.join(c[0] for c in _CLASSES if by_class.get(c) == v)}" for v in values)
    return " ".join(parts) or "--"


def eta_range(eta: tuple[float, float]) -> str:
    """A range of η in words."""
    low, high = eta
    if low == high:
        return f"{low:g}"
    return f"≥ {low:g}" if math.isinf(high) else f"{low:g} … {high:g}"


def _noise(spec: Spec) -> str:
    return "".join(n[0] for n in ("additive", "scalar", *_CLASSES[2:]) if n in spec.noise_types) or "--"


def _optional(order: float | None) -> str:
    return "--" if order is None else f"{order:g}"


def steppers_table() -> Table:
    """Every stepper with its declared facts."""
    from sdekit.steppers import registry

    return _facts_table("steppers", [cls.spec for cls in registry.STEPPERS.values() if cls.spec.alias is None])


def _facts_table(title: str, specs: Iterable[Spec]) -> Table:
    rows = [
        (
            s.name,
            str(s.evaluations),
            "exact" if s.kind == "exact" else _optional(s.ode),
            "exact" if s.kind == "exact" else orders(s.strong),
            "exact" if s.kind == "exact" else orders(s.weak),
            _noise(s),
            eta_range(s.eta),
            "λ" if s.needs_schedule else "--",
        )
        for s in specs
    ]
    return page.table(title, ("name", ">ev", ">ODE", "strong", "weak", "noise", "eta", "λ"), rows)


def _back_ends() -> Iterable[Table | str]:
    """Methods of other libraries, with the facts that those declare; what is missing."""
    from sdekit.steppers import registry
    from sdekit.steppers.back_ends import BACK_ENDS

    there = [b for b in BACK_ENDS.values() if b.installed]
    if there:
        yield _facts_table("other libraries", [registry.get(name).spec for b in there for name in b.names])
    for back_end in BACK_ENDS.values():
        if not back_end.installed:
            yield page.fill(f"{back_end.library} is not installed; with it, {', '.join(back_end.names)}.")


def _aliases() -> str:
    """Which names are other names."""
    from sdekit.steppers import registry

    of: dict[str, list[str]] = {}
    for name, cls in registry.STEPPERS.items():
        if cls.spec.alias is not None:
            of.setdefault(cls.spec.alias, []).append(name)
    groups = (f"{', '.join(names)} for {alias}" for alias, names in of.items())
    return page.fill(f"Other names: {'; '.join(groups)}.")


def problems_table() -> Table:
    """Every problem with what can be measured on it."""
    from sdekit import problems

    rows = []
    for name, make in problems.PROBLEMS.items():
        problem = problems.get(name)
        rows.append((name, problem.summary, "any" if takes_eta(make) else "--", ", ".join(kinds(problem))))
    return page.table("problems", ("name", "what it is", "eta", "orders of"), rows)


def processes_table() -> Table:
    """Every process with its default parameters."""
    from sdekit.cli import choices

    rows = []
    for name, kind in choices.processes().items():
        made = choices.process(name)
        rows.append((name, f"sk.{kind.__name__}({_parameters(kind)})", f"[{made.t_min:g}, {made.t_max:g}]"))
    return page.table("processes", ("name", "in Python", "times"), rows)


def _parameters(kind: type) -> str:
    """The parameters of a process, except the ends of its grid."""
    fields = [f for f in dataclasses.fields(kind) if f.init and not f.name.startswith("t_m")]
    return ", ".join(f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default:g}" for f in fields)


def grids_table() -> Table:
    """Every grid with its first line."""
    from sdekit.cli import choices

    rows = [(name, page.first_sentence(inspect.getdoc(grid) or "")) for name, grid in choices.grids().items()]
    return page.table("grids", ("name", "what it is"), rows)


def data_table() -> Table:
    """Every data law."""
    from sdekit.cli import choices

    return page.table("data", ("name", "what it is"), list(choices.data().items()))


TOPICS: dict[str, Callable[[], Table]] = {
    "steppers": steppers_table,
    "problems": problems_table,
    "processes": processes_table,
    "grids": grids_table,
    "data": data_table,
}


def run_list(options: argparse.Namespace) -> int:
    """Print one table or all."""
    parts: list[Table | str] = []
    for topic in (options.topic,) if options.topic else TOPICS:
        parts += [TOPICS[topic](), _LEGEND, _aliases(), *_back_ends()] if topic == "steppers" else [TOPICS[topic]()]
    page.show(*parts)
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Print the page of one name."""
    from sdekit import problems
    from sdekit.cli import choices
    from sdekit.steppers import registry

    pages: dict[str, Callable[[str], Iterable[Any]]] = {
        **dict.fromkeys(choices.data(), _data_page),
        **dict.fromkeys(choices.grids(), _grid_page),
        **dict.fromkeys(choices.processes(), _process_page),
        **dict.fromkeys(problems.PROBLEMS, _problem_page),
        **dict.fromkeys(registry.names(), _stepper_page),
    }
    wanted = options.name.lower().replace("_", "-")
    for name, make in pages.items():
        if name.replace("_", "-") == wanted:
            page.show(*make(name))
            return 0
    raise unknown_name("stepper, problem, process, grid or data law", options.name, pages)


def _by_class(by_class: Mapping[str, float]) -> str:
    return ", ".join(f"{v:g} {c}" for c, v in by_class.items()) or "not declared"


def _stepper_page(name: str) -> Iterable[Any]:
    from sdekit.steppers import registry

    stepper = registry.get(name)
    spec = stepper.spec
    exact = spec.kind == "exact"
    yield page.fill(f"{name}: {spec.summary}")
    yield page.prose(inspect.getdoc(type(stepper)) or "")
    yield page.facts(
        [
            *([("another name for", spec.alias)] if spec.alias else []),
            ("evaluations per step", str(spec.evaluations)),
            ("order on an ODE", "exact" if exact else "not declared" if spec.ode is None else f"{spec.ode:g}"),
            ("strong order", "exact" if exact else _by_class(spec.strong)),
            ("weak order", "exact" if exact else _by_class(spec.weak)),
            ("noise", ", ".join(sorted(spec.noise_types))),
            ("calculus", ", ".join(sorted(spec.calculus))),
            ("eta", eta_range(spec.eta)),
            ("needs a schedule", "yes: it is written in the log-SNR" if spec.needs_schedule else "no"),
            *([("samples", "the target of a Langevin diffusion, and nothing else")] if spec.needs_langevin else []),
            ("references", ", ".join(spec.references)),
        ]
    )
    yield from _certified(name)
    example = _problem_for(stepper)
    if spec.kind == "chain" and not spec.weak:
        yield f"example: sdekit verify {name}"
    elif example:
        yield f"example: sdekit converge {example[0]} {name}{example[1]}"


def _certified(name: str) -> Iterable[Any]:
    """The certificate that speaks for each declared fact, and a picture of them."""
    from sdekit.cli.chart import chart
    from sdekit.verify import certificates

    found = certificates.load(name)
    if not found:
        return
    best = list(certificates.by_fact(found).values())
    rows = [(c.fact, "exact" if c.declared is None else f"{c.declared:g}", c.measured, c.kind, c.where) for c in best]
    yield page.table("certified", ("fact", ">declared", ">measured", "error", "problem"), rows)
    yield chart([(f"{c.fact}: {c.kind} on {c.where}", c.steps, c.errors) for c in best])
    held, made = sum(c.holds for c in found), found[0]
    programs = " and ".join(f"{program} {version}" for program, version in made.versions.items())
    yield page.fill(f"{held} of {len(found)} claims held on {made.date}, with {programs}.")
    yield f"again: sdekit verify {name} --only order"


def _problem_for(stepper: Stepper) -> tuple[str, str] | None:
    """A problem that a stepper fits, and the option for its η."""
    from sdekit import problems

    for name, make in problems.PROBLEMS.items():
        for eta in (0.0, 1.0) if takes_eta(make) else (None,):
            if fits(stepper, problems.get(name, **({} if eta is None else {"eta": eta}))):
                return name, f" --eta {eta:g}" if eta else ""
    return None


def _problem_page(name: str) -> Iterable[str]:
    from sdekit import problems
    from sdekit.steppers import registry

    make, problem = problems.PROBLEMS[name], problems.get(name)
    able = [s for s in registry.STEPPERS if fits(registry.get(s), problem)]
    nodes = problem.grid(2)
    function = make.func if isinstance(make, functools.partial) else make
    yield page.fill(f"{name}: {problem.summary}")
    if not isinstance(make, functools.partial):
        yield page.prose(inspect.getdoc(function) or "")
    yield page.facts(
        [
            ("detects", problem.detects),
            ("times", f"{float(nodes[0]):g} → {float(nodes[-1]):g}"),
            ("state", f"shape {tuple(problem.initial.event_shape)}"),
            ("noise", f"{problem.sde.noise_type}, {problem.sde.calculus}"),
            ("takes --eta", "yes (default 0, the probability flow)" if takes_eta(make) else "no"),
            ("orders of", ", ".join(kinds(problem))),
        ]
    )
    yield page.fill(f"steppers that fit: {', '.join(able)}", "  ")
    yield f"example: sdekit converge {name} {' '.join(able[:2])}"


def _process_page(name: str) -> Iterable[str]:
    from sdekit.cli import choices

    kind, made = choices.processes()[name], choices.process(name)
    yield f"{name}: sk.{kind.__name__}({_parameters(kind)})"
    yield page.prose(inspect.getdoc(kind) or "")
    schedule = made.schedule
    ends = "none" if schedule is None else f"{schedule.lam(made.t_max):.3g} … {schedule.lam(made.t_min):.3g}"
    yield page.facts([("times", f"[{made.t_min:g}, {made.t_max:g}]"), ("log-SNR", ends), ("noise", made.noise_type)])
    yield f"example: sdekit solve --process {name}"


def _grid_page(name: str) -> Iterable[str]:
    from sdekit.cli import choices

    grid = choices.grids()[name]
    call = ", ".join(str(p).split(":")[0] for p in inspect.signature(grid).parameters.values())
    yield f"{name}: sk.grids.{name}({call})"
    yield page.prose(inspect.getdoc(grid) or "")
    try:
        times = ", ".join(f"{t:.3g}" for t in grid(choices.process("vp"), 5).tolist())
        yield f"vp in 5 steps: {times}"
    except SdekitError:
        pass
    yield f"example: sdekit solve --process vp --grid {name}"


def _data_page(name: str) -> Iterable[str]:
    from sdekit.cli import choices

    yield page.fill(f"{name}: {choices.data()[name]}")
    yield f"example: sdekit solve --process vp --data {name}"


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic",
        nargs="?",
        type=choice("list", lambda: TOPICS),
        metavar="TOPIC",
        help=f"{', '.join(TOPICS)} (default: all)",
    )


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="any name that `sdekit list` prints")


LIST = Command(
    name="list",
    purpose="tables of what there is, with declared orders and costs",
    detail="Steppers, problems, processes, time grids and data, read off the registries.",
    examples=(
        ("sdekit list", "everything"),
        ("sdekit list steppers", "the solvers, with orders by class of problem and evaluations per step"),
    ),
    arguments=_list_arguments,
    run=run_list,
)

SHOW = Command(
    name="show",
    purpose="the page of one name: its formula, facts and references",
    detail="Of a stepper, problem, process, grid or data law, with a line to try.",
    examples=(
        ("sdekit show ddim", "the formula of DDIM and its declared orders"),
        ("sdekit show vp-gaussian", "a problem, and the steppers that fit it"),
    ),
    arguments=_show_arguments,
    run=run_show,
)
