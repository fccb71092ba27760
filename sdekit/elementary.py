r"""Elementary functions of a Python float or of a tensor.

Schedules are written once and serve both: as host float64 scalars on a fixed grid, where they cost
no kernel, and as tensors with one time per sample.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from sdekit.typing import Scalar


def exp(x: Scalar) -> Scalar:
    """$e^x$."""
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


def expm1(x: Scalar) -> Scalar:
    """$e^x - 1$, to a few units in the last place."""
    if not isinstance(x, Tensor):
        return math.expm1(x)
    if torch.compiler.is_compiling():  # inductor's vectors have e^x − 1 as it stands, which loses small x
        return torch.tanh(0.5 * x) * (torch.exp(x) + 1.0)
    return torch.expm1(x)


def log1p(x: Scalar) -> Scalar:
    r"""$\log(1 + x)$."""
    return torch.log1p(x) if isinstance(x, Tensor) else math.log1p(x)


def log(x: Scalar) -> Scalar:
    """Natural logarithm, with log 0 = −∞ for floats as for tensors."""
    if isinstance(x, Tensor):
        return torch.log(x)
    return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)


def sqrt(x: Scalar) -> Scalar:
    r"""$\sqrt x$."""
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def sin(x: Scalar) -> Scalar:
    r"""$\sin x$."""
    return torch.sin(x) if isinstance(x, Tensor) else math.sin(x)


def cos(x: Scalar) -> Scalar:
    r"""$\cos x$."""
    return torch.cos(x) if isinstance(x, Tensor) else math.cos(x)


def asinh(x: Scalar) -> Scalar:
    """The inverse of sinh."""
    return torch.asinh(x) if isinstance(x, Tensor) else math.asinh(x)


def atan2(y: Scalar, x: Scalar) -> Scalar:
    """The angle of the point (x, y)."""
    if isinstance(y, Tensor) or isinstance(x, Tensor):
        return torch.atan2(torch.as_tensor(y), torch.as_tensor(x))
    return math.atan2(y, x)


def softplus(x: Scalar) -> Scalar:
    r"""$\log(1 + e^x)$ without overflow, and with full relative accuracy as $x \to -\infty$."""
    if isinstance(x, Tensor):
        return torch.clamp(x, min=0) + torch.log1p(torch.exp(-torch.abs(x)))
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def log_expm1(x: Scalar) -> Scalar:
    r"""$\log(e^x - 1)$ for $x \ge 0$, the inverse of :func:`softplus`; −∞ at 0."""
    return x + log(-expm1(-x))


def expit(x: Scalar) -> Scalar:
    r"""$1 / (1 + e^{-x})$ without overflow."""
    return exp(-softplus(-x))


def constant(value: float, x: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """``value`` in every entry of a tensor like ``x``: small states pay for every number that torch has to wrap."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return x.new_full((), value).expand(shape)
    return _constant(value, x.dtype, x.device, shape)


@lru_cache(maxsize=256)
def _constant(value: float, dtype: torch.dtype, device: torch.device, shape: tuple[int, ...]) -> Tensor:
    return torch.full((), value, dtype=dtype, device=device).expand(shape)
