r"""Are these samples of that law? Tests with known false-alarm rates.

On the line, with $F$ the law's distribution function, $F(X_i)$ is uniform and $z_i = \Phi^{-1}(F(X_i))$ normal. With
$F_n$ the samples' distribution function:

| test | statistic | null distribution |
|---|---|---|
| ``mean`` | $\sqrt n\,\bar z$ | normal, exact |
| ``variance`` | $\sum z_i^2$ | χ² with n degrees of freedom, exact |
| ``ks`` | $\sup_x \lvert F_n - F \rvert$ | Kolmogorov–Smirnov, exact |
| ``chi-square`` | Pearson's, on cells of equal probability | χ², for large n |
| ``energy`` | $2 n \int (F_n - F)^2 dx$ | $\sum \lambda_i Z_i^2$, for large n |
| ``wasserstein2`` | $n W_2^2$ to the law's mid-quantiles | simulated: the rank among samples of the law |

The λ are eigenvalues of the covariance $2\,(F(x \wedge y) - F(x) F(y))$ of the empirical process, whose tail is a
saddlepoint approximation, good to 10 % of any p. In d dimensions the one-dimensional tests run along coordinates
and random directions, where a Gaussian or a mixture stays one, and the energy distance to samples of the law is tested
with the λ of the pooled sample.

Samples of a solver have the solver's law. Hold them against that one (:func:`sdekit.verify.numerical_law`,
:func:`sdekit.verify.transported_law`), never against the law that the SDE has: at n = 1e5 such tests see the
discretisation error of 200 steps of a correct DDIM and reject it. They take the samples to be independent.

References: [simard2011], [szekely2013], [kuonen1999], [gretton2009].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError, unknown_name
from sdekit.laws import Empirical, Gaussian, GaussianMixture
from sdekit.metrics.energy import Continuous
from sdekit.metrics.projection import projected, unit_directions
from sdekit.metrics.quadratic_form import upper_tail
from sdekit.metrics.samples import check_events, event_of, points

TestName = Literal["mean", "variance", "ks", "chi-square", "energy", "wasserstein2"]

_NODES, _END = 400, 7.0  # of the energy test's integral, in normal scores
_FEWEST = 100
_CELLS, _PER_CELL = 20, 100  # the χ² approximation is good to 20 % at p = 1e-5 with 100 expected in a cell
_POOL = 500  # points of each side in the energy test in d dimensions
_AXES = 8  # coordinates that are tested one by one


@dataclass(frozen=True)
class GoodnessTest:
    """One test.

    Attributes:
        name: Which, and where: ``ks``, or ``ks along coordinate 1``.
        statistic: Its value.
        p_value: Probability of a value at least as extreme if the samples have the law: to reject at
            ``p_value <= alpha`` has the false-alarm rate alpha.
        n: Number of samples that it used.
        null: Where the distribution of the statistic under the law comes from.
    """

    name: str
    statistic: float
    p_value: float
    n: int
    null: str

    def __str__(self) -> str:
        return f"{self.name}: {self.statistic:.4g}, p = {self.p_value:.2g} ({self.null}; n = {self.n})"


@dataclass(frozen=True)
class Goodness:
    """What :func:`hold` found.

    Attributes:
        tests: All tests.
        alpha: Probability that samples of the law fail any of them.
    """

    tests: tuple[GoodnessTest, ...]
    alpha: float

    @property
    def level(self) -> float:
        """The level of each test: alpha over their number (Bonferroni)."""
        return self.alpha / len(self.tests)

    @property
    def rejections(self) -> tuple[GoodnessTest, ...]:
        """The tests that say no."""
        return tuple(test for test in self.tests if not test.p_value > self.level)

    @property
    def accepted(self) -> bool:
        """Whether none does."""
        return not self.rejections

    def __str__(self) -> str:
        verdict = "accepted" if self.accepted else "rejected"
        head = f"{verdict} by {len(self.tests)} tests at {self.level:.2g} each (false alarms: {self.alpha:g} in all)"
        return "\n".join([head, *(f"  {test}" for test in self.tests)])


def hold(
    samples: Tensor,
    law: Continuous | Gaussian | GaussianMixture,
    alpha: float = 1e-6,
    *,
    tests: Sequence[TestName] = ("mean", "variance", "ks", "chi-square", "energy"),
    directions: int = 4,
    repeats: int = 999,
    seed: int = 0,
) -> Goodness:
    r"""Hold independent samples against a law.

    Args:
        samples: Shape (n, \*E), n ≥ 100.
        law: A law without atoms: on the line anything with ``cdf``, ``sf`` and ``quantile``, such as the answer of
            ``transported_law`` or ``fokker_planck.solve``; in d dimensions a Gaussian or a mixture.
        alpha: Probability that samples of the law are rejected, by all tests together.
        tests: Which.
        directions: In d dimensions, how many random directions are looked along, beside the first 8 coordinates.
        repeats: Simulations for ``wasserstein2``, whose p-value is a multiple of 1/(repeats + 1): it takes
            repeats + 1 ≥ (number of tests)/alpha to be able to reject.
        seed: Of directions and simulations.

    Raises:
        SdekitError: too few samples, NaN, event shapes that differ, a law that has atoms or no marginals, an unknown
            test, or too few repeats.

    References: [simard2011], [kuonen1999], [gretton2009].
    """
    unknown = [name for name in tests if name not in get_args(TestName)]
    if unknown or not tests:
        raise unknown_name("test", unknown[0] if unknown else "", get_args(TestName))
    if not 0.0 < alpha < 1.0:
        raise SdekitError(f"alpha is a probability, between 0 and 1; got {alpha}.")
    x = _checked(samples, law)
    lines = _lines(x, law, directions, seed)
    in_space = x.shape[1] > 1 and "energy" in tests
    count = len(lines) * len(tests) + in_space
    if "wasserstein2" in tests and repeats + 1 < count / alpha:
        raise SdekitError(
            f"The smallest p-value of wasserstein2 is 1/(repeats + 1) = {1 / (repeats + 1):.2g}, but {count} tests at "
            f"alpha = {alpha:g} need {alpha / count:.2g}: raise repeats or alpha, or leave the test out."
        )
    run: dict[str, Callable[[Tensor, Continuous], GoodnessTest]] = {
        "mean": _mean,
        "variance": _variance,
        "ks": _ks,
        "chi-square": _chi_square,
        "energy": _energy,
        "wasserstein2": partial(_wasserstein2, repeats=repeats, seed=seed),
    }
    found = [_named(run[name](y, marginal), where) for where, y, marginal in lines for name in tests]
    if in_space and isinstance(law, Gaussian | GaussianMixture):
        found.append(_energy_in_space(x, law, seed))
    return Goodness(tuple(found), alpha)


def _named(test: GoodnessTest, where: str) -> GoodnessTest:
    return replace(test, name=f"{test.name} along {where}") if where else test


def _checked(samples: Tensor, law: object) -> Tensor:
    """Samples as rows, (n, d), on the host."""
    x = points("samples", samples).cpu()
    if isinstance(law, Empirical):
        raise SdekitError(
            "An Empirical law has atoms, which these tests cannot have: diffuse it, or use metrics.measure."
        )
    if not isinstance(law, Continuous):
        raise SdekitError(f"law must have cdf, sf and quantile, as every law on the line; got {type(law).__name__}.")
    check_events(event_of(samples), law.event_shape)
    if len(x) < _FEWEST:
        raise SdekitError(f"{len(x)} samples are too few: at least {_FEWEST} are needed.")
    return x


def _lines(x: Tensor, law: Continuous, directions: int, seed: int) -> list[tuple[str, Tensor, Continuous]]:
    """Sorted samples and marginal laws, along each line that is looked along."""
    d = x.shape[1]
    if d == 1:
        return [("", x[:, 0].sort().values, _with_spread(law))]
    if not isinstance(law, Gaussian | GaussianMixture):
        raise SdekitError(
            f"In {d} dimensions the law must be a Gaussian or a mixture, whose projections are known; got "
            f"{type(law).__name__}. Take a marginal, or compare samples with metrics.measure."
        )
    random_ones = unit_directions(directions, d, seed)
    axes = torch.eye(d, dtype=torch.float64)[:_AXES]
    names = [*(f"coordinate {i}" for i in range(len(axes))), *(f"direction {i}" for i in range(directions))]
    rows = torch.cat([axes, random_ones])
    return [
        (name, (x @ theta).sort().values, _with_spread(projected(law, theta)))
        for name, theta in zip(names, rows, strict=True)
    ]


def _spread(law: Gaussian | GaussianMixture) -> float:
    """The least variance of a component."""
    parts = law.components if isinstance(law, GaussianMixture) else (law,)
    return min(float(part.variance.min()) for part in parts)


def _with_spread(law: Continuous) -> Continuous:
    if isinstance(law, Gaussian | GaussianMixture) and not _spread(law) > 0.0:
        raise SdekitError("The law has an atom: along a line its variance is zero. Leave out what is deterministic.")
    return law


def _scores(x: Tensor, law: Continuous) -> Tensor:
    """Normal scores Φ⁻¹(F(x)), from the nearer tail; ±38 stands for what the law cannot reach."""
    below, above = law.cdf(x).double(), law.sf(x).double()
    z = torch.where(below < 0.5, torch.special.ndtri(below), -torch.special.ndtri(above))
    return z.clamp(-38.0, 38.0)


def _mean(x: Tensor, law: Continuous) -> GoodnessTest:
    statistic = float(_scores(x, law).sum()) / math.sqrt(len(x))
    return GoodnessTest("mean", statistic, math.erfc(abs(statistic) * math.sqrt(0.5)), len(x), "normal scores, exact")


def _variance(x: Tensor, law: Continuous) -> GoodnessTest:
    from scipy.stats import chi2

    statistic, n = float(_scores(x, law).square().sum()), len(x)
    p = min(1.0, 2.0 * min(float(chi2.cdf(statistic, n)), float(chi2.sf(statistic, n))))
    return GoodnessTest("variance", statistic / n, p, n, "normal scores, exact")


def _ks(x: Tensor, law: Continuous) -> GoodnessTest:
    from scipy.stats import kstwo

    n, i = len(x), torch.arange(len(x), dtype=torch.float64)
    f = law.cdf(x).double()
    statistic = float(torch.maximum((i + 1) / n - f, f - i / n).max())
    return GoodnessTest("ks", statistic, float(kstwo.sf(statistic, n)), n, "Kolmogorov-Smirnov, exact")


def _chi_square(x: Tensor, law: Continuous) -> GoodnessTest:
    from scipy.stats import chi2

    n = len(x)
    cells = max(2, min(_CELLS, n // _PER_CELL))
    counts = torch.bincount((law.cdf(x).double() * cells).long().clamp(0, cells - 1), minlength=cells).double()
    statistic = float((counts - n / cells).square().sum()) * cells / n
    return GoodnessTest("chi-square", statistic, float(chi2.sf(statistic, cells - 1)), n, f"χ² on {cells} cells")


def _energy(x: Tensor, law: Continuous) -> GoodnessTest:
    """The integral by the trapezoid rule at quantiles: the λ are those of the sum, so its error does not matter."""
    z = torch.linspace(-_END, _END, _NODES, dtype=torch.float64)
    tail = 0.5 * torch.erfc(z.abs() * math.sqrt(0.5))
    y = torch.where(z < 0, law.quantile(tail).double(), law.quantile(tail, upper=True).double())
    below, above = law.cdf(y).double(), law.sf(y).double()
    gaps = y.diff()
    weights = 0.5 * (torch.cat([gaps, gaps[-1:] * 0]) + torch.cat([gaps[:1] * 0, gaps]))
    n = len(x)
    found = torch.searchsorted(x, y, right=True).double() / n
    statistic = 2.0 * n * float(weights @ (found - below).square())
    kernel = torch.minimum(below, below[:, None]) * torch.minimum(above, above[:, None])
    root = (2.0 * weights).sqrt()
    lam = torch.linalg.eigvalsh(root[:, None] * kernel * root)
    p = upper_tail(lam[lam > 1e-12 * lam[-1]], statistic)
    return GoodnessTest("energy", statistic, p, n, "weighted χ² of the empirical process")


def _wasserstein2(x: Tensor, law: Continuous, repeats: int, seed: int) -> GoodnessTest:
    """The square of W2 to n mid-quantiles, times n; the p-value is a rank, exact for any number of repeats."""
    n = len(x)
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    lower = law.quantile(u[: n // 2]).double()
    quantiles = torch.cat([lower, law.quantile(u[: n - n // 2], upper=True).double().flip(0)])

    def statistic(sample: Tensor) -> float:
        return float((sample - quantiles).square().sum())

    value, above = statistic(x), 0
    for r in range(repeats):
        z = random.normals(random.path_keys(random.key(seed, r), n), (), stream=random.STREAM_LAW)[0]
        tail = 0.5 * torch.erfc(z.abs() * math.sqrt(0.5))
        drawn = torch.where(z < 0, law.quantile(tail).double(), law.quantile(tail, upper=True).double())
        above += statistic(drawn.sort().values) >= value
    return GoodnessTest("wasserstein2", value, (above + 1) / (repeats + 1), n, f"rank among {repeats} simulations")


def _energy_in_space(x: Tensor, law: Gaussian | GaussianMixture, seed: int) -> GoodnessTest:
    """nm/(n + m) D² between up to 500 samples of each, with the λ of their pooled, centred distances."""
    n = min(len(x), _POOL)
    chosen = x[torch.linspace(0, len(x) - 1, n, dtype=torch.float64).round().long()]
    drawn = law.sample(_POOL, seed=random.key(seed, 1)).double().flatten(1).cpu()
    pool = torch.cat([chosen, drawn])
    distances = torch.cdist(pool, pool, compute_mode="donot_use_mm_for_euclid_dist")
    sign = torch.cat([torch.full((n,), 1.0 / n), torch.full((_POOL,), -1.0 / _POOL)]).double()
    statistic = -n * _POOL / (n + _POOL) * float(sign @ distances @ sign)
    centred = distances - distances.mean(0)
    centred = centred - centred.mean(1, keepdim=True)
    lam = torch.linalg.eigvalsh(-centred) / len(pool)
    p = upper_tail(lam[lam > 1e-9 * lam[-1]], statistic)
    return GoodnessTest("energy in space", statistic, p, n, f"weighted χ² of the pool with {_POOL} draws")
