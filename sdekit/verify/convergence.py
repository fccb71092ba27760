r"""How far from the truth a solver is on a problem, and at what order it gets there.

Four kinds of error, each measured by the sharpest route that the problem allows:

- ``w2``, the distance of laws: by the affine probe, by quantiles of the exact flow, or by transport of the density.
- ``ode``, the root mean square against the exact flow, over quantiles of the initial law; where no flow is known,
  against the reference flow, over samples.
- ``strong``, the root mean square against the solution on the same path: by Itô's isometry on affine problems, by the
  chaos expansion of linear ones, else on coupled paths; where the solution on a path is not known, by how far the state
  moves when the steps are halved, which falls with the same order.
- ``weak``, errors of moments or smooth functionals: W2 on affine problems, moments of linear ones, else by the backward
  recursion.

Only coupled paths sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import BrownianGrid, levy_for
from sdekit.doors import noise_event
from sdekit.driver import solve
from sdekit.errors import SdekitError, unknown_name
from sdekit.laws import Gaussian, GaussianMixture
from sdekit.metrics import wasserstein2
from sdekit.problems.base import Problem
from sdekit.quantile_map import mid_quantiles
from sdekit.steppers import registry
from sdekit.steppers.base import Prepared, Spec, Stepper
from sdekit.typing import Increments
from sdekit.verify.affine import numerical_law
from sdekit.verify.draws import DISCRETE
from sdekit.verify.flow import reference_flow
from sdekit.verify.multiplicative import linear_errors
from sdekit.verify.order import OrderEstimate, fit_order
from sdekit.verify.strong import strong_error
from sdekit.verify.transport import transported_law
from sdekit.verify.weak import weak_error

Kind = Literal["w2", "strong", "weak", "ode"]
Method = Literal["affine", "flow", "transport", "linear", "backward", "paths", "doubling", "reference"]

DEFAULT_STEPS = (16, 32, 64, 128, 256, 512)
FLOOR: dict[Method, float] = {
    "affine": 1e-14,
    "flow": 1e-12,
    "transport": 1e-8,
    "linear": 1e-13,
    "backward": 1e-10,
    "reference": 1e-11,
}
"""Errors below these are round-off of the method that measures them."""
_POINTS = 256  # states that stand for a law: mid-quantiles on the line, else samples


def law_method(problem: Problem, stepper: Stepper | None = None) -> Method:
    """How the law of a run is had without sampling: by the affine probe, the exact flow, or transport of the density.

    Args:
        problem: The problem.
        stepper: Whose run it is; any by default.

    Raises:
        SdekitError: none of the three applies to the problem, or to what this stepper draws.
    """
    kind = "w" if stepper is None or problem.sde.noise_type == "none" else stepper.spec.increments
    if isinstance(problem.initial, Gaussian) and isinstance(problem.law, Gaussian):
        if kind not in DISCRETE:
            return "affine"
    elif stepper is not None and stepper.spec.kind == "chain":
        raise SdekitError(
            f"{stepper.spec.name} is random beside the path, so its law is exact on Gaussian problems only: use "
            "kind='weak' on the line, or compare samples."
        )
    elif problem.flow is not None:
        return "flow"
    elif problem.initial.event_shape.numel() == 1 and problem.law is not None and kind == "w":
        return "transport"
    of = "" if kind == "w" else f" for a method with {kind} noise"
    raise SdekitError(f"The problem {problem.name!r} has no exact law{of} that a run could be compared with.")


def law_error(problem: Problem, stepper: str | Stepper, steps: int) -> float:
    """W2 between the law that a solver produces and the exact one, from the same start; no sampling.

    Gaussian problems by the affine probe; flows on the line by the quantile map (the root mean square over 256
    mid-quantiles); stochastic runs on the line by transport of the density.

    Raises:
        SdekitError: the problem has no exact law, or the run was not affine.
    """
    chosen, grid = registry.get(stepper), problem.grid(steps)
    method = law_method(problem, chosen)
    if method == "flow":
        return _flow_error(problem, chosen, grid)
    assert problem.law is not None
    if method == "transport":
        return transported_law(problem.sde, chosen, grid, problem.initial).wasserstein2(problem.law)
    assert isinstance(problem.initial, Gaussian)
    return wasserstein2(numerical_law(problem.sde, chosen, grid, problem.initial), problem.law)


def _flow_error(problem: Problem, stepper: Stepper, grid: Tensor) -> float:
    x, truth = _flow(problem)
    reached = solve(problem.sde, x, grid, stepper).check().final
    return float((reached - truth).flatten(1).square().sum(1).mean().sqrt())


def _flow(problem: Problem) -> tuple[Tensor, Tensor]:
    """States that stand for the initial law, and where the exact flow, or else the reference flow, carries them."""
    if problem.sde.noise_type != "none":
        raise SdekitError(f"The problem {problem.name!r} has no exact flow; use kind='w2' or eta=0.")
    line = problem.initial.event_shape.numel() == 1
    x = mid_quantiles(problem.initial, _POINTS) if line else problem.initial.sample(_POINTS, seed=0)
    if problem.flow is not None:
        return x, problem.flow(x)
    times = problem.grid(1)
    return x, reference_flow(problem.sde, x, float(times[0]), float(times[-1]))


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
        kind: ``w2``, from exact laws; ``ode``, from the exact flow; ``strong``, on the same Brownian path; ``weak``,
            from functionals of the law.
        steps: Step counts, increasing; where ``strong`` needs coupled paths each must divide the last.
        samples: Coupled paths.
        seed: Their seed.

    Raises:
        SdekitError: an unknown kind, or a problem that lacks the exact answer which the kind needs.
    """
    chosen = registry.get(stepper)
    if kind not in get_args(Kind):
        raise unknown_name("kind of order", kind, get_args(Kind))
    if kind == "strong" and strong_method(problem, chosen.spec) in ("paths", "doubling"):
        return _order_on_paths(problem, chosen, steps, samples, seed)
    if kind == "ode":
        floor = FLOOR["flow"] if problem.flow is not None else FLOOR["reference"]
        return fit_order(steps, [_flow_error(problem, chosen, problem.grid(n)) for n in steps], floor)
    if kind == "w2":
        return fit_order(steps, [law_error(problem, chosen, n) for n in steps], FLOOR[law_method(problem)])
    error, method = (
        (_strong_error, strong_method(problem))
        if kind == "strong"
        else (
            _weak_error,
            weak_method(problem, chosen.spec.increments),
        )
    )
    return fit_order(steps, [error(problem, chosen, n) for n in steps], FLOOR[method])


