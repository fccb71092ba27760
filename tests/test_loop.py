"""The loop of planned steppers: the law of the plan, in few passes, rounded once, and nothing held is written to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sdekit as sk
from sdekit.brownian import Increment
from sdekit.linear import LinearProcess
from sdekit.score import Score, centred, conversion, schedule_of
from sdekit.steppers import Plan, PlannedStepper, Row, host, loop, registry
from sdekit.steppers.host import HostPlan, HostRow
from sdekit.steppers.loop import Loop
from sdekit.typing import Prediction

PLANNED = [name for name, cls in sk.STEPPERS.items() if issubclass(cls, PlannedStepper)]
DISTINCT = [name for name in PLANNED if sk.STEPPERS[name].spec.alias is None]
PREDICTIONS = get_args(Prediction)
MOVED = sk.OU(theta=1.3, mu=0.7, sigma=0.9)


def etas(stepper: str) -> list[float]:
    low, high = sk.STEPPERS[stepper].spec.eta
    return [eta for eta in (0.0, 1.0) if low <= eta <= high]


def planned(stepper: str, process: LinearProcess, eta: float, times: Sequence[float]) -> Plan:
    made = registry.get(stepper)
    assert isinstance(made, PlannedStepper)
    return made.plan(schedule_of(process), eta, torch.tensor(times, dtype=torch.float64))


def normals_of(plan: Plan, x: Tensor) -> list[list[Increment]]:
    generator = torch.Generator().manual_seed(0)
    root = [[abs(t - s) ** 0.5 for s, t in step] for step in plan.draws]
    return [[Increment(h * torch.randn(x.shape, generator=generator, dtype=x.dtype)) for h in step] for step in root]


def as_written(
    score: Score, process: LinearProcess, plan: Plan, times: Sequence[float], x: Tensor, dw: list[list[Increment]]
) -> Tensor:
    """Every output in the plan's prediction, every coefficient as it is."""
    states, outputs = [centred(process, times[0], x)], []
    for step, increments, draws in zip(plan.rows, dw, plan.draws, strict=True):
        for row in step:
            if row.at is not None:
                a, b = conversion(schedule_of(process), row.at, score.prediction, plan.prediction)
                answer = score.output(row.at, states[0] + process.shift(row.at))
                outputs.insert(0, a * states[0] + b * answer)
            new = torch.zeros_like(x)
            for age, c in row.states.items():
                new = new + c * states[age]
            for age, c in row.outputs.items():
                new = new + c * outputs[age]
            for j, c in row.noises.items():
                new = new + c * increments[j].w / abs(draws[j][1] - draws[j][0]) ** 0.5
            states.insert(0, new)
    return states[0] + process.shift(times[-1])


def run(made: Loop, x: Tensor, dw: Sequence[Sequence[Increment]]) -> Tensor:
    memory = None
    for k, increments in enumerate(dw):
        x, memory = made(k, x, increments, memory)
    return x


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("process", [sk.VP(), sk.EDM(), MOVED], ids=["VP", "EDM", "OU"])
def test_the_law_is_that_of_the_plan(process: LinearProcess, prediction: Prediction) -> None:
    score = sk.score.from_model(lambda x, t: torch.tanh(x), process, prediction)
    times = sk.grids.log_snr(process, 12).tolist()
    x = float(schedule_of(process).sigma(times[0])) * torch.tensor([[0.3, -1.1], [0.8, 0.4]], dtype=torch.float64)
    for stepper in PLANNED:
        for eta in etas(stepper):
            plan = planned(stepper, process, eta, times)
            dw = normals_of(plan, x)
            made = Loop(score, process, HostPlan.of(plan, schedule_of(process), prediction), times)
            found, wanted = run(made, x, dw), as_written(score, process, plan, times, x, dw)
            assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max(), f"{stepper} at η = {eta:g}"


def passes(row: HostRow) -> tuple[int, int]:
    """Over the state, and those of them that make what a register keeps."""
    state = len(row.drawn) or len(row.states) - (row.states[0][1] == 1.0 and len(row.outputs) > 0)
    terms = state + len(row.outputs) + len(row.noises)
    return terms, int(row.at is not None and row.kept != (0.0, 1.0))


