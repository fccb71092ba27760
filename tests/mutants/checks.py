"""The checks of the engine, each as one question that a stepper passes or fails.

None of them takes a crash, or an order that could not be measured, for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from golden.cases import CASES, deviation, golden_map, reverse_sde
from torch import Tensor

import sdekit as sk
from mutants.base import Check
from sdekit import problems
from sdekit.steppers import Stepper
from sdekit.verify import Claim, affine_map, checks, conditions, linear_errors
from sdekit.verify.claims import declared_order
from sdekit.verify.conformance import ViolationError
from sdekit.verify.conformance.exactness import checks as exactness

COARSE = (16, 32, 64, 128, 256)


def golden(eta: float, least: float = 1e-4) -> Check:
    """The golden law of the method that the stepper says it is, on 16 jagged steps of VP.

    What is wrong must be so by more than ``least``, what is right is so to 1e-12.
    """
    case = CASES["VP"]
    times = case.grid(16)

    def passes(stepper: Stepper) -> bool:
        off = deviation(reverse_sde(case, eta), stepper, times, golden_map(stepper.spec.name, case, eta, times))
        assert not 1e-12 <= off <= least, f"neither right nor clearly wrong: {off:.2g}"
        return off < 1e-12

    return Check(f"golden/eta={eta:g}", passes)


def claim(
    kind: str, problem: str, eta: float | None = None, steps: Sequence[int] = COARSE, *, jagged: bool = False
) -> Check:
    """The order that the Spec declares, on a problem of the library."""
    made = problems.get(problem, **({} if eta is None else {"eta": eta}))

    def passes(stepper: Stepper) -> bool:
        declared = declared_order(stepper.spec, made, kind)
        assert declared is not None, f"{stepper.spec.name} declares no order on {problem}"
        about = Claim(kind, problem, eta, *declared, method="", jagged=jagged)
        found = about.measure(stepper, steps)
        verdict = found.verdict(about.declared)
        assert verdict != "inconclusive", f"{found} is no measurement: {found.errors}"
        return about.holds(found)

    return Check(f"order/{Claim(kind, problem, eta, '', 0.0, '', jagged).name}", passes)


def conformance(name: str) -> Check:
    """One check of the conformance suite."""

    def passes(stepper: Stepper) -> bool:
        every = exactness(stepper) if name.startswith("exact/") else checks(stepper)
        (check,) = (check for check in every if check.name == name)
        try:
            check.run()
        except ViolationError:
            return False
        return True

    return Check(f"conformance/{name}", passes)


def order_conditions(stepper: Stepper) -> bool:
    """The algebraic conditions on its tableau, in exact arithmetic."""
    tableau = stepper.tableau
    order = getattr(tableau, "ode", None) or int(stepper.spec.ode)
    return all(residual == 0 for residual in conditions.residuals(tableau, order).values())


def least_error(stepper: Stepper) -> bool:
    """No method that sees W and H of 8 steps is nearer to an iterated integral: the constant √(T h/12)."""
    found = linear_errors(problems.get("heisenberg"), stepper, 8)
    assert found.strong is not None
    assert found.optimum is not None
    ratio = found.strong / found.optimum
    assert ratio > 1 - 1e-9, "better than the best: the measurement is wrong"
    return ratio < 1 + 1e-9


def accepted(stepper: Stepper) -> bool:
    """The affine probe does not refuse the run."""
    case = CASES["VP"]
    try:
        affine_map(reverse_sde(case, 1.0), stepper, case.grid(16), (3,))
    except sk.SdekitError as error:
        if "not affine" not in str(error):
            raise
        return False
    return True


def within(stepper: Stepper) -> bool:
    """The field is not asked outside of [0, 1], whatever the number of steps: not by one rounding."""
    asked: list[float] = []

    def drift(t: float, x: Tensor) -> Tensor:
        asked.append(t)
        return x

    x = torch.ones(1, 1, dtype=torch.float64)
    for n in range(1, 50):
        asked.clear()
        sk.solve(sk.sde(drift), x, torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64), stepper)
        if min(asked) < 0.0 or max(asked) > 1.0:
            return False
    return True


def no_step(run: Callable[[sk.dynamics.SDE, Tensor, list[float]], Tensor]) -> bool:
    """A time that stands twice in a grid changes nothing: of a way to run DPM-Solver++."""
    case = CASES["VP"]
    sde, times, x = reverse_sde(case, 0.0), case.grid(6), torch.ones(2, 3, dtype=torch.float64)
    return torch.equal(run(sde, x, times), run(sde, x, [*times[:3], *times[2:]]))


def flow_of_geometric_motion(flow: sk.dynamics.SDE) -> bool:
    """The probability flow of dx = μ x dt + s x dW keeps the quantiles of log x: RK4 does so to 1e-7."""
    (m0, v0), (m1, v1) = GEOMETRIC.moments(0.0), GEOMETRIC.moments(1.0)
    z = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    x = sk.solve(flow, torch.exp(m1 + v1**0.5 * z), torch.linspace(1.0, 0.0, 65, dtype=torch.float64), "rk4").final
    return float((torch.log(x) - m0 - v0**0.5 * z).abs().max()) < 1e-7


class GEOMETRIC:
    """Geometric Brownian motion from a lognormal law."""

    mu, s = 0.5, 0.8
    process = sk.sde(lambda t, x: 0.5 * x, lambda t, x: 0.8 * x)

    @classmethod
    def moments(cls, t: float) -> tuple[float, float]:
        """Mean and variance of log x."""
        return 0.2 + (cls.mu - cls.s**2 / 2) * t, 0.3 + cls.s**2 * t

    @classmethod
    def score(cls, t: float, x: Tensor) -> Tensor:
        mean, variance = cls.moments(t)
        return -(1.0 + (torch.log(x) - mean) / variance) / x


def moments(*wanted: float) -> Check:
    """Even moments of standardised variables, 50 000 of them; a false alarm has probability 1e-6 per moment."""

    def passes(draw: Callable[[int], Tensor]) -> bool:
        z = draw(50_000).double().flatten()
        powers = [z ** (2 * k) for k in range(1, len(wanted) + 1)]
        scores = [float((p.mean() - w) / (p.std() / len(p) ** 0.5)) for p, w in zip(powers, wanted, strict=True)]
        return max(map(abs, scores)) < 4.9

    return Check("moments", passes)


CONDITIONS = Check("conditions", order_conditions)
LEAST_ERROR = Check("strong/heisenberg/constant", least_error)
ACCEPTED = Check("refused by the probe", accepted)
WITHIN = Check("within the grid", within)
NO_STEP = Check("repeated times", no_step)
FLOW = Check("exact flow/lognormal", flow_of_geometric_motion)
