"""Evidence that the keyed normals are as good as random: 6·10⁸ of them, and what the same tests say of faulty ones.

Every check returns p-values under the hypothesis of independent N(0, 1). It fails if the least of its k p-values is
below 10⁻⁶/k, so a perfect generator fails it with a probability of at most 10⁻⁶, and any of the ten with 10⁻⁵.
Each has to reject generators with a planted fault, most of them at a smaller size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from sdekit import random

RATE = 1e-6
pytestmark = [pytest.mark.certify, pytest.mark.statistical]

Check = Callable[[float], Iterator[float]]
"""p-values, from so many draws as a share of the full size."""


def accepts(check: Check, share: float = 1.0) -> bool:
    values = list(check(share))
    return min(values) > RATE / len(values)


def block(seed: int, paths: int, elements: int, steps: int, dtype: torch.dtype = torch.float64, **at: int) -> Tensor:
    """Normals in float64, of shape (steps, paths, elements)."""
    keys = random.path_keys(seed, paths)
    z = random.normals(keys, (elements,), stream=at.get("stream", 0), start=0, count=steps, dtype=dtype)
    return z.double()


def pairs(seed: int, *shape: int) -> Tensor:
    """Even steps as real, odd ones as imaginary part: shape (steps / 2, paths, elements)."""
    paths, elements, steps = shape
    z = block(seed, paths, elements, steps)
    return torch.complex(z[0::2], z[1::2])


def two_sided(z: float | np.ndarray) -> float:
    return float(2 * scipy.stats.norm.sf(np.abs(z)))


def chi_squared(counts: Tensor) -> float:
    """Of equally likely cells; too even is wrong as well."""
    expected = float(counts.sum()) / counts.numel()
    statistic = float((counts.double() - expected).square().sum()) / expected
    law = scipy.stats.chi2(counts.numel() - 1)
    return 2.0 * float(min(law.sf(statistic), law.cdf(statistic)))


def kolmogorov(counts: Tensor) -> float:
    """Of equally likely cells in order. Seen at the edges only, the distance is less: fewer false alarms."""
    n = float(counts.sum())
    edges = torch.arange(1, counts.numel() + 1, dtype=torch.float64) / counts.numel()
    return float(scipy.stats.kstwobign.sf(math.sqrt(n) * float((counts.cumsum(0) / n - edges).abs().max())))


def cells(u: Tensor, count: int) -> Tensor:
    """Which of equally long intervals a number of [0, 1] is in."""
    return (u * count).long().clamp_(0, count - 1)


# --- the law of one, and of a pair --------------------------------------------------------------------

SHAPES = [(1, 1, 2**22), (2**21, 1, 2), (1, 2**21, 2), (2**9, 2**5, 2**8)]  # paths, elements, steps


def blocks(share: float, dtype: torch.dtype, first: int) -> Iterator[Tensor]:
    """16 blocks at full size, 2²⁶ normals in all."""
    for i in range(max(1, round(16 * share))):
        yield block(first + i, *SHAPES[i % 4], dtype=dtype)


def moments(share: float) -> Iterator[float]:
    """The first eight."""
    for dtype in (torch.float64, torch.float32):
        sums, n = torch.zeros(8, dtype=torch.float64), 0
        for z in blocks(share, dtype, 100):
            power = torch.ones_like(z)
            for k in range(8):
                sums[k] += power.mul_(z).sum()
            n += z.numel()
        for k, total in enumerate(sums.tolist(), 1):
            mean = scipy.stats.norm.moment(k)
            spread = math.sqrt(scipy.stats.norm.moment(2 * k) - mean**2)
            yield two_sided((total / n - mean) * math.sqrt(n) / spread)


def distribution(share: float) -> Iterator[float]:
    """Φ(z), the angle of a pair and exp(−r²/2), which are uniform: Kolmogorov–Smirnov and χ² of 2¹⁶ cells."""
    for dtype in (torch.float64, torch.float32):
        counts = torch.zeros(3, 2**16, dtype=torch.int64)
        for z in blocks(share, dtype, 200):
            even, odd = z[0::2], z[1::2]
            angle = torch.atan2(odd, even) / (2 * math.pi) + 0.5
            uniforms = torch.special.ndtr(z), angle, (-0.5 * (even.square() + odd.square())).exp()
            counts += torch.stack([torch.bincount(cells(u, 2**16).flatten(), minlength=2**16) for u in uniforms])
        for row in counts:
            yield kolmogorov(row)
            yield chi_squared(row)


def tails(share: float) -> Iterator[float]:
    """How many are beyond 3, 3.5, …, 5, above, below and in all, by the binomial law."""
    bounds = torch.tensor([3.0, 3.5, 4.0, 4.5, 5.0], dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        counts, n = torch.zeros(2, 5, dtype=torch.int64), 0
        for z in blocks(share, dtype, 300):
            far = z[z.abs() > 3.0, None]
            counts += torch.stack([(far > bounds).sum(0), (far < -bounds).sum(0)])
            n += z.numel()
        for k, bound in enumerate(bounds.tolist()):
            beyond, (above, below) = scipy.stats.norm.sf(bound), counts[:, k].tolist()
            for count, chance in ((above, beyond), (below, beyond), (above + below, 2.0 * beyond)):
                yield float(scipy.stats.binomtest(count, n, chance).pvalue)


# --- of several -----------------------------------------------------------------------------------------


def features(z: Tensor) -> list[Tensor]:
    """Of mean 0 and variance 1, uncorrelated: the value, its square, its sign where the value is blind."""
    root = math.sqrt(2.0 / math.pi)
    return [z, (z.square() - 1.0) / math.sqrt(2.0), (z.sign() - root * z) / math.sqrt(1.0 - root**2)]


def correlated(a: Tensor, b: Tensor) -> Iterator[float]:
    """E f(a) g(b) = 0 for all pairs of features."""
    for f, g in itertools.product(features(a), features(b)):
        yield two_sided(float((f * g).sum()) / math.sqrt(f.numel()))


def shifted(z: Tensor, shift: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """What lies so far apart."""
    here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(shift, z.shape, strict=True))
    there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(shift, z.shape, strict=True))
    return z[here], z[there]


NEAR = [s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]
FAR = [tuple(d * e for e in axis) for d in (2, 3, 4, 8, 16) for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]


def neighbours(share: float) -> Iterator[float]:
    """Steps, paths and elements: all shifts by one, and up to 16 along each."""
    side = round(128 * share ** (1 / 3))
    z = block(400, side, side, 2 * side)
    for shift in NEAR + FAR:
        yield from correlated(*shifted(z, shift))
    for shift in [(d, *s[1:]) for d in (-2, 2) for s in NEAR]:  # to the next word of a step
        yield from correlated(*shifted(z, shift))


def corners(share: float) -> Iterator[float]:
    """Rectangles, for keys are added: the product of their four corners has mean 0, of values and of signs."""
    side = round(128 * share ** (1 / 3))
    z = block(450, side, side, 2 * side)
    for sample in (z, z.sign()):
        for i, j in itertools.combinations(range(3), 2):
            for length in (1, 2, 4):
                a = sample.narrow(i, 0, sample.shape[i] - length) * sample.narrow(i, length, sample.shape[i] - length)
                product = a.narrow(j, 0, a.shape[j] - length) * a.narrow(j, length, a.shape[j] - length)
                yield two_sided(float(product.sum()) / math.sqrt(product.numel()))


def families(share: float) -> Iterator[float]:
    """Seeds and streams beside one another."""
    side = round(100 * share ** (1 / 3))
    streams = [0, 1, 2, random.STREAM_GRID, random.STREAM_LAW, random.STREAM_STEP_LEVY, random.STREAM_END]
    seeds = [500, 501, 499, 500 + 2**31, 500 + 2**32, 500 + 2**63, -500, random.key(500), random.mix(500)]
    for at in [{"seed": 500, "stream": s} for s in streams[1:]] + [{"seed": s, "stream": 0} for s in seeds[1:]]:
        base, other = block(500, side, side, side), block(at["seed"], side, side, side, stream=at["stream"])
        yield from correlated(base, other)
        yield from correlated(base, other.transpose(0, 1))


def flipped(share: float) -> Iterator[float]:
    """Addresses that differ in one bit of the seed, the stream, the path or the pair of steps."""
    n = round(2**17 * share)
    source = torch.Generator().manual_seed(0)
    low = {"seed": 2**62, "stream": 2**62, "path": 2**62, "index": 2**52}
    start = {name: torch.randint(high, (n,), generator=source) for name, high in low.items()}

    def drawn(**address: Tensor) -> Tensor:
        at = start | address
        keys = random.seed_keys(at["seed"]) if "seed" in address else random.path_keys(600, at["path"])
        return random.normals_at(keys, (2,), stream=at["stream"], index=at["index"])

    paths, seeds = drawn(), drawn(seed=start["seed"])
    for name, high in low.items():
        for bit in range(high.bit_length() - 1):
            other = drawn(**{name: start[name] ^ (1 << bit)})
            yield from correlated(seeds if name == "seed" else paths, other)


def spectrum(share: float) -> Iterator[float]:
    """Periodograms along each axis, and in all three at once: exponential, and no ordinate too large."""
    n, side = round(2**20 * share) // 2 * 2, round(100 * share ** (1 / 3))
    for shape in ((1, 1, 2 * n), (n, 1, 2), (1, n, 2), (side, side, 2 * side)):
        x = pairs(700, *shape)
        for f, g in zip(features(x.real), features(x.imag), strict=True):
            power = torch.fft.fftn(torch.complex(f, g)).abs().square().flatten() / (2 * x.numel())
            yield -math.expm1(power.numel() * math.log1p(-math.exp(-float(power.max()))))
            yield float(scipy.stats.kstest(power.numpy(), "expon").pvalue)


def serial(share: float) -> Iterator[float]:
    """Two neighbours in 64² cells and three in 16³, along each axis; cosine and sine of a word in 256²."""
    n = round(2**22 * share)
    for seed, shape in enumerate(((4, 1, n // 4), (n // 2, 1, 2), (1, n // 2, 2))):
        z = block(800 + seed, *shape)
        u = torch.special.ndtr(z.flatten(1).T if seed == 0 else z.flatten(1))
        for count, length in ((64, 2), (16, 3)):
            rows = cells(u, count)[:, : u.shape[1] // length * length].reshape(-1, length)
            code = sum(rows[:, i] * count**i for i in range(length))
            yield chi_squared(torch.bincount(code, minlength=count**length))
    u = cells(torch.special.ndtr(block(810, 4, n // 4, 2)), 256).flatten(1)
    yield chi_squared(torch.bincount(u[0] * 256 + u[1], minlength=2**16))


def birthdays(share: float) -> Iterator[float]:
    """Equal spacings between 2¹⁵ of 2⁴⁰ days, 64 times: Poisson, eight a year. Of angles and of radii."""
    n, days = 2**15, 2.0**40
    years = max(1, round(64 * share))
    for axis, shape in enumerate(((years, 1, 2 * n), (n, 1, 2 * years), (1, n, 2 * years))):
        x = pairs(900 + axis, *shape)
        x = x.flatten(1).T if axis == 0 else x.flatten(1)
        for u in (x.angle() / (2 * math.pi) + 0.5, (-0.5 * (x.real.square() + x.imag.square())).exp()):
            born = (u * days).long().sort(1).values
            spacings = born.diff(dim=1).sort(1).values
            equal, expected = int((spacings.diff(dim=1) == 0).sum()), years * n**3 / (4 * days)
            law = scipy.stats.poisson(expected)
            yield min(1.0, 2.0 * float(min(law.sf(equal - 1), law.cdf(equal))))


CHECKS = (moments, distribution, tails, neighbours, corners, families, flipped, spectrum, serial, birthdays)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_quality(check: Check) -> None:
    """Rate 1e-6 each."""
    assert accepts(check)


# --- planted faults ---------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def sums(patch: pytest.MonkeyPatch) -> None:
    """The sum of mixed keys is not mixed."""
    patch.setattr(random, "_mix_", lambda x, spare: None)


def lost_bit(patch: pytest.MonkeyPatch) -> None:
    """The last shift keeps the sign: x and its complement become one."""
    right = random._mix_

    def signed(x: Tensor, spare: Tensor) -> None:
        right(x, spare)
        x.bitwise_and_(2**63 - 1)

    patch.setattr(random, "_mix_", signed)


def keys_unmixed(patch: pytest.MonkeyPatch) -> None:
    """The sum of path and step is what counts."""
    patch.setattr(random, "_mix", lambda x: x)
    patch.setattr(random, "_numbered_keys", random._numbered_keys.__wrapped__)  # which keeps keys that were mixed


def nothing_mixed(patch: pytest.MonkeyPatch) -> None:
    keys_unmixed(patch)
    sums(patch)


def no_step_key(patch: pytest.MonkeyPatch) -> None:
    right = random._draw
    patch.setattr(random, "_draw", lambda steps, *rest: right(torch.zeros_like(steps), *rest))


def no_stream(patch: pytest.MonkeyPatch) -> None:
    right = random.key
    patch.setattr(random, "key", lambda *words: right(words[0]))


def short_seed(patch: pytest.MonkeyPatch) -> None:
    """32 bits of it."""
    right = random.key
    patch.setattr(random, "key", lambda first, *rest: right(first % 2**32, *rest))


def short_path(patch: pytest.MonkeyPatch) -> None:
    """32 bits of it."""
    right = random.path_keys
    patch.setattr(random, "path_keys", lambda seed, paths: right(seed, torch.as_tensor(paths) % 2**32))


def polar(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Patch:
    """Another angle and radius."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = random._polar_

        def changed(words: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
            theta, radius, free = right(words, dtype)
            return *change(theta, radius), free

        patch.setattr(random, "_polar_", changed)

    return plant


def coarse_radius(bits: int) -> Patch:
    def coarse(theta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        u = (radius.double().square() * -0.5).exp()
        u = ((u * 2.0**bits).floor() + 0.5) * 2.0**-bits
        return theta, (u.clamp(max=1.0).log() * -2.0).sqrt().to(radius.dtype)

    return polar(coarse)


coarse_angle = polar(lambda theta, radius: ((theta * (2**11 / math.pi)).floor() * (math.pi / 2**11), radius))
too_wide = polar(lambda theta, radius: (theta, radius * 1.002))


def shared(patch: pytest.MonkeyPatch) -> None:
    """The odd step has the noise of the even one, with a sign of its own."""
    right = random._draw

    def copied(*address: object) -> Tensor:
        z = right(*address)
        z[:, 1] = z[:, 0].abs().copysign(z[:, 1])
        return z

    patch.setattr(random, "_draw", copied)


FAULTS = {
    moments: {"too wide": too_wide, "lost bit": lost_bit},
    distribution: {"lost bit": lost_bit, "angle of 12 bits": coarse_angle},
    tails: {"radius of 16 bits": coarse_radius(16), "too wide": too_wide},
    neighbours: {"keys not mixed": keys_unmixed, "no step key": no_step_key, "shared": shared, "sums": sums},
    corners: {"sums": sums, "no step key": no_step_key},
    families: {"no stream": no_stream, "seed of 32 bits": short_seed, "keys not mixed": keys_unmixed},
    flipped: {"path of 32 bits": short_path, "nothing mixed": nothing_mixed},
    spectrum: {"sums": sums, "no step key": no_step_key, "keys not mixed": keys_unmixed},
    serial: {"sums": sums, "shared": shared, "lost bit": lost_bit},
    birthdays: {"sums": sums, "radius of 24 bits": coarse_radius(24), "angle of 12 bits": coarse_angle},
}
SHARES = {tails: 1.0, moments: 0.25}
PLANTED = [
    pytest.param(check, fault, id=f"{check.__name__}-{name}")
    for check, row in FAULTS.items()
    for name, fault in row.items()
]


@pytest.mark.parametrize(("check", "fault"), PLANTED)
def test_a_planted_fault_is_seen(check: Check, fault: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert not accepts(check, SHARES.get(check, 1 / 16))
