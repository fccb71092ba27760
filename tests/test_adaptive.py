"""Adaptive steps: errors that follow the tolerance, samples that do not see one another, and a law that stays right."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import sdekit as sk
from sdekit.brownian import Walk
from sdekit.controllers import PID
from sdekit.local_time import LocalTime
from sdekit.solution import Status

MU, SIGMA = 1.5, 0.8
GBM = sk.sde(lambda t, x: MU * x, lambda t, x: SIGMA * x, "diagonal")


def exact(w: torch.Tensor, t: float) -> torch.Tensor:
    return torch.exp((MU - 0.5 * SIGMA**2) * t + SIGMA * w)


def tree(n: int, seed: int = 3, t1: float = 1.0, levy: str = "space-time") -> sk.BrownianTree:
    return sk.BrownianTree((n, 1), 0.0, t1, seed=seed, levy=levy)


def ones(n: int) -> torch.Tensor:
    return torch.ones(n, 1, dtype=torch.float64)


def errors(stepper: str, tolerances: list[float], n: int = 200) -> list[float]:
    path = tree(n)
    found = []
    for tol in tolerances:
        solution = sk.solve(GBM, ones(n), [0.0, 1.0], stepper, noise=path, controller=PID(tol, tol)).check()
        found.append(float((solution.final - exact(path.increment(0.0, 1.0).w, 1.0)).square().mean().sqrt()))
    return found


def test_the_error_follows_the_tolerance():
    """Steps of h^{3/2} in tolerance, errors of h^{3/2}: proportional, over a hundredfold."""
    coarse, middle, fine = errors("sri1w1", [1e-1, 1e-2, 1e-3])
    slope = math.log10(coarse / fine) / 2.0
    assert 0.6 < slope < 1.2, (coarse, middle, fine)
    assert fine < 0.02


def test_seeds_and_trees_are_the_same_path():
    path = tree(5, seed=7)
    by_tree = sk.solve(GBM, ones(5), [0.0, 1.0], "sri1w1", noise=path, controller=PID(1e-2, 1e-2))
    by_seed = sk.solve(GBM, ones(5), [0.0, 1.0], "sri1w1", noise=7, controller=PID(1e-2, 1e-2))
    assert torch.equal(by_tree.final, by_seed.final)


def test_a_sample_does_not_see_its_neighbours():
    control = PID(1e-2, 1e-3)
    both = sk.solve(GBM, ones(6), [0.0, 1.0], "sri1w1", noise=1, controller=control, save=[0.3, 1.0])
    for some in ([4], [2, 0], [5, 1, 3]):
        x = ones(len(some))
        alone = sk.solve(GBM, x, [0.0, 1.0], "sri1w1", noise=1, paths=some, controller=control, save=[0.3, 1.0])
        assert torch.equal(alone.xs, both.xs[:, some])
        assert torch.equal(alone.diagnostics["accepted"], both.diagnostics["accepted"][some])


def test_a_time_that_is_asked_for_changes_no_step():
    control, path = PID(1e-3, 1e-3), tree(50)
    plain = sk.solve(GBM, ones(50), [0.0, 1.0], "sri1w1", noise=path, controller=control)
    times = [0.3, 0.5, 0.77, 1.0]
    seen = sk.solve(GBM, ones(50), [0.0, 1.0], "sri1w1", noise=path, controller=control, save=times)
    assert torch.equal(plain.final, seen.final)
    assert torch.equal(seen.xs[-1], seen.final)
    for t, x in zip(times, seen.xs, strict=True):
        off = (x - exact(path.increment(0.0, t).w, t)).square().mean().sqrt()
        assert off < 0.02, (t, off)


def test_between_steps_the_variance_is_that_of_the_path():
    """One step over everything, seen at its middle: an interpolation would halve the variance."""
    brownian = sk.sde(lambda t, x: 0.0 * x, lambda t, x: torch.ones_like(x), "additive")
    path = tree(4, levy="space-time")
    solution = sk.solve(
        brownian, 0.0 * ones(4), [0.0, 1.0], "sra1", noise=path, controller=PID(1.0, 1.0, first=1.0), save=[0.5, 1.0]
    )
    assert solution.diagnostics["accepted"].tolist() == [1] * 4
    torch.testing.assert_close(solution.xs[0], path.increment(0.0, 0.5).w, rtol=0.0, atol=1e-14)


def test_backwards_it_follows_the_same_path():
    """The reverse SDE of Gaussian data, against many fixed steps on the same tree."""
    process = sk.VP()
    law = sk.Gaussian(torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64))
    reverse = sk.reverse_time(process, sk.exact_score(law, process))
    x = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)[:, None]
    path = sk.BrownianTree((8, 1), 0.01, 1.0, seed=2, levy="space-time")
    fine = torch.linspace(1.0, 0.01, 257, dtype=torch.float64)
    reference = sk.solve(reverse, x, fine, "sra1", noise=path, save=[0.4, 0.01])
    for tol, allowed in ((1e-2, 3e-2), (1e-3, 6e-3)):
        found = sk.solve(reverse, x, [1.0, 0.01], "sra1", noise=path, controller=PID(tol, tol), save=[0.4, 0.01])
        assert (found.check().xs - reference.xs).abs().max() < allowed


@pytest.mark.statistical
def test_rejections_leave_the_law_alone():
    """A cautious controller that starts far too long; false-alarm rate 1e-6."""
    n = 4000
    control = PID(1e-2, 1e-2, first=1.0)
    solution = sk.solve(GBM, ones(n), [0.0, 1.0], "sri1w1", noise=1, controller=control).check()
    assert int(solution.diagnostics["rejected"].sum()) > n
    # At this tolerance a path that comes near zero may be carried past it.
    z = (solution.final.clamp(min=1e-9).log() - (MU - 0.5 * SIGMA**2)) / SIGMA
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-6


def test_new_noise_after_a_rejection_would_be_seen(monkeypatch):
    """A planted fault: a step that was refused is tried again with other noise, so that large moves are drawn away."""
    honest = Walk.step
    tried = []

    def forgetful(self: Walk, level: torch.Tensor, index: torch.Tensor) -> sk.Increment:
        drawn = honest(self, level, index)
        tried.append(None)
        fresh = torch.Generator().manual_seed(len(tried))
        length = 2.0 ** -torch.as_tensor(level).double()[:, None]
        w = torch.randn(drawn.w.shape, generator=fresh, dtype=torch.float64) * length.sqrt()
        return sk.Increment(w, torch.randn(w.shape, generator=fresh, dtype=torch.float64) * (length / 12.0).sqrt())

    monkeypatch.setattr(Walk, "step", forgetful)
    n = 4000
    solution = sk.solve(GBM, ones(n), [0.0, 1.0], "sri1w1", noise=1, controller=PID(1e-2, 1e-2, first=1.0))
    z = (solution.final.clamp(min=1e-9).log() - (MU - 0.5 * SIGMA**2)) / SIGMA
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue < 1e-6


def test_limits_end_a_sample_and_keep_the_rest():
    stiff = sk.sde(lambda t, x: torch.where(x > 5.0, torch.nan, x), lambda t, x: 0.1 * torch.ones_like(x), "additive")
    x = torch.tensor([[1.0], [10.0], [0.5]], dtype=torch.float64)
    solution = sk.solve(stiff, x, [0.0, 1.0], "sra1", noise=0, controller=PID(1e-3, 1e-3))
    assert solution.status.tolist() == [Status.SUCCESS, Status.STEP_UNDERFLOW, Status.SUCCESS]
    assert torch.equal(solution.final[1], x[1])
    few = sk.solve(GBM, ones(3), [0.0, 1.0], "sri1w1", noise=0, controller=PID(1e-4, 1e-4), max_steps=10)
    assert few.status.tolist() == [Status.STEP_LIMIT] * 3
    late = sk.solve(GBM, ones(3), [0.0, 1.0], "sri1w1", noise=0, controller=PID(1e-4, 1e-4), max_seconds=0.0)
    assert late.status.tolist() == [Status.TIME_LIMIT] * 3


def test_local_time_is_the_same_step():
    from sdekit.steppers import registry

    stepper = registry.get("sri1w1")
    drawn = tree(4).increment(0.25, 0.5)
    start, end = torch.full((4,), 0.25, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64)
    local = LocalTime(GBM, start, end, ones(4))
    direct = stepper.step(GBM, 0.25, 0.5, ones(4), drawn, None).x
    torch.testing.assert_close(
        stepper.step(local, 0.0, 1.0, ones(4), local.scaled(drawn), None).x, direct, rtol=1e-14, atol=0.0
    )


@pytest.mark.parametrize("name", ["sri1w1", "sra1"])
def test_estimates_are_of_order_three_halves(name):
    """Root mean square of the estimate over steps that halve."""
    from sdekit.steppers import registry

    sde = GBM if name == "sri1w1" else sk.sde(lambda t, x: torch.sin(2.0 * x), lambda t, x: 1.0 + 0.0 * x, "additive")
    sizes = []
    for h in (2.0**-8, 2.0**-9):
        drawn = sk.BrownianTree((4000, 1), 0.0, h, seed=5, levy="space-time").increment(0.0, h)
        sizes.append(registry.get(name).pair(sde, 0.0, h, ones(4000), drawn)[1].square().mean().sqrt())
    assert math.log2(sizes[0] / sizes[1]) == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepper": "euler-maruyama"}, "does not estimate its error.*sri1w1"),
        ({"noise": None}, "stochastic"),
        ({"noise": sk.BrownianGrid((2, 1), levy="space-time")}, "does not know them all"),
        ({"noise": sk.BrownianTree((2, 1), 0.0, 2.0, levy="space-time")}, "halve the interval"),
        ({"noise": sk.BrownianTree((2, 1))}, "halve the interval"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    arguments = {"stepper": "sri1w1", "noise": 0, "controller": PID(), **options}
    with pytest.raises(sk.SdekitError, match=message):
        sk.solve(GBM, ones(2), [0.0, 1.0], **arguments)


@pytest.mark.parametrize(
    "options", [{"rtol": -1.0}, {"rtol": 0.0, "atol": 0.0}, {"integral": 0.0}, {"grow": 0.5}, {"first": 0.0}]
)
def test_a_controller_that_cannot_work_is_refused(options):
    with pytest.raises(sk.SdekitError, match="got"):
        PID(**options)
