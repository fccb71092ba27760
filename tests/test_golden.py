r"""The law that every production solver produces is the law of the scheme it is named after, to 1e-12.

Data: a Gaussian in three dimensions with variances 0.01, 0.25 and 1 along rotated axes. Along each of them a scheme is
a scalar recursion (``golden/``). Starts: a Gaussian that shares no axis with the data. Grids: 16 and 5 steps in the pattern
1, 3, 2, so that a coefficient which is right only for equal steps is wrong here. What is tested follows from the Specs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
import pytest
import torch
from golden import GOLDEN, processes
from golden.form import Map, mp, noise, start
from golden.processes import Line, Process

import sdekit as sk
from sdekit.dynamics import SDE
from sdekit.steppers import Stepper, registry
from sdekit.verify import affine_map, numerical_law

TOLERANCE = 1e-12
ETAS = (0.0, 0.5, 1.0, 1.5)
VARIANCES = ("0.01", "0.25", "1")


def rotation() -> mp.matrix:
    """A rotation by three angles, one after the other."""
    Q = mp.eye(3)
    for (i, j), angle in {(0, 1): 0.7, (1, 2): -1.1, (0, 2): 0.4}.items():
        turn = mp.eye(3)
        turn[i, i] = turn[j, j] = mp.cos(angle)
        turn[i, j], turn[j, i] = -mp.sin(angle), mp.sin(angle)
        Q = Q * turn
    return Q


AXES = rotation()
MEAN = mp.matrix(["0.5", "-1", "0.25"])
START_MEAN = mp.matrix(["0.3", "-0.8", "1.1"])
START_ROOT = mp.matrix([["1.2", 0, 0], ["-0.4", "0.7", 0], ["0.3", "0.5", "0.9"]])


def double(matrix: mp.matrix) -> torch.Tensor:
    """Rounded to float64; a column becomes a vector."""
    return torch.tensor(np.array(matrix.tolist(), dtype=float)).squeeze(1 if matrix.cols == 1 else ())


DATA = sk.Gaussian.from_root(double(MEAN), double(AXES * mp.diag([mp.sqrt(v) for v in map(mp.mpf, VARIANCES)])))
STARTS = {n: sk.Gaussian.from_root(double(START_MEAN[:n]), double(START_ROOT[:n, :n])) for n in (2, 3)}


@dataclass(frozen=True)
class Case:
    """A production process, the same process in 40 digits, and where to run it.

    ``q`` is the constant vector of an Ornstein–Uhlenbeck process or of Brownian motion; grids are uniform in
    t^(1/ρ) before the pattern is laid on.
    """

    process: sk.VP
    golden: Process
    low: float
    high: float
    rho: float = 3.0
    q: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def grid(self, steps: int) -> list[float]:
        """Times from noise to data with steps as 1 : 3 : 2."""
        return jagged(self.high, self.low, steps, self.rho)

    def lines(self) -> list[Line]:
        """The process along each axis of the data."""
        mean, q = AXES.T * MEAN, AXES.T * mp.matrix(self.q)
        return [Line(self.golden, mean[i], mp.mpf(v), q[i]) for i, v in enumerate(VARIANCES)]


def jagged(first: float, last: float, steps: int, rho: float = 1.0) -> list[float]:
    weights = [(1, 3, 2)[k % 3] for k in range(steps)]
    part = [w / sum(weights) for w in accumulate(weights)]
    a, b = first ** (1 / rho), last ** (1 / rho)
    return [first, *((a + p * (b - a)) ** rho for p in part[:-1]), last]


MU = (0.4, -1.2, 0.9)
CASES = {
    "VP": Case(sk.VP(), processes.vp(0.1, 20.0), 1e-3, 1.0),
    "VE": Case(sk.VE(), processes.ve(0.01, 50.0), 0.0, 1.0, rho=1.0),
    "OU": Case(sk.OU(1.3, 0.7, 0.9), processes.ou(1.3, 0.9), 1e-2, 3.0, q=(0.7, 0.7, 0.7)),
    "OU, a mean per coordinate": Case(sk.OU(0.8, torch.tensor(MU, dtype=torch.float64), 1.4), processes.ou(0.8, 1.4), 1e-2, 3.0, q=MU),
    "SubVP": Case(sk.SubVP(), processes.sub_vp(0.1, 20.0), 1e-2, 1.0),
    "Cosine": Case(sk.Cosine(), processes.cosine(0.008), 1e-2, 0.98),
    "EDM": Case(sk.EDM(), processes.edm(), 0.002, 80.0, rho=7.0),
    "Flow": Case(sk.Flow(), processes.flow(), 1e-2, 0.97),
    "Brownian": Case(sk.Brownian(-0.4, 1.7), processes.brownian(1.7), 1e-2, 1.0, q=(-0.4, -0.4, -0.4)),
}


@cache
def reverse_map(name: str, case: str, eta: float, steps: int, up: bool = False) -> tuple[list[float], Map]:
    """Grid and golden map of a reverse problem."""
    times = CASES[case].grid(steps)[:: -1 if up else 1]
    exact = [mp.mpf(t) for t in times]
    law = GOLDEN[name].reverse
    assert law is not None, f"GOLDEN[{name!r}] needs a law for reverse problems: its Spec says that it solves them"
    forms = [law(line, eta, exact, start(i), i) for i, line in enumerate(CASES[case].lines())]
    return times, Map.of(forms).turned(AXES)


def deviation(sde: SDE, stepper: str | Stepper, times: list[float], golden: Map) -> float:
    """Largest deviation of the production law, and of its map, from the golden ones, relative to the size of a state."""
    d = golden.c.rows
    law, run = numerical_law(sde, stepper, times, STARTS[d]), affine_map(sde, stepper, times, (d,))
    mean, covariance = golden.push(START_MEAN[:d], START_ROOT[:d, :d] * START_ROOT[:d, :d].T)
    spread = mp.sqrt(max(covariance[i, i] for i in range(d)))
    size = max(spread, mp.mnorm(mean, mp.inf), mp.mnorm(golden.c, mp.inf))
    pairs = [
        (law.mean, mean, size),
        (law.covariance, covariance, spread**2),
        (run.constant, golden.c, size),
        (run.matrix, golden.A, max(size, mp.mnorm(golden.A, mp.inf))),  # the probe subtracts two states
        (run.noises @ run.noises.T, golden.S, mp.mnorm(golden.S, mp.inf) or 1),
    ]
    return max(float((found - double(wanted)).abs().max()) / float(scale) for found, wanted, scale in pairs)


def reverse_sde(case: str, eta: float) -> sk.reverse.Reverse:
    process = CASES[case].process
    return sk.reverse_time(process, sk.exact_score(DATA, process), eta)


def solves(name: str, sde: SDE) -> bool:
    return registry.obstacle(sk.STEPPERS[name].spec, sde) is None


REVERSE = [
    pytest.param(name, case, eta, steps, id=f"{name}, {case}, eta {eta:g}, {steps} steps")
    for name in sk.STEPPERS
    for case in CASES
    for eta in ETAS
    for steps in (16, 5)
    if solves(name, reverse_sde(case, eta))
]


def test_every_stepper_has_a_golden_law():
    missing, unknown = sk.STEPPERS.keys() - GOLDEN.keys(), GOLDEN.keys() - sk.STEPPERS.keys()
    assert not missing, (
        f"No golden law for {sorted(missing)}. Adding a solver touches its file, its registry line and its golden law: "
        "write its recursion into tests/golden/ from the paper, not from the solver, and enter it in GOLDEN."
    )
    assert not unknown, f"GOLDEN names {sorted(unknown)}, which the registry does not know."


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
    times, golden = reverse_map(name, case, eta, steps)
    assert deviation(reverse_sde(case, eta), name, times, golden) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n in sk.STEPPERS for c in ("VP", "OU", "Flow") if solves(n, reverse_sde(c, 0.0))]
)
def test_the_flow_from_data_to_noise(name, case):
    times, golden = reverse_map(name, case, 0.0, 16, up=True)
    assert deviation(reverse_sde(case, 0.0), name, times, golden) < TOLERANCE


@pytest.mark.parametrize("steps", [16, 5])
@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n in sk.STEPPERS for c in CASES if solves(n, CASES[c].process)]
)
def test_forward_processes(name, case, steps):
    law = GOLDEN[name].forward
    assert law is not None, f"GOLDEN[{name!r}] needs a law for forward processes: its Spec says that it solves them"
    times = CASES[case].grid(steps)[::-1]
    exact = [mp.mpf(t) for t in times]
    forms = [law(line, exact, start(i), i) for i, line in enumerate(CASES[case].lines())]
    assert deviation(CASES[case].process, name, times, Map.of(forms).turned(AXES)) < TOLERANCE


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


@pytest.mark.parametrize("name", [n for n in sk.STEPPERS if solves(n, matrix_ou())])
def test_an_ornstein_uhlenbeck_process_with_matrices(name):
    times = jagged(0.0, 2.0, 16)
    if GOLDEN[name].method is not None:
        golden = linear_run(name, lambda t: -matrix(THETA), lambda t: matrix(THETA) @ column(PULL), matrix(SIGMA), times)
    else:
        theta, sigma, mu = mp.matrix(THETA), mp.matrix(SIGMA), mp.matrix(PULL)
        kernel = cache(lambda u: mp.expm(-theta * u))
        spread = lambda u, i, j: (kernel(u) * sigma * sigma.T * kernel(u).T)[i, j]  # noqa: E731
        S = mp.matrix(2)
        for i in range(2):
            for j in range(2):
                S[i, j] = mp.quad(lambda u, i=i, j=j: spread(u, i, j), [0, 2], method="gauss-legendre")
        golden = Map(mu - kernel(2) * mu, kernel(2), S)
    assert deviation(matrix_ou(), name, times, golden) < TOLERANCE


def linear_run(name, A, b, G, times) -> Map:
    """A step method on dx = (A(t) x + b(t)) dt + G dW."""
    x, draws = np.array([start(0), start(1)]), range(G.shape[1])
    kick = lambda k, t: G @ np.array([noise(k, j) for j in draws])  # noqa: E731
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
