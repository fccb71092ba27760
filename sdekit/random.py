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
was cut into chunks.

References: [steele2014], [boxmuller1958]; the idea of counter-based numbers is [salmon2011].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.typing import Shape

_WORD = 2**64
_GAMMA = 0x9E3779B97F4A7C15  # 2⁶⁴ / golden ratio, odd
_GAMMA_ELEMENT = 0xD1B54A32D192ED03  # odd; from Steele & Vigna's table of LXM multipliers
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LOW40 = 2**40 - 1
_CHUNK = {"cpu": 2**17}  # words hashed at a time: their temporaries stay in cache; elsewhere only memory counts

STREAM_STEP = 0  # the first draw of a step; the j-th is stream j
STREAM_GRID = 1 << 32  # fine increments of a Brownian path
STREAM_LAW = 2 << 32  # samples of a law: initial states and priors
STREAM_STEP_LEVY = 4 << 32  # Lévy areas of a step, as STREAM_STEP
STREAM_GRID_LEVY = 5 << 32  # Lévy areas of the fine increments
STREAM_FRESH = 6 << 32  # normals beside the path, like the state; the j-th of a step is stream j
STREAM_FRESH_SAMPLE = 7 << 32  # normals beside the path, one for every sample
STREAM_END = 8 << 32  # what end='exact-linear' draws, once
STREAM_STEP_AREA = 16 << 32  # what the areas of a step's pairs of noises need beside W and H
STREAM_GRID_AREA = 17 << 32  # the same of the fine increments
STREAM_STEP_TWO_POINT = 18 << 32  # two-point variables of a step


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


def _mix_(x: Tensor) -> Tensor:
    """:func:`mix` of every int64 of ``x``, in place (shifts are arithmetic in torch, so they are masked)."""
    t = torch.empty_like(x)
    for shift, factor in ((30, _M1), (27, _M2)):
        torch.bitwise_right_shift(x, shift, out=t)
        x.bitwise_xor_(t.bitwise_and_(2 ** (64 - shift) - 1)).mul_(_signed(factor))
    torch.bitwise_right_shift(x, 31, out=t)
    return x.bitwise_xor_(t.bitwise_and_(2**33 - 1))


def path_keys(seed: int, paths: int | Sequence[int] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Keys of the paths of one seed.

    Args:
        seed: Any integer (taken modulo 2⁶⁴).
        paths: The number of paths (numbered from 0), or their global numbers, one per sample.
        device: Where the keys live.

    Returns:
        int64 tensor of shape (B,).
    """
    numbers = torch.arange(paths) if isinstance(paths, int) else torch.as_tensor(paths)
    if numbers.ndim != 1 or numbers.is_floating_point():
        raise SdekitError(
            f"paths must be whole numbers, one per sample; got shape {tuple(numbers.shape)} of {numbers.dtype}."
        )
    return _mix_(numbers.to(device, torch.int64).mul(_signed(_GAMMA)).add_(_signed(key(seed))))


def normals(
    keys: Tensor,
    event_shape: Shape,
    *,
    stream: int,
    start: int = 0,
    count: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Standard normals of steps ``start`` … ``start + count − 1``.

    Args:
        keys: Path keys, shape (B,), from :func:`path_keys`.
        event_shape: Shape E of one draw.
        stream: Which independent family of draws.
        start: First step.
        count: Number of steps.
        dtype: float64 and float32 are drawn; narrower types are rounded from float32.

    Returns:
        Tensor of shape (count, B, *E).
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    first, last = start // 2, (start + count - 1) // 2
    numel = math.prod(event_shape)
    elements = torch.arange(numel, device=keys.device).mul_(_signed(_GAMMA_ELEMENT))
    # Two words: path and step keys are added, so no seed may have the key of a stream (z would be
    # symmetric in path and step).
    stream_key = key(0, stream)
    pairs = torch.arange(first, last + 1, device=keys.device)
    steps = _mix_(pairs.mul_(_signed(_GAMMA)).add_(_signed(stream_key)))
    places = (keys[:, None] + elements).flatten()
    out = torch.empty((len(steps), 2, len(places)), dtype=wide, device=keys.device)
    chunk = _CHUNK.get(keys.device.type, 2**24)
    rows = max(1, chunk // max(1, len(places)))
    for i in range(0, len(steps), rows):
        for j in range(0, len(places), chunk):
            word = steps[i : i + rows, None] + places[j : j + chunk]
            _box_muller(_mix_(word), out[i : i + rows, :, j : j + chunk])
    flat = out.flatten(0, 1)[start - 2 * first :][:count]
    return flat.reshape(count, len(keys), *event_shape).to(dtype)


def _box_muller(word: Tensor, out: Tensor) -> None:
    """Two normals from every word, into ``out[:, 0]`` and ``out[:, 1]``. Overwrites ``word``."""
    if out.dtype == torch.float64:
        extra = _mix_(word + _signed(_GAMMA))
        angle = (word & ~_LOW40) | (extra & _LOW40)
        bits, scale = word.bitwise_and_(_LOW40).mul_(2**13), 2.0**-53
        bits.add_((extra >> 51).bitwise_and_(2**13 - 1))
        theta = angle.to(out.dtype)
    else:
        theta = word.to(out.dtype)
        bits, scale = word.bitwise_and_(_LOW40), 2.0**-40
    radius = bits.to(out.dtype)
    torch.add(radius.new_full((), scale / 2), radius, alpha=scale, out=radius)  # in (0, 1]
    radius.log_().mul_(-2.0).sqrt_()
    theta.mul_(math.pi * 2.0**-63)
    torch.cos(theta, out=out[:, 0]).mul_(radius)
    torch.sin(theta, out=out[:, 1]).mul_(radius)
