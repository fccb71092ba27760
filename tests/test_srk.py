r"""Milstein, SRA, SRI and Platen: steps against the formulas as printed, constants that are known, orders, slips.

Orders on every problem are in the conformance suite and laws in the golden ones; both know these steppers by their
Spec.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.func import jacfwd, vmap

import sdekit as sk
from sdekit import problems
from sdekit.problems.base import LinearCoefficients, Problem
from sdekit.steppers import TABLEAUS, Step
from sdekit.steppers.coefficients import matrix, vector
from sdekit.steppers.sra import SRA, SRATableau
from sdekit.steppers.sri import SRI, SRITableau
from sdekit.verify import fit_order, linear_errors
from sdekit.verify.conditions import residuals

LIMITS = {  # least evaluations of drift and diffusion with additive noise; SRI has three nodes there, SOSRI four
    "milstein": (1, 1),
    "milstein-free": (1, 1),
    "milstein-commutative": (1, 1),
    "platen15": (3, 2),
    "sra1": (2, 2),
    "sra3": (3, 2),
    "sosra": (3, 3),
    "sri1w1": (2, 3),
    "sri2w1": (3, 3),
    "sosri": (4, 4),
}
SRAS = [n for n, t in TABLEAUS.items() if isinstance(t, SRATableau)]
SRIS = [n for n, t in TABLEAUS.items() if isinstance(t, SRITableau)]
T0, T1 = 0.3, 0.55
RNG = np.random.default_rng(20_261_126)


def stepper(tableau):
    """A stepper that takes this tableau."""
    base = sk.SRA1 if isinstance(tableau, SRATableau) else sk.SRI1W1
    family = SRA if isinstance(tableau, SRATableau) else SRI
    return type("Taken", (family,), {"spec": base.spec, "tableau": tableau})()


def one_step(sde, x, w, h, method):
    """The production solver over [T0, T1] with this increment and Lévy area."""
    path = sk.RecordedBrownian([T0, T1], torch.from_numpy(w)[None], torch.from_numpy(h)[None])
    return sk.solve(sde, torch.from_numpy(x), [T0, T1], method, noise=path, structure="trust").final.numpy()


def both(f):
    """A field for numpy and for torch."""
    return lambda t, x: f(torch if isinstance(x, torch.Tensor) else np, t, x)


DRIFT = both(lambda m, t, x: m.sin(x) * (1 + t) - 0.3 * x * x[:, [1, 2, 0]] + t**2)
ELEMENTWISE = both(lambda m, t, x: m.cos(x + t) + 0.4 * x**2 + t)
ROTATING = both(lambda m, t, x: m.cos(x[:, [1, 2, 0]] + t) + 0.4 * x * x[:, [2, 0, 1]] + t)
MATRIX = RNG.normal(size=(3, 2, 3))  # of G(t) = M₀ + M₁ t + M₂ t²


def spread(t, x):
    m = MATRIX if isinstance(x, np.ndarray) else torch.from_numpy(MATRIX)
    x3 = x[:, :1, None] * 0
    return x3 + (m[0] + m[1] * t + m[2] * t**2).swapaxes(-1, -2)


def data(d=3, m=3):
    n, h = 5, T1 - T0
    return RNG.normal(size=(n, d)), RNG.normal(size=(n, m)) * h**0.5, RNG.normal(size=(n, m)) * (h / 12) ** 0.5


# --- one step as printed ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SRAS)
def test_an_sra_step_is_the_papers(name):
    """All stages, all sums, G(t) with two noises for three coordinates."""
    t, (x, w, levy), h = TABLEAUS[name], data(m=2), T1 - T0
    A, B, c1, alpha, b1, b2 = (np.array(v, dtype=float) for v in (t.A0, t.B0, t.c1, t.alpha, t.beta1, t.beta2))
    c0, s, Z = A.sum(1), len(t.alpha), 0.5 * w + levy
    G = [spread(T0 + c * h, x) for c in c1]
    times = lambda g, v: np.einsum("nij,nj->ni", g, v)  # noqa: E731
    F = []
    for i in range(s):
        stage = x + sum(h * A[i, j] * F[j] + B[i, j] * times(G[j], Z) for j in range(i))
        F.append(DRIFT(T0 + c0[i] * h, stage))
    expected = x + sum(h * alpha[i] * F[i] + times(G[i], b1[i] * w + b2[i] * Z) for i in range(s))
    found = one_step(sk.sde(DRIFT, spread, "additive"), x, w, levy, stepper(t))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def sri_as_printed(t, drift, diffusion, x, w, levy):
    h = T1 - T0
    A0, A1, B0, B1 = (np.array(v, dtype=float) for v in (t.A0, t.A1, t.B0, t.B1))
    alpha, b1, b2, b3, b4 = (np.array(v, dtype=float) for v in (t.alpha, t.beta1, t.beta2, t.beta3, t.beta4))
    I10, I11, I111 = h * (0.5 * w + levy), (w**2 - h) / 2, (w**3 - 3 * h * w) / 6
    F, G = [], []
    for i in range(len(alpha)):
        first = x + sum(h * A0[i, j] * F[j] + B0[i, j] * G[j] * I10 / h for j in range(i))
        second = x + sum(h * A1[i, j] * F[j] + h**0.5 * B1[i, j] * G[j] for j in range(i))
        F.append(drift(T0 + float(t.c0[i]) * h, first))
        G.append(diffusion(T0 + A1[i].sum() * h, second))
    noise = (b1[i] * w + b2[i] * I11 / h**0.5 + b3[i] * I10 / h + b4[i] * I111 / h for i in range(len(alpha)))
    return x + sum(h * a * f for a, f in zip(alpha, F, strict=True)) + sum(g * v for g, v in zip(G, noise, strict=True))


@pytest.mark.parametrize("kind", ["diagonal", "scalar"])
@pytest.mark.parametrize("name", SRIS)
def test_an_sri_step_is_the_papers(name, kind):
    diffusion = ELEMENTWISE if kind == "diagonal" else ROTATING
    x, w, levy = data(m=3 if kind == "diagonal" else 1)
    expected = sri_as_printed(TABLEAUS[name], DRIFT, diffusion, x, w, levy)
    found = one_step(sk.sde(DRIFT, diffusion, kind), x, w, levy, stepper(TABLEAUS[name]))
    np.testing.assert_allclose(found, expected, rtol=2e-13, atol=2e-13)


@pytest.mark.parametrize("name", SRIS)
def test_an_sri_step_with_additive_noise_has_no_iterated_integrals(name):
    """As printed without β² and β⁴, for as many noises as there are."""
    t, (x, w, levy) = TABLEAUS[name], data(m=2)
    zero = vector("0 0 0 0")
    found = one_step(sk.sde(DRIFT, spread, "additive"), x, w, levy, stepper(t))
    also = one_step(sk.sde(DRIFT, spread, "additive"), x, w, levy, stepper(t.additive))
    np.testing.assert_array_equal(found, also)
    column = both(lambda m, time, y: 0 * y + 1 + time**2)
    x, w, levy = data()
    expected = sri_as_printed(replace(t, beta2=zero, beta4=zero), DRIFT, column, x, w, levy)
    found = one_step(sk.sde(DRIFT, column, "additive"), x, w, levy, stepper(t))
    np.testing.assert_allclose(found, expected, rtol=2e-13, atol=2e-13)


def test_a_milstein_step_with_scalar_noise_takes_the_derivative_along_the_noise():
    """J g, where Jᵀ g is another vector."""
    x, w, levy = data(m=1)
    h, y = T1 - T0, torch.from_numpy(x)
    J = vmap(jacfwd(lambda v: ROTATING(T0, v[None])[0]))(y).numpy()
    g = ROTATING(T0, x)
    right, wrong = np.einsum("nij,nj->ni", J, g), np.einsum("nji,nj->ni", J, g)
    assert np.abs(right - wrong).max() > 0.1
    expected = x + h * DRIFT(T0, x) + g * w + 0.5 * right * (w**2 - h)
    found = one_step(sk.sde(DRIFT, ROTATING, "scalar"), x, w, levy, "milstein")
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_a_milstein_step_with_diagonal_noise_takes_the_derivative_of_each_element():
    x, w, levy = data()
    h = T1 - T0
    g, slope = ELEMENTWISE(T0, x), -np.sin(x + T0) + 0.8 * x
    expected = x + h * DRIFT(T0, x) + g * w + 0.5 * g * slope * (w**2 - h)
    found = one_step(sk.sde(DRIFT, ELEMENTWISE, "diagonal"), x, w, levy, "milstein")
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


# --- several noises, and no derivatives -------------------------------------------------------------

COLUMNS = both(lambda m, t, x: m.stack([m.cos(x[:, [1, 2, 0]] + t), x * x[:, [2, 0, 1]], m.sin(x)], -1))


def with_areas(sde, x, w, levy, area, method):
    """The production solver over [T0, T1], with Lévy areas."""
    path = sk.RecordedBrownian([T0, T1], *(torch.from_numpy(v)[None] for v in (w, levy, area)))
    return sk.solve(sde, torch.from_numpy(x), [T0, T1], method, noise=path, structure="trust").final.numpy()


def milstein_as_printed(x, w, area):
    """Σ_ij L^i g_j I_(i,j), with L^i = Σ_k g_i^k ∂_k, term by term."""
    h, y, g = T1 - T0, torch.from_numpy(x), COLUMNS(T0, x)
    J = vmap(jacfwd(lambda v: COLUMNS(T0, v[None])[0]))(y).numpy()  # (n, d, m, d)
    expected = x + h * DRIFT(T0, x) + np.einsum("ndj,nj->nd", g, w)
    for i, j in np.ndindex(3, 3):
        integral = 0.5 * (w[:, i] * w[:, j] - (i == j) * h) + area[:, i, j]
        expected += np.einsum("ndk,nk->nd", J[:, :, j], g[:, :, i]) * integral[:, None]
    return expected


def test_a_milstein_step_with_three_noises_is_the_double_sum():
    """Nothing commutes here, so that the method for commuting noises is what is left without areas."""
    x, w, levy = data()
    upper = RNG.normal(size=(5, 3, 3)) * (T1 - T0)
    area = upper - upper.swapaxes(1, 2)
    sde = sk.sde(DRIFT, COLUMNS, "general")
    right = milstein_as_printed(x, w, area)
    np.testing.assert_allclose(with_areas(sde, x, w, levy, area, "milstein-general"), right, rtol=1e-13, atol=1e-13)
    assert np.abs(with_areas(sde, x, w, levy, -area, "milstein-general") - right).max() > 0.05
    found = one_step(replace(sde, noise_type="commutative"), x, w, levy, sk.MilsteinCommutative())
    np.testing.assert_allclose(found, milstein_as_printed(x, w, 0 * area), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["milstein-general", "milstein-commutative"])
def test_a_double_sum_costs_a_derivative_for_every_noise(name):
    """One drift; the diffusion once, and once more under every one of three products."""
    x = torch.from_numpy(data()[0]).reshape(5, 3)
    kind = "general" if name == "milstein-general" else "commutative"
    shears = lambda t, y: torch.stack([y[:, :1] * 0 + c * torch.ones_like(y) for c in (1, 2, 3)], -1)  # noqa: E731
    run = sk.solve(sk.sde(DRIFT, shears, kind), x, [0.0, 0.5], name, noise=1)
    assert (run.stats.drift_evaluations, run.stats.diffusion_evaluations) == (1, 4)


@pytest.mark.parametrize("kind", ["diagonal", "scalar", "additive"])
def test_noise_that_needs_no_double_sum_is_milsteins(kind):
    field = {"diagonal": ELEMENTWISE, "scalar": ROTATING, "additive": spread}[kind]
    x, w, levy = data(m={"diagonal": 3, "scalar": 1, "additive": 2}[kind])
    sde = sk.sde(DRIFT, field, kind)
    a, b = (one_step(sde, x, w, levy, name) for name in ("milstein-commutative", "milstein"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["milstein-commutative", "milstein-general"])
def test_a_diagonal_that_is_declared_to_be_more_is_a_matrix(name):
    """G of the state's shape, where element i may look at all coordinates."""
    x, w, levy = data()
    kind = "general" if name == "milstein-general" else "commutative"
    matrix_of = lambda t, y: torch.diag_embed(ROTATING(t, y))  # noqa: E731
    area = np.zeros((5, 3, 3))
    a, b = (with_areas(sk.sde(DRIFT, field, kind), x, w, levy, area, name) for field in (ROTATING, matrix_of))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["diagonal", "scalar"])
