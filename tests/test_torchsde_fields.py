"""SDEs of torchsde as ours, ours as torchsde's, and both ways."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import sdekit as sk
from sdekit.dynamics import times_noise
from sdekit.interop import from_torchsde, to_torchsde
from sdekit.interop.brownian_interval import BrownianInterval

torchsde = pytest.importorskip("torchsde")

GRID = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
TS = [0.0, 1.0]
SIZES = {"diagonal": (3,), "scalar": (3, 1), "additive": (3, 2), "general": (3, 2)}


class Net(nn.Module):
    """An SDE of torchsde whose fields are networks, or a time-dependent matrix."""

    def __init__(self, noise_type: str, sde_type: str = "ito") -> None:
        super().__init__()
        self.noise_type, self.sde_type = noise_type, sde_type
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.5 * torch.randn(3, 3, generator=generator).double())
        self.noise = nn.Parameter(0.3 * torch.randn(*SIZES[noise_type], generator=generator).double())

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.weight) - t

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        if self.noise_type == "additive":
            return (self.noise * (1.0 + t)).expand(len(y), -1, -1)
        return self.noise * torch.cos(y if self.noise_type == "diagonal" else y[..., None])


def states(batch: int = 4) -> Tensor:
    return torch.linspace(-1.0, 1.0, 3 * batch, dtype=torch.float64).reshape(batch, 3)


def brownian(noise_type: str, batch: int = 4, levy: str = "space-time"):
    return sk.BrownianGrid.on(GRID, (batch, {"diagonal": 3, "scalar": 1}.get(noise_type, 2)), seed=2, levy=levy)


@pytest.mark.parametrize("noise_type", SIZES)
@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_an_sde_of_torchsde_solved_here_is_its_own_solution(noise_type, method):
    """By torchsde's method and by ours, on one path; with another weight it is not."""
    calculus = "ito" if method == "euler" else "stratonovich"
    net, path, x = Net(noise_type, calculus), brownian(noise_type), states()
    theirs = torchsde.sdeint(net, x, torch.tensor(TS).double(), bm=BrownianInterval(path), method=method, dt=1 / 8)[-1]
    sde = from_torchsde(net)
    for stepper in (f"torchsde:{method}", "euler-maruyama" if method == "euler" else "midpoint-strat"):
        found = sk.solve(sde, x, GRID, stepper, noise=path).final
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-14)
    with torch.no_grad():
        net.weight.mul_(1.1)
    assert not torch.allclose(sk.solve(sde, x, GRID, stepper, noise=path).final, theirs, atol=1e-3)


@pytest.mark.parametrize("noise_type", SIZES)
def test_round_trip_from_torchsde_is_the_identity_on_fields(noise_type):
    net, x, t = Net(noise_type), states(), torch.tensor(0.3, dtype=torch.float64)
    back = to_torchsde(from_torchsde(net))
    assert (back.noise_type, back.sde_type) == (net.noise_type, net.sde_type)
    assert torch.equal(back.f(t, x), net.f(t, x))
    assert torch.equal(back.g(t, x), net.g(t, x))
    assert {id(p) for p in back.parameters()} == {id(p) for p in net.parameters()}


OURS = {
    "diagonal": lambda t, x: 0.3 + 0.2 * x,
    "scalar": lambda t, x: 0.3 + 0.2 * x,
    "additive": lambda t, x: torch.full_like(x, 0.3 + 0.1 * t),
    "additive, a matrix": lambda t, x: torch.full((*x.shape, 2), 0.3 + 0.1 * t, dtype=x.dtype),
    "commutative": lambda t, x: x[..., None] * torch.tensor([0.2, 0.5], dtype=x.dtype),
    "general": lambda t, x: torch.stack([0.3 + 0.2 * x, 0.5 * x.flip(-1)], -1),
    "none": None,
}


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_round_trip_from_ours_is_the_identity_on_fields(kind, calculus):
    """A noise for each coordinate comes back as a diagonal matrix, which does the same."""
    sde, x = sk.sde(lambda t, x: torch.sin(x) - t, OURS[kind], kind.partition(",")[0], calculus), states()
    told = to_torchsde(sde)
    back = from_torchsde(told)
    assert back.calculus == told.sde_type == calculus
    expected = {"commutative": "general", "none": "scalar"}.get(sde.noise_type, sde.noise_type)
    assert back.noise_type == told.noise_type == expected
    assert torch.equal(back.drift(0.3, x), sde.drift(0.3, x))
    g, again = sde.diffusion(0.3, x), back.diffusion(0.3, x)
    if kind != "additive":
        assert torch.equal(again, g)
        return
    assert told.g(0.3, x).shape == (4, 3, 3)
    dw = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)
    assert torch.equal(times_noise(again, dw), times_noise(g, dw))


