"""Metrics against mpmath, scipy, brute force and identities; each door; the noise floors."""

from __future__ import annotations

import math
import sys
from functools import partial

import mpmath
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.laws import Empirical, Gaussian, GaussianMixture
from sdekit.metrics import (
    Measurement,
    energy_distance,
    gaussian_wasserstein2,
    measure,
    sliced_wasserstein2,
    wasserstein2,
)
from sdekit.metrics.gaussian import moments
from sdekit.metrics.line import _GAUSS, _KRONROD, _NODES

mpmath.mp.dps = 60


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(randn(d, d, seed=seed)).Q


def exact_w2(mean_a: Tensor, factor_a: Tensor, mean_b: Tensor, factor_b: Tensor) -> mpmath.mpf:
    """W2 between Gaussians in 60 digits, from |F1|² + |F2|² − 2 tr S: no cancellation matters there."""
    a, b = mpmath.matrix(factor_a.tolist()), mpmath.matrix(factor_b.tolist())
    singular = mpmath.svd_r(b.T * a, compute_uv=False)
    between = sum(x * x for x in a) + sum(x * x for x in b) - 2 * sum(singular)
    means = sum((mpmath.mpf(p) - mpmath.mpf(q)) ** 2 for p, q in zip(mean_a.tolist(), mean_b.tolist(), strict=True))
    return mpmath.sqrt(abs(between + means))


def textbook_bures(factor_a: Tensor, factor_b: Tensor) -> float:
    """The formula not to use: tr A + tr B − 2 tr (A^½ B A^½)^½, from covariances."""
    a, b = factor_a @ factor_a.mT, factor_b @ factor_b.mT
    values, vectors = torch.linalg.eigh(a)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return math.sqrt(abs(float(a.trace() + b.trace() - 2 * cross)))


def near_factors(size: float, condition: float, d: int = 5) -> tuple[Tensor, Tensor]:
    """Two factors in different gauges whose covariances are W2 ≈ size apart."""
    sds = torch.logspace(0, -0.5 * math.log10(condition), d, dtype=torch.float64)
    first = orthogonal(d, 1) * sds
    return first @ orthogonal(d, 2), (first + size * randn(d, d, seed=3)) @ orthogonal(d, 4)


# --- Gaussians ------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e12, 1e16])
@pytest.mark.parametrize("size", [1e-2, 1e-6, 1e-9, 1e-12, 1e-14, 0.0])
def test_gaussian_w2_has_a_floor_of_1e_minus_15(size, condition):
    a, b = near_factors(size, condition)
    zero = torch.zeros(5, dtype=torch.float64)
    truth = float(exact_w2(zero, a, zero, b))
    assert abs(gaussian_wasserstein2(zero, a, zero, b) - truth) < 2e-15
    if size == 1e-9:  # negative control: the textbook formula is lost there
        assert abs(textbook_bures(a, b) - truth) > 3 * truth


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(s, k) for s in ((), (1,), (4,), (2, 3)) for k in ("isotropic", "diagonal", "full") if (s, k) != ((), "full")],
)
def test_gaussian_laws_agree_with_mpmath(shape, kind):
    d = math.prod(shape)

    def law(seed: int) -> Gaussian:
        spread = 0.2 + randn(*shape, seed=seed + 10).square()
        root = randn(d, d, seed=seed)
        c = {"isotropic": 0.3 + seed, "diagonal": spread, "full": root @ root.mT + 0.1 * torch.eye(d)}[kind]
        return Gaussian(randn(*shape, seed=seed + 20), c)

    a, b = law(1), law(2)
    truth = exact_w2(a.mean.flatten(), a.root, b.mean.flatten(), b.root)
    assert wasserstein2(a, b) == pytest.approx(float(truth), rel=1e-14)
    assert wasserstein2(b, a) == pytest.approx(float(truth), rel=1e-14)
    assert wasserstein2(a, a) < 1e-15 * float(a.root.norm())


@pytest.mark.parametrize("size", [1e-6, 1e-10, 1e-14])
def test_a_tiny_shift_of_a_gaussian_is_seen(size):
    c = randn(3, 3) @ randn(3, 3).mT
    a, b = Gaussian(torch.zeros(3), c), Gaussian([0.0, size, 0.0], c)
    assert wasserstein2(a, b) == pytest.approx(size, abs=2e-15)