def test_a_step_of_milstein_free_is_platens(kind):
    field = ELEMENTWISE if kind == "diagonal" else ROTATING
    x, w, levy = data(m=3 if kind == "diagonal" else 1)
    h, f, g = T1 - T0, DRIFT(T0, x), field(T0, x)
    beside = field(T0, x + f * h + g * h**0.5)
    expected = x + f * h + g * w + (beside - g) * (w**2 - h) / (2 * h**0.5)
    found = one_step(sk.sde(DRIFT, field, kind), x, w, levy, "milstein-free")
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def platen15_as_printed(f, g, x, w, levy):
    """Kloeden and Platen's (11.2.1), with time as a coordinate: a supporting value stands at the end of the step."""
    h, a, b = T1 - T0, f(T0, x), g(T0, x)
    r, Z = h**0.5, h * (0.5 * w + levy)
    up, down = x + a * h + b * r, x + a * h - b * r
    bu, bd = g(T1, up), g(T1, down)
    y = x + b * w + (f(T1, up) - f(T1, down)) * Z / (2 * r) + (f(T1, up) + 2 * a + f(T1, down)) * h / 4
    y = y + (bu - bd) * (w**2 - h) / (4 * r) + (bu - 2 * b + bd) * (w * h - Z) / (2 * h)
    return y + (g(T1, up + bu * r) - g(T1, up - bu * r) - bu + bd) * (w**2 / 3 - h) * w / (4 * h)


