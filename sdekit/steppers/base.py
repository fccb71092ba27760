"""What a stepper is, and what it declares about itself.

All that the driver sees is ``stepper.prepare(sde, times) -> Prepared`` and
``advance(k, x, increments, memory) -> (x, memory)``. Noise is data: it enters as an argument and is never drawn
inside. A :class:`StepMethod` writes one step of an SDE; a :class:`~sdekit.steppers.plan.PlannedStepper` writes a
table of coefficients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from sdekit.brownian import Increment, Interval
from sdekit.dynamics import SDE, Reflected
from sdekit.fresh import Fresh
from sdekit.typing import Calculus, Increments, NoiseType

Memory = Any
"""What a multistep method carries from step to step; None before the first."""

Advance = Callable[[int, Tensor, Sequence[Increment], Memory], tuple[Tensor, Memory]]

End = Literal["noiseless", "signalless"]

ALL_NOISE: frozenset[NoiseType] = frozenset(("none", "additive", "scalar", "diagonal", "commutative", "general"))


@dataclass(frozen=True)
class Spec:
    """Declared facts. Tests, the solver table, the benchmarks and the command line are made from them.

    Orders are given per problem class: ``linear-additive``, ``additive``, ``diagonal``, ``commutative``,
    ``general``; a missing class is one that the method does not integrate. Scalar noise is commutative. A method
    that is exact in law has weak order infinity.
    """

    name: str
    """Name in the registry."""
    summary: str
    """One line for tables."""
    references: tuple[str, ...]
    """Keys of ``docs/references.bib``."""
    kind: Literal["step", "plan", "exact", "chain"]
    """Which driver form it takes; ``exact`` has no discretisation error. A ``chain`` draws normals beside the Brownian
    path, and so is random on a flow too: its orders are those of laws, if it has any, and ``weak`` says them."""
    evaluations: int
    """Drift (or network) evaluations per step."""
    ode: float | None = None
    """Order on an ODE."""
    strong: Mapping[str, float] = field(default_factory=dict)
    """Strong orders by problem class."""
    weak: Mapping[str, float] = field(default_factory=dict)
    """Weak orders by problem class; on linear additive problems also the order of W2."""
    noise_types: frozenset[NoiseType] = frozenset({"none"})
    """Noise types that it integrates."""
    calculus: frozenset[Calculus] = frozenset({"ito"})
    """Calculi that it integrates; with additive noise the two agree."""
    increments: Increments = "w"
    """What it asks of the noise: increments; ``space-time`` Lévy areas beside them; ``full`` ones of pairs of noises
    too; or, for a weak method, ``three-point`` variables with the first five moments of an increment, and ``two-point``
    ones beside these."""
    eta: tuple[float, float] = (0.0, 0.0)
    """Range of η that it integrates on a reverse problem."""
    needs_schedule: bool = False
    """Whether it is written in λ, so that it needs a reverse problem of a process with a schedule."""
    needs_langevin: bool = False
    """Whether it samples the target of a :class:`sdekit.Langevin` diffusion, and nothing else."""
    min_steps: int = 1
    """The least number of steps that it can take: p for a p-step method."""
    remembers: bool = False
    """Whether a step of a state-dependent noise goes on from more than the state, so that errors are had on paths."""
    safe_at: frozenset[End] = frozenset()
    """The singular ends of a schedule that it may stand on: ``noiseless`` (σ = 0), ``signalless`` (α = 0)."""
    alias: str | None = None
    """The stepper whose plan it is, where it is another name for one."""


@dataclass(frozen=True)
class Prepared:
    """A stepper bound to a problem and its times: what each step draws, and how it advances."""

    draws: Sequence[Sequence[Interval]]
    advance: Advance
    noise_like_state: bool = False
    """Whether it wants noise of the state's shape, whatever noise drives the SDE."""
    fresh: Sequence[Sequence[Fresh]] = ()
    """What each step of a chain draws beside the path; it comes after the increments of the step."""
    report: Callable[[Memory], Mapping[str, Tensor]] | None = None
    """Diagnostics with an entry per sample, from what the last step left behind."""


class Stepper(ABC):
    """A numerical method. Stateless: all that a run needs is in what :meth:`prepare` returns."""

    spec: ClassVar[Spec]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        """Bind to a problem and to strictly monotone times (host float64)."""


class Step(NamedTuple):
    """The state after a step, and what the next step wants to know of it."""

    x: Tensor
    memory: Memory = None


class StepMethod(Stepper):
    """A method given by one step. It only ever sees t0 < t1."""

    @abstractmethod
    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        """One step from t0 to t1 > t0.

        Args:
            sde: The dynamics, in a clock that runs forwards.
            t0: Start of the step.
            t1: End of the step.
            x: State (B, *E).
            increment: The Brownian increment over the step; None when there is no noise.
            memory: What the last step left behind; None at the start.
        """

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        return step_by_step(self.step, sde, times)


def step_by_step(step: Callable[..., Step], sde: SDE, times: Sequence[float]) -> Prepared:
    """A run whose steps go forwards, with an increment each.

    Args:
        step: As :meth:`StepMethod.step`.
        sde: The problem.
        times: Of the run, in either direction.
    """
    backwards = times[0] > times[-1]
    clock = [-t for t in times] if backwards else list(times)
    dynamics = Reflected(sde) if backwards else sde
    noisy = sde.noise_type != "none"
    draws = [((s, t),) if noisy else () for s, t in pairwise(times)]

    def advance(k: int, x: Tensor, increments: Sequence[Increment], memory: Memory) -> tuple[Tensor, Memory]:
        increment = increments[0] if increments else None
        return step(dynamics, clock[k], clock[k + 1], x, increment, memory)

    return Prepared(draws, advance)


class EmbeddedMethod(StepMethod):
    """A method whose step also says how far it may be off, so that a controller can choose its length."""

    @abstractmethod
    def pair(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None) -> tuple[Tensor, Tensor]:
        """The state after a step, and its difference from a method of lower order that costs no evaluation more."""

    def estimate_order(self, noise_type: NoiseType) -> float:
        r"""k, if the difference is of order $h^k$: 3/2 between strong orders 1 and 3/2, and 2 without noise."""
        return 2.0 if noise_type == "none" else 1.5
