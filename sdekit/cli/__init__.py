"""The command line: ``sdekit COMMAND``, or ``python -m sdekit COMMAND``.

Exit codes: 0 success; 1 the run finished and its result is bad; 2 bad input or environment, told in one line on
standard error; 130 interrupted. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from sdekit.cli.catalogue import LIST, SHOW
from sdekit.cli.command import Command, parser_of
from sdekit.cli.converge import CONVERGE
from sdekit.cli.jobs import BENCH, REPORT, STUDY, TRAIN
from sdekit.cli.solve import SOLVE
from sdekit.cli.verify import VERIFY
from sdekit.errors import SdekitError, unknown_name

COMMANDS: dict[str, Command] = {
    command.name: command for command in (LIST, SHOW, SOLVE, CONVERGE, VERIFY, STUDY, REPORT, TRAIN, BENCH)
}

SUCCESS, BAD_RESULT, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``sdekit``; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # η on a terminal without it is no reason to fail
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as done:  # argparse, after --help and --version
        return int(done.code or 0)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        cause = _environment(error)
        if cause is None:
            raise
        return _complain(f"error: {cause}", BAD_INPUT)
    return code


def _run(words: list[str]) -> int:
    """Parse and run; no words at all mean ``--help``."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise unknown_name("command", words[0], COMMANDS)
    options = parser_of(COMMANDS.values()).parse_args(words or ["--help"])
    return COMMANDS[options.command].run(options)


def _environment(error: Exception) -> str | None:
    """What to say of bad input or a bad environment; None for a bug."""
    if isinstance(error, SdekitError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("sdekit"):
        return f"this needs the package {error.name!r}, which is not installed: pip install 'sdekit[report,io,ot]'."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}."
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return "not enough memory for this run: take fewer --samples."
    return None


def _complain(message: str, code: int) -> int:
    """One line on standard error."""
    print("sdekit:", " ".join(message.split()), file=sys.stderr)
    return code