def test_a_platen15_step_with_scalar_noise_is_the_printed_one():
    x, w, levy = data(m=1)
    found = one_step(sk.sde(DRIFT, ROTATING, "scalar"), x, w, levy, "platen15")
    np.testing.assert_allclose(found, platen15_as_printed(DRIFT, ROTATING, x, w, levy), rtol=1e-12, atol=1e-12)


def test_a_platen15_step_with_diagonal_noise_differs_in_the_drift_alone():
    """With a drift linear in x its values at ±√3 g Z/h say what those at ±g √h say of one coordinate."""
    x, w, levy = data()
    linear = both(lambda m, t, y: -0.7 * y + t)
    found = one_step(sk.sde(linear, ELEMENTWISE, "diagonal"), x, w, levy, "platen15")
    np.testing.assert_allclose(found, platen15_as_printed(linear, ELEMENTWISE, x, w, levy), rtol=1e-12, atol=1e-12)


class PrintedPlaten15(sk.Platen15.__base__):
    """The printed scheme, coordinate by coordinate: the Z of one coordinate for the noise of another."""

    spec = sk.Platen15.spec

    def step(self, sde, t0, t1, x, increment, memory):
        h, w = t1 - t0, increment.w
        a, b, r, Z = sde.drift(t0, x), sde.diffusion(t0, x), h**0.5, h * (0.5 * w + increment.h)
        up, down = x + a * h + b * r, x + a * h - b * r
        fu, fd, bu, bd = sde.drift(t1, up), sde.drift(t1, down), sde.diffusion(t1, up), sde.diffusion(t1, down)
        y = x + b * w + (fu - fd) * Z / (2 * r) + (fu + 2 * a + fd) * h / 4 + (bu - bd) * (w**2 - h) / (4 * r)
        y = y + (bu - 2 * b + bd) * (w * h - Z) / (2 * h)
        high, low = sde.diffusion(t1, up + bu * r), sde.diffusion(t1, up - bu * r)
        return Step(y + (high - low - bu + bd) * (w**2 / 3 - h) * w / (4 * h))


