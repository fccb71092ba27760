r"""The law that every production solver produces is the law of the scheme it is named after, to 1e-12.

Data: a Gaussian in three dimensions with variances 0.01, 0.25 and 1 along rotated axes. Along each of them a scheme is
a scalar recursion (``golden/``). Starts: a Gaussian that shares no axis with the data. Grids: 16 and 5 steps in the
pattern 1, 3, 2, so that a coefficient which is right only for equal steps is wrong here. What is tested follows from
the Specs.
"""

from __future__ import annotations

import inspect
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from golden import (
    GOLDEN,
    Golden,
    ancestral,
    form,
    integrals,
    langevin,
    multistep,
    processes,
    samplers,
    single_step,
    step_methods,
)
from golden.cases import AXES, CASES, CHAIN, deviation, golden_map, jagged, reverse_sde, solves
from golden.form import Map, mp, noise, start

import sdekit as sk
from sdekit.steppers import PlannedStepper, registry

TOLERANCE = 1e-12
UNSTABLE = {"reversible-heun": 1e-11}  # where a state shrinks its second state grows, and with it the rounding
ETAS = (0.0, 0.5, 1.0, 1.5)

REVERSE = [
    pytest.param(name, case, eta, steps, id=f"{name}, {case}, eta {eta:g}, {steps} steps")
    for name in sk.STEPPERS
    for case in CASES
    for eta in ETAS
    for steps in (16, 5)
    if solves(name, reverse_sde(CASES[case], eta))
]


def test_every_stepper_has_a_golden_law():
    missing, unknown = sk.STEPPERS.keys() - GOLDEN.keys(), GOLDEN.keys() - sk.STEPPERS.keys()
    assert not missing, (
        f"No golden law for {sorted(missing)}. Adding a solver touches its file, its registry line and its golden law: "
        "write its recursion into tests/golden/ from the paper, not from the solver, and enter it in GOLDEN."
    )
    assert not unknown, f"GOLDEN names {sorted(unknown)}, which the registry does not know."


MODULES = [ancestral, form, integrals, langevin, multistep, processes, samplers, single_step, step_methods]


@pytest.mark.parametrize("module", MODULES)
def test_golden_laws_share_no_code_with_what_they_test(module):
    assert "import sdekit" not in inspect.getsource(module)
    assert "import torch" not in inspect.getsource(module)


@pytest.mark.parametrize("case", CASES)
def test_golden_processes_are_consistent(case):
    """f = (log α)', g² = (σ²)' − 2fσ² and shift' = f shift + b, by differences in 40 digits."""
    p = CASES[case].golden
    for t in CASES[case].grid(5)[1:-1]:
        t, diff = mp.mpf(t), mp.diff
        alpha, sigma2 = p.alpha(t), p.sigma(t) ** 2
        assert abs(diff(p.alpha, t) - p.f(t) * alpha) < 1e-12 * (1 + abs(p.f(t)))
        assert abs(diff(lambda u: p.sigma(u) ** 2, t) - 2 * p.f(t) * sigma2 - p.g2(t)) < 1e-12 * p.g2(t)
        assert abs(diff(p.shift, t) - p.f(t) * p.shift(t) - p.source(t)) < 1e-12


@pytest.mark.parametrize(("name", "case", "eta", "steps"), REVERSE)
def test_the_way_back(name, case, eta, steps):
    there = CASES[case]
    times = there.grid(steps)
    off = deviation(reverse_sde(there, eta), name, times, golden_map(name, there, eta, times))
    assert off < UNSTABLE.get(name, TOLERANCE)


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, c) for n in sk.STEPPERS for c in ("VP", "OU", "Flow") if solves(n, reverse_sde(CASES[c], 0.0))],
)
def test_the_flow_from_data_to_noise(name, case):
    there = CASES[case]
    times = there.grid(16)[::-1]
    assert deviation(reverse_sde(there, 0.0), name, times, golden_map(name, there, 0.0, times)) < TOLERANCE


@pytest.mark.parametrize("steps", [16, 5])
@pytest.mark.parametrize(("name", "case"), [(n, c) for n in sk.STEPPERS for c in CASES if solves(n, CASES[c].process)])
def test_forward_processes(name, case, steps):
    law = GOLDEN[name].forward
    assert law is not None, f"GOLDEN[{name!r}] needs a law for forward processes: its Spec says that it solves them"
    times = CASES[case].grid(steps)[::-1]
    exact = [mp.mpf(t) for t in times]
    forms = [law(line, exact, start(i), i) for i, line in enumerate(CASES[case].lines())]
    assert deviation(CASES[case].process, name, times, Map.of(forms).turned(AXES)) < TOLERANCE


