r"""The exact kernel of a linear SDE, as a stepper: no error in law for any step.

Forwards it samples ``process.transition(s, t)``. Backwards it needs a Gaussian data law, whose score is affine.
Along an eigenvector of the data covariance with eigenvalue ℓ, and $v_t = \alpha_t^2 \ell + \sigma_t^2$, the map from
s to t is

$$ x_t - \alpha_t m = \psi\,(x_s - \alpha_s m) + \sqrt{v_t - \psi^2 v_s}\;z, \qquad
   \psi = \sqrt{\tfrac{v_t}{v_s}}\,\Bigl[\tfrac{\alpha_s}{\alpha_t}\sqrt{\tfrac{v_t}{v_s}}\Bigr]^{\eta^2} . $$

For a matrix Ornstein–Uhlenbeck process and η = 1 it is the regression of $X_t$ on $X_s$.

References: [pierret2025].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from sdekit import elementary as el
from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian
from sdekit.linear import GaussianKernel, LinearProcess, Operator, apply_operator, operator_root
from sdekit.reverse import Reverse
from sdekit.steppers.base import Memory, Prepared, Spec, Stepper

Kernel = Callable[[float, float], GaussianKernel]


@final
class ExactLinear(Stepper):
    """The exact transition of a linear SDE, or of a reverse one whose score is affine.

    References: [vanloan1978], [pierret2025].
    """

    spec = Spec(
        name="exact-linear",
        summary="the exact kernel of a linear SDE, forwards or (Gaussian data) backwards: no error",
        references=("vanloan1978", "pierret2025"),
        kind="exact",
        evaluations=0,
        ode=float("inf"),
        strong={"linear-additive": 1.0},  # the Brownian increment alone does not fix the step's Wiener integral
        weak={"linear-additive": float("inf")},
        noise_types=frozenset({"none", "additive"}),
        calculus=frozenset({"ito", "stratonovich"}),
        eta=(0.0, float("inf")),
    )

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        kernel, noisy = _kernel_of(sde), sde.noise_type != "none"
        # All that a run needs of them is known before it starts: a step is two products, and can be traced.
        kernels = [kernel(s, t) for s, t in pairwise(times)]
        spreads = [_spread(sde, k, s, t) for k, (s, t) in zip(kernels, pairwise(times), strict=True) if noisy]

        def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
            moved = kernels[k].mean(x)
            return (moved + apply_operator(spreads[k], increments[0].w) if noisy else moved), None

        return Prepared([[step] if noisy else [] for step in pairwise(times)], advance, noise_like_state=True)


def _spread(sde: SDE, kernel: GaussianKernel, s: float, t: float) -> Operator:
    r"""F with $F F^\top = Q/h$, to be multiplied by the increment: of all such factors the one nearest to G.

    For a scalar or a diagonal, and wherever the noise is a multiple of the identity, that is the symmetric root. Else
    it is $Q^{1/2} U$ with the polar factor U of $Q^{1/2} G$; any other has the right law, but does not follow the path.
    """
    covariance, h = kernel.covariance, abs(t - s)
    law = sde.score.law if isinstance(sde, Reverse) else None
    if law is not None:
        event = law.event_shape
    else:
        # A process that acts on events of more than one dimension is a factor; a reverse one may be a diagonal of them.
        event = torch.Size() if isinstance(covariance, float) else covariance.shape[:1]
    root: Operator = operator_root(covariance, event) * h**-0.5
    if isinstance(root, float) or root.ndim != 2 or root.shape == event:
        return root
    noise = sde.diffusion(s, torch.zeros(1, *event, dtype=root.dtype))[0]
    if noise.shape != root.shape:
        return root
    u, _, vh = torch.linalg.svd(root @ noise)
    aligned: Tensor = root @ (u @ vh)
    return aligned


def _kernel_of(sde: SDE) -> Kernel:
    if isinstance(sde, LinearProcess):
        return sde.transition
    process, law = (sde.process, sde.score.law) if isinstance(sde, Reverse) else (None, None)
    if not (isinstance(sde, Reverse) and isinstance(process, LinearProcess)):
        raise SdekitError(
            "exact-linear integrates a linear process, or its reverse with an exact Gaussian score; "
            f"got {type(sde).__name__}. Use euler-maruyama, or a process such as sk.OU."
        )
    if not isinstance(law, Gaussian):
        raise SdekitError(
            "exact-linear needs an affine score when it runs backwards: "
            "exact_score(Gaussian(...), process). For other scores use ddim or dpmpp-2m."
        )
    gaussian, linear, eta = law, process, sde.eta
    if linear.schedule is not None:
        return lambda s, t: _scheduled_kernel(linear, gaussian, eta, s, t)
    if eta != 1.0:
        raise SdekitError(f"exact-linear knows the reverse of a process without a schedule at eta = 1 only; got {eta}.")
    return lambda s, t: _regression_kernel(linear, gaussian, s, t)


def to_data(sde: Reverse, s: float) -> GaussianKernel:
    """The exact kernel from time s to the data, where σ = 0 even if the process has noise at its time 0.

    Args:
        sde: A reverse problem of a linear process with the exact score of a Gaussian.
        s: Where it starts.
    """
    if sde.schedule is None:
        return _kernel_of(sde)(s, 0.0)
    law = sde.score.law
    assert isinstance(law, Gaussian)
    return _diagonal_kernel(sde.linear_process, law, sde.eta, s, (0.0, 0.0, 0.0))


def _scheduled_kernel(process: LinearProcess, law: Gaussian, eta: float, s: float, t: float) -> GaussianKernel:
    """ψ and its conditional variance, in the eigenbasis of the data."""
    schedule = process.schedule
    assert schedule is not None
    return _diagonal_kernel(process, law, eta, s, (schedule.log_alpha(t), schedule.sigma(t), process.shift(t)))


def _diagonal_kernel(
    process: LinearProcess, law: Gaussian, eta: float, s: float, end: tuple[float, float, float | Tensor]
) -> GaussianKernel:
    """To where the process has these log α, σ and shift."""
    schedule, (log_alpha, sigma, shift) = process.schedule, end
    assert schedule is not None
    basis, values = law.eigen
    a_s, a_t = schedule.alpha(s), math.exp(log_alpha)
    v_s, v_t = a_s**2 * values + schedule.sigma(s) ** 2, a_t**2 * values + sigma**2
    log_growth = 0.5 * torch.log(v_t / v_s)
    # At the data a direction without spread has v_t = 0: its gain is −∞, and no noise takes no part of it.
    log_gain = eta**2 * (log_growth + (schedule.log_alpha(s) - log_alpha)) if eta else torch.zeros_like(log_growth)
    psi = torch.exp(log_growth + log_gain)
    spread = -v_t * el.expm1(2.0 * log_gain)  # v_t − ψ² v_s without cancellation
    if basis is None:
        matrix, covariance = (w.reshape(law.event_shape) for w in (psi, spread))
        moved = psi.reshape(law.event_shape) * (a_s * law.mean + process.shift(s))
    else:
        matrix, covariance = ((basis * w) @ basis.T for w in (psi, spread))
        start = (a_s * law.mean + process.shift(s)).reshape(-1)
        moved = (matrix @ start).reshape(law.event_shape)
    return GaussianKernel(matrix, a_t * law.mean + shift - moved, covariance)


def _regression_kernel(process: LinearProcess, law: Gaussian, s: float, t: float) -> GaussianKernel:
    """X_t given X_s for t < s, from their joint Gaussian law."""
    if t > s:
        raise SdekitError(f"The reverse SDE runs from noise to data; got a step {s:g} → {t:g}.")
    earlier, later, onward = process.marginal(law, t), process.marginal(law, s), process.transition(t, s)
    d = law.event_shape.numel()
    matrix, noise = _dense(onward.matrix, d), _dense(onward.covariance, d)
    gain = torch.linalg.solve(later.covariance, matrix @ earlier.covariance).T
    # Joseph's form of C − G M C: a sum of squares, so that singular noise gives no negative variance.
    kept = torch.eye(d, dtype=torch.float64) - gain @ matrix
    residual = kept @ earlier.covariance @ kept.T + gain @ noise @ gain.T
    shift = earlier.mean.reshape(-1) - gain @ later.mean.reshape(-1)
    return GaussianKernel(gain, shift.reshape(law.event_shape), 0.5 * (residual + residual.T))


def _dense(operator: Operator, d: int) -> Tensor:
    """An :data:`Operator` as a (d, d) matrix."""
    value = torch.as_tensor(operator, dtype=torch.float64)
    return value if value.shape == (d, d) else torch.diag(value.reshape(-1).expand(d))