# --- shapes, times, costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["milstein", "milstein-free", "milstein-commutative", "platen15", "sri1w1", "sosri"])
@pytest.mark.parametrize("event", [(3,), (2, 3)], ids=str)
def test_scalar_noise_may_come_as_one_column(name, event):
    """G of the state's shape, or (*state, 1): the same bits."""
    x = torch.from_numpy(RNG.normal(size=(4, *event)))
    field = lambda t, y: torch.cos(y + t) * y.roll(1, -1)  # noqa: E731
    grid = [0.0, 0.2, 0.7]
    column = sk.sde(lambda t, y: -y, lambda t, y: field(t, y)[..., None], "scalar")
    flat = sk.sde(lambda t, y: -y, field, "scalar")
    a, b = (sk.solve(sde, x, grid, name, noise=3).check().final for sde in (column, flat))
    assert torch.equal(a, b)
    assert a.shape == x.shape


@pytest.mark.parametrize("name", LIMITS)
def test_fields_are_asked_within_the_step_and_no_more_often_than_needed(name):
    asked: list[float] = []

    def field(t, x):
        asked.append(t)
        return torch.full_like(x, t)

    grid = [0.1, 0.1 + 0.1, 0.7 / 3, 0.1 * 3, 0.9]  # rounded sums pass such ends
    for s, t in pairwise(grid):
        asked.clear()
        run = sk.solve(sk.sde(field, field, "additive"), torch.zeros(1, 1).double(), [s, t], name, noise=1)
        assert min(asked) >= s
        assert max(asked) <= t
        assert (run.stats.drift_evaluations, run.stats.diffusion_evaluations) == LIMITS[name]


