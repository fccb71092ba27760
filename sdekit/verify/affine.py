r"""The exact law that a solver produces on an affine problem, by probing the production solver.

If the drift is affine in the state and the noise additive, a whole run is an affine map of the initial state
and of the draws,

$$ x_N = c + A\,x_0 + \sum_k B_k\,z_k . $$

One call of :func:`sdekit.solve` on a batch of 1 + d + Σm rows (nothing, basis states, basis noises) reads off c, A and
every B. The law from a Gaussian start is then Gaussian with mean $c + A m_0$ and the square-root factor
$[A F_0, B_1, B_2, \dots]$: covariances are never squared, so laws can be compared down to 1e-15. Further rows of random
states and noises certify that the run was affine (superposition); otherwise the probe refuses.

References: [pierret2025] derives such recursions scheme by scheme; this probes the code that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import RecordedBrownian
from sdekit.doors import grid_of, noise_event
from sdekit.driver import solve
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.typing import Shape

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


def affine_map(
    sde: SDE,
    stepper: str | Stepper,
    grid: Tensor | Sequence[float],
    event_shape: Shape,
    dtype: torch.dtype = torch.float64,
) -> AffineMap:
    """Probe :func:`sdekit.solve` for its affine map.

    Args:
        sde: An affine problem with additive noise, or none.
        stepper: A registry name or a stepper.
        grid: Times of the run.
        event_shape: Shape of one sample.
        dtype: Type that the solver runs in.

    Raises:
        SdekitError: the run was not affine; says by how much.
    """
    chosen, nodes, event = registry.get(stepper), grid_of(sde, grid, None), torch.Size(event_shape)
    times = nodes[torch.cat([torch.tensor([True]), nodes.diff() != 0])]
    registry.check(chosen, sde)
    one = torch.zeros(1, *event, dtype=dtype)
    noise = noise_event(sde, one, chosen.prepare(sde, times.tolist()), float(times[0]))
    d, m, n = event.numel(), 0 if noise is None else noise.numel(), len(times) - 1
    rows = 1 + d + n * m + _WITNESSES
    x, z = torch.zeros(rows, d, dtype=dtype), torch.zeros(n, rows, m, dtype=dtype)
    x[1 : 1 + d] = torch.eye(d, dtype=dtype)
    for k in range(n):
        first = 1 + d + k * m
        z[k, first : first + m] = torch.eye(m, dtype=dtype)
    witnesses = random.normals(random.path_keys(_SEED, _WITNESSES), (d + n * m,), stream=random.STREAM_LAW)[0].to(dtype)
    x[-_WITNESSES:] = witnesses[:, :d]
    z[:, -_WITNESSES:] = witnesses[:, d:].reshape(_WITNESSES, n, m).transpose(0, 1)
    path = None
    if noise is not None:
        w = z * times.diff().abs().sqrt().to(dtype)[:, None, None]
        path = RecordedBrownian(times, w.reshape(n, rows, *noise))
    final = solve(sde, x.reshape(rows, *event), times, chosen, noise=path).final.flatten(1).to(torch.float64)
    constant, basis = final[0], final[1 : rows - _WITNESSES] - final[0]
    predicted = constant + witnesses.to(torch.float64) @ basis
    residual = float((final[-_WITNESSES:] - predicted).abs().max() / final.abs().max().clamp(min=1e-300))
    if not residual <= _TOLERANCE * (1.0 if dtype == torch.float64 else 1e6):
        raise SdekitError(
            f"{chosen.spec.name} was not affine on this problem: superposition fails by {residual:.2g} of the largest "
            "state. numerical_law needs an affine drift (a Gaussian's exact score), additive noise and no clipping."
        )
    return AffineMap(constant, basis[:d].T.contiguous(), basis[d:].T.contiguous(), residual, event)


def numerical_law(sde: SDE, stepper: str | Stepper, grid: Tensor | Sequence[float], initial: Gaussian) -> Gaussian:
    """The exact law that a solver produces from a Gaussian start on an affine problem; no sampling.

    Args:
        sde: An affine problem with additive noise, or none.
        stepper: A registry name or a stepper.
        grid: Times of the run.
        initial: Law of the initial state.

    Raises:
        SdekitError: the run was not affine.
    """
    return affine_map(sde, stepper, grid, initial.event_shape).push(initial)
