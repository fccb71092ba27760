r"""The 2-Wasserstein distance, by whichever exact route the arguments allow.

$$ W_2(p, q)^2 = \min_{X \sim p,\; Y \sim q} E\,|X - Y|^2 $$

Gaussians have it in closed form, the line by quantiles, and sets of points as a linear programme. Between samples it
is biased by their number: two independent sets of n points are apart by about $n^{-1/d}$ in d > 4 dimensions. Report it
beside its floor (:func:`~sdekit.metrics.measure`).

References: [gelbrich1990], [bonneel2015].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sdekit.errors import SdekitError, unknown_name
from sdekit.laws import Empirical, Gaussian, GaussianMixture, Law
from sdekit.metrics import gaussian, line
from sdekit.metrics.projection import projected, unit_directions
from sdekit.metrics.samples import check_events, event_of, pair, points

Method = Literal["gaussian", "quantile", "exact"]
Operand: TypeAlias = Law | line.Quantiles | Tensor | Callable[[Tensor], Tensor]
"""A law, samples (n, \\*E), anything with 1-D quantiles, or a quantile function on (0, 1)."""

_CHUNK = 2**24  # elements of one temporary


def wasserstein2(a: Operand, b: Operand, method: Method | None = None) -> float:
    r"""W2 between two laws, two sets of samples, or one of each.

    Args:
        a: A law, samples of shape (n, \*E), or on the line also an object with ``quantile(p, upper=)`` or a quantile
            function of u in (0, 1).
        b: Likewise; the numbers of samples may differ.
        method: ``gaussian``, the distance between the Gaussians with the same means and covariances: exact for
            Gaussians (floor 1e-15), a lower bound for all else. ``quantile``, the integral on the line, exact.
            ``exact``, optimal transport between samples; needs ``sdekit[ot]``, memory for n × m costs and roughly
            cubic time. Default: the first of them that is exact.

    Returns:
        The distance, not its square.

    Raises:
        SdekitError: event shapes that differ, NaN, no samples, an unknown method, or a pair that the method cannot do.

    References: [gelbrich1990].
    """
    if method is not None and method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    event = _event("a", a)
    check_events(event, _event("b", b))
    method = method or _default(a, b, event)
    if method == "quantile":
        return _on_the_line(a, b, event)
    if method == "exact":
        return _optimal_transport(_samples("a", a), _samples("b", b))
    if isinstance(a, Gaussian) and isinstance(b, Gaussian):
        return gaussian.between_gaussians(a, b)
    return gaussian.gaussian_wasserstein2(*_moments("a", a), *_moments("b", b))


def _event(name: str, a: Operand) -> torch.Size:
    """The event shape; things that only know their quantiles live on the line."""
    if isinstance(a, Tensor | Empirical):
        points(name, a)
        return event_of(a)
    if not (isinstance(a, line.Quantiles) or callable(a)):
        raise SdekitError(f"{name} must be a law, samples or a quantile function; got {type(a).__name__}.")
    shape: torch.Size = getattr(a, "event_shape", torch.Size())
    return shape


def _default(a: Operand, b: Operand, event: torch.Size) -> Method:
    if isinstance(a, Gaussian) and isinstance(b, Gaussian):
        return "gaussian"
    if event.numel() == 1:
        return "quantile"
    if isinstance(a, Tensor | Empirical) and isinstance(b, Tensor | Empirical):
        return "exact"
    raise SdekitError(
        f"W2 between {_kind(a)} and {_kind(b)} has no closed form in {event.numel()} dimensions: draw samples with "
        "law.sample(n), or take a lower bound: sliced_wasserstein2, or method='gaussian'."
    )


def _kind(a: Operand) -> str:
    return "samples" if isinstance(a, Tensor) else type(a).__name__


def _samples(name: str, a: Operand) -> Tensor:
    if not isinstance(a, Tensor | Empirical):
        raise SdekitError(f"method='exact' is between samples; {name} is a {_kind(a)}: use law.sample(n).")
    return points(name, a).cpu()


def _moments(name: str, a: Operand) -> tuple[Tensor, Tensor]:
    if isinstance(a, Gaussian | GaussianMixture):
        return gaussian.moments(a)
    if isinstance(a, Tensor | Empirical):
        return gaussian.moments(points(name, a))
    raise SdekitError(f"method='gaussian' needs a mean and a covariance; {name} is a {_kind(a)}.")


def _on_the_line(a: Operand, b: Operand, event: torch.Size) -> float:
    if event.numel() != 1:
        raise SdekitError(f"method='quantile' is for the line; the event shape is {tuple(event)}. Leave method out.")
    if isinstance(a, Tensor | Empirical) and isinstance(b, Tensor | Empirical):
        x, y = _samples("a", a), _samples("b", b)
        return math.sqrt(float(line.squared_by_columns(x, y)))
    return line.between_lines(_line(a), _line(b))


def _line(a: Operand) -> line.Line:
    if isinstance(a, Tensor | Empirical):
        return line.of_points(_samples("a", a).flatten().sort().values)
    return line.of_law(a) if isinstance(a, line.Quantiles) else line.of_function(a)


def _optimal_transport(x: Tensor, y: Tensor) -> float:
    try:
        import ot
    except ImportError as error:
        raise SdekitError(
            "Exact optimal transport between samples needs POT: pip install 'sdekit[ot]', or use sliced_wasserstein2."
        ) from error
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
    uniform = [torch.full((len(z),), 1.0 / len(z), dtype=torch.float64).numpy() for z in (x, y)]
    squared, log = ot.emd2(*uniform, cost.numpy(), numItermax=100_000_000, log=True, return_matrix=False)
    if log["warning"]:
        raise SdekitError(f"The network simplex did not finish on {len(x)} × {len(y)} points: {log['warning']}.")
    return math.sqrt(max(float(squared), 0.0))


Projectable: TypeAlias = Tensor | Empirical | Gaussian | GaussianMixture
"""Samples (n, \\*E), or a law whose projections are known."""


def sliced_wasserstein2(x: Projectable, y: Projectable, projections: int = 256, seed: int = 0) -> float:
    r"""$\bigl( \tfrac1P \sum_i W_2(\theta_i \cdot x,\; \theta_i \cdot y)^2 \bigr)^{1/2}$, a lower bound of W2.

    The directions are uniform on the sphere and a function of the seed alone: every call with one seed and one
    dimension compares along the same ones.

    Args:
        x: Samples, shape (n, \*E); or a Gaussian or a mixture, whose projections are exact (a mixture, or samples
            against a law, costs an integral over quantiles in every direction).
        y: Samples, shape (m, \*E), or such a law.
        projections: P, the number of directions.
        seed: Of the directions.

    Returns:
        The distance, not its square. (In d dimensions a shift by v counts as $|v|/\sqrt d$.)

    Raises:
        SdekitError: event shapes that differ, NaN, no samples, or no projections.

    References: [bonneel2015].
    """
    if projections < 1:
        raise SdekitError(f"projections must be at least 1; got {projections}.")
    if isinstance(x, Gaussian | GaussianMixture) or isinstance(y, Gaussian | GaussianMixture):
        return _sliced_with_laws(x, y, projections, seed)
    x, y = pair(x, y)
    directions = unit_directions(projections, x.shape[1], seed, x.device)
    some = max(1, _CHUNK // (len(x) + len(y)))
    squares = [line.squared_by_columns(x @ part.mT, y.to(x) @ part.mT) for part in torch.split(directions, some)]
    return math.sqrt(float(torch.cat(squares).mean()))


def _sliced_with_laws(x: Projectable, y: Projectable, projections: int, seed: int) -> float:
    """Direction by direction, since laws have no columns to sort."""
    events = _event("x", x), _event("y", y)
    check_events(*events)

    def along(z: Projectable, direction: Tensor) -> Operand:
        if isinstance(z, Gaussian | GaussianMixture):
            return projected(z, direction)
        return points("samples", z).cpu() @ direction

    squares = [
        wasserstein2(along(x, direction), along(y, direction)) ** 2
        for direction in unit_directions(projections, events[0].numel(), seed)
    ]
    return math.sqrt(math.fsum(squares) / projections)
