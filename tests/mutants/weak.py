"""Slips in weak methods for several noises."""

from __future__ import annotations

from dataclasses import replace

import torch

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import CONDITIONS, claim
from sdekit.steppers import Step


class PairsForgotten(sk.PlatenWeak2):
    """½ Î_k Î_l for both iterated integrals of a pair."""

    def step(self, sde, t0, t1, x, increment, memory) -> Step:
        seen = increment and replace(increment, coins=torch.zeros_like(increment.w))
        return super().step(sde, t0, t1, x, seen, memory)


class OtherSign(sk.RI6):
    """β⁴ of the other sign, −Î_(k,l): first and second moments of linear equations do not see it."""

    tableau = replace(sk.RI6.tableau, beta4=tuple(-v for v in sk.RI6.tableau.beta4))


class ThirdForgotten(sk.RI6):
    """No β³, which linear noise does not see."""

    tableau = replace(sk.RI6.tableau, beta3=tuple(0 * v for v in sk.RI6.tableau.beta3))


NONCOMMUTING = claim("weak", "noncommuting")

MUTANTS = [
    Mutant("two-point variables forgotten", PairsForgotten(), sk.PlatenWeak2(), NONCOMMUTING),
    Mutant("sign of beta4 in RI6", OtherSign(), sk.RI6(), CONDITIONS),
    Mutant("beta3 forgotten", ThirdForgotten(), sk.RI6(), CONDITIONS),
]
