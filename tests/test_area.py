r"""Lévy areas: the moments that W and H leave, Chen's relation, the exact law above, and whose they are.

That the moments of a formula show the slips of :mod:`mutants.areas` is for the zoo; here they are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from mutants.areas import LENGTH, MUTANTS, PAIRS, Areas, H, bilinear, moments
from mutants.paths import SymmetricMilstein
from torch import Tensor

import sdekit as sk
from sdekit import random
from sdekit.brownian import Increment, PathNoise, StepNoise, area, levy_for
from sdekit.errors import SdekitError


def test_w_and_h_leave_what_a_fine_path_leaves() -> None:
    """The error of n increments is a series in 1/n; what is drawn is the limit."""
    (mean, covariance), limit = moments(area.areas_given), bilinear(400)
    torch.testing.assert_close(mean, limit[0], rtol=1e-4, atol=0)
    half, quarter = bilinear(200)[1], bilinear(100)[1]
    assert 1.9 < float((covariance - half).norm() / (covariance - limit[1]).norm()) < 2.1
    extrapolated = (8.0 * limit[1] - 6.0 * half + quarter) / 3.0
    torch.testing.assert_close(extrapolated, covariance, rtol=0, atol=1e-6)
    variances = LENGTH**2 / 20 + LENGTH / 5 * torch.stack([H[i] ** 2 + H[j] ** 2 for i, j in PAIRS])
    torch.testing.assert_close(covariance.diagonal(), variances, rtol=1e-14, atol=0)
    torch.testing.assert_close(covariance[0, 1], LENGTH / 5 * H[1] * H[2], rtol=1e-14, atol=0)


SLIPS = [mutant.wrong for mutant in MUTANTS]

# --- Chen's relation ----------------------------------------------------------------------------------


def pieces(n: int, m: int = 3, batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Increments, space-time areas and areas of n intervals, any numbers."""
    g = torch.Generator().manual_seed(seed)
    w, h = (torch.randn(n, batch, m, generator=g, dtype=torch.float64) for _ in range(2))
    a = torch.randn(n, batch, m, m, generator=g, dtype=torch.float64)
    return w, h, a - a.mT


def double_sum(w: Tensor, a: Tensor) -> Tensor:
    """By the definition, over the pairs of intervals."""
    out = a.sum(0)
    for i in range(len(w)):
        for j in range(i):
            product = w[j][:, :, None] * w[i][:, None, :]
            out = out + 0.5 * (product - product.mT)
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 101])
def test_areas_combine_by_chens_relation(n: int) -> None:
    """To rounding, over any number of intervals, and of parts."""
    w, h, a = pieces(n)
    times = torch.arange(n + 1, dtype=torch.float64).sqrt().tolist()
    path = sk.RecordedBrownian(times, w, h, a)
    whole = path.increment(times[0], times[-1])
    torch.testing.assert_close(whole.area, double_sum(w, a), rtol=0, atol=1e-13 * n)
    assert torch.equal(whole.area, -whole.area.mT)
    for k in range(1, n, 9):
        first, second = path.increment(times[0], times[k]), path.increment(times[k], times[-1])
        joined = first.area + second.area + 0.5 * area.wedge(first.w, second.w)
        torch.testing.assert_close(joined, whole.area, rtol=0, atol=1e-13 * n)


PLANES = area._wedge
CHEN_SLIPS = {
    "transposed": lambda a, b: PLANES(b, a),
    "without a half": lambda a, b: 2.0 * PLANES(a, b),
    "forgotten": lambda a, b: 0.0 * PLANES(a, b),
    "symmetric": lambda a, b: PLANES(a, b) + 2.0 * a[PAIR_J] * b[PAIR_I],
}
PAIR_I, PAIR_J = ([pair[k] for pair in PAIRS] for k in (0, 1))


