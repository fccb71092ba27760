"""Adaptive steps as one graph: the steps and the path of those that are written one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import sdekit as sk
from sdekit.adaptive import lockstep
from sdekit.dynamics import SDE
from sdekit.solution import Status

GBM = sk.sde(lambda t, x: 1.5 * x, lambda t, x: 0.5 * x)
WELL = sk.sde(lambda t, x: 4.0 * (x - x**3), lambda t, x: torch.ones_like(x), "additive")
SCALAR = sk.sde(lambda t, x: -x, lambda t, x: 0.3 * x, "scalar")
TOLD = sk.sde(lambda t, x: x * torch.sin(t).reshape(-1, 1, 1), lambda t, x: 0.5 * x, calculus="stratonovich")
LAW = sk.Gaussian(torch.full((3,), 0.4, dtype=torch.float64), 0.2 * torch.eye(3, dtype=torch.float64))
VP = sk.VP()
REVERSE = sk.reverse_time(VP, lambda t, x: -x)
CASES: dict[str, tuple[SDE, str, list[float]]] = {
    "diagonal": (GBM, "sri1w1", [0.0, 1.0]),
    "additive": (WELL, "sosra", [0.5, 2.0]),
    "scalar": (SCALAR, "sosri", [0.0, 1.0]),
    "backwards": (REVERSE, "sra1", [1.0, 1e-3]),
    "Stratonovich": (TOLD, "heun-strat", [0.0, 1.0]),
    "no noise": (sk.probability_flow(VP, lambda t, x: -x), "heun-strat", [1.0, 1e-3]),
}
FEW = ("diagonal", "backwards", "no noise")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No graph of another test, and no gradients."""
    lockstep._graph.cache_clear()
    with torch.no_grad():
        yield
    lockstep._graph.cache_clear()
    torch.compiler.reset()


def run(case: str, batch: int = 9, compile: bool = True, tol: float = 1e-2, **options: object) -> sk.Solution:
    sde, stepper, ends = CASES[case]
    x = torch.linspace(0.5, 1.5, 6 * batch, dtype=torch.float64).reshape(batch, 2, 3)
    noise = {} if sde.noise_type == "none" else {"noise": 3}
    given = {"controller": sk.PID(tol, tol)} | noise | options
    return sk.solve(sde, x, ends, stepper, compile=compile, **given)  # type: ignore[arg-type]


def same(together: sk.Solution, apart: sk.Solution) -> None:
    assert (together.xs - apart.xs).abs().max() <= 1e-11 * apart.xs.abs().max()
    assert torch.equal(together.status, apart.status)
    for name, counts in apart.diagnostics.items():
        assert torch.equal(together.diagnostics[name], counts), name


@pytest.mark.parametrize("case", [c if c in FEW else pytest.param(c, marks=pytest.mark.certify) for c in CASES])
def test_steps_and_states_are_those_of_one_by_one(case: str, traced: list[int]) -> None:
    middle = sum(CASES[case][2]) / 2.0 + 0.01
    for options in ({}, {"save": [middle, CASES[case][2][1]]}):
        same(run(case, **options), run(case, compile=False, **options))
    assert len(traced) >= 2


@pytest.mark.certify
@pytest.mark.parametrize("case", CASES)
def test_steps_and_states_are_those_of_one_by_one_compiled(case: str) -> None:
    same(run(case), run(case, compile=False))


@pytest.mark.certify
def test_a_compiled_sample_does_not_see_its_neighbours() -> None:
    """To the last bit, in batches that fill vectors and batches that do not."""
    x = torch.ones(37, 1, dtype=torch.float64)
    given = {"noise": 3, "controller": sk.PID(1e-3, 1e-3), "compile": True}
    whole = sk.solve(GBM, x, [0.0, 1.0], "sri1w1", **given)
    for some in ([36], [4, 9], list(range(3, 22))):
        part = sk.solve(GBM, x[some], [0.0, 1.0], "sri1w1", paths=some, **given)
        assert torch.equal(part.final, whole.final[some])
        assert torch.equal(part.diagnostics["rejected"], whole.diagnostics["rejected"][some])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_sample_does_not_see_its_neighbours(batch: int, traced: list[int]) -> None:
    assert torch.equal(run("diagonal", batch).final[:, 0, 0], run("diagonal", batch, paths=range(batch)).final[:, 0, 0])
    same(run("diagonal", batch), run("diagonal", batch, compile=False))


