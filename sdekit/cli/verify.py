"""``sdekit verify``: the conformance suite on one stepper or on all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdekit.cli import page
from sdekit.cli.command import Command, choice
from sdekit.errors import SdekitError

if TYPE_CHECKING:
    from sdekit.verify import Conformance
    from sdekit.verify.certificates import Certificate

_ALL = "all"


def run(options: argparse.Namespace) -> int:
    """Run the checks, or measure and keep the certificates."""
    from sdekit.steppers import STEPPERS, registry

    names = list(STEPPERS) if _ALL in options.steppers else list(dict.fromkeys(options.steppers))
    if options.certify:  # what is measured of the original holds for another name of it
        names = [name for name in names if registry.get(name).spec.alias is None]
    if options.certify and (others := [name for name in names if name not in STEPPERS]):
        raise SdekitError(f"Certificates are of our own steppers; leave out {', '.join(others)}.")
    if options.certify and options.only:
        raise SdekitError("--certify measures every order; it does not go with --only.")
    return _certify(names, options.json) if options.certify else _check(names, options)


def _check(names: Sequence[str], options: argparse.Namespace) -> int:
    from sdekit.verify import check_stepper

    reports = [check_stepper(name, only=options.only, backend=options.backend) for name in names]
    if not any(report.outcomes for report in reports):
        raise SdekitError(f"No check of these steppers begins with {options.only!r}: try order, batch, trace or exact.")
    if options.json:
        print(json.dumps([_as_json(report) for report in reports], indent=2, ensure_ascii=False))
    else:
        for report in reports:
            rows = [("pass" if o.passed else "FAIL", o.name, o.detail) for o in report.outcomes]
            passed = len(report.outcomes) - len(report.failures)
            page.show(
                page.table(report.stepper, ("", "check", "seen"), rows), f"{passed} of {len(report.outcomes)} pass"
            )
    return 0 if all(report.passed for report in reports) else 1


def _as_json(report: Conformance) -> dict[str, object]:
    checks = [{"check": o.name, "passed": o.passed, "seen": o.detail} for o in report.outcomes]
    return {"stepper": report.stepper, "passed": report.passed, "checks": checks}


def _certify(names: Sequence[str], as_json: bool) -> int:
    from sdekit.verify import certificates

    good, files = True, []
    for name in names:
        found = certificates.certify(name)
        if not found:
            continue  # a chain that declares no order
        good = good and all(c.holds for c in found)
        files.append(str(certificates.save(found)))
        if not as_json:
            page.show(page.table(name, HEAD, [row(c) for c in found]))
    print(json.dumps(files) if as_json else "\n".join(f"written: {file}" for file in files))
    return 0 if good else 1


HEAD = ("problem", "error", "fact", ">declared", ">measured", "how", "")
"""Columns of a table of certificates."""


def row(c: Certificate) -> tuple[str, ...]:
    """A certificate in a table."""
    from sdekit.verify.certificates import METHODS

    declared = "exact" if c.declared is None else f"{c.declared:g}"
    verdict = "" if c.sharp else "exceeds" if c.holds else "FALLS SHORT"
    return c.where, c.kind, c.fact, declared, c.measured, METHODS[c.method], verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    from sdekit.steppers import registry

    parser.add_argument(
        "steppers",
        nargs="+",
        type=choice("stepper", lambda: [*registry.names(), _ALL]),
        metavar="STEPPER",
        help="from `sdekit list steppers`, or all of ours",
    )
    parser.add_argument("--only", metavar="PREFIX", help="checks whose name begins so, such as order or batch")
    parser.add_argument(
        "--backend", default="eager", metavar="NAME", help="of torch.compile, for the trace (default: %(default)s)"
    )
    parser.add_argument("--certify", action="store_true", help="measure every declared order and keep the certificates")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


VERIFY = Command(
    name="verify",
    purpose="hold a stepper to what it declares: orders, costs, batches, gradients",
    detail="""\
The conformance suite: declared orders on every problem of the library,
evaluations per step, independence of the batch, dtype, direction of time,
small steps, gradients and tracing. Exit code 1 if a check fails.""",
    examples=(
        ("sdekit verify heun", "every check of one stepper"),
        ("sdekit verify ddim --only order/w2", "its orders of laws"),
    ),
    arguments=_arguments,
    run=run,
)
