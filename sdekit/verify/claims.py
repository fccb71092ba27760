"""What a stepper's Spec claims, problem by problem, and what was measured.

A :class:`Claim` says: on this problem, this kind of error falls with that order. The claims of a stepper follow from
its :class:`~sdekit.steppers.Spec` and the library of problems: every problem that it can integrate, every kind of error
that has an exact answer there. A claim holds if the measured order reaches the declared one. It may exceed it, for some
problems are superconvergent; but for every declared fact there has to be a problem on which the order is sharp.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from sdekit import problems
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.problems.base import Problem
from sdekit.steppers import registry
from sdekit.steppers.base import Spec, Stepper
from sdekit.verify.convergence import Kind, law_method, order, strong_method, weak_method
from sdekit.verify.draws import DISCRETE
from sdekit.verify.order import OrderEstimate

TOLERANCE = 0.05
"""How far a measured order may fall short of a declared one, beyond its uncertainty."""

_ETAS = (0.0, 0.5, 1.0, 1.5)
_LADDERS: dict[str, tuple[int, ...]] = {
    "affine": (32, 64, 128, 256, 512),
    "noisy": (16, 32, 64, 128, 256),
    "isometry": (16, 32, 64, 128, 256),
    "flow": (32, 64, 128, 256, 512),
    "transport": (24, 48, 96, 192),
    "linear": (16, 32, 64, 128, 256),
    "backward": (16, 32, 64, 128),
    "paths": (16, 32, 64, 128, 256, 512),
    "doubling": (8, 16, 32, 64, 128),
}
_BEFORE_ROUND_OFF = (8, 16, 32, 64, 128)
_HALF_OCTAVES = (64, 96, 128, 192, 256)
# By order: only few steps lie between errors that are not yet small and round-off.
_HIGH = {
    5.0: ((8, 12, 16, 24, 32), _HALF_OCTAVES, (32, 48, 64, 96, 128), (16, 24, 32, 48, 64, 96)),
    8.0: ((8, 12, 16, 24, 32), (6, 8, 12, 16, 24)),
}
_FINE = (128, 192, 256, 384, 512, 768)
_FINEST = (768, 1024, 1536, 2048)
_AGAIN = {
    "linear": (512, 768, 1024, 1536, 2048),
    "backward": (48, 64, 96, 128, 192),
    "isometry": (64, 128, 256, 512),
    "doubling": (32, 64, 128, 256, 512),
}
_EXACT_LADDER = (1, 4, 64)
_STIFF = ("ve-mixture", "double-well")  # where what a step leaves beside the state grows until it is all there is
_FOR_CHAINS = "vp-mixture"  # whose steps are no normal kernels, so that weak errors say what W2 does elsewhere
_PATHS = (4096, 16_384, 65_536)  # more where fewer leave too much uncertainty
_SHARP = 0.08
_WHOLE = 0.3  # of an exact error: orders there are whole numbers
_BLUNT = 0.12  # uncertainty beyond which a sampled order says nothing


@dataclass(frozen=True)
class Claim:
    """A declared order on a problem.

    Attributes:
        kind: Of error.
        problem: Name in the library.
        eta: Of a generation problem; None elsewhere.
        fact: The field of the Spec, such as ``weak/additive``.
        declared: The order; infinite for a method that is exact.
        method: How the error is had.
        jagged: Whether steps are in the ratio 1 : 3 : 2 instead of smooth.
    """

    kind: Kind
    problem: str
    eta: float | None
    fact: str
    declared: float
    method: str
    jagged: bool = False

    @property
    def name(self) -> str:
        """Such as ``w2/vp-gaussian/eta=0.5``."""
        eta = "" if self.eta is None else f"/eta={self.eta:g}"
        return f"{self.kind}/{self.problem}{eta}" + ("/jagged" if self.jagged else "")

    def make(self) -> Problem:
        """The problem."""
        found = problems.get(self.problem, **({} if self.eta is None else {"eta": self.eta}))
        return replace(found, grid=functools.partial(_jagged, found.grid)) if self.jagged else found

    def measure(
        self, stepper: str | Stepper, steps: Sequence[int] | None = None, seed: int = 0, within: float = _SHARP
    ) -> OrderEstimate:
        """The order that the stepper has.

        Args:
            stepper: A registry name or a stepper.
            steps: Step counts; by default those that suit the method.
            seed: Of coupled paths, where the method needs them.
            within: Uncertainty that is good enough; more paths and finer steps are tried until it is reached, and if it
                is not, the least uncertain order is the answer.
        """
        ladders = self._ladders(registry.get(stepper).spec) if steps is None else (steps,)
        tries = [(ladder, _PATHS[0]) for ladder in ladders]
        if self.method in ("paths", "doubling"):
            tries = [(ladders[0], samples) for samples in _PATHS] + [(ladder, _PATHS[-1]) for ladder in ladders[1:]]
        found = []
        for ladder, samples in tries:
            with torch.no_grad():
                found.append(order(self.make(), stepper, self.kind, ladder, samples=samples, seed=seed))
            if found[-1].exact or found[-1].uncertainty <= within:
                return found[-1]
        return min(found, key=lambda e: math.inf if math.isnan(e.uncertainty) else e.uncertainty)

    def _ladders(self, spec: Spec) -> tuple[tuple[int, ...], ...]:
        """Step counts, and others to be taken where those leave the order blunt: errors that change sign, say."""
        if math.isinf(self.declared):
            return (_EXACT_LADDER,)
        noisy = self.method == "affine" and self.eta != 0.0
        planned = spec.kind == "plan"
        ladders = [_LADDERS["noisy" if noisy else self.method]]
        if self.method == "doubling" and planned:
            ladders = [_LADDERS["noisy"]]  # a start of order one, and steps of half the range of λ, show up to there
        if self.method in ("affine", "flow"):
            # Single-step methods of high order reach round-off early.
            early = self.declared > 3.0 and not planned
            ladders = [_BEFORE_ROUND_OFF] if early else [*ladders, _HALF_OCTAVES, _FINE]
            ladders += _HIGH.get(self.declared, ()) if early else ()
            ladders += [_FINEST] if noisy else []
        ladders += [_AGAIN[self.method]] if self.method in _AGAIN else []
        if self.jagged:
            return tuple(tuple(3 * (n // 4) for n in ladder) for ladder in ladders)
        return tuple(ladders)

    def holds(self, estimate: OrderEstimate) -> bool:
        """Whether the declared order was reached; infinity is an error of round-off at every level.

        A sampled order holds unless it is four of its uncertainties short (false alarm 3e-5), which are less than half
        an order.
        """
        if self.method in ("paths", "doubling"):
            if estimate.exact:
                return True
            short = self.declared - TOLERANCE - estimate.order
            return estimate.uncertainty <= _BLUNT and short <= 4.0 * estimate.uncertainty
        return estimate.reaches(self.declared, TOLERANCE, _WHOLE)

    def sharp(self, estimate: OrderEstimate) -> bool:
        """Whether the order is the declared one, and no higher."""
        wanted = "exact" if math.isinf(self.declared) else "agrees"
        return estimate.verdict(self.declared, TOLERANCE) == wanted


def declared_order(spec: Spec, problem: Problem, kind: str) -> tuple[str, float] | None:
    """The fact of a Spec that speaks of this problem, and the order that it states; None if there is none."""
    silent = problem.sde.noise_type == "none"
    if (silent and spec.kind != "chain") or kind == "ode":
        return None if spec.ode is None else ("ode", spec.ode)
    facts, where = "strong" if kind == "strong" else "weak", problem.noise_class
    if silent:
        where = "linear-additive" if problem.affine else "additive"  # the noise is the chain's own
    found = (spec.strong if kind == "strong" else spec.weak).get(where)
    return None if found is None else (f"{facts}/{where}", found)


def kinds(problem: Problem) -> list[Kind]:
    """The kinds of order that have an exact answer on a problem, the sharpest first."""
    found: list[Kind] = []
    for kind, method in (("w2", law_method), ("ode", _flow), ("strong", strong_method), ("weak", weak_method)):
        try:
            method(problem)
        except SdekitError:
            continue
        found.append(kind)  # type: ignore[arg-type]
    return found


def _flow(problem: Problem) -> None:
    if problem.flow is None:
        raise SdekitError(f"The problem {problem.name!r} has no exact flow.")


def fits(stepper: Stepper, problem: Problem) -> bool:
    """Whether a stepper can be bound to a problem."""
    try:
        registry.check(stepper, problem.sde)
        stepper.prepare(problem.sde, problem.grid(max(2, stepper.spec.min_steps)).tolist())
    except SdekitError:
        return False
    return True


def takes_eta(make: Callable[..., Problem]) -> bool:
    """Whether a maker of problems takes η."""
    return "eta" in inspect.signature(make).parameters


def claims(stepper: str | Stepper) -> list[Claim]:
    """All that a stepper's Spec says of the problems in the library.

    Args:
        stepper: A registry name or a stepper.
    """
    chosen = registry.get(stepper)
    if chosen.spec.alias is not None:
        return []  # what is said of the original is said of it
    return [claim for name, eta, problem in subjects(chosen) for claim in _about(chosen.spec, name, eta, problem)]


def subjects(stepper: Stepper) -> Iterator[tuple[str, float | None, Problem]]:
    """The smooth problems that a stepper can integrate, with their η: no order is claimed on the others."""
    for name, make in problems.PROBLEMS.items():
        for eta in _ETAS if takes_eta(make) else (None,):
            problem = problems.get(name, **({} if eta is None else {"eta": eta}))
            if problem.smooth and fits(stepper, problem):
                yield name, eta, problem


def _about(spec: Spec, name: str, eta: float | None, problem: Problem) -> Iterator[Claim]:
    """The claims on one problem."""
    for kind in kinds(problem) if not (spec.remembers and name in _STIFF) else ():
        found = declared_order(spec, problem, kind)
        method = _method(spec, problem, kind, eta)
        if found is None or method is None:
            continue
        fact, declared = found
        if method in ("paths", "doubling") and declared < 1.0 and not spec.remembers:
            continue  # half an order takes too many paths; linear problems have it exactly
        if not math.isinf(declared) or fact == "weak/linear-additive" or isinstance(problem.law, Gaussian):
            yield Claim(kind, name, eta, fact, declared, method)
        if method == "affine" and eta in (0.0, 1.0) and name == "vp-gaussian" and not math.isinf(declared):
            yield Claim(kind, name, eta, fact, declared, method, jagged=True)


def _method(spec: Spec, problem: Problem, kind: Kind, eta: float | None) -> str | None:
    """How this error of such a stepper is had; None where it is not, or where another kind says the same."""
    chain = spec.kind == "chain"
    silent = problem.sde.noise_type == "none" and not chain
    if kind == "ode":
        return "flow"
    if kind == "w2":
        method = law_method(problem)
        gaussian = spec.increments in ("w", "space-time") if method == "affine" else spec.increments == "w"
        if not (silent or gaussian) or method == "flow":
            return None
        if method == "transport" and (chain or eta not in (None, 1.0) or problem.weak is not None):
            return None  # the weak error says the same, for less
        if method == "transport" and spec.kind == "step" and spec.evaluations > 1:
            return None  # a second drift sees the noise of its step, whose kernel is then not normal
        return method
    if silent:
        return None
    if kind == "strong":
        if spec.increments in DISCRETE:
            return None
        method = strong_method(problem, spec)
        if method == "doubling" and eta is not None and (eta != 1.0 or not spec.needs_schedule):
            return None  # a method that takes other problems shows its order there, against known solutions
        if method == "affine":
            return "isometry" if eta in (None, 1.0) else None
        return method
    if weak_method(problem) == "affine" and (spec.increments not in DISCRETE or problem.linear is None):
        return None  # W2 says the same; of discrete variables the moments of linear problems are known
    method = weak_method(problem, spec.increments)
    plane = method == "backward" and problem.initial.event_shape.numel() > 1  # it can be had, but takes minutes
    if problem.weak is None and not (chain and problem.name == _FOR_CHAINS and eta == 0.0):
        return None  # W2 says the same
    return None if method == "affine" or plane else method


def _jagged(grid: Callable[[int], Tensor], steps: int) -> Tensor:
    """Steps as 1 : 3 : 2, taken out of a grid with twice as many; ``steps`` is a multiple of 3."""
    return grid(2 * steps)[[0, *accumulate((1, 3, 2) * (steps // 3))]]
