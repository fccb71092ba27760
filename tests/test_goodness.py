"""Tests of samples against laws: calibration, power, and the faults that they must see. All seeds are fixed."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

import sdekit as sk
from sdekit.metrics import energy_distance, hold, sliced_wasserstein2
from sdekit.metrics.projection import projected, unit_directions
from sdekit.metrics.quadratic_form import upper_tail

NORMAL = sk.Gaussian([0.3], [2.0])
MILD = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])
SPACE = sk.GaussianMixture(
    [0.4, 0.6], [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], torch.stack([torch.eye(3), 0.5 * torch.eye(3)])
)
ALL = ("mean", "variance", "ks", "chi-square", "energy", "wasserstein2")
N = 100_000


def stretched(law: sk.Gaussian | sk.GaussianMixture, variance: float, seed: int) -> Tensor:
    """Samples with ``variance`` times the law's variance."""
    return law.mean + (law.sample(N, seed=seed) - law.mean) * math.sqrt(variance)


# --- calibration ----------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("law", [NORMAL, MILD], ids=["normal", "mixture"])
def test_samples_of_the_law_pass_in_twenty_seeds(law):
    """False alarms: 2e-5 for both laws together."""
    for seed in range(20):
        found = hold(law.sample(N, seed=seed), law, alpha=5e-7)
        assert found.accepted, found


def test_p_values_are_uniform():
    """150 runs of every test on 300 samples each: false alarms 6e-6."""
    runs = [
        hold(NORMAL.sample(300, seed=seed), NORMAL, 0.5, tests=ALL, repeats=19, seed=1000 + seed).tests
        for seed in range(150)
    ]
    for k, name in enumerate(ALL):
        p = [run[k].p_value for run in runs]
        if name in ("chi-square", "wasserstein2"):  # discrete: only 20 values, or 3 cells
            assert stats.binomtest(sum(v <= 0.1 for v in p), 150, 0.1).pvalue > 1e-6
        else:
            assert stats.kstest(p, "uniform").pvalue > 1e-6, name


def test_p_values_in_space_are_uniform():
    runs = [hold(SPACE.sample(300, seed=s), SPACE, tests=("energy",), directions=0, seed=s) for s in range(30)]
    p = [run.tests[-1].p_value for run in runs]
    assert runs[0].tests[-1].name == "energy in space"
    assert stats.kstest(p, "uniform").pvalue > 1e-6


@pytest.mark.parametrize("dof", [1, 2, 5, 50])
def test_the_tail_of_a_quadratic_form(dof):
    for p in (0.9, 0.5, 0.1, 1e-3, 1e-7, 1e-12):
        t = float(stats.chi2.isf(p, dof))
        assert upper_tail(torch.full((dof,), 3.0), 3.0 * t) == pytest.approx(p, rel=0.12 if dof == 1 else 0.06)
    assert upper_tail(torch.ones(3), 0.0) == 1.0
    assert upper_tail(torch.ones(5), 5.0) == pytest.approx(stats.chi2.sf(5.0, 5), rel=0.01)  # at the mean: 0/0


def test_the_tail_of_unequal_weights_agrees_with_the_sum_of_two_exponentials():
    """2a E₁ + 2b E₂, from two pairs of weights."""
    a, b = 1.0, 0.3
    for t in (1.0, 5.0, 20.0, 40.0):
        truth = (a * math.exp(-t / (2 * a)) - b * math.exp(-t / (2 * b))) / (a - b)
        assert upper_tail(torch.tensor([a, a, b, b]), t) == pytest.approx(truth, rel=0.06)


# --- power ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("law", "least"), [(NORMAL, 15), (MILD, 20)], ids=["normal", "mixture"])
def test_three_percent_more_variance_is_rejected(law, least):
    """At level 2e-7 the normal's variance test has the power 0.93; measured 17 and 20 of 20."""
    found = [hold(stretched(law, 1.03, seed), law) for seed in range(20)]
    assert sum(not one.accepted for one in found) >= least
    assert all(not hold(stretched(law, 1.05, seed), law).accepted for seed in range(5))


