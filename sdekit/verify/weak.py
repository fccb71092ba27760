r"""Exact weak errors on nonlinear problems, by the backward recursion of the production stepper; no sampling.

For functionals φ of the state at the end, $u_N = \varphi$ and, for step k from a state x with the noise ξ,

$$ u_k(x) = E\,u_{k+1}\bigl(\Psi_k(x, \xi)\bigr), \qquad E\,\varphi(Y_N) = E\,u_0(X_0) , $$

which is compared with the exact $E\,\varphi(X_T)$. The expectation over ξ is a Gauss–Hermite rule for normals (W and,
with Lévy areas, H), and the scheme's own three points for a weak method. $u_k$ lives on a grid that is uniform in
$y_j$, $x_j = c_j + s_j \sinh y_j$, in one or two dimensions: dense where the law is, and reaching far into tails.
Between the nodes it is interpolated by polynomials of degree 9 (7 in two dimensions), each from the nearest nodes, so
that what happens at the edge stays there. All functionals are carried at once, one step after another, so that problems
which depend on time are no different.

The grid of a step spans what paths reach whose noise and start are stretched by 2½: further out a law has about 1e-16
of its probability. Images beyond are taken at the edge. The accuracy is estimated by doing everything again with fewer
nodes of both kinds; a result that is not sure to be smaller than the error is refused.

References: [kloeden1992] §9.7 for weak convergence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian, Law
from sdekit.problems.base import Problem
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.affine import run_times
from sdekit.verify.steps import Steps

_SPACING = {1: 0.0125, 2: 0.1}  # of the nodes, in y
_STENCIL = {1: 10, 2: 8}  # of them in a polynomial
_POINTS = {0: 1, 1: 20, 2: 10, 3: 7, 4: 6}  # of the Gauss–Hermite rule, by normals in a step
_LESS = 0.8  # of both, for the estimate of accuracy
_PILOTS, _STRETCH, _SEED = 4096, 2.5, 20_260_401
_REACH = 8.5  # standard deviations of the initial law, in its quadrature
_CHUNK = 2**22  # elements of one temporary
_SURE = 0.2  # largest share of the error that may be numerical
_NEGLIGIBLE = 1e-9  # accuracy that is always good enough


@dataclass(frozen=True)
class WeakError:
    r"""Exact weak errors of a run at its last time.

    Attributes:
        errors: $E\,\varphi_i(Y_N) - E\,\varphi_i(X_T)$, shape (m,).
        norm: Root mean square over the functionals; no cusp, where a single one changes its sign.
        accuracy: Estimated numerical error of the norm.
    """

    errors: Tensor
    norm: float
    accuracy: float


def weak_error(problem: Problem, stepper: str | Stepper, steps: int) -> WeakError:
    """The exact weak error of a one-step method on a problem in one or two dimensions.

    Args:
        problem: One whose ``weak`` is known.
        stepper: A registry name or a stepper, without memory.
        steps: Number of steps.

    Raises:
        SdekitError: no functionals with known means, more than two dimensions or four normals a step, a stepper that
            remembers the step before, or an accuracy that is not reached.

    References: [kloeden1992].
    """
    chosen = registry.get(stepper)
    registry.check(chosen, problem.sde)
    if problem.weak is None:
        raise SdekitError(f"The problem {problem.name!r} has no functionals with exact means.")
    event = problem.initial.event_shape
    if event.numel() not in _SPACING:
        raise SdekitError(f"weak_error is for one or two dimensions; {problem.name!r} has states of {tuple(event)}.")
    times = run_times(problem.sde, problem.grid(steps))
    with torch.no_grad():
        bound = Steps.of(problem.sde, chosen, times, event)
        most = max(map(bound.normals, range(len(bound))))
        if most not in _POINTS:
            raise SdekitError(f"{chosen.spec.name} draws {most} normals in a step; weak_error takes at most 4.")
        boxes = _boxes(bound, problem.initial)
        bound.check_memory(_start(problem.initial)[0][::7][:5], "weak_error")
        full, less = (_means(bound, problem, boxes, share) for share in (1.0, _LESS))
    errors = full - problem.weak.expectation.double()
    norm, accuracy = (float(v.square().mean().sqrt()) for v in (errors, full - less))
    if not accuracy <= max(_SURE * norm, _NEGLIGIBLE):
        raise SdekitError(
            f"The weak error of {chosen.spec.name} on {problem.name!r} at {steps} steps is {norm:.2g}, but known to "
            f"{accuracy:.1g} only: take more steps, or compare samples."
        )
    return WeakError(errors, norm, accuracy)


@dataclass(frozen=True)
class _Box:
    """Where a functional is kept: x = c + s sinh y in every coordinate, with y between two ends."""

    centre: Tensor
    scale: Tensor
    middle: Tensor
    half: Tensor

    @classmethod
    def around(cls, x: Tensor) -> _Box:
        """A box that holds pilots (B, d)."""
        quartiles = torch.quantile(x, torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype), dim=0)
        scale = ((quartiles[2] - quartiles[0]) / (1.35 * _STRETCH)).clamp(min=1e-3)
        y = torch.asinh((x - quartiles[1]) / scale)
        low, high = y.amin(0), y.amax(0)
        half = (0.5 * (high - low)).clamp(min=1e-3)
        return cls(quartiles[1], scale, 0.5 * (low + high), half)

    def counts(self, share: float) -> list[int]:
        """How many nodes there are in each coordinate."""
        d = len(self.half)
        spacing = _SPACING[d] / share
        return [max(2 * _STENCIL[d], math.ceil(2.0 * w / spacing) + 1) for w in self.half.tolist()]

    def nodes(self, counts: list[int]) -> Tensor:
        """The tensor grid, shape (n, d)."""
        axes = []
        for j, count in enumerate(counts):
            y = self.middle[j] + self.half[j] * torch.linspace(-1.0, 1.0, count, dtype=torch.float64)
            axes.append(self.centre[j] + self.scale[j] * torch.sinh(y))
        return torch.cartesian_prod(*axes).reshape(-1, len(axes))

    def interpolate(self, values: Tensor, counts: list[int], x: Tensor) -> Tensor:
        """Values (n, m) at the nodes, interpolated at points (B, d); beyond the edge they are those at the edge."""
        size = _STENCIL[x.shape[1]]
        y = ((torch.asinh((x - self.centre) / self.scale) - self.middle) / self.half).clamp(-1.0, 1.0)
        last = torch.tensor(counts) - 1
        place = (y + 1.0) * (0.5 * last)
        first = torch.minimum((place.floor().long() - (size // 2 - 1)).clamp(min=0), last + 1 - size)
        basis = _lagrange(place - first, size)  # (B, d, size)
        near = first[..., None] + torch.arange(size)
        if x.shape[1] == 1:
            return torch.einsum("bi,bim->bm", basis[:, 0], values[near[:, 0]])
        total = values.new_zeros(len(x), values.shape[1])
        for i in range(size):  # one row of the stencil at a time: memory
            row = values[near[:, 0, i, None] * counts[1] + near[:, 1]]
            total += basis[:, 0, i, None] * torch.einsum("bj,bjm->bm", basis[:, 1], row)
        return total


def _lagrange(place: Tensor, count: int) -> Tensor:
    """The Lagrange polynomials of the nodes 0 … count − 1 at places (...,), shape (..., count)."""
    gaps = place[..., None] - torch.arange(count, dtype=place.dtype)
    ones = torch.ones_like(gaps[..., :1])
    before = torch.cat([ones, gaps[..., :-1].cumprod(-1)], -1)
    after = torch.cat([ones, gaps.flip(-1)[..., :-1].cumprod(-1)], -1).flip(-1)
    signs = [(-1) ** (count - 1 - j) * math.factorial(j) * math.factorial(count - 1 - j) for j in range(count)]
    return before * after / torch.tensor(signs, dtype=place.dtype)


def _boxes(steps: Steps, initial: Law) -> list[_Box]:
    """One box for every time, from paths with stretched noise."""
    x = initial.sample(_PILOTS, seed=_SEED).reshape(_PILOTS, -1).double()
    mean = x.mean(0)
    x = mean + _STRETCH * (x - mean)
    boxes, memory = [_Box.around(x)], None
    for k in range(len(steps)):
        keys = random.path_keys(random.key(_SEED, k), _PILOTS)
        z = random.normals(keys, (steps.normals(k),), stream=random.STREAM_STEP)[0] * _STRETCH
        x, memory = steps.advance(k, x, z, memory)
        x = x[x.isfinite().all(1)]
        if len(x) < _PILOTS:
            raise SdekitError(f"Step {k} of {steps.name} gives NaN or Inf far out, where weak_error has to look.")
        boxes.append(_Box.around(x))
    return boxes


def _means(steps: Steps, problem: Problem, boxes: list[_Box], share: float) -> Tensor:
    """E φ(Y_N), shape (m,), with a share of the nodes."""
    assert problem.weak is not None
    functional = problem.weak.functional

    def at_end(x: Tensor) -> Tensor:
        return functional(x.reshape(-1, *steps.event)).double().reshape(len(x), -1)

    later: Callable[[Tensor], Tensor] = at_end
    for k in reversed(range(1, len(steps))):
        counts = boxes[k].counts(share)
        values = _expect(steps, k, boxes[k].nodes(counts), later, share)
        later = partial(boxes[k].interpolate, values, counts)
    x, weights = _start(problem.initial)
    return weights @ _expect(steps, 0, x, later, share)


def _expect(steps: Steps, k: int, x: Tensor, later: Callable[[Tensor], Tensor], share: float) -> Tensor:
    """E u(Ψ_k(x, ξ)) at states (B, d)."""
    z, weights = _rule(steps.normals(k), steps.increments == "three-point", share)
    rows = max(1, _CHUNK // (len(z) * 64))
    parts = []
    for some in torch.split(x, rows):
        y = steps.advance(k, some.repeat_interleave(len(z), 0), z.repeat(len(some), 1))[0]
        parts.append(torch.einsum("q,bqm->bm", weights, later(y).reshape(len(some), len(z), -1)))
    return torch.cat(parts)


def _rule(normals: int, discrete: bool, share: float) -> tuple[Tensor, Tensor]:
    """Nodes (q, J) and weights (q,) of the expectation over a step's noise."""
    points = 3 if discrete else max(1, round(_POINTS[normals] * (share if normals else 1.0)))
    nodes, weights = hermegauss(points)
    weights = weights / weights.sum()
    z = np.array(list(product(nodes, repeat=normals))).reshape(-1, normals)
    w = np.array([math.prod(c) for c in product(weights, repeat=normals)])
    return torch.from_numpy(z), torch.from_numpy(w)


def _start(initial: Law) -> tuple[Tensor, Tensor]:
    """Nodes (q, d) and weights (q,) of the expectation over the initial law."""
    d = initial.event_shape.numel()
    if isinstance(initial, Gaussian) and not initial.root.any():
        return initial.mean.double().reshape(1, d), torch.ones(1, dtype=torch.float64)
    if d == 1:  # by quantiles, in the normal variable: the trapezoid rule converges exponentially
        z = torch.linspace(-_REACH, _REACH, 171, dtype=torch.float64)
        weights = torch.exp(-0.5 * z * z)
        tail = 0.5 * torch.erfc(z.abs() * math.sqrt(0.5))
        low, high = initial.quantile(tail[z <= 0]), initial.quantile(tail[z > 0], upper=True)
        return torch.cat([low.reshape(-1), high.reshape(-1)])[:, None], weights / weights.sum()
    if not isinstance(initial, Gaussian):
        raise SdekitError(f"In two dimensions weak_error starts from a Gaussian; got {type(initial).__name__}.")
    z, weights = _rule(d, False, 3.0)
    return initial.mean.double().reshape(-1) + z @ initial.root.double().T, weights
