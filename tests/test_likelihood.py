"""Likelihoods by the flow against closed forms and a determinant; probes, dequantisation, refusals; planted faults."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import sdekit as sk
from sdekit import divergence, likelihood
from sdekit.errors import SdekitError
from sdekit.keys import Keys
from sdekit.linear import ScheduledProcess
from sdekit.reverse import Reverse

FINE = sk.PID(rtol=1e-9, atol=1e-9)
MIXTURE = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])


def correlated() -> sk.Gaussian:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(16, 16, generator=g, dtype=torch.float64) / 4.0
    return sk.Gaussian(torch.randn(16, generator=g, dtype=torch.float64), a @ a.mT + 0.05 * torch.eye(16).double())


LAWS = {"mixture": MIXTURE, "gaussian": correlated()}
PROCESSES = {"VP": sk.VP(), "EDM": sk.EDM(), "VE": sk.VE(), "Flow": sk.Flow()}


def exact_flow(process: ScheduledProcess, law: sk.laws.Law) -> Reverse:
    return sk.probability_flow(process, sk.exact_score(law, process))


class Network(nn.Module):
    """A smooth net of events (2, 3), in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 6)).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = torch.cat([x.flatten(1), t[:, None]], 1)
        return 0.3 * self.layers(y).reshape(x.shape) + 0.5 * x


def learned(process: ScheduledProcess | None = None) -> Reverse:
    process = process or sk.VP(beta_max=4.0, t_min=0.05)
    return sk.probability_flow(process, sk.score.from_model(Network(), process))


# --- against the truth ----------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("process", ["VP", "EDM"])
def test_the_exact_trace_gives_the_marginal_to_a_millionth(process, law):
    process, law = PROCESSES[process], LAWS[law]
    x = law.sample(6, seed=1)
    found = sk.log_likelihood(exact_flow(process, law), x, controller=FINE)
    truth = process.marginal(law, process.t_min).log_prob(x)
    assert found.prior_mismatch is not None
    assert found.truncation is not None
    assert float((found.value + found.prior_mismatch - truth).abs().max()) < 1e-6
    assert float((truth + found.truncation - law.log_prob(x)).abs().max()) < 1e-12
    assert not found.standard_error.any()
    assert not found.status.any()
    assert torch.equal(found.value, found.log_prior + found.integral)
    own = sk.log_likelihood(exact_flow(process, law), x, controller=FINE, prior=process.marginal(law, process.t_max))
    assert float((own.value - truth).abs().max()) < 1e-6
    assert not own.prior_mismatch.any()


@pytest.mark.parametrize("process", PROCESSES)
def test_the_default_run_is_right_to_its_tolerance(process):
    process, law = PROCESSES[process], LAWS["gaussian"]
    x = law.sample(4, seed=2)
    found = sk.log_likelihood(exact_flow(process, law), x)
    error = found.value + found.prior_mismatch - process.marginal(law, process.t_min).log_prob(x)
    assert float(error.abs().max()) < 2e-3  # nats, of about 20


def test_a_density_adds_up_to_one():
    x = torch.linspace(-7.0, 7.0, 561, dtype=torch.float64)[:, None]
    found = sk.log_likelihood(exact_flow(sk.VP(), MIXTURE), x, controller=sk.PID(1e-8, 1e-8))
    total = torch.trapezoid(found.value.exp(), x[:, 0])
    assert abs(float(total) - 1.0) < 1e-7


def test_it_is_the_determinant_of_the_flow():
    """log p₀(x) = log π(Φ(x)) + log |det DΦ(x)|, with DΦ by autograd through the whole run."""
    flow, grid = learned(), sk.grids.uniform(sk.VP(beta_max=4.0, t_min=0.05), 24)
    g = torch.Generator().manual_seed(3)
    x = torch.randn(3, 2, 3, generator=g, dtype=torch.float64)
    found = sk.log_likelihood(flow, x, grid, "dopri5")
    for i in range(3):
        image = lambda y: sk.encode(flow, y.reshape(1, 2, 3), grid, "dopri5").final.flatten()  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(image, x[i].flatten())
        latent = image(x[i].flatten()).reshape(1, 2, 3)
        expected = flow.process.prior((2, 3)).log_prob(latent)[0] + torch.linalg.slogdet(jacobian)[1]
        assert float(found.value[i]) == pytest.approx(float(expected.detach()), abs=1e-7)
    assert found.prior_mismatch is None
    assert found.truncation is None


