"""Samplers of k-diffusion and azula on our problems: one method, one number, whoever wrote it; and refusals."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

import sdekit as sk
from sdekit import verify
from sdekit.interop import azula, k_diffusion

pytestmark = pytest.mark.skipif(not (find_spec("k_diffusion") and find_spec("azula")), reason="no peers here")

VE = sk.VE(sigma_min=0.05, sigma_max=20.0)
VP = sk.VP()
LAW = sk.Gaussian([0.7], 0.25)
STATES = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)


def reverse(process, eta):
    return sk.reverse_time(process, sk.exact_score(LAW, process), eta)


@pytest.mark.parametrize("process", [VE, VP])
@pytest.mark.parametrize(
    ("library", "name", "options", "ours"),
    [
        (k_diffusion, "euler", {}, "ddim"),
        (k_diffusion, "dpmpp_2m", {}, "dpmpp-2m"),
        (k_diffusion, "heun", {}, "edm-heun"),
        (azula, "Euler", {}, "ddim"),
        (azula, "xEAB", {"order": 1}, "ddim"),
        (azula, "Heun", {}, "edm-heun"),
    ],
)
def test_one_method_gives_one_state(process, library, name, options, ours):
    """In float64 to rounding, through a scaling of the state that is not theirs."""
    grid, flow = sk.grids.log_snr(process, 12), reverse(process, 0.0)
    expected = sk.solve(flow, STATES * 10.0, grid, ours).final
    theirs = library.method(name, **options)
    torch.testing.assert_close(theirs(flow, grid)(STATES * 10.0), expected, atol=1e-11, rtol=1e-10)


def test_one_stochastic_method_has_one_law():
    """Four ways to the ancestral step; their noise is recorded and the law is exact."""
    sde, grid = reverse(VE, 1.0), sk.grids.log_snr(VE, 12)
    start = VE.marginal(LAW, float(grid[0]))
    expected = verify.numerical_law(sde, "ddpm", grid, start)
    methods = (k_diffusion.method("euler_ancestral"), azula.method("DDPM"), azula.method("DDIM"))
    for method in methods:
        law = verify.probe_sampler(method(sde, grid), (1,)).push(start)
        assert sk.metrics.wasserstein2(law, expected) < 1e-12
    other = verify.probe_sampler(azula.method("Ito")(sde, grid), (1,)).push(start)
    assert sk.metrics.wasserstein2(other, expected) > 1e-3  # another method: the comparison can fail


def test_noise_inside_a_step_is_part_of_the_steps_noise():
    """The path in σ has the covariance of a Brownian motion, in whatever order it is asked."""

    def values(x):
        path = k_diffusion._PathInSigma(x)
        levels = torch.tensor([3.0, 2.0, 1.5, 1.0], dtype=torch.float64)
        first, whole = path(levels[0], levels[2]), path(levels[0], levels[3])
        inside = path(levels[0], levels[1])
        return torch.cat([first * 1.5**0.5, whole * 2.0**0.5, inside], dim=1)

    count = verify.RecordedNormals(None)
    with count:
        values(torch.zeros(2, 1, dtype=torch.float64))
    with verify.RecordedNormals(torch.eye(count.taken, dtype=torch.float64)):
        root = values(torch.zeros(count.taken, 1, dtype=torch.float64))
    expected = torch.tensor([[1.5, 1.5, 1.0], [1.5, 2.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(root.T @ root, expected)


def test_what_a_method_does_not_integrate_is_refused():
    grid = sk.grids.log_snr(VE, 4)
    with pytest.raises(sk.SdekitError, match="eta = 1"):
        k_diffusion.method("dpmpp_sde")(reverse(VE, 0.0), grid)
    with pytest.raises(sk.SdekitError, match="eta = 0"):
        azula.method("vAB")(reverse(VE, 1.0), grid)
    with pytest.raises(sk.SdekitError, match="decreasing"):
        azula.method("vAB")(reverse(VE, 0.0), grid.flip(0))
    with pytest.raises(sk.SdekitError, match="reverse_time"):
        azula.method("vAB")(VE, grid)
    for module in (k_diffusion, azula):
        with pytest.raises(sk.SdekitError, match=r"did you mean|choose one of"):
            module.method("dpmpp_2n" if module is k_diffusion else "vaB")


def test_a_missing_library_is_named(monkeypatch):
    k_diffusion.sampling.cache_clear()
    monkeypatch.setattr(k_diffusion, "find_spec", lambda name: None)
    with pytest.raises(sk.SdekitError, match="pip install --no-deps k-diffusion"):
        k_diffusion.method("euler")
