"""What a study shows while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from sdekit.study.tasks import Task

Progress: TypeAlias = bool | Callable[[int, int, str], None]
"""True for a bar on a terminal, False for none, or a callable ``(done, total, name)``."""

Report: TypeAlias = Callable[[int, Task], None]
"""Called with the number of finished records and the task that begins now."""


@contextmanager
def reporter(progress: Progress, plan: list[Task], done: int) -> Iterator[Report]:
    """What to call before every task.

    Args:
        progress: What the user wants to see.
        plan: All tasks; their costs tell how much time is left.
        done: How many were finished before.
    """
    if callable(progress):
        tell = progress
        yield lambda count, task: tell(count, len(plan), task.key)
        return
    if not progress or not sys.stderr.isatty():
        yield lambda count, task: None
        return
    with _bar(plan, done) as report:
        yield report


@contextmanager
def _bar(plan: list[Task], done: int) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    costs = [task.cost for task in plan]
    columns = (
        TextColumn("{task.fields[part]:<11}", style="bold"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]:>4} of {task.fields[records]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[doing]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=60.0) as bars:
        bar = bars.add_task("study", total=sum(costs[done:]), part="", count=done, records=len(plan), doing="")

        def report(count: int, task: Task) -> None:
            finished = sum(costs[done:count])
            bars.update(bar, completed=finished, part=task.part, count=count, doing=task.name)

        yield report
