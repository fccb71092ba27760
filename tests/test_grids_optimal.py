"""Optimal grids: the error that is minimised is that of the production solver, its gradient is right, and it pays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import SdekitError, grids, verify
from sdekit.grids import errors
from sdekit.steppers import registry
from sdekit.steppers.plan import PlannedStepper

DTYPE = torch.float64
VE = sk.VE(sigma_min=0.05, sigma_max=20.0)
MIXTURE = sk.GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
PLANE = sk.GaussianMixture([0.5, 0.3, 0.2], torch.tensor([[-1.0, 0.4], [1.0, 0.0], [0.3, 1.5]], dtype=DTYPE), [0.2] * 3)
ASKEW = sk.GaussianMixture(
    [0.4, 0.6],
    torch.tensor([[-1.0, 0.4], [1.0, 0.0]], dtype=DTYPE),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=DTYPE),
)
FLOWS = [
    name
    for name, stepper in sk.STEPPERS.items()
    if issubclass(stepper, PlannedStepper) and stepper.spec.eta[0] == 0.0 and stepper.spec.alias is None
]


def spectrum(n: int) -> sk.Gaussian:
    """Eigenvalues 1e-4 … 1e2."""
    return sk.Gaussian(torch.zeros(n, dtype=DTYPE), torch.logspace(-4, 2, n, dtype=DTYPE))


def solved(process: sk.processes.ScheduledProcess, law, x: Tensor, grid: Tensor, stepper: str) -> Tensor:
    return sk.solve(sk.probability_flow(process, sk.exact_score(law, process)), x, grid, stepper).check().final


# --- the error is that of the production solver ----------------------------------------------------


@pytest.mark.parametrize("stepper", FLOWS)
def test_on_the_line_it_is_the_w2_of_solve(stepper: str) -> None:
    grid = grids.karras(VE, 8)
    x = verify.mid_quantiles(VE.marginal(MIXTURE, 1.0), 48)
    exact = verify.quantile_flow(VE, MIXTURE, x, 1.0, 0.0)
    w2 = (solved(VE, MIXTURE, x, grid, stepper) - exact).square().mean().sqrt()
    assert grids.grid_error(VE, grid, law=MIXTURE, stepper=stepper, states=48) == pytest.approx(float(w2), rel=1e-10)


@pytest.mark.parametrize("stepper", ["ddim", "dpmpp-2m", "dpmpp-3s", "unipc-2", "v-ab-2"])
def test_of_a_gaussian_it_is_read_off_the_exact_law_of_solve(stepper: str) -> None:
    process, law = sk.EDM(), sk.Gaussian(torch.tensor([3.0, -1.0], dtype=DTYPE), [[2.0, 0.6], [0.6, 0.5]])
    grid = grids.log_snr(process, 7)
    flow = sk.probability_flow(process, sk.exact_score(law, process))
    start, end = (process.marginal(law, t) for t in (process.t_max, process.t_min))
    axes, _ = law.eigen
    produced = verify.numerical_law(flow, stepper, grid, start)
    sds = [torch.sqrt((axes.mT @ c @ axes).diagonal()) for c in (produced.covariance, end.covariance)]
    relative = float((sds[0] / sds[1] - 1.0).square().mean().sqrt())
    assert grids.grid_error(process, grid, law=law, stepper=stepper) == pytest.approx(relative, rel=1e-9)


@pytest.mark.parametrize("law", [PLANE, ASKEW], ids=["balls", "askew"])
@pytest.mark.parametrize("process", [sk.VP(), sk.OU(theta=1.3, mu=0.7, sigma=0.9)], ids=["VP", "OU"])
def test_in_the_plane_it_is_the_mean_distance_to_the_reference_flow(process, law) -> None:
    grid = grids.log_snr(process, 9)
    high, low = float(grid[0]), float(grid[-1])
    x = process.marginal(law, high).sample(16, seed=3)
    exact = verify.reference_flow(sk.probability_flow(process, sk.exact_score(law, process)), x, high, low, 1e-9)
    distance = (solved(process, law, x, grid, "dpmpp-2m") - exact).norm(dim=1).mean()
    found = grids.grid_error(process, grid, law=law, states=16, seed=3)
    assert found == pytest.approx(float(distance), rel=1e-3)
    # A score that is given is integrated like that of the law.
    given = grids.grid_error(process, grid, law=law, score=sk.exact_score(law, process), states=16, seed=3)
    assert given == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.02), (1.0, 0.5), (0.3, 0.9)])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_denoiser_of_balls_is_that_of_the_exact_score(spread, alpha, sigma) -> None:
    points = sk.Gaussian(torch.full((3,), 5.0, dtype=DTYPE), 2.0).sample(40, seed=1)
    law = sk.Empirical(points) if spread == 0.0 else sk.Empirical(points).diffused(1.0, spread)
    y = law.diffused(alpha, sigma).sample(20, seed=2)
    schedule = sk.Flow().schedule
    found = errors._balls(law)
    assert found is not None
    level = torch.tensor(sigma / (alpha + sigma), dtype=DTYPE)  # of the straight path, with this ratio of noise
    scale = float(schedule.alpha(level)) / alpha
    denoised = errors._ball_denoiser(schedule, *found)(level, y * scale)
    exact = (y + sigma**2 * law.diffused_score(y, alpha, sigma)) / alpha
    torch.testing.assert_close(denoised, exact, rtol=1e-9, atol=1e-9)


def test_laws_that_are_not_balls_are_seen() -> None:
    assert errors._balls(ASKEW) is None
    assert errors._balls(sk.GaussianMixture([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], [0.1, 0.2])) is None


# --- its gradient ----------------------------------------------------------------------------------


def slopes(stepper: str, steps: int = 6) -> tuple[float, float]:
    """The derivative of the error along a direction, by autograd and by central differences."""
    aim = errors.target(VE, MIXTURE, 0.0, 1.0, states=12)
    chosen = errors.planned(stepper, steps)
    times = grids.karras(VE, steps)
    direction = torch.sin(3.0 * torch.arange(steps + 1, dtype=DTYPE)) * 1e-2
    direction[[0, -1]] = 0.0
    free = times.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(aim.error(chosen, free), free)
    with torch.no_grad():
        up, down = (float(aim.error(chosen, times + sign * 1e-3 * direction)) for sign in (1, -1))
    return float(gradient @ direction), (up - down) / 2e-3


OWN_CLOCK = {"deis-3", "deis-4", "er-sde-3", "sigma-midpoint"}
"""Steppers with stages in a clock that is neither λ nor u: their gradient is not exact, their error is."""


@pytest.mark.parametrize("stepper", [name for name in FLOWS if name not in OWN_CLOCK])
def test_the_gradient_is_that_of_differences(stepper: str) -> None:
    exact, measured = slopes(stepper)
    assert exact == pytest.approx(measured, rel=1e-5)


@pytest.mark.parametrize("stepper", ["dpmpp-2m", "dpmpp-2s", "v-ab-3"])
def test_the_check_sees_times_that_the_gradient_forgets(stepper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attached = errors._attached
    monkeypatch.setattr(errors, "_attached", lambda *given: attached(*given).detach())
    exact, measured = slopes(stepper)
    assert exact != pytest.approx(measured, rel=1e-2)


def test_the_check_sees_stages_in_the_wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    attached = errors._attached
    monkeypatch.setattr(errors, "_attached", lambda schedule, _, *rest: attached(schedule, "sample", *rest))
    exact, measured = slopes("v-ab-3")
    assert exact != pytest.approx(measured, rel=1e-4)


# --- what it wins ----------------------------------------------------------------------------------


def test_the_figures_of_a_spectrum() -> None:
    """Eigenvalues 1e-4 … 1e2 on EDM: second order wins a factor of fifty at 10 steps, first order next to nothing."""
    law, process = spectrum(49), sk.EDM()
    found = {}
    best = {}
    for stepper in ("dpmpp-2m", "ddim"):
        best[stepper] = grids.optimal(process, 10, law=law, stepper=stepper)
        each = (grids.log_snr(process, 10), grids.karras(process, 10), best[stepper])
        found[stepper] = [grids.grid_error(process, grid, law=law, stepper=stepper) for grid in each]
    assert found["dpmpp-2m"][0] == pytest.approx(3.4e-2, rel=0.02)
    assert found["dpmpp-2m"][1] == pytest.approx(1.11e-1, rel=0.02)
    assert found["dpmpp-2m"][2] < 7.4e-4
    assert found["ddim"][0] == pytest.approx(0.23, rel=0.02)
    assert found["ddim"][2] == pytest.approx(0.21, rel=0.02)
    # Eigenvalues between those that it was made for do as well.
    between = sk.Gaussian(torch.zeros(31, dtype=DTYPE), torch.logspace(-3.9, 1.9, 31, dtype=DTYPE))
    assert grids.grid_error(process, best["dpmpp-2m"], law=between) < 2.0 * found["dpmpp-2m"][2]


@pytest.mark.parametrize(("steps", "figure"), [(5, 2.2e-2), (10, 4.4e-3)])
def test_the_figures_of_a_mixture(steps: int, figure: float) -> None:
    """On 48 quantiles, to the two digits in which they are known."""
    best = grids.optimal(VE, steps, law=MIXTURE, states=48, iterations=60)
    assert grids.grid_error(VE, best, law=MIXTURE, states=48) < figure


def test_it_is_better_than_others_on_states_that_it_was_not_made_for() -> None:
    steps = 6
    others = [grids.log_snr(VE, steps), grids.karras(VE, steps)]
    best = grids.optimal(VE, steps, law=MIXTURE)
    for states in (192, 1000):  # those it was made for, and others
        error, *rest = (grids.grid_error(VE, grid, law=MIXTURE, states=states) for grid in (best, *others))
        assert error < 0.5 * min(rest)


def test_in_the_plane_too() -> None:
    process = sk.VP()
    best = grids.optimal(process, 6, law=PLANE, states=32, iterations=40)
    found = [
        [grids.grid_error(process, grid, law=PLANE, states=200, seed=seed) for seed in (0, 9)]
        for grid in (best, grids.log_snr(process, 6), grids.karras(process, 6))
    ]
    assert all(found[0][i] < 0.9 * min(found[1][i], found[2][i]) for i in range(2))


def test_what_comes_out_is_a_grid_and_the_same_each_time() -> None:
    best = [grids.optimal(VE, 6, 0.1, 0.9, law=MIXTURE, iterations=30) for _ in range(2)]
    assert torch.equal(*best)
    assert (float(best[0][0]), float(best[0][-1])) == (0.9, 0.1)
    assert bool((best[0].diff() < 0).all())
    assert not best[0].requires_grad
    assert torch.equal(grids.from_times(best[0]), best[0])


def test_no_iterations_and_one_step_leave_a_start() -> None:
    assert grids.optimal(VE, 1, law=MIXTURE).tolist() == [1.0, 0.0]
    start = grids.optimal(VE, 5, law=MIXTURE, iterations=0)
    assert any(torch.equal(start, make(VE, 5)) for make in (grids.log_snr, grids.karras))


def test_a_large_data_set_is_thinned() -> None:
    points = MIXTURE.sample(100, seed=1).expand(100, 2)
    law = sk.Empirical(points)
    assert len(errors._thinned(law, 40).points) == 34
    assert errors._thinned(law, 100) is law


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "steps", "options", "words"),
    [
        (VE, 0, {}, "steps must be"),
        (VE, 5, {"t_min": 0.5, "t_max": 0.2}, "0 ≤ t_min < t_max"),
        (VE, 5, {"iterations": -1}, "iterations"),
        (VE, 5, {"states": 0}, "states must be"),
        (VE, 5, {"points": 2.5}, "points must be"),
        (sk.VP(), 5, {"t_min": 0.0}, "log-SNR is infinite at t_min = 0"),
        (sk.OU(torch.eye(2)), 5, {}, "no schedule"),
        (VE, 5, {"law": torch.zeros(3)}, "law must be"),
        (VE, 5, {"stepper": "heun"}, "heun has no plan for a probability flow"),
        (VE, 5, {"stepper": "dpmp-2m"}, "did you mean"),
        (VE, 2, {"stepper": "dpmpp-3m"}, "3 steps or more"),
        (sk.OU(theta=1.0, mu=torch.zeros(3), sigma=1.0), 5, {}, "process lives on events of shape"),
        (VE, 5, {"score": sk.exact_score(PLANE, VE)}, "score lives on events of shape"),
    ],
)
def test_bad_input(process, steps, options, words) -> None:
    with pytest.raises(SdekitError, match=words):
        grids.optimal(process, steps, **{"law": MIXTURE, **options})


def test_a_flow_that_is_not_known_is_refused() -> None:
    def rough(t, x: Tensor) -> Tensor:
        return -x * torch.sign(torch.sin(1e3 * x))

    with pytest.raises(SdekitError, match="not known well enough"):
        grids.grid_error(VE, grids.log_snr(VE, 4), law=PLANE, score=rough)


def test_nothing_is_nan_where_there_is_no_error() -> None:
    """Data at a point: every grid is exact."""
    law = sk.Gaussian(torch.zeros(2, dtype=DTYPE), 0.0)
    best = grids.optimal(sk.EDM(), 4, law=law)
    assert bool(best.isfinite().all())
    assert grids.grid_error(sk.EDM(), best, law=law) < 1e-12


def test_every_planned_stepper_has_an_error() -> None:
    for name, stepper in registry.STEPPERS.items():
        if issubclass(stepper, PlannedStepper) and stepper.spec.eta[0] > 0.0:
            with pytest.raises(SdekitError, match="no plan for a probability flow"):
                grids.grid_error(VE, grids.log_snr(VE, 6), law=MIXTURE, stepper=name)
