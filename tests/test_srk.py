r"""Milstein, SRA and SRI: single steps against the formulas as printed, constants that are known, orders, and slips.

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
from sdekit.steppers import TABLEAUS
from sdekit.steppers.coefficients import matrix, vector
from sdekit.steppers.sra import SRA, SRATableau
from sdekit.steppers.sri import SRI, SRITableau
from sdekit.verify import fit_order, linear_errors

STEPPERS = ("milstein", "sra1", "sri1w1")
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
    return sk.solve(sde, torch.from_numpy(x), [T0, T1], method, noise=path).final.numpy()


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


# --- shapes, times, costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["milstein", "sri1w1"])
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


@pytest.mark.parametrize("name", STEPPERS)
def test_fields_are_asked_within_the_step_and_no_more_often_than_needed(name):
    asked: list[float] = []
    limit = {"milstein": (1, 1), "sra1": (2, 2), "sri1w1": (2, 3)}[name]  # with additive noise, SRI1W1 has three nodes

    def field(t, x):
        asked.append(t)
        return torch.full_like(x, t)

    grid = [0.1, 0.1 + 0.1, 0.7 / 3, 0.1 * 3, 0.9]  # rounded sums pass such ends
    for s, t in pairwise(grid):
        asked.clear()
        run = sk.solve(sk.sde(field, field, "additive"), torch.zeros(1, 1).double(), [s, t], name, noise=1)
        assert min(asked) >= s
        assert max(asked) <= t
        assert (run.stats.drift_evaluations, run.stats.diffusion_evaluations) == limit


@pytest.mark.parametrize(("name", "drifts", "diffusions"), [("sri1w1", 2, 4), ("sri2w1", 3, 4)])
def test_stages_that_agree_are_evaluated_once(name, drifts, diffusions):
    sde = sk.sde(DRIFT, ELEMENTWISE, "diagonal")
    run = sk.solve(sde, torch.zeros(2, 3).double(), [0.0, 1.0], stepper(TABLEAUS[name]), noise=1)
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
@pytest.mark.parametrize(("name", "order"), [("milstein", 1.0), ("sri1w1", 1.5)])
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
