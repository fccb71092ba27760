r"""Part 10: latents of real digits, the way back, and how likely the digits are.

The probability flow of the learned score carries held-out digits to latents and back (:mod:`sdekit.latent`). Three
things are measured.

- *Round trips.* The root mean square of decode(encode(x)) − x over 32 digits, for methods of several orders at several
  numbers of steps: it falls at the order of the method, from the last grey value to far below one.
- *Between two digits.* Latents on the great circle from one to the other, decoded, beside the same mean of the images.
- *Bits per dimension* (:mod:`sdekit.likelihood`): grey values 0 … 16 under uniform dequantisation, with the standard
  error over the data and that over the probes. A few digits have the exact trace too, which holds the probes against
  the truth: their differences in standard errors. The flow may start where the least noise is, or later, which is
  another model of the grey values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from sdekit import data, grids, random
from sdekit.controllers import PID
from sdekit.dequantisation import Dequantisation
from sdekit.latent import decode, encode, round_trip, slerp
from sdekit.likelihood import Divergence, LogLikelihood, log_likelihood
from sdekit.linear import LinearProcess
from sdekit.reverse import Reverse, probability_flow
from sdekit.study.digits import model, pixels
from sdekit.study.settings import Settings, weights_sha256
from sdekit.study.tasks import Records, Result, Task, grid_facts

TRIPS: dict[str, tuple[int, ...]] = {
    "ddim": (10, 40, 160),
    "v-abm-4": (10, 40, 160),
    "heun": (5, 20, 80),
    "rk4": (5, 10, 40),
}
"""Steppers, and numbers of steps with about as many calls."""

TOLERANCES = (1e-2, 1e-3, 1e-5)
"""Of dopri5, adaptive."""

PAIRS = ((0, 1), (3, 8), (4, 9))
"""Digits that are joined."""
POINTS = 9

LEVELS = Dequantisation(levels=17, low=-1.0, high=1.0)
STARTS = (0.02, 0.04, 0.08)
"""Where the density is taken, in σ: the first is the least that the network knows, the levels are 0.125 apart."""
FEW, MANY = 6, 48
"""How many digits have an exact trace, and how many have probes."""
PROBES = 8

_TRIP = 32
_STEPS = 20  # of rk4 in log-SNR: 0.001 bits from many more
_BETWEEN = PID(rtol=1e-4, atol=1e-4)
_PROBES = 1001


@final
@dataclass(frozen=True)
class Trip:
    """A method that goes there and back: so many steps, or a tolerance."""

    solver: str
    steps: int | None = None
    tolerance: float | None = None

    @property
    def name(self) -> str:
        """For the record's key."""
        return f"{self.solver}/{'tol' if self.steps is None else 'steps'}={self.steps or self.tolerance:g}"


def tasks(settings: Settings) -> Iterator[Task]:
    """Round trips, the ways between digits, and likelihoods."""
    if "latents" not in settings.problems:
        return
    about: dict[str, Any] = {
        "problem": "digits",
        "device": settings.device,
        "dtype": "float32",
        "weights": weights_sha256(),
    }
    for trip in trips(settings.quick):
        facts = {**about, "kind": "trip", "solver": trip.solver, "steps": trip.steps, "tolerance": trip.tolerance}
        yield Task("latents", f"trip/{trip.name}", facts, partial(_there_and_back, settings, trip), cost=1.5)
    for pair in PAIRS[:1] if settings.quick else PAIRS:
        facts = {**about, "kind": "between", "pair": list(pair), "points": POINTS}
        yield Task("latents", "between/{}-{}".format(*pair), facts, partial(_between, settings, pair), cost=1.0)
    process, _ = model(settings.device)
    few, many = (2, 4) if settings.quick else (FEW, MANY)
    runs: list[tuple[Divergence, float, int]] = [("exact", STARTS[1], few)]
    runs += [("hutchinson", start, many) for start in (STARTS[1:2] if settings.quick else STARTS)]
    for divergence, start, n in runs:
        grid = grids.log_snr(process, _STEPS, t_min=start)
        facts = {**about, "kind": "likelihood", "divergence": divergence, "start": start, "n": n, "solver": "rk4"}
        facts |= {"probes": PROBES if divergence == "hutchinson" else None, "grid": grid_facts("log_snr", grid)}
        cost = 0.0002 * 4 * _STEPS * n * (64 if divergence == "exact" else PROBES)
        work = partial(_bits, settings, divergence, grid, n)
        yield Task("latents", f"likelihood/{divergence}/start={start:g}", facts, work, cost)


