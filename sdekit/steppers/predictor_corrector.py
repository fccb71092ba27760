r"""Predictor–corrector samplers: a step of any sampler, then Langevin steps that keep the law of the level.

The corrector keeps the law at any η, so a predictor–corrector integrates what its predictor does. Its normals are no
part of the Brownian path (:mod:`sdekit.fresh`): the predictor draws the same numbers with it and without. A predictor
begins anew after a correction, as what it remembers belongs to another state; one that looks back over several steps
is refused.

References: [song2021sde], Algorithms 1–5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.langevin import scheduled_reverse
from sdekit.steppers.ancestral import ReverseDiffusion
from sdekit.steppers.base import Memory, Prepared, Spec, Stepper
from sdekit.steppers.correctors import Corrector, LangevinCorrector
from sdekit.steppers.metropolis import Acceptance


def _spec(predictor: Spec, corrector: Corrector) -> Spec:
    """The facts of the whole, from those of its parts."""
    classes = ("linear-additive", "additive") if corrector.converges else ()
    # What takes flows only has its order there: on a flow it is that of the law.
    default = predictor.ode if predictor.noise_types == {"none"} else None
    orders = {c: predictor.weak.get(c, default) for c in classes}
    return replace(
        PredictorCorrector.spec,
        evaluations=predictor.evaluations + corrector.evaluations,
        weak={c: min(order, 1.0) for c, order in orders.items() if order is not None},
        noise_types=predictor.noise_types & {"none", "additive"},
        increments=predictor.increments,
        eta=predictor.eta,
    )


@final
class PredictorCorrector(Stepper):
    r"""A step of a predictor s → t, then a corrector's Langevin steps at t.

    By default ``reverse-diffusion`` and ``LangevinCorrector(0.25)``. ``Solution.diagnostics["acceptance"]`` is reported
    where the corrector is a Metropolis one.

    Args:
        predictor: A registry name or a stepper that takes steps one by one.
        corrector: What follows it on every level.

    Raises:
        SdekitError: a predictor that looks back, or is itself random beside the path.

    References: [song2021sde], Algorithms 1–5.
    """

    spec = Spec(
        name="predictor-corrector",
        summary="predictor–corrector: any sampler, then Langevin steps on its level; by default reverse diffusion",
        references=("song2021sde",),
        kind="chain",
        evaluations=2,
        weak={"linear-additive": 1.0, "additive": 1.0},
        noise_types=frozenset({"none", "additive"}),
        eta=(0.0, math.inf),
        needs_schedule=True,
    )

    def __init__(self, predictor: str | Stepper | None = None, corrector: Corrector | None = None) -> None:
        if isinstance(predictor, str):
            from sdekit.steppers import registry  # it lists this class

            predictor = registry.get(predictor)
        self.predictor, self.corrector = predictor or ReverseDiffusion(), corrector or LangevinCorrector()
        facts = self.predictor.spec
        if facts.min_steps > 1 or facts.kind == "chain":
            why = "draws beside the path" if facts.kind == "chain" else f"looks back over {facts.min_steps} steps"
            raise SdekitError(
                f"{facts.name} {why}, so it cannot be a predictor: a correction leaves it without a past. Take a "
                "single-step method, such as reverse-diffusion, ddim, dpmpp-2s or seeds2."
            )
        self.spec = _spec(facts, self.corrector)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"PredictorCorrector({self.predictor!r}, {self.corrector!r})"

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        reverse, corrector = scheduled_reverse(sde, self.spec.name), self.corrector
        pairs = list(pairwise(times))
        predictors = [self.predictor.prepare(sde, pair) for pair in pairs]
        corrections = [corrector.bind(reverse, *pair) for pair in pairs]
        draws = [prepared.draws[0] for prepared in predictors]

        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            own = len(draws[k])
            x, _ = predictors[k].advance(0, x, increments[:own], None)
            count = Acceptance.none(x) if memory is None else memory
            return corrections[k](x, increments[own:], count)

        return Prepared(
            draws,
            advance,
            noise_like_state=any(prepared.noise_like_state for prepared in predictors),
            fresh=[corrector.draws * corrector.steps] * len(pairs),
            report=_acceptance,
        )


def _acceptance(count: Acceptance) -> Mapping[str, Tensor]:
    return count.report() if count.steps else {}
