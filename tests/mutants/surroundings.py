"""Slips outside of steppers: in the way back, in the loop that runs a method, in what is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

import sdekit as sk
from mutants.base import Mutant
from mutants.checks import FLOW, GEOMETRIC, NO_STEP, moments
from sdekit import random
from sdekit.brownian import StepNoise
from sdekit.steppers import Plan
from sdekit.steppers.assembly import Multistep
from sdekit.steppers.exponential import Denoised


def divergence_forgotten() -> sk.dynamics.SDE:
    """f − ½ C s for f − ½ (∇·C + C s), with C = s² x²."""
    s = GEOMETRIC.s
    return sk.sde(lambda t, x: GEOMETRIC.process.drift(t, x) - 0.5 * (s * x) ** 2 * GEOMETRIC.score(t, x))


def solved(sde, x: Tensor, times: list[float]) -> Tensor:
    """By the driver, which takes distinct times only."""
    return sk.solve(sde, x, times, "dpmpp-2m").final


class NodesAlike(sk.DPMpp2M):
    """Nodes may be at no distance from one another."""

    def plan(self, schedule, eta, times) -> Plan:
        return Multistep(Denoised(), 2, midpoint=True, apart=0.0).plan(schedule, eta, times)


def stepped_over_nothing(sde, x: Tensor, times: list[float]) -> Tensor:
    """By a loop that takes a step of h = 0, and the next one divides by it."""
    advance, memory = NodesAlike().prepare(sde, times).advance, None
    for k in range(len(times) - 1):
        x, memory = advance(k, x, (), memory)
    return x


def area(n: int) -> Tensor:
    """H/√(h/12)."""
    return sk.BrownianGrid((n, 1), steps=1, seed=11, levy="space-time").increment(0.0, 1.0).h * 12.0**0.5


def integral_for_area(n: int) -> Tensor:
    """Z = ½ W + H, of variance h/3, for H."""
    path = sk.BrownianGrid((n, 1), steps=1, seed=11, levy="space-time").increment(0.0, 1.0)
    return (path.h + 0.5 * path.w) * 12.0**0.5


def three_points(n: int) -> Tensor:
    """±√3 with probability 1/6 each, 0 with 2/3."""
    keys = random.path_keys(12, n)
    return StepNoise(keys, torch.Size([1]), torch.float64, [[(0.0, 1.0)]], "three-point").increments(0)[0].w


def likely_points(n: int) -> Tensor:
    """±√2 with probability 1/4 each: the variance is right, the fourth moment 2."""
    z = random.normals(random.path_keys(12, n), (1,), stream=random.STREAM_STEP)[0]
    return 2.0**0.5 * z.sign() * (z.abs() > 0.6744897501960817)


FLOW_RIGHT = sk.probability_flow(GEOMETRIC.process, GEOMETRIC.score)

MUTANTS = [
    Mutant("divergence dropped", divergence_forgotten(), FLOW_RIGHT, FLOW),
    Mutant("division by h = 0", stepped_over_nothing, solved, NO_STEP),
    Mutant("I_(1,0) for H", integral_for_area, area, moments(1.0, 3.0, 15.0)),
    Mutant("three-point variables off", likely_points, three_points, moments(1.0, 3.0, 9.0)),
]
