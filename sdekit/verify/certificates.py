"""Certificates: what was measured of every claim of a registered stepper, kept with the package.

``make certify`` writes one record for every stepper, problem and kind of error. The table of solvers in the
documentation and ``sdekit show NAME`` are made from them.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdekit.errors import SdekitError
from sdekit.solution import versions, write_whole
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.claims import claims

FOLDER = Path(__file__).parents[1] / "certificates"
"""Where those of the registry are."""

SURE = 0.05
"""Uncertainty that a certified strong order may have."""

METHODS = {
    "affine": "exact law, by the affine probe",
    "isometry": "exact strong error, by Itô's isometry",
    "flow": "exact flow, over 256 quantiles",
    "transport": "exact law, by transport of the density",
    "linear": "exact moments, by the chaos expansion",
    "backward": "exact means, by the backward recursion",
    "paths": "coupled paths, against the solution",
    "doubling": "coupled paths, steps against half steps",
}
"""What the methods of a claim are called in a table."""


@dataclass(frozen=True)
class Certificate:
    """One measured claim.

    Attributes:
        stepper: Registry name.
        problem: Name in the library.
        eta: Of a generation problem; None elsewhere.
        jagged: Whether on steps as 1 : 3 : 2.
        kind: Of error: ``w2``, ``ode``, ``strong`` or ``weak``.
        fact: The declared fact, such as ``weak/additive``.
        declared: The declared order; None for exact.
        order: The measured order; None where the error is round-off.
        uncertainty: Of the order; None likewise.
        method: How the error was had, a key of :data:`METHODS`.
        steps: Step counts.
        errors: Errors there.
        holds: Whether the declared order is reached.
        sharp: Whether it is not exceeded either.
        date: When, in ISO form.
        versions: Of sdekit and torch.
    """

    stepper: str
    problem: str
    eta: float | None
    jagged: bool
    kind: str
    fact: str
    declared: float | None
    order: float | None
    uncertainty: float | None
    method: str
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    holds: bool
    sharp: bool
    date: str
    versions: dict[str, str]

    @property
    def measured(self) -> str:
        """The order with its uncertainty, or ``exact``."""
        return "exact" if self.order is None else f"{self.order:.3f} ± {self.uncertainty:.3f}"

    @property
    def where(self) -> str:
        """The problem with its η and kind of grid."""
        eta = "" if self.eta is None else f", η = {self.eta:g}"
        return f"{self.problem}{eta}" + (", jagged" if self.jagged else "")


def certify(stepper: str | Stepper, progress: Callable[[str], None] | None = None) -> list[Certificate]:
    """Measure every claim of a stepper.

    Args:
        stepper: A registry name or a stepper.
        progress: Told the name of every claim before it is measured.
    """
    chosen, found = registry.get(stepper), []
    stamp = datetime.datetime.now(datetime.UTC).date().isoformat()
    programs = {name: str(value) for name, value in versions().items() if name in ("sdekit", "torch")}
    for claim in claims(chosen):
        if progress is not None:
            progress(claim.name)
        e = claim.measure(chosen, within=SURE)
        exact = e.exact or not math.isfinite(e.order)
        found.append(
            Certificate(
                stepper=chosen.spec.name,
                problem=claim.problem,
                eta=claim.eta,
                jagged=claim.jagged,
                kind=claim.kind,
                fact=claim.fact,
                declared=None if math.isinf(claim.declared) else claim.declared,
                order=None if exact else round(e.order, 4),
                uncertainty=None if exact else round(e.uncertainty, 4),
                method=claim.method,
                steps=e.steps,
                errors=tuple(float(f"{error:.4g}") for error in e.errors),
                holds=claim.holds(e),
                sharp=claim.sharp(e),
                date=stamp,
                versions=programs,
            )
        )
    return found


def save(certificates: list[Certificate], folder: Path = FOLDER) -> Path:
    """Write the certificates of one stepper, whole or not at all; returns the file.

    Raises:
        SdekitError: there are none, or they are of several steppers.
    """
    names = {c.stepper for c in certificates}
    if len(names) != 1:
        raise SdekitError(f"A file holds the certificates of one stepper; got those of {sorted(names) or 'none'}.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{names.pop()}.json"
    lines = ",\n".join(json.dumps(asdict(c), ensure_ascii=False) for c in certificates)
    write_whole(path, f"[\n{lines}\n]\n".encode())
    return path


def load(stepper: str, folder: Path = FOLDER) -> list[Certificate]:
    """The certificates of a registered stepper; empty where none were written.

    Raises:
        SdekitError: the file is damaged.
    """
    path = folder / f"{stepper}.json"
    if not path.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [Certificate(**r | {"steps": tuple(r["steps"]), "errors": tuple(r["errors"])}) for r in records]
    except (ValueError, TypeError, KeyError) as error:
        raise SdekitError(f"{path} holds no certificates ({error}): write them again with make certify.") from error


def by_fact(certificates: list[Certificate]) -> dict[str, Certificate]:
    """For every declared fact the certificate that speaks for it: a sharp one of the least uncertainty."""
    best: dict[str, Certificate] = {}
    for c in sorted(certificates, key=lambda c: (not c.sharp, c.order is None, c.uncertainty or 0.0)):
        best.setdefault(c.fact, c)
    return best
