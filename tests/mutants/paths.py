"""Slips in methods that follow paths: iterated integrals, Jacobians, Lévy areas, tableaus, calculus."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import jvp, vjp

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import CONDITIONS, LEAST_ERROR, claim
from sdekit.dynamics import times_noise
from sdekit.steppers import Prepared, Spec, Step, StepMethod
from sdekit.steppers.sra import SRA, TABLEAUS


class Milstein(sk.Milstein):
    """Written again in parts, for scalar and diagonal noise."""

    def derivative(self, field, x: Tensor, g: Tensor) -> Tensor:
        """Dg g."""
        return jvp(field, (x,), (g,))[1]

    def integral(self, w: Tensor, h: float) -> Tensor:
        return 0.5 * (w * w - h)

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        h, w = t1 - t0, increment.w
        field = lambda y: sde.diffusion(t0, y).reshape(x.shape)  # noqa: E731
        g = field(x)
        return Step(x + h * sde.drift(t0, x) + g * w + self.derivative(field, x, g) * self.integral(w, h))


class Transposed(Milstein):
    """A vector–Jacobian product: Dgᵀ g."""

    def derivative(self, field, x, g) -> Tensor:
        return vjp(field, x)[1](g)[0]


class ElementByElement(Milstein):
    """g_i ∂_i g_i where one noise drives all coordinates."""

    def derivative(self, field, x, g) -> Tensor:
        units = torch.eye(x.shape[1], dtype=x.dtype)
        return sum(jvp(field, (x,), (e.expand_as(x),))[1] * e for e in units) * g


class WithoutH(Milstein):
    """½ W² for ½ (W² − h): the calculus of Stratonovich."""

    def integral(self, w, h) -> Tensor:
        return 0.5 * w * w


class WrongSign(Milstein):
    """½ (h − W²)."""

    def integral(self, w, h) -> Tensor:
        return -super().integral(w, h)


class SymmetricMilstein(StepMethod):
    """Σ_ij Dg_j g_i ½ (W_i W_j − δ_ij h): strong order 1 where noises commute, ½ where they do not."""

    spec = Spec(
        name="milstein-symmetric",
        summary="Milstein for noises that commute",
        references=("kloeden1992",),
        kind="step",
        evaluations=1,
        strong={"commutative": 1.0, "general": 0.5},
        noise_types=frozenset({"commutative", "general"}),
    )

    def integrals(self, w: Tensor, levy: Tensor | None, h: float) -> Tensor:
        """I_(i,j), shape (B, m, m)."""
        return 0.5 * (w[:, :, None] * w[:, None, :] - h * torch.eye(w.shape[1], dtype=w.dtype))

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        h, w = t1 - t0, increment.w
        g, integrals = sde.diffusion(t0, x), self.integrals(w, increment.space_time, h)
        moved = x + h * sde.drift(t0, x) + times_noise(g, w)
        for i, first in enumerate(g.unbind(-1)):
            along = jvp(lambda y: sde.diffusion(t0, y), (x,), (first,))[1]
            moved = moved + times_noise(along, integrals[:, i])
        return Step(moved)


class MixedForgotten(SymmetricMilstein):
    """The diagonal of I_(i,j) alone."""

    def integrals(self, w, levy, h) -> Tensor:
        return torch.diag_embed(super().integrals(w, levy, h).diagonal(dim1=1, dim2=2))


class AreaNotNeeded(SymmetricMilstein):
    """Strong order 1 is claimed without areas."""

    spec = replace(SymmetricMilstein.spec, strong={"commutative": 1.0, "general": 1.0})


class AreaMilstein(SymmetricMilstein):
    """With the mean of the areas, E[I_(i,j) | W, H] = ½ (W_i W_j − δ_ij h) + H_i W_j − W_i H_j."""

    spec = replace(SymmetricMilstein.spec, name="milstein-area", increments="space-time")
    sign = 1.0

    def integrals(self, w, levy, h) -> Tensor:
        product = levy[:, :, None] * w[:, None, :]
        return super().integrals(w, levy, h) + self.sign * (product - product.mT)


class AreaTurned(AreaMilstein):
    """I_(j,i) for I_(i,j): the area has the other sign."""

    sign = -1.0


class GeneralTurned(sk.MilsteinGeneral):
    """The area of the path with the other sign."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        turned = None if increment is None else replace(increment, areas=-increment.area)
        return super().step(sde, t0, t1, x, turned, memory)


class GeneralOtherOrder(sk.MilsteinGeneral):
    """Dg_i g_j I_(i,j): the indices exchanged."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        g, h, w = sde.diffusion(t0, x), t1 - t0, increment.w
        integrals = 0.5 * (w[:, :, None] * w[:, None, :] - h * torch.eye(w.shape[1], dtype=w.dtype)) + increment.area
        moved = x + h * sde.drift(t0, x) + times_noise(g, w)
        for j, first in enumerate(g.unbind(-1)):
            along = jvp(lambda y: sde.diffusion(t0, y), (x,), (first,))[1]
            moved = moved + times_noise(along, integrals[:, :, j])
        return Step(moved)


class AreaForgotten(AreaMilstein):
    """No area."""

    sign = 0.0


class SRA2(SRA):
    """Rößler's SRA2."""

    spec = replace(sk.SRA1.spec, name="sra2")
    tableau = TABLEAUS["sra2"]


class SRA3(SRA):
    """Rößler's SRA3."""

    spec = replace(sk.SRA1.spec, name="sra3", evaluations=3)
    tableau = TABLEAUS["sra3"]


def turned(tableau, *names: str):
    """The tableau with these weights of the other sign."""
    return replace(tableau, **{name: tuple(-b for b in getattr(tableau, name)) for name in names})


