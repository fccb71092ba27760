"""How far apart two laws, or two sets of samples, are; and how far apart they would be by chance."""

from sdekit.metrics.energy import energy_distance
from sdekit.metrics.gaussian import gaussian_wasserstein2
from sdekit.metrics.goodness import Goodness, GoodnessTest, hold
from sdekit.metrics.uncertainty import Measurement, measure
from sdekit.metrics.wasserstein import sliced_wasserstein2, wasserstein2

__all__ = [
    "Goodness",
    "GoodnessTest",
    "Measurement",
    "energy_distance",
    "gaussian_wasserstein2",
    "hold",
    "measure",
    "sliced_wasserstein2",
    "wasserstein2",
]
