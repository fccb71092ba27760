r"""Problems of any event shape whose answer is known on the line.

Each stepper gets the most general form of a problem that its Spec can integrate: the forward SDE, the reverse-time SDE
(η = 1) or the probability flow. Its error is the W2 of :func:`sdekit.verify.law_error` on the one-dimensional version,
in float64 and without sampling; larger shapes are there to be timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor

import sdekit as sk
from sdekit.laws import Gaussian, GaussianMixture
from sdekit.linear import LinearProcess
from sdekit.problems import Problem
from sdekit.quantile_map import quantile_flow
from sdekit.steppers import registry
from sdekit.verify import law_error

Event = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A process with a data law, for every event shape."""

    name: str
    process: LinearProcess
    data: Literal["gaussian", "mixture"]
    forward: bool = False
    """Whether steppers that can are run forwards, over [0, 1]."""

    def law(self, event: Event) -> Gaussian | GaussianMixture:
        """The data: equal, independent coordinates, or two modes on the diagonal."""
        if self.data == "gaussian":
            return sk.Gaussian(torch.full(event, 0.7, dtype=torch.float64), 0.25)
        means = torch.tensor([-0.8, 0.6], dtype=torch.float64).reshape(2, *(1,) * len(event))
        return sk.GaussianMixture([0.3, 0.7], means.expand(2, *event), [0.09, 0.04])

    def forms(self, event: Event) -> Iterator[Problem]:
        """The problems that a stepper may be given, in order of preference."""
        law, process = self.law(event), self.process
        named = partial(Problem, name=self.name, summary="", detects="")
        if self.forward:
            yield named(sde=process, initial=law, grid=_unit_interval, law=process.marginal(law, 1.0))
        score, (t0, t1) = sk.exact_score(law, process), (process.t_max, process.t_min)
        back = partial(
            named,
            initial=process.marginal(law, t0),
            grid=lambda steps: sk.grids.log_snr(process, steps),
            law=process.marginal(law, t1),
        )
        yield back(sde=sk.reverse_time(process, score))
        yield back(sde=sk.probability_flow(process, score), flow=lambda x: quantile_flow(process, law, x, t0, t1))


def _unit_interval(steps: int) -> Tensor:
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)


# Add a problem here: a name, a process, its data.
FAMILIES = [
    Family("ou", sk.OU(), "gaussian", forward=True),
    Family("vp-gaussian", sk.VP(), "gaussian"),
    Family("vp-mixture", sk.VP(), "mixture"),
]


def problem_for(stepper: str, family: Family, event: Event) -> Problem | None:
    """The form of a family that a stepper can integrate; None if there is none."""
    chosen = registry.get(stepper)
    for problem in family.forms(event):
        if registry.obstacle(chosen.spec, problem.sde) is None:
            try:
                chosen.prepare(problem.sde, problem.grid(2).tolist())
            except sk.SdekitError:  # a need that a Spec does not state, such as an affine score
                continue
            return problem
    return None


@cache
def error(stepper: str, family: Family, steps: int) -> float | None:
    """W2 to the exact law from the exact start, on the line; None where no engine knows it."""
    problem = problem_for(stepper, family, (1,))
    assert problem is not None
    try:
        return law_error(problem, stepper, steps)
    except sk.SdekitError:
        return None
