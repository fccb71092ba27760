"""Predictor–corrector samplers: noise that leaves the predictor's alone, samples of their own, biases, and none."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from golden import Golden, langevin
from golden.cases import CASES, DATA, deviation, golden_map, reverse_sde
from golden.form import noise

import sdekit as sk
from sdekit import random
from sdekit.metrics import wasserstein2
from sdekit.problems.reverse import mild_mixture
from sdekit.steppers import Corrector
from sdekit.verify import fit_order, numerical_law

PROCESS = sk.VP()
GRID = sk.grids.log_snr(PROCESS, 12)
CORRECTORS = (
    sk.LangevinCorrector(0.3, steps=2),
    sk.LangevinCorrector(0.05, per="level"),
    sk.SNRCorrector(0.16, steps=2),
    sk.MetropolisCorrector(0.5, steps=2),
)


def reverse(eta: float, process=PROCESS, data: sk.Gaussian = DATA):
    return sk.reverse_time(process, sk.exact_score(data, process), eta)


def start(n: int, process=PROCESS, data: sk.Gaussian = DATA) -> torch.Tensor:
    return process.marginal(data, process.t_max).sample(n, seed=3)


# --- golden laws ----------------------------------------------------------------------------------


def denoised(line, eta, k, s, t, x, i):
    """DDIM at η = 1, the ancestral sampler."""
    p = line.process
    ratio = (p.alpha(s) * p.sigma(t) / (p.alpha(t) * p.sigma(s))) ** 2
    D = line.denoised(s, x)
    y = p.sigma(t) / p.sigma(s) * ratio**0.5 * (x - line.shift(s)) + p.alpha(t) * (1 - ratio) * D
    return y + line.shift(t) + p.sigma(t) * (1 - ratio) ** 0.5 * noise(k, i)


def euler(line, eta, k, s, t, x, i):
    """Euler–Maruyama."""
    kick = eta * (line.process.g2(s) * abs(t - s)) ** 0.5 * noise(k, i)
    return x + (t - s) * line.reverse_drift(s, x, eta) + kick


LAWS = {
    "ddim": (sk.PredictorCorrector("ddim"), langevin.corrected(denoised, 0.25)),
    "euler-maruyama, 2 on a level": (
        sk.PredictorCorrector("euler-maruyama", sk.LangevinCorrector(0.125, 2, "level")),
        langevin.corrected(euler, 0.125, 2, per_step=False),
    ),
}


@pytest.mark.parametrize("case", ["VP", "OU, a mean per coordinate"])
@pytest.mark.parametrize("name", LAWS)
def test_golden_laws_of_other_parts(name, case):
    stepper, law = LAWS[name]
    times = CASES[case].grid(6)
    golden = golden_map(Golden(law), CASES[case], 1.0, times)
    assert deviation(reverse_sde(CASES[case], 1.0), stepper, times, golden) < 1e-12


# --- noise ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Idle(Corrector):
    """It draws, and does nothing."""

    steps: int = 2

    def bind(self, sde, s, t):
        return lambda x, normals, count: (x, count)


@pytest.mark.parametrize("predictor", ["ddim", "euler-maruyama", "seeds2", "sra1", "exact-linear", "dpmpp-2s"])
def test_the_predictor_draws_the_same_numbers(predictor):
    eta = 0.0 if predictor == "dpmpp-2s" else 1.0
    alone = sk.solve(reverse(eta), start(3), GRID, predictor, noise=5).final
    beside = sk.solve(reverse(eta), start(3), GRID, sk.PredictorCorrector(predictor, Idle()), noise=5).final
    torch.testing.assert_close(beside, alone, rtol=1e-12, atol=1e-12)


def test_the_corrector_draws_numbers_of_its_own():
    """Normals beside the path are none of those on it, nor of one another; 1e4 of each, correlations below 5/√n."""
    keys = random.path_keys(5, 10_000)
    fresh = sk.fresh.FreshNoise(keys, (1,), torch.float64, [("state", "sample", "state")] * 2)
    draws = [z.w.flatten() for k in range(2) for z in fresh.increments(k)]
    draws += [random.normals(keys, (1,), stream=random.STREAM_STEP + j)[0].flatten() for j in range(2)]
    correlation = torch.corrcoef(torch.stack(draws))
    assert float((correlation - torch.eye(len(draws))).abs().max()) < 0.05
    assert float((correlation.diagonal() - 1).abs().max()) < 1e-12


def test_a_path_with_a_seed_lends_it_to_the_corrector():
    path = sk.BrownianGrid.on(GRID, (3, 3), seed=5)
    stepper = sk.PredictorCorrector("euler-maruyama")
    found = sk.solve(reverse(1.0), start(3), GRID, stepper, noise=path).final
    part = sk.BrownianGrid.on(GRID, (2, 3), seed=5, paths=[2, 0])
    assert torch.equal(sk.solve(reverse(1.0), start(3)[[2, 0]], GRID, stepper, noise=part).final, found[[2, 0]])
    recorded = sk.RecordedBrownian(
        GRID, torch.stack([path.increment(min(i), max(i)).w for i in pairwise(GRID.tolist())])
    )
    with pytest.raises(sk.SdekitError, match=r"RecordedBrownian has no seed.*noise=seed"):
        sk.solve(reverse(1.0), start(3), GRID, stepper, noise=recorded)


@pytest.mark.parametrize("corrector", CORRECTORS, ids=repr)
def test_a_sample_is_its_own(corrector):
    """To the last bit in any batch, whose norms are the neighbours' business."""
    x, stepper = start(5), sk.PredictorCorrector(corrector=corrector)
    whole = sk.solve(reverse(0.7), x, GRID, stepper, noise=1).final
    louder = torch.cat([x[:1], 100.0 * x[1:]])
    assert torch.equal(sk.solve(reverse(0.7), louder, GRID, stepper, noise=1).final[:1], whole[:1])
    assert torch.equal(sk.solve(reverse(0.7), x[[3]], GRID, stepper, noise=1, paths=[3]).final, whole[[3]])


