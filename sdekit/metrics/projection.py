r"""Laws along a direction: the projection of $N(m, C)$ on θ is $N(\theta \cdot m, \theta^\top C \theta)$."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit import random
from sdekit.laws import Gaussian, GaussianMixture

STREAM_PROJECTION = 3 << 32


def unit_directions(count: int, d: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Directions uniform on the sphere, (count, d), a function of the seed alone."""
    keys = random.path_keys(seed, count, device)
    directions = random.normals(keys, (d,), stream=STREAM_PROJECTION)[0]
    unit: Tensor = directions / directions.norm(dim=1, keepdim=True)
    return unit


def projected(law: Gaussian | GaussianMixture, direction: Tensor) -> Gaussian | GaussianMixture:
    """The law of θ·x, event shape (1,); θ of shape (d,)."""
    theta = direction.double()
    parts = law.components if isinstance(law, GaussianMixture) else (law,)
    means = torch.stack([theta @ part.mean.flatten().to(theta) for part in parts])[:, None]
    variances = torch.stack([(part.root.to(theta).mT @ theta).square().sum() for part in parts])[:, None]
    if isinstance(law, GaussianMixture):
        weights = law.weights.to(theta)
        return GaussianMixture(weights / weights.sum(), means, variances)
    return Gaussian(means[0], variances[0])
