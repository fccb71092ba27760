"""States within the steps of a grid: Brownian motion exactly, other laws to the order of the step."""

from __future__ import annotations

import math

import pytest
import torch

import sdekit as sk
from sdekit import between

HALF = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
TIMES = [0.1, 0.25, 0.5, 0.9]
OU = sk.sde(lambda t, x: -x, lambda t, x: 2.0**0.5 + 0.0 * x, "additive")
MATRIX = torch.tensor([[1.0, 0.5, 0.0], [-0.3, 0.2, 2.0]], dtype=torch.float64)


def still(noise_type: str, g: torch.Tensor) -> sk.SDE:
    return sk.sde(lambda t, x: 0.0 * x, lambda t, x: g.expand(len(x), *g.shape), noise_type)


MOTIONS = {
    "additive": (still("additive", torch.ones(2, dtype=torch.float64)), (2,), lambda w: w),
    "image": (still("additive", torch.full((1, 2, 2), 0.5, dtype=torch.float64)), (1, 2, 2), lambda w: 0.5 * w),
    "diagonal": (still("diagonal", torch.tensor([1.0, 3.0], dtype=torch.float64)), (2,), None),
    "scalar": (still("scalar", torch.tensor([1.0, 3.0], dtype=torch.float64)), (1,), None),
    "columns": (still("additive", MATRIX), (3,), lambda w: w @ MATRIX.T),
    "general": (still("general", MATRIX), (3,), lambda w: w @ MATRIX.T),
}


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("reversed_time", [False, True])
def test_brownian_motion_is_the_path_itself(name, reversed_time):
    sde, noise, moved = MOTIONS[name]
    moved = moved or (lambda w: w * torch.tensor([1.0, 3.0], dtype=torch.float64))
    x = torch.zeros(3, *((2,) if name != "image" else noise), dtype=torch.float64)
    path = sk.BrownianTree((3, *noise), 0.0, 1.0, seed=4)
    if reversed_time:
        sde = Backwards(sde)
    grid = HALF.flip(0) if reversed_time else HALF
    solution = sk.solve(sde, x, grid, "euler-maruyama", noise=path, save=TIMES, between="bridge", structure="trust")
    assert solution.stats.steps == 2
    assert solution.ts.tolist() == TIMES
    for t, state in zip(TIMES, solution.xs, strict=True):
        w = path.increment(t, 1.0).w if reversed_time else path.increment(0.0, t).w
        torch.testing.assert_close(state, moved(w), rtol=0.0, atol=1e-14)


class Backwards:
    """The same fields, from the last time to the first."""

    direction = "either"

    def __init__(self, sde: sk.SDE) -> None:
        self.noise_type, self.calculus, self.drift, self.diffusion = (
            sde.noise_type,
            sde.calculus,
            sde.drift,
            sde.diffusion,
        )


def variances(times: list[float], **how) -> torch.Tensor:
    """Of the stationary OU process, which are 1, at some times between steps of ¼; seed 5."""
    x = sk.Gaussian([0.0], 1.0).sample(200_000, seed=5)
    grid = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    return sk.solve(OU, x, grid, "sra1", noise=5, save=times, between="bridge", **how).xs[..., 0].var(1)


WITHIN = [0.25 * (k + share) for k in range(4) for share in (0.25, 0.5, 0.75, 1.0)]
ALLOWED = 0.25 * 0.25**2 + 0.005 + 5 * math.sqrt(2 / 200_000)  # the bridge's h²/4, the steps' own, 5 standard errors


@pytest.mark.statistical
def test_variances_between_steps_are_right():
    """False alarm 1e-5 in all."""
    assert float((variances(WITHIN) - 1.0).abs().max()) < ALLOWED


def test_a_straight_line_would_be_seen(monkeypatch):
    """The planted fault."""
    monkeypatch.setattr(between, "_moved", lambda path, s, t: (t - s) + 0.0 * path.increment(min(s, t), max(s, t)).w)
    missed = 1.0 - variances(WITHIN)
    assert float(missed.max()) > 3 * ALLOWED
    assert float(missed[1::4].mean()) == pytest.approx(0.5 * (1 - math.exp(-0.25)), abs=0.02)  # 2θ(1 − θ)(1 − e^{−h})


