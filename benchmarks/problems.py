r"""Problems with a known answer, and the error of a stepper on them.

A problem gives each stepper the most general form that its Spec can integrate: the forward SDE, the reverse-time SDE
(η = 1), or the probability flow. Its error is measured on the one-dimensional version, in one of three ways:

- ``flow``: RMS over quantiles against the exact flow $F_t^{-1} \circ F_s$;
- ``law``: W2 between the exact law and the law that the solver produces, which for an affine problem follows from
  its response to every unit of noise (no sampling);
- ``sampled``: W2 of sorted samples against the quantiles of the exact law; its floor is about 0.01.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

import sdekit as sk
from sdekit.laws import Law
from sdekit.linear import LinearProcess
from sdekit.steppers import registry

SDE = Any  # a forward process or its reverse; the protocol of sdekit.dynamics
ErrorKind = Literal["flow", "law", "sampled"]

_QUANTILES = 48
_SAMPLES = 20_000


@dataclass(frozen=True)
class Problem:
    """A process with a data law."""

    name: str
    process: LinearProcess
    data: Literal["gaussian", "mixture"]
    forward: bool = False
    """Whether steppers that can are run forwards."""

    def law(self, event: tuple[int, ...]) -> Law:
        """The law of the data with event shape ``event``."""
        if self.data == "gaussian":
            return sk.Gaussian(torch.full(event, 0.7, dtype=torch.float64), 0.25)
        means = torch.tensor([-0.8, 0.6], dtype=torch.float64).reshape(2, *(1,) * len(event)).expand(2, *event)
        variances = torch.tensor([0.09, 0.04], dtype=torch.float64)
        return sk.GaussianMixture(torch.tensor([0.3, 0.7], dtype=torch.float64), means, variances)

    def forms(self, event: tuple[int, ...]) -> Iterator[SDE]:
        """What a stepper may be asked to integrate, in order of preference."""
        if self.forward:
            yield self.process
        score = sk.exact_score(self.law(event), self.process)
        yield sk.reverse_time(self.process, score)
        yield sk.probability_flow(self.process, score)


# Add a problem here: a name, a process, its data.
PROBLEMS = [
    Problem("ou", sk.OU(), "gaussian", forward=True),
    Problem("vp-gaussian", sk.VP(), "gaussian"),
    Problem("vp-mixture", sk.VP(), "mixture"),
]


@dataclass(frozen=True)
class Run:
    """A stepper on the form of a problem that it can integrate."""

    problem: Problem
    stepper: str
    sde: SDE
    grid: Tensor

    @property
    def noisy(self) -> bool:
        return bool(self.sde.noise_type != "none")

    def start(self, event: tuple[int, ...]) -> Law:
        """The exact law at the first time, so that the error is the solver's alone."""
        return self._law_at(0, event)

    def end(self, event: tuple[int, ...]) -> Law:
        """The exact law at the last time."""
        return self._law_at(-1, event)

    def _law_at(self, index: int, event: tuple[int, ...]) -> Law:
        law, t = self.problem.law(event), float(self.grid[index])
        return law if t == 0.0 else self.problem.process.marginal(law, t)

    def solve(self, x: Tensor, noise: Any = 0) -> sk.Solution:
        return sk.solve(self.sde, x, self.grid, self.stepper, noise=noise if self.noisy else None)


def run_of(problem: Problem, stepper: str, event: tuple[int, ...], steps: int) -> Run | None:
    """The run of a stepper on a problem, or None if no form of it fits its Spec."""
    chosen = registry.get(stepper)
    for sde in problem.forms(event):
        forward = sde is problem.process
        grid = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
        grid = grid if forward else sk.grids.log_snr(problem.process, steps)
        if registry.obstacle(chosen.spec, sde) is not None:
            continue
        try:
            chosen.prepare(sde, grid.tolist())
        except sk.SdekitError:  # a need that the Spec cannot state, such as an affine score
            continue
        return Run(problem, stepper, sde, grid)
    return None


@cache
def error(problem: Problem, stepper: str, steps: int, dtype: torch.dtype) -> tuple[float, ErrorKind]:
    """The error on the one-dimensional problem, and how it was measured."""
    run = run_of(problem, stepper, (1,), steps)
    assert run is not None
    if not run.noisy:
        return _flow_error(run, dtype), "flow"
    draws = registry.get(stepper).prepare(run.sde, run.grid.tolist()).draws
    if problem.data == "gaussian" and all(len(step) <= 1 for step in draws):
        return _law_error(run, dtype), "law"
    return _sampled_error(run, dtype), "sampled"


def _levels(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n


def _flow_error(run: Run, dtype: torch.dtype) -> float:
    levels = _levels(_QUANTILES)
    produced = run.solve(run.start((1,)).quantile(levels).to(dtype)).final
    return float((produced - run.end((1,)).quantile(levels)).square().mean().sqrt())


def _law_error(run: Run, dtype: torch.dtype) -> float:
    """W2 of two Gaussians: the produced one from the response to x₀ = 1 and to every unit normal."""
    steps = len(run.grid) - 1
    x = torch.zeros(steps + 2, 1, dtype=dtype)
    x[1] = 1.0
    w = torch.zeros(steps, steps + 2, 1, dtype=dtype)
    w[:, 2:, 0] = torch.diag(run.grid.diff().abs().sqrt()).to(dtype)
    final = run.solve(x, sk.RecordedBrownian(run.grid, w)).final.double()
    still, slope, gains = final[0], final[1] - final[0], final[2:] - final[0]
    start, end = run.start((1,)), run.end((1,))
    spread = (slope**2 * start.variance + gains.square().sum()).sqrt() - end.variance.sqrt()
    return float(torch.hypot(still + slope * start.mean - end.mean, spread))


def _sampled_error(run: Run, dtype: torch.dtype) -> float:
    produced = run.solve(run.start((1,)).sample(_SAMPLES, seed=1).to(dtype), noise=2).final.double()
    exact = run.end((1,)).quantile(_levels(_SAMPLES))
    return float((produced.sort(0).values - exact).square().mean().sqrt())
