"""Slips in samplers with additive noise: η, σ, the time of the score, and where the noise comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import ACCEPTED, claim, conformance, golden
from mutants.flows import rows
from sdekit.steppers import Plan, Prepared, Row, Step
from sdekit.steppers.plan import h_of


class EtaNotSquared(sk.DDIM):
    """s² = η σ² (1 − e^{−2h}): still a sampler of the family, for another η."""

    def plan(self, schedule, eta, times) -> Plan:
        return super().plan(schedule, eta**0.5, times)


class EtaForgotten(sk.DDIM):
    """s² = σ² (1 − e^{−2h})."""

    def plan(self, schedule, eta, times) -> Plan:
        return super().plan(schedule, float(eta > 0), times)


class NoiseOfTheStart(sk.DDIM):
    """σ_s for σ_t in the noise."""

    def plan(self, schedule, eta, times) -> Plan:
        sigma = schedule.sigma(times)

        def changed(k: int, row: Row) -> Row:
            return replace(row, noises={j: c * sigma[k] / sigma[k + 1] for j, c in row.noises.items()})

        return rows(super().plan(schedule, eta, times), changed)


class VarianceForDeviation(sk.DDIM):
    """s² z for s z."""

    def plan(self, schedule, eta, times) -> Plan:
        change = lambda k, row: replace(row, noises={j: c * c for j, c in row.noises.items()})  # noqa: E731
        return rows(super().plan(schedule, eta, times), change)


class WithoutRho(sk.DDIM):
    """α (1 − e^{−h}) D for α (1 − ρ e^{−h}) D: the deterministic weight beside noise."""

    def plan(self, schedule, eta, times) -> Plan:
        b = -schedule.alpha(times[1:]) * torch.expm1(-h_of(schedule, times))
        return rows(super().plan(schedule, eta, times), lambda k, row: replace(row, outputs={0: b[k]}))


class LastNoiseDropped(sk.DDIM):
    """No noise in the last step, as where it ends at the data; here it does not."""

    def plan(self, schedule, eta, times) -> Plan:
        last = len(times) - 2
        change = lambda k, row: replace(row, noises={}) if k == last else row  # noqa: E731
        return rows(super().plan(schedule, eta, times), change)


class LouderNoise(sk.EulerMaruyama):
    """Two per cent too much noise."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(1.02 * increment.w), memory)


class RootForgotten(sk.EulerMaruyama):
    """h z for √h z."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment((t1 - t0) ** 0.5 * increment.w), memory)


class LateScore(sk.EulerMaruyama):
    """The drift at the end of the step: Euler's error has another constant, and the same order."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        noise: Tensor = super().step(sde, t0, t1, x, increment, memory).x - x - (t1 - t0) * sde.drift(t0, x)
        return Step(x + (t1 - t0) * sde.drift(t1, x) + noise)


