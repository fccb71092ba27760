"""Forward SDEs with a known solution on the same Brownian path."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.brownian import GridPath
from sdekit.dynamics import sde
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem

_MU, _SIGMA = 0.5, 0.8


def geometric_brownian_motion() -> Problem:
    r"""$dx = \mu x\,dt + s x\,dW$, $x_1 = x_0 \exp((\mu - s^2/2) + s W_1)$."""

    def path(x: Tensor, path: GridPath) -> Tensor:
        w = path.increment(0.0, 1.0).w
        return x * torch.exp(_MU - 0.5 * _SIGMA**2 + _SIGMA * w)

    return Problem(
        name="gbm",
        summary="geometric Brownian motion on [0, 1]",
        detects="a missing or wrong Itô correction: multiplicative noise separates order ½ from 1",
        sde=sde(lambda t, x: _MU * x, lambda t, x: _SIGMA * x, noise_type="diagonal"),
        initial=Gaussian([1.0], 0.0),
        grid=lambda steps: torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64),
        path=path,
    )
