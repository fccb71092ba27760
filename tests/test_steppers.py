"""Steppers, generated from the registry where they can be: one table of facts, one set of checks.

What a method converges to, and how fast, is in the tests of `sdekit.verify`; here are the things that hold to the last
bit or in exact fractions, and single steps against the formulas as printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROCESSES
from torch import Tensor

import sdekit as sk
from sdekit.reverse import Reverse
from sdekit.steppers import registry
from sdekit.steppers.runge_kutta import ExplicitRungeKutta, Tableau

Randn = Callable[..., Tensor]
# Those that take the reverse of a process.
STEPPERS = {
    name: cls
    for name, cls in registry.STEPPERS.items()
    if not cls.spec.needs_langevin and (cls.spec.noise_types == {"none"} or "additive" in cls.spec.noise_types)
}
GRID = [0.9, 0.8123, 0.5, 0.4999, 0.31, 0.1, 0.05]
MEAN = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
SPREAD = torch.tensor([[1.0, 0.3, 0.1], [0.3, 0.5, -0.2], [0.1, -0.2, 0.7]], dtype=torch.float64)
TURNING = torch.tensor([[0.5, 2.0, 0.0], [-1.5, 0.8, 0.3], [0.0, 0.4, 1.1]], dtype=torch.float64)
LAWS: dict[str, Callable[[], sk.laws.Law]] = {
    "gaussian": lambda: sk.Gaussian(MEAN, torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)),
    "correlated": lambda: sk.Gaussian(MEAN, SPREAD),
    "mixture": lambda: sk.GaussianMixture([0.3, 0.7], torch.stack([MEAN, -MEAN]), torch.stack([SPREAD, 2 * SPREAD])),
    "empirical": lambda: sk.Empirical(torch.stack([MEAN, -MEAN, MEAN.flip(0)])),
}


def reverse(stepper: str, law: sk.laws.Law, process: sk.linear.LinearProcess | None = None) -> Reverse:
    """A reverse problem at the greatest η ≤ 1 that the stepper integrates."""
    process = sk.VP() if process is None else process
    low, high = STEPPERS[stepper].spec.eta
    return sk.reverse_time(process, sk.exact_score(law, process), max(low, min(high, 1.0)))


def seeded(sde: Reverse) -> int | None:
    return None if sde.noise_type == "none" else 11


# Declarations


@pytest.mark.parametrize("stepper", registry.STEPPERS)
def test_declared_facts(stepper: str) -> None:
    """The rest of the `Spec` is checked where it is used: evaluations in test_driver, orders in test_verify."""
    cls = registry.STEPPERS[stepper]
    spec = cls.spec
    keys = re.findall(r"@\w+\{(\w+),", (Path(__file__).parents[1] / "docs" / "references.bib").read_text())
    assert spec.name == stepper
    assert spec.summary
    assert not spec.summary.endswith(".")
    assert spec.references
    assert set(spec.references) <= set(keys)
    assert spec.noise_types
    assert spec.calculus
    assert 0.0 <= spec.eta[0] <= spec.eta[1]
    assert (spec.eta[1] > 0.0) == bool(spec.noise_types - {"none"}) or spec.needs_langevin or spec.remembers
    assert isinstance(registry.get(stepper), cls)
    assert "References:" in (cls.__doc__ or "") or issubclass(cls, ExplicitRungeKutta)


# The last bit


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_sample_is_the_same_in_every_batch(stepper: str, kind: str, randn: Randn) -> None:
    """Alone, among three, among 64, in any order: bitwise, score and noise included."""
    if STEPPERS[stepper].spec.kind == "exact" and kind in ("mixture", "empirical"):
        return  # integrates affine scores only
    sde, x = reverse(stepper, LAWS[kind]()), randn(64, 3)
    whole = sk.solve(sde, x, GRID, stepper, noise=seeded(sde), save="all").check().xs
    for rows in ([17], [63, 5, 17], list(range(64))[::-1]):
        paths = None if seeded(sde) is None else rows
        part = sk.solve(sde, x[rows], GRID, stepper, noise=seeded(sde), paths=paths, save="all").xs
        assert torch.equal(part, whole[:, rows])


@pytest.mark.parametrize("event", [(1,), (2, 3), (1, 4, 4), (3, 3)], ids=str)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_event_shapes(stepper: str, event: tuple[int, ...], randn: Randn) -> None:
    """An image is solved as the flat vector is: bitwise, elements of the noise numbered in order."""
    d = math.prod(event)
    mean, variance = torch.linspace(-1, 1, d).double(), torch.linspace(0.5, 2, d).double()
    image = reverse(stepper, sk.Gaussian(mean.reshape(event), variance.reshape(event)))
    flat = reverse(stepper, sk.Gaussian(mean, variance))
    x = randn(5, *event)
    a = sk.solve(image, x, GRID, stepper, noise=seeded(image)).check().final
    b = sk.solve(flat, x.flatten(1), GRID, stepper, noise=seeded(flat)).check().final
    assert a.shape == x.shape
    assert torch.equal(a.flatten(1), b)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_float32_stays_float32(stepper: str, device: torch.device) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    for kind in ("gaussian", "correlated"):
        sde = reverse(stepper, LAWS[kind]())
        grid = sk.grids.log_snr(sk.VP(), 10)
        wide = sk.solve(sde, x, grid, stepper, noise=seeded(sde), end="denoise")
        narrow = sk.solve(sde, x.float(), grid, stepper, noise=seeded(sde), end="denoise")
        assert narrow.final.dtype == narrow.xs.dtype == torch.float32
        assert narrow.ts.dtype == torch.float64
        # Four nodes, extrapolated over steps that grow by e, magnify rounding.
        near = 3e-5 if STEPPERS[stepper].spec.min_steps < 4 else 1e-3
        torch.testing.assert_close(narrow.final.double(), wide.final, rtol=near, atol=near)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_every_process(stepper: str, name: str) -> None:
    """One sample per process: solved to the end, without NaN, also where steps are tiny."""
    process = PROCESSES[name]()
    sde = reverse(stepper, LAWS["gaussian"](), process)
    x = process.prior((3,)).sample(4, seed=2)
    grid = sk.grids.log_snr(process, 12)
    tiny = torch.cat([grid[:5], grid[4:5] * (1 - 1e-13), grid[5:]])
    a, b = (sk.solve(sde, x, times, stepper, noise=seeded(sde)).check().final for times in (grid, tiny))
    assert float(a.abs().max()) < 1e4
    # The second state of reversible Heun is past its limit of stability on these grids, and shows every difference.
    if seeded(sde) is None and stepper != "reversible-heun":
        looks_back = STEPPERS[stepper].spec.min_steps > 1 or stepper in ("dpmpp-2m", "unipc-1", "v-abm-1")
        near = 0.3 if looks_back else 1e-8  # a multistep method sees another history, but no slope over the tiny step
        torch.testing.assert_close(a, b, rtol=near, atol=near)


# Single steps as printed


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_the_papers(name: str, eta: float) -> None:
    """Song, Meng and Ermon (2021), (12) and (16), rescaled from α² + σ² = 1 to any schedule."""
    process, law = PROCESSES[name](), LAWS["gaussian"]()
    schedule = process.schedule
    assert schedule is not None
    rev = sk.reverse_time(process, sk.exact_score(law, process), eta)
    grid = sk.grids.log_snr(process, 5)
    x, z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for s, t in pairwise(grid.tolist()):
        state = process.shift(s) + schedule.sigma(s) * x
        noise = -schedule.sigma(s) * rev.score(s, state)
        clean = (state - process.shift(s) - schedule.sigma(s) * noise) / schedule.alpha(s)
        # (16) as printed: η² σ_t²/σ_s² (1 − α_s²/α_t²) with α² + σ² = 1, that is η² σ_t² (1 − (SNR_s/SNR_t)).
        snr = [(schedule.alpha(u) / schedule.sigma(u)) ** 2 for u in (s, t)]
        fresh = eta * schedule.sigma(t) * math.sqrt(1 - snr[0] / snr[1])
        direction = math.sqrt(schedule.sigma(t) ** 2 - fresh**2)
        expected = process.shift(t) + schedule.alpha(t) * clean + direction * noise + fresh * z
        path = sk.RecordedBrownian([s, t], z[None] * abs(t - s) ** 0.5)
        got = sk.solve(rev, state, [s, t], "ddim", noise=path).final
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * float(state.abs().max()))


def test_dpmpp_2m_is_the_papers(name: str) -> None:
    """Lu et al. (2022), Algorithm 2, on an uneven grid: the first step is first order, then r = h_prev/h."""
    process, law = PROCESSES[name](), LAWS["mixture"]()
    schedule = process.schedule
    assert schedule is not None
    score = sk.exact_score(law, process)
    flow = sk.probability_flow(process, score)
    lams = torch.tensor([-1.3, -1.0, -0.2, 0.0, 0.7], dtype=torch.float64)
    grid = schedule.time_at(lams)
    y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = schedule.sigma(float(grid[0])) * y
    start, before = process.shift(float(grid[0])) + y, None
    for k in range(4):
        s, t = float(grid[k]), float(grid[k + 1])
        h = float(lams[k + 1] - lams[k])
        clean = (y + schedule.sigma(s) ** 2 * score(s, y + process.shift(s))) / schedule.alpha(s)
        used = clean
        if before is not None:
            r = float(lams[k] - lams[k - 1]) / h
            used = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * before
        y = schedule.sigma(t) / schedule.sigma(s) * y - schedule.alpha(t) * math.expm1(-h) * used
        before = clean
    got = sk.solve(flow, start, grid, "dpmpp-2m").final
    torch.testing.assert_close(got, y + process.shift(float(grid[-1])), rtol=1e-10, atol=1e-10)


def test_networks_in_any_prediction_give_the_same_run(name: str) -> None:
    """Planned methods ask for D: what a network predicts natively changes nothing but rounding."""
    process, law = PROCESSES[name](), LAWS["mixture"]()
    exact = sk.exact_score(law, process)
    grid = sk.grids.log_snr(process, 6, t_min=0.1 * process.t_max, t_max=0.7 * process.t_max)
    x = process.marginal(law, float(grid[0])).sample(4, seed=3)
    expected = sk.solve(sk.probability_flow(process, exact), x, grid, "dpmpp-2m").final
    for prediction in ("score", "epsilon", "sample", "v_prediction", "flow_prediction"):

        def net(x: Tensor, t: Tensor, prediction: sk.typing.Prediction = prediction) -> Tensor:
            u = float(t[0])
            return sk.score.convert(exact(u, x), u, x, process, "score", prediction)

        flow = sk.probability_flow(process, sk.score.from_model(net, process, prediction))
        torch.testing.assert_close(sk.solve(flow, x, grid, "dpmpp-2m").final, expected, rtol=1e-9, atol=1e-9)


# The exact kernel


def kernel_of(rev: Reverse, times: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix, shift and covariance of what exact-linear does over ``times``, read off unit vectors."""
    steps, zero, unit = len(times) - 1, torch.zeros(3, 3).double(), torch.eye(3).double()
    gaps = torch.tensor(times, dtype=torch.float64).diff().abs().sqrt()

    def response(x: Tensor, z: Tensor) -> Tensor:
        path = sk.RecordedBrownian(times, z * gaps[:, None, None]) if rev.eta else None
        return sk.solve(rev, x, times, "exact-linear", noise=path).final

    silence = torch.zeros(steps, 3, 3).double()
    shift = response(zero, silence)[0]
    matrix = (response(unit, silence) - shift).T
    covariance = zero.clone()
    for k in range(steps if rev.eta else 0):
        z = silence.clone()
        z[k] = unit
        root = (response(zero, z) - shift).T
        covariance += root @ root.T
    return matrix, shift, covariance


