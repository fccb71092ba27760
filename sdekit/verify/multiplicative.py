r"""The exact strong and weak error of a solver on a linear SDE with multiplicative noise; no sampling.

With a constant 1 as last coordinate, $dX = (A X + a)\,dt + \sum_i (B_i X + b_i)\,dW_i$ has no affine part. A step of a
one-step method is then $Y \mapsto \Psi Y$, with a polynomial Ψ of the standard normals of the path, and the solution
is $X \mapsto \Phi X$, where Ψ and Φ do not depend on what was before. One run of the production solver over one step,
on basis states times the nodes of a Gauss–Hermite rule, gives the coefficients $\Psi_a$ of Ψ in normalised Hermite
polynomials; further rows of random states and normals certify that Ψ is this polynomial. The coefficients $\Phi_a$ are
those of :mod:`~sdekit.verify.chaos`. With $\delta_a = \Psi_a - \Phi_a$, and ρ for what the $\Phi_a$ leave of
$E[\Phi \otimes \Phi]$,

$$ E[(\Psi - \Phi)^{\otimes 2}] = \sum_a \delta_a \otimes \delta_a + \rho, \quad
   E[\Psi \otimes (\Psi - \Phi)] = \sum_a \Psi_a \otimes \delta_a, \quad
   E[(\Psi - \Phi) \otimes \Phi] = \sum_a \delta_a \otimes \Phi_a - \rho . $$

These move the second moments of $D = Y - X$ and X: $D \mapsto \Psi D + (\Psi - \Phi) X$. Nothing cancels, so that the
root mean square of D is known to 1e-15 per step of that of X, where $E|Y|^2 - 2 E[Y \cdot X] + E|X|^2$ loses half the
digits. The weak error follows $E[Y \otimes Y - X \otimes X]$ likewise.

The least error that any method with the same draws can have is that of $\bar\Phi = E[\Phi \mid \text{draws}]$ in place
of Ψ [clarkcameron1980]. A weak method draws three-point variables, which are the Gauss–Hermite rule with three nodes,
and two-point ones, the rule with two; it follows no path, so it has no strong error. Φ does not know of the latter.
Areas of pairs of noises are drawn by normals beside W and H, with the covariance of those of a path, so that the weak
error of a step that is linear in them is exact too. Φ does not know of these normals either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import factorial, prod, sqrt

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss, hermevander
from torch import Tensor

from sdekit import random
from sdekit.driver import solve
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.problems.base import LinearCoefficients, Problem
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.affine import run_times
from sdekit.verify.chaos import Index, LinearStep
from sdekit.verify.draws import DISCRETE, Draws, points

_POINTS = (4, 6, 9, 13)  # of the Gauss–Hermite rules, per normal, tried in turn
_MOST_ROWS = 2_000_000
_WITNESSES = 8
_TOLERANCE = 1e-10  # of the witnesses, relative to the largest state
_LONGEST = 200.0  # step, as LinearStep.length has it: seconds per step size, and growing as its square
_NOTHING = 2e-15  # coefficients below this part of the largest are round-off
_SEED = 20_260_211


@dataclass(frozen=True)
class LinearErrors:
    r"""Exact errors of a run at its last time.

    Attributes:
        strong: $(E|Y - X|^2)^{1/2}$ on the Brownian path that drives the run; None for a weak method, and where areas
            of pairs of noises are drawn, which are no polynomial of normals of the path.
        weak: The largest entry of $|E[Y] - E[X]|$ and $|E[Y Y^\top] - E[X X^\top]|$.
        optimum: The least strong error of any method with these draws, to 1e-10; None for a weak method, and where
            the steps are so large that its series has not converged after a thousand terms.
    """

    strong: float | None
    weak: float
    optimum: float | None


def linear_errors(problem: Problem, stepper: str | Stepper, steps: int) -> LinearErrors:
    """The exact errors of a stepper on a linear SDE with constant coefficients, from the problem's start.

    The round-off of ``strong`` is about 1e-15 a step of the root mean square of the solution, that of ``weak`` of its
    mean square.

    Args:
        problem: One whose ``linear`` is known.
        stepper: A registry name or a stepper, of one step: what memory it keeps makes no difference.
        steps: Number of steps; equal ones are probed once.

    Raises:
        SdekitError: the problem is not linear or its grid decreases; the stepper cannot integrate it, or draws
            otherwise than once a step for every noise; a step is not linear in the state, is no polynomial of its
            noise, depends on the time or on the steps before, or is far longer than the times of the equation.

    References: [clarkcameron1980], [cameronmartin1944].
    """
    chosen = registry.get(stepper)
    registry.check(chosen, problem.sde)
    if problem.linear is None:
        raise SdekitError(f"The problem {problem.name!r} has no linear coefficients: use verify.order(kind='strong').")
    times = run_times(problem.sde, problem.grid(steps), chosen)
    if times[0] > times[-1]:
        raise SdekitError(f"linear_errors needs increasing times; got {times[0]:g} … {times[-1]:g}.")
    A, B = _augmented(problem.linear)
    lengths = [t - s for s, t in pairwise(times)]
    rounding = 16.0 * np.finfo(float).eps * max(map(abs, times))
    kinds: dict[int, float] = {}
    equal = [kinds.setdefault(round(h / rounding), h) for h in lengths]
    event = problem.initial.event_shape
    probes = {h: _Probe.of(problem.sde, chosen, h, event, len(B)) for h in kinds.values()}
    _same_in_a_run(problem.sde, chosen, times[:3], event, [probes[h] for h in equal[:2]])
    exact = {h: LinearStep(h * A, h**0.5 * B, p.draws.levy) for h, p in probes.items()}
    if (length := max(step.length for step in exact.values())) > _LONGEST:
        raise SdekitError(f"A step has |hA| + 4 Σ |√h B_i| = {length:.3g}, above {_LONGEST:g}: take more steps.")
    moves = {h: _Move.of(probes[h], step) for h, step in exact.items()}
    return _propagate([moves[h] for h in equal], _second_moment(problem), chosen.spec.increments in ("w", "space-time"))


def _augmented(linear: LinearCoefficients) -> tuple[np.ndarray, np.ndarray]:
    """A and B of the state with a constant 1 behind it."""
    A, a, B, b = (v.detach().cpu().double().numpy() for v in (linear.A, linear.a, linear.B, linear.b))
    d = len(A)
    whole = np.zeros((1 + len(B), d + 1, d + 1))
    whole[0, :d, :d], whole[0, :d, d] = A, a
    whole[1:, :d, :d], whole[1:, :d, d] = B, b
    return whole[0], whole[1:]


def _second_moment(problem: Problem) -> np.ndarray:
    """E[X ⊗ X] at the start, of the augmented state."""
    law = problem.initial
    mean = np.append(law.mean.double().cpu().reshape(-1).numpy(), 1.0)
    square = np.outer(mean, mean)
    square[:-1, :-1] += law.covariance.double().cpu().numpy()
    return square.reshape(-1)


@dataclass(frozen=True)
class _Probe:
    """One step as a polynomial of its normals.

    Attributes:
        indices: Degrees of the Hermite polynomials, with every index all lower ones.
        coefficients: Ψ_a, shape (indices, d + 1, d + 1).
        draws: What the step draws.
        discrete: Whether that is three-point variables, and two-point ones.
    """

    indices: list[Index]
    coefficients: np.ndarray
    draws: Draws
    discrete: bool

    @classmethod
    def of(cls, sde: SDE, stepper: Stepper, h: float, event: torch.Size, noises: int) -> _Probe:
        draws, name = Draws.of(sde, stepper, [0.0, h], event, areas=True), stepper.spec.name
        wanted = replace(draws, noise=torch.Size([noises]), fresh=())
        if draws.intervals not in ((), ((0.0, h),)) or draws.normals != wanted.per_interval:
            raise SdekitError(
                f"{name} draws {draws.noise.numel()} variables over {list(draws.intervals)} in a step of {h:g}; "
                f"linear_errors needs one draw over the step, for the {noises} noises of the problem."
            )
        worst = 0.0
        for counts in cls._rules(draws, stepper):
            rows = prod(counts) * (event.numel() + 1)
            if rows > _MOST_ROWS:
                raise SdekitError(
                    f"A step of {name} with {draws.normals} normals needs more than {_MOST_ROWS:,} rows to be probed; "
                    f"with fewer it fails by {worst:.2g} to be a polynomial. Use a problem with fewer noises."
                )
            found = cls._interpolated(sde, stepper, h, event, draws, counts)
            worst = _mismatch(sde, stepper, [0.0, h], event, [found])
            if worst <= _TOLERANCE:
                return found
        raise SdekitError(
            f"A step of {name} is not linear in the state, or no polynomial of degree {_POINTS[-1] - 1} of its noise: "
            f"it misses one by {worst:.2g} of the largest state. Clipped, tamed and adaptive steps are out of reach."
        )

    @staticmethod
    def _rules(draws: Draws, stepper: Stepper) -> list[list[int]]:
        """Points for every normal, to be tried in turn."""
        if draws.coins:
            return [points(draws.noise.numel())]
        tried = (3,) if stepper.spec.increments in DISCRETE else _POINTS
        return [[n] * draws.normals for n in tried]

    @classmethod
    def _interpolated(
        cls, sde: SDE, stepper: Stepper, h: float, event: torch.Size, draws: Draws, counts: list[int]
    ) -> _Probe:
        """Ψ_a by the rule with this many points, from the zero state and the basis states at every node."""
        d, normals = event.numel(), draws.normals
        rules = [hermegauss(n) for n in counts]
        nodes = torch.tensor(list(product(*(x for x, _ in rules))), dtype=torch.float64).reshape(prod(counts), normals)
        states = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().repeat(len(nodes), 1)
        final = _run(sde, stepper, [0.0, h], draws, states, nodes.repeat_interleave(d + 1, 0), event)
        values = final.reshape(len(nodes), d + 1, d)
        values = np.concatenate([values[:, 1:] - values[:, :1], values[:, :1]], 1).transpose(0, 2, 1)
        tensor = values.reshape(*counts, d, d + 1)
        for axis, (x, w) in enumerate(rules):
            rule = _hermite(x, len(x)) * (w / w.sum())[:, None]
            tensor = np.moveaxis(np.tensordot(tensor, rule, (axis, 0)), -1, axis)
        size = np.abs(tensor).max((-1, -2))
        kept = [[0] * normals, *np.argwhere(size > _NOTHING * size.max()).tolist()]
        indices = sorted({b for a in kept for b in product(*(range(k + 1) for k in a))}, key=lambda a: (sum(a), a))
        coefficients = np.zeros((len(indices), d + 1, d + 1))
        coefficients[:, :d] = [tensor[a] for a in indices]
        coefficients[0, d, d] = 1.0  # of the index 0: the constant stays
        return cls(indices, coefficients, draws, stepper.spec.increments in DISCRETE)

    def move(self, state: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Ψ(z) applied to augmented states (rows, d + 1)."""
        table = _hermite(z, 1 + max(max(a, default=0) for a in self.indices))
        degrees = np.array(self.indices, dtype=int).reshape(len(self.indices), -1)
        basis = np.prod([table[:, j][:, degrees[:, j]] for j in range(z.shape[1])], 0)
        basis = np.broadcast_to(basis, (len(z), len(degrees)))
        moved: np.ndarray = np.einsum("ra,aij,rj->ri", basis, self.coefficients, state)
        return moved


