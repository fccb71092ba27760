"""Adaptive steps: errors that follow the tolerance, samples that do not see one another, and a law that stays right."""

from __future__ import annotations

import itertools
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
OU = sk.sde(lambda t, x: -2.0 * x, lambda t, x: torch.ones_like(x), "additive")


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


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: a step that was refused is tried again with other noise, so that large moves are drawn away."""
    honest, tried = Walk.step, itertools.count()

    def step(self: Walk, level: torch.Tensor, index: torch.Tensor) -> sk.Increment:
        fresh = torch.Generator().manual_seed(next(tried))
        length = 2.0 ** -torch.as_tensor(level).double()[:, None]
        w, h = torch.randn(2, *honest(self, level, index).w.shape, generator=fresh, dtype=torch.float64)
        return sk.Increment(w * length.sqrt(), h * (length / 12.0).sqrt())

    monkeypatch.setattr(Walk, "step", step)


def scores(x: torch.Tensor) -> torch.Tensor:
    """Normal scores of states of GBM at t = 1."""
    # At a coarse tolerance a path that comes near zero may be carried past it.
    return (x.clamp(min=1e-9).log() - (MU - 0.5 * SIGMA**2)) / SIGMA


def scores_of_ou(x: torch.Tensor) -> torch.Tensor:
    """The same of dx = −2x dt + dW from 1."""
    return (x - math.exp(-2.0)) / math.sqrt(0.25 * (1.0 - math.exp(-4.0)))


LAWS = {
    "sri1w1": (GBM, scores),
    "sosri": (GBM, scores),
    "sra1": (OU, scores_of_ou),
    "sosra": (OU, scores_of_ou),
    "heun-strat": (sk.to_stratonovich(GBM), scores),
}
EVERY = [pytest.param(name, marks=[] if name == "sri1w1" else pytest.mark.certify) for name in LAWS]


def significance(name: str, n: int) -> float:
    """Kolmogorov–Smirnov on the law at t = 1, under a controller that starts far too long; seed 1."""
    sde, standard = LAWS[name]
    solution = sk.solve(sde, ones(n), [0.0, 1.0], name, noise=1, controller=PID(3e-3, 3e-3, first=1.0)).check()
    assert int(solution.diagnostics["rejected"].sum()) > n
    return float(stats.kstest(standard(solution.final).flatten().numpy(), "norm").pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("name", EVERY)
def test_rejections_leave_the_law_alone(name):
    """At n = 10⁵ a distance of 0.0085 would be seen; false-alarm rate 1e-6 each."""
    assert significance(name, 100_000) > 1e-6


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", EVERY)
def test_new_noise_after_a_rejection_would_be_seen(name):
    assert significance(name, 100_000) < 1e-15


def slope(sde: sk.SDE, stepper: str, x: torch.Tensor, ends: list[float], finest: float, truth) -> tuple[float, float]:
    """Of the error on paths against the tolerance, over a factor of 30, with its standard error."""
    path = sk.BrownianTree((len(x), 1), min(ends), max(ends), seed=3, levy="space-time")
    exact = truth(path)
    runs = [sk.solve(sde, x, ends, stepper, noise=path, controller=PID(tol, tol)) for tol in (30 * finest, finest)]
    squares = torch.stack([(run.check().final - exact).flatten().square() for run in runs])
    means = squares.mean(1)
    spread = (squares[0] / means[0] - squares[1] / means[1]).std() / len(x) ** 0.5
    return float((means[0] / means[1]).log()) / (2 * math.log(30)), float(spread) / (2 * math.log(30))


def on_gbm(stepper: str, finest: float) -> tuple[float, float]:
    sde = LAWS[stepper][0]
    return slope(sde, stepper, ones(1000), [0.0, 1.0], finest, lambda path: exact(path.increment(0.0, 1.0).w, 1.0))


def on_paths(sde: sk.SDE, stepper: str, law: sk.Gaussian, ends: list[float], finest: float) -> tuple[float, float]:
    """Against four thousand steps of another method on the same path."""
    x, grid = law.sample(1000, seed=0), torch.linspace(*ends, 4097, dtype=torch.float64)
    return slope(sde, stepper, x, ends, finest, lambda path: sk.solve(sde, x, grid, "sra3", noise=path).final)


WELL, MIXTURE = sk.problems.get("double-well"), sk.problems.get("vp-mixture", eta=1.0)
WAY_BACK = MIXTURE.grid(1).tolist()
RATES = {
    "gbm": (lambda: on_gbm("sri1w1", 1e-4), 2 / 3, 1.0),
    "gbm, sosri": (lambda: on_gbm("sosri", 1e-4), 2 / 3, 1.0),
    "gbm, stratonovich": (lambda: on_gbm("heun-strat", 1e-3), 1.0, 1.0),
    "ou": (lambda: on_paths(OU, "sra1", sk.Gaussian([1.0], 0.0), [0.0, 1.0], 1e-4), 4 / 3, 4 / 3),
    "double well": (lambda: on_paths(WELL.sde, "sra1", WELL.initial, [0.0, 1.0], 1e-4), 2 / 3, 1.0),
    "reverse mixture": (lambda: on_paths(MIXTURE.sde, "sosra", MIXTURE.initial, WAY_BACK, 3e-4), 2 / 3, 4 / 3),
}


@pytest.mark.certify
@pytest.mark.statistical
@pytest.mark.parametrize("case", RATES)
def test_rates_in_the_tolerance(case):
    """Within 0.1 and four standard errors (false alarm 6e-5) of what docs/adaptive.md derives; seed 3."""
    measure, low, high = RATES[case]
    found, uncertainty = measure()
    assert uncertainty < 0.05
    assert low - 0.1 - 4 * uncertainty < found < high + 0.1 + 4 * uncertainty, (found, uncertainty)


@pytest.mark.usefixtures("forgetful")
def test_new_noise_after_a_rejection_leaves_no_rate():
    found, uncertainty = on_gbm("sri1w1", 1e-3)
    assert found + 4 * uncertainty < 0.3


def beside_a_grid(**gains: float) -> float:
    """Error in the double well in units of that of a grid of as many steps, on the same paths."""
    x, path = WELL.initial.sample(400, seed=0), tree(400)

    def run(*how: object, **control: PID) -> sk.Solution:
        return sk.solve(WELL.sde, x, *how, noise=path, **control)

    adaptive = run([0.0, 1.0], "sra1", controller=PID(1e-3, 1e-3, **gains))
    steps = round(float(adaptive.diagnostics["accepted"].double().mean()))
    grids = [torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64) for n in (steps, 2048)]
    grid, truth = run(grids[0], "sra1").final, run(grids[1], "sra3").final
    return float(((adaptive.final - truth).square().mean() / (grid - truth).square().mean()).sqrt())


def test_steps_do_not_follow_the_noise():
    """1.9 is measured, and 4.9 with gains that follow it and the same number of steps."""
    assert beside_a_grid() < 3.0
    assert beside_a_grid(proportional=0.1, integral=0.3, safety=0.7) > 4.0


def test_the_error_that_counts_is_that_of_a_step_as_long_as_is_wanted():
    """Of steps half or a quarter as long the tree has, the next that is wanted differs by the gain alone."""
    from sdekit.adaptive.attempt import Attempt
    from sdekit.steppers import registry

    attempt = Attempt(OU, registry.get("sra1"), PID(1.0, 1.0, grow=100.0), backwards=False)
    start, length = torch.zeros(9, dtype=torch.float64), torch.full((9,), 0.125, dtype=torch.float64)
    drawn = tree(9).increment(0.0, 0.125)
    may = torch.ones(9, dtype=torch.bool)
    every = [attempt.judge(start, length, ones(9), drawn, may, (length, n * length), []) for n in (1, 2, 4)]
    for n, judged in zip((2, 4), every[1:], strict=True):
        assert bool(judged.accept.all())
        torch.testing.assert_close(judged.wanted, every[0].wanted * n ** (1.0 - 0.05), rtol=1e-13, atol=0.0)


def test_a_refused_step_is_followed_by_shorter_ones():
    from sdekit.adaptive.attempt import Attempt
    from sdekit.steppers import registry

    attempt = Attempt(GBM, registry.get("sri1w1"), PID(1e-6, 1e-6), backwards=False)
    start, end = torch.zeros(2, 9, dtype=torch.float64)
    ticks = torch.full((9,), 1 << 40)
    judged = attempt.judge(
        *(start, end + 1.0, ones(9), tree(9).increment(0.0, 1.0)),
        *(torch.ones(9, dtype=torch.bool), (ticks, 1e3 * ticks.double()), []),
    )
    assert not bool(judged.accept.any())
    assert judged.wanted.tolist() == [0.95 * 2.0**40] * 9


@pytest.mark.certify
@pytest.mark.statistical
def test_steps_that_see_the_noise_cost_half_an_order():
    """On a grid sri1w1 has no bias on GBM; refusing steps makes one that falls like h, not h^{3/2}. Seed 3; 5 standard
    errors (false alarm 6e-7) and 20."""
    path, x = tree(4000), ones(4000)
    truth = exact(path.increment(0.0, 1.0).w, 1.0)

    def bias(grid: list[float], **how: PID) -> tuple[float, float, float]:
        run = sk.solve(GBM, x, grid, "sri1w1", noise=path, **how)
        off, taken = run.final - truth, run.diagnostics.get("accepted", torch.tensor([run.stats.steps]))
        return float(off.mean()), float(off.std()) / len(x) ** 0.5, float(taken.double().mean())

    coarse, fine = (bias([0.0, 1.0], controller=PID(tol, tol)) for tol in (1e-4, 1e-5))
    fixed = bias(torch.linspace(0.0, 1.0, round(fine[2]) + 1, dtype=torch.float64).tolist())
    assert abs(fixed[0]) < 5 * fixed[1]
    assert fine[0] > 20 * fine[1]
    assert 0.5 < math.log(coarse[0] / fine[0]) / math.log(fine[2] / coarse[2]) < 1.2


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