class NoiseTwice(sk.EulerMaruyama):
    """Two steps share one z."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        root = (t1 - t0) ** 0.5
        z = increment.w / root if memory is None else memory
        moved = super().step(sde, t0, t1, x, sk.Increment(root * z), None).x
        return Step(moved, z if memory is None else None)


class NoiseShared(sk.EulerMaruyama):
    """(1, d) normals, broadcast over the batch."""

    def step(self, sde, t0, t1, x, increment: sk.Increment, memory) -> Step:
        return super().step(sde, t0, t1, x, sk.Increment(increment.w[:1].expand_as(increment.w)), memory)


@dataclass(frozen=True)
class OneG:
    """f − ½ (1 + η²) g s for g² s."""

    sde: sk.reverse.Reverse
    noise_type = "additive"
    calculus = "ito"
    direction = "decreasing"

    def drift(self, t, x) -> Tensor:
        g = self.sde.schedule.diffusion_rate(t) ** 0.5
        return self.sde.process.drift(t, x) - 0.5 * (1 + self.sde.eta**2) * g * self.sde.score(t, x)

    def diffusion(self, t, x) -> Tensor:
        return self.sde.diffusion(t, x)


class SquareForgotten(sk.EulerMaruyama):
    """g for g² before the score."""

    spec = replace(sk.EulerMaruyama.spec, kind="plan")  # a plan is shown the score

    def prepare(self, sde, times) -> Prepared:
        return super().prepare(OneG(sde), times)


class Corrected(sk.EulerMaruyama):
    """A predictor, then a corrector x + ε s + √(2ε) z of a given size: affine, and right."""

    spec = replace(sk.EulerMaruyama.spec, name="predictor-corrector", kind="plan")  # a plan is shown the score

    def size(self, score: Tensor, z: Tensor) -> Tensor:
        return torch.full_like(z[:, :1], 1e-3)

    def prepare(self, sde, times) -> Prepared:
        predictor = super().prepare(sde, times)
        draws = [((s, 0.5 * (s + t)), (0.5 * (s + t), t)) for s, t in pairwise(times)]

        def advance(k, x, increments, memory):
            first, second = (increment.w * 2.0**0.5 for increment in increments)
            x, memory = predictor.advance(k, x, (sk.Increment(first),), memory)
            score, z = sde.score(times[k + 1], x), second / abs(times[k + 1] - times[k]) ** 0.5
            size = self.size(score, z)
            return x + size * score + (2.0 * size) ** 0.5 * z, memory

        return Prepared(draws, advance)


class NormScaled(Corrected):
    """ε = 2 (r |z|/|s|)²: of a size that depends on the state."""

    def size(self, score: Tensor, z: Tensor) -> Tensor:
        ratio = z.norm(dim=1, keepdim=True) / score.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return 2.0 * (0.05 * ratio) ** 2


class BatchScaled(Corrected):
    """The same with the mean norms of the batch: the probe runs in one batch, where that is a number."""

    def size(self, score: Tensor, z: Tensor) -> Tensor:
        ratio = z.norm(dim=1).mean() / score.norm(dim=1).mean()
        return torch.full_like(z[:, :1], float(2.0 * (0.05 * ratio) ** 2))


BATCH = conformance("batch/ou-gaussian/eta=0.5")
LAW = claim("w2", "vp-gaussian", 1.0)

MUTANTS = [
    Mutant("eta not squared", EtaNotSquared(), sk.DDIM(), golden(0.5)),
    Mutant("eta forgotten", EtaForgotten(), sk.DDIM(), golden(0.5)),
    Mutant("sigma of the wrong end", NoiseOfTheStart(), sk.DDIM(), golden(1.0)),
    Mutant("missing square", VarianceForDeviation(), sk.DDIM(), golden(1.0)),
    Mutant("missing square", SquareForgotten(), sk.EulerMaruyama(), golden(1.0)),
    Mutant("missing root", RootForgotten(), sk.EulerMaruyama(), conformance("exact/constant/additive")),
    Mutant("DDIM without rho", WithoutRho(), sk.DDIM(), conformance("exact/point-mass/eta=1")),
    Mutant("last noise dropped", LastNoiseDropped(), sk.DDIM(), golden(1.0)),
    Mutant("noise off by 2 %", LouderNoise(), sk.EulerMaruyama(), golden(1.0)),
    Mutant("noise off by 2 %", LouderNoise(), sk.EulerMaruyama(), LAW),
    Mutant("score at the wrong end", LateScore(), sk.EulerMaruyama(), golden(1.0)),
    Mutant("one z in two steps", NoiseTwice(), sk.EulerMaruyama(), golden(1.0)),
    Mutant("noise shared over the batch", NoiseShared(), sk.EulerMaruyama(), BATCH),
    Mutant("corrector scaled by a norm", NormScaled(), Corrected(), ACCEPTED),
    Mutant("corrector scaled by a norm", BatchScaled(), Corrected(), BATCH),
]
