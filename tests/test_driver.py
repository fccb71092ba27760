"""The driver: what is stepped to, asked, counted, saved and reported, whatever the stepper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import random
from sdekit.dynamics import SDE
from sdekit.observe import finite_samples
from sdekit.reverse import Reverse
from sdekit.score import Score
from sdekit.solution import Status
from sdekit.steppers import registry
from sdekit.typing import Prediction, Time

Randn = Callable[..., Tensor]
LAW = sk.Gaussian(torch.tensor([1.0, -0.5], dtype=torch.float64), torch.tensor([0.3, 1.2], dtype=torch.float64))
JAGGED = [0.9, 0.8123, 0.5, 0.4999, 0.31, 0.1, 0.05]
# Those that take the reverse of a process.
STEPPERS = {
    name: cls
    for name, cls in registry.STEPPERS.items()
    if not cls.spec.needs_langevin and (cls.spec.noise_types == {"none"} or "additive" in cls.spec.noise_types)
}


def gaussian_score() -> Score:
    return sk.exact_score(LAW, sk.VP())


def problem(stepper: str, score: Score | None = None) -> Reverse:
    """The reverse of VP with Gaussian data, at the greatest η ≤ 1 that the stepper integrates."""
    low, high = STEPPERS[stepper].spec.eta
    return sk.reverse_time(sk.VP(), gaussian_score() if score is None else score, max(low, min(high, 1.0)))


def run(stepper: str, x: Tensor, sde: SDE | None = None, grid: object = None, **options: object) -> sk.Solution:
    sde = problem(stepper) if sde is None else sde
    noise = None if sde.noise_type == "none" and registry.get(stepper).spec.kind != "chain" else 3
    grid = JAGGED if grid is None else grid
    return sk.solve(sde, x, grid, stepper, **{"noise": noise, **options})  # type: ignore[arg-type]


class Watched:
    """A network that writes down when it was asked."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert bool((t == t[0]).all())
        self.times.append(float(t[0]))
        return 0.3 * x + torch.sin(x)


# What is asked, and how often


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("upwards", [False, True], ids=["down", "up"])
def test_no_evaluation_outside_the_interval(stepper: str, upwards: bool) -> None:
    """Not by one rounding: a network may be undefined there."""
    if STEPPERS[stepper].spec.kind == "exact":
        return  # asks nothing: test_evaluations_are_those_declared
    if upwards and STEPPERS[stepper].spec.eta[0] > 0.0:
        return  # only a flow can be run upwards
    for seed in range(40):
        # Long last steps: t₀ + (t₁ − t₀) may miss t₁ only where t₁ is more than twice t₀, or less than half.
        count = 1 + max(2, STEPPERS[stepper].spec.min_steps)
        inner = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        grid = (0.002 + 0.9 * inner**4).sort(descending=not upwards).values
        net = Watched()
        score = sk.score.from_model(net, sk.VP(), "epsilon")
        sde = sk.probability_flow(sk.VP(), score) if upwards else problem(stepper, score)
        x = torch.ones(2, 3, dtype=torch.float64)
        run(stepper, x, sde, grid).check()
        assert net.times
        assert min(net.times) >= float(grid.min())
        assert max(net.times) <= float(grid.max())


@pytest.mark.parametrize("stepper", STEPPERS)
def test_evaluations_are_those_declared(stepper: str, randn: Randn) -> None:
    spec, sde = STEPPERS[stepper].spec, problem(stepper)
    stats = run(stepper, randn(3, 2), sde).stats
    steps = len(JAGGED) - 1
    assert stats.steps == steps
    longer = run(stepper, randn(3, 2), sde, [*JAGGED, 0.5 * JAGGED[-1]]).stats
    assert longer.score_evaluations - stats.score_evaluations == spec.evaluations
    started = stats.score_evaluations - spec.evaluations * steps  # what a p-step method spends on its first p − 1 steps
    first = int(spec.remembers)  # what is asked before there is anything to remember
    assert started == first if spec.min_steps == 1 else 0 <= started <= (spec.min_steps - 1) * 5
    if spec.kind == "step":
        assert stats.drift_evaluations == spec.evaluations * steps + first
        assert (stats.diffusion_evaluations > 0) == (sde.noise_type != "none")
    assert stats.seconds > 0


