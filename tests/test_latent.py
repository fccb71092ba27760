"""Encoding and decoding at every stepper's order, round trips, and great circles."""

from __future__ import annotations

import math

import pytest
import torch

import sdekit as sk
from sdekit import latent
from sdekit.errors import SdekitError
from sdekit.quantile_map import quantile_flow

MIXTURE = sk.GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [0.36, 0.25])
PROCESS = sk.VP()
FLOW = sk.probability_flow(PROCESS, sk.exact_score(MIXTURE, PROCESS))
ORDERS = {
    name: stepper.spec.ode
    for name, stepper in sk.STEPPERS.items()
    if stepper.spec.ode is not None and stepper.spec.kind != "exact" and stepper.spec.eta[0] == 0.0 and ":" not in name
}


def points(n: int = 16) -> torch.Tensor:
    return MIXTURE.sample(n, seed=0)


@pytest.mark.parametrize("name", ORDERS)
def test_every_stepper_encodes_at_its_order(name):
    x, errors = points(), []
    truth = quantile_flow(PROCESS, MIXTURE, x, PROCESS.t_min, PROCESS.t_max)
    for steps in (32, 64):
        grid = sk.grids.log_snr(PROCESS, steps)
        found = sk.encode(FLOW, x, grid, name)
        assert found.ts.tolist() == [PROCESS.t_max]
        errors.append(float((found.final - truth).square().mean().sqrt()))
    slope = math.log2(errors[0] / errors[1])
    assert slope > ORDERS[name] - 0.75 or errors[1] < 1e-10, (errors, slope)


@pytest.mark.parametrize("process", [sk.VP(), sk.EDM(), sk.VE(), sk.Flow()], ids=lambda p: type(p).__name__)
def test_the_default_goes_there_and_back(process):
    flow = sk.probability_flow(process, sk.exact_score(MIXTURE, process))
    x = points(32)
    there = sk.round_trip(flow, x)
    truth = quantile_flow(process, MIXTURE, x, process.t_min, process.t_max)
    scale = float(truth.abs().max())
    assert float((there.encoded.final - truth).abs().max()) < 1e-3 * scale
    assert there.error.shape == (32,)
    assert float(there.error.max()) < 3e-3
    assert torch.equal(there.error, (there.decoded.final - x)[:, 0].abs())
    assert there.encoded.provenance["stepper"] == "dopri5"


def test_steps_are_those_of_the_sampler_but_for_the_last_to_the_data():
    found = sk.round_trip(FLOW, points(), steps=40)
    assert found.encoded.provenance["stepper"] == found.decoded.provenance["stepper"] == "v-abm-4"
    assert found.encoded.stats.steps == found.decoded.stats.steps == 40
    assert float(found.error.max()) < 1e-3
    assert float(found.decoded.ts[-1]) == pytest.approx(PROCESS.t_min)


def test_a_gaussian_goes_exactly():
    law = sk.Gaussian([0.5, -1.0], [0.01, 0.5])
    flow = sk.probability_flow(PROCESS, sk.exact_score(law, PROCESS))
    x = law.sample(8, seed=0)
    found = sk.round_trip(flow, x, steps=3, stepper="exact-linear")
    start, end = (PROCESS.marginal(law, t) for t in (PROCESS.t_min, PROCESS.t_max))
    truth = end.mean + (x - start.mean) * (end.variance / start.variance).sqrt()
    assert torch.allclose(found.encoded.final, truth, rtol=0.0, atol=1e-12)
    assert float(found.error.max()) < 1e-12


def test_a_grid_serves_in_either_order():
    x, grid = points(), sk.grids.log_snr(PROCESS, 12)
    assert torch.equal(sk.encode(FLOW, x, grid, "rk4").final, sk.encode(FLOW, x, grid.flip(0), "rk4").final)
    assert torch.equal(sk.decode(FLOW, x, grid, "rk4").final, sk.decode(FLOW, x, grid.flip(0), "rk4").final)
    assert torch.equal(sk.decode(FLOW, x, grid, "rk4").final, sk.solve(FLOW, x, grid, "rk4").final)


