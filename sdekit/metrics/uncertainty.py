r"""A sample-based distance beside its noise floor and its standard error.

A distance between samples of one and the same law is not zero. Its mean at the same sample sizes is the *floor*: a
value near it says nothing about the laws. The *standard error* is the delete-a-group jackknife: with the samples split
into g groups and $\theta_i$ the metric without group i of either set,

$$ \mathrm{se}^2 = \frac{g - 1}{g} \sum_i (\theta_i - \bar\theta)^2 . $$

It keeps nearly the full sample size, on which the bias of such distances depends; a bootstrap repeats points, which
changes that bias. Well above the floor the distance is nearly normal and ``value ± 2 se`` is an interval for its mean
at this sample size; near the floor compare with the floor and its spread instead.

References: [szekely2013] for permutation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.laws import Law

Metric = Callable[[Any, Any], float]
"""A distance between samples, or between samples and a law."""


@dataclass(frozen=True)
class Measurement:
    """A distance with what it takes to judge it.

    Attributes:
        value: The metric.
        standard_error: Of the value, by jackknife.
        floor: Mean of the metric between two samples of one law, at the same sizes.
        floor_sd: Standard deviation of one such value.
        sizes: Numbers of samples; None for a law.
    """

    value: float
    standard_error: float
    floor: float
    floor_sd: float
    sizes: tuple[int | None, int | None]

    @property
    def above_floor(self) -> float:
        """How many standard deviations of the floor the value lies above it."""
        return (self.value - self.floor) / self.floor_sd if self.floor_sd > 0 else math.inf

    def __str__(self) -> str:
        n, m = (k or "law" for k in self.sizes)
        return (
            f"{self.value:.4g} ± {self.standard_error:.2g} (floor {self.floor:.4g} ± {self.floor_sd:.2g}, n = {n}, {m})"
        )


def measure(
    metric: Metric,
    x: Tensor,
    y: Tensor | Law,
    *,
    reference: Law | Tensor | None = None,
    repeats: int = 20,
    groups: int = 10,
    seed: int = 0,
) -> Measurement:
    r"""``metric(x, y)`` with its noise floor and standard error; 1 + repeats + groups evaluations.

    Args:
        metric: Such as ``energy_distance``, or ``functools.partial(sliced_wasserstein2, projections=64)``.
        x: Independent samples, shape (n, \*E).
        y: Samples, shape (m, \*E); or a law, for a metric that takes one.
        reference: Where the floor comes from. A law: each repeat draws fresh samples of sizes n and m. At least
            n + m held-out samples: each repeat splits them anew. Default: ``y`` if it is a law, else the pool of
            ``x`` and ``y``, split at random, which is right for laws that are close and too high for laws that
            are far apart.
        repeats: Values that the floor is averaged over.
        groups: g of the jackknife.
        seed: Of the floor's samples and splits.

    Raises:
        SdekitError: fewer samples than groups, or too few reference samples; and what the metric raises.
    """
    n, m = len(x), len(y) if isinstance(y, Tensor) else None
    if not 2 <= groups <= min(n, m or n):
        raise SdekitError(f"groups = {groups} must be at least 2 and at most the number of samples; sizes {(n, m)}.")
    if repeats < 2:
        raise SdekitError(f"repeats = {repeats}: a floor with a spread needs at least 2.")
    value = metric(x, y)
    floors = torch.tensor([metric(*pair) for pair in _null_pairs(x, y, reference, repeats, seed)], dtype=torch.float64)
    return Measurement(value, _jackknife(metric, x, y, groups), float(floors.mean()), float(floors.std()), (n, m))


def _null_pairs(
    x: Tensor, y: Tensor | Law, reference: Law | Tensor | None, repeats: int, seed: int
) -> Iterator[tuple[Tensor, Tensor | Law]]:
    """Pairs of one law, of the sizes of x and y."""
    n, m = len(x), len(y) if isinstance(y, Tensor) else 0
    if reference is None:
        reference = torch.cat([x, y.to(x)]) if isinstance(y, Tensor) else y
    if isinstance(reference, Tensor) and len(reference) < n + m:
        raise SdekitError(f"A floor at sizes {n} and {m} needs {n + m} reference samples; got {len(reference)}.")
    for r in range(repeats):
        both = _draw(reference, n + m, random.key(seed, r))
        yield both[:n], both[n:] if isinstance(y, Tensor) else y


def _draw(reference: Law | Tensor, size: int, seed: int) -> Tensor:
    """Fresh samples of a law, or a random choice without repetition."""
    if not isinstance(reference, Tensor):
        return reference.sample(size, seed=seed)
    keys = random.path_keys(seed, len(reference), reference.device)
    order = random.normals(keys, (), stream=random.STREAM_LAW)[0].argsort()
    return reference[order[:size]]


def _jackknife(metric: Metric, x: Tensor, y: Tensor | Law, groups: int) -> float:
    """Delete-a-group standard error; sample i is in group i mod g."""

    def without(group: int, z: Tensor | Law) -> Tensor | Law:
        return z[torch.arange(len(z), device=z.device) % groups != group] if isinstance(z, Tensor) else z

    values = torch.tensor([metric(without(i, x), without(i, y)) for i in range(groups)], dtype=torch.float64)
    return math.sqrt((groups - 1) / groups * float((values - values.mean()).square().sum()))
