r"""Langevin diffusions, towards a Gaussian and in equilibrium with a mixture.

For the target $N(m, C)$, $dx = -C^{-1}(x - m)\,dt + \sqrt2\,dW$ is an Ornstein–Uhlenbeck process, whose kernel gives
the law at any time.
"""

from __future__ import annotations

import torch

from sdekit.langevin import Langevin
from sdekit.laws import Gaussian, Law
from sdekit.ornstein_uhlenbeck import OU
from sdekit.problems.base import Problem
from sdekit.problems.closed_form import uniform
from sdekit.problems.reverse import mild_mixture


def gaussian_target() -> Gaussian:
    """A correlated Gaussian in the plane."""
    covariance = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    return Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), covariance)


def carried(initial: Law, target: Gaussian, t: float) -> Law:
    """The law at time t of the Langevin diffusion of a Gaussian, started from ``initial``."""
    two = 2.0**0.5 * torch.eye(len(target.mean), dtype=torch.float64)
    process = OU(torch.linalg.inv(target.covariance), target.mean, two, t_max=t)
    return process.transition(0.0, t).push(initial)


def langevin_gaussian() -> Problem:
    r"""$dx = \nabla\log p\,dt + \sqrt2\,dW$ for a correlated Gaussian p, from far off to half the way."""
    target, initial = gaussian_target(), Gaussian(torch.tensor([-1.0, 0.5], dtype=torch.float64), 0.25)
    return Problem(
        name="langevin-gaussian",
        summary="Langevin to a Gaussian",
        detects="conventions of the Langevin step mixed: √γ for √(2γ), γ/2 for γ",
        sde=Langevin(target),
        initial=initial,
        grid=uniform(1.0),
        law=carried(initial, target, 1.0),
    )


def langevin_mixture() -> Problem:
    r"""$dx = \nabla\log p\,dt + \sqrt2\,dW$ for a mixture p on the line, in equilibrium.

    Not for long: between the modes neighbouring paths part exponentially, and strong errors show no order.
    """
    target = mild_mixture()
    return Problem(
        name="langevin-mixture",
        summary="Langevin in equilibrium",
        detects="a bias of the stationary law; a score that is right for Gaussians only",
        sde=Langevin(target),
        initial=target,
        grid=uniform(0.25),
        law=target,
    )
