"""Adaptive ODEs: errors that follow the tolerance, samples that do not see one another, no time outside, no hang."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit.adaptive import ode, stages
from sdekit.adaptive.stages import Stages, Workspace
from sdekit.controllers import PID
from sdekit.quantile_map import quantile_flow
from sdekit.solution import Status
from sdekit.steppers import EmbeddedRungeKutta

PAIRS = [name for name, cls in sk.STEPPERS.items() if issubclass(cls, EmbeddedRungeKutta)]
VP = sk.VP()
MODES = sk.GaussianMixture([0.3, 0.5, 0.2], [[-2.0], [0.5], [3.0]], [0.16, 0.09, 0.36])
FLOW = sk.probability_flow(VP, sk.exact_score(MODES, VP))
STARTS = torch.linspace(-4.0, 4.0, 601, dtype=torch.float64)[:, None]


def pendulum(t, x):
    """Driven: periods and sizes differ from sample to sample."""
    t = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)
    angle, speed = x[:, :1], x[:, 1:]
    return torch.cat([speed + 0.0 * t, 0.3 * torch.cos(t) - torch.sin(angle)], 1).to(x.dtype)


PENDULUM = sk.sde(pendulum)


def swings(n: int = 24) -> torch.Tensor:
    return torch.stack([torch.linspace(0.1, 2.8, n), torch.linspace(0.5, -1.0, n)], 1).double()


def oracle(x: torch.Tensor, times: list[float], first: float = 0.0) -> torch.Tensor:
    """Scipy's DOP853, sample by sample."""
    found = []
    for start in x.numpy():
        rates = lambda t, y: [y[1], 0.3 * math.cos(t) - math.sin(y[0])]  # noqa: E731
        end = times[-1]
        found.append(solve_ivp(rates, (first, end), start, "DOP853", rtol=3e-14, atol=1e-14, t_eval=times).y.T)
    return torch.from_numpy(np.stack(found, 1))


@dataclass
class Watched:
    """A field that writes down every time it is asked at, and how many samples were there."""

    inner: object
    times: list = field(default_factory=list)
    rows: int = 0

    def __call__(self, t, x):
        self.times.append(torch.as_tensor(t, dtype=torch.float64).reshape(-1))
        self.rows += len(x)
        return self.inner(t, x)

    @property
    def span(self):
        every = torch.cat(self.times)
        return float(every.min()), float(every.max())


# --- accuracy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", ["dopri5", "tsit5"])
def test_the_flow_of_a_mixture(stepper):
    """Three modes: starts between them are torn apart, and errors with them. The target is the exact quantile map."""
    exact = quantile_flow(VP, MODES, STARTS, 1.0, 1e-3)
    errors = []
    for tol, allowed in ((1e-4, 300.0), (1e-6, 100.0), (1e-8, 50.0)):
        found = sk.solve(FLOW, STARTS, [1.0, 1e-3], stepper, controller=PID(tol, tol)).check()
        errors.append(float((found.final - exact).abs().max()))
        assert errors[-1] <= allowed * tol
    assert errors[0] > 5.0 * errors[1] > 25.0 * errors[2]


@pytest.mark.parametrize("stepper", PAIRS)
def test_errors_follow_the_tolerance_both_ways_in_time(stepper):
    x, tolerances = swings(), (1e-4, 1e-7) if stepper == "bosh3" else (1e-5, 1e-9)
    ends = {(0.0, 5.0): oracle(x, [5.0])[-1], (5.0, 0.0): oracle(x, [0.0], first=5.0)[-1]}
    for (first, last), exact in ends.items():
        off = [
            float((sk.solve(PENDULUM, x, [first, last], stepper, controller=PID(t, t)).final - exact).abs().max())
            for t in tolerances
        ]
        assert all(e < 150.0 * t for e, t in zip(off, tolerances, strict=True)), off
        assert off[1] < 0.02 * off[0]


