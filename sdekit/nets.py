r"""Small noise-conditional networks, the preconditioning that makes them denoisers, and the file that keeps one.

Every schedule is the same problem in other units: with the noise-to-signal ratio $r = \sigma/\alpha = e^{-\lambda}$,
the state $x/\alpha = x_0 + r\varepsilon$ and λ say all that there is to know. :class:`Denoiser` therefore sees the
clock only through λ, and one set of weights serves every process without a shift. With μ the mean of the data, s
their standard deviation and $z = x/\alpha - \mu$,

$$ D(x, t) = \mu + c_\text{skip}\,z + c_\text{out}\,F(c_\text{in}\,z,\ \lambda), \qquad
   c_\text{skip} = \frac{s^2}{s^2 + r^2}, \quad c_\text{out} = \frac{r s}{\sqrt{s^2 + r^2}}, \quad
   c_\text{in} = \frac{1}{\sqrt{s^2 + r^2}}, $$

so that what the network F takes and what it should return have variance one at every noise level.

Weights are kept as safetensors, with the process and the architecture as JSON in the metadata: nothing is unpickled.

References: [karras2022edm] for the preconditioning; [ho2020ddpm] for the UNet with time features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdekit import processes
from sdekit.errors import SdekitError, unknown_name
from sdekit.linear import ScheduledProcess
from sdekit.schedules import Schedule
from sdekit.solution import read_tensors, require_safetensors, write_tensors
from sdekit.typing import Prediction, along

Kind = Literal["mlp", "unet"]

FORMAT = "sdekit-weights-1"
PREDICTION: Prediction = "sample"
"""What a :class:`Denoiser` predicts."""

_PROCESSES = {
    kind.__name__: kind
    for kind in (processes.VP, processes.SubVP, processes.VE, processes.Cosine, processes.EDM, processes.Flow)
}

_FEATURES = 32  # of λ, before the embedding
_EMBEDDING = 64
_GROUPS = 8  # of channels, normalised together


@final
@dataclass(frozen=True)
class Architecture:
    """What a network looks like; enough to build it again from a file.

    Attributes:
        kind: ``mlp`` for any event, ``unet`` for images (C, H, W) with H and W even.
        event_shape: Shape E of one state.
        width: Channels of a hidden layer; a multiple of 8 for a UNet.
        depth: Residual blocks of an MLP, or of each of the three stages of a UNet.
        dropout: Fraction of hidden units left out in training.
    """

    kind: Kind
    event_shape: tuple[int, ...]
    width: int
    depth: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise unknown_name("kind of network", self.kind, get_args(Kind))
        if min((self.width, self.depth, *self.event_shape), default=0) < 1 or not 0.0 <= self.dropout < 1.0:
            raise SdekitError(f"A network needs sizes ≥ 1 and 0 ≤ dropout < 1; got {self}.")
        image = len(self.event_shape) == 3 and not any(n % 2 for n in self.event_shape[1:])
        if self.kind == "unet" and (not image or self.width % _GROUPS):
            raise SdekitError(
                f"A UNet needs events (C, H, W) with H and W even, and a width that {_GROUPS} divides; got {self}."
            )

    def build(self) -> nn.Module:
        """A new network F(x, λ), initialised from torch's generator; it starts as F = 0."""
        if self.kind == "mlp":
            return ResidualMLP(math.prod(self.event_shape), self.width, self.depth, self.dropout)
        return UNet(self.event_shape, self.width, self.depth, self.dropout)


