r"""Additive noise that depends on time, with a drift that is linear, and with one that is not.

**Nonlinear.** Let $Z = z_0 + \int g\,dW$ and weight its paths by the martingale
$\cosh(\theta Z_t)\,e^{-\theta^2 \tau/2} / \cosh(\theta z_0)$, $\tau(t) = \int_0^t g^2$. By Girsanov's theorem they then
have the drift $g^2 \theta \tanh(\theta Z)$. Their law, as cosh is a sum of two exponentials, is a mixture of two
Gaussians [benes1981]. In a frame that moves along m(t),

$$ dX = \bigl( \dot m + g^2 \theta \tanh(\theta (X - m)) \bigr)\,dt + g\,dW, \quad X_0 = z_0 + m(0), \qquad
   X_t \sim \sum_\pm \frac{e^{\pm\theta z_0}}{2 \cosh \theta z_0}\,
   \mathcal N\bigl( m(t) + z_0 \pm \theta \tau(t),\; \tau(t) \bigr) . $$
"""

from __future__ import annotations

from math import cos as cosine
from math import cosh, exp
from math import sin as sine
from typing import Any

import torch
from torch import Tensor

from sdekit.dynamics import sde
from sdekit.elementary import cos, sin
from sdekit.laws import Gaussian, GaussianMixture
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import ClosedForm, uniform
from sdekit.typing import along

_START = 0.25


def benes_law(t: float) -> GaussianMixture:
    """The law of ``additive-nonlinear`` at time t > 0."""
    tau = 1.125 * t + (1.0 - cosine(3.0 * t)) / 3.0 - sine(6.0 * t) / 48.0  # ∫ (1 + ½ sin 3t)²
    centre = 0.2 * sine(5.0 * t) + _START
    weights = [exp(sign * _START) / (2.0 * cosh(_START)) for sign in (-1.0, 1.0)]
    return GaussianMixture(weights, [[centre - tau], [centre + tau]], tau)


def additive_nonlinear() -> Problem:
    r"""$dx = (\cos 5t + g^2 \tanh(x - \tfrac15 \sin 5t))\,dt + g\,dW$ with $g = 1 + \tfrac12 \sin 3t$.

    From a point to a mixture of two Gaussians. Along a path there is no closed form; ``nonautonomous-square`` has one.

    References: [benes1981].
    """
    law = benes_law(1.0)
    first = law.mean
    second = law.variance + first.square()
    spread = float(law.components[0].variance)
    waves = torch.stack([torch.sin(part.mean) for part in law.components])[:, 0] * exp(-0.5 * spread)

    def g(t: Any) -> Any:
        return 1.0 + 0.5 * sin(3.0 * t)

    def drift(t: Any, x: Tensor) -> Tensor:
        moved = x - along(0.2 * sin(5.0 * t), x)
        return along(cos(5.0 * t), x) + along(g(t) ** 2, x) * torch.tanh(moved)

    return Problem(
        name="additive-nonlinear",
        summary="Beneš equation, moving frame",
        detects="drift or noise at the wrong time of the step; a method that is right for linear drifts only",
        sde=sde(drift, lambda t, x: torch.ones_like(x) * along(g(t), x), "additive"),
        initial=Gaussian([_START], 0.0),
        grid=uniform(1.0),
        law=law,
        weak=WeakAnswer(
            lambda x: torch.cat([x, x * x, torch.sin(x)], dim=1),
            torch.cat([first, second, (law.weights @ waves)[None]]),
        ),
    )


def additive_decay() -> Problem:
    r"""$dx = (g - 2 g^2 x)\,dt + g\,dW$ with $g = ½ / \sqrt{1 + t}$, so $x_t = (x_0 + ½ (t + W_t)) / \sqrt{1 + t}$.

    A trap of its own: $x \sqrt{1 + t}$ is Brownian motion with drift, so that W at the end determines the solution.
    Methods may have higher strong orders here than they have elsewhere: do not certify any with it.

    References: [rackauckas2017].
    """
    end = 1.0
    root = (1.0 + end) ** 0.5
    law = Gaussian([(1.0 + 0.5 * end) / root], 0.25 * end / (1.0 + end))

    def drift(t: Any, x: Tensor) -> Tensor:
        return along(0.5 * (1.0 + t) ** -0.5, x) - along(0.5 / (1.0 + t), x) * x

    return Problem(
        name="additive-decay",
        summary="linear drift and noise that fade",
        detects="the noise at the wrong end of the step; not a wrong order: it flatters methods by superconvergence",
        sde=sde(drift, lambda t, x: torch.ones_like(x) * along(0.5 * (1.0 + t) ** -0.5, x), "additive"),
        initial=Gaussian([1.0], 0.0),
        grid=uniform(end),
        law=law,
        path=ClosedForm(lambda t, w, x0: (x0 + 0.5 * (t + w)) / (1.0 + t) ** 0.5),
        weak=WeakAnswer(
            lambda x: torch.cat([x, x * x], dim=1), torch.cat([law.mean, law.variance + law.mean.square()])
        ),
    )