def test_dopri8_to_round_off():
    x = swings()
    found = sk.solve(PENDULUM, x, [0.0, 5.0], "dopri8", controller=PID(1e-14, 1e-14)).check()
    assert (found.final - oracle(x, [5.0])[-1]).abs().max() < 1e-12


@pytest.mark.parametrize("stepper", PAIRS)
def test_estimates_have_the_order_that_is_declared(stepper):
    """The error measure of one step over steps that halve."""
    pair, x = sk.STEPPERS[stepper].pair, swings()
    stages = Stages(PENDULUM, pair, 0.0, 4.0, x.shape[1:])
    left, logs = torch.full((len(x),), 4.0, dtype=torch.float64), []
    for h in (0.2, 0.1):
        steps = torch.full_like(left, h)
        work = Workspace.of(stages, x, pendulum(0.0, x), (1e-9, 0.0))
        work.step(left, steps)
        logs.append(work.errors().log().mean() / math.log(2.0))
    # A combination of orders 5 and 3 behaves as order 8 does, and sooner falls faster.
    assert float(logs[0] - logs[1]) == pytest.approx(pair.estimate_order, abs=0.35 if stepper != "dopri8" else 1.2)


def rotor(t, x):
    """Pairs of coordinates turn about one another, and each is drawn to ±1."""
    half = x.shape[1] // 2
    return torch.cat([x[:, half:], -x[:, :half]], 1) + x - x * x * x


