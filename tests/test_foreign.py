"""Other libraries under the probe: recorded noise, replayed steps, and orders against what they claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

import sdekit as sk
from sdekit import problems, verify
from sdekit.brownian import Increment
from sdekit.interop import schedulers, to_torchsde, torchdiffeq, torchsde
from sdekit.steppers.base import Stepper

double = partial(torch.tensor, dtype=torch.float64)


# --- recorded noise -------------------------------------------------------------------------------

VP = problems.get("vp-gaussian", eta=1.0)
TIMES = VP.grid(12).tolist()
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "randn": lambda x: torch.randn(x.shape, dtype=x.dtype),
    "randn of sizes": lambda x: torch.randn(*x.shape, dtype=x.dtype),
    "randn, generator": lambda x: torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3)),
    "randn_like": torch.randn_like,
    "normal_": lambda x: torch.empty_like(x).normal_(),
    "normal_ of moments": lambda x: (torch.empty_like(x).normal_(3.0, std=2.0) - 3.0) / 2.0,
    "normal of tensors": lambda x: torch.normal(x, torch.ones_like(x)) - x,
    "normal of size": lambda x: torch.normal(0.0, 1.0, x.shape, dtype=x.dtype),
}


def by_hand(x: Tensor, draw: Callable[[Tensor], Tensor], cast: bool = False) -> Tensor:
    """Euler–Maruyama, as somebody else might write it."""
    for s, t in pairwise(TIMES):
        z = draw(x)
        x = x + VP.sde.drift(s, x) * (t - s) + VP.sde.diffusion(s, x) * (s - t) ** 0.5 * z
        x = x.to(torch.float32).to(torch.float64) if cast else x
    return x


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_sampler_that_draws_its_own_noise_has_the_map_of_ours(draw):
    found = verify.probe_sampler(partial(by_hand, draw=draw), (3,))
    ours = verify.affine_map(VP.sde, "euler-maruyama", TIMES, (3,))
    for part in ("constant", "matrix", "noises"):
        torch.testing.assert_close(getattr(found, part), getattr(ours, part), rtol=0, atol=1e-13)


def test_casts_to_float32_are_passed_over_and_else_seen():
    exact = verify.affine_map(VP.sde, "euler-maruyama", TIMES, (3,))
    kept = verify.probe_sampler(partial(by_hand, draw=torch.randn_like, cast=True), (3,))
    assert float((kept.noises - exact.noises).abs().max()) < 1e-13

    def rounded(x: Tensor, z: Tensor) -> Tensor:
        with verify.RecordedNormals(z, keep_double=False):
            return by_hand(x, torch.randn_like, cast=True)

    with pytest.raises(sk.SdekitError, match="not affine"):  # negative control: superposition fails by the rounding
        verify.probe(rounded, (3,), 3 * 12)


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "shared noise": (lambda x: torch.randn(1, 3, dtype=x.dtype), "share"),
    "noise of numpy": (lambda x: torch.from_numpy(np.random.default_rng().standard_normal(x.shape)), "not affine"),
    "clipping": (lambda x: torch.randn_like(x).clamp(-1.0, 1.0), "not affine"),
    "noise scaled by the batch": (lambda x: torch.randn_like(x) * x.norm(), "another batch"),
    "draws by the state": (lambda x: torch.randn_like(x) if len(x) == 2 else torch.zeros_like(x), "in another"),
}


@pytest.mark.parametrize(("draw", "message"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_probed_is_refused(draw, message):
    with pytest.raises(sk.SdekitError, match=message):
        verify.probe_sampler(partial(by_hand, draw=draw), (3,))


def test_noise_off_by_two_percent_shows_in_the_law():
    law = verify.probe_sampler(partial(by_hand, draw=torch.randn_like), (3,)).push(VP.initial)
    slip = verify.probe_sampler(partial(by_hand, draw=lambda x: 1.02 * torch.randn_like(x)), (3,)).push(VP.initial)
    assert sk.metrics.wasserstein2(law, verify.numerical_law(VP.sde, "euler-maruyama", TIMES, VP.initial)) < 1e-13
    assert sk.metrics.wasserstein2(law, slip) > 1e-3


def test_nothing_is_recorded_outside():
    with verify.RecordedNormals(torch.zeros(2, 3)):
        assert float(torch.randn(2, 3).abs().max()) == 0.0
        with pytest.raises(sk.SdekitError, match="more than the 3"):
            torch.randn(2, 1)
    assert float(torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).abs().max()) > 0.0


# --- torchsde -------------------------------------------------------------------------------------

MATRIX = double([[-1.0, 2.0], [-0.5, -0.3]])  # not normal
OU = sk.OU(theta=-MATRIX, sigma=torch.eye(2, dtype=torch.float64), t_max=2.0)
START = sk.Gaussian(double([1.0, -0.5]), 0.25)
STEPS = (16, 32, 64, 128)


def ou_orders(stepper: Stepper) -> tuple[float, float]:
    """Of W2 and of the strong error."""
    pytest.importorskip("torchsde")
    grids = [torch.linspace(0.0, 2.0, n + 1, dtype=torch.float64) for n in STEPS]
    exact = verify.numerical_law(OU, "exact-linear", [0.0, 2.0], START)
    laws = [sk.metrics.wasserstein2(verify.numerical_law(OU, stepper, g, START), exact) for g in grids]
    strong = [verify.strong_error(OU, stepper, g, START).error for g in grids]
    return verify.fit_order(STEPS, laws).order, verify.fit_order(STEPS, strong).order


@pytest.mark.parametrize(
    ("method", "w2", "strong"),
    [
        ("euler", 1.0, 1.0),
        ("milstein", 1.0, 1.0),
        ("srk", 2.0, 2.0),
        ("heun", 2.0, 1.0),
        ("midpoint", 2.0, 1.0),
        ("euler_heun", 1.0, 1.0),
        ("reversible_heun", 2.0, 1.0),
        ("log_ode", 2.0, 1.0),
    ],
)
def test_orders_of_torchsde_on_an_ou_process(method, w2, strong):
    assert ou_orders(torchsde.stepper(method, areas=False)) == (
        pytest.approx(w2, abs=0.01),
        pytest.approx(strong, abs=0.01),
    )


@pytest.mark.parametrize(
    ("slip", "w2", "strong"),
    [
        (lambda d, w, h: d * h, 1.0, 1.0),  # ∫(W_s − W_t0) ds without its W/2
        (lambda d, w, h: d * (3.0**0.5 * h + 0.5 * w), 2.0, 1.0),  # H of the wrong variance: the law does not see it
    ],
)
def test_a_wrong_area_shows(monkeypatch, slip, w2, strong):
    def wrong(self: Any, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        return (self._w, slip(float(tb - ta), self._w, self._increment.h)) if return_U else self._w

    monkeypatch.setattr(torchsde._OneIncrement, "__call__", wrong)
    assert ou_orders(torchsde.stepper("srk")) == (pytest.approx(w2, abs=0.02), pytest.approx(strong, abs=0.02))


def test_srk_has_its_constant_where_an_ou_process_flatters_it():
    """dX₁ = dW, dX₂ = X₁² dt: strong order 1.5 with constant 1/√30, by Gauss–Hermite over (W, H)."""
    pytest.importorskip("torchsde")
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    z, weights = double(nodes), double(weights / weights.sum())
    h = 0.01
    w, area = (v.reshape(-1, 1) for v in torch.meshgrid(z * h**0.5, z * (h / 12.0) ** 0.5, indexing="ij"))
    squares = sk.sde(
        lambda t, x: torch.stack([0.0 * x[:, 0], x[:, 0] ** 2], 1),
        lambda t, x: torch.stack([torch.ones_like(x[:, 0]), 0.0 * x[:, 0]], 1)[..., None],
        noise_type="additive",
    )
    stepper = torchsde.stepper("srk")
    reached = stepper.step(squares, 0.0, h, torch.zeros(len(w), 2, dtype=torch.float64), Increment(w, area), None).x
    mean = h * (w**2 / 3.0 + w * area + 1.2 * area**2) + h**2 / 15.0  # E[∫W² | W, H]
    square = ((reached[:, 1:] - mean) ** 2).flatten() @ torch.outer(weights, weights).flatten()
    unresolved = 7.0 / 900.0 * h**4  # E Var(∫W² | W, H)
    assert math.sqrt((float(square) + unresolved) / h**4) == pytest.approx(30**-0.5, rel=1e-10)


@pytest.mark.parametrize("method", ["srk", "reversible_heun"])
def test_steps_are_those_of_one_call_of_sdeint(method):
    """On the path of a uniform grid; reversible Heun carries a state along."""
    lib = pytest.importorskip("torchsde")
    grid = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    path = sk.BrownianGrid.on(grid, (5, 1), seed=4, levy="space-time")
    x = torch.linspace(0.2, 1.0, 5, dtype=torch.float64)[:, None]
    calculus = "ito" if method == "srk" else "stratonovich"
    sde = sk.sde(lambda t, x: torch.sin(x) - t, lambda t, x: 0.3 + 0.2 * x, calculus=calculus)

    class Whole:
        shape, levy_area_approximation = torch.Size((5, 1)), "foster"

        def __call__(self, ta: Tensor, tb: Tensor, return_U: bool = False, return_A: bool = False) -> Any:
            found, d = path.increment(float(ta), float(tb)), float(tb - ta)
            return (found.w, d * (found.h + 0.5 * found.w)) if return_U else found.w

    theirs = lib.sdeint(to_torchsde(sde), x, grid, bm=Whole(), method=method, dt=0.125)[-1]
    ours = sk.solve(sde, x, grid, torchsde.stepper(method), noise=path).final
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", ["euler", "milstein", "srk", "heun", "midpoint", "euler_heun", "reversible_heun"])
@pytest.mark.parametrize("noise", ["additive", "diagonal", "general"])
def test_specs_declare_what_torchsde_declares(method, noise):
    methods = pytest.importorskip("torchsde._core.methods")
    spec = torchsde.stepper(method).spec
    calculus = min(spec.calculus)  # milstein has two; what it declares is the same
    solver = methods.select(method, calculus)
    assert (noise in spec.strong) == (noise in solver.noise_types)
    if noise in spec.strong:
        fake = type("SDE", (), {"noise_type": noise, "sde_type": calculus})()
        path = type("Path", (), {"levy_area_approximation": "foster"})()
        made = solver(sde=fake, bm=path, dt=1.0, adaptive=False, rtol=0, atol=0, dt_min=0, options={})
        assert (spec.strong[noise], spec.weak[noise]) == (made.strong_order, made.weak_order)


def test_torchsde_refuses_what_it_has_not():
    with pytest.raises(sk.SdekitError, match="euler_heun"):
        torchsde.stepper("euler-heun")
    told = sk.sde(lambda t, x: x, lambda t, x: x, calculus="stratonovich")
    with pytest.raises(sk.SdekitError, match="not a method of stratonovich calculus"):
        sk.solve(told, torch.zeros(1, 1).double(), [0.0, 1.0], torchsde.stepper("srk"), noise=0)
    general = sk.sde(lambda t, x: x, lambda t, x: x[..., None].expand(-1, 1, 2), "general")
    with pytest.raises(sk.SdekitError, match="general noise"):
        sk.solve(general, torch.zeros(1, 1).double(), [0.0, 1.0], torchsde.stepper("srk"), noise=0)


# --- torchdiffeq ----------------------------------------------------------------------------------

FLOW = problems.get("vp-gaussian", eta=0.0)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
def test_orders_of_torchdiffeq(method, order):
    pytest.importorskip("torchdiffeq")
    stepper = torchdiffeq.stepper(method)
    found = verify.order(FLOW, stepper, steps=(16, 32, 64, 128, 256))
    assert found.consistent_with(order, 0.02)
    assert not found.consistent_with(order + 1)
    assert stepper.spec.ode == order


def test_adams_of_torchdiffeq_takes_steps_to_be_equal():
    """It claims order 4. On equal steps it has it; on log-SNR steps, which vary smoothly, it has 2."""
    pytest.importorskip("torchdiffeq")
    adams = torchdiffeq.stepper("explicit_adams", max_order=5)
    ode = sk.sde(lambda t, x: torch.cos(t * x) if isinstance(t, Tensor) else torch.cos(x * t))
    x = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)[:, None]
    steps, even, uneven = (16, 32, 64, 128, 256), [], []
    exact = sk.solve(ode, x, torch.linspace(0.0, 2.0, 4097).double(), "rk4").final
    for n in steps:
        grid = torch.linspace(0.0, 2.0, n + 1, dtype=torch.float64)
        even.append(float((sk.solve(ode, x, grid, adams).final - exact).abs().max()))
        uneven.append(float((sk.solve(ode, x, grid**2 / 2.0, adams).final - exact).abs().max()))
    assert verify.fit_order(steps, even, 1e-13).consistent_with(4, 0.1)
    assert verify.fit_order(steps, uneven, 1e-13).order < 2.5


def adaptive(tolerance: float) -> tuple[tuple[float, ...], verify.AffineMap]:
    grid = FLOW.grid(1)
    start = FLOW.initial.sample(8, seed=0)
    return torchdiffeq.adaptive_map(FLOW.sde, start, float(grid[0]), float(grid[-1]), tolerance)


def test_an_adaptive_run_has_an_exact_law_on_the_grid_that_it_took():
    """dopri5: what it chooses for a batch of 8 is within a few tolerances of the exact law, for every tolerance."""
    pytest.importorskip("torchdiffeq")
    errors, steps = [], []
    for tolerance in (1e-4, 1e-6, 1e-8):
        times, found = adaptive(tolerance)
        assert times[0] == FLOW.sde.process.t_max
        assert times[-1] == FLOW.sde.process.t_min
        assert found.residual < 1e-13
        errors.append(sk.metrics.wasserstein2(found.push(FLOW.initial), FLOW.law) / tolerance)
        steps.append(len(times) - 1)
    assert all(0.1 < e < 10.0 for e in errors)
    assert steps[0] < steps[1] < steps[2]


def test_an_adaptive_run_is_not_affine_until_it_is_replayed():
    lib = pytest.importorskip("torchdiffeq")
    ends = FLOW.grid(1)
    options = {"first_step": 1e-3, "step_t": ends[1:]}

    def free(x: Tensor, z: Tensor) -> Tensor:
        return lib.odeint(
            lambda t, y: FLOW.sde.drift(float(t), y), x, ends, rtol=1e-3, atol=1e-3, method="bosh3", options=options
        )[-1]

    with pytest.raises(sk.SdekitError, match="not affine"):
        verify.probe(lambda x, z: torch.stack([free(row[None], z)[0] for row in x]), (3,), 0)


def rk45(sde: Any, x: Tensor, times: list[float], tolerance: float) -> tuple[list[float], Tensor]:
    """scipy's RK45 between times; an infinite tolerance takes every interval in one step."""
    steps, y = [times[0]], x.flatten().numpy()
    field = lambda t, y: sde.drift(t, torch.from_numpy(y).reshape(x.shape)).flatten().numpy()  # noqa: E731
    for s, t in pairwise(times):
        first = abs(t - s) if math.isinf(tolerance) else 1e-3
        run = integrate.RK45(field, s, y, t, rtol=1e-13, atol=min(tolerance, 1e300), first_step=first)
        while run.status == "running":
            run.step()
            steps.append(run.t)
        y = run.y
    return steps, torch.from_numpy(y).reshape(x.shape)


