r"""Weak order 2 for any Itô noise: single steps against the formulas as printed, exact orders with three noises, slips.

Orders on the library are in the conformance suite, order conditions in ``test_conditions.py``. Two noises cannot tell
how the two-point variables of several pairs go together: here are three. Linear noise cannot see β³: here is another.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.problems import linear
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.problems.closed_form import uniform
from sdekit.steppers import TABLEAUS, weak_runge_kutta
from sdekit.steppers.coefficients import matrix, vector
from sdekit.steppers.weak_runge_kutta import WeakRungeKutta, WeakTableau, double_integrals
from sdekit.verify import fit_order, linear_errors

METHODS = {"platen-weak2": sk.PlatenWeak2, "ri6": sk.RI6, "dri1": sk.DRI1}
WEAK = [name for name, t in TABLEAUS.items() if isinstance(t, WeakTableau)]
T0, T1 = 0.3, 0.42
RNG = np.random.default_rng(20_261_125)
COEFFICIENTS = RNG.normal(size=(3, 4, 4))


def taken(tableau: WeakTableau):
    """A stepper that takes this tableau."""
    return type("Taken", (WeakRungeKutta,), {"spec": sk.RI6.spec, "tableau": tableau})()


def drift(t, x):
    return np.sin(x) * (1 + t) - 0.3 * x * x[:, [1, 2, 3, 0]] + t**2


def columns(t, x, m: int = 3):
    """G of shape (B, 4, m), nonlinear, and dependent on time: nothing commutes."""
    return np.stack([np.cos(x @ COEFFICIENTS[k] + t) * (0.5 + t) + 0.2 * x * x for k in range(m)], -1)


def torched(f):
    return lambda t, x: torch.from_numpy(f(t, x.numpy()))


def discrete(m: int, rows: int = 5):
    """Three-point and two-point variables over a step."""
    h = T1 - T0
    return RNG.choice([-1.0, 0.0, 1.0], (rows, m)) * (3 * h) ** 0.5, RNG.choice([-1.0, 1.0], (rows, m)) * h**0.5


def pairs(w, coins):
    """Î_(k,l) as written: a variable for each pair, of which (k, l) and (l, k) have opposite signs."""
    h, m = T1 - T0, w.shape[1]
    coins = np.append(coins[:, :-1], np.full((len(w), 1), h**0.5), 1)
    found = np.zeros((len(w), m, m))
    for k, l in product(range(m), repeat=2):
        pair = h if k == l else coins[:, k] * coins[:, l] * (1 if k < l else -1)
        found[:, k, l] = (w[:, k] * w[:, l] - pair) / 2
    return found


def rossler(t: WeakTableau, x, w, mixed, g=columns):
    """Rößler 2009, in loops."""
    h, s, m = T1 - T0, len(t.alpha), w.shape[1]
    A0, A1, A2, B0, B1, B2 = ([[float(v) for v in row] for row in a] for a in (t.A0, t.A1, t.A2, t.B0, t.B1, t.B2))
    at = lambda a, i: T0 + sum(a[i]) * h  # noqa: E731
    f, G = [], []
    for i in range(s):
        state = x + sum(h * A0[i][j] * f[j] for j in range(i))
        state = state + sum(B0[i][j] * G[j][k] * w[:, k : k + 1] for j in range(i) for k in range(m))
        own = [x + sum(h * A1[i][j] * f[j] + h**0.5 * B1[i][j] * G[j][k] for j in range(i)) for k in range(m)]
        f.append(drift(at(A0, i), state))
        G.append([g(at(A1, i), own[k])[..., k] for k in range(m)])
    y = x + h * sum(float(t.alpha[i]) * f[i] for i in range(s))
    for i, k in product(range(s), range(m)):
        hat = x + sum(h * A2[i][j] * f[j] for j in range(s))
        for j, l in product(range(s), set(range(m)) - {k}):
            hat = hat + B2[i][j] * G[j][l] * mixed[:, k, l][:, None] / h**0.5
        weight = float(t.beta1[i]) * w[:, k] + float(t.beta2[i]) * mixed[:, k, k] / h**0.5
        other = float(t.beta3[i]) * w[:, k] + float(t.beta4[i]) * h**0.5
        y = y + weight[:, None] * G[i][k] + other[:, None] * g(at(A2, i), hat)[..., k]
    return y


def platen(x, w, mixed, g=columns):
    """Kloeden and Platen 1992, (15.1.3), in loops; 2 Î_(j,r) is ΔŴ_j ΔŴ_r + V_rj."""
    h, m = T1 - T0, w.shape[1]
    a, b = drift(T0, x), g(T0, x)
    ahead = x + a * h
    y = x + h / 2 * (drift(T1, ahead + sum(b[..., k] * w[:, k : k + 1] for k in range(m))) + a)
    for j in range(m):
        up, down = (g(T1, ahead + sign * b[..., j] * h**0.5)[..., j] for sign in (1, -1))
        y = y + (up + down + 2 * b[..., j]) * w[:, j : j + 1] / 4
        y = y + (up - down) * (w[:, j : j + 1] ** 2 - h) / h**0.5 / 4
        for r in set(range(m)) - {j}:
            up, down = (g(T0, x + sign * b[..., r] * h**0.5)[..., j] for sign in (1, -1))
            y = y + (up + down - 2 * b[..., j]) * w[:, j : j + 1] / 4
            y = y + (up - down) * 2 * mixed[:, j, r][:, None] / h**0.5 / 4
    return y


def one_step(sde, x, w, coins, method):
    """The production solver over [T0, T1] with these variables."""
    w, coins = (torch.from_numpy(v)[None] for v in (w, coins))
    path = sk.RecordedBrownian([T0, T1], w, coins=coins)
    return sk.solve(sde, torch.from_numpy(x), [T0, T1], method, noise=path).final.numpy()


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("name", [*WEAK, "platen-weak2"])
def test_a_step_is_the_formula(name, m):
    x, (w, coins) = RNG.normal(size=(5, 4)), discrete(m)
    general = sk.sde(torched(drift), torched(lambda t, x: columns(t, x, m)), "general")
    method = sk.PlatenWeak2() if name == "platen-weak2" else taken(TABLEAUS[name])
    mixed = pairs(w, coins)
    args = (x, w, mixed, lambda t, x: columns(t, x, m))
    wanted = platen(*args) if name == "platen-weak2" else rossler(TABLEAUS[name], *args)
    np.testing.assert_allclose(one_step(general, x, w, coins, method), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", METHODS)
def test_diagonal_and_scalar_noise_are_special_cases(name):
    x, (w, coins) = RNG.normal(size=(5, 4)), discrete(4)
    own = lambda t, x: np.cos(x + t) + 0.4 * x**2  # noqa: E731
    as_matrix = lambda t, x: own(t, x)[..., None] * np.eye(4)  # noqa: E731
    diagonal = one_step(sk.sde(torched(drift), torched(own), "diagonal"), x, w, coins, name)
    general = one_step(sk.sde(torched(drift), torched(as_matrix), "general"), x, w, coins, name)
    undeclared = one_step(sk.sde(torched(drift), torched(own), "general"), x, w, coins, name)
    np.testing.assert_allclose(diagonal, general, rtol=0, atol=1e-13)
    np.testing.assert_allclose(undeclared, general, rtol=0, atol=1e-13)
    first = lambda t, x: columns(t, x, 1)  # noqa: E731
    scalar = one_step(
        sk.sde(torched(drift), torched(lambda t, x: first(t, x)[..., 0]), "scalar"), x, w[:, :1], coins[:, :1], name
    )
    general = one_step(sk.sde(torched(drift), torched(first), "general"), x, w[:, :1], coins[:, :1], name)
    np.testing.assert_allclose(scalar, general, rtol=0, atol=1e-13)


def test_a_noise_for_each_element_that_sees_others_is_no_diagonal_noise():
    """Declared general, its columns are g_k e_k, and all of it is mixed."""
    x, (w, coins) = RNG.normal(size=(5, 4)), discrete(4)
    rolled = lambda t, x: np.cos(np.roll(x, 1, 1) + t)  # noqa: E731
    as_matrix = lambda t, x: rolled(t, x)[..., None] * np.eye(4)  # noqa: E731
    one, other = (
        one_step(sk.sde(torched(drift), torched(g), "general"), x, w, coins, "ri6") for g in (rolled, as_matrix)
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", METHODS)
def test_time_is_as_good_as_a_coordinate(name):
    """With t as a fifth coordinate the fields do not depend on time, and nothing changes: all nodes are right."""
    x, (w, coins) = RNG.normal(size=(5, 4)), discrete(3)
    told = sk.sde(torched(drift), torched(columns), "general")

    def with_time(t, y):
        at = y[:, 4:]
        return np.append(drift(at, y[:, :4]), np.ones_like(at), 1)

    def spread(t, y):
        g = np.stack([columns(y[i : i + 1, 4:], y[i : i + 1, :4])[0] for i in range(len(y))])
        return np.append(g, np.zeros((len(y), 1, 3)), 1)

    longer = np.append(x, np.full((5, 1), T0), 1)
    augmented = one_step(sk.sde(torched(with_time), torched(spread), "general"), longer, w, coins, name)
    np.testing.assert_allclose(augmented[:, :4], one_step(told, x, w, coins, name), rtol=0, atol=1e-13)


def test_one_noise_cannot_tell_ri6_from_platen_and_two_can():
    for m, same in ((1, True), (2, False)):
        x, (w, coins) = RNG.normal(size=(5, 4)), discrete(m)
        w[:, 0] = abs(w[:, 0]) + 0.1
        general = sk.sde(torched(drift), torched(lambda t, x, m=m: columns(t, x, m)), "general")
        one, other = (one_step(general, x, w, coins, name) for name in ("ri6", "platen-weak2"))
        assert np.allclose(one, other, rtol=0, atol=1e-13) == same


# Orders, with three noises


def three_noises():
    """Three linear noises in the plane, none of which commute, with exact moments."""
    B = [[[0.4, 0.2], [0.0, -0.1]], [[0.1, 0.0], [0.5, -0.3]], [[-0.2, 0.4], [-0.3, 0.2]]]
    c = linear.coefficients([[-0.8, 0.5], [0.1, -0.6]], B)
    start = sk.Gaussian([1.0, 0.5], 0.0)
    answer = linear.moments(c, start, 1.0)
    return replace(sk.problems.get("noncommuting"), sde=linear.linear_sde(c, "general"), linear=c, weak=answer)


def order_of(method):
    steps = (4, 8, 16, 32)
    return fit_order(steps, [linear_errors(three_noises(), method, n).weak for n in steps], 1e-13)


@pytest.mark.parametrize("name", METHODS)
def test_weak_order_two_with_three_noises(name):
    found = order_of(name)
    assert abs(found.order - 2.0) < 0.05, found


def shared(increment, h):
    """√h Ĩ_k for every pair k < l: Î_(k,l) and Î_(k,l') are correlated, if there are three noises."""
    w, coins = increment.w, increment.two_point
    m = w.shape[1]
    lower = torch.ones(m, m, dtype=w.dtype).tril(-1)
    pair = h**0.5 * (coins[:, :, None] * lower.T - coins[:, None] * lower)
    return 0.5 * (w[:, :, None] * w[:, None] - pair - h * torch.eye(m, dtype=w.dtype))


def forgotten(increment, h):
    """No two-point variables: Î_k Î_l / 2 in both."""
    return 0.5 * increment.w[:, :, None] * increment.w[:, None]


def test_the_rule_for_the_pairs_of_two_noises_is_the_printed_one():
    w, coins = discrete(2)
    increment = sk.Increment(torch.from_numpy(w), coins=torch.from_numpy(coins))
    torch.testing.assert_close(double_integrals(increment, T1 - T0), shared(increment, T1 - T0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("slip", [shared, forgotten])
def test_pairs_that_are_wrong_have_order_one(slip, monkeypatch):
    monkeypatch.setattr(weak_runge_kutta, "double_integrals", slip)
    found = order_of("ri6")
    assert found.order < 1.3, found


SLIPS = {
    "a sign of B2": {"B2": matrix("", "1", "1")},
    "β4 forgotten": {"beta4": vector("0 0 0")},
    "A1 forgotten": {"A1": matrix("", "", "")},
    "B0 forgotten": {"B0": matrix("", "", "")},
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_in_a_tableau_are_caught(slip):
    found = order_of(taken(replace(TABLEAUS["ri6"], **SLIPS[slip])))
    assert found.order < 1.5, found


# Noise that is not linear


def squared(end: float = 1.0, start: tuple[float, float] = (0.6, -0.3)):
    r"""$dX_1 = dW_1$, $dX_2 = X_1\,dt + X_1^2\,dW_2$ from (a, b), with exact means of $X_2$, $X_1 X_2$, $X_2^2$ and
    $X_1 X_2^2$. Without the third moment the sign of $I_(1,2)$ is not seen.

    $E X_2 = b + a t$; the rates of the others are $E X_1^2$, $2 E X_1 X_2 + E X_1^4$ and $2 E X_1^2 X_2 + E X_1^5$;
    that of $E X_1^2 X_2$ is $E X_2 + E X_1^3$.
    """

    def diffusion(t, x):
        g = torch.zeros(len(x), 2, 2, dtype=x.dtype)
        g[:, 0, 0], g[:, 1, 1] = 1.0, x[:, 0] ** 2
        return g

    (a, b), t = start, end
    second = b * b + 2.0 * (a * b * t + a * a * t**2 / 2.0 + t**3 / 6.0) + a**4 * t + 3.0 * a * a * t**2 + t**3
    third = a * b * b + (2.0 * a * a * b + a**5) * t + (b + 6.0 * a**3) * t**2 + (19.0 / 3.0) * a * t**3
    means = torch.tensor([b + a * t, a * b + a * a * t + t * t / 2.0, second, third], dtype=torch.float64)
    answer = WeakAnswer(lambda x: torch.stack([x[:, 1], x.prod(1), x[:, 1] ** 2, x[:, 0] * x[:, 1] ** 2], 1), means)
    general = sk.sde(lambda t, x: torch.stack([torch.zeros_like(x[:, 0]), x[:, 0]], 1), diffusion, "general")
    return Problem("squared", "", "", general, sk.Gaussian(list(start), 0.0), uniform(end), weak=answer)


def local_order(method):
    """Of the error of one step, less one."""
    errors = []
    for h in (0.08, 0.04, 0.02):
        problem = squared(h)
        errors.append(float((moments_after(problem, method, h, 1, 2) - problem.weak.expectation).abs().max()))
    return np.log2(errors[-2] / errors[-1]) - 1.0


@pytest.mark.parametrize("name", METHODS)
def test_one_step_with_noise_that_is_not_linear(name):
    assert local_order(name) > 1.9


@pytest.mark.parametrize("weights", [{"beta3": vector("0 0 0")}, {"beta4": vector("0 -1/2 1/2")}])
def test_slips_that_linear_noise_or_second_moments_do_not_see_are_caught(weights):
    assert local_order(taken(replace(TABLEAUS["ri6"], **weights))) < 1.2


@pytest.mark.parametrize("name", METHODS)
def test_two_and_four_steps_with_noise_that_is_not_linear(name):
    errors = []
    for n in (2, 4):
        problem = squared(0.5)
        errors.append(float((moments_after(problem, name, 0.5 / n, n, 2) - problem.weak.expectation).norm()))
    assert abs(np.log2(errors[0] / errors[1]) - 2.0) < 0.3, errors


# What is drawn


def moments_after(problem, method, h, steps, m):
    """Means of the functionals under the scheme, by all outcomes of its variables."""
    three = [(-((3 * h) ** 0.5), 1 / 6), (0.0, 2 / 3), ((3 * h) ** 0.5, 1 / 6)]
    two = [(-(h**0.5), 0.5), (h**0.5, 0.5)]
    cases = list(product(*[three] * m, *[two] * (m - 1)))
    chances = torch.tensor([np.prod([p for _, p in case]) for case in cases])
    rows = torch.tensor([[v for v, _ in case] for case in cases], dtype=torch.float64)
    w, coins = rows[:, :m], torch.nn.functional.pad(rows[:, m:], (0, 1))
    states, weights = problem.initial.mean[None], torch.ones(1, dtype=torch.float64)
    for _ in range(steps):
        x = states.repeat_interleave(len(w), 0)
        path = sk.RecordedBrownian([0.0, h], w.repeat(len(states), 1)[None], coins=coins.repeat(len(states), 1)[None])
        states = sk.solve(problem.sde, x, [0.0, h], method, noise=path).final
        weights = torch.outer(weights, chances).flatten()
    return weights @ problem.weak.functional(states)


@cache
def wanted_moments():
    return moments_after(three_noises(), "ri6", 0.5, 2, 3)


def drawn_moments() -> float:
    """The largest deviation of two steps of 100 000 samples, in standard errors; seed 8."""
    problem, n = three_noises(), 100_000
    found = sk.solve(problem.sde, problem.initial.sample(n, seed=1), problem.grid(2), "ri6", noise=8).final
    values = problem.weak.functional(found)
    return float(((values.mean(0) - wanted_moments()) / (values.std(0) / n**0.5)).abs().max())


@pytest.mark.statistical
def test_what_a_seed_draws_has_the_moments_of_the_scheme():
    """Seed 8: |z| < 6 for five moments, false alarm 1e-8."""
    assert drawn_moments() < 6.0


@pytest.mark.statistical
def test_coins_that_know_the_increments_are_caught(monkeypatch):
    """Seed 8: two-point variables with the signs of the three-point ones."""
    right = weak_runge_kutta.double_integrals

    def slip(increment, h):
        known = increment.w.sign().nan_to_num() + (increment.w == 0)
        return right(replace(increment, coins=known * h**0.5), h)

    wanted_moments()
    monkeypatch.setattr(weak_runge_kutta, "double_integrals", slip)
    assert drawn_moments() > 6.0


# What it costs, and what it refuses


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("m", "calls"), [(1, 3), (2, 9), (3, 13)])
def test_the_cost_is_linear_in_the_noises(name, m, calls):
    asked = []

    def counted(t, x):
        asked.append(t)
        return torch.from_numpy(columns(t, x.numpy(), m))

    x, general = RNG.normal(size=(5, 4)), sk.sde(torched(drift), counted, "general")
    sk.solve(general, torch.from_numpy(x), [T0, T1], name, noise=1)
    door = len(asked)
    asked.clear()
    sk.solve(general, torch.from_numpy(x), torch.linspace(T0, T1, 3), name, noise=1)
    assert len(asked) - door == calls


@pytest.mark.parametrize("name", METHODS)
def test_a_weak_method_follows_no_path(name):
    problem = three_noises()
    path = sk.BrownianGrid((3, 3), 0.0, 1.0, steps=4, seed=0)
    with pytest.raises(sk.SdekitError, match="weak method: it draws two-point variables"):
        sk.solve(problem.sde, problem.initial.sample(3, seed=0), problem.grid(4), name, noise=path)
    recorded = sk.RecordedBrownian([0.0, 1.0], torch.zeros(1, 3, 3, dtype=torch.float64))
    with pytest.raises(sk.SdekitError, match="Two-point variables were not drawn"):
        sk.solve(problem.sde, problem.initial.sample(3, seed=0), [0.0, 1.0], name, noise=recorded)
    with pytest.raises(sk.SdekitError, match="kind='weak'"):
        sk.verify.order(problem, name, "strong", steps=(4, 8, 16))


def test_two_point_variables_of_a_recorded_path():
    w = torch.zeros(2, 3, 2, dtype=torch.float64)
    coins = torch.arange(12.0, dtype=torch.float64).reshape(2, 3, 2)
    path = sk.RecordedBrownian([0.0, 0.5, 1.0], w, coins=coins)
    assert torch.equal(path.increment(0.5, 1.0).two_point, coins[1])
    assert path.increment(0.0, 1.0).coins is None
    assert torch.equal(sk.RecordedBrownian([1.0, 0.5, 0.0], w, coins=coins).increment(0.0, 0.5).two_point, coins[1])
    with pytest.raises(sk.SdekitError, match=r"must be like w, \(2, 3, 2\); got \(1, 3, 2\)"):
        sk.RecordedBrownian([0.0, 0.5, 1.0], w, coins=coins[:1])
