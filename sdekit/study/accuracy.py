r"""Part 7: error against network evaluations, sdekit's samplers beside those of its peers.

- On one grid, log-uniform in σ from 20 to 0.05: the flow to a mixture, by 48 quantiles of the exact flow, and the
  reverse SDE to a normal law, by the law that is produced. A sampler gets so many steps as a budget of evaluations
  allows, with those of its start.
- As used (:mod:`sdekit.study.as_used`): every library with its own levels, timesteps and last step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sdekit.study import as_used, contenders
from sdekit.study.settings import SOLVERS, Settings, peer_versions
from sdekit.study.tasks import Records, Result, Task

CALLS, QUICK_CALLS = (10, 20, 40, 80, 160, 320), (10, 20, 40)
QUICK_AS_USED = (10, 20, 50)


QUICK_SOLVERS = ("unipc-3", "v-abm-4", "sde-dpmpp-2m", "er-sde-3", "sigma-midpoint")
"""What a quick study takes of ours, beside its other solvers."""


def tasks(settings: Settings) -> Iterator[Task]:
    """A record for every sampler whose library is installed."""
    if "accuracy" not in settings.problems:
        return
    calls = QUICK_CALLS if settings.quick else CALLS
    for contender in contenders.contenders():
        if _takes_part(settings, contender.library, contender.method):
            about = _about(contender.library, contender.method, contender.kind)
            work = partial(_measure, contender, calls)
            yield Task("accuracy", contender.name, about, work, cost=0.15 if contender.kind == "flow" else 0.4)
    for used in as_used.used():
        if _takes_part(settings, used.library, used.method):
            work = partial(_as_used, used, QUICK_AS_USED if settings.quick else as_used.CALLS)
            yield Task("accuracy", used.name, _about(used.library, used.method, "as-used"), work, cost=0.2)


def _takes_part(settings: Settings, library: str, method: str) -> bool:
    if library != "sdekit":
        return peer_versions()[library] is not None
    name, usual = method.partition(",")[0], settings.solvers == SOLVERS
    chosen = (usual and not settings.quick) or name in (*settings.solvers, *(QUICK_SOLVERS if usual else ()))
    return chosen or method.startswith(("v-abm-5", "solve("))


def _about(library: str, method: str, measure: str) -> dict[str, str | None]:
    known = {} if library == "sdekit" else {"version": peer_versions()[library]}
    return {"library": library, **known, "method": method, "measure": measure}


def _measure(contender: contenders.Contender, budgets: tuple[int, ...], _: Records) -> Result:
    found = {budget: run for budget in budgets if (run := contender.error(budget)) is not None}
    return Result(
        {
            "budgets": list(found),
            "evaluations": [calls for calls, _ in found.values()],
            "errors": [error for _, error in found.values()],
        }
    )


def _as_used(used: as_used.Used, budgets: tuple[int, ...], _: Records) -> Result:
    runs = [used.error(budget) for budget in budgets]
    return Result(
        {
            "budgets": list(budgets),
            "evaluations": [calls for calls, _ in runs],
            "errors": [error for _, error in runs],
            "prototype": list(used.prototype[: len(budgets)]),
        }
    )