def strong_method(problem: Problem, spec: Spec | None = None) -> Method:
    """How strong errors are had: by Itô's isometry, by the chaos expansion of a linear SDE, or on coupled paths.

    Args:
        problem: The problem.
        spec: Of the stepper; one that draws Lévy areas, which are no function of normals that a path has, takes paths,
            and on linear SDEs one that remembers does.

    Raises:
        SdekitError: the problem has no noise.
    """
    if problem.sde.noise_type == "none":
        raise SdekitError(f"The problem {problem.name!r} has no noise: use kind='ode' or kind='w2'.")
    areas = spec is not None and spec.increments == "full"
    if problem.affine and isinstance(problem.initial, Gaussian) and not areas:
        return "affine"
    if problem.linear is not None and not areas and not (spec is not None and spec.remembers):
        return "linear"
    return "doubling" if problem.path is None else "paths"


def weak_method(problem: Problem, increments: Increments = "w") -> Method:
    """How weak errors are had: from the exact law, from the moments of a linear SDE, or by the backward recursion.

    Args:
        problem: The problem.
        increments: What the stepper draws; of discrete variables the law is not Gaussian.

    Raises:
        SdekitError: none of the three applies.
    """
    if problem.affine and problem.gaussian and increments not in DISCRETE:
        return "affine"
    if problem.linear is not None:
        return "linear"
    if problem.weak is not None or isinstance(problem.law, GaussianMixture):
        return "backward"
    raise SdekitError(f"The problem {problem.name!r} has no functionals with exact means, so no weak error.")


def _strong_error(problem: Problem, stepper: Stepper, steps: int) -> float:
    if strong_method(problem) == "affine":
        assert isinstance(problem.initial, Gaussian)
        return strong_error(problem.sde, stepper, problem.grid(steps), problem.initial).error
    found = linear_errors(problem, stepper, steps).strong
    if found is None:
        raise SdekitError(f"{stepper.spec.name} is a weak method: it follows no Brownian path; use kind='weak'.")
    return found


def _weak_error(problem: Problem, stepper: Stepper, steps: int) -> float:
    method = weak_method(problem, stepper.spec.increments)
    if method == "affine":
        return law_error(problem, stepper, steps)
    if method == "linear":
        return linear_errors(problem, stepper, steps).weak
    return weak_error(problem, stepper, steps).norm


def _order_on_paths(problem: Problem, stepper: Stepper, steps: Sequence[int], samples: int, seed: int) -> OrderEstimate:
    """Order of the root mean square error on paths that all step counts share."""
    x = problem.initial.sample(samples, seed=seed)
    doubling = problem.path is None
    counts = [*steps, 2 * steps[-1]] if doubling else list(steps)
    prepared = [stepper.prepare(problem.sde, problem.grid(n).tolist()) for n in counts]
    nodes = _nodes(problem.grid(counts[-1]), prepared)
    event = noise_event(problem.sde, x, prepared[-1], nodes[0])
    levy = levy_for(stepper.spec.increments, problem.levy)
    path = BrownianGrid.on(nodes, (samples, *(event or ())), seed=random.key(seed, 1), levy=levy)
    runs = [solve(problem.sde, x, problem.grid(n), stepper, noise=path).check().final for n in counts]
    truths = runs[1:] if problem.path is None else [problem.path(x, path)] * len(runs)
    squares = torch.stack([(a - b).flatten(1).square().sum(1) for a, b in zip(runs, truths, strict=False)])
    squares = squares + problem.left(path)
    return fit_order(steps, squares=squares, seed=random.key(seed, 2))


def _nodes(finest: Tensor, prepared: Sequence[Prepared]) -> list[float]:
    """The times of the finest grid, in its direction, and those inside steps at which a run draws."""
    grid: list[float] = finest.tolist()
    span = abs(grid[-1] - grid[0])
    drawn = {t for run in prepared for step in run.draws for interval in step for t in interval}
    nodes = list(grid)
    for t in drawn:
        if min(abs(t - node) for node in nodes) > 1e-12 * span:  # else it is the node, but for rounding
            nodes.append(t)
    return sorted(nodes, reverse=grid[0] > grid[-1])
