r"""SDEs of torchsde as ours, and ours as torchsde's.

There an SDE is an object with ``noise_type``, ``sde_type`` and fields ``f(t, y)``, ``g(t, y)`` on rows y of shape
(B, d), with t a tensor without dimensions. The forms of a diffusion side by side:

| | torchsde | here |
|---|---|---|
| diagonal | (B, d) | diagonal, (B, d) |
| scalar | (B, d, 1) | scalar, (B, d) |
| additive | (B, d, m) | additive, (B, d, m) or, with a noise for each coordinate, (B, d) |
| general | (B, d, m) | general or commutative, (B, d, m) |

An SDE that only goes down in time is told in the clock $s = -t$, for torchsde's times rise.

References: [li2020torchsde].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import FunctionType, MethodType
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.func import vmap

from sdekit.dynamics import SDE, GeneralSDE, Reflected
from sdekit.errors import SdekitError, unknown_name
from sdekit.score import Score
from sdekit.typing import Calculus, Shape, Time

Form = Literal["diagonal", "scalar", "additive", "general"]
"""What torchsde calls the types of noise."""

_NAMES = {
    "drift": "f",
    "diffusion": "g",
    "drift_and_diffusion": "f_and_g",
    "diffusion_prod": "g_prod",
    "drift_and_diffusion_prod": "f_and_g_prod",
}

_Fields = Callable[[Tensor, Tensor], Tensor]


# --- from torchsde --------------------------------------------------------------------------------


def from_torchsde(sde: Any, noises: int | None = None, names: Mapping[str, str] | None = None) -> GeneralSDE:
    """An SDE of torchsde as ours; its parameters stay those of its networks.

    States have shape (B, d). Its fields see a time as a tensor without dimensions; where every sample has a time of its
    own, as with a controller, they are mapped over samples by ``torch.func.vmap``.

    Args:
        sde: With ``noise_type`` and ``sde_type``; with ``f``, ``f_and_g`` or ``f_and_g_prod``; and with ``g``,
            ``f_and_g``, ``g_prod`` or ``f_and_g_prod``.
        noises: m, where only products with the diffusion are had and the noise is additive or general.
        names: Of these methods, where they are called otherwise, as in ``torchsde.sdeint``: ``{"drift": "h"}``.

    Raises:
        SdekitError: a type or a field that is missing or unknown, or products without ``noises``.
    """
    form, calculus = _declared(sde, "noise_type", get_args(Form)), _declared(sde, "sde_type", get_args(Calculus))
    unknown = set(names or {}) - _NAMES.keys()
    if unknown:
        raise unknown_name("field of an SDE of torchsde", min(unknown), _NAMES)
    called = {**_NAMES, **(names or {})}
    had = {part: getattr(sde, called[part], None) for part in _NAMES}
    told = _Told(form, {"diagonal": 0, "scalar": 1}.get(form, noises), had)
    for what, ways in _WAYS.items():
        if all(had[way] is None for way in ways):
            listed = ", ".join(called[way] for way in ways)
            raise SdekitError(f"{type(sde).__name__} has no {what}: torchsde takes it from one of {listed}.")
    if told.noises is None and had["diffusion"] is None and had["drift_and_diffusion"] is None:
        raise SdekitError(
            f"{type(sde).__name__} has products with its {form} diffusion only, from which its number of noises cannot "
            "be read: give noises=m."
        )
    return GeneralSDE(told.drift, told.diffusion, form, calculus)


_WAYS = {
    "drift": ("drift", "drift_and_diffusion", "drift_and_diffusion_prod"),
    "diffusion": ("diffusion", "drift_and_diffusion", "diffusion_prod", "drift_and_diffusion_prod"),
}


def _declared(sde: Any, attribute: str, known: tuple[Any, ...]) -> Any:
    if not hasattr(sde, attribute):
        raise SdekitError(
            f"{type(sde).__name__} has no {attribute}, which torchsde asks for: set it to one of {', '.join(known)}."
        )
    if getattr(sde, attribute) not in known:
        raise unknown_name(f"{attribute} of torchsde", getattr(sde, attribute), known)
    return getattr(sde, attribute)


@final
@dataclass(frozen=True, eq=False)
class _Told:
    """The fields of an SDE of torchsde, whichever of them it has."""

    form: Form
    noises: int | None  # 0 for one per coordinate
    had: Mapping[str, Any]

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return _at(self._drift, t, x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        g = _at(self._diffusion, t, x)
        wanted = "(B, d)" if self.form == "diagonal" else "(B, d, m)"
        if g.ndim != wanted.count(",") + 1:
            raise SdekitError(
                f"The diffusion of {self.form} noise has shape {wanted} in torchsde; it returned {tuple(g.shape)}."
            )
        return g.squeeze(-1) if self.form == "scalar" else g

    def _drift(self, t: Tensor, y: Tensor) -> Tensor:
        found: Tensor
        if self.had["drift"] is not None:
            found = self.had["drift"](t, y)
        elif self.had["drift_and_diffusion"] is not None:
            found = self.had["drift_and_diffusion"](t, y)[0]
        else:
            found = self.had["drift_and_diffusion_prod"](t, y, y.new_zeros(len(y), self._m(y)))[0]
        return found

    def _diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        found: Tensor
        if self.had["diffusion"] is not None:
            found = self.had["diffusion"](t, y)
        elif self.had["drift_and_diffusion"] is not None:
            found = self.had["drift_and_diffusion"](t, y)[1]
        elif self.form == "diagonal":
            found = self._times(t, y, torch.ones_like(y))
        else:
            unit = torch.eye(self._m(y), dtype=y.dtype, device=y.device)
            found = torch.stack([self._times(t, y, v.expand(len(y), -1)) for v in unit], -1)
        return found

    def _times(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """G v."""
        found: Tensor
        if self.had["diffusion_prod"] is not None:
            found = self.had["diffusion_prod"](t, y, v)
        else:
            found = self.had["drift_and_diffusion_prod"](t, y, v)[1]
        return found

    def _m(self, y: Tensor) -> int:
        return self.noises or y.shape[1]


def _at(field: _Fields, t: Time, x: Tensor) -> Tensor:
    """A field of torchsde at a time of ours."""
    time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if time.ndim == 0:
        return field(time, x)
    found: Tensor = vmap(lambda s, y: field(s, y[None])[0])(time, x)
    return found


# --- to torchsde ----------------------------------------------------------------------------------


def to_torchsde(sde: SDE, event_shape: Shape | None = None, backwards: bool | None = None) -> ToTorchsde:
    """Any SDE of ours as torchsde wants it: a module with ``f``, ``g``, ``noise_type`` and ``sde_type``.

    Its parameters are those of the modules that the fields are or refer to, so that ``torchsde.sdeint_adjoint`` finds
    them; what it does not find it takes from ``adjoint_params=``. Fields of ours see times as floats.

    Args:
        sde: The SDE. A flow has a diffusion of zeros.
        event_shape: Of its states, where they are not rows of shape (d,): torchsde sees them flattened.
        backwards: Whether it is told in the clock −t, in which torchsde's times are ``-grid``. Default: where the SDE
            only goes down in time, as the reverse of a process does.

    Raises:
        SdekitError: no SDE; the clock t for one that goes down.
    """
    if not isinstance(sde, SDE):
        raise SdekitError(f"to_torchsde needs an SDE of ours, such as sk.sde(...); got {type(sde).__name__}.")
    down = sde.direction == "decreasing"
    if down and backwards is False:
        raise SdekitError(
            f"{type(sde).__name__} goes down in time, and torchsde only up: leave out backwards=False; its times are "
            "-grid."
        )
    told = Reflected(sde) if down or backwards else sde
    event = None if event_shape is None else torch.Size(event_shape)
    return ToTorchsde(Flattened(told, event, sde.calculus), tuple(_modules(sde, set())))


@final
class ToTorchsde(nn.Module):
    """An SDE of ours as a module of torchsde; made by :func:`to_torchsde`."""

    def __init__(self, fields: Flattened, modules: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.fields, self.parts = fields, nn.ModuleList(modules)
        self.noise_type, self.sde_type = fields.noise_type, fields.sde_type

    def f(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The drift, shape (B, d)."""
        return self.fields.f(t, y)

    def g(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The diffusion, shape (B, d) for diagonal noise and (B, d, m) for every other."""
        return self.fields.g(t, y)


@final
@dataclass(frozen=True)
class Flattened:
    """An SDE of ours in the words of torchsde, on flattened states.

    Attributes:
        sde: In a clock that runs forwards.
        event: Shape of its states; None where they are flat.
        sde_type: The calculus.
    """

    sde: SDE
    event: torch.Size | None
    sde_type: Calculus

    @property
    def noise_type(self) -> Form:
        """What torchsde calls its noise."""
        kind = self.sde.noise_type
        if kind == "none":
            return "scalar"
        return "general" if kind == "commutative" else kind

    def f(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The drift, shape (B, d)."""
        return self.sde.drift(float(t), self._state(y)).reshape(y.shape)

    def g(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The diffusion, shape (B, d) for diagonal noise and (B, d, m) for every other."""
        x = self._state(y)
        if self.sde.noise_type == "none":
            return torch.zeros_like(y)[..., None]
        g = self.sde.diffusion(float(t), x)
        if self.noise_type == "diagonal":
            return g.reshape(y.shape)
        if self.noise_type == "scalar":
            return g.reshape(*y.shape, 1)
        # Coordinates with a noise of their own: torchsde's "additive" is a matrix.
        return torch.diag_embed(g.reshape(y.shape)) if g.shape == x.shape else g.reshape(*y.shape, -1)

    def _state(self, y: Tensor) -> Tensor:
        return y if self.event is None else y.reshape(-1, *self.event)


def _modules(value: Any, seen: set[int]) -> Iterator[nn.Module]:
    """The modules that an SDE is made of: its own, those of its fields, and those that functions refer to."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: list[Any] = []
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, MethodType):
        parts = [value.__self__]
    elif isinstance(value, FunctionType):
        variables = inspect.getclosurevars(value)
        parts = [*variables.nonlocals.values(), *variables.globals.values()]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, part.name) for part in fields(value)]
    elif isinstance(value, Score):
        parts = list(vars(value).values())
    for part in parts:
        yield from _modules(part, seen)