@pytest.mark.statistical
def test_several_times_in_a_step_have_their_joint_law():
    """Brownian motion in one step from a seed: E[W_s W_t] = min(s, t), within 5 standard errors; seed 6."""
    sde, n, times = MOTIONS["additive"][0], 100_000, [0.2, 0.3, 0.8, 1.0]
    x = torch.zeros(n, 2, dtype=torch.float64)
    solution = sk.solve(sde, x, [0.0, 1.0], "euler-maruyama", noise=6, save=times, between="bridge")
    seen = torch.einsum("sbe,tbe->st", solution.xs, solution.xs) / (2 * n)
    exact = torch.minimum(*torch.meshgrid(solution.ts, solution.ts, indexing="ij"))
    spread = ((exact.diag()[:, None] * exact.diag() + exact**2) / (2 * n)).sqrt()
    assert float(((seen - exact) / spread).abs().max()) < 5.0


def test_what_is_asked_changes_nothing_else():
    gbm = sk.problems.get("gbm").sde
    x = torch.ones(6, 1, dtype=torch.float64)

    def at(times: list[float], rows: slice = slice(None)) -> dict[float, torch.Tensor]:
        paths = list(range(6))[rows]
        solution = sk.solve(gbm, x[rows], HALF, "milstein", noise=1, paths=paths, save=times, between="bridge")
        return dict(zip(solution.ts.tolist(), solution.xs, strict=True))

    whole = at([0.9, 0.2, 0.3, 1.0, 0.5])
    assert list(whole) == [0.9, 0.2, 0.3, 1.0, 0.5]
    alone = sk.solve(gbm, x, HALF, "milstein", noise=1, save="all")
    assert torch.equal(whole[1.0], alone.final)
    assert torch.equal(whole[0.5], alone.xs[1])
    for t in (0.2, 0.3, 0.9):
        assert torch.equal(at([t])[t], whole[t])
        assert torch.equal(at([t], slice(2, 5))[t], whole[t][2:5])


def test_on_a_tree_the_error_is_that_of_paths():
    """Geometric Brownian motion on 64 steps of one path, seen between them."""
    problem = sk.problems.get("gbm")
    x = torch.ones(500, 1, dtype=torch.float64)
    path = sk.BrownianTree((500, 1), 0.0, 1.0, seed=2)
    times = [(k + 0.4) / 64 for k in range(0, 64, 7)]
    run = sk.solve(problem.sde, x, problem.grid(64), "milstein", noise=path, save=times, between="bridge")
    for t, state in zip(times, run.xs, strict=True):
        exact = torch.exp((0.5 - 0.32) * t + 0.8 * path.increment(0.0, t).w)
        assert float((state - exact).square().mean().sqrt()) < 0.03
    other = sk.solve(problem.sde, x, problem.grid(64), "milstein", noise=path, save=times)
    assert other.stats.steps == 64 + len(times)


def test_a_run_that_ends_early():
    gbm, x = sk.problems.get("gbm").sde, torch.ones(3, 1, dtype=torch.float64)
    grid = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    cut = sk.solve(gbm, x, grid, "milstein", noise=1, save=[0.1, 0.6, 0.9], between="bridge", max_steps=2)
    assert cut.ts.tolist() == [0.1, 0.5]
    assert torch.equal(cut.xs[-1], cut.final)
    assert cut.provenance["between"] == "bridge"


@pytest.mark.parametrize(
    ("sde", "stepper", "options", "message"),
    [
        (OU, "sra1", {"between": "line"}, "way between steps"),
        (OU, "sra1", {"controller": sk.PID()}, "fills steps of a grid"),
        (sk.sde(lambda t, x: -x), "rk4", {}, "has none.*dopri5"),
        (sk.OU(), "exact-linear", {}, "save= is stepped to"),
        (OU, "sra1", {"noise": sk.BrownianGrid((2, 1), steps=2, levy="space-time")}, "0.1"),
        (OU, "euler-maruyama", {"noise": sk.BrownianTree((2, 1), clock=lambda t: t**2 + t)}, "in the clock t"),
        (OU, "euler-maruyama", {"noise": None}, "stochastic"),
    ],
)
def test_what_no_bridge_fills_is_refused(sde, stepper, options, message):
    arguments = {"noise": 0, "between": "bridge", **options}
    with pytest.raises(sk.SdekitError, match=message):
        sk.solve(sde, torch.ones(2, 1, dtype=torch.float64), HALF, stepper, save=[0.1], **arguments)
