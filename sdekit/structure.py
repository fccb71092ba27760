r"""Whether the noise of an SDE is what it is declared to be, asked of the diffusion by directional derivatives.

With $D G[v]$ the derivative of $G(t, x)$ in x along v, and a, b random vectors:

- additive: $D G[v] = 0$.
- diagonal, element by element: $(D G[v])_i = 0$ wherever $v_i = 0$. As v has the coordinates whose index has a
  certain binary digit, and then those without it, $2 \lceil \log_2 d \rceil$ probes tell every pair $i \ne j$ apart.
- scalar: G has one column.
- commutative: $Dg_j\,g_i = Dg_i\,g_j$ for all columns; $D G[G a]\,b = D G[G b]\,a$ says so with probability one.

A derivative is a Jacobian–vector product where the diffusion can be traced and agrees with a difference quotient, else
that quotient. What is NaN or Inf says nothing, and what is as small as the square root of the rounding is zero: right
noise is never refused, and what is found is a fact at one state. That nothing is found is a fact at the states probed.

References: [kloeden1992] §10.3 for commutative noise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import jvp

from sdekit import random
from sdekit.dynamics import SDE, GeneralSDE, noise_shape
from sdekit.errors import SdekitError
from sdekit.reverse import Reverse
from sdekit.typing import NoiseType, Time

Structure = Literal["check", "trust"]
"""What :func:`sdekit.solve` does about the declared noise type."""

_SAMPLES = 4
_SEED = 20_260_517
_AGREE = 0.05  # how far a Jacobian–vector product may be from a difference quotient, relative to the larger

_seen: WeakKeyDictionary[GeneralSDE, set[torch.Size]] = WeakKeyDictionary()


def check_structure(sde: SDE, t: Time, x: Tensor) -> None:
    r"""Raise unless the declared noise type is true of the diffusion at these states.

    ``none`` and ``general`` promise nothing; ``scalar`` promises one noise, the others what the module says. Give
    states in general position: at a stationary point of the diffusion noise looks additive. Entries are numbered as
    in flat states.

    Args:
        sde: The SDE, whose ``noise_type`` is in question.
        t: Time, a float or one entry per sample.
        x: States, shape (B, *E).

    Raises:
        SdekitError: the declared type is not true: names the offending entry, its value and the type that is true.

    References: [kloeden1992].
    """
    found = _failure(sde, t, x)
    if found is not None:
        raise SdekitError(f"{found}.")


def check_once(sde: SDE, t: float, x: Tensor) -> None:
    """What :func:`sdekit.solve` asks of an SDE from callables, or of one that it solves backwards, once for each shape.

    A few samples are probed, and the same moved at random by as much as they are large: a start at a single point is
    often one where derivatives vanish.

    Raises:
        SdekitError: the declared noise type is not true.
    """
    sde = sde.process if isinstance(sde, Reverse) else sde
    if not isinstance(sde, GeneralSDE) or _promises_nothing(sde, x):
        return
    try:
        shapes = _seen.setdefault(sde, set())
    except TypeError:  # fields without a hash
        shapes = set()
    if x.shape[1:] in shapes:
        return
    some = x[:_SAMPLES].detach()
    for states in (torch.cat([some, some + _directions(some)]), x.detach()):
        try:
            found = _failure(sde, t, states)
        except Exception as error:  # a field may object to other states than its own
            logging.getLogger("sdekit").info("The noise type was not checked: %s", error)
            continue
        if found is not None:
            raise SdekitError(f"{found}; structure='trust' leaves that to you.")
        break
    shapes.add(x.shape[1:])


def _promises_nothing(sde: SDE, x: Tensor) -> bool:
    return sde.noise_type in ("none", "general") or (sde.noise_type == "diagonal" and x[0].numel() == 1)


def _failure(sde: SDE, t: Time, x: Tensor) -> str | None:
    """What is wrong with the declared noise type; None where nothing is."""
    declared = sde.noise_type
    if _promises_nothing(sde, x):
        return None
    with torch.no_grad():
        probes = _Probes.of(sde, t, x.detach())
        broken = probes.broken(declared)
        if broken is None:
            return None
        true = probes.true_type()
    shaped = ", with a diffusion of shape (*x, m)" if true == "general" and probes.elementwise else ""
    return f"The noise is declared {declared}, but {broken}. Declare noise_type={true!r}{shaped}"


@dataclass(frozen=True)
class _Probes:
    """Directional derivatives of a diffusion at some states, flattened.

    Attributes:
        diffusion: States (B, d) to G, shape (B, d), or (B, d, m) for m noises that are not the coordinates'.
        x: The states.
        g: G there.
        v: A random direction as large as the states.
        traced: Whether derivatives are Jacobian–vector products.
    """

    diffusion: Callable[[Tensor], Tensor]
    x: Tensor
    g: Tensor
    v: Tensor
    traced: bool

    @classmethod
    def of(cls, sde: SDE, t: Time, x: Tensor) -> _Probes:
        shape = x.shape
        noise_shape(sde, t, x)  # type: ignore[arg-type]  # says what is wrong with a shape

        def diffusion(y: Tensor) -> Tensor:
            g = sde.diffusion(t, y.reshape(shape))
            if g.shape == shape:
                return g.reshape(y.shape).unsqueeze(-1) if sde.noise_type == "scalar" else g.reshape(y.shape)
            return g.reshape(*y.shape, g.shape[-1])

        flat = x.flatten(1)
        v, g = _directions(flat), diffusion(flat)
        quotient = cls(diffusion, flat, g, v, False)
        traced = cls(diffusion, flat, g, v, True)
        try:
            one, other = traced.along(v), quotient.along(v)
        except Exception:  # no forward rule, an operation in place, a leap out of torch
            return quotient
        rounding = 16.0 * float(torch.finfo(x.dtype).eps) ** (2.0 / 3.0) * quotient._size
        allowed = _AGREE * torch.maximum(one.abs().max(), other.abs().max()) + rounding
        return traced if bool((one - other).abs().max() <= allowed) else quotient

    @property
    def elementwise(self) -> bool:
        """Whether there is a noise for every coordinate."""
        return self.g.ndim == 2

    @property
    def _size(self) -> Tensor:
        return self.g.nan_to_num(0.0, 0.0, 0.0).abs().max()

    @property
    def tolerance(self) -> float:
        eps: float = torch.finfo(self.x.dtype).eps
        return float(eps ** (0.5 if self.traced else 0.25))

    def along(self, v: Tensor) -> Tensor:
        """D G[v], of the shape of G; zero where it is not finite."""
        if self.traced:
            tangent: Tensor = jvp(self.diffusion, (self.x,), (v,))[1]
        else:
            step = float(torch.finfo(self.x.dtype).eps) ** (1.0 / 3.0)
            tangent = (self.diffusion(self.x + step * v) - self.diffusion(self.x - step * v)) / (2.0 * step)
        return tangent.nan_to_num(0.0, 0.0, 0.0)

    def broken(self, declared: NoiseType) -> str | None:
        """Which entry contradicts a noise type."""
        if declared == "additive":
            return self._state_dependence()
        if declared == "scalar":
            m = self.g.shape[-1]
            return None if m == 1 else f"the diffusion returns {m} noises"
        if self.elementwise:
            return self._mixing(weight=self.g.nan_to_num(0.0, 0.0, 0.0) if declared == "commutative" else self.v)
        return self._commutator() if declared == "commutative" else None

    def true_type(self) -> NoiseType:
        """The narrowest type that is true."""
        if self.broken("additive") is None:
            return "additive"
        if not self.elementwise and self.g.shape[-1] == 1:
            return "scalar"
        if self.elementwise:
            return "diagonal" if self.broken("diagonal") is None else "general"
        return "commutative" if self.broken("commutative") is None else "general"

    def _state_dependence(self) -> str | None:
        moved = self.along(self.v)
        if not bool((moved.abs() > self.tolerance * self._size).any()):
            return None
        place = _largest(moved)
        every = torch.ones(self.x.shape[1], dtype=torch.bool, device=self.x.device)
        return "the diffusion depends on the state: " + self._entry(place, every)

    def _mixing(self, weight: Tensor) -> str | None:
        """An element of G that depends on another element of the state."""
        index, digits = torch.arange(self.x.shape[1], device=self.x.device), (self.x.shape[1] - 1).bit_length()
        useful = self.g.isfinite().all(1)
        number, shared = useful.cumsum(0) - 1, max(1, int(useful.sum()))
        for first in range(0, 2 * digits, shared):  # every state asks another question
            asked = (first + number) % (2 * digits)
            chosen = (index >> (asked // 2)[:, None]) % 2 == (asked % 2)[:, None]
            moved = self.along(torch.where(chosen, weight, 0.0))
            allowed = self.tolerance * torch.maximum(moved.abs().max(), self._size)
            outside = torch.where(chosen, 0.0, moved)
            if bool((outside.abs() > allowed).any()):
                place = _largest(outside)
                entry = self._entry(place, chosen[place[0]])
                return f"an element of the diffusion depends on another of the state: {entry}"
        return None

    def _entry(self, place: tuple[int, ...], chosen: Tensor) -> str:
        """The derivative of an entry of G by the coordinate that moves it most, found by halving."""
        sample, row, *column = place
        among = chosen.nonzero()[:, 0]
        while len(among) > 1:
            halves = among[: len(among) // 2], among[len(among) // 2 :]
            moved = [float(self.along(self._only(half, self.v))[place].abs()) for half in halves]
            among = halves[moved[1] > moved[0]]
        j = int(among[0])
        value = float(self.along(self._only(among, torch.ones_like(self.v)))[place])
        entry = ", ".join(map(str, (row, *column)))
        return f"∂G[{entry}]/∂x[{j}] = {value:.4g} in sample {sample}, x[{j}] = {float(self.x[sample, j]):.4g}"

    def _only(self, coordinates: Tensor, v: Tensor) -> Tensor:
        kept = torch.zeros_like(v)
        kept[:, coordinates] = v[:, coordinates]
        return kept

    def _commutator(self) -> str | None:
        m = self.g.shape[-1]
        keys = random.path_keys(_SEED, 2, self.x.device)
        a, b = random.normals(keys, (m,), stream=random.STREAM_LAW, dtype=self.x.dtype)[0]
        g = self.g.nan_to_num(0.0, 0.0, 0.0)
        one, other = self.along(g @ a), self.along(g @ b)
        size = ((one.abs() @ b.abs()) + (other.abs() @ a.abs())).max()
        natural = self._size**2 / self.v.abs().max()
        if not bool((one @ b - other @ a).abs().max() > self.tolerance * torch.maximum(size, natural)):
            return None
        # moved[i, ..., j] = Dg_j g_i
        moved = torch.stack([self.along(g[..., i]) for i in range(m)])
        defect = moved - moved.permute(3, 1, 2, 0)
        i, sample, row, j = _largest(defect)
        value = float(defect[i, sample, row, j])
        bracket = f"(Dg_{j} g_{i} − Dg_{i} g_{j})[{row}]"
        return f"the noises {i} and {j} do not commute: {bracket} = {value:.4g} in sample {sample}"


def _directions(x: Tensor) -> Tensor:
    """Random directions as large as the states, one for each."""
    keys = random.path_keys(_SEED, len(x), x.device)
    size = x.square().mean().sqrt()
    z = random.normals(
        keys, x.shape[1:], stream=random.STREAM_LAW + 1, dtype=torch.promote_types(x.dtype, torch.float32)
    )
    return z[0].to(x.dtype) * torch.where(size > 0.0, size, torch.ones_like(size))


def _largest(values: Tensor) -> tuple[int, ...]:
    """Where the largest modulus is."""
    return tuple(int(i) for i in torch.unravel_index(values.abs().argmax(), values.shape))
