"""Grids: uniform in their clock, exact at both ends, decreasing, float64 on the host."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from conftest import PROCESSES
from scipy.special import betainc
from torch import Tensor

import sdekit as sk
from sdekit import grids

GRIDS: dict[str, Callable[..., Tensor]] = {
    "uniform": grids.uniform,
    "quadratic": grids.quadratic,
    "log_snr": grids.log_snr,
    "karras": grids.karras,
    "sigma_uniform": grids.sigma_uniform,
    "polynomial": grids.polynomial,
    "beta": grids.beta,
}


def clock(kind: str, process: grids.Timed, t: Tensor) -> Tensor:
    """What the grid is uniform in, from its definition."""
    schedule = process.schedule
    assert schedule is not None
    noise_to_signal = schedule.sigma(t) / schedule.alpha(t)
    lam = schedule.lam(t)
    return {
        "uniform": t,
        "quadratic": t.sqrt(),
        "log_snr": noise_to_signal.log(),
        "karras": noise_to_signal ** (1 / 7),
        "sigma_uniform": noise_to_signal,
        "polynomial": -(lam - lam[0]).clamp(min=0.0).sqrt(),
        "beta": torch.from_numpy(betainc(0.6, 0.6, ((t - t[-1]) / (t[0] - t[-1])).numpy())),
    }[kind]


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 17, 256])
def test_every_grid(name: str, kind: str, steps: int) -> None:
    process = PROCESSES[name]()
    grid = GRIDS[kind](process, steps)
    assert grid.dtype == torch.float64
    assert grid.device.type == "cpu"
    assert grid.shape == (steps + 1,)
    assert (float(grid[0]), float(grid[-1])) == (process.t_max, process.t_min)
    assert bool((grid.diff() < 0).all())
    gaps = clock(kind, process, grid).diff()
    span = float(gaps.sum().abs())
    torch.testing.assert_close(gaps, torch.full_like(gaps, -span / steps), rtol=0, atol=1e-9 * span)
    torch.testing.assert_close(grids.from_times(grid), grid, rtol=0, atol=0)


@pytest.mark.parametrize("kind", GRIDS)
def test_own_ends(name: str, kind: str) -> None:
    process = PROCESSES[name]()
    low, high = 0.2 * process.t_max, 0.7 * process.t_max
    grid = GRIDS[kind](process, 5, t_min=low, t_max=high)
    assert (float(grid[0]), float(grid[-1])) == (high, low)
    assert bool((grid.diff() < 0).all())


def test_karras_is_the_papers() -> None:
    """Karras et al. (2022), equation (5), with N − 1 = 18 steps."""
    low, high, rho, n = 0.002, 80.0, 7.0, 18
    expected = [(high ** (1 / rho) + i / n * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n + 1)]
    torch.testing.assert_close(
        grids.karras(sk.EDM(), n), torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0
    )
    five = grids.karras(sk.EDM(), 4, rho=5)
    assert float(five[2]) == pytest.approx(((high**0.2 + low**0.2) / 2) ** 5, rel=1e-13)


def test_limits_of_rho(name: str) -> None:
    process = PROCESSES[name]()
    torch.testing.assert_close(grids.karras(process, 9, rho=1.0), grids.sigma_uniform(process, 9))
    torch.testing.assert_close(grids.karras(process, 9, rho=1e5), grids.log_snr(process, 9), rtol=1e-3, atol=1e-6)


def test_time_zero_is_a_time_where_the_clock_is_finite() -> None:
    assert float(grids.uniform(sk.VP(), 4, t_min=0.0)[-1]) == 0.0
    assert float(grids.sigma_uniform(sk.VP(), 4, t_min=0.0)[-1]) == 0.0
    assert float(grids.log_snr(sk.VE(), 4)[-1]) == 0.0


def test_a_process_without_a_schedule_has_two_grids() -> None:
    process = sk.OU(torch.eye(2))
    assert grids.uniform(process, 2).tolist() == [5.0, (5.0 + 1e-3) / 2, 1e-3]
    assert grids.quadratic(process, 3).shape == (4,)


@pytest.mark.parametrize("times", [[0.0, 0.5, 0.5, 1.0], [1.0, 1.0, 0.2], (3, 2, 1), torch.tensor([0.1, 0.2])], ids=str)
def test_from_times(times: list[float] | Tensor) -> None:
    grid = grids.from_times(times)
    assert grid.dtype == torch.float64
    assert grid.tolist() == [float(t) for t in times]


def test_from_times_does_not_carry_gradients_or_alias() -> None:
    times = torch.tensor([0.0, 1.0], dtype=torch.float32, requires_grad=True)
    assert not grids.from_times(times).requires_grad


def test_no_grid_accumulates_time() -> None:
    """A thousand steps of 1e-3 end at 1, and node k is k/1000 to one rounding."""
    grid = grids.uniform(sk.VP(t_min=0.0), 1000).flip(0)
    expected = torch.tensor([k / 1000 for k in range(1001)], dtype=torch.float64)
    assert float((grid - expected).abs().max()) <= math.ulp(1.0)
