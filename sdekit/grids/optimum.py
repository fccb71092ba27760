r"""The grid on which a stepper's exact error is least.

Steps in half-log-SNR are a softmax of free numbers: $\lambda_k = \lambda_0 + (\lambda_N - \lambda_0)\sum_{j<k} w_j$
with $w = (1 - \delta)\operatorname{softmax}(p) + \delta/N$, δ = 1/1000, so times stay in order and the ends stay where
they are. The logarithm of the error (:mod:`sdekit.grids.errors`) is minimised over p by BFGS, with the gradient of
autograd through the coefficients of the plan and through the score. It has several minima; the better one is kept of
a start from :func:`~sdekit.grids.log_snr` and one from :func:`~sdekit.grids.karras`.

A grid is as good as its law is like what will be integrated: see :doc:`/grids`.

References: [nocedal2006] for BFGS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.grids.basic import check_steps, karras, log_snr
from sdekit.grids.errors import POINTS, Target, ends, planned, target
from sdekit.laws import Law
from sdekit.linear import LinearProcess
from sdekit.score import Score
from sdekit.steppers.base import Stepper
from sdekit.steppers.plan import PlannedStepper
from sdekit.typing import Field

_LEAST = 1e-3  # of an equal step in λ: shorter ones would divide rounding errors
_FLAT = 1e-4  # a gradient of the logarithm below which nothing is to be won

Array = npt.NDArray[np.float64]


def optimal(
    process: LinearProcess,
    steps: int,
    t_min: float | None = None,
    t_max: float | None = None,
    *,
    law: Law,
    stepper: str | Stepper = "dpmpp-2m",
    score: Score | Field | None = None,
    iterations: int = 200,
    states: int | None = None,
    points: int = POINTS,
    seed: int = 0,
) -> Tensor:
    """The grid on which a stepper's exact error on the probability flow is least.

    Args:
        process: The forward process, with a schedule.
        steps: Number of steps.
        t_min: The last time; by default the process's.
        t_max: The first time; by default the process's.
        law: Of the data: a Gaussian (of its covariance only the eigenvalues matter), a mixture fitted to them, or
            ``sk.Empirical(data)``; ``.diffused(1.0, s)`` of that is smooth as a network is.
        stepper: A planned one that integrates flows: its own error is minimised.
        score: What to integrate instead of the exact score of the law, such as a network's; autograd goes through it.
        iterations: Of BFGS from each of the two starts, at most.
        states: How many states are carried; by default 192 on the line and 64 elsewhere. Gaussians need none.
        points: The most points of an empirical law that are used, taken at equal distances.
        seed: Of the states that are drawn where the law is not on the line.

    Returns:
        ``steps + 1`` decreasing times. :func:`grid_error` says what they are worth.

    Raises:
        SdekitError: as :func:`grid_error`, or reversed ends.
    """
    check_steps(steps)
    if not isinstance(iterations, int) or iterations < 0:
        raise SdekitError(f"iterations must be a whole number ≥ 0; got {iterations!r}.")
    chosen, (low, high) = planned(stepper, steps), ends(process, t_min, t_max)
    aim = target(process, law, low, high, score, states, points, seed)
    found = [_descended(aim, chosen, make(process, steps, low, high), iterations) for make in (log_snr, karras)]
    return min(found, key=lambda pair: pair[1])[0]


def _descended(aim: Target, stepper: PlannedStepper, start: Tensor, iterations: int) -> tuple[Tensor, float]:
    """A grid no worse than ``start``, and the logarithm of its error."""
    times_of, p = _coordinates(aim, start)

    def value(q: Array) -> tuple[float, Array]:
        free = torch.tensor(q, requires_grad=True)
        loss = torch.log(aim.error(stepper, times_of(free)))
        (gradient,) = torch.autograd.grad(loss, free)
        if not bool(loss.isfinite() & gradient.isfinite().all()):
            return 1e3, np.zeros_like(q)
        return float(loss.detach()), gradient.numpy()

    best = start, value(p)[0]
    if iterations and len(p):
        options: dict[str, Any] = {"maxiter": iterations, "gtol": _FLAT}
        solution = minimize(value, p, jac=True, method="BFGS", options=options)
        if solution.fun < best[1]:
            best = times_of(torch.from_numpy(solution.x)).detach(), float(solution.fun)
    return best


def _coordinates(aim: Target, start: Tensor) -> tuple[Callable[[Tensor], Tensor], Array]:
    """The grid as a function of N − 1 free numbers, and those of ``start``."""
    schedule, steps = aim.schedule, len(start) - 1
    lam = schedule.lam(start)
    shares = lam.diff() / (lam[-1] - lam[0])
    free = torch.log(((shares - _LEAST / steps) / (1.0 - _LEAST)).clamp(min=1e-12))

    def times_of(p: Tensor) -> Tensor:
        weights = torch.softmax(torch.cat([p, p.new_zeros(1)]), 0)
        way = torch.cumsum((1.0 - _LEAST) * weights + _LEAST / steps, 0)[:-1]
        return torch.cat([start[:1], schedule.time_at(lam[0] + (lam[-1] - lam[0]) * way), start[-1:]])

    return times_of, (free[:-1] - free[-1]).numpy()