@pytest.mark.parametrize(
    ("stepper", "prediction", "wanted"),
    [  # on VP
        ("ddim", "sample", (2, 0)),
        ("ddim", "epsilon", (2, 0)),
        ("ddim", "v_prediction", (2, 0)),
        ("dpmpp-2m", "sample", (3, 0)),
        ("dpmpp-2m", "epsilon", (4, 0)),
        ("dpmpp-3m", "sample", (4, 0)),
        ("dpmpp-3m", "epsilon", (4, 1)),
        ("deis-2", "epsilon", (3, 0)),
        ("deis-4", "v_prediction", (5, 1)),
    ],
)
def test_passes_of_a_row(stepper: str, prediction: Prediction, wanted: tuple[int, int]) -> None:
    times = sk.grids.log_snr(sk.VP(), 12).tolist()
    made = HostPlan.of(planned(stepper, sk.VP(), 0.0, times), sk.VP().schedule, prediction)
    assert passes(made.rows[8][0]) == wanted


@pytest.mark.parametrize(
    ("stepper", "prediction", "wanted"),
    [
        ("ddim", "sample", 1),
        ("ddim", "epsilon", 1),
        ("dpm-1", "score", 1),
        ("dpmpp-2m", "sample", 2),
        ("dpmpp-2m", "epsilon", 3),
        ("dpmpp-3m", "sample", 3),
    ],
)
def test_a_pass_less_where_alpha_is_one(stepper: str, prediction: Prediction, wanted: int) -> None:
    """There the state is carried as it is, or drawn to an average."""
    times = sk.grids.log_snr(sk.EDM(), 12).tolist()
    made = HostPlan.of(planned(stepper, sk.EDM(), 0.0, times), sk.EDM().schedule, prediction)
    assert passes(made.rows[8][0]) == (wanted, 0)


def test_no_average_with_large_weights() -> None:
    """x' = ½ x + 8 (D₀ − D₁) + ½ D₂ is one, and is not formed as one."""
    one = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731
    row = Row(0.5, {0: one(0.5)}, {0: one(8.0), 1: one(-8.0), 2: one(0.5)})
    asked = Row(0.7, {0: one(1.0)})
    plan = Plan([[asked], [asked], [row]], [[], [], []], "sample")
    made = HostPlan.of(plan, sk.EDM().schedule, "sample")
    assert made.rows[2][0].drawn == ()
    assert made.rows[2][0].outputs == ((0, 8.0), (1, -8.0), (2, 0.5))


# Rounding


def floor(stepper: str, process: LinearProcess, steps: int, prediction: Prediction = "sample") -> float:
    """What float32 changes in the end, RMS, against the spread of the samples; the same network for both."""
    schedule, times = schedule_of(process), sk.grids.log_snr(process, steps).tolist()
    mean, variance = 0.7, 0.25
    by_time: dict[float, tuple[float, float]] = {}

    def net(x: Tensor, t: float) -> Tensor:
        """Of N(0.7, 0.25) data, in float64, rounded once."""
        a, b = by_time[t]
        return (a + b * x.double()).to(x.dtype)

    eta = etas(stepper)[0]
    plan = planned(stepper, process, eta, times)
    for t in {row.at for step in plan.rows for row in step if row.at is not None}:
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        a, b = conversion(schedule, t, "sample", prediction)
        by_time[t] = b * mean * (1.0 - gain * alpha), a + b * gain
    score = _OnHost(net, prediction)
    start = float(schedule.sigma(times[0])) * torch.linspace(-2.0, 2.0, 16, dtype=torch.float32)[:, None]
    made = Loop(score, process, HostPlan.of(plan, schedule, prediction), times)
    dw = normals_of(plan, start)
    wanted = run(made, start.double(), [[Increment(i.w.double()) for i in step] for step in dw])
    off = run(made, start, dw).double() - wanted
    return float(off.square().mean().sqrt() / wanted.square().mean().sqrt())


