r"""Methods of torchsde as steppers, so that they solve our problems and are held to the same tests.

A step is one call of ``torchsde.sdeint`` on [t₀, t₁], handed the increment as its Brownian motion. torchsde asks for
$U = \int_{t_0}^{t_1} (W_s - W_{t_0})\,ds = (t_1 - t_0)\,(H + W/2)$ where we speak of the Lévy area H. Before it begins
it looks at the shape of an answer of either field. It is shown one of NaN, so that the fields are asked for steps only.

With a controller the run is torchsde's own: a step and its two halves, their difference in units of
$\mathrm{atol} + \mathrm{rtol}\,|x|$, its root mean square over the whole batch, and one step size for all, on our path
(:mod:`sdekit.interop.brownian_interval`).

Gradients pass. Where they are recorded, ``milstein`` and ``log_ode`` derive the diffusion by a graph of their own, so
that the solution requires a gradient whether anything in it does or not: sample under ``torch.no_grad()``.

References: [li2020torchsde].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from sdekit.adaptive.whole_run import Cut, Leg, Watch, WholeRun
from sdekit.brownian import BrownianTree, Increment
from sdekit.controllers import PID
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError, unknown_name
from sdekit.interop.brownian_interval import BrownianInterval
from sdekit.interop.torchsde_fields import Flattened, Form
from sdekit.solution import Status
from sdekit.steppers.base import Memory, Prepared, Spec, Step, Stepper, step_by_step
from sdekit.typing import Calculus, Increments, NoiseType

Method = Literal["euler", "milstein", "srk", "heun", "midpoint", "euler_heun", "reversible_heun", "log_ode"]

_ITO = ("euler", "milstein", "srk")
_EVALUATIONS = {"srk": 10, "heun": 2, "midpoint": 2, "log_ode": 2}  # of the drift; srk: 3 where noise is additive
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
_INCREMENTS: dict[str, Increments] = {"srk": "space-time", "log_ode": "full"}


def stepper(method: str, *, areas: bool = True) -> Stepper:
    """A method of torchsde; what its spec declares is what torchsde declares.

    Args:
        method: ``euler`` and ``srk`` (Itô); ``heun``, ``midpoint``, ``euler_heun``, ``reversible_heun`` and ``log_ode``
            (Stratonovich); ``milstein``, which has a form in either calculus.
        areas: Whether ``log_ode`` draws the Lévy areas of pairs of noises. Without, it takes noises that commute, where
            they would multiply nothing.

    Raises:
        SdekitError: an unknown method.
    """
    if method not in get_args(Method):
        raise unknown_name("method of torchsde", method, get_args(Method))
    of_calculus: frozenset[Calculus] = frozenset({"ito" if method in _ITO else "stratonovich"})
    orders = dict(zip(_CLASSES, _STRONG.get(method, _MIDPOINT_LIKE), strict=True))
    blind = method == "log_ode" and not areas
    known = {names: p for names, p in orders.items() if p is not None and not (blind and "general" in names)}
    strong = {name: p for names, p in known.items() for name in names}

    class TorchsdeMethod(_TorchsdeMethod):
        __doc__ = _TorchsdeMethod.__doc__
        spec: ClassVar[Spec] = Spec(
            name=f"torchsde:{method}",
            summary=f"torchsde's {method}",
            references=("li2020torchsde",),
            kind="step",
            evaluations=_EVALUATIONS.get(method, 1),
            strong=strong,
            weak=dict.fromkeys(strong, 1.5 if method == "srk" else 1.0),
            noise_types=frozenset().union(*(_TYPES[names[0]] for names in known)),
            calculus=frozenset(get_args(Calculus)) if method == "milstein" else of_calculus,
            increments="w" if blind else _INCREMENTS.get(method, "w"),
            eta=(0.0, float("inf")),
            remembers=method == "reversible_heun",
        )

    return TorchsdeMethod(method)


class _TorchsdeMethod(WholeRun):
    """A step of torchsde, by one call of its ``sdeint``; with a controller a whole run, by torchsde's own steps."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __repr__(self) -> str:
        return f"torchsde.stepper({self._method!r})"

    def prepare(self, sde: SDE, times: Sequence[float]) -> Prepared:
        return step_by_step(self.step, sde, times)

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        """One step, as of a :class:`~sdekit.steppers.StepMethod`; it cannot be traced, so it is none."""
        import torchsde

        assert increment is not None
        path = _OneIncrement(t0, t1, increment)
        states, extra = torchsde.sdeint(
            _Shown(self._told(sde, x), (t0, t1), path.shape),
            x.flatten(1),
            torch.tensor([t0, t1], dtype=torch.float64),
            bm=path,
            method=self._method,
            dt=2.0 * (t1 - t0),  # longer than the interval: one step, which ends at t1 to the last bit
            extra=True,
            extra_solver_state=memory,
        )
        return Step(states[-1].reshape(x.shape), extra)

    def leg(
        self,
        sde: SDE,
        ends: tuple[float, float],
        start: Leg,
        path: BrownianTree | None,
        backwards: bool,
        controller: PID,
        watch: Watch,
    ) -> Leg:
        import torchsde

        assert path is not None
        bm = _Watched(path, backwards, start.x.dtype, watch)
        try:
            states, extra = torchsde.sdeint(
                _Shown(self._told(sde, start.x), ends, bm.shape),
                start.x.flatten(1),
                torch.tensor(ends, dtype=torch.float64),
                bm=bm,
                method=self._method,
                dt=start.step,
                adaptive=True,
                rtol=controller.rtol,
                atol=controller.atol,
                dt_min=0.0,  # it would accept whatever it gets there
                extra=True,
                extra_solver_state=start.memory,
            )
        except AssertionError as error:
            raise Cut(Status.NON_FINITE) if "Found nans" in str(error) else error from error
        watch.accepted += 1  # the last one, which no step follows
        return Leg(states[-1].reshape(start.x.shape), bm.uncut or start.step, extra)

    def _told(self, sde: SDE, x: Tensor) -> Flattened:
        """The SDE in the calculus of the method, which is its own unless the noise is additive."""
        only = self.spec.calculus
        return Flattened(sde, x.shape[1:], sde.calculus if sde.calculus in only else next(iter(only)))


