"""Golden laws: every stepper again, from its paper, in 40 digits.

The schemes (:mod:`golden.samplers`, :mod:`golden.step_methods`) and the processes share no code with sdekit;
:mod:`golden.cases` is where the two meet.

A golden law is deliberately simple. It says what the named scheme does on a given grid to Gaussian data (and to linear
SDEs), and the production solver must produce that law to rounding. Orders of convergence cannot see a slip that leaves
the order alone; a golden law sees any change of the scheme.

To add a solver: write its recursion here, from the paper and not from the solver's file, and enter it in
:data:`GOLDEN`. What it is tested on follows from the stepper's ``Spec``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from golden import ancestral, langevin, multistep, samplers, single_step, step_methods
from golden.form import Form, mp, noise
from golden.processes import Line


@dataclass(frozen=True)
class Golden:
    """What is known of one scheme. None: it does not integrate such problems.

    Attributes:
        reverse: ``(line, eta, times, x, i) -> x``: the way back along axis i of the data.
        forward: ``(line, times, x, i) -> x``: the forward process along axis i.
        method: ``(f, kick, times, x) -> x``: a step method, for any linear SDE.
        langevin: ``(mean, variance, times, x, i) -> x``: along axis i of a Gaussian target; for a Metropolis chain one
            step, ``(log_prob, score, gamma, x, z, uniform) -> (x, probability)``.
    """

    reverse: Callable[..., Form] | None = None
    forward: Callable[..., Form] | None = None
    method: Callable[..., Form] | None = None
    langevin: Callable[..., object] | None = None


def step_method(method, stochastic: bool) -> Golden:
    """A golden law for every kind of problem from a step method."""

    def reverse(line: Line, eta, times, x: Form, i: int) -> Form:
        kick = lambda k, t, z=noise: mp.mpf(eta) * mp.sqrt(line.process.g2(t)) * z(k, i)  # noqa: E731
        return method(lambda t, y: line.reverse_drift(t, y, eta), kick, times, x)

    def forward(line: Line, times, x: Form, i: int) -> Form:
        kick = lambda k, t, z=noise: mp.sqrt(line.process.g2(t)) * z(k, i)  # noqa: E731
        return method(line.drift, kick, times, x)

    return Golden(reverse, forward if stochastic else None, method)


GOLDEN: dict[str, Golden] = {
    "euler-maruyama": step_method(step_methods.euler_maruyama, stochastic=True),
    "milstein": step_method(step_methods.milstein, stochastic=True),
    "milstein-commutative": step_method(step_methods.milstein, stochastic=True),
    "milstein-general": step_method(step_methods.milstein_general, stochastic=False),
    **{
        name.replace("_", "-"): step_method(getattr(step_methods, name), stochastic=True)
        for name in ("milstein_free", "platen15", "sra3", "sosra", "sri2w1", "sosri")
    },
    "sra1": step_method(step_methods.sra1, stochastic=True),
    "sri1w1": step_method(step_methods.sri1w1, stochastic=True),
    "euler-heun": step_method(step_methods.euler_heun, stochastic=True),
    "heun-strat": step_method(step_methods.heun_strat, stochastic=True),
    "midpoint-strat": step_method(step_methods.midpoint_strat, stochastic=True),
    "sea": step_method(step_methods.sea, stochastic=True),
    "shark": step_method(step_methods.shark, stochastic=True),
    "slowrk": step_method(step_methods.slowrk, stochastic=True),
    "spark": step_method(step_methods.spark, stochastic=True),
    "reversible-heun": step_method(step_methods.reversible_heun, stochastic=True),
    "platen-weak2": step_method(step_methods.platen_weak2, stochastic=True),
    "ri6": step_method(step_methods.platen_weak2, stochastic=True),  # with additive noise they coincide
    "dri1": step_method(step_methods.dri1, stochastic=True),
    "euler": step_method(step_methods.euler, stochastic=False),
    "heun": step_method(step_methods.heun, stochastic=False),
    "rk4": step_method(step_methods.rk4, stochastic=False),
    **{
        name: step_method(getattr(step_methods, name), stochastic=False)
        for name in ("midpoint", "bosh3", "dopri5", "tsit5", "dopri8")
    },
    "exact-linear": Golden(samplers.exact_linear, samplers.exact_forward),
    "ddim": Golden(samplers.ddim),
    "dpmpp-2m": Golden(samplers.dpmpp_2m),
    "ula": Golden(langevin=langevin.ula),
    "mala": Golden(langevin=langevin.metropolis),
    "annealed-langevin": Golden(langevin.annealed(5)),
    "predictor-corrector": Golden(langevin.corrected(langevin.reverse_diffusion_step, "0.25")),
    "ddpm": Golden(ancestral.ddpm),
    "ddpm-beta": Golden(ancestral.ddpm_beta),
    "ancestral-ve": Golden(ancestral.ancestral_ve),
    "reverse-diffusion": Golden(ancestral.reverse_diffusion),
    "edm-euler": Golden(ancestral.edm(heun=False)),
    "edm-heun": Golden(ancestral.edm(heun=True)),
    "dpm-1": Golden(single_step.dpm_1),
    "dpm-2": Golden(single_step.dpm_2),
    "dpm-3": Golden(single_step.dpm_3),
    "dpmpp-2s": Golden(single_step.dpmpp_2s),
    "dpmpp-3s": Golden(single_step.seeds_3),
    "seeds2": Golden(single_step.seeds_2),
    "seeds3": Golden(single_step.seeds_3),
    "sigma-midpoint": Golden(single_step.sigma_midpoint),
    "dpmpp-3m": Golden(multistep.law("D", 3)),
    "sde-dpmpp-1": Golden(multistep.law("D", 1)),
    "sde-dpmpp-2m": Golden(multistep.midpoint_slope),
    "sde-dpmpp-3m": Golden(multistep.law("D", 3)),
    "sa-solver": Golden(multistep.law("D", 2, 2)),
    **{f"er-sde-{p}": Golden(multistep.law("D in rho", p)) for p in (1, 2, 3)},
    **{f"deis-{p}": Golden(multistep.law("eps in t", p)) for p in (1, 2, 3, 4)},
    **{f"etd-ab-{p}": Golden(multistep.law("eps", p)) for p in (1, 2, 3, 4)},
    **{f"unipc-{p}": Golden(multistep.law("D", p, p + 1)) for p in (1, 2, 3, 4)},
    **{f"v-ab-{p}": Golden(multistep.law("v", p)) for p in (1, 2, 3, 4)},
    **{f"v-abm-{p}": Golden(multistep.law("v", p, p + 1, apart=0.25)) for p in (1, 2, 3, 4)},
}
"""Registry name → golden law."""
