"""Laws against scipy, autograd, mpmath and laws that were built by hand."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from sdekit import components
from sdekit.errors import SdekitError
from sdekit.laws import Empirical, Gaussian, GaussianMixture
from sdekit.quantiles import fold

SHAPES = [(), (1,), (3,), (2, 4, 4)]
KINDS = ["isotropic", "diagonal", "full"]
ALPHA, SIGMA = 0.8, 0.6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(kind: str, shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """A covariance as it is given to a Gaussian."""
    d = math.prod(shape)
    if kind == "isotropic":
        return torch.tensor(0.7 + 0.1 * seed, dtype=torch.float64)
    if kind == "diagonal":
        return 0.3 + randn(*shape, seed=seed).square()
    a = randn(d, d, seed=seed)
    return a @ a.mT / d + 0.05 * torch.eye(d, dtype=torch.float64)


def dense(c: Tensor, shape: tuple[int, ...], kind: str) -> Tensor:
    d = math.prod(shape)
    if kind == "isotropic":
        return c * torch.eye(d, dtype=torch.float64)
    return torch.diag(c.flatten()) if kind == "diagonal" else c


def mixture(shape: tuple[int, ...], kind: str, k: int = 3) -> GaussianMixture:
    covariances = torch.stack([covariance(kind, shape, seed=s + 1) for s in range(k)])
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    return GaussianMixture(weights, 1.5 * randn(k, *shape, seed=9), covariances)


def law_of(name: str, shape: tuple[int, ...], kind: str) -> Gaussian | GaussianMixture:
    if name == "gaussian":
        return Gaussian(randn(*shape, seed=9), covariance(kind, shape))
    return mixture(shape, kind)


def scipy_log_prob(x: Tensor, parts: list[tuple[float, Tensor, Tensor]]) -> np.ndarray:
    """Log density by scipy, of components (weight, flat mean, dense covariance)."""
    flat = x.reshape(len(x), -1).numpy()
    logs = [
        math.log(w) + np.atleast_1d(stats.multivariate_normal(m.numpy(), c.numpy()).logpdf(flat)) for w, m, c in parts
    ]
    return np.logaddexp.reduce(logs)


def scipy_parts(name: str, shape: tuple[int, ...], kind: str) -> list[tuple[float, Tensor, Tensor]]:
    if name == "gaussian":
        return [(1.0, randn(*shape, seed=9).flatten(), dense(covariance(kind, shape), shape, kind))]
    means = 1.5 * randn(3, *shape, seed=9).reshape(3, -1)
    return [(w, means[s], dense(covariance(kind, shape, s + 1), shape, kind)) for s, w in enumerate((0.5, 0.2, 0.3))]


every_law = pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [(n, s, k) for n in ("gaussian", "mixture") for s in SHAPES for k in KINDS if (s, k) != ((), "full")],
)


# --- densities and scores -------------------------------------------------------------------------


@every_law
def test_log_prob_and_moments_agree_with_scipy(name, shape, kind):
    law, parts, x = law_of(name, shape, kind), scipy_parts(name, shape, kind), 2 * randn(7, *shape, seed=3)
    np.testing.assert_allclose(law.log_prob(x), scipy_log_prob(x, parts), rtol=1e-12, atol=1e-12)
    mean = sum(w * m for w, m, _ in parts)
    cov = sum(w * (c + torch.outer(m - mean, m - mean)) for w, m, c in parts)
    torch.testing.assert_close(law.mean.flatten(), mean, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(law.covariance, cov, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(law.variance, cov.diagonal().reshape(shape), rtol=1e-12, atol=1e-13)
    assert law.mean.shape == law.variance.shape == law.event_shape == torch.Size(shape)


@every_law
def test_score_is_the_gradient_of_the_log_density(name, shape, kind):
    law, x = law_of(name, shape, kind), (2 * randn(7, *shape, seed=3)).requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(law.score(x), gradient, rtol=1e-11, atol=1e-12)
    (gradient,) = torch.autograd.grad(law.diffused_log_prob(x, ALPHA, SIGMA).sum(), x)
    torch.testing.assert_close(law.diffused_score(x, ALPHA, SIGMA), gradient, rtol=1e-11, atol=1e-12)


@every_law
def test_diffusing_agrees_with_a_law_built_by_hand(name, shape, kind):
    law, x, d = law_of(name, shape, kind), 2 * randn(7, *shape, seed=3), math.prod(shape)
    eye = torch.eye(d, dtype=torch.float64)
    parts = [(w, ALPHA * m, ALPHA**2 * c + SIGMA**2 * eye) for w, m, c in scipy_parts(name, shape, kind)]
    expected = scipy_log_prob(x, parts)
    built, shift = law.diffused(ALPHA, SIGMA), randn(*shape, seed=5)
    assert type(built) is type(law)
    np.testing.assert_allclose(law.diffused_log_prob(x, ALPHA, SIGMA), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(built.log_prob(x), expected, rtol=1e-12, atol=1e-12)
    moved = law.diffused(ALPHA, SIGMA, shift)
    np.testing.assert_allclose(moved.log_prob(x + shift), expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(law.affine(ALPHA, shift, SIGMA**2).log_prob(x + shift), expected, rtol=1e-11)
    torch.testing.assert_close(law.diffused_score(x, ALPHA, SIGMA), built.score(x), rtol=1e-13, atol=1e-13)


@every_law
def test_one_level_per_sample_is_each_sample_at_its_level(name, shape, kind):
    law, x = law_of(name, shape, kind), 2 * randn(5, *shape, seed=3)
    alpha, sigma = torch.linspace(0.1, 0.9, 5).double(), torch.linspace(1.0, 0.2, 5).double()
    for method in (law.diffused_score, law.diffused_log_prob):
        each = [method(x[i : i + 1], float(alpha[i]), float(sigma[i])) for i in range(5)]
        torch.testing.assert_close(method(x, alpha, sigma), torch.cat(each), rtol=1e-13, atol=1e-13)
        one = method(x, alpha[0], sigma[0])
        torch.testing.assert_close(one, method(x, float(alpha[0]), float(sigma[0])), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (3,)])
def test_far_tails_stay_finite_and_follow_the_nearest_component(shape, dtype):
    law = mixture(shape, "isotropic").to(torch.empty(0, dtype=dtype))
    x = torch.stack([torch.full(shape, s * 1e3, dtype=dtype) for s in (-1, 1)])
    assert bool(law.log_prob(x).isfinite().all())
    wide = law.components[2]  # it has the largest variance, so it owns both tails
    torch.testing.assert_close(law.score(x), wide.score(x))


def test_a_narrower_dtype_or_another_input_dtype_gives_the_same_numbers():
    law, x = mixture((3,), "full"), randn(4, 3)
    assert law.dtype == torch.float64
    assert law.device.type == "cpu"
    torch.testing.assert_close(law.score(x.float()).double(), law.score(x), rtol=1e-5, atol=1e-5)
    assert law.score(x.float()).dtype == law.to(x.float()).dtype == torch.float32
    assert Gaussian(0.0, 1.0).dtype == Gaussian([0, 0], 1).dtype == torch.float64
    assert Gaussian(torch.zeros(2), [1.0, 2.0]).dtype == torch.float32


# --- covariances, affine maps ---------------------------------------------------------------------


def test_eigen_and_root_rebuild_the_covariance_and_are_shared_by_diffused_laws():
    law = Gaussian(randn(4), covariance("full", (4,)))
    q, values = law.eigen
    torch.testing.assert_close(q @ torch.diag(values) @ q.mT, covariance("full", (4,)), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(law.root @ law.root.mT, covariance("full", (4,)), rtol=1e-13, atol=1e-14)
    q_diffused, values_diffused = law.diffused(ALPHA, SIGMA).eigen
    assert q_diffused is q or torch.equal(q_diffused, q)
    torch.testing.assert_close(values_diffused, ALPHA**2 * values + SIGMA**2, rtol=1e-15, atol=0)
    assert Gaussian(randn(4), torch.ones(4)).eigen[0] is None
    assert Gaussian(randn(4), torch.diag(torch.ones(4))).eigen[0] is None


def test_degenerate_directions_are_exactly_degenerate():
    direction = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    law = Gaussian(torch.zeros(3, dtype=torch.float64), torch.outer(direction, direction))
    assert int((law.eigen[1] == 0).sum()) == int((law.root == 0).all(0).sum()) == 2
    torch.testing.assert_close(law.root.norm(), direction.norm(), rtol=1e-15, atol=0)
    off = law.sample(50) - law.sample(50) @ torch.outer(direction, direction) / direction.square().sum()
    assert float(off.abs().max()) < 1e-14
    with pytest.raises(SdekitError, match="sigma > 0"):
        law.score(law.sample(2))
    assert bool(law.diffused_score(law.sample(2), 1.0, 0.1).isfinite().all())


@pytest.mark.parametrize("seed", range(5))
def test_a_covariance_of_rank_two_has_three_eigenvalues_zero(seed):
    a = randn(5, 2, seed=seed)
    law = Gaussian(torch.zeros(5, dtype=torch.float64), a @ a.mT)
    assert int((law.eigen[1] == 0).sum()) == int((law.root == 0).all(0).sum()) == 3
    torch.testing.assert_close(law.root @ law.root.mT, a @ a.mT, rtol=1e-13, atol=1e-14)


def test_badly_scaled_covariances_keep_their_small_eigenvalue():
    t = 1e-9  # of integrated Brownian motion and its velocity: eigenvalues about t³/12 and t
    law = Gaussian([0.0, 0.0], torch.tensor([[t**3 / 3, t**2 / 2], [t**2 / 2, t]], dtype=torch.float64))
    assert float(law.eigen[1].min()) == pytest.approx(t**3 / 12, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", ["none", *KINDS])
@pytest.mark.parametrize("matrix", KINDS)
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_affine_agrees_with_a_law_built_by_hand(name, matrix, noise, kind):
    shape = (2, 2)
    law, x, shift = law_of(name, shape, kind), 2 * randn(6, *shape, seed=3), randn(*shape, seed=4)
    m = randn(4, 4, seed=6) if matrix == "full" else covariance(matrix, shape, seed=6)
    q = torch.zeros(()).double() if noise == "none" else covariance(noise, shape, seed=7)
    big = dense(m, shape, matrix)
    spread = dense(q, shape, "isotropic" if noise == "none" else noise)
    parts = [(w, big @ mu + shift.flatten(), big @ c @ big.mT + spread) for w, mu, c in scipy_parts(name, shape, kind)]
    moved = law.affine(m, shift, q)
    np.testing.assert_allclose(moved.log_prob(x), scipy_log_prob(x, parts), rtol=1e-9, atol=1e-10)


def test_the_marginal_of_a_full_mixture_under_a_projection():
    """M = e eᵀ leaves the marginal along e, and no spread across it (to 1e-15 in standard deviation)."""
    law, e = mixture((3,), "full"), torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    projected = law.affine(torch.outer(e, e))
    across = torch.tensor([0.8, 0.0, -0.6], dtype=torch.float64)
    for part, given in zip(projected.components, law.components, strict=True):
        assert float((part.root.mT @ across).norm()) < 2e-15
        assert float((part.root.mT @ e).square().sum()) == pytest.approx(float(e @ given.covariance @ e), rel=1e-13)
        assert float(part.mean @ e) == pytest.approx(float(given.mean @ e), rel=1e-13)


# --- data sets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empirical_law_has_the_score_of_the_optimal_denoiser(shape):
    points, x = randn(20, *shape, seed=1), randn(6, *shape, seed=2)
    law = Empirical(points)
    distance = (x[:, None] - ALPHA * points[None]).reshape(6, 20, -1).square().sum(-1)
    weights = torch.softmax(-distance / (2 * SIGMA**2), dim=1)
    denoised = (weights @ points.reshape(20, -1)).reshape(x.shape)
    expected = (ALPHA * denoised - x) / SIGMA**2
    torch.testing.assert_close(law.diffused_score(x, ALPHA, SIGMA), expected, rtol=1e-12, atol=1e-12)
    built = law.diffused(ALPHA, SIGMA)
    assert isinstance(built, GaussianMixture)
    torch.testing.assert_close(built.score(x), expected, rtol=1e-12, atol=1e-12)
    assert isinstance(law.diffused(ALPHA, 0.0), Empirical)
    torch.testing.assert_close(law.mean, points.mean(0))
    torch.testing.assert_close(law.variance, points.var(0, correction=0))
    rows = law.sample(30).reshape(30, 1, -1) == points.reshape(1, 20, -1)
    assert bool(rows.all(-1).any(1).all())
    d = math.prod(shape)
    turned = law.affine(randn(d, d, seed=6)) if d > 1 else law.affine(2.0)
    assert isinstance(turned, Empirical)


def test_correlated_noise_on_data_needs_one_decomposition():
    points, q = randn(500, 4), covariance("full", (4,))
    law = Empirical(points).affine(0.5, 0.0, q)
    assert isinstance(law, GaussianMixture)
    by_hand = GaussianMixture(torch.full((500,), 1 / 500, dtype=torch.float64), 0.5 * points, q.expand(500, 4, 4))
    x = randn(6, 4, seed=3)
    torch.testing.assert_close(law.log_prob(x), by_hand.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.score(x), by_hand.score(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", [components.VECTOR - 1, components.VECTOR + 1])
def test_chunks_change_no_bit(rows, monkeypatch):
    law, x, sigma = Empirical(randn(30, 3)), randn(40, 3, seed=2), torch.linspace(0.1, 1.0, 40).double()
    whole = law.diffused_score(x, 0.5, sigma), law.diffused_log_prob(x, 0.5, sigma)
    monkeypatch.setitem(components.CHUNK, "cpu", 30 * 3 * rows)
    assert torch.equal(law.diffused_score(x, 0.5, sigma), whole[0])
    assert torch.equal(law.diffused_log_prob(x, 0.5, sigma), whole[1])


def test_order_statistics():
    law = Empirical([3.0, 1.0, 2.0, 4.0])
    x = torch.tensor([0.5, 1.0, 2.5, 4.0], dtype=torch.float64)
    assert law.cdf(x).tolist() == [0.0, 0.25, 0.5, 1.0]
    assert law.sf(x).tolist() == [1.0, 0.75, 0.5, 0.0]
    p = torch.tensor([0.01, 0.25, 0.26, 0.75, 0.99], dtype=torch.float64)
    assert law.quantile(p).tolist() == [1.0, 1.0, 2.0, 3.0, 4.0]
    assert law.quantile(p, upper=True).tolist() == [4.0, 3.0, 3.0, 1.0, 1.0]
    many = Empirical(randn(49))  # (k / 49) * 49 is not k for every k
    inner = many.points.sort().values[:-1]
    assert torch.equal(many.quantile(many.cdf(inner)), inner)
    assert torch.equal(many.quantile(many.sf(inner), upper=True), inner)


# --- quantiles ------------------------------------------------------------------------------------

LEVELS = torch.tensor([1e-300, 1e-100, 1e-12, 1e-6, 0.01, 0.3, 0.5, 0.7, 0.99, 1 - 1e-9], dtype=torch.float64)
LINES = {
    "one": GaussianMixture([1.0], [0.3], [0.25]),
    "two": GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.25, 0.25]),
    "skewed": GaussianMixture([0.001, 0.499, 0.5], [[-9.0], [0.0], [2.0]], [4.0, 1.0, 1e-4]),
    "wide": GaussianMixture([0.3, 0.0, 0.7], [-1.0, 50.0, 1.0], [1.0, 1.0, 100.0]),
}


def exact_tail(law: GaussianMixture, x: float, upper: bool) -> mpmath.mpf:
    total = mpmath.mpf(0)
    for weight, part in zip(law.weights, law.components, strict=True):
        z = (mpmath.mpf(x) - float(part.mean)) / mpmath.sqrt(mpmath.mpf(float(part.variance)))
        total += float(weight) * mpmath.erfc((z if upper else -z) / mpmath.sqrt(2)) / 2
    return total


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("name", LINES)
def test_mixture_quantiles_solve_the_equation_to_1e13_of_the_scale(name, upper):
    """|x − x*| in units of the local scale F/F', by one Newton step in 50 digits."""
    law = LINES[name]
    points = law.quantile(LEVELS, upper=upper).flatten().tolist()
    with mpmath.workdps(50):
        for p, x in zip(LEVELS.tolist(), points, strict=True):
            side = upper != (p > 0.5)  # rounded weights do not sum to 1 in 50 digits: ask for the small tail
            tail = exact_tail(law, x, side)
            density = abs(mpmath.diff(lambda t, side=side: exact_tail(law, t, side), x))
            step = abs((tail - min(mpmath.mpf(p), 1 - mpmath.mpf(p))) / density)
            local = tail / density  # what one relative rounding of p moves
            assert step <= 1e-13 * max(1, abs(x)) + 2e-15 * local, (p, x)


