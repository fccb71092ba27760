"""Schedules against 50-digit arithmetic, their inverses, their rates, and the chains they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import mpmath as mp  # type: ignore[import-untyped]
import pytest
import torch
from conftest import BETAS, PROCESSES, SIGMAS

import sdekit as sk
from sdekit.schedules import LinearBeta, Schedule

Truth = Callable[[mp.mpf], tuple[mp.mpf, mp.mpf]]
DIGITS = 50


def linear_beta(t: mp.mpf) -> mp.mpf:
    low, high = mp.mpf(0.1), mp.mpf(20.0)
    return low * t + (high - low) * t**2 / 2


def cosine(t: mp.mpf) -> mp.mpf:
    s = mp.mpf(0.008)
    return mp.cos(mp.pi / 2 * (t + s) / (1 + s)) / mp.cos(mp.pi / 2 * s / (1 + s))


def chain(levels: list[mp.mpf], t: mp.mpf, first: int) -> mp.mpf:
    """Linear through ``levels[i]`` at (i + first)/L, the end pieces continued."""
    n = len(levels) - 1 + first
    i = min(max(int(mp.ceil(t * n)) - first, 1), len(levels) - 1)
    w = t * n - first - (i - 1)
    return levels[i - 1] * (1 - w) + levels[i] * w


def log_alphas() -> list[mp.mpf]:
    return list(itertools.accumulate((mp.log(1 - mp.mpf(b)) / 2 for b in BETAS.tolist()), initial=mp.mpf(0)))


# log α and σ, from the definitions in the lectures and papers.
TRUTH: dict[str, Truth] = {
    "VP": lambda t: (-linear_beta(t) / 2, mp.sqrt(1 - mp.exp(-linear_beta(t)))),
    "SubVP": lambda t: (-linear_beta(t) / 2, 1 - mp.exp(-linear_beta(t))),
    "VE": lambda t: (mp.mpf(0), mp.mpf(0.01) * (mp.mpf(50.0) / mp.mpf(0.01)) ** t),
    "Cosine": lambda t: (mp.log(cosine(t)), mp.sqrt(1 - cosine(t) ** 2)),
    "EDM": lambda t: (mp.mpf(0), t),
    "Flow": lambda t: (mp.log(1 - t), t),
    "OU": lambda t: (-mp.mpf(1.3) * t, mp.mpf(0.9) * mp.sqrt((1 - mp.exp(-2 * mp.mpf(1.3) * t)) / (2 * mp.mpf(1.3)))),
    "Brownian": lambda t: (mp.mpf(0), mp.mpf(1.7) * mp.sqrt(t)),
    "DiscreteVP": lambda t: (chain(log_alphas(), t, 0), mp.sqrt(1 - mp.exp(2 * chain(log_alphas(), t, 0)))),
    "DiscreteVE": lambda t: (mp.mpf(0), mp.exp(chain([mp.log(mp.mpf(s)) for s in SIGMAS.tolist()], t, 1))),
}
SMALL = [1e-12, 1e-9, 1e-6, 1e-4, 1e-3]
UNIT = [0.013, 0.107, 0.371, 0.503, 0.713, 0.907]  # no nodes of the chains: rates jump there
TIMES: dict[str, list[float]] = {
    "VP": [*SMALL, *UNIT, 1.0],
    "SubVP": [*SMALL, *UNIT, 1.0],
    "VE": [0.0, *SMALL, *UNIT, 1.0],
    "Cosine": [*SMALL, *UNIT, 0.99, 0.9999, 1 - 1e-6],
    "EDM": [*SMALL, *UNIT, 1.0, 17.3, 80.0],
    "Flow": [*SMALL, *UNIT, 0.99, 0.9999, 1 - 1e-9],
    "OU": [*SMALL, *UNIT, 1.0, 5.0, 20.0],
    "Brownian": [*SMALL, *UNIT, 1.0, 50.0],
    "DiscreteVP": [*SMALL, *UNIT, 0.999, 1.0],
    "DiscreteVE": [0.0, *SMALL, *UNIT, 0.999, 1.0],
}
SCALARS = ("log_alpha", "alpha", "sigma", "lam", "drift_rate", "diffusion_rate")


@pytest.fixture
def schedule(name: str) -> Schedule:
    found = PROCESSES[name]().schedule
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def precision() -> object:
    with mp.workdps(DIGITS):
        yield


def test_levels_against_fifty_digits(name: str, schedule: Schedule) -> None:
    for t in TIMES[name]:
        log_alpha, sigma = TRUTH[name](mp.mpf(t))
        # A relative error in t of one rounding moves log α by t f, and α near its zero by far more than one.
        floor = abs(t * schedule.drift_rate(t)) + abs(float(log_alpha))
        assert schedule.log_alpha(t) == pytest.approx(float(log_alpha), rel=0, abs=1e-15 + 4e-16 * floor), t
        assert schedule.alpha(t) == pytest.approx(float(mp.exp(log_alpha)), rel=1e-15 + 4e-16 * floor), t
        assert schedule.sigma(t) == pytest.approx(float(sigma), rel=2e-15), t
        lam = float(log_alpha - mp.log(sigma))
        assert schedule.lam(t) == pytest.approx(lam, rel=0, abs=1e-15 * (1 + abs(lam)) + 4e-16 * floor), t


def test_rates_against_fifty_digits(name: str, schedule: Schedule) -> None:
    for t in TIMES[name]:
        if t == 0.0 or (name.startswith("Discrete") and t == 1.0):
            continue  # one-sided there
        at = mp.mpf(t)
        step = at * mp.mpf(10) ** -18
        rate = mp.diff(lambda u: TRUTH[name](u)[0], at, h=step)
        spread = mp.diff(lambda u: TRUTH[name](u)[1] ** 2, at, h=step) - 2 * rate * TRUTH[name](at)[1] ** 2
        slack = 1e-14 + 4e-16 / (1 - t) if name in ("Cosine", "Flow") else 1e-14
        assert schedule.drift_rate(t) == pytest.approx(float(rate), rel=slack, abs=1e-14), t
        assert schedule.diffusion_rate(t) == pytest.approx(float(spread), rel=slack), t


def test_rates_against_autograd(name: str, schedule: Schedule) -> None:
    """f = d log α/dt, and dλ/dt = −g²/2σ²."""
    t = torch.tensor([u for u in TIMES[name] if 1e-6 <= u < 1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.lam(t).sum(), t)
    expected = -schedule.diffusion_rate(t) / (2 * schedule.sigma(t) ** 2)
    torch.testing.assert_close(slope, expected.detach(), rtol=1e-10, atol=0)
    if name in ("VE", "EDM", "Brownian", "DiscreteVE"):
        assert bool((schedule.drift_rate(t) == 0).all())
        return
    (rate,) = torch.autograd.grad(schedule.log_alpha(t).sum(), t)
    torch.testing.assert_close(rate, schedule.drift_rate(t).detach(), rtol=1e-10, atol=1e-12)


def test_time_at_inverts_lam(name: str, schedule: Schedule) -> None:
    """To 1e-10 everywhere; relative to t near the data, relative to 1 − t near a vanishing α."""
    for t in TIMES[name]:
        relative = schedule.noiseless == 0.0 and not (name == "Cosine" and t < 1e-4)
        assert schedule.time_at(schedule.lam(t)) == pytest.approx(t, rel=0, abs=1e-10 * (t if relative else 1.0)), t
        if schedule.signalless == 1.0 and t > 0.9:
            assert 1 - schedule.time_at(schedule.lam(t)) == pytest.approx(1 - t, rel=1e-6), t


def test_lam_inverts_time_at(name: str, schedule: Schedule) -> None:
    low, high = (schedule.lam(t) for t in (TIMES[name][-2], max(TIMES[name][0], 1e-4)))
    lams = torch.linspace(low, high, 101, dtype=torch.float64)
    torch.testing.assert_close(schedule.lam(schedule.time_at(lams)), lams, rtol=0, atol=1e-10)


def test_floats_and_tensors_agree(name: str, schedule: Schedule) -> None:
    times = torch.tensor(TIMES[name], dtype=torch.float64)
    for scalar in SCALARS:
        each = [getattr(schedule, scalar)(t) for t in times.tolist()]
        assert all(isinstance(value, float) for value in each), scalar
        together = getattr(schedule, scalar)(times)
        torch.testing.assert_close(together, torch.tensor(each, dtype=torch.float64), rtol=1e-13, atol=1e-15)
        assert getattr(schedule, scalar)(times.float()).dtype == torch.float32
        assert getattr(schedule, scalar)(times[3]).shape == ()
    lams = schedule.lam(times)
    each = [schedule.time_at(u) for u in lams.tolist()]
    assert all(isinstance(value, float) for value in each)
    torch.testing.assert_close(schedule.time_at(lams), torch.tensor(each, dtype=torch.float64), rtol=1e-12, atol=1e-15)


def test_lam_decreases(name: str, schedule: Schedule) -> None:
    times = torch.linspace(TIMES[name][0], TIMES[name][-1], 999, dtype=torch.float64)
    assert bool((schedule.lam(times).diff() < 0).all())


def test_singular_ends_are_declared(name: str, schedule: Schedule) -> None:
    assert schedule.noiseless == (None if name in ("VE", "DiscreteVE") else 0.0)
    assert schedule.signalless == (1.0 if name in ("Cosine", "Flow") else None)
    for zero in (0.0, torch.zeros((), dtype=torch.float64)):
        lam, sigma = float(schedule.lam(zero)), float(schedule.sigma(zero))
        assert (lam, sigma) == (math.inf, 0.0) if schedule.noiseless == 0.0 else lam < 10 and sigma > 0
    if schedule.signalless is not None:
        assert float(schedule.alpha(schedule.signalless)) == pytest.approx(0.0, abs=1e-15)
        assert float(schedule.lam(schedule.signalless)) < -35


@pytest.mark.parametrize("name", ["VP", "Cosine", "DiscreteVP"])
def test_variance_is_preserved(name: str, schedule: Schedule) -> None:
    t = torch.tensor(TIMES[name], dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-15)
    torch.testing.assert_close(schedule.diffusion_rate(t), -2 * schedule.drift_rate(t), rtol=1e-15, atol=0)


def test_alpha_and_sigma_give_lam(name: str, schedule: Schedule) -> None:
    t = torch.tensor([u for u in TIMES[name] if u > 0], dtype=torch.float64)
    torch.testing.assert_close(schedule.lam(t), (schedule.alpha(t) / schedule.sigma(t)).log(), rtol=1e-8, atol=1e-12)


def test_constant_beta() -> None:
    """The quadratic of the linear β degenerates without harm."""
    schedule = LinearBeta(2.0, 2.0)
    for t in (1e-9, 0.3, 1.0):
        assert schedule.log_alpha(t) == pytest.approx(-t, rel=1e-15)
        assert schedule.time_at(schedule.lam(t)) == pytest.approx(t, rel=1e-12)


def test_ddpm_chain_is_exact_at_its_nodes() -> None:
    process, n = sk.DiscreteVP(BETAS), len(BETAS)
    product = mp.mpf(1)
    for i, beta in enumerate(BETAS.tolist(), start=1):
        product *= 1 - mp.mpf(beta)
        for t in (i / n, torch.tensor(i / n, dtype=torch.float64)):
            assert float(process.schedule.alpha(t)) ** 2 == pytest.approx(float(product), rel=1e-14)
            assert float(process.schedule.sigma(t)) ** 2 == pytest.approx(float(1 - product), rel=1e-14)
        step = process.transition((i - 1) / n, i / n)
        assert step.matrix == pytest.approx(math.sqrt(1 - beta), rel=1e-13)
        assert step.covariance == pytest.approx(beta, rel=1e-12)
    assert process.t_min == 1 / n


def test_smld_chain_is_exact_at_its_nodes() -> None:
    process, sigmas = sk.DiscreteVE(SIGMAS), SIGMAS.tolist()
    n = len(sigmas)
    for i, sigma in enumerate(sigmas, start=1):
        assert process.schedule.sigma(i / n) == pytest.approx(sigma, rel=1e-14)
        if i > 1:
            step = process.transition((i - 1) / n, i / n)
            assert step.matrix == 1.0
            assert step.covariance == pytest.approx(sigma**2 - sigmas[i - 2] ** 2, rel=1e-12)


def test_the_rate_at_a_node_is_that_of_the_step_which_led_there() -> None:
    chain_vp, n = sk.DiscreteVP(BETAS).schedule, len(BETAS)
    for i in (1, 20, n):
        expected = -n * math.log1p(-float(BETAS[i - 1]))
        assert chain_vp.diffusion_rate(i / n) == pytest.approx(expected, rel=1e-12)
        assert chain_vp.diffusion_rate((i - 0.5) / n) == pytest.approx(expected, rel=1e-12)
