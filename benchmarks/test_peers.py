"""sdekit beside torchsde and torchdiffeq, on the same problem, in the same run."""

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
ODE_METHODS = [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2"), ("rk4", "rk4"), ("dopri5", "dopri5")]

ODE_CONTESTS = [
    Contest(ours, "torchdiffeq", fixed_grid(ours, theirs), shape, steps=50, needs="torchdiffeq", full=shape == _IMAGES)
    for ours, theirs in ODE_METHODS
    if ours in sk.STEPPERS
    for shape in ((1000, 1), _IMAGES)
]


@pytest.mark.parametrize("contest", rows(SDE_CONTESTS + PATH_CONTESTS + ODE_CONTESTS))
def test_peer(timed: Any, contest: Contest, dtype: torch.dtype, device: torch.device) -> None:
    contest.hold(timed, dtype, device)
