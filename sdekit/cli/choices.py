"""What can be named on the command line, read off the registries and the public names of the package."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import sdekit as sk
from sdekit.cli import page
from sdekit.linear import LinearProcess

if TYPE_CHECKING:
    from sdekit.laws import Law

Grid = Callable[..., Tensor]

_LEVELS = 1000
_CHAINS: dict[str, Callable[[], Tensor]] = {
    # The tables of the papers: DDPM's linear betas, and SMLD's geometric sigmas.
    "discretevp": lambda: torch.linspace(1e-4, 0.02, _LEVELS, dtype=torch.float64),
    "discreteve": lambda: torch.logspace(-2, 1.7, _LEVELS, dtype=torch.float64),
}

LEARNED = {"digits": "digits", "nine": "mixture"}
"""Data of which a learned score ships: its name here, and the name of its training task."""


def processes() -> dict[str, type[LinearProcess]]:
    """The public processes, by their class names in lower case."""
    found = {name.lower(): getattr(sk, name) for name in sk.__all__}
    return {n: c for n, c in sorted(found.items()) if inspect.isclass(c) and issubclass(c, LinearProcess)}


def process(name: str) -> LinearProcess:
    """A process with its default parameters; a chain with 1000 levels as in its paper."""
    made = processes()[name]
    return made(_CHAINS[name]()) if name in _CHAINS else made()  # type: ignore[call-arg]


def grids() -> dict[str, Grid]:
    """The grids that are functions of a process and a number of steps, by name."""
    return {name: f for name, f in vars(sk.grids).items() if inspect.isfunction(f) and _is_grid(name, f)}


def _is_grid(name: str, function: Callable[..., Any]) -> bool:
    """Whether ``function(process, steps)`` is all that it needs."""
    parameters = list(inspect.signature(function).parameters.values())
    public = not name.startswith("_") and [p.name for p in parameters[:2]] == ["process", "steps"]
    return public and all(p.default is not p.empty for p in parameters[2:])


def data() -> dict[str, str]:
    """The data laws, with a line each."""
    from sdekit.problems import reverse

    return {
        **{
            name: re.split(" with |: ", page.first_sentence(inspect.getdoc(make) or ""))[0]
            for name, make in reverse.DATA.items()
        },
        "nine": "nine Gaussians in the plane, on {-10, 0, 10}²; a learned score ships",
        "digits": "handwritten digits, 8 × 8 pixels; a learned score ships",
    }


def law(name: str) -> Law:
    """A data law. That of the digits is uniform on the training images."""
    from sdekit import data as sets
    from sdekit.problems import reverse

    if name == "digits":
        return sk.Empirical(sets.digits().train)
    return sets.nine_component_mixture() if name == "nine" else reverse.DATA[name]()