@pytest.mark.parametrize("slip", CHEN_SLIPS)
def test_slips_in_chens_relation_are_seen(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w, _, a = pieces(7)
    right = double_sum(w, a)
    assert float((area.chen(w, a) - right).abs().max()) < 1e-12
    monkeypatch.setattr(area, "_wedge", CHEN_SLIPS[slip])
    assert float((area.chen(w, a) - right).abs().max()) > 0.1


def test_a_path_that_is_run_backwards_shows_minus_the_area() -> None:
    """The same pieces, each turned, in the other order, are the path from its end to its start."""
    w, h, a = pieces(9)
    there = sk.RecordedBrownian(range(10), w, h, a)
    back = sk.RecordedBrownian(range(10), w.flip(0), -h.flip(0), -a.flip(0))
    (seen,) = PathNoise(there, torch.float64, [[(7.0, 2.0)]]).increments(0)
    mirrored = back.increment(2.0, 7.0)
    for part in ("w", "h", "area"):
        torch.testing.assert_close(getattr(seen, part), getattr(mirrored, part), rtol=0, atol=1e-13)
    wrong = replace(seen, areas=-seen.area)  # the fault: an area that keeps its sign
    assert float((wrong.area - mirrored.area).abs().max()) > 1.0
    assert torch.equal(seen.reflected().area, there.increment(2.0, 7.0).area)


# --- the law of what is drawn -------------------------------------------------------------------------


def grid_pieces(n: int) -> list[Increment]:
    """Two intervals of length 1/2 of a path of n samples, three noises; seed 5."""
    path = sk.BrownianGrid((n, 3), 0.0, 1.0, 2, seed=5, levy="full")
    return [path.increment(0.0, 0.5), path.increment(0.5, 1.0)]


def step_pieces(n: int) -> list[Increment]:
    """The same as steps of noise=seed."""
    noise = StepNoise(random.path_keys(5, n), (3,), torch.float64, [[(0.0, 0.5)], [(0.5, 1.0)]], "full")
    return [noise.increments(k)[0] for k in range(2)]


def scores(drawn: list[Increment]) -> Tensor:
    """Standard scores of what is true of (W, H, A), in units of the length of an interval."""
    trials = []
    for piece in drawn:
        w, h, a = piece.w * 2.0**0.5, piece.h * 2.0**0.5, piece.area * 2.0
        rest = a - (h[:, :, None] * w[:, None, :] - w[:, :, None] * h[:, None, :])
        trials += [
            12.0 * h.square().sum(1) - 3.0,
            w[:, 0] * h[:, 0],
            w[:, 0] * h[:, 1],
            a[:, 1, 2] * h[:, 1] * w[:, 2] - 1 / 12,
        ]
        for i, j in PAIRS:
            left = rest[:, i, j].square() - 1 / 20 - (h[:, i].square() + h[:, j].square()) / 5
            trials += [
                a[:, i, j],
                a[:, i, j].square() - 1 / 4,
                rest[:, i, j],
                left,
                left * h[:, i].square(),
                rest[:, i, j] * w[:, i],
            ]
        for (i, j), (k, l), sign in (((0, 1), (0, 2), 1), ((0, 1), (1, 2), -1), ((0, 2), (1, 2), 1)):
            (common,) = {i, j} & {k, l}
            one, other = ({i, j} - {common}).pop(), ({k, l} - {common}).pop()
            both = rest[:, i, j] * rest[:, k, l] - sign * h[:, one] * h[:, other] / 5
            trials += [both, both * h[:, one] * h[:, other], both * h[:, common].square()]
        trials += [rest[:, i, j] * rest[:, i, j].roll(1) for i, j in PAIRS]  # of neighbours in the batch
    first, second = (piece.area for piece in drawn)
    trials += [first[:, i, j] * second[:, i, j] for i, j in PAIRS]
    values = torch.stack(trials)
    return values.mean(1) / (values.std(1) / values.shape[1] ** 0.5)


@pytest.mark.statistical
@pytest.mark.parametrize("draw", [grid_pieces, step_pieces])
def test_law_of_a_fine_interval(draw: Callable[[int], list[Increment]]) -> None:
    """40 000 paths; of 73 scores none exceeds 5.6 (false alarm 1.6e-6)."""
    assert float(scores(draw(40_000)).abs().max()) < 5.6


def in_place_of(areas: Areas) -> Callable[[list[Increment]], list[Increment]]:
    """The areas of pieces drawn by another formula."""

    def drawn(pieces: list[Increment]) -> list[Increment]:
        z = [random.normals(random.path_keys(k, len(p.w)), (6,), stream=77)[0] for k, p in enumerate(pieces)]
        root = torch.full((1, 1), 0.5**0.5, dtype=torch.float64)
        return [replace(p, areas=areas(p.w, p.h, v, root)) for p, v in zip(pieces, z, strict=True)]

    return drawn


SHARED = {
    "by the batch": lambda drawn: [
        replace(p, areas=area.wedge(p.h, p.w) + (p.area - area.wedge(p.h, p.w))[:1]) for p in drawn
    ],
    "by neighbours": lambda drawn: [
        replace(p, areas=p.area.roll(1, 0) - area.wedge(p.h, p.w).roll(1, 0) + area.wedge(p.h, p.w)) for p in drawn
    ],
    "by both intervals": lambda drawn: [drawn[0], drawn[0]],
}


@pytest.mark.statistical
@pytest.mark.parametrize(
    "slip", [in_place_of(f) for f in SLIPS] + list(SHARED.values()), ids=[f.__name__ for f in SLIPS] + list(SHARED)
)
def test_slips_in_the_law_are_seen(slip: Callable[[list[Increment]], list[Increment]]) -> None:
    drawn = grid_pieces(40_000)
    assert float(scores(in_place_of(area.areas_given)(drawn)).abs().max()) < 5.6
    assert float(scores(slip(drawn)).abs().max()) > 15.0


def distance(a: Tensor, length: float) -> float:
    """√n times the largest difference from the distribution function of an area, (2/π) arctan e^{πx/h}."""
    x, n = a.sort().values, len(a)
    exact = 2.0 / math.pi * torch.atan(torch.exp(math.pi / length * x))
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum(steps[1:] - exact, exact - steps[:-1]).max()) * n**0.5


