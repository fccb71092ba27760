r"""Part 2: at what order does each solver converge, and is it the order that it declares?

Every registered solver that can integrate a problem runs on it, at η = 0, ½ and 1 where it allows them. Its error is
$W_2$ between the law that the production solver produces and the exact one, from the same initial law, at the same
time. No sampling: Gaussian problems by the affine probe, flows on the line by the quantile map, stochastic runs on the
line by transport of the density (:func:`sdekit.verify.law_error`). Orders are fitted to these
(:func:`sdekit.verify.fit_order`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, final

from sdekit import problems
from sdekit.errors import SdekitError
from sdekit.problems import Problem
from sdekit.reverse import Reverse
from sdekit.score import schedule_of
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.steppers.plan import PlannedStepper
from sdekit.study.settings import CONVERGENCE, Settings
from sdekit.study.tasks import Records, Result, Task, grid_facts
from sdekit.verify import OrderEstimate, fit_order, law_error
from sdekit.verify.convergence import FLOOR, law_method

ETAS, QUICK_ETAS = (0.0, 0.5, 1.0), (0.0, 1.0)
TOLERANCE = {"affine": 0.02, "flow": 0.02, "transport": 0.05}
"""How far a measured order may be from the declared one. Transport is dear, so its step counts are smaller."""

_STEPS = {
    "affine": (16, 32, 64, 128, 256, 512),
    "flow": (16, 32, 64, 128, 256, 512),
    "transport": (16, 32, 64, 128, 256),
}
_QUICK_STEPS = {"affine": (32, 64, 128, 256, 512), "flow": (32, 64, 128, 256), "transport": (16, 32, 64, 128)}
_COST = {"affine": 3e-4, "flow": 1.5e-4, "transport": 1e-2}  # seconds per step


@final
@dataclass(frozen=True)
class Run:
    """A solver on a problem at an η."""

    problem: str
    solver: str
    eta: float

    @property
    def name(self) -> str:
        """The start of its records' names."""
        return f"{self.problem}/{self.solver}/eta={self.eta:g}"

    def make(self) -> tuple[Problem, Stepper]:
        """The problem and the stepper."""
        return problem_at(self.problem, self.eta), registry.get(self.solver)


@cache
def problem_at(name: str, eta: float) -> Problem:
    """A generation problem."""
    return problems.get(name, eta=eta)


def runs(settings: Settings) -> Iterator[Run]:
    """Every chosen solver on every chosen problem that it can integrate."""
    for problem in settings.problems:
        if problem in CONVERGENCE:
            for eta in QUICK_ETAS if settings.quick else ETAS:
                for solver in settings.solvers:
                    run = Run(problem, solver, eta)
                    if _possible(run):
                        yield run


def _possible(run: Run) -> bool:
    """Whether the solver takes the problem, and there is a method that measures it."""
    problem, stepper = run.make()
    if registry.obstacle(stepper.spec, problem.sde) is not None:
        return False
    if stepper.spec.kind != "exact" and declared_order(stepper, run.eta, run.problem) is None:
        return False  # it promises no order there
    try:
        stepper.prepare(problem.sde, problem.grid(max(2, stepper.spec.min_steps)).tolist())
        law_method(problem, stepper)
    except SdekitError:
        return False
    return True


def tasks(settings: Settings) -> Iterator[Task]:
    """The error at every step count, then the order."""
    for run in runs(settings):
        problem, stepper = run.make()
        method = law_method(problem)
        ladder = settings.steps or (_QUICK_STEPS if settings.quick else _STEPS)[method]
        about = {
            "problem": run.problem,
            "solver": run.solver,
            "eta": run.eta,
            "method": method,
            "evaluations_per_step": stepper.spec.evaluations,
        }
        for n in ladder:
            grid = grid_facts("of the problem", problem.grid(n))
            yield Task(
                "convergence",
                f"{run.name}/steps={n}",
                {**about, "steps": n, "grid": grid},
                partial(_error, run, n),
                cost=_COST[method] * n + 0.01,
            )
        facts = {**about, "steps": list(ladder)}
        yield Task("convergence", f"{run.name}/order", facts, partial(_order, run, ladder), reads_records=True)


def _error(run: Run, steps: int, _: Records) -> Result:
    problem, stepper = run.make()
    return Result({"evaluations": _evaluations(problem, stepper, steps), "w2": law_error(problem, stepper, steps)})


def _evaluations(problem: Problem, stepper: Stepper, steps: int) -> int:
    """Of a run; a p-step method may start with more of them."""
    if not isinstance(stepper, PlannedStepper) or not isinstance(problem.sde, Reverse):
        return steps * stepper.spec.evaluations
    schedule = schedule_of(problem.sde.linear_process)
    plan = stepper.plan(schedule, problem.sde.eta, problem.grid(steps))
    return sum(row.at is not None for rows in plan.rows for row in rows)


def declared_order(stepper: Stepper, eta: float, problem: str) -> float | None:
    """What the stepper's Spec promises for W2; None for an exact method."""
    spec = stepper.spec
    if spec.kind == "exact":
        return None
    kind = "linear-additive" if problem.endswith("gaussian") else "additive"
    return spec.ode if eta == 0.0 and spec.kind != "chain" else spec.weak.get(kind)


def verdict(estimate: OrderEstimate, declared: float | None, tolerance: float) -> str:
    """``pass``, ``fail``, or ``undecided``: not within the tolerance, but within it and two uncertainties."""
    if declared is None:
        return "pass" if estimate.exact else "fail"
    if math.isnan(estimate.order):
        return "undecided"
    deviation = abs(estimate.order - declared)
    if deviation <= tolerance:
        return "pass"
    return "undecided" if deviation <= tolerance + 2.0 * estimate.uncertainty else "fail"


def _order(run: Run, ladder: tuple[int, ...], records: Records) -> Result:
    """The fitted order beside the declared one."""
    problem, stepper = run.make()
    method = law_method(problem)
    errors = [records[f"convergence/{run.name}/steps={n}"]["values"]["w2"] for n in ladder]
    estimate = fit_order(ladder, errors, FLOOR[method])
    declared = declared_order(stepper, run.eta, run.problem)
    found = verdict(estimate, declared, TOLERANCE[method])
    measured = None if math.isnan(estimate.order) else estimate.order
    values: dict[str, Any] = {
        "errors": errors,
        "local": [None if math.isnan(p) else p for p in estimate.local],
        "order": measured,
        "uncertainty": None if measured is None else estimate.uncertainty,
        "exact": estimate.exact,
        "declared": declared,
        "tolerance": TOLERANCE[method],
        "floor": estimate.floor,
        "verdict": found,
        "passed": {"pass": True, "fail": False}.get(found),
    }
    return Result(values)
