r"""SDEs that a change of variables solves.

With a Brownian motion run at the rate $s(t) = s_0 + s_1 t$, in m dimensions,

$$ X_t = \varphi(t, Y_t, x_0), \qquad dY = s(t)\,dW , $$

solves $dX = f\,dt + \sum_i g_i\,dW_i$ if, by Itô's formula, at $X = \varphi$

$$ s\,\partial_{y_i} \varphi = g_i(t, X), \qquad
   \partial_t \varphi + \tfrac12 s^2 \sum_i \partial_{y_i}^2 \varphi = f(t, X) . $$

With $s_1 \neq 0$ the increments of W do not determine Y, but its space-time Lévy area H does:
$\int_0^T t\,dW = T\,(\tfrac12 W - H)$.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Any, final

import torch
from torch import Tensor

from sdekit.brownian import GridPath, Levy
from sdekit.dynamics import sde
from sdekit.elementary import cos, exp, sin
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.typing import NoiseType, along


@final
@dataclass(frozen=True)
class ClosedForm:
    """The solution as a function of the time, the Brownian motion and the start.

    Attributes:
        solution: φ(t, y, x0), with y of shape (B, m) and x0 of shape (B, *E), in elementary functions of a tensor or
            float t.
        rate: s₀ and s₁.
    """

    solution: Callable[[Any, Tensor, Tensor], Tensor]
    rate: tuple[float, float] = (1.0, 0.0)

    def __call__(self, x: Tensor, path: GridPath) -> Tensor:
        """The solution at the last time of a path that starts at time 0."""
        end = path.times[-1]
        whole = path.increment(path.times[0], end)
        y = self.rate[0] * whole.w
        if self.rate[1]:
            y = y + self.rate[1] * end * (0.5 * whole.w - whole.h)
        return self.solution(end, y, x)

    @property
    def levy(self) -> Levy:
        """What the path has to know."""
        return "space-time" if self.rate[1] else "none"


def uniform(end: float) -> Callable[[int], Tensor]:
    """Equal steps from 0 to ``end``."""
    return lambda steps: torch.linspace(0.0, end, steps + 1, dtype=torch.float64)


def normal_means(function: Callable[[Tensor], Tensor], sd: float) -> Tensor:
    r"""Means of ``function`` (n,) → (n, k) at N(0, sd²), shape (k,).

    By the trapezoid rule: with spacing δ = sd/20 its error is $e^{-2\pi d/\delta}$ for a function that is smooth up to
    a distance d from the real line.
    """
    z = torch.linspace(-12.0, 12.0, 481, dtype=torch.float64)
    weights = torch.exp(-0.5 * z * z) * (z[1] - z[0]) / (2.0 * pi) ** 0.5
    means: Tensor = weights @ function(sd * z)
    return means


def hyperbolic_sine() -> Problem:
    r"""$dx = (½ x + g)\,dt + g\,dW$ with $g = \sqrt{x^2 + 1}$, so $x_t = \sinh(t + W_t)$ from 0.

    Drift and noise are nonlinear, and g, gg′, g(gg′)′ all differ. With $y = \operatorname{arsinh} x_t$,
    $E[y^3 - 6 y^2 + 8 y] = t^3 - 3 t^2 + 2 t$.

    References: [rossler2010].
    """
    end = 0.5
    growth = torch.tensor(end, dtype=torch.float64)

    def functional(x: Tensor) -> Tensor:
        y = torch.asinh(x)
        return torch.cat([x, x * x, y**3 - 6.0 * y**2 + 8.0 * y], dim=-1)

    means = [torch.exp(growth / 2) * torch.sinh(growth), 0.5 * (torch.exp(2 * growth) * torch.cosh(2 * growth) - 1.0)]
    return Problem(
        name="sinh",
        summary="sinh of Brownian motion in drift",
        detects="a wrong term of the Itô–Taylor expansion: no derivative of drift or noise vanishes or repeats another",
        sde=sde(lambda t, x: 0.5 * x + torch.sqrt(x * x + 1.0), lambda t, x: torch.sqrt(x * x + 1.0)),
        initial=Gaussian([0.0], 0.0),
        grid=uniform(end),
        path=ClosedForm(lambda t, w, x0: torch.sinh(t + w + torch.asinh(x0))),
        weak=WeakAnswer(functional, torch.stack([*means, growth**3 - 3.0 * growth**2 + 2.0 * growth])),
    )


def arc_tangent(noise_type: NoiseType = "diagonal") -> Problem:
    r"""$dx = -\sin x \cos^3 x\,dt + \cos^2 x\,dW$, so $x_t = \arctan(W_t + \tan x_0)$.

    Drift and noise are bounded with all their derivatives, as the theorems on convergence ask.

    References: [kloeden1992].
    """
    start, end = 0.5, 1.0
    tangent = torch.tan(torch.tensor(start, dtype=torch.float64))

    def functional(x: Tensor) -> Tensor:
        return torch.cat([x, x * x, torch.sin(2.0 * x)], dim=-1)

    return Problem(
        name="arctan" if noise_type == "diagonal" else f"arctan-{noise_type}",
        summary="arctan of Brownian motion" + ("" if noise_type == "diagonal" else f", {noise_type}"),
        detects="a wrong Itô correction: the drift is nothing else, and all fields are smooth and bounded",
        sde=sde(lambda t, x: -torch.sin(x) * torch.cos(x) ** 3, lambda t, x: torch.cos(x) ** 2, noise_type),
        initial=Gaussian([start], 0.0),
        grid=uniform(end),
        path=ClosedForm(lambda t, w, x0: torch.atan(w + torch.tan(x0))),
        weak=WeakAnswer(functional, normal_means(lambda w: functional(torch.atan(w + tangent)[:, None]), end**0.5)),
    )


def scalar_arc_tangent() -> Problem:
    r"""$dx = -\sin x \cos^3 x\,dt + \cos^2 x\,dW$, told as scalar noise: the nonlinear problem of its class."""
    return arc_tangent("scalar")


def nonautonomous_gbm() -> Problem:
    r"""$dx = ½ \cos(3t)\,x\,dt + s(t)\,x\,dW$ with $s(t) = 0.4 + 0.6\,t$.

    $x_t = x_0 \exp(\tfrac16 \sin 3t - \tfrac12 \int s^2 + \int s\,dW)$; W and H determine the last integral.
    """
    rate, end = (0.4, 0.6), 1.0

    def spent(t: Any) -> Any:
        """∫₀ᵗ s²."""
        a, b = rate
        return a * a * t + a * b * t**2 + b * b * t**3 / 3.0

    def solution(t: Any, y: Tensor, x0: Tensor) -> Tensor:
        exponent = sin(3.0 * t) / 6.0 - 0.5 * spent(t)
        return x0 * torch.exp(exponent + y)

    closed, mean = ClosedForm(solution, rate), exp(sin(3.0 * end) / 6.0)
    return Problem(
        name="nonautonomous-gbm",
        summary="GBM with coefficients of time",
        detects="drift or multiplicative noise evaluated at the wrong time of the step",
        sde=sde(
            lambda t, x: along(0.5 * cos(3.0 * t), x) * x,
            lambda t, x: along(rate[0] + rate[1] * t, x) * x,
        ),
        initial=Gaussian([1.0], 0.0),
        grid=uniform(end),
        path=closed,
        levy=closed.levy,
        weak=WeakAnswer(
            lambda x: torch.cat([x, x * x], dim=-1),
            torch.tensor([mean, mean**2 * exp(spent(end))], dtype=torch.float64),
        ),
    )
