"""Noise at the door of solve: seeds, paths, seeds of the samples, torch generators; and what reproduces a run."""

from __future__ import annotations

import pytest
import torch

import sdekit as sk
from sdekit.keys import Keys

VP = sk.VP()
LAW = sk.Gaussian([0.5, -1.0], 0.25)
REVERSE = sk.reverse_time(VP, sk.exact_score(LAW, VP))
FLOW = sk.probability_flow(VP, sk.exact_score(LAW, VP))
GRID = sk.grids.log_snr(VP, 8)
SEEDS = [7, 3, 2**63 + 5, -1]


def start(paths, seed=1):
    return VP.prior((2,)).sample(seed=seed, paths=paths)


def final(x, stepper="euler-maruyama", **options):
    return sk.solve(REVERSE, x, GRID, stepper, **options).check().final


@pytest.mark.parametrize("stepper", ["euler-maruyama", "er-sde-2", "predictor-corrector"])
@pytest.mark.parametrize("end", ["stop", "exact-linear"])
def test_seeds_of_the_samples_are_those_of_batches_of_one(stepper, end):
    """Bitwise, with the start, what a corrector draws beside the path, and the end."""
    whole = final(start(SEEDS, None), stepper, paths=SEEDS, end=end)
    for seed, row in zip(SEEDS, whole, strict=True):
        alone = VP.prior((2,)).sample(1, seed=seed)
        assert torch.equal(final(alone, stepper, noise=seed, end=end)[0], row)
    assert not torch.equal(final(start(SEEDS, None), stepper, noise=0, paths=[0, 1, 2, 3], end=end), whole)


def test_paths_are_global_numbers_where_there_is_a_seed():
    x = start(range(6))
    whole = final(x, noise=5)
    assert torch.equal(final(x[[4, 1]], noise=5, paths=[4, 1]), whole[[4, 1]])
    assert torch.equal(final(x[[4, 1]], noise=5, paths=torch.tensor([4, 1])), whole[[4, 1]])
    assert not torch.equal(final(x[[4, 1]], noise=5), whole[[4, 1]])  # forgotten


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_a_generator_stands_for_a_seed():
    x, source = start(range(3)), generator(4)
    first, second = final(x, noise=source), final(x, noise=source)
    assert not torch.equal(first, second)
    assert torch.equal(final(x, noise=generator(4)), first)
    assert torch.equal(final(x[[2]], noise=generator(4), paths=[2]), first[[2]])


def test_generators_one_per_sample():
    x = start(range(3))
    whole = final(x, noise=[generator(s) for s in (1, 2, 3)])
    for i, seed in enumerate((1, 2, 3)):
        assert torch.equal(final(x[[i]], noise=[generator(seed)]), whole[[i]])
    assert torch.equal(final(x[[0]], noise=generator(1)), whole[[0]])


@pytest.mark.parametrize("law", [VP.prior((2,)), LAW, sk.GaussianMixture([0.4, 0.6], [[0.0], [1.0]], [1.0, 0.5])])
def test_laws_take_the_same(law):
    whole = law.sample(seed=None, paths=SEEDS)
    assert whole.shape[0] == 4
    for seed, row in zip(SEEDS, whole, strict=True):
        assert torch.equal(law.sample(1, seed=seed)[0], row)
    assert torch.equal(law.sample(3, seed=generator(2)), law.sample(3, seed=generator(2)))
    many = law.sample(seed=[generator(1), generator(2)])
    assert torch.equal(law.sample(1, seed=generator(2))[0], many[1])


def test_a_grid_path_takes_the_same():
    whole = sk.BrownianGrid.on(GRID, (4, 2), seed=None, paths=SEEDS)
    first, last = sorted((float(GRID[0]), float(GRID[-1])))
    for i, seed in enumerate(SEEDS):
        alone = sk.BrownianGrid.on(GRID, (1, 2), seed=seed)
        assert torch.equal(alone.increment(first, last).w[0], whole.increment(first, last).w[i])
    drawn = [sk.BrownianGrid((2, 1), seed=generator(3)).increment(0.0, 1.0).w for _ in range(2)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({"noise": 3}, (3, None)),
        ({"noise": 3, "paths": [9, 8]}, (3, [9, 8])),
        ({"noise": 3, "paths": range(4, 6)}, (3, [4, 5])),
        ({"paths": torch.tensor([9, 8])}, (None, [9, 8])),
    ],
)
def test_the_provenance_says_what_was_given(options, recorded):
    provenance = sk.solve(REVERSE, start(range(2)), GRID, "euler-maruyama", **options).provenance
    assert (provenance["noise"], provenance["paths"]) == recorded


@pytest.mark.parametrize("noise", [lambda: generator(3), lambda: [generator(3), generator(4)]])
def test_the_provenance_reproduces_a_run_from_generators(noise):
    solution = sk.solve(REVERSE, start(range(2)), GRID, "euler-maruyama", noise=noise())
    again = {name: solution.provenance[name] for name in ("noise", "paths")}
    assert torch.equal(final(start(range(2)), **again), solution.final)


