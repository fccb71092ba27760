r"""Divergences of fields by directional derivatives.

With $J = \partial f/\partial x$ at (t, x), one sample at a time,

$$ \nabla\cdot f = \operatorname{tr} J = \sum_i e_i^\top J e_i = E[v^\top J v], \qquad E[v v^\top] = I, $$

so that one kind of number serves both ways: the quadratic form $v^\top J v$, along the d basis vectors for the exact
trace, or along n random probes for Hutchinson's estimate. Its variance is $\lVert J + J^\top\rVert_F^2/2$ for normal
probes; signs leave out the diagonal of J, and are never worse.

$v^\top J$ comes by reverse mode on one graph, a chunk of directions at once where every operation can be batched; or
$J v$ by forward mode, for a field that shuts autograd out. Which of them is right is not taken on trust: a field that
detaches its answer, or leaves torch, may be differentiated without complaint, to zero. So each is held against
difference quotients before it is used (:func:`quadratic_forms_of`).

References: [hutchinson1989], [grathwohl2019].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F

from sdekit import random
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys
from sdekit.quantiles import fold
from sdekit.typing import Field, Time

Probes = Literal["rademacher", "gaussian"]
"""What random directions are drawn from: signs, or normals."""

Forms = Callable[[Field, Time, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From a field, a time, states (B, *E) and directions (n, B, *E), None for the basis, to the field there and the forms
v·Jv, (n, B)."""

_SAMPLES = 2
_ELEMENTS, _ELSEWHERE = 2**14, 2**22  # that one chunk may make of directions: on the CPU they stay in cache
_SEED = 20_261_130
_STEPS = (4.0, 1.0, 0.25)  # of difference quotients, in units of the cube root of the rounding
_AGREE = 0.1  # how far derivatives may be apart, relative to the larger


def probes(keys: Keys, count: int, kind: Probes, like: Tensor) -> Tensor:
    """Random directions, a function of (seed, path) alone: shape (n, B, *E).

    Args:
        keys: Of the samples.
        count: n.
        kind: ``rademacher`` or ``gaussian``.
        like: The states, (B, *E).

    Raises:
        SdekitError: no probe, or an unknown kind.
    """
    if kind not in get_args(Probes):
        raise unknown_name("kind of probes", kind, get_args(Probes))
    if count < 1:
        raise SdekitError(f"Hutchinson's estimate needs probes ≥ 1; got {count}. Its standard error needs two.")
    wide = torch.promote_types(like.dtype, torch.float32)
    z = random.normals(keys.values, like.shape[1:], stream=random.STREAM_PROBE, count=count, dtype=wide).to(like.dtype)
    return torch.where(z < 0.0, -1.0, 1.0).to(z) if kind == "rademacher" else z


