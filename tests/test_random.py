"""The keyed normals: known answers, independence of everything but the address, and the law N(0, 1).

Statistical checks run on fixed seeds, so they pass or fail for ever; the stated rates are the probability that a
perfect generator would have failed them when they were written. |z| < 5 has rate 6e-7.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.random import STREAM_GRID, STREAM_LAW, key, mix, normals, normals_at, path_keys, seed_keys

WORD = 2**64
GAMMA, GAMMA_ELEMENT = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03

PAGE = (Path(__file__).parents[1] / "docs" / "noise.md").read_text()


def finaliser(x: int) -> int:
    """SplitMix64's, from Steele, Lea and Flood (2014), figure 16, as improved by Stafford (variant 13)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


def folded(*words: int) -> int:
    out = 0
    for word in words:
        out = finaliser((out + word + GAMMA) % WORD)
    return out


def words(seed: int, path: int, stream: int, step: int, element: int) -> list[int]:
    """Path key, step key and the two words of an address, in Python's integers."""
    path_key = finaliser((folded(seed) + path * GAMMA) % WORD)
    step_key = finaliser((folded(0, stream) + step // 2 * GAMMA) % WORD)
    word = finaliser((path_key + element * GAMMA_ELEMENT + step_key) % WORD)
    return [path_key, step_key, word, finaliser((word + GAMMA) % WORD)]


def polar(angle: int, u: float, step: int) -> float:
    theta = math.pi * (angle - WORD if angle >= WORD // 2 else angle) * 2.0**-63
    return math.sqrt(-2.0 * math.log(u)) * (math.sin(theta) if step % 2 else math.cos(theta))


def reference(seed: int, path: int, stream: int, step: int, element: int) -> float:
    """The documented formula, one draw at a time, in Python's integers and floats."""
    *_, word, extra = words(seed, path, stream, step, element)
    radius = ((word & (2**40 - 1)) << 13 | extra >> 51) + 0.5
    return polar((word >> 40 << 40) | (extra & (2**40 - 1)), radius * 2.0**-53, step)


def single(seed: int, path: int, stream: int, step: int, element: int) -> float:
    """That of float32, before any rounding."""
    word = words(seed, path, stream, step, element)[2]
    return polar(word, ((word & (2**40 - 1)) + 0.5) * 2.0**-40, step)


def table(columns: str) -> list[list[str]]:
    """The rows of the table of the page whose head is ``columns``."""
    lines = PAGE[PAGE.index(f"| {columns} |\n") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def block(seed: int, paths: int, elements: int, steps: int, stream: int = 0) -> Tensor:
    """Normals of shape (steps, paths, elements)."""
    return normals(path_keys(seed, paths), (elements,), stream=stream, count=steps)


def correlation(a: Tensor, b: Tensor) -> float:
    """z-score of E[ab] = 0 for independent standardised a and b."""
    return float((a * b).sum()) / math.sqrt(a.numel())


def test_published_words() -> None:
    """By the page, by Python's integers and by the library."""
    rows = table("of | word")
    assert len(rows) == 9
    for name, word in rows:
        function, numbers = name.rstrip(")").split("(")
        arguments = [eval(number) for number in numbers.split(",")]
        assert {"mix": mix, "key": key}[function](*arguments) == int(word, 16)
        assert {"mix": lambda x: finaliser(x % WORD), "key": folded}[function](*arguments) == int(word, 16)
    # The first outputs of SplitMix64 seeded with 0 and with 1, as published.
    assert [key(0), key(1)] == [16294208416658607535, 10451216379200822465]


def test_published_normals(device: torch.device) -> None:
    rows = table("seed | path | stream | step | element | K | S | w | w' | z, float64 | z, float32")
    assert len(rows) == 6
    for row in rows:
        seed, path, stream, step, element = address = [int(number) for number in row[:5]]
        wide, narrow = map(float, row[9:])
        assert [f"{word:016x}" for word in words(*address)] == row[5:9]
        assert reference(*address) == pytest.approx(wide, rel=0, abs=1e-15)
        assert single(*address) == pytest.approx(narrow, rel=0, abs=1e-7)
        keys = path_keys(seed, [path], device)
        assert int(keys) % WORD == int(row[5], 16)
        for dtype, z, tolerance in ((torch.float64, wide, 2e-15), (torch.float32, narrow, 1e-6)):
            drawn = normals(keys, (element + 1,), stream=stream, start=step, dtype=dtype)
            assert float(drawn[0, 0, -1]) == pytest.approx(z, rel=0, abs=tolerance)


def test_published_streams() -> None:
    """Every stream of the module, with its number, and no two of one number."""
    page = {row[0]: eval(row[1]) for row in table("name | stream | what is drawn | step, element")}
    assert page == {name: value for name, value in vars(random).items() if name.startswith("STREAM_")}
    assert len(set(page.values())) == len(page)


@pytest.mark.parametrize("stream", [0, 1, STREAM_GRID, STREAM_LAW])
@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5, -3])
def test_formula(seed: int, stream: int, device: torch.device) -> None:
    paths, steps, elements = [0, 3, 10**12], [0, 1, 2, 7], 3
    keys = path_keys(seed, paths, device)
    for step in steps:
        z = normals(keys, (elements,), stream=stream, start=step)[0].tolist()
        for (i, path), e in itertools.product(enumerate(paths), range(elements)):
            assert z[i][e] == pytest.approx(reference(seed, path, stream, step, e), rel=0, abs=1e-14)


def test_types_agree(device: torch.device) -> None:
    keys = path_keys(11, 500, device)
    wide, narrow = (normals(keys, (200,), stream=0, count=10, dtype=t) for t in (torch.float64, torch.float32))
    radius = (wide[0::2].square() + wide[1::2].square()).sqrt().repeat_interleave(2, 0)
    error = (narrow.double() - wide).abs()
    assert narrow.dtype == torch.float32
    assert bool((error < 4e-6 + 1e-7 / radius).all())
    assert float((error < 1e-5).double().mean()) > 1 - 1e-5
    half = normals(keys, (200,), stream=0, count=10, dtype=torch.bfloat16)
    assert torch.equal(half, narrow.to(torch.bfloat16))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_draw_depends_on_its_address_alone(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    full = normals(path_keys(5, 40, device), shape, stream=2, count=9, dtype=dtype)
    for paths in ([7], [39, 0, 7], list(range(3, 20))):
        for start, count in ((0, 9), (0, 1), (3, 1), (3, 4), (4, 5), (8, 1)):
            part = normals(path_keys(5, paths, device), shape, stream=2, start=start, count=count, dtype=dtype)
            assert torch.equal(part, full[start : start + count, paths])


def test_large_draws_are_the_small_ones() -> None:
    """Whatever a draw is cut into on the way: 300,000 places, four steps."""
    paths, elements = 300, 1000
    whole = normals(path_keys(5, paths), (elements,), stream=2, start=3, count=4)
    for path in (0, 130, 131, 262, 299):
        alone = normals(path_keys(5, [path]), (elements,), stream=2, start=3, count=4)
        assert torch.equal(whole[:, path], alone[:, 0])
    many = normals(path_keys(5, 2), (2,), stream=2, count=200_001)
    for step in (0, 65_535, 65_536, 131_073, 200_000):
        assert torch.equal(many[step], normals(path_keys(5, 2), (2,), stream=2, start=step)[0])


@pytest.mark.parametrize("shape", [(), (3,), (2, 300)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_pair_for_every_sample(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    keys = path_keys(5, 6, device)
    streams = torch.tensor([0, 1, STREAM_GRID, STREAM_LAW, 7, -1], device=device)
    indices = torch.tensor([0, 3, 2**40, 2**61, 5, 2**20 + 1], device=device)
    for stream, index in ((streams, indices), (streams, 4), (3, indices), (3, 4)):
        z = normals_at(keys, shape, stream=stream, index=index, dtype=dtype)
        assert z.shape == (2, 6, *shape)
        for i in range(6):
            family = int(stream[i]) if isinstance(stream, Tensor) else stream
            start = 2 * int(index[i] if isinstance(index, Tensor) else index)
            alone = normals(keys[i : i + 1], shape, stream=family, start=start, count=2, dtype=dtype)
            assert torch.equal(z[:, i], alone[:, 0])


@pytest.mark.parametrize("wrong", [torch.zeros(5, dtype=torch.int64), torch.zeros(6), torch.tensor(1)], ids=str)
def test_a_pair_needs_a_whole_number_for_every_sample(wrong: Tensor) -> None:
    for numbers in ({"stream": wrong, "index": 0}, {"stream": 0, "index": wrong}):
        with pytest.raises(SdekitError, match="one for each of 6 samples"):
            normals_at(path_keys(5, 6), (), **numbers)


def test_seeds_one_for_every_sample(device: torch.device) -> None:
    seeds = [0, 1, -3, 2**63 + 5, 2**64 + 1, 77]
    alone = torch.cat([path_keys(s, 1, device) for s in seeds])
    assert torch.equal(seed_keys(seeds, device), alone)
    assert torch.equal(seed_keys(torch.tensor([0, 1, -3]), device), alone[:3])
    assert seed_keys([]).shape == (0,)
    for wrong in (torch.tensor(1), torch.tensor([1.0])):
        with pytest.raises(SdekitError, match="one per sample"):
            seed_keys(wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(3,), (20,)], ids=str)
def test_one_graph_serves_all_blocks(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The form that is traced, run without a compiler: one graph, and the same normals to rounding."""
    torch._dynamo.reset()
    counter, keys = CompileCounter(), path_keys(5, 7)

    def block(start: Tensor) -> Tensor:
        return normals(keys, shape, stream=STREAM_GRID, start=start, count=5, dtype=dtype)

    traced = torch.compile(block, backend=counter, fullgraph=True)
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    for start in range(0, 20, 4):
        eager = normals(keys, shape, stream=STREAM_GRID, start=start, count=5, dtype=dtype)
        torch.testing.assert_close(traced(torch.tensor(start)), eager, rtol=0, atol=tolerance)
        torch.testing.assert_close(block(torch.tensor(start)), eager, rtol=0, atol=0)
    assert counter.frame_count == 1
    pair = torch.compile(normals_at, backend="eager", fullgraph=True)
    index = torch.arange(7)
    z, eager = (f(keys, shape, stream=index, index=index, dtype=dtype) for f in (pair, normals_at))
    torch.testing.assert_close(z, eager, rtol=0, atol=tolerance)


@pytest.mark.certify
@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [
        ((), torch.float32, 1e-6),
        ((3,), torch.float32, 1e-6),
        ((300,), torch.float32, 1e-6),
        ((300,), torch.float64, 1e-14),
    ],
    ids=str,
)
def test_compiled_normals(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    torch._dynamo.reset()
    keys = path_keys(5, 7)
    compiled = torch.compile(
        lambda start: normals(keys, shape, stream=0, start=start, count=20, dtype=dtype), fullgraph=True
    )
    for start in (0, 20, 2**40):
        eager = normals(keys, shape, stream=0, start=start, count=20, dtype=dtype)
        torch.testing.assert_close(compiled(torch.tensor(start)), eager, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_threads_change_nothing(dtype: torch.dtype) -> None:
    def drawn(threads: int) -> Tensor:
        torch.set_num_threads(threads)
        return normals(path_keys(5, 300), (300,), stream=2, start=3, count=4, dtype=dtype)

    before = torch.get_num_threads()
    try:
        assert torch.equal(drawn(1), drawn(2))
    finally:
        torch.set_num_threads(before)


def test_elements_are_numbered_in_order() -> None:
    keys = path_keys(5, 3)
    assert torch.equal(normals(keys, (2, 6), stream=0).flatten(2), normals(keys, (12,), stream=0))


def test_paths_may_be_a_number_a_list_or_a_tensor() -> None:
    assert torch.equal(path_keys(3, 4), path_keys(3, [0, 1, 2, 3]))
    assert torch.equal(path_keys(3, 4), path_keys(3, torch.arange(4, dtype=torch.int32)))
    assert torch.equal(path_keys(3, 4), path_keys(3 + WORD, 4))


def test_no_generator_is_touched() -> None:
    before = torch.get_rng_state()
    block(0, 10, 10, 10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("paths", "elements", "steps"), [(2000, 1, 1000), (20, 1000, 100), (1000, 40, 50)])
def test_moments(paths: int, elements: int, steps: int) -> None:
    """Rate 6e-7 for each of the six moments."""
    z = block(1, paths, elements, steps).flatten()
    for k in range(1, 7):
        mean = scipy.stats.norm.moment(k)
        spread = math.sqrt(scipy.stats.norm.moment(2 * k) - mean**2)
        assert abs(float(z.pow(k).mean()) - mean) * math.sqrt(len(z)) / spread < 5


def test_kolmogorov_smirnov() -> None:
    """Rate 1e-6 each."""
    z = block(2, 2000, 10, 100).flatten()
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > 1e-6
    single = normals(path_keys(2, 2000), (10,), stream=0, count=100, dtype=torch.float32).flatten()
    assert scipy.stats.kstest(single.double().numpy(), "norm").pvalue > 1e-6
    angles = torch.atan2(*block(3, 2000, 10, 100).reshape(50, 2, 2000, 10).unbind(1)).flatten()
    assert scipy.stats.kstest(angles.numpy() / math.pi, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-6


@pytest.mark.statistical
def test_tails() -> None:
    """Counts beyond 4 and 4.5; rate 1e-6 each by the exact binomial law."""
    z = block(4, 2000, 10, 100).flatten().abs()
    for bound in (4.0, 4.5):
        count = int((z > bound).sum())
        assert scipy.stats.binomtest(count, len(z), 2 * scipy.stats.norm.sf(bound)).pvalue > 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize("seed", [0, 1, 77])
@pytest.mark.parametrize("stream", [0, 1, STREAM_GRID])
def test_no_correlation(seed: int, stream: int) -> None:
    """Across steps, paths, elements, odd and even steps, of values and of squares: rate 6e-7 each, 126 in all."""
    z = block(seed, 64, 64, 64, stream)
    for a in (z, (z.square() - 1) / math.sqrt(2)):
        pairs = {
            "step": (a[1:], a[:-1]),
            "two steps": (a[2:], a[:-2]),
            "odd and even": (a[0::2], a[1::2]),
            "path": (a[:, 1:], a[:, :-1]),
            "element": (a[..., 1:], a[..., :-1]),
            "path and step": (a[1:, 1:], a[:-1, :-1]),
            "four corners": (a[:-2, :-1] * a[2:, 1:], a[:-2, 1:] * a[2:, :-1]),
        }
        for where, (p, q) in pairs.items():
            assert abs(correlation(p, q)) < 5, where


@pytest.mark.statistical
@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 1), (STREAM_GRID, STREAM_GRID), (0, 1), (1, 0)])
def test_paths_and_steps_are_different_dimensions(seed: int, stream: int) -> None:
    """Keys of paths and steps are added: a seed that is also a stream must not make z symmetric in the two."""
    z = block(seed, 32, 64, 64, stream)
    for half in (z[0::2], z[1::2]):
        off = ~torch.eye(32, dtype=torch.bool)
        assert abs(correlation(half[off], half.transpose(0, 1)[off])) < 5


@pytest.mark.statistical
def test_streams_and_seeds_are_independent() -> None:
    """Rate 6e-7 each."""
    base = block(9, 64, 64, 64)
    others = [block(9, 64, 64, 64, s) for s in (1, 2, STREAM_GRID, STREAM_LAW, STREAM_LAW + 1)]
    others += [block(s, 64, 64, 64) for s in (10, 8, 9 + 2**32, random.mix(9))]
    for other in others:
        assert abs(correlation(base, other)) < 5
