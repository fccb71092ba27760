"""Declared noise types against the diffusions: what is true passes, and every lie is named with its entry."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from torch import Tensor, nn

import sdekit as sk
from sdekit import problems, structure
from sdekit.structure import check_once, check_structure


def states(d: int, n: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return sk.Gaussian([0.3] * d, 1.0).sample(n, seed=11).to(dtype)


def still(t, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def declared(diffusion, noise_type: str):
    return sk.sde(still, diffusion, noise_type)


def mlp(d: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, d)).to(dtype)


def matrix(*columns):
    """The diffusion whose columns are linear in the state."""
    B = torch.tensor(columns, dtype=torch.float64)
    return lambda t, x: torch.einsum("mij,bj->bim", B.to(x), x)


COMMUTING = matrix([[0.4, 0.3], [0.3, 0.4]], [[-0.2, 0.5], [0.5, -0.2]])
NONCOMMUTING = matrix([[0.5, 0.2], [0.0, 0.1]], [[0.1, 0.0], [0.6, -0.3]])


@pytest.mark.parametrize("name", sorted(problems.PROBLEMS))
def test_every_problem_of_the_library_is_what_it_says(name):
    problem = problems.get(name)
    check_structure(problem.sde, float(problem.grid(4)[1]), problem.initial.sample(3, seed=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("diffusion", "noise_type"),
    [
        (lambda t, x: torch.full_like(x, 0.3), "additive"),
        (lambda t, x: 1.0 + 0.0 * x, "additive"),
        (lambda t, x: (x - x.mean(1, keepdim=True)) * 0.0 + t, "additive"),
        (lambda t, x: torch.sqrt(x), "diagonal"),  # NaN for some
        (lambda t, x: torch.where(x > 0.0, x, 0.5).abs(), "diagonal"),
        (lambda t, x: x.roll(1, 1), "scalar"),
        (lambda t, x: x[..., None], "scalar"),
        (COMMUTING, "commutative"),
        (lambda t, x: torch.diag_embed(torch.sin(x)), "commutative"),
        (lambda t, x: x.cos(), "commutative"),
        (NONCOMMUTING, "general"),
        (lambda t, x: mlp(2, x.dtype)(x), "general"),
    ],
)
def test_what_is_true_passes(diffusion, noise_type, dtype):
    check_structure(declared(diffusion, noise_type), 0.2, states(2, dtype=dtype))


LIES = {
    "additive, of each coordinate": (lambda t, x: x, "additive", r"∂G\[\d\]/∂x\[\d\] = 1 in", "'diagonal'"),
    "additive, of all coordinates": (lambda t, x: mlp(2)(x), "additive", r"∂G\[\d\]/∂x\[\d\] = ", "'general'"),
    "additive, commuting matrices": (COMMUTING, "additive", r"∂G\[\d, \d\]/∂x\[\d\] = 0\.[345]", "'commutative'"),
    "additive, one noise": (lambda t, x: x[..., None], "additive", r"∂G\[\d, 0\]/∂x\[\d\] = 1 in", "'scalar'"),
    "diagonal, a network": (lambda t, x: mlp(3)(x), "diagonal", r"∂G\[(\d)\]/∂x\[(?!\1)\d\]", r"'general', with a"),
    "diagonal, the neighbour": (lambda t, x: x.roll(1, 1) ** 2, "diagonal", r"∂G\[(\d)\]/∂x\[(?!\1)\d\]", "'general'"),
    "scalar, two noises": (NONCOMMUTING, "scalar", "returns 2 noises", "'general'"),
    "scalar, constants": (lambda t, x: torch.ones(len(x), 2, 3), "scalar", "returns 3 noises", "'additive'"),
    "commutative, matrices": (NONCOMMUTING, "commutative", r"\(Dg_\d g_\d − Dg_\d g_\d\)\[\d\] = ", "'general'"),
    "commutative, a network": (lambda t, x: mlp(3)(x), "commutative", "depends on another", "'general'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_named_with_their_entry_and_the_truth(lie):
    diffusion, noise_type, entry, truth = LIES[lie]
    with pytest.raises(sk.SdekitError, match=f"declared {noise_type}, but .*{entry}.*noise_type={truth}"):
        check_structure(declared(diffusion, noise_type), 0.2, states(3 if "mlp(3)" in lie or "network" in lie else 2))


def test_the_entry_is_the_one_that_was_planted():
    """G₃ = x₃ + 0.25 x₁₇, in forty coordinates; the commutator of x₁ e₂ and e₁ is e₂."""

    def planted(t, x: Tensor) -> Tensor:
        g = x.clone()
        g[:, 3] = x[:, 3] + 0.25 * x[:, 17]
        return g

    with pytest.raises(sk.SdekitError, match=r"∂G\[3\]/∂x\[17\] = 0\.25 in sample"):
        check_structure(declared(planted, "diagonal"), 0.0, states(40))
    heisenberg = problems.get("heisenberg").sde
    with pytest.raises(sk.SdekitError, match=r"\[1\] = (-1|1) in sample"):
        check_structure(declared(heisenberg.diffusion, "commutative"), 0.0, states(2))


@pytest.mark.parametrize("d", [2, 3, 4, 5, 8, 9])
def test_every_pair_of_coordinates_is_told_apart(d):
    for i in range(d):
        for j in set(range(d)) - {i}:

            def planted(t, x: Tensor, i=i, j=j) -> Tensor:
                unit = torch.zeros(d, d, dtype=x.dtype)
                unit[j, i] = 1.0
                return 1.0 + x @ unit

            with pytest.raises(sk.SdekitError, match=rf"∂G\[{i}\]/∂x\[{j}\] = 1 in"):
                check_structure(declared(planted, "diagonal"), 0.0, states(d, 1))


class _Opaque(torch.autograd.Function):
    """Without a rule for forward mode."""

    @staticmethod
    def forward(ctx, x):
        return x.roll(1, 1)

    @staticmethod
    def backward(ctx, g):
        return g.roll(-1, 1)


def silent(t, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.roll(1, 1)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda t, x: _Opaque.apply(x),
        lambda t, x: torch.from_numpy(x.detach().numpy().copy()).roll(1, 1),
        lambda t, x: x.detach().roll(1, 1),
        silent,
    ],
)
def test_fields_without_forward_derivatives_are_probed_by_differences(mixing):
    with pytest.raises(sk.SdekitError, match="noise_type='general'"):
        check_structure(declared(mixing, "diagonal"), 0.0, states(3))
    check_structure(declared(lambda t, x: mixing(t, x).roll(-1, 1), "diagonal"), 0.0, states(3))


def test_images_and_times_per_sample():
    x = states(12).reshape(3, 3, 2, 2)
    t = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    check_structure(declared(lambda t, x: torch.sin(x) * t.reshape(-1, 1, 1, 1), "diagonal"), t, x)
    with pytest.raises(sk.SdekitError, match="depends on another"):
        check_structure(declared(lambda t, x: x + x.mean((1, 2, 3), keepdim=True), "diagonal"), t, x)


# Once, at the door


def test_a_start_where_derivatives_vanish_is_left():
    squares = declared(lambda t, x: 1.0 + x**2, "additive")
    check_structure(squares, 0.0, torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(sk.SdekitError, match="structure='trust'"):
        check_once(squares, 0.0, torch.zeros(2, 2, dtype=torch.float64))


def test_a_field_that_knows_its_batch_is_asked_with_the_batch():
    scales = torch.linspace(0.5, 1.0, 9, dtype=torch.float64)[:, None]
    check_once(declared(lambda t, x: scales * x, "diagonal"), 0.0, states(2, 9))
    with pytest.raises(sk.SdekitError, match="depends on another"):
        check_once(declared(lambda t, x: scales * x.roll(1, 1), "diagonal"), 0.0, states(2, 9))


def test_a_field_that_raises_is_left_to_the_run():
    def fussy(t, x: Tensor) -> Tensor:
        raise RuntimeError("not now")

    check_once(declared(fussy, "diagonal"), 0.0, states(2))


def test_it_asks_once_for_each_shape():
    calls = []

    def counted(t, x: Tensor) -> Tensor:
        calls.append(x.shape)
        return torch.sin(x)

    general = declared(counted, "diagonal")
    check_once(general, 0.0, states(2))
    asked = len(calls)
    assert asked > 0
    check_once(general, 0.5, states(2, 7))
    assert len(calls) == asked
    check_once(general, 0.0, states(3))
    assert len(calls) > asked


def test_what_was_seen_does_not_outlive_the_equation():
    general = declared(lambda t, x: torch.sin(x), "diagonal")
    check_once(general, 0.0, states(2))
    before = len(structure._seen)
    del general
    gc.collect()
    assert len(structure._seen) == before - 1


def test_known_processes_are_not_asked():
    process = sk.reverse_time(sk.VP(), lambda t, x: math.nan * x, 1.0)
    check_once(process, 0.5, states(2))


# In solve


def lying(d: int = 3):
    net = mlp(d)
    return declared(lambda t, x: net(x), "diagonal")


def test_a_lie_is_refused_before_the_first_step_and_may_be_told_on_purpose():
    lie, x = lying(), states(3, 5)
    with pytest.raises(sk.SdekitError, match=r"declared diagonal, but .*structure='trust'"):
        sk.solve(lie, x, [0.0, 0.5, 1.0], "milstein", noise=1)
    trusted = sk.solve(lie, x, [0.0, 0.5, 1.0], "milstein", noise=1, structure="trust").final
    assert bool(trusted.isfinite().all())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_way_back_rests_on_the_same_claim(eta):
    """The divergence of G Gᵀ is taken element by element."""
    back = sk.reverse_time(lying(), lambda t, x: -x, eta)
    with pytest.raises(sk.SdekitError, match="declared diagonal, but"):
        sk.solve(back, states(3), [1.0, 0.5, 0.0], "euler" if eta == 0.0 else "euler-maruyama", noise=1)


def test_the_check_leaves_run_and_statistics_alone():
    honest, x = declared(lambda t, x: torch.sin(x), "diagonal"), states(3, 5)
    one, other = (
        sk.solve(honest, x, [0.0, 0.5, 1.0], "milstein", noise=1, structure=how) for how in ("check", "trust")
    )
    assert torch.equal(one.final, other.final)
    assert one.stats.diffusion_evaluations == other.stats.diffusion_evaluations


def test_an_unknown_word_is_refused():
    with pytest.raises(sk.SdekitError, match="did you mean 'trust'"):
        sk.solve(lying(), states(3), [0.0, 1.0], "milstein", noise=1, structure="trusted")
