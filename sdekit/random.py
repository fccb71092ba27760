r"""Normals as a pure function of (seed, path, stream, step, element).

There is no generator and no state. One 64-bit word is hashed for two steps,

$$ w = \mathrm{mix}\bigl(\underbrace{\mathrm{mix}(k_\text{seed} + p\,\Gamma)}_{\text{path key}}
     + e\,\Gamma_e + \underbrace{\mathrm{mix}(k_\text{stream} + \lfloor n/2 \rfloor\,\Gamma)}_{\text{step key}}\bigr)
     \bmod 2^{64}, $$

with the finaliser of SplitMix64 as mix, and Box–Muller turns it into the normals of the even step
(cosine) and of the odd step (sine). The angle is the top 24 bits of ``w`` and the radius the low 40;
in float64 a second hash supplies 40 further bits of angle and 13 of radius, so that a float32 draw is
the float64 draw of the same address to about 1e-6 (to 1e-7/r where the radius r is small). Since keys
are added, a sample's noise depends on its own path number alone: not on the batch, its order, or how it
was cut into chunks. ``docs/noise.md`` is the specification, with known answers.

References: [steele2014], [boxmuller1958]; the idea of counter-based numbers is [salmon2011].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.typing import Shape

_WORD = 2**64
_GAMMA = 0x9E3779B97F4A7C15  # 2⁶⁴ / golden ratio, odd
_GAMMA_ELEMENT = 0xD1B54A32D192ED03  # odd; from Steele & Vigna's table of LXM multipliers
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LOW40 = 2**40 - 1
_LONG = 256  # elements from which a sample is hashed as a row of its own
_SHORT = 16  # the same of compiled code
_FEW = 2**13  # words that are hashed at once
_BLOCK = 2**16  # words hashed at a time by a thread: their temporaries stay in cache; elsewhere only memory counts

STREAM_STEP = 0  # the first draw of a step; the j-th is stream j
STREAM_GRID = 1 << 32  # fine increments of a Brownian path
STREAM_LAW = 2 << 32  # samples of a law: initial states and priors
STREAM_STEP_LEVY = 4 << 32  # Lévy areas of a step, as STREAM_STEP
STREAM_GRID_LEVY = 5 << 32  # Lévy areas of the fine increments
STREAM_FRESH = 6 << 32  # normals beside the path, like the state; the j-th of a step is stream j
STREAM_FRESH_SAMPLE = 7 << 32  # normals beside the path, one for every sample
STREAM_END = 8 << 32  # what end='exact-linear' draws, once
STREAM_PROBE = 9 << 32  # directions of a divergence; the j-th is step j
STREAM_DEQUANTISATION = 10 << 32  # what is added to levels
STREAM_STEP_AREA = 16 << 32  # what the areas of a step's pairs of noises need beside W and H
STREAM_GRID_AREA = 17 << 32  # the same of the fine increments
STREAM_STEP_TWO_POINT = 18 << 32  # two-point variables of a step
STREAM_TREE = 24 << 32  # the root of a tree; what splits its nodes of level ℓ is stream 1 + ℓ


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


def mix(word: int) -> int:
    """SplitMix64's finaliser, a bijection of 64-bit words."""
    word %= _WORD
    word = (word ^ (word >> 30)) * _M1 % _WORD
    word = (word ^ (word >> 27)) * _M2 % _WORD
    return word ^ (word >> 31)


def key(*words: int) -> int:
    """One key from several integers, order mattering."""
    folded = 0
    for word in words:
        folded = mix(folded + word + _GAMMA)
    return folded


def _mix(x: Tensor) -> Tensor:
    """:func:`mix` of every int64 of ``x`` (shifts are arithmetic in torch, so they are masked)."""
    for shift, factor in ((30, _M1), (27, _M2)):
        x = (x ^ (x >> shift & (2 ** (64 - shift) - 1))) * _signed(factor)
    return x ^ (x >> 31 & (2**33 - 1))


def _mix_(x: Tensor, spare: Tensor) -> None:
    """:func:`_mix` in place; ``spare`` is like ``x``."""
    if x.device.type == "cpu" and torch.get_num_threads() == 1:  # the same integers; by numpy in 0.6 of the time
        word, moved = x.numpy().view(np.uint64), spare.numpy().view(np.uint64)
        for shift, factor in ((30, _M1), (27, _M2)):
            np.bitwise_xor(word, np.right_shift(word, shift, out=moved), out=word)
            np.multiply(word, np.uint64(factor), out=word)
        np.bitwise_xor(word, np.right_shift(word, 31, out=moved), out=word)
        return
    for shift, factor in ((30, _M1), (27, _M2)):
        torch.bitwise_right_shift(x, shift, out=spare)
        x.bitwise_xor_(spare.bitwise_and_(2 ** (64 - shift) - 1)).mul_(_signed(factor))
    torch.bitwise_right_shift(x, 31, out=spare)
    x.bitwise_xor_(spare.bitwise_and_(2**33 - 1))


