r"""Time grids: 1-D float64 tensors on the host, from noise (first) to data (last).

Every grid is ``f(process, steps, t_min=None, t_max=None, ...)`` and has ``steps + 1`` decreasing times with both ends
exact; flip one for a forward problem. Most are uniform in some clock (:mod:`sdekit.grids.basic`). Others are levels of
a chain that a network was trained on (:mod:`sdekit.grids.timesteps`), or are found by minimising the exact error of a
stepper (:mod:`sdekit.grids.optimum`), which is why this package stands above the steppers.
"""

from sdekit.grids.basic import (
    Timed,
    beta,
    from_times,
    karras,
    log_snr,
    polynomial,
    quadratic,
    rectified,
    sigma_uniform,
    uniform,
)
from sdekit.grids.errors import grid_error
from sdekit.grids.optimum import optimal
from sdekit.grids.timesteps import from_timesteps

__all__ = [
    "Timed",
    "beta",
    "from_times",
    "from_timesteps",
    "grid_error",
    "karras",
    "log_snr",
    "optimal",
    "polynomial",
    "quadratic",
    "rectified",
    "sigma_uniform",
    "uniform",
]
