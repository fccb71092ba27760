"""sdekit against the least that the same work can cost: a hand-written loop, and torch's own generator."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit as sk
from benchmarks.contests import Call, Contest, Make, Setting, rows
from sdekit import random
from sdekit.brownian import StepNoise
from sdekit.typing import Field, Prediction


def euler_maruyama_by_hand(x: Tensor, steps: int) -> Tensor:
    """dx = −x dt + dW over [0, 1], in place."""
    x, z, h = x.clone(), torch.empty_like(x), 1.0 / steps
    for _ in range(steps):
        x.mul_(1.0 - h).add_(z.normal_(), alpha=h**0.5)
    return x


def ou(s: Setting) -> tuple[Call, Call]:
    x, grid = s.state(), torch.linspace(0.0, 1.0, s.steps + 1)
    ours = lambda: sk.solve(sk.OU(), x, grid, "euler-maruyama", noise=0)  # noqa: E731
    return ours, lambda: euler_maruyama_by_hand(x, s.steps)


def ou_callables(s: Setting) -> tuple[Call, Call]:
    x, grid = s.state(), torch.linspace(0.0, 1.0, s.steps + 1)
    one = torch.ones_like(x)
    sde = sk.sde(lambda t, x: -x, lambda t, x: one, noise_type="additive")
    ours = lambda: sk.solve(sde, x, grid, "euler-maruyama", noise=0)  # noqa: E731
    return ours, lambda: euler_maruyama_by_hand(x, s.steps)


def ou_compiled(s: Setting) -> tuple[Call, Call]:
    """Blocks of steps as one graph, against the loop as it is."""
    x, grid = s.state(), torch.linspace(0.0, 1.0, s.steps + 1)
    ours = lambda: sk.solve(sk.OU(), x, grid, "euler-maruyama", noise=0, compile=True)  # noqa: E731
    ours()  # compiles
    return ours, lambda: euler_maruyama_by_hand(x, s.steps)


def two_passes_by_hand(x: Tensor, model: Field, steps: int) -> Tensor:
    """The least that a sampler does per step: scale the state, add what the model says."""
    x = x.clone()
    for k in range(steps):
        x.mul_(0.9).add_(model(k, x), alpha=0.1)
    return x


def sampler(name: str, prediction: Prediction) -> Make:
    """A planned stepper with a model that costs nothing."""

    def make(s: Setting) -> tuple[Call, Call]:
        x, output, process = s.state(), 0.5 * s.state(), sk.VP()
        score = sk.score.from_model(lambda x, t: output, process, prediction)
        flow, grid = sk.probability_flow(process, score), sk.grids.log_snr(process, s.steps)
        return (
            lambda: sk.solve(flow, x, grid, name),
            lambda: two_passes_by_hand(x, lambda t, x: output, s.steps),
        )

    return make


def normals(s: Setting) -> tuple[Call, Call]:
    keys = random.path_keys(0, s.shape[0], s.device)
    ours = lambda: random.normals(keys, s.shape[1:], stream=0, count=s.steps, dtype=s.dtype)  # noqa: E731
    return ours, lambda: torch.randn(s.steps, *s.shape, dtype=s.dtype, device=s.device)


def compiled_normals(s: Setting) -> tuple[Call, Call]:
    """Blocks of steps by one graph, as a compiled loop has them."""
    keys, starts = random.path_keys(0, s.shape[0], s.device), itertools.count(0, s.steps)

    @partial(torch.compile, fullgraph=True)
    def block(start: Tensor) -> Tensor:
        return random.normals(keys, s.shape[1:], stream=0, start=start, count=s.steps, dtype=s.dtype)

    ours = lambda: block(torch.tensor(next(starts), device=s.device))  # noqa: E731
    ours()  # compiles
    return ours, lambda: torch.randn(s.steps, *s.shape, dtype=s.dtype, device=s.device)


def step_noise(s: Setting) -> tuple[Call, Call]:
    keys = random.path_keys(0, s.shape[0], s.device)
    z = torch.empty(s.shape, dtype=s.dtype, device=s.device)

    def ours() -> None:
        noise = StepNoise(keys, s.shape[1:], s.dtype, [[(0.0, 0.01)]] * s.steps)
        for k in range(s.steps):
            noise.increments(k)

    def theirs() -> None:
        for _ in range(s.steps):
            z.normal_().mul_(0.1)

    return ours, theirs


_BY_HAND = "by hand"
_LATENT, _IMAGES = (1, 4, 64, 64), (64, 3, 32, 32)

# Add a row here.
CONTESTS = [
    Contest("Euler-Maruyama on OU", _BY_HAND, ou, (1000, 1), steps=100, target=3.0),
    Contest("Euler-Maruyama on OU", _BY_HAND, ou, (64, 3072), steps=20, target=1.8),
    Contest("Euler-Maruyama on OU", _BY_HAND, ou, (65536, 2), steps=20, full=True),
    Contest("Euler-Maruyama on callables", _BY_HAND, ou_callables, (1000, 1), steps=100, target=3.0),
    Contest("Euler-Maruyama on callables", _BY_HAND, ou_callables, (64, 3072), steps=20, target=1.8),
    Contest("compiled Euler-Maruyama", _BY_HAND, ou_compiled, (1000, 1), steps=100, target=0.8, full=True),
    Contest("compiled Euler-Maruyama", _BY_HAND, ou_compiled, (64, 3072), steps=20, target=0.6, full=True),
    Contest("dpmpp-2m on x0", _BY_HAND, sampler("dpmpp-2m", "sample"), _LATENT, steps=100, target=4.0),
    Contest("dpmpp-2m on x0", _BY_HAND, sampler("dpmpp-2m", "sample"), _IMAGES, steps=100, target=2.1),
    Contest("dpmpp-2m on epsilon", _BY_HAND, sampler("dpmpp-2m", "epsilon"), _LATENT, steps=100, target=4.0),
    Contest("dpmpp-2m on epsilon", _BY_HAND, sampler("dpmpp-2m", "epsilon"), _IMAGES, steps=100, target=2.1),
    Contest("ddim on epsilon", _BY_HAND, sampler("ddim", "epsilon"), _LATENT, steps=100, target=4.0),
    Contest("ddim on epsilon", _BY_HAND, sampler("ddim", "epsilon"), _IMAGES, steps=100, target=2.1),
    Contest("normals", "torch.randn", normals, (64, 3072), steps=2, target=2.0),
    Contest("normals", "torch.randn", normals, (1000, 1), steps=100, target=2.5),
    Contest("normals", "torch.randn", normals, (65536, 2), steps=2, full=True),
    Contest("compiled normals", "torch.randn", compiled_normals, (64, 3072), steps=2, target=0.8, full=True),
    Contest("compiled normals", "torch.randn", compiled_normals, (1000, 1), steps=100, target=0.8, full=True),
    Contest("compiled normals", "torch.randn", compiled_normals, (65536, 2), steps=2, full=True),
    Contest("noise of a run", "normal_ in place", step_noise, (1000, 1), steps=100, target=2.5),
    Contest("noise of a run", "normal_ in place", step_noise, (64, 3072), steps=20, target=2.0),
]


@pytest.mark.parametrize("contest", rows(CONTESTS))
def test_floor(timed: Any, contest: Contest, dtype: torch.dtype, device: torch.device) -> None:
    contest.hold(timed, dtype, device)
