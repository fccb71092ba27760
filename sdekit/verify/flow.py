r"""Reference solutions of ODEs in any dimension: where the exact flow is not known in closed form, or to test it.

The batch is integrated as one system by DOP853, a pair of orders 8 and 5(3) with local errors near rounding, twice:
with a tolerance τ and with 10 τ. The global error of the second is about ten times that of the first, so their
distance, in the worst component of the worst sample, bounds the error of what is returned; the bound is held against
the accuracy that was asked for. The flow of a law on the line needs no integration: it is the quantile map.

References: [hairer1993] §II.5, §II.10.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError

_LOOSER = 10.0
_TIGHTEST = 2.5e-14  # DOP853 takes no smaller one
_FIRST = 1e-4  # share of the interval: left to itself DOP853 may try a step, and ask the field, beyond the end

Array = npt.NDArray[np.float64]


def reference_flow(sde: SDE, x: Tensor, s: float, t: float, accuracy: float = 1e-11) -> Tensor:
    """Where an ODE carries states from time s to time t, to a stated accuracy.

    Args:
        sde: An SDE without noise, such as a probability flow, with fields that are smooth between s and t.
        x: States at time s, (B, *E).
        s: Start.
        t: End, before or after.
        accuracy: Largest error of any component that is allowed, relative to 1 + the largest component at the end;
            from 1e-12.

    Returns:
        States at time t, float64, of the shape of ``x``. Fields are only asked between s and t.

    Raises:
        SdekitError: noise, times that are not finite, an accuracy below 1e-12, a field that gives NaN or Inf, or an
            accuracy that is not reached.

    References: [hairer1993].
    """
    if sde.noise_type != "none":
        raise SdekitError(f"reference_flow is for ODEs; this SDE has {sde.noise_type} noise: use probability_flow.")
    if not (math.isfinite(s) and math.isfinite(t)):
        raise SdekitError(f"The flow needs finite times; got s = {s}, t = {t}.")
    if not accuracy >= 1e-12:
        raise SdekitError(f"float64 carries a flow to 1e-12 at best; got accuracy = {accuracy:g}.")
    start = x.detach().double()
    if s == t or start.numel() == 0:
        return start
    tolerance = max(1e-2 * accuracy, _TIGHTEST)
    fine, coarse = (_integrated(sde, start, float(s), float(t), tau) for tau in (tolerance, _LOOSER * tolerance))
    error = float((fine - coarse).abs().max()) / (1.0 + float(fine.abs().max()))
    if not error <= accuracy:
        raise SdekitError(
            f"The flow from t = {s:g} to {t:g} is known to {error:.1g}, not to {accuracy:g}: ask for less, or for a "
            "shorter way if the field is stiff or not smooth."
        )
    return fine


def _integrated(sde: SDE, x: Tensor, s: float, t: float, tolerance: float) -> Tensor:
    from scipy.integrate import solve_ivp  # slow to import

    low, high = min(s, t), max(s, t)

    def rates(time: float, y: Array) -> Array:
        state = torch.from_numpy(y).to(x).reshape(x.shape)
        with torch.no_grad():
            found = sde.drift(min(max(float(time), low), high), state)
        if not bool(found.isfinite().all()):
            raise SdekitError(f"The drift gives NaN or Inf at t = {time:g}: there is no flow through that time.")
        rate: Array = found.cpu().numpy().ravel()
        return rate

    # The norm of an error is its root mean square over the batch: hold the worst component to the tolerance instead.
    each = max(tolerance / x.numel() ** 0.5, _TIGHTEST)
    options: dict[str, Any] = {"rtol": each, "atol": 0.1 * each, "first_step": _FIRST * abs(t - s)}
    solution = solve_ivp(rates, (s, t), x.cpu().numpy().ravel(), method="DOP853", t_eval=[t], **options)
    if not solution.success:
        raise SdekitError(f"The flow from t = {s:g} to {t:g} could not be integrated: {solution.message}")
    return torch.from_numpy(solution.y[:, -1].copy()).to(x).reshape(x.shape)