@pytest.mark.parametrize(
    ("name", "drifts", "diffusions"),
    [("sri1w1", 2, 4), ("sri2w1", 3, 4), ("sosri", 4, 4), ("platen15", 3, 5), ("milstein-free", 1, 2)],
)
def test_stages_that_agree_are_evaluated_once(name, drifts, diffusions):
    sde = sk.sde(DRIFT, ELEMENTWISE, "diagonal")
    run = sk.solve(sde, torch.zeros(2, 3).double(), [0.0, 1.0], name, noise=1)
    assert (run.stats.drift_evaluations, run.stats.diffusion_evaluations) == (drifts, diffusions)


# --- constants and orders ---------------------------------------------------------------------------

GBM = {  # μ = 1.5, σ = ½ on [0, 1]: strong errors with 16 and 256 steps
    "euler-maruyama": (5.181e-1, 6.507e-2),
    "milstein": (4.692e-1, 3.301e-2),
    "sri1w1": (3.0106e-2, 4.087e-4),
}


def linear(A, B, start, kind):
    """dX = A X dt + Σ B_i X dW_i."""
    A, B = (torch.tensor(v, dtype=torch.float64) for v in (A, B))

    def diffusion(t, x):
        columns = torch.einsum("mij,nj->nim", B, x)
        return columns.diagonal(dim1=-2, dim2=-1) if kind == "diagonal" else columns

    return Problem(
        name="linear",
        summary="",
        detects="",
        sde=sk.sde(lambda t, x: x @ A.T, diffusion, kind),
        initial=sk.Gaussian(torch.tensor(start).double(), 0.0),
        grid=lambda steps: torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64),
        linear=LinearCoefficients(A, torch.zeros(len(A)).double(), B, torch.zeros(len(B), len(A)).double()),
    )


