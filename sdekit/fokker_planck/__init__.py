"""The law of an SDE without sampling: densities on the line, Gaussians in d dimensions, and what is stationary."""

from sdekit.fokker_planck.continuity import residual
from sdekit.fokker_planck.equilibrium import stationary
from sdekit.fokker_planck.evolution import solve
from sdekit.fokker_planck.linear import linear_kernel, linear_stationary
from sdekit.fokker_planck.marginal import Marginal, Marginals

__all__ = ["Marginal", "Marginals", "linear_kernel", "linear_stationary", "residual", "solve", "stationary"]
