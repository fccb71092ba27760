r"""Stochastic differential equations $dx = f(t, x)\,dt + G(t, x)\,dW$ as values.

The diffusion has the shape of the state (one noise per coordinate, or one for all of them when the
noise is ``scalar``), or ``(*x, m)`` for m noises. Fields are written in the clock of their process, with
the signs as printed in books; a solver that runs backwards reflects them (:class:`Reflected`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args, runtime_checkable

import torch
from torch import Tensor
from torch.func import jacfwd, jvp, vmap

from sdekit.errors import SdekitError, unknown_name
from sdekit.typing import Calculus, Direction, Field, Inside, NoiseType, Time


@runtime_checkable
class SDE(Protocol):
    """What a stepper sees: two fields, and what is declared about them."""

    @property
    def noise_type(self) -> NoiseType: ...
    @property
    def calculus(self) -> Calculus: ...
    @property
    def direction(self) -> Direction: ...
    def drift(self, t: Time, x: Tensor, /) -> Tensor: ...
    def diffusion(self, t: Time, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class GeneralSDE:
    """An SDE given by two callables; made by :func:`sde`."""

    drift: Field
    diffusion: Field
    noise_type: NoiseType = "diagonal"
    calculus: Calculus = "ito"
    direction: Direction = "increasing"
    inside: Inside | None = None


def _no_diffusion(t: Time, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def sde(
    drift: Field,
    diffusion: Field | None = None,
    noise_type: NoiseType = "diagonal",
    calculus: Calculus = "ito",
    inside: Inside | None = None,
) -> GeneralSDE:
    r"""An SDE $dx = f(t, x)\,dt + G(t, x)\,dW$ from callables.

    Args:
        drift: ``f(t, x)``, of the shape of ``x``.
        diffusion: ``G(t, x)``, of the shape of ``x``, or ``(*x, m)`` for m noises. None for an ODE.
        noise_type: What is known about G: ``none``; ``additive`` (a function of t only); ``scalar`` (one
            noise for all coordinates); ``diagonal`` ($G_i$ depends on $x_i$ only); ``commutative``; ``general``.
        calculus: ``ito`` or ``stratonovich``.
        inside: Where states may be, of states (B, *E) a boolean for every element or sample, such as
            ``lambda x: x >= 0``; everywhere if left out. A run that ends elsewhere says so in its status, and adaptive
            steps of an SDE that lead elsewhere are refused. What the fields are there, on the way, is theirs to say:
            NaN ends a sample.

    Raises:
        SdekitError: an unknown noise type or calculus, or a missing diffusion.
    """
    if noise_type not in get_args(NoiseType):
        raise unknown_name("noise type", noise_type, get_args(NoiseType))
    if calculus not in get_args(Calculus):
        raise unknown_name("calculus", calculus, get_args(Calculus))
    if diffusion is None or noise_type == "none":
        return GeneralSDE(drift, _no_diffusion, "none", calculus, "either", inside)
    return GeneralSDE(drift, diffusion, noise_type, calculus, inside=inside)


def samples_inside(inside: Inside, x: Tensor) -> Tensor:
    """Which samples are where they may be, shape (B,)."""
    return inside(x.detach()).reshape(len(x), -1).all(1)


@dataclass(frozen=True)
class Reflected:
    """An SDE in the clock −t, so that a solver that goes back in time sees positive steps."""

    sde: SDE

    @property
    def noise_type(self) -> NoiseType:
        return self.sde.noise_type

    @property
    def calculus(self) -> Calculus:
        return self.sde.calculus

    @property
    def direction(self) -> Direction:
        return "increasing"

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return self.sde.drift(-t, x).neg()

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.sde.diffusion(-t, x)


def noise_shape(sde: SDE, t: float, x: Tensor) -> torch.Size:
    """Event shape of the Brownian increments that drive ``sde``; asks the diffusion once.

    Raises:
        SdekitError: the diffusion has a shape that fits no noise.
    """
    if sde.noise_type == "none":
        return torch.Size()
    g = sde.diffusion(t, x)
    if g.shape == x.shape:
        return torch.Size([1] * (x.ndim - 1)) if sde.noise_type == "scalar" else x.shape[1:]
    if g.ndim == x.ndim + 1 and g.shape[:-1] == x.shape and sde.noise_type != "diagonal":
        return g.shape[-1:]
    raise SdekitError(
        f"The diffusion returned shape {tuple(g.shape)} for a state of shape {tuple(x.shape)}: "
        "return the shape of the state, or (*state, m) for m noises that are not declared diagonal."
    )


def times_noise(g: Tensor, dw: Tensor) -> Tensor:
    r"""$G\,dW$ sample by sample, summed over noises in a fixed order (so bitwise the same in any batch)."""
    if g.ndim == dw.ndim:
        return g * dw
    dw = dw.reshape(dw.shape[0], *(1,) * (g.ndim - 2), dw.shape[-1])
    total = g[..., 0] * dw[..., 0]
    for j in range(1, g.shape[-1]):
        total = total.addcmul(g[..., j], dw[..., j])
    return total


def covariance_times(sde: SDE, t: Time, x: Tensor, v: Tensor) -> Tensor:
    r"""$G G^\top v$, sample by sample."""
    g = sde.diffusion(t, x)
    if g.shape == x.shape and sde.noise_type != "scalar":
        return g * g * v
    columns = g.unsqueeze(-1) if g.shape == x.shape else g
    weights = [(columns[..., j] * v).flatten(1).sum(1) for j in range(columns.shape[-1])]
    return times_noise(columns, torch.stack(weights, -1))


def covariance_divergence(sde: SDE, t: Time, x: Tensor) -> Tensor:
    r"""$\nabla\cdot(G G^\top)$, whose i-th entry is $\sum_j \partial_j (G G^\top)_{ij}$.

    One Jacobian–vector product for diagonal noise, d of them otherwise.
    """
    if sde.noise_type == "none" or sde.noise_type == "additive":
        return torch.zeros_like(x)
    if sde.noise_type == "diagonal":
        square: Callable[[Tensor], Tensor] = lambda y: sde.diffusion(t, y) ** 2  # noqa: E731
        tangent: Tensor = jvp(square, (x,), (torch.ones_like(x),))[1]
        return tangent

    def covariance(time: Time, y: Tensor) -> Tensor:
        g = sde.diffusion(time, y.reshape(1, *x.shape[1:]))[0]
        if g.shape == x.shape[1:] and sde.noise_type != "scalar":
            return torch.diag(g.flatten() ** 2)
        g = g.reshape(y.numel(), -1)
        return g @ g.T

    def divergence(time: Time, y: Tensor) -> Tensor:
        jacobian = jacfwd(covariance, argnums=1)(time, y)
        return torch.einsum("ijj->i", jacobian)

    flat = x.flatten(1)
    times = None if not isinstance(t, Tensor) or t.ndim == 0 else 0
    return vmap(divergence, in_dims=(times, 0))(t, flat).reshape(x.shape)