@pytest.mark.certify
@pytest.mark.parametrize("shape", [(4, 3072), (200, 2)])
def test_errors_per_tolerance_beside_peers(shape):
    """The median over 13 tolerances, dopri5 in each library. One tolerance says nothing: the last step is luck."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    x, last, found = sk.Gaussian(torch.zeros(shape[1]), 1.0).sample(shape[0], seed=0).double(), 2.0, {}
    exact = sk.solve(sk.sde(rotor), x, [0.0, last], "dopri8", controller=PID(1e-13, 1e-13)).final
    for tol in (10.0 ** (-2.0 - 0.5 * i) for i in range(13)):
        ours = sk.solve(sk.sde(rotor), x, [0.0, last], "dopri5", controller=PID(tol, tol)).final
        ends = torch.tensor([0.0, last], dtype=torch.float64)
        theirs = torchdiffeq.odeint(rotor, x, ends, rtol=tol, atol=tol, method="dopri5")[-1]
        for who, final in (("sdekit", ours), ("torchdiffeq", theirs), ("torchode", by_torchode(x, last, tol))):
            if final is not None:
                found.setdefault(who, []).append(float((final - exact).abs().max()) / tol)
    medians = {who: float(np.median(errors)) for who, errors in found.items()}
    assert medians["sdekit"] == min(medians.values()), medians


def by_torchode(x, last, tol):
    try:
        import torchode
    except ImportError:
        return None
    term = torchode.ODETerm(rotor)
    control = torchode.IntegralController(atol=tol, rtol=tol, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
    ends = (torch.full((len(x),), t, dtype=x.dtype) for t in (0.0, last))
    return solver.solve(torchode.InitialValueProblem(x, *ends)).ys[:, -1]


# --- dense output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", PAIRS)
def test_dense_output_has_its_order(stepper):
    """One step of length h from exact values, seen inside: the error falls like h^(q+1) for order q."""
    pair, x = sk.STEPPERS[stepper].pair, swings()
    errors = []
    lengths = (0.8, 0.4) if stepper == "dopri8" else (0.2, 0.1)
    for h in lengths:
        parts = [0.17, 0.5, 0.81]
        exact = oracle(x, [h * p for p in parts])
        stages = Stages(PENDULUM, pair, 0.0, h, x.shape[1:])
        left = torch.full((len(x),), h, dtype=torch.float64)
        *_, moves = stages.step(x, pendulum(0.0, x), left, left)
        moves = stages.completed(x, moves, left, left)
        seen = torch.stack([stages.inside(x, moves, torch.full_like(left, p)) for p in parts])
        errors.append(float((seen - exact).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(pair.dense_order + 1, abs=0.4)


@pytest.mark.parametrize("stepper", PAIRS)
def test_dense_output_against_scipy(stepper):
    x, times = swings(), [0.0, 0.31, 1.0, 2.77, 4.9, 5.0]
    tol = 1e-6 if stepper == "bosh3" else 1e-9
    plain = sk.solve(PENDULUM, x, [0.0, 5.0], stepper, controller=PID(tol, tol))
    seen = sk.solve(PENDULUM, x, [0.0, 5.0], stepper, controller=PID(tol, tol), save=times)
    assert torch.equal(seen.final, plain.final)
    assert torch.equal(seen.xs[-1], plain.final)
    assert torch.equal(seen.xs[0], x)
    assert (seen.xs - oracle(x, times)).abs().max() < 60.0 * tol
    extra = len(sk.STEPPERS[stepper].pair.extra)
    more = seen.diagnostics["evaluations"] - plain.diagnostics["evaluations"]
    assert bool(((more > 0) & (more % extra == 0)).all()) if extra else int(more.abs().max()) == 0


def test_times_of_every_samples_own():
    """Unsorted, repeated, at the ends, and in either direction."""
    x = swings(5)
    own = torch.tensor([[0.5, 5.0, 0.0, 2.2, 1.0], [0.1, 2.0, 0.0, 2.2, 5.0], [4.9, 3.0, 5.0, 0.3, 3.3]]).double()
    for ends in ([0.0, 5.0], [5.0, 0.0]):
        found = sk.solve(PENDULUM, x, ends, "dopri5", controller=PID(1e-8, 1e-8), save=own)
        assert torch.equal(found.ts, own)
        assert found.xs.shape == (3, 5, 2)
        for i in range(5):
            alone = sk.solve(PENDULUM, x[i : i + 1], ends, "dopri5", controller=PID(1e-8, 1e-8), save=own[:, i])
            assert torch.equal(alone.xs[:, 0], found.xs[:, i])
            for t, seen in zip(own[:, i].tolist(), found.xs[:, i], strict=True):
                exact = x[i] if t == ends[0] else oracle(x[i : i + 1], [t], ends[0])[0, 0]
                assert (seen - exact).abs().max() < 1e-6


# --- samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stepper", PAIRS)
def test_a_sample_is_the_same_alone_and_in_any_batch(stepper, dtype):
    """Bitwise, with its counts, for a field that is element-wise."""
    brusque = sk.sde(lambda t, x: torch.sin(4.0 * x) - 0.2 * x * x * x)
    x = torch.linspace(-3.0, 3.0, 257, dtype=dtype)[:, None] * torch.tensor([1.0, 0.3, -0.7], dtype=dtype)
    how = {"controller": PID(1e-4, 1e-5), "save": [0.2, 1.7, 3.0]}
    many = sk.solve(brusque, x, [0.0, 3.0], stepper, **how)
    assert int(many.diagnostics["rejected"].max()) > 0
    for some in ([3], [200, 5, 77], [*range(50, 90)]):
        few = sk.solve(brusque, x[some], [0.0, 3.0], stepper, **how)
        assert torch.equal(few.xs, many.xs[:, some])
        assert all(torch.equal(few.diagnostics[k], many.diagnostics[k][some]) for k in few.diagnostics)


@pytest.mark.parametrize("stepper", PAIRS)
def test_wide_states_take_the_steps_of_narrow_ones(stepper):
    """A number, and as many copies as are no longer spread out: the same errors, refusals and states to rounding, alone
    and among others to the last bit."""
    brusque = sk.sde(lambda t, x: torch.sin(4.0 * x) - 0.2 * x * x * x)
    x, how = torch.linspace(-3.0, 3.0, 65, dtype=torch.float64)[:, None], {"controller": PID(1e-4, 1e-5)}
    wide = x.repeat(1, 2 * stages._NARROW)
    narrow, many = (sk.solve(brusque, start, [0.0, 3.0], stepper, **how) for start in (x, wide))
    assert int(many.diagnostics["rejected"].max()) > 0
    assert all(torch.equal(many.diagnostics[k], narrow.diagnostics[k]) for k in narrow.diagnostics)
    torch.testing.assert_close(many.final, narrow.final.expand_as(wide), rtol=0.0, atol=1e-11)
    for some in ([3], [60, 5, 33], [*range(20, 50)]):
        assert torch.equal(sk.solve(brusque, wide[some], [0.0, 3.0], stepper, **how).final, many.final[some])


def test_a_norm_over_the_batch_would_be_seen():
    x = swings()
    how = {"controller": PID(1e-4, 1e-5, norm="batch")}
    many, alone = (sk.solve(PENDULUM, part, [0.0, 3.0], "dopri5", **how) for part in (x, x[:1]))
    assert len(set(many.diagnostics["accepted"].tolist())) == 1
    assert not torch.equal(many.final[0], alone.final[0])
    assert (many.final - oracle(x, [3.0])[-1]).abs().max() < 1e-2


def test_counts_are_what_the_field_was_asked():
    """A lone sample: every evaluation is a call. A network is asked for those on their way, and no others."""
    watched = Watched(pendulum)
    found = sk.solve(sk.sde(watched), swings(3)[:1], [0.0, 3.0], "dopri8", controller=PID(1e-6, 1e-6), save=[1.0])
    assert watched.rows == int(found.diagnostics["evaluations"]) == found.stats.drift_evaluations
    score = sk.exact_score(MODES, VP)
    watched = Watched(lambda t, x: score(t, x))
    flow = sk.probability_flow(VP, watched)
    found = sk.solve(flow, STARTS[::10], [1.0, 1e-3], "dopri5", controller=PID(1e-6, 1e-6))
    assert len(set(found.diagnostics["evaluations"].tolist())) > 5
    assert watched.rows == int(found.diagnostics["evaluations"].sum())


# --- times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(1.0, 1e-3), (1e-3, 1.0), (0.1, 0.7), (1.0 / 3.0, 0.1), (-1e6, -1e6 + 0.3)])
@pytest.mark.parametrize("stepper", PAIRS)
def test_no_field_is_asked_outside_the_interval(stepper, ends):
    inner = FLOW.drift if min(ends) > 0.0 else lambda t, x: -x
    watched = Watched(inner)
    x = STARTS[::60]
    for tol, first in ((1e-2, None), (1e-6, None), (1e-3, 1e9)):
        control = PID(tol, tol, first=first)
        inside = [0.3 * ends[0] + 0.7 * ends[1], ends[1]]
        sk.solve(sk.sde(watched), x, list(ends), stepper, controller=control, save=inside).check()
    low, high = watched.span
    assert low >= min(ends)
    assert high <= max(ends)


def test_no_rounding_of_the_whole_way_leaves_the_interval():
    """Of two thousand intervals, each both ways, one in six would be left by last ∓ |last − first|."""
    pair, event = sk.STEPPERS["dopri5"].pair, torch.Size([1])
    outside, draw = 0, torch.Generator().manual_seed(0)
    for a, b in torch.randn(2000, 2, generator=draw, dtype=torch.float64).tolist():
        for first, last in ((a, b), (b, a)):
            whole = Stages(PENDULUM, pair, first, last, event)
            start = float(whole.times_(torch.tensor(whole.span, dtype=torch.float64)))
            assert min(a, b) <= start <= max(a, b)
            assert abs(start - first) <= 1e-15
            naive = last + abs(last - first) if first > last else last - abs(last - first)
            outside += not min(a, b) <= naive <= max(a, b)
    assert outside > 100, outside


def test_a_time_outside_would_be_seen():
    """A negative control: torchdiffeq steps over the end, and interpolates back."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    watched = Watched(lambda t, x: -x)
    torchdiffeq.odeint(watched, swings(), torch.tensor([0.0, 1.0]).double(), rtol=1e-3, atol=1e-3, method="dopri5")
    assert watched.span[1] > 1.0