@pytest.mark.parametrize("kind", [k for k in OURS if k != "none"])
def test_sdeint_on_ours_is_solve(kind):
    sde, x = sk.sde(lambda t, x: torch.sin(x) - t, OURS[kind], kind.partition(",")[0]), states()
    noises = {"scalar": 1, "additive, a matrix": 2, "commutative": 2, "general": 2}.get(kind, 3)
    path = sk.BrownianGrid.on(GRID, (4, noises), seed=2)
    ts = torch.tensor(TS).double()
    theirs = torchsde.sdeint(to_torchsde(sde), x, ts, bm=BrownianInterval(path), method="euler", dt=1 / 8)[-1]
    torch.testing.assert_close(theirs, sk.solve(sde, x, GRID, "euler-maruyama", noise=path).final, rtol=0, atol=1e-14)


def test_reverse_problems_are_told_in_the_clock_that_rises():
    """Flattened, on -grid, on the path that torchsde sees backwards."""
    process = sk.VP()
    sde = sk.reverse_time(process, sk.exact_score(sk.Gaussian(torch.zeros(2, 2).double(), 0.5), process))
    x, grid = torch.ones(3, 2, 2, dtype=torch.float64), torch.linspace(0.75, 0.25, 9, dtype=torch.float64)
    path = sk.BrownianGrid.on(grid.flip(0), (3, 2, 2), seed=1)
    bm, ts = BrownianInterval(path, backwards=True), torch.tensor([-0.75, -0.25], dtype=torch.float64)
    told = to_torchsde(sde, (2, 2))
    theirs = torchsde.sdeint(told, x.flatten(1), ts, bm=bm, method="euler", dt=1 / 16)[-1]
    ours = sk.solve(sde, x, grid, "euler-maruyama", noise=path).final
    torch.testing.assert_close(theirs.reshape(x.shape), ours, rtol=0, atol=1e-13)
    assert torch.equal(bm(-0.75), path.increment(0.75, 0.75).w.flatten(1))
    assert torch.equal(bm(-0.25), path.increment(0.25, 0.75).w.flatten(1))
    with pytest.raises(sk.SdekitError, match=r"only up: leave out backwards=False"):
        to_torchsde(sde, (2, 2), backwards=False)


def test_a_path_seen_backwards_has_the_other_areas():
    path = sk.BrownianGrid((3, 2), steps=8, seed=1, levy="full")
    w, u, area = BrownianInterval(path, backwards=True)(-0.75, -0.25, return_U=True, return_A=True)
    seen = path.increment(0.25, 0.75).reflected()
    assert torch.equal(w, seen.w)
    assert torch.equal(u, 0.5 * (seen.h + 0.5 * seen.w))
    assert torch.equal(area, seen.area)


# --- other forms of an SDE of torchsde ------------------------------------------------------------


def told(net: Net, *names: str) -> SimpleNamespace:
    """The same SDE with these fields only."""

    def product(t: Tensor, y: Tensor, v: Tensor) -> Tensor:
        g = net.g(t, y)
        return g * v if net.noise_type == "diagonal" else (g @ v[..., None])[..., 0]

    fields = {
        "f": net.f,
        "h": net.f,
        "g": net.g,
        "f_and_g": lambda t, y: (net.f(t, y), net.g(t, y)),
        "g_prod": product,
        "f_and_g_prod": lambda t, y, v: (net.f(t, y), product(t, y, v)),
    }
    return SimpleNamespace(noise_type=net.noise_type, sde_type="ito", **{name: fields[name] for name in names})


@pytest.mark.parametrize("noise_type", SIZES)
@pytest.mark.parametrize("names", [("f_and_g",), ("f", "g_prod"), ("f_and_g_prod",), ("h", "g")])
def test_fields_in_other_words_are_the_same_fields(noise_type, names):
    net, x = Net(noise_type), states()
    noises = 2 if noise_type in ("additive", "general") else None
    found = from_torchsde(told(net, *names), noises, {"drift": "h"} if "h" in names else None)
    expected = from_torchsde(net)
    torch.testing.assert_close(found.drift(0.3, x), expected.drift(0.3, x), rtol=0, atol=0)
    torch.testing.assert_close(found.diffusion(0.3, x), expected.diffusion(0.3, x), rtol=0, atol=1e-16)


@pytest.mark.parametrize("noise_type", SIZES)
def test_times_of_every_sample(noise_type):
    """What a controller asks for: each sample at its own time, as it is at this time alone."""
    sde, x = from_torchsde(Net(noise_type)), states()
    t = torch.tensor([0.1, 0.4, 0.4, 0.9], dtype=torch.float64)
    for field in (sde.drift, sde.diffusion):
        each = torch.cat([field(float(s), y[None]) for s, y in zip(t, x, strict=True)])
        torch.testing.assert_close(field(t, x), each, rtol=0, atol=1e-15)


