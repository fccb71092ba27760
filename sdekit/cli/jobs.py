"""``sdekit study``, ``report``, ``train`` and ``bench``: the long jobs, which live in modules of their own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sdekit.cli import page
from sdekit.cli.command import Command, add_run_options, check_writable, choice, count, counts, names, number, seed


def run_study(options: argparse.Namespace) -> int:
    """Run or go on with a study; its report is written at the end."""
    from sdekit import study
    from sdekit.study.ledger import read_records

    written = study.run(
        out=options.out,
        problems=options.problems,
        solvers=options.solvers,
        steps=options.steps,
        device=options.device,
        seed=options.seed,
        quick=options.quick,
        progress=True,
    )
    page.show(f"report: {written}")
    failed = [key for key, record in read_records(options.out).items() if record["values"].get("passed") is False]
    for key in failed:
        print(f"sdekit: not as declared: {key}", file=sys.stderr)
    return 1 if failed else 0


def _study_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("study"), metavar="FOLDER", help="for everything (default: %(default)s)"
    )
    parser.add_argument("--problems", type=names, metavar="A,B,...", help="which problems (default: all)")
    parser.add_argument("--solvers", type=names, metavar="A,B,...", help="which steppers (default: all)")
    parser.add_argument(
        "--steps", type=counts, metavar="N,N,...", help="step counts of the orders (default: what suits each method)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples and step counts: half a minute")
    add_run_options(parser, "all noise")


def run_report(options: argparse.Namespace) -> int:
    """Draw the report of a study again."""
    from sdekit import report

    page.show(f"report: {report.build(options.folder)}")
    return 0


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a study")


def run_train(options: argparse.Namespace) -> int:
    """Train a score, or go on with it."""
    from sdekit import train

    out = options.out or Path(f"{options.task}.safetensors")
    check_writable(out)
    made = train.train(
        options.task,
        out,
        steps=options.steps,
        minutes=options.minutes,
        seed=options.seed,
        progress=sys.stderr.isatty(),
    )
    finished = not out.with_name(f"{out.name}.checkpoint").exists()
    facts = [
        ("weights", str(made.path)),
        ("parameters", f"{made.parameters:,}"),
        ("steps", f"{made.steps}, in {made.seconds:.0f} s{'' if finished else '; give the same line to go on'}"),
        ("held-out loss", f"{made.held_out_loss:.4f} per coordinate"),
        ("to use it", f"sdekit solve --data {_data_of(options.task)} --score {made.path}"),
    ]
    page.show(page.facts(facts))
    return 0


def _data_of(task: str) -> str:
    """The name of a task's data on the command line."""
    from sdekit.cli import choices

    return next(name for name, trained in choices.LEARNED.items() if trained == task)


def _tasks() -> tuple[str, ...]:
    from sdekit.train import RECIPES

    return tuple(RECIPES)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", type=choice("task", _tasks), metavar="TASK", help="digits or mixture")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the weights (default: TASK.safetensors)")
    parser.add_argument("--steps", type=count, metavar="N", help="of training (default: that of the task)")
    parser.add_argument("--minutes", type=number, metavar="M", help="stop after so long; the same call goes on later")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of everything (default: %(default)s)")


def run_bench(options: argparse.Namespace) -> int:
    """Run the benchmarks."""
    from sdekit import bench

    check_writable(options.out)
    written = bench.run(options.quick, options.out, options.select, options.device, options.dtype)
    page.show(f"written: {written}")
    return 0


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: under a minute")
    parser.add_argument(
        "--out", type=Path, default=Path("bench.json"), metavar="FILE", help="for the results (default: %(default)s)"
    )
    parser.add_argument("--select", metavar="EXPR", help="rows by name, as for pytest -k (default: all)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float64 (default: %(default)s)")


STUDY = Command(
    name="study",
    purpose="the validation study, with its report as one web page",
    detail="""\
Exact marginals, measured orders of every solver, rewinding without a score,
and a learned score on real digits. A study that was cut off goes on where it
stopped when the same line is given again. Exit code 1 if an order is not the
declared one.""",
    examples=(
        ("sdekit study --quick", "everything in small, in half a minute; then open study/report.html"),
        ("sdekit study --problems vp-gaussian --solvers ddim,heun --out vp", "a part of it"),
    ),
    arguments=_study_arguments,
    run=run_study,
)

REPORT = Command(
    name="report",
    purpose="draw the report of a study again",
    detail="From its records alone; nothing is computed.",
    examples=(("sdekit report study", "writes study/report.html"),),
    arguments=_report_arguments,
    run=run_report,
)

TRAIN = Command(
    name="train",
    purpose="train a score network: digits, or a mixture of nine Gaussians",
    detail="""\
A training that was cut off goes on from its checkpoint when the same line is
given again, and ends in the same weights.""",
    examples=(
        ("sdekit train mixture --steps 500 --out small.safetensors", "a small training, seconds"),
        ("sdekit train digits --minutes 10", "as far as it gets; the same line goes on"),
    ),
    arguments=_train_arguments,
    run=run_train,
)

BENCH = Command(
    name="bench",
    purpose="speed against hand-written loops and other libraries",
    detail="""\
Prints ratios of times that were taken in turns, in one process, and writes
them as JSON. Needs a source checkout.""",
    examples=(
        ("sdekit bench --quick", "under a minute"),
        ("sdekit bench --select dpmpp-2m --dtype float64", "the rows whose names match"),
    ),
    arguments=_bench_arguments,
    run=run_bench,
)
