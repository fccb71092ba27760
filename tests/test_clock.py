"""Paths in the clock of a sampler's noise integral: one path at any number of steps."""

from __future__ import annotations

import pytest
import torch

import sdekit as sk
from sdekit.brownian import snr_clock

POINT = sk.Gaussian([1.5, -0.5], 0.0)
EXPONENTIAL = ("sde-dpmpp-1", "sde-dpmpp-2m", "sde-dpmpp-3m", "er-sde-2", "er-sde-3", "sa-solver")
PROCESSES = {"VP": sk.VP(), "EDM": sk.EDM()}


def on_one_path(stepper: str, process, eta: float, clock, data=POINT, fine: int = 80) -> list[torch.Tensor]:
    """The same samples at 10, 20, 40 and 80 steps."""
    sde = sk.reverse_time(process, sk.exact_score(data, process), eta)
    grid, shape = sk.grids.log_snr(process, fine), (3, *data.event_shape)
    x = process.prior(data.event_shape).sample(3, seed=1)
    path = sk.BrownianGrid.on(grid, shape, seed=3, clock=clock)
    return [sk.solve(sde, x, grid[::k], stepper, noise=path).final for k in (8, 4, 2, 1)]


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("stepper", EXPONENTIAL)
def test_a_point_mass_gives_the_same_sample_at_every_number_of_steps(stepper, name, eta):
    process = PROCESSES[name]
    first, *others = on_one_path(stepper, process, eta, snr_clock(process.schedule, eta))
    assert max(float((x - first).abs().max()) for x in others) < 1e-12


def test_a_point_mass_shows_a_path_in_another_clock():
    first, *others = on_one_path("sde-dpmpp-2m", sk.VP(), 1.0, None)
    assert max(float((x - first).abs().max()) for x in others) > 1e-3
    half = snr_clock(sk.VP().schedule, 0.5)  # the clock of another η
    first, *others = on_one_path("sde-dpmpp-2m", sk.VP(), 1.0, half)
    assert max(float((x - first).abs().max()) for x in others) > 1e-3


@pytest.mark.parametrize("stepper", [*EXPONENTIAL, "ddim"])
def test_one_path_converges_to_one_sample(stepper):
    """Strong order one: from 10 to 40 steps the distance to 640 steps falls by 3 at least."""
    process = sk.VP()
    data = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])
    sde = sk.reverse_time(process, sk.exact_score(data, process))
    grid = sk.grids.log_snr(process, 640)
    x = process.prior((1,)).sample(200, seed=1)
    path = sk.BrownianGrid.on(grid, (200, 1), seed=3, clock=snr_clock(process.schedule))
    finest, *coarse = (sk.solve(sde, x, grid[::k], stepper, noise=path).final for k in (1, 16, 32, 64))
    forty, twenty, ten = (float((c - finest).square().mean().sqrt()) for c in coarse)
    assert forty < 0.7 * twenty < 0.7**2 * ten
    assert forty < ten / 3


@pytest.mark.statistical
def test_the_variance_of_an_increment_is_how_far_the_clock_moves():
    clock = snr_clock(sk.VP().schedule, 0.7)
    times = torch.tensor([0.2, 0.4, 0.7], dtype=torch.float64)
    path = sk.BrownianGrid.on(times, (40_000,), seed=5, clock=clock)
    reading = clock(times)
    for i, j in ((0, 1), (1, 2), (0, 2)):
        s, t = float(times[i]), float(times[j])
        assert path.variance(s, t) == pytest.approx(float(reading[i] - reading[j]), rel=1e-12)
        # Seed 5: the ratio of a variance from 40,000 normals has deviation 0.007; five of them, false alarm 6e-7.
        assert float(path.increment(s, t).w.var()) / path.variance(s, t) == pytest.approx(1.0, abs=0.035)
    whole = path.increment(0.2, 0.4).w + path.increment(0.4, 0.7).w
    torch.testing.assert_close(whole, path.increment(0.2, 0.7).w, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clock": lambda t: (t - 0.5) ** 2}, "monotone on the times"),
        ({"clock": lambda t: 1.0 / t}, "finite"),
        ({"clock": lambda t: t**2, "levy": "space-time"}, "Lévy areas belong to the clock t"),
    ],
)
def test_bad_clocks(options, message):
    with pytest.raises(sk.SdekitError, match=message):
        sk.BrownianGrid((2, 1), steps=4, **options)


def test_a_flow_has_no_clock():
    with pytest.raises(sk.SdekitError, match="η > 0"):
        snr_clock(sk.VP().schedule, 0.0)