def test_halves_on_the_wrong_side_are_seen(monkeypatch: pytest.MonkeyPatch, traced: list[int]) -> None:
    apart, cut = run("additive", compile=False), lockstep.halved
    monkeypatch.setattr(lockstep, "halved", lambda *given: tuple(reversed(cut(*given))))
    with pytest.raises(AssertionError):
        same(run("additive"), apart)


def test_short_steps_make_room_for_themselves(monkeypatch: pytest.MonkeyPatch, traced: list[int]) -> None:
    """Steps of level 9 and more, with room for seven at first."""
    monkeypatch.setattr(lockstep, "_LEVELS", 7)
    same(run("diagonal", 2, tol=1e-4), run("diagonal", 2, tol=1e-4, compile=False))
    assert len(traced) >= 2


def test_limits_end_samples(traced: list[int]) -> None:
    short = run("diagonal", max_steps=16)
    assert short.status.tolist() == [Status.STEP_LIMIT] * 9
    bad = sk.sde(lambda t, x: torch.where(x > 1.2, torch.nan, x), lambda t, x: 0.0 * x + 0.1, "additive")
    x = torch.tensor([[0.1], [2.0]], dtype=torch.float64)
    solution = sk.solve(bad, x, [0.0, 0.1], "sra1", noise=0, controller=sk.PID(1e-2, 1e-2), compile=True)
    assert solution.status.tolist() == [Status.SUCCESS, Status.STEP_UNDERFLOW]
    assert bool(solution.final.isfinite().all())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_whether_gradients_are_recorded_changes_nothing(mode: type, traced: list[int]) -> None:
    with mode():
        same(run("diagonal"), run("diagonal", compile=False))


def test_calls_are_counted(traced: list[int]) -> None:
    apart, together = run("diagonal", compile=False).stats, run("diagonal").stats
    assert together.drift_evaluations / together.steps == apart.drift_evaluations / apart.steps
    assert together.steps >= apart.steps
    again = run("diagonal", noise=4).stats
    assert again.drift_evaluations / again.steps == together.drift_evaluations / together.steps


def test_a_step_takes_little_more_than_a_round(monkeypatch: pytest.MonkeyPatch, traced: list[int]) -> None:
    """7/6 of one, as two cuts go with it, and 3/2 with one."""

    def rounds() -> float:
        solution = run("diagonal", 1, tol=1e-4)
        attempts = int(solution.diagnostics["accepted"] + solution.diagnostics["rejected"])
        assert attempts > 100
        return solution.stats.steps / attempts

    assert 1.1 < rounds() < 1.25
    monkeypatch.setattr(lockstep, "_CUTS", 1)
    lockstep._graph.cache_clear()
    assert 1.4 < rounds() < 1.6


def test_what_cannot_be_compiled_is_refused(traced: list[int]) -> None:
    given = {"noise": 0, "controller": sk.PID(1e-2, 1e-2), "compile": True}
    x, ends = torch.ones(2, 1, dtype=torch.float64), [0.0, 1.0]
    with torch.enable_grad(), pytest.raises(sk.SdekitError, match=r"record no gradients.*no_grad"):
        sk.solve(GBM, x.requires_grad_(), ends, "sri1w1", **given)
    flow = sk.probability_flow(VP, lambda t, x: -x)
    with pytest.raises(sk.SdekitError, match="compile=True takes steps of a grid"):
        sk.solve(flow, x.detach(), [1.0, 0.1], "dopri5", controller=sk.PID(1e-2, 1e-2), compile=True)
    opaque = sk.sde(lambda t, x: x if x.sum() > 0.0 else -x, lambda t, x: x)
    with pytest.raises(sk.SdekitError, match="does not trace as one graph"):
        sk.solve(opaque, x.detach(), ends, "sri1w1", **given)
