"""The error of a sampler taken apart; each part against a closed form, and against a fault that only it may show."""

from __future__ import annotations

from itertools import pairwise
from math import hypot, sqrt

import pytest
import torch
from mutants.samplers import WithoutRho

import sdekit as sk
from sdekit import ends
from sdekit.verify import error_budget, numerical_law

PROCESS = sk.VP()
DATA = sk.Gaussian([0.5, -1.0], [0.01, 1.0])
FLOW = sk.probability_flow(PROCESS, sk.exact_score(DATA, PROCESS))
GRID = sk.grids.log_snr(PROCESS, 50)


def test_parts_in_closed_form():
    """The flow scales by √(v_ε/v_T): so does the prior's mismatch; the truncation is that of two Gaussians."""
    budget = error_budget(FLOW, "dpmpp-2m", GRID)
    last, first = float(GRID[-1]), float(GRID[0])
    schedule = PROCESS.schedule
    gap, cut = [], []
    for mean, variance in zip((0.5, -1.0), (0.01, 1.0), strict=True):
        a, s = schedule.alpha(first), schedule.sigma(first)
        v = a * a * variance + s * s
        e = schedule.alpha(last) ** 2 * variance + schedule.sigma(last) ** 2
        gap += [sqrt(e / v) * a * mean, sqrt(e / v) * (s - sqrt(v))]
        cut += [(1 - schedule.alpha(last)) * mean, sqrt(e) - sqrt(variance)]
    assert budget.initial == pytest.approx(hypot(*gap), rel=1e-9)
    assert budget.truncation == pytest.approx(hypot(*cut), rel=1e-9)
    assert budget.end_point == budget.truncation
    assert 0 < budget.discretisation < 0.01


def test_an_exact_solver_has_no_discretisation_error():
    assert error_budget(FLOW, "exact-linear", GRID).discretisation < 1e-14


def test_the_right_start_has_no_initial_error():
    start = PROCESS.marginal(DATA, float(GRID[0]))
    budget = error_budget(FLOW, "heun", GRID, start)
    assert budget.initial < 1e-14
    assert budget.total <= budget.discretisation + budget.truncation + 1e-12


ENDS = ("stop", "denoise", "exact-linear")


def vector(law: sk.Gaussian) -> torch.Tensor:
    """Means and standard deviations along the axes: W2 between laws of diagonal covariance is the distance of these."""
    return torch.cat(
        [law.mean, law.covariance.diagonal().sqrt() if law.covariance.ndim == 2 else law.covariance.sqrt()]
    )


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_parts_add_up_to_the_total(eta, end):
    """As vectors, from laws in closed form at every corner of the way from the data to the samples."""
    sde = sk.reverse_time(PROCESS, FLOW.score, eta)
    budget = error_budget(sde, "ddim", GRID, end=end)
    start, noisy = PROCESS.prior((2,)), PROCESS.marginal(DATA, float(GRID[0]))
    ideal, begun = (numerical_law(sde, "exact-linear", GRID, law, end) for law in (noisy, start))
    corners = [vector(law) for law in (DATA, ideal, begun, numerical_law(sde, "ddim", GRID, start, end))]
    parts = [float((b - a).norm()) for a, b in pairwise(corners)]
    assert [budget.end_point, budget.initial, budget.discretisation] == pytest.approx(parts, rel=1e-9, abs=1e-13)
    assert budget.total == pytest.approx(float((corners[-1] - corners[0]).norm()), rel=1e-9)
    assert budget.total <= sum(parts) + 1e-13
    assert budget.end_point == budget.end_points[end]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_end_point_of_every_policy_in_closed_form(eta):
    """Independent of η: what each policy does to p_ε, coordinate by coordinate."""
    found = error_budget(sk.reverse_time(PROCESS, FLOW.score, eta), "ddim", GRID).end_points
    assert tuple(found) == ENDS
    a, s = PROCESS.schedule.alpha(float(GRID[-1])), PROCESS.schedule.sigma(float(GRID[-1]))
    stop, denoise = [], []
    for mean, variance in zip((0.5, -1.0), (0.01, 1.0), strict=True):
        v = a * a * variance + s * s
        stop += [(1 - a) * mean, sqrt(v) - sqrt(variance)]
        denoise += [a * variance / sqrt(v) - sqrt(variance)]  # the mean is right
    assert found["stop"] == pytest.approx(hypot(*stop), rel=1e-9)
    assert found["denoise"] == pytest.approx(hypot(*denoise), rel=1e-9)
    assert found["exact-linear"] < 1e-13


