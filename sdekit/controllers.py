r"""Step sizes from error estimates, for every sample by itself.

With the error e of a step in units of the tolerance,

$$ e = \Bigl\| \frac{\text{estimate}}{\mathrm{atol} + \mathrm{rtol}\,\max(|x|, |x'|)} \Bigr\|_{\mathrm{rms}}, $$

a step is accepted if e ≤ 1, and the next one is to be

$$ h' = h\,\operatorname{clip}\bigl(s\;e_n^{-\beta_1/k}\,e_{n-1}^{-\beta_2/k}\,e_{n-2}^{-\beta_3/k},\;
   f_{\min},\; f_{\max}\bigr), \qquad
   \beta_1 = K_P + K_I + K_D,\quad \beta_2 = -(K_P + 2 K_D),\quad \beta_3 = K_D, $$

where the estimate is of order k in h: 3/2 for a difference of strong orders 1 and 3/2, 2 for the same methods without
noise, and what a Runge–Kutta pair declares. After a rejection nothing but e_n counts. Errors of accepted steps are what
the next ones remember.

References: [soderlind2003]; [ilie2015] for the exponents of SDEs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sdekit.errors import SdekitError, unknown_name

Norm = Literal["sample", "batch"]
"""Over what an error is the root mean square: one sample, or all that there are."""

_LARGEST = 23.0  # of |log e|: beyond 1e10 a step is as good, or as bad, as any


@final
@dataclass(frozen=True)
class PID:
    """A controller of the step size, with a tolerance per step.

    Attributes:
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        proportional: K_P; where it is left out, 0.1 on a Brownian tree, and 0.2 for Runge–Kutta pairs.
        integral: K_I; where it is left out, 0.3 on a Brownian tree, and 0.6 for Runge–Kutta pairs.
        derivative: K_D.
        safety: s, the part of the step that is believed in.
        shrink: f_min, the least factor at a time.
        grow: f_max, the largest.
        first: Length of the first step; found from the fields if left out.
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
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 4.0
    first: float | None = None
    norm: Norm = "sample"

    def __post_init__(self) -> None:
        if min(self.rtol, self.atol) < 0.0 or self.rtol + self.atol == 0.0:
            raise SdekitError(f"Tolerances are positive; got rtol = {self.rtol:g}, atol = {self.atol:g}.")
        if self.integral is not None and self.integral <= 0.0:
            raise SdekitError(f"Without an integral gain a step finds no tolerance; got integral = {self.integral:g}.")
        if not 0.0 < self.shrink < self.safety <= 1.0 < self.grow:
            raise SdekitError(
                "A controller needs 0 < shrink < safety ≤ 1 < grow; got "
                f"shrink = {self.shrink:g}, safety = {self.safety:g}, grow = {self.grow:g}."
            )
        if self.first is not None and not self.first > 0.0:
            raise SdekitError(f"The first step must be longer than zero; got first = {self.first:g}.")
        if self.norm not in get_args(Norm):
            raise unknown_name("norm", self.norm, get_args(Norm))

    def filled(self, proportional: float, integral: float) -> PID:
        """With these gains where none were given."""
        return replace(
            self,
            proportional=proportional if self.proportional is None else self.proportional,
            integral=integral if self.integral is None else self.integral,
        )

    @property
    def remembers(self) -> bool:
        """Whether errors before the last one count."""
        return bool(self.proportional or self.derivative)

    def error(self, estimate: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Log e of every sample, float64 of shape (B,), in −23 … 23; the largest where something is not finite."""
        scale = torch.maximum(before.abs(), after.abs()).mul_(self.rtol).add_(self.atol)
        parts = (estimate / scale).flatten(1)
        log = torch.linalg.vector_norm(parts, dim=1).double().log_().sub_(0.5 * math.log(parts.shape[1]))
        return _bounded(log)

    def log(self, errors: Tensor) -> Tensor:
        """Log e from e, in place, in −23 … 23; the largest where it is not a number."""
        return _bounded(errors.log_())

    def factor(self, errors: tuple[Tensor, Tensor, Tensor], accepted: Tensor | None, order: float) -> Tensor:
        """What the step is to be multiplied by.

        Args:
            errors: log e of this step and of the two that were accepted before.
            accepted: Which samples accept this step; None if all do.
            order: k.

        Returns:
            float64 tensor of shape (B,).
        """
        p = 0.1 if self.proportional is None else self.proportional
        i = 0.3 if self.integral is None else self.integral
        d, (now, last, older) = self.derivative, errors
        if p or d:
            smooth = torch.sub(now * (p + i + d), last, alpha=p + 2.0 * d)
            if d:
                smooth.add_(older, alpha=d)
        else:
            smooth = now if i == 1.0 else now * i
        if accepted is not None and smooth is not now:
            smooth = torch.where(accepted, smooth, now)
        # Powers by exp: torch.pow has other last bits in another batch. A rejected step is as long as its e says.
        factor = smooth.mul(-1.0 / order).exp_().mul_(self.safety)
        return factor.clamp_(self.shrink, self.grow)


def _bounded(log: Tensor) -> Tensor:
    """In place."""
    bounded: Tensor = log.nan_to_num_(_LARGEST).clamp_(-_LARGEST, _LARGEST)
    return bounded
