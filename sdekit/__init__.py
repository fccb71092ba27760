"""sdekit: SDE solvers in PyTorch whose convergence is verified."""

from sdekit import fokker_planck, grids, metrics, problems, score, verify
from sdekit.brownian import BrownianGrid, Increment, RecordedBrownian
from sdekit.driver import solve
from sdekit.dynamics import sde
from sdekit.errors import SdekitError
from sdekit.laws import Empirical, Gaussian, GaussianMixture
from sdekit.ornstein_uhlenbeck import OU, Brownian
from sdekit.processes import EDM, VE, VP, Cosine, DiscreteVE, DiscreteVP, Flow, SubVP
from sdekit.reverse import probability_flow, reverse_time
from sdekit.score import exact_score
from sdekit.solution import Solution, Status
from sdekit.steppers import (
    DDIM,
    RK4,
    SRA1,
    SRI1W1,
    STEPPERS,
    DPMpp2M,
    Euler,
    EulerMaruyama,
    ExactLinear,
    Heun,
    Milstein,
)
from sdekit.version import __version__

__all__ = [
    "DDIM",
    "EDM",
    "OU",
    "RK4",
    "SRA1",
    "SRI1W1",
    "STEPPERS",
    "VE",
    "VP",
    "Brownian",
    "BrownianGrid",
    "Cosine",
    "DPMpp2M",
    "DiscreteVE",
    "DiscreteVP",
    "Empirical",
    "Euler",
    "EulerMaruyama",
    "ExactLinear",
    "Flow",
    "Gaussian",
    "GaussianMixture",
    "Heun",
    "Increment",
    "Milstein",
    "RecordedBrownian",
    "SdekitError",
    "Solution",
    "Status",
    "SubVP",
    "__version__",
    "exact_score",
    "fokker_planck",
    "grids",
    "metrics",
    "probability_flow",
    "problems",
    "reverse_time",
    "score",
    "sde",
    "solve",
    "verify",
]