def _numbers(n: int, device: torch.device | str) -> Tensor:
    """0 … n − 1. The mask keeps compilers from taking products with them for indices, which lose their low bits."""
    numbers = torch.arange(n, device=device)
    return numbers & (2**63 - 1) if torch.compiler.is_compiling() else numbers


def path_keys(seed: int, paths: int | Sequence[int] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Keys of the paths of one seed.

    Args:
        seed: Any integer (taken modulo 2⁶⁴).
        paths: The number of paths (numbered from 0), or their global numbers, one per sample.
        device: Where the keys live.

    Returns:
        int64 tensor of shape (B,).
    """
    if isinstance(paths, int):
        return _numbered_keys(seed, paths, torch.device(device))
    numbers = torch.as_tensor(paths)
    if numbers.ndim != 1 or numbers.is_floating_point():
        raise SdekitError(
            f"paths must be whole numbers, one per sample; got shape {tuple(numbers.shape)} of {numbers.dtype}."
        )
    return _keys_of(seed, numbers.to(device, torch.int64))


def _keys_of(seed: int, numbers: Tensor) -> Tensor:
    return _mix(numbers * _signed(_GAMMA) + _signed(key(seed)))


@lru_cache(maxsize=8)
def _numbered_keys(seed: int, count: int, device: torch.device) -> Tensor:
    """The keys of the paths 0 … count − 1, for runs that follow one another."""
    return _keys_of(seed, _numbers(count, device))


def seed_keys(seeds: Sequence[int] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Keys of path 0 of many seeds.

    Args:
        seeds: Integers (taken modulo 2⁶⁴), one per sample.
        device: Where the keys live.

    Returns:
        int64 tensor of shape (B,); entry i is ``path_keys(seeds[i], 1)``.
    """
    numbers = seeds if isinstance(seeds, Tensor) else torch.tensor([_signed(s) for s in seeds], dtype=torch.int64)
    if numbers.ndim != 1 or numbers.is_floating_point():
        raise SdekitError(
            f"Seeds must be whole numbers, one per sample; got shape {tuple(numbers.shape)} of {numbers.dtype}."
        )
    return _mix(_mix(numbers.to(device, torch.int64) + _signed(_GAMMA)))


def normals(
    keys: Tensor,
    event_shape: Shape,
    *,
    stream: int,
    start: int | Tensor = 0,
    count: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Standard normals of steps ``start`` … ``start + count − 1``.

    Traces with ``torch.compile(fullgraph=True)``; with ``start`` a tensor, one graph serves every block of steps.

    Args:
        keys: Path keys, shape (B,), from :func:`path_keys`.
        event_shape: Shape E of one draw.
        stream: Which independent family of draws.
        start: First step; as a 0-dim int64 tensor it must be even, which is not checked.
        count: Number of steps.
        dtype: float64 and float32 are drawn; narrower types are rounded from float32.

    Returns:
        Tensor of shape (count, B, *E).
    """
    odd = 0 if isinstance(start, Tensor) else start % 2
    pairs = _numbers((odd + count + 1) // 2, keys.device) + start // 2
    # Two words: path and step keys are added, so no seed may have the key of a stream (z would be
    # symmetric in path and step).
    steps = _mix(pairs * _signed(_GAMMA) + _signed(key(0, stream)))
    out = _draw(steps, keys, math.prod(event_shape), dtype)
    return out.flatten(0, 1)[odd : odd + count].reshape(count, len(keys), *event_shape).to(dtype)


def normals_at(
    keys: Tensor,
    event_shape: Shape,
    *,
    stream: int | Tensor,
    index: int | Tensor,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The two standard normals of a pair of steps, another pair for every sample.

    Entry i is what :func:`normals` of ``keys[i]`` has at the steps 2n and 2n + 1 of its stream, with n = ``index[i]``.

    Args:
        keys: Path keys, shape (B,), from :func:`path_keys`.
        event_shape: Shape E of one draw.
        stream: Which independent family of draws; a number, or int64 of shape (B,).
        index: The number n of the pair; likewise.
        dtype: As in :func:`normals`.

    Returns:
        Tensor of shape (2, B, *E).

    Raises:
        SdekitError: a tensor of streams or of indices that has not one whole number per sample.
    """
    for name, value in (("stream", stream), ("index", index)):
        if isinstance(value, Tensor) and (value.shape != keys.shape or value.dtype != torch.int64):
            raise SdekitError(
                f"{name} must be a number, or int64 with one for each of {len(keys)} samples; "
                f"got shape {tuple(value.shape)} of {value.dtype}."
            )
    families = _mix(stream + _signed(key(0) + _GAMMA)) if isinstance(stream, Tensor) else _signed(key(0, stream))
    pairs = torch.as_tensor(index, dtype=torch.int64, device=keys.device)
    steps = _mix(pairs * _signed(_GAMMA) + families)
    out = _draw(keys.new_zeros(1), keys + steps, math.prod(event_shape), dtype)
    return out.reshape(2, len(keys), *event_shape).to(dtype)


def _draw(steps: Tensor, keys: Tensor, numel: int, dtype: torch.dtype) -> Tensor:
    """Two normals for every step key, path key and element: shape (n, 2, B, numel)."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (len(steps), 2, len(keys), numel)
    compiling = torch.compiler.is_compiling()
    if compiling or math.prod(shape) <= 2 * _FEW:  # in few calls, where these are what costs
        words = _mix(steps[:, None, None] + _places(keys, numel, _SHORT if compiling else _LONG))
        return torch.stack(_box_muller(words, wide), 1).reshape(shape)
    if numel < _LONG:
        sums, places = steps[:, None, None], _places(keys, numel, _LONG)[0]
    else:
        sums, places = (steps[:, None] + keys)[..., None], _numbers(numel, keys.device) * _signed(_GAMMA_ELEMENT)
    out = torch.empty((len(steps), 2, sums.shape[1], len(places)), dtype=wide, device=keys.device)
    _fill(sums, places, out)
    return out.view(shape)


def _places(keys: Tensor, numel: int, long: int) -> Tensor:
    """Path and element keys added: a row for every sample, or one for all if theirs are not long enough for a loop."""
    if numel == 1:
        return keys[None]
    if 0 < numel < long and torch.compiler.is_compiling():  # a stack is written to memory; an expression of its
        return torch.stack([keys + _signed(e * _GAMMA_ELEMENT) for e in range(numel)], 1).reshape(1, -1)  # indices not
    places = keys[:, None] + _numbers(numel, keys.device) * _signed(_GAMMA_ELEMENT)
    return places.view(1, -1) if numel < long else places


def _box_muller(words: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The cosine's and the sine's normal of every word."""
    angles, bits, digits = words, words & _LOW40, 40
    if dtype == torch.float64:
        extra = _mix(words + _signed(_GAMMA))
        angles = words ^ ((words ^ extra) & _LOW40)
        bits, digits = bits * 2**13 + (extra >> 51 & (2**13 - 1)), 53
    radius = (-2.0 * (bits.to(dtype) * 2.0**-digits + 2.0 ** -(digits + 1)).log()).sqrt()
    theta = angles.to(dtype) * (math.pi * 2.0**-63)
    return theta.cos() * radius, theta.sin() * radius


def _fill(sums: Tensor, places: Tensor, out: Tensor) -> None:
    """The same into ``out`` of shape (n, 2, R, C) from keys (n, R, 1) and (C,), by blocks that stay in cache."""
    n, _, rows, columns = out.shape
    size = _BLOCK * torch.get_num_threads() if out.device.type == "cpu" else 2**24
    width = _part(columns, size)
    height = _part(rows, size // width)
    depth = _part(n, size // (width * height))
    lanes = 3 if out.dtype == torch.float64 else 2
    words = torch.empty((lanes, depth * height * width), dtype=torch.int64, device=out.device)
    for i, j, k in itertools.product(range(0, n, depth), range(0, rows, height), range(0, columns, width)):
        normals = out[i : i + depth, :, j : j + height, k : k + width].unbind(1)
        shape, block = normals[0].shape, words[:, : normals[0].numel()]
        torch.add(sums[i : i + depth, j : j + height], places[k : k + width], out=block[0].view(shape))
        theta, radius, spare = _polar_(block, out.dtype)
        for wave, z in zip((torch.cos, torch.sin), normals, strict=True):
            torch.mul(wave(theta, out=spare).view(shape), radius.view(shape), out=z)


def _part(n: int, most: int) -> int:
    """The length of about n / most equal parts of n."""
    return max(1, math.ceil(n / max(1, round(n / max(1, most)))))


def _polar_(words: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Angle, radius and memory like them, from the addresses in the first row of ``words`` and in its memory."""
    word, spare = words[0], words[1]
    _mix_(word, spare)
    if dtype == torch.float64:
        extra, digits = words[2], 53
        torch.add(word, _signed(_GAMMA), out=extra)
        _mix_(extra, spare)
        torch.bitwise_xor(word, extra, out=spare).bitwise_and_(_LOW40).bitwise_xor_(word)
        word.bitwise_and_(_LOW40).mul_(2**13)
        word.add_(extra.bitwise_right_shift_(51).bitwise_and_(2**13 - 1))
        radius, theta, free = extra.view(dtype).copy_(word), word.view(dtype).copy_(spare), spare.view(dtype)
    else:
        (theta, radius), free, digits = spare.view(dtype).view(2, -1), word.view(dtype)[: len(word)], 40
        theta.copy_(word)
        radius.copy_(word.bitwise_and_(_LOW40))
    torch.add(radius.new_full((), 2.0 ** -(digits + 1)), radius, alpha=2.0**-digits, out=radius)  # in (0, 1]
    radius.log_().mul_(-2.0).sqrt_()
    return theta.mul_(math.pi * 2.0**-63), radius, free
