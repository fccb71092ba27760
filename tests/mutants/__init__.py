"""The zoo: slips that were planted on purpose, each with the check that must see it.

A check that cannot fail is a defect. Many slips keep the order, some on every grid: that is why there are golden laws;
some keep the law: that is why there are strong errors; and some keep both: that is why there is a conformance suite.

To add one: put the slip beside what is right, name the trap in :data:`TRAPS`, and say who must see it.
"""

from __future__ import annotations

from mutants import areas, flows, generator, langevin, paths, samplers, stratonovich, surroundings, weak
from mutants.base import Check, Mutant

__all__ = ["TRAPS", "ZOO", "Check", "Mutant"]

ZOO: list[Mutant] = [
    *flows.MUTANTS,
    *generator.MUTANTS,
    *samplers.MUTANTS,
    *paths.MUTANTS,
    *areas.MUTANTS,
    *langevin.MUTANTS,
    *stratonovich.MUTANTS,
    *surroundings.MUTANTS,
    *weak.MUTANTS,
]

TRAPS = """
inverted step ratio; step ratio taken to be one; history ignored; stale history; last step dropped;
wrong node; wrong weights; wrong stage; asked outside the grid; step of the wrong sign; division by h = 0;
second difference halved; second difference of the wrong sign; midpoint slope at order 3; started by Euler;
another clock; corrector of the wrong sign; corrector with a fresh z; independent stages;
float32 table; float32 clock; times rounded to a table; x0 clipped; corrector scaled by a norm;
eta not squared; eta forgotten; missing square; missing root; sigma of the wrong end; score at the wrong end;
DDIM without rho; last noise dropped; noise off by 2 %; one z in two steps; noise shared over the batch;
Jacobian transposed; Milstein element by element; Milstein without -h; Milstein of the wrong sign;
mixed integrals forgotten; order 1 without areas; area of the wrong sign; area forgotten;
sign of beta2 in SRA1; sign of beta2 in SRA2; sign of beta2 in SRA3; sign of a beta in SRI;
two-point variables forgotten; sign of beta4 in RI6; beta3 forgotten;
H scaled by the root of 3; Z independent of W; H not reflected; I_(1,0) for H;
H and W exchanged; mean of the variance for the variance; variance without H; covariance of pairs forgotten;
one normal for all pairs; three-point variables off;
Ito taken for Stratonovich; Stratonovich taken for Ito; divergence dropped;
H of the other sign; noise of the start of the step; drift at the end of the path;
sqrt(eps) for sqrt(2 eps); conventions of gamma mixed; proposal density forgotten
"""
"""Every slip that libraries and prototypes are known for, and that a check here can see."""
