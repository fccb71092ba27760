r"""Samplers of k-diffusion on our problems, so that they are held to the same exact answers.

A sampler there is a function ``sample(model, y, sigmas)`` of states $y = x/\alpha$, noise levels and a denoiser. It
gets the levels of our grid in float64 and our score as its denoiser; what runs is its own code. Only ``sampling.py`` of
the package is loaded, from its file: the package imports wandb, CLIP and much else that no sampler needs.

Samplers that are fed from a Brownian tree draw here from a path in the same clock, σ, made of ``torch.randn`` as it is
asked for, so that :func:`sdekit.verify.probe_sampler` can record it: noise inside a step is part of the step's noise.

References: [crowson2022].
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor

from sdekit.dynamics import SDE
from sdekit.errors import SdekitError, unknown_name
from sdekit.interop.whole_runs import Method, Way, denoised
from sdekit.verify.foreign import Sampler

_PACKAGE = "_sdekit_k_diffusion"
_LOADING = Lock()
_SAME = 1e-9  # relative distance of a level that is a node but for rounding
_FLOWS = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m")
_SDES = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")
_ON_A_PATH = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")


@cache
def sampling() -> ModuleType:
    """The module ``k_diffusion.sampling``, without the package around it.

    Raises:
        SdekitError: k-diffusion is not installed.
    """
    found = find_spec("k_diffusion")
    if found is None or not found.submodule_search_locations:
        raise SdekitError("k-diffusion is not installed: pip install --no-deps k-diffusion.")
    with _LOADING:
        package, utils = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.utils")
        utils.append_dims = _append_dims  # type: ignore[attr-defined]  # all that sampling.py takes from there
        package.utils = utils  # type: ignore[attr-defined]
        package.__path__ = []
        sys.modules |= {package.__name__: package, utils.__name__: utils}
        path = Path(next(iter(found.submodule_search_locations))) / "sampling.py"
        spec = spec_from_file_location(f"{_PACKAGE}.sampling", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _append_dims(x: Tensor, ndim: int) -> Tensor:
    return x[(...,) + (None,) * (ndim - x.ndim)]


def method(name: str, **options: Any) -> Method:
    """A sampler of k-diffusion: ``method(name)(sde, times)`` maps states at the first time to states at the last.

    Args:
        name: ``euler``, ``heun``, ``dpm_2``, ``lms`` and ``dpmpp_2m`` for a flow; ``euler_ancestral``,
            ``dpm_2_ancestral``, ``dpmpp_2s_ancestral``, ``dpmpp_sde``, ``dpmpp_2m_sde`` and ``dpmpp_3m_sde`` for η = 1,
            and with the option ``eta=0`` for a flow.
        options: Those of the sampler, such as ``order=4`` or ``solver_type="heun"``.

    Raises:
        SdekitError: an unknown name, or k-diffusion is not installed; from the method, a problem that it does not
            integrate.
    """
    if name not in (*_FLOWS, *_SDES):
        raise unknown_name("sampler of k-diffusion", name, (*_FLOWS, *_SDES))
    function = getattr(sampling(), f"sample_{name}")
    eta = float(options.get("eta", 1.0)) if name in _SDES else 0.0

    def on(sde: SDE, times: Tensor | Sequence[float]) -> Sampler:
        way = Way.of(sde, times, f"k-diffusion's {name}", eta)

        def sample(x: Tensor) -> Tensor:
            noise = {"noise_sampler": _PathInSigma(x)} if name in _ON_A_PATH else {}
            y = function(_Denoiser(way), x / way.alphas[0], way.levels, disable=True, **noise, **options)
            final: Tensor = y * way.alphas[-1]
            return final

        return sample

    return on


@final
class _Denoiser:
    """The model of a sampler: ``(y, levels) -> D``, the levels being one and the same."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._times: dict[float, float] = dict(zip(way.levels.tolist(), way.times, strict=True))

    def __call__(self, y: Tensor, level: Tensor) -> Tensor:
        t = self._time(float(level[0]))
        return denoised(self._way.sde, t, y * self._way.schedule.alpha(t))

    def _time(self, level: float) -> float:
        """A node where it is one, to the last bit; else the time of the level."""
        near = level if level in self._times else min(self._times, key=lambda other: abs(other - level))
        if abs(near - level) <= _SAME * level:
            return self._times[near]
        return float(self._way.schedule.time_at(-math.log(level)))


@final
class _PathInSigma:
    """A Brownian path in the clock σ, drawn where it is asked: bridges between known points, increments beyond."""

    def __init__(self, x: Tensor) -> None:
        self._like = x
        self._points: list[tuple[float, Tensor]] = []  # by −σ, the order in which they are first asked

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        s, t = -float(sigma), -float(sigma_next)
        return (self._at(t) - self._at(s)) / abs(t - s) ** 0.5 if t > s else self(sigma_next, sigma)

    def _at(self, t: float) -> Tensor:
        near = min(self._points[-3:], key=lambda point: abs(point[0] - t), default=None)
        if near is not None and abs(near[0] - t) <= _SAME * abs(t):
            return near[1]
        value = self._drawn(t)
        self._points.append((t, value))
        self._points.sort(key=lambda point: point[0])
        return value

    def _drawn(self, t: float) -> Tensor:
        i = bisect_left([point[0] for point in self._points], t)
        before, after = self._points[i - 1 : i], self._points[i : i + 1]
        if not self._points:
            return torch.zeros_like(self._like)
        if before and after:
            (s, w), (u, v) = before[0], after[0]
            share = (t - s) / (u - s)
            return torch.lerp(w, v, share) + math.sqrt(share * (u - t)) * torch.randn_like(self._like)
        known, w = (before or after)[0]
        return w + math.sqrt(abs(t - known)) * torch.randn_like(self._like)
