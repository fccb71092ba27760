"""What a command is, how its help is written, and the kinds of argument that commands share."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sdekit.errors import SdekitError, unknown_name

_DESCRIPTION = """\
Solve stochastic differential equations, and measure what a solver really does.

Reverse-time SDEs and probability flows of diffusion models, with exact or
learned scores, by any solver whose declared order fits. Start with

  sdekit list                             what there is
  sdekit solve --process vp               draw samples; see how good they are
  sdekit converge vp-gaussian ddim heun   measure orders of convergence
"""

_EXIT_CODES = """\
exit codes: 0 success; 1 the run finished but its result is bad (samples that
are not finite, an order that differs from the declared one); 2 bad input or
environment, in one line on standard error; 130 interrupted.
"""


@dataclass(frozen=True)
class Command:
    """One word after ``sdekit``.

    Attributes:
        name: The word.
        purpose: One line.
        detail: What the help says beyond that, in lines of less than 80 characters.
        examples: Command lines, each with what it does.
        arguments: Declares its arguments.
        run: Does it, and returns the exit code.
    """

    name: str
    purpose: str
    detail: str
    examples: tuple[tuple[str, str], ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    @property
    def epilog(self) -> str:
        """The worked examples of the help."""
        lines = [f"  {line}\n      {effect}" for line, effect in self.examples]
        return "examples:\n" + "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are SdekitErrors, so that they are told in one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise SdekitError(f"{message} (see {self.prog} --help)")


def _help_format(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=79)


def parser_of(commands: Iterable[Command]) -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from sdekit import __version__

    parser = _Parser(
        prog="sdekit",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=_help_format,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sdekit {__version__}", help="print it and stop")
    chosen = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for command in commands:
        one = chosen.add_parser(
            command.name,
            help=command.purpose,
            description=f"{command.purpose[:1].upper()}{command.purpose[1:]}.\n\n{command.detail}",
            epilog=command.epilog,
            formatter_class=_help_format,
            allow_abbrev=False,
        )
        command.arguments(one)
    return parser


def choice(kind: str, names: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """An argument that must be one of ``names``, which are looked up when it is given; ``-`` and ``_`` are one."""

    def convert(text: str) -> str:
        known = list(names())
        same = [name for name in known if name.replace("_", "-") == text.lower().replace("_", "-")]
        if not same:
            raise argparse.ArgumentTypeError(str(unknown_name(kind, text, known)))
        return same[0]

    return convert


def count(text: str) -> int:
    """A whole number ≥ 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"wants a whole number ≥ 1; got {text!r}")
    return value


def counts(text: str) -> tuple[int, ...]:
    """Increasing whole numbers with commas between."""
    try:
        values = tuple(count(word) for word in text.split(","))
    except argparse.ArgumentTypeError:
        values = ()
    if not values or list(values) != sorted(set(values)):
        raise argparse.ArgumentTypeError(f"wants increasing step counts such as 16,32,64,128; got {text!r}")
    return values


def names(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def seed(text: str) -> int:
    """Any whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants a whole number; got {text!r}") from None


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"wants a finite number; got {text!r}")
    return value


def device(text: str) -> str:
    """A torch device that is there."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here: {reason}") from None
    return text


def add_run_options(parser: argparse.ArgumentParser, seed_of: str = "the noise") -> None:
    """``--seed`` and ``--device``."""
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"of {seed_of} (default: %(default)s)")
    parser.add_argument(
        "--device", type=device, default="cpu", metavar="NAME", help="such as cuda (default: %(default)s)"
    )


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work that would be lost with it.

    Raises:
        SdekitError: a folder or device of that name, a file in the place of a folder, or no permission.
    """
    ancestor = path.parent
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if path.exists() and not path.is_file():  # a device would be replaced by a file of its name
        raise SdekitError(f"Cannot write {path}: it is {'a folder' if path.is_dir() else 'no ordinary file'}.")
    if not ancestor.is_dir():
        raise SdekitError(f"Cannot write {path}: {ancestor} is not a folder.")
    if not os.access(ancestor, os.W_OK):
        raise SdekitError(f"Cannot write {path}: no permission in {ancestor}.")
