"""How far from the truth a solver is on a problem, and at what order it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import BrownianGrid
from sdekit.doors import noise_event
from sdekit.driver import solve
from sdekit.errors import SdekitError, unknown_name
from sdekit.laws import Gaussian
from sdekit.metrics import wasserstein2
from sdekit.problems.base import Problem
from sdekit.problems.quantile_flow import mid_quantiles
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.affine import numerical_law
from sdekit.verify.order import OrderEstimate, fit_order
from sdekit.verify.transport import transported_law

Kind = Literal["w2", "strong", "ode"]
Method = Literal["affine", "flow", "transport"]

DEFAULT_STEPS = (16, 32, 64, 128, 256, 512)
FLOOR: dict[Method, float] = {"affine": 1e-14, "flow": 1e-12, "transport": 1e-8}
"""Errors below these are round-off of the method that measures them."""
_QUANTILES = 256


def law_method(problem: Problem) -> Method:
    """How the law of a run is had without sampling: by the affine probe, the exact flow, or transport of the density.

    Raises:
        SdekitError: none of the three applies.
    """
    if isinstance(problem.initial, Gaussian) and isinstance(problem.law, Gaussian):
        return "affine"
    if problem.flow is not None:
        return "flow"
    if problem.initial.event_shape.numel() == 1 and problem.law is not None:
        return "transport"
    raise SdekitError(f"The problem {problem.name!r} has no exact law that a run could be compared with.")


def law_error(problem: Problem, stepper: str | Stepper, steps: int) -> float:
    """W2 between the law that a solver produces and the exact one, from the same start; no sampling.

    Gaussian problems by the affine probe; flows on the line by the quantile map (the root mean square over 256
    mid-quantiles); stochastic runs on the line by transport of the density.

    Raises:
        SdekitError: the problem has no exact law, or the run was not affine.
    """
    chosen, grid = registry.get(stepper), problem.grid(steps)
    method = law_method(problem)
    if method == "flow":
        return _flow_error(problem, chosen, grid)
    assert problem.law is not None
    if method == "transport":
        return transported_law(problem.sde, chosen, grid, problem.initial).wasserstein2(problem.law)
    assert isinstance(problem.initial, Gaussian)
    return wasserstein2(numerical_law(problem.sde, chosen, grid, problem.initial), problem.law)


def _flow_error(problem: Problem, stepper: Stepper, grid: Tensor) -> float:
    if problem.flow is None:
        raise SdekitError(f"The problem {problem.name!r} has no exact flow; use kind='w2' or eta=0.")
    x = mid_quantiles(problem.initial, _QUANTILES)
    reached = solve(problem.sde, x, grid, stepper).check().final
    return float((reached - problem.flow(x)).square().mean().sqrt())


def order(
    problem: Problem,
    stepper: str | Stepper,
    kind: Kind = "w2",
    steps: Sequence[int] = DEFAULT_STEPS,
    samples: int = 4096,
    seed: int = 0,
) -> OrderEstimate:
    """The measured order of a stepper on a problem.

    Args:
        problem: From :func:`sdekit.problems.get`, or your own.
        stepper: A registry name or a stepper.
        kind: ``w2``, from exact laws; ``ode``, from the exact flow; ``strong``, from coupled paths.
        steps: Step counts, increasing; for ``strong`` each must divide the last.
        samples: Paths, for ``strong``.
        seed: Seed of the paths, for ``strong``.

    Raises:
        SdekitError: an unknown kind, or a problem that lacks the exact answer which the kind needs.
    """
    chosen = registry.get(stepper)
    if kind not in get_args(Kind):
        raise unknown_name("kind of order", kind, get_args(Kind))
    if kind == "strong":
        return _strong_order(problem, chosen, steps, samples, seed)
    if kind == "ode":
        return fit_order(steps, [_flow_error(problem, chosen, problem.grid(n)) for n in steps], FLOOR["flow"])
    floor = FLOOR[law_method(problem)]
    return fit_order(steps, [law_error(problem, chosen, n) for n in steps], floor)


def _strong_order(problem: Problem, stepper: Stepper, steps: Sequence[int], samples: int, seed: int) -> OrderEstimate:
    """Order of the root mean square error on paths that all step counts share."""
    if problem.path is None:
        raise SdekitError(f"The problem {problem.name!r} has no exact path, so no strong error.")
    x = problem.initial.sample(samples, seed=seed)
    finest = problem.grid(steps[-1])
    event = noise_event(problem.sde, x, stepper.prepare(problem.sde, finest.tolist()), float(finest[0]))
    levy = "space-time" if stepper.spec.increments == "space-time" else problem.levy
    path = BrownianGrid.on(finest, (samples, *(event or ())), seed=random.key(seed, 1), levy=levy)
    exact = problem.path(x, path)
    squares = torch.stack(
        [
            (solve(problem.sde, x, problem.grid(n), stepper, noise=path).check().final - exact)
            .flatten(1)
            .square()
            .sum(1)
            for n in steps
        ]
    )
    if problem.unresolved is not None:
        squares = squares + problem.unresolved(path.times)
    mean = squares.mean(1)
    relative = (0.5 * squares.std(1) / mean / samples**0.5).tolist()  # of the root of the mean
    whole = fit_order(steps, mean.sqrt().tolist(), sampled=relative)
    parts = [fit_order(steps, part.mean(1).sqrt().tolist(), sampled=relative).order for part in squares.chunk(16, 1)]
    sampling = float(torch.tensor(parts).std()) / len(parts) ** 0.5
    return replace(whole, uncertainty=max(whole.uncertainty, sampling))
