"""Exact kernels: they compose, they are those of the SDE, and simulation agrees with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from conftest import PROCESSES
from torch import Tensor

import sdekit as sk
from sdekit.laws import Law
from sdekit.linear import GaussianKernel, LinearProcess

STIFF = torch.tensor([[100.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
TURNING = torch.tensor([[0.5, 2.0, 0.0], [-1.5, 0.8, 0.3], [0.0, 0.4, 1.1]], dtype=torch.float64)
VECTOR = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
MU = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
TALL = torch.tensor([[0.5, 0.1], [-0.3, 0.8], [0.2, 0.2]], dtype=torch.float64)

# Those with one noise level for all coordinates are in PROCESSES; these are the others, on events of shape (3,).
WIDER: dict[str, Callable[[], LinearProcess]] = {
    "vector theta": lambda: sk.OU(VECTOR, MU, 0.6),
    "vector sigma": lambda: sk.OU(0.7, MU, VECTOR),
    "vectors": lambda: sk.OU(VECTOR, 0.3, VECTOR.flip(0)),
    "matrix theta": lambda: sk.OU(TURNING, MU, 0.6),
    "matrix theta, vector sigma": lambda: sk.OU(TURNING, 0.3, VECTOR),
    "tall sigma": lambda: sk.OU(0.7, MU, TALL),
    "matrices": lambda: sk.OU(TURNING, MU, TALL),
    "no decay": lambda: sk.OU(0.0, MU, 0.6),
    "growing": lambda: sk.OU(-0.4, MU, 0.6),
    "brownian": lambda: sk.Brownian(MU, 0.8),
}
EVERY = PROCESSES | WIDER


def dense(value: float | Tensor, d: int) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64)
    return value if value.ndim == 2 else torch.diag(value.expand(d))


def law() -> sk.Gaussian:
    covariance = torch.tensor([[1.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 0.7]], dtype=torch.float64)
    return sk.Gaussian(torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64), covariance)


def assert_same(a: Law, b: Law, rtol: float) -> None:
    scale = float(a.covariance.abs().max())
    torch.testing.assert_close(a.mean, b.mean, rtol=rtol, atol=rtol * math.sqrt(scale))
    torch.testing.assert_close(a.covariance, b.covariance, rtol=rtol, atol=rtol * scale)


def times_of(process: LinearProcess) -> tuple[float, ...]:
    end = process.t_max if isinstance(process, sk.EDM) else min(process.t_max, 3.0)
    return tuple(f * end for f in (0.0, 0.02, 0.3, 0.31, 1.0))


@pytest.mark.parametrize("name", EVERY)
def test_transitions_compose(name: str) -> None:
    """Chapman–Kolmogorov: s → u → t is s → t."""
    process = EVERY[name]()
    times = times_of(process)
    for i, s in enumerate(times):
        for j, u in enumerate(times[i:], i):
            for t in times[j:]:
                through = process.transition(u, t).push(process.transition(s, u).push(law()))
                assert_same(process.transition(s, t).push(law()), through, rtol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_a_transition_over_no_time_is_the_identity(name: str) -> None:
    process = EVERY[name]()
    for t in times_of(process):
        kernel = process.transition(t, t)
        assert torch.equal(dense(kernel.matrix, 3), torch.eye(3, dtype=torch.float64))
        assert bool((torch.as_tensor(kernel.shift) == 0).all())
        assert bool((torch.as_tensor(kernel.covariance) == 0).all())


@pytest.mark.parametrize("name", EVERY)
def test_marginal_is_the_law_pushed_from_time_zero(name: str) -> None:
    """Not so for VE and DiscreteVE, whose time 0 already carries noise: the next test."""
    process: Any = EVERY[name]()
    start = process.schedule.sigma(0.0) if name in ("VE", "DiscreteVE") else 0.0
    for t in times_of(process):
        pushed = process.transition(0.0, t).push(law())
        noise = start**2 * torch.eye(3, dtype=torch.float64)
        assert_same(process.marginal(law(), t), sk.Gaussian(pushed.mean, pushed.covariance + noise), rtol=1e-12)


def test_ve_marginals_carry_sigma_min() -> None:
    """`marginal` has variance σ(t)², `transition(0, t)` has σ(t)² − σ_min²: 22 % apart at t = 0.1."""
    process = sk.VE(sigma_min=0.01, sigma_max=50.0)
    point = sk.Gaussian(torch.zeros(1, dtype=torch.float64), 0.0)
    trained = float(process.marginal(point, 0.1).variance)
    moved = float(process.transition(0.0, 0.1).push(point).variance)
    assert trained - moved == pytest.approx(0.01**2, rel=1e-12)
    assert trained / moved == pytest.approx(1.2226, abs=5e-5)


@pytest.mark.parametrize("name", EVERY)
def test_kernel_is_that_of_the_fields(name: str) -> None:
    """Mean and covariance solve m′ = drift(m), P′ = AP + PAᵀ + GGᵀ, with A and G read off the fields."""
    process: Any = EVERY[name]()
    s, t = times_of(process)[1], times_of(process)[3]
    start = law()

    def fields(u: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
        drift, g = process.drift(u, x), process.diffusion(u, x[:1])[0]
        spread = g @ g.T if g.ndim == 2 else torch.diag(g**2)
        return drift[0].numpy(), (drift[1:] - drift[0]).T.numpy(), spread.numpy()

    def rates(u: float, y: np.ndarray) -> np.ndarray:
        b, a, spread = fields(u)
        m, p = y[:3], y[3:].reshape(3, 3)
        return np.concatenate([a @ m + b, (a @ p + p @ a.T + spread).ravel()])

    y = np.concatenate([start.mean.numpy(), start.covariance.numpy().ravel()])
    nodes = [s, t]
    if name.startswith("Discrete"):  # rates jump at the nodes of a chain: integrate between them
        n = round(1 / process.t_min)
        nodes = [s, *(i / n for i in range(1, n) if s < i / n < t), t]
    for a, b in pairwise(nodes):
        inside = (math.nextafter(a, b), b)
        y = scipy.integrate.solve_ivp(rates, inside, y, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    expected = sk.Gaussian(torch.tensor(y[:3]), torch.tensor((y[3:].reshape(3, 3) + y[3:].reshape(3, 3).T) / 2))
    assert_same(process.transition(s, t).push(start), expected, rtol=1e-9)


@pytest.mark.parametrize("theta", [STIFF, torch.diag(torch.tensor([100.0, 1.0]).double())], ids=["coupled", "diagonal"])
def test_stiff_and_long(theta: Tensor) -> None:
    """A block exponential of −Θt would overflow: doubling does not, and ends in the stationary law."""
    process = sk.OU(theta, torch.tensor([1.0, -1.0]).double(), torch.eye(2).double())
    kernel = process.transition(0.0, 40.0)
    for part in (kernel.matrix, kernel.shift, kernel.covariance):
        assert bool(torch.isfinite(torch.as_tensor(part)).all())
    stationary = process.stationary((2,))
    assert_same(kernel.push(sk.Gaussian(torch.zeros(2).double(), 1.0)), stationary, rtol=1e-12)
    short = process.transition(0.0, 1e-5)
    torch.testing.assert_close(short.covariance, 1e-5 * torch.eye(2).double(), rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("name", ["OU", "vector theta", "vector sigma", "vectors", "matrix theta", "matrices"])
def test_stationary_law_stays(name: str) -> None:
    process: Any = EVERY[name]()
    stationary = process.stationary((3,))
    assert_same(process.transition(0.3, 2.0).push(stationary), stationary, rtol=1e-12)
    assert_same(process.transition(0.0, 300.0).push(law()), stationary, rtol=1e-12)


def test_scalar_stationary_law() -> None:
    stationary = sk.OU(theta=2.0, mu=0.7, sigma=3.0).stationary((4,))
    torch.testing.assert_close(stationary.mean, torch.full((4,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(stationary.covariance, 9.0 / 4.0 * torch.eye(4).double())


@pytest.mark.parametrize("name", EVERY)
def test_prior_is_what_becomes_of_a_point_at_zero(name: str) -> None:
    process = EVERY[name]()
    point = sk.Gaussian(torch.zeros(3, dtype=torch.float64), 0.0)
    assert_same(process.prior((3,)), process.marginal(point, process.t_max), rtol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (3, 3)], ids=str)
@pytest.mark.parametrize("name", PROCESSES)
def test_event_shapes(name: str, shape: tuple[int, ...]) -> None:
    process, d = PROCESSES[name](), math.prod(shape)
    spread = torch.linspace(0.5, 2.0, d, dtype=torch.float64).reshape(shape)
    x = torch.ones(7, *shape, dtype=torch.float64)
    t = 0.5 * process.t_max
    kernel = process.transition(process.t_min, t)
    assert process.marginal(sk.Gaussian(spread, spread), t).event_shape == shape
    assert process.prior(shape).event_shape == shape
    assert kernel.law(x[0]).event_shape == shape
    assert process.drift(t, x).shape == process.diffusion(t, x).shape == kernel.mean(x).shape == x.shape
    times = torch.full((7,), t, dtype=torch.float64)
    torch.testing.assert_close(process.drift(times, x), process.drift(t, x))
    torch.testing.assert_close(process.diffusion(times, x), process.diffusion(t, x))


def test_vectors_of_the_event_shape() -> None:
    """Θ, μ, Σ of shape (C, H, W): every pixel is a scalar process of its own."""
    theta, mu, sigma = (
        torch.linspace(a, b, 12, dtype=torch.float64).reshape(3, 2, 2) for a, b in ((0, 2), (-1, 1), (1, 2))
    )
    process: Any = sk.OU(theta, mu, sigma)
    data = sk.Gaussian(mu.flip(0), sigma.flip(0))
    x = torch.ones(2, 3, 2, 2, dtype=torch.float64)
    whole, times = process.marginal(data, 0.7), torch.tensor([0.7, 0.2], dtype=torch.float64)
    for i in np.ndindex(3, 2, 2):
        alone = sk.OU(float(theta[i]), float(mu[i]), float(sigma[i]))
        one = alone.marginal(sk.Gaussian(mu.flip(0)[i][None], sigma.flip(0)[i][None]), 0.7)
        assert float(whole.mean[i]) == pytest.approx(float(one.mean), rel=1e-13)
        assert float(whole.variance[i]) == pytest.approx(float(one.variance), rel=1e-13)
        assert float(process.drift(0.7, x)[0][i]) == pytest.approx(float(alone.drift(0.7, x[..., 0, 0])[0, 0]))
        assert float(process.shift(0.7)[i]) == pytest.approx(float(alone.shift(0.7)))
        assert float(process.shift(times)[1][i]) == pytest.approx(float(alone.shift(0.2)))
    assert process.shift(times).shape == x.shape


@pytest.mark.parametrize("name", EVERY)
def test_shift_is_where_zero_goes(name: str) -> None:
    process = EVERY[name]()
    for t in times_of(process)[1:]:
        carried = torch.as_tensor(process.transition(0.0, t).shift, dtype=torch.float64)
        torch.testing.assert_close(
            torch.as_tensor(process.shift(t), dtype=torch.float64), carried, rtol=1e-12, atol=1e-15
        )


def test_brownian_motion_with_drift() -> None:
    """N(x₀ + ct, s²t)."""
    rate = torch.tensor([1.0, -0.5], dtype=torch.float64)
    kernel = sk.Brownian(rate, noise=0.3).transition(0.2, 0.9)
    x = torch.tensor([[1.0, 2.0], [0.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(kernel.mean(x), x + 0.7 * rate)
    assert kernel.matrix == 1.0
    assert kernel.covariance == pytest.approx(0.3**2 * 0.7, rel=1e-14)
    assert sk.Brownian(rate=1, noise=2).transition(0.0, 0.25).covariance == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(3,), (3, 3)], ids=str)
def test_a_kernel_samples_with_the_symmetric_root(shape: tuple[int, ...]) -> None:
    d = math.prod(shape)
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, z = torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variances = torch.linspace(0.1, 2.0, d, dtype=torch.float64).reshape(shape)
    diagonal = GaussianKernel(0.5, 1.0, variances)
    torch.testing.assert_close(diagonal.sample(x, z), 0.5 * x + 1.0 + variances.sqrt() * z)
    full = GaussianKernel(a, 0.0, a @ a.T)
    root = (full.sample(x, z) - full.mean(x)).flatten(1).T @ torch.linalg.pinv(z.flatten(1).T)
    if len(z) >= d:
        torch.testing.assert_close(root, root.T)
    many = torch.eye(d, dtype=torch.float64).reshape(d, *shape)
    root = (full.sample(many, many) - full.mean(many)).flatten(1)
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ root, a @ a.T)


def test_a_kernel_is_the_same_in_every_batch() -> None:
    a = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = GaussianKernel(a, 0.3, a @ a.T)
    x, z = torch.randn(2, 64, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = kernel.sample(x, z)
    for rows in ([5], [63, 0, 9]):
        assert torch.equal(kernel.sample(x[rows], z[rows]), whole[rows])


@pytest.mark.statistical
def test_simulation_against_the_marginal() -> None:
    """Euler–Maruyama on VP: against the law of the scheme itself, which is 1 % from the marginal.

    40,000 samples of two coordinates, seed 0; |z| < 5 on two means, two variances, one correlation: rate 3e-6 in all.
    """
    process, n, steps = sk.VP(), 40_000, 64
    data = sk.Gaussian(torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.3, 1.5], dtype=torch.float64))
    grid = sk.grids.uniform(process, steps, t_min=0.0).flip(0)
    x = sk.solve(process, data.sample(n, seed=1), grid, "euler-maruyama", noise=0).check().final

    mean, variance = data.mean.clone(), data.variance.clone()
    for s, t in pairwise(grid.tolist()):
        growth = 1.0 - 0.5 * process.schedule.beta(s) * (t - s)
        mean, variance = growth * mean, growth**2 * variance + process.schedule.beta(s) * (t - s)
    exact = process.marginal(data, 1.0)
    assert float((mean - exact.mean).abs().max()) < 0.01
    assert float((variance / exact.variance - 1).abs().max()) < 0.15

    z = (x - mean) / variance.sqrt()
    assert bool((z.mean(0).abs() * math.sqrt(n) < 5).all())
    assert bool(((z.square().mean(0) - 1).abs() * math.sqrt(n / 2) < 5).all())
    assert abs(float((z[:, 0] * z[:, 1]).mean())) * math.sqrt(n) < 5