@pytest.mark.parametrize("name", LINES)
def test_quantile_and_cdf_are_inverse_in_both_tails(name):
    law = LINES[name]
    p = torch.logspace(-12, math.log10(0.5), 60, dtype=torch.float64)
    torch.testing.assert_close(law.cdf(law.quantile(p)), p, rtol=1e-12, atol=0)
    torch.testing.assert_close(law.sf(law.quantile(p, upper=True)), p, rtol=1e-12, atol=0)
    torch.testing.assert_close(law.cdf(law.quantile(1 - p)), 1 - p, rtol=1e-12, atol=0)
    x = torch.linspace(-6, 6, 50, dtype=torch.float64)
    torch.testing.assert_close(law.cdf(x) + law.sf(x), torch.ones_like(x), rtol=1e-14, atol=0)


def test_gaussian_distribution_functions_agree_with_scipy():
    law, reference = Gaussian(0.3, 4.0), stats.norm(0.3, 2.0)
    x = torch.linspace(-60, 60, 101, dtype=torch.float64)
    np.testing.assert_allclose(law.cdf(x), reference.cdf(x), rtol=1e-12, atol=1e-307)
    np.testing.assert_allclose(law.sf(x), reference.sf(x), rtol=1e-12, atol=1e-307)
    np.testing.assert_allclose(law.quantile(LEVELS), reference.ppf(LEVELS), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(law.quantile(LEVELS, upper=True), reference.isf(LEVELS), rtol=1e-13, atol=1e-15)


def test_shapes_and_numbers_pass_through_the_distribution_functions():
    law = Gaussian([0.0], 1.0)
    assert float(law.cdf(0.0)) == 0.5
    assert float(law.quantile(0.5)) == 0.0
    assert law.quantile(torch.full((4, 1), 0.3)).shape == (4, 1)
    assert law.quantile(torch.full((4, 1), 0.3)).dtype == torch.float32


def test_atoms_have_step_distribution_functions():
    law = GaussianMixture([0.25, 0.75], [0.0, 1.0], [0.0, 0.0])
    x = torch.tensor([-0.1, 0.0, 0.5, 1.0], dtype=torch.float64)
    assert law.cdf(x).tolist() == [0.0, 0.25, 0.25, 1.0]
    assert law.sf(x).tolist() == [1.0, 0.75, 0.75, 0.0]
    torch.testing.assert_close(law.quantile(torch.tensor([0.2, 0.3]).double()), torch.tensor([0.0, 1.0]).double())


# --- samples --------------------------------------------------------------------------------------


@pytest.mark.statistical
@every_law
def test_sample_moments(name, shape, kind):
    """Seed 11, n = 10000, |z| < 5.5 for at most 32 + 528 statistics: false alarms below 2.2e-5 a law."""
    law, n = law_of(name, shape, kind), 10_000
    x = law.sample(n, seed=11).reshape(n, -1)
    centred = x - law.mean.flatten()
    z = centred.mean(0) / (law.variance.flatten() / n).sqrt()
    assert float(z.abs().max()) < 5.5
    products = centred[:, :, None] * centred[:, None, :] - law.covariance
    z = products.mean(0) / (products.std(0) / n**0.5)
    assert float(z.abs().max()) < 5.5


def test_samples_of_a_line_have_its_distribution():
    """Seed 3, n = 20000: Kolmogorov–Smirnov at level 1e-6."""
    law = LINES["two"]
    u = law.cdf(law.sample(20_000, seed=3))
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.statistical
def test_components_are_chosen_by_weight_and_never_at_weight_zero():
    """Seed 0, n = 20000, |z| < 5 for each of two frequencies: 1.2e-6."""
    law = GaussianMixture([0.0, 0.3, 0.7, 0.0], [0.0, 1.0, 2.0, 3.0], 0.0)
    x = law.sample(20_000)
    assert set(x.tolist()) == {1.0, 2.0}
    assert abs(float((x == 1).double().mean()) - 0.3) < 5 * (0.21 / 20_000) ** 0.5


# --- a sample does not know its batch -------------------------------------------------------------

CASES = [("gaussian", s, k) for s in SHAPES[1:] for k in KINDS] + [("mixture", s, k) for s in SHAPES[1:] for k in KINDS]
CASES += [("empirical", s, "isotropic") for s in SHAPES[1:]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "shape", "kind"), CASES)
def test_batches_change_no_bit(name, shape, kind, dtype):
    law = Empirical(randn(17, *shape)) if name == "empirical" else law_of(name, shape, kind)
    law = law.to(torch.empty(0, dtype=dtype))
    n = 300
    x = (2 * randn(n, *shape, seed=3)).to(dtype)
    alpha, sigma = torch.linspace(0.1, 0.9, n, dtype=dtype), torch.linspace(1.0, 0.2, n, dtype=dtype)
    methods = {
        "score": lambda rows, x: law.diffused_score(x, ALPHA, SIGMA),
        "score, a level each": lambda rows, x: law.diffused_score(x, alpha[rows], sigma[rows]),
        "log_prob": lambda rows, x: law.diffused_log_prob(x, ALPHA, SIGMA),
        "log_prob, a level each": lambda rows, x: law.diffused_log_prob(x, alpha[rows], sigma[rows]),
    }
    if name != "empirical":
        methods |= {"own score": lambda rows, x: law.score(x), "own log_prob": lambda rows, x: law.log_prob(x)}
    for label, method in methods.items():
        whole = method(slice(None), x)
        for size in (1, 3, 64):
            for start in (0, 1, 77, n - size):
                rows = slice(start, start + size)
                strided = torch.stack([x[rows], x[rows]], dim=-1)[..., 0]
                turned = x[rows].transpose(0, -1).contiguous().transpose(0, -1)
                for part in (x[rows], x[rows].clone(), strided, turned):
                    assert torch.equal(method(rows, part), whole[rows]), (label, size, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "shape", "kind"), CASES)
