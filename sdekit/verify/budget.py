r"""Where the error of a sampler comes from, each part exact and apart, on Gaussian data.

A sampler starts from a prior π instead of $p_T$, steps instead of following the equation, stops at ε instead of 0, and
may do something about that last bit. With $S$ what the solver does, $E$ what the equation does, both from T to ε, and
$P$ what the end-point policy does from there (:mod:`sdekit.ends`), one goes from the data to the samples by

$$ p_0 \;\to\; P p_\varepsilon = P E p_T \;\to\; P E \pi \;\to\; P S \pi , $$

and every arrow is a part of the error:

| part | distance in $W_2$ |
|---|---|
| end point | from $p_0$ to $P p_\varepsilon$ |
| initial law | from $P E p_T$ to $P E \pi$ |
| discretisation | from $P E \pi$ to $P S \pi$ |
| total | from $p_0$ to $P S \pi$: no more than their sum |

Where the covariances commute, as with a schedule and a prior that is isotropic, the parts add up as vectors: $W_2$ is
then the length of the difference in means and standard deviations along the eigenvectors. Only the discretisation has
an order; the others are where the total levels off. Beside them stands the end point under every policy that the
problem has. It is zero for ``exact-linear``, and for ``stop`` it is what is called the truncation.

References: [pierret2025].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

from torch import Tensor

from sdekit.ends import End
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
        discretisation: Of the solver, from that start.
        end_point: Of the end-point policy on the exact law of the last time.
        total: Of the samples against the data.
        end_points: ``end_point`` under every policy, by name.
    """

    initial: float
    discretisation: float
    end_point: float
    total: float
    end_points: Mapping[End, float] = field(default_factory=dict)

    @property
    def truncation(self) -> float:
        """The end point of ``stop``: from the law of the last time to the data."""
        return self.end_points["stop"]


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
    noisy = process.marginal(data, times[0])
    assert isinstance(noisy, Gaussian)
    exact = partial(numerical_law, sde, "exact-linear", [times[0], times[-1]])
    known = [policy for policy in get_args(End) if policy != "denoise" or sde.schedule is not None]
    ended = {policy: exact(noisy, end=policy) for policy in known}
    begun, stepped = exact(start, end=end), numerical_law(sde, chosen, times, start, end=end)
    return ErrorBudget(
        initial=wasserstein2(ended[end], begun),
        discretisation=wasserstein2(begun, stepped),
        end_point=wasserstein2(ended[end], data),
        total=wasserstein2(stepped, data),
        end_points={policy: wasserstein2(law, data) for policy, law in ended.items()},
    )