def test_the_variance_tests_miss_what_ks_and_chi_square_see():
    """A mixture with the mean and variance of the normal."""
    sample = MILD.sample(20_000, seed=1)
    twin = sk.Gaussian(MILD.mean, MILD.variance)
    names = {test.name for test in hold(sample, twin).rejections}
    assert {"ks", "chi-square", "energy"} <= names
    assert "mean" not in names


def test_wrong_samples_fail_in_wasserstein2():
    options = {"tests": ("wasserstein2",), "alpha": 1e-2, "repeats": 199}
    assert hold(NORMAL.sample(500, seed=3), NORMAL, **options).accepted
    assert not hold(NORMAL.sample(500, seed=3) * 1.3, NORMAL, **options).accepted


def test_in_space_a_wrong_correlation_is_seen_where_all_coordinates_are_right():
    sample = SPACE.sample(10_000, seed=1)
    assert hold(sample, SPACE).accepted
    wrong = sample.clone()
    wrong[:, 1] = wrong[:, 1].roll(1)
    found = hold(wrong, SPACE)
    assert not found.accepted
    assert not any("coordinate" in test.name for test in found.rejections)
    means = torch.stack([part.mean[:, None] for part in SPACE.components])
    column = sk.GaussianMixture(SPACE.weights, means, torch.tensor([1.0, 0.5]))
    assert hold(sample[..., None], column).accepted


def test_a_solver_is_held_against_its_own_law_not_the_continuums():
    vp = sk.VP()
    sde = sk.reverse_time(vp, sk.exact_score(NORMAL, vp))
    grid = sk.grids.log_snr(vp, 40, t_min=0.01)
    start = vp.marginal(NORMAL, 1.0)
    run = sk.solve(sde, start.sample(20_000, seed=1), grid, "ddim", noise=2)
    assert hold(run.final, sk.verify.numerical_law(sde, "ddim", grid, start)).accepted
    assert not hold(run.final, vp.marginal(NORMAL, 0.01)).accepted


def test_samples_of_a_nonlinear_sde_against_fokker_planck():
    """Euler–Maruyama at h = 1/400 against the double well: the bias is far below the tests' sight."""
    well = sk.sde(lambda t, x: x - x**3, lambda t, x: torch.full_like(x, 0.5**0.5), noise_type="additive")
    start = sk.Gaussian([0.2], [0.09])
    law = sk.fokker_planck.solve(well, start, (0.0, 1.0)).final
    x, grid = start.sample(20_000, seed=1), torch.linspace(0, 1, 401)
    assert hold(sk.solve(well, x, grid, "euler-maruyama", noise=2).final, law).accepted
    louder = sk.sde(well.drift, lambda t, x: torch.full_like(x, 0.55**0.5), noise_type="additive")
    assert not hold(sk.solve(louder, x, grid, "euler-maruyama", noise=2).final, law).accepted


# --- the report and the doors ---------------------------------------------------------------------


def test_the_report_says_what_was_done():
    found = hold(NORMAL.sample(1000, seed=1), NORMAL, 1e-3)
    assert found.level == 1e-3 / 5
    assert [test.name for test in found.tests] == ["mean", "variance", "ks", "chi-square", "energy"]
    assert "accepted by 5 tests at 0.0002 each (false alarms: 0.001 in all)" in str(found)
    assert "exact" in str(found)
    assert found == hold(NORMAL.sample(1000, seed=1), NORMAL, 1e-3)
    off = hold(torch.full((200, 1), 1e9, dtype=torch.float64), NORMAL)
    assert len(off.rejections) == 5


def test_ks_is_scipys():
    sample = MILD.sample(1000, seed=5)
    found = hold(sample, MILD, tests=("ks",)).tests[0]
    reference = stats.kstest(MILD.cdf(sample[:, 0]).numpy(), "uniform", method="exact")
    assert found.statistic == pytest.approx(reference.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6)


def test_the_energy_statistic_is_n_times_the_squared_distance():
    sample = NORMAL.sample(1000, seed=2) * 1.1
    found = hold(sample, NORMAL, tests=("energy",)).tests[0]
    assert found.statistic == pytest.approx(1000 * energy_distance(sample, NORMAL) ** 2, rel=0.02)