def test_without_a_schedule_there_is_no_denoising():
    process = sk.OU(theta=torch.tensor([[1.0, 0.5], [-0.5, 2.0]]))
    sde = sk.reverse_time(process, sk.exact_score(DATA, process))
    budget = error_budget(sde, "euler-maruyama", sk.grids.uniform(process, 20, t_min=0.1), end="exact-linear")
    assert tuple(budget.end_points) == ("stop", "exact-linear")
    assert budget.end_point < 1e-13 < budget.discretisation


FAULTS = {
    # η, the slip, and by its name the part that must show it; the others must not
    "initial": (0.0, "ddim", sk.Gaussian([0.3, 0.0], 1.0)),
    "discretisation": (1.0, WithoutRho(), None),
}


@pytest.mark.parametrize("part", FAULTS)
def test_a_fault_shows_in_its_own_part(part):
    eta, stepper, start = FAULTS[part]
    sde = sk.reverse_time(PROCESS, FLOW.score, eta)
    right, wrong = error_budget(sde, "ddim", GRID), error_budget(sde, stepper, GRID, start)
    assert getattr(wrong, part) > 2 * getattr(right, part)
    assert wrong.end_points == right.end_points
    other = "discretisation" if part == "initial" else "initial"
    assert getattr(wrong, other) == pytest.approx(getattr(right, other), rel=0.05)


def test_a_fault_in_the_end_shows_in_the_end_point_alone(monkeypatch):
    """The slip: the end of the flow is used whatever η is, so that the noise is missing."""
    sde = sk.reverse_time(PROCESS, FLOW.score)
    right = error_budget(sde, "ddim", GRID, end="exact-linear")
    monkeypatch.setattr(ends, "draws", lambda sde, end: False)
    wrong = error_budget(sde, "ddim", GRID, end="exact-linear")
    assert right.end_point < 1e-13
    assert wrong.end_point > 1e-5
    assert wrong.end_points["stop"] == right.end_points["stop"]


def test_a_coarser_grid_changes_the_discretisation_alone():
    fine, coarse = (error_budget(FLOW, "ddim", sk.grids.log_snr(PROCESS, n)) for n in (40, 10))
    assert coarse.discretisation > 3 * fine.discretisation
    assert coarse.initial == pytest.approx(fine.initial, rel=1e-9)
    assert coarse.truncation == pytest.approx(fine.truncation, rel=1e-12)


def test_an_earlier_end_changes_the_truncation():
    early = error_budget(FLOW, "exact-linear", sk.grids.log_snr(PROCESS, 50, t_min=1e-2))
    assert early.truncation > 10 * error_budget(FLOW, "exact-linear", GRID).truncation


def test_denoising_takes_the_noise_of_a_narrow_law_away():
    """Where σ_ε is above the data's deviation, E[x₀ | x_ε] is nearer to the data than x_ε."""
    narrow = sk.Gaussian([0.5, -1.0], 1e-6)
    flow = sk.probability_flow(PROCESS, sk.exact_score(narrow, PROCESS))
    stop, denoise = (error_budget(flow, "exact-linear", GRID, end=end) for end in ("stop", "denoise"))
    assert denoise.end_point < 0.2 * stop.end_point
    assert denoise.total < stop.total


def test_other_data_are_refused():
    mixture = sk.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.1])
    with pytest.raises(sk.SdekitError, match="exact_score\\(Gaussian"):
        error_budget(sk.probability_flow(PROCESS, sk.exact_score(mixture, PROCESS)), "ddim", GRID)
