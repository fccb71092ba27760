"""Ordinary differential equations whose solution is known."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sdekit.dynamics import sde
from sdekit.elementary import cos, sin
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem
from sdekit.problems.closed_form import uniform
from sdekit.typing import along


def nonautonomous_ode() -> Problem:
    r"""$dx = 3 \cos 3t\,dt + \sin(x - \sin 3t)\,dt$ from N(1, ¼).

    $\tan ½ (x_t - \sin 3t) = e^t \tan ½ x_0$. Neither autonomous nor separable, and it does not forget its
    start: stages at wrong times lower the order of every Runge–Kutta method.

    References: [prothero1974].
    """
    end = 1.0

    def drift(t: Any, x: Tensor) -> Tensor:
        return along(3.0 * cos(3.0 * t), x) + torch.sin(x - along(sin(3.0 * t), x))

    def flow(x: Tensor) -> Tensor:
        half = 0.5 * x
        return math.sin(3.0 * end) + 2.0 * torch.atan2(math.exp(end) * torch.sin(half), torch.cos(half))

    return Problem(
        name="nonautonomous-ode",
        summary="an ODE about a moving point",
        detects="stages of a Runge–Kutta method at wrong times, which autonomous equations hide",
        sde=sde(drift),
        initial=Gaussian([1.0], 0.25),
        grid=uniform(end),
        flow=flow,
    )
