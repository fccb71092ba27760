"""The conformance suite over the whole registry; and what it is worth: it has to fail where there is a defect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sdekit as sk
from sdekit.steppers import Spec, Step, StepMethod, registry
from sdekit.verify import check_stepper, claims
from sdekit.verify.conformance import Check, checks

COSTLY = {"paths": [pytest.mark.statistical], "doubling": [pytest.mark.statistical], "backward": []}
METHODS = {(name, f"order/{c.name}"): c.method for name in sk.STEPPERS for c in claims(name)}
ALWAYS = ("euler-maruyama", "milstein", "sra1", "sri1w1", "heun-strat", "dri1")


def marks(name: str, check: Check) -> list[pytest.MarkDecorator]:
    """Orders that take seconds each are measured by ``make certify``, and in every run for one stepper of a kind."""
    method = METHODS.get((name, check.name))
    if method not in COSTLY:
        return []
    return COSTLY[method] if name in ALWAYS else [*COSTLY[method], pytest.mark.certify]


EVERY = [
    pytest.param(name, check, id=f"{name}/{check.name}", marks=marks(name, check))
    for name in sk.STEPPERS
    for check in checks(name)
]


@pytest.mark.parametrize(("name", "check"), EVERY)
def test_registry(name: str, check: Check) -> None:
    outcome = check.outcome()
    assert outcome.passed, outcome.detail


class Midpoint(StepMethod):
    """A third party's stepper."""

    spec = Spec("my-midpoint", "the explicit midpoint rule", ("hairer1993",), "step", evaluations=2, ode=2.0)

    def step(self, sde, t0, t1, x, increment, memory):
        h = t1 - t0
        halfway = x.add(sde.drift(t0, x), alpha=0.5 * h)
        return Step(x.add(sde.drift(t0 + 0.5 * h, halfway), alpha=h))


def test_a_third_party_stepper_passes() -> None:
    report = check_stepper(Midpoint()).check()
    assert report.passed
    assert len(report.outcomes) > 20
    assert "my-midpoint" not in registry.STEPPERS


def failures(stepper: StepMethod, only: str | None = None) -> set[str]:
    return {outcome.name.split("/")[0] for outcome in check_stepper(stepper, only=only).failures}


def declared(**facts: object) -> Spec:
    return replace(Midpoint.spec, **facts)


class OverClaimed(Midpoint):
    """Order 3 is claimed."""

    spec = declared(ode=3.0)


class UnderClaimed(Midpoint):
    """Order 1 is claimed: reached everywhere, sharp nowhere."""

    spec = declared(ode=1.0)


class Miscounted(Midpoint):
    """One evaluation is claimed."""

    spec = declared(evaluations=1)


class Undeclared(Midpoint):
    """It takes additive noise, and says nothing of its order there."""

    spec = declared(noise_types=frozenset({"none", "additive"}))


class Unsourced(Midpoint):
    """Nobody knows where it is from."""

    spec = declared(references=())


class BatchMean(Midpoint):
    """The step depends on the neighbours."""

    def step(self, sde, t0, t1, x, increment, memory):
        moved = super().step(sde, t0, t1, x, increment, memory).x
        return Step(moved + 1e-9 * (t1 - t0) ** 2 * (moved - moved.mean(0)))


class Downcast(Midpoint):
    """The state passes through float32."""

    def step(self, sde, t0, t1, x, increment, memory):
        return Step(super().step(sde, t0, t1, x.float().double(), increment, memory).x.to(torch.float64))


class Detached(Midpoint):
    """Gradients are cut off in the second stage."""

    def step(self, sde, t0, t1, x, increment, memory):
        h = t1 - t0
        return Step(x + h * sde.drift(t0 + 0.5 * h, (x + 0.5 * h * sde.drift(t0, x)).detach()))


class HostSync(Midpoint):
    """A decision on the host in every step."""

    def step(self, sde, t0, t1, x, increment, memory):
        scale = 1.0 if float(x.abs().max()) < 1e6 else 0.5
        return Step(scale * super().step(sde, t0, t1, x, increment, memory).x)


class OneSided(Midpoint):
    """The midpoint is taken at |t|: right on forward clocks only."""

    def step(self, sde, t0, t1, x, increment, memory):
        h = t1 - t0
        return Step(x + h * sde.drift(abs(t0 + 0.5 * h), x + 0.5 * h * sde.drift(t0, x)))


class HalfStep(Midpoint):
    """Every step goes half the way."""

    def step(self, sde, t0, t1, x, increment, memory):
        return super().step(sde, t0, t0 + 0.5 * (t1 - t0), x, increment, memory)


class WrongNode(Midpoint):
    """The second stage at the end of the step."""

    def step(self, sde, t0, t1, x, increment, memory):
        h = t1 - t0
        return Step(x + h * sde.drift(t1, x + 0.5 * h * sde.drift(t0, x)))


@pytest.mark.parametrize(
    ("stepper", "check"),
    [
        (OverClaimed, "order"),
        (UnderClaimed, "sharp"),
        (Miscounted, "evaluations"),
        (Undeclared, "declared"),
        (Unsourced, "declared"),
        (BatchMean, "batch"),
        (Downcast, "precision"),
        (Detached, "gradient"),
        (HostSync, "trace"),
        (OneSided, "reflection"),
        (HalfStep, "small_steps"),
        (WrongNode, "exact"),
    ],
)
def test_a_defect_is_found(stepper: type[StepMethod], check: str) -> None:
    assert check in failures(stepper(), only=check)


def test_the_report_names_what_failed() -> None:
    report = check_stepper(Miscounted(), only="evaluations")
    assert not report.passed
    with pytest.raises(sk.SdekitError, match=r"my-midpoint fails .* of .* checks"):
        report.check()


def test_an_exception_in_a_step_is_a_failure_of_its_checks() -> None:
    class Broken(Midpoint):
        def step(self, sde, t0, t1, x, increment, memory):
            raise RuntimeError("boom")

    report = check_stepper(Broken(), only="batch")
    assert report.failures
    assert "boom" in report.failures[0].detail
