"""The folder of a study on disk: records that are appended one by one and survive a kill at any moment.

``results.jsonl`` holds one record a line, in the order of the plan, and nothing that differs between two runs of the
same settings: a study that was killed and resumed ends with the same bytes as one that was not. A record is written
after its arrays, flushed and synced; a last line without its end is dropped and computed again. What does differ, the
seconds, goes to ``timings.jsonl``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any, final

from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.solution import read_tensors, write_whole
from sdekit.study.settings import FORMAT, Settings
from sdekit.study.tasks import Record, Result, Task

SETTINGS, RESULTS, TIMINGS, ARRAYS = "study.json", "results.jsonl", "timings.jsonl", "arrays"
_ARRAYS_FORMAT = "sdekit-study-arrays-1"


@final
class Ledger:
    """An open study folder; made by :func:`open_ledger`.

    Attributes:
        folder: Where it is.
        records: Finished records by key, in order.
    """

    def __init__(self, folder: Path, settings: Settings, records: dict[str, Record], file: RawIOBase) -> None:
        self.folder, self.settings, self.records, self._file = folder, settings, records, file

    def finished(self, task: Task) -> bool:
        """Whether the record of a task is there, and its arrays, if it has any."""
        record = self.records.get(task.key)
        return record is not None and ("arrays" not in record or (self.folder / record["arrays"]).is_file())

    def write(self, task: Task, result: Result, seconds: float) -> None:
        """Arrays first, then the record; both on disk when this returns.

        Raises:
            SdekitError: the disk is full or the folder cannot be written; earlier records stay as they were.
        """
        name = f"{ARRAYS}/{task.key.replace('/', '--')}.safetensors" if result.arrays else None
        record = task.record(self.settings, result.values, name)
        if name is not None:
            write_arrays(self.folder / name, result.arrays)
        if task.key in self.records:  # its arrays were lost and are back
            return
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        timing = json.dumps({"key": task.key, "seconds": round(seconds, 4)}) + "\n"
        with _disk(self.folder):
            _append(self._file, line.encode())
            self.records[task.key] = record
            with (self.folder / TIMINGS).open("a", encoding="utf-8") as timings:
                timings.write(timing)


@contextmanager
def open_ledger(folder: Path, settings: Settings, keys: list[str]) -> Iterator[Ledger]:
    """Open or begin a study.

    Args:
        folder: Made if it is not there.
        settings: Of the study; the folder's own must be the same.
        keys: Of all records that the study will have, in order.

    Raises:
        SdekitError: the folder belongs to another study, is damaged, is in use, or cannot be written.
    """
    path = folder / RESULTS
    with ExitStack() as stack:
        with _disk(folder):
            _claim(folder, settings)
            file = stack.enter_context(path.open("ab", buffering=0))
            _lock(file, folder)
            records, whole = _parse(path)
            file.truncate(whole)
        _check_order(folder, list(records), keys)
        yield Ledger(folder, settings, records, file)


def read_records(folder: Path) -> dict[str, Record]:
    """The finished records of a study, by key.

    Raises:
        SdekitError: no study there, or a damaged one.
    """
    if not (folder / RESULTS).is_file():
        raise SdekitError(f"{folder} holds no study (no {RESULTS}): make one with sdekit study --out {folder}.")
    return _parse(folder / RESULTS)[0]


def read_settings(folder: Path) -> dict[str, Any]:
    """``study.json`` of a folder.

    Raises:
        SdekitError: it is not there, or is none of ours.
    """
    try:
        document = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SdekitError(f"{folder} holds no study (cannot read {SETTINGS}): {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise SdekitError(f"{folder / SETTINGS} is not the settings of a study of this version of sdekit.")
    return document


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Arrays of one record, whole or not at all."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
    write_whole(path, save(tensors, {"format": _ARRAYS_FORMAT}))


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Arrays of one record.

    Raises:
        SdekitError: no such file, or another kind of file.
    """
    return read_tensors(path, _ARRAYS_FORMAT)[0]


def _claim(folder: Path, settings: Settings) -> None:
    """Write the settings of a new study, or check that they are those of the old one."""
    wanted = settings.document()
    if not (folder / SETTINGS).exists():
        if (folder / RESULTS).exists():
            raise SdekitError(f"{folder} has {RESULTS} but no {SETTINGS}: choose another --out, or delete it.")
        write_whole(folder / SETTINGS, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    found = read_settings(folder)
    differing = [f"{k} = {found.get(k)} there, {v} now" for k, v in wanted.items() if found.get(k) != v]
    if differing:
        raise SdekitError(
            f"{folder} was made by other settings ({'; '.join(differing)}): choose another --out, or delete {folder}."
        )


def _parse(path: Path) -> tuple[dict[str, Record], int]:
    """Records, and the number of bytes up to the last line that has an end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    records: dict[str, Record] = {}
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise SdekitError(
                f"Line {number} of {path} is damaged: delete the folder and run the study again."
            ) from error
    return records, whole


def _check_order(folder: Path, found: list[str], keys: list[str]) -> None:
    if found != keys[: len(found)]:
        odd = next(k for k, wanted in zip(found, [*keys, *[""] * len(found)], strict=False) if k != wanted)
        raise SdekitError(
            f"{folder} holds the record {odd}, which this study would not write there: the solvers or problems have "
            "changed since. Choose another --out, or delete that folder."
        )


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the disk complains of, as our error."""
    try:
        yield
    except OSError as error:
        raise SdekitError(
            f"Cannot write to {folder}: {error.strerror or error}. Choose another --out, or make room and run again."
        ) from error


def _append(file: RawIOBase, line: bytes) -> None:
    """A line, on disk when this returns; on failure the file is as long as before."""
    before = os.fstat(file.fileno()).st_size
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        raise


def _lock(file: RawIOBase, folder: Path) -> None:
    """Refuse a folder that another study is writing; the lock ends with the process (not on Windows)."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SdekitError(f"Another study is running in {folder}: wait for it, or choose another --out.") from error
