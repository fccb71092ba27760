r"""Part 7: discrete chains and the SDEs that they tend to.

DDPM's chain with $\beta_i = \beta(i/L)/L$ tends to VP with the rate β, and SMLD's with L geometric levels from σ_min to
σ_max tends to VE, both at order one in 1/L. Levels of the chain stand at t = i/L, and inside (0, 1) the deviations are
known to first order:

$$ \delta \log\alpha_t = -\frac{1}{4L} \Bigl[\beta(t) - \beta(0) + \int_0^t \beta^2\Bigr] \quad\text{(DDPM)}, \qquad
   \delta \log\sigma_t = -\frac{1 - t}{L} \log\frac{\sigma_{\max}}{\sigma_{\min}} \quad\text{(SMLD)} . $$

Three things are compared with the SDE's, exactly, by $W_2$ on Gaussian data: the marginal at t; the transition to t
from a point at s < t; and the law at t of the chain's own ancestral sampler, which walks its L levels down from the
chain's last marginal, against that of the reverse-time SDE, which is the marginal. The first two have the constant that
the formulas give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import final

import torch

from sdekit.laws import Gaussian
from sdekit.linear import ScheduledProcess
from sdekit.metrics import wasserstein2
from sdekit.processes import VE, VP, DiscreteVE, DiscreteVP
from sdekit.reverse import reverse_time
from sdekit.schedules import Schedule
from sdekit.score import exact_score
from sdekit.study.settings import Settings
from sdekit.study.tasks import Records, Result, Task
from sdekit.verify import fit_order, numerical_law

KINDS = ("marginal", "transition", "ancestral")
"""What is compared."""

TIMES = (0.25, 0.5, 0.75)
_LONG = (64, 128, 256, 512, 1024)
LEVELS = {"marginal": _LONG, "transition": _LONG, "ancestral": _LONG[:4]}
_FROM = 0.125  # where a transition starts
_POINT = 0.7


@final
@dataclass(frozen=True)
class Limit:
    r"""A chain and its SDE.

    Attributes:
        name: Such as ``DDPM → VP``.
        sde: The limit.
        chain: The chain of L levels.
        sampler: Its ancestral sampler.
        shift: $L\,\delta\log\alpha$ and $L\,\delta\log\sigma$ at t, to first order.
    """

    name: str
    sde: ScheduledProcess
    chain: Callable[[int], ScheduledProcess]
    sampler: str
    shift: Callable[[float], tuple[float, float]]


def ddpm(levels: int) -> DiscreteVP:
    r"""The DDPM chain of the linear schedule, $\beta_i = \beta(i/L)/L$."""
    times = torch.arange(1, levels + 1, dtype=torch.float64) / levels
    return DiscreteVP(VP().schedule.beta(times) / levels)


def smld(levels: int) -> DiscreteVE:
    """The SMLD chain of geometric levels."""
    limit = VE()
    ends = torch.tensor([limit.sigma_min, limit.sigma_max], dtype=torch.float64).log()
    return DiscreteVE(torch.lerp(ends[0], ends[1], torch.linspace(0.0, 1.0, levels, dtype=torch.float64)).exp())


def _shift_of_ddpm(t: float) -> tuple[float, float]:
    low, high = VP().beta_min, VP().beta_max
    beta = low + (high - low) * t
    squares = (beta**3 - low**3) / (3.0 * (high - low))  # ∫β²
    signal = -0.25 * (beta - low + squares)
    schedule = VP().schedule
    return signal, -((schedule.alpha(t) / schedule.sigma(t)) ** 2) * signal  # α² + σ² stays 1


def _shift_of_smld(t: float) -> tuple[float, float]:
    return 0.0, -(1.0 - t) * math.log(VE().sigma_max / VE().sigma_min)


LIMITS = {
    "ddpm": Limit("DDPM → VP", VP(), ddpm, "ddpm", _shift_of_ddpm),
    "smld": Limit("SMLD → VE", VE(), smld, "ancestral-ve", _shift_of_smld),
}


def data() -> Gaussian:
    """Data of two coordinates, one narrow and one wide."""
    return Gaussian([0.5, -1.0], [0.01, 0.5])


def distance(limit: Limit, kind: str, levels: int, t: float) -> float:
    """$W_2$ at t between what the chain of this many levels does and what the SDE does."""
    chain, law = limit.chain(levels), data()
    if kind == "transition":
        point = torch.full((2,), _POINT, dtype=torch.float64)
        return wasserstein2(chain.transition(_FROM, t).law(point), limit.sde.transition(_FROM, t).law(point))
    exact, own = limit.sde.marginal(law, t), chain.marginal(law, t)
    if kind == "marginal":
        return wasserstein2(own, exact)
    sde = reverse_time(chain, exact_score(law, chain))
    down = torch.arange(levels, round(t * levels) - 1, -1, dtype=torch.float64) / levels
    start = chain.marginal(law, 1.0)
    assert isinstance(start, Gaussian)
    return wasserstein2(numerical_law(sde, limit.sampler, down, start), exact)


def constant(limit: Limit, kind: str, t: float) -> float | None:
    """The limit of L times the distance; None for the sampler, whose own error comes on top."""
    if kind == "ancestral":
        return None
    schedule: Schedule = limit.sde.schedule
    a, s = schedule.alpha(t), schedule.sigma(t)
    (da, ds), (da0, ds0) = limit.shift(t), limit.shift(_FROM)
    if kind == "marginal":
        law = data()
        spread = (a * a * law.eigen[1] + s * s).sqrt()
        mean, widen = a * da * law.mean, (a * a * da * law.eigen[1] + s * s * ds) / spread
        return float(torch.cat([mean, widen]).norm())
    # The kernel has the factor α_t/α_s, and the variance σ_t² − (α_t/α_s)² σ_s².
    factor, s0 = a / schedule.alpha(_FROM), schedule.sigma(_FROM)
    variance = s * s - (factor * s0) ** 2
    grown = s * s * ds - (factor * s0) ** 2 * (da - da0 + ds0)
    return math.sqrt(2.0) * math.hypot(_POINT * factor * (da - da0), grown / math.sqrt(variance))


def tasks(settings: Settings) -> Iterator[Task]:
    """A record for every chain, comparison and time."""
    if "limits" not in settings.problems:
        return
    for chain, limit in LIMITS.items():
        for kind in KINDS:
            levels = LEVELS[kind][:4] if settings.quick else LEVELS[kind]
            for t in TIMES[1:2] if settings.quick else TIMES:
                about = {"chain": chain, "kind": kind, "t": t, "levels": list(levels)}
                cost = 1.0 if kind == "ancestral" else 0.02
                yield Task("limits", f"{chain}/{kind}/t={t:g}", about, partial(_measure, limit, kind, levels, t), cost)


def _measure(limit: Limit, kind: str, levels: tuple[int, ...], t: float, _: Records) -> Result:
    errors = [distance(limit, kind, n, t) for n in levels]
    estimate = fit_order(levels, errors, 1e-14)
    return Result(
        {
            "errors": errors,
            "order": estimate.order,
            "uncertainty": estimate.uncertainty,
            "constant": levels[-1] * errors[-1],
            "predicted": constant(limit, kind, t),
        }
    )
