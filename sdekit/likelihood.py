r"""Log-likelihoods by the probability flow.

Along $\dot x = F(t, x)$ a density obeys $\tfrac{d}{dt}\log p_t(x_t) = -\nabla\cdot F$. For the flow
$F = f - \tfrac12 g^2 s$ from t₀ to T, therefore,

$$ \log p_{t_0}(x) = \log \pi(x_T) + \int_{t_0}^{T} \nabla\cdot F(t, x_t)\,dt, \qquad x_{t_0} = x, $$

where π is the law that sampling starts from. This is the log-density, exact but for the solver and the trace, of the
samples that the flow makes of π: of the *model*. State and integral are one ODE, in one run, under one error control.

What it is not, and what is therefore reported apart:

- *Prior mismatch.* The data's own law at T is $p_T$, not π. With an exact score
  $\log p_T(x_T) - \log\pi(x_T)$ is all that is missing. Where $p_T$ is not known, the mean loss,
  $\mathrm{KL}(p_T \Vert \pi)$, is at most the mean over data of $\mathrm{KL}(p(x_T \mid x_0) \Vert \pi)$.
- *Truncation.* The density is that at t₀, of data with the noise σ(t₀) in them, at the point x; not that at 0.

With n random probes instead of the exact trace there are n integrals, one for each probe, which stays the same all the
way. They are independent and without bias, so their spread is the standard error. The error norm of an adaptive run is
a mean over the components of the state: the integrals stand in it as often as it takes to be half of it, since one
number among d would be nothing to it.

References: [chen2018], [grathwohl2019], [song2021sde].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack, final, get_args

import torch
from torch import Tensor

from sdekit import divergence as derivatives
from sdekit import doors
from sdekit.controllers import PID
from sdekit.dequantisation import Dequantisation
from sdekit.divergence import Forms, Probes, quadratic_forms_of
from sdekit.driver import solve
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys, Paths, Seed
from sdekit.latent import Limits, run_of
from sdekit.laws import Law
from sdekit.linear import LinearProcess
from sdekit.quantiles import fold
from sdekit.reverse import Reverse
from sdekit.solution import Solution, Statistics, Status
from sdekit.steppers.base import Stepper
from sdekit.typing import Calculus, Direction, NoiseType, Time

Divergence = Literal["exact", "hutchinson"]
"""How the trace of the Jacobian is had."""


@final
@dataclass(frozen=True)
class LogLikelihood:
    """What :func:`log_likelihood` found; per sample, in nats, float64 of shape (B,) unless said.

    Attributes:
        value: log π(x_T) + ∫ ∇·F dt: the log-density of the model at the least time, at ``x``. NaN where a run ended
            early.
        standard_error: Of the value, from the probes: zero for the exact trace, NaN for a single probe.
        log_prior: log π(x_T).
        integral: ∫ ∇·F dt.
        x: Where the density is: the samples, with the noise of a dequantisation, (B, *E).
        latent: x_T, (B, *E).
        prior_mismatch: log p_T(x_T) − log π(x_T), to be added where the score is exact; None where p_T is not known.
        mismatch_bound: KL of x_T given x from π: its mean over data bounds the mean loss by the prior. None for
            another prior than the process's, or a process without a schedule.
        truncation: log p_0(x) − log p_{t₀}(x), of the data law; None where that is not known or has no density.
        log_cell: Log-volume that a density is multiplied by to be a probability: d log Δ of a dequantisation, else 0.
        stats: Of the run; ``drift_evaluations`` are calls of the flow on the batch.
        products: Jacobian–vector products of a sample at each of these: d, or the number of probes.
        status: How each sample ended, int8, values of :class:`~sdekit.Status`.
    """

    value: Tensor
    standard_error: Tensor
    log_prior: Tensor
    integral: Tensor
    x: Tensor
    latent: Tensor
    prior_mismatch: Tensor | None
    mismatch_bound: Tensor | None
    truncation: Tensor | None
    log_cell: float
    stats: Statistics
    products: int
    status: Tensor

    @property
    def evaluations(self) -> int:
        """Calls of the flow, each on the whole batch."""
        return self.stats.drift_evaluations

    @property
    def bits_per_dimension(self) -> Tensor:
        r"""$-(\text{value} + \text{log\_cell})/(d \log 2)$, shape (B,).

        With a dequantisation it is an upper bound, in the mean over its noise, of the code length of levels, whatever
        range they are mapped to. Without one it belongs to a density, and depends on the units of ``x``.
        """
        return -(self.value + self.log_cell) / self._scale

    @property
    def bits_standard_error(self) -> Tensor:
        """Standard error of the bits per dimension, shape (B,)."""
        return self.standard_error / self._scale

    @property
    def _scale(self) -> float:
        return self.x[0].numel() * math.log(2.0)


def log_likelihood(
    flow: SDE,
    x: Tensor,
    grid: Tensor | Sequence[float] | None = None,
    stepper: str | Stepper | None = None,
    *,
    prior: Law | None = None,
    divergence: Divergence = "exact",
    probes: int = 16,
    distribution: Probes = "rademacher",
    chunk: int | None = None,
    seed: Seed = 0,
    paths: Paths | None = None,
    dequantisation: Dequantisation | None = None,
    steps: int | None = None,
    controller: PID | None = None,
    **limits: Unpack[Limits],
) -> LogLikelihood:
    r"""$\log p_{t_0}(x) = \log \pi(x_T) + \int_{t_0}^T \nabla\cdot F\,dt$ along a flow F, for every sample.

    With neither stepper, steps nor controller the run is adaptive: ``dopri5`` under ``PID(1e-5, 1e-5)``. No gradient is
    recorded.

    Args:
        flow: A probability flow; or an SDE without noise, with ``grid`` and ``prior``.
        x: Samples, shape (B, \*E).
        grid: Times, in either order; the least is t₀, the largest T. By default the ends of the process's range, or
            from ``steps``.
        stepper: A step method for ODEs: ``dopri5``, ``tsit5``, ``rk4``, … Exponential ones know the state only.
        prior: π, the law at T. Default: ``process.prior``.
        divergence: ``exact``, for d Jacobian–vector products an evaluation, or ``hutchinson``, for as many as
            ``probes``.
        probes: n. Probe j of a sample is a function of (seed, path number, j): not of the batch.
        distribution: Of the probes: ``rademacher`` (signs, the lesser variance) or ``gaussian``.
        chunk: Directions that are differentiated at once; by default as many as memory allows.
        seed: Of probes and of the noise of a dequantisation.
        paths: Global path numbers of the samples, 0 … B − 1 by default; as for :func:`sdekit.solve`.
        dequantisation: What makes a density's argument of levels: samples must then be levels.
        steps: Number of steps, when ``grid`` is left out.
        controller: Steps of every sample's own choosing, between the ends of the grid. Its tolerance is that of the
            state and of the integral, in nats, with the same weight.
        **limits: ``progress``, ``max_steps`` and ``max_seconds``.

    Returns:
        The :class:`~sdekit.likelihood.LogLikelihood`.

    Raises:
        SdekitError: noise; a score without a derivative; no prior or no times for an SDE that has none; levels that are
            none; and what :func:`sdekit.solve` raises.

    References: [song2021sde], [grathwohl2019].
    """
    if stepper is None and controller is None and steps is not None:
        stepper = "rk4"  # the default of a flow is a method that knows nothing but states
    nodes, chosen, control = run_of(flow, grid, stepper, steps, controller)
    doors.check_state(x)
    for way in (nodes, nodes.flip(0)):  # scores are asked at both ends
        doors.check_times(flow, way)
    first, last = float(nodes[0]), float(nodes[-1])
    law = _prior(flow, x, prior)
    keys = Keys.of(seed, paths, len(x), x.device)
    with torch.no_grad():
        start = x if dequantisation is None else dequantisation.filled(x, keys)
        forms = quadratic_forms_of(flow.drift, (first, last), start, chunk)
        directions = _directions(divergence, start, keys, probes, distribution)
        augmented = Augmented.of(flow, forms, directions, start)
        solution = solve(augmented, augmented.start(start), nodes, chosen, controller=control, **limits)
        return _found(flow, solution, augmented, start, law, prior, first, last, dequantisation)


def _prior(flow: SDE, x: Tensor, prior: Law | None) -> Law:
    if prior is None:
        if not (isinstance(flow, Reverse) and isinstance(flow.process, LinearProcess)):
            raise SdekitError("This flow knows no law at its last time: give prior=, such as sk.Gaussian(mean, 1.0).")
        return flow.process.prior(x.shape[1:])
    if prior.event_shape != x.shape[1:]:
        raise SdekitError(
            f"The prior has events of shape {tuple(prior.event_shape)}, the samples of shape {tuple(x.shape[1:])}."
        )
    return prior


def _directions(divergence: Divergence, x: Tensor, keys: Keys, count: int, distribution: Probes) -> Tensor | None:
    """The probes; None for the exact trace."""
    if divergence not in get_args(Divergence):
        raise unknown_name("divergence", divergence, get_args(Divergence))
    return derivatives.probes(keys, count, distribution, x) if divergence == "hutchinson" else None


@final
@dataclass(frozen=True)
class Augmented:
    r"""The ODE of a flow with the integrals of its divergence: rows $[x, \ell_1, …, \ell_m, i]$ of flat states.

    Every integral stands in a row ``copies`` times. With probes a row also carries its number, on which nothing acts:
    an adaptive solver takes rows apart, and a sample has probes of its own.

    Attributes:
        flow: The flow.
        forms: How it is differentiated.
        probes: Directions (n, B, *E); None for the basis, whose forms are summed to one divergence.
        event_shape: E.
        copies: How often every integral stands in a row.
    """

    flow: SDE
    forms: Forms
    probes: Tensor | None
    event_shape: torch.Size
    copies: int
    noise_type: NoiseType = "none"
    calculus: Calculus = "ito"
    direction: Direction = "either"

    @classmethod
    def of(cls, flow: SDE, forms: Forms, probes: Tensor | None, x: Tensor) -> Augmented:
        """For states like ``x``."""
        integrals = 1 if probes is None else len(probes)
        return cls(flow, forms, probes, x.shape[1:], math.ceil(x[0].numel() / integrals))

    @property
    def size(self) -> int:
        """D."""
        return self.event_shape.numel()

    @property
    def integrals(self) -> int:
        """M."""
        return 1 if self.probes is None else len(self.probes)

    def start(self, x: Tensor) -> Tensor:
        """Rows with integrals zero."""
        row = torch.arange(1, len(x) + 1, device=x.device)[:, None]
        return torch.cat([x.flatten(1), x.new_zeros(len(x), self.integrals * self.copies), row.to(x)], dim=1)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, *E), integrals (B, m) and numbers of rows (B,)."""
        x, integrals, row = torch.split(z, [self.size, self.integrals * self.copies, 1], dim=1)
        return x.reshape(-1, *self.event_shape), integrals[:, : self.integrals], row[:, 0].round().long() - 1

    def drift(self, t: Time, z: Tensor) -> Tensor:
        x, _, row = self.split(z)
        directions = None if self.probes is None else self.probes[:, row]
        slope, forms = self.forms(self.flow.drift, t, x, directions)
        rates = fold(forms, dim=0)[:, None] if self.probes is None else forms.mT
        return torch.cat([slope.flatten(1), rates.repeat(1, self.copies), torch.zeros_like(z[:, :1])], dim=1)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        return torch.zeros_like(z)


