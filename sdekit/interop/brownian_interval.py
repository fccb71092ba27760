r"""Our paths as torchsde asks for a Brownian motion, so that its own solvers run on them.

torchsde calls ``bm(ta, tb)`` for $W_{t_b} - W_{t_a}$; with ``return_U`` it wants
$U = \int_{t_a}^{t_b} (W_s - W_{t_a})\,ds = (t_b - t_a)\,(H + W/2)$ too, and with ``return_A`` the Lévy areas
$A_{ij} = \tfrac12 \int (W_i\,dW_j - W_j\,dW_i)$ over the interval. It adds its times up in the precision of the state,
so that after N steps they miss the nodes of a grid by rounding; a time then means the node that is near. A tree knows
all times.

References: [li2020torchsde].
"""

from __future__ import annotations

import bisect
import math
from typing import Any, Literal, final

import torch
from torch import Tensor

from sdekit.brownian import BrownianGrid, BrownianTree, GridPath, Increment, Levy
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Paths, Seed
from sdekit.typing import Shape

Approximation = Literal["none", "space-time", "davie", "foster"]
"""What torchsde calls the areas that a path knows."""

_LEVY: dict[Approximation, Levy] = {"none": "none", "space-time": "space-time", "davie": "full", "foster": "full"}
_APPROXIMATIONS: dict[Levy, Approximation] = {"none": "none", "space-time": "space-time", "full": "foster"}
_DEPTH = (24, 50)  # of a tree in float32 and narrower, and in float64: about what these resolve in t
_NEAR = 0.1  # of a step: how far a time may be from the node that it means


@final
class BrownianInterval:
    """A path of ours with the call signature of ``torchsde.BrownianInterval``: ``torchsde.sdeint(..., bm=this)``.

    Args:
        path: A path of shape (B, *noise) on a grid, or a tree; torchsde sees (B, m). ``levy="space-time"`` for ``srk``,
            ``levy="full"`` for ``log_ode``.
        backwards: Whether torchsde sees it in the clock −t, from its end to its start.

    Raises:
        SdekitError: from a call, an interval that is reversed or not on the path, and an area that it does not know.
    """

    def __init__(self, path: GridPath | BrownianTree, backwards: bool = False) -> None:
        self.path, self.backwards = path, backwards
        self._times = path.times if isinstance(path, GridPath) else [path.t0, path.t1]
        w = path.increment(*self._times[:2]).w
        self.dtype, self.device = w.dtype, w.device
        self.shape = torch.Size((len(w), path.shape[1:].numel()))
        self.levy_area_approximation = _APPROXIMATIONS[path.levy]

    @classmethod
    def seeded(
        cls,
        t0: float = 0.0,
        t1: float = 1.0,
        size: Shape = (1, 1),
        *,
        seed: Seed | None = 0,
        paths: Paths | None = None,
        dt: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        levy_area_approximation: Approximation = "none",
    ) -> BrownianInterval:
        """A path from a seed, with the arguments of ``torchsde.BrownianInterval``.

        Args:
            t0: Start.
            t1: End.
            size: (B, m).
            seed: As in :mod:`sdekit.keys`.
            paths: As in :mod:`sdekit.keys`.
            dt: The step of the solver, if it has one: a grid that knows t0 + k dt costs a draw a step. Left out, a tree
                answers at all times, to float32's resolution of them in float32, for some dozens.
            dtype: Type of the increments.
            device: Where they are drawn.
            levy_area_approximation: ``none``; ``space-time`` for ``srk``; ``davie`` or ``foster``, which are the same
                here, for ``log_ode``.
        """
        if levy_area_approximation not in _LEVY:
            raise unknown_name("approximation of a Lévy area", levy_area_approximation, tuple(_LEVY))
        t0, t1, levy = float(t0), float(t1), _LEVY[levy_area_approximation]
        if not (t1 > t0 and (dt is None or dt > 0.0)):
            raise SdekitError(f"A path needs t0 < t1 and dt > 0; got t0 = {t0}, t1 = {t1}, dt = {dt}.")
        if dt is None:
            depth = _DEPTH[dtype == torch.float64]
            return cls(
                BrownianTree(size, t0, t1, seed=seed, levy=levy, paths=paths, dtype=dtype, device=device, depth=depth)
            )
        steps = max(1, math.ceil((t1 - t0) / float(dt) - _NEAR))
        times = [*(t0 + k * float(dt) for k in range(steps)), t1]
        return cls(BrownianGrid(size, seed=seed, levy=levy, paths=paths, dtype=dtype, device=device, times=times))

    def size(self) -> torch.Size:
        """As torch has it."""
        return self.shape

    def __repr__(self) -> str:
        return f"BrownianInterval({type(self.path).__name__}{tuple(self.path.shape)})"

    def __call__(
        self, ta: float | Tensor, tb: float | Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Any:
        """The increment over [ta, tb], with U and A as asked; over [t0, ta] if tb is left out."""
        first = -self._times[-1] if self.backwards else self._times[0]
        s, t = (first, float(ta)) if tb is None else (float(ta), float(tb))
        if s > t:
            raise SdekitError(f"An increment needs ta ≤ tb; got ta = {s}, tb = {t}.")
        s, t = (-t, -s) if self.backwards else (s, t)
        s, t = (self._node(s), self._node(t)) if isinstance(self.path, GridPath) else (s, t)
        increment = self.path.increment(s, t)
        increment = increment.reflected() if self.backwards else increment
        found = [increment.w.flatten(1)]
        if return_U:
            found.append(_integral(increment, t - s))
        if return_A:
            found.append(increment.area)
        return found[0] if len(found) == 1 else tuple(found)

    def _node(self, t: float) -> float:
        times = self._times
        i = bisect.bisect_left(times, t, 1, len(times) - 1)
        before, after = times[i - 1], times[i]
        node = before if t - before < after - t else after
        if abs(node - t) > _NEAR * (after - before):
            raise SdekitError(
                f"torchsde asks for t = {t}, which is no node of a path on [{times[0]:g}, {times[-1]:g}] with "
                f"{len(times) - 1} steps; the nearest is {node:g}. Give the path the step of the solver."
            )
        return node


def _integral(increment: Increment, length: float) -> Tensor:
    """U, from W and H."""
    return length * (increment.h + 0.5 * increment.w).flatten(1)
