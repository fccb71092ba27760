r"""Part 5: the peers under the same microscope.

Methods of torchsde, torchdiffeq and diffusers run as steppers (:mod:`sdekit.interop`) on problems with exact answers.
What steps is the library's own code, in float64, on our grid; errors are exact, so an order that is not reached is the
method's and not the measurement's.

- torchsde: $dx = Ax\,dt + dW$ with a matrix A that is not normal, on [0, 2]; $W_2$ and the strong error.
- torchdiffeq: the flow of VP back to a mixture, on log-SNR steps; adaptive methods by the steps that they took.
- diffusers: VE from σ = 20 to 0.05 on log-uniform levels; flows to $0.3\,N(-0.8, 0.3^2) + 0.7\,N(0.6, 0.2^2)$ by 48
  quantiles of the exact flow, stochastic samplers to $N(0.7, 0.5^2)$ by the law that they produce.

For some methods of diffusers an independent prototype measured the same errors before; they stand beside ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import Any, Literal, final

import torch
from torch import Tensor

from sdekit import grids, problems
from sdekit.driver import solve
from sdekit.dynamics import SDE
from sdekit.laws import Gaussian, GaussianMixture, Law
from sdekit.linear import LinearProcess
from sdekit.metrics import wasserstein2
from sdekit.ornstein_uhlenbeck import OU
from sdekit.problems.reverse import mild_mixture
from sdekit.processes import VE, VP
from sdekit.reverse import reverse_time
from sdekit.score import exact_score
from sdekit.steppers.base import Stepper
from sdekit.study.settings import Settings, peer_versions
from sdekit.study.tasks import Records, Result, Task, grid_facts
from sdekit.verify import OrderEstimate, fit_order, mid_quantiles, numerical_law, quantile_flow, strong_error

Measure = Literal["flow", "w2", "strong"]

TOLERANCE = 0.1
"""How far a measured order may be from the claimed one, beside twice its uncertainty."""

QUANTILES = 48
_FLOOR = {"flow": 1e-12, "w2": 1e-14, "strong": 1e-14}
_SMALL = (8, 16, 32, 64)
_TWOS = (16, 32, 64, 128, 256)
_TENS = (10, 20, 40, 80, 160, 320)
_LOADING = Lock()  # diffusers finds its classes when asked for them, one thread at a time
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
)
"""What a quick study measures."""


ADAPTIVE, TOLERANCES = ("dopri5", "dopri8", "bosh3", "fehlberg2"), (1e-3, 1e-5, 1e-7)
"""Adaptive methods of torchdiffeq, and the tolerances at which their steps are recorded."""


@final
@dataclass(frozen=True)
class Peer:
    """A method of another library on a problem.

    Attributes:
        library: Its distribution.
        method: For people.
        problem: Key of the problem.
        measure: Which error.
        claim: The order that the library or the method's paper states for it.
        make: The stepper; imports the library.
        steps: Step counts.
        prototype: Errors at these that an independent prototype measured; none for most.
    """

    library: str
    method: str
    problem: str
    measure: Measure
    claim: float
    make: Callable[[], Stepper]
    steps: tuple[int, ...]
    prototype: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name of its record."""
        words = self.method.lower().replace(" ", "-").replace("η=", "eta=").replace("τ=", "tau=").replace(",", "")
        return f"{self.library}/{words}/{self.measure}"


# --- what runs ------------------------------------------------------------------------------------


def _torchsde(method: str) -> Stepper:
    from sdekit.interop import torchsde

    return torchsde.stepper(method)


def _torchdiffeq(method: str, **options: Any) -> Stepper:
    from sdekit.interop import torchdiffeq

    return torchdiffeq.stepper(method, **options)


def _scheduler(name: str, **options: Any) -> Stepper:
    with _LOADING:
        import diffusers

        scheduler = getattr(diffusers, f"{name}Scheduler")

    from sdekit.interop import schedulers

    return schedulers.stepper(scheduler(prediction_type="epsilon", **options))


