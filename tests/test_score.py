"""Scores: conversions between all predictions, and exact scores against autograd of exact densities."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from conftest import PROCESSES
from test_processes import MU, TALL, TURNING, VECTOR
from torch import Tensor

import sdekit as sk
from sdekit.linear import LinearProcess
from sdekit.schedules import Schedule
from sdekit.typing import Prediction

PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
RATES = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
SHIFTED: dict[str, Callable[[], LinearProcess]] = {
    "OU, vector mu": lambda: sk.OU(0.9, MU, 1.2),
    "Brownian, vector rate": lambda: sk.Brownian(RATES, 0.8),
}
SCHEDULED = PROCESSES | SHIFTED
LAWS: dict[str, Callable[[], sk.laws.Law]] = {
    "gaussian": lambda: sk.Gaussian(MU, torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)),
    "correlated": lambda: sk.Gaussian(MU, TURNING @ TURNING.T),
    "mixture": lambda: sk.GaussianMixture([0.3, 0.7], torch.stack([MU, -MU]), torch.tensor([0.3, 0.5]).double()),
    "empirical": lambda: sk.Empirical(torch.stack([MU, -MU, 2 * MU.flip(0)])),
}


def times_of(process: LinearProcess) -> list[float]:
    return [process.t_min + f * (process.t_max - process.t_min) for f in (0.0, 0.1, 0.4, 0.9, 1.0)]


def slopes(schedule: Schedule, t: float) -> tuple[float, float]:
    """dα/dt and dσ/dt by autograd."""
    u = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    alpha, sigma = (
        torch.autograd.grad(level, u, allow_unused=True)[0] for level in (schedule.alpha(u), schedule.sigma(u))
    )
    return (0.0 if alpha is None else float(alpha)), float(sigma)


def by_definition(process: LinearProcess, t: float, clean: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The state with this denoised part and this noise, and every prediction of it."""
    schedule = process.schedule
    assert schedule is not None
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    alpha_rate, sigma_rate = slopes(schedule, t)
    shift = torch.as_tensor(process.shift(t), dtype=torch.float64)
    return shift + alpha * clean + sigma * noise, {
        "score": -noise / sigma,
        "epsilon": noise,
        "sample": clean,
        "v_prediction": alpha * noise - sigma * clean,
        "flow_prediction": alpha_rate * clean + sigma_rate * noise,
        "rectified": noise - clean,
    }


def conditioning(process: LinearProcess, t: float) -> float:
    """By how much rounding grows when D and ε are told apart: both 1/α and 1/σ, and their ratio."""
    assert process.schedule is not None
    ratio = process.schedule.alpha(t) / process.schedule.sigma(t)
    return max(ratio, 1 / ratio, 1.0) ** 2


@pytest.mark.parametrize("name", SCHEDULED)
def test_all_conversions_against_the_definitions(name: str, randn: Callable[..., Tensor]) -> None:
    process = SCHEDULED[name]()
    clean, noise = (randn(4, 3, seed=s).double().cpu() for s in (0, 1))
    for t in times_of(process):
        x, value = by_definition(process, t, clean, noise)
        slack = 1e-14 * conditioning(process, t)
        for source, target in itertools.product(PREDICTIONS, PREDICTIONS):
            got = sk.score.convert(value[source], t, x, process, source, target)
            scale = float(value[target].abs().max())
            torch.testing.assert_close(got, value[target], rtol=0, atol=slack * scale + 1e-14, msg=f"{source}→{target}")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(PREDICTIONS, PREDICTIONS)))