@pytest.mark.parametrize("name", GBM)
def test_strong_errors_on_geometric_brownian_motion(name):
    """Against figures of another implementation, in four digits."""
    problem = linear([[1.5]], [[[0.5]]], [1.0], "diagonal")
    found = [linear_errors(problem, name, n).strong for n in (16, 256)]
    assert found == pytest.approx(GBM[name], rel=3e-4)


SCALAR = linear([[-0.4, 0.9], [0.3, -0.2]], [[[0.4, -0.5], [0.7, 0.1]]], [1.0, 0.5], "scalar")
DIAGONAL = linear([[0.3, 0.2], [-0.1, 0.4]], [[[0.5, 0], [0, 0]], [[0, 0], [0, 0.7]]], [1.0, 0.5], "diagonal")


def strong_order(problem, method) -> float:
    steps = (16, 32, 64, 128, 256)
    return fit_order(steps, [linear_errors(problem, method, n).strong for n in steps]).order


@pytest.mark.parametrize("problem", [SCALAR, DIAGONAL], ids=["scalar", "diagonal"])
@pytest.mark.parametrize(
    ("name", "order"),
    [("milstein", 1.0), ("milstein-free", 1.0), ("milstein-commutative", 1.0)]
    + [(name, 1.5) for name in ("sri1w1", "sri2w1", "sosri", "platen15")],
)
def test_strong_orders_with_fields_that_do_not_commute(name, order, problem):
    """One noise for two coordinates, with AB ≠ BA; or two noises and a drift that couples the coordinates."""
    assert strong_order(problem, name) == pytest.approx(order, abs=0.02)


def normals(s, t, points=8):
    """Increments and Lévy areas over [s, t] at Gauss–Hermite nodes, as a path, and their weights."""
    z, weight = np.polynomial.hermite_e.hermegauss(points)
    u, v = (torch.from_numpy(g.ravel()) for g in np.meshgrid(z, z, indexing="ij"))
    root = (t - s) ** 0.5
    path = sk.RecordedBrownian([s, t], root * u[None, :, None], root * 12**-0.5 * v[None, :, None])
    return path, torch.from_numpy(np.outer(weight, weight).ravel() / (2 * np.pi))


def test_the_constant_of_sra1_that_no_linear_problem_shows():
    r"""$dx_1 = dW$, $dx_2 = x_1^2\,dt$: a step errs by $h^2/\sqrt{30}$, and a run by $h^{3/2}\sqrt{T/30}$.

    The mean square is what the nodes leave open, 7/900 h⁴, and the distance from the mean given them, a polynomial.
    """
    problem, h = problems.get("square"), 0.37
    path, chance = normals(0.0, h)
    for x1 in (0.0, 1.7):
        x = torch.tensor([[x1, -0.4]], dtype=torch.float64).expand(len(chance), 2)
        reached = sk.solve(problem.sde, x, [0.0, h], "sra1", noise=path).final
        off = (reached - problem.path(x, path)).square().sum(-1)
        assert float(chance @ off) + problem.unresolved([0.0, h]) == pytest.approx(h**4 / 30, rel=1e-12)


def moments(method, n) -> float:
    """|E x² − exact| of dx = ½ cos(3t) x dt + s(t) x dW: a step multiplies x by a polynomial in W and H."""
    problem, total = problems.get("nonautonomous-gbm"), 1.0
    for s, t in pairwise(problem.grid(n).tolist()):
        path, chance = normals(s, t)
        one = torch.ones(len(chance), 1, dtype=torch.float64)
        factor = sk.solve(problem.sde, one, [s, t], method, noise=path).final[:, 0]
        total *= float(chance @ factor**2)
    return abs(total - float(problem.weak.expectation[1]))


