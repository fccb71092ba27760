"""Algebraic order conditions of Runge–Kutta tableaus, deterministic and stochastic, in exact arithmetic."""

from sdekit.verify.conditions.stochastic import residuals
from sdekit.verify.conditions.stratonovich import stratonovich_residuals
from sdekit.verify.conditions.trees import runge_kutta_order, runge_kutta_residuals

__all__ = ["residuals", "runge_kutta_order", "runge_kutta_residuals", "stratonovich_residuals"]
