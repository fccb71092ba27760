r"""To the latent of a sample and back, along the probability flow.

The flow of $\dot x = f - \tfrac12 g^2 s$ carries $x_0$ at t_min to one $x_T$ at t_max, and back: $x_T$ is a code of
$x_0$, distributed as $p_T$, which is nearly the prior. Both directions are one ODE on one grid. What a solver loses on
the way is the *round-trip error*, of every sample

$$ e = \sqrt{\tfrac1d\,\lVert \mathrm{decode}(\mathrm{encode}(x)) - x \rVert^2}\,. $$

It is an error of the solver and of nothing else, but it is no bound of it: a method that undoes its own steps has none,
however long they are.

Between codes one goes along the great circle, where a straight line would leave the shell that the prior lives on:
for the angle θ between a and b, and the unit vectors $\hat a, \hat b$,

$$ c(w) = \bigl[(1 - w)\lVert a\rVert + w\lVert b\rVert\bigr]\;
   \frac{\sin((1 - w)\theta)\,\hat a + \sin(w\theta)\,\hat b}{\sin\theta}\,. $$

References: [song2021sde], [song2021ddim]; [shoemake1985] for the great circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack, final

import torch
from torch import Tensor

from sdekit import doors, grids
from sdekit.controllers import PID
from sdekit.driver import Progress, solve
from sdekit.dynamics import SDE
from sdekit.ends import End
from sdekit.errors import SdekitError
from sdekit.linear import LinearProcess
from sdekit.reverse import Reverse
from sdekit.saving import Save
from sdekit.solution import Solution, Status
from sdekit.steppers.base import Stepper

DEFAULT_STEPPER = "dopri5"
DEFAULT_CONTROLLER = PID(rtol=1e-5, atol=1e-5)


class Limits(TypedDict, total=False):
    """What else a run may be told; as for :func:`sdekit.solve`."""

    progress: Progress
    max_steps: int
    max_seconds: float | None


@final
@dataclass(frozen=True)
class RoundTrip:
    """What became of samples that were encoded and decoded.

    Attributes:
        error: Root mean square difference over a sample's components, shape (B,); NaN where a run ended early.
        encoded: The way up.
        decoded: The way back.
    """

    error: Tensor
    encoded: Solution
    decoded: Solution


def encode(
    flow: SDE,
    x: Tensor,
    grid: Tensor | Sequence[float] | None = None,
    stepper: str | Stepper | None = None,
    *,
    steps: int | None = None,
    controller: PID | None = None,
    save: Save = "final",
    **limits: Unpack[Limits],
) -> Solution:
    """From samples to their latents, along the flow from the least time to the largest.

    With neither stepper, steps nor controller the run is adaptive: ``dopri5`` under ``PID(1e-5, 1e-5)``.

    Args:
        flow: A probability flow, or an SDE without noise.
        x: Samples at the least time, shape (B, *E).
        grid: Times in either order: what ``decode`` is given serves here too. By default from ``steps``, or the ends of
            the process's range.
        stepper: A registry name or a stepper; any that integrates the flow, exponential ones too.
        steps: Number of steps, when ``grid`` is left out.
        controller: Steps of every sample's own choosing, between the ends of the grid.
        save: As for :func:`sdekit.solve`.
        **limits: ``progress``, ``max_steps`` and ``max_seconds``.

    Returns:
        The solution; its ``final`` are the latents.

    Raises:
        SdekitError: noise, no grid where none follows from the problem, and what :func:`sdekit.solve` raises.

    References: [song2021sde].
    """
    nodes, chosen, control = run_of(flow, grid, stepper, steps, controller)
    doors.check_times(flow, nodes)  # going up, a score is asked at the very first time
    return solve(flow, x, nodes, chosen, controller=control, save=save, **limits)


def decode(
    flow: SDE,
    x: Tensor,
    grid: Tensor | Sequence[float] | None = None,
    stepper: str | Stepper | None = None,
    *,
    steps: int | None = None,
    controller: PID | None = None,
    save: Save = "final",
    end: End = "stop",
    **limits: Unpack[Limits],
) -> Solution:
    """From latents to samples: what :func:`encode` does, the other way round.

    Args:
        flow: As for :func:`encode`.
        x: Latents at the largest time, shape (B, *E).
        grid: As for :func:`encode`.
        stepper: As for :func:`encode`.
        steps: As for :func:`encode`.
        controller: As for :func:`encode`.
        save: As for :func:`sdekit.solve`.
        end: What happens after the least time, as for :func:`sdekit.solve`.
        **limits: ``progress``, ``max_steps`` and ``max_seconds``.

    Returns:
        The solution; its ``final`` are the samples.

    Raises:
        SdekitError: as for :func:`encode`.
    """
    nodes, chosen, control = run_of(flow, grid, stepper, steps, controller)
    return solve(flow, x, nodes.flip(0), chosen, controller=control, save=save, end=end, **limits)


def round_trip(
    flow: SDE,
    x: Tensor,
    grid: Tensor | Sequence[float] | None = None,
    stepper: str | Stepper | None = None,
    *,
    steps: int | None = None,
    controller: PID | None = None,
    **limits: Unpack[Limits],
) -> RoundTrip:
    """Encode and decode with the same method on the same grid, and what is lost.

    Args:
        flow: As for :func:`encode`.
        x: Samples, shape (B, *E).
        grid: As for :func:`encode`.
        stepper: As for :func:`encode`.
        steps: As for :func:`encode`.
        controller: As for :func:`encode`.
        **limits: ``progress``, ``max_steps`` and ``max_seconds``.

    Returns:
        The error of every sample, and both solutions.

    Raises:
        SdekitError: as for :func:`encode`.
    """
    nodes, chosen, control = run_of(flow, grid, stepper, steps, controller)
    up = encode(flow, x, nodes, chosen, controller=control, **limits)
    down = decode(flow, up.final, nodes, chosen, controller=control, **limits)
    error = (down.final - x).flatten(1).square().mean(1).sqrt()
    lost = (up.status != Status.SUCCESS) | (down.status != Status.SUCCESS)
    return RoundTrip(error.masked_fill(lost, torch.nan), up, down)


def run_of(
    flow: SDE,
    grid: Tensor | Sequence[float] | None,
    stepper: str | Stepper | None,
    steps: int | None,
    controller: PID | None,
) -> tuple[Tensor, str | Stepper, PID | None]:
    """Increasing times, stepper and controller of a run along a flow, with defaults for what is left out.

    Raises:
        SdekitError: noise, a grid and steps, or no times.
    """
    doors.check_sde(flow)
    if flow.noise_type != "none":
        eta = f"eta = {flow.eta:g}" if isinstance(flow, Reverse) else f"{flow.noise_type} noise"
        raise SdekitError(
            f"Only a flow leads to one latent and back, and this problem has {eta}: use "
            "sk.probability_flow(process, score)."
        )
    if stepper is None and steps is None and controller is None:
        controller = DEFAULT_CONTROLLER
    if stepper is None and controller is not None:
        stepper = DEFAULT_STEPPER
    nodes = _times(flow, grid, stepper, steps, controller)
    if stepper is None:
        stepper = doors.default_stepper(flow, len(nodes) - 1)
    return (nodes if nodes[0] < nodes[-1] else nodes.flip(0)), stepper, controller


def _times(
    flow: SDE,
    grid: Tensor | Sequence[float] | None,
    stepper: str | Stepper | None,
    steps: int | None,
    controller: PID | None,
) -> Tensor:
    if grid is not None and steps is not None:
        raise SdekitError(f"Give a grid or steps, not both; got a grid and steps = {steps}.")
    if grid is not None:
        return grids.from_times(grid)
    process = flow.process if isinstance(flow, Reverse) else None
    if controller is not None and steps is None and isinstance(process, LinearProcess):
        return grids.from_times([process.t_min, process.t_max])
    return doors.default_grid(flow, steps, to_data=False if stepper is None else None)


def slerp(a: Tensor, b: Tensor, weights: float | Sequence[float] | Tensor) -> Tensor:
    r"""Points on the great circle from a to b, with the norms in between.

    $$ c(w) = \bigl[(1 - w)\lVert a\rVert + w\lVert b\rVert\bigr]\;
       \frac{\sin((1 - w)\theta)\,\hat a + \sin(w\theta)\,\hat b}{\sin\theta}\,, \qquad
       \theta = 2 \operatorname{atan2}(\lVert \hat a - \hat b\rVert, \lVert \hat a + \hat b\rVert) . $$

    Parallel vectors are joined by the straight line that this tends to. A weight of 0 gives a, one of 1 gives b.

    Args:
        a: Latents, shape (B, \*E); each sample is one vector.
        b: Latents like ``a``.
        weights: w; a number, or W of them.

    Returns:
        Shape (B, \*E) for a number, (W, B, \*E) for many.

    Raises:
        SdekitError: other shapes, a vector of length 0, or opposite vectors, which every great circle joins.

    References: [shoemake1985].
    """
    if a.shape != b.shape or a.ndim < 2:
        raise SdekitError(f"slerp joins latents of one shape (B, *E); got {tuple(a.shape)} and {tuple(b.shape)}.")
    w = torch.as_tensor(weights, dtype=torch.float64, device=a.device)
    if w.ndim > 1:
        raise SdekitError(f"The weights of slerp are a number or a list of them; got shape {tuple(w.shape)}.")
    (norm_a, unit_a), (norm_b, unit_b) = _polar(a), _polar(b)
    apart = torch.linalg.vector_norm(unit_a - unit_b, dim=1)
    together = torch.linalg.vector_norm(unit_a + unit_b, dim=1)
    opposite = together < torch.finfo(a.dtype).eps ** 0.5
    if bool(opposite.any()):
        i = int(opposite.nonzero()[0])
        raise SdekitError(
            f"Sample {i} of a and b are opposite (their unit vectors add up to {float(together[i]):.2g}): no great "
            "circle between them is shorter than the others. Go by a third latent."
        )
    theta, v = 2.0 * torch.atan2(apart, together), w.reshape(-1, 1)
    length, shape = torch.lerp(norm_a, norm_b, v), (-1, len(a), *(1,) * (a.ndim - 1))
    left, right = length * _share(1.0 - v, theta) / norm_a, length * _share(v, theta) / norm_b
    points: Tensor = left.reshape(shape).to(a) * a + right.reshape(shape).to(b) * b
    return points if w.ndim else points[0]


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (B,) and unit vectors (B, d), float64."""
    flat = x.flatten(1).double()
    norm = torch.linalg.vector_norm(flat, dim=1)
    if not bool(((norm > 0.0) & (norm < torch.inf)).all()):
        i = int((~((norm > 0.0) & (norm < torch.inf))).nonzero()[0])
        raise SdekitError(f"Sample {i} has norm {float(norm[i]):g}: it has no direction to go from or to.")
    return norm, flat / norm[:, None]


def _share(w: Tensor, theta: Tensor) -> Tensor:
    """sin(wθ)/sin θ, and its limit w at θ = 0."""
    near = theta < 1e-6  # the next term is w(1 − w²)θ²/6
    safe = torch.where(near, 1.0, theta)
    return torch.where(near, w, torch.sin(w * safe) / torch.sin(safe))
