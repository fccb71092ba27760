r"""Exact weak errors on nonlinear problems, by the backward recursion of the production stepper; no sampling.

For functionals φ of the state at the end, $u_N = \varphi$ and, for step k from a state x with the noise ξ,

$$ u_k(x) = E\,u_{k+1}\bigl(\Psi_k(x, \xi)\bigr), \qquad E\,\varphi(Y_N) = E\,u_0(X_0) , $$

which is compared with the exact $E\,\varphi(X_T)$. The expectation over ξ is a Gauss–Hermite rule for normals (W and,
with Lévy areas, H), and the scheme's own three points, and two, for a weak method. All functionals are carried at
once, one step after another, so that problems which depend on time are no different.

In one or two dimensions let $x_j = c_j + s_j \sinh y_j$: nodes in y are dense where the law is, and reach far into
tails. There $u_k / \rho$, $\rho = \prod_j \cosh^3 y_j$, is a polynomial of degree 11 in every coordinate on each of a
few elements. They span what paths reach whose noise is damped, and who are pushed along by up to r standard deviations
of Brownian motion: to where the probability is about $e^{-r^2/2}$. No polynomial is extrapolated: images beyond have
the $u_k / \rho$ of the edge, which is why functionals that grow are divided by something that grows.

Everything is done on finer and finer levels, with more nodes, more points of every rule and wider grids, until two
levels agree. Their difference is the accuracy that is stated, and a result that does not settle is refused.

References: [kloeden1992] §9.7 for weak convergence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian, GaussianMixture, Law
from sdekit.problems.base import Problem, WeakAnswer
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.affine import run_times
from sdekit.verify.draws import DISCRETE, points
from sdekit.verify.steps import Steps

_DEGREE = 11  # of the polynomials, in each coordinate
_MARGIN = 0.3  # in y, beyond what the pilots reach
_GROWTH = 3  # power of cosh y
_NORMALS = 4  # at most, in one step
_PILOTS, _SEED = 4096, 20_260_401
_TINY = 1e-14  # weights below are left out
_REACH = 8.5  # standard deviations of the initial law, in its quadrature by quantiles
_CHUNK = 2**22  # elements of one temporary
_ENOUGH, _SURE = 5e-3, 0.05  # shares of the error: where levels end, and the largest that may be numerical
_NEGLIGIBLE = 1e-11  # accuracy that is always good enough

_ANGLES = (torch.arange(_DEGREE + 1, dtype=torch.float64) + 0.5) * (math.pi / (_DEGREE + 1))
_NODES = -torch.cos(_ANGLES)
_TRANSFORM = torch.cos(torch.arange(_DEGREE + 1)[:, None] * (math.pi - _ANGLES)) * (2.0 / (_DEGREE + 1))
_TRANSFORM[0] *= 0.5  # from values at the nodes to coefficients


@dataclass(frozen=True)
class _Level:
    """How finely everything is done.

    Attributes:
        width: Of an element, in y.
        w: Points of the rule for a normal of W.
        h: Points for one of H, whose effect on a step is smaller by half an order at least.
        start: Points for each normal of the initial law.
        push: r, of the paths that say how far the grid reaches.
    """

    width: float
    w: int
    h: int
    start: int
    push: float


_LEVELS = {
    1: (
        _Level(0.90, 8, 3, 12, 5.5),
        _Level(0.60, 12, 4, 20, 6.5),
        _Level(0.40, 18, 5, 30, 7.5),
        _Level(0.25, 26, 7, 42, 8.5),
        _Level(0.16, 36, 9, 60, 9.0),
    ),
    2: (
        _Level(1.80, 5, 2, 8, 6.0),
        _Level(1.30, 6, 3, 12, 6.5),
        _Level(1.00, 7, 4, 16, 7.0),
        _Level(0.75, 9, 5, 22, 8.0),
    ),
}


@dataclass(frozen=True)
class WeakError:
    r"""Exact weak errors of a run at its last time.

    Attributes:
        errors: $E\,\varphi_i(Y_N) - E\,\varphi_i(X_T)$, shape (m,).
        norm: Root mean square over the functionals; no cusp, where a single one changes its sign.
        accuracy: How far the last two levels are apart: more than the numerical error of the norm.
    """

    errors: Tensor
    norm: float
    accuracy: float


def weak_error(problem: Problem, stepper: str | Stepper, steps: int) -> WeakError:
    """The exact weak error of a one-step method on a problem in one or two dimensions.

    Args:
        problem: One whose ``weak`` is known, or whose ``law`` is Gaussian or a mixture: the functionals are then
            :func:`trigonometric`.
        stepper: A registry name or a stepper, without memory.
        steps: Number of steps.

    Raises:
        SdekitError: no functionals with known means, more than two dimensions or four normals a step, a stepper that
            remembers the step before, or an accuracy that is not reached.

    References: [kloeden1992].
    """
    chosen = registry.get(stepper)
    registry.check(chosen, problem.sde)
    answer = problem.weak
    if answer is None and isinstance(problem.law, Gaussian | GaussianMixture):
        answer = trigonometric(problem.law)
    if answer is None:
        raise SdekitError(f"The problem {problem.name!r} has no functionals with exact means: give it weak= or law=.")
    event = problem.initial.event_shape
    if event.numel() not in _LEVELS:
        raise SdekitError(f"weak_error is for one or two dimensions; {problem.name!r} has states of {tuple(event)}.")
    times = run_times(problem.sde, problem.grid(steps), chosen)
    with torch.no_grad():
        bound = Steps.of(problem.sde, chosen, times, event)
        most = max(map(bound.normals, range(len(bound))))
        if most > _NORMALS:
            raise SdekitError(
                f"{chosen.spec.name} draws {most} normals in a step; weak_error takes at most {_NORMALS}."
            )
        bound.check_memory(_start(problem.initial, _LEVELS[1][0])[0][::3][:5], "weak_error")
        return _settled(bound, problem, answer, f"The weak error of {chosen.spec.name} on {problem.name!r} at {steps}")


def _settled(steps: Steps, problem: Problem, answer: WeakAnswer, what: str) -> WeakError:
    """The errors on the first level that agrees with the one before it."""
    levels = _LEVELS[problem.initial.event_shape.numel()]
    means = (_means(steps, problem.initial, answer.functional, level) for level in levels)
    for coarse, fine in pairwise(means):
        errors = fine - answer.expectation.double()
        norm, accuracy = (float(v.square().mean().sqrt()) for v in (errors, fine - coarse))
        if accuracy <= max(_ENOUGH * norm, _NEGLIGIBLE):
            break
    if not accuracy <= max(_SURE * norm, _NEGLIGIBLE):
        raise SdekitError(
            f"{what} steps is {norm:.2g}, but known to {accuracy:.1g} only: take more steps, or compare samples."
        )
    return WeakError(errors, norm, accuracy)


def trigonometric(law: Gaussian | GaussianMixture, count: int = 12) -> WeakAnswer:
    r"""Waves $\cos(\omega_i \cdot (x - m) + \theta_i)$ about the mean m of a law, with their exact means under it.

    $$ E \cos(\omega \cdot (X - m) + \theta)
       = \sum_k w_k\, e^{-\frac12 |F_k^\top \omega|^2} \cos(\omega \cdot (m_k - m) + \theta) $$

    for components $N(m_k, F_k F_k^\top)$. The wave numbers run from ½ to 2 per standard deviation, in directions and
    with phases spread by the golden ratio: bounded, smooth, and no symmetry of a law hides an error from all of them.

    Args:
        law: Whose expectations are wanted, of any event shape.
        count: Number of functionals.
    """
    parts = law.components if isinstance(law, GaussianMixture) else (law,)
    weights = law.weights if isinstance(law, GaussianMixture) else torch.ones(1)
    centre, sd = law.mean.double().reshape(-1), law.variance.double().reshape(-1).sqrt()
    turns = torch.arange(1, count + 1, dtype=torch.float64) * (0.5 * (5.0**0.5 - 1.0))
    directions = torch.cos(2.0 * math.pi * turns[:, None] * torch.arange(1, len(sd) + 1) + 0.5)
    directions = directions / directions.norm(dim=1, keepdim=True)
    waves = torch.linspace(0.5, 2.0, count, dtype=torch.float64)[:, None] * directions / sd
    phases = 2.0 * math.pi * turns - waves @ centre

    def functional(x: Tensor) -> Tensor:
        return torch.cos(x.double().flatten(1) @ waves.T + phases)

    means = torch.stack([part.mean.double().reshape(-1) for part in parts])
    decays = torch.stack([torch.exp(-0.5 * (waves @ part.root.double()).square().sum(1)) for part in parts])
    return WeakAnswer(functional, weights.double() @ (decays * functional(means)))


@dataclass(frozen=True)
class _Box:
    """Where a functional is kept: x = c + s sinh y in every coordinate, with y between two ends.

    Attributes:
        centre: c, shape (d,).
        scale: s.
        low: Least y.
        high: Largest y.
        elements: Into how many equal ones y is cut in each coordinate.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    elements: list[int]

    @classmethod
    def around(cls, x: Tensor, width: float) -> _Box:
        """A box that holds pilots (B, d), the first half left alone, in elements no wider than ``width``."""
        quartiles = torch.quantile(x[: len(x) // 2], torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype), dim=0)
        scale = ((quartiles[2] - quartiles[0]) / 1.35).clamp(min=1e-3)
        y = torch.asinh((x - quartiles[1]) / scale)
        low, high = y.amin(0) - _MARGIN, y.amax(0) + _MARGIN
        return cls(quartiles[1], scale, low, high, [math.ceil(v) for v in ((high - low) / width).tolist()])

    def nodes(self) -> Tensor:
        """Chebyshev's nodes of every element, shape (n, d): one element after another."""
        axes = []
        for j, count in enumerate(self.elements):
            place = torch.arange(count)[:, None] + 0.5 * (1.0 + _NODES)
            axes.append(self.low[j] + (self.high[j] - self.low[j]) / count * place)  # (elements, nodes)
        if len(axes) == 2:
            shape = (len(axes[0]), len(axes[1]), _DEGREE + 1, _DEGREE + 1)
            axes = [axes[0][:, None, :, None].expand(shape), axes[1][None, :, None, :].expand(shape)]
        y = torch.stack([axis.flatten() for axis in axes], dim=1)
        return self.centre + self.scale * torch.sinh(y)

    def growth(self, x: Tensor) -> Tensor:
        """ρ at points (B, d), shape (B, 1)."""
        return (1.0 + ((x - self.centre) / self.scale).square()).prod(1, keepdim=True) ** (0.5 * _GROWTH)

    def coefficients(self, values: Tensor) -> Tensor:
        """Chebyshev coefficients of u/ρ from the values (n, m) of u at the nodes, shape (elements, coefficients, m)."""
        d, m = len(self.elements), values.shape[1]
        grid = (values / self.growth(self.nodes())).reshape(-1, *(_DEGREE + 1,) * d, m)
        for axis in range(1, d + 1):
            grid = torch.tensordot(grid, _TRANSFORM, ([axis], [1])).movedim(-1, axis)
        return grid.reshape(len(grid), -1, m)

    def evaluate(self, coefficients: Tensor, x: Tensor) -> Tensor:
        """The functionals at points (B, d), shape (B, m)."""
        y = torch.asinh((x - self.centre) / self.scale)
        counts = torch.tensor(self.elements)
        place = ((y - self.low) / (self.high - self.low)).clamp(0.0, 1.0) * counts
        cell = torch.minimum(place.floor().long(), counts - 1)
        basis = _chebyshev(2.0 * (place - cell) - 1.0)  # (B, d, coefficients)
        element = cell[:, 0] if len(self.elements) == 1 else cell[:, 0] * counts[1] + cell[:, 1]
        order, total = element.argsort(), y.new_empty(len(x), coefficients.shape[2])
        sizes = torch.bincount(element, minlength=len(coefficients)).tolist()
        for rows, here in zip(torch.split(order, sizes), coefficients, strict=True):
            some = basis[rows]
            product = some[:, 0] if some.shape[1] == 1 else (some[:, 0, :, None] * some[:, 1, None]).flatten(1)
            total[rows] = product @ here
        return total * self.growth(x)


def _chebyshev(x: Tensor) -> Tensor:
    """Chebyshev polynomials of degrees 0 … n at points in [−1, 1], in a last dimension."""
    found = [torch.ones_like(x), x]
    for _ in range(_DEGREE - 1):
        found.append(2.0 * x * found[-1] - found[-2])
    return torch.stack(found, dim=-1)


def _boxes(steps: Steps, initial: Law, level: _Level) -> list[_Box]:
    """One box for every time: half of the pilots follow the law; of the others noise is damped, and they are pushed."""
    keys, count = random.path_keys(_SEED, _PILOTS), len(steps)
    guided = torch.arange(_PILOTS)[:, None] >= _PILOTS // 2
    most = max(1, *map(steps.normals, range(count)))
    z = random.normals(keys, (most + 3,), stream=random.STREAM_LAW + 1)[0]
    direction, chances = z[:, 3:] / z[:, 3:].norm(dim=1, keepdim=True), torch.special.ndtr(z[:, :3, None])
    begin = (count * chances[:, 0] ** 2).floor()
    damping = torch.where(guided, chances[:, 1], 1.0)
    push = guided * level.push * chances[:, 2].sqrt()
    x, nodes = initial.sample(_PILOTS, seed=_SEED).reshape(_PILOTS, -1).double(), _start(initial, level)[0]
    x = torch.where(guided, nodes[torch.arange(_PILOTS) % len(nodes)], x)
    boxes, memory = [_Box.around(x, level.width)], None
    for k in range(count - 1):
        # A push of √(t − begin) in Brownian motion: as many standard deviations at any time.
        now, then = ((k + i - begin).clamp(min=0.0).sqrt() for i in (0, 1))
        z = random.normals(keys, (steps.normals(k),), stream=random.STREAM_STEP, start=k)[0]
        z = damping * z + push * (then - now) * direction[:, : z.shape[1]]
        x, memory = steps.advance(k, x, z.clamp(-(3.0**0.5), 3.0**0.5) if _discrete(steps) else z, memory)
        if not bool(x.isfinite().all()):
            raise SdekitError(
                f"Step {k} of {steps.name} gives NaN or Inf far out, where weak_error has to look: take more steps."
            )
        boxes.append(_Box.around(x, level.width))
    return boxes


def _discrete(steps: Steps) -> bool:
    return steps.increments in DISCRETE


def _means(steps: Steps, initial: Law, functional: Callable[[Tensor], Tensor], level: _Level) -> Tensor:
    """E φ(Y_N), shape (m,)."""

    def at_end(x: Tensor) -> Tensor:
        return functional(x.reshape(-1, *steps.event)).double().reshape(len(x), -1)

    boxes = _boxes(steps, initial, level)
    later: Callable[[Tensor], Tensor] = at_end
    for k in reversed(range(1, len(steps))):
        values = _expect(steps, k, boxes[k].nodes(), later, level)
        later = partial(boxes[k].evaluate, boxes[k].coefficients(values))
    x, weights = _start(initial, level)
    return weights @ _expect(steps, 0, x, later, level)


def _expect(steps: Steps, k: int, x: Tensor, later: Callable[[Tensor], Tensor], level: _Level) -> Tensor:
    """E u(Ψ_k(x, ξ)) at states (B, d)."""
    z, weights = _noise(steps, k, level)
    rows = max(1, _CHUNK // (len(z) * 64))
    parts = []
    for some in torch.split(x, rows):
        y = steps.advance(k, some.repeat_interleave(len(z), 0), z.repeat(len(some), 1))[0]
        parts.append(torch.einsum("q,bqm->bm", weights, later(y).reshape(len(some), len(z), -1)))
    return torch.cat(parts)


def _noise(steps: Steps, k: int, level: _Level) -> tuple[Tensor, Tensor]:
    """Nodes (q, J) and weights (q,) of the expectation over a step's noise."""
    count = steps.normals(k)
    if steps.increments in ("space-time", "two-point") and steps.noise is not None:
        m = steps.noise.numel()
        each = [level.w] * m + [level.h] * m if steps.increments == "space-time" else points(m)
        return _rule(each * (count // (2 * m)))
    return _rule([3 if _discrete(steps) else level.w] * count)


def _rule(counts: list[int]) -> tuple[Tensor, Tensor]:
    """The product of Gauss–Hermite rules with these numbers of points; three are ±√3 and 0 with ⅙, ⅙ and ⅔."""
    rules = [hermegauss(n) for n in counts]
    z = np.array(list(product(*(nodes for nodes, _ in rules)))).reshape(math.prod(counts), len(counts))
    weights = np.array([math.prod(w) for w in product(*(w / w.sum() for _, w in rules))])
    kept = weights > _TINY
    return torch.from_numpy(z[kept]), torch.from_numpy(weights[kept])


def _start(initial: Law, level: _Level) -> tuple[Tensor, Tensor]:
    """Nodes (q, d) and weights (q,) of the expectation over the initial law."""
    d = initial.event_shape.numel()
    if d == 1 and bool(initial.variance.any()):
        # By quantiles, in the normal variable: the trapezoid rule converges exponentially.
        z = torch.linspace(-_REACH, _REACH, 8 * level.start + 1, dtype=torch.float64)
        density = torch.exp(-0.5 * z * z)
        tail = 0.5 * torch.erfc(z.abs() * math.sqrt(0.5))
        low, high = initial.quantile(tail[z <= 0]), initial.quantile(tail[z > 0], upper=True)
        return torch.cat([low.reshape(-1), high.reshape(-1)])[:, None].double(), density / density.sum()
    if not isinstance(initial, Gaussian | GaussianMixture):
        raise SdekitError(f"In two dimensions weak_error starts from Gaussians; got {type(initial).__name__}.")
    parts = initial.components if isinstance(initial, GaussianMixture) else (initial,)
    shares = initial.weights.double() if isinstance(initial, GaussianMixture) else torch.ones(1).double()
    x, weights = zip(*(_normal(part, d, level) for part in parts), strict=True)
    return torch.cat(x), torch.cat([share * w for share, w in zip(shares, weights, strict=True)])


def _normal(law: Gaussian, d: int, level: _Level) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a normal law, one node where there is no spread."""
    root = law.root.double()
    z, weights = _rule([level.start if bool(column.any()) else 1 for column in root.T])
    return law.mean.double().reshape(1, d) + z @ root.T, weights
