"""Methods of torchsde and torchdiffeq by name, on our paths, beside ours."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit.brownian import Increment
from sdekit.cli import main
from sdekit.interop import torchdiffeq as torchdiffeq_steppers
from sdekit.interop import torchsde as torchsde_steppers
from sdekit.steppers import back_ends, registry

pytest.importorskip("torchsde")
pytest.importorskip("torchdiffeq")

GRID = torch.linspace(0.0, 1.0, 17, dtype=torch.float64) ** 1.5  # of unequal steps
NAMES = back_ends.names()


def drift(t: float | Tensor, x: Tensor) -> Tensor:
    return torch.sin(x) - t


def states(batch: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(0.2, 1.0, 2 * batch, dtype=dtype).reshape(batch, 2)


def columns(x: Tensor) -> Tensor:
    """Two noises that do not commute."""
    return torch.stack([0.3 + 0.2 * x, 0.5 * x.flip(-1)], -1)


MATRIX = torch.tensor([[0.3, 0.1, 0.0], [0.2, 0.4, 0.5]], dtype=torch.float64)
DIFFUSIONS = {
    "diagonal": lambda t, x: 0.3 + 0.2 * x,
    "scalar": lambda t, x: 0.3 + 0.2 * x,
    "additive": lambda t, x: MATRIX.to(x).expand(len(x), 2, 3) + 0.1 * t,
    "general": lambda t, x: columns(x),
}


def problem(noise: str, calculus: str = "ito") -> sk.dynamics.GeneralSDE:
    return sk.sde(drift, DIFFUSIONS[noise], noise, calculus)


def path(sde, x: Tensor, grid: Tensor = GRID, levy: str = "space-time", seed: int = 4):
    noise = {"diagonal": 2, "scalar": 1, "additive": 3, "general": 2}[sde.noise_type]
    return sk.BrownianGrid.on(grid, (len(x), noise), seed=seed, levy=levy)


# --- torchsde on a grid ---------------------------------------------------------------------------

SAME = [
    ("euler", "euler-maruyama", "ito", ("diagonal", "scalar", "additive", "general")),
    ("milstein", "milstein", "ito", ("diagonal", "scalar", "additive")),
    ("heun", "heun-strat", "stratonovich", ("diagonal", "scalar", "additive", "general")),
    ("midpoint", "midpoint-strat", "stratonovich", ("diagonal", "scalar", "additive", "general")),
    ("euler_heun", "euler-heun", "stratonovich", ("diagonal", "scalar", "additive", "general")),
    ("reversible_heun", "reversible-heun", "stratonovich", ("diagonal", "scalar", "additive", "general")),
]


@pytest.mark.parametrize(
    ("theirs", "ours", "calculus", "noise"), [(t, o, c, n) for t, o, c, kinds in SAME for n in kinds]
)
def test_a_method_of_torchsde_is_ours_to_rounding(theirs, ours, calculus, noise):
    """On the same object and path, with unequal steps; another path is elsewhere."""
    sde, x = problem(noise, calculus), states()
    found, expected = (sk.solve(sde, x, GRID, s, noise=path(sde, x)).final for s in (f"torchsde:{theirs}", ours))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    other = sk.solve(sde, x, GRID, f"torchsde:{theirs}", noise=path(sde, x, seed=5)).final
    assert not torch.allclose(other, expected, atol=1e-2)


def test_milstein_of_torchsde_takes_the_calculus_of_the_problem():
    """gbm told in either: the exact solution, at order 1; with the other's correction it would be off by O(1)."""
    grid = torch.linspace(0.0, 1.0, 257, dtype=torch.float64)
    for calculus, rate in (("ito", 0.5 * 0.4**2), ("stratonovich", 0.0)):
        sde, x = sk.sde(lambda t, x: 0.1 * x, lambda t, x: 0.4 * x, calculus=calculus), states()
        noise = path(sde, x, grid)
        found = sk.solve(sde, x, grid, "torchsde:milstein", noise=noise).final
        exact = x * torch.exp((0.1 - rate) + 0.4 * noise.increment(0.0, 1.0).w)
        torch.testing.assert_close(found.detach(), exact, rtol=0, atol=5e-3)


