"""``sdekit solve``: one run, its statistics, and its distance from the truth where that is known."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sdekit.cli import page
from sdekit.cli.command import Command, add_run_options, check_writable, choice, count, number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdekit.cli.cases import Case
    from sdekit.laws import Law
    from sdekit.metrics import Measurement
    from sdekit.solution import Solution

_FEW_COORDINATES = 3  # of which each gets its own mean
_LEAST = 20  # samples that a distance with an error bar needs
_MOST = 10_000  # samples that distances are taken of
_PROJECTIONS = 64
_OTHER_SEED = 20_260_202  # of exact samples, so that they share nothing with the run
_QUANTILES = 1000


def run(options: argparse.Namespace) -> int:
    """Solve, print, save."""
    import torch

    import sdekit as sk
    from sdekit import doors
    from sdekit.cli.cases import case_of, start_states
    from sdekit.steppers import registry

    if options.out is not None:
        check_writable(options.out)
    case = case_of(options)
    stepper = registry.get(options.stepper) if options.stepper else doors.default_stepper(case.sde, options.steps)
    registry.check(stepper, case.sde)
    dtype: torch.dtype = getattr(torch, options.dtype or ("float32" if case.learned else "float64"))
    with torch.no_grad():
        x = start_states(case, options.samples, options.seed, dtype, options.device)
        noise = case.noise(stepper, x, options.seed)
        solution = sk.solve(case.sde, x, case.grid, stepper, noise=noise, save=options.save, end=options.end)
        page.show(_headline(case, solution), page.facts(_report(case, x, noise, solution)))
    if options.out is not None:
        solution.save(options.out)
        print(f"\nsaved as {options.out}: sk.Solution.load reads it")
    return 0 if solution.ok else 1


def _headline(case: Case, solution: Solution) -> str:
    made = solution.provenance
    eta = "" if made["eta"] is None else f", eta {made['eta']:g}"
    times = f"t = {made['times'][0]:g} → {made['times'][-1]:g}"
    return page.fill(
        f"{case.title}{eta}: {made['stepper']}, {solution.stats.steps} steps, {times}, "
        f"{made['dtype']} on {made['device']}"
    )


def _report(case: Case, x: Tensor, noise: object, solution: Solution) -> Iterable[tuple[str, str]]:
    """The rows of the report."""
    import torch

    stats, good = solution.stats, torch.isfinite(solution.final.flatten(1)).all(1)
    yield "status", _status(solution)
    calls = stats.score_evaluations or stats.drift_evaluations  # the drift of a reverse problem calls the score
    yield "evaluations", f"{calls} of the {'score' if stats.score_evaluations else 'drift'}"
    yield "time", f"{stats.seconds:.3g} s"
    for name, value in solution.diagnostics.items():
        yield name, f"{float(value.double().mean()):.3g} on average, {float(value.min()):.3g} at the least"
    final = solution.final[good].double().cpu()
    if len(final) == 0:
        return
    yield from _moments(final, case.truth)
    yield from _distance(final, case)
    yield from _pathwise(case, x, noise, solution, good)
    for name, distance in case.beside.items():
        yield name, f"{distance:.4g}, whatever the solver"


def _status(solution: Solution) -> str:
    from sdekit.solution import Status

    total = len(solution.status)
    ends = {s: int((solution.status == s).sum()) for s in Status}
    bad = ", ".join(f"{n} {s.name.lower().replace('_', ' ')}" for s, n in ends.items() if n and s is not Status.SUCCESS)
    cure = "; try more --steps or a larger --t-min" if ends[Status.NON_FINITE] else ""
    return f"{ends[Status.SUCCESS]} of {total} samples ended well" + (f"; {bad}{cure}" if bad else "")


def _moments(final: Tensor, truth: Law | Tensor | None) -> Iterable[tuple[str, str]]:
    """Mean and deviation, of each coordinate if they are few, beside the exact ones."""
    import torch

    few = final[0].numel() <= _FEW_COORDINATES
    exact: tuple[Tensor, Tensor] | None = None
    if isinstance(truth, torch.Tensor):
        exact = truth.double().mean(0), truth.double().var(0, correction=0)
    elif truth is not None:
        exact = truth.mean, truth.variance
    names = ("mean", "standard deviation") if few else ("mean pixel", "deviation of a pixel")
    for i, value in enumerate((final.mean(0), final.var(0, correction=0))):
        yield names[i], _numbers(value.sqrt() if i else value, few)
        if exact is not None:
            yield "  exact" if few else "  held out", _numbers(exact[i].sqrt() if i else exact[i], few)


def _numbers(values: Tensor, each: bool) -> str:
    shown = values.flatten().tolist() if each else [float(values.double().mean())]
    return ", ".join(f"{v:.4g}" for v in shown)


def _distance(final: Tensor, case: Case) -> Iterable[tuple[str, str]]:
    """W2 to the truth with its error bar, and what it would be by chance."""
    import functools

    import torch

    from sdekit import metrics

    truth = case.truth
    if truth is None:
        return
    if len(final) < _LEAST:
        yield "distance", f"not measured: {len(final)} samples are too few, take at least --samples {_LEAST}"
        return
    final = final[:_MOST]
    if not isinstance(truth, torch.Tensor) and truth.event_shape.numel() == 1:
        name, found = "W2", _on_the_line(final, truth)
    else:
        sliced = functools.partial(metrics.sliced_wasserstein2, projections=_PROJECTIONS)
        known = truth.double() if isinstance(truth, torch.Tensor) else truth.sample(len(final), seed=_OTHER_SEED)
        reference = None if isinstance(truth, torch.Tensor) else truth
        name, found = "sliced W2", metrics.measure(sliced, final, known, reference=reference)
    yield f"{name} to {case.truth_name}", f"{found.value:.4g} ± {found.standard_error:.2g}"
    yield "  by chance, at this many samples", f"{found.floor:.4g} ± {found.floor_sd:.2g}"


def _on_the_line(final: Tensor, truth: Law) -> Measurement:
    """W2 to a law on the line, which its quantiles stand for: solved once, not for each of the 31 distances."""
    from sdekit import metrics
    from sdekit.quantile_map import mid_quantiles

    points = mid_quantiles(truth, max(len(final), _QUANTILES))
    return metrics.measure(lambda x, _: metrics.wasserstein2(x, points), final, truth)


def _pathwise(case: Case, x: Tensor, noise: object, solution: Solution, good: Tensor) -> Iterable[tuple[str, str]]:
    """RMS distance from the exact solution of every sample, where that is known."""
    from sdekit.brownian import GridPath

    problem = case.problem
    if problem is None:
        return
    exact = None
    if problem.path is not None and isinstance(noise, GridPath) and problem.unresolved is None:
        exact = problem.path(x, noise).to(x)
    elif problem.flow is not None:
        exact = problem.flow(x)
    if exact is not None:
        error = (solution.final - exact)[good].flatten(1).square().sum(1).mean().sqrt()
        yield "RMS error, sample by sample", f"{float(error):.4g}"


def _score_or_file(text: str) -> str:
    return text if Path(text).is_file() else choice("score or file", lambda: ("exact", "learned"))(text)


def _dtypes() -> Iterable[str]:
    return ("float32", "float64")


def _ends() -> Iterable[str]:
    from typing import get_args

    from sdekit.ends import End

    return tuple(get_args(End))


def _processes() -> Iterable[str]:
    from sdekit.cli import choices

    return choices.processes()


def _data() -> Iterable[str]:
    from sdekit.cli import choices

    return choices.data()


def _grids() -> Iterable[str]:
    from sdekit.cli import choices

    return choices.grids()


def _problems() -> Iterable[str]:
    from sdekit.problems import PROBLEMS

    return PROBLEMS


def _steppers() -> Iterable[str]:
    from sdekit.steppers import registry

    return registry.names()


def add_problem_options(parser: argparse.ArgumentParser) -> None:
    """Which problem, by which stepper, on which grid."""
    parser.add_argument(
        "problem",
        nargs="?",
        type=choice("problem", _problems),
        metavar="PROBLEM",
        help="from `sdekit list problems`; or leave it out and describe one with --process and --data",
    )
    what = parser.add_argument_group("a process instead of a problem")
    what.add_argument(
        "--process", type=choice("process", _processes), metavar="NAME", help=f"{', '.join(_processes())} (default: vp)"
    )
    what.add_argument(
        "--data", type=choice("data law", _data), metavar="NAME", help=f"{', '.join(_data())} (default: mixture)"
    )
    what.add_argument(
        "--score",
        type=_score_or_file,
        metavar="KIND",
        help="exact, learned, or a file that `sdekit train` wrote (default: exact; learned for digits)",
    )
    what.add_argument(
        "--start",
        type=choice("start", lambda: ("prior", "exact")),
        metavar="LAW",
        help="prior, as in practice, or the exact marginal (default: prior)",
    )
    what.add_argument("--forward", action="store_true", help="from data to noise instead of back")
    what.add_argument(
        "--grid", type=choice("grid", _grids), metavar="NAME", help=f"{', '.join(_grids())} (default: log_snr)"
    )
    what.add_argument(
        "--t-min", type=number, metavar="T", help="end of the grid near the data (default: the process's)"
    )
    what.add_argument("--t-max", type=number, metavar="T", help="end of the grid at the noise (default: the process's)")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_problem_options(parser)
    how = parser.add_argument_group("how to solve it")
    how.add_argument("--eta", type=number, metavar="X", help="noise on the way back; 0 is the flow (default: 0)")
    how.add_argument(
        "--stepper",
        type=choice("stepper", _steppers),
        metavar="NAME",
        help="from `sdekit list steppers` (default: the best known for few steps)",
    )
    how.add_argument("--steps", type=count, default=50, metavar="N", help="of the grid (default: %(default)s)")
    how.add_argument(
        "--end",
        type=choice("end", _ends),
        default="stop",
        metavar="HOW",
        help=f"{', '.join(_ends())}: what follows the last time (default: %(default)s)",
    )
    how.add_argument("--samples", type=count, default=2000, metavar="N", help="(default: %(default)s)")
    how.add_argument(
        "--dtype",
        type=choice("dtype", _dtypes),
        metavar="NAME",
        help="float64 or float32 (default: float64; float32 with a learned score)",
    )
    add_run_options(parser, "the initial states and the noise")
    kept = parser.add_argument_group("what to keep")
    kept.add_argument("--out", type=Path, metavar="FILE", help="write the solution there, as safetensors")
    kept.add_argument(
        "--save",
        type=choice("way to save", lambda: ("final", "all")),
        default="final",
        metavar="WHAT",
        help="final, or all times (default: %(default)s)",
    )


SOLVE = Command(
    name="solve",
    purpose="solve one problem and say how good the samples are",
    detail="""\
Draws samples of a problem from the registry, or of a process with data and a
score, and prints their moments and their distance from the exact law beside
the distance of equally many exact samples: what chance alone would give.
Exit code 1 if a sample is not finite.""",
    examples=(
        ("sdekit solve --process vp --data mixture --steps 20", "samples of the probability flow of VP"),
        ("sdekit solve ve-gaussian --eta 1 --stepper euler-maruyama", "a problem of the registry, as an SDE"),
        ("sdekit solve gbm --stepper euler-maruyama --out gbm.safetensors", "keep the solution in a file"),
    ),
    arguments=_arguments,
    run=run,
)
