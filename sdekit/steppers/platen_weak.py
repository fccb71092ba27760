r"""Platen's explicit method of weak order 2 for any Itô noise.

With the three-point variables $\hat I_k$ and the $\hat I_{(k,l)}$ of :mod:`~sdekit.steppers.weak_runge_kutta`,

$$ \bar Y = x + h f + \textstyle\sum_k g_k \hat I_k, \qquad
   \bar R^k_\pm = x + h f \pm \sqrt h\,g_k, \qquad \bar U^k_\pm = x \pm \sqrt h\,g_k, $$

$$ x \leftarrow x + \tfrac h2 \bigl(f(\bar Y) + f\bigr)
   + \tfrac14 \sum_k \Bigl( \bigl(g_k(\bar R^k_+) + g_k(\bar R^k_-) + 2 g_k\bigr)\,\hat I_k
   + 2 \bigl(g_k(\bar R^k_+) - g_k(\bar R^k_-)\bigr)\,\hat I_{(k,k)}/\sqrt h \Bigr) $$

$$ + \tfrac14 \sum_{k \ne l} \Bigl( \bigl(g_k(\bar U^l_+) + g_k(\bar U^l_-) - 2 g_k\bigr)\,\hat I_k
   + 2 \bigl(g_k(\bar U^l_+) - g_k(\bar U^l_-)\bigr)\,\hat I_{(k,l)}/\sqrt h \Bigr), $$

all at the start of the step, but $f(\bar Y)$ and $g_k(\bar R^k_\pm)$ at its end. Noise of one column, noise that is
diagonal element by element and additive noise have no terms in $\bar U$.

References: [kloeden1992] (15.1.1), (15.1.3).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import Memory, Step, StepMethod
from sdekit.steppers.weak_runge_kutta import Columns, double_integrals, weak_spec


@final
class PlatenWeak2(StepMethod):
    """Platen's explicit weak method: weak order 2 for any Itô noise, two drifts a step.

    One evaluation of the diffusion and four for every noise that mixes with others, three in all for diagonal, scalar
    and additive noise.

    References: [kloeden1992].
    """

    spec = weak_spec("platen-weak2", "Platen's explicit method: any Itô noise, weak order 2", "kloeden1992", 2, 2.0)

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h, f = t1 - t0, sde.drift(t0, x)
        ahead = x.add(f, alpha=h)
        if increment is None:
            return Step(x.add(f + sde.drift(t1, ahead), alpha=0.5 * h))
        columns, g = Columns.of(sde, t0, x, increment)
        w, root = columns.w, h**0.5
        slope = f + sde.drift(t1, ahead + times_noise(g, w))
        up, down = (columns.at(t1, x, lambda k, s=s: ahead.add(columns.own(g, k), alpha=s)) for s in (root, -root))  # type: ignore[misc]
        moved = times_noise(up + down + 2.0 * g, w) + times_noise(up - down, (w * w - h) / root)
        if columns.mixing:
            moved = moved + _crossed(columns, t0, x, g, double_integrals(increment, h), root)
        return Step(x.add(slope, alpha=0.5 * h).add_(moved, alpha=0.25))


def _crossed(columns: Columns, t: float, x: Tensor, g: Tensor, integrals: Tensor, root: float) -> Tensor:
    """The terms of pairs of noises."""
    moved, m = torch.zeros_like(x), columns.w.shape[1]
    other = 1.0 - torch.eye(m, dtype=x.dtype, device=x.device)
    for j in range(m):
        up, down = (columns.diffusion(t, x.add(g[..., j], alpha=sign)) for sign in (root, -root))
        moved = moved + times_noise(up + down - 2.0 * g, columns.w * other[j])
        moved = moved + times_noise(up - down, integrals[:, :, j] * (2.0 / root) * other[j])
    return moved
