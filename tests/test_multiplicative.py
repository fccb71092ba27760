r"""Exact strong and weak errors on linear SDEs: closed forms, known constants, and slips that must be seen.

The methods are written here, from the papers, as a third party would write them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, product
from math import factorial

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from torch.func import jvp, vjp

import sdekit as sk
from sdekit.brownian import Increment
from sdekit.problems.base import LinearCoefficients, Problem
from sdekit.steppers.base import ALL_NOISE, Spec, Step, StepMethod
from sdekit.verify import fit_order, linear_errors
from sdekit.verify.chaos import LinearStep
from sdekit.verify.strong import strong_error

STEPS = (16, 32, 64, 128, 256, 512)


def linear(A, B, start, a=None, b=None, kind="general", end=1.0, calculus="ito"):
    """dX = (A X + a) dt + Σ (B_i X + b_i) dW_i on [0, end]."""
    A, B = (torch.from_numpy(np.array(v, dtype=float)) for v in (A, B))
    d, m = len(A), len(B)
    a = torch.zeros(d).double() if a is None else torch.tensor(a, dtype=torch.float64)
    b = torch.zeros(m, d).double() if b is None else torch.tensor(b, dtype=torch.float64)

    def diffusion(t, x):
        columns = torch.stack([x @ B[i].T + b[i] for i in range(m)], -1)
        return columns.diagonal(dim1=-2, dim2=-1) if kind == "diagonal" else columns

    shift = 0.5 * sum(c @ c for c in B), 0.5 * sum(c @ e for c, e in zip(B, b, strict=True))
    shift = (0 * A, 0 * a) if calculus == "ito" else shift
    return Problem(
        name="linear",
        summary="",
        detects="",
        sde=sk.sde(lambda t, x: x @ (A - shift[0]).T + a - shift[1], diffusion, kind, calculus),
        initial=start if isinstance(start, sk.Gaussian) else sk.Gaussian(torch.tensor(start).double(), 0.0),
        grid=lambda steps: torch.linspace(0.0, end, steps + 1, dtype=torch.float64),
        linear=LinearCoefficients(A, a, B, b),
    )


GBM = linear([[1.5]], [[[0.5]]], [1.0], kind="diagonal")
DIAGONAL = linear([[0.3, 0.2], [-0.1, 0.4]], [[[0.5, 0], [0, 0]], [[0, 0], [0, 0.7]]], [1.0, 0.5], kind="diagonal")
COMMUTATIVE = linear([[-1, 0.5], [0, -0.7]], [[[0.4, 0.3], [0, 0.4]], [[0.2, -0.5], [0, 0.2]]], [1.0, 0.5])
GENERAL = linear([[-1, 0.5], [0, -0.7]], [[[0.5, 0.2], [0, 0.1]], [[0.1, 0], [0.6, -0.3]]], [1.0, 0.5])
HEISENBERG = linear(np.zeros((2, 2)), [np.zeros((2, 2)), [[0, 0], [1, 0]]], [0.0, 0.0], b=[[1, 0], [0, 0]], end=2.0)
NILPOTENT = linear(np.zeros((2, 2)), [[[0, 1], [0, 0]]], [1.0, 1.0])
STRATONOVICH = linear(
    [[-1, 0.5], [0, -0.7]], [[[0.4, 0.3], [0, 0.4]]], [1.0, 0.5], a=[0.3, 0], b=[[0, 0.2]], calculus="stratonovich"
)
ODE = linear([[0, 1], [-1, -0.5]], np.zeros((0, 2, 2)), sk.Gaussian([1.0, 0.0], 0.1), a=[0.2, 0], kind="none")
KUBO = linear([[-0.5, 0], [0, -0.5]], [[[0, -1], [1, 0]]], [1.0, 0.0])


# --- methods ----------------------------------------------------------------------------------------


def spec(name, increments="w"):
    calculus = frozenset({"ito", "stratonovich"})
    return Spec(name, "", (), "step", 1, noise_types=ALL_NOISE, increments=increments, calculus=calculus)


def columns(sde, t, x):
    g = sde.diffusion(t, x)
    return list((torch.diag_embed(g) if g.shape == x.shape else g).unbind(-1))


class Milstein(StepMethod):
    """½ Σ_ij Dg_j g_i (W_i W_j − δ_ij h): without Lévy areas."""

    spec = spec("milstein")
    minus_h, derivative = 1.0, staticmethod(lambda g, x, v: jvp(g, (x,), (v,))[1])

    def area(self, increment, i, j):
        return 0.0

    def step(self, sde, t0, t1, x, increment, memory):
        h, w = t1 - t0, increment.w
        moved = x + h * sde.drift(t0, x)
        for i, g in enumerate(columns(sde, t0, x)):
            moved = moved + g * w[:, i, None]
            for j in range(w.shape[1]):
                integral = 0.5 * (w[:, i] * w[:, j] - (i == j) * self.minus_h * h) + self.area(increment, i, j)
                along = self.derivative(lambda y, j=j: columns(sde, t0, y)[j], x, g)
                moved = moved + along * integral[:, None]
        return Step(moved)


class MilsteinLevy(Milstein):
    """With E[A_ij | W, H] = H_i W_j − W_i H_j for the area."""

    spec = spec("milstein-levy", "space-time")
    sign = 1.0

    def area(self, increment, i, j):
        w, h = increment.w, increment.h
        return self.sign * (h[:, i] * w[:, j] - w[:, i] * h[:, j])


class SRI1W1(StepMethod):
    """Rößler 2010, Table 6.1, for noise that acts element by element and fields without time."""

    spec = spec("sri1w1", "space-time")
    area_scale, noise_scale, second = 1.0, 1.0, 1.0

    def step(self, sde, t0, t1, x, increment, memory):
        h, w, levy = t1 - t0, self.noise_scale * increment.w, self.area_scale * increment.h
        root, i10 = h**0.5, h * (0.5 * w + levy)
        i11, i111 = 0.5 * (w**2 - h), (w**3 - 3 * h * w) / 6
        f1, g1 = sde.drift(t0, x), sde.diffusion(t0, x)
        f2 = sde.drift(t0, x + 0.75 * h * f1 + 1.5 * g1 * i10 / h)
        g2 = sde.diffusion(t0, x + 0.25 * h * f1 + 0.5 * root * g1)
        g3 = sde.diffusion(t0, x + h * f1 - root * g1)
        g4 = sde.diffusion(t0, x + 0.25 * h * f1 + root * (-5 * g1 + 3 * g2 + 0.5 * g3))
        moved = x + h * (f1 + 2 * f2) / 3 + w * (-g1 + 4 / 3 * g2 + 2 / 3 * g3)
        moved = (
            moved
            + self.second * i11 / root * (-g1 + 4 / 3 * g2 - g3 / 3)
            + i10 / h * (2 * g1 - 4 / 3 * g2 - 2 / 3 * g3)
        )
        return Step(moved + i111 / h * (-2 * g1 + 5 / 3 * g2 - 2 / 3 * g3 + g4))


class Platen(StepMethod):
    """Kloeden and Platen 1992, (15.1.1): weak order 2 on the line."""

    spec = spec("platen")
    noise_scale = 1.0

    def step(self, sde, t0, t1, x, increment, memory):
        h, w = t1 - t0, self.noise_scale * increment.w
        root, f, g = h**0.5, sde.drift(t0, x), sde.diffusion(t0, x)
        end, high, low = x + h * f + g * w, x + h * f + root * g, x + h * f - root * g
        high, low = sde.diffusion(t1, high), sde.diffusion(t1, low)
        moved = x + 0.5 * h * (sde.drift(t1, end) + f) + 0.25 * (high + low + 2 * g) * w
        return Step(moved + 0.25 * (high - low) * (w**2 - h) / root)


class ThreePointPlaten(Platen):
    spec = spec("platen-three-point", "three-point")


class ThreePointEuler(sk.EulerMaruyama):
    spec = replace(sk.EulerMaruyama.spec, name="euler-three-point", increments="three-point")


class StratonovichHeun(StepMethod):
    """The trapezoidal rule, in the calculus of Stratonovich."""

    spec = spec("heun-stratonovich")

    def step(self, sde, t0, t1, x, increment, memory):
        def slope(y):
            return (t1 - t0) * sde.drift(t0, y) + torch.einsum("bdm,bm->bd", sde.diffusion(t0, y), increment.w)

        first = slope(x)
        return Step(x + 0.5 * (first + slope(x + first)))


def changed(method, **attributes):
    """The method with another value somewhere."""
    return type(method.__name__, (method,), attributes)()


def errors(problem, stepper, steps=STEPS):
    return [linear_errors(problem, stepper, n) for n in steps]


def hold(values, expected, steps=STEPS):
    """The order of these errors, sharply; infinity is nothing but round-off."""
    estimate = fit_order(steps, values, floor=1e-13)
    if expected == np.inf:
        assert estimate.exact, estimate.errors
        return
    assert estimate.uncertainty < 0.02, f"{estimate} is no measurement: {estimate.local}"
    assert abs(estimate.order - expected) < 0.02, f"measured {estimate}, expected {expected}: {estimate.local}"


# --- orders -----------------------------------------------------------------------------------------

EULER = "euler-maruyama"


@pytest.mark.parametrize(
    ("problem", "stepper", "strong", "weak"),
    [
        (DIAGONAL, EULER, 0.5, 1),
        (DIAGONAL, Milstein(), 1, 1),
        (DIAGONAL, SRI1W1(), 1.5, 2),
        (COMMUTATIVE, EULER, 0.5, 1),
        (COMMUTATIVE, Milstein(), 1, 1),
        (GENERAL, EULER, 0.5, 1),
        (GENERAL, Milstein(), 0.5, 1),
        (GBM, Milstein(), 1, 1),
        (GBM, SRI1W1(), 1.5, 2),
        (GBM, Platen(), 1, 2),
        (KUBO, EULER, 0.5, 1),
        (KUBO, Milstein(), 1, 1),
        (NILPOTENT, Milstein(), np.inf, np.inf),
        (HEISENBERG, EULER, 0.5, 1),
        (STRATONOVICH, StratonovichHeun(), 1, 1),
        (ODE, "heun", 2, 2),
    ],
    ids=lambda v: getattr(getattr(v, "spec", None), "name", None),
)
def test_orders(problem, stepper, strong, weak):
    found = errors(problem, stepper)
    hold([e.strong for e in found], strong)
    hold([e.weak for e in found], weak)
    assert all(e.optimum is not None and e.optimum <= e.strong * (1 + 1e-9) + 1e-14 for e in found)


@pytest.mark.parametrize(
    ("problem", "stepper", "weak"), [(GBM, ThreePointPlaten(), 2), (GENERAL, ThreePointEuler(), 1)]
)
def test_three_point_variables_have_weak_errors_only(problem, stepper, weak):
    """Where the second moment takes no more than five moments of the noise, the normals give the same."""
    found, normal = errors(problem, stepper), errors(problem, Platen() if problem is GBM else EULER)
    hold([e.weak for e in found], weak)
    assert all(e.strong is None and e.optimum is None for e in found)
    np.testing.assert_allclose([e.weak for e in found], [e.weak for e in normal], rtol=1e-9, atol=2e-11)


# --- figures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stepper", "first", "last"),
    [(EULER, 5.181e-1, 6.507e-2), (Milstein(), 4.692e-1, 3.301e-2), (SRI1W1(), 3.0106e-2, 4.087e-4)],
)
def test_known_errors_on_geometric_brownian_motion(stepper, first, last):
    """At 16 and 256 steps, to the digits that an independent program printed."""
    assert linear_errors(GBM, stepper, 16).strong == pytest.approx(first, rel=2e-4)
    assert linear_errors(GBM, stepper, 256).strong == pytest.approx(last, rel=2e-4)


def test_a_known_error_where_noises_do_not_commute():
    """5.3891e-2 by an independent program; 5.3683e-2 ± 4.2e-4 by its Monte Carlo."""
    assert linear_errors(GENERAL, Milstein(), 8).strong == pytest.approx(5.3891e-2, abs=5e-7)


def test_constants_on_the_heisenberg_group():
    r"""dX = dW₁, dY = X dW₂ to time T: with A of variance h²/4 in all, h²/12 of it hidden from (W, H)."""
    for n in (5, 40):
        area = 2.0 * 2.0 / n
        for stepper, square in (
            (EULER, area / 2),
            (Milstein(), area / 4),
            (MilsteinLevy(), area / 12),
            (changed(MilsteinLevy, sign=-1.0), area * 3 / 4),
        ):
            found = linear_errors(HEISENBERG, stepper, n)
            hidden = area / 12 if isinstance(stepper, MilsteinLevy) else area / 4
            assert found.strong == pytest.approx(square**0.5, rel=1e-13)
            assert found.optimum == pytest.approx(hidden**0.5, rel=1e-13)


def gbm_errors(mu, s, lengths, milstein):
    """Errors from x₀ = 1 in forty digits: E e^{(μ − s²/2)h + sW} p(W) = e^{μh} E p(W + sh) for the polynomial p."""
    with mp.workdps(40):
        yy = xy = xx = y = x = mp.mpf(1)
        for h in map(mp.mpf, lengths):
            c = mp.mpf(s) ** 2 / 2 if milstein else mp.mpf(0)
            p = (1 + mu * h - c * h, mp.mpf(s), c)  # p(W) = p₀ + p₁ W + p₂ W²
            k = s * h
            yy *= p[0] ** 2 + (p[1] ** 2 + 2 * p[0] * p[2]) * h + 3 * p[2] ** 2 * h**2
            xy *= mp.exp(mu * h) * (p[0] + p[1] * k + p[2] * (k**2 + h))
            xx *= mp.exp((2 * mu + mp.mpf(s) ** 2) * h)
            y, x = y * (p[0] + p[2] * h), x * mp.exp(mu * h)
        return float(mp.sqrt(yy - 2 * xy + xx)), float(max(abs(yy - xx), abs(y - x)))


@pytest.mark.parametrize(("mu", "s"), [(1.5, 0.5), (0.5, 0.8), (-50.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("stepper", [EULER, Milstein()])
@pytest.mark.parametrize("steps", [1, 7, 64, 1000])
def test_closed_form_of_geometric_brownian_motion(mu, s, stepper, steps):
    """Stable or not; the digits that subtraction of second moments would lose are there."""
    problem = linear([[mu]], [[[s]]], [1.0], kind="diagonal")
    found, size = linear_errors(problem, stepper, steps), np.exp(mu + s**2 / 2)
    strong, weak = gbm_errors(mu, s, problem.grid(steps).diff().tolist(), stepper != EULER)
    assert found.strong == pytest.approx(strong, rel=1e-11, abs=1e-15 * steps * size)
    assert found.weak == pytest.approx(weak, rel=1e-11, abs=1e-15 * steps * size**2)
    assert found.optimum is None or found.optimum <= 1e-13 * size


def test_steps_of_several_lengths():
    """1 : 3 : 2, again and again."""
    times = torch.tensor([0.0, *accumulate((1.0, 3.0, 2.0) * 4)]) / 24
    problem = replace(GBM, grid=lambda steps: times.double())
    strong, weak = gbm_errors(1.5, 0.5, times.double().diff().tolist(), False)
    found = linear_errors(problem, EULER, 12)
    assert found.strong == pytest.approx(strong, rel=1e-12)
    assert found.weak == pytest.approx(weak, rel=1e-12)


@pytest.mark.parametrize("stepper", [EULER, MilsteinLevy()])
def test_additive_noise_from_a_random_start(stepper):
    """Another engine knows the answer, by Itô's isometry."""
    law = sk.Gaussian(torch.tensor([1.0, 0.5]).double(), torch.tensor([[0.3, 0.1], [0.1, 0.2]]).double())
    noise = [[0.5, 0.1], [0, 0.7]]
    problem = linear([[-1, 2], [-0.5, -0.3]], np.zeros((2, 2, 2)), law, a=[0.2, -0.1], b=noise, kind="additive", end=2)
    for n in (4, 64):
        found, wanted = linear_errors(problem, stepper, n), strong_error(problem.sde, stepper, problem.grid(n), law)
        assert found.strong == pytest.approx(wanted.error, rel=1e-11)
        assert found.optimum == pytest.approx(wanted.optimum, rel=1e-10)


