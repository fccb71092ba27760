"""Slips in Langevin chains and correctors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import claim, conformance, golden
from sdekit.langevin import LangevinStep
from sdekit.steppers import Corrector, Step
from sdekit.steppers.correctors import Correct
from sdekit.steppers.metropolis import Metropolis, Place


class HalfNoise(sk.ULA):
    """√γ z for √(2γ) z."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(increment.w / math.sqrt(2.0)), memory)


class HalfDrift(sk.ULA):
    """γ/2 s for γ s: α's drift beside γ's noise."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        moved = super().step(sde, t0, t1, x, increment, memory).x
        return Step(moved - 0.5 * (t1 - t0) * sde.drift(t0, x))


@dataclass(frozen=True)
class Quiet(Corrector):
    """x + ε s + √ε z."""

    steps: int = 1

    def bind(self, sde, s, t) -> Correct:
        right = sk.LangevinCorrector().bind(sde, s, t)
        return lambda x, normals, count: right(x, [sk.Increment(z.w / math.sqrt(2.0)) for z in normals], count)


@dataclass(frozen=True)
class BatchNorms(Corrector):
    """ε from norms over the batch, as published."""

    snr: float = 0.16
    steps: int = 1

    def bind(self, sde, s, t) -> Correct:
        def correct(x: Tensor, normals, count):
            (z,) = (increment.w for increment in normals)
            score = sde.score(t, x)
            e = 2 * (self.snr * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
            return x + e * score + (2 * e).sqrt() * z, count

        return correct


class WrongLevel(sk.AnnealedLangevin):
    """a = ε σ/σ_min for ε σ²/σ_min²."""

    def prepare(self, sde, times):
        prepared, schedule = super().prepare(sde, times), sde.schedule
        rho = [math.exp(-schedule.lam(t)) for t in times[1:]]

        def advance(k, x, increments, memory):
            a = 0.2 * min(rho) * rho[k]  # of y
            scale = schedule.alpha(times[k + 1])
            x = x * (scale / schedule.alpha(times[k]))
            for z in increments:
                x = LangevinStep.from_alpha(a * scale**2)(x, sde.score(times[k + 1], x), z.w)
            return x, None

        return replace(prepared, advance=advance)


class Symmetric(Metropolis):
    """p(y)/p(x) alone, as if proposals were symmetric."""

    def log_ratio(self, here: Place, there: Place, z: Tensor) -> Tensor:
        return there.log_prob - here.log_prob


class SignedOff(Metropolis):
    """q(y | x)/q(x | y) upside down."""

    def log_ratio(self, here: Place, there: Place, z: Tensor) -> Tensor:
        return 2 * (there.log_prob - here.log_prob) - super().log_ratio(here, there, z)


class Always(Metropolis):
    """Everything is accepted: ULA under another name."""

    def log_ratio(self, here: Place, there: Place, z: Tensor) -> Tensor:
        return torch.zeros_like(here.log_prob)


class MALASymmetric(sk.MALA):
    rule = Symmetric


class MALASignedOff(sk.MALA):
    rule = SignedOff


class MALAAlways(sk.MALA):
    rule = Always


LAW, BALANCE = claim("w2", "langevin-gaussian"), conformance("exact/balance")
RIGHT = sk.PredictorCorrector()

MUTANTS = [
    Mutant("sqrt(eps) for sqrt(2 eps)", HalfNoise(), sk.ULA(), LAW),
    Mutant("sqrt(eps) for sqrt(2 eps)", sk.PredictorCorrector(corrector=Quiet()), RIGHT, golden(1.0)),
    Mutant("conventions of gamma mixed", HalfDrift(), sk.ULA(), LAW),
    Mutant("missing square", WrongLevel(), sk.AnnealedLangevin(), golden(1.0)),
    Mutant(
        "corrector scaled by a norm",
        sk.PredictorCorrector(corrector=BatchNorms()),
        sk.PredictorCorrector(corrector=sk.SNRCorrector()),
        conformance("batch/ou-gaussian/eta=0"),
    ),
    Mutant("proposal density forgotten", MALASymmetric(), sk.MALA(), BALANCE),
    Mutant("proposal density forgotten", MALASignedOff(), sk.MALA(), BALANCE),
    Mutant("proposal density forgotten", MALAAlways(), sk.MALA(), BALANCE),
]
