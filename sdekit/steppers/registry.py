"""The registry: name → stepper class, and the question whether a stepper fits a problem."""

from __future__ import annotations

from functools import cache

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError, unknown_name
from sdekit.langevin import Langevin
from sdekit.reverse import Reverse
from sdekit.steppers import back_ends, sra, sri, stratonovich, weak_runge_kutta
from sdekit.steppers.ancestral import DDPM, AncestralVE, DDPMBeta, ReverseDiffusion
from sdekit.steppers.base import Spec, Stepper
from sdekit.steppers.ddim import DDIM
from sdekit.steppers.deis import DEIS, ETDAB
from sdekit.steppers.dpm import DPM1, DPM2, DPM3
from sdekit.steppers.dpmpp import DPMpp2M, DPMpp2S, DPMpp3M, DPMpp3S
from sdekit.steppers.edm import EDMEuler, EDMHeun
from sdekit.steppers.embedded import BoSh3, DoPri5, DoPri8, Tsit5
from sdekit.steppers.er_sde import ERSDE
from sdekit.steppers.euler_maruyama import EulerMaruyama
from sdekit.steppers.exact import ExactLinear
from sdekit.steppers.family import Family
from sdekit.steppers.langevin import ULA, AnnealedLangevin
from sdekit.steppers.metropolis import MALA
from sdekit.steppers.milstein import Milstein
from sdekit.steppers.milstein_general import MilsteinCommutative, MilsteinGeneral
from sdekit.steppers.platen import MilsteinFree, Platen15
from sdekit.steppers.platen_weak import PlatenWeak2
from sdekit.steppers.predictor_corrector import PredictorCorrector
from sdekit.steppers.rectified import VAB, VABM
from sdekit.steppers.reversible_heun import ReversibleHeun
from sdekit.steppers.runge_kutta import RK4, Euler, ExplicitRungeKutta, Heun, Midpoint, Tableau
from sdekit.steppers.sa_solver import SASolver
from sdekit.steppers.sde_dpmpp import SDEDPMpp1, SDEDPMpp2M, SDEDPMpp3M
from sdekit.steppers.seeds import SEEDS2, SEEDS3
from sdekit.steppers.shark import SEA, ShARK
from sdekit.steppers.sigma_midpoint import SigmaMidpoint
from sdekit.steppers.sra import SOSRA, SRA1, SRA3, SRATableau
from sdekit.steppers.sri import SOSRI, SRI1W1, SRI2W1, SRITableau
from sdekit.steppers.stratonovich import (
    EulerHeun,
    HeunStratonovich,
    MidpointStratonovich,
    SlowRK,
    SPaRK,
    StratonovichTableau,
)
from sdekit.steppers.unipc import UniPC
from sdekit.steppers.weak_runge_kutta import DRI1, RI6, WeakTableau

_FAMILIES: tuple[type[Family], ...] = (ERSDE, DEIS, ETDAB, UniPC, VAB, VABM)
_ALL: tuple[type[Stepper], ...] = (
    *(EulerMaruyama, Milstein, MilsteinCommutative, MilsteinGeneral, MilsteinFree, Platen15),
    *(SRA1, SRA3, SOSRA, SRI1W1, SRI2W1, SOSRI, Euler, Heun, Midpoint, RK4, BoSh3, DoPri5, Tsit5, DoPri8, ExactLinear),
    *(EulerHeun, HeunStratonovich, MidpointStratonovich, SEA, ShARK, SlowRK, SPaRK, ReversibleHeun),
    *(PlatenWeak2, RI6, DRI1),
    *(DDIM, DDPM, DDPMBeta, AncestralVE, ReverseDiffusion, EDMEuler, EDMHeun),
    *(DPM1, DPM2, DPM3, DPMpp2S, DPMpp3S, DPMpp2M, DPMpp3M),
    *(SDEDPMpp1, SDEDPMpp2M, SDEDPMpp3M, SEEDS2, SEEDS3, SASolver, SigmaMidpoint),
    *(member for family in _FAMILIES for member in family.members()),
    *(ULA, MALA, AnnealedLangevin, PredictorCorrector),
)

