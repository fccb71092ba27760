r"""Part 5: the peers under the same microscope.

Methods of torchsde, torchdiffeq and diffusers run as steppers, those of k-diffusion and azula as whole runs
(:mod:`sdekit.interop`), on problems with exact answers. What runs is the library's own code, in float64, on our grid;
errors are exact, so an order that is not reached is the method's and not the measurement's.

- torchsde: $dx = Ax\,dt + dW$ with a matrix A that is not normal, on [0, 2]; $W_2$ and the strong error.
- torchdiffeq: the flow of VP back to a mixture, on log-SNR steps; adaptive methods by the steps that they took.
- diffusers, k-diffusion, azula: VE from σ = 20 to 0.05 on log-uniform levels; flows to
  $0.3\,N(-0.8, 0.3^2) + 0.7\,N(0.6, 0.2^2)$ by 48 quantiles of the exact flow, stochastic samplers to $N(0.7, 0.5^2)$
  by the law that they produce.

For some methods of the three an independent prototype measured the same errors before; they stand beside ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import final

import torch
from torch import Tensor

from sdekit import grids, problems
from sdekit.driver import solve
from sdekit.dynamics import SDE
from sdekit.interop.whole_runs import Method
from sdekit.laws import Gaussian, GaussianMixture, Law
from sdekit.linear import LinearProcess
from sdekit.metrics import wasserstein2
from sdekit.ornstein_uhlenbeck import OU
from sdekit.problems.reverse import mild_mixture
from sdekit.processes import VE, VP
from sdekit.reverse import reverse_time
from sdekit.score import exact_score
from sdekit.steppers.base import Stepper
from sdekit.study.peer_methods import Peer, peers
from sdekit.study.settings import Settings, peer_versions
from sdekit.study.tasks import Records, Result, Task, grid_facts
from sdekit.verify import (
    AffineMap,
    OrderEstimate,
    RecordedNormals,
    fit_order,
    mid_quantiles,
    numerical_law,
    probe,
    probe_sampler,
    quantile_flow,
    strong_error,
)

TOLERANCE = 0.1
"""How far a measured order may be from the claimed one, beside twice its uncertainty."""

QUANTILES = 48
_FLOOR = {"flow": 1e-12, "w2": 1e-14, "strong": 1e-14}
_UNSURE = 0.25  # an order that is known no better than this accuses nobody

QUICK = (
    "torchsde/srk/w2",
    "torchsde/srk/strong",
    "torchsde/heun/w2",
    "torchdiffeq/rk4/flow",
    "torchdiffeq/explicit_adams/flow",
    "torchdiffeq/explicit_adams-equal-steps/flow",
    "diffusers/ddim/flow",
    "diffusers/dpm++3m/flow",
    "diffusers/ddpm/w2",
    "diffusers/sde-dpm++2m/w2",
    "diffusers/sde-dpm++3m/w2",
    "k-diffusion/dpmpp_2m/flow",
    "k-diffusion/dpmpp_2m_sde/w2",
    "azula/vab-3/flow",
    "azula/reab-2/flow",
)
"""What a quick study measures."""


ADAPTIVE, TOLERANCES = ("dopri5", "dopri8", "bosh3", "fehlberg2"), (1e-3, 1e-5, 1e-7)
"""Adaptive methods of torchdiffeq, and the tolerances at which their steps are recorded."""


# --- what it runs on ------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Case:
    """A problem with its exact answer."""

    sde: SDE
    initial: Law
    law: Law
    grid: Callable[[int], Tensor]
    data: Law | None = None


@cache
def case_of(name: str) -> Case:
    """By its key."""
    if name == "ou":
        return _ornstein_uhlenbeck()
    if name == "ve-mixture":
        mixture = GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
        return _back(VE(sigma_min=0.05, sigma_max=20.0), mixture, 0.0, grids.log_snr)
    if name == "ve-normal":
        return _back(VE(sigma_min=0.05, sigma_max=20.0), Gaussian([0.7], 0.25), 1.0, grids.log_snr)
    grid = grids.log_snr if name == "vp-mixture" else partial(grids.uniform, t_min=0.05)
    return _back(VP(), mild_mixture(), 0.0, grid)


@cache
def flow_of(name: str) -> tuple[Tensor, Tensor]:
    """Quantiles at the start of a problem's grids, and where the exact flow carries them."""
    case = case_of(name)
    assert case.data is not None
    x, (first, last) = mid_quantiles(case.initial, QUANTILES), case.grid(1).tolist()
    return x, quantile_flow(case.sde.process, case.data, x, first, last)  # type: ignore[attr-defined]


def _ornstein_uhlenbeck() -> Case:
    matrix = torch.tensor([[-1.0, 2.0], [-0.5, -0.3]], dtype=torch.float64)
    sde = OU(theta=-matrix, sigma=torch.eye(2, dtype=torch.float64), t_max=2.0)
    start = Gaussian(torch.tensor([1.0, -0.5], dtype=torch.float64), 0.25)
    law = numerical_law(sde, "exact-linear", [0.0, 2.0], start)
    return Case(sde, start, law, lambda n: torch.linspace(0.0, 2.0, n + 1, dtype=torch.float64))


def _back(process: LinearProcess, data: Law, eta: float, grid: Callable[..., Tensor]) -> Case:
    sde = reverse_time(process, exact_score(data, process), eta)
    ends = [float(t) for t in grid(process, 1)]
    start, end = (process.marginal(data, t) for t in ends)
    return Case(sde, start, end, partial(grid, process), data)