def _dpm(order: int, **options: Any) -> Callable[[], Stepper]:
    open_end = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
    return partial(_scheduler, "DPMSolverMultistep", solver_order=order, **open_end, **options)


def _unipc(order: int) -> Callable[[], Stepper]:
    open_end = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
    return partial(_scheduler, "UniPCMultistep", solver_order=order, **open_end)


def _of_torchsde() -> Iterator[Peer]:
    # What torchsde declares for additive noise, weak and strong.
    claims = {
        "euler": (1.0, 1.0),
        "milstein": (1.0, 1.0),
        "srk": (1.5, 1.5),
        "heun": (1.0, 1.0),
        "midpoint": (1.0, 1.0),
        "euler_heun": (1.0, 1.0),
        "reversible_heun": (1.0, 1.0),
        "log_ode": (1.0, 1.0),
    }
    for method, (weak, strong) in claims.items():
        make = partial(_torchsde, method)
        yield Peer("torchsde", method, "ou", "w2", weak, make, _SMALL)
        yield Peer("torchsde", method, "ou", "strong", strong, make, _SMALL)


def _of_torchdiffeq() -> Iterator[Peer]:
    for method, claim in (("euler", 1.0), ("midpoint", 2.0), ("heun2", 2.0), ("heun3", 3.0), ("rk4", 4.0)):
        yield Peer("torchdiffeq", method, "vp-mixture", "flow", claim, partial(_torchdiffeq, method), _TWOS)
    adams = partial(_torchdiffeq, "explicit_adams", max_order=5)  # its fourth order; the default goes to the eleventh
    yield Peer("torchdiffeq", "explicit_adams", "vp-mixture", "flow", 4.0, adams, _TWOS)
    yield Peer("torchdiffeq", "explicit_adams, equal steps", "vp-mixture-equal", "flow", 4.0, adams, _TWOS)


def _of_diffusers() -> Iterator[Peer]:
    ddim, deis = partial(_scheduler, "DDIM", clip_sample=False), partial(_scheduler, "DEISMultistep", solver_order=3)
    heun = partial(_scheduler, "HeunDiscrete")
    first = (8.1e-2, 4.1e-2, 2.0e-2, 1.0e-2, 5.1e-3, 2.5e-3)
    flows: tuple[tuple[str, float, Callable[[], Stepper], tuple[float, ...]], ...] = (
        ("DDIM", 1.0, ddim, first),
        ("Euler", 1.0, partial(_scheduler, "EulerDiscrete"), first),
        ("Heun", 2.0, heun, (2.8e-2, 6.2e-3, 1.5e-3, 3.5e-4, 8.8e-5, 2.2e-5)),
        ("DPM++2M", 2.0, _dpm(2), (1.6e-2, 4.4e-3, 1.2e-3, 3.0e-4, 7.6e-5, 1.9e-5)),
        ("DPM++3M", 3.0, _dpm(3), (8.0e-3, 1.7e-3, 3.1e-4, 7.0e-5, 1.7e-5, 4.2e-6)),
        ("DEIS-3", 3.0, partial(deis, lower_order_final=False), (9.7e-3, 2.2e-3, 3.5e-4, 4.7e-5, 6.1e-6, 7.7e-7)),
        ("UniPC-2", 3.0, _unipc(2), (9.6e-3, 1.9e-3, 2.6e-4, 3.1e-5, 3.8e-6, 4.6e-7)),
        ("UniPC-3", 4.0, _unipc(3), (1.6e-2, 4.1e-4, 2.7e-5, 3.4e-6, 2.7e-7, 1.9e-8)),
        ("UniPC-4", 5.0, _unipc(4), (2.8e-2, 1.2e-3, 3.2e-5, 1.3e-6, 4.2e-8, 1.2e-9)),
    )
    ancestral = (1.2e-1, 6.6e-2, 3.5e-2, 1.8e-2, 9.2e-3, 4.6e-3)
    sa = partial(_scheduler, "SASolver", predictor_order=3, corrector_order=4, tau_func=_one, lower_order_final=False)
    sdes: tuple[tuple[str, float, Callable[[], Stepper], tuple[float, ...]], ...] = (
        ("DDPM", 1.0, partial(_scheduler, "DDPM", clip_sample=False), ancestral),
        ("DDIM η=1", 1.0, ddim, ancestral),
        ("Euler ancestral", 1.0, partial(_scheduler, "EulerAncestralDiscrete"), ancestral),
        (
            "sde-DPM++2M",
            2.0,
            _dpm(2, algorithm_type="sde-dpmsolver++"),
            (1.2e-2, 6.0e-3, 1.7e-3, 4.3e-4, 1.1e-4, 2.7e-5),
        ),
        ("sde-DPM++3M", 3.0, _dpm(3, algorithm_type="sde-dpmsolver++"), ()),
        ("SASolver P3C4 τ=1", 4.0, sa, (4.4e-2, 3.0e-3, 6.4e-4, 1.6e-4, 3.9e-5, 9.7e-6)),
    )
    for method, claim, make, figures in flows:
        yield Peer("diffusers", method, "ve-mixture", "flow", claim, make, _TENS, figures)
    for method, claim, make, figures in sdes:
        yield Peer("diffusers", method, "ve-normal", "w2", claim, make, _TENS, figures)