def test_any_adaptive_method_can_be_replayed():
    """scipy's RK45, by its public interface."""
    ends = FLOW.grid(1).tolist()
    start = FLOW.initial.sample(4, seed=1)
    on_grid = lambda times, x: rk45(FLOW.sde, x, list(times), math.inf)[1]  # noqa: E731
    times, found = verify.replay(lambda x: rk45(FLOW.sde, x, ends, 1e-6), on_grid, start)
    assert sk.metrics.wasserstein2(found.push(FLOW.initial), FLOW.law) < 1e-5
    assert (times[0], times[-1]) == (ends[0], ends[-1])

    def forgetful(x: Tensor) -> tuple[list[float], Tensor]:
        steps, final = rk45(FLOW.sde, x, ends, 1e-6)
        return [*steps[:3], *steps[4:]], final

    with pytest.raises(sk.SdekitError, match="ends elsewhere"):  # negative control: one accepted step is not recorded
        verify.replay(forgetful, on_grid, start)


# --- diffusers ------------------------------------------------------------------------------------

LEVELS = sk.VE(sigma_min=0.05, sigma_max=20.0)
MIXTURE = sk.GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
NORMAL = sk.Gaussian([0.7], 0.25)
CALLS = (10, 20, 40, 80, 160, 320)
OPEN_END = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}


