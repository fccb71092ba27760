r"""Part 6: Langevin chains and predictor–corrector samplers, by what they are biased.

- ULA on $N(0, \Lambda^{-1})$, Λ = diag(1, 2, 5): the law that it ends in, against the leading term of its bias,
  $\tfrac\gamma4 \sqrt{\operatorname{tr} \Lambda}$; and where it is when $W_2^2 < \epsilon$ is guaranteed [durmus2019].
  Exact, by the affine probe.
- Predictor–correctors on the flow of VP back to a Gaussian: exact $W_2$ by levels, for fixed step sizes.
- Step sizes from a signal-to-noise ratio, and Metropolis steps, are no affine maps. Behind a predictor without error,
  on $N(0, \tfrac14)$ in d dimensions, spreads of samples are compared with the exact one; by quartiles, as a variance
  may not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from sdekit import problems, random
from sdekit.driver import solve
from sdekit.langevin import Langevin
from sdekit.laws import Gaussian
from sdekit.metrics import wasserstein2
from sdekit.processes import VP
from sdekit.reverse import probability_flow
from sdekit.score import exact_score
from sdekit.steppers import (
    Corrector,
    LangevinCorrector,
    MetropolisCorrector,
    PredictorCorrector,
    SNRCorrector,
    Stepper,
    registry,
)
from sdekit.study.settings import Settings
from sdekit.study.tasks import Records, Result, Task, grid_facts
from sdekit.verify import fit_order, law_error
from sdekit.verify.affine import AffineMap, affine_map

PRECISIONS = (1.0, 2.0, 5.0)
"""Λ of the target; its ends are m and L of the guarantee."""
GAMMAS, EPSILONS = (0.1, 0.01, 0.001), (1.0, 0.1, 0.01)
DIMENSIONS = (1, 3, 16, 64)
LINES: dict[str, tuple[str, Corrector | None]] = {
    "dpmpp-2s": ("dpmpp-2s", None),
    "dpmpp-2s + a share": ("dpmpp-2s", LangevinCorrector(0.25)),
    "dpmpp-2s + a level": ("dpmpp-2s", LangevinCorrector(0.25, per="level")),
    "reverse-diffusion": ("reverse-diffusion", None),
    "reverse-diffusion + a share": ("reverse-diffusion", LangevinCorrector(0.25)),
    "reverse-diffusion + a level": ("reverse-diffusion", LangevinCorrector(0.25, per="level")),
}
"""Predictors, and what follows them."""
SAMPLED: dict[str, Callable[[float], Corrector]] = {
    "snr": SNRCorrector,
    "level": lambda r: LangevinCorrector(2 * r**2, per="level"),
    "metropolis": lambda r: MetropolisCorrector(2 * r**2),
}
"""Steps by a ratio r, fixed ones of about the same size in many dimensions, and these adjusted."""
RATIOS, RATIO = (0.04, 0.08, 0.16, 0.32, 0.64), 0.16

_STEPS, _LEVELS = (16, 32, 64, 128, 256), 40
_AMONG = 16  # dimensions where ratios are compared
_CHUNK = 64  # steps of ULA that are probed at a time
_FORGOTTEN = 40.0  # e-foldings after which the start is below rounding
_START, _NOISE = 601, 602


def tasks(settings: Settings) -> Iterator[Task]:
    """A record for every γ, ε, line and sampled corrector."""
    if "langevin" not in settings.problems:
        return
    for gamma in GAMMAS[:2] if settings.quick else GAMMAS:
        yield _task(f"ula/gamma={gamma:g}", {"what": "bias", "gamma": gamma}, partial(_bias, gamma))
    for epsilon in EPSILONS[:2] if settings.quick else EPSILONS:
        yield _task(f"ula/epsilon={epsilon:g}", {"what": "guarantee", "epsilon": epsilon}, partial(_guarantee, epsilon))
    steps = _STEPS[:4] if settings.quick else _STEPS
    for name in LINES:
        about: dict[str, object] = {
            "what": "law",
            "method": name,
            "steps": list(steps),
            "grid": grid_facts("log_snr", _grid(steps[-1])),
        }
        yield _task(f"law/{name.replace(' + ', '+').replace(' ', '-')}", about, partial(_law, name, steps))
    for name in SAMPLED:
        for d, r in [*((d, RATIO) for d in DIMENSIONS), *((_AMONG, r) for r in RATIOS if r != RATIO)]:
            about = {"what": "spread", "corrector": name, "d": d, "r": r}
            about |= {"grid": grid_facts("log_snr", _grid(_LEVELS))}
            yield _task(f"spread/{name}/d={d}/r={r:g}", about, partial(_spread, settings, name, d, r))


def _task(name: str, about: Mapping[str, object], compute: partial[Result]) -> Task:
    return Task("langevin", name, about, compute, cost=0.5)


def _grid(steps: int) -> torch.Tensor:
    return problems.get("vp-gaussian", eta=0.0).grid(steps)


# --- ULA ------------------------------------------------------------------------------------------


def target() -> Gaussian:
    """N(0, Λ⁻¹)."""
    precisions = torch.tensor(PRECISIONS, dtype=torch.float64)
    return Gaussian(torch.zeros_like(precisions), 1.0 / precisions)


def _chain(gamma: float, steps: int) -> AffineMap:
    return affine_map(Langevin(target()), "ula", gamma * torch.arange(steps + 1, dtype=torch.float64), (3,))


def after(law: Gaussian, gamma: float, steps: int) -> Gaussian:
    """The exact law of ULA after so many steps."""
    whole, rest = divmod(steps, _CHUNK)
    run = _chain(gamma, _CHUNK) if whole else None
    for _ in range(whole):
        assert run is not None
        law = run.push(law)
    return _chain(gamma, rest).push(law) if rest else law


def _bias(gamma: float, _: Records) -> Result:
    law = after(target(), gamma, math.ceil(_FORGOTTEN / gamma))
    return Result({"w2": wasserstein2(law, target()), "predicted": 0.25 * gamma * math.sqrt(sum(PRECISIONS))})


def _guarantee(epsilon: float, _: Records) -> Result:
    """The least number of steps and the largest step that the guarantee allows, but for one per cent."""
    d, m, lipschitz = len(PRECISIONS), min(PRECISIONS), max(PRECISIONS)
    start = Gaussian(torch.full((d,), 2.0, dtype=torch.float64), 0.0)
    gamma = 0.99 * min(m * epsilon / (4.0 * lipschitz * d), 1.0 / lipschitz)
    first = wasserstein2(start, target()) ** 2
    steps = math.floor(math.log(2.0 * first / epsilon) / (gamma * m)) + 1
    reached = wasserstein2(after(start, gamma, steps), target()) ** 2
    return Result({"gamma": gamma, "steps": steps, "squared": reached, "slack": epsilon / reached})


# --- predictor–correctors -------------------------------------------------------------------------


def _stepper(name: str) -> Stepper:
    predictor, corrector = LINES[name]
    return registry.get(predictor) if corrector is None else PredictorCorrector(predictor, corrector)


def _law(name: str, steps: tuple[int, ...], _: Records) -> Result:
    problem = problems.get("vp-gaussian", eta=0.0)
    errors = [law_error(problem, _stepper(name), n) for n in steps]
    found = fit_order(steps, errors, 1e-14)
    known = not math.isnan(found.order)
    fit = (found.order, found.uncertainty) if known else (None, None)
    return Result({"errors": errors, "order": fit[0], "uncertainty": fit[1]})


def _spread(settings: Settings, name: str, d: int, r: float, _: Records) -> Result:
    """The standard deviation by quartiles over the exact one, with its standard error; all coordinates are alike."""
    process, data = VP(), Gaussian(torch.zeros(d, dtype=torch.float64), 0.25)
    flow, grid = probability_flow(process, exact_score(data, process)), _grid(_LEVELS)
    n = (12_000 if settings.quick else 60_000) // d
    x = process.marginal(data, float(grid[0])).sample(n, seed=random.key(settings.seed, _START, d))
    stepper = PredictorCorrector("exact-linear", SAMPLED[name](r))
    with torch.no_grad():
        solution = solve(flow, x, grid, stepper, noise=random.key(settings.seed, _NOISE, d)).check()
    scale = solution.final.flatten() / process.marginal(data, float(grid[-1])).variance[0].sqrt()
    low, high = (torch.quantile(scale, q) for q in (0.25, 0.75))
    accepted = solution.diagnostics.get("acceptance")
    return Result(
        {
            "n": n,
            "ratio": float(high - low) / 1.3489795,
            "limit": 1.0 + 2.0 / d if name == "snr" else 1.0,
            "error": 1.1664 / math.sqrt(n * d),  # of a normal's quartiles
            "largest": float(scale.abs().max()),
            "acceptance": None if accepted is None else float(accepted.mean()),
        }
    )
