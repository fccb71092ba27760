"""Langevin diffusions and chains: conventions, biases in closed form, detailed balance, levels."""

from __future__ import annotations

import math

import pytest
import torch
from golden import GOLDEN
from golden.form import Map, mp, start

import sdekit as sk
from sdekit import problems
from sdekit.metrics import wasserstein2
from sdekit.verify import affine_map, numerical_law

PRECISIONS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
TARGET = sk.Gaussian(torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64), 1 / PRECISIONS)


def clock(gamma: float, steps: int) -> torch.Tensor:
    return gamma * torch.arange(steps + 1, dtype=torch.float64)


def double(values) -> torch.Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


# --- conventions ----------------------------------------------------------------------------------


def test_the_three_conventions_are_one_step():
    x, s, z = (sk.Gaussian(torch.zeros(3).double()).sample(4, seed=i) for i in range(3))
    for step in (sk.LangevinStep(0.08), sk.LangevinStep.from_alpha(0.16), sk.LangevinStep.from_sigma(0.4)):
        assert (step.gamma, step.alpha, step.sigma) == pytest.approx((0.08, 0.16, 0.4), rel=1e-15)
        wanted = x + 0.08 * s + math.sqrt(0.16) * z
        torch.testing.assert_close(step(x, s, z), wanted, rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(x + step.alpha / 2 * s + step.alpha**0.5 * z, wanted, rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(x + step.sigma**2 / 2 * s + step.sigma * z, wanted, rtol=1e-14, atol=1e-15)


# --- the diffusion --------------------------------------------------------------------------------


def test_a_target_is_told_in_several_ways():
    x = TARGET.sample(5, seed=1)
    log_prob = lambda y: -0.5 * (PRECISIONS * (y - TARGET.mean) ** 2).sum(1)  # noqa: E731
    ways = [
        sk.Langevin(TARGET),
        sk.Langevin(lambda t, y: TARGET.score(y), log_prob=log_prob),
        sk.Langevin.from_log_prob(log_prob),
        sk.Langevin.from_energy(lambda y: -log_prob(y)),
    ]
    for diffusion in ways:
        torch.testing.assert_close(diffusion.drift(0.3, x), TARGET.score(x))
        assert diffusion.log_prob is not None
        gap = diffusion.log_prob(x) - TARGET.log_prob(x)
        torch.testing.assert_close(gap, gap[:1].expand(5))
        assert bool((diffusion.diffusion(0.0, x) == 2.0**0.5).all())


def test_the_level_of_a_process():
    process, t = sk.VP(), 0.3
    diffusion, law = sk.Langevin(sk.exact_score(TARGET, process), at=t), process.marginal(TARGET, t)
    x = law.sample(5, seed=1)
    torch.testing.assert_close(diffusion.drift(7.0, x), law.score(x))
    assert diffusion.log_prob is not None
    torch.testing.assert_close(diffusion.log_prob(x), law.log_prob(x))


def test_gradients_reach_through_an_energy():
    x = TARGET.sample(2, seed=1).requires_grad_()
    diffusion = sk.Langevin.from_energy(lambda y: y.pow(4).flatten(1).sum(1))
    (found,) = torch.autograd.grad(diffusion.drift(0.0, x).sum(), x)
    torch.testing.assert_close(found, -12 * x**2)


# --- ULA ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.02, 0.3])
def test_the_golden_law_of_ula(gamma):
    times = [0.0, gamma, 1.5 * gamma, 4 * gamma]
    forms = [
        GOLDEN["ula"].langevin(mp.mpf(float(TARGET.mean[i])), 1 / mp.mpf(float(PRECISIONS[i])), times, start(i), i)
        for i in range(3)
    ]
    golden, found = Map.of(forms), affine_map(sk.Langevin(TARGET), "ula", times, (3,))
    for wanted, value in ((golden.A, found.matrix), (golden.S, found.noises @ found.noises.T)):
        exact = torch.stack([double(wanted[i, :]) for i in range(3)])
        torch.testing.assert_close(value, exact, rtol=1e-13, atol=1e-14)


def test_ula_is_euler_maruyama():
    x = TARGET.sample(4, seed=1)
    one, other = (
        sk.solve(sk.Langevin(TARGET), x, clock(0.1, 20), name, noise=5).final for name in ("ula", "euler-maruyama")
    )
    torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def stationary(gamma: float) -> sk.Gaussian:
    """The law that ULA ends in, by pushing the law of 64 steps until it stays."""
    run, law = affine_map(sk.Langevin(TARGET), "ula", clock(gamma, 64), (3,)), TARGET
    for _ in range(math.ceil(40.0 / (64 * gamma))):
        law = run.push(law)
    return law


@pytest.mark.parametrize("gamma", [0.1, 0.01])
def test_the_bias_of_ula(gamma):
    law = stationary(gamma)
    torch.testing.assert_close(law.variance, 1 / PRECISIONS / (1 - gamma * PRECISIONS / 2), rtol=1e-12, atol=0)
    assert wasserstein2(law, TARGET) == pytest.approx(gamma / 4 * float(PRECISIONS.sum()) ** 0.5, rel=2.5 * gamma)


# --- MALA -----------------------------------------------------------------------------------------


def one_step(gamma: float, coin: float, n: int = 32):
    """A production step of MALA from x by z, with the coin given."""
    x, z = TARGET.sample(n, seed=1), sk.Gaussian(torch.zeros(3).double()).sample(n, seed=2)
    prepared = sk.MALA().prepare(sk.Langevin(TARGET), [0.0, gamma])
    drawn = (sk.Increment(gamma**0.5 * z), sk.Increment(torch.full((n, 1), coin, dtype=torch.float64)))
    return x, z, *prepared.advance(0, x, drawn, None)


@pytest.mark.parametrize("gamma", [0.05, 0.5])
@pytest.mark.parametrize("coin", [-1.0, 0.2])
def test_a_step_of_mala_is_that_of_the_paper(gamma, coin):
    x, z, moved, (_, count) = one_step(gamma, coin)
    m, precision = ([mp.mpf(v) for v in values.tolist()] for values in (TARGET.mean, PRECISIONS))
    log_prob = lambda y: -sum(p * (a - b) ** 2 for p, a, b in zip(precision, y, m, strict=True)) / 2  # noqa: E731
    score = lambda y: [-p * (a - b) for p, a, b in zip(precision, y, m, strict=True)]  # noqa: E731
    uniform, taken = mp.ncdf(coin), 0
    for i in range(len(x)):
        where, kick = ([mp.mpf(v) for v in row.tolist()] for row in (x[i], z[i]))
        wanted, _ = GOLDEN["mala"].langevin(log_prob, score, mp.mpf(gamma), where, kick, uniform)
        torch.testing.assert_close(moved[i], double(wanted), rtol=1e-13, atol=1e-13)
        assert bool(count.accepted[i]) == (wanted != where)
        taken += wanted != where
    assert taken > 0
    assert taken < len(x) or gamma < 0.1


@pytest.mark.statistical
def test_mala_keeps_its_target_where_ula_does_not():
    """Seed 7, 20 000 chains of 30 long steps: variances within 5 errors (false alarm 2e-6); ULA is off by 40."""
    x, gamma, n = TARGET.sample(20_000, seed=7), 0.25, 20_000
    error = (2.0 / n) ** 0.5
    off = {}
    for name in ("mala", "ula"):
        solution = sk.solve(sk.Langevin(TARGET), x, clock(gamma, 30), name, noise=7)
        off[name] = float(((solution.final.var(0) * PRECISIONS - 1) / error).abs().max())
        if name == "mala":
            share = solution.diagnostics["acceptance"]
            assert share.shape == (n,)
            assert 0.3 < float(share.mean()) < 0.95
    assert off["mala"] < 5.0
    assert off["ula"] > 40.0


def test_a_proposal_without_density_is_refused():
    diffusion = sk.Langevin(lambda t, x: -x, log_prob=lambda x: torch.where(x[:, 0] > 0, math.nan, 0.0))
    x = -torch.ones(50, 1, dtype=torch.float64)
    solution = sk.solve(diffusion, x, clock(0.5, 20), "mala", noise=1)
    assert bool((solution.final < 0).all())
    assert solution.ok


def test_diagnostics_are_kept_on_disk(tmp_path):
    x = TARGET.sample(4, seed=1)
    solution = sk.solve(sk.Langevin(TARGET), x, clock(0.3, 8), "mala", noise=1)
    solution.save(tmp_path / "run.safetensors")
    again = sk.Solution.load(tmp_path / "run.safetensors")
    assert again.diagnostics.keys() == {"acceptance"}
    assert torch.equal(again.diagnostics["acceptance"], solution.diagnostics["acceptance"])


def test_the_noise_of_mala_can_be_a_path():
    """The proposals follow the path, the coins its seed: as with the seed, where the path is drawn step by step."""
    x, grid = TARGET.sample(4, seed=1), clock(0.2, 8)
    path = sk.BrownianGrid.on(grid, (4, 3), seed=3)
    whole = sk.solve(sk.Langevin(TARGET), x, grid, "mala", noise=path).final
    part = sk.BrownianGrid.on(grid, (2, 3), seed=3, paths=[2, 0])
    assert torch.equal(sk.solve(sk.Langevin(TARGET), x[[2, 0]], grid, "mala", noise=part).final, whole[[2, 0]])


# --- annealed Langevin ----------------------------------------------------------------------------


def test_annealed_langevin_is_the_algorithm_of_ncsn_on_ve():
    """1907.05600 Algorithm 1 step by step, with the normals that the run draws."""
    process, levels, epsilon, n = sk.VE(), sk.grids.log_snr(sk.VE(), 6, t_min=0.1), 2e-5, 3
    rev = sk.reverse_time(process, sk.exact_score(TARGET, process))
    z = sk.Gaussian(torch.zeros(6, n, 4, 3).double()).sample(1, seed=2)[0]
    x = process.prior((3,)).sample(4, seed=1)
    noise = sk.fresh.RecordedFresh(None, [list(step) for step in z])
    found = sk.solve(rev, x, levels, sk.AnnealedLangevin(epsilon, n), noise=noise).final
    sigma = process.schedule.sigma(levels)
    for i, t in enumerate(levels[1:].tolist()):
        alpha = epsilon * float(sigma[i + 1] ** 2 / sigma[-1] ** 2)
        for j in range(n):
            x = x + alpha / 2 * rev.score(t, x) + alpha**0.5 * z[i, j]
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


def test_annealed_langevin_has_the_bias_of_ula_in_the_limit_of_many_levels():
    process, data, steps = sk.VP(), sk.Gaussian([0.5], 0.5), (256, 512)
    rev = sk.reverse_time(process, sk.exact_score(data, process))
    excess = []
    for count in steps:
        grid = sk.grids.log_snr(process, count, t_min=0.3)
        start, end = (process.marginal(data, float(grid[i])) for i in (0, -1))
        excess.append(float(numerical_law(rev, "annealed-langevin", grid, start).variance / end.variance) - 1)
    gamma = 0.1 * process.schedule.sigma(0.3) ** 2
    limit = 1 / (1 - gamma / 2 / float(end.variance)) - 1
    assert excess[1] > 1.2 * limit
    assert 2 * excess[1] - excess[0] == pytest.approx(limit, rel=0.03)


# --- bad input ------------------------------------------------------------------------------------

X = torch.zeros(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sk.LangevinStep(0.0), "positive length; got γ = 0.0"),
        (lambda: sk.LangevinStep.from_alpha(-1.0), "positive length"),
        (lambda: sk.AnnealedLangevin(0.0), "epsilon > 0; got 0.0"),
        (lambda: sk.AnnealedLangevin(1.0, steps=0), "at least one step on a level; got steps = 0"),
        (lambda: sk.Langevin(sk.exact_score(TARGET, sk.VP())), "at=t"),
        (lambda: sk.Langevin(sk.Empirical(X)), "diffuse it"),
        (lambda: sk.solve(sk.VP(), X, [0.0, 1.0], "ula", noise=0), "samples the target of a Langevin diffusion"),
        (lambda: sk.solve(sk.Langevin(TARGET), X, [0.0, 1.0], "annealed-langevin", noise=0), "log-SNR"),
        (lambda: sk.solve(sk.Langevin(lambda t, x: -x), X, [0.0, 1.0], "mala", noise=0), "log_prob=.*ula"),
        (lambda: sk.solve(sk.Langevin(TARGET), X, [1.0, 0.0], "ula", noise=0), "forward SDE"),
        (lambda: sk.solve(sk.Langevin(TARGET), X, [0.0, 1.0], "mala"), "noise=seed"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(sk.SdekitError, match=words):
        call()


def test_the_problems_are_what_they_say():
    problem = problems.get("langevin-gaussian")
    fine = numerical_law(problem.sde, "sri1w1", problem.grid(512), problem.initial)
    assert wasserstein2(fine, problem.law) < 3e-6


def test_the_exact_law_of_a_chain_is_for_gaussian_problems():
    problem = problems.get("vp-mixture", eta=0.0)
    with pytest.raises(sk.SdekitError, match=r"random beside the path.*kind='weak'"):
        sk.verify.law_error(problem, "predictor-corrector", 8)