def scheduler(name: str, **options: Any) -> Stepper:
    library = pytest.importorskip("diffusers")
    return schedulers.stepper(getattr(library, f"{name}Scheduler")(prediction_type="epsilon", **options))


def log_uniform(steps: int) -> Tensor:
    return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)


def flow_errors(stepper: Stepper) -> list[float]:
    """Root mean square over 48 quantiles of the mixture's exact flow."""
    x = verify.mid_quantiles(LEVELS.marginal(MIXTURE, 1.0), 48)
    exact = verify.quantile_flow(LEVELS, MIXTURE, x, 1.0, 0.0)
    flow = sk.probability_flow(LEVELS, sk.exact_score(MIXTURE, LEVELS))
    return [float((sk.solve(flow, x, log_uniform(n), stepper).final - exact).square().mean().sqrt()) for n in CALLS]


def law_errors(stepper: Stepper) -> list[float]:
    """Exact W2 of the law that is produced on one normal."""
    back = sk.reverse_time(LEVELS, sk.exact_score(NORMAL, LEVELS))
    start, end = (LEVELS.marginal(NORMAL, t) for t in (1.0, 0.0))
    return [sk.metrics.wasserstein2(verify.numerical_law(back, stepper, log_uniform(n), start), end) for n in CALLS]


