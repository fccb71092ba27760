r"""Linear SDEs in d dimensions, $dx = (A(t) x + a(t))\,dt + G(t)\,dW$: exact kernels and stationary laws.

The coefficients are read off the fields, so that any SDE object will do whose drift is affine and whose noise does not
depend on the state: ``sk.sde``, a process, or the reverse of one with a Gaussian score. Over an interval
$X_t = \Phi X_s + b + N(0, Q)$ with

$$ \dot\Phi = A \Phi, \qquad \dot b = A b + a, \qquad \dot Q = A Q + Q A^\top + G G^\top $$

(the Lyapunov equation). Constant coefficients: Van Loan's block exponential over a short time, and doubling from there,
$Q_{2h} = \Phi Q \Phi^\top + Q$, for which no horizon is too long and no system too stiff; a appears as one more
coordinate that stays at 1. Otherwise: the Runge–Kutta method of order 8 of Dormand and Prince.

References: [vanloan1978], [hairer1993].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdekit import doors
from sdekit.dynamics import SDE, Reflected
from sdekit.errors import SdekitError
from sdekit.fokker_planck.finite_volume import Array
from sdekit.laws import Gaussian
from sdekit.linear import GaussianKernel
from sdekit.ornstein_uhlenbeck import matrix_kernel
from sdekit.typing import Shape

_SUPERPOSITION = 1e-11
_RELATIVE, _ABSOLUTE = 3e-14, 1e-16
_PROBES = np.array([0.0, 0.043, 0.149, 0.333, 0.5, 0.618, 0.777, 0.921, 1.0])


def linear_kernel(sde: SDE, s: float, t: float, event_shape: Shape) -> GaussianKernel:
    r"""The exact kernel of $X_t$ given $X_s$ for a linear SDE with additive noise; ``.push(law)`` is the law at t.

    Args:
        sde: Drift affine in x, noise a function of t alone.
        s: Start.
        t: End; before s for a reverse-time SDE.
        event_shape: Shape E of a state, d = numel(E).

    Returns:
        Matrix (d, d), shift E and covariance (d, d), float64: to 1e-13 of their size. Coefficients that agree at nine
        times of the interval count as constant.

    Raises:
        SdekitError: a drift that is not affine, noise that depends on the state, or an interval that runs the wrong
            way.
    """
    doors.check_times(sde, torch.tensor([s, t], dtype=torch.float64))
    event = torch.Size(event_shape)
    if t < s:
        sde, s, t = Reflected(sde), -s, -t
    h = t - s
    probes = [_coefficients(sde, s + h * float(u), event) for u in _PROBES]
    d = event.numel()
    if all(all(torch.equal(x, y) for x, y in zip(probes[0], other, strict=True)) for other in probes[1:]):
        A, a, C = probes[0]
        augmented, spread = torch.zeros(2, d + 1, d + 1, dtype=torch.float64)
        augmented[:d, :d], augmented[:d, d], spread[:d, :d] = A, a, C
        factor, covariance = matrix_kernel(-augmented, spread, h)
        return GaussianKernel(factor[:d, :d], factor[:d, d].reshape(event), covariance[:d, :d])
    factor, shift, covariance = _integrated(sde, s, t, event)
    return GaussianKernel(factor, shift.reshape(event), covariance)


def linear_stationary(sde: SDE, event_shape: Shape, t: float = 0.0) -> Gaussian:
    r"""The stationary law $N(m, S)$ of a linear SDE: $A m + a = 0$ and $A S + S A^\top + G G^\top = 0$.

    Args:
        sde: Drift affine in x, noise a function of t alone; its coefficients are taken at time ``t``.
        event_shape: Shape E of a state.
        t: Time at which the coefficients are frozen.

    Raises:
        SdekitError: a drift that is not affine or does not pull back in every direction, or noise that depends on the
            state.
    """
    from scipy.linalg import solve_continuous_lyapunov

    event = torch.Size(event_shape)
    if sde.direction == "decreasing":
        sde, t = Reflected(sde), -t
    A, a, C = _coefficients(sde, t, event)
    slowest = float(torch.linalg.eigvals(A).real.max())
    if slowest >= 0.0:
        raise SdekitError(f"No stationary law: the drift has an eigenvalue with real part {slowest:g} ≥ 0.")
    covariance = torch.from_numpy(solve_continuous_lyapunov(A.numpy(), -C.numpy()))
    return Gaussian(torch.linalg.solve(A, -a).reshape(event), 0.5 * (covariance + covariance.mT))


def _coefficients(sde: SDE, t: float, event: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """A, a and G Gᵀ at time t, from the fields at 0, at the unit vectors and at a witness."""
    d = event.numel()
    witness = torch.sin(2.4 * torch.arange(1, d + 1, dtype=torch.float64))
    x = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), witness[None]])
    with torch.no_grad():
        f = sde.drift(t, x.reshape(-1, *event)).reshape(d + 2, d)
        g = sde.diffusion(t, x.reshape(-1, *event))
    a, A = f[0].clone(), (f[1:-1] - f[0]).mT.contiguous()
    error = float((f[-1] - a - A @ witness).abs().max())
    if not error <= _SUPERPOSITION * float(f.abs().max()):
        raise SdekitError(
            f"At t = {t:g} the drift is not affine: superposition fails by {error:.2g}. On the line use "
            "fokker_planck.solve, which takes any drift."
        )
    if not float((g - g[:1]).abs().max()) <= _SUPERPOSITION * float(g.abs().max()):
        raise SdekitError(f"At t = {t:g} the noise depends on the state: the law is not Gaussian.")
    root = g[0].reshape(d, -1)
    diagonal = g.shape == (d + 2, *event) and sde.noise_type != "scalar"
    return A, a, torch.diag(root[:, 0].square()) if diagonal else root @ root.mT


def _integrated(sde: SDE, s: float, t: float, event: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Φ, b and Q by DOP853."""
    from scipy.integrate import solve_ivp

    d = event.numel()

    def rates(time: float, y: Array) -> Array:
        A, a, C = _coefficients(sde, min(max(time, s), t), event)
        state = torch.from_numpy(y).reshape(2 * d + 1, d)
        factor, shift, covariance = state[:d], state[d], state[d + 1 :]
        moved = A @ covariance
        change: Array = torch.cat([A @ factor, (A @ shift + a)[None], moved + moved.mT + C]).numpy().ravel()
        return change

    start = torch.cat([torch.eye(d, dtype=torch.float64), torch.zeros(d + 1, d, dtype=torch.float64)]).numpy().ravel()
    solution = solve_ivp(rates, (s, t), start, method="DOP853", rtol=_RELATIVE, atol=_ABSOLUTE)
    if not solution.success:
        raise SdekitError(f"The Lyapunov equation could not be solved between t = {s:g} and {t:g}: {solution.message}")
    end = torch.from_numpy(solution.y[:, -1].copy()).reshape(2 * d + 1, d)
    covariance = end[d + 1 :]
    return end[:d], end[d], 0.5 * (covariance + covariance.mT)
