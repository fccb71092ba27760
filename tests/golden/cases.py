"""Where golden laws are compared with production laws: data, processes, starts and jagged grids."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

import sdekit as sk
from golden import GOLDEN, Golden, processes
from golden.form import Map, mp, start
from golden.processes import Line, Process
from sdekit.dynamics import SDE
from sdekit.steppers import Stepper, registry
from sdekit.verify import affine_map, numerical_law

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

    process: sk.linear.ScheduledProcess | sk.OU
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
    """Times uniform in t^(1/ρ), but for steps as 1 : 3 : 2."""
    weights = [(1, 3, 2)[k % 3] for k in range(steps)]
    part = [w / sum(weights) for w in accumulate(weights)]
    a, b = first ** (1 / rho), last ** (1 / rho)
    return [first, *((a + p * (b - a)) ** rho for p in part[:-1]), last]


MU = (0.4, -1.2, 0.9)
CASES = {
    "VP": Case(sk.VP(), processes.vp(0.1, 20.0), 1e-3, 1.0),
    "VE": Case(sk.VE(), processes.ve(0.01, 50.0), 0.0, 1.0, rho=1.0),
    "OU": Case(sk.OU(1.3, 0.7, 0.9), processes.ou(1.3, 0.9), 1e-2, 3.0, q=(0.7, 0.7, 0.7)),
    "OU, a mean per coordinate": Case(sk.OU(0.8, double(mp.matrix(MU)), 1.4), processes.ou(0.8, 1.4), 1e-2, 3.0, q=MU),
    "SubVP": Case(sk.SubVP(), processes.sub_vp(0.1, 20.0), 1e-2, 1.0),
    "Cosine": Case(sk.Cosine(), processes.cosine(0.008), 1e-2, 0.98),
    "EDM": Case(sk.EDM(), processes.edm(), 0.002, 80.0, rho=7.0),
    "Flow": Case(sk.Flow(), processes.flow(), 1e-2, 0.97),
    "Brownian": Case(sk.Brownian(-0.4, 1.7), processes.brownian(1.7), 1e-2, 1.0, q=(-0.4, -0.4, -0.4)),
}

BETAS = [0.002 + 0.006 * i for i in range(24)]
CHAIN = Case(sk.DiscreteVP(BETAS), processes.ddpm_chain(BETAS), 1 / 24, 1.0)
"""Known at its 24 levels t = i/24 only."""


def golden_map(scheme: str | Golden, case: Case, eta: float, times: list[float]) -> Map:
    """What a scheme, or the one of this name, does on a reverse problem."""
    law = (GOLDEN[scheme] if isinstance(scheme, str) else scheme).reverse
    assert law is not None, f"GOLDEN[{scheme!r}] needs a law for reverse problems: its Spec says that it solves them"
    exact = [mp.mpf(t) for t in times]
    forms = [law(line, eta, exact, start(i), i) for i, line in enumerate(case.lines())]
    return Map.of(forms).turned(AXES)


def deviation(sde: SDE, stepper: str | Stepper, times: list[float], golden: Map) -> float:
    """Largest deviation of the production law, and of its map, from the golden ones, relative to a state's size."""
    d = golden.c.rows
    run = affine_map(sde, stepper, times, (d,))
    discrete = registry.get(stepper).spec.increments in ("three-point", "two-point")  # then the law is not Gaussian
    law = run.push(STARTS[d]) if discrete else numerical_law(sde, stepper, times, STARTS[d])
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


def reverse_sde(case: Case, eta: float) -> sk.reverse.Reverse:
    return sk.reverse_time(case.process, sk.exact_score(DATA, case.process), eta)


def solves(name: str, sde: SDE) -> bool:
    """Whether the Spec of a registered stepper says that it integrates ``sde``."""
    return name in sk.STEPPERS and registry.obstacle(sk.STEPPERS[name].spec, sde) is None