def test_samples_are_a_function_of_seed_and_path(name, shape, kind, dtype):
    law = Empirical(randn(17, *shape)) if name == "empirical" else law_of(name, shape, kind)
    law = law.to(torch.empty(0, dtype=dtype))
    whole = law.sample(200, seed=5)
    assert whole.dtype == dtype
    for size in (1, 3, 64):
        assert torch.equal(law.sample(size, seed=5), whole[:size])
        for start in (1, 77):
            assert torch.equal(law.sample(paths=range(start, start + size), seed=5), whole[start : start + size])
    backwards = torch.arange(199, -1, -1)
    assert torch.equal(law.sample(200, seed=5, paths=backwards), whole.flip(0))
    assert not torch.equal(law.sample(200, seed=6), whole)


def test_rotations_beyond_64_dimensions_hold_to_rounding():
    d = components.UNROLLED + 6
    x, q = randn(2, 9, d), torch.linalg.qr(randn(2, d, d, seed=1)).Q
    torch.testing.assert_close(components.rotate(x, q), torch.einsum("kbi,kij->kbj", x, q), rtol=1e-13, atol=1e-13)
    law, y = Gaussian(randn(d), covariance("full", (d,))), randn(4, d, seed=3)
    torch.testing.assert_close(law.score(y), torch.linalg.solve(law.covariance, law.mean - y, left=False))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 101])