def test_the_optimum_under_multiplicative_noise():
    r"""dX = (μX + c) dt + sX dW from 0 in one step: $X = c \int_0^1 e^{m(1-u) + s(W_1 - W_u)} du$, m = μ − s²/2.

    Given W₁, W₁ − W_u has mean (1 − u) W₁ and variance u(1 − u); so the mean of the conditional variance is a double
    integral of exponentials.
    """
    mu, s, c = 0.4, 0.6, 1.5
    m, (nodes, weights) = mu - s**2 / 2, np.polynomial.legendre.leggauss(24)
    v, share = (nodes[:, None] + 1) / 2, (nodes + 1) / 2
    u = v * share  # u ≤ v
    seen = 0.5 * s**2 * (u * (1 - u) + v * (1 - v) + (2 - u - v) ** 2)
    whole = 0.5 * s**2 * (4 * (1 - v) + v - u)
    integrand = np.exp(m * (2 - u - v)) * (np.exp(whole) - np.exp(seen)) * v
    square = 2 * c**2 * (weights[:, None] / 2 * weights / 2 * integrand).sum()
    problem = linear([[mu]], [[[s]]], [0.0], a=[c], kind="general")
    assert linear_errors(problem, EULER, 1).optimum == pytest.approx(square**0.5, rel=1e-10)


