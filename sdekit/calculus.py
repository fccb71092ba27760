r"""One SDE in two calculi.

$$ dx = f\,dt + \sum_j g_j \circ dW_j \quad\Longleftrightarrow\quad
   dx = \Bigl( f + \tfrac12 \sum_j Dg_j\,g_j \Bigr) dt + \sum_j g_j\,dW_j , $$

so that the solution of an equation does not change with the calculus in which it is told if its drift does, by
$\mp\tfrac12 \sum_j Dg_j\,g_j$. Noise that does not depend on the state needs no correction.

References: [stratonovich1966], [kloeden1992] §4.9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.func import jvp

from sdekit.dynamics import SDE, GeneralSDE
from sdekit.typing import Calculus, Direction, Inside, NoiseType, Time


@final
@dataclass(frozen=True)
class Converted:
    """An SDE told in the other calculus.

    Attributes:
        source: As it was told.
    """

    source: SDE

    @property
    def noise_type(self) -> NoiseType:
        return self.source.noise_type

    @property
    def calculus(self) -> Calculus:
        return "ito" if self.source.calculus == "stratonovich" else "stratonovich"

    @property
    def direction(self) -> Direction:
        return self.source.direction

    def drift(self, t: Time, x: Tensor) -> Tensor:
        sign = 0.5 if self.calculus == "ito" else -0.5
        return self.source.drift(t, x).add(noise_drift(self.source, t, x), alpha=sign)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.source.diffusion(t, x)


def to_stratonovich(sde: SDE) -> SDE:
    r"""The same equation in the calculus of Stratonovich: the drift is $f - \tfrac12 \sum_j Dg_j\,g_j$.

    The derivatives are Jacobian–vector products in forward mode: one for diagonal and scalar noise, one for each noise
    else. What was converted before is converted back to itself. Additive noise needs no correction, and every stepper
    takes it in either calculus: an SDE from :func:`sdekit.sde` keeps its fields, and another, such as a reverse-time
    SDE, stays what it is.

    Args:
        sde: An SDE in either calculus.
    """
    return _in("stratonovich", sde)


def to_ito(sde: SDE) -> SDE:
    r"""The same equation in the calculus of Itô: the drift is $f + \tfrac12 \sum_j Dg_j\,g_j$.

    As :func:`to_stratonovich`, the other way.

    Args:
        sde: An SDE in either calculus.
    """
    return _in("ito", sde)


def _in(calculus: Calculus, sde: SDE) -> SDE:
    if sde.calculus == calculus:
        return sde
    if sde.noise_type in ("none", "additive"):
        return replace(sde, calculus=calculus) if isinstance(sde, GeneralSDE) else sde
    return sde.source if isinstance(sde, Converted) else Converted(sde)


def inside_of(sde: SDE) -> Inside | None:
    """Where its states may be, as :func:`sdekit.sde` was told; None for everywhere."""
    source = sde.source if isinstance(sde, Converted) else sde
    return source.inside if isinstance(source, GeneralSDE) else None


def noise_drift(sde: SDE, t: Time, x: Tensor) -> Tensor:
    r"""$\sum_j Dg_j\,g_j$, twice the drift between the calculi.

    Args:
        sde: The SDE; its calculus does not matter.
        t: The time.
        x: States (B, *E).
    """
    if sde.noise_type in ("none", "additive"):
        return torch.zeros_like(x)
    if sde.noise_type in ("diagonal", "scalar"):
        # Element by element, the derivative of g along g is g g′.
        g = sde.diffusion(t, x).reshape(x.shape)
        along: Tensor = jvp(lambda y: sde.diffusion(t, y).reshape(x.shape), (x,), (g,))[1]
        return along
    columns = _columns(sde.diffusion(t, x), x)
    total = torch.zeros_like(x)
    for j in range(columns.shape[-1]):
        changes: Tensor = jvp(lambda y: _columns(sde.diffusion(t, y), y), (x,), (columns[..., j].contiguous(),))[1]
        total = total + changes[..., j]
    return total


def _columns(g: Tensor, x: Tensor) -> Tensor:
    """The diffusion with its noises in a last dimension; of the shape of the state, it is one noise per coordinate."""
    if g.shape != x.shape:
        return g
    return torch.diag_embed(g.flatten(1)).reshape(*x.shape, -1)