# --- ends ---------------------------------------------------------------------------------------------


def test_statuses_end_a_sample_and_keep_the_rest():
    def unkind(t, x):
        return torch.where(x > 50.0, torch.nan, torch.where(x > 5.0, x * x, -x))

    x = torch.tensor([[1.0], [6.0], [60.0], [0.5]], dtype=torch.float64)
    for stepper in PAIRS:
        found = sk.solve(sk.sde(unkind), x, [0.0, 1.0], stepper, controller=PID(1e-5, 1e-5))
        wanted = [Status.SUCCESS, Status.STEP_UNDERFLOW, Status.NON_FINITE, Status.SUCCESS]
        assert found.status.tolist() == wanted
        assert torch.equal(found.final[2], x[2])
        torch.testing.assert_close(found.final[[0, 3]], x[[0, 3]] * math.exp(-1.0), rtol=1e-4, atol=0.0)
        assert found.final.isfinite().all()


@pytest.mark.parametrize("stepper", PAIRS)
@pytest.mark.parametrize(
    ("field", "ended"),
    [
        (lambda t, x: x * x, Status.STEP_UNDERFLOW),  # infinite at t = 1
        (lambda t, x: -1e9 * (x - 2.0), Status.STEP_LIMIT),  # stiff
        (lambda t, x: torch.where(x > 1.5, -1.0, 1.0).to(x), Status.SUCCESS),  # slides along a jump
        (lambda t, x: torch.full_like(x, torch.nan), Status.NON_FINITE),
        (lambda t, x: torch.full_like(x, torch.inf), Status.NON_FINITE),
        (lambda t, x: torch.zeros_like(x), Status.SUCCESS),
    ],
)
def test_nothing_hangs(stepper, field, ended):
    x = torch.ones(2, 1, dtype=torch.float64)
    found = sk.solve(sk.sde(field), x, [0.0, 2.0], stepper, controller=PID(1e-6, 1e-6), max_steps=300)
    assert set(found.status.tolist()) <= {ended, Status.STEP_LIMIT}
    assert found.stats.steps <= 300