def _run(
    sde: SDE, stepper: Stepper, times: Sequence[float], draws: Draws, x: Tensor, z: Tensor, event: torch.Size
) -> np.ndarray:
    """Final states (rows, d) of the production solver, from states (rows, d) and normals."""
    final = solve(sde, x.reshape(-1, *event), times, stepper, noise=draws.path(z)).final
    return final.detach().reshape(x.shape).numpy()


def _mismatch(sde: SDE, stepper: Stepper, times: Sequence[float], event: torch.Size, chain: Sequence[_Probe]) -> float:
    """How far a run is from a chain of probes, on random states and normals, relative to the largest state."""
    d, draws = event.numel(), Draws.of(sde, stepper, times, event, areas=True)
    keys = random.path_keys(_SEED, _WITNESSES)
    rows = random.normals(keys, (d + draws.normals,), stream=random.STREAM_LAW)[0]
    x, z = rows[:, :d], rows[:, d:]
    if chain[0].discrete:
        three, two = (z.abs() > 0.5) * z.sign() * 3.0**0.5, z.sign()
        m = draws.noise.numel()
        is_coin = torch.arange(z.shape[1]) % (2 * m) >= m if draws.coins else torch.zeros(z.shape[1], dtype=torch.bool)
        z = torch.where(is_coin, two, three)
    state = np.append(x.numpy(), np.ones((_WITNESSES, 1)), 1)
    for probe, part in zip(chain, z.chunk(len(chain), 1), strict=True):
        state = probe.move(state, part.numpy())
    final = _run(sde, stepper, times, draws, x, z, event)
    miss = np.abs(final - state[:, :d]).max() / max(np.abs(final).max(), 1e-300)
    return float(miss) if np.isfinite(miss) else float("inf")