def test_fold_sums_over_any_dimension(size):
    x = randn(2, size, 3)
    torch.testing.assert_close(fold(x, 1), x.sum(1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(fold(x.transpose(1, 2)), x.sum(1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_can_be_differentiated_and_mapped(kind):
    law, x, v = mixture((3,), kind), randn(5, 3), randn(5, 3, seed=2)
    _, tangent = torch.func.jvp(lambda y: law.diffused_score(y, ALPHA, SIGMA), (x,), (v,))
    h = 1e-6
    difference = law.diffused_score(x + h * v, ALPHA, SIGMA) - law.diffused_score(x - h * v, ALPHA, SIGMA)
    torch.testing.assert_close(tangent, difference / (2 * h), rtol=1e-7, atol=1e-8)
    mapped = torch.func.vmap(lambda y: law.score(y[None])[0])(x)
    torch.testing.assert_close(mapped, law.score(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4, 4)])
def test_scores_are_laid_out_as_states(shape, kind):
    """Components and samples change places within; what comes out is contiguous, and in one graph."""
    law, x, sigma = mixture(shape, kind), randn(5, *shape), torch.linspace(0.1, 1.0, 5).double()
    score = law.diffused_score(x, ALPHA, sigma)
    assert score.is_contiguous()
    traced = torch.compile(lambda x, s: law.diffused_score(x, ALPHA, s), backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(x, sigma), score, rtol=1e-13, atol=1e-13)


# --- errors ---------------------------------------------------------------------------------------

G3, NAN = Gaussian([0.0, 0.0, 0.0], 1.0), float("nan")
SKEW = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
ERRORS = {
    "negative weights": (lambda: GaussianMixture([1.5, -0.5], [0.0, 1.0], 1.0), "smallest is -0.5"),
    "weights of sum 0.9": (lambda: GaussianMixture([0.5, 0.4], [0.0, 1.0], 1.0), r"weights / weights\.sum"),
    "weights without a mean": (lambda: GaussianMixture([0.5, 0.5], [0.0], 1.0), r"means \(K, \*E\)"),
    "covariances without K": (
        lambda: GaussianMixture([0.5, 0.5], [[0.0, 1, 2]] * 2, torch.eye(3)),
        "one per component",
    ),
    "mean NaN": (lambda: Gaussian([0.0, NAN], 1.0), "mean must be finite; got nan"),
    "covariance infinite": (lambda: Gaussian(0.0, math.inf), "covariance must be finite; got inf"),
    "variance negative": (lambda: Gaussian(0.0, -2.0), "negative variance -2"),
    "diagonal negative": (lambda: Gaussian([0.0, 0.0], [1.0, -3.0]), "negative variance -3"),
    "matrix asymmetric": (lambda: Gaussian([0.0, 0.0], SKEW), r"differ by 0\.5; give \(C \+ C\.mT\) / 2"),
    "matrix indefinite": (lambda: Gaussian([0.0, 0.0], INDEFINITE), "an eigenvalue is -1"),
    "zero row": (lambda: Gaussian([0.0, 0.0], torch.tensor([[0.0, 1.0], [1.0, 1.0]])), "semi-definite"),
    "one bad matrix": (
        lambda: GaussianMixture([0.5, 0.5], [[0.0, 0.0]] * 2, torch.stack([torch.eye(2), INDEFINITE])),
        "semi-definite",
    ),
    "covariance shape": (lambda: Gaussian([0.0, 0.0], torch.ones(3)), r"shape \(3,\); give"),
    "x shape": (lambda: G3.score(torch.zeros(5, 2)), r"\(5, 2\).*\(3,\)"),
    "x without a batch": (lambda: G3.log_prob(torch.zeros(3)), r"x\[None\]"),
    "shift shape": (lambda: G3.diffused(1.0, 1.0, torch.zeros(2)), r"shift has shape \(2,\)"),
    "matrix shape": (lambda: G3.affine(torch.zeros(2, 3)), r"matrix has shape \(2, 3\)"),
    "noise negative": (lambda: G3.affine(1.0, 0.0, -1.0), "negative variance -1"),
    "levels": (lambda: G3.diffused_score(torch.zeros(5, 3), torch.ones(4), 1.0), r"alpha has shape \(4,\)"),
    "cdf in 3-D": (lambda: G3.cdf(0.0), "1-D"),
    "quantile in 3-D": (lambda: G3.quantile(0.5), "1-D"),
    "p = 0": (lambda: Gaussian(0.0, 1.0).quantile(0.0), "got 0"),
    "p = 1": (lambda: LINES["two"].quantile(1.0), "got 1"),
    "p NaN": (lambda: LINES["two"].quantile(NAN), "got nan"),
    "p = 2 of data": (lambda: Empirical([0.0, 1.0]).quantile(2.0), "got 2"),
    "density of data": (lambda: Empirical([[0.0, 1.0]]).log_prob(torch.zeros(1, 2)), "sigma > 0"),
    "score of a point": (lambda: G3.diffused_score(torch.zeros(1, 3), 0.0, 0.0), "sigma > 0"),
    "no data": (lambda: Empirical(torch.zeros(0, 3)), "N ≥ 1"),
    "no count": (lambda: G3.sample(), "paths="),
    "two counts": (lambda: G3.sample(3, paths=[1, 2]), "leave n out"),
    "negative count": (lambda: G3.sample(-1), "at least 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_show_the_value_and_the_cure(case):
    call, message = ERRORS[case]
    with pytest.raises(SdekitError, match=message):
        call()


def test_empty_batches_are_batches():
    for law in (G3, mixture((3,), "full"), Empirical(randn(4, 3))):
        assert law.sample(0).shape == (0, 3)
        assert law.diffused_score(torch.zeros(0, 3, dtype=torch.float64), 1.0, 1.0).shape == (0, 3)
