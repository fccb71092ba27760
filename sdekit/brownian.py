r"""Brownian paths: noise as data, an argument of every solver.

A path answers ``increment(s, t)``, the increment $W_t - W_s$ of every sample and, if it was built with
``levy="space-time"``, its space-time Lévy area

$$ H_{s,t} = \frac{1}{t - s} \int_s^t (W_u - W_s)\,du - \tfrac12 (W_t - W_s)
          = \int_s^t \Bigl(\tfrac12 - \frac{u - s}{t - s}\Bigr)\,dW_u
   \;\sim\; \mathcal N\bigl(0, \tfrac{t - s}{12}\bigr), $$

which is independent of the increment. Over neighbouring intervals both combine exactly: with $Z = (t - s)(H + W/2)$,
$Z_{s,t} = \sum_i Z_i + W_i\,(t - t_{i+1})$. A run backwards in time sees the path from its other end: the same W,
and −H.

A path may run in another :data:`Clock` c than t, with increments $W_{c(t)} - W_{c(s)}$. Samplers in λ add the noise
$\sigma_t e^{-\eta^2 \lambda_t} (W_{c(t)} - W_{c(s)})$ with $c = e^{2\eta^2\lambda}$, the SNR to the power η²
(:func:`snr_clock`); on a path in that clock a run of many steps adds up the same noise as one of few. To a stepper
increments always have the variance of the time that passes: :class:`PathNoise` scales them.

Two views of a path feed the driver: :class:`StepNoise` draws anew for every (seed, path, step), which is what
``noise=seed`` means; a :class:`BrownianPath` lets runs with different step counts share one path.

References: [foster2024].
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, Protocol, final, get_args, runtime_checkable

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError, unknown_name
from sdekit.quantiles import fold
from sdekit.schedules import Schedule
from sdekit.typing import Increments, Shape

Interval = tuple[float, float]
"""A time interval (s, t) over which a step draws noise."""

Clock = Callable[[Tensor], Tensor]
"""A monotone function of time, on float64 tensors: the variance of an increment is how far it moves."""

Levy = Literal["none", "space-time"]
"""What a path knows beside its increments."""

_TWELFTH = 12.0**-0.5  # of √h: the standard deviation of H
_THREE_POINT = 0.967421566101701  # Φ⁻¹(5/6): a normal is above it one time in six
_BLOCK_NORMALS = 2**18  # draw small states for several steps at once: a block costs what one step does


@dataclass(frozen=True, slots=True)
class Increment:
    """What a path did over an interval: ``w`` and, where it is known, the Lévy area ``h``, of shape (B, *noise)."""

    w: Tensor
    h: Tensor | None = None

    def reflected(self) -> Increment:
        """The same piece of the path, run through from its end to its start."""
        return self if self.h is None else Increment(self.w, -self.h)


@runtime_checkable
class BrownianPath(Protocol):
    """A Brownian path for every sample of a batch."""

    @property
    def shape(self) -> torch.Size:
        """(B, *noise)."""

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t], s ≤ t."""


class Noise(Protocol):
    """What the driver draws from: the increments of step ``k``, in the order of the step's draws."""

    def increments(self, k: int) -> tuple[Increment, ...]: ...


