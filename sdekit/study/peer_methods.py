"""Methods of other libraries that the study measures: what each claims, and how to make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Literal, final

from sdekit.interop.whole_runs import Method
from sdekit.steppers.base import Stepper

Measure = Literal["flow", "w2", "strong"]

_SMALL = (8, 16, 32, 64)
_TWOS = (16, 32, 64, 128, 256)
_TENS = (10, 20, 40, 80, 160, 320)
_LOADING = Lock()

# What an independent prototype measured at the step counts _TENS, to two figures.
_FIRST = (8.1e-2, 4.1e-2, 2.0e-2, 1.0e-2, 5.1e-3, 2.5e-3)
_HEUN = (2.8e-2, 6.2e-3, 1.5e-3, 3.5e-4, 8.8e-5, 2.2e-5)
_DPMPP_2M = (1.6e-2, 4.4e-3, 1.2e-3, 3.0e-4, 7.6e-5, 1.9e-5)
_DPMPP_3M = (8.0e-3, 1.7e-3, 3.1e-4, 7.0e-5, 1.7e-5, 4.2e-6)
_DEIS_3 = (9.7e-3, 2.2e-3, 3.5e-4, 4.7e-5, 6.1e-6, 7.7e-7)
_ANCESTRAL = (1.2e-1, 6.6e-2, 3.5e-2, 1.8e-2, 9.2e-3, 4.6e-3)
_SDE_DPMPP_2M = (1.2e-2, 6.0e-3, 1.7e-3, 4.3e-4, 1.1e-4, 2.7e-5)


@final
@dataclass(frozen=True)
class Peer:
    """A method of another library on a problem.

    Attributes:
        library: Its distribution.
        method: For people.
        problem: Key of the problem.
        measure: Which error.
        claim: The order that the library or the method's paper states for it.
        make: The stepper or the whole run; imports the library.
        steps: Step counts.
        prototype: Errors at these that an independent prototype measured; none for most.
        calls: Evaluations of the network in a step.
    """

    library: str
    method: str
    problem: str
    measure: Measure
    claim: float
    make: Callable[[], Stepper | Method]
    steps: tuple[int, ...]
    prototype: tuple[float, ...] = ()
    calls: int = 1

    @property
    def name(self) -> str:
        """The name of its record."""
        words = self.method.lower().replace(" ", "-").replace("η=", "eta=").replace("τ=", "tau=").replace(",", "")
        return f"{self.library}/{words}/{self.measure}"


# --- what runs ------------------------------------------------------------------------------------


def _torchsde(method: str) -> Stepper:
    from sdekit.interop import torchsde

    return torchsde.stepper(method, areas=False)  # what is measured has noises that commute


def _torchdiffeq(method: str, **options: Any) -> Stepper:
    from sdekit.interop import torchdiffeq

    return torchdiffeq.stepper(method, **options)


def scheduler_class(name: str) -> Any:
    """Of diffusers, which finds its classes when asked for them, one thread at a time."""
    with _LOADING:
        import diffusers

        return getattr(diffusers, f"{name}Scheduler")


def _scheduler(name: str, **options: Any) -> Stepper:
    from sdekit.interop import schedulers

    return schedulers.stepper(scheduler_class(name)(prediction_type="epsilon", **options))


def _dpm(order: int, **options: Any) -> Callable[[], Stepper]:
    open_end = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
    return partial(_scheduler, "DPMSolverMultistep", solver_order=order, **open_end, **options)


def _unipc(order: int) -> Callable[[], Stepper]:
    open_end = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
    return partial(_scheduler, "UniPCMultistep", solver_order=order, **open_end)


def _k_diffusion(name: str, **options: Any) -> Method:
    from sdekit.interop import k_diffusion

    return k_diffusion.method(name, **options)


def _azula(name: str, **options: Any) -> Method:
    from sdekit.interop import azula

    return azula.method(name, **options)


def _of_torchsde() -> Iterator[Peer]:
    # What torchsde declares for additive noise, weak and strong.
    claims = {
        "euler": (1.0, 1.0),
        "milstein": (1.0, 1.0),
        "srk": (1.5, 1.5),
        "heun": (1.0, 1.0),
        "midpoint": (1.0, 1.0),
        "euler_heun": (1.0, 1.0),
        "reversible_heun": (1.0, 1.0),
        "log_ode": (1.0, 1.0),
    }
    for method, (weak, strong) in claims.items():
        make = partial(_torchsde, method)
        yield Peer("torchsde", method, "ou", "w2", weak, make, _SMALL)
        yield Peer("torchsde", method, "ou", "strong", strong, make, _SMALL)


def _of_torchdiffeq() -> Iterator[Peer]:
    for method, claim in (("euler", 1.0), ("midpoint", 2.0), ("heun2", 2.0), ("heun3", 3.0), ("rk4", 4.0)):
        yield Peer("torchdiffeq", method, "vp-mixture", "flow", claim, partial(_torchdiffeq, method), _TWOS)
    adams = partial(_torchdiffeq, "explicit_adams", max_order=5)  # its fourth order; the default goes to the eleventh
    yield Peer("torchdiffeq", "explicit_adams", "vp-mixture", "flow", 4.0, adams, _TWOS)
    yield Peer("torchdiffeq", "explicit_adams, equal steps", "vp-mixture-equal", "flow", 4.0, adams, _TWOS)


def _of_diffusers() -> Iterator[Peer]:
    ddim, deis = partial(_scheduler, "DDIM", clip_sample=False), partial(_scheduler, "DEISMultistep", solver_order=3)
    heun = partial(_scheduler, "HeunDiscrete")
    flows: tuple[tuple[str, float, Callable[[], Stepper], tuple[float, ...]], ...] = (
        ("DDIM", 1.0, ddim, _FIRST),
        ("Euler", 1.0, partial(_scheduler, "EulerDiscrete"), _FIRST),
        ("Heun", 2.0, heun, _HEUN),
        ("DPM++2M", 2.0, _dpm(2), _DPMPP_2M),
        ("DPM++3M", 3.0, _dpm(3), _DPMPP_3M),
        ("DEIS-3", 3.0, partial(deis, lower_order_final=False), _DEIS_3),
        ("UniPC-2", 3.0, _unipc(2), (9.6e-3, 1.9e-3, 2.6e-4, 3.1e-5, 3.8e-6, 4.6e-7)),
        ("UniPC-3", 4.0, _unipc(3), (1.6e-2, 4.1e-4, 2.7e-5, 3.4e-6, 2.7e-7, 1.9e-8)),
        ("UniPC-4", 5.0, _unipc(4), (2.8e-2, 1.2e-3, 3.2e-5, 1.3e-6, 4.2e-8, 1.2e-9)),
    )
    sa = partial(_scheduler, "SASolver", predictor_order=3, corrector_order=4, tau_func=_one, lower_order_final=False)
    sdes: tuple[tuple[str, float, Callable[[], Stepper], tuple[float, ...]], ...] = (
        ("DDPM", 1.0, partial(_scheduler, "DDPM", clip_sample=False), _ANCESTRAL),
        ("DDIM η=1", 1.0, ddim, _ANCESTRAL),
        ("Euler ancestral", 1.0, partial(_scheduler, "EulerAncestralDiscrete"), _ANCESTRAL),
        ("sde-DPM++2M", 2.0, _dpm(2, algorithm_type="sde-dpmsolver++"), _SDE_DPMPP_2M),
        ("sde-DPM++3M", 3.0, _dpm(3, algorithm_type="sde-dpmsolver++"), ()),
        ("SASolver P3C4 τ=1", 4.0, sa, (4.4e-2, 3.0e-3, 6.4e-4, 1.6e-4, 3.9e-5, 9.7e-6)),
    )
    for method, claim, make, figures in flows:
        calls = 2 if method == "Heun" else 1
        yield Peer("diffusers", method, "ve-mixture", "flow", claim, make, _TENS, figures, calls)
    for method, claim, make, figures in sdes:
        yield Peer("diffusers", method, "ve-normal", "w2", claim, make, _TENS, figures)


def _of_k_diffusion() -> Iterator[Peer]:
    # Claims are those of the papers that its functions name; η = 0 makes a flow's method of a stochastic one.
    flows: tuple[tuple[str, float, int, dict[str, Any], tuple[float, ...]], ...] = (
        ("euler", 1.0, 1, {}, _FIRST),
        ("heun", 2.0, 2, {}, _HEUN),
        ("dpm_2", 2.0, 2, {}, ()),
        ("lms", 4.0, 1, {}, ()),
        ("dpmpp_2m", 2.0, 1, {}, _DPMPP_2M),
        ("dpmpp_2s_ancestral", 2.0, 2, {"eta": 0.0}, ()),
        ("dpmpp_3m_sde", 3.0, 1, {"eta": 0.0}, _DPMPP_3M),
    )
    sdes: tuple[tuple[str, float, int, dict[str, Any], tuple[float, ...]], ...] = (
        ("euler_ancestral", 1.0, 1, {}, _ANCESTRAL),
        ("dpm_2_ancestral", 2.0, 2, {}, ()),
        ("dpmpp_2s_ancestral", 2.0, 2, {}, ()),
        ("dpmpp_sde", 2.0, 2, {}, (1.7e-2, 4.2e-3, 9.4e-4, 2.1e-4, 4.8e-5, 1.2e-5)),
        ("dpmpp_2m_sde", 2.0, 1, {}, _SDE_DPMPP_2M),
        ("dpmpp_3m_sde", 3.0, 1, {}, ()),
    )
    for name, claim, calls, options, figures in flows:
        make, method = partial(_k_diffusion, name, **options), name + (" η=0" if options else "")
        yield Peer("k-diffusion", method, "ve-mixture", "flow", claim, make, _TENS, figures, calls)
    for name, claim, calls, options, figures in sdes:
        make = partial(_k_diffusion, name, **options)
        yield Peer("k-diffusion", name, "ve-normal", "w2", claim, make, _TENS, figures, calls)


def _of_azula() -> Iterator[Peer]:
    third = {"zEAB": _DEIS_3, "xEAB": (8.9e-3, 1.4e-3, 1.3e-4, 1.3e-5, 1.5e-6, 2.2e-7)}
    yield Peer("azula", "Euler", "ve-mixture", "flow", 1.0, partial(_azula, "Euler"), _TENS, _FIRST)
    yield Peer("azula", "Heun", "ve-mixture", "flow", 2.0, partial(_azula, "Heun"), _TENS, _HEUN, 2)
    for name in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        for order in (2,) if name == "REAB" else (3, 4):
            make, figures = partial(_azula, name, order=order), third.get(name, ()) if order == 3 else ()
            yield Peer("azula", f"{name}-{order}", "ve-mixture", "flow", float(order), make, _TENS, figures)
    yield Peer("azula", "DDPM", "ve-normal", "w2", 1.0, partial(_azula, "DDPM"), _TENS, _ANCESTRAL)
    yield Peer("azula", "Ito", "ve-normal", "w2", 1.0, partial(_azula, "Ito"), _TENS)


def _one(timestep: Any) -> float:
    return 1.0


def peers() -> list[Peer]:
    """Every method, whether its library is there or not."""
    return [*_of_torchsde(), *_of_torchdiffeq(), *_of_diffusers(), *_of_k_diffusion(), *_of_azula()]
