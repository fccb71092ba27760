"""Steppers: one method, or one family of tableaus, per file; :mod:`~sdekit.steppers.registry` lists them."""

from sdekit.steppers.base import Prepared, Spec, Step, StepMethod, Stepper
from sdekit.steppers.ddim import DDIM
from sdekit.steppers.dpmpp import DPMpp2M
from sdekit.steppers.euler_maruyama import EulerMaruyama
from sdekit.steppers.exact import ExactLinear
from sdekit.steppers.milstein import Milstein
from sdekit.steppers.plan import Plan, PlannedStepper, Row
from sdekit.steppers.registry import STEPPERS, TABLEAUS
from sdekit.steppers.runge_kutta import RK4, Euler, Heun
from sdekit.steppers.sra import SRA1
from sdekit.steppers.sri import SRI1W1

__all__ = [
    "DDIM",
    "RK4",
    "SRA1",
    "SRI1W1",
    "STEPPERS",
    "TABLEAUS",
    "DPMpp2M",
    "Euler",
    "EulerMaruyama",
    "ExactLinear",
    "Heun",
    "Milstein",
    "Plan",
    "PlannedStepper",
    "Prepared",
    "Row",
    "Spec",
    "Step",
    "StepMethod",
    "Stepper",
]
