"""The error of a sampler taken apart; each part against a closed form, and against a fault that only it may show."""

from __future__ import annotations

from math import hypot, sqrt

import pytest

import sdekit as sk
from sdekit.verify import error_budget

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
