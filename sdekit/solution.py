"""What a solve returns, and how it is kept on disk."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.version import __version__

_FORMAT = "sdekit-solution-1"
_DIAGNOSTIC = "diagnostics."


class Status(IntEnum):
    """How a sample's run ended."""

    SUCCESS = 0
    NON_FINITE = 1
    STEP_LIMIT = 2
    TIME_LIMIT = 3
    STEP_UNDERFLOW = 4
    OUTSIDE = 5


@dataclass(frozen=True)
class Statistics:
    """What a run cost. Evaluations are calls on the whole batch."""

    steps: int = 0
    drift_evaluations: int = 0
    diffusion_evaluations: int = 0
    score_evaluations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, repr=False)
class Solution:
    """The result of :func:`sdekit.solve`.

    Attributes:
        ts: The times that were saved, float64, shape (T,); (T, B), if they were asked for sample by sample.
        xs: The states there, shape (T, B, *E).
        final: The state where the run ended, shape (B, *E), whether or not ``save`` asked for it.
        stats: Steps, evaluations, seconds.
        status: How each sample ended, int8 of shape (B,), values of :class:`Status`.
        provenance: Versions, stepper, process, times, seed, dtype and device.
        diagnostics: What the stepper reports of every sample, shape (B,) each; ``acceptance`` of Metropolis steps;
            with a controller the steps ``accepted`` and ``rejected``, of Runge–Kutta pairs also ``evaluations``.
    """

    ts: Tensor
    xs: Tensor
    final: Tensor
    stats: Statistics
    status: Tensor
    provenance: Mapping[str, Any]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape, stepper = tuple(self.final.shape), self.provenance.get("stepper")
        ended = "success" if self.ok else "not all samples ended well"
        return f"Solution({stepper}, {len(self.ts)} times, final {shape}, {self.stats}, {ended})"

    @property
    def ok(self) -> bool:
        """Whether every sample ended well."""
        return bool((self.status == Status.SUCCESS).all())

    def check(self) -> Solution:
        """Itself, if every sample ended well.

        Raises:
            SdekitError: some did not; says how many and how.
        """
        bad = [f"{int(n)} {s.name.lower()}" for s in Status if s and (n := (self.status == s).sum())]
        if bad:
            raise SdekitError(
                f"{', '.join(bad)} of {len(self.status)} samples, with {self.provenance.get('stepper')} on "
                f"{self.stats.steps} steps. Non-finite samples: more steps, a larger t_min, or look for NaN in the "
                "score. Limits: raise max_steps or max_seconds. Outside of where states may be: more steps, or a "
                "controller, which refuses the steps that lead there."
            )
        return self

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file, whole or not at all.

        Raises:
            SdekitError: the folder cannot be written, or the disk is full.
        """
        meta = {
            "format": _FORMAT,
            "stats": json.dumps(asdict(self.stats)),
            "provenance": json.dumps(dict(self.provenance)),
        }
        tensors = {"ts": self.ts, "xs": self.xs, "final": self.final, "status": self.status}
        extra = {_DIAGNOSTIC + name: value for name, value in self.diagnostics.items()}
        write_tensors(path, {**tensors, **extra}, meta)

    @classmethod
    def load(cls, path: str | Path) -> Solution:
        """Read what :meth:`save` wrote. Nothing is unpickled.

        Raises:
            SdekitError: no such file, or not a solution.
        """
        tensors, meta = read_tensors(path, _FORMAT)
        try:
            stats, provenance = Statistics(**json.loads(meta["stats"])), json.loads(meta["provenance"])
            extra = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_DIAGNOSTIC)}
            diagnostics = {name.removeprefix(_DIAGNOSTIC): value for name, value in extra.items()}
            return cls(**tensors, stats=stats, provenance=provenance, diagnostics=diagnostics)
        except (KeyError, TypeError, ValueError) as error:
            raise SdekitError(f"Cannot read {path}: the solution is incomplete ({error!r}).") from error


def read_tensors(path: str | Path, form: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file that declares the format ``form``."""
    require_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SdekitError(f"Cannot read {path}: {error}.") from error
    if meta.get("format") != form:
        raise SdekitError(
            f"{path} is a safetensors file of another kind (format {meta.get('format')!r}, wanted {form!r})."
        )
    return tensors, meta


def require_safetensors() -> None:
    """Refuse, with the cure, where safetensors is not installed."""
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise SdekitError("This is kept in a safetensors file: pip install 'sdekit[io]'.") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """A safetensors file, whole or not at all."""
    require_safetensors()
    from safetensors.torch import save

    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, dict(meta))
    write_whole(path, content)


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: beside it first, then renamed over it."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise SdekitError(f"Cannot write {path}: it exists and is no regular file.")
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SdekitError(f"Cannot write {path}: {error.strerror or error}.") from error


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "sdekit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
