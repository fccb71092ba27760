"""The reference flow against closed forms, on the line and in the plane, and as the measure of solvers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import grids
from sdekit.problems.reverse import PROCESSES, mild_mixture, rotated_gaussian
from sdekit.steppers import Step
from sdekit.verify import fit_order, flow, mid_quantiles, quantile_flow, reference_flow

TURN = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
OTHER = sk.GaussianMixture([0.3, 0.7], [[-0.5], [1.5]], [0.16, 0.49])


def turned_product() -> sk.GaussianMixture:
    """Independent mixtures along two axes that are turned: four components in the plane."""
    lines = mild_mixture(), OTHER
    pairs = [(i, j) for i in range(2) for j in range(2)]
    weights = torch.stack([lines[0].weights[i] * lines[1].weights[j] for i, j in pairs])
    parts = [(lines[0].components[i], lines[1].components[j]) for i, j in pairs]
    means = torch.stack([TURN @ torch.cat([a.mean, b.mean]) for a, b in parts])
    covariances = torch.stack([TURN @ torch.diag(torch.cat([a.variance, b.variance])) @ TURN.T for a, b in parts])
    return sk.GaussianMixture(weights, means, covariances)


def exact_flow(process, x: Tensor, s: float, t: float) -> Tensor:
    """Along the turned axes the flows of the two mixtures are independent quantile maps."""
    along = x @ TURN
    columns = [quantile_flow(process, law, along[:, i : i + 1], s, t) for i, law in enumerate((mild_mixture(), OTHER))]
    return torch.cat(columns, dim=1) @ TURN.T


def there_and_back(process) -> list[tuple[float, float]]:
    return [(process.t_max, process.t_min), (process.t_min, process.t_max)]


@pytest.mark.parametrize("name", PROCESSES)
def test_it_is_the_quantile_map_on_the_line(name):
    process, data = PROCESSES[name](), mild_mixture()
    ode = sk.probability_flow(process, sk.exact_score(data, process))
    for s, t in there_and_back(process):
        x = mid_quantiles(process.marginal(data, s), 64)
        torch.testing.assert_close(
            reference_flow(ode, x, s, t), quantile_flow(process, data, x, s, t), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("name", PROCESSES)
def test_it_is_the_closed_form_of_gaussian_data(name):
    process, data = PROCESSES[name](), rotated_gaussian()
    ode = sk.probability_flow(process, sk.exact_score(data, process))
    x = process.marginal(data, process.t_max).sample(32, seed=1)
    exact = sk.solve(ode, x, [process.t_max, process.t_min], "exact-linear").final
    torch.testing.assert_close(reference_flow(ode, x, process.t_max, process.t_min), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("accuracy", [1e-11, 1e-6])
def test_the_stated_accuracy_is_kept_in_the_plane(accuracy):
    process = sk.VP()
    ode = sk.probability_flow(process, sk.exact_score(turned_product(), process))
    x = process.marginal(turned_product(), 1.0).sample(128, seed=2)
    found, exact = reference_flow(ode, x, 1.0, 1e-3, accuracy), exact_flow(process, x, 1.0, 1e-3)
    error = float((found - exact).abs().max())
    assert error <= 0.1 * accuracy
    assert accuracy < 1e-8 or error > 1e-14  # less was asked for, and less was done


def test_a_slip_in_the_score_is_seen_in_the_last_digits():
    process, data = sk.VP(), turned_product()
    x = process.marginal(data, 1.0).sample(16, seed=2)
    score = sk.exact_score(data, process)
    slipped = sk.probability_flow(process, lambda t, y: (1.0 + 1e-10) * score(t, y))
    error = float((reference_flow(slipped, x, 1.0, 1e-3) - exact_flow(process, x, 1.0, 1e-3)).abs().max())
    assert 1e-11 < error < 1e-8


class HeunAtTheStart(sk.Heun):
    """The second slope at the time of the first."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        first = sde.drift(t0, x)
        return Step(x + 0.5 * (t1 - t0) * (first + sde.drift(t0, x + (t1 - t0) * first)))


@pytest.mark.parametrize(("stepper", "order"), [("euler", 1), ("heun", 2), ("rk4", 4), ("dpmpp-2m", 2)])
def test_orders_of_solvers_on_a_mixture_in_the_plane(stepper, order):
    found = measured(stepper)
    assert found.consistent_with(order), found


def test_a_slope_at_the_wrong_time_is_caught():
    found = measured(HeunAtTheStart())
    assert found.order < 1.2, found


def measured(stepper):
    process, data = sk.VP(), turned_product()
    ode = sk.probability_flow(process, sk.exact_score(data, process))
    x = process.marginal(data, 1.0).sample(64, seed=3)
    exact = reference_flow(ode, x, 1.0, 1e-2)
    steps = (32, 64, 128, 256)
    runs = [sk.solve(ode, x, grids.log_snr(process, n, 1e-2, 1.0), stepper).final for n in steps]
    return fit_order(steps, [float((run - exact).square().mean().sqrt()) for run in runs], 1e-12)


def test_the_field_is_only_asked_on_the_way():
    asked = []

    def drift(t, x):
        asked.append(t)
        return -x

    x = torch.ones(3, 2, dtype=torch.float64)
    found = reference_flow(sk.sde(drift), x, 1.0, 0.25)
    torch.testing.assert_close(found, x * math.exp(0.75), rtol=1e-13, atol=0.0)
    assert min(asked) >= 0.25
    assert max(asked) <= 1.0


def test_nothing_to_do_is_nothing_done():
    x = torch.ones(2, 3, dtype=torch.float32)
    found = reference_flow(sk.sde(lambda t, x: x), x, 0.5, 0.5)
    assert found.dtype == torch.float64
    assert torch.equal(found, x.double())


def test_a_loose_integration_is_refused(monkeypatch):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64)[:, None]
    loose = flow._integrated
    monkeypatch.setattr(flow, "_integrated", lambda sde, x, s, t, tolerance: loose(sde, x, s, t, 1e7 * tolerance))
    with pytest.raises(sk.SdekitError, match=r"is known to .*, not to 1e-12"):
        reference_flow(sk.sde(lambda t, x: torch.sin(3.0 * x) * math.cos(5.0 * t)), x, 0.0, 4.0, accuracy=1e-12)


@pytest.mark.parametrize(
    ("sde", "arguments", "message"),
    [
        (sk.sde(lambda t, x: x, lambda t, x: x), (0.0, 1.0), "diagonal noise: use probability_flow"),
        (sk.sde(lambda t, x: x), (0.0, math.inf), "finite times"),
        (sk.sde(lambda t, x: x), (0.0, 1.0, 1e-15), "accuracy = 1e-15"),
        (sk.sde(lambda t, x: x / (t - 0.5) if t < 0.5 else x * math.nan), (0.0, 1.0), "NaN or Inf"),
    ],
)
def test_what_cannot_be_done_is_refused(sde, arguments, message):
    with pytest.raises(sk.SdekitError, match=message):
        reference_flow(sde, torch.ones(2, 1, dtype=torch.float64), *arguments)