class SRA1Turned(sk.SRA1):
    """β² of the other sign."""

    tableau = turned(TABLEAUS["sra1"], "beta2")


class SRA2Turned(SRA2):
    """β² = (−3/2, 3/2)."""

    tableau = turned(TABLEAUS["sra2"], "beta2")


class SRA3Turned(SRA3):
    """β² = (1, −1, 0)."""

    tableau = turned(TABLEAUS["sra3"], "beta2")


class SRI1W1Second(sk.SRI1W1):
    """β² of the other sign: −I_(1,1)."""

    tableau = turned(sk.SRI1W1.tableau, "beta2")


class SRI1W1Third(sk.SRI1W1):
    """β³ of the other sign: −I_(1,0)."""

    tableau = turned(sk.SRI1W1.tableau, "beta3")


class SRI1W1Fourth(sk.SRI1W1):
    """β⁴ of the other sign: −I_(1,1,1)."""

    tableau = turned(sk.SRI1W1.tableau, "beta4")


class AreaScaled(sk.SRA1):
    """H as large as ½ W: √3 H."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(increment.w, 3.0**0.5 * increment.h), memory)


class IntegralIndependent(sk.SRA1):
    """Z = 2 H for ½ W + H: of the right variance h/3, and independent of W."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(increment.w, 2.0 * increment.h - 0.5 * increment.w), memory)


class AreaNotReflected(sk.SRA1):
    """Run backwards, a path shows −H; here it shows H."""

    def prepare(self, sde, times) -> Prepared:
        prepared, sign = super().prepare(sde, times), -1.0 if times[0] > times[-1] else 1.0

        def advance(k, x, increments, memory):
            seen = [sk.Increment(increment.w, sign * increment.h) for increment in increments]
            return prepared.advance(k, x, seen, memory)

        return replace(prepared, advance=advance)


class WrongCalculus(sk.EulerMaruyama):
    """The trapezoidal rule for drift and noise, which is a method of Stratonovich's calculus."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        def moved(t, y):
            return (t1 - t0) * sde.drift(t, y) + times_noise(sde.diffusion(t, y), increment.w)

        first = moved(t0, x)
        return Step(x + 0.5 * (first + moved(t1, x + first)))


SHORT = (16, 32, 64, 128)
GBM, TURN = claim("strong", "gbm"), claim("strong", "rotation", steps=SHORT)
BACK = claim("strong", "vp-gaussian", 1.0, SHORT)
SQUARE = claim("strong", "nonautonomous-square")
APART = claim("strong", "noncommuting", steps=SHORT)

MUTANTS = [
    Mutant("Jacobian transposed", Transposed(), sk.Milstein(), claim("strong", "nilpotent", steps=SHORT), slow=True),
    Mutant("Milstein element by element", ElementByElement(), sk.Milstein(), claim("strong", "kubo"), slow=True),
    Mutant("Milstein without -h", WithoutH(), sk.Milstein(), GBM),
    Mutant("Milstein of the wrong sign", WrongSign(), sk.Milstein(), GBM),
    Mutant(
        "mixed integrals forgotten",
        MixedForgotten(),
        SymmetricMilstein(),
        claim("strong", "commuting", steps=SHORT),
        slow=True,
    ),
    Mutant("order 1 without areas", AreaNotNeeded(), SymmetricMilstein(), claim("strong", "noncommuting", steps=SHORT)),
    Mutant("area of the wrong sign", AreaTurned(), AreaMilstein(), LEAST_ERROR),
    Mutant("area forgotten", AreaForgotten(), AreaMilstein(), LEAST_ERROR),
    Mutant("area of the wrong sign", GeneralTurned(), sk.MilsteinGeneral(), APART, slow=True),
    Mutant("area of the wrong sign", GeneralOtherOrder(), sk.MilsteinGeneral(), APART, slow=True),
    Mutant("sign of beta2 in SRA1", SRA1Turned(), sk.SRA1(), CONDITIONS),
    Mutant("sign of beta2 in SRA1", SRA1Turned(), sk.SRA1(), BACK, slow=True),
    Mutant("sign of beta2 in SRA2", SRA2Turned(), SRA2(), CONDITIONS),
    Mutant("sign of beta2 in SRA2", SRA2Turned(), SRA2(), BACK, slow=True),
    Mutant("sign of beta2 in SRA3", SRA3Turned(), SRA3(), CONDITIONS),
    Mutant("sign of beta2 in SRA3", SRA3Turned(), SRA3(), SQUARE, slow=True),
    Mutant("sign of a beta in SRI", SRI1W1Second(), sk.SRI1W1(), CONDITIONS),
    Mutant("sign of a beta in SRI", SRI1W1Second(), sk.SRI1W1(), GBM),
    Mutant("sign of a beta in SRI", SRI1W1Third(), sk.SRI1W1(), CONDITIONS),
    Mutant("sign of a beta in SRI", SRI1W1Fourth(), sk.SRI1W1(), CONDITIONS),
    Mutant("sign of a beta in SRI", SRI1W1Fourth(), sk.SRI1W1(), GBM),
    Mutant("H scaled by the root of 3", AreaScaled(), sk.SRA1(), TURN, slow=True),
    Mutant("H scaled by the root of 3", AreaScaled(), sk.SRA1(), SQUARE, slow=True),
    Mutant("Z independent of W", IntegralIndependent(), sk.SRA1(), TURN, slow=True),
    Mutant("H not reflected", AreaNotReflected(), sk.SRA1(), BACK, slow=True),
    Mutant("Ito taken for Stratonovich", WrongCalculus(), sk.EulerMaruyama(), claim("weak", "gbm")),
]
