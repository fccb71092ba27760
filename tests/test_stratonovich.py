r"""Stratonovich: converters, single steps against the formulas as printed, orders that need commuting noises, slips.

Orders on every problem are in the conformance suite and laws in the golden ones; both know these steppers by their
Spec.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import problems
from sdekit.calculus import Converted, noise_drift
from sdekit.dynamics import GeneralSDE
from sdekit.steppers import Step
from sdekit.steppers.coefficients import vector
from sdekit.steppers.stratonovich import TABLEAUS, StratonovichRungeKutta, StratonovichTableau
from sdekit.verify import linear_errors
from sdekit.verify.conditions import stratonovich_residuals

TOLD = [name for name in problems.PROBLEMS if name.endswith("-strat")]
T0, T1 = 0.3, 0.55
H = T1 - T0
RNG = np.random.default_rng(20_261_125)


def randn(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.normal(size=shape))


# --- fields ---------------------------------------------------------------------------------------

MIX = randn(3, 3)


def drift(t, x):
    return torch.sin(x) * (1 + t) - 0.3 * x * x.roll(1, 1) + t**2


def elementwise(t, x):
    return torch.cos(x + t) + 0.4 * x**2


def mixing(t, x):
    """One column, each entry a function of the whole state."""
    return torch.cos(x @ MIX.T + t) + 0.4 * x * x.roll(1, 1)


def columns(t, x):
    """Two noises that do not commute."""
    return torch.stack([mixing(t, x), torch.sin(x.roll(2, 1) - t) + x], -1)


FIELDS = {
    "diagonal": elementwise,
    "scalar": mixing,
    "commutative": lambda t, x: elementwise(t, x),
    "general": columns,
    "general, of the shape of the state": mixing,
    "scalar, with a column": lambda t, x: mixing(t, x)[..., None],
}


def kind(name: str) -> str:
    return name.partition(",")[0]


def by_hand(name: str, t: float, x: Tensor) -> Tensor:
    """Σ_jk g_kj ∂_k g_ij at one state, by all derivatives."""

    def matrix(y: Tensor) -> Tensor:
        g = FIELDS[name](t, y[None])[0]
        if g.ndim == 2:
            return g
        return g[:, None] if kind(name) == "scalar" else torch.diag(g)

    J = torch.autograd.functional.jacobian(matrix, x)
    return torch.einsum("ijk,kj->i", J, matrix(x))


# --- converters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_the_correction_is_the_sum_of_all_derivatives(name):
    x = randn(4, 3)
    ito = sk.sde(drift, FIELDS[name], kind(name))
    for t in (0.4, torch.full((4,), 0.4, dtype=torch.float64)):
        wanted = drift(0.4, x) - 0.5 * torch.stack([by_hand(name, 0.4, y) for y in x])
        told = sk.to_stratonovich(sk.sde(lambda t, x: drift(0.4, x), lambda t, x: FIELDS[name](0.4, x), kind(name)))
        torch.testing.assert_close(told.drift(t, x), wanted, rtol=1e-13, atol=1e-13)
        assert told.calculus == "stratonovich"
        assert told.noise_type == kind(name)
    torch.testing.assert_close(sk.to_stratonovich(ito).drift(0.4, x), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", FIELDS)
def test_there_and_back(name):
    """Converted back an SDE is itself; told anew in between it is so to rounding."""
    x = randn(4, 3)
    for calculus, there, back in (
        ("ito", sk.to_stratonovich, sk.to_ito),
        ("stratonovich", sk.to_ito, sk.to_stratonovich),
    ):
        sde = sk.sde(drift, FIELDS[name], kind(name), calculus)
        told = there(sde)
        assert back(told) is sde
        assert there(told) is told
        anew = GeneralSDE(told.drift, told.diffusion, told.noise_type, told.calculus)
        assert isinstance(back(anew), Converted)
        torch.testing.assert_close(back(anew).drift(0.4, x), sde.drift(0.4, x), rtol=1e-14, atol=1e-14)
        assert float((told.drift(0.4, x) - sde.drift(0.4, x)).abs().max()) > 0.1


def test_images_have_their_corrections_too():
    x = randn(2, 3, 2, 2)
    diagonal = noise_drift(sk.sde(drift, elementwise), 0.4, x)
    general = noise_drift(sk.sde(drift, elementwise, "general"), 0.4, x)
    torch.testing.assert_close(diagonal, general, rtol=1e-14, atol=1e-14)
    stacked = noise_drift(sk.sde(drift, lambda t, y: torch.stack([y * t, y * y], -1), "general"), 0.4, x)
    torch.testing.assert_close(stacked, 0.16 * x + 2 * x**3, rtol=1e-13, atol=1e-13)


def test_additive_noise_is_untouched():
    sde = sk.sde(drift, lambda t, x: torch.full_like(x, t), "additive")
    told = sk.to_stratonovich(sde)
    assert (told.drift, told.diffusion, told.calculus) == (sde.drift, sde.diffusion, "stratonovich")
    assert sk.to_ito(told) == sde
    reverse = sk.reverse_time(sk.VP(), sk.exact_score(sk.Gaussian([0.0]), sk.VP()))
    assert sk.to_stratonovich(reverse) is reverse


@pytest.mark.parametrize("name", TOLD)
def test_a_problem_in_the_other_calculus_has_the_drift_of_its_docstring(name):
    s, cos = lambda t: 0.4 + 0.6 * t, lambda t: float(np.cos(3 * t))
    c = {n: problems.get(n).linear for n in ("commuting", "noncommuting")}
    less = {n: v.A - 0.5 * (v.B @ v.B).sum(0) for n, v in c.items()}
    wanted = {
        "gbm-strat": lambda t, x: 0.18 * x,
        "sinh-strat": lambda t, x: torch.sqrt(x * x + 1),
        "arctan-scalar-strat": lambda t, x: 0 * x,
        "nonautonomous-strat": lambda t, x: 0.5 * (cos(t) - s(t) ** 2) * x,
        "kubo-strat": lambda t, x: 0 * x,
        "commuting-strat": lambda t, x: x @ less["commuting"].T,
        "noncommuting-strat": lambda t, x: x @ less["noncommuting"].T,
    }[name]
    problem = problems.get(name)
    x = problem.initial.mean + randn(5, *problem.initial.event_shape)
    torch.testing.assert_close(problem.sde.drift(0.4, x), wanted(0.4, x), rtol=1e-13, atol=1e-14)
    assert problem.sde.calculus == "stratonovich"


# --- one step as printed --------------------------------------------------------------------------


def as_printed(t: StratonovichTableau, g, x: Tensor, w: Tensor, levy: Tensor) -> Tensor:
    """All stages and all sums, over noises in a last dimension."""
    s = len(t.b)
    still = np.zeros((s, s))
    a, aw, b, bw, c = (np.array(v, dtype=float) for v in (t.a, t.aw, t.b, t.bw, t.c))
    ah = still if t.ah is None else np.array(t.ah, dtype=float)
    bh = still[0] if t.bh is None else np.array(t.bh, dtype=float)
    f_, g_ = [], []
    for i in range(s + 1):
        drifts, along_w, along_h = (a[i], aw[i], ah[i]) if i < s else (b, bw, bh)
        y = x
        for j in range(i):
            kick = along_w[j] * w + along_h[j] * levy
            y = y + H * drifts[j] * f_[j] + (g_[j] * kick[:, None, :]).sum(-1)
        if i < s:
            f_.append(drift(T0 + c[i] * H, y))
            g_.append(g(T0 + c[i] * H, y))
    return y


def taken(tableau: StratonovichTableau) -> StratonovichRungeKutta:
    """A stepper that takes this tableau."""
    return type("Taken", (StratonovichRungeKutta,), {"spec": sk.SlowRK.spec, "tableau": tableau})()


@pytest.mark.parametrize("noise", ["general", "scalar", "diagonal"])
@pytest.mark.parametrize("name", TABLEAUS)
def test_a_step_is_the_papers(name, noise):
    x, m = randn(5, 3), {"general": 2, "scalar": 1, "diagonal": 3}[noise]
    w, levy = randn(5, m) * H**0.5, randn(5, m) * (H / 12) ** 0.5
    g = {
        "general": columns,
        "scalar": lambda t, y: mixing(t, y)[..., None],
        "diagonal": lambda t, y: torch.diag_embed(elementwise(t, y)),
    }[noise]
    sde = sk.sde(drift, FIELDS[noise], noise, "stratonovich")
    path = sk.RecordedBrownian([T0, T1], w[None], levy[None])
    found = sk.solve(sde, x, [T0, T1], taken(TABLEAUS[name]), noise=path).final
    torch.testing.assert_close(found, as_printed(TABLEAUS[name], g, x, w, levy), rtol=1e-13, atol=1e-13)


def test_shark_is_general_shark_on_noise_of_the_time_to_its_order():
    """The two differ by O(h^2.5): the derivative of G at a node, or its difference over the step."""
    sde = sk.sde(drift, lambda t, x: columns(t, 0 * x), "additive")
    gaps = []
    for h in (0.02, 0.01):
        path = sk.RecordedBrownian([0.0, h], torch.full((1, 4, 2), h**0.5).double(), torch.full((1, 4, 2), h**0.5 / 4))
        x = torch.ones(4, 3, dtype=torch.float64)
        ends = [sk.solve(sde, x, [0.0, h], s, noise=path).final for s in ("shark", taken(TABLEAUS["general-shark"]))]
        gaps.append(float((ends[0] - ends[1]).abs().max()))
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(2.5, abs=0.1)


# --- orders, and slips that change them -------------------------------------------------------------


def falls(problem: str, stepper: object, steps: tuple[int, int] = (256, 1024)) -> float:
    """The strong order between two step counts, from exact errors."""
    made = problems.get(problem)
    coarse, fine = (linear_errors(made, stepper, n).strong for n in steps)
    return float(np.log(coarse / fine) / np.log(steps[1] / steps[0]))


@pytest.mark.parametrize(
    ("problem", "stepper", "order"),
    [
        ("gbm-strat", "euler-heun", 1.0),
        ("commuting-strat", "heun-strat", 1.0),
        ("commuting-strat", "slowrk", 1.5),
        ("noncommuting-strat", "heun-strat", 0.5),
        ("gbm-strat", "slowrk", 1.5),
        ("gbm-strat", "spark", 1.0),
    ],
)
def test_orders(problem, stepper, order):
    assert falls(problem, stepper) == pytest.approx(order, abs=0.05)


SLOW = TABLEAUS["slowrk"]
SLIPS = {
    "the sign of H": (replace(SLOW, bh=vector("0 0 0 -2 0 0 2")), 1.0),
    "H forgotten in the new state": (replace(SLOW, bh=None), 1.0),
    "weights of the noise of order two": (replace(SLOW, bw=vector("0 0 1 0 0 0 0")), 1.0),
    "weights of the noise of order one": (replace(SLOW, bw=vector("0 1 0 0 0 0 0")), 0.0),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_in_slowrk_lower_its_order(slip):
    tableau, order = SLIPS[slip]
    assert falls("commuting-strat", taken(tableau)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("forgotten", ["diagonal", "scalar", "commutative", "general"])
def test_a_forgotten_correction_does_not_converge(forgotten):
    """Itô's equation taken for Stratonovich's."""
    name = {"diagonal": "gbm", "scalar": "kubo", "commutative": "commuting", "general": "noncommuting"}[forgotten]
    problem = problems.get(name)
    wrong = replace(problem, sde=replace(problem.sde, calculus="stratonovich"))
    right = replace(problem, sde=sk.to_stratonovich(problem.sde))
    errors = partial(linear_errors, stepper="heun-strat", steps=128)
    assert errors(wrong).weak > 0.05 > errors(right).weak


# --- order conditions -------------------------------------------------------------------------------

ORDERS = {"slowrk": (1.5, 1.5), "spark": (1.0, 1.5), "general-shark": (1.0, 1.5)}  # where noises commute; if additive


def missed(tableau: StratonovichTableau, order: float, noise: str) -> set[str]:
    return {name for name, r in stratonovich_residuals(tableau, order, noise).items() if abs(r) > 1e-30}


@pytest.mark.parametrize("name", TABLEAUS)
def test_tableaus_satisfy_the_conditions_of_their_order_and_no_more(name):
    for noise, order in zip(("commutative", "additive"), ORDERS.get(name, (1.0, 1.0)), strict=True):
        assert not missed(TABLEAUS[name], order, noise)
        assert order == 1.5 or missed(TABLEAUS[name], 1.5, noise)


def test_slips_break_conditions():
    assert missed(replace(SLOW, bh=vector("0 0 0 -2 0 0 2")), 1.5, "additive") == {"g[f]"}
    assert "g[g[g]]" in missed(replace(SLOW, bw=vector("0 0 1 0 0 0 0")), 1.5, "commutative")
    assert missed(replace(SLOW, bw=vector("0 1 0 0 0 0 0")), 1.0, "commutative") == {"g[g]"}


# --- the reversible method ----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["none", "general", "diagonal"])
def test_the_reversible_method_steps_back(noise):
    """200 steps there and back, to round-off; the same with one increment changed is seen."""
    sde = sk.sde(drift, {"general": columns, "diagonal": elementwise}.get(noise), noise, "stratonovich")
    stepper, steps, m = sk.ReversibleHeun(), 200, {"general": 2}.get(noise, 3)
    x, times = 0.3 * randn(4, 3), np.linspace(0.0, 0.3, steps + 1).tolist()
    kicks = randn(steps, 4, m) * (0.3 / steps) ** 0.5
    drawn = [None if noise == "none" else sk.Increment(w) for w in kicks]

    def returned(after: list[sk.Increment | None]) -> Tensor:
        state = Step(x)
        for k, increment in enumerate(drawn):
            state = stepper.step(sde, times[k], times[k + 1], state.x, increment, state.memory)
        for k in reversed(range(steps)):
            state = stepper.back(sde, times[k], times[k + 1], state, after[k])
        return state.x

    assert float((returned(drawn) - x).abs().max()) < 1e-11
    if noise != "none":
        other = [*drawn[:100], sk.Increment(1.001 * kicks[100]), *drawn[101:]]
        assert float((returned(other) - x).abs().max()) > 1e-6


@pytest.mark.parametrize("h", [0.25, 0.5])
def test_the_reversible_method_has_the_eigenvalues_of_its_docstring(h):
    """x, x̂ and f̂ = μ x̂ on ẋ = μ x, as a map of (x, x̂)."""
    mu, stepper = -3.0, sk.ReversibleHeun()
    field = sk.sde(lambda t, x: mu * x)
    columns = []
    for x, hat in ((1.0, 0.0), (0.0, 1.0)):
        start = torch.tensor([[hat]], dtype=torch.float64)
        end = stepper.step(field, 0.0, h, torch.tensor([[x]]).double(), None, (start, mu * start, None))
        columns.append([float(end.x), float(end.memory[0])])
    found = np.sort(np.linalg.eigvals(np.array(columns).T))
    root = (1 + (mu * h) ** 2) ** 0.5
    np.testing.assert_allclose(found, np.sort([mu * h - root, mu * h + root]), rtol=1e-12)


# --- adaptive steps -------------------------------------------------------------------------------


def test_a_pair_is_a_step_and_its_distance_from_the_point_of_euler():
    x, w = randn(5, 3), randn(5, 2) * H**0.5
    sde = sk.sde(drift, columns, "general", "stratonovich")
    stepper = sk.HeunStratonovich()
    moved, apart = stepper.pair(sde, T0, T1, x, sk.Increment(w))
    assert torch.equal(moved, stepper.step(sde, T0, T1, x, sk.Increment(w), None).x)
    point = x + H * drift(T0, x) + (columns(T0, x) * w[:, None, :]).sum(-1)
    torch.testing.assert_close(moved - point, apart, rtol=1e-13, atol=1e-13)


def test_adaptive_errors_follow_the_tolerance():
    """The distance is of order h where the noise depends on the state, and so is the error."""
    sde, n = sk.sde(lambda t, x: 0.2 * x, lambda t, x: 0.8 * x, "diagonal", "stratonovich"), 100
    path = sk.BrownianTree((n, 1), 0.0, 1.0, seed=3)
    exact = torch.exp(0.2 + 0.8 * path.increment(0.0, 1.0).w)
    x, errors = torch.ones(n, 1, dtype=torch.float64), []
    for tol in (1e-1, 1e-2):
        run = sk.solve(sde, x, [0.0, 1.0], "heun-strat", noise=path, controller=sk.PID(tol, tol)).check()
        errors.append(float((run.final - exact).square().mean().sqrt()))
    assert 0.7 < np.log10(errors[0] / errors[1]) < 1.4, errors
    assert errors[1] < 5e-2