# --- what is measured -----------------------------------------------------------------------------


def tasks(settings: Settings) -> Iterator[Task]:
    """A record for every method whose library is installed, and for every adaptive method its replays."""
    if "peers" not in settings.problems:
        return
    versions = peer_versions()
    for peer in peers():
        if versions[peer.library] is None or (settings.quick and peer.name not in QUICK):
            continue
        about = {
            "library": peer.library,
            "version": versions[peer.library],
            "method": peer.method,
            "problem": peer.problem,
            "measure": peer.measure,
            "steps": list(peer.steps),
            "grid": grid_facts("of the problem", case_of(peer.problem).grid(peer.steps[-1])),
        }
        yield Task("peers", peer.name, about, partial(_measure, peer), cost=1e-3 * sum(peer.steps))
    if versions["torchdiffeq"] is not None:
        yield from _replays(settings, versions["torchdiffeq"])


def _replays(settings: Settings, version: str) -> Iterator[Task]:
    for method in ADAPTIVE[:1] if settings.quick else ADAPTIVE:
        for tolerance in TOLERANCES:
            about = {
                "library": "torchdiffeq",
                "version": version,
                "method": method,
                "problem": "vp-gaussian",
                "measure": "replay",
                "tolerance": tolerance,
            }
            name = f"torchdiffeq/{method}/tolerance={tolerance:g}"
            yield Task("peers", name, about, partial(_replayed, method, tolerance), cost=0.2)


def verdict(estimate: OrderEstimate, claim: float) -> str:
    """``holds``, ``more`` than claimed on this problem, ``short`` of it, or ``undecided``."""
    if math.isnan(estimate.order) or estimate.uncertainty > _UNSURE:
        return "undecided"
    room = TOLERANCE + 2.0 * estimate.uncertainty
    if abs(estimate.order - claim) <= room:
        return "holds"
    more = estimate.order > claim
    # A fit through a cusp is no evidence: the finest local orders have to be on the same side.
    agreed = all((p > claim) == more for p in estimate.local[-2:])
    return ("more" if more else "short") if agreed else "undecided"


_ERRORS: dict[tuple[str, int], float] = {}


def error(peer: Peer, steps: int) -> float:
    """The exact error of a method at a step count, which two parts of a study ask for."""
    key = (peer.name, steps)
    if key not in _ERRORS:
        _ERRORS[key] = _error(peer, steps)
    return _ERRORS[key]


def _error(peer: Peer, steps: int) -> float:
    case, method = case_of(peer.problem), peer.make()
    grid = case.grid(steps)
    if peer.measure == "flow":
        x, exact = flow_of(peer.problem)
        final = _final(method, case.sde, grid, x)
        return float((final - exact).square().mean().sqrt())
    assert isinstance(case.initial, Gaussian)
    if not isinstance(method, Stepper):
        return wasserstein2(_whole_run(peer.name, method, case, grid).push(case.initial), case.law)
    if peer.measure == "strong":
        return strong_error(case.sde, method, grid, case.initial).error
    return wasserstein2(numerical_law(case.sde, method, grid, case.initial), case.law)


def _final(method: Stepper | Method, sde: SDE, grid: Tensor, x: Tensor) -> Tensor:
    return solve(sde, x, grid, method).check().final if isinstance(method, Stepper) else method(sde, grid)(x)


def _whole_run(name: str, method: Method, case: Case, grid: Tensor) -> AffineMap:
    """What a run of two steps shows, draws and independence, is not looked for again in longer ones."""
    event, steps = case.initial.event_shape, len(grid) - 1
    normals = probe_sampler(method(case.sde, case.grid(2)), event, name).noises.shape[1] * steps // 2

    def run(x: Tensor, z: Tensor) -> Tensor:
        with RecordedNormals(z) as drawn:
            final = method(case.sde, grid)(x)
        assert drawn.taken == normals, (name, steps, drawn.taken)
        return final

    return probe(run, event, normals, name=name)


def _measure(peer: Peer, _: Records) -> Result:
    errors = [error(peer, n) for n in peer.steps]
    estimate = fit_order(peer.steps, errors, _FLOOR[peer.measure])
    known = not math.isnan(estimate.order)
    figures = list(peer.prototype)
    return Result(
        {
            "errors": errors,
            "order": estimate.order if known else None,
            "uncertainty": estimate.uncertainty if known else None,
            "claim": peer.claim,
            "tolerance": TOLERANCE,
            "verdict": verdict(estimate, peer.claim),
            "prototype": figures,
            "deviation": max((abs(e / f - 1.0) for e, f in zip(errors, figures, strict=False)), default=None),
        }
    )


def _replayed(method: str, tolerance: float, _: Records) -> Result:
    """The exact law of an adaptive run on the steps that it took for eight states."""
    from sdekit.interop import torchdiffeq

    problem = problems.get("vp-gaussian", eta=0.0)
    assert isinstance(problem.initial, Gaussian)
    assert isinstance(problem.law, Gaussian)
    start, (first, last) = problem.initial.sample(8, seed=0), problem.grid(1).tolist()
    times, found = torchdiffeq.adaptive_map(problem.sde, start, first, last, tolerance, method)
    w2 = wasserstein2(found.push(problem.initial), problem.law)
    return Result({"accepted": len(times) - 1, "w2": w2, "ratio": w2 / tolerance, "residual": found.residual})
