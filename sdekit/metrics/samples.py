"""The door for samples: what every metric demands of them."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.laws import Empirical


def points(name: str, x: Tensor | Empirical) -> Tensor:
    r"""Samples as float64 rows, (n, d), on their own device.

    Args:
        name: What the caller calls them.
        x: Shape (n, \*E), floating point.

    Raises:
        SdekitError: no tensor of floats, no samples, or NaN or infinity among them.
    """
    x = x.points if isinstance(x, Empirical) else x
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise SdekitError(f"{name} must be samples, a floating-point tensor of shape (n, *event); got {kind}.")
    if x.ndim == 0 or x.numel() == 0:
        raise SdekitError(f"{name} has shape {tuple(x.shape)}: there is no sample in it; give (n, *event), n ≥ 1.")
    rows = x.detach().to(torch.float64).reshape(len(x), -1)
    bad = int((~rows.isfinite()).any(1).sum())
    if bad:
        raise SdekitError(f"{name} has NaN or Inf in {bad} of {len(x)} samples: drop them, and report how many.")
    return rows


def event_of(x: Tensor | Empirical) -> torch.Size:
    """The event shape of samples."""
    return x.event_shape if isinstance(x, Empirical) else x.shape[1:]


def check_events(a: torch.Size, b: torch.Size) -> None:
    """Raise unless two event shapes agree; all shapes of one element are the line."""
    if a != b and not a.numel() == b.numel() == 1:
        raise SdekitError(f"The event shapes differ: {tuple(a)} and {tuple(b)}. Reshape one to the other.")


def pair(x: Tensor | Empirical, y: Tensor | Empirical) -> tuple[Tensor, Tensor]:
    """Two checked sets of samples, (n, d) and (m, d)."""
    rows = points("x", x), points("y", y)
    check_events(event_of(x), event_of(y))
    return rows
