r"""Generation problems: data of a known law, a forward process, and the way back at any η.

They start from the exact law at the last time and are compared with the exact law at the first, so that the error is
the solver's discretisation error alone: no prior mismatch, no truncation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdekit import grids
from sdekit.laws import Gaussian, GaussianMixture, Law
from sdekit.linear import LinearProcess
from sdekit.ornstein_uhlenbeck import OU
from sdekit.problems.base import Problem
from sdekit.processes import VE, VP
from sdekit.quantile_map import quantile_flow
from sdekit.reverse import reverse_time
from sdekit.score import exact_score

_GRIDS = {
    "ou": grids.log_snr,
    "vp": grids.log_snr,
    # Not log_snr: with uniform steps in log σ the first-order terms of Euler–Maruyama's law on VE integrate to
    # ½ c v² u/(ℓ + u)² between the ends u = σ², which is nearly nothing at both: it would look second order.
    "ve": grids.quadratic,
}

PROCESSES: dict[str, Callable[[], LinearProcess]] = {
    "ou": lambda: OU(theta=1.0, sigma=2.0**0.5, t_max=5.0),
    "vp": VP,
    "ve": lambda: VE(sigma_min=0.1),
}


def rotated_gaussian() -> Gaussian:
    """A Gaussian in three dimensions with variances 0.01, 0.25 and 1 along rotated axes."""
    mean = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)
    turns = torch.tensor([[0.0, -0.8, 0.3], [0.8, 0.0, -0.5], [-0.3, 0.5, 0.0]], dtype=torch.float64)
    axes = torch.linalg.matrix_exp(turns)
    variances = torch.tensor([0.01, 0.25, 1.0], dtype=torch.float64)
    return Gaussian.from_root(mean, axes * variances.sqrt())


def mild_mixture() -> GaussianMixture:
    """Two overlapping modes on the line: weights 0.4 and 0.6, means −1 and 1, deviations 0.6 and 0.5."""
    return GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])


DATA: dict[str, Callable[[], Law]] = {"gaussian": rotated_gaussian, "mixture": mild_mixture}


def reverse_problem(process_name: str, data_name: str, eta: float = 0.0) -> Problem:
    """The way back to the data ``data_name`` under the process ``process_name``, at ``eta``."""
    process, data = PROCESSES[process_name](), DATA[data_name]()
    score = exact_score(data, process)
    start, end = process.t_max, process.t_min

    def flow(x: Tensor) -> Tensor:
        return quantile_flow(process, data, x, start, end)

    return Problem(
        name=f"{process_name}-{data_name}",
        summary=f"{process_name.upper()} back to {data_name} data",
        detects="a wrong coefficient, score time or end of the grid in a sampler",
        sde=reverse_time(process, score, eta),
        initial=process.marginal(data, start),
        grid=lambda steps: _GRIDS[process_name](process, steps),
        law=process.marginal(data, end),
        flow=flow if eta == 0.0 and data.event_shape.numel() == 1 else None,
    )
