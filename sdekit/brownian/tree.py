r"""Paths that can be asked anywhere, in any order.

The interval is halved again and again (:mod:`sdekit.brownian.nodes`), down to level ``depth``, where times are
multiples of $\delta = 2^{-\text{depth}}(t_1 - t_0)$. Two kinds of question:

*Dyadic steps*, by integers (level, index): what adaptive methods take. Levels and indices differ from sample to sample;
no time is accumulated, and a step that was refused is met again by its halves. A :class:`~sdekit.brownian.Walk` keeps
the way from the root, and costs one draw a step.

*Free times.* An increment over [s, t] is put together from the fewest nodes that cover it: one descends to the smallest
node that holds both ends, and from there to each of them, stopping where it is a dyadic point. Nothing is subtracted:
a short interval late on the path is as accurate as the path. Times are rounded to multiples of δ. The law is exact at
the rounded times; of an interval between arbitrary times it is that of one longer or shorter by at most δ, and
increments still add up. At the default depth of 50 that is what float64 resolves in t; fewer levels cost fewer draws.

In another clock the nodes are halves in t, and the variances are differences of the clock's readings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from sdekit.brownian.clock import Clock
from sdekit.brownian.cover import between, between_shared
from sdekit.brownian.increment import Increment, Levy
from sdekit.brownian.nodes import DEEPEST, Nodes
from sdekit.brownian.places import SharedPlace
from sdekit.brownian.walk import Walk, increment_of
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys, Paths, Seed
from sdekit.typing import Shape

_KEPT_NUMBERS = 2**15  # of a node; where nodes are larger, ways from the root are not kept between questions


@final
class BrownianTree:
    r"""Brownian paths over [t0, t1], a function of the seed, the path and the time alone.

    Of one seed, path and depth, an increment does not depend on what was asked before, on the batch or on its order, to
    the last bit. Paths with and without areas are different paths. Nothing is stored but the first node and, where
    states are small, the ways to the ends of the last interval.

    Args:
        shape: (B, *noise).
        t0: Start of the interval.
        t1: End of the interval.
        seed: Seed of the paths; None if ``paths`` are seeds, one per sample; or torch generators (:mod:`sdekit.keys`).
        levy: ``space-time`` for Lévy areas H beside the increments.
        paths: Global path numbers, one per sample; 0 … B − 1 by default.
        dtype: Type of the increments.
        device: Where they are drawn.
        clock: Of the path, monotone; t if left out. :func:`~sdekit.brownian.snr_clock` is that of the exponential
            samplers. The path then knows W alone.
        depth: The finest level, at most 52.

    Raises:
        SdekitError: an empty or reversed interval, areas in another clock or of a kind that trees do not know, a clock
            that is not finite and monotone.

    References:
        [jelincic2024], [foster2024].
    """

    def __init__(
        self,
        shape: Shape,
        t0: float = 0.0,
        t1: float = 1.0,
        *,
        seed: Seed | None = 0,
        levy: Levy = "none",
        paths: Paths | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        clock: Clock | None = None,
        depth: int = 50,
    ) -> None:
        if not (math.isfinite(t0) and math.isfinite(t1) and t0 < t1):
            raise SdekitError(f"A tree needs an interval t0 < t1 of finite times; got [{t0}, {t1}].")
        if not 0 <= depth <= DEEPEST:
            raise SdekitError(f"depth must be one of 0 … {DEEPEST} levels; got {depth}.")
        if levy == "full":
            raise SdekitError('A tree knows no areas of pairs of noises: take BrownianGrid(levy="full").')
        if levy not in ("none", "space-time"):
            raise unknown_name("Lévy area", levy, ("none", "space-time"))
        self.shape = torch.Size(shape)
        if not self.shape:
            raise SdekitError("A Brownian path has shape (B, *noise), a noise for every sample; got ().")
        self.t0, self.t1, self.levy, self.clock, self.depth = float(t0), float(t1), levy, clock, depth
        if clock is not None:
            self._check_clock(clock)
        self.keys = Keys.of(seed, paths, self.shape[0], device).values
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        numel = self.shape[1:].numel()
        self._dtype = dtype
        self._nodes = Nodes(self.keys[None], numel, levy != "none", self.t0, self.t1, depth, wide, clock)
        self._root = self._nodes.root()
        self._places: list[list[SharedPlace]] = []

    def walk(self) -> Walk:
        """A walk along the path in dyadic steps, which starts at the root."""
        return Walk(self._nodes, self._root, self.shape, self._dtype)

    def root(self) -> list[Tensor]:
        """W, or W and H, over the whole interval, as they were drawn, shape (B, noises) each."""
        return list(self._root.reshape(-1, len(self.keys), self.shape[1:].numel()).clone().unbind(0))

    def select(self, rows: Tensor) -> BrownianTree:
        """The paths of some of the samples.

        Args:
            rows: Which samples, int64.
        """
        part = copy.copy(self)
        part.shape, part.keys = torch.Size((len(rows), *self.shape[1:])), self.keys[rows]
        part._nodes = replace(self._nodes, keys=part.keys[None])
        part._root, part._places = part._nodes.root(), []
        return part

    def step(self, level: int | Tensor, index: int | Tensor) -> Increment:
        """The increments over nodes (level, index), as :meth:`Walk.step <sdekit.brownian.Walk.step>`, from the root.

        Args:
            level: An integer, or one per sample, int64 of shape (B,).
            index: Likewise, of 0 … 2^level − 1.
        """
        return self.walk().step(level, index)

    def increment(self, s: float | Tensor, t: float | Tensor) -> Increment:
        """The increment over [s, t].

        Args:
            s: Start: a number, or one per sample, shape (B,).
            t: End, likewise.

        Raises:
            SdekitError: a reversed interval, or times outside of the path.
        """
        start, end = self._leaf(s), self._leaf(t)
        start, end = start.expand(max(len(start), len(end))), end.expand(max(len(start), len(end)))
        if bool((start > end).any()):
            raise SdekitError(f"An increment needs s ≤ t; got s = {s}, t = {t}.")
        nodes, root = self._nodes, self._root
        if len(start) > 1:  # one for every sample
            nodes, root = nodes.apart(), root.reshape(-1, len(start), nodes.numel).transpose(0, 1)
        elif root.numel() <= _KEPT_NUMBERS and len(start):
            return increment_of(self._between(int(start), int(end)), self.shape, self._dtype)
        return increment_of(between(nodes, root, start, end), self.shape, self._dtype)

    def _between(self, start: int, end: int) -> Tensor:
        """From the places of the last question, which nobody else has meanwhile."""
        try:
            places = self._places.pop()
        except IndexError:
            places = [SharedPlace(self._nodes, self._root) for _ in range(2)]
        piece = between_shared(places, start, end)
        self._places[:] = [places]
        return piece

    def variance(self, s: float, t: float) -> float:
        """Of the increment over [s, t]: how far the clock moves, at the times as they are."""
        times = torch.tensor([s, t], dtype=torch.float64)
        return abs(float((times if self.clock is None else self.clock(times)).diff()))

    def require(self, times: Iterable[float]) -> None:
        """Refuse times outside of the path.

        Raises:
            SdekitError: names the first.
        """
        for t in times:
            self._leaf(t)

    def _check_clock(self, clock: Clock) -> None:
        if self.levy != "none":
            raise SdekitError("Lévy areas belong to the clock t: leave out levy=, or clock=.")
        readings = clock(torch.linspace(self.t0, self.t1, 65, dtype=torch.float64))
        steps = readings.diff()
        if not bool(readings.isfinite().all()) or not bool((steps > 0).all() or (steps < 0).all()):
            raise SdekitError(f"A clock must be finite and monotone on the times of the path; it reads {readings[:6]}.")

    def _leaf(self, t: float | Tensor) -> Tensor:
        """Times in units of the finest level, rounded, shape (1,) or (B,)."""
        times = torch.as_tensor(t, dtype=torch.float64)
        if times.shape not in ((), self.shape[:1]):
            raise SdekitError(
                f"A time is a number, or one per sample, {len(self.keys)}; got shape {tuple(times.shape)}."
            )
        slack = 1e-12 * (self.t1 - self.t0)
        if not bool(((times >= self.t0 - slack) & (times <= self.t1 + slack)).all()):
            raise SdekitError(
                f"t = {t!r} lies outside of this path, which knows the times of [{self.t0:g}, {self.t1:g}]."
            )
        share = ((times - self.t0) / (self.t1 - self.t0)).clamp(0.0, 1.0)
        return share.mul(2.0**self.depth).round().to(self.keys.device, torch.int64).reshape(-1)
