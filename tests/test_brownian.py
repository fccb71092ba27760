"""Brownian paths: they coarsen exactly, belong to their samples, and have the law of Brownian motion."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import sdekit as sk
from sdekit import random
from sdekit.brownian import BrownianGrid, PathNoise, RecordedBrownian, StepNoise
from sdekit.brownian.steps import _BLOCK_NORMALS
from sdekit.errors import SdekitError


def path(batch: int = 5, steps: int = 64, **options: object) -> sk.BrownianGrid:
    return sk.BrownianGrid((batch, 3), 0.5, 2.0, steps, seed=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_grid_path_coarsens_exactly(dtype: torch.dtype, device: torch.device) -> None:
    """An increment is the sum of its parts, to rounding; halves of a dyadic interval add up to the last bit."""
    fine = path(dtype=dtype, device=device)
    times = fine.times
    whole = fine.increment(times[0], times[-1]).w
    for parts in (2, 8, 64):
        edges = times[:: 64 // parts]
        pieces = [fine.increment(s, t).w for s, t in pairwise(edges)]
        torch.testing.assert_close(sum(pieces), whole, rtol=0, atol=16 * torch.finfo(dtype).eps)
    middle = times[32]
    halves = fine.increment(times[0], middle).w + fine.increment(middle, times[-1]).w
    assert whole.dtype == dtype
    assert whole.device.type == device.type
    torch.testing.assert_close(halves, whole, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_the_same_path_on_any_coarser_clock() -> None:
    fine = path()
    every = sk.BrownianGrid.on(torch.tensor(fine.times), (5, 3), seed=4)
    back = sk.BrownianGrid.on(torch.tensor(fine.times).flip(0), (5, 3), seed=4)
    for s, t in ((fine.times[3], fine.times[4]), (fine.times[3], fine.times[40])):
        assert torch.equal(fine.increment(s, t).w, every.increment(s, t).w)
        assert torch.equal(fine.increment(s, t).w, back.increment(s, t).w)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("event", [(1,), (3,), (2, 4)], ids=str)
@pytest.mark.parametrize("steps", [5, 64, 300])
def test_a_path_is_its_own_in_every_batch(steps: int, event: tuple[int, ...], dtype: torch.dtype) -> None:
    """Bitwise, sums over many fine steps included (torch.sum would choose its order by the batch)."""

    def at(paths: list[int]) -> torch.Tensor:
        shape = (len(paths), *event)
        return sk.BrownianGrid(shape, 0.0, 1.0, steps, seed=8, paths=paths, dtype=dtype).increment(0.0, 1.0).w

    whole = at(list(range(64)))
    assert torch.equal(whole, sk.BrownianGrid((64, *event), 0.0, 1.0, steps, seed=8, dtype=dtype).increment(0, 1).w)
    for paths in ([17], [63, 5, 17], list(range(10, 41))):
        assert torch.equal(at(paths), whole[paths])


@pytest.mark.statistical
def test_law_of_a_grid_path() -> None:
    """Variance t − s on an uneven grid, independent increments: |z| < 5, rate 6e-7 for each of 11."""
    times = [0.0, 0.1, 0.15, 0.7, 2.0, 2.3]
    n = 20_000
    noise = sk.BrownianGrid.on(times, (n, 1), seed=1)
    w = torch.cat([noise.increment(s, t).w for s, t in pairwise(times)], 1)
    z = w / torch.tensor(times, dtype=torch.float64).diff().sqrt()
    assert bool((z.mean(0).abs() * math.sqrt(n) < 5).all())
    assert bool(((z.square().mean(0) - 1).abs() * math.sqrt(n / 2) < 5).all())
    correlations = (z.T @ z / n - torch.eye(5)).fill_diagonal_(0)
    assert float(correlations.abs().max()) * math.sqrt(n) < 5.3  # ten of them: rate 1e-6


def test_an_interval_of_length_zero() -> None:
    noise = path()
    zero = noise.increment(noise.times[3], noise.times[3]).w
    assert zero.shape == (5, 3)
    assert not zero.any()


def test_nodes_are_found_to_rounding() -> None:
    noise = sk.BrownianGrid((2, 1), 0.0, 1.0, 10)
    assert torch.equal(noise.increment(0.1, 0.1 + 0.2).w, noise.increment(0.1, 0.3).w)


def test_recorded_path() -> None:
    w = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    up = sk.RecordedBrownian([0.0, 0.2, 0.5, 0.6, 1.0], w)
    down = sk.RecordedBrownian([1.0, 0.6, 0.5, 0.2, 0.0], w.flip(0))
    assert up.shape == down.shape == (2, 3)
    for recorded in (up, down):
        assert torch.equal(recorded.increment(0.2, 0.5).w, w[1])
        torch.testing.assert_close(recorded.increment(0.2, 1.0).w, w[1] + w[2] + w[3])


def test_recorded_increments_belong_to_the_order_of_their_times() -> None:
    """For decreasing times, w[0] is the increment over the first interval met on the way down."""
    w = torch.arange(3.0).reshape(3, 1, 1)
    down = sk.RecordedBrownian([3.0, 2.0, 1.0, 0.0], w)
    assert [float(down.increment(t, t + 1.0).w) for t in (2.0, 1.0, 0.0)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("batch", [1, 3, 1000, _BLOCK_NORMALS + 5])
def test_step_noise_does_not_depend_on_its_blocks(batch: int) -> None:
    """Whatever the block, step k draws the normals of address k; steps may come in any order."""
    keys = random.path_keys(3, batch)
    draws = [[(0.0, 1.0 + k), (0.2, 0.2 + 0.25 / (1 + k))] for k in range(70_000 if batch == 1 else 1002)]
    noise = StepNoise(keys, (2,), torch.float64, draws)
    for k in (0, 1, 2, 63, 64, len(draws) - 1, 5, 0):
        for draw, increment in enumerate(noise.increments(k)):
            z = random.normals(keys, (2,), stream=random.STREAM_STEP + draw, start=k)[0]
            s, t = draws[k][draw]
            torch.testing.assert_close(increment.w, z * math.sqrt(t - s), rtol=1e-15, atol=0)


def test_step_noise_is_the_samples_own() -> None:
    draws = [[(1.0, 0.3)]] * 201
    whole = StepNoise(random.path_keys(3, 64), (3,), torch.float32, draws)
    for paths in ([17], [63, 0, 17]):
        part = StepNoise(random.path_keys(3, paths), (3,), torch.float32, draws)
        for k in (0, 7, 200):
            assert torch.equal(part.increments(k)[0].w, whole.increments(k)[0].w[paths])


@pytest.mark.statistical
def test_step_noise_and_a_grid_path_of_one_seed_are_independent() -> None:
    """Else a run with noise=seed would see the path of BrownianGrid(seed) again: |z| < 5, rate 6e-7."""
    fine = sk.BrownianGrid((100, 20), 0.0, 50.0, 50, seed=6)
    steps = [[(k, k + 1.0)] for k in range(50)]
    noise = StepNoise(random.path_keys(6, 100), (20,), torch.float64, steps)
    products = [(noise.increments(k)[0].w * fine.increment(k, k + 1).w).sum() for k in range(50)]
    assert abs(float(sum(products))) / math.sqrt(100 * 20 * 50) < 5


@pytest.mark.statistical
def test_variance_of_step_noise() -> None:
    """20,000 draws over an interval of 0.25, either way round; |z| < 5, rate 6e-7 each."""
    for interval in ((0.5, 0.75), (0.75, 0.5)):
        w = StepNoise(random.path_keys(0, 20_000), (1,), torch.float64, [[interval]]).increments(0)[0].w
        assert abs(float(w.square().mean()) / 0.25 - 1) * math.sqrt(20_000 / 2) < 5


def test_path_noise_takes_the_type_of_the_state() -> None:
    noise = PathNoise(path(), torch.float32, [[(2.0, 0.5)]])
    (increment,) = noise.increments(0)
    assert increment.w.dtype == torch.float32
    assert torch.equal(increment.w, path().increment(0.5, 2.0).w.float())


# --- space-time Lévy areas and three-point variables --------------------------------------------------


def seen(times, z0, z1):
    """∫ over a fine grid: W and H of [0, 1] from orthonormal coefficients on its intervals, by their definition."""
    t = torch.as_tensor(times, dtype=torch.float64)
    h = t.diff()
    w = z0 * h.sqrt()[:, None]
    area = z1 * (h / 12).sqrt()[:, None]
    inner = h[:, None] * (area + 0.5 * w)  # ∫ (W_u − W_s) du over each interval
    before = torch.cat([torch.zeros_like(w[:1]), w.cumsum(0)[:-1]])
    integral = (inner + h[:, None] * before).sum(0)
    total = w.sum(0)
    return total, integral / float(t[-1] - t[0]) - 0.5 * total, w, area


def test_levy_areas_combine_as_the_integral_says():
    times = [0.0, 0.1, 0.4, 0.55, 1.3]
    z = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total, area, w, h = seen(times, *z)
    path = RecordedBrownian(times, w, h)
    whole = path.increment(0.0, 1.3)
    torch.testing.assert_close(whole.w, total, rtol=0, atol=1e-15)
    torch.testing.assert_close(whole.h, area, rtol=0, atol=1e-15)
    first, second = path.increment(0.0, 0.4), path.increment(0.4, 1.3)
    joined = RecordedBrownian([0.0, 0.4, 1.3], torch.stack([first.w, second.w]), torch.stack([first.h, second.h]))
    torch.testing.assert_close(joined.increment(0.0, 1.3).h, area, rtol=0, atol=1e-15)
    assert float((whole.h - h.sum(0)).abs().max()) > 0.1  # areas do not simply add up


@pytest.mark.statistical
@pytest.mark.parametrize("steps", [1, 4])
def test_levy_areas_have_the_right_joint_law(steps):
    """Seed 8, 40 000 paths: Var W = T, Var H = T/12, Cov = 0; each |z| < 5 (false alarm 6e-7)."""
    n, end = 40_000, 2.0
    drawn = BrownianGrid((n,), 0.0, end, steps, seed=8, levy="space-time").increment(0.0, end)
    for product, mean, variance in [
        (drawn.w * drawn.w, end, 2 * end**2),
        (drawn.h * drawn.h, end / 12, 2 * (end / 12) ** 2),
        (drawn.w * drawn.h, 0.0, end * end / 12),
    ]:
        assert abs(float(product.mean()) - mean) < 5 * (variance / n) ** 0.5


def test_levy_areas_leave_the_increments_as_they_are():
    plain, full = (BrownianGrid((3, 2), steps=8, seed=4, levy=levy) for levy in ("none", "space-time"))
    assert torch.equal(plain.increment(0.25, 0.75).w, full.increment(0.25, 0.75).w)
    assert plain.increment(0.25, 0.75).space_time is None
    assert float(full.increment(0.5, 0.5).h.abs().max()) == 0.0


def test_a_path_that_is_run_backwards_shows_minus_h():
    path = BrownianGrid((3,), steps=4, seed=4, levy="space-time")
    (down,) = PathNoise(path, torch.float64, [[(0.75, 0.25)]]).increments(0)
    (up,) = PathNoise(path, torch.float64, [[(0.25, 0.75)]]).increments(0)
    assert torch.equal(down.w, up.w)
    assert torch.equal(down.h, -up.h)


@pytest.mark.statistical
def test_seeded_steps_draw_areas_and_three_points():
    """Seed 3, 60 000 paths: three points with probabilities ⅙, ⅔, ⅙ (|z| < 5, false alarm 2e-6)."""
    keys, interval, n = random.path_keys(3, 60_000), [[(0.0, 0.5)]], 60_000
    (both,) = StepNoise(keys, (1,), torch.float64, interval, "space-time").increments(0)
    (alone,) = StepNoise(keys, (1,), torch.float64, interval).increments(0)
    assert torch.equal(both.w, alone.w)
    assert float(both.h.var()) == pytest.approx(0.5 / 12, rel=0.03)
    (discrete,) = StepNoise(keys, (1,), torch.float64, interval, "three-point").increments(0)
    size = (3 * 0.5) ** 0.5
    for value, share in ((-size, 1 / 6), (0.0, 2 / 3), (size, 1 / 6)):
        found = float(((discrete.w - value).abs() < 1e-12).double().mean())
        assert abs(found - share) < 5 * (share * (1 - share) / n) ** 0.5


def test_bad_levy_areas_are_refused():
    with pytest.raises(SdekitError, match="did you mean 'space-time'"):
        BrownianGrid((1,), levy="space_time")
    with pytest.raises(SdekitError, match="must be like the increments"):
        RecordedBrownian([0.0, 1.0], torch.zeros(1, 2, 1), torch.zeros(1, 2))
    problem = sk.problems.get("rotation")
    x, grid = problem.initial.sample(4, seed=0), problem.grid(4)
    with pytest.raises(SdekitError, match='levy="space-time"'):
        sk.solve(problem.sde, x, grid, "sra1", noise=BrownianGrid.on(grid, (4, 2)))
