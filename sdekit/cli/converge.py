"""``sdekit converge``: measured orders of convergence, held against the declared ones."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdekit.cli import page
from sdekit.cli.command import Command, choice, count, counts, number, seed
from sdekit.errors import SdekitError

if TYPE_CHECKING:
    from rich.table import Table

    from sdekit.problems import Problem
    from sdekit.steppers import Spec
    from sdekit.verify import OrderEstimate

_SIDE_BY_SIDE = 3  # steppers in a table of less than 80 columns
_MEANING = {
    "w2": "W2 between the law that the solver produces and the exact one; no sampling",
    "ode": "root mean square error against the exact flow, over quantiles",
    "strong": "root mean square error against the exact solution on the same paths",
    "weak": "error of moments or smooth functionals; no sampling",
}


@dataclass(frozen=True)
class Result:
    """One stepper on one problem."""

    spec: Spec
    estimate: OrderEstimate
    declared: float | None

    @property
    def verdict(self) -> str:
        """Measured against declared, in a word or two."""
        if self.estimate.exact:
            return "exact"
        if math.isnan(self.estimate.order):
            return "too few levels to fit"
        if self.spec.kind == "exact":
            return "NOT EXACT, as declared"
        if self.declared is None:
            return "no order declared"
        return "agrees" if self.estimate.consistent_with(self.declared) else "DISAGREES"

    @property
    def bad(self) -> bool:
        """Whether the measured order contradicts the declared one."""
        return self.verdict.isupper() or self.verdict.startswith("NOT")

    def as_json(self) -> dict[str, Any]:
        """Plain values; null for what was not measured."""
        e = self.estimate
        return {
            "stepper": self.spec.name,
            "steps": list(e.steps),
            "errors": list(e.errors),
            "local_orders": [_finite(p) for p in e.local],
            "order": _finite(e.order),
            "uncertainty": _finite(e.uncertainty),
            "declared": self.declared,
            "verdict": self.verdict.lower(),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def run(options: argparse.Namespace) -> int:
    """Measure, print, and compare with what is declared."""
    import torch

    from sdekit import problems
    from sdekit.steppers import registry
    from sdekit.verify import order
    from sdekit.verify.claims import declared_order

    problem = problems.get(options.problem, **({} if options.eta is None else {"eta": options.eta}))
    steppers = [registry.get(name) for name in dict.fromkeys(options.steppers)]
    for stepper in steppers:
        registry.check(stepper, problem.sde)
        stepper.prepare(problem.sde, problem.grid(options.steps[0]).tolist())  # the stepper's own objections
    kind = _kind(options.kind, problem)
    _check_steps(kind, options.steps)
    results = []
    with torch.no_grad():
        for stepper in steppers:
            estimate = order(problem, stepper, kind, options.steps, samples=options.samples, seed=options.seed)
            fact = declared_order(stepper.spec, problem, kind)
            results.append(Result(stepper.spec, estimate, None if fact is None else fact[1]))
    eta = getattr(problem.sde, "eta", None)
    if options.json:
        found = {"problem": problem.name, "eta": eta, "kind": kind, "results": [r.as_json() for r in results]}
        print(json.dumps(found, indent=2))
    else:
        _print(problem, eta, kind, results)
    return 1 if any(r.bad for r in results) else 0


def _kind(asked: str | None, problem: Problem) -> Any:
    """The kind of order to measure: the one asked for, or the sharpest that the problem has an answer for."""
    from sdekit.verify.claims import kinds

    known: list[str] = [*kinds(problem)]
    if asked is None:
        return known[0]
    if asked not in known:
        raise SdekitError(f"{problem.name} has no exact answer for --kind {asked}; it has {' and '.join(known)}.")
    return asked


def _check_steps(kind: str, steps: Sequence[int]) -> None:
    odd = [n for n in steps if steps[-1] % n]
    if kind == "strong" and odd:
        raise SdekitError(f"--kind strong shares one path: each of --steps must divide {steps[-1]}; {odd[0]} does not.")


def _print(problem: Problem, eta: float | None, kind: str, results: Sequence[Result]) -> None:
    at = "" if eta is None else f", eta = {eta:g}"
    parts: list[Table | str] = [page.fill(f"{problem.summary}{at}. Errors: {_MEANING[kind]}.")]
    parts += [_errors(results[i : i + _SIDE_BY_SIDE]) for i in range(0, len(results), _SIDE_BY_SIDE)]
    parts.append(_summary(results))
    if any(math.isnan(r.estimate.order) and not r.estimate.exact for r in results):
        parts.append("A fit needs four step counts with errors well above round-off: extend --steps.")
    page.show(*parts)


def _errors(results: Sequence[Result]) -> Table:
    """Errors and local orders, a pair of columns for each stepper."""
    columns = [">steps", *(name for r in results for name in (f">{r.spec.name}", ">order"))]
    return page.table("", columns, _error_rows([r.estimate for r in results]))


def _error_rows(estimates: Sequence[OrderEstimate]) -> Iterable[list[str]]:
    for level, n in enumerate(estimates[0].steps):
        row = [str(n)]
        for estimate in estimates:
            local = estimate.local[level - 1] if level else math.nan
            row += [f"{estimate.errors[level]:.3e}", "" if math.isnan(local) else f"{local:.3f}"]
        yield row


def _summary(results: Sequence[Result]) -> Table:
    """The fitted orders against the declared ones."""
    rows = [
        (
            r.spec.name,
            "--" if math.isnan(r.estimate.order) else str(r.estimate),
            "exact" if r.spec.kind == "exact" else "--" if r.declared is None else f"{r.declared:g}",
            r.verdict,
        )
        for r in results
    ]
    return page.table("", ("stepper", ">measured order", ">declared", "verdict"), rows)


def _arguments(parser: argparse.ArgumentParser) -> None:
    from sdekit.problems import PROBLEMS
    from sdekit.steppers import registry
    from sdekit.verify.convergence import DEFAULT_STEPS

    parser.add_argument(
        "problem", type=choice("problem", lambda: PROBLEMS), metavar="PROBLEM", help="from `sdekit list problems`"
    )
    parser.add_argument(
        "steppers",
        nargs="+",
        type=choice("stepper", registry.names),
        metavar="STEPPER",
        help="one or more from `sdekit list steppers`",
    )
    parser.add_argument("--eta", type=number, metavar="X", help="noise on the way back (default: 0, the flow)")
    parser.add_argument(
        "--steps",
        type=counts,
        default=DEFAULT_STEPS,
        metavar="N,N,...",
        help=f"step counts, four or more for a fit (default: {','.join(map(str, DEFAULT_STEPS))})",
    )
    parser.add_argument(
        "--kind",
        type=choice("kind of order", lambda: _MEANING),
        metavar="KIND",
        help="w2, of laws; ode, against the exact flow; strong, on the same paths; weak, of functionals "
        "(default: the first that is known)",
    )
    parser.add_argument(
        "--samples", type=count, default=4096, metavar="N", help="paths, for strong (default: %(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of these paths (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


CONVERGE = Command(
    name="converge",
    purpose="measure orders of convergence against the declared ones",
    detail="""\
Errors at increasing step counts, the local orders between them, and an order
fitted with its uncertainty. Errors are exact (kinds w2 and ode) or come from
paths that all step counts share (strong). Exit code 1 if a measured order is
inconsistent with the declared one.""",
    examples=(
        ("sdekit converge vp-gaussian ddim heun", "exact W2 error of two solvers of the probability flow"),
        ("sdekit converge vp-gaussian ddim --eta 1 --steps 16,32,64,128", "the same for the reverse-time SDE"),
        ("sdekit converge gbm euler-maruyama --kind strong", "strong order on geometric Brownian motion"),
    ),
    arguments=_arguments,
    run=run,
)
