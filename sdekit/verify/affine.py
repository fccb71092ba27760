r"""The exact law that a solver produces on an affine problem, by probing the production solver.

If the drift is affine in the state and the noise additive, a whole run is an affine map of the initial state
and of the standard normals that it draws,

$$ x_N = c + A\,x_0 + \sum_k B_k\,z_k . $$

One run on a batch of 1 + d + n rows (nothing, basis states, basis noises) reads off c, A and every B. The law from a
Gaussian start is then Gaussian with mean $c + A m_0$ and the square-root factor $[A F_0, B_1, B_2, \dots]$: covariances
are never squared, so laws can be compared down to 1e-15. Further rows of random states and noises certify that the run
was affine (superposition); otherwise the probe refuses. Multistep, multi-stage and stochastic methods need no special
treatment, and neither does somebody else's sampler (:func:`probe`).

References: [pierret2025] derives such recursions scheme by scheme; this probes the code that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit import ends, random
from sdekit.doors import grid_of
from sdekit.driver import solve
from sdekit.dynamics import SDE
from sdekit.ends import End, RecordedEnd
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.solution import Solution
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.typing import Shape
from sdekit.verify.draws import DISCRETE, Draws

Run = Callable[[Tensor, Tensor], Tensor]
"""``(x, z) -> x_N``: final states from initial states (rows, *E) and standard normals (rows, n)."""

_WITNESSES = 8  # rows of random states and noises
_TOLERANCE = 1e-10  # of the superposition residual, relative to the largest state
_SEED = 20_260_131


@dataclass(frozen=True)
class AffineMap:
    """A run as an affine map of its initial state and its standard normals, on flattened events.

    Attributes:
        constant: c, shape (d,).
        matrix: A, shape (d, d).
        noises: Columns of all B side by side, shape (d, n).
        residual: Largest violation of superposition over the witnesses, relative to the largest state.
        event_shape: Shape of one sample.
    """

    constant: Tensor
    matrix: Tensor
    noises: Tensor
    residual: float
    event_shape: torch.Size

    def push(self, initial: Gaussian) -> Gaussian:
        """The law of the end of the run when it starts from ``initial``."""
        mean = self.constant + self.matrix @ initial.mean.reshape(-1).to(self.matrix)
        root = torch.cat([self.matrix @ initial.root.to(self.matrix), self.noises], dim=1)
        return Gaussian.from_root(mean.reshape(self.event_shape), root)


def probe(
    run: Run, event_shape: Shape, normals: int, dtype: torch.dtype = torch.float64, name: str = "the run"
) -> AffineMap:
    r"""The affine map of any run whose noise can be handed to it; somebody else's sampler, say.

    Args:
        run: ``(x, z) -> x_N`` with states of shape (rows, \*E) and standard normals of shape (rows, n).
        event_shape: E, the shape of one sample.
        normals: n, how many standard normals one sample draws in the run.
        dtype: Type of the states and normals.
        name: What an error calls it.

    Raises:
        SdekitError: the run was not affine, says by how much; or what it returned is not like its initial states.
    """
    event = torch.Size(event_shape)
    d = event.numel()
    rows = 1 + d + normals + _WITNESSES
    columns = torch.zeros(rows, d + normals, dtype=dtype)
    columns[1 : 1 + d + normals] = torch.eye(d + normals, dtype=dtype)
    witnesses = random.normals(random.path_keys(_SEED, _WITNESSES), (d + normals,), stream=random.STREAM_LAW)[0]
    columns[-_WITNESSES:] = witnesses
    reached = run(columns[:, :d].reshape(rows, *event).contiguous(), columns[:, d:].contiguous())
    if reached.shape != (rows, *event):
        raise SdekitError(f"{name} returned {tuple(reached.shape)} for states of shape {(rows, *event)}.")
    final = reached.detach().flatten(1).to(torch.float64)
    constant, basis = final[0], final[1 : rows - _WITNESSES] - final[0]
    predicted = constant + columns[-_WITNESSES:].double() @ basis
    residual = float((final[-_WITNESSES:] - predicted).abs().max() / final.abs().max().clamp(min=1e-300))
    if not residual <= _TOLERANCE * (1.0 if dtype == torch.float64 else 1e6):
        raise SdekitError(
            f"{name} was not affine on this problem: superposition fails by {residual:.2g} of the largest "
            "state. numerical_law needs an affine drift (a Gaussian's exact score), additive noise, no clipping and no "
            "step size or correction that is scaled by the norm of the state."
        )
    return AffineMap(constant, basis[:d].T.contiguous(), basis[d:].T.contiguous(), residual, event)


def affine_map(
    sde: SDE,
    stepper: str | Stepper,
    grid: Tensor | Sequence[float] | Solution,
    event_shape: Shape,
    dtype: torch.dtype = torch.float64,
    end: End = "stop",
) -> AffineMap:
    """Probe :func:`sdekit.solve` for its affine map.

    The normals stand in the order of the run. For every interval that is drawn they are those of W, one for each noise,
    and then, if the stepper asks for Lévy areas, those of H as the run sees it. Those of the end come last.

    Args:
        sde: An affine problem with additive noise, or none.
        stepper: A registry name or a stepper.
        grid: Times of the run; or a solution, whose recorded steps are taken again. That makes a run with chosen
            steps affine, which it is not while it chooses them.
        event_shape: Shape of one sample.
        dtype: Type that the solver runs in.
        end: As in :func:`sdekit.solve`.

    Raises:
        SdekitError: the run was not affine; says by how much.
    """
    chosen = registry.get(stepper)
    times = run_times(sde, grid, chosen)
    registry.check(chosen, sde)
    draws = Draws.of(sde, chosen, times, event_shape)
    own = torch.Size(event_shape).numel() if ends.draws(sde, end) else 0

    def run(x: Tensor, z: Tensor) -> Tensor:
        path = draws.path(z[:, : draws.normals])
        noise = RecordedEnd(path, z[:, draws.normals :].reshape(x.shape)) if own else path
        return solve(sde, x, times, chosen, noise=noise, end=end).final

    return probe(run, event_shape, draws.normals + own, dtype, chosen.spec.name)


def run_times(sde: SDE, grid: Tensor | Sequence[float] | Solution, stepper: Stepper) -> list[float]:
    """The distinct times of a grid, or of the steps that a run took."""
    times = grid.provenance["times"] if isinstance(grid, Solution) else grid
    nodes = grid_of(sde, times, None, stepper.spec.safe_at)
    return list(dict.fromkeys(nodes.tolist()))


def numerical_law(
    sde: SDE, stepper: str | Stepper, grid: Tensor | Sequence[float] | Solution, initial: Gaussian, end: End = "stop"
) -> Gaussian:
    """The exact law that a solver produces from a Gaussian start on an affine problem; no sampling.

    Args:
        sde: An affine problem with additive noise, or none.
        stepper: A registry name or a stepper.
        grid: Times of the run; or a solution, whose recorded steps are taken again.
        initial: Law of the initial state.
        end: As in :func:`sdekit.solve`.

    Raises:
        SdekitError: the run was not affine, or it draws discrete variables, so that its law is not Gaussian.
    """
    chosen = registry.get(stepper)
    if chosen.spec.increments in DISCRETE and sde.noise_type != "none":
        raise SdekitError(
            f"{chosen.spec.name} draws {chosen.spec.increments} variables, so its law is not Gaussian: "
            "use verify.weak_error, or verify.affine_map for its map."
        )
    return affine_map(sde, chosen, grid, initial.event_shape, end=end).push(initial)