def trips(quick: bool) -> list[Trip]:
    """The methods; of each the one in the middle for a quick study."""
    fixed = [Trip(solver, steps=n) for solver, counts in TRIPS.items() for n in (counts[1:2] if quick else counts)]
    return [*fixed, *(Trip("dopri5", tolerance=tol) for tol in (TOLERANCES[1:2] if quick else TOLERANCES))]


def _flow(device: str) -> tuple[LinearProcess, Reverse]:
    process, score = model(device)
    return process, probability_flow(process, score)


def _there_and_back(settings: Settings, trip: Trip, _: Records) -> Result:
    _process, flow = _flow(settings.device)
    x = data.digits().held_out[:_TRIP].to(settings.device)
    controller = None if trip.tolerance is None else PID(rtol=trip.tolerance, atol=trip.tolerance)
    with torch.no_grad():
        found = round_trip(flow, x, stepper=trip.solver, steps=trip.steps, controller=controller)
    found.encoded.check()
    found.decoded.check()
    error = found.error.double().cpu()
    return Result(
        {
            "n": len(x),
            "rms": float(error.square().mean().sqrt()),
            "largest": float(error.max()),
            "calls": [s.stats.score_evaluations for s in (found.encoded, found.decoded)],
        }
    )


def digits_of(pair: tuple[int, int]) -> Tensor:
    """The first held-out images of two digits, (2, 1, 8, 8)."""
    digits = data.digits()
    return torch.stack([digits.held_out[digits.held_out_labels == label][0] for label in pair])


def _between(settings: Settings, pair: tuple[int, int], _: Records) -> Result:
    process, flow = _flow(settings.device)
    ends = digits_of(pair).to(settings.device)
    weights = torch.linspace(0.0, 1.0, POINTS, dtype=torch.float64)
    with torch.no_grad():
        latents = encode(flow, ends, controller=_BETWEEN).check().final
        points = slerp(latents[:1], latents[1:], weights)[:, 0]
        images = decode(flow, points, controller=_BETWEEN, end="denoise").check().final
    straight = torch.lerp(ends[0], ends[1], weights.to(ends)[:, None, None, None])
    unit = float(process.prior((1, 8, 8)).variance.mean().sqrt()) * math.sqrt(ends[0].numel())
    values = {
        "norms": [float(norm) / unit for norm in points.flatten(1).norm(dim=1)],
        "error": float((images[[0, -1]] - ends).square().mean().sqrt()),
    }
    return Result(values, {"circle": pixels(images.cpu()), "line": pixels(straight.cpu())})


def _bits(settings: Settings, divergence: Divergence, grid: Tensor, n: int, _: Records) -> Result:
    _process, flow = _flow(settings.device)
    x = data.digits().held_out[:n].to(settings.device)
    found = log_likelihood(
        *(flow, x, grid, "rk4"),
        divergence=divergence,
        probes=PROBES,
        dequantisation=LEVELS,
        seed=random.key(settings.seed, _PROBES),
    )
    order = found.bits_per_dimension.argsort()
    return Result(_summary(found), {"images": pixels(x[order].cpu())})


def _summary(found: LogLikelihood) -> dict[str, Any]:
    """Bits per dimension, with the standard errors of their mean over data and over probes."""
    bits, errors = found.bits_per_dimension.cpu(), found.bits_standard_error.cpu()
    assert found.mismatch_bound is not None
    scale = found.x[0].numel() * math.log(2.0)
    return {
        "bits": bits.tolist(),
        "errors": errors.tolist(),
        "mean": float(bits.mean()),
        "over_data": float(bits.std()) / math.sqrt(len(bits)),
        "over_probes": float(errors.square().sum().sqrt()) / len(bits),
        "prior_at_most": float(found.mismatch_bound.mean()) / scale,
        "evaluations": found.evaluations,
        "products": found.products,
    }
