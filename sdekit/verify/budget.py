r"""Where the error of a sampler comes from, each part exact and apart, on Gaussian data.

A sampler starts from a prior instead of $p_T$, steps instead of following the equation, stops at ε instead of 0, and
may do something about that last bit. With $S$ what the solver does, $E$ what the equation does, both from T to ε,

| part | distance |
|---|---|
| initial law | from $E\pi$ to $E p_T = p_\varepsilon$ |
| discretisation | from $S p_T$ to $E p_T$ |
| truncation | from $p_\varepsilon$ to $p_0$ |
| end point | from $p_0$ to the law after the end-point policy is applied to $p_\varepsilon$ itself |
| total | from the law of the samples to $p_0$ |

all in $W_2$. Only the discretisation has an order; the others are where the total levels off.

References: [pierret2025].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from sdekit.driver import End
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.metrics import wasserstein2
from sdekit.reverse import Reverse
from sdekit.steppers import registry
from sdekit.steppers.base import Stepper
from sdekit.verify.affine import numerical_law


@dataclass(frozen=True)
class ErrorBudget:
    """W2 of each part of a sampler's error; see :mod:`sdekit.verify.budget`.

    Attributes:
        initial: Of starting from the given law instead of the data's at the first time.
        discretisation: Of the solver, from the right start to the last time.
        truncation: Of stopping at the last time.
        end_point: What is left of the truncation, or added to it, by the end-point policy on the exact law; equal to
            the truncation for ``stop``.
        total: Of the samples against the data.
    """

    initial: float
    discretisation: float
    truncation: float
    end_point: float
    total: float


def error_budget(
    sde: Reverse,
    stepper: str | Stepper,
    grid: Tensor | Sequence[float],
    initial: Gaussian | None = None,
    end: End = "stop",
) -> ErrorBudget:
    """Take the error of a sampler apart; no sampling.

    Args:
        sde: A reverse problem with the exact score of Gaussian data.
        stepper: A registry name or a stepper.
        grid: Times of the run, decreasing.
        initial: What the run starts from; the process's prior by default.
        end: The end-point policy, as in :func:`sdekit.solve`.

    Raises:
        SdekitError: the data law is not Gaussian, or the run was not affine.
    """
    data, chosen = sde.score.law, registry.get(stepper)
    if not isinstance(data, Gaussian):
        raise SdekitError("An error budget needs a reverse problem with exact_score(Gaussian(...), process).")
    process, times = sde.linear_process, [float(t) for t in grid]
    start = process.prior(data.event_shape) if initial is None else initial
    noisy, clean = (process.marginal(data, t) for t in (times[0], times[-1]))
    assert isinstance(noisy, Gaussian)
    law = partial(numerical_law, sde, grid=times)
    exact = partial(law, "exact-linear")
    truncation = wasserstein2(clean, data)
    # The policy acts after the last step: the exact steps leave p_ε, and what follows is the policy alone.
    ended = truncation if end == "stop" else wasserstein2(exact(initial=noisy, end=end), data)
    return ErrorBudget(
        initial=wasserstein2(exact(initial=start), clean),
        discretisation=wasserstein2(law(chosen, initial=noisy), clean),
        truncation=truncation,
        end_point=ended,
        total=wasserstein2(law(chosen, initial=start, end=end), data),
    )
