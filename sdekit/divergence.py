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

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.func import jvp, vmap

from sdekit import random
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys
from sdekit.quantiles import fold
from sdekit.typing import Field, Shape, Time

Probes = Literal["rademacher", "gaussian"]
"""What random directions are drawn from: signs, or normals."""

Forms = Callable[[Field, Time, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a field, a time, states (B, *E) and directions (n, B or 1, *E) to the field there and the forms v·Jv, (n, B)."""

_SAMPLES = 2
_ELEMENTS, _ELSEWHERE = 2**14, 2**22  # that one chunk may make of directions: on the CPU they stay in cache
_SEED = 20_261_130
_AGREE = 0.1  # how far derivatives may be apart, relative to the larger


def basis(event_shape: Shape, like: Tensor) -> Tensor:
    """The d basis vectors of events, shape (d, 1, *E)."""
    size = torch.Size(event_shape).numel()
    return torch.eye(size, dtype=like.dtype, device=like.device).reshape(size, 1, *event_shape)


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


def forward_forms(chunk: int) -> Forms:
    """By forward mode, so many directions at once."""

    def forms(field: Field, t: Time, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        def form(direction: Tensor) -> Tensor:
            direction = direction.expand_as(x)
            tangent: Tensor = jvp(lambda y: field(t, y), (x,), (direction,))[1]
            return _paired(direction, tangent, 1)

        return field(t, x), torch.cat([vmap(form)(some) for some in torch.split(v, chunk)])

    return forms


def reverse_forms(chunk: int, batched: bool) -> Forms:
    """By reverse mode, so many directions at once, or one after the other."""

    def forms(field: Field, t: Time, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            value = field(t, y)
        if not value.requires_grad:
            return value, x.new_zeros(len(v), len(x))

        def pulled(some: Tensor) -> Tensor:
            many = some.expand(len(some), *x.shape)
            options = {"retain_graph": True, "materialize_grads": True}
            if batched:
                return torch.autograd.grad(value, y, many, is_grads_batched=True, **options)[0]
            return torch.stack([torch.autograd.grad(value, y, one, **options)[0] for one in many])

        found = torch.cat([_paired(some, pulled(some), 2) for some in torch.split(v, chunk)])
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
    eps = float(torch.finfo(x.dtype).eps)
    size = float(x.detach().square().mean().sqrt()) or 1.0
    steps = [size * eps ** (1.0 / 3.0), 0.25 * size * eps ** (1.0 / 3.0)]
    coarse, fine = (_quotient(field, t, x, v[0], step) for step in steps)
    if not bool(torch.isfinite(torch.stack([coarse, fine])).all()):
        return None  # the run will say so
    scale = torch.maximum(traced.abs(), fine.abs())
    noise = eps ** (2.0 / 3.0) * float(field(t, x).abs().max()) / size * x[0].numel()
    near = _AGREE * scale + noise
    # Where quotients differ from one another the field is rough at this length, and they prove nothing.
    off = ((traced - fine).abs() > near) & ((coarse - fine).abs() < 0.5 * (traced - fine).abs())
    if not bool(off.any()):
        return None
    i = int(off.nonzero()[0])
    return f"v·Jv = {float(traced[i]):.4g} at t = {t:g}, and its difference quotient is {float(fine[i]):.4g}"


def _quotient(field: Field, t: float, x: Tensor, v: Tensor, step: float) -> Tensor:
    with torch.no_grad():
        moved = field(t, x + step * v) - field(t, x - step * v)
    return _paired(v.double(), moved.double(), 1) / (2.0 * step)