def _found(
    flow: SDE,
    solution: Solution,
    augmented: Augmented,
    x: Tensor,
    law: Law,
    prior: Law | None,
    first: float,
    last: float,
    dequantisation: Dequantisation | None,
) -> LogLikelihood:
    latent, integrals, _ = augmented.split(solution.final)
    integrals = integrals.double()
    wide = latent.double()
    log_prior = law.log_prob(wide)
    count = augmented.integrals
    integral = fold(integrals) / count
    exact = augmented.probes is None
    error = torch.zeros_like(integral) if exact else _standard_error(integrals, integral)
    lost = solution.status != Status.SUCCESS
    mismatch, truncation = _of_the_law(flow, x.double(), wide, log_prior, first, last)
    log_cell = 0.0 if dequantisation is None else dequantisation.log_cell(augmented.size)
    return LogLikelihood(
        value=(log_prior + integral).masked_fill(lost, torch.nan),
        standard_error=error.masked_fill(lost, torch.nan),
        log_prior=log_prior,
        integral=integral,
        x=x,
        latent=latent,
        prior_mismatch=mismatch,
        mismatch_bound=_bound(flow, x.double(), last) if prior is None else None,
        truncation=truncation,
        log_cell=log_cell,
        stats=solution.stats,
        products=augmented.size if exact else count,
        status=solution.status,
    )