@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_repeated_time_costs_nothing(stepper: str, randn: Randn) -> None:
    x = randn(3, 2)
    repeated = [JAGGED[0], *JAGGED, JAGGED[-1], JAGGED[-1]]
    once, twice = run(stepper, x), run(stepper, x, grid=repeated)
    assert torch.equal(once.final, twice.final)
    assert asdict(once.stats) | {"seconds": 0} == asdict(twice.stats) | {"seconds": 0}
    everything = run(stepper, x, grid=repeated, save="all")
    assert everything.ts.tolist() == repeated
    assert torch.equal(everything.xs[0], everything.xs[1])
    assert torch.equal(everything.xs[-1], everything.xs[-3])


def test_the_global_generator_is_not_touched(randn: Randn) -> None:
    x, before = randn(3, 2), torch.get_rng_state()
    run("euler-maruyama", x)
    assert torch.equal(torch.get_rng_state(), before)


# Directions


def field(t: Time, x: Tensor) -> Tensor:
    return torch.sin(x) * (1.0 + t) - 0.5 * t


@pytest.mark.parametrize("grid", [[0.2, 0.5, 0.6, 1.4], [1.4, 0.6, 0.5, 0.2]], ids=["up", "down"])
def test_an_ode_by_hand_in_both_directions(grid: list[float], randn: Randn, tol: Callable[[float], float]) -> None:
    """Euler steps x + (t₁ − t₀) f(t₀, x), with signs as printed in books, whichever way the grid runs."""
    x = randn(4, 3)
    expected = x
    for s, t in pairwise(grid):
        expected = expected + (t - s) * field(s, expected)
    solution = sk.solve(sk.sde(field), x, grid, "euler")
    torch.testing.assert_close(solution.final, expected, rtol=0, atol=tol(1e-14))


def test_the_reverse_sde_by_hand(randn: Randn, tol: Callable[[float], float]) -> None:
    """x + (t₁ − t₀) b + g ΔW with t₁ < t₀, and ΔW the increment of the path over [t₁, t₀]."""
    x, w = randn(4, 2), randn(6, 4, 2, seed=1)
    rev = sk.reverse_time(sk.VP(), lambda t, x: -torch.tanh(x), 0.6)
    expected = x
    for k, (s, t) in enumerate(pairwise(JAGGED)):
        expected = expected + (t - s) * rev.drift(s, expected) + rev.diffusion(s, expected) * w[k]
    solution = sk.solve(rev, x, JAGGED, "euler-maruyama", noise=sk.RecordedBrownian(JAGGED, w))
    torch.testing.assert_close(solution.final, expected, rtol=0, atol=tol(1e-13))


def test_general_noise_by_hand(randn: Randn, tol: Callable[[float], float]) -> None:
    """Three noises of a plane: G (2, 3) times ΔW (3,), the same for every sample of a batch."""
    x, w, grid = randn(4, 2), randn(3, 4, 3, seed=1), [0.0, 0.3, 0.4, 1.0]
    matrix = randn(2, 3, seed=2)

    def columns(t: Any, x: Tensor) -> Tensor:
        return matrix * torch.cos(x[..., None] + t)

    expected = x
    for k, (s, t) in enumerate(pairwise(grid)):
        moved = torch.einsum("bij,bj->bi", columns(s, expected), w[k])
        expected = expected + (t - s) * field(s, expected) + moved
    noise = sk.RecordedBrownian(grid, w)
    solution = sk.solve(sk.sde(field, columns, "general"), x, grid, "euler-maruyama", noise=noise)
    torch.testing.assert_close(solution.final, expected, rtol=0, atol=tol(1e-13))