class _OnHost(Score):
    """A network that is told the time as a float: in float32 it would be another one."""

    law = None

    def __init__(self, net: Callable[[Tensor, float], Tensor], prediction: Prediction) -> None:
        self._net, self.prediction = net, prediction

    def output(self, t, x: Tensor) -> Tensor:
        return self._net(x, t)

    def __call__(self, t, x: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("stepper", DISTINCT)
def test_float32_stays_at_its_floor(stepper: str) -> None:
    """At few steps and at many, over σ from 80 to 0.002."""
    for steps in (10, 1000):
        assert floor(stepper, sk.EDM(), steps) <= 1e-5, f"{steps} steps"


@pytest.mark.certify
@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction", "score"])
@pytest.mark.parametrize("process", [sk.VP(), sk.VE(), sk.EDM()], ids=["VP", "VE", "EDM"])
@pytest.mark.parametrize("stepper", DISTINCT)
def test_float32_stays_at_its_floor_for_every_network(
    stepper: str, process: LinearProcess, prediction: Prediction
) -> None:
    # Not 10: there v-ab-4 extrapolates with weights up to 25, and an ε-network at σ = 80 has lost two digits of D.
    for steps in (20, 100, 1000):
        assert floor(stepper, process, steps, prediction) <= 1e-5, f"{steps} steps"


def test_a_rounded_multiple_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """x·a for x + (a − 1)·x."""
    monkeypatch.setattr(host, "_drawn", lambda states, outputs: ())
    monkeypatch.setattr(loop, "_formed", plain_product)
    assert floor("dpmpp-2m", sk.EDM(), 10) <= 1e-5
    assert floor("dpmpp-2m", sk.EDM(), 1000) > 1e-5


def plain_product(row: HostRow, states: list[Tensor], outputs: list[Tensor], dw: Sequence[Increment]) -> Tensor:
    new = torch.zeros_like(states[0])
    for age, a in row.states:
        new = new + a * states[age]
    for i, b in row.outputs:
        new = new + b * outputs[i]
    for j, c in row.noises:
        new = new + c * dw[j].w
    return new


# What it leaves alone, and what it does not wait for


def untouched(stepper: str) -> bool:
    """Whether states that a network has seen, and answers that it has given, are as they were."""
    process, held = sk.VP(), []

    def net(x: Tensor, t: Tensor) -> Tensor:
        answer = torch.tanh(x)
        held.extend([(x, x.clone()), (answer, answer.clone())])
        return answer

    x, score = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(3, 2), sk.score.from_model(net, process)
    eta = etas(stepper)[0]
    sk.solve(sk.reverse_time(process, score, eta), x, steps=6, stepper=stepper, noise=0, save="all")
    return all(torch.equal(now, then) for now, then in held)


@pytest.mark.parametrize("stepper", PLANNED)
def test_nothing_that_a_network_holds_is_written_to(stepper: str) -> None:
    assert untouched(stepper)


def test_a_state_overwritten_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = loop._formed

    def in_place(row: HostRow, states: list[Tensor], outputs: list[Tensor], dw: Sequence[Increment]) -> Tensor:
        return states[0].copy_(right(row, states, outputs, dw))

    monkeypatch.setattr(loop, "_formed", in_place)
    assert not untouched("ddim")


class NoReading(TorchDispatchMode):
    """No value comes back to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a tensor was read"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stepper", PLANNED)
def test_no_step_reads_a_tensor(stepper: str) -> None:
    x, times = torch.zeros(2, 3), sk.grids.log_snr(sk.VP(), 8).tolist()
    for eta in etas(stepper):
        sde = sk.reverse_time(sk.VP(), sk.score.from_model(lambda y, t: y, sk.VP()), eta)
        prepared = registry.get(stepper).prepare(sde, times)
        with NoReading():
            y, memory = x, None
            for k, step in enumerate(prepared.draws):
                y, memory = prepared.advance(k, y, [Increment(x)] * len(step), memory)


def test_a_reading_is_seen() -> None:
    with pytest.raises(AssertionError, match="was read"), NoReading():
        bool((torch.zeros(2) < 1).all())


@pytest.mark.parametrize("stepper", ["ddim", "dpmpp-2m", "dpmpp-3m", "dpm-3", "v-abm-4", "sa-solver", "er-sde-2"])
def test_a_whole_run_is_one_graph(stepper: str) -> None:
    x, process = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(3, 2), sk.VP()
    times = sk.grids.log_snr(process, 6).tolist()
    sde = sk.reverse_time(process, sk.score.from_model(lambda y, t: torch.tanh(y), process), etas(stepper)[-1])
    prepared = registry.get(stepper).prepare(sde, times)

    def whole(x: Tensor) -> Tensor:
        y, memory = x, None
        for k, step in enumerate(prepared.draws):
            y, memory = prepared.advance(k, y, [Increment(0.1 * x)] * len(step), memory)
        return y

    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(whole, backend="eager", fullgraph=True)(x)
        assert torch.equal(compiled, whole(x))


def test_gradients_pass_through_the_registers() -> None:
    """Through states and answers that later steps look back upon."""
    process = sk.VP()
    score = sk.score.from_model(lambda y, t: torch.tanh(y), process)
    x = torch.tensor([[0.3, -1.1]], dtype=torch.float64, requires_grad=True)
    for stepper in ("dpmpp-2m", "dpmpp-3m", "v-abm-4"):

        def final(x: Tensor, stepper: str = stepper) -> Tensor:
            return sk.solve(sk.probability_flow(process, score), x, steps=5, stepper=stepper).final

        assert torch.autograd.gradcheck(final, (x,))
