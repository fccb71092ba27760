"""Slips in methods of Stratonovich's calculus, and in the step from one calculus to the other."""

from __future__ import annotations

from dataclasses import replace

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import claim, golden
from sdekit.dynamics import times_noise
from sdekit.steppers import Step, StepMethod
from sdekit.steppers.coefficients import vector
from sdekit.steppers.stratonovich import StratonovichRungeKutta


class SlowRKTurned(StratonovichRungeKutta):
    """H of the other sign in the new state."""

    spec = sk.SlowRK.spec
    tableau = replace(sk.SlowRK.tableau, bh=vector("0 0 0 -2 0 0 2"))


class EulerHeunAtTheStart(StratonovichRungeKutta):
    """Both diffusions at the start of the step, which is the calculus of Itô."""

    spec = sk.EulerHeun.spec
    tableau = replace(sk.EulerHeun.tableau, bw=vector("1 0"))


class ShARKOfAMoment(StepMethod):
    """Noise that depends on the time, taken at the start of the step."""

    spec = sk.ShARK.spec

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        h, g = t1 - t0, sde.diffusion(t0, x)
        kick, start = times_noise(g, increment.w), x + times_noise(g, increment.h)
        first = sde.drift(t0, start)
        second = sde.drift(t0 + 5 / 6 * h, start + 5 / 6 * (h * first + kick))
        return Step(x + h * (0.4 * first + 0.6 * second) + kick)


class SEAUnshifted(StepMethod):
    """The drift at W for its mean over the step, W/2 + H."""

    spec = sk.SEA.spec

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        right = sk.SEA().step(sde, t0, t1, x, increment, memory).x
        g = sde.diffusion(t0, x)
        seen = [x + times_noise(g, part) for part in (increment.w, 0.5 * increment.w + increment.h)]
        return Step(right + (t1 - t0) * (sde.drift(t0, seen[0]) - sde.drift(t0, seen[1])))


SHORT = (16, 32, 64, 128)

MUTANTS = [
    Mutant(
        "H of the other sign", SlowRKTurned(), sk.SlowRK(), claim("strong", "commuting-strat", steps=SHORT), slow=True
    ),
    Mutant("Stratonovich taken for Ito", EulerHeunAtTheStart(), sk.EulerHeun(), claim("weak", "gbm-strat")),
    Mutant("noise of the start of the step", ShARKOfAMoment(), sk.ShARK(), golden(1.0)),
    Mutant(
        "noise of the start of the step",
        ShARKOfAMoment(),
        sk.ShARK(),
        claim("strong", "nonautonomous-square"),
        slow=True,
    ),
    Mutant("drift at the end of the path", SEAUnshifted(), sk.SEA(), golden(1.0)),
]
