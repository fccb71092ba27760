r"""The double well, in equilibrium.

$$ dx = (x - x^3)\,dt + \sqrt{2D}\,dW, \qquad p(x) \propto e^{-V/D}, \quad V = \tfrac14 x^4 - \tfrac12 x^2 . $$

A run that starts from p should end there at every time. For a p that samples, transports and integrates like any other
law, write it as a mixture of narrow Gaussians. The heat equation run backwards,
$q = e^{-\frac12 \delta^2 \partial_x^2} p$, has $q * N(0, \delta^2) = p$, and as p is an entire function

$$ q(x) = E\,\operatorname{Re} p(x + i \delta Z), \quad Z \sim \mathcal N(0, 1), \qquad
   p(x) = \sum_j a\,q(x_j)\,N(x;\, x_j, \delta^2)\,\bigl( 1 + O(e^{-2\pi^2 \delta^2/a^2}) \bigr) $$

on nodes at distance a: exact to rounding for $a = \tfrac34 \delta$, in the tails too.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss

from sdekit.dynamics import sde
from sdekit.laws import GaussianMixture
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import uniform

_WIDTH = 0.05  # δ, of the order of the scale D/|V′| of p where p is 1e-24 of its maximum
_NODES = 48


def equilibrium(D: float) -> GaussianMixture:
    """The stationary law."""
    x = np.arange(-80, 81) * (0.75 * _WIDTH)
    z, weights = hermegauss(_NODES)
    y = x[:, None] + 1j * _WIDTH * z
    q = (np.exp(-(0.25 * y**4 - 0.5 * y**2 + 0.25) / D) @ (weights / weights.sum())).real
    kept = q > 1e-24 * q.max()
    means = torch.from_numpy(x[kept, None])
    return GaussianMixture(torch.from_numpy(q[kept] / q[kept].sum()), means, _WIDTH**2)


def double_well() -> Problem:
    r"""$dx = (x - x^3)\,dt + \sqrt{½}\,dW$ from its stationary law, $p \propto \exp(2x^2 - x^4)$.

    $E[x^4] = E[x^2] + ¼$. The drift grows like a cube: explicit steps explode from far enough out, $|x|^2 > 2/h$.
    """
    D = 0.25
    law = equilibrium(D)
    x = torch.linspace(-4.0, 4.0, 801, dtype=torch.float64)
    density = torch.exp(2.0 * x**2 - x**4)
    second = (density @ x**2) / density.sum()
    return Problem(
        name="double-well",
        summary="double well in equilibrium",
        detects="drift and noise out of balance: the stationary law moves; explicit steps that explode in its tails",
        sde=sde(lambda t, x: x - x**3, lambda t, x: torch.full_like(x, (2.0 * D) ** 0.5), "additive"),
        initial=law,
        grid=uniform(1.0),
        law=law,
        weak=WeakAnswer(lambda x: torch.cat([x**2, x**4], dim=1), torch.stack([second, second + D])),
    )