def assert_carries(rev: Reverse, law: sk.Gaussian, times: list[float]) -> None:
    """The kernel takes the marginal at the first time to the marginal at the last, and composes."""
    process: Any = rev.process
    matrix, shift, covariance = kernel_of(rev, times)
    start, end = process.marginal(law, times[0]), process.marginal(law, times[-1])
    scale = float(end.covariance.abs().max()) + 1.0
    torch.testing.assert_close(matrix @ start.mean + shift, end.mean, rtol=1e-9, atol=1e-9)
    arrived = matrix @ start.covariance @ matrix.T + covariance
    torch.testing.assert_close(arrived, end.covariance, rtol=1e-9, atol=1e-9 * scale)
    for one, two in zip(kernel_of(rev, [times[0], times[-1]]), (matrix, shift, covariance), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["gaussian", "correlated"])
def test_exact_linear_keeps_the_marginals_and_composes(name: str, kind: str, eta: float) -> None:
    process, law = PROCESSES[name](), LAWS[kind]()
    assert isinstance(law, sk.Gaussian)
    rev = sk.reverse_time(process, sk.exact_score(law, process), eta)
    s, u, t = (process.t_min + f * (process.t_max - process.t_min) for f in (0.9, 0.4, 0.05))
    assert_carries(rev, law, [s, u, t])
    if eta == 1.0:  # Bayes: Cov(X_t, X_s) = Cov(X_t) Mᵀ, so the gain is Cov(X_t, X_s) Cov(X_s)⁻¹
        onward = process.transition(t, s).matrix
        gain = onward * process.marginal(law, t).covariance @ torch.linalg.inv(process.marginal(law, s).covariance)
        torch.testing.assert_close(kernel_of(rev, [s, t])[0], gain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", [1.3, 0.01, 1e-4, 1e-9])
@pytest.mark.parametrize("sigma", [MEAN.abs() + 0.2, torch.eye(3)[:, :2]], ids=["vector", "two noises"])
@pytest.mark.parametrize("theta", [TURNING, MEAN.abs()], ids=["matrix", "vector"])
def test_exact_linear_backwards_without_a_schedule(theta: Tensor, sigma: Tensor, step: float) -> None:
    """Regression of X_t on X_s, singular noise and tiny steps included."""
    law = LAWS["correlated"]()
    assert isinstance(law, sk.Gaussian)
    process = sk.OU(theta, MEAN, sigma)
    rev = sk.reverse_time(process, sk.exact_score(law, process))
    assert_carries(rev, law, [1.5, 1.5 - 0.4 * step, 1.5 - step])


def test_exact_linear_on_the_flow_is_where_small_steps_go() -> None:
    process, law = sk.OU(theta=1.3, mu=0.7, sigma=0.9), LAWS["correlated"]()
    flow = sk.probability_flow(process, sk.exact_score(law, process))
    x = process.marginal(law, 1.0).sample(5)
    fine = sk.solve(flow, x, torch.linspace(1.0, 0.05, 201, dtype=torch.float64), "rk4").final
    torch.testing.assert_close(sk.solve(flow, x, [1.0, 0.05], "exact-linear").final, fine, rtol=1e-8, atol=1e-8)


def test_exact_linear_forwards_is_the_transition(name: str) -> None:
    process = PROCESSES[name]()
    s, t = process.t_min, 0.6 * process.t_max
    x, z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = sk.RecordedBrownian([s, t], z[None] * (t - s) ** 0.5)
    got = sk.solve(process, x, [s, t], "exact-linear", noise=path).final
    torch.testing.assert_close(got, process.transition(s, t).sample(x, z))


# Order conditions

Tree = tuple["Tree", ...]


def grown(tree: Tree) -> Iterator[Tree]:
    """``tree`` with one more leaf, at each of its nodes in turn."""
    yield tuple(sorted((*tree, ())))
    for i, child in enumerate(tree):
        for larger in grown(child):
            yield tuple(sorted((*tree[:i], larger, *tree[i + 1 :])))


def trees(order: int) -> set[Tree]:
    """All rooted trees with so many nodes: 1, 1, 2, 4, 9, 20, …"""
    return {()} if order == 1 else {larger for tree in trees(order - 1) for larger in grown(tree)}


def nodes(tree: Tree) -> int:
    return 1 + sum(map(nodes, tree))


def density(tree: Tree) -> int:
    return nodes(tree) * math.prod(map(density, tree))


def stages(tableau: Tableau, tree: Tree) -> list[Fraction]:
    """The elementary weight of a tree at every stage (Hairer, Nørsett and Wanner, §II.2)."""
    out = [Fraction(1)] * len(tableau.b)
    for child in tree:
        inner = stages(tableau, child)
        out = [
            w * sum((a * u for a, u in zip(row, inner, strict=False)), Fraction(0))
            for w, row in zip(out, tableau.a, strict=True)
        ]
    return out


def defect(tableau: Tableau, tree: Tree) -> Fraction:
    weights = zip(tableau.b, stages(tableau, tree), strict=True)
    return sum((b * w for b, w in weights), Fraction(0)) - Fraction(1, density(tree))


DECIMALS = {"tsit5": 2e-14, "dopri8": 2e-14}  # printed with sixteen digits, or rounded to them
RUNGE_KUTTA = [name for name, stepper in STEPPERS.items() if issubclass(stepper, ExplicitRungeKutta)]


def test_rooted_trees() -> None:
    assert [len(trees(p)) for p in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    assert sum(Fraction(1, density(tree)) for tree in trees(3)) == Fraction(1, 2)


@pytest.mark.parametrize("stepper", RUNGE_KUTTA)
def test_order_conditions_in_exact_fractions(stepper: str) -> None:
    """Every condition up to the declared order holds, and one of the next order does not."""
    method = STEPPERS[stepper]
    assert issubclass(method, ExplicitRungeKutta)
    order, rounding = int(method.spec.ode or 0), DECIMALS.get(stepper, 0.0)
    for p in range(1, order + 1):
        for tree in trees(p):
            assert abs(defect(method.tableau, tree)) <= rounding, (p, tree)
    assert any(abs(defect(method.tableau, tree)) > 1e-6 for tree in trees(order + 1))


@pytest.mark.parametrize("stepper", RUNGE_KUTTA)
def test_tableaus_are_explicit(stepper: str) -> None:
    method = STEPPERS[stepper]
    assert issubclass(method, ExplicitRungeKutta)
    assert [len(row) for row in method.tableau.a] == list(range(len(method.tableau.b)))
    assert method.spec.evaluations == len(method.tableau.b)
    assert all(0 <= c <= 1 for c in method.tableau.c)


@pytest.mark.parametrize("stepper", RUNGE_KUTTA)
def test_one_step_is_the_tableau(stepper: str) -> None:
    """On x′ = λx + t a step multiplies and adds polynomials in h, computed here in fractions."""
    method = STEPPERS[stepper]
    assert issubclass(method, ExplicitRungeKutta)
    rate, t0, h, x0 = Fraction(-3, 4), Fraction(1, 8), Fraction(1, 2), Fraction(5, 4)
    slopes: list[Fraction] = []
    for row, c in zip(method.tableau.a, method.tableau.c, strict=True):
        stage = x0 + h * sum((a * k for a, k in zip(row, slopes, strict=True)), Fraction(0))
        slopes.append(rate * stage + t0 + c * h)
    expected = x0 + h * sum((b * k for b, k in zip(method.tableau.b, slopes, strict=True)), Fraction(0))
    x = torch.full((1, 1), float(x0), dtype=torch.float64)
    got = sk.solve(sk.sde(lambda t, x: -0.75 * x + t), x, [0.125, 0.625], stepper).final
    assert float(got) == pytest.approx(float(expected), rel=1e-15)