@final
class _Shown:
    """An SDE for one run of torchsde, which stays in its interval and shows a shape before it is asked."""

    def __init__(self, told: Flattened, ends: tuple[float, float], noise: torch.Size) -> None:
        self._told, self._ends, self._noise = told, ends, noise
        self.noise_type: Form = told.noise_type
        self.sde_type: Calculus = told.sde_type
        self._shown = {"f": False, "g": False}

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self._told.f(self._time(t), y) if self._seen("f") else y.new_full(y.shape, torch.nan)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        if self._seen("g"):
            return self._told.g(self._time(t), y)
        return y.new_full(y.shape if self.noise_type == "diagonal" else (*y.shape, self._noise[1]), torch.nan)

    def _seen(self, field: str) -> bool:
        before, self._shown[field] = self._shown[field], True
        return before

    def _time(self, t: Tensor) -> float:
        return min(max(float(t), self._ends[0]), self._ends[1])


@final
class _OneIncrement:
    """A Brownian motion that knows one interval, as torchsde asks for it."""

    def __init__(self, t0: float, t1: float, increment: Increment) -> None:
        self._ends, self._w, self._increment = (t0, t1), increment.w.flatten(1), increment
        # Columns of a diagonal or additive field commute: the area is there for the asking and multiplies nothing.
        self.levy_area_approximation = "foster"
        self.shape = self._w.shape

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        if (float(ta), float(tb)) != self._ends:
            raise SdekitError(f"torchsde asks for the path over [{ta}, {tb}] in a step over {list(self._ends)}.")
        found = [self._w]
        if return_U:
            found.append((self._ends[1] - self._ends[0]) * (self._increment.h.flatten(1) + 0.5 * self._w))
        if return_A:
            known = self._increment.areas is not None
            found.append(self._increment.area if known else self._w.new_zeros(*self.shape, self.shape[1]))
        return found[0] if len(found) == 1 else tuple(found)


@final
class _Watched:
    """Our path for an adaptive run, which asks for a step and then for its halves."""

    def __init__(self, path: BrownianTree, backwards: bool, dtype: torch.dtype, watch: Watch) -> None:
        self._path, self._dtype, self._watch = BrownianInterval(path, backwards), dtype, watch
        self.levy_area_approximation = "foster"  # as in _OneIncrement
        self.shape = self._path.shape
        self._asked, self._start, self._length = 0, math.nan, 0.0
        self.uncut = 0.0
        """The length of the step before the last, which the end cut."""

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        if self._asked % 3 == 0:
            start, length = float(ta), float(tb) - float(ta)
            self._watch.attempt(length)
            self._watch.accepted += self._asked > 0 and start != self._start
            self._start, self.uncut, self._length = start, self._length, length
        self._asked += 1
        asked = self._path(ta, tb, return_U)
        found = [part.to(self._dtype) for part in (asked if return_U else (asked,))]
        if return_A:
            found.append(found[0].new_zeros(*self.shape, self.shape[1]))
        return found[0] if len(found) == 1 else tuple(found)
