"""compile=True: one graph for all blocks, the values of the loop, and no silent way out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import compiled, tracing
from sdekit.brownian import Increment
from sdekit.brownian.steps import Draws
from sdekit.dynamics import SDE
from sdekit.steppers import Spec, Step, StepMethod, registry
from sdekit.steppers.base import Memory

pytestmark = [
    # What torch.compile says of itself, of Python's imports and of sharing the machine.
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]

GBM = sk.sde(lambda t, x: 0.3 * x * (1.0 + t), lambda t, x: 0.5 * x)
GBM_STRATONOVICH = sk.sde(lambda t, x: 0.3 * x, lambda t, x: 0.5 * x, calculus="stratonovich")
ODE = sk.sde(lambda t, x: -x * torch.sin(x + t))
MANY = sk.sde(lambda t, x: -x, lambda t, x: torch.stack([x, 0.3 + 0.0 * x, x.flip(1)], -1), noise_type="general")
VP = sk.VP()
DATA = sk.Gaussian(torch.tensor([0.5, -0.2], dtype=torch.float64), 0.25)
RISING = torch.linspace(0.0, 1.0, 24, dtype=torch.float64)  # 23 steps: three blocks of 8
FALLING = sk.grids.log_snr(VP, 12)

CASES = {
    "euler-maruyama on OU": (sk.OU(), "euler-maruyama", RISING),
    "euler-maruyama on many noises": (MANY, "euler-maruyama", RISING),
    "euler-maruyama in reverse": (sk.reverse_time(VP, lambda t, x: -x), "euler-maruyama", FALLING),
    "euler-maruyama on an exact score": (sk.reverse_time(VP, sk.exact_score(DATA, VP)), "euler-maruyama", FALLING),
    "milstein": (GBM, "milstein", RISING),
    "sra1": (sk.OU(), "sra1", RISING),
    "sri1w1": (GBM, "sri1w1", RISING),
    "heun": (sk.probability_flow(VP, lambda t, x: -x), "heun", FALLING),
    "rk4": (ODE, "rk4", RISING),
    "ula": (sk.Langevin(DATA), "ula", RISING),
}
REMEMBER = ("reversible-heun",)
FEW = ("euler-maruyama in reverse", "sri1w1", "ula")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No graph of another test; blocks of about ten steps."""
    monkeypatch.setattr(compiled, "CHEAP", 10)
    tracing.graph.cache_clear()
    yield
    tracing.graph.cache_clear()
    torch.compiler.reset()


