r"""Linear SDEs with additive noise, $dx = (A x + b)\,dt + G\,dW$, and their exact Gaussian kernels.

A process that multiplies every coordinate by the same factor has a :class:`~sdekit.schedules.Schedule`,
and then everything is a closed form in $(\alpha, \sigma)$: with
$h = \lambda_t - \lambda_s < 0$ the kernel from s to t is

$$ X_t \mid X_s = x \;\sim\; \mathcal N\Bigl(\tfrac{\alpha_t}{\alpha_s} x + m_t - \tfrac{\alpha_t}{\alpha_s} m_s,\;
   \sigma_t^2 \,(1 - e^{2h})\Bigr), $$

where $m_t$ is where the process carries the point 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.components import principal, rotate, square_root
from sdekit.errors import SdekitError
from sdekit.laws import Gaussian, Law
from sdekit.schedules import Schedule
from sdekit.typing import Calculus, Direction, NoiseType, Shape, Time, along

Operator = float | Tensor
"""A linear map of a flattened event: a factor, a diagonal of the event's shape, or a (d, d) matrix."""


def apply_operator(operator: Operator, x: Tensor) -> Tensor:
    """``operator`` on every sample of ``x``, shape (B, *E)."""
    if isinstance(operator, float):
        return operator * x
    operator = operator.to(x)
    if operator.shape == x.shape[1:] or operator.ndim == 0:
        return operator * x
    if operator.ndim != 2 or operator.shape[1] != x.shape[1:].numel():
        raise SdekitError(f"An operator of shape {tuple(operator.shape)} does not act on events {tuple(x.shape[1:])}.")
    return rotate(x.flatten(1)[None], operator.mT[None]).reshape(x.shape)


@dataclass(frozen=True)
class GaussianKernel:
    r"""$X_t \mid X_s = x \sim \mathcal N(M x + b, Q)$.

    ``matrix`` and ``covariance`` are a factor, a diagonal of the event's shape, or a (d, d) matrix.
    """

    matrix: Operator
    shift: Operator
    covariance: Operator

    def mean(self, x: Tensor) -> Tensor:
        """Conditional means for states of shape (B, *E)."""
        shift = self.shift if isinstance(self.shift, float) else self.shift.to(x)
        return apply_operator(self.matrix, x) + shift

    def law(self, x: Tensor) -> Gaussian:
        """The conditional law from one state ``x`` of shape E."""
        return Gaussian(self.mean(x[None])[0], self.covariance)

    def push(self, law: Law) -> Law:
        """The law of $X_t$ when $X_s$ has ``law``."""
        return law.affine(self.matrix, self.shift, self.covariance)

    def sample(self, x: Tensor, z: Tensor) -> Tensor:
        """$M x + b + Q^{1/2} z$ with the symmetric root, from standard normals ``z`` like ``x``."""
        return self.mean(x) + apply_operator(operator_root(self.covariance, x.shape[1:]), z)


def operator_root(covariance: Operator, event_shape: Shape) -> Operator:
    """The symmetric square root of a covariance given as an :data:`Operator` on events of this shape."""
    if isinstance(covariance, float):
        return math.sqrt(covariance)
    if covariance.ndim == 2 and covariance.shape != tuple(event_shape):
        variances, axes = principal(square_root(covariance)[None])
        symmetric: Tensor = (axes[0] * variances[0].sqrt()) @ axes[0].mT
        return symmetric.to(covariance)
    return covariance.sqrt()


class LinearProcess(ABC):
    """A linear SDE with additive noise that carries data (t = 0) to noise (t = t_max)."""

    t_min: float
    t_max: float
    noise_type: NoiseType = "additive"
    calculus: Calculus = "ito"
    direction: Direction = "increasing"

    @property
    @abstractmethod
    def schedule(self) -> Schedule | None:
        """Signal and noise levels; None where coordinates do not share one."""

    @abstractmethod
    def drift(self, t: Time, x: Tensor) -> Tensor:
        r"""$A x + b$ at states of shape (B, *E)."""

    @abstractmethod
    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        """G, of the shape of ``x`` or ``(*x, m)``."""

    @abstractmethod
    def transition(self, s: float, t: float) -> GaussianKernel:
        """The exact kernel of $X_t$ given $X_s$, for s ≤ t."""

    @abstractmethod
    def marginal(self, law: Law, t: float) -> Law:
        """The exact law of $X_t$ when $X_0$ has ``law``."""

    @abstractmethod
    def prior(self, event_shape: Shape) -> Gaussian:
        """The law that sampling starts from: that of $X_{t_max}$ with the data at 0."""

    @abstractmethod
    def shift(self, t: Time) -> float | Tensor:
        """Where the process carries the point 0; the float 0.0 where it stays.

        A number or shape E for one time, (B,) or (B, *E) for one time per sample.
        """


def check_interval(s: float, t: float, end: float) -> None:
    """Refuse a transition that runs backwards or leaves the process's time range."""
    if not 0.0 <= s <= t <= end:
        raise SdekitError(
            f"A transition needs 0 ≤ s ≤ t ≤ {end:g}; got s = {s}, t = {t}. "
            "For the way back use reverse_time(process, score)."
        )


class ScheduledProcess(LinearProcess):
    """A linear process whose coordinates all share one schedule."""

    def __post_init__(self) -> None:
        _ = self.schedule  # refuses bad parameters now rather than in the middle of a run

    @property
    @abstractmethod
    def schedule(self) -> Schedule: ...

    def shift(self, t: Time) -> float | Tensor:
        return 0.0

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return along(self.schedule.drift_rate(t), x) * x

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        g = self.schedule.diffusion_rate(t) ** 0.5
        return torch.as_tensor(along(g, x), dtype=x.dtype, device=x.device).expand(x.shape)

    def transition(self, s: float, t: float) -> GaussianKernel:
        schedule = self.schedule
        check_interval(s, t, schedule.end)
        factor = math.exp(schedule.log_alpha(t) - schedule.log_alpha(s))
        lost = -math.expm1(2.0 * (schedule.lam(t) - schedule.lam(s))) if t > s else 0.0
        carried = self.shift(t) - factor * self.shift(s)
        return GaussianKernel(factor, carried, schedule.sigma(t) ** 2 * lost)

    def marginal(self, law: Law, t: float) -> Law:
        check_interval(0.0, t, self.schedule.end)
        return law.diffused(self.schedule.alpha(t), self.schedule.sigma(t), self.shift(t))

    def prior(self, event_shape: Shape) -> Gaussian:
        mean = torch.zeros(tuple(event_shape), dtype=torch.float64) + self.shift(self.t_max)
        return Gaussian(mean, self.schedule.sigma(self.t_max) ** 2)
