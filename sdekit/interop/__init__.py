"""Bridges to other libraries; each is imported by name, so that none is needed.

torchsde and torchdiffeq are back ends: the registry knows their methods as ``torchsde:srk`` or ``torchdiffeq:rk4``.
"""

from importlib import import_module

from sdekit.interop.torchsde_fields import from_torchsde, to_torchsde
from sdekit.steppers.back_ends import BackEnd, register
from sdekit.steppers.base import Stepper

__all__ = ["from_torchsde", "to_torchsde"]


def _torchsde(method: str) -> Stepper:
    made: Stepper = import_module("sdekit.interop.torchsde").stepper(method)
    return made


def _torchdiffeq(method: str) -> Stepper:
    made: Stepper = import_module("sdekit.interop.torchdiffeq").stepper(method)
    return made


register(
    BackEnd(
        "torchsde",
        ("euler", "milstein", "srk", "heun", "midpoint", "euler_heun", "reversible_heun", "log_ode"),
        _torchsde,
    )
)
register(
    BackEnd(
        "torchdiffeq",
        (
            *("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams"),
            *("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"),
        ),
        _torchdiffeq,
    )
)