def test_an_ode_with_a_prior():
    a = torch.tensor([[0.3, -1.0], [0.8, -0.5]], dtype=torch.float64)
    ode, prior = sk.sde(lambda t, x: x @ a.mT), sk.Gaussian([0.0, 0.0], 1.0)
    x = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    found = sk.log_likelihood(ode, x, [0.0, 1.5], prior=prior, controller=FINE)
    latent = x @ torch.linalg.matrix_exp(1.5 * a).mT
    assert float(found.value) == pytest.approx(float(prior.log_prob(latent)) - 0.2 * 1.5, abs=1e-8)
    with pytest.raises(SdekitError, match="give prior="):
        sk.log_likelihood(ode, x, [0.0, 1.5])
    with pytest.raises(SdekitError, match="Give a grid"):
        sk.log_likelihood(ode, x, prior=prior)


def test_the_bound_of_the_prior_mismatch():
    process, law = sk.VP(beta_max=4.0), LAWS["gaussian"]
    found = sk.log_likelihood(exact_flow(process, law), law.sample(256, seed=5), steps=8)
    # The mean mismatch is KL(p_T ‖ π), here known: both are Gaussian.
    last, mean = process.marginal(law, 1.0), process.marginal(law, 1.0).mean
    kl = 0.5 * float(last.covariance.trace() + mean @ mean - 16 - torch.logdet(last.covariance))
    assert 0.0 < kl < float(found.mismatch_bound.mean())
    assert abs(float(found.prior_mismatch.mean()) - kl) < 5.0 * float(found.prior_mismatch.std()) / 16.0