def test_factors_may_be_wide_narrow_or_singular():
    wide, mean = randn(3, 9), torch.zeros(3, dtype=torch.float64)
    square = torch.linalg.qr(wide.mT, mode="r").R.mT
    assert gaussian_wasserstein2(mean, wide, mean, square) < 3e-15
    line = torch.tensor([[3.0], [0.0], [4.0]], dtype=torch.float64)
    assert gaussian_wasserstein2(mean, line, mean, torch.zeros(3, 1)) == pytest.approx(5.0, rel=1e-15)
    assert gaussian_wasserstein2(mean, line, mean, line.flip(0)) == pytest.approx(
        float(exact_w2(mean, line, mean, line.flip(0))), rel=1e-14
    )


def test_gaussian_w2_is_a_metric_that_rotations_leave_alone():
    laws = [Gaussian(randn(3, seed=s), (f := randn(3, 3, seed=s + 5)) @ f.mT) for s in range(3)]
    ab, bc, ac = (wasserstein2(laws[i], laws[j]) for i, j in ((0, 1), (1, 2), (0, 2)))
    assert ac <= ab + bc
    q = orthogonal(3, 9)
    turned = [law.affine(q) for law in laws[:2]]
    assert wasserstein2(*turned) == pytest.approx(ab, rel=1e-13)


def test_moments_of_mixtures_and_samples_and_the_lower_bound():
    mix = GaussianMixture([0.3, 0.7], randn(2, 3), torch.stack([torch.eye(3), 0.2 * torch.eye(3)]).double())
    mean, factor = moments(mix)
    torch.testing.assert_close(factor @ factor.mT, mix.covariance)
    torch.testing.assert_close(mean, mix.mean)
    x = mix.sample(500)
    mean, factor = moments(x)
    torch.testing.assert_close(factor @ factor.mT, torch.cov(x.mT, correction=0))
    y = 1.3 * mix.sample(500, seed=1)
    assert 0.1 < wasserstein2(x, y, "gaussian") < wasserstein2(x, y)
    assert wasserstein2(x, Gaussian(mean, factor @ factor.mT), "gaussian") < 1e-14


# --- the line -------------------------------------------------------------------------------------


def test_the_kronrod_rule_is_exact_to_degree_eleven():
    nodes = torch.tensor(_NODES, dtype=torch.float64)
    for degree in range(0, 12, 2):
        for weights, exact_to in ((_KRONROD, 11), (_GAUSS, 5)):
            w = 2 * torch.tensor(weights, dtype=torch.float64)
            w[-1] /= 2
            error = float(w @ nodes**degree) - 2 / (degree + 1)
            assert (abs(error) < 1e-15) == (degree <= exact_to)


def test_sorted_samples_solve_the_assignment_problem():
    x, y = randn(40), 1.5 * randn(40, seed=1) + 1
    cost = (x[:, None] - y).square().numpy()
    rows, columns = optimize.linear_sum_assignment(cost)
    assert wasserstein2(x, y[:, None]) == pytest.approx(math.sqrt(cost[rows, columns].mean()), rel=1e-13)


