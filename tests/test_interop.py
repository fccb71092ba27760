from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import sdekit as sk
from sdekit.interop.diffusers import from_diffusers, from_scheduler

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
    ).eval()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_matches_the_scheduler_of_diffusers(unet, prediction):
    """Our DDIM on the timesteps of a scheduler is its own DDIM, to the rounding of its float32 tables."""
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(10)
    process, score = from_diffusers(unet, scheduler, snap=True)
    x = process.prior((1, 8, 8)).sample(3, seed=1).float()
    with torch.no_grad():
        theirs = x
        for i in scheduler.timesteps[:-1]:
            theirs = scheduler.step(unet(theirs, i).sample, i, theirs).prev_sample
        grid = sk.grids.from_times((scheduler.timesteps + 1.0) / 1000)
        ours = sk.solve(sk.probability_flow(process, score), x, grid, "ddim").final
    torch.testing.assert_close(ours, theirs, atol=2e-4 * float(theirs.abs().max()), rtol=0)


def test_snap_refuses_times_between_timesteps(unet):
    _, score = from_diffusers(unet, diffusers.DDIMScheduler(), snap=True)
    with pytest.raises(sk.SdekitError, match=r"no timestep.*from_times"):
        score(0.50037, torch.zeros(1, 1, 8, 8))
    _, free = from_diffusers(unet, diffusers.DDIMScheduler())
    assert free(0.50037, torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)


def test_a_scheduler_without_betas_is_refused():
    with pytest.raises(sk.SdekitError, match="no betas"):
        from_scheduler(diffusers.FlowMatchEulerDiscreteScheduler())


def test_what_contradicts_the_network_is_refused(unet):
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    with pytest.raises(sk.SdekitError, match=r"predicts 'v_prediction', and prediction = 'epsilon' was given"):
        from_diffusers(unet, scheduler, prediction="epsilon")

    class Learned:
        """Predicts its variance too."""

        def __call__(self, x, timestep):
            return SimpleNamespace(sample=torch.cat([x, x], dim=1))

    _, score = from_diffusers(Learned(), scheduler)
    with pytest.raises(sk.SdekitError, match=r"2 channels for 1: it predicts its variance too.*chunk"):
        score(0.5, torch.zeros(1, 1, 8, 8))


def test_levels_below_the_first_are_refused_before_the_first_step():
    """t < 1/L would be a negative timestep."""
    asked = []

    class Net:
        def __call__(self, x, timestep):
            asked.append(float(timestep[0]))
            return SimpleNamespace(sample=x)

    process, score = from_diffusers(Net(), diffusers.DDIMScheduler())
    flow, x = sk.probability_flow(process, score), torch.ones(1, 1, 8, 8)
    with pytest.raises(sk.SdekitError, match=r"asked at t = 0\.0004 .*t_min = 0\.001"):
        sk.solve(flow, x, [0.5, 0.0004, 0.0002], "dpmpp-2m")
    assert not asked
    for steps in (5, 200):  # nothing else chosen: down to the data, and never below the first level
        sk.solve(flow, x, steps=steps).check()
    sk.solve(flow, x, [1.0, 0.5, 0.001], "dpmpp-2m", end="denoise").check()
    assert min(asked) >= -1e-3
