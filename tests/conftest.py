"""Options and fixtures of the suite.

    pytest --device cuda --dtype float32
    pytest -m statistical --seeds 20

``device`` and ``dtype`` reach every test that solves something. Tests that hold schedules, kernels and
random numbers against the truth are in float64 whatever the option says. All randomness is seeded where it is
used: by ``randn(..., seed=)``, a torch generator on the host, or by the seed of sdekit's own noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import random, tracing

BETAS = torch.linspace(1e-3, 0.2, 50, dtype=torch.float64)
SIGMAS = torch.logspace(-2, 1.5, 12, dtype=torch.float64)

PROCESSES: dict[str, Callable[[], sk.linear.ScheduledProcess | sk.OU]] = {
    "VP": sk.VP,
    "VE": sk.VE,
    "SubVP": sk.SubVP,
    "Cosine": sk.Cosine,
    "EDM": sk.EDM,
    "Flow": sk.Flow,
    "OU": partial(sk.OU, theta=1.3, mu=0.7, sigma=0.9),
    "Brownian": partial(sk.Brownian, rate=-0.4, noise=1.7),
    "DiscreteVP": partial(sk.DiscreteVP, BETAS),
    "DiscreteVE": partial(sk.DiscreteVE, SIGMAS),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sdekit")
    group.addoption("--device", default="cpu", help="device of the states that are solved")
    group.addoption(
        "--seeds", type=int, default=0, help="run the statistical tests so often, each time with other noise"
    )
    group.addoption("--dtype", default="float64", choices=("float64", "float32"), help="type of those states")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    count: int = metafunc.config.getoption("--seeds")
    if count and _statistical(metafunc.definition):
        metafunc.parametrize("other_noise", range(1, count + 1), indirect=True)


def _statistical(test: pytest.Function) -> bool:
    """Whether a test, or a set of its parameters, states a false-alarm rate."""
    rows = [row for mark in test.iter_markers("parametrize") for row in mark.args[1] if hasattr(row, "marks")]
    marks = [mark.name for row in rows for mark in row.marks]
    return test.get_closest_marker("statistical") is not None or "statistical" in marks


@pytest.fixture(autouse=True)
def other_noise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ``--seeds N`` a seed stands for other noise in each of N runs of the statistical tests."""
    shift: int = getattr(request, "param", 0)
    if shift:
        keys = random.path_keys
        monkeypatch.setattr(
            random, "path_keys", lambda seed, *rest, **known: keys(random.key(seed, shift), *rest, **known)
        )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = getattr(torch, request.config.getoption("--dtype"))
    return found


@pytest.fixture(scope="session")
def tol(dtype: torch.dtype) -> Callable[[float], float]:
    """A tolerance meant for float64, in proportion to the rounding of ``--dtype``."""
    return lambda wanted: wanted * torch.finfo(dtype).eps / torch.finfo(torch.float64).eps


@pytest.fixture(scope="session")
def randn(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    """``randn(*shape, seed=0)``: normals of ``--device`` and ``--dtype``, the same on all of them."""

    def draw(*shape: int, seed: int = 0) -> Tensor:
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return z.to(device, dtype)

    return draw


@pytest.fixture(params=PROCESSES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of every process with a schedule in turn."""
    found: str = request.param
    return found


@pytest.fixture
def process(name: str) -> sk.linear.ScheduledProcess | sk.OU:
    """Every process with a schedule in turn."""
    return PROCESSES[name]()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs as they are traced, without the seconds of a compiler; how many were made."""
    made: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        made.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(tracing, "BACKEND", backend)
    return made