@pytest.mark.parametrize(("n", "m"), [(1, 7), (6, 4), (9, 10), (5, 15)])
def test_unequal_samples_are_merged_exactly(n, m):
    x, y = randn(n), randn(m, seed=1)
    common = math.lcm(n, m)
    both = x.repeat_interleave(common // n), y.repeat_interleave(common // m)
    assert wasserstein2(x, y) == pytest.approx(wasserstein2(*both), rel=1e-13)
    assert wasserstein2(x, y) == pytest.approx(wasserstein2(x[:, None], y[:, None], "exact"), rel=1e-10)
    assert wasserstein2(Empirical(x), Empirical(y)) == wasserstein2(x, y)


def test_one_point_against_a_law():
    law = GaussianMixture([0.2, 0.8], [-3.0, 1.0], [0.5, 0.1])
    truth = math.sqrt(float(law.variance + (law.mean - 2.5) ** 2))
    assert wasserstein2(torch.tensor([2.5]).double(), law) == pytest.approx(truth, rel=1e-11)


def test_samples_against_a_law_agree_with_scipy():
    x, law = randn(5), Gaussian([0.3], 2.0)
    scipy_law, cells = stats.norm(0.3, math.sqrt(2.0)), torch.linspace(0, 1, 6).tolist()

    def cost(y: float, point: float) -> float:
        return (point - y) ** 2 * scipy_law.pdf(y)

    pieces = [
        integrate.quad(cost, scipy_law.ppf(a), scipy_law.ppf(b), args=(float(p),), epsabs=1e-13)[0]
        for p, a, b in zip(x.sort().values, cells[:-1], cells[1:], strict=True)
    ]
    assert wasserstein2(x[:, None], law) == pytest.approx(math.sqrt(sum(pieces)), rel=1e-6)
    assert wasserstein2(law, Empirical(x[:, None])) == wasserstein2(x[:, None], law)


def test_many_samples_of_a_law_come_near_it():
    law = Gaussian(0.0, 1.0)
    n = 20_000
    middles = law.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    far, near = wasserstein2(law.sample(n), law), wasserstein2(middles, law)
    assert near < 0.01 < far * 2 < 0.1


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-8, 1e-11])
def test_quantile_integral_of_laws_keeps_its_digits(size):
    law = GaussianMixture([0.3, 0.5, 0.2], [-2.0, 0.5, 3.0], [0.16, 0.09, 0.36])
    assert wasserstein2(law, law.affine(1.0, size)) == pytest.approx(size, rel=1e-9, abs=2e-14)
    stretched = law.affine(1.0 + size)
    truth = size * math.sqrt(float(law.variance + law.mean**2))
    assert wasserstein2(stretched, law) == pytest.approx(truth, rel=1e-9, abs=2e-14)
    a, b = Gaussian(0.0, 1.0), Gaussian(size, (1 + size) ** 2)
    assert wasserstein2(a, b, "quantile") == pytest.approx(wasserstein2(a, b), rel=1e-9, abs=2e-14)


def test_quantile_integral_closes_in_on_jumps():
    def atoms(w: float, variance: float) -> GaussianMixture:
        return GaussianMixture([w, 1 - w], [-50.0, 50.0], [variance, variance])

    assert wasserstein2(atoms(0.3, 0.0), atoms(0.31, 0.0)) == pytest.approx(10.0, rel=1e-11)
    assert wasserstein2(atoms(0.3, 1e-12), atoms(0.31, 0.0)) == pytest.approx(10.0, rel=1e-6)


def test_quantile_functions_are_laws_too():
    def exponential(rate: float):
        return lambda u: -torch.log1p(-u) / rate

    truth = math.sqrt(2.0) * (1.0 - 0.4)
    assert wasserstein2(exponential(1.0), exponential(2.5)) == pytest.approx(truth, rel=1e-6)
    x = torch.zeros(3, dtype=torch.float64)
    assert wasserstein2(x, exponential(1.0)) == pytest.approx(math.sqrt(2.0), rel=1e-6)


# --- samples in several dimensions ----------------------------------------------------------------


def test_exact_transport_solves_the_assignment_problem():
    x, y = randn(60, 2, 2), 0.5 + randn(60, 2, 2, seed=1)
    cost = (x.flatten(1)[:, None] - y.flatten(1)).square().sum(-1).numpy()
    rows, columns = optimize.linear_sum_assignment(cost)
    assert wasserstein2(x, y) == pytest.approx(math.sqrt(cost[rows, columns].mean()), rel=1e-10)
    assert wasserstein2(x, x[torch.randperm(60, generator=torch.Generator().manual_seed(1))]) < 1e-10
    assert wasserstein2(x, torch.cat([y, y])) == pytest.approx(wasserstein2(x, y), rel=1e-10)


def test_exact_transport_without_pot_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(SdekitError, match=r"sdekit\[ot\]"):
        wasserstein2(randn(4, 2), randn(4, 2))