@pytest.mark.statistical
def test_coupled_paths_agree():
    """X = (cos W, sin W). Seed 5, 20000 paths: the mean square is within five of its standard errors; 6e-7."""
    samples, n = 20_000, 16
    path = sk.BrownianGrid.on(KUBO.grid(n), (samples, 1), seed=5)
    start = torch.tensor([[1.0, 0.0]]).double().repeat(samples, 1)
    reached = sk.solve(KUBO.sde, start, KUBO.grid(n), Milstein(), noise=path).final
    w = path.increment(0.0, 1.0).w
    squares = (reached - torch.cat([w.cos(), w.sin()], 1)).square().sum(1)
    exact, error = linear_errors(KUBO, Milstein(), n).strong ** 2, float(squares.std()) / samples**0.5
    assert error < 0.02 * exact
    assert abs(float(squares.mean()) - exact) < 5 * error


# --- the chaos ----------------------------------------------------------------------------------------


def test_chaos_coefficients_by_cauchys_formula():
    """∂_λ at 0 on a polydisc, with the equation solved by an adaptive Runge–Kutta method; then E[Φ ⊗ Φ] is left."""
    A, B = np.array([[-1, 0.5], [0.3, -0.7]]), np.array([[0.5, 0.2], [-0.4, 0.1]])
    n = 12
    roots = np.exp(2j * np.pi * np.arange(n) / n)
    first, second = (v.reshape(-1, 1, 1) for v in np.meshgrid(roots, roots, indexing="ij"))

    def slope(u, y):
        return ((A + (first + second * 3**0.5 * (1 - 2 * u)) * B) @ y.reshape(-1, 2, 2)).reshape(-1)

    start = np.tile(np.eye(2, dtype=complex), (n * n, 1, 1)).reshape(-1)
    final = solve_ivp(slope, (0, 1), start, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1].reshape(n, n, 2, 2)
    derivatives = np.fft.fft2(final, axes=(0, 1)).real / n**2
    indices = [a for a in product(range(5), repeat=2) if sum(a) <= 4]
    chaos = LinearStep(A, B[None], levy=True).chaos(indices)
    wanted = np.array([derivatives[a] * (factorial(a[0]) * factorial(a[1])) ** 0.5 for a in indices])
    np.testing.assert_allclose(chaos.coefficients, wanted, atol=1e-12)
    one = np.eye(2)
    square = expm(np.kron(A, one) + np.kron(one, A) + np.kron(B, B))
    np.testing.assert_allclose(chaos.square, square, rtol=1e-13)
    np.testing.assert_allclose(chaos.rest, square - sum(np.kron(p, p) for p in wanted), atol=1e-12)


