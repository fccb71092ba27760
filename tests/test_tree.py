"""Trees: the law of every piece in exact arithmetic, one path whatever is asked, and walks at one draw a step.

What a path does is linear in the normals that it draws. A probe hands out unit vectors for them, sample by sample, so
that the covariance of any pieces is that of their rows: no sampling, and equality to rounding.
"""

from __future__ import annotations

import itertools
import random as python_random
import resource

import pytest
import scipy.stats
import torch
from torch import Tensor

import sdekit as sk
from sdekit import random
from sdekit.brownian import BrownianTree, PathNoise, bridge, nodes, snr_clock
from sdekit.brownian import tree as tree_module
from sdekit.brownian.bridge import joined
from sdekit.brownian.nodes import bit_length
from sdekit.errors import SdekitError


def probe(monkeypatch: pytest.MonkeyPatch, depth: int, **options: object) -> BrownianTree:
    """A tree over [0.5, 2] whose sample b shows the answer to the b-th normal; splits below its depth included."""
    batch = 2 << (depth + 1)
    number = {key: b for b, key in enumerate(random.path_keys(0, batch).tolist())}

    def units(keys: Tensor, event_shape: tuple[int, ...], *, stream, index, dtype: torch.dtype) -> Tensor:
        samples = torch.tensor([number[key] for key in keys.tolist()])
        level, at = (torch.as_tensor(v).expand(len(keys)) for v in (stream - random.STREAM_TREE - 1, index))
        node = torch.where(level < 0, 0, 2 ** level.clamp(min=0) + at)  # of a heap
        return torch.stack([samples == 2 * node + c for c in (0, 1)])[..., None].to(dtype)

    def units_in_a_row(keys: Tensor, event_shape: tuple[int, ...], *, stream, start, count, dtype) -> Tensor:
        pairs = range(start // 2, (start + count) // 2)
        return torch.cat([random.normals_at(keys, event_shape, stream=stream, index=k, dtype=dtype) for k in pairs])

    monkeypatch.setattr(random, "normals_at", units)
    monkeypatch.setattr(random, "normals", units_in_a_row)
    return BrownianTree((batch, 1), 0.5, 2.0, seed=0, depth=depth, **options)  # type: ignore[arg-type]


def covariance(pieces: list[sk.Increment]) -> Tensor:
    """Of the W of pieces, then of their H."""
    rows = [p.w for p in pieces] + [p.h for p in pieces if p.space_time is not None]
    vectors = torch.cat(rows, 1)
    return vectors.T @ vectors


def law_error(tree: BrownianTree, variances: Tensor) -> float:
    """How far the leaves are from independent, of the variances that they should have, and H from a twelfth of them."""
    walk = tree.walk()
    pieces = [walk.step(tree.depth, k) for k in range(1 << tree.depth)]
    wanted = torch.cat((variances, variances / 12)) if tree.levy == "space-time" else variances
    return float((covariance(pieces) - torch.diag(wanted)).abs().max())


def equal(depth: int) -> Tensor:
    return torch.full((1 << depth,), 1.5 / (1 << depth), dtype=torch.float64)


@pytest.mark.parametrize("levy", ["none", "space-time"])
@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_the_leaves_are_independent_with_the_variance_of_their_length(monkeypatch, levy, depth):
    assert law_error(probe(monkeypatch, depth, levy=levy), equal(depth)) < 1e-15


def halves_with(noise: float = 1.0, apart: float = 1.0, area: float = 1.0, bend: float = 1.0):
    """Slips in the formulas: normals of a wrong variance, areas of the other sign, the Ws of the halves exchanged."""
    right = bridge.halves

    def wrong(piece: Tensor, root: Tensor, z: Tensor) -> Tensor:
        parts = right(piece, root, z * torch.tensor([noise, apart]).to(z)[:, None, None])
        if bend < 0:
            parts[:, :, 0] = parts[:, :, 0].flip(1).clone()
        if area < 0:
            parts[:, :, 1] *= area
        return parts

    return wrong


@pytest.mark.parametrize(
    ("levy", "slip"),
    [("none", {"noise": 0.98}), ("space-time", {"noise": 0.98}), ("space-time", {"apart": 0.98})],
    ids=str,
)
def test_the_law_shows_a_wrong_residual(monkeypatch, levy, slip):
    monkeypatch.setattr(nodes, "halves", halves_with(**slip))
    assert law_error(probe(monkeypatch, 3, levy=levy), equal(3)) > 1e-3


@pytest.mark.parametrize("levy", ["none", "space-time"])
def test_the_law_shows_siblings_that_share_their_normals(monkeypatch, levy):
    tree = probe(monkeypatch, 3, levy=levy)
    units = random.normals_at
    monkeypatch.setattr(random, "normals_at", lambda *a, index, **k: units(*a, index=index // 2, **k))
    assert law_error(tree, equal(3)) > 1e-2


def by_definition(leaves: list[sk.Increment], size: float) -> tuple[Tensor, Tensor]:
    """W and H of adjacent leaves: the integral of W over them, leaf by leaf."""
    before, integral = torch.zeros_like(leaves[0].w), torch.zeros_like(leaves[0].w)
    for leaf in leaves:
        integral = integral + size * (before + leaf.h + 0.5 * leaf.w)
        before = before + leaf.w
    return before, integral / (size * len(leaves)) - 0.5 * before


def same(a: sk.Increment, b: sk.Increment) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in ((a.w, b.w), (a.space_time, b.space_time))
        if isinstance(x, Tensor) and isinstance(y, Tensor)
    ) and (a.space_time is None) == (b.space_time is None)


def cover_error(tree: BrownianTree) -> float:
    """How far the intervals of a tree are from what their leaves make of them; 0 also says: nodes are met bitwise."""
    size, cells, worst = 1.5 / (1 << tree.depth), 1 << tree.depth, 0.0
    leaves = [tree.step(tree.depth, k) for k in range(cells)]
    for i, j in itertools.combinations(range(cells + 1), 2):
        found = tree.increment(0.5 + i * size, 0.5 + j * size)
        if tree.levy == "none":
            worst = max(worst, float((found.w - sum(leaf.w for leaf in leaves[i:j])).abs().max()))
        else:
            w, h = by_definition(leaves[i:j], size)
            worst = max(worst, float((found.w - w).abs().max()), float((found.h - h).abs().max()))
        if (j - i).bit_count() == 1 and i % (j - i) == 0:
            node = tree.step(tree.depth + 1 - (j - i).bit_length(), i // (j - i))
            assert same(found, node)
    return worst


@pytest.mark.parametrize(("levy", "depth"), [("none", 3), ("space-time", 0), ("space-time", 3)])
def test_every_interval_is_what_its_leaves_make_of_it(monkeypatch, levy, depth):
    """All 36 of depth 3, W and H by their definition."""
    assert cover_error(probe(monkeypatch, depth, levy=levy)) < 1e-15


@pytest.mark.parametrize("slip", [{"area": -1.0}, {"bend": -1.0}], ids=str)
def test_the_leaves_show_a_wrong_sign(monkeypatch, slip):
    """Which leaves them independent and of the right variances, but makes another whole of them."""
    monkeypatch.setattr(nodes, "halves", halves_with(**slip))
    tree = probe(monkeypatch, 3, levy="space-time")
    assert law_error(tree, equal(3)) < 1e-15
    assert cover_error(tree) > 1e-2


@pytest.mark.parametrize("clock", [lambda t: t**3, lambda t: torch.exp(-9.0 * t)], ids=["up", "down"])
def test_a_clock_gives_the_variances(monkeypatch, clock):
    """exp(−9t) falls by a factor of 7e5 along the path; each leaf relative to its own variance."""
    edges = torch.linspace(0.5, 2.0, 33, dtype=torch.float64)
    tree = probe(monkeypatch, 5, clock=clock)
    variances = clock(edges).diff().abs()
    walk = tree.walk()
    found = covariance([walk.step(5, k) for k in range(32)])
    scale = variances.rsqrt()
    torch.testing.assert_close(found * scale * scale[:, None], torch.eye(32).double(), rtol=0, atol=1e-12)
    assert tree.variance(float(edges[3]), float(edges[9])) == pytest.approx(float(variances[3:9].sum()), rel=1e-13)
    assert law_error(tree, equal(5)) > 1e-2


# --- one path, whatever is asked ------------------------------------------------------------------------


LEVIES = [("none", torch.float32), ("space-time", torch.float64)]


def questions() -> list[tuple[object, ...]]:
    """Free times, dyadic ones, and nodes."""
    g = torch.Generator().manual_seed(0)
    free = [tuple(sorted((0.5 + 1.5 * torch.rand(2, generator=g, dtype=torch.float64)).tolist())) for _ in range(6)]
    return [*free, (0.5, 2.0), (0.875, 0.875), (1.25, 1.4375), (0.5, 0.5 + 1e-9), (2.0 - 1e-12, 2.0)]


@pytest.mark.parametrize(("levy", "dtype"), LEVIES)
def test_the_order_of_questions_does_not_matter(levy, dtype, device, monkeypatch):
    """Bitwise; nor whether they come together, one per sample, or on a walk that jumps about."""
    make = lambda: BrownianTree((11, 2), 0.5, 2.0, seed=3, levy=levy, dtype=dtype, device=device)  # noqa: E731
    tree, asked = make(), questions()
    answers = [tree.increment(*q) for q in asked]
    for k in python_random.Random(1).sample(range(len(asked)), len(asked)):
        assert same(tree.increment(*asked[k]), answers[k])
        assert same(make().increment(*asked[k]), answers[k])
    monkeypatch.setattr(tree_module, "_KEPT_NUMBERS", 0)  # as for large states, from the root every time
    assert all(same(tree.increment(*q), answer) for q, answer in zip(asked, answers, strict=True))
    s, t = torch.tensor(asked, dtype=torch.float64).T
    each = make().increment(s, t)
    for b, answer in enumerate(answers):
        assert torch.equal(each.w[b], answer.w[b])
        assert levy == "none" or torch.equal(each.h[b], answer.h[b])
    dice, walk, own = python_random.Random(2), make().walk(), make().walk()
    for _ in range(60):
        level = dice.choice([0, 1, 2, 3, 4, 5, 30, 50])
        index = dice.randrange(1 << level) if level < 9 else (1 << level) // 3 + dice.randrange(3)
        assert same(walk.step(level, index), tree.step(level, index))
        assert same(own.step(torch.full((11,), level), torch.full((11,), index)), tree.step(level, index))


@pytest.mark.parametrize(("levy", "dtype"), LEVIES)
@pytest.mark.parametrize("clock", [None, torch.exp], ids=["t", "exp"])
def test_a_path_is_its_own_in_every_batch(levy, dtype, clock):
    """Bitwise: free times, times and levels of the samples' own, walks, and parts of trees and walks."""
    if clock and levy != "none":
        return
    g = torch.Generator().manual_seed(0)
    tree = BrownianTree((64, 3), 0.5, 2.0, seed=3, levy=levy, dtype=dtype, clock=clock)
    s, t = (0.5 + 1.5 * torch.rand(2, 64, generator=g, dtype=torch.float64)).sort(0).values
    levels = torch.randint(12, (20, 64), generator=g)
    indices = (torch.rand(20, 64, generator=g, dtype=torch.float64) * 2.0**levels).long()
    walk = tree.walk()
    steps = [walk.step(level, index) for level, index in zip(levels, indices, strict=True)]
    for paths in ([17], [63, 5, 17], list(range(10, 41))):
        rows = torch.tensor(paths)
        alone = BrownianTree((len(paths), 3), 0.5, 2.0, seed=3, levy=levy, dtype=dtype, clock=clock, paths=paths)
        for part in (alone, tree.select(rows)):
            assert part.shape == (len(paths), 3)
            assert torch.equal(part.increment(0.7, 1.9).w, tree.increment(0.7, 1.9).w[rows])
            assert torch.equal(part.increment(s[rows], t[rows]).w, tree.increment(s, t).w[rows])
            small = part.walk()
            for k, step in enumerate(steps):
                found = small.step(levels[k][rows], indices[k][rows])
                assert torch.equal(found.w, step.w[rows])
                assert levy == "none" or torch.equal(found.h, step.h[rows])
        half = tree.walk()
        half.step(levels[0], indices[0])
        half = half.select(rows)
        for k in range(1, 20):
            assert torch.equal(half.step(levels[k][rows], indices[k][rows]).w, steps[k].w[rows])


@pytest.mark.parametrize(("levy", "dtype"), LEVIES)
def test_an_increment_is_the_sum_of_its_parts(levy, dtype):
    """Of intervals of any length; a tenth of a millionth late on the path is as accurate as the whole."""
    tree = BrownianTree((50, 2), 0.5, 2.0, seed=5, levy=levy, dtype=dtype)
    eps = torch.finfo(dtype).eps
    for s, m, t in ((0.6, 1.1, 1.93), (0.5, 0.51, 2.0), (1.7, 1.7 + 1e-8, 1.7 + 3e-8)):
        first, second, whole = tree.increment(s, m), tree.increment(m, t), tree.increment(s, t)
        unit = (t - s) ** 0.5
        torch.testing.assert_close(first.w + second.w, whole.w, rtol=0, atol=20 * eps * unit)
        if levy == "none":
            continue
        at = (torch.tensor([x], dtype=torch.float64) for x in (s, m, t))
        s_, m_, t_ = ((x - 0.5).div(1.5).mul(2.0**50).round() for x in at)  # the rounded times
        pair = [torch.stack((p.w.flatten(), p.h.flatten()))[None] for p in (first, second)]
        both = joined(pair[0], m_ - s_, pair[1], t_ - m_)
        torch.testing.assert_close(both[0, 1].reshape(50, 2), whole.h, rtol=0, atol=20 * eps * unit)


def test_times_are_rounded_to_the_finest_level():
    """Between two of its multiples the path stands still, and a shallower tree is the same path elsewhere."""
    deep, shallow = (BrownianTree((3, 1), 0.0, 1.0, seed=1, depth=depth) for depth in (50, 8))
    assert torch.equal(shallow.increment(0.25, 0.75).w, deep.increment(0.25, 0.75).w)
    assert torch.equal(shallow.increment(0.1, 0.9).w, deep.increment(26 / 256, 230 / 256).w)
    assert not shallow.increment(0.5001, 0.5002).w.any()
    assert deep.increment(0.5001, 0.5002).w.all()


@pytest.mark.statistical
@pytest.mark.parametrize("shared", [False, True])
def test_law_of_a_tree(monkeypatch, shared):
    """Kolmogorov–Smirnov, and correlations between samples, noises and pieces; each of rate 1e-7, 47 of them.

    One sample's normals for all, the planted fault, are seen.
    """
    if shared:
        keys_of = random.path_keys
        monkeypatch.setattr(random, "path_keys", lambda *a, **k: (keys := keys_of(*a, **k))[:1].expand_as(keys))
    n, edges = 6000, [0.5, 0.61, 1.0, 1.25, 1.7777, 2.0]
    tree = BrownianTree((n, 2), 0.5, 2.0, seed=11, levy="space-time")
    pieces = [tree.increment(s, t) for s, t in itertools.pairwise(edges)]
    root = torch.tensor(edges, dtype=torch.float64).diff().sqrt()
    z = torch.cat([x / r for p, r in zip(pieces, root, strict=True) for x in (p.w, p.h * 12**0.5)], 1)  # (n, 20)
    worst = min(float(scipy.stats.kstest(column.numpy(), "norm").pvalue) for column in z.T)
    largest = (z.T @ z / n - torch.eye(20)).abs().max()
    neighbours = (z[1:] * z[:-1]).sum() / (20 * (n - 1)) ** 0.5
    good = worst > 1e-7 and float(largest) * n**0.5 < 5.6 * 2**0.5 and abs(float(neighbours)) < 5.4
    assert good is not shared


# --- walks ----------------------------------------------------------------------------------------------


def adaptive(
    walk, steps: int, batch: int, depth: int, seed: int, backwards: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Steps of a controller of its own mind: the sum of W, accepted steps, and where they led."""
    g = torch.Generator().manual_seed(seed)
    place, level = torch.zeros(2, batch, dtype=torch.int64)
    level += 9
    total, accepted = 0.0, torch.zeros(batch, dtype=torch.int64)
    for _ in range(steps):
        size = torch.ones_like(level) << (depth - level)
        index = place // size
        mirrored = (torch.ones_like(level) << level) - 1 - index
        w = walk.step(level, mirrored if backwards else index).w
        refused = torch.rand(batch, generator=g) < 0.25
        total = total + torch.where(refused[:, None], 0.0, w)
        accepted += ~refused
        place = torch.where(refused, place, place + size)
        change = torch.where(refused, 1, torch.randint(-1, 2, (batch,), generator=g))
        level = (level + change).clamp(9, 16)
        # Not coarser than where the sample stands.
        level = torch.maximum(level, depth + 1 - bit_length((place | 1 << depth) & -(place | 1 << depth)))
        if bool((place >= 1 << depth).any()):
            break
    return total, accepted, place


@pytest.mark.parametrize(("levy", "backwards"), [("space-time", False), ("none", True)])
def test_an_adaptive_walk_costs_at_most_one_draw_a_step(levy, backwards):
    """1,000 steps tried, levels up and down, a quarter refused, each sample by itself; and it is the tree's path."""
    tree = BrownianTree((12, 1), 0.0, 1.0, seed=2, levy=levy, depth=30)
    walk = tree.walk()
    total, accepted, place = adaptive(walk, 1000, 12, 30, seed=4, backwards=backwards)
    assert int(accepted.min()) > 600
    # The way down at the start, and nodes that were split for the last steps, come on top.
    assert bool((walk.draws <= accepted + 30).all())
    end = place.double() / 2**30
    whole = tree.increment(1.0 - end, torch.ones_like(end)) if backwards else tree.increment(torch.zeros_like(end), end)
    torch.testing.assert_close(total, whole.w, rtol=0, atol=1e-13)


def test_a_walk_that_forgets_costs_more(monkeypatch):
    """The count is one: without what it keeps, a walk pays the whole way down at every step."""
    tree = BrownianTree((4, 1), 0.0, 1.0, seed=2, depth=30)
    walk = tree.walk()
    monkeypatch.setattr(type(walk._own()), "_known", lambda self, level, index: torch.zeros_like(level))
    _, accepted, _ = adaptive(walk, 100, 4, 30, seed=4)
    assert bool((walk.draws > 5 * accepted).all())


def long_walk(steps: int, batch: int = 1) -> tuple[object, Tensor]:
    """Along the finest level of a tree of 2⁵⁰, refusing nothing: the sum of the steps."""
    tree = BrownianTree((batch, 1), 0.0, 1.0, seed=2)
    walk, total = tree.walk(), torch.zeros(batch, 1, dtype=torch.float64)
    for k in range(steps):
        total += walk.step(20, k).w
    whole = tree.increment(0.0, steps / 2**20).w
    torch.testing.assert_close(total, whole, rtol=0, atol=1e-12)
    return walk, total


def test_a_long_walk_keeps_no_more_than_a_short_one():
    walk, _ = long_walk(2_000)
    assert len(walk._place._kept) == 21
    assert int(walk.draws[0]) <= 2 * 2_000


@pytest.mark.certify
def test_a_walk_of_a_million_steps_in_constant_memory():
    """One that keeps its nodes would take a gigabyte more."""
    long_walk(1_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    walk, _ = long_walk(1_000_000)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 20_000  # kilobytes
    assert int(walk.draws[0]) < 1.1 * 1_000_000


# --- as the noise of a run -------------------------------------------------------------------------------


def test_a_tree_drives_a_run():
    """Times as they come, off every dyadic grid: dx = dW reaches the increment, and runs of other steps the same."""
    plain = sk.sde(lambda t, x: torch.zeros_like(x), lambda t, x: torch.ones_like(x), noise_type="additive")
    tree = BrownianTree((5, 2), 0.0, 1.0, seed=6)
    x = torch.zeros(5, 2, dtype=torch.float64)
    for grid in ([0.0, 0.1, 0.15, 0.7, 0.93], [0.0, 1 / 3, 0.93]):
        final = sk.solve(plain, x, grid, "euler-maruyama", noise=tree).final
        torch.testing.assert_close(final, tree.increment(0.0, 0.93).w, rtol=0, atol=1e-15)


def test_a_path_that_is_run_backwards_shows_minus_h():
    tree = BrownianTree((3, 1), seed=4, levy="space-time")
    (down,) = PathNoise(tree, torch.float32, [[(0.8, 0.25)]]).increments(0)
    up = tree.increment(0.25, 0.8)
    assert torch.equal(down.w, up.w.float())
    assert torch.equal(down.h, -up.h.float())


@pytest.mark.parametrize(("stepper", "name"), [("sde-dpmpp-1", "EDM"), ("er-sde-3", "VP")])
def test_a_point_mass_gives_the_same_sample_on_every_grid(stepper, name):
    """In the clock of the sampler's noise, at steps that share no time with one another but the ends."""
    process = {"VP": sk.VP(), "EDM": sk.EDM()}[name]
    sde = sk.reverse_time(process, sk.exact_score(sk.Gaussian([1.5, -0.5], 0.0), process))
    x, clock = process.prior((2,)).sample(3, seed=1), snr_clock(process.schedule)
    ends = process.t_min, process.t_max
    finals = []
    for steps in (7, 10, 23):
        grid = sk.grids.log_snr(process, steps)
        path = BrownianTree((3, 2), *ends, seed=3, clock=clock)
        finals.append(sk.solve(sde, x, grid, stepper, noise=path).final)
    assert max(float((final - finals[0]).abs().max()) for final in finals) < 1e-12


# --- bad input -------------------------------------------------------------------------------------------

TREE = BrownianTree((4, 2), 0.5, 2.0, seed=1, depth=20)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: TREE.increment(0.4, 1.0), r"0\.4 lies outside of this path.*\[0\.5, 2\]"),
        (lambda: TREE.increment(1.0, 2.1), r"2\.1 lies outside"),
        (lambda: TREE.increment(1.0, float("nan")), "lies outside"),
        (lambda: TREE.increment(1.0, 0.9), "needs s ≤ t"),
        (lambda: TREE.increment(torch.full((4,), 1.0), torch.tensor([1.0, 1.5, 0.9, 2.0])), "needs s ≤ t"),
        (lambda: TREE.increment(torch.ones(3), 1.5), "one per sample, 4"),
        (lambda: TREE.increment(0.6, 1.5).h, 'levy="space-time"'),
        (lambda: TREE.step(21, 0), "Node 0 of level 21"),
        (lambda: TREE.step(-1, 0), "level -1"),
        (lambda: TREE.step(3, 8), "Node 8 of level 3"),
        (lambda: TREE.step(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 8, 4])), "Node 8 of level 3"),
        (lambda: TREE.step(torch.tensor([1, 2]), 0), "one for each of 4 samples"),
        (lambda: TREE.step(torch.ones(4), 0), "float32"),
        (lambda: TREE.require([0.5, 2.0, 3.0]), r"3\.0 lies outside"),
        (lambda: BrownianTree((4,), 1.0, 0.0), "t0 < t1"),
        (lambda: BrownianTree((4,), 0.0, float("inf")), "t0 < t1"),
        (lambda: BrownianTree((4,), depth=60), "0 … 52"),
        (lambda: BrownianTree((4,), levy="full"), "BrownianGrid"),
        (lambda: BrownianTree((4,), levy="space_time"), "did you mean 'space-time'"),
        (lambda: BrownianTree((4,), levy="space-time", clock=torch.exp), "belong to the clock t"),
        (lambda: BrownianTree((4,), clock=lambda t: (t - 0.5) ** 2), "monotone"),
        (lambda: BrownianTree((4,), clock=torch.log), "finite"),
        (lambda: BrownianTree((4, 2), paths=[1, 2]), "one per sample"),
        (lambda: BrownianTree(()), "noise for every sample"),
    ],
)
def test_bad_questions(ask, says):
    with pytest.raises(SdekitError, match=says):
        ask()


def test_a_run_outside_of_its_tree_is_refused_before_the_first_step():
    plain = sk.sde(lambda t, x: 1 / 0, lambda t, x: torch.ones_like(x), noise_type="additive")
    with pytest.raises(SdekitError, match="lies outside"):
        sk.solve(plain, torch.zeros(4, 2), [0.0, 1.0], "euler-maruyama", noise=TREE)


def test_a_batch_of_none():
    tree = BrownianTree((0, 2), levy="space-time")
    assert tree.increment(0.1, 0.7).h.shape == tree.step(3, 2).h.shape == (0, 2)
