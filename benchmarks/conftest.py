"""Options of the benchmarks, and how a row is timed.

A row times ``ours`` and, round by round in between, what it is compared with: the ratio is the median over rounds of
two times taken one after the other, so a machine that slows down meanwhile slows both. The share of time that a row
may take follows from the number of rows, so the whole stays within its budget as the registry grows.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import torch

import sdekit

_BUDGET = pytest.StashKey[float]()
_TOTAL_SECONDS = {True: 25.0, False: 300.0}  # quick, full; start-up and errors come on top
_MOST_SECONDS = {True: 1.0, False: 3.0}
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 60
_PACKAGES = ("torch", "numpy", "torchsde", "torchdiffeq", "torchode", "k-diffusion", "diffusers")

Call = Callable[[], Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sdekit")
    group.addoption("--device", default="cpu", help="comma-separated devices: cpu, cuda")
    group.addoption("--dtype", default="float32", help="comma-separated types: float32, float64")
    group.addoption("--quick", action="store_true", help="fewer rows, fewer rounds: under a minute")
    group.addoption("--no-heap-trick", action="store_true", help="leave glibc's thresholds for freed memory alone")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: a row that --quick leaves out")
    # It warns of every benchmark that was skipped or failed, and here a warning would be a second failure.
    config.addinivalue_line("filterwarnings", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning")
    if _heap_trick(config):
        # A large block, freed untouched, raises glibc's dynamic threshold: later state-sized temporaries are reused
        # instead of being returned to the system and faulted in again, which at 64×3072 costs ten times the addition.
        block = torch.empty(8_000_000)
        del block


def _heap_trick(config: pytest.Config) -> bool:
    return platform.libc_ver()[0] == "glibc" and not config.getoption("no_heap_trick")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dtype" in metafunc.fixturenames:
        names = metafunc.config.getoption("dtype").split(",")
        metafunc.parametrize("dtype", [getattr(torch, name) for name in names], ids=names)
    if "device" in metafunc.fixturenames:
        names = metafunc.config.getoption("device").split(",")
        metafunc.parametrize("device", [torch.device(name) for name in names], ids=names)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what --quick leaves out."""
    if config.getoption("quick"):
        full = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in full]
        config.hook.pytest_deselected(items=full)


def pytest_collection_finish(session: pytest.Session) -> None:
    quick = session.config.getoption("quick")
    share = _TOTAL_SECONDS[quick] / max(1, len(session.items))
    session.config.stash[_BUDGET] = min(_MOST_SECONDS[quick], share)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)
    machine_info["sdekit"] = {
        "versions": {"sdekit": sdekit.__version__, "python": platform.python_version(), **dict(_versions())},
        "threads": torch.get_num_threads(),
        "heap_trick": _heap_trick(config),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


class Timed:
    """Times a function, and beside it another one."""

    def __init__(self, benchmark: Any, device: torch.device, seconds: float) -> None:
        self._benchmark, self._device, self._seconds = benchmark, device, seconds

    def __call__(
        self,
        ours: Call,
        beside: Call | None = None,
        /,
        *,
        steps: int = 1,
        beside_steps: int | None = None,
        **facts: Any,
    ) -> None:
        """Time ``ours`` in rounds, each right after one call of ``beside``.

        Args:
            ours: What is measured.
            beside: What it is compared with.
            steps: How many steps one call makes; times are recorded per step.
            beside_steps: How many one call of ``beside`` makes; as many if left out.
            facts: Written to ``extra_info`` as they are.
        """
        ours, other = self._synchronised(ours), self._synchronised(beside or (lambda: None))
        once = _seconds(other) + _seconds(ours)
        if once < self._seconds:  # the first calls paid for imports, lazy initialisation and memory
            once = _seconds(other) + _seconds(ours)
        rounds = max(_FEWEST_ROUNDS, min(_MOST_ROUNDS, int(self._seconds / once)))
        theirs: list[float] = []
        self._benchmark.pedantic(ours, setup=lambda: theirs.append(_seconds(other)), rounds=rounds)
        self._benchmark.extra_info.update(facts, steps=steps, device=str(self._device))
        if self._benchmark.stats is not None:  # None under --benchmark-disable
            theirs = [t * steps / (beside_steps or steps) for t in theirs]
            measured = _summary(self._benchmark.stats.stats.data, theirs if beside else [], steps)
            self._benchmark.extra_info.update(measured)

    def _synchronised(self, function: Call) -> Call:
        """``function``, returning only when the device has done its work."""
        if self._device.type != "cuda":
            return function

        def call() -> None:
            function()
            torch.cuda.synchronize(self._device)

        return call


def _seconds(function: Call) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _summary(ours: list[float], theirs: list[float], steps: int) -> dict[str, float]:
    """Medians per step, and the ratio twice: the median over rounds, and of the best rounds (the quieter one)."""
    summary = {"seconds_per_step": statistics.median(ours) / steps}
    if theirs:
        summary["beside_seconds_per_step"] = statistics.median(theirs) / steps
        summary["ratio"] = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        summary["ratio_of_best"] = min(ours) / min(theirs)
    return summary


@pytest.fixture
def timed(benchmark: Any, device: torch.device, pytestconfig: pytest.Config) -> Iterator[Timed]:
    """Times a row: ``timed(ours, beside, steps=…, …)``."""
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with torch.no_grad():
        yield Timed(benchmark, device, pytestconfig.stash[_BUDGET])