def test_the_provenance_of_a_path_and_of_no_noise():
    path = sk.BrownianGrid.on(GRID, (2, 2))
    assert sk.solve(REVERSE, start(range(2)), GRID, "euler-maruyama", noise=path).provenance["noise"] == "BrownianGrid"
    assert sk.solve(FLOW, start(range(2)), GRID, "ddim").provenance["noise"] is None


@pytest.mark.parametrize(("stepper", "end"), [("euler-maruyama", "exact-linear"), ("predictor-corrector", "stop")])
def test_a_tree_has_a_seed_for_what_is_drawn_beside_it(stepper, end):
    """A corrector, or the end; and a sample is its own in any batch."""
    x = start(range(3))

    def on(paths, rows):
        tree = sk.BrownianTree((len(paths), 2), 0.0, 1.0, seed=2, paths=paths, depth=20)
        return final(x[rows], stepper, noise=tree, end=end)

    whole = on([0, 1, 2], [0, 1, 2])
    assert torch.equal(on([2, 0], [2, 0]), whole[[2, 0]])
    assert not torch.equal(on([0, 1], [2, 0]), whole[[2, 0]])


REVERSED = sk.BrownianGrid((2, 2), 0.0, 1.0, 4)


@pytest.mark.parametrize(
    ("provoke", "message"),
    [
        (lambda x: final(x), r"stochastic: give noise=seed.*one per sample, as paths="),
        (lambda x: final(x, paths=[1]), r"1 entries for 2 samples: give one per sample"),
        (lambda x: final(x, noise=[generator(0)]), r"1 entries for 2 samples"),
        (lambda x: final(x, noise=1, paths=[1, 2, 3]), r"3 entries for 2 samples"),
        (lambda x: final(x, noise=1, end="exact-linear", paths=[1, 2, 3]), r"3 entries for 2 samples"),
        (lambda x: final(x, paths=[0.5, 1.0]), r"Seeds in paths= must be whole numbers.*got \[0\.5, 1\.0\]"),
        (lambda x: final(x, paths=torch.ones(2, 1).long()), r"Seeds in paths= must be whole numbers, one per sample"),
        (lambda x: final(x, noise=[1, 2]), r"torch\.Generator for every sample; got int.*paths=seeds"),
        (lambda x: final(x, noise=[generator(0)] * 2, paths=[0, 1]), r"leave nothing for paths="),
        (lambda x: final(x, noise="7"), r"noise must be a seed.*got str: '7'"),
        (lambda x: final(x, noise=sk.BrownianGrid.on(GRID, (2, 2)), paths=[0, 1]), r"has its own paths= argument"),
        (lambda x: final(x, noise=sk.BrownianGrid.on(GRID, (3, 2))), r"shape \(3, 2\); this problem needs \(2, 2\)"),
        (lambda x: final(x, noise=sk.BrownianGrid.on(GRID, (1, 2))), r"shape \(1, 2\); this problem needs \(2, 2\)"),
        (lambda x: final(x, noise=sk.BrownianGrid.on(GRID, (2, 2), device="meta")), r"on meta; the state needs"),
        (lambda x: final(x, noise=sk.BrownianGrid((2, 2), 2.0, 3.0)), r"lies outside of this path.*\[2, 3\]"),
        (lambda x: final(x, noise=sk.BrownianTree((2, 2), 0.5, 1.0)), r"lies outside of this path.*\[0\.5, 1\]"),
        (lambda x: final(x, noise=sk.BrownianGrid((2, 2), 0.0, 1.0, 7)), r"is no node of this path.*BrownianGrid\.on"),
        (lambda x: REVERSED.increment(0.75, 0.25), r"needs s ≤ t; got s = 0\.75, t = 0\.25"),
        (lambda x: REVERSED.increment(0.75, 1.25), r"t = 1\.25 lies outside of this path"),
        (lambda x: LAW.sample(), r"needs a number n"),
        (lambda x: LAW.sample(3, seed=None), r"needs a seed and a number of samples, or paths="),
        (lambda x: LAW.sample(3, paths=[1, 2]), r"n = 3, but there are 2 paths"),
        (lambda x: sk.BrownianGrid((2, 1), seed=None), r"needs a seed and a number"),
    ],
)
def test_what_is_no_noise(provoke, message):
    with pytest.raises(sk.SdekitError, match=message):
        provoke(start(range(2)))


def test_a_deterministic_run_needs_none_and_may_be_given_some():
    x = start(range(2))
    expected = sk.solve(FLOW, x, GRID, "ddim").final
    for options in ({"noise": 3}, {"paths": [1, 2]}, {"noise": generator(1)}):
        assert torch.equal(sk.solve(FLOW, x, GRID, "ddim", **options).final, expected)


def test_keys_are_those_of_path_0():
    assert Keys.of(None, SEEDS).values.tolist() == [int(Keys.of(seed, [0]).values) for seed in SEEDS]
    assert torch.equal(Keys.of(None, torch.tensor([7, -1])).values, Keys.of(None, [7, 2**64 - 1]).values)
    assert Keys.of(None, []).values.shape == (0,)
