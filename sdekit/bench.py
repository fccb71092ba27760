"""Runs the benchmarks of a source checkout and reports ratios.

Absolute times drift from run to run and from machine to machine; the ratio of two times that were taken in turns, in
one process, does not. So what is reported of every row is its time per step, that of what stands beside it (a
hand-written loop, a peer, or the bare evaluations of a solver), and their ratio. The rows are in ``benchmarks/``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

import sdekit
from sdekit.errors import SdekitError
from sdekit.solution import write_whole

_FORMAT = "sdekit-bench-1"
_FOLDER = Path(sdekit.__file__).parents[1] / "benchmarks"
_SOME_FAILED, _NO_TESTS = 1, 5  # pytest's exit codes
_TYPES = ("float32", "float64")


@dataclass(frozen=True)
class Row:
    """One measured row; times are medians, in seconds per step.

    Attributes:
        name: Of the test.
        kind: ``contest`` (against a floor or a peer) or ``solver`` (a registered stepper on a problem).
        work: What was done.
        ours: Who did it: ``sdekit``, or the stepper.
        beside: What it is compared with.
        shape: Of the state.
        dtype: Of the state.
        device: Of the state.
        steps: Steps of one run.
        seconds_per_step: Ours.
        beside_seconds_per_step: Theirs.
        ratio: Ours over theirs, median over rounds.
        ratio_of_best: The same from the best round of each, which a busy machine disturbs least.
        target: What the ratio should stay below.
        evaluations: Drift or network evaluations of one run.
        error: W2 of the stepper to the exact law, in one dimension.
    """

    name: str
    kind: str
    work: str
    ours: str
    beside: str
    shape: str
    dtype: str
    device: str
    steps: int
    seconds_per_step: float
    beside_seconds_per_step: float | None = None
    ratio: float | None = None
    ratio_of_best: float | None = None
    target: float | None = None
    evaluations: int | None = None
    error: float | None = None


@dataclass(frozen=True)
class Report:
    """What a run of the benchmarks measured, and where."""

    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Sequence[Row]


def run(
    quick: bool = False,
    out: str | Path = "bench.json",
    select: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Path:
    """Run the benchmarks, print their ratios and write them down.

    Args:
        quick: Fewer rows and rounds: under a minute instead of under ten.
        out: The file to write, JSON.
        select: An expression over row names, as for ``pytest -k``: ``"dpmpp-2m and 1000x1"``.
        device: ``cpu`` or ``cuda``.
        dtype: ``float32`` or ``float64``.

    Returns:
        ``out`` as a path.

    Raises:
        SdekitError: no source checkout, no pytest-benchmark, an unknown device or type, nothing selected, or a row
            that failed.
    """
    _check(device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        complete = _measure(raw, quick, select, device, dtype)
        report = read(json.loads(raw.read_text()), {"quick": quick, "select": select, "device": device, "dtype": dtype})
    show(report, Console())
    content = {"format": _FORMAT, **asdict(report)}
    write_whole(out, json.dumps(content, indent=1).encode())
    if not complete:
        raise SdekitError(f"Some benchmarks failed; the output above says which. The others are in {out}.")
    return Path(out)


def _check(device: str, dtype: str) -> None:
    if not (_FOLDER / "conftest.py").is_file():
        raise SdekitError(
            f"The benchmarks are no part of an installed sdekit, and there is no folder {_FOLDER}. "
            "Run `sdekit bench` in a source checkout (pip install --editable .)."
        )
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise SdekitError("The benchmarks need pytest-benchmark: pip install --group bench.")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise SdekitError(f"device must be cpu, or cuda where torch sees a GPU; got {device!r}.")
    if dtype not in _TYPES:
        raise SdekitError(f"dtype must be one of {', '.join(_TYPES)}; got {dtype!r}.")


def _measure(raw: Path, quick: bool, select: str | None, device: str, dtype: str) -> bool:
    """Run pytest in a process of its own, as the suite sets allocator thresholds; whether every row was measured."""
    command = [sys.executable, "-m", "pytest", str(_FOLDER), "--rootdir", str(_FOLDER.parent)]
    command += ["-q", "--no-header", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += ["-W", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning"]  # that nothing was run is said below
    command += [f"--benchmark-json={raw}", "--benchmark-quiet", "--device", device, "--dtype", dtype]
    command += ["--quick"] if quick else []
    command += ["-k", select] if select else []
    # The targets are for one thread, and ratios need one: a floor without threads would win or lose by their number.
    # What a pytest around this one has set would disable the timing.
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {"OMP_NUM_THREADS": "1", **outer}
    code = subprocess.run(command, env=environment, cwd=_FOLDER.parent, check=False).returncode
    if code == _NO_TESTS:
        raise SdekitError(f"No benchmark matches {select!r}: the names are those of pytest {_FOLDER} --collect-only.")
    if code not in (0, _SOME_FAILED) or not raw.exists():
        raise SdekitError(f"The benchmarks did not run (pytest returned {code}); the output above says why.")
    return code == 0


def read(raw: Mapping[str, Any], settings: Mapping[str, Any]) -> Report:
    """A report from pytest-benchmark's JSON."""
    machine = raw["machine_info"]
    ours = machine["sdekit"]
    place = {
        "cpu": machine.get("cpu", {}).get("brand_raw", machine.get("processor")),
        "system": f"{machine.get('system')} {machine.get('release')}",
        **{name: ours[name] for name in ("capability", "gpu", "threads", "heap_trick")},
    }
    known = Row.__dataclass_fields__
    rows = [Row(name=b["name"], **{k: v for k, v in b["extra_info"].items() if k in known}) for b in raw["benchmarks"]]
    return Report(place, ours["versions"], settings, rows)