def test_a_limit_of_seconds():
    found = sk.solve(PENDULUM, swings(), [0.0, 5.0], "dopri5", controller=PID(1e-6, 1e-6), max_seconds=0.0)
    assert found.status.tolist() == [Status.TIME_LIMIT] * 24
    assert torch.equal(found.final, swings())


def test_what_a_sample_did_not_get_to_is_its_last_state():
    x = torch.tensor([[0.4], [2.0]], dtype=torch.float64)
    found = sk.solve(sk.sde(lambda t, x: x * x), x, [0.0, 1.0], "dopri5", controller=PID(1e-8, 1e-8), save=[0.4, 0.9])
    assert found.status.tolist() == [Status.SUCCESS, Status.STEP_UNDERFLOW]
    torch.testing.assert_close(found.xs[:, 0, 0], 0.4 / (1.0 - 0.4 * found.ts), rtol=1e-6, atol=0.0)
    assert float(found.xs[0, 1]) == pytest.approx(10.0, rel=1e-5)
    assert torch.equal(found.xs[1, 1], found.final[1])


# --- gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", PAIRS)
def test_gradients_are_those_of_the_solution(stepper):
    """dx = a x: x(T) = x e^{aT}; also at a time in between. Values are the same bits with and without a tape."""
    a, x = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True), swings(4).requires_grad_()
    problem, how = sk.sde(lambda t, y: a * y), {"controller": PID(1e-9, 1e-9), "save": [0.5, 2.0]}
    found = sk.solve(problem, x, [0.0, 2.0], stepper, **how)
    found.xs.sum().backward()
    grown = [math.exp(-0.7 * t) for t in (0.5, 2.0)]
    torch.testing.assert_close(x.grad, torch.full_like(x, sum(grown)), rtol=1e-6, atol=0.0)
    wanted = float(x.detach().sum()) * (0.5 * grown[0] + 2.0 * grown[1])
    assert float(a.grad) == pytest.approx(wanted, rel=1e-6)
    with torch.no_grad():
        plain = sk.solve(problem, x, [0.0, 2.0], stepper, **how)
    assert torch.equal(plain.xs, found.xs.detach())
    assert found.stats.drift_evaluations > plain.stats.drift_evaluations  # the accepted steps, once more
    with torch.inference_mode():
        assert torch.equal(sk.solve(problem, x.detach(), [0.0, 2.0], stepper, **how).xs, plain.xs)


