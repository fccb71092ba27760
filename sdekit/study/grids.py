r"""Grids made for a law: what they win on it, and what carries over to another.

DPM-Solver++(2M) runs on grids that are uniform in log-SNR, on Karras', and on grids on which its exact error is least
for some law (:func:`sdekit.grids.optimal`), at equal calls, in three places:

- *spectrum*: Gaussian data with eigenvalues $10^{-4} \dots 10^2$ on EDM; the relative error of the standard deviations,
  with the first-order DDIM beside it;
- *mixture*: two modes on the line, VE from σ = 20 to 0.05; $W_2$ over a thousand quantiles; grids were made for
  192 others, or for 48;
- *digits*: the learned score of handwritten digits, from held-out digits with noise; the mean distance to a fine
  solution of the same learned flow. Laws: the covariance of every fourth training digit; these digits as points, with
  the exact score of a network that knows them by heart; and the points with a little noise on them, $\sigma^2 = 0.1$,
  which makes the score as smooth as a network's is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import Any, final

import torch
from torch import Tensor

from sdekit import data, grids
from sdekit.grids.errors import Target, planned, target
from sdekit.laws import Empirical, Gaussian, GaussianMixture, Law
from sdekit.linear import LinearProcess
from sdekit.processes import EDM, VE
from sdekit.study.settings import Settings, weights_sha256
from sdekit.study.tasks import Records, Result, Task

STEPS = {"spectrum": (10, 20), "mixture": (5, 10, 20), "digits": (5, 10, 20)}
"""Place → step counts."""

PROTOTYPE = {
    "spectrum/log_snr": (3.3e-2, 1.4e-2),
    "spectrum/karras": (1.1e-1, 4.4e-2),
    "spectrum/spectrum": (7.4e-4, 9.3e-6),
    "mixture/log_snr": (4.9e-2, 1.6e-2, 4.4e-3),
    "mixture/48 quantiles": (2.2e-2, 4.3e-3, 1.0e-3),
}
"""What an independent prototype measured, to two digits; of the mixture over the 48 quantiles."""

ITERATIONS = {"spectrum": 200, "mixture": 40, "digits": 30}
"""Place → iterations from each start."""

SMOOTHING = 0.1**0.5

_STEPPER, _FEW, _MANY = "dpmpp-2m", 48, 1000
_EIGENVALUES, _STATES, _EVERY = 49, 64, 4
_HELD_OUT = 11  # seed of the states on which the learned flow is judged
_ONCE = Lock()  # two workers would solve the reference twice

Make = Callable[[int], Tensor]


@final
@dataclass(frozen=True)
class Case:
    """A grid in a place.

    Attributes:
        place: ``spectrum``, ``mixture`` or ``digits``.
        made_for: ``log_snr``, ``karras``, or the law that the grid was made for.
        stepper: The sampler.
    """

    place: str
    made_for: str
    stepper: str = _STEPPER


CASES = (
    *(
        Case("spectrum", made_for, stepper)
        for stepper in (_STEPPER, "ddim")
        for made_for in ("log_snr", "karras", "spectrum")
    ),
    *(
        Case("mixture", made_for)
        for made_for in ("log_snr", "karras", "spectrum", "covariance", "48 quantiles", "mixture")
    ),
    *(Case("digits", made_for) for made_for in ("log_snr", "karras", "covariance", "points", "smoothed points")),
)
"""In the order of the tables."""

_SECONDS = {"spectrum": 2.0, "mixture": 4.0, "digits": 5.0}


def tasks(settings: Settings) -> Iterator[Task]:
    """One record for every grid in every place; the learned score takes too long for a quick study."""
    if "grids" not in settings.problems:
        return
    for case in CASES:
        if settings.quick and case.place == "digits":
            continue
        steps = STEPS[case.place][: 1 if settings.quick else None]
        about: dict[str, Any] = {
            "place": case.place,
            "made_for": case.made_for,
            "solver": case.stepper,
            "steps": list(steps),
        }
        if case.place == "digits":
            about |= {"weights": weights_sha256()}
        name = f"{case.place}/{case.stepper}/{case.made_for.replace(' ', '-')}"
        yield Task("grids", name, about, partial(_measure, case, steps), cost=_SECONDS[case.place] * len(steps))


# --- the places ------------------------------------------------------------------------------------


def _process(place: str) -> LinearProcess:
    if place == "spectrum":
        return EDM()
    return VE(sigma_min=0.05, sigma_max=20.0) if place == "mixture" else _learned()[0]


@cache
def _learned() -> tuple[LinearProcess, Any]:
    from sdekit.train import load_score

    return load_score("digits")


@cache
def _digits() -> Tensor:
    """The training digits that grids are made for."""
    return data.digits().train[::_EVERY].double()


@cache
def laws(place: str) -> Mapping[str, tuple[Law, int | None]]:
    """The laws that grids are made for, and how many states of them."""
    wide = Gaussian(
        torch.zeros(_EIGENVALUES, dtype=torch.float64), torch.logspace(-4, 2, _EIGENVALUES, dtype=torch.float64)
    )
    if place == "spectrum":
        return {"spectrum": (wide, None)}
    if place == "mixture":
        mixture = GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
        own = Gaussian(mixture.mean, mixture.covariance)
        return {
            "spectrum": (wide, None),
            "covariance": (own, None),
            "48 quantiles": (mixture, _FEW),
            "mixture": (mixture, None),
        }
    points = Empirical(_digits())
    return {
        "covariance": (Gaussian(points.mean, points.covariance), None),
        "points": (points, _STATES // 2),
        "smoothed points": (points.diffused(1.0, SMOOTHING), _STATES),
    }


def _grid(case: Case, steps: int) -> Tensor:
    process = _process(case.place)
    if case.made_for in ("log_snr", "karras"):
        return grids.log_snr(process, steps) if case.made_for == "log_snr" else grids.karras(process, steps)
    law, states = laws(case.place)[case.made_for]
    return grids.optimal(
        process, steps, law=law, stepper=case.stepper, states=states, iterations=ITERATIONS[case.place]
    )


# --- the errors ------------------------------------------------------------------------------------


@cache
def _aim(place: str, states: int | None) -> Target:
    """What the grids of a place are judged by."""
    process = _process(place)
    if place == "digits":
        law: Law = Empirical(data.digits().held_out.double())
        return target(process, law, process.t_min, process.t_max, _learned()[1], states, seed=_HELD_OUT)
    law, _ = laws(place)[place]
    return target(process, law, process.t_min, process.t_max, states=states)


def error(case: Case, grid: Tensor, states: int | None) -> float:
    """Of a case's stepper on a grid, in its place."""
    with _ONCE:
        aim = _aim(case.place, states)
    with torch.no_grad():
        return float(aim.error(planned(case.stepper, len(grid) - 1), grid))


def _measure(case: Case, steps: tuple[int, ...], _: Records) -> Result:
    made = [_grid(case, n) for n in steps]
    judged = {"spectrum": None, "mixture": _MANY, "digits": _STATES}[case.place]
    values: dict[str, Any] = {"errors": [error(case, grid, judged) for grid in made]}
    if case.place == "mixture":
        values["few"] = [error(case, grid, _FEW) for grid in made]
    schedule = _process(case.place).schedule
    assert schedule is not None
    lam = {f"lam{n}": schedule.lam(grid) for n, grid in zip(steps, made, strict=True)}
    figures = PROTOTYPE.get(f"{case.place}/{case.made_for}", ()) if case.stepper == _STEPPER else ()
    return Result({**values, "prototype": list(figures)}, lam)
