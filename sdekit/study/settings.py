"""What a study is made of: everything that its results depend on, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, final

import torch

from sdekit.errors import SdekitError, unknown_name
from sdekit.problems.reverse import DATA, PROCESSES
from sdekit.solution import versions
from sdekit.steppers.registry import STEPPERS

FORMAT = "sdekit-study-1"
CONVERGENCE = tuple(f"{process}-{data}" for data in DATA for process in PROCESSES)
"""The problems whose orders are measured."""
PROBLEMS = (*CONVERGENCE, "digits", "latents", "peers", "accuracy", "langevin", "grids", "limits", "refinement")
"""What ``problems=`` may name."""
PEERS = ("torchsde", "torchdiffeq", "diffusers", "k-diffusion", "azula")
"""Libraries whose methods are measured, as far as they are installed."""
SAMPLERS = ("diffusers", "k-diffusion", "azula")
"""Those of them that hold diffusion samplers."""

SOLVERS = (
    *("euler-maruyama", "milstein", "sra1", "sri1w1", "euler", "heun", "rk4", "exact-linear"),
    *("ddim", "edm-heun", "dpmpp-2m", "deis-3", "unipc-2", "seeds2", "predictor-corrector"),
)
"""What a study takes by default: of the samplers one of every kind. Certificates speak of all."""

QUICK_PROBLEMS = tuple(name for name in PROBLEMS if name not in ("ou-mixture", "ve-mixture"))
"""What a quick study takes by default."""


@final
@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        problems: Names out of :data:`PROBLEMS`; each part takes those that concern it.
        solvers: Registry names.
        steps: Step counts of the convergence part; None for the defaults of each method.
        device: Where samples are drawn and the network runs; exact laws are always computed on the CPU.
        seed: Of all noise.
        quick: Fewer samples, step counts and values of η; by default fewer problems.
    """

    problems: tuple[str, ...]
    solvers: tuple[str, ...]
    steps: tuple[int, ...] | None
    device: str
    seed: int
    quick: bool

    @classmethod
    def of(
        cls,
        problems: Sequence[str] | None,
        solvers: Sequence[str] | None,
        steps: Sequence[int] | None,
        device: str,
        seed: int,
        quick: bool,
    ) -> Settings:
        """Checked settings, with defaults filled in.

        Raises:
            SdekitError: an unknown problem, solver or device, or step counts that no order can be fitted to.
        """
        if problems is None and quick:
            problems = QUICK_PROBLEMS
        problems = _known("problem of the study", problems, PROBLEMS)
        solvers = _known("stepper", solvers, tuple(STEPPERS), SOLVERS)
        if steps is not None:
            steps = tuple(steps)
            whole = all(isinstance(n, int) and n >= 1 for n in steps)
            if not whole or not steps or any(b <= a for a, b in pairwise(steps)):
                raise SdekitError(f"steps must be increasing whole numbers ≥ 1, such as 16 32 64 128; got {steps}.")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise SdekitError(f"The device {device!r} cannot be used here: use 'cpu'.") from error
        return cls(problems, solvers, steps, device, int(seed), bool(quick))

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of the processes that the chosen problems run under."""
        return tuple(p for p in PROCESSES if any(name.startswith(f"{p}-") for name in self.problems))

    def document(self) -> dict[str, Any]:
        """As it is written to ``study.json``: the settings, versions and weights that results depend on."""
        origin: dict[str, str | None] = {**versions()}
        origin |= {"weights": weights_sha256()} if {"digits", "latents", "grids"} & {*self.problems} else {}
        origin |= peer_versions() if {"peers", "accuracy"} & {*self.problems} else {}
        document: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self), "versions": origin}))
        return document


@cache
def peer_versions() -> dict[str, str | None]:
    """Versions of the libraries whose methods are measured; None for one that is not installed."""
    return {name: version(name) if find_spec(name.replace("-", "_")) else None for name in PEERS}


@cache
def weights_sha256() -> str:
    """Of the file with the learned score of the digits, the first 16 figures.

    Raises:
        SdekitError: it is not there.
    """
    from sdekit.train import describe

    return sha256(describe("digits").path.read_bytes()).hexdigest()[:16]


def _known(
    kind: str, names: Sequence[str] | None, known: tuple[str, ...], usual: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """``names`` in the order of ``known``; the usual ones, which are all unless said, for None."""
    if names is None:
        return known if usual is None else usual
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
    if not names:
        raise SdekitError(f"No {kind} was chosen: leave it out for all of them, or name some of {', '.join(known)}.")
    return tuple(name for name in known if name in names)