def test_round_trip(source: Prediction, target: Prediction) -> None:
    """There and back, to 1e-12, at a hundred times of every process; float and tensor times agree."""
    value, x = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for make in SCHEDULED.values():
        process = make()
        schedule = process.schedule
        assert schedule is not None
        times = schedule.time_at(torch.linspace(1.5, -1.5, 100, dtype=torch.float64))
        there = sk.score.convert(value, times, x, process, source, target)
        back = sk.score.convert(there, times, x, process, target, source)
        # Relative to the size of what was subtracted on the way.
        size = torch.linalg.vector_norm(torch.cat([value, x, there], 1), dim=1, keepdim=True).clamp(min=1)
        weight = size * (1 + schedule.sigma(times)[:, None] + 1 / schedule.sigma(times)[:, None])
        assert float(((back - value).abs() / weight).max()) < 1e-12
        for i in (0, 50, 99):
            single = sk.score.convert(value[i : i + 1], float(times[i]), x[i : i + 1], process, source, target)
            torch.testing.assert_close(single, there[i : i + 1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_perfect_network_is_the_exact_score(name: str, prediction: Prediction) -> None:
    process, law = SCHEDULED[name](), LAWS["mixture"]()
    exact = sk.exact_score(law, process)
    seen: list[Tensor] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        """The prediction by its definition, from the exact score: ε = −σs and D = (x − m − σε)/α."""
        seen.append(t)
        rows = []
        for i, u in enumerate(t.tolist()):
            schedule = process.schedule
            assert schedule is not None
            s = exact(u, x[i : i + 1])
            noise = -schedule.sigma(u) * s
            shift = torch.as_tensor(process.shift(u), dtype=torch.float64)
            clean = (x[i : i + 1] - shift - schedule.sigma(u) * noise) / schedule.alpha(u)
            rows.append(by_definition(process, u, clean, noise)[1][prediction])
        return torch.cat(rows)

    learned = sk.score.from_model(net, process, prediction)
    low, high = (process.t_min + f * (process.t_max - process.t_min) for f in (0.05, 0.6))
    x = process.marginal(law, high).sample(4, seed=1)
    for t in (low, high):
        torch.testing.assert_close(learned(t, x), exact(t, x), rtol=1e-8, atol=1e-10)
        assert seen[-1].shape == (4,)
        assert seen[-1].tolist() == [t] * 4
    times = torch.linspace(low, high, 4, dtype=torch.float64)
    torch.testing.assert_close(learned(times, x), exact(times, x), rtol=1e-8, atol=1e-10)
    assert learned.prediction == prediction
    assert not learned.affine


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("name", [*SCHEDULED, "OU, vector theta", "OU, matrix theta", "OU, tall sigma"])
def test_exact_score_is_the_gradient_of_the_marginal(name: str, kind: str) -> None:
    others: dict[str, Callable[[], LinearProcess]] = {
        "OU, vector theta": lambda: sk.OU(VECTOR, MU, 0.6),
        "OU, matrix theta": lambda: sk.OU(TURNING, MU, VECTOR),
        "OU, tall sigma": lambda: sk.OU(TURNING, 0.2, TALL, t_max=3.0),
    }
    process, law = (SCHEDULED | others)[name](), LAWS[kind]()
    score = sk.exact_score(law, process)
    times = [process.t_min + f * (process.t_max - process.t_min) for f in (0.02, 0.3, 0.8)]
    rows = []
    for i, t in enumerate(times):
        marginal = process.marginal(law, t)
        x = marginal.sample(4, seed=i).requires_grad_()
        (expected,) = torch.autograd.grad(marginal.log_prob(x).sum(), x)
        torch.testing.assert_close(score(t, x.detach()), expected, rtol=1e-9, atol=1e-9)
        rows.append((x.detach()[:1], expected[:1]))
    x, expected = (torch.cat(part) for part in zip(*rows, strict=True))
    together = score(torch.tensor(times, dtype=torch.float64), x)
    torch.testing.assert_close(together, expected, rtol=1e-9, atol=1e-9)
    assert score.affine == (kind in ("gaussian", "correlated"))


def test_a_scalar_tensor_of_time_is_one_time(name: str) -> None:
    process, law = PROCESSES[name](), LAWS["mixture"]()
    t, x = 0.4 * process.t_max, law.sample(5)
    time = torch.tensor(t, dtype=torch.float64)
    torch.testing.assert_close(sk.exact_score(law, process)(time, x), sk.exact_score(law, process)(t, x))


def test_a_score_keeps_the_type_of_the_state(name: str) -> None:
    process, law = PROCESSES[name](), LAWS["mixture"]()
    x, t = law.sample(5).float(), 0.4 * process.t_max
    times = torch.full((5,), t)
    for score in (sk.exact_score(law, process), sk.score.from_model(lambda x, t: x, process, "v_prediction")):
        assert score(t, x).dtype == score(times, x).dtype == score.output(t, x).dtype == torch.float32


def test_a_plain_callable_is_a_score() -> None:
    flow = sk.probability_flow(sk.VP(), lambda t, x: -x)
    assert flow.score.prediction == "score"
    assert flow.score.law is None
    assert not flow.score.affine
    assert sk.score.as_score(flow.score) is flow.score