# --- steps and facts ------------------------------------------------------------------------------


@pytest.mark.parametrize(("process", "factor"), [(sk.VP(), None), (sk.VE(), 1.0)])
def test_the_step_of_the_snr_corrector(process, factor):
    """2011.13456 Algorithms 4 and 5: ε = 2 a (r |z|/|s|)², with 1 − β of the transition on VP and 1 on VE."""
    s, t = 0.6, 0.5
    if factor is None:
        factor = float(process.transition(t, s).matrix) ** 2
    sde, x, r = reverse(1.0, process), start(4, process), 0.2
    z = sk.Gaussian(torch.zeros(3).double()).sample(4, seed=9)
    correct = sk.SNRCorrector(r).bind(sde, s, t)
    found = correct(x, [sk.Increment(z)], sk.steppers.metropolis.Acceptance.none(x))[0]
    score = sde.score(t, x)
    for i in range(4):
        e = 2 * factor * (r * float(z[i].norm()) / float(score[i].norm())) ** 2
        torch.testing.assert_close(found[i], x[i] + e * score[i] + (2 * e) ** 0.5 * z[i], rtol=1e-12, atol=1e-12)


def test_facts_follow_from_the_parts():
    spec = sk.PredictorCorrector("seeds2", sk.LangevinCorrector(steps=3)).spec
    seeds = sk.STEPPERS["seeds2"].spec
    assert (spec.evaluations, spec.eta, spec.increments) == (seeds.evaluations + 3, seeds.eta, seeds.increments)
    assert spec.weak["linear-additive"] == 1.0
    flow = sk.PredictorCorrector("dpmpp-2s", sk.MetropolisCorrector(steps=3)).spec
    assert (flow.evaluations, flow.eta, flow.weak) == (2 + 4, (0.0, 0.0), {})
    assert sk.PredictorCorrector("sra1").spec.increments == "space-time"
    default = sk.PredictorCorrector()
    assert repr(default) == "PredictorCorrector(ReverseDiffusion(), LangevinCorrector(size=0.25, steps=1, per='step'))"
    assert default.spec == sk.STEPPERS["predictor-corrector"].spec
    assert not sk.solve(reverse(0.0), start(2), GRID, default, noise=0).diagnostics


