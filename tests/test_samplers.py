"""What samplers are for: error against evaluations, beside the figures of the best peers.

The peers' figures were measured by an independent prototype on the same problems and grids (the study measures them
again, where the libraries are installed). Nothing here is timed or sampled.
"""

from __future__ import annotations

import pytest
import torch

import sdekit as sk
from sdekit.verify import mid_quantiles, numerical_law, quantile_flow

MIXTURE = sk.GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
VE = sk.VE(sigma_min=0.05, sigma_max=20.0)
STEPS = (10, 20, 40, 80, 160, 320)
FLOW = (7e-3, 4e-4, 2.7e-5, 1.3e-6, 4.1e-8, 1.23e-9)
"""The best peer at each of these on the flow from log-uniform σ: azula, UniPC-3 or UniPC-4 of diffusers."""
SDE = (1.2e-2, 3.0e-3, 6.4e-4, 1.3e-4, 2.8e-5, 6.5e-6)
"""The same on a normal law at η = 1: SDE-DPM++2M, SA-Solver, ER-SDE-3."""
AS_USED = {10: 6.6e-3, 20: 1.3e-3, 50: 1.2e-4, 100: 2.1e-5, 200: 4.6e-6}
"""azula's rectified vAB-3 with its own last step, the best of the peers as used."""


def flow_error(process, grid, stepper, steps=None) -> tuple[float, int]:
    """RMS over 48 quantiles against the exact flow, and evaluations."""
    flow = sk.probability_flow(process, sk.exact_score(MIXTURE, process))
    x = mid_quantiles(process.marginal(MIXTURE, process.t_max), 48)
    solution = sk.solve(flow, x, grid, stepper, steps=steps).check()
    exact = quantile_flow(process, MIXTURE, x, process.t_max, float(solution.ts[-1]))
    return float((solution.final - exact).square().mean().sqrt()), solution.stats.score_evaluations


@pytest.mark.parametrize(("steps", "peer"), [*zip(STEPS, FLOW, strict=True)])
def test_the_best_flow_sampler_at_every_number_of_evaluations(steps, peer):
    error, calls = flow_error(VE, sk.grids.log_snr(VE, steps), sk.VABM(min(5, steps), start="ramp"))
    assert calls == steps
    assert error < peer


@pytest.mark.parametrize(("steps", "peer"), [*zip(STEPS, SDE, strict=True)])
def test_the_best_stochastic_sampler_at_every_number_of_steps(steps, peer):
    data = sk.Gaussian([0.7], 0.25)
    sde, grid = sk.reverse_time(VE, sk.exact_score(data, VE)), sk.grids.log_snr(VE, steps)
    start, end = (VE.marginal(data, float(t)) for t in (grid[0], grid[-1]))
    errors = {
        name: sk.metrics.wasserstein2(numerical_law(sde, name, grid, start), end)
        for name in ("er-sde-3", "seeds3", "sigma-midpoint")
    }
    assert min(errors.values()) < peer, errors


@pytest.mark.parametrize("steps", AS_USED)
def test_nothing_else_chosen(steps):
    """With Stable Diffusion's β, against the exact x₀."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    error, calls = flow_error(sk.DiscreteVP(betas.tolist()), None, None, steps)
    assert calls == steps
    assert error < AS_USED[steps]


@pytest.mark.parametrize("process", [sk.VP(), sk.EDM(), sk.Cosine(), sk.Flow(), sk.SubVP(), sk.VE()], ids=repr)
def test_the_default_is_as_good_on_every_schedule(process):
    """u is the same time for all of them: errors at 20 evaluations are alike, and fall as those of order four."""
    (coarse, _), (fine, _) = (flow_error(process, None, None, n) for n in (20, 80))
    assert coarse < 4e-4
    assert fine < coarse / 30


@pytest.mark.parametrize("problem", ["ou-gaussian", "vp-gaussian", "ve-gaussian"])
def test_five_steps_of_adams_have_order_six(problem):
    """VABM(5) has no name in the registry: on mixtures its order shows next to round-off only."""
    found = sk.verify.order(sk.problems.get(problem, eta=0.0), sk.VABM(5), "w2", (48, 64, 96, 128, 192, 256))
    assert found.verdict(6.0) == "agrees", found
