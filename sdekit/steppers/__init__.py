"""Steppers: one method, or one family of tableaus, per file; :mod:`~sdekit.steppers.registry` lists them."""

from sdekit.steppers.ancestral import DDPM, AncestralVE, DDPMBeta, ReverseDiffusion
from sdekit.steppers.assembly import Multistep
from sdekit.steppers.base import Prepared, Spec, Step, StepMethod, Stepper
from sdekit.steppers.correctors import Corrector, LangevinCorrector, MetropolisCorrector, SNRCorrector
from sdekit.steppers.ddim import DDIM
from sdekit.steppers.deis import DEIS, ETDAB
from sdekit.steppers.dpm import DPM1, DPM2, DPM3
from sdekit.steppers.dpmpp import DPMpp2M, DPMpp2S, DPMpp3M, DPMpp3S
from sdekit.steppers.edm import Churn, EDMEuler, EDMHeun
from sdekit.steppers.embedded import BoSh3, DoPri5, DoPri8, EmbeddedRungeKutta, Pair, Tsit5
from sdekit.steppers.er_sde import ERSDE
from sdekit.steppers.euler_maruyama import EulerMaruyama
from sdekit.steppers.exact import ExactLinear
from sdekit.steppers.langevin import ULA, AnnealedLangevin
from sdekit.steppers.metropolis import MALA
from sdekit.steppers.milstein import Milstein
from sdekit.steppers.milstein_general import MilsteinCommutative, MilsteinGeneral
from sdekit.steppers.plan import Plan, PlannedStepper, Row
from sdekit.steppers.platen import MilsteinFree, Platen15
from sdekit.steppers.platen_weak import PlatenWeak2
from sdekit.steppers.predictor_corrector import PredictorCorrector
from sdekit.steppers.rectified import VAB, VABM
from sdekit.steppers.registry import STEPPERS, TABLEAUS
from sdekit.steppers.reversible_heun import ReversibleHeun
from sdekit.steppers.runge_kutta import RK4, Euler, Heun, Midpoint
from sdekit.steppers.sa_solver import SASolver
from sdekit.steppers.sde_dpmpp import SDEDPMpp1, SDEDPMpp2M, SDEDPMpp3M
from sdekit.steppers.seeds import SEEDS2, SEEDS3
from sdekit.steppers.shark import SEA, ShARK
from sdekit.steppers.sigma_midpoint import SigmaMidpoint
from sdekit.steppers.sra import SOSRA, SRA1, SRA3
from sdekit.steppers.sri import SOSRI, SRI1W1, SRI2W1
from sdekit.steppers.stratonovich import EulerHeun, HeunStratonovich, MidpointStratonovich, SlowRK, SPaRK
from sdekit.steppers.unipc import UniPC
from sdekit.steppers.weak_runge_kutta import DRI1, RI6

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPM1",
    "DPM2",
    "DPM3",
    "DRI1",
    "ERSDE",
    "ETDAB",
    "MALA",
    "RI6",
    "RK4",
    "SEA",
    "SEEDS2",
    "SEEDS3",
    "SOSRA",
    "SOSRI",
    "SRA1",
    "SRA3",
    "SRI1W1",
    "SRI2W1",
    "STEPPERS",
    "TABLEAUS",
    "ULA",
    "VAB",
    "VABM",
    "AncestralVE",
    "AnnealedLangevin",
    "BoSh3",
    "Churn",
    "Corrector",
    "DDPMBeta",
    "DPMpp2M",
    "DPMpp2S",
    "DPMpp3M",
    "DPMpp3S",
    "DoPri5",
    "DoPri8",
    "EDMEuler",
    "EDMHeun",
    "EmbeddedRungeKutta",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "ExactLinear",
    "Heun",
    "HeunStratonovich",
    "LangevinCorrector",
    "MetropolisCorrector",
    "Midpoint",
    "MidpointStratonovich",
    "Milstein",
    "MilsteinCommutative",
    "MilsteinFree",
    "MilsteinGeneral",
    "Multistep",
    "Pair",
    "Plan",
    "PlannedStepper",
    "Platen15",
    "PlatenWeak2",
    "PredictorCorrector",
    "Prepared",
    "ReverseDiffusion",
    "ReversibleHeun",
    "Row",
    "SASolver",
    "SDEDPMpp1",
    "SDEDPMpp2M",
    "SDEDPMpp3M",
    "SNRCorrector",
    "SPaRK",
    "ShARK",
    "SigmaMidpoint",
    "SlowRK",
    "Spec",
    "Step",
    "StepMethod",
    "Stepper",
    "Tsit5",
    "UniPC",
]