def test_the_weak_order_of_sri1w1_is_one_and_a_half():
    """Of second moments, exactly and without sampling, where coefficients depend on time."""
    steps = (16, 32, 64, 128)
    estimate = fit_order(steps, [moments("sri1w1", n) for n in steps])
    assert estimate.order == pytest.approx(1.5, abs=0.02)


# --- slips ------------------------------------------------------------------------------------------


class AreaOfAnotherSign(SRI):
    spec, tableau = sk.SRI1W1.spec, TABLEAUS["sri1w1"]

    def step(self, sde, t0, t1, x, increment, memory):
        return super().step(sde, t0, t1, x, increment.reflected(), memory)


class NoDerivative(sk.Milstein.__base__):
    spec = sk.Milstein.spec

    def step(self, sde, t0, t1, x, increment, memory):
        return sk.EulerMaruyama().step(sde, t0, t1, x, increment, memory)


SLIPS = {
    "sign of H": (AreaOfAnotherSign(), 1.0),
    "sign of β²": (stepper(replace(TABLEAUS["sri1w1"], beta2=vector("1 -4/3 1/3 0"))), 0.5),
    "β⁴ forgotten": (stepper(replace(TABLEAUS["sri1w1"], beta4=vector("0 0 0 0"))), 1.0),
    "A¹ forgotten": (stepper(replace(TABLEAUS["sri1w1"], A1=matrix("", "", "", ""))), 1.0),
    "B⁰ forgotten": (stepper(replace(TABLEAUS["sri1w1"], B0=matrix("", "", "", ""))), 1.0),
    "Milstein without its term": (NoDerivative(), 0.5),
}


def test_the_printed_platen15_is_for_one_coordinate():
    """Where a drift couples coordinates that have noises of their own, its order is 1."""
    assert strong_order(DIAGONAL, PrintedPlaten15()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("nodes", "order"), [(None, 1.5), ("0 0 1/2 1", 1.0), ("0 0 0 0", 1.0)], ids=["ends", "one halved", "the start"]
)
def test_nodes_of_sosri(nodes, order):
    """dx = cos(5t) dt + x dW in the mean square, where the drift is asked elsewhere than its A⁰ says."""
    tableau = TABLEAUS["sosri"] if nodes is None else replace(TABLEAUS["sosri"], nodes=vector(nodes))
    missed = abs(residuals(tableau, 2)["α c0 = 1/2"])
    assert (missed < 1e-15) == (nodes is None)
    field = sk.sde(lambda t, x: 0 * x + np.cos(5 * t), lambda t, x: x)
    steps = (8, 16, 32, 64)
    path = sk.BrownianGrid((2000, 1), steps=256, seed=3, levy="space-time")
    start = torch.ones(2000, 1).double()
    runs = [
        sk.solve(field, start, torch.linspace(0, 1, n + 1).double(), method, noise=path).final
        for n, method in (*((n, stepper(tableau)) for n in steps), (256, "sri1w1"))
    ]
    errors = [float((run - runs[-1]).square().mean().sqrt()) for run in runs[:-1]]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-order, abs=0.25)


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_cost_their_order(slip):
    method, order = SLIPS[slip]
    for problem in (SCALAR, DIAGONAL):
        assert strong_order(problem, method) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    "change",
    [{"c1": vector("0 1")}, {"beta2": vector("1 -1")}, {"B0": matrix("", "3/4")}, {"c1": vector("1/2 0")}],
    ids=["nodes exchanged", "sign of β²", "B⁰ halved", "a node at the middle"],
)
def test_a_slip_in_sra1_is_not_the_papers(change):
    x, w, levy = data(m=2)
    sde = sk.sde(DRIFT, spread, "additive")
    right = one_step(sde, x, w, levy, "sra1")
    assert np.abs(one_step(sde, x, w, levy, stepper(replace(TABLEAUS["sra1"], **change))) - right).max() > 1e-3
