"""What a problem is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sdekit.brownian import GridPath, Levy
from sdekit.dynamics import SDE
from sdekit.laws import Gaussian, Law
from sdekit.linear import LinearProcess
from sdekit.metrics.line import Quantiles
from sdekit.reverse import Reverse

NoiseClass = Literal["none", "linear-additive", "additive", "diagonal", "commutative", "general"]
"""Classes of problems on which a Spec declares orders."""

PathSolution = Callable[[Tensor, GridPath], Tensor]
"""``(x0, path) -> x``: the mean of the solution at the end, given the start and the path at its nodes."""


@dataclass(frozen=True)
class LinearCoefficients:
    r"""$dX = (A X + a)\,dt + \sum_i (B_i X + b_i)\,dW_i$ in d dimensions with m noises, all float64.

    Attributes:
        A: Shape (d, d).
        a: Shape (d,).
        B: Shape (m, d, d).
        b: Shape (m, d).
    """

    A: Tensor
    a: Tensor
    B: Tensor
    b: Tensor


@dataclass(frozen=True)
class WeakAnswer:
    """Smooth functionals of the final state with their exact means.

    Attributes:
        functional: States (B, *E) to values (B, m).
        expectation: Exact means, shape (m,), float64.
    """

    functional: Callable[[Tensor], Tensor]
    expectation: Tensor


@dataclass(frozen=True)
class Problem:
    r"""An SDE with an exact answer.

    Attributes:
        name: Name in the registry.
        summary: One line for tables.
        detects: The mistake that this problem brings to light.
        sde: The dynamics.
        initial: Law of the state at the first time of the grid.
        grid: ``grid(steps)``, the times.
        law: Exact law at the last time, where it is known.
        path: The solution at the last time on the same Brownian path: its mean given the path at the nodes,
            which is the solution itself where they determine it.
        unresolved: Mean square distance of the solution from ``path``, given the nodes; None for zero.
        levy: What ``path`` has to know of the Brownian path beside its increments.
        resolved: What it has to know so that ``path`` is the solution and nothing is left unresolved, if that helps.
        flow: Exact solution of a deterministic problem at the last time, where it is known.
        linear: Coefficients of a linear SDE, whose strong and weak errors are then exact.
        weak: Functionals of the state at the last time with their exact means.
        smooth: Whether the fields are smooth where the solution goes, as every theory of orders assumes.
    """

    name: str
    summary: str
    detects: str
    sde: SDE
    initial: Law
    grid: Callable[[int], Tensor]
    law: Law | Quantiles | None = None
    path: PathSolution | None = None
    unresolved: Callable[[Sequence[float]], float] | None = None
    levy: Levy = "none"
    resolved: Levy | None = None
    flow: Callable[[Tensor], Tensor] | None = None
    linear: LinearCoefficients | None = None
    weak: WeakAnswer | None = None
    smooth: bool = True

    def left(self, path: GridPath) -> float:
        """Mean square distance of the solution from what ``path`` gives on this Brownian path."""
        if self.unresolved is None or path.levy == self.resolved:
            return 0.0
        return self.unresolved(path.times)

    @property
    def noise_class(self) -> NoiseClass:
        """The class under which a Spec declares its orders; scalar noise is commutative."""
        if self.sde.noise_type == "scalar":
            return "commutative"
        if self.sde.noise_type != "additive":
            return self.sde.noise_type
        return "linear-additive" if self.affine else "additive"

    @property
    def affine(self) -> bool:
        """Whether the drift is known to be affine and the noise additive, so that laws stay Gaussian."""
        if self.sde.noise_type not in ("none", "additive"):
            return False
        if isinstance(self.sde, Reverse):
            return self.sde.score.affine
        return self.linear is not None or isinstance(self.sde, LinearProcess) or self.gaussian

    @property
    def gaussian(self) -> bool:
        """Whether both ends have Gaussian laws."""
        return isinstance(self.initial, Gaussian) and isinstance(self.law, Gaussian)
