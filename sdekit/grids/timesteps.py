r"""Grids of a network's integer timesteps: levels of a chain, exactly.

A network trained on a chain of L levels knows the times $t = i/L$, $i = 1 \dots L$ (its own timestep is i − 1). A
sampler of N steps asks it at N of them and ends at a level below, at the data, i = 0, if the chain has σ = 0 there.
With M levels to choose from, above the one at which the run ends, the spacings are, for k = 0 … N − 1,

| spacing | level above the end, in the order of the run |
|---|---|
| ``trailing`` | $\operatorname{round}(M (N - k)/N)$ |
| ``linspace`` | $1 + \operatorname{round}((M - 1)(N - 1 - k)/(N - 1))$ |
| ``leading`` | $1 + \text{offset} + \lfloor M/N \rfloor (N - 1 - k)$ |
| ``beta`` | the nearest free one to $1 + (M - 1)\,F^{-1}_{0.6,0.6}((N - 1 - k)/(N - 1))$ |

Trailing, linspace and beta begin at the last level, where the noise that a run starts from belongs. Leading does not:
its first level holds more signal than pure noise, which is the flaw that [lin2024] describes; it is here since networks
are published with it. Ties are rounded to even, as NumPy does.

References: [lin2024], Table 2; [lee2024beta].
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from sdekit.chains import ChainBeta, ChainSigma
from sdekit.errors import SdekitError, unknown_name
from sdekit.grids.basic import Timed, beta_quantiles, check_ends, check_steps

Spacing = Literal["trailing", "linspace", "leading", "beta"]


def from_timesteps(
    process: Timed,
    steps: int,
    t_min: float | None = None,
    t_max: float | None = None,
    *,
    spacing: Spacing = "trailing",
    offset: int = 0,
) -> Tensor:
    """A network's integer timesteps, levels i/L of a chain.

    Args:
        process: :class:`~sdekit.DiscreteVP` or :class:`~sdekit.DiscreteVE`, with L levels.
        steps: How often the network is asked.
        t_min: Where the run ends, a level; by default the data, t = 0, or the lowest level of DiscreteVE, which has no
            time without noise.
        t_max: The highest level that may be asked; by default the last one.
        spacing: ``trailing``, ``linspace``, ``leading`` or ``beta``.
        offset: Levels by which ``leading`` is moved up.

    Returns:
        ``steps + 1`` decreasing times.

    Raises:
        SdekitError: a process without levels, more steps than levels, an end that is no level, an offset that leads
            beyond the last level or goes with another spacing.
    """
    check_steps(steps)
    if spacing not in get_args(Spacing):
        raise unknown_name("spacing", spacing, get_args(Spacing))
    count, lowest = _levels(process)
    low = lowest if t_min is None else _level("t_min", t_min, count)
    high = _level("t_max", process.t_max if t_max is None else t_max, count)
    check_ends(low / count, high / count)
    if low < lowest:
        raise SdekitError(f"{_name(process)} has no level at t = {low / count:g}: its lowest is t_min = 1/{count}.")
    many = high - low
    if steps > many:
        raise SdekitError(f"There are {many} levels to ask at and {steps} steps: take {many} steps or fewer.")
    if not isinstance(offset, int) or (offset and spacing != "leading"):
        raise SdekitError(f"offset is a whole number that goes with spacing='leading'; got {offset!r} and {spacing!r}.")
    above = _SPACINGS[spacing](many, steps)
    if offset < 0 or above[0] + offset > many:
        raise SdekitError(
            f"An offset of {offset} leads from level {above[0]} out of the {many} levels: "
            f"with {steps} steps it can be 0 to {many - above[0]}."
        )
    chosen = [*(low + offset + i for i in above), low]
    return torch.tensor(chosen, dtype=torch.float64) / count


def _levels(process: Timed) -> tuple[int, int]:
    """L, and the lowest level at which a run may end."""
    schedule = process.schedule
    if isinstance(schedule, ChainBeta):
        return len(schedule.betas), 0
    if isinstance(schedule, ChainSigma):
        return len(schedule.sigmas), 1
    raise SdekitError(
        f"{_name(process)} has no integer timesteps: from_timesteps is for DiscreteVP(betas) and DiscreteVE(sigmas); "
        "elsewhere use grids.log_snr or grids.karras."
    )


def _name(process: Timed) -> str:
    return type(process).__name__


def _level(name: str, t: float, count: int) -> int:
    """The number of the level at this time."""
    i = round(t * count) if abs(t) <= 2.0 else -1
    if not (0 <= i <= count and abs(t * count - i) <= 1e-9 * count):
        raise SdekitError(f"{name} = {t:g} is no level i/{count} of this chain: take {name} = i/{count}.")
    return i


def _trailing(many: int, steps: int) -> list[int]:
    return [round(Fraction(many * (steps - k), steps)) for k in range(steps)]


def _linspace(many: int, steps: int) -> list[int]:
    if steps == 1:
        return [many]
    return [1 + round(Fraction((many - 1) * (steps - 1 - k), steps - 1)) for k in range(steps)]


def _leading(many: int, steps: int) -> list[int]:
    return [1 + many // steps * (steps - 1 - k) for k in range(steps)]


def _beta(many: int, steps: int) -> list[int]:
    """Rounded quantiles, moved apart where two meet: up from the lowest, then down from the highest."""
    if steps == 1:
        return [many]
    found = [1 + round((many - 1) * q) for q in beta_quantiles(steps - 1, 0.6, 0.6).tolist()]
    for k in reversed(range(steps - 1)):
        found[k] = max(found[k], found[k + 1] + 1)
    for k in range(steps):
        found[k] = min(found[k], many if k == 0 else found[k - 1] - 1)
    return found


_SPACINGS: dict[str, Callable[[int, int], list[int]]] = {
    "trailing": _trailing,
    "linspace": _linspace,
    "leading": _leading,
    "beta": _beta,
}
