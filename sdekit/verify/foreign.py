r"""Somebody else's sampler under the probe: its noise recorded, its precision kept, its adaptive steps taken again.

A sampler that is no stepper is a callable ``x -> x_N``. Three things stand between it and an exact law.

- It draws its own noise. While :class:`RecordedNormals` is entered, ``torch.randn``, ``randn_like``, ``normal_`` and
  ``normal`` hand out the normals that it was given, so that a run is a function of its initial state and its normals
  and :func:`~sdekit.verify.probe` applies (:func:`probe_sampler`).
- It may cast states to float32, whose rounding hides every order above two. Such casts are passed over.
- It may choose its steps by the state, which no affine map does. On the steps that it took, once recorded, it is
  affine again, and the map is that of the recorded grid (:func:`replay`).

Nothing of the sampler's library is patched: calls are intercepted in the thread that entered, and in no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.typing import Shape
from sdekit.verify.affine import AffineMap, Run, probe

Sampler = Callable[[Tensor], Tensor]
"""``x -> x_N``: final states from initial states (rows, *E); draws its own noise."""

Recorder = Callable[[Tensor], tuple[Sequence[float], Tensor]]
"""``x -> (times, x_N)``: a run that chooses its steps, and the steps that it took."""

OnGrid = Callable[[Sequence[float], Tensor], Tensor]
"""``(times, x) -> x_N``: the same method on given steps."""

_REPEATS = 1e-9  # relative distance of a run from its repetition
_SEED = 20_260_131
_CASTS = frozenset({torch.Tensor.to, torch.Tensor.type, torch.Tensor.float})


@final
class RecordedNormals(TorchFunctionMode):
    r"""Standard normals for whatever draws them, in the order in which it does.

    Args:
        normals: Shape (rows, n): every draw of shape (rows, \*S) takes the next columns.
        keep_double: Pass over casts of float64 tensors to float32.

    Attributes:
        taken: How many columns have been taken.
        counting: Whether normals were left out: then zeros are drawn, and ``taken`` says how many a run needs.
    """

    def __init__(self, normals: Tensor | None, keep_double: bool = True) -> None:
        super().__init__()
        self.taken, self.counting = 0, normals is None
        self._normals, self._keep_double = normals, keep_double

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.randn:
            size = options.get("size", args)
            return self._draw(size[0] if size and not isinstance(size[0], int) else size, options.get("dtype"))
        if func is torch.randn_like:
            return self._draw(args[0].shape, options.get("dtype") or args[0].dtype)
        if func is torch.Tensor.normal_:
            mean, deviation = _moments(args[1:], options)
            return args[0].copy_(mean + deviation * self._draw(args[0].shape, args[0].dtype))
        if func is torch.normal:
            return self._normal(args, options)
        if self._keep_double and _is_cast(func, args, options):
            return args[0]
        return func(*args, **options)

    def _normal(self, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        mean, deviation = _moments(args, options)
        size, dtype = options.get("size", args[2] if len(args) > 2 else None), options.get("dtype")
        if size is None:  # one of the two is a tensor
            like: Tensor = mean + 0.0 * deviation
            size, dtype = like.shape, like.dtype
        result: Tensor = mean + deviation * self._draw(size, dtype)
        return result

    def _draw(self, shape: Any, dtype: torch.dtype | None) -> Tensor:
        size = torch.Size(shape)
        if self._normals is None:
            self.taken += size[1:].numel()
            return torch.zeros(size, dtype=dtype)
        rows, n = self._normals.shape
        if size[:1] != (rows,):
            raise SdekitError(
                f"The sampler draws noise of shape {tuple(size)} for {rows} samples: noise that samples share makes "
                "them dependent, and cannot be probed. Draw (batch, ...)."
            )
        first, self.taken = self.taken, self.taken + size[1:].numel()
        if self.taken > n:
            raise SdekitError(f"The sampler draws more than the {n} recorded normals of a sample.")
        return self._normals[:, first : self.taken].reshape(size)


def _moments(args: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
    mean = args[0] if args else options.get("mean", 0.0)
    return mean, args[1] if len(args) > 1 else options.get("std", 1.0)


def _is_cast(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether this call only takes a float64 tensor to float32."""
    if func not in _CASTS or not (args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64):
        return False
    return func is torch.Tensor.float or any(v is torch.float32 for v in (*args[1:], options.get("dtype")))


def probe_sampler(sample: Sampler, event_shape: Shape, name: str = "the sampler") -> AffineMap:
    """The affine map of a sampler that draws its own noise, from ``torch.randn`` and its kin.

    Args:
        sample: ``x -> x_N`` on states of shape (rows, *E), float64.
        event_shape: E, the shape of one sample.
        name: What an error calls it.

    Raises:
        SdekitError: the run was not affine, drew noise that samples share, or moved a sample differently in another
            batch. Noise from anywhere else, numpy say, is not recorded: it shows as a run that is not affine.
    """
    with RecordedNormals(None) as count:
        sample(torch.zeros(2, *event_shape, dtype=torch.float64))

    def run(x: Tensor, z: Tensor) -> Tensor:
        with RecordedNormals(z) as drawn:
            final = sample(x)
        if drawn.taken != count.taken:
            raise SdekitError(f"{name} draws {count.taken} normals a sample in one run and {drawn.taken} in another.")
        return final

    found = probe(run, event_shape, count.taken, name=name)
    _require_independence(run, found, name)
    return found


def _require_independence(run: Run, found: AffineMap, name: str) -> None:
    """A step scaled by a norm of the whole batch is affine for any one batch, and another map for the next."""
    d, n = found.matrix.shape[1], found.noises.shape[1]
    rows = random.normals(random.path_keys(_SEED, 3), (d + n,), stream=random.STREAM_LAW)[0]
    reached = run(rows[:, :d].reshape(-1, *found.event_shape), rows[:, d:]).detach().flatten(1)
    expected = found.constant + rows @ torch.cat([found.matrix, found.noises], 1).T
    gap = float((reached - expected).abs().max() / expected.abs().max().clamp(min=1e-300))
    if not gap <= _REPEATS:
        raise SdekitError(
            f"{name} moves a sample differently in another batch (by {gap:.2g} of the largest state): its samples "
            "depend on one another, so it has no law of one sample. Scale steps by each sample's own norm."
        )


def replay(
    adaptive: Recorder, on_grid: OnGrid, x: Tensor, name: str = "the run"
) -> tuple[tuple[float, ...], AffineMap]:
    """The steps that an adaptive method takes from ``x``, and its affine map on them.

    Args:
        adaptive: Runs the method from states (rows, *E) and reports its accepted times, both ends among them.
        on_grid: Runs the same method on given times.
        x: Where it starts; a method with one step size for the whole batch chooses it for this batch.
        name: What an error calls it.

    Returns:
        The accepted times, and the map of the method on them.

    Raises:
        SdekitError: the method on its recorded steps does not end where it ended, so that they are not its steps; or it
            is not affine on them.
    """
    times, final = adaptive(x)
    steps = tuple(float(t) for t in times)
    gap = float((on_grid(steps, x) - final).abs().max() / final.abs().max().clamp(min=1e-300))
    if not gap <= _REPEATS:
        raise SdekitError(
            f"{name} ends elsewhere when its {len(steps) - 1} recorded steps are taken again (by {gap:.2g} of the "
            "largest state): record every accepted step and no rejected one, and end on the last time."
        )
    return steps, probe(lambda start, _: on_grid(steps, start), x.shape[1:], 0, name=name)
