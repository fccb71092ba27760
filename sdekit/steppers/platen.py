r"""Platen's explicit schemes: no derivatives of the fields, but differences at supporting values.

With $h$, W and $Z = I_{(1,0)} = h\,(\tfrac12 W + H)$ of the step, and $x_\pm = x + f h \pm g \sqrt h$.

References: [kloeden1992] §11.1, §11.2.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE, times_noise
from sdekit.steppers.base import Memory, Spec, Step, StepMethod
from sdekit.steppers.coefficients import combine

_CLASSES = ("linear-additive", "additive", "diagonal", "commutative")


def _columns(sde: SDE, x: Tensor, *noises: Tensor) -> tuple[Tensor, ...]:
    """Noises to multiply a diffusion of the state's shape: one for every coordinate, or one for all."""
    if sde.noise_type != "scalar":
        return noises
    return tuple([v.reshape(-1, *(1,) * (x.ndim - 1)) for v in noises])


@final
class MilsteinFree(StepMethod):
    r"""Platen's explicit scheme of strong order 1: Milstein's method, with a difference for the derivative.

    $$ x \leftarrow x + f h + g W + \frac{1}{2 \sqrt h} \bigl( g(t, x_+) - g \bigr) (W^2 - h) , $$

    element by element; two diffusions a step, and no automatic differentiation. On additive noise it is
    Euler–Maruyama.

    Strong and weak order 1.

    References: [kloeden1992], equation (11.1.3).
    """

    spec = Spec(
        name="milstein-free",
        summary="Platen's explicit scheme: Milstein without derivatives, diagonal or scalar Itô noise",
        references=("kloeden1992",),
        kind="step",
        evaluations=1,
        ode=1.0,
        strong=dict.fromkeys(_CLASSES, 1.0),
        weak=dict.fromkeys(_CLASSES, 1.0),
        noise_types=frozenset({"none", "additive", "scalar", "diagonal"}),
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h = t1 - t0
        moved = x.add(sde.drift(t0, x), alpha=h)
        if increment is None:
            return Step(moved)
        g = sde.diffusion(t0, x)
        if sde.noise_type == "additive":
            return Step(moved.add_(times_noise(g, increment.w)))
        g, (w,) = g.reshape(x.shape), _columns(sde, x, increment.w)
        beside = sde.diffusion(t0, moved.add(g, alpha=h**0.5)).reshape(x.shape)
        rest = beside.sub(g).mul_(w * w - h)
        return Step(moved.add_(g * w).add_(rest, alpha=0.5 / h**0.5))


@final
class Platen15(StepMethod):
    r"""Platen's explicit scheme of strong order 1.5, three drifts and five diffusions a step.

    With $\Phi_\pm = x_+ \pm g(x_+) \sqrt h$, and all supporting values at the end of the step,

    $$ x \leftarrow x + g W + \frac{f(x_+) - f(x_-)}{2 \sqrt h} Z + \frac{h}{4} \bigl( f(x_+) + 2 f + f(x_-) \bigr)
       + \frac{g(x_+) - g(x_-)}{4 \sqrt h} (W^2 - h) $$

    $$ \quad + \frac{g(x_+) - 2 g + g(x_-)}{2 h} (W h - Z)
       + \frac{g(\Phi_+) - g(\Phi_-) - g(x_+) + g(x_-)}{4 h} \bigl( \tfrac13 W^2 - h \bigr) W . $$

    This is the printed scheme where one noise drives the state. With a noise for every coordinate, or several additive
    ones, $f(x_+) + f(x_-)$ would keep products of different noises in its mean, and $f(x_+) - f(x_-)$ multiply the
    noise of one coordinate by the Z of another: order 1. There the drift is asked at $x + f h \pm \sqrt 3\,G Z / h$
    in place of $x_\pm$, and $\tfrac{1}{2 \sqrt 3} h$ stands for $\tfrac{1}{2 \sqrt h} Z$: as $\sqrt 3 Z / h$ is
    normal with variance h, means are those of one noise, and G Z is the noise of the drift.

    Strong order 1.5 for diagonal and scalar noise; 2 where noise is additive and the drift linear.

    References: [kloeden1992], equation (11.2.1).
    """

    spec = Spec(
        name="platen15",
        summary="Platen's explicit scheme: diagonal or scalar Itô noise, strong order 1.5, no derivatives",
        references=("kloeden1992",),
        kind="step",
        evaluations=3,
        ode=2.0,
        strong={"linear-additive": 2.0, "additive": 1.5, "diagonal": 1.5, "commutative": 1.5},
        weak=dict.fromkeys(_CLASSES, 2.0),
        noise_types=frozenset({"none", "additive", "scalar", "diagonal"}),
        increments="space-time",
        eta=(0.0, float("inf")),
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        h = t1 - t0
        f = sde.drift(t0, x)
        ahead = x.add(f, alpha=h)
        if increment is None:
            return Step(combine(x, [(0.5 * h, f), (0.5 * h, sde.drift(t1, ahead))]))
        w, z = increment.w, increment.h.add(increment.w, alpha=0.5)  # Z/h, as in the other methods of order 1.5
        g = sde.diffusion(t0, x)
        if sde.noise_type == "additive":
            kick, last = times_noise(g, z), sde.diffusion(t1, x)
            noise = times_noise(g, w) + times_noise(last - g, w - z)
            return Step(_drift(sde, t1, h, x, f, ahead, kick * 3.0**0.5, 3.0**-0.5 * h).add_(noise))
        root, g, (w, z) = h**0.5, g.reshape(x.shape), _columns(sde, x, w, z)
        if sde.noise_type == "scalar":
            moved = _drift(sde, t1, h, x, f, ahead, g * root, z * root)
        else:
            moved = _drift(sde, t1, h, x, f, ahead, g * z * 3.0**0.5, 3.0**-0.5 * h)
        return Step(moved.add_(_noise(sde, t1, h, ahead, g, w, z)))


def _drift(
    sde: SDE, t1: float, h: float, x: Tensor, f: Tensor, ahead: Tensor, kick: Tensor, weight: Tensor | float
) -> Tensor:
    """x, the mean of the drift, and the difference of its two values times half the weight."""
    up, down = sde.drift(t1, ahead + kick), sde.drift(t1, ahead - kick)
    mean = combine(x, [(0.5 * h, f), (0.25 * h, up), (0.25 * h, down)])
    return mean.add_((up - down) * weight, alpha=0.5)


def _noise(sde: SDE, t1: float, h: float, ahead: Tensor, g: Tensor, w: Tensor, z: Tensor) -> Tensor:
    """All terms of the diffusion; z is Z/h."""
    root = h**0.5

    def at(y: Tensor) -> Tensor:
        return sde.diffusion(t1, y).reshape(g.shape)

    raised = ahead.add(g, alpha=root)
    up, down = at(raised), at(ahead.sub(g, alpha=root))
    high, low = at(raised.add(up, alpha=root)), at(raised.sub(up, alpha=root))
    square, slope = w * w, up - down
    total = g * w
    total = total.addcmul_(slope, square - h, value=0.25 / root)
    total = total.addcmul_(up + down - 2.0 * g, w - z, value=0.5)
    return total.addcmul_(high - low - slope, w * (square / 3.0 - h), value=0.25 / h)
