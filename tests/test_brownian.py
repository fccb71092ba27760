"""Brownian paths: they coarsen exactly, belong to their samples, and have the law of Brownian motion."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import sdekit as sk
from sdekit import random
from sdekit.brownian import _BLOCK_NORMALS, PathNoise, StepNoise


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


def test_step_noise_and_a_grid_path_of_one_seed_are_independent() -> None:
    """Else a run with noise=seed would see the path of BrownianGrid(seed) again: |z| < 5, rate 6e-7."""
    fine = sk.BrownianGrid((100, 20), 0.0, 50.0, 50, seed=6)
    steps = [[(k, k + 1.0)] for k in range(50)]
    noise = StepNoise(random.path_keys(6, 100), (20,), torch.float64, steps)
    products = [(noise.increments(k)[0].w * fine.increment(k, k + 1).w).sum() for k in range(50)]
    assert abs(float(sum(products))) / math.sqrt(100 * 20 * 50) < 5


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