# --- divergences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["batched", "loop", "forward"])
def test_forms_are_the_trace_of_the_whole_jacobian(way):
    flow, g = learned(), torch.Generator().manual_seed(4)
    x = torch.randn(4, 2, 3, generator=g, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    forms = {
        "batched": divergence.reverse_forms(4, True),
        "loop": divergence.reverse_forms(4, False),
        "forward": divergence.forward_forms(4),
    }[way]
    value, found = forms(flow.drift, t, x, None)
    assert torch.equal(value, flow.drift(t, x))
    for i in range(4):
        field = lambda y: flow.drift(t[i : i + 1], y.reshape(1, 2, 3)).flatten()  # noqa: B023, E731
        jacobian = torch.autograd.functional.jacobian(field, x[i].flatten())
        assert torch.allclose(found[:, i], jacobian.diagonal(), rtol=0.0, atol=1e-12)


def test_probes_are_signs_or_normals_and_belong_to_a_path():
    like = torch.zeros(3, 2, 5, dtype=torch.float64)
    signs = divergence.probes(Keys.of(7, None, 3), 4, "rademacher", like)
    assert signs.shape == (4, 3, 2, 5)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    normal = divergence.probes(Keys.of(7, [2, 0]), 3, "gaussian", like[:2])
    all_normal = divergence.probes(Keys.of(7, None, 3), 4, "gaussian", like)
    assert torch.equal(normal, all_normal[:3, [2, 0]])
    assert torch.equal(torch.where(all_normal < 0.0, -1.0, 1.0).double(), signs)


@pytest.mark.statistical
@pytest.mark.parametrize("distribution", ["rademacher", pytest.param("gaussian", marks=pytest.mark.certify)])
def test_the_interval_of_the_probes_covers_the_truth_at_its_rate(distribution):
    """2000 intervals of 95 %, from 16 probes each; false alarm 6e-7, 1 % being left for what is not quite normal."""
    process, law, n = sk.VP(), LAWS["gaussian"], 2000
    x, flow = law.sample(n, seed=6), exact_flow(process, law)
    exact = sk.log_likelihood(flow, x[:1], stepper="dopri5", steps=6).integral  # of all: the field is affine
    found = sk.log_likelihood(
        *(flow, x), stepper="dopri5", steps=6, divergence="hutchinson", distribution=distribution, seed=11
    )
    inside = int(((found.integral - exact).abs() <= 2.131450 * found.standard_error).sum())  # t of 15 at 97.5 %
    low, high = (n * p + z * math.sqrt(n * p * (1.0 - p)) for p, z in ((0.94, -5.0), (0.96, 5.0)))
    assert low < inside < high < n
    off, squares = found.integral - exact, found.standard_error.square()
    assert abs(float(off.mean())) < 5.0 * float(off.std()) / math.sqrt(n)
    claimed = off.square() - squares  # mean zero, if the standard errors are right
    assert abs(float(claimed.mean())) < 5.0 * float(claimed.std()) / math.sqrt(n)


def test_probes_stay_the_same_along_the_way():
    """The integral of a smooth function converges; that of fresh noise does not. Nor does the trajectory see them."""
    flow, x = exact_flow(sk.VP(), LAWS["gaussian"]), LAWS["gaussian"].sample(3, seed=7)
    runs = [
        sk.log_likelihood(flow, x, stepper="dopri5", steps=n, divergence="hutchinson", probes=3, seed=5)
        for n in (24, 48)
    ]
    assert float((runs[0].value - runs[1].value).abs().max()) < 1e-4
    assert float(runs[0].standard_error.min()) > 1e-2
    exact = sk.log_likelihood(flow, x, stepper="dopri5", steps=24)
    assert torch.equal(exact.latent, runs[0].latent)
    assert runs[0].products == 3
    assert exact.products == 16


def test_a_single_probe_says_nothing_of_its_error():
    flow, x = exact_flow(sk.VP(), LAWS["gaussian"]), LAWS["gaussian"].sample(2, seed=7)
    found = sk.log_likelihood(flow, x, steps=8, divergence="hutchinson", probes=1)
    assert bool(found.value.isfinite().all())
    assert bool(found.standard_error.isnan().all())


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_a_sample_alone_has_what_it_has_among_others(divergence):
    score = lambda t, x: -x + torch.tanh(2.0 * x.roll(1, 1))  # noqa: E731
    flow = sk.probability_flow(sk.VP(), score)
    x = sk.Gaussian([0.0, 1.0, 2.0], 1.0).sample(40, seed=8)
    whole = sk.log_likelihood(flow, x, divergence=divergence, seed=3)
    part = sk.log_likelihood(flow, x[[31, 5]], divergence=divergence, seed=3, paths=[31, 5], chunk=1)
    assert torch.equal(part.value, whole.value[[31, 5]])
    assert torch.equal(part.standard_error, whole.standard_error[[31, 5]])


def share_of_the_tolerance() -> float:
    """The error of an integral over 200 dimensions, in units of what the tolerance allows it."""
    law = sk.Gaussian(torch.zeros(200).double(), torch.linspace(0.01, 1.0, 200).double())
    process, x = sk.EDM(), law.sample(2, seed=9)
    found = sk.log_likelihood(exact_flow(process, law), x, controller=sk.PID(1e-7, 1e-7))
    error = found.value + found.prior_mismatch - process.marginal(law, process.t_min).log_prob(x)
    return float((error / found.integral).abs().max()) / 1e-7


def test_the_integral_counts_for_half_of_the_error(monkeypatch):
    """It keeps the tolerance; as one number among 400 it does not."""
    assert share_of_the_tolerance() < 0.7
    made = likelihood.Augmented.of
    monkeypatch.setattr(likelihood.Augmented, "of", lambda *args: replace(made(*args), copies=1))
    assert share_of_the_tolerance() > 0.9


# --- levels ---------------------------------------------------------------------------------------


def levels(low: float, width: float) -> Tensor:
    k = torch.arange(12).reshape(3, 4) % 7
    return (low + width * k).double()


def test_bits_are_those_of_the_formula_and_know_no_range():
    """Data, law and process in other units: the density changes, and the bits per dimension do not."""
    law = sk.Gaussian(torch.tensor([-0.5, 0.0, 0.2, 0.5]).double(), torch.tensor([0.4, 0.2, 0.3, 0.1]).double())
    narrow = sk.log_likelihood(
        exact_flow(sk.EDM(0.02, 40.0), law),
        levels(-1.0, 1.0 / 3.0),
        controller=FINE,
        dequantisation=sk.Dequantisation(7, -1.0, 1.0),
        seed=4,
    )
    wide = sk.log_likelihood(
        exact_flow(sk.EDM(0.06, 120.0), law.affine(3.0, 3.0)),
        levels(0.0, 1.0),
        controller=FINE,
        dequantisation=sk.Dequantisation(7, 0.0, 6.0),
        seed=4,
        # The prior is about 0: it moves with the data only where it is told.
        prior=sk.EDM(0.06, 120.0).marginal(law.affine(3.0, 3.0), 120.0),
    )
    bits = -(narrow.value + narrow.prior_mismatch - 4.0 * math.log(3.0)) / (4.0 * math.log(2.0))
    assert torch.allclose(bits, wide.bits_per_dimension, rtol=0.0, atol=1e-6)
    assert torch.allclose(3.0 * narrow.x + 3.0, wide.x, rtol=0.0, atol=1e-12)
    direct = -(narrow.value - 4.0 * math.log(3.0)) / (4.0 * math.log(2.0))
    assert torch.allclose(narrow.bits_per_dimension, direct, rtol=0.0, atol=1e-12)


def test_noise_fills_the_cells():
    cells, keys = sk.Dequantisation(5, 0.0, 1.0), Keys.of(3, None, 4000)
    x = torch.full((4000, 2), 0.75, dtype=torch.float64)
    u = (cells.filled(x, keys) - 0.75) / 0.25
    assert -0.5 < float(u.min()) < -0.49
    assert 0.49 < float(u.max()) < 0.5
    assert abs(float(u.mean())) < 5.0 / math.sqrt(12.0 * 8000)
    assert torch.equal(cells.filled(x[:2], Keys.of(3, [7, 1])), cells.filled(x, keys)[[7, 1]])


def test_what_is_no_level_is_refused():
    with pytest.raises(SdekitError, match=r"2 values are none of the 17 levels from 0 to 16, such as 0\.37"):
        sk.Dequantisation(17, 0.0, 16.0).filled(torch.tensor([[0.37, 1.0], [16.0, 17.0]]), Keys.of(0, None, 2))
    with pytest.raises(SdekitError, match="levels ≥ 2"):
        sk.Dequantisation(1)


# --- refusals and ends ----------------------------------------------------------------------------


def detached(t: float, x: Tensor) -> Tensor:
    return -x.detach()


def by_numpy(t: float, x: Tensor) -> Tensor:
    return torch.from_numpy(-(x.detach().numpy() ** 3))


def cut_off(t: float, x: Tensor) -> Tensor:
    y = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(-(y**4).sum(), y)[0]


@pytest.mark.parametrize("score", [detached, by_numpy, cut_off])
@pytest.mark.parametrize("process", ["VP", "EDM"])
def test_a_score_without_a_derivative_is_refused(score, process):
    flow = sk.probability_flow(PROCESSES[process], score)
    with pytest.raises(SdekitError, match="divergence of this field cannot be had"):
        sk.log_likelihood(flow, torch.tensor([[0.5, -1.0]], dtype=torch.float64))


class Cube(torch.autograd.Function):
    """An operation with neither a forward nor a batching rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3.0 * ctx.saved_tensors[0] ** 2 * grad


def silent(t: float, x: Tensor) -> Tensor:
    with torch.no_grad():
        return -(x**3)


def energy(t: float, x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: -0.25 * (y**4).sum())(x)


def test_a_rough_network_is_not_called_wrong():
    """In bfloat16 difference quotients are noise: they prove nothing, and nothing is refused."""
    net = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 3))
    for i, weights in enumerate(net.parameters()):
        weights.data = torch.randn(weights.shape, generator=torch.Generator().manual_seed(i)) * 0.4
    net.bfloat16()
    score = lambda t, x: -x + net(x.bfloat16()).to(x)  # noqa: E731
    flow = sk.probability_flow(sk.VP(), score)
    for seed in range(20):
        x = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        divergence.quadratic_forms_of(flow.drift, (0.001, 1.0), x)


@pytest.mark.parametrize("score", [silent, energy, lambda t, x: -Cube.apply(x)], ids=["no_grad", "energy", "custom"])
def test_every_differentiable_score_serves(score):
    x = torch.tensor([[0.5, -1.0], [0.1, 0.7]], dtype=torch.float64)
    plain = sk.log_likelihood(sk.probability_flow(sk.VP(), lambda t, x: -(x**3)), x, steps=12)
    found = sk.log_likelihood(sk.probability_flow(sk.VP(), score), x, steps=12)
    assert torch.allclose(found.value, plain.value, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"divergence": "hutchison"}, "hutchinson"),
        ({"divergence": "hutchinson", "probes": 0}, "probes ≥ 1"),
        ({"divergence": "hutchinson", "distribution": "signs"}, "kind of probes 'signs'"),
        ({"chunk": 0}, "chunk"),
        ({"stepper": "ddim", "steps": 4}, "rk4"),
        ({"stepper": "rk4"}, "steps=N"),
        ({"grid": [0.0, 1.0]}, "singular"),
        ({"prior": sk.Gaussian([0.0, 0.0, 0.0], 1.0)}, "events of shape"),
        ({"dequantisation": sk.Dequantisation(3)}, "none of the 3 levels"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_what_cannot_be_is_refused(changes, words):
    flow = sk.probability_flow(sk.VP(), lambda t, x: -x)
    with pytest.raises(SdekitError, match=words):
        sk.log_likelihood(flow, torch.tensor([[0.5, -0.9]], dtype=torch.float64), **changes)


def test_noise_is_refused():
    x = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(SdekitError, match=r"eta = 1: use\s+sk.probability_flow"):
        sk.log_likelihood(sk.reverse_time(sk.VP(), lambda t, x: -x), x)
    with pytest.raises(SdekitError, match="probability_flow"):
        sk.log_likelihood(sk.VP(), x)


def test_a_sample_that_is_lost_says_so_and_leaves_others_alone():
    score = lambda t, x: torch.where(x.abs() > 50.0, torch.nan, -x)  # noqa: E731
    flow = sk.probability_flow(sk.VP(), score)
    x = torch.tensor([[0.5, 1.0], [60.0, 0.0]], dtype=torch.float64)
    found = sk.log_likelihood(flow, x, max_steps=200)
    assert found.status.tolist()[0] == 0 != found.status.tolist()[1]
    assert found.value.isnan().tolist() == [False, True]
    assert torch.equal(found.value[:1], sk.log_likelihood(flow, x[:1]).value)


# --- planted faults: every one must be seen by the checks above --------------------------------------


def error_of(flow: Reverse, law: sk.laws.Law) -> float:
    x = law.sample(4, seed=1)
    found = sk.log_likelihood(flow, x, steps=48, stepper="dopri5")
    process = flow.linear_process
    return float((found.value + found.prior_mismatch - process.marginal(law, process.t_min).log_prob(x)).abs().max())


def plant(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    drift, forms = likelihood.Augmented.drift, Reverse.drift
    if fault == "sign":

        def drift_with(self, t, z):
            out = drift(self, t, z)
            out[:, self.size :] *= -1.0
            return out

        monkeypatch.setattr(likelihood.Augmented, "drift", drift_with)
    elif fault == "half":  # g² s instead of ½ g² s
        monkeypatch.setattr(Reverse, "drift", lambda self, t, x: 2.0 * forms(self, t, x) - self.process.drift(t, x))
    elif fault == "redrawn":
        calls = iter(range(10**9))

        def redrawn(self, t, z):
            other = Keys.of(next(calls), None, self.probes.shape[1])
            v = divergence.probes(other, len(self.probes), "rademacher", z[:, : self.size])
            return drift(replace(self, probes=v), t, z)

        monkeypatch.setattr(likelihood.Augmented, "drift", redrawn)
    elif fault == "cell":
        monkeypatch.setattr(sk.Dequantisation, "log_cell", lambda self, d: 0.0)


@pytest.mark.parametrize("fault", ["sign", "half"])
def test_a_wrong_integral_is_seen(monkeypatch, fault):
    flow = exact_flow(sk.VP(), MIXTURE)
    assert error_of(flow, MIXTURE) < 1e-6
    plant(monkeypatch, fault)
    assert error_of(flow, MIXTURE) > 1e-2


def test_redrawn_probes_are_seen(monkeypatch):
    plant(monkeypatch, "redrawn")
    with pytest.raises(AssertionError):
        test_probes_stay_the_same_along_the_way()


def test_a_missing_cell_is_seen(monkeypatch):
    plant(monkeypatch, "cell")
    with pytest.raises(AssertionError):
        test_bits_are_those_of_the_formula_and_know_no_range()