def test_bad_requests_are_refused():
    x = NORMAL.sample(200)
    for samples, law, options, says in (
        (x[:50], NORMAL, {}, "too few"),
        (x, NORMAL, {"alpha": 0.0}, "alpha is a probability"),
        (x, NORMAL, {"tests": ("kss",)}, "did you mean 'ks'"),
        (x, NORMAL, {"tests": ALL}, "raise repeats or alpha"),
        (x, sk.Empirical(x), {}, "atoms"),
        (x, sk.Gaussian([0.0], 0.0), {}, "atom"),
        (x, 3.0, {}, "must have cdf"),
        (x.repeat(1, 2), NORMAL, {}, "shapes differ"),
        (x * math.nan, NORMAL, {}, "NaN"),
    ):
        with pytest.raises(sk.SdekitError, match=says):
            hold(samples, law, **options)


# --- laws along directions, and the energy distance of laws ---------------------------------------


def test_projections_have_the_moments_of_the_projected_samples():
    theta = unit_directions(1, 3, 7)[0]
    law, sample = projected(SPACE, theta), SPACE.sample(50_000, seed=4).double() @ theta
    assert float(law.mean) == pytest.approx(float(theta @ SPACE.mean.double()), rel=1e-6)
    assert float(law.variance) == pytest.approx(float(theta @ SPACE.covariance.double() @ theta), rel=1e-6)
    assert stats.kstest(law.cdf(sample).numpy(), "uniform").pvalue > 1e-6


def test_the_energy_distance_of_laws_on_the_line():
    """Between normals of variance 1, from E|X − Y| of a folded normal."""
    for m in (0.01, 0.5, 3.0):
        z = m / math.sqrt(2)
        cross = math.sqrt(2) * math.sqrt(2 / math.pi) * math.exp(-(m**2) / 4) + m * (1 - 2 * stats.norm.cdf(-z))
        truth = math.sqrt(2 * cross - 4 / math.sqrt(math.pi))
        found = energy_distance(sk.Gaussian([0.0], 1.0), sk.Gaussian([m], 1.0))
        assert found == pytest.approx(truth, rel=1e-6)
    assert energy_distance(MILD, MILD) == 0.0
    assert energy_distance(NORMAL, MILD) == energy_distance(MILD, NORMAL)


def test_the_energy_distance_of_samples_and_a_law():
    sample, middles = MILD.sample(300, seed=1), (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    many = MILD.quantile(middles)[:, None]
    assert energy_distance(sample, MILD) == pytest.approx(energy_distance(sample, many), rel=1e-4)
    assert energy_distance(MILD, sk.Empirical(sample)) == energy_distance(sample, MILD)
    beyond = torch.tensor([[40.0]], dtype=torch.float64)
    squared = 2 * (40.0 - float(NORMAL.mean)) - 2 * math.sqrt(2.0 / math.pi)
    assert energy_distance(beyond, NORMAL) == pytest.approx(math.sqrt(squared), rel=1e-10)
    with pytest.raises(sk.SdekitError, match=r"law\.sample"):
        energy_distance(SPACE, SPACE.sample(10))
    with pytest.raises(sk.SdekitError, match="must be samples"):
        energy_distance(3.0, sample)


def test_the_sliced_distance_of_laws_is_the_limit_of_many_samples():
    other = sk.Gaussian([0.5, 0.0, 0.0], torch.diag(torch.tensor([1.0, 2.0, 0.5])).double())
    far = sliced_wasserstein2(SPACE, other, 16, seed=2)
    drawn = sliced_wasserstein2(SPACE.sample(100_000, seed=1), other.sample(100_000, seed=2), 16, seed=2)
    assert far == pytest.approx(drawn, rel=0.03)  # se about 0.5 %
    assert sliced_wasserstein2(SPACE.sample(20_000, seed=1), other, 4, seed=2) == pytest.approx(
        sliced_wasserstein2(SPACE, other, 4, seed=2), rel=0.05
    )
    assert sliced_wasserstein2(other, other, 4) < 1e-15
    shifted = other.affine(1.0, torch.tensor([3.0, 0.0, 4.0]))
    assert sliced_wasserstein2(other, shifted, 400) == pytest.approx(5 / math.sqrt(3), rel=0.1)
    with pytest.raises(sk.SdekitError, match="shapes differ"):
        sliced_wasserstein2(SPACE, NORMAL)
