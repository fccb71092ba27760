r"""Denoising score matching.

With $x_t = \alpha_t x_0 + \sigma_t \varepsilon$, the score of the kernel,
$\nabla\log p(x_t \mid x_0) = -\varepsilon/\sigma_t$, has the score of the marginal as its conditional mean given
$x_t$. Whatever the weight $w(t) > 0$,

$$ L = E\bigl[\,w(t)\,\lVert s_\theta(t, x_t) - \nabla\log p(x_t \mid x_0) \rVert^2\,\bigr]
     = E\bigl[\,\tfrac{w(t)}{\sigma_t^2}\,\lVert \varepsilon_\theta(t, x_t) - \varepsilon \rVert^2\,\bigr] $$

is therefore least at the exact score. The second form is what is computed: it is finite where σ → 0, and every
prediction reaches it by one conversion. The weightings in use differ in $w/\sigma^2$ alone:

| weighting | $w$ | $w/\sigma^2$ |
|---|---|---|
| ``sigma2``, or ``simple``: $L_\text{simple}$ of DDPM | $\sigma^2$ | 1 |
| ``likelihood`` | $g^2$ | $g^2/\sigma^2$ |
| ``edm``: least squares for F of :mod:`sdekit.nets` | $\sigma^2 (1 + r^2/s^2)$ | $1 + r^2/s^2$ |

with $r = \sigma/\alpha$ and s the standard deviation of the data.

References: [vincent2011], [song2021sde], [ho2020ddpm] for ``simple``, [karras2022edm] for ``edm``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sdekit.errors import SdekitError, unknown_name
from sdekit.linear import LinearProcess
from sdekit.schedules import Schedule
from sdekit.score import batch_times, centred, convert, schedule_of
from sdekit.typing import Prediction, along

Weighting = Literal["sigma2", "simple", "likelihood", "edm"]


def denoising(
    net: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    process: LinearProcess,
    t: Tensor,
    noise: Tensor,
    prediction: Prediction,
    weighting: Weighting = "simple",
    data_std: float = 1.0,
) -> Tensor:
    r"""$w(t)\,\lVert s_\theta(t, x_t) - \nabla\log p(x_t \mid x_0)\rVert^2$ of every sample.

    Args:
        net: As for :func:`sdekit.score.from_model`: states (B, \*E) and times (B,) to (B, \*E).
        x0: Data, shape (B, \*E).
        process: The forward process.
        t: Times in its clock, shape (B,); float64 keeps the coefficients exact.
        noise: Standard normal ε, shape (B, \*E).
        prediction: What ``net`` predicts.
        weighting: One of the table above.
        data_std: s, for ``edm``.

    Returns:
        Tensor of shape (B,): sums over the event, in the dtype of ``x0``.

    Raises:
        SdekitError: an unknown weighting or prediction, a process without a schedule, or a wrong shape.
    """
    if t.shape != x0.shape[:1] or noise.shape != x0.shape:
        raise SdekitError(
            f"x0 of shape {tuple(x0.shape)} needs one time per sample and noise of its shape; "
            f"got t of {tuple(t.shape)} and noise of {tuple(noise.shape)}."
        )
    if weighting not in WEIGHTINGS:
        raise unknown_name("weighting", weighting, WEIGHTINGS)
    schedule = schedule_of(process)
    carried = along(schedule.alpha(t), x0) * x0 + along(schedule.sigma(t), x0) * noise
    x = carried - centred(process, t, torch.zeros_like(carried))
    epsilon = convert(net(x, batch_times(t, x)), t, x, process, prediction, "epsilon")
    weight = WEIGHTINGS[weighting](schedule, t, data_std)
    return weight.to(x) * (epsilon - noise).square().flatten(1).sum(dim=1)


def _one(schedule: Schedule, t: Tensor, data_std: float) -> Tensor:
    return torch.ones_like(t)


def _likelihood(schedule: Schedule, t: Tensor, data_std: float) -> Tensor:
    return schedule.diffusion_rate(t) / torch.square(schedule.sigma(t))


def _edm(schedule: Schedule, t: Tensor, data_std: float) -> Tensor:
    # ε_θ − ε = −(α/σ)(D_θ − x₀), so this is ‖D_θ − x₀‖² / c_out².
    return 1.0 + torch.exp(-2.0 * schedule.lam(t)) / data_std**2


WEIGHTINGS: dict[str, Callable[[Schedule, Tensor, float], Tensor]] = {
    "sigma2": _one,
    "simple": _one,
    "likelihood": _likelihood,
    "edm": _edm,
}
"""$w/\\sigma^2$ by name, from the schedule, times (B,) and s."""
