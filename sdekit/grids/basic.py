r"""Grids that are uniform in a clock, both ends exact.

A clock is $t$ (uniform), $\sqrt t$ (quadratic), λ (log_snr), a power of the way in λ (polynomial), $\sigma/\alpha$
(sigma_uniform), $(\sigma/\alpha)^{1/\rho}$ (karras) or the distribution function of a beta law (beta); rectified goes
along the straight path, and on to t = 0.

References: [karras2022edm] for karras; [lu2022dpm] for log_snr; [lee2024beta] for beta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from scipy.optimize import brentq
from scipy.special import betaincinv
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.schedules import Schedule


class Timed(Protocol):
    """What a grid needs of a process: its default ends, and for some grids its schedule."""

    @property
    def t_min(self) -> float: ...
    @property
    def t_max(self) -> float: ...
    @property
    def schedule(self) -> Schedule | None: ...


def uniform(process: Timed, steps: int, t_min: float | None = None, t_max: float | None = None) -> Tensor:
    """Uniform in t."""
    return _between(process, steps, t_min, t_max, _same, _same)


def quadratic(process: Timed, steps: int, t_min: float | None = None, t_max: float | None = None) -> Tensor:
    """Uniform in √t: steps shrink towards the data."""
    return _between(process, steps, t_min, t_max, torch.sqrt, torch.square)


def log_snr(process: Timed, steps: int, t_min: float | None = None, t_max: float | None = None) -> Tensor:
    """Uniform in the half-log-SNR λ."""
    schedule = schedule_for(process)
    return _between(process, steps, t_min, t_max, schedule.lam, schedule.time_at)


def karras(
    process: Timed,
    steps: int,
    t_min: float | None = None,
    t_max: float | None = None,
    rho: float = 7.0,
) -> Tensor:
    r"""Uniform in $(\sigma/\alpha)^{1/\rho}$; ρ = 7 is the usual choice, ρ → ∞ is :func:`log_snr`."""
    schedule = schedule_for(process)
    if not rho > 0:
        raise SdekitError(f"rho must be positive; got {rho}.")
    return _between(
        process,
        steps,
        t_min,
        t_max,
        lambda t: torch.exp(-schedule.lam(t) / rho),
        lambda u: schedule.time_at(-rho * torch.log(u)),
    )


def polynomial(
    process: Timed,
    steps: int,
    t_min: float | None = None,
    t_max: float | None = None,
    power: float = 2.0,
) -> Tensor:
    r"""Polynomial in the half-log-SNR λ.

    $$ \lambda_k = \lambda_0 + (\lambda_N - \lambda_0)\,(k/N)^p, \qquad p = \text{power}. $$

    Steps in λ grow towards the data for p > 1 and shrink for p < 1; p = 1 is :func:`log_snr`.
    """
    schedule = schedule_for(process)
    if not 0.0 < power < math.inf:
        raise SdekitError(f"power must be positive and finite; got {power}.")
    even = log_snr(process, steps, t_min, t_max)
    first, last = schedule.lam(even[[0, -1]]).unbind()
    way = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64) ** power
    even[1:-1] = schedule.time_at(torch.lerp(first, last, way[1:-1]))
    return even


def beta(
    process: Timed,
    steps: int,
    t_min: float | None = None,
    t_max: float | None = None,
    a: float = 0.6,
    b: float = 0.6,
) -> Tensor:
    r"""Quantiles of a beta law over the times.

    $$ t_k = t_{min} + (t_{max} - t_{min})\,F^{-1}_{a,b}(1 - k/N) . $$

    With a, b < 1 times crowd at both ends; a = b = 1 is :func:`uniform`. For a network that knows only integer
    timesteps take ``from_timesteps(..., spacing="beta")``.
    """
    if not (0.0 < a < math.inf and 0.0 < b < math.inf):
        raise SdekitError(f"A beta law needs a, b > 0; got a = {a}, b = {b}.")
    even = uniform(process, steps, t_min, t_max)
    high, low = even[0].clone(), even[-1].clone()
    even[1:-1] = torch.lerp(low, high, beta_quantiles(steps, a, b)[1:-1])
    return even


def beta_quantiles(steps: int, a: float, b: float) -> Tensor:
    """Those of Beta(a, b) at 1, 1 − 1/N, …, 0."""
    levels = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return torch.from_numpy(betaincinv(a, b, levels.numpy()))


def sigma_uniform(process: Timed, steps: int, t_min: float | None = None, t_max: float | None = None) -> Tensor:
    """Uniform in σ/α."""
    return karras(process, steps, t_min, t_max, rho=1.0)


def rectified(process: Timed, steps: int, t_min: float | None = None, t_max: float | None = None) -> Tensor:
    r"""Uniform in $u^{1/\kappa}$, $u = \sigma/(\alpha + \sigma)$, and on to the data.

    It is the default of :func:`sdekit.solve`. u is the time of the straight path between data (0) and noise (1),
    whatever the schedule. No time but the last lies below ``t_min``; the last is t = 0, if σ = 0 there. With κ = 2
    steps shrink towards the data, where fine structure is resolved last. Where that would leave the last step more than
    six times the one before it, as with many steps and a large σ at ``t_min``, κ is smaller, down to 1: what is
    extrapolated so far magnifies the errors of a network.

    Args:
        process: With a schedule.
        steps: Number of steps, with the last one to t = 0.
        t_min: The least time at which a score is asked; by default the process's.
        t_max: The first time.
    """
    check_steps(steps)
    schedule = schedule_for(process)

    def on_path(t: Tensor) -> Tensor:
        return torch.sigmoid(-schedule.lam(t))

    first, low = _between(process, 1, t_min, t_max, _same, _same).unbind()
    onward = schedule.noiseless == 0.0 and float(low) > 0.0
    kappa = _power(float(on_path(first) / on_path(low)), steps) if onward else 2.0

    def clock(t: Tensor) -> Tensor:
        return on_path(t) ** (1.0 / kappa)

    def inverse(w: Tensor) -> Tensor:
        return schedule.time_on_path(w**kappa)

    if not onward:
        return _between(process, steps, t_min, t_max, clock, inverse)
    top, last = float(clock(first)), torch.zeros(1, dtype=torch.float64)
    if top / steps >= float(clock(low)):
        return torch.cat([first[None], inverse(torch.linspace(top, 0.0, steps + 1, dtype=torch.float64)[1:-1]), last])
    return torch.cat([_between(process, steps - 1, t_min, t_max, clock, inverse), last])


def _power(ratio: float, steps: int, longest: float = 6.0) -> float:
    r"""The largest κ in [1, 2] with a last step at most ``longest`` times the one before it, if there is one.

    The step before is $\kappa\,(r^{1/\kappa} - 1)/(N - 1)$ of the last one, to first order, at $u_{max} = r u_{min}$.
    """

    def before(kappa: float) -> float:
        return longest * kappa * math.expm1(math.log(ratio) / kappa) / max(1, steps - 1) - 1.0

    if before(2.0) >= 0.0 or before(1.0) <= 0.0:
        return 2.0 if before(2.0) >= 0.0 else 1.0
    root: float = brentq(before, 1.0, 2.0)
    return root


def from_times(times: Sequence[float] | Tensor) -> Tensor:
    """A grid from times of your own, checked: one-dimensional, finite, monotone.

    A repeated time is a step of length zero, which costs nothing.

    Raises:
        SdekitError: fewer than two times, one that is not finite, or times that turn round.
    """
    try:
        grid = torch.as_tensor(times, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError) as error:
        raise SdekitError(f"A grid is a tensor or a sequence of numbers, as from sk.grids; got {times!r}.") from error
    if grid.ndim != 1 or len(grid) < 2:
        raise SdekitError(f"A grid needs at least two times in one dimension; got shape {tuple(grid.shape)}.")
    low, high = float(grid.min()), float(grid.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SdekitError(f"A grid needs finite times; got {grid.tolist()}.")
    gaps = grid.diff()
    if low == high or (float(gaps.min()) < 0.0 < float(gaps.max())):
        turn = next((i for i in range(1, len(gaps)) if gaps[i] * gaps[i - 1] < 0), 0)
        raise SdekitError(
            f"A grid must run one way: it turns at index {turn} (…, {grid[turn]:g}, {grid[turn + 1]:g}, …). "
            "Sort the times."
        )
    return grid


def _same(t: Tensor) -> Tensor:
    return t


def schedule_for(process: Timed) -> Schedule:
    """The schedule that a grid needs.

    Raises:
        SdekitError: the process has none.
    """
    if process.schedule is None:
        raise SdekitError(f"{process!r} has no schedule: use grids.uniform or grids.quadratic.")
    return process.schedule


def check_steps(steps: int) -> None:
    """Refuse what is no number of steps."""
    if not isinstance(steps, int) or steps < 1:
        raise SdekitError(f"steps must be a whole number ≥ 1; got {steps!r}.")


def check_ends(low: float, high: float) -> None:
    """Refuse ends that are reversed, negative or not finite."""
    if not (math.isfinite(low) and math.isfinite(high) and 0.0 <= low < high):
        raise SdekitError(f"A grid needs 0 ≤ t_min < t_max; got t_min = {low:g}, t_max = {high:g}.")


def _between(
    process: Timed,
    steps: int,
    t_min: float | None,
    t_max: float | None,
    clock: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
) -> Tensor:
    """Times uniform in ``clock`` from t_max down to t_min; both ends are set, not computed."""
    check_steps(steps)
    low = process.t_min if t_min is None else float(t_min)
    high = process.t_max if t_max is None else float(t_max)
    check_ends(low, high)
    ends = clock(torch.tensor([high, low], dtype=torch.float64))
    if not bool(torch.isfinite(ends).all()):
        raise SdekitError(
            f"This grid has no finite value at t_min = {low:g} or t_max = {high:g}, where the schedule is "
            f"singular; keep away from it (the defaults are {process.t_min:g} and {process.t_max:g})."
        )
    fraction = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    grid = inverse(ends[0] * (1.0 - fraction) + ends[1] * fraction)
    grid[0], grid[-1] = high, low
    return grid