def _standard_error(integrals: Tensor, mean: Tensor) -> Tensor:
    """Of the mean of n integrals; NaN for one."""
    n = integrals.shape[1]
    squares = fold((integrals - mean[:, None]).square())
    return (squares / (n * (n - 1))).sqrt() if n > 1 else torch.full_like(mean, torch.nan)


def _of_the_law(
    flow: SDE, x: Tensor, latent: Tensor, log_prior: Tensor, first: float, last: float
) -> tuple[Tensor | None, Tensor | None]:
    """Prior mismatch and truncation, where the score says what law it is of."""
    if not (isinstance(flow, Reverse) and isinstance(flow.process, LinearProcess)) or flow.score.law is None:
        return None, None
    data, process = flow.score.law, flow.process
    mismatch = process.marginal(data, last).log_prob(latent) - log_prior
    try:
        exact = data.log_prob(x)
    except SdekitError:  # no density: a data set, or a Gaussian on a plane
        return mismatch, None
    return mismatch, exact - process.marginal(data, first).log_prob(x)


def _bound(flow: SDE, x: Tensor, last: float) -> Tensor | None:
    r"""$\tfrac12 (\alpha_T/\sigma_T)^2 \lVert x\rVert^2$: both laws have the spread σ_T."""
    if not isinstance(flow, Reverse) or flow.schedule is None:
        return None
    return 0.5 * math.exp(2.0 * flow.schedule.lam(last)) * x.flatten(1).square().sum(1)