def test_a_method_that_undoes_its_steps_hides_its_error():
    x, grid = points(), sk.grids.log_snr(PROCESS, 64)
    found = sk.round_trip(FLOW, x, grid, "reversible-heun")
    truth = quantile_flow(PROCESS, MIXTURE, x, PROCESS.t_min, PROCESS.t_max)
    assert float(found.error.max()) < 1e-9
    assert float((found.encoded.final - truth).abs().max()) > 1e-4


def test_what_leads_to_no_latent_is_refused():
    x = points()
    with pytest.raises(SdekitError, match=r"eta = 0.5: use\s+sk.probability_flow"):
        sk.encode(sk.reverse_time(PROCESS, sk.exact_score(MIXTURE, PROCESS), 0.5), x)
    with pytest.raises(SdekitError, match="additive noise"):
        sk.decode(PROCESS, x)
    with pytest.raises(SdekitError, match="singular at t = 0"):
        sk.encode(FLOW, x, [0.0, 1.0])
    with pytest.raises(SdekitError, match="not both"):
        sk.encode(FLOW, x, [0.1, 1.0], steps=3)
    with pytest.raises(SdekitError, match="Give a grid"):
        sk.encode(sk.sde(lambda t, x: -x), x)
    with pytest.raises(SdekitError, match="ddpm cannot"):
        sk.encode(FLOW, x, steps=8, stepper="ddpm")


def test_a_run_that_ends_early_has_no_round_trip():
    found = sk.round_trip(FLOW, points(), max_steps=3)
    assert bool(found.error.isnan().all())


# --- great circles --------------------------------------------------------------------------------


def test_slerp_is_the_great_circle_with_norms_between():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4, generator=g, dtype=torch.float64).mul(torch.tensor([1.0, 2.0])[:, None, None, None])
    w = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    c = sk.slerp(a, b, w)
    assert c.shape == (9, 5, 3, 4)
    assert torch.allclose(c[0], a, rtol=0.0, atol=1e-13)
    assert torch.allclose(c[-1], b, rtol=0.0, atol=1e-13)
    norms = [x.flatten(1).norm(dim=1) for x in (a, b)]
    assert torch.allclose(c.flatten(2).norm(dim=2), torch.lerp(*norms, w[:, None]), rtol=1e-12, atol=0.0)
    units = c.flatten(2) / c.flatten(2).norm(dim=2, keepdim=True)
    steps = (units[1:] * units[:-1]).sum(2).clamp(-1.0, 1.0).arccos()
    whole = (units[0] * units[-1]).sum(1).arccos()
    assert torch.allclose(steps, (whole / 8.0).expand(8, -1), rtol=1e-6, atol=0.0)  # equal angles
    assert torch.equal(sk.slerp(a, b, 0.25), c[2])
    alone = sk.slerp(a[3:4], b[3:4], w)
    assert torch.equal(alone[:, 0], c[:, 3])


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-7, 0.999e-6, 1.001e-6, 1e-4])
def test_slerp_of_nearly_parallel_vectors_is_nearly_the_line(apart):
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[math.cos(apart), math.sin(apart)]], dtype=torch.float64)
    c = sk.slerp(a, b, 0.3)
    expected = torch.tensor([[math.cos(0.3 * apart), math.sin(0.3 * apart)]], dtype=torch.float64)
    assert torch.allclose(c, expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_slerp_refuses_what_has_no_way(dtype):
    a = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=dtype)
    with pytest.raises(SdekitError, match="Sample 1 of a and b are opposite"):
        sk.slerp(a, torch.stack([a[1], -2.0 * a[1]]), 0.5)
    with pytest.raises(SdekitError, match="Sample 0 has norm 0"):
        sk.slerp(torch.zeros_like(a), a, 0.5)
    with pytest.raises(SdekitError, match="one shape"):
        sk.slerp(a, a[:1], 0.5)
    with pytest.raises(SdekitError, match="a list of them"):
        sk.slerp(a, a, torch.zeros(2, 2))
    assert sk.slerp(a, a.flip(0), 0.5).dtype == dtype


def test_a_line_instead_of_the_circle_is_seen(monkeypatch):
    monkeypatch.setattr(latent, "_share", lambda w, theta: w.expand(len(w), len(theta)))
    with pytest.raises(AssertionError):
        test_slerp_is_the_great_circle_with_norms_between()
