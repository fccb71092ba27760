from __future__ import annotations

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
