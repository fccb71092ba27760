"""The suite as a whole: every check that a Spec calls for, and one call that runs them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch

from sdekit import grids
from sdekit.laws import Gaussian
from sdekit.processes import VP
from sdekit.reverse import reverse_time
from sdekit.score import exact_score
from sdekit.steppers import registry
from sdekit.steppers.base import Spec, Stepper
from sdekit.verify.affine import affine_map
from sdekit.verify.claims import TOLERANCE, Claim, claims
from sdekit.verify.conformance.behaviour import checks as behaviour
from sdekit.verify.conformance.exactness import checks as exactness
from sdekit.verify.conformance.outcome import Check, Conformance, require
from sdekit.verify.order import OrderEstimate

_CLASSES = ("linear-additive", "additive", "diagonal", "commutative", "general")


def check_stepper(
    stepper: str | Stepper,
    *,
    backend: str = "eager",
    device: str = "cpu",
    only: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Conformance:
    """Run the conformance suite on a stepper of the registry or of your own.

    Args:
        stepper: A registry name or a stepper.
        backend: Of ``torch.compile``, for the check that a step traces without graph breaks.
        device: Where the checks of behaviour run; orders are measured on the CPU.
        only: Checks whose name begins so, such as ``order`` or ``batch``.
        progress: Told the name of every check before it runs.

    Returns:
        What every check saw; ``.check()`` raises if one failed.
    """
    chosen = registry.get(stepper)
    found = []
    for check in checks(chosen, backend=backend, device=device):
        if only is None or check.name.startswith(only):
            if progress is not None:
                progress(check.name)
            found.append(check.outcome())
    return Conformance(chosen.spec.name, tuple(found))


def checks(stepper: str | Stepper, *, backend: str = "eager", device: str = "cpu") -> list[Check]:
    """The checks that a stepper's Spec calls for, to be run one by one; pytest can be parametrised with them.

    Args:
        stepper: A registry name or a stepper.
        backend: Of ``torch.compile``.
        device: Where the checks of behaviour run.
    """
    chosen = registry.get(stepper)
    if chosen.spec.alias is not None:
        return [Check("declared", partial(_declared, chosen.spec)), Check("alias", partial(_alias, chosen))]
    return [
        Check("declared", partial(_declared, chosen.spec)),
        *behaviour(chosen, backend, device),
        *exactness(chosen),
        *_orders(chosen),
    ]


def _declared(spec: Spec) -> str:
    """The facts of a Spec do not contradict one another."""
    require(bool(spec.name and spec.summary and spec.references), "a Spec needs a name, a summary and references")
    require(spec.evaluations >= 0, f"evaluations per step cannot be {spec.evaluations}")
    unknown = (spec.strong.keys() | spec.weak.keys()) - set(_CLASSES)
    require(not unknown, f"orders are declared for unknown classes: {sorted(unknown)}")
    # A chain adds noise of its own, and may have no order at all.
    for noise in spec.noise_types if spec.kind != "chain" else ():
        if noise == "none":
            require(spec.ode is not None, "it integrates ODEs but declares no order for them")
            continue
        named = {"additive": "additive", "scalar": "commutative"}.get(noise, noise)
        linear = noise == "additive" and spec.kind == "exact"
        declared = "linear-additive" if linear else named
        require(declared in spec.strong or declared in spec.weak, f"it takes {noise} noise but declares no order there")
    orders = [o for o in (spec.ode, *spec.strong.values(), *spec.weak.values()) if o is not None]
    require(all(o > 0 for o in orders), f"orders must be positive: {orders}")
    require(0 <= spec.eta[0] <= spec.eta[1], f"the range of η is {spec.eta}")
    return f"{len(orders)} orders declared"


def _alias(stepper: Stepper) -> str:
    """Another name for a plan: the same law as the original's wherever it is taken, and no fact but the original's."""
    spec = stepper.spec
    assert spec.alias is not None
    original, grid = registry.get(spec.alias), grids.log_snr(VP(), 7)
    extra = {f for f in spec.weak.items() if f not in original.spec.weak.items()}
    extra |= {f for f in spec.strong.items() if f not in original.spec.strong.items()}
    require(not extra, f"it declares {sorted(extra)}, which {spec.alias} does not")
    require(spec.ode in (None, original.spec.ode), f"it declares the order {spec.ode} on ODEs; {spec.alias} does not")
    data = Gaussian([0.5, -1.0], torch.tensor([0.04, 0.5]))
    etas = [eta for eta in (0.0, 1.0) if spec.eta[0] <= eta <= spec.eta[1]]
    for eta in etas:
        sde = reverse_time(VP(), exact_score(data, VP()), eta)
        one, other = (affine_map(sde, which, grid, (2,)) for which in (stepper, original))
        pairs = ((one.constant, other.constant), (one.matrix, other.matrix), (one.noises, other.noises))
        off = max(float((a - b).abs().max()) if a.numel() else 0.0 for a, b in pairs)
        require(off < 1e-13, f"it differs from {spec.alias} by {off:.2g} at η = {eta:g}")
    return f"{spec.alias} at η in {etas}"


def _orders(stepper: Stepper) -> Iterator[Check]:
    """Every claim reached; and every declared fact sharp on one problem at least."""
    everything = claims(stepper)

    @cache
    def measured(claim: Claim) -> OrderEstimate:
        return claim.measure(stepper)

    def reached(claim: Claim) -> str:
        found = measured(claim)
        wanted = f"declared {claim.declared:g}, measured {found}"
        shown = ", ".join(f"{n}: {e:.3g}" for n, e in zip(found.steps, found.errors, strict=True))
        require(claim.holds(found), f"{wanted} ({shown})")
        return wanted

    def sharp(fact: str, about: list[Claim]) -> str:
        for claim in about:
            if claim.sharp(measured(claim)):
                return f"sharp on {claim.problem}"
        nearest = min((measured(c) for c in about), key=lambda e: abs(e.order - about[0].declared))
        require(False, f"declared {about[0].declared:g}, but no problem shows it within {TOLERANCE}: nearest {nearest}")
        return ""

    for claim in everything:
        yield Check(f"order/{claim.name}", partial(reached, claim))
    for fact in dict.fromkeys(claim.fact for claim in everything):
        yield Check(f"sharp/{fact}", partial(sharp, fact, [c for c in everything if c.fact == fact]))
    spec = stepper.spec
    facts = {f"strong/{c}" for c in spec.strong} | {f"weak/{c}" for c in spec.weak}
    facts |= set() if spec.ode is None else {"ode"}
    for fact in sorted(facts - {claim.fact for claim in everything}):
        yield Check(f"sharp/{fact}", partial(_untested, fact))


def _untested(fact: str) -> str:
    require(False, f"{fact} is declared, but no problem of the library can measure it")
    return ""
