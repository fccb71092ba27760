"""Samplers that meet on one problem at equal numbers of network evaluations: sdekit's and those of its peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

from sdekit.driver import solve
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.metrics import wasserstein2
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.steppers.family import Family
from sdekit.steppers.rectified import VABM
from sdekit.study import peers
from sdekit.study.peer_methods import Peer
from sdekit.study.peer_methods import peers as all_peers
from sdekit.study.settings import SAMPLERS
from sdekit.verify import numerical_law

Kind = Literal["flow", "w2"]
PROBLEMS: dict[Kind, str] = {"flow": "ve-mixture", "w2": "ve-normal"}
"""What is measured → the problem that it is measured on, of :mod:`sdekit.study.peers`."""


@final
@dataclass(frozen=True)
class Contender:
    """A sampler.

    Attributes:
        library: Its distribution.
        method: For people.
        kind: ``flow``, or ``w2`` for η = 1.
        error: ``budget -> (evaluations, error)``, with as many evaluations as the budget allows; None where it allows
            no run.
    """

    library: str
    method: str
    kind: Kind
    error: Callable[[int], tuple[int, float] | None]

    @property
    def name(self) -> str:
        """The name of its record."""
        return f"{self.kind}/{self.library}/{self.method.lower().replace(', ', '-').replace(' ', '-')}"


def contenders() -> Iterator[Contender]:
    """Registered samplers of sdekit, p-step methods with both starts, and all peers, installed or not."""
    for name, stepper in registry.STEPPERS.items():
        if stepper.spec.kind == "plan" and stepper.spec.alias is None:
            yield from _ours(name, stepper())
            if issubclass(stepper, Family) and stepper.spec.min_steps > 2:
                yield from _ours(f"{name}, ramp", stepper(start="ramp"), ("flow",))  # type: ignore[call-arg]
    yield from _ours("v-abm-5, ramp", VABM(5, start="ramp"), ("flow",))
    for peer in all_peers():
        if peer.library in SAMPLERS and peer.measure in ("flow", "w2"):
            kind: Kind = "flow" if peer.measure == "flow" else "w2"
            yield Contender(peer.library, peer.method, kind, partial(_of_peer, peer))


def _ours(method: str, stepper: Stepper, kinds: tuple[Kind, ...] = ("flow", "w2")) -> Iterator[Contender]:
    for kind in kinds:
        if registry.obstacle(stepper.spec, peers.case_of(PROBLEMS[kind]).sde) is None:
            yield Contender("sdekit", method, kind, partial(_flow if kind == "flow" else _law, stepper))


def _flow(stepper: Stepper, budget: int) -> tuple[int, float] | None:
    case, (x, exact) = peers.case_of(PROBLEMS["flow"]), peers.flow_of(PROBLEMS["flow"])
    each = stepper.spec.evaluations
    steps = budget // each
    while steps >= stepper.spec.min_steps:
        try:
            solution = solve(case.sde, x, case.grid(steps), stepper)
        except SdekitError:
            return None  # too few steps for the start
        calls = solution.stats.score_evaluations
        if calls <= budget:
            return calls, float((solution.check().final - exact).square().mean().sqrt())
        steps -= math.ceil((calls - budget) / each)  # a start that keeps the order asks more often
    return None


def _law(stepper: Stepper, budget: int) -> tuple[int, float] | None:
    """With noise every method asks equally often in each step."""
    case, each = peers.case_of(PROBLEMS["w2"]), stepper.spec.evaluations
    steps = budget // each
    if steps < stepper.spec.min_steps:
        return None
    assert isinstance(case.initial, Gaussian)
    return steps * each, wasserstein2(numerical_law(case.sde, stepper, case.grid(steps), case.initial), case.law)


def _of_peer(peer: Peer, budget: int) -> tuple[int, float] | None:
    steps = budget // peer.calls
    return None if steps < 2 else (steps * peer.calls, peers.error(peer, steps))
