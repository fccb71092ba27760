r"""Methods of torchsde as steppers, so that they solve our problems and are held to the same tests.

A step is one call of ``torchsde.sdeint`` on [t₀, t₁], handed the increment as its Brownian motion. torchsde asks for
$U = \int_{t_0}^{t_1} (W_s - W_{t_0})\,ds = (t_1 - t_0)\,(H + W/2)$ where we speak of the Lévy area H.

References: [li2020torchsde].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from sdekit.brownian import Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError, unknown_name
from sdekit.steppers.base import Memory, Spec, Step, StepMethod, Stepper
from sdekit.typing import Calculus, Increments, NoiseType

Method = Literal["euler", "milstein", "srk", "heun", "midpoint", "euler_heun", "reversible_heun", "log_ode"]

_ITO = ("euler", "milstein", "srk")
_EVALUATIONS = {"srk": 2, "heun": 2, "midpoint": 2, "log_ode": 2}
# What torchsde declares, strong order by class of noise; the weak order is 1 but for srk.
_STRONG = {
    "euler": (1.0, 0.5, 0.5),
    "milstein": (1.0, 1.0, None),
    "srk": (1.5, 1.5, None),
    "reversible_heun": (1.0, 0.5, 0.5),
}
_MIDPOINT_LIKE = (1.0, 1.0, 0.5)
_CLASSES = (("linear-additive", "additive"), ("diagonal",), ("general", "commutative"))
_TYPES: dict[str, frozenset[NoiseType]] = {
    "linear-additive": frozenset({"additive"}),
    "diagonal": frozenset({"diagonal", "scalar"}),
    "general": frozenset({"general", "commutative"}),
}


def stepper(method: str, calculus: Calculus | None = None) -> Stepper:
    """A method of torchsde; what its spec declares is what torchsde declares.

    Args:
        method: ``euler``, ``milstein`` and ``srk`` (Itô), ``heun``, ``midpoint``, ``euler_heun``, ``reversible_heun``
            and ``log_ode`` (Stratonovich).
        calculus: ``stratonovich`` for the other Milstein method.

    Raises:
        SdekitError: an unknown method, or one that has no form in this calculus.
    """
    if method not in get_args(Method):
        raise unknown_name("method of torchsde", method, get_args(Method))
    own: Calculus = "ito" if method in _ITO else "stratonovich"
    chosen = calculus or own
    if chosen != own and method != "milstein":
        raise SdekitError(f"torchsde's {method} is a method of {own} calculus; got calculus={chosen!r}.")
    orders = dict(zip(_CLASSES, _STRONG.get(method, _MIDPOINT_LIKE), strict=True))
    # log_ode asks for the area of noises that do not commute, which no path of ours knows.
    known = {
        names: p for names, p in orders.items() if p is not None and not (method == "log_ode" and "general" in names)
    }
    strong = {name: p for names, p in known.items() for name in names}
    kind: Increments = "space-time" if method == "srk" else "w"

    class TorchsdeMethod(_TorchsdeMethod):
        spec: ClassVar[Spec] = Spec(
            name=f"torchsde.{method}",
            summary=f"torchsde's {method}, {chosen} calculus",
            references=("li2020torchsde",),
            kind="step",
            evaluations=_EVALUATIONS.get(method, 1),
            strong=strong,
            weak=dict.fromkeys(strong, 1.5 if method == "srk" else 1.0),
            noise_types=frozenset().union(*(_TYPES[names[0]] for names in known)),
            calculus=frozenset({chosen}),
            increments=kind,
            eta=(0.0, float("inf")),
        )

    return TorchsdeMethod(method, chosen)


class _TorchsdeMethod(StepMethod):
    """One call of ``sdeint`` a step; what reversible Heun carries along is the memory."""

    def __init__(self, method: str, calculus: Calculus) -> None:
        self._method, self._calculus = method, calculus

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        import torchsde

        assert increment is not None
        fields = _Fields.of(sde, self._calculus, x)
        path = _OneIncrement(t0, t1, fields.noise_type, increment)
        states, extra = torchsde.sdeint(
            fields,
            x.flatten(1),
            torch.tensor([t0, t1], dtype=torch.float64),
            bm=path,
            method=self._method,
            dt=2.0 * (t1 - t0),  # longer than the interval: one step, which ends at t1 to the last bit
            extra=True,
            extra_solver_state=memory,
        )
        return Step(states[-1].reshape(x.shape), extra)


@final
@dataclass(frozen=True)
class _Fields:
    """An SDE in the words of torchsde, on flattened states."""

    sde: SDE
    event: torch.Size
    noise_type: str
    sde_type: str

    @classmethod
    def of(cls, sde: SDE, calculus: Calculus, x: Tensor) -> _Fields:
        # Coordinates with a noise of their own; torchsde's "additive" is a matrix.
        kind = "general" if sde.noise_type == "commutative" else sde.noise_type
        return cls(sde, x.shape[1:], kind, calculus)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.sde.drift(float(t), y.reshape(-1, *self.event)).flatten(1)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        x = y.reshape(-1, *self.event)
        g = self.sde.diffusion(float(t), x)
        if self.noise_type == "diagonal":
            return g.reshape(y.shape)
        if self.noise_type == "scalar":
            return g.reshape(*y.shape, 1)
        return torch.diag_embed(g.flatten(1)) if g.shape == x.shape else g.reshape(*y.shape, -1)


@final
class _OneIncrement:
    """A Brownian motion that knows one interval, as torchsde asks for it."""

    def __init__(self, t0: float, t1: float, noise_type: str, increment: Increment) -> None:
        self._ends, self._w = (t0, t1), increment.w.flatten(1)
        self._h = None if increment.space_time is None else increment.space_time.flatten(1)
        # Columns of a diagonal or additive field commute: the area is there for the asking and multiplies nothing.
        self.levy_area_approximation = "foster"
        self._noise_type = noise_type
        self.shape = self._w.shape

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        if (float(ta), float(tb)) != self._ends:
            raise SdekitError(f"torchsde asks for the path over [{ta}, {tb}] in a step over {list(self._ends)}.")
        found = [self._w]
        if return_U:
            assert self._h is not None
            found.append((self._ends[1] - self._ends[0]) * (self._h + 0.5 * self._w))
        if return_A:
            found.append(self._w.new_zeros(*self.shape, self.shape[1]))
        return found[0] if len(found) == 1 else tuple(found)
