"""Denoising score matching: the exact score is where the loss is least, whatever is predicted and however weighted."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit.losses import WEIGHTINGS, Weighting, denoising
from sdekit.score import conversion
from sdekit.typing import Prediction

DATA_STD = 0.7
NODES = 24


def quadrature(process: sk.VP | sk.EDM, times: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x₀, t, ε and weights: exact expectations over x₀ ~ N(0, s²) and ε of polynomials, by Gauss–Hermite."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    z, w = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    x0 = DATA_STD * z[:, None].expand(NODES, NODES)
    noise, weight = z.expand(NODES, NODES), w[:, None] * w
    columns = [torch.cat([c.flatten()] * len(times)) for c in (x0, noise, weight)]
    t = torch.tensor(times, dtype=torch.float64).repeat_interleave(NODES * NODES)
    return columns[0][:, None], t, columns[1][:, None], columns[2]


def optimum(process: sk.VP | sk.EDM, t: Tensor, prediction: Prediction) -> Tensor:
    """k(t) with k·x the best prediction for N(0, s²) data."""
    alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
    a, b = conversion(process.schedule, t, "score", prediction)
    return a - b / (alpha**2 * DATA_STD**2 + sigma**2)


@pytest.mark.parametrize("process", [sk.VP(), sk.EDM(), sk.Flow()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_the_minimiser_is_the_exact_score(process: sk.VP, prediction: Prediction, weighting: Weighting) -> None:
    """The gradient with respect to the slope of a linear net vanishes at the exact score, and nowhere near it."""
    times = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    x0, t, noise, weight = quadrature(process, times.tolist())
    best = optimum(process, times, prediction)

    def gradient(slopes: Tensor) -> Tensor:
        slopes = slopes.clone().requires_grad_()

        def net(x: Tensor, t: Tensor) -> Tensor:
            return slopes.repeat_interleave(NODES * NODES)[:, None] * x

        loss = denoising(net, x0, process, t, noise, prediction, weighting, DATA_STD)
        (slope_gradient,) = torch.autograd.grad(loss @ weight, slopes)
        return slope_gradient

    scale = gradient(1.01 * best).abs()
    assert (scale > 0).all()  # the negative control: a slope wrong by one per cent is seen
    assert (gradient(best).abs() <= 1e-9 * scale).all()


def test_weightings_by_hand() -> None:
    r"""One sample, a net that predicts ε = 0: the loss is $w/\sigma^2 \lVert\varepsilon\rVert^2$."""
    process = sk.VP()
    t = torch.tensor([0.37], dtype=torch.float64)
    x0, noise = torch.tensor([[0.3, -1.2]], dtype=torch.float64), torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    alpha, sigma = process.schedule.alpha(0.37), process.schedule.sigma(0.37)
    beta = 0.1 + 19.9 * 0.37
    expected = {
        "sigma2": 1.0,
        "simple": 1.0,
        "likelihood": beta / sigma**2,
        "edm": (alpha**2 * 0.25 + sigma**2) / (alpha**2 * 0.25),
    }
    assert set(expected) == set(WEIGHTINGS) == set(get_args(Weighting))
    for weighting, factor in expected.items():
        loss = denoising(lambda x, t: 0.0 * x, x0, process, t, noise, "epsilon", weighting, 0.5)  # type: ignore[arg-type]
        torch.testing.assert_close(loss, torch.tensor([factor * 4.25], dtype=torch.float64), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_a_perfect_prediction_costs_nothing_near_the_data(prediction: Prediction) -> None:
    """At σ = 1e-4 nothing cancels: the loss of the prediction made of the true x₀ and ε is at rounding."""
    process = sk.EDM(sigma_min=1e-5)
    torch.manual_seed(0)
    x0, noise = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    t = torch.full((5,), 1e-4, dtype=torch.float64)

    def net(x: Tensor, t: Tensor) -> Tensor:
        a, b = conversion(process.schedule, t[:, None], "epsilon", prediction)
        return a * x + b * noise

    assert denoising(net, x0, process, t, noise, prediction, "sigma2").max() < 1e-20


def test_errors_name_the_cure() -> None:
    x0, t = torch.zeros(4, 2), torch.full((4,), 0.5)

    def net(x: Tensor, t: Tensor) -> Tensor:
        return x

    with pytest.raises(sk.SdekitError, match="'likelihood'"):
        denoising(net, x0, sk.VP(), t, x0, "epsilon", "likelyhood")  # type: ignore[arg-type]
    with pytest.raises(sk.SdekitError, match="'epsilon'"):
        denoising(net, x0, sk.VP(), t, x0, "epsilom")  # type: ignore[arg-type]
    with pytest.raises(sk.SdekitError, match="one time per sample"):
        denoising(net, x0, sk.VP(), t[:3], x0, "epsilon")