def test_log_ode_with_areas_has_order_one_on_noises_that_do_not_commute():
    """From 16 to 64 steps, seen from 512: the error falls by 3; midpoint, which is it without areas, by half that."""
    sde, x = problem("general", "stratonovich"), states(200)
    fine = sk.BrownianGrid((200, 2), steps=512, seed=3, levy="full")

    @torch.no_grad()  # torchsde derives the diffusion
    def run(stepper: str, steps: int) -> Tensor:
        return sk.solve(sde, x, torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64), stepper, noise=fine).final

    finest, ratios = run("torchsde:log_ode", 512), {}
    for stepper in ("torchsde:log_ode", "torchsde:midpoint"):
        rough, close = (float((run(stepper, n) - finest).square().mean().sqrt()) for n in (16, 64))
        ratios[stepper] = rough / close
    assert ratios["torchsde:log_ode"] > 3.0 > 2.6 > ratios["torchsde:midpoint"]
    seeded = sk.solve(sde, x, GRID, "torchsde:log_ode", noise=7).final
    assert torch.equal(seeded[:3], sk.solve(sde, x[:3], GRID, "torchsde:log_ode", noise=7).final)


def test_srk_and_sri_meet_on_one_path():
    """Both of order 3/2: what is between them falls by 6 and more from 16 to 64 steps."""
    sde, x = problem("diagonal"), states(100)
    noise = sk.BrownianGrid((100, 2), steps=64, seed=3, levy="space-time")
    apart = []
    for n in (16, 64):
        grid = torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64)
        runs = [sk.solve(sde, x, grid, s, noise=noise).final for s in ("torchsde:srk", "sri1w1")]
        apart.append(float((runs[0] - runs[1]).square().mean().sqrt()))
    assert apart[0] / apart[1] > 6.0


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("torchsde")])
def test_fields_are_asked_as_often_as_declared(name):
    """torchsde's own look at their shapes is answered without them."""
    stepper = registry.get(name)
    sde, x = problem("diagonal", min(stepper.spec.calculus)), states()
    stats = sk.solve(sde, x, GRID, name, noise=0).stats
    begin = name.endswith("reversible_heun")
    assert stats.drift_evaluations == 16 * stepper.spec.evaluations + begin


def test_a_shape_that_is_shown_never_enters_the_solution(monkeypatch):
    """It is NaN: a version of torchsde that took it for an answer would be seen."""
    monkeypatch.setattr(torchsde_steppers._Shown, "_seen", lambda self, field: False)
    assert not sk.solve(problem("diagonal"), states(), GRID, "torchsde:euler", noise=0).ok