# --- slips that must be seen --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "right", "wrong", "kind", "order"),
    [
        (NILPOTENT, Milstein(), {"derivative": staticmethod(lambda g, x, v: vjp(g, x)[1](v)[0])}, "strong", 0.5),
        (GBM, Milstein(), {"minus_h": 0.0}, "strong", 0.0),
        (GBM, Milstein(), {"minus_h": 0.0}, "weak", 0.0),
        (DIAGONAL, SRI1W1(), {"area_scale": 3**0.5}, "strong", 1.0),
        (DIAGONAL, SRI1W1(), {"area_scale": -1.0}, "strong", 1.0),
        (DIAGONAL, SRI1W1(), {"second": -1.0}, "strong", 0.5),
        (DIAGONAL, SRI1W1(), {"noise_scale": 1.02}, "strong", 0.0),
        (DIAGONAL, SRI1W1(), {"noise_scale": 1.02}, "weak", 0.0),
        (GBM, ThreePointPlaten(), {"noise_scale": 1.02}, "weak", 0.0),
    ],
)
def test_a_slip_costs_the_order(problem, right, wrong, kind, order):
    """The transposed Jacobian, the Itô correction forgotten, Lévy areas on the wrong scale, 2 % too much noise."""
    slipped = [getattr(e, kind) for e in errors(problem, changed(type(right), **wrong))]
    hold(slipped, order)