# --- laws -----------------------------------------------------------------------------------------


def law_error(stepper, eta: float, steps: int) -> float:
    grid = sk.grids.log_snr(PROCESS, steps)
    first, last = (PROCESS.marginal(DATA, float(grid[i])) for i in (0, -1))
    return wasserstein2(numerical_law(reverse(eta), stepper, grid, first), last)


def test_a_corrector_of_a_share_has_order_one():
    steps, stepper = (16, 32, 64, 128), sk.PredictorCorrector("dpmpp-2s")
    assert abs(fit_order(steps, [law_error(stepper, 0.0, n) for n in steps]).order - 1.0) < 0.03


def test_a_corrector_of_a_level_has_the_bias_of_ula_in_the_limit_of_many_levels():
    """Behind a predictor that makes no error."""
    data, size, excess = sk.Gaussian([0.5], 0.5), 0.2, []
    stepper = sk.PredictorCorrector("exact-linear", sk.LangevinCorrector(size, per="level"))
    for count in (256, 512):
        grid = sk.grids.log_snr(PROCESS, count, t_min=0.3)
        first, last = (PROCESS.marginal(data, float(grid[i])) for i in (0, -1))
        excess.append(float(numerical_law(reverse(0.0, data=data), stepper, grid, first).variance / last.variance) - 1)
    limit = 1 / (1 - size * PROCESS.schedule.sigma(0.3) ** 2 / 2 / float(last.variance)) - 1
    assert limit > 0.05
    assert 2 * excess[1] - excess[0] == pytest.approx(limit, rel=0.02)


@pytest.mark.parametrize(("eta", "size", "steps"), [(0.0, 0.5, 1), (0.6, 0.16, 2)])
def test_corrections_of_a_share_are_noise_of_another_eta(eta, size, steps):
    """The law from a start that is no marginal tells η: a flow with n c = ½ forgets it like the reverse SDE."""
    grid, first = sk.grids.log_snr(PROCESS, 400, t_min=0.3), sk.Gaussian([1.0], 0.2)
    data = sk.Gaussian([0.5], 0.3)
    corrected = sk.PredictorCorrector("ddim", sk.LangevinCorrector(size, steps))
    found = numerical_law(reverse(eta, data=data), corrected, grid, first)
    equal = (eta**2 + 2 * steps * size) ** 0.5
    exact, without = (numerical_law(reverse(e, data=data), "exact-linear", grid, first) for e in (equal, eta))
    assert wasserstein2(found, exact) < 0.05 * wasserstein2(without, exact)


@pytest.mark.statistical
def test_the_metropolis_corrector_has_no_bias():
    """Seed 11, 20 000 samples of a mixture by a flow that is exact to 1e-4: the ECDF's distance from the law is below
    Kolmogorov's 1e-6 point, with 4 long steps on every one of 40 levels; unadjusted ones are far above it."""
    data, n = mild_mixture(), 20_000
    flow, grid = sk.probability_flow(PROCESS, sk.exact_score(data, PROCESS)), sk.grids.log_snr(PROCESS, 40)
    x, law = PROCESS.marginal(data, 1.0).sample(n, seed=11), PROCESS.marginal(data, float(grid[-1]))
    distance = {}
    for corrector in (sk.MetropolisCorrector(1.0, 2), sk.LangevinCorrector(1.0, 2, "level")):
        solution = sk.solve(flow, x, grid, sk.PredictorCorrector("dpm-3", corrector), noise=11)
        levels = law.cdf(solution.final[:, 0].sort().values)
        distance[type(corrector)] = float((levels - (torch.arange(n) + 0.5) / n).abs().max())
        if isinstance(corrector, sk.MetropolisCorrector):
            share = solution.diagnostics["acceptance"]
            assert share.shape == (n,)
            assert 0.6 < float(share.mean()) < 0.99
            assert torch.equal((80 * share).round(), 80 * share)
    assert distance[sk.MetropolisCorrector] < 2.7 / n**0.5
    assert distance[sk.LangevinCorrector] > 2.7 / n**0.5