def test_a_network_of_torchsde_under_a_controller():
    """sri1w1 with steps of every sample's own, on the path where a fine grid ends."""
    net, tree = Net("diagonal"), sk.BrownianTree((4, 3), seed=2, levy="space-time", depth=16)
    with torch.no_grad():
        sde = from_torchsde(net)
        found = sk.solve(sde, states(), TS, "sri1w1", noise=tree, controller=sk.PID(1e-3, 1e-3)).final
        exact = sk.solve(sde, states(), torch.linspace(0.0, 1.0, 129).double(), "sri1w1", noise=tree).final
    torch.testing.assert_close(found, exact, rtol=0, atol=3e-3)


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", ["euler-maruyama", "milstein", "torchsde:srk"])
def test_gradients_reach_the_parameters(stepper):
    """They are the difference quotients of the solution."""
    net = Net("diagonal")
    sde, path = from_torchsde(net), brownian("diagonal")

    def loss() -> Tensor:
        return sk.solve(sde, states(), GRID, stepper, noise=path).final.square().sum()

    slopes = torch.autograd.grad(loss(), list(net.parameters()))
    for parameter, slope in zip(net.parameters(), slopes, strict=True):
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-6
            above = loss()
            parameter.view(-1)[0] -= 2e-6
            below = loss()
            parameter.view(-1)[0] += 1e-6
        assert float(slope.view(-1)[0]) == pytest.approx(float(above - below) / 2e-6, rel=1e-5)


def test_the_adjoint_finds_the_modules_of_the_fields():
    """A field that is a module, a method of one, or a function that refers to one; as the plain gradient has it."""

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, t: float, x: Tensor) -> Tensor:
            return self.rate * x

    field = Field()
    x, ts = states(), torch.tensor(TS).double()
    bm = BrownianInterval(sk.BrownianTree((4, 3), seed=0, depth=12))
    for drift in (field, field.forward, lambda t, x: field(t, x)):
        sde = to_torchsde(sk.sde(drift, lambda t, x: 0.2 * x, calculus="stratonovich"))
        assert [id(p) for p in sde.parameters()] == [id(field.rate)]
        options = {"bm": bm, "method": "midpoint", "dt": 1 / 16}
        (plain,) = torch.autograd.grad(torchsde.sdeint(sde, x, ts, **options)[-1].sum(), field.rate)
        (found,) = torch.autograd.grad(torchsde.sdeint_adjoint(sde, x, ts, **options)[-1].sum(), field.rate)
        assert float(found) == pytest.approx(float(plain), rel=1e-2)
    score = sk.score.from_model(nn.Linear(3, 3), sk.VP(), prediction="epsilon")
    assert len(list(to_torchsde(sk.reverse_time(sk.VP(), score)).parameters())) == 2


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_type": ...}, r"SimpleNamespace has no noise_type.*one of diagonal, scalar, additive, general"),
        ({"sde_type": ...}, r"SimpleNamespace has no sde_type.*one of ito, stratonovich"),
        ({"noise_type": "diagnal"}, r"no noise_type of torchsde 'diagnal': did you mean 'diagonal'"),
        ({"sde_type": "Ito"}, r"no sde_type of torchsde 'Ito': did you mean 'ito'"),
        ({"f": ...}, r"has no drift: torchsde takes it from one of f, f_and_g, f_and_g_prod"),
        ({"g": ...}, r"has no diffusion: torchsde takes it from one of g, f_and_g, g_prod, f_and_g_prod"),
        ({"g": ..., "g_prod": lambda t, y, v: v, "noise_type": "general"}, r"products .* general .*: give noises=m"),
    ],
)
def test_what_is_no_sde_of_torchsde(change, message):
    whole = {"noise_type": "diagonal", "sde_type": "ito", "f": lambda t, y: y, "g": lambda t, y: y}
    with pytest.raises(sk.SdekitError, match=message):
        from_torchsde(SimpleNamespace(**{k: v for k, v in {**whole, **change}.items() if v is not ...}))


def test_other_refusals():
    with pytest.raises(sk.SdekitError, match=r"no field of an SDE of torchsde 'drfit': did you mean 'drift'"):
        from_torchsde(Net("diagonal"), names={"drfit": "h"})
    flat = SimpleNamespace(noise_type="additive", sde_type="ito", f=lambda t, y: y, g=lambda t, y: torch.ones_like(y))
    with pytest.raises(sk.SdekitError, match=r"additive noise has shape \(B, d, m\) in torchsde; it returned \(4, 3\)"):
        sk.solve(from_torchsde(flat), states(), TS, "euler-maruyama", noise=0)
    with pytest.raises(sk.SdekitError, match=r"needs an SDE of ours.*got Net"):
        to_torchsde(Net("diagonal"))