def test_slips_that_laws_do_not_show():
    """β₂ with the wrong sign, or H on the wrong scale: the weak order stays 2, the strong one falls."""
    for wrong in ({"second": -1.0}, {"area_scale": 3**0.5}):
        hold([e.weak for e in errors(DIAGONAL, changed(SRI1W1, **wrong))], 2)


def test_the_area_with_the_wrong_sign_is_seen_where_noises_do_not_commute():
    """Its order is that of no area at all, ½, and its constant says that it is worse than none."""
    right, none, wrong = (
        linear_errors(GENERAL, m, 512) for m in (MilsteinLevy(), Milstein(), changed(MilsteinLevy, sign=-1.0))
    )
    assert right.strong < 1.05 * right.optimum
    assert none.strong < 1.05 * none.optimum
    assert wrong.strong > 2.5 * right.strong
    assert wrong.strong > 1.5 * none.strong


def test_ito_is_not_stratonovich():
    """The trapezoidal rule converges, to something else."""
    found = errors(KUBO, StratonovichHeun(), (64, 128, 256, 512))
    assert all(e.strong > 0.3 for e in found)


# --- refusals -----------------------------------------------------------------------------------------


class Tamed(sk.EulerMaruyama):
    def step(self, sde, t0, t1, x, increment, memory):
        f = sde.drift(t0, x)
        return Step(x + (t1 - t0) * f / (1 + (t1 - t0) * f.abs()) + sde.diffusion(t0, x) * increment.w)


