r"""Does a density solve the Fokker–Planck equation? Pointwise, by automatic differentiation.

With $s = \nabla \log p$ and $C = G G^\top$ the equation of an Itô SDE is that of a flow with velocity v:

$$ \partial_t p + \nabla \cdot (p v) = 0, \qquad v = f - \tfrac12 (\nabla \cdot C + C s), $$

whence, divided by p, the residual $\partial_t \log p + \nabla \cdot v + v \cdot s$. It is relative to the density, so
it is as sharp in the tails as in the middle. For Stratonovich noise with columns $g_k$,
$v = f - \tfrac12 \sum_k g_k (\nabla \cdot g_k + g_k \cdot s)$; backwards in time the noise term changes its sign.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdekit.dynamics import SDE, covariance_divergence, covariance_times
from sdekit.errors import SdekitError
from sdekit.typing import Time

LogDensity = Callable[[Time, Tensor], Tensor]
"""``log_density(t, x)``, states (B, *E) to (B,), with t one time per sample."""


def residual(sde: SDE, log_density: LogDensity, t: float | Tensor, x: Tensor) -> Tensor:
    r"""$\partial_t \log p + \nabla \cdot v + v \cdot \nabla \log p$ at given points: zero where p solves the equation.

    Args:
        sde: Any SDE, of either calculus and any noise; for a reverse-time SDE the equation backwards in time.
        log_density: Log of a density, normalised or not, as a function of (t, x) that autograd can differentiate: (B,)
            from times (B,) and states (B, \*E).
        t: One time, or one per point.
        x: Points, shape (B, \*E), float64.

    Returns:
        Residuals per unit of time, shape (B,): about 1e-13 for an exact pair, of the order of the rates of the process
        where the two do not belong together. d + 2 backward passes for d = numel(E).

    Raises:
        SdekitError: a density that does not depend on x through autograd, or an answer of another shape.
    """
    times = torch.as_tensor(t, dtype=torch.float64).expand(len(x)).detach().clone().requires_grad_(True)
    points = x.detach().double().requires_grad_(True)
    with torch.enable_grad():
        value = log_density(times, points)
        if value.shape != times.shape or not value.requires_grad:
            raise SdekitError(
                f"log_density must return one value per point, shape {tuple(times.shape)}, and be differentiable in x; "
                f"got {tuple(value.shape)}" + ("." if value.requires_grad else " without a gradient.")
            )
        rate, score = torch.autograd.grad(value.sum(), (times, points), create_graph=True, materialize_grads=True)
        push = _stratonovich_push if sde.calculus == "stratonovich" else _ito_push
        sign = 0.5 if sde.direction == "decreasing" else -0.5
        velocity = sde.drift(times, points)
        if sde.noise_type != "none":
            velocity = velocity + sign * push(sde, times, points, score)
        divergence = _divergence(velocity, points)
    return (rate + divergence + (velocity * score).flatten(1).sum(1)).detach()


def _ito_push(sde: SDE, t: Tensor, x: Tensor, score: Tensor) -> Tensor:
    return covariance_times(sde, t, x, score) + covariance_divergence(sde, t, x)


def _stratonovich_push(sde: SDE, t: Tensor, x: Tensor, score: Tensor) -> Tensor:
    """Σ g_k (∇·g_k + g_k·s)."""
    g = sde.diffusion(t, x)
    if g.shape == x.shape and sde.noise_type != "scalar":  # column k is g_k along axis k, a function of x_k alone
        return g * ((torch.autograd.grad(g.sum(), x, create_graph=True)[0] if g.requires_grad else 0.0) + g * score)
    columns = g.unsqueeze(-1) if g.shape == x.shape else g
    total = torch.zeros_like(x)
    for k in range(columns.shape[-1]):
        column = columns[..., k]
        weight = _divergence(column, x) + (column * score).flatten(1).sum(1)
        total = total + column * weight.reshape(-1, *(1,) * (x.ndim - 1))
    return total


def _divergence(field: Tensor, x: Tensor) -> Tensor:
    """Σ ∂ field_i / ∂ x_i, sample by sample, shape (B,)."""
    total = x.new_zeros(len(x))
    if not field.requires_grad:
        return total
    flat = field.flatten(1)
    for i in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, i].sum(), x, create_graph=True, materialize_grads=True)
        total = total + gradient.flatten(1)[:, i]
    return total