@pytest.mark.statistical
@pytest.mark.parametrize("fine", [4, 64])
def test_the_law_of_a_combined_area(fine: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kolmogorov–Smirnov, 20 000 paths, seed 6: a distance of 2.69 has probability 1e-6."""

    def combined() -> Tensor:
        return sk.BrownianGrid((20_000, 2), 0.0, 2.0, fine, seed=6, levy="full").increment(0.0, 2.0).area[:, 0, 1]

    a = combined()
    assert distance(a, 2.0) < 2.69
    normal = random.normals(random.path_keys(1, len(a)), (), stream=random.STREAM_LAW)[0]
    assert distance(normal, 2.0) > 5.0  # of the right variance, and not the right law
    if fine == 64:
        for slip in ("without a half", "forgotten"):
            right = sk.BrownianGrid((4000, 2), 0.0, 2.0, fine, seed=6, levy="full")
            w, areas = right.fine(0, fine), right.fine_area(0, fine)
            with monkeypatch.context() as patch:
                patch.setattr(area, "_wedge", CHEN_SLIPS[slip])
                assert distance(area.chen(w, areas)[:, 0, 1], 2.0) > 5.0


@pytest.mark.statistical
def test_the_fourth_moment_of_a_combined_area() -> None:
    r"""0.3075 for one interval, and from there to 5/16 with the third power of their number; seed 9, |z| < 5."""
    for fine in (1, 4):
        area = sk.BrownianGrid((100_000, 2), 0.0, 1.0, fine, seed=9, levy="full").increment(0.0, 1.0).area[:, 0, 1]
        fourth = area**4
        assert abs(float(fourth.mean()) - 0.3125 + 0.005 / fine**3) < 5.0 * float(fourth.std()) / 100_000**0.5


# --- whose areas they are -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("steps", [1, 6, 300])
def test_areas_are_the_samples_own(steps: int, dtype: torch.dtype) -> None:
    """Bitwise, in any batch and order, whatever else is asked for before; and they leave W and H as they are."""

    def at(paths: list[int], levy: str = "full") -> sk.BrownianGrid:
        shape = (len(paths), 3)
        return sk.BrownianGrid(shape, 0.0, 1.0, steps, seed=8, paths=paths, dtype=dtype, levy=levy)  # type: ignore[arg-type]

    whole = at(list(range(64)))
    last = whole.times[-2]
    wanted, end = whole.increment(0.0, 1.0), whole.increment(last, 1.0)
    for paths in ([17], [63, 5, 17], list(range(10, 41))):
        part = at(paths)
        for found, right in ((part.increment(last, 1.0), end), (part.increment(0.0, 1.0), wanted)):
            for piece in ("w", "h", "area"):
                assert torch.equal(getattr(found, piece), getattr(right, piece)[paths])
    plain = at(list(range(64)), "space-time").increment(0.0, 1.0)
    assert torch.equal(plain.w, wanted.w)
    assert torch.equal(plain.h, wanted.h)
    assert wanted.area.dtype == dtype
    assert torch.equal(wanted.area, -wanted.area.mT)


@pytest.mark.parametrize("kind", ["space-time", "full", "three-point", "two-point"])
def test_steps_draw_the_samples_own(kind: str) -> None:
    """Bitwise, in any batch, and in blocks of any length; W and H are those of the simpler kinds."""
    draws = [[(0.0, 0.5), (0.5, 0.75)]] * 1001

    def at(paths: list[int], kind: str = kind) -> StepNoise:
        return StepNoise(random.path_keys(3, paths), (3,), torch.float32, draws, kind)  # type: ignore[arg-type]

    everybody = list(range(200))
    whole, plain, areas = at(everybody), at(everybody, "w"), at(everybody, "space-time")
    for paths in ([17], [163, 0, 17]):
        part = at(paths)
        for k in (0, 7, 1000):
            for found, right in zip(part.increments(k), whole.increments(k), strict=True):
                for name in ("w", "space_time", "areas", "coins"):
                    one, other = getattr(found, name), getattr(right, name)
                    assert (one is None) == (other is None)
                    assert one is None or torch.equal(one, other[paths])
    if "point" not in kind:
        assert torch.equal(whole.increments(9)[1].w, plain.increments(9)[1].w)
        assert torch.equal(whole.increments(9)[1].h, areas.increments(9)[1].h)


@pytest.mark.statistical
def test_two_point_variables() -> None:
    """Seed 3: ±√h, each with probability ½, independent of the three-point ones; |z| < 5, false alarm 6e-7 each."""
    keys, n = random.path_keys(3, 60_000), 120_000
    (both,) = StepNoise(keys, (2,), torch.float64, [[(0.0, 0.25)]], "two-point").increments(0)
    (three,) = StepNoise(keys, (2,), torch.float64, [[(0.0, 0.25)]], "three-point").increments(0)
    assert torch.equal(both.w, three.w)
    coins = both.two_point / 0.5
    assert torch.equal(coins.abs(), torch.ones_like(coins))
    for product in (coins, coins * both.w / 0.5, coins * (both.w.square() / 0.25 - 1.0)):
        assert abs(float(product.mean())) * n**0.5 < 5.0 * float(product.std())
    assert abs(float((coins[:, 0] * coins[:, 1]).mean())) * (n / 2) ** 0.5 < 5.0


# --- what they are for --------------------------------------------------------------------------------


class FullMilstein(SymmetricMilstein):
    """Σ_ij Dg_j g_i I_(i,j) with I_(i,j) = ½ (W_i W_j − δ_ij h) + A_ij."""

    spec = replace(
        SymmetricMilstein.spec, name="milstein-full", increments="full", strong={"commutative": 1.0, "general": 1.0}
    )
    sign = 1.0

    def step(self, sde, t0, t1, x, increment, memory):
        self_area = self.sign * increment.area
        drawn = Increment(increment.w, self_area)  # handed to integrals() in the place of H
        return super().step(sde, t0, t1, x, drawn, memory)

    def integrals(self, w, levy, h):
        return super().integrals(w, None, h) + levy


class TurnedMilstein(FullMilstein):
    """I_(j,i) for I_(i,j)."""

    sign = -1.0


def test_areas_solve_the_heisenberg_problem_on_any_grid() -> None:
    """To rounding on a path that knows them; the area of the other sign misses by √(T h) or so."""
    problem = sk.problems.get("heisenberg")
    x = problem.initial.sample(100, seed=1)
    path = sk.BrownianGrid.on(problem.grid(24), (100, 2), seed=2, levy="full")
    truth = problem.path(x, path)
    whole = path.increment(0.0, 1.0)
    both = 0.5 * whole.w[:, 0] * whole.w[:, 1] + whole.area[:, 0, 1]
    torch.testing.assert_close(truth[:, 1], both, rtol=0, atol=1e-13)  # X_2 = I_(1,2)
    assert problem.left(path) == 0.0
    for steps in (1, 8, 24):
        reached, turned = (
            sk.solve(problem.sde, x, problem.grid(steps), m(), noise=path).final for m in (FullMilstein, TurnedMilstein)
        )
        torch.testing.assert_close(reached, truth, rtol=0, atol=1e-13)
        assert float((turned - truth).square().mean().sqrt()) > 0.5 / steps**0.5


@pytest.mark.statistical
def test_strong_order_one_takes_areas() -> None:
    """On noises that do not commute, by the distance that halving the steps moves the state; seed 0."""
    problem = sk.problems.get("noncommuting")
    steps = (4, 8, 16, 32)
    methods = (FullMilstein(), TurnedMilstein())
    right, wrong = (sk.verify.order(problem, method, "strong", steps, samples=4000) for method in methods)
    assert right.order == pytest.approx(1.0, abs=0.15)
    assert wrong.order < 0.75


@pytest.mark.certify
@pytest.mark.statistical
@pytest.mark.parametrize(("method", "order"), [(FullMilstein(), 1.0), (TurnedMilstein(), 0.5)])
def test_the_order_by_the_sign_of_the_area(method, order) -> None:
    """On more paths and shorter steps; seed 0, four uncertainties (false alarm 6e-5)."""
    problem = sk.problems.get("noncommuting")
    found = sk.verify.order(problem, method, "strong", (8, 16, 32, 64, 128), samples=16_384)
    assert found.uncertainty < 0.05
    assert abs(found.order - order) < 4 * found.uncertainty, found


# --- bad input ----------------------------------------------------------------------------------------


def test_what_was_not_drawn_says_how_to_have_it() -> None:
    plain = Increment(torch.zeros(2, 3))
    for part, cure in (
        ("h", 'levy="space-time"'),
        ("area", 'levy="full"'),
        ("two_point", 'Spec\\(increments="two-point"\\)'),
    ):
        with pytest.raises(SdekitError, match=cure):
            getattr(plain, part)
    path = sk.BrownianGrid((2, 3), steps=4, levy="space-time")
    with pytest.raises(SdekitError, match='levy="full"'):
        path.fine_area(0, 1)
    with pytest.raises(SdekitError, match='levy="full"'):
        _ = path.increment(0.0, 0.5).area
    problem = sk.problems.get("heisenberg")
    x, grid = problem.initial.sample(4, seed=0), problem.grid(4)
    with pytest.raises(SdekitError, match='levy="full"'):
        sk.solve(problem.sde, x, grid, FullMilstein(), noise=sk.BrownianGrid.on(grid, (4, 2), levy="space-time"))
    assert sk.verify.linear_errors(problem, FullMilstein(), 4).strong is None  # it takes coupled paths


def test_bad_areas_are_refused() -> None:
    w, h, a = pieces(2)
    with pytest.raises(SdekitError, match=r"shape \(m,\)"):
        sk.BrownianGrid((4, 2, 2), levy="full")
    with pytest.raises(SdekitError, match=r"shape \(m,\)"):
        StepNoise(random.path_keys(0, 4), (2, 2), torch.float64, [[(0.0, 1.0)]], "full")
    with pytest.raises(SdekitError, match="beside them"):
        sk.RecordedBrownian(range(3), w, None, a)
    with pytest.raises(SdekitError, match=r"have shape \(2, 4, 3, 3\)"):
        sk.RecordedBrownian(range(3), w, h, a[:, :, :2])
    with pytest.raises(SdekitError, match="antisymmetric"):
        sk.RecordedBrownian(range(3), w, h, a + 1.0)
    with pytest.raises(SdekitError, match="clock"):
        sk.BrownianGrid((4, 2), levy="full", clock=torch.exp)


def test_areas_are_those_of_the_specification() -> None:
    """Written again from the page on noise, element by element."""
    path = sk.BrownianGrid((5, 3), 0.0, 1.5, 4, seed=21, levy="full")
    z = random.normals(path.keys, (6,), stream=random.STREAM_GRID_AREA, start=2)[0]
    drawn, length = path.increment(0.75, 1.125), 0.375
    rest = iter(z[:, 3:].unbind(1))
    for i, j in PAIRS:
        bent_i, bent_j = (drawn.w[:, k] + (length / 5) ** 0.5 * z[:, k] for k in (i, j))
        wanted = drawn.h[:, i] * bent_j - drawn.h[:, j] * bent_i + length / 20**0.5 * next(rest)
        torch.testing.assert_close(drawn.area[:, i, j], wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("part", ["w", "space_time", "areas"])
def test_one_noise_for_the_whole_batch_is_refused(part: str) -> None:
    """Broadcast, it would drive every sample alike: trap of (1, d) for (B, d), in any part of an increment."""
    problem = sk.problems.get("heisenberg")
    x, grid = problem.initial.sample(4, seed=0), problem.grid(4)
    path = sk.BrownianGrid.on(grid, (4, 2), levy="full")

    class Shared:
        shape = path.shape

        def increment(self, s: float, t: float) -> Increment:
            drawn = path.increment(s, t)
            return replace(drawn, **{part: getattr(drawn, part)[:1]})

    assert sk.solve(problem.sde, x, grid, FullMilstein(), noise=path).final.shape == (4, 2)
    with pytest.raises(SdekitError, match=r"of shape \(1, 2(, 2)?\) on cpu; the state needs \(4, 2"):
        sk.solve(problem.sde, x, grid, FullMilstein(), noise=Shared())


@pytest.mark.parametrize("levy", ["none", "space-time", "full"])
def test_an_interval_of_length_zero_has_no_area(levy: str) -> None:
    noise = sk.BrownianGrid((4, 2), steps=4, levy=levy)  # type: ignore[arg-type]
    zero = noise.increment(0.5, 0.5)
    for name, shape in (("w", (4, 2)), ("space_time", (4, 2)), ("areas", (4, 2, 2))):
        part = getattr(zero, name)
        assert part is None or (part.shape == shape and not part.any())


def test_the_richest_of_what_is_asked() -> None:
    assert levy_for("w") == levy_for("three-point") == "none"
    assert levy_for("w", "space-time") == levy_for("space-time") == "space-time"
    assert levy_for("full", "space-time") == "full"
    assert levy_for("space-time", "full") == "full"
