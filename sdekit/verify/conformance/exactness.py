r"""What a method must get exactly right, at any step.

- A Runge–Kutta method of order p integrates $\dot x = t^{q-1}$, $q \le p$, exactly: it is a quadrature of that degree.
- A step method integrates $dx = c\,dt + S\,dW$ exactly, path by path.
- A sampler that freezes or interpolates the denoised state D carries the law of a point mass exactly: D is constant.
- A chain on a Langevin diffusion is in detailed balance with its target: what goes from x to y comes back.
- A stepper of kind ``exact`` has the right law after one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch

from sdekit import grids
from sdekit.brownian import BrownianGrid, RecordedBrownian, levy_for
from sdekit.driver import solve
from sdekit.dynamics import sde
from sdekit.langevin import Langevin
from sdekit.laws import Gaussian
from sdekit.metrics import wasserstein2
from sdekit.processes import VP
from sdekit.reverse import reverse_time
from sdekit.score import exact_score
from sdekit.steppers.base import StepMethod, Stepper
from sdekit.steppers.plan import PlannedStepper
from sdekit.typing import NoiseType
from sdekit.verify.affine import numerical_law
from sdekit.verify.conformance.outcome import Check, require
from sdekit.verify.steps import Steps

_TIMES = torch.tensor([0.0, 0.3, 0.4, 1.1], dtype=torch.float64)
_ROUNDING = 1e-13
_SURE = 12.0  # a coin below −12 accepts anything that is ever accepted


def checks(stepper: Stepper) -> Iterator[Check]:
    """The problems that a stepper of this kind solves without error."""
    spec = stepper.spec
    if isinstance(stepper, StepMethod):
        for q in range(1, int(spec.ode or 0) + 1):
            yield Check(f"exact/quadrature/{q}", partial(_quadrature, stepper, q))
        for noise in sorted(spec.noise_types - {"none"} if not spec.needs_langevin else ()):
            yield Check(f"exact/constant/{noise}", partial(_constant, stepper, noise))
    if spec.kind == "chain" and spec.needs_langevin:
        yield Check("exact/balance", partial(_balance, stepper))
    if isinstance(stepper, PlannedStepper):
        for eta in sorted({eta for eta in (0.0, 0.5, 1.0) if spec.eta[0] <= eta <= spec.eta[1]}):
            yield Check(f"exact/point-mass/eta={eta:g}", partial(_point_mass, stepper, eta))


def _quadrature(stepper: Stepper, q: int) -> str:
    field = sde(lambda t, x: torch.full_like(x, q * t ** (q - 1)))
    found = float(solve(field, torch.zeros(1, 1, dtype=torch.float64), _TIMES, stepper).final)
    off = abs(found - float(_TIMES[-1]) ** q)
    require(off < _ROUNDING, f"the integral of {q} t^{q - 1} is off by {off:.2g}")
    return f"∫ {q} t^{q - 1} dt"


def _constant(stepper: Stepper, noise: NoiseType) -> str:
    """The drift c and the constant matrix S, with as many noises as the type allows."""
    batch, d = 3, 2
    c = torch.tensor([0.7, -1.3], dtype=torch.float64)
    full = torch.tensor([[0.5, -0.2, 0.3], [0.1, 0.9, -0.4]], dtype=torch.float64)
    spread = {"diagonal": full[:, 1], "scalar": full[:, :1]}.get(noise, full)
    fields = lambda t, x: c.expand(len(x), d), lambda t, x: spread.expand(len(x), *spread.shape)
    problem = sde(*fields, noise, min(stepper.spec.calculus))  # either; the solution is the same in both
    m = 1 if noise == "scalar" else d if noise == "diagonal" else 3
    x = torch.arange(batch * d, dtype=torch.float64).reshape(batch, d)
    path = BrownianGrid.on(_TIMES, (batch, m), seed=5, levy=levy_for(stepper.spec.increments))
    drawn = [path.increment(*i) for i in pairwise(_TIMES.tolist())]
    w = torch.stack([i.w for i in drawn])
    if stepper.spec.increments == "two-point":
        drawn = [replace(i, coins=i.w.sign()) for i in drawn]
    found = solve(problem, x, _TIMES, stepper, noise=RecordedBrownian.of(_TIMES, drawn)).final  # even a weak method
    moved = spread * w.sum(0) if noise == "diagonal" else w.sum(0) @ spread.T
    off = float((found - x - c * float(_TIMES[-1]) - moved).abs().max())
    require(off < _ROUNDING, f"dx = c dt + S dW is off by {off:.2g}")
    return "dx = c dt + S dW"


def _balance(stepper: Stepper) -> str:
    r"""$p(x)\,\varphi(z)\,a(x, y) = p(y)\,\varphi(z')\,a(y, x)$ for Langevin proposals x → y by z, and back by z'.

    The probability a of accepting is found by bisection over the coin of the production step.
    """
    target = Gaussian([0.5, -1.0, 0.0], torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64))
    gamma, n = 0.4, 64
    step = Steps.of(Langevin(target), stepper, [0.0, gamma], target.event_shape)
    x, z = target.sample(n, seed=3), Gaussian(torch.zeros(3, dtype=torch.float64)).sample(n, seed=4)

    def moved(start: torch.Tensor, normals: torch.Tensor, coin: torch.Tensor) -> torch.Tensor:
        return step.advance(0, start, torch.cat([normals, coin[:, None]], 1))[0]

    def accepting(start: torch.Tensor, normals: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        low, high = torch.full((n,), -_SURE, dtype=torch.float64), torch.full((n,), _SURE, dtype=torch.float64)
        for _ in range(60):
            middle = 0.5 * (low + high)
            taken = (moved(start, normals, middle) - end).abs().amax(1) < 1e-9
            low, high = torch.where(taken, middle, low), torch.where(taken, high, middle)
        chance: torch.Tensor = torch.special.log_ndtr(low)
        return chance

    y = moved(x, z, torch.full((n,), -_SURE, dtype=torch.float64))
    back = (x - y - gamma * target.score(y)) / (2.0 * gamma) ** 0.5
    flows = [target.log_prob(a) - 0.5 * w.square().sum(1) + accepting(a, w, b) for a, w, b in ((x, z, y), (y, back, x))]
    off = float((flows[0] - flows[1]).abs().max())
    require(bool((x != y).any(1).all()), "it does not move even where it accepts")
    require(off < 1e-9, f"the flows x → y and y → x differ by a factor of {off:.2g} in the logarithm")
    return f"detailed balance within {off:.1g}"


def _point_mass(stepper: PlannedStepper, eta: float) -> str:
    """N(α m, σ²) stays N(α m, σ²); asked of plans that are written in D."""
    process, point = VP(), Gaussian([1.5, -0.5], 0.0)
    grid = grids.log_snr(process, 5)
    assert process.schedule is not None
    if stepper.plan(process.schedule, eta, grid).prediction != "sample":
        return "not written in D"
    problem = reverse_time(process, exact_score(point, process), eta)
    start, end = (process.marginal(point, float(t)) for t in (grid[0], grid[-1]))
    assert isinstance(start, Gaussian)
    off = wasserstein2(numerical_law(problem, stepper, grid, start), end)
    require(off < _ROUNDING, f"the law of a point mass is off by {off:.2g}")
    return f"point mass within {off:.1g}"
