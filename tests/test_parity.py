"""Schedulers of diffusers and our samplers: the same numbers, and where not, what the difference is.

Pathwise, with the same noise, on a mixture whose score is exact. In float64 on the same levels, where a scheduler of
theirs runs as a stepper, the two are equal to rounding: to 1e-12, or else a difference is named, planted into ours, and
then they are equal to 1e-12. As somebody uses them, with float32 tables, integer timesteps and their own loop, to 1e-5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, final

import pytest
import torch
from mutants.flows import RatioInverted
from mutants.samplers import NoiseOfTheStart, WithoutRho

import sdekit as sk
from sdekit.interop import schedulers
from sdekit.interop.diffusers import from_diffusers, from_scheduler
from sdekit.steppers import assembly, plan
from sdekit.steppers.exponential import Denoised, Levels, weights
from sdekit.steppers.plan import PlannedStepper
from sdekit.verify import RecordedNormals

diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`algorithm_types dpmsolver:FutureWarning"),
]

LAW = sk.GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
OPEN = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
L = 1000


def tau(timestep: Any) -> float:
    return 1.0


@dataclass(frozen=True)
class Pair:
    """A scheduler and what we call it."""

    scheduler: str
    ours: Any
    eta: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    short: str = ""
    """The difference to be planted into ours."""

    @property
    def name(self) -> str:
        said = [str(v) for k, v in self.options.items() if k not in OPEN and v is not tau]
        return "-".join([self.scheduler, f"eta={self.eta:g}", *said])

    def made(self, **more: Any) -> Any:
        kind = getattr(diffusers, f"{self.scheduler}Scheduler")
        return kind(prediction_type="epsilon", **self.options, **more)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest distance, of the largest state."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


# --- differences, planted into the moments that an interpolation is integrated with ---------------


def _midpoint(form: Any, s: Levels, t: Levels, eta: float, moments: list[torch.Tensor]) -> list[torch.Tensor]:
    """The slope of two evaluations by half a step's weight, M₁ = ½ h M₀."""
    return [moments[0], 0.5 * (t.lam - s.lam) * moments[0]] if len(moments) == 2 else moments


def _flat(form: Any, s: Levels, t: Levels, eta: float, moments: list[torch.Tensor]) -> list[torch.Tensor]:
    """The slope of two evaluations without the exponential, M₁ = α (1 + η²) h²/2."""
    h = t.lam - s.lam
    return [moments[0], 0.5 * t.alpha * (1.0 + eta**2) * h**2] if len(moments) == 2 else moments


def _halved(form: Any, s: Levels, t: Levels, eta: float, moments: list[torch.Tensor]) -> list[torch.Tensor]:
    """The second difference of three evaluations halved, and with noise less h² α besides."""
    if len(moments) < 3:
        return _midpoint(form, s, t, eta, moments)
    h = t.lam - s.lam
    sign = t.alpha * h**2 if eta else 0.0
    return [*moments[:2], 0.5 * moments[2] - sign]


