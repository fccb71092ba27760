"""Running a study: one task after another, each on disk before the next begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sdekit import report
from sdekit.study.ledger import open_ledger
from sdekit.study.parts import plan
from sdekit.study.progress import Progress, reporter
from sdekit.study.settings import Settings


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
        with reporter(progress, tasks, len(ledger.records)) as tell:
            for done, task in enumerate(tasks):
                if ledger.finished(task):
                    continue
                tell(done, task)
                started = time.perf_counter()
                result = task.compute(ledger.records)
                ledger.write(task, result, time.perf_counter() - started)
        return report.build(folder)