def _same_in_a_run(
    sde: SDE, stepper: Stepper, times: Sequence[float], event: torch.Size, chain: Sequence[_Probe]
) -> None:
    """Refuse a step that depends on where it stands in a run."""
    miss = _mismatch(sde, stepper, times, event, chain)
    if miss > _TOLERANCE:
        raise SdekitError(
            f"A run of {stepper.spec.name} is no chain of single steps: after {len(chain)} of them it is off by "
            f"{miss:.2g} of the largest state. linear_errors needs a method without memory, and fields that do not "
            "depend on time."
        )


def _hermite(z: np.ndarray, degrees: int) -> np.ndarray:
    """Normalised Hermite polynomials of degree below ``degrees``, in a last dimension."""
    scale = np.array([1.0 / sqrt(factorial(k)) for k in range(degrees)])
    table: np.ndarray = hermevander(z, degrees - 1) * scale
    return table


@dataclass(frozen=True)
class _Move:
    """Over one step: means of products of Ψ, Φ and E = Ψ − Φ, which act on second moments of D and X.

    Attributes:
        yy, ye, ee, yx, ex, xx: E[Ψ⊗Ψ], E[Ψ⊗E], E[E⊗E], E[Ψ⊗Φ], E[E⊗Φ], E[Φ⊗Φ].
        gained: E[Ψ⊗Ψ] − E[Φ⊗Φ].
        hidden: E[(Φ − E[Φ | draws])⊗²]; None where it is not known.
    """

    yy: np.ndarray
    ye: np.ndarray
    ee: np.ndarray
    yx: np.ndarray
    ex: np.ndarray
    xx: np.ndarray
    gained: np.ndarray
    hidden: np.ndarray | None

    @classmethod
    def of(cls, probe: _Probe, exact: LinearStep) -> _Move:
        draws = probe.draws
        of_path = draws.noise.numel() * (2 if draws.levy else 1)  # the others are independent of what the path did
        known = [j for j, a in enumerate(probe.indices) if not any(a[of_path:])]
        chaos = exact.chaos([probe.indices[j][:of_path] for j in known])
        psi, phi, rest = probe.coefficients, np.zeros_like(probe.coefficients), chaos.rest
        phi[known] = chaos.coefficients
        delta = psi - phi
        return cls(
            yy=_products(psi, psi),
            ye=_products(psi, delta),
            ee=_products(delta, delta) + rest,
            yx=_products(psi, phi),
            ex=_products(delta, phi) - rest,
            xx=chaos.square,
            gained=_products(delta, psi) + _products(phi, delta) - rest,
            hidden=None if probe.discrete or draws.areas else exact.hidden(),
        )


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ_a A_a ⊗ B_a."""
    n = a.shape[1]
    products: np.ndarray = np.einsum("aij,akl->ikjl", a, b).reshape(n * n, n * n)
    return products


def _propagate(moves: Sequence[_Move], start: np.ndarray, follows: bool) -> LinearErrors:
    """Second moments of D = Y − X, of (D, X), of X, of Y less those of X, and of the optimum less X, step by step."""
    n = round(len(start) ** 0.5)
    own = range(0, (n - 1) * (n + 1), n + 1)  # E[X_i X_i], without the constant
    dd, dx, xx, gain, least = (np.zeros_like(start) for _ in range(5))
    xx = start
    for move in moves:
        crossed = move.ye @ dx
        dd = move.yy @ dd + crossed + crossed.reshape(n, n).T.reshape(-1) + move.ee @ xx
        dx = move.yx @ dx + move.ex @ xx
        gain = move.yy @ gain + move.gained @ xx
        if move.hidden is not None:
            least = (move.xx - move.hidden) @ least + move.hidden @ xx
        xx = move.xx @ xx
    known = all(move.hidden is not None for move in moves)
    return LinearErrors(
        strong=sqrt(max(dd[own].sum(), 0.0)) if follows else None,
        weak=float(np.abs(gain).max()),
        optimum=sqrt(max(least[own].sum(), 0.0)) if known else None,
    )