def _one(timestep: Any) -> float:
    return 1.0


def peers() -> list[Peer]:
    """Every method, whether its library is there or not."""
    return [*_of_torchsde(), *_of_torchdiffeq(), *_of_diffusers()]


# --- what it runs on ------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Case:
    """A problem with its exact answer."""

    sde: SDE
    initial: Law
    law: Law
    grid: Callable[[int], Tensor]
    data: Law | None = None


@cache
def _case(name: str) -> _Case:
    if name == "ou":
        return _ornstein_uhlenbeck()
    if name == "ve-mixture":
        mixture = GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
        return _back(VE(sigma_min=0.05, sigma_max=20.0), mixture, 0.0, grids.log_snr)
    if name == "ve-normal":
        return _back(VE(sigma_min=0.05, sigma_max=20.0), Gaussian([0.7], 0.25), 1.0, grids.log_snr)
    grid = grids.log_snr if name == "vp-mixture" else partial(grids.uniform, t_min=0.05)
    return _back(VP(), mild_mixture(), 0.0, grid)


def _ornstein_uhlenbeck() -> _Case:
    matrix = torch.tensor([[-1.0, 2.0], [-0.5, -0.3]], dtype=torch.float64)
    sde = OU(theta=-matrix, sigma=torch.eye(2, dtype=torch.float64), t_max=2.0)
    start = Gaussian(torch.tensor([1.0, -0.5], dtype=torch.float64), 0.25)
    law = numerical_law(sde, "exact-linear", [0.0, 2.0], start)
    return _Case(sde, start, law, lambda n: torch.linspace(0.0, 2.0, n + 1, dtype=torch.float64))


def _back(process: LinearProcess, data: Law, eta: float, grid: Callable[..., Tensor]) -> _Case:
    sde = reverse_time(process, exact_score(data, process), eta)
    ends = [float(t) for t in grid(process, 1)]
    start, end = (process.marginal(data, t) for t in ends)
    return _Case(sde, start, end, partial(grid, process), data)


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
            "grid": grid_facts("of the problem", _case(peer.problem).grid(peer.steps[-1])),
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


def error(peer: Peer, steps: int) -> float:
    """The exact error of a method at a step count."""
    case, stepper = _case(peer.problem), peer.make()
    grid = case.grid(steps)
    if peer.measure == "flow":
        assert case.data is not None
        x = mid_quantiles(case.initial, QUANTILES)
        exact = quantile_flow(case.sde.process, case.data, x, float(grid[0]), float(grid[-1]))  # type: ignore[attr-defined]
        return float((solve(case.sde, x, grid, stepper).check().final - exact).square().mean().sqrt())
    assert isinstance(case.initial, Gaussian)
    if peer.measure == "strong":
        return strong_error(case.sde, stepper, grid, case.initial).error
    return wasserstein2(numerical_law(case.sde, stepper, grid, case.initial), case.law)


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
