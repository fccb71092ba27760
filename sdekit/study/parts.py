"""All that a study does, in order."""

from __future__ import annotations

from sdekit.study import (
    accuracy,
    convergence,
    digits,
    grids,
    langevin,
    latents,
    limits,
    marginals,
    peers,
    refinement,
    rewind,
)
from sdekit.study.settings import Settings
from sdekit.study.tasks import Task

PARTS = {
    "marginals": marginals.tasks,
    "convergence": convergence.tasks,
    "rewind": rewind.tasks,
    "limits": limits.tasks,
    "digits": digits.tasks,
    "latents": latents.tasks,
    "peers": peers.tasks,
    "langevin": langevin.tasks,
    "grids": grids.tasks,
    "accuracy": accuracy.tasks,
    "refinement": refinement.tasks,
}
"""Part → its tasks under some settings."""


def plan(settings: Settings) -> list[Task]:
    """Every task, in the order of ``results.jsonl``."""
    return [task for tasks in PARTS.values() for task in tasks(settings)]