def test_scalar_noise_is_shared_by_the_coordinates(randn: Randn, tol: Callable[[float], float]) -> None:
    x, w = randn(4, 3), randn(1, 4, 1, seed=1)
    for g in (lambda t, x: torch.cos(x), lambda t, x: torch.cos(x)[..., None]):
        noise = sk.RecordedBrownian([0.0, 0.5], w)
        solution = sk.solve(sk.sde(field, g, "scalar"), x, [0.0, 0.5], "euler-maruyama", noise=noise)
        expected = x + 0.5 * field(0.0, x) + torch.cos(x) * w[0]
        torch.testing.assert_close(solution.final, expected, rtol=0, atol=tol(1e-14))


def test_noise_of_an_image_is_drawn_per_pixel(randn: Randn) -> None:
    x = torch.zeros_like(randn(2, 2, 3, 4))
    moved = sk.solve(sk.sde(lambda t, x: 0 * x, lambda t, x: 1 + 0 * x), x, [0.0, 1.0], "euler-maruyama", noise=0).final
    assert len(set(moved.flatten().tolist())) == moved.numel()


@pytest.mark.parametrize("stepper", ["rk4", "dpmpp-2m", "heun", "ddim"])
def test_encode_and_decode(stepper: str, randn: Randn) -> None:
    """Up the flow and down again: the way back undoes the way out, at the order of the method."""
    flow = sk.probability_flow(sk.VP(), gaussian_score())
    x = randn(8, 2).double()
    order = STEPPERS[stepper].spec.ode
    assert order is not None
    errors = []
    for steps in (64, 128):
        down = sk.grids.log_snr(sk.VP(), steps, t_min=0.02)
        latent = sk.solve(flow, x, down.flip(0), stepper).check().final
        assert float((latent - x).abs().max()) > 0.1
        errors.append(float((sk.solve(flow, latent, down, stepper).check().final - x).abs().max()))
    assert errors[1] < 0.1
    assert math.log2(errors[0] / errors[1]) > order - 0.5


# What is saved


@pytest.mark.parametrize("stepper", STEPPERS)
def test_save_all(stepper: str, randn: Randn) -> None:
    x = randn(3, 2)
    every, last = run(stepper, x, save="all"), run(stepper, x)
    assert every.ts.dtype == last.ts.dtype == torch.float64
    assert every.ts.tolist() == JAGGED
    assert last.ts.tolist() == JAGGED[-1:]
    assert every.xs.shape == (len(JAGGED), 3, 2)
    assert torch.equal(every.xs[0], x)
    assert torch.equal(every.xs[-1], last.xs[0])
    assert torch.equal(every.final, last.final)
    assert torch.equal(every.final, every.xs[-1])


@pytest.mark.parametrize("stepper", STEPPERS)
def test_times_off_the_grid_are_stepped_to(stepper: str, randn: Randn) -> None:
    """Never interpolated: the answer is that of the grid with those times in it."""
    x, wanted = randn(3, 2), [0.2, 0.6, 0.31]
    asked = run(stepper, x, save=wanted)
    finer = run(stepper, x, grid=sorted({*JAGGED, *wanted}, reverse=True), save="all")
    assert asked.ts.tolist() == wanted
    for t, state in zip(wanted, asked.xs, strict=True):
        assert torch.equal(state, finer.xs[finer.ts.tolist().index(t)])
    assert asked.stats.steps == len(JAGGED) + 1


@pytest.mark.parametrize("stepper", STEPPERS)
def test_final_is_the_end_of_the_run_whatever_is_saved(stepper: str, randn: Randn) -> None:
    x = randn(3, 2)
    for save in ([0.5], [0.05, 0.5], [0.9], "all", torch.tensor([0.31, 0.31], dtype=torch.float64)):
        solution = run(stepper, x, save=save)
        assert torch.equal(solution.final, run(stepper, x).final)
        assert len(solution.ts) == len(solution.xs)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_time_that_misses_a_node_by_rounding_is_the_node(stepper: str, randn: Randn) -> None:
    """Else a multistep method would divide by a step of 1e-16."""
    x = randn(3, 2)
    near = [math.nextafter(0.5, 0.0), math.nextafter(0.31, 1.0), math.nextafter(0.05, 0.0)]
    solution = run(stepper, x, save=near)
    assert solution.ts.tolist() == [0.5, 0.31, 0.05]
    assert torch.equal(solution.final, run(stepper, x).final)