class Bounded(sk.EulerMaruyama):
    def step(self, sde, t0, t1, x, increment, memory):
        return super().step(sde, t0, t1, x, Increment(increment.w.sin()), memory)


class TwoSteps(sk.EulerMaruyama):
    """Adams and Bashforth's drift."""

    def step(self, sde, t0, t1, x, increment, memory):
        f = sde.drift(t0, x)
        slope = f if memory is None else 1.5 * f - 0.5 * memory
        return Step(x + (t1 - t0) * slope + sde.diffusion(t0, x) * increment.w, f)


@pytest.mark.parametrize(
    ("problem", "stepper", "words"),
    [
        (GBM, Tamed(), "not linear in the state"),
        (GBM, Bounded(), "no polynomial"),
        (GBM, TwoSteps(), "without memory"),
        (replace(GBM, sde=sk.sde(lambda t, x: (1 + t) * x, lambda t, x: 0.5 * x)), EULER, "do not depend on time"),
        (replace(GBM, linear=None), EULER, "no linear coefficients"),
        (replace(ODE, grid=lambda n: torch.linspace(1, 0, n + 1)), "heun", "increasing times"),
        (replace(GBM, linear=GENERAL.linear), EULER, "for the 2 noises"),
        (linear([[0.0]], np.ones((11, 1, 1)), [1.0]), EULER, "fewer noises"),
        (linear([[-900.0]], [[[1.0]]], [1.0]), EULER, "take more steps"),
        (COMMUTATIVE, "rk4", "cannot solve"),
    ],
)
def test_refusals(problem, stepper, words):
    with pytest.raises(sk.SdekitError, match=words):
        linear_errors(problem, stepper, 4)