def chunk_of(x: Tensor) -> int:
    """How many directions go at once unless told."""
    return max(1, (_ELEMENTS if x.device.type == "cpu" else _ELSEWHERE) // max(1, x.numel()))


def _cut(x: Tensor, v: Tensor | None, chunk: int) -> Iterator[Tensor]:
    """Directions in chunks; those of the basis, (n, 1, *E), are made one chunk at a time."""
    if v is not None:
        yield from torch.split(v, chunk)
        return
    size = x[0].numel()
    for first in range(0, size, chunk):
        places = torch.arange(first, min(first + chunk, size), device=x.device)
        yield F.one_hot(places, size).to(x).reshape(-1, 1, *x.shape[1:])


def forward_forms(chunk: int) -> Forms:
    """By forward mode, so many directions at once."""

    def forms(field: Field, t: Time, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        def form(direction: Tensor) -> Tensor:
            direction = direction.expand_as(x)
            tangent: Tensor = jvp(lambda y: field(t, y), (x,), (direction,))[1]
            return _paired(direction, tangent, 1)

        return field(t, x), torch.cat([vmap(form)(some) for some in _cut(x, v, chunk)])

    return forms


def reverse_forms(chunk: int, batched: bool) -> Forms:
    """By reverse mode, so many directions at once, or one after the other."""

    def forms(field: Field, t: Time, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            value = field(t, y)
        if not value.requires_grad:
            return value, x.new_zeros(x[0].numel() if v is None else len(v), len(x))

        def pulled(some: Tensor) -> Tensor:
            many = some.expand(len(some), *x.shape)
            options = {"retain_graph": True, "materialize_grads": True}
            if batched:
                return torch.autograd.grad(value, y, many, is_grads_batched=True, **options)[0]
            return torch.stack([torch.autograd.grad(value, y, one, **options)[0] for one in many])

        found = torch.cat([_paired(some, pulled(some), 2) for some in _cut(x, v, chunk)])
        return value.detach(), found

    return forms


def _paired(a: Tensor, b: Tensor, event: int) -> Tensor:
    """a·b of every sample, whose events start at a dimension, summed in an order that no batch changes."""
    return fold((a * b).flatten(event))


def quadratic_forms_of(field: Field, times: tuple[float, ...], x: Tensor, chunk: int | None = None) -> Forms:
    """A way to differentiate this field that is right, as far as difference quotients tell at these times.

    Args:
        field: ``field(t, x)``.
        times: Where it is probed.
        x: States of the kind that it will see, (B, *E); the first two are probed.
        chunk: Directions at once; by default as many as memory allows.

    Raises:
        SdekitError: a chunk below 1; neither way differentiates the field, or both contradict its values.
    """
    if chunk is not None and chunk < 1:
        raise SdekitError(f"chunk is the number of directions at once, at least 1; got {chunk}.")
    size = chunk or chunk_of(x)
    few = x[:_SAMPLES].detach()
    v = probes(Keys.of(_SEED, None, len(few), x.device), 1, "gaussian", few)
    ways = {
        "batched reverse": reverse_forms(size, True),
        "reverse": reverse_forms(size, False),
        "forward": forward_forms(size),
    }
    problems = {}
    for name, way in ways.items():
        try:
            wrong = [problem for t in times if (problem := _contradiction(way, field, t, few, v))]
        except SdekitError:
            raise
        except Exception as error:  # no rule for an operation, a leap out of torch, an operation in place
            problems[name] = f"{type(error).__name__} ({str(error).partition(chr(10))[0]})"
            continue
        if not wrong:
            return way
        problems[name] = wrong[0]
    told = "; ".join(f"in {name} mode, {problem}" for name, problem in problems.items())
    raise SdekitError(
        f"The divergence of this field cannot be had, since its derivatives cannot: {told}. Is something detached, or "
        "computed in numpy? A score that is itself a gradient needs torch.func.grad, or torch.autograd.grad with "
        "create_graph=True on the state that it was given."
    )


def _contradiction(way: Forms, field: Field, t: float, x: Tensor, v: Tensor) -> str | None:
    """What is wrong with the derivatives at a time; None where nothing is, or where quotients cannot tell."""
    traced = way(field, t, x, v)[1][0].double()
    size = float(x.square().mean().sqrt()) or 1.0
    base = size * float(torch.finfo(x.dtype).eps) ** (1.0 / 3.0)
    quotients = torch.stack([_quotient(field, t, x, v[0], share * base) for share in _STEPS])
    if not bool(quotients.isfinite().all()):
        return None  # the run will say so
    found, spread = quotients.median(0).values, quotients.amax(0) - quotients.amin(0)
    apart = (traced - found).abs()
    # Where quotients differ from one another the field is rough at these lengths, and they prove nothing.
    off = (apart > _AGREE * torch.maximum(traced.abs(), found.abs())) & (spread < _AGREE * apart)
    if not bool(off.any()):
        return None
    i = int(off.nonzero()[0])
    return f"v·Jv = {float(traced[i]):.4g} at t = {t:g}, and its difference quotient is {float(found[i]):.4g}"


def _quotient(field: Field, t: float, x: Tensor, v: Tensor, step: float) -> Tensor:
    with torch.no_grad():
        moved = field(t, x + step * v) - field(t, x - step * v)
    return _paired(v.double(), moved.double(), 1) / (2.0 * step)