# Errors at 10 … 320 steps that an independent prototype measured, to two figures; and the order that these show.
FLOWS: dict[str, tuple[Callable[[], Stepper], list[float], float]] = {
    "DDIM": (partial(scheduler, "DDIM", clip_sample=False), [8.1e-2, 4.1e-2, 2.0e-2, 1.0e-2, 5.1e-3, 2.5e-3], 1.0),
    "Heun": (partial(scheduler, "HeunDiscrete"), [2.8e-2, 6.2e-3, 1.5e-3, 3.5e-4, 8.8e-5, 2.2e-5], 2.0),
    "DPM++2M": (
        partial(scheduler, "DPMSolverMultistep", solver_order=2, **OPEN_END),
        [1.6e-2, 4.4e-3, 1.2e-3, 3.0e-4, 7.6e-5, 1.9e-5],
        2.0,
    ),
    "DPM++3M": (
        partial(scheduler, "DPMSolverMultistep", solver_order=3, **OPEN_END),
        [8.0e-3, 1.7e-3, 3.1e-4, 7.0e-5, 1.7e-5, 4.2e-6],
        2.0,  # it claims 3
    ),
    "DEIS-3": (
        partial(scheduler, "DEISMultistep", solver_order=3, lower_order_final=False),
        [9.7e-3, 2.2e-3, 3.5e-4, 4.7e-5, 6.1e-6, 7.7e-7],
        3.0,
    ),
    "UniPC-2": (
        partial(scheduler, "UniPCMultistep", solver_order=2, **OPEN_END),
        [9.6e-3, 1.9e-3, 2.6e-4, 3.1e-5, 3.8e-6, 4.6e-7],
        3.0,
    ),
    "UniPC-3": (
        partial(scheduler, "UniPCMultistep", solver_order=3, **OPEN_END),
        [1.6e-2, 4.1e-4, 2.7e-5, 3.4e-6, 2.7e-7, 1.9e-8],
        4.0,
    ),
    "UniPC-4": (
        partial(scheduler, "UniPCMultistep", solver_order=4, **OPEN_END),
        [2.8e-2, 1.2e-3, 3.2e-5, 1.3e-6, 4.2e-8, 1.2e-9],
        5.0,
    ),
}
SDES: dict[str, tuple[Callable[[], Stepper], list[float], float]] = {
    "DDPM": (partial(scheduler, "DDPM", clip_sample=False), [1.2e-1, 6.6e-2, 3.5e-2, 1.8e-2, 9.2e-3, 4.6e-3], 1.0),
    "DDIM η=1": (
        partial(scheduler, "DDIM", clip_sample=False),
        [1.2e-1, 6.6e-2, 3.5e-2, 1.8e-2, 9.2e-3, 4.6e-3],
        1.0,
    ),
    "sde-DPM++2M": (
        partial(scheduler, "DPMSolverMultistep", solver_order=2, algorithm_type="sde-dpmsolver++", **OPEN_END),
        [1.2e-2, 6.0e-3, 1.7e-3, 4.3e-4, 1.1e-4, 2.7e-5],
        2.0,
    ),
    "SASolver": (
        partial(
            scheduler,
            "SASolver",
            predictor_order=3,
            corrector_order=4,
            tau_func=lambda t: 1.0,
            lower_order_final=False,
        ),
        [4.4e-2, 3.0e-3, 6.4e-4, 1.6e-4, 3.9e-5, 9.7e-6],
        2.0,  # it claims 4
    ),
}