@final
class StepNoise:
    r"""Independent increments, a function of (seed, path, step index) alone.

    Args:
        keys: Path keys from :func:`sdekit.random.path_keys`.
        shape: Event shape of the noise.
        dtype: Type of the increments.
        draws: For every step, the intervals that it draws.
        kind: ``w``; ``space-time`` for Lévy areas too; ``three-point`` for the variable of weak methods,
            $\pm\sqrt{3h}$ with probability ⅙ each, else 0.
        family: The stream of the first draw.
    """

    def __init__(
        self,
        keys: Tensor,
        shape: Shape,
        dtype: torch.dtype,
        draws: Sequence[Sequence[Interval]],
        kind: Increments = "w",
        family: int = random.STREAM_STEP,
    ) -> None:
        self._keys, self._shape, self._dtype, self._draws = keys, torch.Size(shape), dtype, draws
        self._kind, self._family = kind, family
        per_step = max(1, len(keys) * self._shape.numel() * max(map(len, draws), default=1))
        self._block = max(2, _BLOCK_NORMALS // per_step // 2 * 2)
        self._drawn: dict[int, tuple[int, Sequence[Tensor]]] = {}  # stream -> (first step, increments)
        self._wide = torch.promote_types(dtype, torch.float32)
        lengths = [[t - s for s, t in column] for column in zip_longest(*draws, fillvalue=(0.0, 0.0))]
        # On the device once: a copy in the loop would make the host wait.
        self._roots = torch.tensor(lengths, dtype=torch.float64).abs().sqrt().to(keys.device, self._wide)

    def increments(self, k: int) -> tuple[Increment, ...]:
        draws = range(len(self._draws[k]))
        if self._kind == "space-time":
            areas = random.STREAM_STEP_LEVY
            return tuple(Increment(self._drawn_at(k, j, self._family), self._drawn_at(k, j, areas)) for j in draws)
        return tuple(Increment(self._drawn_at(k, j, self._family)) for j in draws)

    def _drawn_at(self, k: int, draw: int, family: int) -> Tensor:
        first, stream = k - k % self._block, family + draw
        if stream not in self._drawn or self._drawn[stream][0] != first:
            self._drawn[stream] = first, self._block_from(first, draw, family)
        return self._drawn[stream][1][k - first]

    def _block_from(self, first: int, draw: int, family: int) -> Sequence[Tensor]:
        """The increments, or the Lévy areas, of a block of steps."""
        roots = self._roots[draw, first : first + self._block]
        z = random.normals(
            self._keys, self._shape, stream=family + draw, start=first, count=len(roots), dtype=self._wide
        )
        if self._kind == "three-point":
            z = (z.abs() > _THREE_POINT).to(z.dtype).mul_(3.0**0.5).copysign_(z)
        scale = roots * _TWELFTH if family == random.STREAM_STEP_LEVY else roots
        return z.mul_(scale.reshape(-1, *(1,) * (z.ndim - 1))).to(self._dtype).unbind(0)


@final
@dataclass(frozen=True)
class PathNoise:
    """The increments of a Brownian path, in the dtype of the state and in the direction of the run."""

    path: BrownianPath
    dtype: torch.dtype
    draws: Sequence[Sequence[Interval]]

    def increments(self, k: int) -> tuple[Increment, ...]:
        return tuple(self._increment(s, t) for s, t in self.draws[k])

    def _increment(self, s: float, t: float) -> Increment:
        drawn = self.path.increment(s, t) if s <= t else self.path.increment(t, s).reflected()
        w = drawn.w
        if isinstance(self.path, GridPath) and self.path.clock is not None:
            w = w * (abs(t - s) / self.path.variance(s, t)) ** 0.5
        return Increment(w.to(self.dtype), None if drawn.h is None else drawn.h.to(self.dtype))


class GridPath(ABC):
    """A path known at the nodes of a grid; an increment between nodes is combined from the fine ones."""

    clock: Clock | None = None

    def __init__(
        self, times: Sequence[float] | Tensor, shape: Shape, levy: Levy = "none", clock: Clock | None = None
    ) -> None:
        nodes = torch.as_tensor(times, dtype=torch.float64).cpu()
        if nodes.ndim != 1 or len(nodes) < 2 or not bool((nodes.diff() > 0).all() or (nodes.diff() < 0).all()):
            raise SdekitError(f"A Brownian path needs at least two strictly monotone times; got {nodes.tolist()[:6]}.")
        if levy not in get_args(Levy):
            raise unknown_name("Lévy area", levy, get_args(Levy))
        self.times: list[float] = sorted(nodes.tolist())
        self.clock = clock
        readings = nodes.sort().values if clock is None else clock(nodes.sort().values)
        steps = readings.diff()
        if not bool(readings.isfinite().all()) or not bool((steps > 0).all() or (steps < 0).all()):
            raise SdekitError(f"A clock must be finite and monotone on the times of the path; it reads {readings[:6]}.")
        if clock is not None and levy != "none":
            raise SdekitError("Lévy areas belong to the clock t: leave out levy=, or clock=.")
        self._readings: list[float] = readings.tolist()
        self.shape = torch.Size(shape)
        self.levy: Levy = levy

    @abstractmethod
    def fine(self, i: int, j: int) -> Tensor:
        """Increments over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    @abstractmethod
    def fine_levy(self, i: int, j: int) -> Tensor:
        """Space-time Lévy areas over the grid's intervals i … j−1, shape (j − i, B, *noise)."""

    def increment(self, s: float, t: float) -> Increment:
        """The increment over [s, t]; both must be nodes of the grid.

        Raises:
            SdekitError: a reversed interval, or an end that is no node.
        """
        if not s <= t:
            raise SdekitError(f"An increment needs s ≤ t; got s = {s}, t = {t}.")
        i, j = self._node(s), self._node(t)
        if i == j:
            nothing = torch.zeros_like(self.fine(0, 1)[0])
            return Increment(nothing, None if self.levy == "none" else nothing)
        fine = self.fine(i, j)
        w = fold(fine, 0)  # a fixed order: the same bits in any batch
        return Increment(w, None if self.levy == "none" else self._levy(i, j, fine, w))

    def _levy(self, i: int, j: int, fine: Tensor, w: Tensor) -> Tensor:
        """H of the whole, from those of its parts."""
        if j == i + 1:
            return self.fine_levy(i, j)[0]
        ends = torch.tensor(self.times[i : j + 1], dtype=torch.float64)
        lengths, rest = (v.to(fine).reshape(-1, *(1,) * w.ndim) for v in (ends.diff(), ends[-1] - ends[1:]))
        areas = (self.fine_levy(i, j) + 0.5 * fine) * lengths + fine * rest
        return fold(areas, 0) / float(ends[-1] - ends[0]) - 0.5 * w

    def variance(self, s: float, t: float) -> float:
        """Of the increment over [s, t]: how far the clock moves."""
        return abs(self._readings[self._node(t)] - self._readings[self._node(s)])

    def require(self, times: Iterable[float]) -> None:
        """Refuse times that are no nodes of the grid.

        Raises:
            SdekitError: names the first that is none.
        """
        for t in times:
            self._node(t)

    def _node(self, t: float) -> int:
        near = bisect.bisect_left(self.times, t)
        tolerance = 1e-12 * (self.times[-1] - self.times[0])
        for i in (near, near - 1):
            if 0 <= i < len(self.times) and abs(self.times[i] - t) <= tolerance:
                return i
        raise SdekitError(
            f"t = {t!r} is no node of this path, which knows {len(self.times)} times in "
            f"[{self.times[0]:g}, {self.times[-1]:g}]. Build the path on the finest grid that you solve on: "
            "BrownianGrid.on(grid, shape)."
        )


@final
class BrownianGrid(GridPath):
    """Independent increments on a grid, which coarsen exactly: runs on sub-grids share one path.

    The fine increments are recomputed from the seed when asked for; nothing is stored.

    Args:
        shape: (B, *noise).
        t0: Start of the interval.
        t1: End of the interval.
        steps: Number of equal intervals.
        seed: Seed of the paths.
        levy: ``space-time`` for Lévy areas H beside the increments, which they leave as they are.
        paths: Global path numbers, one per sample; 0 … B − 1 by default.
        dtype: Type of the increments.
        device: Where they are drawn.
        times: Nodes, in place of t0, t1 and steps.
        clock: Of the path; t if left out. :func:`snr_clock` is that of the exponential samplers.
    """

    def __init__(
        self,
        shape: Shape,
        t0: float = 0.0,
        t1: float = 1.0,
        steps: int = 256,
        seed: int = 0,
        levy: Levy = "none",
        *,
        paths: Sequence[int] | Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        times: Sequence[float] | Tensor | None = None,
        clock: Clock | None = None,
    ) -> None:
        nodes = torch.linspace(t0, t1, steps + 1, dtype=torch.float64) if times is None else times
        super().__init__(nodes, shape, levy, clock)
        self.keys = random.path_keys(seed, self.shape[0] if paths is None else paths, device)
        if len(self.keys) != self.shape[0]:
            raise SdekitError(
                f"paths has {len(self.keys)} entries for a batch of {self.shape[0]}: give one per sample."
            )
        self._dtype = dtype

    @classmethod
    def on(cls, grid: Sequence[float] | Tensor, shape: Shape, seed: int = 0, **options: object) -> BrownianGrid:
        """A path whose nodes are the times of ``grid``, in either direction."""
        return cls(shape, seed=seed, times=grid, **options)  # type: ignore[arg-type]

    def fine(self, i: int, j: int) -> Tensor:
        return self._scaled(i, j, random.STREAM_GRID, 1.0)

    def fine_levy(self, i: int, j: int) -> Tensor:
        return self._scaled(i, j, random.STREAM_GRID_LEVY, _TWELFTH)

    def _scaled(self, i: int, j: int, stream: int, factor: float) -> Tensor:
        z = random.normals(self.keys, self.shape[1:], stream=stream, start=i, count=j - i, dtype=self._dtype)
        roots = factor * torch.tensor(self._readings[i : j + 1], dtype=torch.float64).diff().abs().sqrt()
        return z.mul_(roots.to(z).reshape(-1, *(1,) * len(self.shape)))


def snr_clock(schedule: Schedule, eta: float = 1.0) -> Clock:
    r"""The clock $e^{2\eta^2\lambda}$ of the noise of exponential samplers: the signal-to-noise ratio to the power η².

    Args:
        schedule: Of the forward process.
        eta: Of the reverse problem, positive.

    Raises:
        SdekitError: η is not positive, so that there is no noise.
    """
    if not eta > 0.0:
        raise SdekitError(f"The clock SNR^(η²) needs η > 0; got eta = {eta:g}.")
    return lambda t: torch.exp(2.0 * eta**2 * schedule.lam(t))


@final
class RecordedBrownian(GridPath):
    """A path given by its increments, for tests and for probing a solver.

    Args:
        times: N + 1 monotone times. If they decrease, so do the intervals of ``w``.
        w: Increments, shape (N, B, *noise).
        h: Space-time Lévy areas in the clock of the path, like ``w``; None if there are none.
    """

    def __init__(self, times: Sequence[float] | Tensor, w: Tensor, h: Tensor | None = None) -> None:
        super().__init__(times, w.shape[1:], "none" if h is None else "space-time")
        if len(w) != len(self.times) - 1:
            raise SdekitError(f"{len(self.times)} times need {len(self.times) - 1} increments; got {len(w)}.")
        if h is not None and h.shape != w.shape:
            raise SdekitError(f"Lévy areas must be like the increments, {tuple(w.shape)}; got {tuple(h.shape)}.")
        nodes = torch.as_tensor(times, dtype=torch.float64)
        down = bool(nodes[0] > nodes[-1])
        self._w = w.flip(0) if down else w
        self._h = h.flip(0) if down and h is not None else h

    def fine(self, i: int, j: int) -> Tensor:
        return self._w[i:j]

    def fine_levy(self, i: int, j: int) -> Tensor:
        assert self._h is not None
        return self._h[i:j]