def test_the_states_that_were_given_are_left_alone(randn: Randn) -> None:
    x = randn(3, 2)
    before = x.clone()
    for stepper in STEPPERS:
        every = run(stepper, x, save="all")
        kept = every.xs.clone()
        run(stepper, every.final, save="all")
        assert torch.equal(x, before)
        assert torch.equal(every.xs, kept)


def test_progress_is_told_of_every_step(randn: Randn) -> None:
    told: list[tuple[int, int]] = []
    run("ddim", randn(2, 2), progress=lambda done, total: told.append((done, total)))
    assert told == [(k, 6) for k in range(1, 7)]
    assert run("ddim", randn(2, 2), progress=True).ok


# How it ends


@pytest.mark.parametrize("stepper", [s for s in STEPPERS if STEPPERS[s].spec.kind != "exact"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_sample_that_fails_leaves_its_neighbours_alone(stepper: str, poison: float, randn: Randn) -> None:
    x, exact = randn(5, 2), gaussian_score()
    sick = torch.zeros(5, 2, dtype=torch.bool, device=x.device)
    sick[2, 1] = True  # one coordinate is enough

    def score(t: Any, y: Tensor) -> Tensor:
        return torch.where(sick & (t <= 0.5), poison, exact(t, y))

    healthy = run(stepper, x, problem(stepper, sk.score.as_score(exact)))
    solution = run(stepper, x, problem(stepper, sk.score.as_score(score)))
    assert solution.status.tolist() == [0, 0, Status.NON_FINITE, 0, 0]
    assert solution.status.dtype == torch.int8
    assert not solution.ok
    others = ~sick.any(1)
    assert torch.equal(solution.final[others], healthy.final[others])
    with pytest.raises(sk.SdekitError, match="1 non_finite of 5 samples"):
        solution.check()


def test_a_run_in_which_all_samples_failed_stops_early(randn: Randn) -> None:
    asked = []

    def score(t: Any, x: Tensor) -> Tensor:
        asked.append(t)
        return x * math.nan

    solution = sk.solve(sk.probability_flow(sk.VP(), score), randn(3, 2), steps=1000)
    assert solution.status.tolist() == [Status.NON_FINITE] * 3
    assert len(asked) < 200


def test_the_step_limit(randn: Randn) -> None:
    x = randn(3, 2)
    solution = run("ddim", x, max_steps=2, save="all")
    assert solution.status.tolist() == [Status.STEP_LIMIT] * 3
    assert solution.ts.tolist() == JAGGED[:3]
    assert torch.equal(solution.final, run("ddim", x, grid=JAGGED[:3]).final)
    last = run("ddim", x, max_steps=2)
    assert last.ts.tolist() == [JAGGED[2]]
    assert torch.equal(last.xs[0], solution.final)
    assert run("ddim", x, max_steps=6).ok
    assert torch.equal(run("ddim", x, max_steps=0).final, x)


def test_the_time_limit(randn: Randn) -> None:
    x = randn(3, 2)
    solution = run("ddim", x, max_seconds=0.0, save=[0.1])
    assert solution.status.tolist() == [Status.TIME_LIMIT] * 3
    assert solution.stats.steps < 6
    assert torch.equal(solution.final, solution.xs[-1])
    with pytest.raises(sk.SdekitError, match="3 time_limit of 3"):
        solution.check()
    assert run("ddim", x, max_seconds=60.0).ok


def test_a_limit_and_a_failure(randn: Randn) -> None:
    """A sample that failed says so, also when the run was cut short."""
    x = randn(2, 2)
    score = sk.score.as_score(lambda t, y: torch.stack([y[0] * math.nan, y[1]]))
    solution = run("ddim", x, problem("ddim", score), max_steps=3)
    assert solution.status.tolist() == [Status.NON_FINITE, Status.STEP_LIMIT]


@pytest.mark.parametrize("stepper", STEPPERS)
def test_denoising_at_the_end(stepper: str, randn: Randn, tol: Callable[[float], float]) -> None:
    """E[x₀ | x_t] in closed form, at t = 0 for one more evaluation."""
    x = randn(3, 2)
    stopped, denoised = run(stepper, x), run(stepper, x, end="denoise")
    t = JAGGED[-1]
    alpha, sigma = sk.VP().schedule.alpha(t), sk.VP().schedule.sigma(t)
    mean, variance = LAW.mean.to(x), LAW.variance.to(x)
    expected = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (stopped.final - alpha * mean)
    torch.testing.assert_close(denoised.final, expected, rtol=0, atol=tol(1e-13))
    assert denoised.ts.tolist() == [0.0]
    assert torch.equal(denoised.xs, denoised.final[None])
    assert denoised.stats.score_evaluations == stopped.stats.score_evaluations + 1
    assert denoised.provenance["end"] == "denoise"
    early = run(stepper, x, end="denoise", save=[0.5])
    assert early.ts.tolist() == [0.5, 0.0]
    assert torch.equal(early.final, denoised.final)
    cut = run(stepper, x, end="denoise", max_steps=2)
    assert cut.ts.tolist() == JAGGED[2:3]


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_denoising_in_every_prediction(prediction: Prediction, randn: Randn) -> None:
    x, exact = randn(3, 2).double(), gaussian_score()

    def net(x: Tensor, t: Tensor) -> Tensor:
        return sk.score.convert(exact(float(t[0]), x), float(t[0]), x, sk.VP(), "score", prediction)

    score = sk.score.from_model(net, sk.VP(), prediction)
    for stepper in STEPPERS:
        if STEPPERS[stepper].spec.kind == "exact":
            continue
        got = run(stepper, x, problem(stepper, score), end="denoise")
        torch.testing.assert_close(got.final, run(stepper, x, end="denoise").final, rtol=1e-9, atol=1e-9)


# What is filled in


@pytest.mark.parametrize(
    ("sde", "stepper"),
    [
        (sk.probability_flow(sk.VP(), gaussian_score()), "v-abm-4"),
        (sk.probability_flow(sk.VE(), gaussian_score()), "v-abm-4"),
        (sk.reverse_time(sk.VP(), gaussian_score()), "er-sde-2"),
        (sk.reverse_time(sk.VP(), gaussian_score(), 0.5), "er-sde-2"),
        (sk.reverse_time(sk.VP(), gaussian_score(), 1.5), "er-sde-2"),
        (sk.probability_flow(sk.OU(torch.eye(2)), lambda t, x: -x), "rk4"),
        (sk.reverse_time(sk.OU(torch.eye(2)), lambda t, x: -x), "euler-maruyama"),
        (sk.VP(), "exact-linear"),
        (sk.OU(torch.eye(2)), "exact-linear"),
    ],
    ids=["flow", "VE", "reverse", "eta 0.5", "eta 1.5", "matrix flow", "matrix reverse", "forward", "matrix forward"],
)
def test_defaults(sde: SDE, stepper: str, randn: Randn) -> None:
    x = randn(3, 2)
    solution = sk.solve(sde, x, steps=4, noise=None if sde.noise_type == "none" else 0, save="all").check()
    assert solution.provenance["stepper"] == stepper
    process: Any = sde.process if isinstance(sde, Reverse) else sde
    grid = sk.grids.uniform if process.schedule is None else sk.grids.rectified
    expected = grid(process, 4) if isinstance(sde, Reverse) else sk.grids.uniform(process, 4).flip(0)
    assert torch.equal(solution.ts, expected)


def test_the_default_grid_stops_before_an_end_of_its_own(randn: Randn) -> None:
    flow = sk.probability_flow(sk.VP(), gaussian_score())
    solution = sk.solve(flow, randn(3, 2), steps=9, end="denoise")
    assert solution.stats.score_evaluations == 10
    assert solution.provenance["times"] == sk.grids.rectified(sk.VP(), 10)[:-1].tolist()


def test_default_steppers_of_general_problems(randn: Randn) -> None:
    x = randn(3, 2)
    assert sk.solve(sk.sde(field), x, [0.0, 1.0]).provenance["stepper"] == "rk4"
    general = sk.sde(field, lambda t, x: x)
    assert sk.solve(general, x, [0.0, 1.0], noise=0).provenance["stepper"] == "euler-maruyama"


def test_a_stepper_is_a_name_or_an_object(randn: Randn) -> None:
    x, flow = randn(3, 2), sk.probability_flow(sk.VP(), gaussian_score())
    assert torch.equal(sk.solve(flow, x, JAGGED, "heun").final, sk.solve(flow, x, JAGGED, sk.Heun()).final)


def test_a_grid_is_a_tensor_or_a_list(randn: Randn) -> None:
    x, flow = randn(3, 2), sk.probability_flow(sk.VP(), gaussian_score())
    tensor = torch.tensor(JAGGED, dtype=torch.float64)
    assert torch.equal(sk.solve(flow, x, JAGGED, "heun").final, sk.solve(flow, x, tensor, "heun").final)


# Noise


@pytest.mark.parametrize("stepper", [s for s in STEPPERS if STEPPERS[s].spec.eta[1] > 0])
def test_a_seed_and_global_path_numbers(stepper: str, randn: Randn) -> None:
    """The same seed gives the same run; a subset of the paths gives those rows; another seed, other noise."""
    x = randn(6, 2)
    whole = run(stepper, x)
    assert torch.equal(run(stepper, x).final, whole.final)
    assert torch.equal(run(stepper, x, paths=range(6)).final, whole.final)
    assert torch.equal(run(stepper, x[[4, 1]], paths=[4, 1]).final, whole.final[[4, 1]])
    assert not torch.equal(run(stepper, x, noise=4).final, whole.final)
    same = run(stepper, x[:1].expand(6, 2), paths=torch.tensor([5, 5, 5, 5, 5, 6])).final
    assert torch.equal(same[0].expand(5, 2), same[:5])
    assert not torch.equal(same[0], same[5])


def test_a_seed_draws_the_normals_of_every_step_in_turn() -> None:
    """dx = dW: step k adds √h times the normal at the address (seed, path, first draw of a step, k)."""
    grid, paths = [0.0, 0.3, 0.35, 1.0, 1.7], [4, 0, 9]
    sde = sk.sde(lambda t, x: 0 * x, lambda t, x: torch.ones_like(x), "additive")
    x = torch.zeros(3, 2, dtype=torch.float64)
    xs = sk.solve(sde, x, grid, "euler-maruyama", noise=7, paths=paths, save="all").xs
    z = random.normals(random.path_keys(7, paths), (2,), stream=random.STREAM_STEP, count=4)
    roots = torch.tensor(grid, dtype=torch.float64).diff().sqrt().reshape(-1, 1, 1)
    torch.testing.assert_close(xs.diff(dim=0), z * roots, rtol=0, atol=1e-14)


def test_coupled_runs_share_one_path(randn: Randn) -> None:
    """Steps of two sizes on one BrownianGrid see the same increments: they differ by far less than two seeds do."""
    x = randn(200, 2)
    sde = sk.OU(theta=1.0, sigma=1.0)
    fine = torch.linspace(0.0, 1.0, 65, dtype=torch.float64)
    noise = sk.BrownianGrid((200, 2), 0.0, 1.0, 64, seed=2, device=x.device)
    a = sk.solve(sde, x, fine, "euler-maruyama", noise=noise).final
    b = sk.solve(sde, x, fine[::4], "euler-maruyama", noise=noise).final
    c = sk.solve(sde, x, fine[::4], "euler-maruyama", noise=9).final
    assert a.dtype == x.dtype
    assert float((a - b).square().mean().sqrt()) < 0.05 < 0.3 < float((a - c).square().mean().sqrt())


def test_a_deterministic_run_needs_no_noise(randn: Randn) -> None:
    x, flow = randn(3, 2), sk.probability_flow(sk.VP(), gaussian_score())
    assert torch.equal(sk.solve(flow, x, JAGGED, noise=3).final, sk.solve(flow, x, JAGGED).final)


# Gradients


@pytest.mark.parametrize("stepper", STEPPERS)
def test_gradients_flow_through_a_solve(stepper: str) -> None:
    """With respect to the initial state and to a parameter of the score; against finite differences."""
    process = sk.VP()
    x = torch.tensor([[0.3, -0.4], [1.1, 0.2]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    exact = STEPPERS[stepper].spec.kind == "exact"

    def final(y: Tensor, w: Tensor) -> Tensor:
        learned = sk.score.from_model(lambda x, t: w * torch.tanh(x), process)
        score = gaussian_score() if exact else learned
        grid = [0.6, 0.4, 0.3, 0.25, 0.15, 0.1][: 1 + max(2, STEPPERS[stepper].spec.min_steps)]
        return run(stepper, y, problem(stepper, score), grid=grid, save="all").xs.sum(0)

    assert torch.autograd.gradcheck(final, (x, weight))


def test_no_grad_records_nothing(randn: Randn) -> None:
    x = randn(2, 2).requires_grad_()
    with torch.no_grad():
        assert not run("heun", x).final.requires_grad


# The record


@pytest.mark.parametrize("stepper", STEPPERS)
def test_provenance(stepper: str, randn: Randn) -> None:
    sde = problem(stepper)
    found = run(stepper, randn(3, 2), sde, paths=None if sde.eta == 0 else [4, 5, 6]).provenance
    assert found["sdekit"] == sk.__version__
    assert found["torch"] == torch.__version__
    assert found["stepper"] == stepper
    assert (found["problem"], found["reverse"], found["eta"]) == ("VP", True, sde.eta)
    assert found["times"] == JAGGED
    assert found["process"] == repr(sde.process)
    assert found["noise"] == (None if sde.eta == 0 else 3)
    assert found["paths"] == (None if sde.eta == 0 else [4, 5, 6])
    assert found["dtype"] in ("float64", "float32")


def test_a_solution_survives_the_disk(tmp_path: Path, randn: Randn) -> None:
    x = randn(3, 2)
    solution = run("euler-maruyama", x, save="all", max_steps=4)
    file = tmp_path / "new folder" / "solution.safetensors"
    solution.save(file)
    loaded = sk.Solution.load(str(file))
    for part in ("ts", "xs", "final", "status"):
        kept, found = getattr(solution, part), getattr(loaded, part)
        assert kept.dtype == found.dtype
        assert torch.equal(kept.cpu(), found)
    assert loaded.stats == solution.stats
    assert loaded.provenance == solution.provenance
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    run("heun", x).save(file)
    assert sk.Solution.load(file).provenance["stepper"] == "heun"


def test_a_solution_with_gradients_can_be_kept(tmp_path: Path, randn: Randn) -> None:
    solution = run("heun", randn(3, 2).requires_grad_(), save="all")
    solution.save(tmp_path / "a")
    assert torch.equal(sk.Solution.load(tmp_path / "a").xs, solution.xs.detach().cpu())


@pytest.mark.parametrize(
    ("value", "finite"), [(1.0, True), (3e38, True), (math.nan, False), (math.inf, False), (-math.inf, False)]
)
def test_finite_samples_are_told_apart(value, finite):
    x = torch.full((3, 4, 5), 3e38)  # the sum overflows, the states do not
    x[1, 2, 3] = value
    assert finite_samples(x).tolist() == [True, finite, True]
    assert finite_samples(torch.ones(3, 4)).tolist() == [True] * 3
