r"""Orders, windows and plateaus on errors whose law is known: $C h^p (1 + D h + \dots)$, with what can spoil it.

Random cases are seeded; rates are stated where they are asserted.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.verify import OrderEstimate, Plateau, fit_order

STEPS = (16, 32, 64, 128, 256, 512)
H = 16.0 / np.array(STEPS)
ORDERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
BIAS = "end-point bias"


def fit(errors: np.ndarray, floor: float = 1e-14, steps=STEPS) -> OrderEstimate:
    return fit_order(steps, errors.tolist(), floor)


# --- exact errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("D", [-0.5, 0.0, 0.7, 3.0])
def test_the_model_is_fitted_to_rounding(p, D):
    estimate = fit(0.3 * H**p * (1 + D * H))
    assert estimate.order == pytest.approx(p, abs=1e-6)
    assert estimate.uncertainty < 1e-6
    assert estimate.plateau is None
    assert estimate.verdict(p) == "agrees"


def expansions(rng: np.random.Generator, size: float, cases: int):
    """Errors h^p |1 + D h + E h² + F h³| with normal D, E, F, h = 1 at the coarsest level."""
    for _ in range(cases):
        p, (D, E, F) = rng.choice(ORDERS), size * rng.normal(size=3)
        yield float(p), H**p * np.abs(1 + D * H + E * H**2 + F * H**3)


@pytest.mark.parametrize("size", [0.3, 1.0, 2.0])
def test_twice_the_bias_bounds_the_error(size):
    """In 90 % of 100 random expansions, and not for being huge: its median is at most twice that of the true error.

    Negative control: a quarter of it, which is what dropping the coarsest level moves p by, bounds less than a third.
    """
    found = [(abs((e := fit(errors)).order - p), e) for p, errors in expansions(np.random.default_rng(1), size, 100)]
    assert np.mean([error <= 2 * e.bias + 1e-9 for error, e in found]) >= 0.9
    assert np.mean([error <= 0.5 * e.bias for error, e in found]) < 1 / 3
    assert np.nanmedian([e.bias for _, e in found]) <= 2 * np.nanmedian([error for error, _ in found])


@pytest.mark.parametrize(("size", "wrong", "rejected"), [(1.0, 0, 2), (8.0, 1, 10)])
def test_no_claim_half_an_order_off_agrees(size, wrong, rejected):
    """Of 100 random expansions; at size 8 most are far from asymptotic, and one claim in a hundred may slip through."""
    agreed = missed = 0
    for p, errors in expansions(np.random.default_rng(2), size, 100):
        estimate = fit(errors)
        agreed += any(estimate.consistent_with(q) for q in (p - 0.5, p + 0.5, p - 1, p + 1))
        missed += estimate.verdict(p) in ("exceeds", "falls short")
    assert agreed <= wrong
    assert missed <= rejected


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("root", [0.13, 0.3, 0.45, 0.7])
def test_a_cusp_at_coarse_levels_stays_out_of_the_window(p, root):
    """The error changes sign at h = root, between coarse levels; slopes there run from −0.5 to 6."""
    estimate = fit(H**p * np.abs(1 - H / root) * (1 + 0.3 * H))
    assert min(abs(H[0] - root), 1) > 0
    assert estimate.window == STEPS[2:]
    assert abs(estimate.order - p) <= 0.05 + 2 * estimate.uncertainty
    assert estimate.verdict(p) in (("agrees",) if root >= 0.3 else ("agrees", "inconclusive"))
    assert estimate.plateau is None


def test_a_cusp_at_the_finest_level_is_no_measurement():
    assert fit(H**2 * np.abs(1 - H[-1] / H * 1.3)).verdict(2.0) not in ("agrees", "exact")


def test_components_that_change_sign():
    """Root mean squares of four components with random signs and next terms: never a wrong claim."""
    rng = np.random.default_rng(3)
    for _ in range(60):
        p, c = float(rng.choice([1, 2, 3, 4])), rng.normal(size=(4, 3)) * (1, 3, 6)
        errors = H**p * np.sqrt(np.mean([(a + b * H + d * H**2) ** 2 for a, b, d in c], axis=0))
        estimate = fit(errors)
        assert not any(estimate.consistent_with(q) for q in (p - 0.5, p + 0.5))
        assert estimate.plateau is None


# --- floors and plateaus ----------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "floor"), [(1.0, 1e-5), (2.0, 1e-7), (4.0, 1e-12)])
def test_levels_at_the_floor_are_left_out(p, floor):
    """Twelve levels, the finest of them rounding of random sign."""
    steps = tuple(8 * 2**k for k in range(12))
    h = 8.0 / np.array(steps)
    noise = floor * np.random.default_rng(4).normal(size=12)
    estimate = fit(np.abs(0.2 * h**p * (1 + 0.4 * h) + noise), floor, steps)
    assert estimate.plateau is not None
    assert estimate.plateau.cause == "round-off"
    assert estimate.window[-1] < estimate.plateau.first
    assert abs(estimate.order - p) <= 0.02 + 2 * estimate.uncertainty
    assert estimate.verdict(p) == "agrees"


def test_all_levels_at_the_floor_are_exact():
    estimate = fit(np.array([3e-15, 1e-15, 0.0, 2e-15]), steps=STEPS[:4])
    assert estimate.exact
    assert estimate.plateau is None
    assert {estimate.verdict(claim) for claim in (1.0, 2.0, math.inf)} == {"exact"}
    assert estimate.consistent_with(math.inf)


@pytest.mark.parametrize("growth", [0.5, 1.0])
def test_growing_errors_are_round_off_and_leave_the_claim_open(growth):
    """Rounding grows like √N or N. The floor that was stated is not the one that is there: say the right one."""
    steps = tuple(8 * 2**k for k in range(12))
    N = np.array(steps, dtype=float)
    errors = (8 / N) ** 4 + 3e-9 * (N / 8) ** growth
    wrong = fit(errors, 1e-16, steps)
    assert wrong.plateau is not None
    assert wrong.plateau.cause == "round-off"
    assert wrong.verdict(4.0) == "inconclusive"
    right = fit(errors, 1e-7, steps)
    assert abs(right.order - 4.0) < 0.05


COMBINE = {
    "sum": lambda a, c: a + c,
    "difference": lambda a, c: np.abs(a - c),
    "root": np.hypot,
}


@pytest.mark.parametrize("form", COMBINE)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("D", [-0.3, 0.5])
def test_an_end_point_bias_is_found(form, p, D):
    """The constant is 30 times the last term (8 times at order one). The difference dips on its way.

    A dip next to the end can hide a plateau, but nothing there agrees.
    """
    term = H**p * (1 + D * H)
    c = 30 * term[-1] if p > 1 else 8 * term[-1]
    estimate = fit(COMBINE[form](term, c))
    if form != "difference" or p == 2.0:
        assert estimate.plateau is not None
        assert estimate.plateau.cause == BIAS
        assert estimate.plateau.level == pytest.approx(c, rel=0.1)
    assert estimate.verdict(p) in ("falls short", "inconclusive")[: 1 + (form == "difference")]
    assert not any(estimate.reaches(q) for q in (0.5, 1.0, p))


@pytest.mark.parametrize("form", ["sum", "root"])
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_a_plateau_is_found_before_it_is_level(form, p):
    """The constant is three times the last term; local orders have fallen but not to zero."""
    term = H**p
    estimate = fit(COMBINE[form](term, 3 * term[-1]))
    assert estimate.plateau is not None
    assert estimate.plateau.cause == BIAS
    assert estimate.plateau.first in (128, 256, 512)
    assert estimate.plateau.level == pytest.approx(3 * term[-1], rel=0.1)


def test_a_plateau_at_a_thousandth_is_not_read_as_a_low_order():
    """Second order down to 1e-3. The fine levels alone would be of order near zero, the whole near one."""
    steps = (8, 16, 32, 64, 128, 256, 512)
    errors = (8.0 / np.array(steps)) ** 2 + 1e-3
    estimate = fit(errors, steps=steps)
    assert estimate.plateau == Plateau(pytest.approx(1e-3, rel=0.05), 256, BIAS)
    assert math.isnan(estimate.order)
    assert not any(estimate.consistent_with(q) for q in (0.0, 0.5, 1.0, 1.5, 2.0))
    long = tuple(8 * 2**k for k in range(12))
    above = fit((8.0 / np.array(long)) ** 2 + 1e-5, steps=long)
    assert above.order == pytest.approx(2.0, abs=0.1)
    assert above.window[-1] < above.plateau.first
    assert above.verdict(2.0) == "falls short"


@pytest.mark.parametrize("D", [3.0, 10.0, 40.0])
def test_a_slow_approach_is_not_a_plateau(D):
    """Local orders fall from 1.4 towards one half; they do not go on to zero."""
    estimate = fit(H**0.5 * (1 + D * H))
    assert estimate.plateau is None
    assert estimate.verdict(0.5) == ("agrees" if D < 40 else "exceeds")  # D h > 1 on every level: no expansion yet


def test_a_method_of_order_zero_is_not_a_plateau():
    """Milstein without −h: no level ever fell, so order zero is the measurement."""
    estimate = fit(0.638 * (1 + 0.2 * H))
    assert estimate.plateau is None
    assert estimate.order == pytest.approx(0.0, abs=0.01)
    assert estimate.verdict(1.0) == "falls short"


def test_a_sampling_floor():
    """Weak errors of known standard error: the levels that drown are left out, and named."""
    steps = tuple(2**k for k in range(1, 13))
    true = 1.0 / np.array(steps, dtype=float) ** 2
    se = 1e-7
    z = random.normals(random.path_keys(7, len(steps)), (), stream=random.STREAM_LAW)[0].numpy()
    errors = np.abs(true + se * z)
    estimate = fit_order(steps, errors.tolist(), sampled=(se / errors).tolist())
    assert estimate.plateau is not None
    assert estimate.plateau.cause == "sampling"
    assert estimate.window[-1] < estimate.plateau.first
    assert estimate.verdict(2.0) == "agrees"
    assert fit_order(steps, errors.tolist()).verdict(2.0) != "agrees"  # unstated noise


# --- sampled errors ---------------------------------------------------------------------------------


def coupled(p: float, D: float, paths: int, correlation: float, seed: int) -> torch.Tensor:
    """Squared errors of paths, whose mean is (h^p (1 + D h))²: squares of correlated normals."""
    keys = random.path_keys(seed, paths)
    common, own = random.normals(keys, (7,), stream=random.STREAM_LAW)[0].split([1, 6], 1)
    z = (correlation**0.5 * common + (1 - correlation) ** 0.5 * own).mT
    return torch.from_numpy(H**p * (1 + D * H))[:, None].square() * z.square()


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_bootstrap_covers(correlation):
    """20 ladders of 1000 paths each, seeds 0 to 19.

    Of a standard normal, the root mean square of 20 lies in [0.3, 1.9] but for 1e-6. The order is a Student-like
    ratio with a window that noise chooses, so nothing sharper is asserted.
    """
    found = [fit_order(STEPS, squares=coupled(1.0, 0.5, 1000, correlation, seed), seed=seed) for seed in range(20)]
    z = np.array([(e.order - 1.0) / e.sampling for e in found])
    assert 0.3 < np.sqrt(np.mean(z**2)) < 1.9
    assert np.mean([abs(e.order - 1.0) <= 2 * e.uncertainty for e in found]) >= 0.75
    naive = np.array([(e.order - 1.0) / (e.sampling / 4) for e in found])  # a standard error four times too small
    assert np.sqrt(np.mean(naive**2)) > 1.9


def test_paths_are_resampled_alike_on_all_levels():
    """Errors that move together say more about their ratio: independence would overstate the error of the order."""
    squares = coupled(1.0, 0.5, 2000, 0.95, 11)
    together = fit_order(STEPS, squares=squares)
    relative = (0.5 * squares.std(1) / squares.mean(1) / 2000**0.5).tolist()
    apart = fit_order(STEPS, squares.mean(1).sqrt().tolist(), sampled=relative)
    assert together.sampling < 0.6 * apart.sampling


def test_the_bootstrap_is_a_function_of_its_seed():
    squares = coupled(1.0, 0.5, 500, 0.5, 12)
    state = torch.random.get_rng_state()
    first, again, other = (fit_order(STEPS, squares=squares, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first == again
    assert first.sampling != other.sampling
    assert first.errors == pytest.approx(squares.mean(1).sqrt().tolist())


def test_noise_widens_the_window_and_bias_narrows_it():
    smooth = fit_order(STEPS, squares=coupled(1.0, 0.0, 400, 0.0, 13))
    assert len(smooth.window) > 4
    bent = coupled(1.0, 0.0, 40_000, 0.9, 13)
    bent[0] *= 9.0  # the coarsest level is three times too large
    assert fit_order(STEPS, squares=bent).window[0] > STEPS[0]


# --- verdicts ---------------------------------------------------------------------------------------


def estimate(order: float, uncertainty: float, plateau: Plateau | None = None) -> OrderEstimate:
    return OrderEstimate(order, uncertainty, (), (16, 32), (1e-2, 1e-3), 1e-14, plateau=plateau)


@pytest.mark.parametrize(
    ("order", "uncertainty", "claim", "verdict"),
    [
        (1.02, 0.01, 1.0, "agrees"),
        (1.06, 0.01, 1.0, "agrees"),
        (1.08, 0.01, 1.0, "exceeds"),
        (2.0, 0.01, 1.5, "exceeds"),
        (1.0, 0.01, 2.0, "falls short"),
        (1.0, 0.2, 2.0, "falls short"),
        (1.0, 0.2, 1.0, "inconclusive"),
        (1.0, 0.11, 1.0, "inconclusive"),
        (1.0, 3.0, 2.0, "inconclusive"),
        (math.nan, math.nan, 1.0, "inconclusive"),
        (1.0, math.nan, 1.0, "inconclusive"),
        (math.nan, math.nan, math.inf, "falls short"),
        (1.0, 0.01, math.inf, "falls short"),
        (1.0, 0.01, math.nan, "inconclusive"),
    ],
)
def test_verdicts(order, uncertainty, claim, verdict):
    found = estimate(order, uncertainty)
    assert found.verdict(claim) == verdict
    assert found.consistent_with(claim) == (verdict == "agrees")
    assert found.reaches(claim) == (verdict in ("agrees", "exceeds"))


def test_a_tolerance_moves_the_margin():
    assert estimate(1.3, 0.01).verdict(1.0) == "exceeds"
    assert estimate(1.3, 0.01).verdict(1.0, tolerance=0.3) == "agrees"


def test_an_end_point_bias_falls_short_whatever_was_fitted_above_it():
    assert estimate(1.0, 0.001, Plateau(1e-3, 256, BIAS)).verdict(1.0) == "falls short"
    assert estimate(1.0, 0.001, Plateau(1e-15, 256, "round-off")).verdict(1.0) == "agrees"
    assert str(Plateau(1e-3, 256, BIAS)) == "end-point bias at 1.0e-03 from N = 256"


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_too_few_levels_are_inconclusive(levels):
    few = fit(H[:levels], steps=STEPS[:levels]) if levels else fit_order(STEPS, [0.0, 0.0, 1.0, 0.5, 0.2, 0.0])
    assert math.isnan(few.order)
    assert few.window == ()
    assert not few.consistent_with(1.0)
    assert few.verdict(1.0) == "inconclusive"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "errors"),
        ({"errors": [1.0, 0.5], "squares": torch.ones(2, 5)}, "not both"),
        ({"squares": torch.ones(2, 5), "sampled": [0.1, 0.1]}, "not both"),
        ({"squares": torch.ones(5)}, r"\(5,\)"),
        ({"squares": -torch.ones(2, 5)}, "least -1"),
        ({"squares": torch.ones(3, 5)}, "increasing step counts"),
        ({"squares": torch.full((2, 5), torch.inf)}, "finite"),
        ({"errors": [1.0, -0.5]}, "finite errors"),
        ({"errors": [1.0, 0.5], "sampled": [0.1]}, "sampled"),
        ({"errors": [1.0, 0.5], "sampled": [0.1, -0.1]}, "sampled"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(SdekitError, match=message):
        fit_order((8, 16), **arguments)