OPTIONS = {
    "DEIS(3), ramp": (sk.DEIS(3, start="ramp"), multistep.law("eps in t", 3, ramp=True)),
    "ETDAB(4), ramp": (sk.ETDAB(4, start="ramp"), multistep.law("eps", 4, ramp=True)),
    "UniPC(3), ramp": (sk.UniPC(3, start="ramp"), multistep.law("D", 3, 4, ramp=True)),
    "VAB(3), ramp": (sk.VAB(3, start="ramp"), multistep.law("v", 3, ramp=True)),
    "VABM(4), ramp": (sk.VABM(4, start="ramp"), multistep.law("v", 4, 5, ramp=True, apart=0.25)),
    "VABM(4), next to one another": (sk.VABM(4, apart=1e-9), multistep.law("v", 4, 5)),
    "ERSDE(2), a step apart": (sk.ERSDE(2, apart=1.0), multistep.law("D in rho", 2, apart=1.0)),
    "SASolver(3, 3)": (sk.SASolver(3, 3), multistep.law("D", 3, 3)),
    "SASolver(3, 4)": (sk.SASolver(3, 4), multistep.law("D", 3, 4)),
    "SASolver(2, 0)": (sk.SASolver(2, 0), multistep.law("D", 2, 0)),
    "DDPM, β": (sk.DDPM("beta"), ancestral.ddpm_beta),
}


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_samplers(name, eta):
    stepper, law = OPTIONS[name]
    there = CASES["VP"]
    if registry.obstacle(stepper.spec, reverse_sde(there, eta)) is not None:
        return
    times = there.grid(8)
    golden = golden_map(Golden(law), there, eta, times)
    assert deviation(reverse_sde(there, eta), stepper, times, golden) < TOLERANCE


@pytest.mark.parametrize("heun", [False, True])
def test_churn(heun):
    """On EDM, where σ is the time; the first step is capped, the last is outside [S_min, S_max]."""
    there, churn = CASES["EDM"], (3.0, 0.05, 90.0, 1.007)
    stepper = (sk.EDMHeun if heun else sk.EDMEuler)(sk.Churn(*churn))
    times = there.grid(8)
    golden = golden_map(Golden(ancestral.edm(heun, (*churn, lambda sigma: sigma))), there, 0.0, times)
    assert deviation(reverse_sde(there, 0.0), stepper, times, golden) < TOLERANCE


LEVELS = (24, 23, 20, 18, 17, 14, 12, 11, 8, 6, 5, 4, 3, 2, 1)


def asks_between(name, times, eta) -> bool:
    """Whether a sampler asks the network, or the schedule, at other times than those of the grid."""
    stepper = sk.STEPPERS[name]()
    if not isinstance(stepper, PlannedStepper):
        return False
    plan = stepper.plan(CHAIN.process.schedule, eta, torch.tensor(times, dtype=torch.float64))
    asked = {row.at for rows in plan.rows for row in rows} - {None}
    return bool(asked - set(times)) or name.startswith("deis")


@pytest.mark.parametrize("name", [n for n, g in GOLDEN.items() if g.method is None])
@pytest.mark.parametrize("eta", ETAS)
def test_a_chain_on_some_of_its_levels(name, eta):
    """Samplers that ask at grid times only need nothing but α and σ there, which a chain states exactly."""
    times = [level / 24 for level in LEVELS]
    if not solves(name, reverse_sde(CHAIN, eta)) or asks_between(name, times, eta):
        return
    golden = golden_map(name, CHAIN, eta, times)
    assert deviation(reverse_sde(CHAIN, eta), name, times, golden) < TOLERANCE


# --- coupled coordinates ----------------------------------------------------------------------------

THETA = [[1.0, -2.0], [0.5, 0.3]]  # not normal
SIGMA = [[0.7, 0.2, 0.0], [-0.3, 0.5, 0.4]]  # three noises for two coordinates
PULL = [0.6, -1.1]


def matrix_ou() -> sk.OU:
    return sk.OU(*(torch.tensor(value, dtype=torch.float64) for value in (THETA, PULL, SIGMA)), t_max=2.0)


def column(values) -> np.ndarray:
    return np.array([mp.mpf(v) for v in values], dtype=object)


def matrix(values) -> np.ndarray:
    return np.array([column(row) for row in values], dtype=object)


def matrix_kernel(h) -> tuple[mp.matrix, mp.matrix]:
    """e^{-Θh} and the covariance of the noise, from the stationary S with ΘS + SΘᵀ = ΣΣᵀ (four linear equations)."""
    theta, sigma, unit = mp.matrix(THETA), mp.matrix(SIGMA), mp.eye(2)
    square, equations = sigma * sigma.T, mp.matrix(4)
    for i, j, k, l in product(range(2), repeat=4):
        equations[2 * i + j, 2 * k + l] = theta[i, k] * unit[j, l] + unit[i, k] * theta[j, l]
    s = mp.lu_solve(equations, mp.matrix([square[i, j] for i, j in product(range(2), repeat=2)]))
    S, K = mp.matrix([[s[0], s[1]], [s[2], s[3]]]), mp.expm(-theta * h)
    return K, S - K * S * K.T


def test_the_matrix_kernel_solves_its_integral():
    S = matrix_kernel(2)[1]
    theta, sigma = mp.matrix(THETA), mp.matrix(SIGMA)
    rate = cache(lambda u: mp.expm(-theta * u) * sigma * sigma.T * mp.expm(-theta.T * u))
    for i, j in product(range(2), repeat=2):
        integral = mp.quad(lambda u, i=i, j=j: rate(u)[i, j], [0, 2], method="gauss-legendre")
        assert abs(integral - S[i, j]) < 1e-20