def test_sliced_distance_of_a_shift():
    x, v = randn(50, 3), torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    assert sliced_wasserstein2(x, x + v, projections=4000) == pytest.approx(5 / math.sqrt(3), rel=0.03)
    assert sliced_wasserstein2(x, x) == 0.0
    y = randn(35, 3, seed=1)
    assert sliced_wasserstein2(x, y) < wasserstein2(x, y)
    assert sliced_wasserstein2(x[:, :1], y[:, :1], 3) == pytest.approx(wasserstein2(x[:, :1], y[:, :1]), rel=1e-13)


def test_sliced_directions_are_a_function_of_the_seed_alone():
    x, y = randn(40, 2, 3), randn(30, 2, 3, seed=1) * 1.2
    value = sliced_wasserstein2(x, y, 20, seed=4)
    assert value == sliced_wasserstein2(x.flip(0), y, 20, seed=4) == sliced_wasserstein2(y, x, 20, seed=4)
    assert value != sliced_wasserstein2(x, y, 20, seed=5)
    assert value == pytest.approx(sliced_wasserstein2(torch.cat([x, x]), y, 20, seed=4), rel=1e-12)
    torch.manual_seed(0)
    assert value == sliced_wasserstein2(x, y, 20, seed=4)


def test_energy_distance_is_the_v_statistic():
    x, y = randn(30, 2), 0.7 * randn(21, 2, seed=1) + 0.5

    def mean(a: Tensor, b: Tensor) -> float:
        return float((a[:, None] - b).norm(dim=-1).mean())

    truth = math.sqrt(2 * mean(x, y) - mean(x, x) - mean(y, y))
    assert energy_distance(x, y) == pytest.approx(truth, rel=1e-12)
    assert energy_distance(x, x) == 0.0
    assert energy_distance(x, y) == energy_distance(x.reshape(30, 1, 2), y.reshape(21, 1, 2))
    u_statistic = math.sqrt(2 * mean(x, y) - mean(x, x) * 30 / 29 - mean(y, y) * 21 / 20)
    assert abs(u_statistic - truth) > 0.01  # negative control: leaving out i = j is seen


def test_energy_distance_on_the_line_is_the_same_without_pairs():
    x, y = randn(40), torch.cat([randn(25, seed=1) + 0.3, randn(40)[:3]])  # with ties
    plane = [torch.stack([z, torch.zeros_like(z)], 1) for z in (x, y)]
    assert energy_distance(x, y) == pytest.approx(energy_distance(*plane), rel=1e-12)
    assert energy_distance(x, y) == pytest.approx(stats.energy_distance(x.numpy(), y.numpy()), rel=1e-12)
    assert energy_distance(x, x + 2.0**-40) == pytest.approx(math.sqrt(2 * 2.0**-40 / 40), rel=1e-3)


def test_energy_distance_in_chunks_is_the_same(monkeypatch):
    x, y = randn(30, 2), randn(20, 2, seed=1)
    whole = energy_distance(x, y)
    monkeypatch.setattr("sdekit.metrics.energy._CHUNK", 50)
    assert energy_distance(x, y) == pytest.approx(whole, rel=1e-13)


def test_float32_samples_are_measured_in_float64():
    x, y = randn(50, 3).float(), randn(50, 3, seed=1).float()
    for metric in (wasserstein2, sliced_wasserstein2, energy_distance):
        assert metric(x, y) == metric(x.double(), y.double())


# --- the door -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [wasserstein2, sliced_wasserstein2, energy_distance])
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (randn(5, 2), randn(5, 3), r"shapes differ: \(2,\) and \(3,\)"),
        (randn(5, 2, 3), randn(5, 3, 2), "shapes differ"),
        (randn(5, 2), torch.tensor([[0.0, math.nan]]), "NaN or Inf in 1 of 1"),
        (torch.full((3, 2), math.inf), randn(5, 2), "NaN or Inf in 3 of 3"),
        (randn(0, 2), randn(5, 2), "no sample"),
        (randn(5, 2), torch.zeros(5, 2, dtype=torch.int64), "floating"),
        (torch.tensor(1.0), randn(5), "no sample"),
    ],
)
def test_bad_samples_are_refused(metric, x, y, says):
    with pytest.raises(SdekitError, match=says):
        metric(x, y)


