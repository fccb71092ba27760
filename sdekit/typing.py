"""Words that every floor shares: the types of times, fields and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

Time: TypeAlias = float | Tensor
"""A time: a Python float, or a tensor with one entry per sample."""

Scalar = TypeVar("Scalar", float, Tensor, float | Tensor)
"""A scalar coefficient, of the same kind as the time that it was computed from."""

Field: TypeAlias = Callable[[Any, Tensor], Tensor]
"""A field ``(t, x) -> value``: a drift, a diffusion or a score. ``t`` is a :data:`Time`."""

Inside: TypeAlias = Callable[[Tensor], Tensor]
"""Where states may be: of states (B, *E) a boolean tensor, for every element or every sample."""

Shape: TypeAlias = torch.Size | Sequence[int]

NoiseType = Literal["none", "additive", "scalar", "diagonal", "commutative", "general"]
Calculus = Literal["ito", "stratonovich"]
Direction = Literal["increasing", "decreasing", "either"]
Increments = Literal["w", "space-time", "full", "three-point", "two-point"]
Prediction = Literal["score", "epsilon", "sample", "v_prediction", "flow_prediction", "rectified"]


def along(coefficient: float | Tensor, x: Tensor) -> float | Tensor:
    """A coefficient of time, shaped so that it multiplies the state ``x`` sample by sample."""
    if isinstance(coefficient, float):
        return coefficient
    shape = (-1,) + (1,) * (x.ndim - 1) if coefficient.ndim else ()
    return coefficient.to(x).reshape(shape)