def state(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(-1.0, 1.5, 14, dtype=dtype).reshape(7, 2)


def both(sde: SDE, stepper: str | StepMethod, grid: Tensor, **options: object) -> tuple[sk.Solution, sk.Solution]:
    x = state()
    noise = {} if sde.noise_type == "none" else {"noise": 3}
    with torch.no_grad():
        plain = sk.solve(sde, x, grid, stepper, **noise | options)  # type: ignore[arg-type]
        blocks = sk.solve(sde, x, grid, stepper, compile=True, **noise | options)  # type: ignore[arg-type]
    return plain, blocks


def same(plain: sk.Solution, blocks: sk.Solution) -> None:
    assert torch.equal(plain.ts, blocks.ts)
    assert (plain.xs - blocks.xs).abs().max() <= 1e-12 * plain.xs.abs().max()
    assert torch.equal(plain.status, blocks.status)
    counted = ("steps", "drift_evaluations", "diffusion_evaluations", "score_evaluations")
    assert [getattr(plain.stats, n) for n in counted] == [getattr(blocks.stats, n) for n in counted]


@pytest.mark.parametrize("case", FEW)
def test_values_are_those_of_the_loop(case: str, traced: list[int]) -> None:
    sde, stepper, grid = CASES[case]
    same(*both(sde, stepper, grid))
    assert len(traced) == 1


@pytest.mark.certify
@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_loop_compiled(case: str) -> None:
    sde, stepper, grid = CASES[case]
    same(*both(sde, stepper, grid, save="all"))


@pytest.mark.certify
@pytest.mark.parametrize("name", [n for n, cls in sk.STEPPERS.items() if issubclass(cls, StepMethod)])
def test_every_step_method_traces(name: str, traced: list[int]) -> None:
    problems = (sk.OU(), GBM, GBM_STRATONOVICH, ODE, sk.Langevin(DATA))
    for sde in problems:
        if registry.obstacle(sk.STEPPERS[name].spec, sde) is not None:
            continue
        if name in REMEMBER:
            with pytest.raises(sk.SdekitError, match=r"remembers its last step.*leave compile out"):
                both(sde, name, RISING)
        else:
            same(*both(sde, name, RISING))
    assert traced or name in REMEMBER


def test_one_compiled_run() -> None:
    """With the compiler itself, in float32, noise inside; the second run finds the graph."""
    x, grid = state(torch.float32), torch.linspace(0.0, 1.0, 9)
    with torch.no_grad():
        plain = sk.solve(sk.OU(), x, grid, "euler-maruyama", noise=1)
        blocks = sk.solve(sk.OU(), x, grid, "euler-maruyama", noise=1, compile=True)
        assert (plain.final - blocks.final).abs().max() <= 1e-5
        again = sk.solve(sk.OU(), x, grid, "euler-maruyama", noise=1, compile=True)
    assert torch.equal(again.final, blocks.final)
    assert again.stats.seconds < 0.1 * blocks.stats.seconds


def test_one_graph_for_seeds_grids_and_blocks(traced: list[int]) -> None:
    x = state()
    with torch.no_grad():
        for seed, grid in ((0, RISING), (1, RISING), (1, RISING**2), (2, 0.5 * RISING)):
            plain = sk.solve(GBM, x, grid, "euler-maruyama", noise=seed)
            blocks = sk.solve(GBM, x, grid, "euler-maruyama", noise=seed, compile=True)
            same(plain, blocks)
    assert len(traced) == 1


@pytest.mark.parametrize("save", ["all", [0.5, 0.123, 1.0], [0.2]])
def test_saved_times(save: object, traced: list[int]) -> None:
    same(*both(GBM, "euler-maruyama", RISING, save=save))
    assert len(traced) == 1


@pytest.mark.parametrize("path", ["grid", "areas"])
def test_a_path_is_handed_in(path: str, traced: list[int]) -> None:
    if path == "grid":
        noise = sk.BrownianGrid.on(RISING, (7, 2), seed=4)
        same(*both(GBM, "euler-maruyama", RISING, noise=noise))
    else:
        noise = sk.BrownianGrid.on(RISING, (7, 2), seed=4, levy="space-time")
        same(*both(sk.OU(), "sra1", RISING, noise=noise))
    assert len(traced) == 1


def test_a_field_may_hold_the_state(traced: list[int]) -> None:
    x = state()
    sde = sk.sde(lambda t, y: x - y)
    with torch.no_grad():
        same(sk.solve(sde, x, RISING, "heun"), sk.solve(sde, x, RISING, "heun", compile=True))


def test_limits_progress_and_gradients(traced: list[int]) -> None:
    for most in (5, 12, 100):
        same(*both(GBM, "euler-maruyama", RISING, max_steps=most))
    seen: list[tuple[int, int]] = []
    both(GBM, "euler-maruyama", RISING, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (23, 23)
    late = both(GBM, "euler-maruyama", RISING, max_seconds=0.0)[1]
    assert set(late.status.tolist()) == {sk.Status.TIME_LIMIT}
    slopes = []
    for blocks in (False, True):
        x = state().requires_grad_()
        sk.solve(GBM, x, RISING, "euler-maruyama", noise=0, compile=blocks).final.sum().backward()
        slopes.append(x.grad)
    assert (slopes[0] - slopes[1]).abs().max() <= 1e-12 * slopes[0].abs().max()  # type: ignore[union-attr, operator]


def test_a_sample_that_blows_up_says_so(traced: list[int]) -> None:
    cubic = sk.sde(lambda t, x: x**3 * 1e9, lambda t, x: x)
    plain, blocks = both(cubic, "euler-maruyama", torch.linspace(0.0, 1.0, 31))
    assert torch.equal(plain.status, blocks.status)
    assert int(plain.status[0]) == sk.Status.NON_FINITE


def test_blocks_are_few_and_little_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    small = [compiled.block_size(n, 10, 1) for n in (1, 7, 50, 51, 100, 101, 1000)]
    assert small == [1, 7, 50, 26, 50, 34, 50]
    assert [compiled.block_size(n, 10**6, 1) for n in (10, 11, 20, 24, 100)] == [10, 6, 10, 8, 10]
    assert compiled.block_size(100, 10, 2) == 10
    for n in (1, 13, 57, 1000):
        for elements in (10, 10**6):
            size = compiled.block_size(n, elements, 1)
            assert n <= size or size % 2 == 0  # the noise is drawn two steps at a time


# What does not trace


def _counting(t: Tensor, x: Tensor) -> Tensor:
    CALLS.append(1)
    return -x


CALLS: list[int] = []


@pytest.mark.parametrize(
    "drift",
    [lambda t, x: -x * math.exp(t), _counting, lambda t, x: -x if t < 0.5 else x],
    ids=["math", "side effect", "branch"],
)
def test_what_does_not_trace_is_refused(drift: object, traced: list[int]) -> None:
    with pytest.raises(sk.SdekitError, match="leave compile out"):
        both(sk.sde(drift), "heun", torch.linspace(0.0, 1.0, 61))  # type: ignore[arg-type]


class _Own(StepMethod):
    """Takes its noise by itself: √h z is not what it is over [0, 1]."""

    spec = Spec(
        "own", "", (), kind="step", evaluations=1, noise_types=frozenset({"additive"}), calculus=frozenset({"ito"})
    )

    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        assert increment is not None
        return Step(x + sde.drift(t0, x) * (t1 - t0) + 1.4 * increment.w)


class _Remembers(_Own):
    def step(self, sde: SDE, t0: float, t1: float, x: Tensor, increment: Increment | None, memory: Memory) -> Step:
        return Step(x, x)


@pytest.mark.parametrize("stepper", [_Own(), _Remembers()], ids=["own clock", "memory"])
def test_a_step_that_is_another_one_over_the_unit_interval_is_refused(stepper: StepMethod) -> None:
    """The planted fault: its blocks would be another method, and quietly."""
    with pytest.raises(sk.SdekitError, match="leave compile out"):
        both(sk.OU(), stepper, RISING)


@pytest.mark.parametrize("stepper", ["ddim", "predictor-corrector"])
def test_no_step_method(stepper: str) -> None:
    flow = sk.reverse_time(VP, lambda t, x: -x)
    with pytest.raises(sk.SdekitError, match=r"Leave compile out.*torch\.compile\(net\)"):
        sk.solve(flow, state(), FALLING, stepper, noise=0, compile=True)


@pytest.mark.parametrize("fault", ["index", "root"])
def test_a_planted_fault_is_seen(fault: str, traced: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise in every block, or increments of the wrong size."""
    block = Draws.block

    def wrong(self: Draws, keys: Tensor, roots: Tensor, first: Tensor, draw: int = 0) -> Sequence[Increment]:
        return block(self, keys, roots, 0 * first) if fault == "index" else block(self, keys, 2.0 * roots, first)

    monkeypatch.setattr(Draws, "block", wrong)
    with torch.no_grad():
        blocks = sk.solve(GBM, state(), RISING, "euler-maruyama", noise=3, compile=True)
    monkeypatch.undo()
    plain = sk.solve(GBM, state(), RISING, "euler-maruyama", noise=3)
    assert (plain.final - blocks.final).abs().max() > 1e-3