SLOW = ("UniPC-2", "UniPC-4", "DDIM η=1", "SASolver")


def rows(table: dict[str, Any]) -> list[Any]:
    """As parameters; those that take seconds, or are like another, for certification only."""
    return [
        pytest.param(*row, id=name, marks=[pytest.mark.certify] if name in SLOW else []) for name, row in table.items()
    ]


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # DEIS takes numpy's logarithm of tensors
@pytest.mark.parametrize(("make", "prototype", "order"), rows(FLOWS))
def test_flows_of_diffusers_have_the_errors_of_the_prototype(make, prototype, order):
    errors = flow_errors(make())
    assert errors == pytest.approx(prototype, rel=0.05)
    assert verify.fit_order(CALLS, errors, 1e-13).consistent_with(order, 0.05)


@pytest.mark.parametrize(("make", "prototype", "order"), rows(SDES))
def test_stochastic_samplers_of_diffusers_have_the_errors_of_the_prototype(make, prototype, order):
    errors = law_errors(make())
    assert errors == pytest.approx(prototype, rel=0.05)
    assert verify.fit_order(CALLS, errors).consistent_with(order, 0.05)


def test_what_diffusers_claims_and_has_not():
    """The third order of DPM++3M; of its SDE form, whose second difference has the wrong sign, only the first."""
    third = scheduler("DPMSolverMultistep", solver_order=3, **OPEN_END)
    assert third.spec.ode == 3.0
    assert not verify.fit_order(CALLS, flow_errors(third), 1e-13).consistent_with(3.0)
    noisy = scheduler("DPMSolverMultistep", solver_order=3, algorithm_type="sde-dpmsolver++", **OPEN_END)
    assert noisy.spec.weak["linear-additive"] == 3.0
    assert verify.fit_order(CALLS, law_errors(noisy)).local[-1] < 1.1