@final
class Denoiser(nn.Module):
    r"""A network and its preconditioning: the denoised prediction $D(x, t) \approx E[x_0 \mid x_t = x]$.

    Call it as ``net(x, t)``; its prediction is ``sample``. The process must have no shift.

    Args:
        architecture: Of the network F.
        schedule: Turns t into (α, λ).
        mean: μ, the mean of the data, shape E.
        std: s, the root mean square of the data about μ.
    """

    mean: Tensor

    def __init__(self, architecture: Architecture, schedule: Schedule, mean: Tensor, std: float) -> None:
        super().__init__()
        self.architecture, self.schedule, self.std = architecture, schedule, std
        self.network = architecture.build()
        self.register_buffer("mean", mean.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """D at states (B, *E) and times (B,), in the dtype of ``x``; the network runs in its own."""
        clock = t.to(torch.float64)
        lam, mean = self.schedule.lam(clock), self.mean.to(x)
        r, s = torch.exp(-lam), self.std
        total = torch.sqrt(s * s + r * r)
        z = x / along(self.schedule.alpha(clock), x) - mean
        inner = (along(1.0 / total, x) * z).to(self.mean)
        value: Tensor = self.network(inner, lam.to(self.mean)).to(x)
        return mean + along(torch.square(s / total), x) * z + along(r * s / total, x) * value


def time_features(lam: Tensor) -> Tensor:
    """Sines and cosines of λ at frequencies from 1/4 to 8, evenly spaced in their logarithms: (B,) to (B, 32)."""
    ladder = torch.linspace(math.log(0.25), math.log(8.0), _FEATURES // 2, dtype=lam.dtype, device=lam.device)
    angle = lam[:, None] * torch.exp(ladder)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


@final
class Embedding(nn.Module):
    """λ, (B,), to what every block is conditioned on, (B, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(_FEATURES, _EMBEDDING), nn.Linear(_EMBEDDING, _EMBEDDING)

    def forward(self, lam: Tensor) -> Tensor:
        out: Tensor = self.second(F.silu(self.first(time_features(lam))))
        return F.silu(out)


@final
class ResidualMLP(nn.Module):
    """Residual blocks on the flattened event."""

    def __init__(self, size: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embedding, self.entry = Embedding(), nn.Linear(size, width)
        self.blocks = nn.ModuleList(DenseBlock(width, dropout) for _ in range(depth))
        self.norm, self.exit = nn.LayerNorm(width), _silent(nn.Linear(width, size))

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        embedded, h = self.embedding(lam), self.entry(x.flatten(1))
        for block in self.blocks:
            h = block(h, embedded)
        out: Tensor = self.exit(F.silu(self.norm(h)))
        return out.reshape(x.shape)


@final
class DenseBlock(nn.Module):
    """h + W₂ silu((1 + a) W₁ norm(h) + b), with a and b from the embedding of λ."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm, self.first = nn.LayerNorm(width), nn.Linear(width, width)
        self.modulation, self.second = nn.Linear(_EMBEDDING, 2 * width), _silent(nn.Linear(width, width))

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        a, b = self.modulation(embedded).chunk(2, dim=1)
        inner = F.silu(self.first(self.norm(h)) * (1.0 + a) + b)
        out: Tensor = h + self.second(F.dropout(inner, self.dropout, self.training))
        return out


@final
class UNet(nn.Module):
    """Convolutional blocks at full size, at half size with twice the channels, and at full size again.

    A learned image is added after the first layer: digits are centred, and the network may know where it is.
    Normalisation is by groups of channels within one image, so a sample never depends on its batch.
    """

    def __init__(self, event_shape: tuple[int, ...], width: int, depth: int, dropout: float) -> None:
        super().__init__()
        channels, *size = event_shape
        double = 2 * width
        self.embedding, self.entry = Embedding(), nn.Conv2d(channels, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(width, *size))
        self.before = _stage(width, width, depth, dropout)
        self.down = nn.Conv2d(width, double, 3, stride=2, padding=1)
        self.middle = _stage(double, double, depth, dropout)
        self.up = nn.Conv2d(double, width, 1)
        self.after = _stage(double, width, depth, dropout)
        self.norm, self.exit = nn.GroupNorm(_GROUPS, width), _silent(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        embedded = self.embedding(lam)
        fine = _run(self.before, self.entry(x) + self.place, embedded)
        coarse = _run(self.middle, self.down(fine), embedded)
        spread = F.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest")
        h = _run(self.after, torch.cat([fine, spread], dim=1), embedded)
        out: Tensor = self.exit(F.silu(self.norm(h)))
        return out


@final
class ConvBlock(nn.Module):
    """As :class:`DenseBlock`, with 3 × 3 convolutions and a normalisation before each."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1, self.first = nn.GroupNorm(_GROUPS, channels), nn.Conv2d(channels, width, 3, padding=1)
        self.modulation, self.norm2 = nn.Linear(_EMBEDDING, 2 * width), nn.GroupNorm(_GROUPS, width)
        self.second = _silent(nn.Conv2d(width, width, 3, padding=1))
        self.skip = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        a, b = self.modulation(embedded)[:, :, None, None].chunk(2, dim=1)
        inner = F.silu(self.norm2(self.first(F.silu(self.norm1(x)))) * (1.0 + a) + b)
        out: Tensor = self.skip(x) + self.second(F.dropout(inner, self.dropout, self.training))
        return out


def _stage(channels: int, width: int, depth: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(ConvBlock(channels if i == 0 else width, width, dropout) for i in range(depth))


def _run(stage: nn.ModuleList, h: Tensor, embedded: Tensor) -> Tensor:
    for block in stage:
        h = block(h, embedded)
    return h


def _silent(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer with weights zero: a block that starts as the identity, a network that starts as F = 0."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def write(path: str | Path, net: Denoiser, process: ScheduledProcess, about: Mapping[str, Any]) -> None:
    """Keep a network with its process, whole or not at all.

    Args:
        path: The file.
        net: The network.
        process: One of those of :mod:`sdekit.processes` that are given by numbers.
        about: What else to say, as JSON.

    Raises:
        SdekitError: the folder cannot be written.
    """
    told = {
        **about,
        "process": {"name": type(process).__name__, **asdict(process)},  # type: ignore[call-overload]
        "architecture": asdict(net.architecture),
        "prediction": PREDICTION,
        "data_std": net.std,
    }
    meta = {"format": FORMAT, **{name: json.dumps(value) for name, value in told.items()}}
    write_tensors(path, net.state_dict(), meta)


def read(
    path: str | Path, process: ScheduledProcess | None = None
) -> tuple[Denoiser, ScheduledProcess, dict[str, Any]]:
    """What :func:`write` kept: the network, its process, and what else was said.

    Args:
        path: The file.
        process: Instead of the one that the file names.

    Raises:
        SdekitError: no such file, one that is damaged or of another kind, or a process with a shift.
    """
    require_safetensors()
    if process is not None and (process.schedule is None or torch.as_tensor(process.shift(process.t_max)).any()):
        raise SdekitError(f"A network serves processes with a schedule and no shift; got {process!r}.")
    tensors, meta = read_tensors(path, FORMAT)
    try:
        told = {name: json.loads(value) for name, value in meta.items() if name != "format"}
        about = {name: told[name] for name in told if name not in ("process", "architecture", "prediction", "data_std")}
        arguments, shape = told["process"], told["architecture"]
        kept = _PROCESSES[arguments.pop("name")](**arguments)
        architecture = Architecture(**{**shape, "event_shape": tuple(shape["event_shape"])})
        kept.schedule.lam(kept.t_max)
        process = process or kept
        with torch.device("meta"):  # shapes are compared before any memory is taken
            net = Denoiser(
                architecture, process.schedule, torch.empty(architecture.event_shape), float(told["data_std"])
            )
        net.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise SdekitError(
            f"{path} is damaged: it does not say what was trained, or its tensors do not fit ({error})."
        ) from error
    finite = math.isfinite(net.std) and all(bool(torch.isfinite(value).all()) for value in tensors.values())
    if not finite or told.get("prediction") != PREDICTION:
        raise SdekitError(f"{path} is damaged: a number is not finite, or it does not predict {PREDICTION!r}.")
    return net.eval().requires_grad_(False), process, about