def show(report: Report, console: Console) -> None:
    """Print a report: contests first, then solvers."""
    place = report.machine
    console.print(
        f"{place['gpu'] or place['cpu']}, {place['threads']} thread(s), "
        f"heap trick {'on' if place['heap_trick'] else 'off'}, {report.settings['device']}, {report.settings['dtype']}",
        highlight=False,
    )
    console.print(", ".join(f"{name} {version}" for name, version in report.versions.items()), highlight=False)
    for kind, title, columns in (
        ("contest", "Against floors and peers", _CONTEST_COLUMNS),
        ("solver", "Solvers against their evaluations alone", _SOLVER_COLUMNS),
    ):
        rows = [row for row in report.rows if row.kind == kind]
        if rows:
            console.print(_table(title, columns, rows))


Column = tuple[str, Callable[[Row], str]]


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:,.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"


def _judged(row: Row) -> str:
    """The ratio, green below its target and red above."""
    if row.ratio is None or row.target is None:
        return _number(row.ratio)
    return f"[{'green' if row.ratio <= row.target else 'red'}]{_number(row.ratio)}[/]"


_TIMES: list[Column] = [
    ("µs/step", lambda r: _microseconds(r.seconds_per_step)),
    ("theirs", lambda r: _microseconds(r.beside_seconds_per_step)),
    ("ratio", _judged),
    ("best", lambda r: _number(r.ratio_of_best)),
]
_CONTEST_COLUMNS: list[Column] = [
    ("contest", lambda r: f"{r.work} / {r.beside}"),
    ("shape", lambda r: r.shape),
    *_TIMES,
    ("target", lambda r: _number(r.target)),
]
_SOLVER_COLUMNS: list[Column] = [
    ("stepper on problem", lambda r: f"{r.ours} on {r.work}"),
    ("shape", lambda r: r.shape),
    ("calls", lambda r: _number(r.evaluations)),
    ("W2", lambda r: _number(r.error)),
    *_TIMES,
]


def _table(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, (name, _) in enumerate(columns):
        table.add_column(name, justify="left" if i < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(text(row) for _, text in columns))
    return table