def test_a_scheduler_in_float32_would_show_its_rounding(monkeypatch):
    """Negative control: without the guard, fourth order ends on a floor."""
    guarded = flow_errors(scheduler("DPMSolverMultistep", solver_order=2, **OPEN_END))

    monkeypatch.setattr(schedulers, "RecordedNormals", partial(verify.RecordedNormals, keep_double=False))
    rounded = flow_errors(scheduler("DPMSolverMultistep", solver_order=2, **OPEN_END))
    gaps = [abs(a - b) for a, b in zip(guarded, rounded, strict=True)]
    assert max(gaps) > 1e-9


def test_ddim_of_diffusers_is_ours_on_every_process():
    theirs = scheduler("DDIM", clip_sample=False)
    for name in ("ou-gaussian", "vp-gaussian", "ve-gaussian"):
        for eta in (0.0, 0.5, 1.0):
            problem = problems.get(name, eta=eta)
            laws = [verify.numerical_law(problem.sde, s, problem.grid(9), problem.initial) for s in (theirs, "ddim")]
            assert sk.metrics.wasserstein2(*laws) < 1e-9  # 1 − ᾱ loses digits where there is little noise


def test_a_scheduler_is_copied_and_checked():
    library = pytest.importorskip("diffusers")
    own = library.DDIMScheduler(clip_sample=False)
    before = own.alphas_cumprod.clone()
    stepper = schedulers.stepper(own)
    flow = sk.probability_flow(LEVELS, sk.exact_score(NORMAL, LEVELS))
    x = torch.ones(2, 1, dtype=torch.float64)
    first, again = (sk.solve(flow, x, log_uniform(5), stepper).final for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(own.alphas_cumprod, before)
    with pytest.raises(sk.SdekitError, match="no form as a stepper"):
        schedulers.stepper(library.LCMScheduler())
    with pytest.raises(sk.SdekitError, match="prediction_type='epsilon'"):
        schedulers.stepper(library.DDIMScheduler(prediction_type="v_prediction"))
    with pytest.raises(sk.SdekitError, match="decreasing"):
        sk.solve(flow, x, log_uniform(5).flip(0), stepper)
    with pytest.raises(sk.SdekitError, match="eta"):
        sk.solve(flow, x, log_uniform(5), scheduler("DDPM"))
