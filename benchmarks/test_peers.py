"""sdekit beside torchsde, torchdiffeq and torchode, on the same problem, in the same run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit as sk
from benchmarks.contests import Call, Contest, Make, Setting, rows
from sdekit.interop.brownian_interval import BrownianInterval


class OU(torch.nn.Module):
    """dx = −x dt + dW, as torchsde wants it."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return -y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.ones_like(y)


def torchsde_euler(known_step: bool) -> Make:
    """Euler–Maruyama; ``known_step`` tells torchsde's Brownian motion the step, its own advice for speed."""

    def make(s: Setting) -> tuple[Call, Call]:
        import torchsde

        x, dt, sde = s.state(), 1.0 / s.steps, OU()
        grid = torch.linspace(0.0, 1.0, s.steps + 1)
        ts = torch.tensor([0.0, 1.0], dtype=s.dtype, device=s.device)
        general = sk.sde(lambda t, y: -y, lambda t, y: torch.ones_like(y), noise_type="additive")

        def theirs() -> None:
            bm = None
            if known_step:
                bm = torchsde.BrownianInterval(0.0, 1.0, x.shape, dtype=s.dtype, device=s.device, dt=dt)
            torchsde.sdeint(sde, x, ts, bm=bm, method="euler", dt=dt)

        return lambda: sk.solve(general, x, grid, "euler-maruyama", noise=0), theirs

    return make


def torchsde_on_our_path(known_step: bool) -> Make:
    """torchsde's Euler–Maruyama on a path of ours, and on its own."""

    def make(s: Setting) -> tuple[Call, Call]:
        import torchsde

        x, dt, sde = s.state(), 1.0 / s.steps, OU()
        ts = torch.tensor([0.0, 1.0], dtype=s.dtype, device=s.device)
        step = {"dt": dt} if known_step else {}

        def run(kind: Any, **options: Any) -> None:
            bm = kind(0.0, 1.0, tuple(x.shape), dtype=s.dtype, device=s.device, **step, **options)
            torchsde.sdeint(sde, x, ts, bm=bm, method="euler", dt=dt)

        return lambda: run(BrownianInterval.seeded, seed=0), lambda: run(torchsde.BrownianInterval)

    return make


def fixed_grid(ours: str, theirs: str) -> Make:
    """A Runge–Kutta method on the linear ODE dx = −x dt."""

    def make(s: Setting) -> tuple[Call, Call]:
        import torchdiffeq

        x, field = s.state(), lambda t, y: -y
        grid = torch.linspace(0.0, 1.0, s.steps + 1, dtype=torch.float64)
        times, ode = grid.to(s.device, s.dtype), sk.sde(field)
        return lambda: sk.solve(ode, x, grid, ours), lambda: torchdiffeq.odeint(field, x, times, method=theirs)

    return make


def rotor(t: Tensor, x: Tensor) -> Tensor:
    """Coordinates i and −i turn about one another, and each is drawn to ±1: a limit cycle, so steps stay short."""
    half = x.shape[-1] // 2
    turned = torch.cat([x[:, half:], x[:, :half].neg()], 1)
    return torch.addcmul(turned, x, x * x, value=-1.0).add_(x)


def adaptive(rival: Call) -> Make:
    """dopri5 with a tolerance, per evaluation; ``rival`` makes their run from the field, x and the last time."""

    def make(s: Setting) -> tuple[Call, Call]:
        x, last, asked = s.state(), 10.0, [0]

        def field(t: Tensor, y: Tensor) -> Tensor:
            asked[0] += 1
            return rotor(t, y)

        ode, control = sk.sde(field), sk.PID(_RTOL, _ATOL)
        theirs = rival(field, x, last)

        def counted(run: Call) -> Call:
            def call() -> int:
                asked[0] = 0
                run()
                return asked[0]

            return call

        return counted(lambda: sk.solve(ode, x, [0.0, last], "dopri5", controller=control)), counted(theirs)

    return make


def by_torchdiffeq(field: Call, x: Tensor, last: float) -> Call:
    import torchdiffeq

    times = torch.tensor([0.0, last], dtype=x.dtype, device=x.device)
    return lambda: torchdiffeq.odeint(field, x, times, rtol=_RTOL, atol=_ATOL, method="dopri5")


def by_torchode(field: Call, x: Tensor, last: float) -> Call:
    import torchode

    term = torchode.ODETerm(field)
    control = torchode.IntegralController(atol=_ATOL, rtol=_RTOL, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
    ends = (torch.full((len(x),), t, dtype=x.dtype, device=x.device) for t in (0.0, last))
    problem = torchode.InitialValueProblem(x, *ends)
    return lambda: solver.solve(problem)


_RTOL, _ATOL = 1e-5, 1e-6
_IMAGES = (64, 3, 32, 32)
_SDE = "Euler-Maruyama"

# Add a row here. torchsde without dt costs 0.1 ms a step up to 50 steps and at 100 steps, which its search tree meets
# badly, 10 ms; that is the number of steps which the target was set on.
SDE_CONTESTS = [
    Contest(_SDE, "torchsde", torchsde_euler(False), (1000, 1), steps=100, target=1 / 200, needs="torchsde"),
    Contest(_SDE, "torchsde dt", torchsde_euler(True), (1000, 1), steps=100, target=1 / 4, needs="torchsde"),
    Contest(_SDE, "torchsde", torchsde_euler(False), (64, 3072), steps=20, needs="torchsde", full=True),
    Contest(_SDE, "torchsde dt", torchsde_euler(True), (64, 3072), steps=20, needs="torchsde", full=True),
]

_PATH = "torchsde on our path"

# The same loop on either side: what differs is the Brownian motion.
PATH_CONTESTS = [
    Contest(_PATH, "torchsde dt", torchsde_on_our_path(True), (1000, 1), steps=100, target=0.7, needs="torchsde"),
    Contest(_PATH, "torchsde", torchsde_on_our_path(False), (1000, 1), steps=100, needs="torchsde", full=True),
]

# Add a method here: our name, torchdiffeq's. It becomes a row once it is registered.
ODE_METHODS = [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2"), ("rk4", "rk4")]

ODE_CONTESTS = [
    Contest(ours, "torchdiffeq", fixed_grid(ours, theirs), shape, steps=50, needs="torchdiffeq", full=shape == _IMAGES)
    for ours, theirs in ODE_METHODS
    if ours in sk.STEPPERS
    for shape in ((1000, 1), _IMAGES)
]


# Times are per evaluation, and a field of a few operations is part of them: 9 µs at 1000x2, 90 µs at 64x3072.
ADAPTIVE_CONTESTS = [
    Contest("adaptive dopri5", name, adaptive(rival), shape, steps=1, target=target, needs=name, counted=True)
    for name, rival, targets in (
        ("torchdiffeq", by_torchdiffeq, (0.45, 0.3)),
        ("torchode", by_torchode, (0.5, 0.75)),
    )
    for shape, target in zip(((1000, 2), (64, 3072)), targets, strict=True)
]


@pytest.mark.parametrize("contest", rows(SDE_CONTESTS + PATH_CONTESTS + ODE_CONTESTS + ADAPTIVE_CONTESTS))
def test_peer(timed: Any, contest: Contest, dtype: torch.dtype, device: torch.device) -> None:
    contest.hold(timed, dtype, device)
