r"""Step sizes from error estimates, for every sample by itself.

With the error e of a step in units of the tolerance,

$$ e = \Bigl\| \frac{\text{estimate}}{\mathrm{atol} + \mathrm{rtol}\,\max(|x|, |x'|)} \Bigr\|_{\mathrm{rms}}, $$

a step is accepted if e ≤ 1, and the next one is to be

$$ h' = h\,\operatorname{clip}\bigl(s\;e_n^{-\beta_1/k}\,e_{n-1}^{-\beta_2/k}\,e_{n-2}^{-\beta_3/k},\;
   f_{\min},\; f_{\max}\bigr), \qquad
   \beta_1 = K_P + K_I + K_D,\quad \beta_2 = -(K_P + 2 K_D),\quad \beta_3 = K_D, $$

where the estimate is of order k in h: 3/2 for a difference of strong orders 1 and 3/2, 2 for the same methods without
noise, and what a Runge–Kutta pair declares. After a rejection nothing but e_n counts. Errors of accepted steps are what
the next ones remember. They settle around $s^{k/K_I}$.

A Brownian tree seldom has a step of the length h that is wanted. After one of length ℓ ≤ h the error that counts is
that of a step as long as h, $e\,(h/\ell)^k$; and after a rejection, h' ≤ s ℓ.

References: [soderlind2003]; [ilie2015] for the exponents of SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sdekit.errors import SdekitError, unknown_name

Norm = Literal["sample", "batch"]
"""Over what an error is the root mean square: one sample, or all that there are."""

LARGEST = 23.0
"""Of |log e|: beyond 1e10 a step is as good, or as bad, as any."""


@final
@dataclass(frozen=True)
class PID:
    """A controller of the step size, with a tolerance per step.

    Attributes:
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        proportional: K_P; where it is left out, 0 on a Brownian tree, and 0.2 for Runge–Kutta pairs.
        integral: K_I; where it is left out, 0.05 on a Brownian tree, and 0.6 for Runge–Kutta pairs.
        derivative: K_D.
        safety: s, above f_min; where it is left out, 0.95 on a Brownian tree, and 0.9 for Runge–Kutta pairs.
        shrink: f_min, the least factor at a time.
        grow: f_max, the largest.
        first: Length of the first step; where it is left out, 1/128 of the interval on a Brownian tree, and found from
            the field for Runge–Kutta pairs.
        norm: ``sample``, or for Runge–Kutta pairs ``batch``: one error, and so the same steps, for all samples. Then a
            sample is what it is among these others only.

    Raises:
        SdekitError: a tolerance below zero or both zero, no integral gain, factors that are not
            shrink < safety ≤ 1 < grow, or an unknown norm.
    """

    rtol: float = 1e-3
    atol: float = 1e-6
    proportional: float | None = None
    integral: float | None = None
    derivative: float = 0.0
    safety: float | None = None
    shrink: float = 0.2
    grow: float = 4.0
    first: float | None = None
    norm: Norm = "sample"

    def __post_init__(self) -> None:
        if min(self.rtol, self.atol) < 0.0 or self.rtol + self.atol == 0.0:
            raise SdekitError(f"Tolerances are positive; got rtol = {self.rtol:g}, atol = {self.atol:g}.")
        if self.integral is not None and not self.integral > 0.0:
            raise SdekitError(f"Without an integral gain a step finds no tolerance; got integral = {self.integral:g}.")
        safety = 0.9 if self.safety is None else self.safety
        if not 0.0 < self.shrink < safety <= 1.0 < self.grow:
            raise SdekitError(
                "A controller needs 0 < shrink < safety ≤ 1 < grow; got "
                f"shrink = {self.shrink:g}, safety = {safety:g}, grow = {self.grow:g}."
            )
        if self.first is not None and not self.first > 0.0:
            raise SdekitError(f"The first step must be longer than zero; got first = {self.first:g}.")
        if self.norm not in get_args(Norm):
            raise unknown_name("norm", self.norm, get_args(Norm))

    def steering(self, order: float, default: tuple[float, float, float]) -> Steering:
        """The law for estimates of order k; ``default`` are K_P, K_I and s where they were left out."""
        given = self.proportional, self.integral, self.safety
        p, i, s = (own if own is not None else other for own, other in zip(given, default, strict=True))
        betas = p + i + self.derivative, -(p + 2.0 * self.derivative), self.derivative
        memory = 2 if self.derivative else 1 if p else 0
        return Steering(betas[: 1 + memory], order, s, self.shrink, self.grow)

    def error(self, estimate: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Log e of every sample, float64 of shape (B,), in −23 … 23; the largest where something is not finite."""
        scale = torch.maximum(before.abs(), after.abs()).mul_(self.rtol).add_(self.atol)
        parts = (estimate / scale).flatten(1)
        log = torch.linalg.vector_norm(parts, dim=1).double().log_().sub_(0.5 * math.log(parts.shape[1]))
        bounded: Tensor = log.nan_to_num_(LARGEST).clamp_(-LARGEST, LARGEST)
        return bounded


@final
@dataclass(frozen=True)
class Steering:
    """From errors to factors.

    Attributes:
        betas: β_1, and as many more as are not zero.
        order: k.
        safety: s.
        shrink: f_min.
        grow: f_max.
    """

    betas: tuple[float, ...]
    order: float
    safety: float
    shrink: float
    grow: float

    @property
    def memory(self) -> int:
        """How many errors before the last one count."""
        return len(self.betas) - 1

    def factor(self, errors: Sequence[Tensor], refuse: Tensor | None) -> Tensor:
        """What steps are to be multiplied by.

        Args:
            errors: log e of this step, and of those that were accepted before, the last first; float64, shape (B,).
            refuse: Which samples refuse this step; None if none does.
        """
        now, *past = errors
        log = now * (-self.betas[0] / self.order)
        for beta, error in zip(self.betas[1:], past, strict=False):
            log.add_(error, alpha=-beta / self.order)
        if refuse is not None:
            log = torch.where(refuse, now * (-1.0 / self.order), log)
        # Powers by exp: torch.pow has other last bits in another batch.
        return log.exp_().mul_(self.safety).clamp_(self.shrink, self.grow)
