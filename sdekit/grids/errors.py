r"""The exact error of a plan on the probability flow, as a function of its times that autograd goes through.

A plan is linear in states and outputs, and its coefficients are differentiable in the times, as is the score of a law
in closed form. What a plan makes of given states is compared with where the exact flow carries them:

| law | states | exact flow | error |
|---|---|---|---|
| Gaussian | one, the standard deviation along every axis | the same at the end | relative, root mean square |
| on the line | quantiles at $(i + \tfrac12)/n$ | the quantile map | root mean square, which is $W_2$ |
| any other | samples of the marginal | a fine solution of order four | mean distance |

The first is all there is to know, since the flow of a Gaussian is linear along each axis of its covariance: it is the
relative error of the standard deviations that are produced, and weighs small details like large ones. In the last,
neighbours part where the flow decides between modes. A few samples that decide otherwise would rule a root mean square,
and a grid made for them is no better for others. Where a score is given in place of that of the law, a network say, it
is treated like the last, and the law says where the states begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.grids.basic import Timed, check_ends, from_times, log_snr
from sdekit.laws import Empirical, Gaussian, GaussianMixture, Law
from sdekit.linear import LinearProcess
from sdekit.quantile_map import mid_quantiles, quantile_flow
from sdekit.schedules import Schedule
from sdekit.score import Score, as_score, centred, conversion, exact_score, schedule_of
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.steppers.plan import Plan, PlannedStepper
from sdekit.steppers.unipc import UniPC
from sdekit.typing import Field, Prediction

QUANTILES, SAMPLES, POINTS = 192, 64, 512
"""States on the line, states elsewhere, and the most points of an empirical law that are used."""

_FINE = (64, 128, 256, 512, 1024)  # steps of the reference, doubled until two agree
_KNOWN = 1e-4  # of the size of the answer; at order four the second is then known sixteen times better
_ROUNDING = 1e-28  # of a squared error: roots have a derivative there


@final
@dataclass(frozen=True)
class Target:
    """States at one time, where the flow carries them until another, and the field that carries them.

    Attributes:
        schedule: Of the process.
        output: ``(t, y) -> prediction`` at a 0-dim time and states less the shift of the process.
        prediction: What it is.
        start: States, less the shift.
        end: Where they go, less the shift.
        weight: Of every coordinate of an error.
        distance: Whether the error is the mean distance of the states, and not its root mean square.
    """

    schedule: Schedule
    output: Callable[[Tensor, Tensor], Tensor]
    prediction: Prediction
    start: Tensor
    end: Tensor
    weight: Tensor
    distance: bool = False

    def error(self, stepper: PlannedStepper, times: Tensor) -> Tensor:
        """Of a stepper on these times, 0-dim; differentiable with respect to them."""
        gap = self.carried(stepper.plan(self.schedule, 0.0, times), times) - self.end
        squared = (gap * self.weight).flatten(1).square().sum(1)
        return torch.sqrt(squared + _ROUNDING).mean() if self.distance else torch.sqrt(squared.mean() + _ROUNDING)

    def carried(self, plan: Plan, times: Tensor) -> Tensor:
        """What a plan makes of the states, as in the production loop, but with tensors for coefficients."""
        states, outputs = [self.start], list[Tensor]()
        for rows, s, t in zip(plan.rows, times[:-1], times[1:], strict=True):
            for row in rows:
                if row.at is not None:
                    at = _attached(self.schedule, plan.prediction, row.at, s, t)
                    a, b = conversion(self.schedule, at, self.prediction, plan.prediction)
                    outputs.insert(0, a * states[0] + b * self.output(at, states[0]))
                new = torch.zeros_like(self.start)
                for age, weight in row.states.items():
                    new = new + weight * states[age]
                for age, weight in row.outputs.items():
                    new = new + weight * outputs[age]
                states.insert(0, new)
        return states[0]


def _attached(schedule: Schedule, prediction: Prediction, at: float, s: Tensor, t: Tensor) -> Tensor:
    r"""The time ``at`` of an evaluation as a function of the ends of its step.

    Between them it is taken to stay at its share of the step in λ, or in $u = \sigma/(\alpha + \sigma)$ where a plan is
    written for the rectified path. So it does in every form but those in a clock of their own, where the derivative is
    not exact; the time is.
    """
    for end in (s, t):
        if at == float(end.detach()):
            return end
    start, stop, here = schedule.lam(s), schedule.lam(t), schedule.lam(torch.tensor(at, dtype=torch.float64))
    if prediction != "rectified":
        share = ((here - start) / (stop - start)).detach()
        return schedule.time_at(torch.lerp(start, stop, share))
    first, last, inner = torch.sigmoid(-start), torch.sigmoid(-stop), torch.sigmoid(-here)
    u = torch.lerp(first, last, ((inner - first) / (last - first)).detach())
    return schedule.time_on_path(u)


def target(
    process: LinearProcess,
    law: Law,
    low: float,
    high: float,
    score: Score | Field | None = None,
    states: int | None = None,
    points: int = POINTS,
    seed: int = 0,
) -> Target:
    """What is to be hit by a run from time ``high`` to time ``low``; arguments as in :func:`grid_error`."""
    schedule = schedule_of(process)
    _check(process, schedule, law, low, high, states, points)
    _check_shape(process, law, high, score)
    if score is None and isinstance(law, Gaussian):
        return _gaussian(schedule, law, low, high)
    if isinstance(law, Empirical):
        law = _thinned(law, points)
    used = exact_score(law, process) if score is None else as_score(score)
    line = law.event_shape.numel() == 1
    marginal, count = process.marginal(law, high), states or (QUANTILES if line else SAMPLES)
    x = mid_quantiles(marginal, count) if line else marginal.sample(count, seed)
    x = x.reshape(-1, *law.event_shape).double()
    exact = score is None
    field, prediction = _field(process, law, used, exact)
    start = centred(process, high, x)
    aim = Target(schedule, field, prediction, start, start, torch.ones_like(start), distance=not line)
    if line and exact:
        end = centred(process, low, quantile_flow(process, law, x, high, low))
    else:
        end = _reference(process, aim, low, high)
    return replace(aim, end=end)


def _check(
    process: LinearProcess, schedule: Schedule, law: Law, low: float, high: float, states: int | None, points: int
) -> None:
    check_ends(low, high)
    if not all(bool(schedule.lam(torch.tensor(t, dtype=torch.float64)).isfinite()) for t in (low, high)):
        raise SdekitError(
            f"The log-SNR is infinite at t_min = {low:g} or t_max = {high:g}: keep away from it (the defaults are "
            f"{process.t_min:g} and {process.t_max:g})."
        )
    for name, value in (("states", states), ("points", points)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise SdekitError(f"{name} must be a whole number ≥ 1; got {value!r}.")
    if not hasattr(law, "event_shape"):
        raise SdekitError(
            f"law must be sk.Gaussian(...), sk.GaussianMixture(...) or sk.Empirical(data); got {type(law).__name__}."
        )


def _check_shape(process: LinearProcess, law: Law, high: float, score: Score | Field | None) -> None:
    """Refuse a law of another dimension than the process's mean or the score's own law."""
    shift, own = process.shift(high), score.law if isinstance(score, Score) else None
    shapes = {"process": shift.shape if isinstance(shift, Tensor) and shift.ndim else None}
    shapes["score"] = None if own is None else own.event_shape
    for name, shape in shapes.items():
        if shape is not None and shape != law.event_shape:
            raise SdekitError(
                f"The {name} lives on events of shape {tuple(shape)}, the law on {tuple(law.event_shape)}: "
                "give a law of the same shape."
            )


def _gaussian(schedule: Schedule, law: Gaussian, low: float, high: float) -> Target:
    r"""Along axis i: $D = \alpha v_i/(\alpha^2 v_i + \sigma^2)\,y$ for data without mean."""
    variances = law.eigen[1].double().cpu()

    def spread(t: float) -> Tensor:
        return torch.sqrt(schedule.alpha(t) ** 2 * variances + schedule.sigma(t) ** 2)[None]

    def denoised(t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * variances / (alpha**2 * variances + sigma**2) * y

    end = spread(low)
    return Target(schedule, denoised, "sample", spread(high), end, 1.0 / (end * len(variances) ** 0.5))


def _thinned(law: Empirical, most: int) -> Empirical:
    """Every so many-th point of a large data set."""
    every = -(-len(law.points) // most)
    return law if every == 1 else Empirical(law.points[::every])


def _field(
    process: LinearProcess, law: Law, score: Score, exact: bool
) -> tuple[Callable[[Tensor, Tensor], Tensor], Prediction]:
    """The score in its native prediction, at states less the shift; that of equal balls by products of matrices."""
    balls = _balls(law) if exact and law.event_shape.numel() > 1 else None
    if balls is not None:
        return _ball_denoiser(schedule_of(process), *balls), "sample"

    def output(t: Tensor, y: Tensor) -> Tensor:
        shift = process.shift(t.expand(len(y)))
        return score.output(t.expand(len(y)), y if isinstance(shift, float) else y + _as_added(shift, y))

    return output, score.prediction


def _as_added(shift: Tensor, y: Tensor) -> Tensor:
    """A shift with one entry per sample, (B,) or (B, *E), as it is added to states (B, *E)."""
    return shift.reshape(*shift.shape, *(1,) * (y.ndim - shift.ndim)).to(y)


def _balls(law: Law) -> tuple[Tensor, Tensor, float] | None:
    """Weights, flat means and the one variance of a law whose components are equal balls; None for any other."""
    if isinstance(law, Empirical):
        points = law.points.double().flatten(1)
        return torch.full_like(points[:, 0], 1.0 / len(points)), points, 0.0
    if not isinstance(law, GaussianMixture):
        return None
    parts = [part.eigen for part in law.components]
    if any(axes is not None for axes, _ in parts):
        return None
    variances = torch.stack([v for _, v in parts]).double()
    if not bool((variances == variances[0, 0]).all()):
        return None
    means = torch.stack([part.mean for part in law.components]).double().flatten(1)
    return law.weights.double(), means, float(variances[0, 0])


def _ball_denoiser(
    schedule: Schedule, weights: Tensor, means: Tensor, variance: float
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""$D = b + (\alpha s^2/v)(y - \alpha b)$ with $b = \sum_i w_i m_i$ and $v = \alpha^2 s^2 + \sigma^2$.

    The weights are a softmax of $\log w_i + (\alpha\,y \cdot m_i - \tfrac12 \alpha^2 |m_i|^2)/v$. Means are taken from
    their own mean, so that little cancels.
    """
    middle = means.mean(0)
    moved = means - middle
    half = 0.5 * moved.square().sum(1)

    def denoised(t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        v = alpha**2 * variance + sigma**2
        flat = y.flatten(1)
        logits = weights.log() + (alpha * (flat - alpha * middle) @ moved.mT - alpha**2 * half) / v
        best = torch.softmax(logits, 1) @ moved + middle
        return (best + alpha * variance / v * (flat - alpha * best)).reshape(y.shape)

    return denoised


def _reference(process: LinearProcess, aim: Target, low: float, high: float) -> Tensor:
    """Where the flow carries the states, by UniPC on ever more steps until two answers agree.

    Raises:
        SdekitError: they do not.
    """
    before, change = aim.start, math.inf
    for steps in _FINE:
        times = log_snr(process, steps, low, high)
        with torch.no_grad():
            now = aim.carried(UniPC(3).plan(aim.schedule, 0.0, times), times)
        change = float((now - before).square().mean().sqrt() / now.square().mean().sqrt())
        if change <= _KNOWN:
            return now
        before = now
    raise SdekitError(
        f"The flow of this score is not known well enough: from {_FINE[-2]} to {_FINE[-1]} steps its end still changes "
        f"by {change:.1g} of its size. Raise t_min = {low:g}, or take a smoother score."
    )


def planned(stepper: str | Stepper, steps: int) -> PlannedStepper:
    """A stepper whose error can be minimised.

    Raises:
        SdekitError: it has no plan, does not integrate flows, or looks back over more steps.
    """
    chosen = registry.get(stepper)
    if not isinstance(chosen, PlannedStepper) or chosen.spec.eta[0] > 0.0:
        able = [n for n, c in registry.STEPPERS.items() if issubclass(c, PlannedStepper) and c.spec.eta[0] == 0.0]
        raise SdekitError(
            f"{chosen.spec.name} has no plan for a probability flow. Steppers that have: {', '.join(able)}."
        )
    if steps < chosen.spec.min_steps:
        raise SdekitError(f"{chosen.spec.name} takes {chosen.spec.min_steps} steps or more; got steps = {steps}.")
    return chosen


def grid_error(
    process: LinearProcess,
    grid: Tensor,
    *,
    law: Law,
    stepper: str | Stepper = "dpmpp-2m",
    score: Score | Field | None = None,
    states: int | None = None,
    points: int = POINTS,
    seed: int = 0,
) -> float:
    """The error of a stepper on a grid, as :func:`optimal` minimises it.

    Args:
        process: The forward process, with a schedule.
        grid: Decreasing times.
        law: The law of the data.
        stepper: A planned one that integrates flows.
        score: What to integrate instead of the exact score of the law.
        states: How many states are carried; by default 192 on the line and 64 elsewhere. Gaussians need none.
        points: The most points of an empirical law that are used, taken at equal distances.
        seed: Of the states that are drawn.

    Raises:
        SdekitError: a process without a schedule or with an infinite log-SNR on the grid, a grid that rises, a stepper
            without a plan, a law of another shape, or a flow that is not known well enough.
    """
    times = from_times(grid)
    high, low = float(times[0]), float(times[-1])
    chosen = planned(stepper, len(times) - 1)
    aim = target(process, law, low, high, score, states, points, seed)
    with torch.no_grad():
        return float(aim.error(chosen, times))


def ends(process: Timed, t_min: float | None, t_max: float | None) -> tuple[float, float]:
    """The last and the first time of a grid."""
    return (process.t_min if t_min is None else float(t_min)), (process.t_max if t_max is None else float(t_max))