def test_reverse_problems_dtypes_and_shapes_of_events():
    process = sk.VP()
    sde = sk.reverse_time(process, sk.exact_score(sk.Gaussian(torch.zeros(2, 3).double(), 0.5), process))
    x, grid = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).double(), sk.grids.log_snr(process, 20)
    found, expected = (sk.solve(sde, x, grid, s, noise=1).final for s in ("torchsde:euler", "euler-maruyama"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert sk.solve(sde, x.float(), grid, "torchsde:srk", noise=1).final.dtype == torch.float32
    flow = sk.probability_flow(process, sde.score)
    assert sk.solve(flow, x.float(), grid, "torchdiffeq:rk4").final.dtype == torch.float32
    count = sk.solve(flow, x, grid, "torchdiffeq:rk4").stats
    assert (count.score_evaluations, count.steps) == (80, 20)


# --- torchdiffeq ----------------------------------------------------------------------------------

ODE = sk.sde(drift)


@pytest.mark.parametrize(("theirs", "ours"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun2", "heun")])
@pytest.mark.parametrize("way", [1, -1])
def test_a_method_of_torchdiffeq_is_ours_to_rounding(theirs, ours, way):
    grid = GRID if way > 0 else GRID.flip(0)
    runs = [sk.solve(ODE, states(), grid, s, save="all").xs for s in (f"torchdiffeq:{theirs}", ours)]
    torch.testing.assert_close(*runs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["dopri5", "bosh3"])
def test_pairs_of_torchdiffeq_on_given_steps_are_ours_to_rounding(name):
    """Its adaptive method, made to take these steps; another pair is elsewhere."""
    times = (0.0, 0.3, 0.5, 1.0)
    theirs = torchdiffeq_steppers._forced(ODE, times, states(), name)
    torch.testing.assert_close(sk.solve(ODE, states(), times, name).final, theirs, rtol=0, atol=1e-14)
    assert not torch.allclose(sk.solve(ODE, states(), times, "midpoint").final, theirs, rtol=0, atol=1e-6)


def test_other_methods_of_torchdiffeq_agree_at_their_order():
    """rk4 is the 3/8 rule there; Adams methods begin with it, and by default go on to the eleventh order."""
    exact = sk.solve(ODE, states(), torch.linspace(0.0, 1.0, 1025).double(), "rk4").final
    adams = [torchdiffeq_steppers.stepper(f"{kind}plicit_adams", max_order=5) for kind in ("ex", "im")]
    for stepper, order in (("torchdiffeq:rk4", 4), ("torchdiffeq:heun3", 3), (adams[0], 4), (adams[1], 4)):
        errors = []
        for n in (32, 64):
            grid = torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64)
            errors.append(float((sk.solve(ODE, states(), grid, stepper).final - exact).abs().max()))
        assert errors[0] / errors[1] > 0.8 * 2**order, stepper


# --- their own steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"])
@pytest.mark.parametrize("way", [1, -1])
def test_torchdiffeq_steps_by_itself_and_stays_inside(name, way):
    """To some tolerances of the exact flow at every time asked for, and never outside; fehlberg2 is a hundred off."""
    asked: list[float] = []

    def field(t: float, x: Tensor) -> Tensor:
        asked.append(float(t))
        return drift(t, x)

    ends = [0.0, 1.0][::way]
    exact = sk.solve(ODE, states(), torch.linspace(*ends, 2049).double(), "rk4", save=[0.25, ends[1]]).xs
    controller = sk.PID(rtol=1e-6, atol=1e-6)
    for dtype in (torch.float64, torch.float32):
        tolerance = 1e-6 if dtype == torch.float64 else 1e-5
        controller = sk.PID(rtol=tolerance, atol=tolerance)
        x = states(dtype=dtype)
        found = sk.solve(sk.sde(field), x, ends, f"torchdiffeq:{name}", controller=controller, save=[0.25, ends[1]])
        worst = 300.0 if name == "fehlberg2" else 30.0
        assert float((found.xs - exact).abs().max()) < worst * tolerance
        assert found.xs.dtype == dtype
        assert 0.0 <= min(asked) <= max(asked) <= 1.0
        assert found.stats.drift_evaluations == len(asked)
        assert int(found.diagnostics["accepted"][0] + found.diagnostics["rejected"][0]) == found.stats.steps
        asked.clear()


@pytest.mark.parametrize(("name", "controller"), [("rk4", None), ("dopri5", sk.PID(1e-4, 1e-4))])
def test_ends_that_float32_rounds_outwards_are_kept(name, controller):
    """torchdiffeq rounds its times to the type of the state."""
    asked: list[float] = []

    def field(t: float, x: Tensor) -> Tensor:
        asked.append(t)
        return drift(t, x)

    assert float(torch.tensor(0.3)) > 0.3
    x = states(dtype=torch.float32)
    sk.solve(sk.sde(field), x, [-0.3, 0.3], f"torchdiffeq:{name}", controller=controller).check()
    assert min(asked) == -0.3
    assert 0.2999999 < max(asked) <= 0.3


def test_steps_of_torchsde_are_counted():
    """Of three times, one begins the attempt; it is another where the one before was accepted."""
    asked: list[float] = []

    def field(t: float, x: Tensor) -> Tensor:
        asked.append(t)
        return torch.sin(20.0 * x) - t

    sde = sk.sde(field, lambda t, x: 0.3 + 0.2 * x)
    found = sk.solve(sde, states(), [0.0, 0.5], "torchsde:milstein", noise=0, controller=sk.PID(1e-2, 1e-2, first=0.3))
    begun = asked[::3]
    accepted = len(set(begun))
    assert 2 < accepted < len(begun) == found.stats.steps
    assert found.diagnostics["accepted"].tolist() == [accepted] * 5
    assert found.diagnostics["rejected"].tolist() == [len(begun) - accepted] * 5


@pytest.mark.parametrize("method", ["srk", "milstein", "reversible_heun"])
def test_torchsde_steps_by_itself_on_the_path_of_a_tree(method):
    """The error on the path falls with the tolerance; a seed is the tree of this seed; another is elsewhere."""
    calculus = "stratonovich" if method == "reversible_heun" else "ito"
    sde, x = problem("diagonal", calculus), states()
    tree = sk.BrownianTree((5, 2), 0.0, 1.0, seed=3, levy="space-time", depth=20)
    ours = "sri1w1" if calculus == "ito" else "heun-strat"
    exact = sk.solve(sde, x, torch.linspace(0.0, 1.0, 257).double(), ours, noise=tree, save=[0.3, 1.0]).xs
    errors = []
    for tolerance in (1e-1, 1e-4 if method == "srk" else 3e-4):
        controller = sk.PID(rtol=tolerance, atol=tolerance, first=0.1)
        found = sk.solve(sde, x, [0.0, 1.0], f"torchsde:{method}", noise=tree, controller=controller, save=[0.3, 1.0])
        errors.append(float((found.xs.detach() - exact).square().mean().sqrt()))
        assert found.ok
        assert found.stats.drift_evaluations >= 3 * found.stats.steps
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 1e-2
    seeded = sk.solve(sde, x, [0.0, 1.0], f"torchsde:{method}", noise=3, controller=controller)
    if method == "srk":  # a tree without areas is another path
        torch.testing.assert_close(seeded.final, found.final, rtol=0, atol=2e-3)
    else:
        assert not torch.allclose(seeded.final, found.final, atol=1e-2)


def test_torchsde_goes_back_in_time_on_the_same_path(monkeypatch):
    """It sees H with the other sign; with H as it is halves contradict their step, and five times as many are taken."""
    reverse = sk.problems.get("vp-gaussian", eta=1.0)
    x, first, last = reverse.initial.sample(2, seed=0), 0.6, 0.2
    tree = sk.BrownianTree(x.shape, last, first, seed=3, levy="space-time", depth=20)
    exact = sk.solve(reverse.sde, x, torch.linspace(first, last, 65, dtype=torch.float64), "sra1", noise=tree).final

    def run() -> tuple[float, int]:
        controller = sk.PID(rtol=3e-3, atol=3e-3, first=0.1)
        found = sk.solve(reverse.sde, x, [first, last], "torchsde:srk", noise=tree, controller=controller)
        return float((found.final - exact).abs().max()), found.stats.steps

    error, steps = run()
    monkeypatch.setattr(Increment, "reflected", lambda self: self)
    wrong, more = run()
    assert error < 6e-3 < 8e-3 < wrong
    assert more > 3 * steps


def test_runs_of_others_end_with_a_status():
    blow, x = sk.sde(lambda t, x: x**2), states()
    for options, status in (({}, 4), ({"max_steps": 3}, 2), ({"max_seconds": 0.0}, 3)):
        ran = sk.solve(blow, x, [0.0, 5.0], "torchdiffeq:dopri5", controller=sk.PID(), **options)
        assert ran.status.tolist() == [status] * 5
        assert torch.isfinite(ran.final).all()
    noisy = sk.sde(lambda t, x: x**3, lambda t, x: 0.1 * x)
    for options, status in (({}, 4), ({"max_steps": 3}, 2), ({"max_seconds": 0.0}, 3)):
        ran = sk.solve(noisy, x, [0.0, 5.0], "torchsde:milstein", noise=0, controller=sk.PID(1e-2, 1e-2), **options)
        assert ran.status.tolist() == [status] * 5
    broken = sk.sde(lambda t, x: x / 0.0 * 0.0, lambda t, x: x)
    assert sk.solve(broken, x, [0.0, 1.0], "torchsde:milstein", noise=0, controller=sk.PID()).status.tolist() == [1] * 5


def test_gradients_pass():
    rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    noise = sk.sde(lambda t, x: rate * x, lambda t, x: 0.2 * x)
    flow = sk.sde(lambda t, x: rate * x)
    pid, grid = {"controller": sk.PID(1e-4, 1e-4)}, torch.linspace(0.0, 1.0, 41).double()
    for sde, name, options in (
        (noise, "torchsde:milstein", {"noise": 0}),
        (noise, "torchsde:milstein", {"noise": 0, **pid}),
        (flow, "torchdiffeq:rk4", {}),
        (flow, "torchdiffeq:dopri5", pid),
    ):
        final = sk.solve(sde, states(), grid, name, **options).final
        (slope,) = torch.autograd.grad(final.sum(), rate)
        assert float(slope / final.detach().sum()) == pytest.approx(1.0, abs=0.05)  # of x exp(rate t) it is t


# --- names ----------------------------------------------------------------------------------------


def test_every_name_is_a_stepper_of_that_name():
    for name in NAMES:
        stepper = registry.get(name)
        assert stepper.spec.name == name
        assert stepper is registry.get(name)
        assert name.partition(":")[2] in repr(stepper)
    installed = __import__("torchdiffeq._impl.odeint", fromlist=["SOLVERS"]).SOLVERS
    assert set(back_ends.BACK_ENDS["torchdiffeq"].methods) == installed.keys() - {"scipy_solver", "fixed_adams"}
    methods = __import__("torchsde.settings", fromlist=["METHODS"]).METHODS
    theirs = {getattr(methods, n) for n in vars(methods) if not n.startswith("_")} - {"adjoint_reversible_heun"}
    assert set(back_ends.BACK_ENDS["torchsde"].methods) == {m for m in theirs if isinstance(m, str)}


def test_importing_sdekit_knows_the_names_and_imports_no_library():
    code = (
        "import sys, sdekit; from sdekit.steppers import registry; assert 'torchsde:srk' in registry.names(); "
        "assert not {'torchsde', 'torchdiffeq', 'sdekit.interop.torchdiffeq'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("provoke", "message"),
    [
        ({"stepper": "torchsde:srkk"}, r"torchsde has no method 'srkk' here; there are torchsde:euler, "),
        ({"stepper": "torchsd:srk"}, r"no library with steppers 'torchsd': did you mean 'torchsde'"),
        ({"stepper": "torchsde.srk"}, r"no stepper 'torchsde\.srk': did you mean 'torchsde:srk'"),
        ({"stepper": "torchdiffeq:rk4"}, r"torchdiffeq:rk4 cannot solve this problem: .*diagonal noise"),
        ({"stepper": "torchsde:heun"}, r"not a method of ito calculus.*takes sk\.to_stratonovich\(sde\)"),
        ({"stepper": "torchsde:srk", "compile": True}, r"torchsde:srk is none"),
        ({"stepper": "torchsde:srk", "noise": None}, r"stochastic: give noise=seed"),
        (
            {"stepper": "torchsde:srk", "controller": sk.PID(), "noise": sk.BrownianGrid((5, 2), steps=8)},
            r"torchsde:srk chooses its times as it goes, and BrownianGrid does not know them all",
        ),
        (
            {"stepper": "torchsde:srk", "controller": sk.PID(), "noise": sk.BrownianTree((5, 2))},
            r'BrownianTree\(\(5, 2\), 0\.0, 1\.0, levy="space-time"\) here; got shape \(5, 2\) with levy="none"',
        ),
        (
            {"stepper": "torchsde:srk", "controller": sk.PID(), "noise": sk.BrownianTree((5, 2), 0.0, 0.5)},
            r"t = 1\.0 lies outside of this path",
        ),
    ],
)
def test_what_is_refused(provoke, message):
    options = {"noise": 0, **provoke}
    with pytest.raises(sk.SdekitError, match=message):
        sk.solve(problem("diagonal"), states(), GRID, **options)


def test_refusals_of_their_own_steps():
    with pytest.raises(sk.SdekitError, match=r"torchdiffeq:dopri5 chooses its own steps: give controller"):
        sk.solve(ODE, states(), GRID, "torchdiffeq:dopri5")
    with pytest.raises(sk.SdekitError, match=r"torchdiffeq:rk4 does not estimate its error"):
        sk.solve(ODE, states(), GRID, "torchdiffeq:rk4", controller=sk.PID())
    with pytest.raises(sk.SdekitError, match=r"log_ode needs the Lévy areas .* leave out controller="):
        sk.solve(problem("general", "stratonovich"), states(), GRID, "torchsde:log_ode", noise=0, controller=sk.PID())


def test_a_library_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr(back_ends, "find_spec", lambda name: None)
    back_ends.method.cache_clear()
    with pytest.raises(sk.SdekitError, match=r"torchsde:srk is a method of torchsde, .* pip install torchsde"):
        registry.get("torchsde:srk")
    assert main(["list", "steppers"]) == 0
    assert "torchdiffeq is not installed; with it, torchdiffeq:euler" in " ".join(capsys.readouterr().out.split())


def test_the_command_line_knows_them(capsys):
    assert main(["list", "steppers"]) == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in NAMES)
    for name in NAMES:
        assert main(["show", name]) == 0
    assert "1.5 diagonal" in capsys.readouterr().out
    assert main(["solve", "gbm", "--stepper", "torchsde:srk", "--samples", "50", "--steps", "8"]) == 0
    assert main(["converge", "vp-gaussian", "torchdiffeq:midpoint", "--steps", "16,32,64,128"]) == 0
    assert main(["verify", "torchdiffeq:heun2", "--only", "batch"]) == 0
    assert main(["verify", "torchdiffeq:heun2", "--certify"]) == 2
    assert "Certificates are of our own steppers" in capsys.readouterr().err


def test_euler_with_its_own_steps_warns_as_torchsde_does():
    with pytest.warns(UserWarning, match="not guaranteed to converge"), warnings.catch_warnings():
        sk.solve(problem("diagonal"), states(), [0.0, 1.0], "torchsde:euler", noise=0, controller=sk.PID(0.1, 0.1))