STEPPERS: dict[str, type[Stepper]] = {stepper.spec.name: stepper for stepper in _ALL}
"""Name → stepper class."""

TABLEAUS: dict[str, Tableau | SRATableau | SRITableau | StratonovichTableau | WeakTableau] = {
    **{name: stepper.tableau for name, stepper in STEPPERS.items() if issubclass(stepper, ExplicitRungeKutta)},
    **sra.TABLEAUS,
    **sri.TABLEAUS,
    **stratonovich.TABLEAUS,
    **weak_runge_kutta.TABLEAUS,
}
"""Name → tableau: those of the steppers, and published ones that no stepper takes yet."""


def names() -> tuple[str, ...]:
    """All that :func:`get` knows: the steppers here, and the methods of other libraries, installed or not."""
    return *STEPPERS, *back_ends.names()


def get(stepper: str | Stepper) -> Stepper:
    """A stepper from its registry name, or from ``library:method``, or itself.

    Raises:
        SdekitError: an unknown name; the nearest one is suggested. A library that is not installed.
    """
    if isinstance(stepper, Stepper):
        return stepper
    if ":" in str(stepper):
        return back_ends.method(stepper)
    if stepper not in STEPPERS:
        raise unknown_name("stepper", stepper, names())
    return _made(STEPPERS[stepper])


@cache
def _made(cls: type[Stepper]) -> Stepper:
    """One instance for all: steppers keep no state, and an instance knows the plans that it made."""
    return cls()


def obstacle(spec: Spec, sde: SDE) -> str | None:
    """Why a stepper with these declared facts cannot integrate ``sde``; None if it can."""
    reverse = isinstance(sde, Reverse)
    if isinstance(sde, Reverse):
        low, high = spec.eta
        if not low <= sde.eta <= high:
            wanted = f"eta = {low:g}" if low == high else f"eta in [{low:g}, {high:g}]"
            return f"it integrates {wanted}, and this problem has eta = {sde.eta:g}"
    if spec.needs_schedule and not (reverse and sde.schedule is not None):  # type: ignore[attr-defined]
        return "it is written in the log-SNR, so it needs the reverse of a process with a schedule"
    if spec.needs_langevin and not isinstance(sde, Langevin):
        return "it samples the target of a Langevin diffusion, sk.Langevin(law)"
    if sde.noise_type not in spec.noise_types:
        return f"it does not integrate {sde.noise_type} noise"
    if _foreign(spec, sde):
        return f"it is not a method of {sde.calculus} calculus"
    return None


def _foreign(spec: Spec, sde: SDE) -> bool:
    """Whether ``sde`` is told in a calculus that the stepper does not integrate; for additive noise they agree."""
    return sde.noise_type not in ("none", "additive") and sde.calculus not in spec.calculus


def _integrates(cls: type[Stepper], sde: SDE) -> bool:
    """Whether a stepper takes ``sde``; an exact one knows only when it looks for the kernel."""
    if obstacle(cls.spec, sde) is not None:
        return False
    try:
        return cls.spec.kind != "exact" or bool(cls().prepare(sde, (1.0, 0.5)))
    except SdekitError:
        return False


def check(stepper: Stepper, sde: SDE) -> None:
    """Refuse a stepper that cannot integrate ``sde``, naming those that can."""
    reason = obstacle(stepper.spec, sde)
    if reason is not None:
        able = [name for name, cls in STEPPERS.items() if _integrates(cls, sde)]
        cure = f"Steppers that can: {', '.join(able)}." if able else "No registered stepper can."
        if stepper.spec.noise_types >= {sde.noise_type} and _foreign(stepper.spec, sde):
            (other,) = stepper.spec.calculus
            cure += f" Or tell it in the other calculus: {stepper.spec.name} takes sk.to_{other}(sde)."
        raise SdekitError(f"{stepper.spec.name} cannot solve this problem: {reason}. {cure}")