def test_impossible_requests_are_refused():
    mix = GaussianMixture([0.5, 0.5], randn(2, 2), 1.0)
    with pytest.raises(SdekitError, match="did you mean 'gaussian'"):
        wasserstein2(mix, mix, "gausian")
    with pytest.raises(SdekitError, match=r"law\.sample"):
        wasserstein2(mix, randn(5, 2))
    with pytest.raises(SdekitError, match=r"law\.sample"):
        wasserstein2(mix, randn(5, 2), "exact")
    with pytest.raises(SdekitError, match="shapes differ"):
        wasserstein2(Gaussian([0.0, 0.0]), Gaussian([0.0]))
    with pytest.raises(SdekitError, match="for the line"):
        wasserstein2(randn(5, 2), randn(5, 2), "quantile")
    with pytest.raises(SdekitError, match="mean and a covariance"):
        wasserstein2(lambda u: u, randn(5), "gaussian")
    with pytest.raises(SdekitError, match="must be a law"):
        wasserstein2(3.0, randn(5))
    with pytest.raises(SdekitError, match="projections"):
        sliced_wasserstein2(randn(5, 2), randn(5, 2), projections=0)
    with pytest.raises(SdekitError, match="factors of shape"):
        gaussian_wasserstein2(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2))
    with pytest.raises(SdekitError, match="NaN"):
        gaussian_wasserstein2(torch.zeros(1), torch.full((1, 1), math.nan), torch.zeros(1), torch.eye(1))


# --- floors and errors ----------------------------------------------------------------------------


def test_the_floor_is_the_mean_between_samples_of_one_law():
    law = Gaussian([0.0, 0.0], 1.0)
    x, y = law.sample(300, seed=1), law.sample(200, seed=2)
    drawn = [energy_distance(law.sample(300, seed=s), law.sample(200, seed=s + 1000)) for s in range(100, 200)]
    truth = sum(drawn) / len(drawn)
    for reference in (None, law, law.sample(2000, seed=3)):
        result = measure(energy_distance, x, y, reference=reference, repeats=40)
        assert result.floor == pytest.approx(truth, rel=0.15)
        assert abs(result.above_floor) < 4
    assert result.sizes == (300, 200)
    far = measure(energy_distance, x + 0.5, y, reference=law)
    assert far.above_floor > 10


def test_the_standard_error_is_that_of_repeated_experiments():
    law, other = Gaussian(0.0, 1.0), Gaussian(1.0, 2.0)
    for metric in (wasserstein2, energy_distance):
        runs = [measure(metric, law.sample(400, seed=s), other.sample(300, seed=s + 999), repeats=2) for s in range(60)]
        spread = float(torch.tensor([run.value for run in runs]).std())
        error = math.sqrt(sum(run.standard_error**2 for run in runs) / len(runs))
        # 60 runs know the spread to 9 %, and their errors, 3 % each: 40 % is beyond 4 sd.
        assert error == pytest.approx(spread, rel=0.4)


def test_against_a_law_only_the_samples_are_drawn():
    law = GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], 0.3)
    result = measure(wasserstein2, law.sample(200, seed=1), law, repeats=10, groups=5)
    assert result.sizes == (200, None)
    assert 0 < result.standard_error < result.floor
    assert abs(result.above_floor) < 5
    assert "floor" in str(result)
    assert "law" in str(result)


def test_measurements_are_repeatable_and_take_partial_metrics():
    x, y = randn(40, 3), randn(40, 3, seed=1)
    metric = partial(sliced_wasserstein2, projections=16)
    first, again = (measure(metric, x, y, repeats=3, groups=4, seed=2) for _ in range(2))
    assert first == again
    assert first.value == metric(x, y)
    assert first.floor != measure(metric, x, y, repeats=3, groups=4, seed=3).floor
    assert Measurement(1.0, 0.1, 1.0, 0.0, (2, 2)).above_floor == math.inf


def test_measure_refuses_what_it_cannot_estimate():
    x = randn(5, 2)
    with pytest.raises(SdekitError, match="groups = 10"):
        measure(energy_distance, x, x)
    with pytest.raises(SdekitError, match="needs 10 reference samples; got 5"):
        measure(energy_distance, x, x, reference=x, groups=2)
    with pytest.raises(SdekitError, match="repeats = 1"):
        measure(energy_distance, x, x, groups=2, repeats=1)