SHORT = {"midpoint": _midpoint, "flat": _flat, "halved": _halved}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make our plans with another rule for the moments."""

    class Planted:
        def __init__(self, form: Any, rule: Any) -> None:
            self.form, self.rule, self.clock = form, rule, form.clock

        def moments(self, s: Levels, t: Levels, eta: float, count: int) -> list[torch.Tensor]:
            return self.rule(self.form, s, t, eta, self.form.moments(s, t, eta, count))

    def planted(name: str) -> None:
        def slipped(form: Any, *where: Any) -> list[torch.Tensor]:
            return weights(Planted(form, SHORT[name]), *where)

        monkeypatch.setattr(assembly, "weights", slipped)
        plan._planned.cache_clear()

    yield planted
    plan._planned.cache_clear()


@final
class Ramped(PlannedStepper):
    """DPM++3M with the start that is published: of order one, then two."""

    spec = sk.DPMpp3M.spec

    def plan(self, schedule, eta, times):
        return assembly.Multistep(Denoised(), 3, start="ramp").plan(schedule, eta, times)


# --- on the same levels ---------------------------------------------------------------------------

EQUAL = [
    *(Pair("DDIM", "ddim", eta, {"clip_sample": False}) for eta in (0.0, 0.5, 1.0)),
    Pair("DDPM", "ddpm", 1.0, {"clip_sample": False}),
    Pair("DDPM", "ddpm-beta", 1.0, {"clip_sample": False, "variance_type": "fixed_large"}),
    Pair("EulerDiscrete", "edm-euler"),
    Pair("HeunDiscrete", "edm-heun"),
    Pair("EulerAncestralDiscrete", "ancestral-ve", 1.0),
    Pair("DPMSolverMultistep", "dpm-1", options={**OPEN, "algorithm_type": "dpmsolver", "solver_order": 1}),
    Pair("DPMSolverMultistep", "dpmpp-2m", options=OPEN),
    Pair("DPMSolverMultistep", "sde-dpmpp-1", 1.0, {**OPEN, **SDE, "solver_order": 1}),
    Pair("DPMSolverMultistep", "sde-dpmpp-2m", 1.0, {**OPEN, **SDE}),
    *(
        Pair("DEISMultistep", sk.ETDAB(p, start="ramp"), options={"lower_order_final": False, "solver_order": p})
        for p in (1, 2, 3)
    ),
    Pair(
        "SASolver",
        sk.SASolver(1, 1, start="ramp"),
        1.0,
        {"predictor_order": 1, "corrector_order": 1, "tau_func": tau, "lower_order_final": False},
    ),
]
OTHER = [
    Pair(
        "DPMSolverMultistep",
        sk.ETDAB(2, start="ramp"),
        options={**OPEN, "algorithm_type": "dpmsolver", "solver_order": 2},
        short="midpoint",
    ),
    *(
        Pair("UniPCMultistep", sk.UniPC(p, start="ramp"), options={**OPEN, "solver_order": p}, short="midpoint")
        for p in (2, 3, 4)
    ),
    *(
        Pair(
            "SASolver",
            sk.SASolver(p, q, start="ramp"),
            1.0,
            {"predictor_order": p, "corrector_order": q, "tau_func": tau, "lower_order_final": False},
            short="flat",
        )
        for p, q in ((2, 2), (3, 3))
    ),
    Pair("DPMSolverMultistep", Ramped(), options={**OPEN, "solver_order": 3}, short="halved"),
    Pair("DPMSolverMultistep", "sde-dpmpp-3m", 1.0, {**OPEN, **SDE, "solver_order": 3}, short="halved"),
]


def on_our_levels(pair: Pair, dtype: torch.dtype = torch.float64, ours: Any = None, steps: int = 12) -> float:
    process = sk.VP()
    sde = sk.reverse_time(process, sk.exact_score(LAW, process), pair.eta)
    grid, x = sk.grids.karras(process, steps), process.prior((1,)).sample(16, seed=1).to(dtype)
    theirs = sk.solve(sde, x, grid, schedulers.stepper(pair.made()), noise=3).final
    return gap(theirs, sk.solve(sde, x, grid, ours or pair.ours, noise=3).final)


@pytest.mark.parametrize("pair", EQUAL, ids=lambda p: p.name)
def test_on_the_same_levels_they_are_equal(pair):
    assert on_our_levels(pair) < 1e-12
    assert on_our_levels(pair, torch.float32) < 1e-5


@pytest.mark.parametrize("pair", OTHER, ids=lambda p: p.name)
def test_where_they_differ_the_difference_is_known(pair, plant):
    assert on_our_levels(pair) > 1e-9
    plant(pair.short)
    assert on_our_levels(pair) < 1e-12


@pytest.mark.parametrize(
    ("pair", "slip"),
    [
        (EQUAL[1], WithoutRho()),
        (EQUAL[2], NoiseOfTheStart()),
        (Pair("DPMSolverMultistep", "dpmpp-2m", options=OPEN), RatioInverted()),
    ],
    ids=["rho", "noise", "ratio"],
)
def test_a_slip_of_ours_is_seen(pair, slip):
    """Steps of unequal length, on which an inverted ratio is another number."""
    assert on_our_levels(pair, ours=slip) > 1e-3


# --- as somebody uses them ------------------------------------------------------------------------

CHAIN = {"num_train_timesteps": L, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TRAILING = {"timestep_spacing": "trailing"}
USED = [
    Pair("DDIM", "ddim", options={"clip_sample": False}),
    *(Pair("DDIM", "ddim", eta, {"clip_sample": False, **TRAILING}) for eta in (0.0, 0.5, 1.0)),
    Pair("DDIM", "ddim", 0.0, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    Pair("DDPM", "ddpm", 1.0, {"clip_sample": False, **TRAILING}),
    Pair("DDPM", "ddpm-beta", 1.0, {"clip_sample": False, "variance_type": "fixed_large"}),
    Pair("EulerDiscrete", "edm-euler", options=TRAILING),
    Pair("EulerDiscrete", "edm-euler"),  # fractional timesteps
    Pair("HeunDiscrete", "edm-heun", options=TRAILING),
    Pair("HeunDiscrete", "edm-heun"),
    Pair("EulerAncestralDiscrete", "ancestral-ve", 1.0, TRAILING),
    Pair("DPMSolverMultistep", "dpmpp-2m"),
    Pair("DPMSolverMultistep", "dpmpp-2m", options=TRAILING),
    Pair("DPMSolverMultistep", "dpmpp-2m", options=OPEN),
    Pair("DPMSolverMultistep", "sde-dpmpp-2m", 1.0, SDE),
    Pair("DEISMultistep", sk.ETDAB(2, start="ramp"), options={"lower_order_final": False, "solver_order": 2}),
]


class Network:
    """A perfect network on L timesteps, in the dtype of the state; called ``net(x, i).sample`` as in diffusers."""

    def __init__(self, scheduler: Any) -> None:
        self.process = from_scheduler(scheduler)
        self.score = sk.exact_score(LAW, self.process)

    def __call__(self, x: torch.Tensor, timestep: Any) -> Any:
        t = (float(torch.as_tensor(timestep).reshape(-1)[0]) + 1.0) / L
        wide = x.double()
        output = sk.score.convert(self.score(t, wide), t, wide, self.process, "score", "epsilon")
        return SimpleNamespace(sample=output.to(x.dtype))


def as_used(pair: Pair, dtype: torch.dtype, steps: int = 10, ours: Any = None) -> float:
    """Their loop against one call of ours, from one state and with one noise."""
    scheduler = pair.made(**CHAIN)
    scheduler.set_timesteps(steps)
    net = Network(scheduler)
    process, score = from_diffusers(net, scheduler)
    grid, end = schedulers.visited(scheduler)
    x, z = (sk.Gaussian([0.0], 1.0).sample(16, seed=i).to(dtype) for i in (1, 2))
    z = torch.cat([z * (-1.0) ** k + 0.1 * k for k in range(steps + 1)], dim=1)
    options = {"eta": pair.eta} if pair.scheduler == "DDIM" else {}
    # Schedulers that work on x/α say so by the deviation that they start from.
    theirs = x / process.schedule.alpha(float(grid[0])) if float(scheduler.init_noise_sigma) > 1.001 else x
    with RecordedNormals(z, keep_double=False):
        for i in scheduler.timesteps:
            output = net(scheduler.scale_model_input(theirs, i), i).sample
            theirs = scheduler.step(output, i, theirs, **options).prev_sample
    lengths = -grid.diff()
    increments = torch.stack([z[:, k : k + 1] * h**0.5 for k, h in enumerate(lengths.tolist())]).flip(0)
    path = sk.RecordedBrownian(grid.flip(0), increments.double())
    sde = sk.reverse_time(process, score, pair.eta)
    return gap(theirs, sk.solve(sde, x, grid, ours or pair.ours, noise=path, end=end).final)


@pytest.mark.parametrize("pair", USED, ids=lambda p: p.name)
def test_as_used_they_agree(pair):
    for steps, dtype in ((10, torch.float64), (20, torch.float32)):
        assert as_used(pair, dtype, steps) < 1e-5


@pytest.mark.parametrize("slip", [WithoutRho(), NoiseOfTheStart()], ids=["rho", "noise"])
def test_a_slip_is_seen_in_use_too(slip):
    assert as_used(USED[3], torch.float64, ours=slip) > 1e-3


def test_a_level_off_by_one_is_seen(monkeypatch):
    """The slip: timestep i taken for the time i/L. It is a hundred times the tolerance."""
    right = schedulers.visited
    monkeypatch.setattr(schedulers, "visited", lambda scheduler: (right(scheduler)[0] - 1.0 / L, right(scheduler)[1]))
    assert as_used(USED[1], torch.float64) > 1e-3


def test_the_visited_grid():
    scheduler = USED[1].made(**CHAIN)
    with pytest.raises(sk.SdekitError, match=r"no timesteps yet: call set_timesteps"):
        schedulers.visited(scheduler)
    scheduler.set_timesteps(4)
    grid, end = schedulers.visited(scheduler)
    assert (grid.tolist(), end) == ([1.0, 0.75, 0.5, 0.25], "denoise")
    scheduler.set_timesteps(7)
    with pytest.raises(sk.SdekitError, match=r"asks at timesteps 999 and 856, but steps from 999 to 857.*trailing"):
        schedulers.visited(scheduler)


LARGE = {"clip_sample": False, "variance_type": "fixed_large"}
DIFFERENT = {
    # How far theirs is from ours as used, at 10 steps, at least and at most: the causes are in docs/diffusers.md.
    "the network asked at a rounded timestep": (
        Pair("DPMSolverMultistep", "dpmpp-2m", options={"use_karras_sigmas": True}),
        1e-4,
        1e-2,
    ),
    "noise in the last step": (Pair("DDPM", "ddpm-beta", 1.0, {**LARGE, **TRAILING}), 1e-2, 1.0),
    "a last correction": (Pair("UniPCMultistep", sk.UniPC(2, start="ramp")), 1e-4, 1e-1),
    "clipping": (Pair("DDIM", "ddim", options=TRAILING), 1e-3, 1.0),
    "float32 coefficients": (
        Pair("DEISMultistep", sk.ETDAB(3, start="ramp"), options={"lower_order_final": False, "solver_order": 3}),
        1e-6,
        1e-4,
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_as_used_these_differ(name):
    pair, least, most = DIFFERENT[name]
    assert least < as_used(pair, torch.float64) < most
