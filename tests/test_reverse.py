"""The way back: drifts by hand, and the Fokker–Planck identity that makes every η have the same marginals.

The density p_t of dx = f dt + G dW obeys ∂ₜp = −∇·(f p) + ½ ∇·∇·(C p). Run backwards, the reverse SDE with drift b
and noise ηG carries the same densities if and only if

    −∇·(b p) − ½ η² ∇·∇·(C p)  =  −∇·(f p) + ½ ∇·∇·(C p),

an identity between second derivatives of any positive p with score ∇ log p. Autograd evaluates both sides, so nothing
is sampled. (``b`` and ``C`` are the library's own, the derivatives are the test's.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import PROCESSES
from torch import Tensor
from torch.func import grad, hessian, jacfwd

import sdekit as sk
from sdekit.dynamics import GeneralSDE, covariance_divergence, covariance_times
from sdekit.reverse import Reverse
from sdekit.typing import Time

A = torch.tensor([[0.4, -1.0], [0.7, 0.2]], dtype=torch.float64)
B = torch.tensor([[0.5, 0.1, -0.3], [0.2, 0.9, 0.4]], dtype=torch.float64)
ETAS = [0.0, 1.0, 1.7]  # everything is linear in η²
POINTS = {1: [[0.4], [-1.3]], 2: [[0.4, -0.6], [-1.3, 0.2]]}


def rotating(t: Time, x: Tensor) -> Tensor:
    return x @ A.T + torch.sin(x.flip(-1)) * (1.0 + t)


def columns(t: Time, x: Tensor) -> Tensor:
    """Three noises of a plane, all state-dependent, that do not commute."""
    return B * torch.cos(x[..., :, None] + 0.5 * x.flip(-1)[..., :, None] * torch.tensor([1.0, -1.0, 0.3]).double() + t)


def elementwise(t: Time, x: Tensor) -> Tensor:
    return 0.6 + 0.3 * torch.sin(2.0 * x + t)


def entangled(t: Time, x: Tensor) -> Tensor:
    """Of the shape of the state, but G_i depends on the other coordinate: not `diagonal` in the strict sense."""
    return 0.6 + 0.3 * torch.sin(2.0 * x.flip(-1) + x + t)


SDES: dict[str, tuple[int, GeneralSDE]] = {
    "diagonal 1-D": (1, sk.sde(rotating_1d := lambda t, x: torch.sin(x) - x, elementwise, "diagonal")),
    "scalar 1-D": (1, sk.sde(rotating_1d, elementwise, "scalar")),
    "geometric": (1, sk.sde(lambda t, x: 0.3 * x, lambda t, x: 0.5 * x, "diagonal")),
    "diagonal 2-D": (2, sk.sde(rotating, elementwise, "diagonal")),
    "scalar 2-D": (2, sk.sde(rotating, entangled, "scalar")),
    "scalar, one column": (2, sk.sde(rotating, lambda t, x: entangled(t, x)[..., None], "scalar")),
    "general": (2, sk.sde(rotating, columns, "general")),
    "commutative": (2, sk.sde(rotating, columns, "commutative")),
    "general, of the shape of x": (2, sk.sde(rotating, entangled, "general")),
    "additive matrix": (2, sk.sde(rotating, lambda t, x: (B * (1.0 + t)).expand(len(x), 2, 3), "additive")),
}
STATE_DEPENDENT = [name for name in SDES if name != "additive matrix"]


def density(d: int) -> sk.GaussianMixture:
    means = torch.tensor([[0.5, -0.2], [-1.0, 0.8]], dtype=torch.float64)[:, :d]
    return sk.GaussianMixture([0.3, 0.7], means, torch.tensor([0.5, 0.8], dtype=torch.float64))


def spread(sde: GeneralSDE, t: float, y: Tensor) -> Tensor:
    """C = GGᵀ at one point, from the definition."""
    g = sde.diffusion(t, y[None])[0]
    if g.ndim == 2:
        return g @ g.T
    return torch.outer(g, g) if sde.noise_type == "scalar" else torch.diag(g**2)


def residual(rev: Reverse, t: float, p: Callable[[Tensor], Tensor], y: Tensor) -> float:
    """What the two sides of the identity differ by at ``y``, over p."""
    sde = rev.process
    assert isinstance(sde, GeneralSDE)

    def current(z: Tensor, b: Callable[[float, Tensor], Tensor]) -> Tensor:
        return torch.diagonal(jacfwd(lambda u: b(t, u[None])[0] * p(u))(z)).sum()

    def second(z: Tensor) -> Tensor:
        both = hessian(lambda u: spread(sde, t, u) * p(u))(z)
        return torch.einsum("ijij->", both)

    backward = -current(y, rev.drift) - 0.5 * rev.eta**2 * second(y)
    forward = -current(y, sde.drift) + 0.5 * second(y)
    return float((backward - forward).abs() / p(y))


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("name", SDES)
def test_every_eta_has_the_marginals_of_the_forward_sde(name: str, eta: float) -> None:
    d, sde = SDES[name]
    law = density(d)
    rev = sk.reverse_time(sde, lambda t, x: law.score(x), eta)
    for y in torch.tensor(POINTS[d], dtype=torch.float64):
        assert residual(rev, 0.3, lambda u: law.log_prob(u[None])[0].exp(), y) < 1e-10


@pytest.mark.parametrize("name", STATE_DEPENDENT)
def test_leaving_out_the_divergence_is_caught(name: str) -> None:
    """The negative control of the test above."""
    d, sde = SDES[name]
    law = density(d)

    def shifted(t: Any, x: Tensor) -> Tensor:
        return sde.drift(t, x) + covariance_divergence(sde, t, x)  # what reverse_time takes off at η = 1

    slipped = sk.reverse_time(GeneralSDE(shifted, sde.diffusion, sde.noise_type), lambda t, x: law.score(x))
    truth = sk.reverse_time(sde, lambda t, x: law.score(x))
    planted = Reverse(sde, truth.score)
    object.__setattr__(planted, "drift", slipped.drift)
    worst = max(
        residual(planted, 0.3, lambda u: law.log_prob(u[None])[0].exp(), y)
        for y in torch.tensor(POINTS[d], dtype=torch.float64)
    )
    assert worst > 1e-2


@pytest.mark.parametrize("eta", ETAS)
def test_geometric_brownian_motion_in_time(eta: float) -> None:
    """Lognormal marginals: ∂ₜp = −∂ₓ(b p) − ½η² ∂ₓₓ(C p), the time derivative included."""
    mu, sigma = 0.3, 0.5
    sde = sk.sde(lambda t, x: mu * x, lambda t, x: sigma * x, "diagonal")

    def log_p(t: Tensor, y: Tensor) -> Tensor:
        z = (torch.log(y) - (mu - sigma**2 / 2) * t) / (sigma * torch.sqrt(t))
        return -0.5 * z**2 - torch.log(y * sigma * torch.sqrt(t))

    def score(t: Time, x: Tensor) -> Tensor:
        return -(1.0 + (torch.log(x) - (mu - sigma**2 / 2) * t) / (sigma**2 * t)) / x

    def p(t: Tensor, y: Tensor) -> Tensor:
        return log_p(t, y).exp()

    def worst(rev: Reverse, extra: float) -> float:
        """``extra`` times the divergence 2σ²x is put back into the drift."""
        out = 0.0
        for time, point in ((0.4, 0.7), (1.0, 1.5), (2.0, 0.9)):
            t, y = (torch.tensor(v, dtype=torch.float64) for v in (time, point))

            def b(u: Tensor, time: float = time) -> Tensor:
                return rev.drift(time, u.reshape(1, 1)).reshape(()) + extra * 2 * sigma**2 * u

            def current(u: Tensor, t: Tensor = t) -> Tensor:
                return b(u) * p(t, u)

            def diffused(u: Tensor, t: Tensor = t) -> Tensor:
                return sigma**2 * u**2 * p(t, u)

            change = grad(p, argnums=0)(t, y)
            balance = change + grad(current)(y) + 0.5 * eta**2 * grad(grad(diffused))(y)
            out = max(out, float(balance.abs() / p(t, y)))
        return out

    rev = sk.reverse_time(sde, score, eta)
    assert worst(rev, 0.0) < 1e-12
    assert worst(rev, 0.5 * (1.0 + eta**2)) > 1e-2
    x = torch.tensor([[0.7], [2.0]], dtype=torch.float64)
    weight = 0.5 * (1.0 + eta**2)
    by_hand = mu * x - weight * (2 * sigma**2 * x + sigma**2 * x**2 * score(0.4, x))
    torch.testing.assert_close(rev.drift(0.4, x), by_hand, rtol=1e-14, atol=0)
    torch.testing.assert_close(rev.diffusion(0.4, x), eta * sigma * x, rtol=1e-14, atol=0)


@pytest.mark.parametrize("eta", ETAS)
def test_drift_of_every_process_by_hand(name: str, eta: float, randn: Callable[..., Tensor]) -> None:
    """f − ½(1 + η²) g² s and η g, with f and g from the forward fields."""
    process, x = PROCESSES[name](), randn(5, 2, 3)

    def score(t: Time, y: Tensor) -> Tensor:
        return torch.sin(y) - t

    rev = sk.reverse_time(process, score, eta)
    low, high = process.t_min, process.t_max
    for t in (low, 0.5 * (low + high)):
        g = process.diffusion(t, x)
        by_hand = process.drift(t, x) - 0.5 * (1 + eta**2) * g**2 * score(t, x)
        torch.testing.assert_close(rev.drift(t, x), by_hand)
        torch.testing.assert_close(rev.diffusion(t, x), eta * g)
        times = torch.full((5,), t, dtype=x.dtype, device=x.device)
        rev_at_times = sk.reverse_time(process, lambda u, y: score(torch.as_tensor(u)[:, None, None], y), eta)
        torch.testing.assert_close(rev_at_times.drift(times, x), rev.drift(t, x))


def test_vp_by_the_book(randn: Callable[..., Tensor]) -> None:
    """Song et al. (2021), equations (6) and (13), for VP: −½βx − βs and −½βx − ½βs."""
    x, t = randn(4, 2), 0.3
    beta = 0.1 + 19.9 * t
    score = lambda t, x: x**2  # noqa: E731
    torch.testing.assert_close(sk.reverse_time(sk.VP(), score).drift(t, x), -0.5 * beta * x - beta * x**2)
    torch.testing.assert_close(sk.probability_flow(sk.VP(), score).drift(t, x), -0.5 * beta * (x + x**2))
    g = sk.reverse_time(sk.VP(), score, 0.5).diffusion(t, x)
    torch.testing.assert_close(g, torch.full_like(x, 0.5 * math.sqrt(beta)))


def test_matrix_ou_by_hand() -> None:
    theta = torch.tensor([[1.0, 0.4], [-0.2, 0.8]], dtype=torch.float64)
    sigma = torch.tensor([[0.6, 0.0], [0.5, 0.9]], dtype=torch.float64)
    x = torch.tensor([[1.0, -2.0], [0.3, 0.4]], dtype=torch.float64)
    rev = sk.reverse_time(sk.OU(theta, 0.5, sigma), lambda t, x: torch.cos(x), eta=0.7)
    expected = (0.5 - x) @ theta.T - 0.5 * (1 + 0.49) * torch.cos(x) @ (sigma @ sigma.T)
    torch.testing.assert_close(rev.drift(0.2, x), expected)
    torch.testing.assert_close(rev.diffusion(0.2, x), (0.7 * sigma).expand(2, 2, 2))


def test_what_a_reverse_declares() -> None:
    score = lambda t, x: -x  # noqa: E731
    flow, rev = sk.probability_flow(sk.VP(), score), sk.reverse_time(sk.VP(), score)
    assert (flow.noise_type, flow.direction, flow.eta) == ("none", "either", 0.0)
    assert (rev.noise_type, rev.direction, rev.eta) == ("additive", "decreasing", 1.0)
    assert rev.schedule == sk.VP().schedule
    assert sk.reverse_time(SDES["general"][1], score).noise_type == "general"
    assert sk.reverse_time(SDES["general"][1], score).schedule is None
    ode = sk.sde(lambda t, x: -x)
    assert (ode.noise_type, ode.direction) == ("none", "either")


@pytest.mark.parametrize("name", SDES)
def test_covariance_products(name: str) -> None:
    """GGᵀv and ∇·(GGᵀ) against the definition, for one time and for one per sample."""
    d, sde = SDES[name]
    x = torch.tensor(POINTS[d], dtype=torch.float64)
    v = torch.cos(3.0 * x)
    for i, y in enumerate(x):
        c = spread(sde, 0.3, y)
        jacobian = jacfwd(lambda u: spread(sde, 0.3, u))(y)
        torch.testing.assert_close(covariance_times(sde, 0.3, x, v)[i], c @ v[i])
        torch.testing.assert_close(covariance_divergence(sde, 0.3, x)[i], torch.einsum("ijj->i", jacobian))
    general = GeneralSDE(
        sde.drift, lambda t, x: sde.diffusion(0.3, x) * _beside(t, sde.diffusion(0.3, x)), sde.noise_type
    )
    times = torch.tensor([0.2, 0.9], dtype=torch.float64)
    together = covariance_divergence(general, times, x)
    for i, t in enumerate(times.tolist()):
        torch.testing.assert_close(together[i : i + 1], covariance_divergence(general, t, x[i : i + 1]))


def _beside(t: float | Tensor, g: Tensor) -> float | Tensor:
    return t.reshape(-1, *(1,) * (g.ndim - 1)) if isinstance(t, Tensor) else t
