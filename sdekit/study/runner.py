"""Running a study: tasks are computed two at a time and written in order, each on disk before the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from sdekit import report
from sdekit.study.ledger import Ledger, open_ledger
from sdekit.study.parts import plan
from sdekit.study.progress import Progress, reporter
from sdekit.study.settings import Settings
from sdekit.study.tasks import Records, Result, Task

_WORKERS = 2


def run(
    out: str | Path = "study",
    problems: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    device: str = "cpu",
    seed: int = 0,
    quick: bool = False,
    progress: Progress = True,
) -> Path:
    """Run the validation study and write its report; a study that was cut off goes on where it stopped.

    Args:
        out: Folder for ``results.jsonl``, ``arrays``, ``figures`` and ``report.html``.
        problems: Names out of :data:`sdekit.study.PROBLEMS`; all by default, without two mixtures when quick.
        solvers: Registry names; all by default.
        steps: Step counts of the convergence part; by default those that suit each method.
        device: Where samples are drawn and the network runs.
        seed: Of all noise.
        quick: Fewer samples, step counts and values of η.
        progress: True for a bar on a terminal, False for none, or a callable ``(done, total, name)``.

    Returns:
        The path of the report.

    Raises:
        SdekitError: unknown names, a folder of another study or one that cannot be written, a full disk, or
            matplotlib, scikit-learn or safetensors are missing.
    """
    report.check_installed()
    folder = Path(out)
    settings = Settings.of(problems, solvers, steps, device, seed, quick)
    tasks = plan(settings)
    with open_ledger(folder, settings, [task.key for task in tasks]) as ledger:
        with reporter(progress, tasks, len(ledger.records)) as tell, _one_thread(), _ahead(tasks, ledger) as results:
            for done, task in enumerate(tasks):
                if ledger.finished(task):
                    continue
                tell(done, task)
                future = results.get(task.key)
                ledger.write(task, *(future.result() if future else _timed(task, ledger.records)))
        return report.build(folder)


def _timed(task: Task, records: Records) -> tuple[Result, float]:
    started = time.perf_counter()
    return task.compute(records), time.perf_counter() - started


@contextmanager
def _ahead(tasks: Sequence[Task], ledger: Ledger) -> Iterator[dict[str, Future[tuple[Result, float]]]]:
    """The tasks that need no earlier record, computed ahead by two workers; they are written in order all the same."""
    pool = ThreadPoolExecutor(_WORKERS, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield {
            task.key: pool.submit(_timed, task, {})
            for task in tasks
            if not (task.reads_records or ledger.finished(task))
        }
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for tensors on the CPU: how sums are split over threads decides their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
