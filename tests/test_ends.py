"""What happens after the last time: laws that must be the data's, noise of its own, and what is refused."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

import sdekit as sk
from sdekit import random
from sdekit.steppers import exact
from sdekit.verify import numerical_law

DATA = sk.Gaussian([0.5, -1.0], [[0.3, 0.2], [0.2, 1.0]])
POINT = sk.Gaussian([0.5, -1.0], 0.0)
PROCESSES = {
    "VP": sk.VP(),
    "SubVP": sk.SubVP(),
    "VE": sk.VE(sigma_min=0.1),  # both have noise at their time 0
    "DiscreteVE": sk.DiscreteVE([0.1, 0.5, 2.0, 10.0]),
    "DiscreteVP": sk.DiscreteVP([0.02, 0.1, 0.3, 0.5]),
    "OU": sk.OU(theta=0.7, mu=2.0),
    "Flow": sk.Flow(),
}
MATRIX = sk.OU(theta=torch.tensor([[1.0, 0.5], [-0.5, 2.0]]), sigma=torch.tensor([[1.0, 0.0], [0.5, 0.3]]), t_max=3.0)


def ended(process, data, eta, end, grid=None):
    """The law that an exact solver and a policy make of the right start."""
    grid = sk.grids.uniform(process, 3) if grid is None else grid
    sde = sk.reverse_time(process, sk.exact_score(data, process), eta)
    return numerical_law(sde, "exact-linear", grid, process.marginal(data, float(grid[0])), end)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("data", [DATA, POINT], ids=["normal", "point"])
@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_end_has_the_law_of_the_data(name, data, eta):
    assert sk.metrics.wasserstein2(ended(PROCESSES[name], data, eta, "exact-linear"), data) < 1e-13


def test_a_process_without_a_schedule_ends_exactly_too():
    assert sk.metrics.wasserstein2(ended(MATRIX, DATA, 1.0, "exact-linear"), DATA) < 1e-13


def test_a_process_that_is_noisy_at_time_zero_goes_on_to_the_data():
    """Negative control: stopping at the time 0 of VE leaves σ_min."""
    stopped = ended(PROCESSES["VE"], DATA, 0.0, "stop")
    assert stopped.covariance.diagonal().tolist() == pytest.approx([0.3 + 0.01, 1.0 + 0.01])


def test_with_noise_it_draws_from_the_data_given_the_state():
    """At η = 1 the regression of x₀ on x_t, from Bayes' rule and not from ψ."""
    process, t, x = sk.VP(), 0.3, torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    kernel = exact.to_data(sk.reverse_time(process, sk.exact_score(DATA, process)), t)
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    precision = torch.linalg.inv(DATA.covariance) + alpha**2 / sigma**2 * torch.eye(2, dtype=torch.float64)
    posterior = torch.linalg.inv(precision)
    mean = posterior @ (torch.linalg.solve(DATA.covariance, DATA.mean) + alpha / sigma**2 * x[0])
    torch.testing.assert_close(kernel.mean(x)[0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel.covariance, posterior, rtol=1e-12, atol=1e-12)


def test_denoising_is_narrower_by_the_mean_conditional_variance():
    process, t = sk.VP(), 0.2
    narrow = ended(process, DATA, 0.0, "denoise", [1.0, t])
    kernel = exact.to_data(sk.reverse_time(process, sk.exact_score(DATA, process)), t)
    torch.testing.assert_close(narrow.covariance, DATA.covariance - kernel.covariance, rtol=1e-11, atol=1e-13)


# --- noise ----------------------------------------------------------------------------------------

NOISY = sk.reverse_time(sk.VP(), sk.exact_score(DATA, sk.VP()))


def normals_of_the_end(steps, noise, n=4, **options):
    """z of the end, recovered from the states before and after it, and z of the last step."""
    grid = torch.linspace(1.0, 0.3, steps + 1, dtype=torch.float64)
    x = sk.VP().prior((2,)).sample(n, seed=3)
    solution = sk.solve(NOISY, x, grid, "exact-linear", noise=noise, save="all", end="exact-linear", **options)
    assert solution.ts.tolist() == [*grid.tolist(), 0.0]
    assert solution.stats.steps == steps
    assert solution.stats.score_evaluations == 0
    found = []
    for k, kernel in ((-1, exact.to_data(NOISY, 0.3)), (-2, exact._kernel_of(NOISY)(float(grid[-2]), 0.3))):
        left = solution.xs[k] - kernel.mean(solution.xs[k - 1])
        found.append(torch.linalg.solve(sk.linear.operator_root(kernel.covariance, (2,)), left.T).T)
    return found


def test_its_normals_depend_on_the_seed_and_the_path_alone():
    z, _ = normals_of_the_end(2, 7)
    torch.testing.assert_close(normals_of_the_end(5, 7)[0], z)
    torch.testing.assert_close(normals_of_the_end(2, 7, n=2, paths=[3, 1])[0], z[[3, 1]])
    assert not torch.allclose(normals_of_the_end(2, 8)[0], z)
    path = sk.BrownianGrid((4, 2), times=torch.linspace(0.3, 1.0, 3, dtype=torch.float64), seed=7)
    torch.testing.assert_close(normals_of_the_end(2, path)[0], z)


def correlated(n=20_000):
    """How far the normals of the end go with those of the only step."""
    end, step = normals_of_the_end(1, 7, n)
    return float((end * step).mean(0).abs().max()) * sqrt(n)


@pytest.mark.statistical
def test_its_normals_are_independent_of_the_steps(monkeypatch):
    """Seed 7; two means of products, each beyond 5 standard deviations one time in 1.7 million."""
    assert correlated() < 5.0
    monkeypatch.setattr(random, "STREAM_END", random.STREAM_STEP)  # the slip: the noise of the first step again
    assert correlated() > 100.0


def test_a_path_without_a_seed_is_refused():
    path = sk.RecordedBrownian([0.3, 1.0], torch.zeros(1, 4, 2, dtype=torch.float64))
    with pytest.raises(sk.SdekitError, match=r"RecordedBrownian has no seed.*end='denoise'"):
        normals_of_the_end(1, path)


# --- where there is nothing to do, or nothing can be done -----------------------------------------


@pytest.mark.parametrize("end", ["denoise", "exact-linear"])
def test_at_the_data_there_is_nothing_left_to_do(end):
    flow = sk.probability_flow(sk.VP(), sk.exact_score(DATA, sk.VP()))
    x = sk.VP().prior((2,)).sample(3, seed=0)
    grid = sk.grids.rectified(sk.VP(), 6)
    assert float(grid[-1]) == 0.0
    done, stopped = (sk.solve(flow, x, grid, "dpmpp-2m", end=policy) for policy in (end, "stop"))
    assert torch.equal(done.final, stopped.final)
    assert done.stats.score_evaluations == stopped.stats.score_evaluations


def test_a_run_that_was_cut_off_has_no_end():
    flow = sk.probability_flow(sk.VP(), sk.exact_score(DATA, sk.VP()))
    x = sk.VP().prior((2,)).sample(3, seed=0)
    cut = sk.solve(flow, x, [1.0, 0.5, 0.1], "ddim", max_steps=1, end="exact-linear")
    assert cut.ts.tolist() == [0.5]


@pytest.mark.parametrize(
    ("score", "process", "message"),
    [
        (sk.exact_score(sk.Empirical([[0.0, 1.0]]), sk.VP()), sk.VP(), r"affine score.*Use end='denoise'"),
        (lambda t, x: -x, sk.VP(), r"affine score.*Use end='denoise'"),
        (lambda t, x: -x, MATRIX, r"affine score.*Use end='stop'"),
    ],
)
def test_a_score_that_is_not_affine_is_refused_before_the_first_step(score, process, message):
    asked = []

    def watched(t, x):
        asked.append(t)
        return score(t, x)

    sde = sk.probability_flow(process, score if isinstance(score, sk.score.Score) else watched)
    with pytest.raises(sk.SdekitError, match=message):
        sk.solve(sde, torch.ones(3, 2, dtype=torch.float64), [1.0, 0.5], "heun", end="exact-linear")
    assert not asked