@pytest.mark.statistical
@pytest.mark.parametrize("d", [6, 12])
def test_the_snr_corrector_is_biased_however_small_its_steps(d):
    """Seed 12: π ∝ p^{d/(d+2)} |s|² is wider by 1 + 2/d. 24 000 coordinates: 7 errors and what r = 0.08 adds."""
    data, t, r, n = sk.Gaussian(torch.zeros(d).double(), 0.5), 0.4, 0.08, 24_000 // d
    law, sde = PROCESS.marginal(data, t), reverse(1.0, data=data)
    x, keys, correct = law.sample(n, seed=12), random.path_keys(12, n), sk.SNRCorrector(r).bind(sde, t, t)
    for k in range(240):
        z = random.normals(keys, (d,), stream=random.STREAM_FRESH, start=k)[0]
        x, _ = correct(x, [sk.Increment(z)], sk.steppers.metropolis.Acceptance.none(x))
    spread = float((x.square().mean() / law.variance[0]).sqrt())
    assert abs(spread - (1 + 2 / d)) < 0.05


def test_a_density_of_your_own():
    sde = sk.reverse_time(PROCESS, lambda t, x: PROCESS.marginal(DATA, t).score(x))
    runs = [
        sk.solve(problem, start(3), GRID, sk.PredictorCorrector("ddim", corrector), noise=2).final
        for problem, corrector in (
            (sde, sk.MetropolisCorrector(log_prob=lambda t, x: PROCESS.marginal(DATA, t).log_prob(x))),
            (reverse(1.0), sk.MetropolisCorrector()),
        )
    ]
    torch.testing.assert_close(*runs)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sk.SNRCorrector(0.0), "snr > 0; got 0.0"),
        (lambda: sk.SNRCorrector(-0.1), "snr > 0"),
        (lambda: sk.SNRCorrector(steps=0), "at least one step on a level; got steps = 0"),
        (lambda: sk.LangevinCorrector(float("nan")), "size > 0; got nan"),
        (lambda: sk.LangevinCorrector(per="steps"), "did you mean 'step'"),
        (lambda: sk.MetropolisCorrector(steps=-1), "at least one step"),
        (lambda: sk.PredictorCorrector("ddin"), "did you mean 'ddim'"),
        (lambda: sk.PredictorCorrector("dpmpp-3m"), "looks back over 3 steps.*single-step"),
        (lambda: sk.PredictorCorrector(sk.PredictorCorrector()), "draws beside the path"),
    ],
)
def test_bad_parts(call, words):
    with pytest.raises(sk.SdekitError, match=words):
        call()


def test_bad_problems():
    x = start(2)
    with pytest.raises(sk.SdekitError, match="needs the reverse of a process with a schedule"):
        sk.solve(PROCESS, x, [0.0, 1.0], "predictor-corrector", noise=0)
    theta = torch.tensor([[1.0, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    ou = sk.OU(theta, torch.zeros(3).double(), torch.eye(3).double())
    with pytest.raises(sk.SdekitError, match="a process with a schedule"):
        sk.solve(reverse(1.0, ou), x, sk.grids.uniform(ou, 5), sk.PredictorCorrector("euler-maruyama"), noise=0)
    learnt = sk.reverse_time(PROCESS, lambda t, y: -y)
    with pytest.raises(sk.SdekitError, match=r"density.*log_prob=.*LangevinCorrector"):
        sk.solve(learnt, x, GRID, sk.PredictorCorrector("ddim", sk.MetropolisCorrector()), noise=0)
    with pytest.raises(sk.SdekitError, match="integrates eta = 0"):
        sk.solve(reverse(1.0), x, GRID, sk.PredictorCorrector("dpmpp-2s"), noise=0)
    with pytest.raises(sk.SdekitError, match="predictor-corrector is random on any problem: give noise=seed"):
        sk.solve(reverse(0.0), x, GRID, "predictor-corrector")
    with pytest.raises(sk.SdekitError, match="not affine"):
        numerical_law(reverse(1.0), sk.PredictorCorrector(corrector=sk.SNRCorrector()), GRID, DATA)