@pytest.mark.parametrize("name", [n for n in sk.STEPPERS if solves(n, matrix_ou())])
def test_an_ornstein_uhlenbeck_process_with_matrices(name):
    times, mu = jagged(0.0, 2.0, 16), mp.matrix(PULL)
    K, S = matrix_kernel(2)
    golden = Map(mu - K * mu, K, S)
    if GOLDEN[name].method is not None:
        A, b = -matrix(THETA), matrix(THETA) @ column(PULL)
        golden = linear_run(name, lambda t: A, lambda t: b, matrix(SIGMA), times)
    assert deviation(matrix_ou(), name, times, golden) < TOLERANCE


PLANE = sk.Gaussian(torch.tensor([0.5, -1.0]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double())


def plane_law(t) -> tuple[mp.matrix, mp.matrix]:
    """Mean and covariance at time t of the matrix process started from ``PLANE``."""
    K, S = matrix_kernel(t)
    mean, covariance = (mp.matrix(value.tolist()) for value in (PLANE.mean, PLANE.covariance))
    return mp.matrix(PULL) + K * (mean - mp.matrix(PULL)), K * covariance * K.T + S


def plane_reverse(eta: float) -> sk.reverse.Reverse:
    return sk.reverse_time(matrix_ou(), sk.exact_score(PLANE, matrix_ou()), eta)


@pytest.mark.parametrize(
    ("name", "eta"),
    [(n, e) for n, g in GOLDEN.items() for e in ETAS if g.method is not None and solves(n, plane_reverse(e))],
)
def test_the_way_back_of_a_process_with_matrices(name, eta):
    """The drift Θ(μ − x) − (1 + η²)/2 ΣΣᵀ s with the score s = −P⁻¹(x − m)."""
    times, mu, theta = jagged(2.0, 0.05, 16), column(PULL), matrix(THETA)
    spread = (1 + mp.mpf(eta) ** 2) / 2 * matrix(SIGMA) @ matrix(SIGMA).T

    @cache
    def pull(t):
        mean, covariance = plane_law(t)
        return spread @ np.array((covariance**-1).tolist()), np.array(list(mean))

    def A(t):
        return -theta + pull(t)[0]

    def b(t):
        return theta @ mu - pull(t)[0] @ pull(t)[1]

    golden = linear_run(name, A, b, eta * matrix(SIGMA), times)
    assert deviation(plane_reverse(eta), name, times, golden) < TOLERANCE


def test_the_exact_way_back_of_a_process_with_matrices():
    """The regression of X_t on X_s: gain P_t Kᵀ P_s⁻¹."""
    (m1, P1), (m0, P0), (K, _) = plane_law(2), plane_law(mp.mpf(0.05)), matrix_kernel(2 - mp.mpf(0.05))
    gain = P0 * K.T * P1**-1
    golden = Map(m0 - gain * m1, gain, P0 - gain * P1 * gain.T)
    assert deviation(plane_reverse(1.0), "exact-linear", jagged(2.0, 0.05, 16), golden) < TOLERANCE


def linear_run(name, A, b, G, times) -> Map:
    """A step method on dx = (A(t) x + b(t)) dt + G dW."""
    x, draws = np.array([start(0), start(1)]), range(G.shape[1])
    kick = lambda k, t, z=noise: G @ np.array([z(k, j) for j in draws])  # noqa: E731
    forms = GOLDEN[name].method(lambda t, y: A(t) @ y + b(t), kick, [mp.mpf(t) for t in times], x)
    return Map.of(forms)


def spinning(module, stack):
    """A(t) and b(t) of a linear equation whose matrices at different times do not commute."""
    A = lambda t: stack([[-0.5 + 0 * t, -3 * module.cos(2 * t)], [2 + t, -1 + module.sin(3 * t)]])  # noqa: E731
    return A, lambda t: stack([module.cos(5 * t), 1 - t * t])


@pytest.mark.parametrize("name", [n for n, g in GOLDEN.items() if g.method is not None])
def test_step_methods_on_a_linear_equation_that_depends_on_time(name):
    """A wrong node, or stages in the wrong order, show where A(t) does not commute with itself."""
    A, b = spinning(mp, lambda rows: np.array(rows, dtype=object))
    P, p = spinning(np, lambda rows: torch.tensor(np.array(rows), dtype=torch.float64))
    drift = lambda t, x: x @ P(t).T + p(t)  # noqa: E731
    noisy = "additive" in sk.STEPPERS[name].spec.noise_types
    G = torch.tensor(SIGMA, dtype=torch.float64)
    sde = sk.sde(drift, (lambda t, x: G.expand(len(x), 2, 3)) if noisy else None, "additive")
    times = jagged(0.2, 1.7, 16)
    assert deviation(sde, name, times, linear_run(name, A, b, matrix(SIGMA), times)) < TOLERANCE