def test_a_refused_step_leaves_nothing_on_the_tape():
    """A first step into NaN: its gradient would be NaN, although the step was not taken."""
    x = torch.tensor([[1.0], [0.2]], dtype=torch.float64, requires_grad=True)
    problem = sk.sde(lambda t, y: -torch.sqrt(y))
    found = sk.solve(problem, x, [0.0, 0.8], "dopri5", controller=PID(1e-6, 1e-6, first=0.8))
    assert int(found.diagnostics["rejected"].sum()) > 0
    found.final[:, 0].sum().backward()
    wanted = (torch.sqrt(x) - 0.4) / torch.sqrt(x)
    torch.testing.assert_close(x.grad, wanted.detach(), rtol=1e-4, atol=0.0)


# --- doors --------------------------------------------------------------------------------------------


def test_what_is_left_out():
    found = sk.solve(FLOW, STARTS[::60], controller=PID(1e-5, 1e-5)).check()
    assert found.provenance["stepper"] == "dopri5"
    assert found.provenance["times"] == [VP.t_max, VP.t_min]
    on_a_tree = sk.solve(sk.sde(lambda t, x: -x), swings(), [0.0, 1.0], "sra1", controller=PID(1e-5, 1e-5)).check()
    assert (on_a_tree.final - swings() * math.exp(-1.0)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepper": "rk4"}, "does not estimate its error.*dopri5"),
        ({"save": torch.zeros(2, 3)}, r"must be \(T, 24\)"),
        ({"save": torch.full((1, 24), 2.0)}, "spans"),
        ({"save": torch.full((1, 24), torch.nan)}, "spans"),
        ({"save": torch.zeros(1, 24), "stepper": "heun-strat"}, "dense output"),
        ({"save": torch.zeros(1, 24), "controller": None}, "dense output"),
        ({"grid": None}, r"\[first, last\]"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    arguments = {"grid": [0.0, 1.0], "stepper": "dopri5", "controller": PID(), **options}
    with pytest.raises(sk.SdekitError, match=message):
        sk.solve(PENDULUM, swings(), **arguments)


def test_an_unknown_norm_is_refused():
    with pytest.raises(sk.SdekitError, match="norm"):
        PID(norm="max")


# --- planted faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(4))
def test_a_wrong_polynomial_would_be_seen(row, monkeypatch):
    """One weight of the dense output of dopri8 off by a thousandth."""
    pair = sk.STEPPERS["dopri8"].pair
    dense = [list(r) for r in pair.dense]
    dense[row][10] += Fraction(1, 1000)
    monkeypatch.setattr(sk.STEPPERS["dopri8"], "pair", replace(pair, dense=tuple(map(tuple, dense))))
    with pytest.raises(AssertionError):
        test_dense_output_has_its_order("dopri8")


def test_a_wrong_estimate_would_be_seen(monkeypatch):
    pair = sk.STEPPERS["dopri5"].pair
    errors = (tuple(e + Fraction(i == 3, 1000) for i, e in enumerate(pair.errors[0])),)
    monkeypatch.setattr(sk.STEPPERS["dopri5"], "pair", replace(pair, errors=errors))
    with pytest.raises(AssertionError):
        test_estimates_have_the_order_that_is_declared("dopri5")


def test_steps_that_depend_on_the_batch_would_be_seen(monkeypatch):
    monkeypatch.setattr(ode._Search, "_shared", lambda self, n: n * (1.0 + 1e-9 * len(n)))
    with pytest.raises(AssertionError):
        test_a_sample_is_the_same_alone_and_in_any_batch("dopri5", torch.float64)
