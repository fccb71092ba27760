r"""What happens between the last time of a reverse problem and the data.

A run stops at a time t > 0, at noisy data $x_t$. What is done about that is a choice (:data:`End`):

| ``end=`` | final state | law, if $x_t$ has the right one |
|---|---|---|
| ``stop`` | $x_t$ | $p_t$ |
| ``denoise`` | $E[x_0 \mid x_t]$ | narrower than the data by $E \operatorname{Var}[x_0 \mid x_t]$ |
| ``exact-linear`` | the exact way on to t = 0 | that of the data |

The last one needs an affine score. Along an eigenvector of the data covariance with eigenvalue ℓ, mean m and
$v_t = \alpha_t^2 \ell + \sigma_t^2$ it is

$$ x_0 - m = \psi\,(x_t - \alpha_t m) + \sqrt{\ell - \psi^2 v_t}\;z, \qquad
   \psi = \sqrt{\tfrac{\ell}{v_t}}\,\Bigl[\alpha_t \sqrt{\tfrac{\ell}{v_t}}\Bigr]^{\eta^2} , $$

the flow's map for η = 0 and a draw from $p(x_0 \mid x_t)$ for η = 1. Its normals are of a stream of their own: they
depend on the seed and the path number, not on the number of steps, and on no other draw.

t = 0 stands for the data, without noise, also where the process still has some at time 0 ($\sigma_0 = \sigma_{\min}$
of VE and DiscreteVE): both policies go on from there to σ = 0. Where the grid already ends at σ = 0 there is nothing
left to do, and nothing is done.

For a score that is not affine no such map is known. That of its linearisation about $x_t$ is not exact, whatever its
name would say, so the policy is refused there: ``denoise`` is what can be had, for one more evaluation.

References: [pierret2025].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sdekit import random
from sdekit.brownian import BrownianGrid, BrownianPath, BrownianTree, Increment
from sdekit.dynamics import SDE
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys
from sdekit.linear import LinearProcess, apply_operator, operator_root
from sdekit.reverse import Reverse
from sdekit.score import convert
from sdekit.steppers.exact import to_data

End = Literal["stop", "denoise", "exact-linear"]
"""What happens after the last time."""

Finish = Callable[[Tensor], Tensor]
"""From the state at the last time to that at t = 0."""


@final
@dataclass(frozen=True)
class RecordedEnd:
    """A noise for the steps of a run, with the normals of its end; for probing a solver.

    Attributes:
        steps: The Brownian path, or None where none is drawn from.
        normals: Of the end, shape (B, *E).
    """

    steps: BrownianPath | None
    normals: Tensor

    @property
    def shape(self) -> torch.Size:
        """That of the path."""
        return torch.Size() if self.steps is None else self.steps.shape

    def increment(self, s: float, t: float) -> Increment:
        """That of the path."""
        assert self.steps is not None
        return self.steps.increment(s, t)


def draws(sde: SDE, end: End) -> bool:
    """Whether the end draws normals, one like every sample."""
    return end == "exact-linear" and sde.noise_type != "none"


def finish(
    sde: SDE,
    nodes: Tensor,
    end: End,
    x: Tensor,
    noise: Keys | BrownianPath | None,
) -> Finish | None:
    """What a run does after its last step; None if it stops there.

    Args:
        sde: The problem, as it was given or observed.
        nodes: The grid.
        end: The policy.
        x: Initial states.
        noise: Keys of the samples, or the path of the run.

    Raises:
        SdekitError: an unknown policy, or one that this problem does not have; says which it has.
    """
    if end not in get_args(End):
        raise unknown_name("end", end, get_args(End))
    if end == "stop":
        return None
    first, last = float(nodes[0]), float(nodes[-1])
    if not (isinstance(sde, Reverse) and isinstance(sde.process, LinearProcess) and first > last):
        raise SdekitError(f"end={end!r} needs the reverse of a process such as sk.VP, on a decreasing grid.")
    problem, schedule = sde, sde.schedule
    if schedule is not None and last == schedule.noiseless:
        return lambda state: state
    if end == "denoise":
        if schedule is None:
            raise SdekitError(f"end='denoise' needs a process with a schedule, and {sde.process!r} has none.")
        return lambda state: _denoised(problem, last, state)
    _check_affine(problem)
    kernel = to_data(problem, last)
    if not draws(problem, end):
        return kernel.mean
    root, z = operator_root(kernel.covariance, x.shape[1:]), _normals(x, noise)
    return lambda state: kernel.mean(state) + apply_operator(root, z)


def _denoised(sde: Reverse, t: float, x: Tensor) -> Tensor:
    """E[x₀ | x_t]."""
    return convert(sde.score.output(t, x), t, x, sde.linear_process, sde.score.prediction, "sample")


def _check_affine(sde: Reverse) -> None:
    if not sde.score.affine:
        other = "end='denoise'" if sde.schedule is not None else "end='stop'"
        raise SdekitError(
            "end='exact-linear' needs an affine score, exact_score(Gaussian(...), process): for another there is no "
            f"exact way to t = 0. Use {other}."
        )


def _normals(x: Tensor, noise: Keys | BrownianPath | None) -> Tensor:
    """One draw of the state's shape, whatever the steps draw."""
    if isinstance(noise, RecordedEnd):
        return noise.normals
    if isinstance(noise, Keys):
        keys = noise.values
    elif isinstance(noise, BrownianGrid | BrownianTree):
        keys = noise.keys
    elif noise is None:
        raise SdekitError("end='exact-linear' is random on this problem: give noise=seed (an integer).")
    else:
        raise SdekitError(
            f"end='exact-linear' draws a normal beside the Brownian path, and {type(noise).__name__} has no seed to "
            "draw it from: give noise=seed, a BrownianGrid or a BrownianTree, or use end='denoise'."
        )
    if len(keys) != len(x):
        raise SdekitError(f"The noise has {len(keys)} paths for {len(x)} samples: give one per sample.")
    return random.normals(keys, x.shape[1:], stream=random.STREAM_END, dtype=x.dtype)[0]
