"""Fokker–Planck: marginals against closed forms with their order, exact equilibria, residuals; and planted faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import sdekit as sk
from sdekit import fokker_planck
from sdekit.fokker_planck import Marginal, finite_volume, linear
from sdekit.fokker_planck.evolution import Line
from sdekit.metrics import wasserstein2

MILD = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])
OU = sk.OU(theta=1.0, mu=0.5, sigma=1.2)
START = sk.Gaussian([-1.0], [0.2])
D = 0.25


def constant(g: float):
    return lambda t, x: torch.full_like(x, g)


DOUBLE_WELL = sk.sde(lambda t, x: x - x**3, constant(math.sqrt(2 * D)), noise_type="additive")


@dataclass(frozen=True)
class Scipy:
    """A law of scipy.stats as one of ours."""

    frozen: object
    event_shape = torch.Size((1,))

    @property
    def mean(self) -> Tensor:
        return torch.tensor(self.frozen.mean())

    @property
    def variance(self) -> Tensor:
        return torch.tensor(self.frozen.var())

    def cdf(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.frozen.cdf(x.numpy()))

    def sf(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.frozen.sf(x.numpy()))


def lognormal(mean: float, sd: float) -> Scipy:
    return Scipy(stats.lognorm(s=sd, scale=math.exp(mean)))


def masses_of(law: Line, edges: Tensor) -> Tensor:
    below, above = law.cdf(edges), law.sf(edges)
    return torch.where(below[1:] < 0.5, below.diff(), -above.diff())


def l1(found: Marginal, law: Line) -> float:
    return float((found.masses - masses_of(law, found.edges)).abs().sum())


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]


# --- convergence of the finite volumes ------------------------------------------------------------


def ou_errors(sde=OU, cells=(50, 100, 200, 400)) -> list[float]:
    """L1 errors at t = 1 with cells and steps refined together."""
    truth = OU.marginal(START, 1.0)
    runs = (fokker_planck.solve(sde, START, (0.0, 1.0), cells=n, steps=n // 5, domain=(-9.0, 10.0)) for n in cells)
    return [l1(run.final, truth) for run in runs]


def test_order_two_on_ornstein_uhlenbeck():
    errors = ou_errors()
    assert errors[-1] < 4e-4  # measured: 2.35e-2, 5.91e-3, 1.48e-3, 3.71e-4
    assert orders(errors) == pytest.approx([2.0] * 3, abs=0.01)


def test_order_two_in_w2():
    grids = [(n, sk.grids.uniform(OU, n // 5, 0.0, 1.0).flip(0)) for n in (100, 200, 400)]
    truth = OU.marginal(START, 1.0)
    errors = [wasserstein2(fokker_planck.solve(OU, START, g, cells=n, steps=1).final, truth) for n, g in grids]
    assert orders(errors) == pytest.approx([2.0] * 2, abs=0.05)


@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_order_two_on_the_way_back(eta):
    vp = sk.VP()
    sde = sk.reverse_time(vp, sk.exact_score(MILD, vp), eta)
    errors = []
    for n in (100, 200, 400):
        grid = sk.grids.log_snr(vp, n, t_min=0.02)
        run = fokker_planck.solve(sde, vp.marginal(MILD, 1.0), grid, cells=n, steps=1)
        errors.append(l1(run.final, vp.marginal(MILD, 0.02)))
    assert errors[-1] < 5e-4
    assert orders(errors) == pytest.approx([2.0] * 2, abs=0.05)


def gbm(calculus: str = "ito"):
    """dX = X dt + 0.5 X dW, whose law is log-normal."""
    return sk.sde(lambda t, x: x, lambda t, x: 0.5 * x, noise_type="diagonal", calculus=calculus)


def gbm_errors(sde, shift: float, cells=(100, 200, 400)) -> list[float]:
    start, truth = lognormal(0.0, 0.3), lognormal(shift, math.sqrt(0.09 + 0.25))
    errors = []
    for n in cells:
        edges = torch.exp(torch.linspace(-5.0, 8.0, n + 1, dtype=torch.float64))
        errors.append(l1(fokker_planck.solve(sde, start, (0.0, 1.0), cells=edges, steps=n // 5).final, truth))
    return errors


@pytest.mark.parametrize(("calculus", "shift"), [("ito", 1 - 0.125), ("stratonovich", 1.0)])
def test_order_two_with_noise_that_depends_on_the_state_on_uneven_cells(calculus, shift):
    errors = gbm_errors(gbm(calculus), shift)
    assert errors[-1] < 3e-3
    assert orders(errors) == pytest.approx([2.0] * 2, abs=0.1)


def test_coefficients_that_depend_on_time():
    """dX = cos(t) X dt + (1 + t) dW: variance by quadrature."""
    sde = sk.sde(lambda t, x: math.cos(t) * x, lambda t, x: torch.full_like(x, 1 + t), noise_type="additive")
    nodes, weights = np.polynomial.legendre.leggauss(30)
    u = 0.5 + 0.5 * nodes
    growth = np.exp(2 * (math.sin(1.0) - np.sin(u)))
    variance = 0.5 * weights @ (growth * (1 + u) ** 2) + 0.2 * math.exp(2 * math.sin(1.0))
    truth = sk.Gaussian([-math.exp(math.sin(1.0))], [float(variance)])
    errors = []
    for n in (200, 400, 800):
        run = fokker_planck.solve(sde, START, (0.0, 1.0), cells=n, steps=n // 5, domain=(-30.0, 25.0))
        errors.append(l1(run.final, truth))
    assert orders(errors) == pytest.approx([2.0] * 2, abs=0.03)
    k = fokker_planck.linear_kernel(sde, 0.0, 1.0, (1,))
    assert wasserstein2(k.push(START), truth) < 1e-13


def cir_error(cells: int) -> float:
    """CIR from a point, with its wall at 0, against the noncentral χ²."""
    k, theta, s, x0, t = 2.0, 0.5, 0.5, 0.8, 0.5
    sde = sk.sde(lambda t, x: k * (theta - x), lambda t, x: s * x.sqrt(), noise_type="diagonal")
    c = s**2 * (1 - math.exp(-k * t)) / (4 * k)
    truth = Scipy(stats.ncx2(4 * k * theta / s**2, x0 * math.exp(-k * t) / c, scale=c))
    run = fokker_planck.solve(
        sde,
        sk.Gaussian([x0], 0.0),
        (0.0, t),
        cells=cells,
        steps=cells // 5,
        domain=(0.0, 4.0),
        boundary=("wall", "far"),
    )
    assert float(run.final.mean) == pytest.approx(theta + (x0 - theta) * math.exp(-k * t), abs=20 / cells**2)
    return l1(run.final, truth)


def test_a_point_and_a_wall_keep_order_two():
    errors = [cir_error(n) for n in (100, 200, 400)]
    assert orders(errors) == pytest.approx([2.0] * 2, abs=0.1)


def from_a_point() -> fokker_planck.Marginals:
    """Steps that are long for the cells: h (r + l) is about 70."""
    point = sk.Gaussian([0.0137], 0.0)
    return fokker_planck.solve(OU, point, (0.0, 0.5), cells=800, steps=40, domain=(-8.0, 9.0))


def test_without_the_damped_start_a_point_rings(monkeypatch):
    truth = OU.marginal(sk.Gaussian([0.0137], 0.0), 0.5)
    assert l1(from_a_point().final, truth) < 2e-4
    monkeypatch.setattr("sdekit.fokker_planck.evolution._DAMPED", 0)
    assert l1(from_a_point().final, truth) > 5e-3


# --- mass, sign, equilibrium ----------------------------------------------------------------------


def test_probability_is_conserved_and_positive_at_steps_far_beyond_the_bound():
    run = fokker_planck.solve(DOUBLE_WELL, MILD, torch.linspace(0, 5, 6), cells=800, steps=20)
    assert run.mass_error < 1e-12  # measured: 2e-15
    assert float(run.masses.min()) >= 0.0
    mesh = finite_volume.Mesh(run.edges.numpy(), torch.Size((1,)))
    chain = mesh.chain(DOUBLE_WELL, 0.0)
    rates = np.append(chain.right, 0.0) + np.append(0.0, chain.left)
    assert 0.05 * rates.max() > 100 * 2  # h (r + l) ≤ 2 is all that Crank–Nicolson alone guarantees


def test_without_limited_fluxes_probabilities_turn_negative(monkeypatch):
    monkeypatch.setattr("sdekit.fokker_planck.evolution._DAMPED", 0)
    run = from_a_point()
    assert float(run.masses.min()) >= 0.0
    assert run.mass_error < 1e-12

    def plain(self: finite_volume.Chain, p: np.ndarray, h: float) -> np.ndarray:
        return self.implicit(finite_volume.moved(p, 0.5 * h * self.flux(p)), 0.5 * h)

    monkeypatch.setattr(finite_volume.Chain, "crank_nicolson", plain)
    assert float(from_a_point().masses.min()) < -1e-3


def test_limited_fluxes_change_no_step_below_the_bound():
    mesh = finite_volume.Mesh(np.linspace(-6, 6, 41), torch.Size((1,)))
    chain, p = mesh.chain(OU, 0.0), masses_of(START, torch.linspace(-6, 6, 41, dtype=torch.float64)).numpy()
    h = 2.0 / (np.append(chain.right, 0.0) + np.append(0.0, chain.left)).max()
    plain = chain.implicit(finite_volume.moved(p, 0.5 * h * chain.flux(p)), 0.5 * h)
    assert plain.min() > 0.0
    assert (chain.crank_nicolson(p, h) == plain).all()


def equilibrium_drift(edges: Tensor) -> float:
    """How far the discrete Gibbs law of the double well moves in a long run."""
    x = 0.5 * (edges[1:] + edges[:-1])
    gibbs = torch.exp(-(x**4 / 4 - x**2 / 2) / D)
    start = Marginal(edges, gibbs / gibbs.sum())
    run = fokker_planck.solve(DOUBLE_WELL, start, (0.0, 10.0), cells=edges, steps=100)
    return float((run.final.masses - start.masses).abs().sum())


def pointwise(self: finite_volume.Mesh, sde, t: float) -> np.ndarray:
    """The fault: f/D at the face instead of a difference of the potential."""
    gaps = np.diff(self.nodes)
    f, d = finite_volume.coefficients(sde, t, self.nodes[:-1] + 0.5 * gaps, self.event)
    return gaps * f / d


def test_the_equilibrium_of_a_gradient_drift_is_exact(monkeypatch):
    edges = torch.linspace(-3.2, 3.2, 101, dtype=torch.float64)
    assert equilibrium_drift(edges) < 1e-14  # measured: 9e-16
    monkeypatch.setattr(finite_volume.Mesh, "steps_of_potential", pointwise)
    assert equilibrium_drift(edges) > 1e-4


def test_order_two_towards_the_double_wells_stationary_law():
    errors = []
    for n in (50, 100, 200):
        edges = torch.linspace(-3.2, 3.2, n + 1, dtype=torch.float64)
        truth = fokker_planck.stationary(DOUBLE_WELL, domain=(-3.2, 3.2), cells=n)
        run = fokker_planck.solve(DOUBLE_WELL, sk.Gaussian([0.7], [0.05]), (0.0, 200.0), cells=edges, steps=400)
        errors.append(float((run.final.masses - truth.masses).abs().sum()))
        assert run.mass_error < 1e-12
    assert errors[-1] < 3e-4
    assert orders(errors) == pytest.approx([2.0] * 2, abs=0.05)


# --- faults in the equation -----------------------------------------------------------------------


def test_a_missing_half_is_seen(monkeypatch):
    right = finite_volume.coefficients

    def doubled(*args):
        f, d = right(*args)
        return f, 2 * d

    monkeypatch.setattr(finite_volume, "coefficients", doubled)
    assert min(ou_errors(cells=(100, 200))) > 0.1


def test_stratonovich_read_as_ito_is_seen():
    wrong = replace(gbm("stratonovich"), calculus="ito")
    assert min(gbm_errors(wrong, 1.0, cells=(100, 200))) > 0.1


def test_a_diffusion_outside_the_derivative_is_seen(monkeypatch):
    """J = f p − D p′ instead of f p − (D p)′."""
    right = finite_volume.Mesh.steps_of_potential

    def outside(self, sde, t):
        d = finite_volume.coefficients(sde, t, self.nodes, self.event)[1]
        return right(self, sde, t) + np.diff(np.log(d))

    monkeypatch.setattr(finite_volume.Mesh, "steps_of_potential", outside)
    assert min(gbm_errors(gbm(), 1 - 0.125, cells=(100, 200))) > 0.1


def test_implicit_euler_throughout_is_order_one(monkeypatch):
    monkeypatch.setattr(finite_volume.Chain, "crank_nicolson", finite_volume.Chain.implicit)
    assert orders(ou_errors())[-1] < 1.3


def test_an_open_end_is_seen(monkeypatch):
    right = finite_volume.Chain.implicit

    def leaking(self, p, h):
        new = right(self, p, h)
        new[-1] /= 1.0 + h * self.right[-1]
        return new

    walls = {"cells": 100, "domain": (0.0, 1.0), "boundary": "wall"}
    uniform = Marginal(torch.linspace(0, 1, 101, dtype=torch.float64), torch.full((100,), 0.01, dtype=torch.float64))
    brownian = sk.sde(lambda t, x: 0 * x, constant(1.0), noise_type="additive")
    good = fokker_planck.solve(brownian, uniform, (0.0, 1.0), **walls)
    assert good.mass_error < 1e-12
    assert float((good.final.masses - 0.01).abs().max()) < 1e-15
    monkeypatch.setattr(finite_volume.Chain, "implicit", leaking)
    assert fokker_planck.solve(brownian, uniform, (0.0, 1.0), **walls).mass_error > 1e-3


# --- domains and doors ----------------------------------------------------------------------------


@pytest.mark.parametrize("start", [sk.Gaussian([3.0], [1e-4]), sk.Gaussian([0.0], [25.0]), sk.Gaussian([-2.0], 0.0)])
def test_the_chosen_domain_holds_the_law_and_little_else(start):
    run = fokker_planck.solve(OU, start, torch.linspace(0, 1, 6), cells=400)
    for law in (OU.marginal(start, t) for t in run.ts[1:].tolist()):
        assert max(float(law.cdf(run.edges[0])), float(law.sf(run.edges[-1]))) < 1e-12
    sds = [math.sqrt(float(OU.marginal(start, t).variance)) for t in run.ts.tolist()]
    means = [float(OU.marginal(start, t).mean) for t in run.ts.tolist()]
    assert float(run.edges[-1] - run.edges[0]) < 1.5 * (max(means) - min(means) + 18 * max(sds))
    assert float(run.final.mean) == pytest.approx(means[-1], abs=2e-3)


def test_marginals_at_every_time_of_the_grid():
    grid = torch.tensor([0.0, 0.1, 0.1, 0.5, 2.0])
    run = fokker_planck.solve(OU, START, grid, cells=400, steps=50)
    assert len(run) == 5
    assert torch.equal(run.ts, grid.double())
    for t, found in zip(grid.tolist(), run, strict=True):
        assert l1(found, OU.marginal(START, t)) < 1.2e-3
    assert torch.equal(run[1].masses, run[2].masses)
    assert torch.equal(run.final.masses, run[4].masses)


def test_points_are_shared_so_that_their_mean_stays():
    points = sk.Empirical(torch.tensor([[0.1234], [0.7], [-1.03]], dtype=torch.float64))
    run = fokker_planck.solve(OU, points, (0.0, 1e-9), cells=100, domain=(-3.0, 3.0))
    assert float(run.masses[0] @ run[0].nodes) == pytest.approx(float(points.mean), abs=1e-15)


def refused(match: str, *args, **options) -> None:
    with pytest.raises(sk.SdekitError, match=match):
        fokker_planck.solve(*args, **options)


def test_bad_requests_are_refused():
    two = sk.Gaussian([0.0, 0.0], 1.0)
    refused("for the line", OU, two, (0.0, 1.0))
    refused("holds .* at t = ", OU, START, (0.0, 1.0), domain=(-5.0, 6.0))
    refused("leaves out", OU, START, (0.0, 1.0), domain=(-1.0, 6.0))
    refused("leaves out points", OU, sk.Gaussian([-7.0], 0.0), (0.0, 1.0), domain=(-6.0, 6.0))
    refused("forward SDE cannot", OU, START, (1.0, 0.0))
    refused("steps must be", OU, START, (0.0, 1.0), steps=0)
    refused("cells = 2", OU, START, (0.0, 1.0), cells=2)
    refused("domain must be", OU, START, (0.0, 1.0), domain=(2.0, 1.0))
    refused("edges and a domain", OU, START, (0.0, 1.0), cells=torch.linspace(-6, 6, 40), domain=(-6.0, 6.0))
    refused("A wall stands", OU, START, (0.0, 1.0), boundary="wall")
    refused("boundary must be", OU, START, (0.0, 1.0), boundary="open")
    vp = sk.VP()
    flow = sk.probability_flow(vp, sk.exact_score(MILD, vp))
    refused("quantile_flow", flow, MILD, (1.0, 0.1), domain=(-6.0, 6.0))
    refused("g² nan|drift is nan", gbm().__class__(lambda t, x: x.sqrt(), constant(1.0)), START, (0.0, 1.0))


# --- the law on the line --------------------------------------------------------------------------


def test_the_marginal_is_a_law():
    edges = torch.linspace(-9, 9, 301, dtype=torch.float64)
    normal = sk.Gaussian([0.3], [0.8])
    found = Marginal(edges, masses_of(normal, edges) / masses_of(normal, edges).sum())
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    assert float((found.cdf(x) / normal.cdf(x) - 1).abs().max()) < 2e-3  # relative, down to 1e-12
    assert float((found.sf(x) / normal.sf(x) - 1).abs().max()) < 2e-3
    assert float((found.cdf(x) + found.sf(x) - 1).abs().max()) < 1e-14
    p = torch.tensor([1e-20, 1e-6, 0.2, 0.5, 0.7, 1 - 1e-6], dtype=torch.float64)
    for upper in (False, True):
        there = found.quantile(p, upper=upper)
        again = found.sf(there) if upper else found.cdf(there)
        torch.testing.assert_close(again, p, rtol=1e-9, atol=0)
        torch.testing.assert_close(there[1:], normal.quantile(p, upper=upper)[1:], rtol=0, atol=2e-5)
        torch.testing.assert_close(there[0], normal.quantile(p, upper=upper)[0], rtol=0, atol=2e-3)
    torch.testing.assert_close(found.density(x), torch.exp(normal.log_prob(x[:, None])), rtol=2e-3, atol=1e-9)
    assert float(found.density(10.0)) == 0.0
    assert float(found.mean) == pytest.approx(0.3, abs=1e-7)
    assert float(found.variance) == pytest.approx(0.8, abs=1e-6)
    assert wasserstein2(found, normal) < 1e-5
    sample = found.sample(4000, seed=3)
    assert sample.shape == (4000, 1)
    assert torch.equal(sample[100:200], found.sample(paths=range(100, 200), seed=3))
    assert (
        stats.kstest(sample.flatten().numpy(), lambda x: normal.cdf(torch.from_numpy(x)).numpy()).pvalue > 1e-6
    )  # seed 3


def test_expectations_are_of_order_four_in_the_width():
    truth = 0.832745487128  # E x² of the double well, to 12 digits
    laws = [fokker_planck.stationary(DOUBLE_WELL, cells=n, domain=(-3.2, 3.2)) for n in (50, 100, 200)]
    errors = [abs(float(law.expectation(torch.square)) - truth) for law in laws]
    assert orders(errors) == pytest.approx([4.0] * 2, abs=0.1)


def test_bad_marginals_are_refused():
    edges, masses = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.5])
    for bad_edges, bad_masses, says in (
        (edges[:2], masses, "between n"),
        (edges.flip(0), masses, "increase"),
        (edges, masses * 1.1, "sum 1.1"),
        (edges, torch.tensor([1.5, -0.5]), "least is -0.5"),
    ):
        with pytest.raises(sk.SdekitError, match=says):
            Marginal(bad_edges, bad_masses)
    with pytest.raises(sk.SdekitError, match="strictly between"):
        Marginal(edges, masses).quantile(0.0)
    with pytest.raises(sk.SdekitError, match="number n"):
        Marginal(edges, masses).sample()


# --- stationary laws ------------------------------------------------------------------------------


def test_the_double_well_to_ten_digits():
    law = fokker_planck.stationary(DOUBLE_WELL)
    second = float(law.expectation(torch.square))
    assert second == pytest.approx(0.832745487128, abs=1e-10)
    assert float(law.expectation(lambda x: x**4)) == pytest.approx(second + D, abs=1e-10)
    assert float(law.cdf(0.5) - law.cdf(-0.5)) == pytest.approx(0.219437266058, abs=1e-9)


def test_the_stationary_law_of_ornstein_uhlenbeck_cell_by_cell():
    for process in (OU, sk.OU(theta=40.0, mu=1000.0, sigma=0.1)):
        law, truth = fokker_planck.stationary(process), process.stationary((1,))
        assert float((law.cdf(law.edges) - truth.cdf(law.edges)).abs().max()) < 1e-11


@pytest.mark.parametrize(("calculus", "power"), [("ito", 11.0), ("stratonovich", 10.5)])
def test_student_laws_from_multiplicative_noise(calculus, power):
    r"""$dX = -20 X dt + \sqrt{2 (1 + X^2)} dW$: $p \propto (1 + x^2)^{-11}$, or −10.5."""
    sde = sk.sde(lambda t, x: -20 * x, lambda t, x: (2 * (1 + x * x)).sqrt(), calculus=calculus)
    law = fokker_planck.stationary(sde, domain=(-12.0, 12.0))
    nu = 2 * power - 1
    truth = Scipy(stats.t(nu, scale=1 / math.sqrt(nu)))
    assert l1(law, truth) < 1e-11
    other = Scipy(stats.t(nu + 1, scale=1 / math.sqrt(nu + 1)))
    assert l1(law, other) > 1e-3  # negative control: the exponent of the other calculus, nearly


def test_cir_settles_to_a_gamma_law():
    k, theta, s = 2.0, 0.5, 0.3
    sde = sk.sde(lambda t, x: k * (theta - x), lambda t, x: s * x.sqrt())
    law = fokker_planck.stationary(sde, domain=(0.0, 3.0), boundary=("wall", "far"))
    assert l1(law, Scipy(stats.gamma(2 * k * theta / s**2, scale=s**2 / (2 * k)))) < 1e-11


def test_no_stationary_law_is_an_error():
    outwards = sk.sde(lambda t, x: x, constant(1.0), noise_type="additive")
    for sde in (sk.Brownian(), outwards):
        with pytest.raises(sk.SdekitError, match="no stationary law"):
            fokker_planck.stationary(sde)
    with pytest.raises(sk.SdekitError, match="does not die out"):
        fokker_planck.stationary(sk.Brownian(), domain=(-1.0, 1.0))
    flat = fokker_planck.stationary(sk.Brownian(), domain=(-1.0, 1.0), boundary="wall")
    assert float(flat.values.max() - flat.values.min()) < 1e-12
    with pytest.raises(sk.SdekitError, match="A wall stands"):
        fokker_planck.stationary(OU, boundary="wall")
    with pytest.raises(sk.SdekitError, match="domain must be"):
        fokker_planck.stationary(OU, domain=(1.0, -1.0))


# --- residuals ------------------------------------------------------------------------------------


def points(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def sheared(t: Tensor, y: Tensor) -> Tensor:
    """Log density of (W₁, W₂ + W₁²)."""
    x = torch.stack([y[:, 0], y[:, 1] - y[:, 0] ** 2], 1)
    return -x.square().sum(1) / (2 * t) - torch.log(t)


def shear(calculus: str):
    """Its SDE: general noise, which the calculus reads as drift (0, 1) or (0, 0)."""

    def g(t, y):
        one, zero = torch.ones_like(y[:, 0]), torch.zeros_like(y[:, 0])
        return torch.stack([torch.stack([one, zero], 1), torch.stack([2 * y[:, 0], one], 1)], 1)

    drift = torch.tensor([0.0, 1.0 if calculus == "ito" else 0.0], dtype=torch.float64)
    return sk.sde(lambda t, y: drift.expand(y.shape), g, noise_type="general", calculus=calculus)


PLANE = sk.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.3]], [[0.36, 0.2], [0.25, 0.5]])
VP = sk.VP()


def diffused(t, x):
    return PLANE.diffused_log_prob(x, VP.schedule.alpha(t), VP.schedule.sigma(t))


def log_normals(drift: float):
    def log_density(t, x):
        z = torch.log(x) - drift * t[:, None]
        return (-z.square() / (2 * (0.09 + 0.25 * t[:, None])) - torch.log(x)).sum(1) - 1.5 * torch.log(0.09 + 0.25 * t)

    return log_density


TIMES = torch.linspace(0.05, 0.9, 60, dtype=torch.float64)
EXACT = {
    "vp": (VP, diffused, points(60, 2)),
    "reverse": (sk.reverse_time(VP, sk.exact_score(PLANE, VP), 0.7), diffused, points(60, 2)),
    "flow": (sk.probability_flow(VP, sk.exact_score(PLANE, VP)), diffused, points(60, 2)),
    "gbm": (gbm(), log_normals(1 - 0.125), points(60, 3).exp()),
    "gbm stratonovich": (gbm("stratonovich"), log_normals(1.0), points(60, 3).exp()),
    "general": (shear("ito"), sheared, points(60, 2)),
    "general stratonovich": (shear("stratonovich"), sheared, points(60, 2)),
}


@pytest.mark.parametrize("case", EXACT)
def test_the_residual_of_an_exact_pair_is_rounding(case):
    sde, log_density, x = EXACT[case]
    residual = fokker_planck.residual(sde, log_density, TIMES, x)
    assert residual.shape == (60,)
    assert float(residual.abs().max()) < 2e-12  # relative to terms of up to 100


@dataclass(frozen=True)
class Louder:
    """An SDE with 1 % more g² and the same drift."""

    sde: object
    noise_type = "additive"
    calculus = "ito"
    direction = "decreasing"

    def drift(self, t, x):
        return self.sde.drift(t, x)

    def diffusion(self, t, x):
        return 1.01**0.5 * self.sde.diffusion(t, x)


@pytest.mark.parametrize("case", EXACT)
def test_one_percent_more_noise_is_seen(case):
    sde, log_density, x = EXACT[case]
    if case == "flow":
        wrong = sk.probability_flow(VP, lambda t, y: 1.01 * sk.exact_score(PLANE, VP)(t, y))
    elif case == "vp":
        wrong = sk.sde(sde.drift, lambda t, y: 1.01**0.5 * sde.diffusion(t, y), noise_type="additive")
    elif case == "reverse":
        wrong = Louder(sde)
    else:
        wrong = replace(sde, diffusion=lambda t, y: 1.01**0.5 * sde.diffusion(t, y))
    assert float(fokker_planck.residual(wrong, log_density, TIMES, x).abs().max()) > 0.1


def test_the_other_calculus_is_seen():
    for case in ("gbm", "gbm stratonovich", "general", "general stratonovich"):
        sde, log_density, x = EXACT[case]
        other = "ito" if sde.calculus == "stratonovich" else "stratonovich"
        wrong = fokker_planck.residual(replace(sde, calculus=other), log_density, TIMES, x)
        assert float(wrong.abs().max()) > 0.1


def test_the_residual_refuses_what_it_cannot_differentiate():
    with pytest.raises(sk.SdekitError, match=r"shape \(60,\)"):
        fokker_planck.residual(VP, lambda t, x: x, TIMES, points(60, 2))
    with pytest.raises(sk.SdekitError, match="without a gradient"):
        fokker_planck.residual(VP, lambda t, x: torch.zeros(60).double(), TIMES, points(60, 2))


# --- linear SDEs ----------------------------------------------------------------------------------

A = torch.tensor([[-1.0, 2.0, 0.0], [-0.5, -0.3, 0.1], [0.0, 0.2, -2.0]], dtype=torch.float64)
SHIFT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
ROOT = points(3, 2)
CONSTANT = sk.sde(lambda t, x: x @ A.T + SHIFT, lambda t, x: ROOT.expand(len(x), 3, 2), noise_type="additive")


def test_doubling_agrees_with_the_lyapunov_equation():
    kernel = fokker_planck.linear_kernel(CONSTANT, 0.5, 2.5, (3,))
    factor, shift, covariance = linear._integrated(CONSTANT, 0.5, 2.5, torch.Size((3,)))
    assert float((kernel.matrix - factor).abs().max()) < 1e-14
    assert float((kernel.shift - shift).abs().max()) < 1e-14
    assert float((kernel.covariance - covariance).abs().max()) < 5e-14
    ou = sk.OU(theta=-A, mu=torch.linalg.solve(A, -SHIFT), sigma=ROOT)
    torch.testing.assert_close(kernel.covariance, ou.transition(0.0, 2.0).covariance, rtol=1e-13, atol=1e-15)


def test_stiff_systems_and_long_horizons():
    rates = torch.tensor([-100.0, -1.0], dtype=torch.float64)
    sde = sk.sde(lambda t, x: rates * x, constant(1.0), noise_type="additive")
    covariance = fokker_planck.linear_kernel(sde, 0.0, 40.0, (2,)).covariance
    torch.testing.assert_close(covariance, torch.diag(-0.5 / rates), rtol=1e-14, atol=1e-16)
    block = torch.zeros(4, 4, dtype=torch.float64)  # negative control: one block exponential
    block[:2, :2], block[:2, 2:], block[2:, 2:] = torch.diag(-rates), torch.eye(2), torch.diag(rates)
    whole = torch.linalg.matrix_exp(40 * block)
    assert not bool((whole[2:, 2:].T @ whole[:2, 2:]).isfinite().all())


def test_the_kernels_of_known_processes():
    mean, law = torch.tensor([0.5, -1.0, 0.25]), torch.diag(torch.tensor([0.01, 0.25, 1.0]))
    data = sk.Gaussian(mean.double(), law.double())
    for process in (sk.VP(), sk.OU(theta=1.3, mu=0.7, sigma=0.9), sk.Brownian(rate=-0.4, noise=1.7)):
        found = fokker_planck.linear_kernel(process, 0.1, 0.9, (3,)).push(data)
        assert wasserstein2(found, process.transition(0.1, 0.9).push(data)) < 1e-14
    back = sk.reverse_time(VP, sk.exact_score(data, VP), 0.8)
    found = fokker_planck.linear_kernel(back, 1.0, 1e-2, (3,)).push(VP.marginal(data, 1.0))
    assert wasserstein2(found, VP.marginal(data, 1e-2)) < 1e-13


def test_events_of_any_shape_and_scalar_noise():
    sde = sk.sde(lambda t, x: -x, lambda t, x: torch.ones_like(x), noise_type="scalar")
    kernel = fokker_planck.linear_kernel(sde, 0.0, 1.0, (2, 1))
    assert kernel.shift.shape == (2, 1)
    torch.testing.assert_close(kernel.covariance, torch.full((2, 2), 0.5 * -math.expm1(-2.0), dtype=torch.float64))


def test_the_stationary_gaussian():
    law = fokker_planck.linear_stationary(CONSTANT, (3,))
    late = fokker_planck.linear_kernel(CONSTANT, 0.0, 80.0, (3,))
    assert wasserstein2(law, sk.Gaussian(late.shift, late.covariance)) < 1e-13
    assert float((A @ law.covariance + law.covariance @ A.T + ROOT @ ROOT.T).abs().max()) < 1e-13
    line = sk.sde(lambda t, x: 1.0 - 2.0 * x, constant(0.6), noise_type="additive")
    assert wasserstein2(fokker_planck.stationary(line), fokker_planck.linear_stationary(line, (1,))) < 1e-7
    with pytest.raises(sk.SdekitError, match="real part 0"):
        fokker_planck.linear_stationary(sk.Brownian(), (2,))


def test_what_is_not_linear_is_refused():
    for sde, says in ((DOUBLE_WELL, "not affine"), (gbm(), "depends on the state")):
        with pytest.raises(sk.SdekitError, match=says):
            fokker_planck.linear_kernel(sde, 0.0, 1.0, (1,))
    with pytest.raises(sk.SdekitError, match="forward SDE cannot"):
        fokker_planck.linear_kernel(VP, 0.9, 0.1, (1,))
