"""Grids of integer timesteps: the published tables, exact levels, and what is refused."""

from __future__ import annotations

import pytest
import torch

import sdekit as sk
from sdekit import SdekitError, grids

L = 1000
DDPM = sk.DiscreteVP(torch.linspace(1e-4, 0.02, L, dtype=torch.float64))
SMLD = sk.DiscreteVE(torch.logspace(-2, 1.5, 12, dtype=torch.float64))
SPACINGS = ("trailing", "linspace", "leading", "beta")

TABLE_2 = {
    "leading": (901, 801, 701, 601, 501, 401, 301, 201, 101, 1),
    "linspace": (1000, 889, 778, 667, 556, 445, 334, 223, 112, 1),
    "trailing": (1000, 900, 800, 700, 600, 500, 400, 300, 200, 100),
}


@pytest.mark.parametrize("spacing", TABLE_2)
def test_ten_of_a_thousand_are_those_of_the_paper(spacing) -> None:
    """Lin et al. (2024), Table 2, and then the data; the times are the chain's own, to the last bit."""
    levels = (*TABLE_2[spacing], 0)
    assert grids.from_timesteps(DDPM, 10, spacing=spacing).tolist() == [i / L for i in levels]


@pytest.mark.parametrize("steps", [1, 7, 16, 33, 999, 1000])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_levels_are_distinct_and_reach_where_they_should(spacing, steps) -> None:
    grid = grids.from_timesteps(DDPM, steps, spacing=spacing)
    levels = grid * L
    assert grid.shape == (steps + 1,)
    assert bool((grid.diff() < 0).all())
    assert torch.equal(levels, levels.round())
    assert float(grid[-1]) == 0.0
    assert (float(grid[0]) == 1.0) == (spacing != "leading" or steps == L)


@pytest.mark.parametrize("steps", [1, 7, 16, 33])
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 0), ("leading", 1), ("linspace", 0), ("trailing", 0)])
def test_agrees_with_diffusers(spacing, offset, steps) -> None:
    """But for one step of linspace, which diffusers takes at the least noise instead of the most."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    grid = grids.from_timesteps(DDPM, steps, spacing=spacing, offset=offset)
    same = torch.equal((grid[:-1] * L).round().long() - 1, scheduler.timesteps)
    assert same != (spacing == "linspace" and steps == 1)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_chain_without_a_noiseless_time_ends_at_its_lowest_level(spacing) -> None:
    grid = grids.from_timesteps(SMLD, 4, spacing=spacing)
    assert float(grid[-1]) == SMLD.t_min == 1 / 12
    assert grids.from_timesteps(SMLD, 11, spacing=spacing).tolist() == [i / 12 for i in range(12, 0, -1)]


def test_part_of_a_chain() -> None:
    """As for a run that starts from a picture with some noise on it."""
    grid = grids.from_timesteps(DDPM, 3, t_min=0.1, t_max=0.4)
    assert grid.tolist() == [0.4, 0.3, 0.2, 0.1]


def test_a_beta_grid_has_its_median_in_the_middle() -> None:
    grid = grids.from_timesteps(DDPM, 9, spacing="beta") * L
    assert [round(float(grid[i])) for i in (0, 8, 9)] == [1000, 1, 0]
    assert abs(float(grid[4]) - 500.5) < 0.6
    gaps = -grid[:-1].diff()
    assert float(gaps[0]) < 0.5 * float(gaps[3])


def test_a_network_that_insists_on_timesteps_takes_them() -> None:
    from sdekit.interop.diffusers import TimestepNet

    class Model:
        def __call__(self, x, step):
            return type("Output", (), {"sample": 0.1 * x})()

    score = sk.score.from_model(TimestepNet(Model(), L, snap=True), DDPM)
    x = torch.ones(2, 3, dtype=torch.float64)
    flow = sk.probability_flow(DDPM, score)
    assert sk.solve(flow, x, grids.from_timesteps(DDPM, 16), "dpmpp-2m").stats.score_evaluations == 16
    with pytest.raises(SdekitError, match="no timestep"):
        sk.solve(flow, x, grids.log_snr(DDPM, 16), "dpmpp-2m")


@pytest.mark.parametrize(
    ("process", "steps", "options", "words"),
    [
        (sk.VP(), 10, {}, "VP has no integer timesteps"),
        (sk.OU(torch.eye(2)), 10, {}, "no integer timesteps"),
        (DDPM, 0, {}, "steps must be"),
        (DDPM, 2.5, {}, "steps must be"),
        (DDPM, 1001, {}, "1000 levels to ask at and 1001 steps"),
        (SMLD, 12, {}, "11 levels to ask at and 12 steps"),
        (DDPM, 10, {"spacing": "leadin"}, "did you mean 'leading'"),
        (DDPM, 10, {"spacing": "trailing", "offset": 1}, "goes with spacing='leading'"),
        (DDPM, 10, {"spacing": "leading", "offset": 100}, "it can be 0 to 99"),
        (DDPM, 10, {"spacing": "leading", "offset": -1}, "it can be 0 to 99"),
        (DDPM, 10, {"t_max": 0.12345}, "no level i/1000"),
        (DDPM, 10, {"t_max": 1.2}, "no level"),
        (DDPM, 10, {"t_min": 0.5, "t_max": 0.2}, "0 ≤ t_min < t_max"),
        (SMLD, 4, {"t_min": 0.0}, "its lowest is t_min = 1/12"),
    ],
)
def test_bad_input(process, steps, options, words) -> None:
    with pytest.raises(SdekitError, match=words):
        grids.from_timesteps(process, steps, **options)


@pytest.mark.parametrize("make", [grids.beta, grids.polynomial])
def test_bad_parameters(make) -> None:
    with pytest.raises(SdekitError, match=r"positive|> 0"):
        make(sk.VP(), 4, None, None, -1.0)
    with pytest.raises(SdekitError, match="0 ≤ t_min < t_max"):
        make(sk.VP(), 4, t_min=0.5, t_max=0.2)
    with pytest.raises(SdekitError, match="steps"):
        make(sk.VP(), 0)
