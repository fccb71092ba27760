r"""Marginals of an SDE on the line, between two times or along a grid.

The equation lives on the whole line, the cells on a domain. Where an end of the domain is *far*, no probability may
come near it: a run that puts more than 1e-12 into its last cell is refused, so that what is cut off is known to be
nothing. Where it is a *wall*, the no-flux condition is part of the problem (x = 0 for a CIR process).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sdekit import doors
from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError
from sdekit.fokker_planck.finite_volume import Array, Mesh, advance, coefficients
from sdekit.fokker_planck.marginal import Marginal, Marginals
from sdekit.laws import Empirical

Boundary = Literal["far", "wall"]

_LEAK = 1e-12  # most probability in the cell at a far end
_TAIL = 1e-14  # what a chosen domain leaves out
_STEPS = 400
_DAMPED = 2
_SCOUT_CELLS, _SCOUT_STEPS, _ROUNDS = 300, 100, 40


class Line(Protocol):
    """A law on the line: what an initial law has to know."""

    @property
    def event_shape(self) -> torch.Size: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def variance(self) -> Tensor: ...
    def cdf(self, x: Tensor, /) -> Tensor: ...
    def sf(self, x: Tensor, /) -> Tensor: ...


def solve(
    sde: SDE,
    initial: Line,
    grid: Tensor | Sequence[float],
    *,
    cells: int | Tensor = 400,
    steps: int | None = None,
    domain: tuple[float, float] | None = None,
    boundary: Boundary | tuple[Boundary, Boundary] = "far",
) -> Marginals:
    r"""The laws of $X_t$ at the times of ``grid``, by finite volumes: no sampling, second order in cells and steps.

    Args:
        sde: Any SDE whose state is one number and whose noise does not vanish: forward, ``sk.sde`` of either calculus,
            or ``reverse_time`` with any η > 0 and any score.
        initial: Law of the state at the first time: a Gaussian, a mixture, points, or a :class:`Marginal`. An atom is
            shared by the two nearest cells so that its mean is right.
        grid: Times as for :func:`sdekit.solve`, decreasing for a reverse-time SDE; two are enough.
        cells: How many, of equal width; or their edges, (n + 1,).
        steps: Time steps in every interval of the grid; by default enough for 400 in all.
        domain: Where the cells are. Chosen, where both ends are far, by runs on coarse cells.
        boundary: What the ends are, together or (low, high): ``far`` or ``wall``.

    Returns:
        The laws, one for every time of the grid.

    Raises:
        SdekitError: a state of more than one number, a grid that runs the wrong way, fields that are not finite or have
            no noise, a wall without a domain, or probability beyond or at a far end.

    References: [scharfetter1969], [chang1970], [rannacher1984].
    """
    if initial.event_shape.numel() != 1:
        raise SdekitError(
            f"fokker_planck.solve is for the line; the initial law has event shape {tuple(initial.event_shape)}. "
            "For a linear SDE in d dimensions use fokker_planck.linear_kernel."
        )
    if steps is not None and steps < 1:
        raise SdekitError(f"steps must be at least 1 in every interval of the grid; got {steps}.")
    far = far_ends(boundary)
    ts = doors.grid_of(sde, grid, None)
    backwards = float(ts[-1]) < float(ts[0])
    clock, times = (Reflected(sde), (-ts).tolist()) if backwards else (sde, ts.tolist())
    event = initial.event_shape or torch.Size((1,))
    each = steps or math.ceil(_STEPS / max(1, len(times) - 1))
    fine = _refined(times, each)
    scout = _refined(times, min(each, math.ceil(_SCOUT_STEPS / max(1, len(times) - 1))))
    edges = _edges(clock, initial, event, scout, cells, domain, far)
    path = advance(clock, Mesh(edges, event), _masses(initial, edges), fine, _DAMPED)
    _check_ends(path, edges, fine, far)
    return Marginals(ts, torch.from_numpy(edges), torch.from_numpy(path[::each].copy()))


def far_ends(boundary: Boundary | tuple[Boundary, Boundary]) -> tuple[bool, bool]:
    """Which of the two ends are far."""
    both = (boundary, boundary) if isinstance(boundary, str) else boundary
    if len(both) != 2 or any(b not in ("far", "wall") for b in both):
        raise SdekitError(f"boundary must be 'far' or 'wall', or one of them for each end; got {boundary!r}.")
    return both[0] == "far", both[1] == "far"


def _refined(times: list[float], each: int) -> list[float]:
    """Every interval cut into ``each`` equal steps."""
    inner = [s + (t - s) * j / each for s, t in pairwise(times) for j in range(each)]
    return [*inner, times[-1]]


def _edges(
    sde: SDE,
    initial: Line,
    event: torch.Size,
    times: list[float],
    cells: int | Tensor,
    domain: tuple[float, float] | None,
    far: tuple[bool, bool],
) -> Array:
    if isinstance(cells, Tensor):
        if domain is not None:
            raise SdekitError("Give edges as cells, or a number of cells and a domain; got edges and a domain.")
        return cells.detach().double().cpu().numpy()
    if cells < 4:
        raise SdekitError(f"cells = {cells}: at least 4 are needed, and hundreds for an accurate answer.")
    if domain is None:
        if not all(far):
            raise SdekitError("A wall stands somewhere: give domain=(low, high).")
        domain = _domain(sde, initial, event, times)
    low, high = domain
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SdekitError(f"domain must be (low, high), finite and increasing; got {domain}.")
    return np.linspace(low, high, cells + 1)


def _domain(sde: SDE, initial: Line, event: torch.Size, times: list[float]) -> tuple[float, float]:
    """Ends that leave out about 1e-14 at any time: runs on coarse cells, widened until nothing comes near the ends."""
    mean, sd = float(initial.mean), math.sqrt(float(initial.variance))
    span = [abs(t - times[0]) for t in times]
    noise = coefficients(sde, times[0] + 0.5 * span[-1], np.array([mean]), event)[1][0]
    reach = 10.0 * sd + math.sqrt(2.0 * noise * span[-1]) + 1e-3 * abs(mean) + 1e-12
    low, high = mean - reach, mean + reach
    for _ in range(_ROUNDS):
        edges = np.linspace(low, high, _SCOUT_CELLS + 1)
        beyond = float(initial.cdf(torch.tensor(low).double())), float(initial.sf(torch.tensor(high).double()))
        if max(beyond) < _TAIL:
            path = advance(sde, Mesh(edges, event), _masses(initial, edges), times, _DAMPED)
            beyond = float(path[:, :2].sum(1).max()), float(path[:, -2:].sum(1).max())
        if max(beyond) < _TAIL:
            return _trimmed(path, edges)
        width = high - low
        low, high = low - 0.5 * width * (beyond[0] >= _TAIL), high + 0.5 * width * (beyond[1] >= _TAIL)
    raise SdekitError(
        f"No domain holds all but {_TAIL:g} of the probability: it still reaches the ends of [{low:.3g}, {high:.3g}]. "
        "Give a domain and boundary='wall' to reflect it, or look at a transformed process."
    )


def _trimmed(path: Array, edges: Array) -> tuple[float, float]:
    """The part of the cells that matters at any time, and a margin."""
    below, above = np.cumsum(path, 1).max(0), np.cumsum(path[:, ::-1], 1)[:, ::-1].max(0)
    low, high = edges[:-1][below >= 0.1 * _TAIL][0], edges[1:][above >= 0.1 * _TAIL][-1]
    margin = 0.03 * (high - low)
    return float(low - margin), float(high + margin)


def _masses(initial: Line, edges: Array) -> Array:
    """The probability of every cell, each a difference in its nearer tail."""
    if isinstance(initial, Marginal) and np.array_equal(initial.edges.numpy(), edges):
        return initial.masses.numpy().copy()
    if isinstance(initial, Empirical):
        return _shared(initial.points.flatten().double().cpu().numpy(), edges)
    if float(initial.variance) == 0.0:
        return _shared(np.array([float(initial.mean)]), edges)
    x = torch.from_numpy(edges)
    below, above = (v.double().cpu().numpy() for v in (initial.cdf(x), initial.sf(x)))
    outside = below[0], above[-1]
    if max(outside) > _LEAK:
        raise SdekitError(
            f"The domain [{edges[0]:.4g}, {edges[-1]:.4g}] leaves out {outside[0]:.2g} and {outside[1]:.2g} of the "
            "initial law below and above: widen it, or leave domain out."
        )
    p = np.where(below[1:] < 0.5, np.diff(below), -np.diff(above))
    p = np.maximum(p, 0.0)
    share: Array = p / p.sum()
    return share


def _shared(points: Array, edges: Array) -> Array:
    """Atoms, each shared by the two nearest midpoints in proportion to its nearness."""
    x = 0.5 * (edges[1:] + edges[:-1])
    if points.min() < x[0] or points.max() > x[-1]:
        raise SdekitError(f"The domain [{edges[0]:.4g}, {edges[-1]:.4g}] leaves out points: widen it.")
    i = np.clip(np.searchsorted(x, points) - 1, 0, len(x) - 2)
    right = (points - x[i]) / (x[i + 1] - x[i])
    p = np.zeros(len(x))
    np.add.at(p, i, 1.0 - right)
    np.add.at(p, i + 1, right)
    share: Array = p / len(points)
    return share


def _check_ends(path: Array, edges: Array, times: list[float], far: tuple[bool, bool]) -> None:
    """Refuse a run in which probability came to a far end."""
    for end, name, is_far in ((0, "low", far[0]), (-1, "high", far[1])):
        k = int(path[:, end].argmax())
        if is_far and path[k, end] > _LEAK:
            raise SdekitError(
                f"The cell at the {name} end of the domain [{edges[0]:.4g}, {edges[-1]:.4g}] holds {path[k, end]:.2g} "
                f"at t = {abs(times[k]):g}, more than {_LEAK:g}: widen the domain, leave it out to have it chosen, or "
                "say boundary='wall' if the process is reflected there."
            )
