r"""States between the steps of a grid, by what the noise does there given the step.

Over a step from $(t_k, x_k)$ to $(t_{k+1}, x_{k+1})$ of length h, with coefficients held where they are at its start,
the state at $t = t_k + \theta h$ given both ends is

$$ x_t = x_k + \theta\,(x_{k+1} - x_k) + G(t_k, x_k)\,B_t, \qquad
   B_t = (W_t - W_{t_k}) - \theta\,(W_{t_{k+1}} - W_{t_k}) , $$

where B is a Brownian bridge, of variance $\theta (1 - \theta) h$ and independent of the step. For Brownian motion
that is exact. Elsewhere variances are right to order $h^2$: of a stationary process $dx = -x\,dt + \sqrt2\,dW$ by
$\theta (1 - \theta) h^2$. A straight line, which leaves out B, misses $2\,\theta (1 - \theta) h$.

B is of the path that drives the run, if that is one that knows the time, and then errors are those of paths. A seed
draws each step by itself and knows no path between; B is then of the :class:`~sdekit.brownian.BrownianTree` of that
seed over the run, whose bridges over different steps are independent, and independent of what the steps drew. In
either case B is a function of the seed, the path and the times of the step and its own: several times in a step have
the right joint law, and asking for another one changes no number.

References: [foster2024].
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sdekit.brownian import BrownianPath, BrownianTree, GridPath
from sdekit.dynamics import SDE, noise_shape, times_noise
from sdekit.errors import SdekitError, unknown_name
from sdekit.keys import Keys
from sdekit.steppers.base import Stepper

Between = Literal["step", "bridge"]
"""How a time off the grid is reached: by a step to it, or within the step that passes it."""


def check(between: Between, sde: SDE, stepper: Stepper, adaptive: bool) -> bool:
    """Whether steps are to be filled.

    Args:
        between: As given to :func:`sdekit.solve`.
        sde: The problem.
        stepper: That of the run.
        adaptive: Whether a controller chooses the steps.

    Raises:
        SdekitError: an unknown word; a run whose steps no bridge fills.
    """
    if between not in get_args(Between):
        raise unknown_name("way between steps", between, get_args(Between))
    if between == "step":
        return False
    if adaptive:
        raise SdekitError(
            "between='bridge' fills steps of a grid. With a controller the times of save= change no step, and are "
            "met on the path of each sample: leave between= out."
        )
    if sde.noise_type == "none":
        raise SdekitError(
            "between='bridge' is what noise does within a step, and this problem has none: leave it out, and save= is "
            "stepped to; or take a controller and a Runge–Kutta pair such as dopri5, whose steps have dense output."
        )
    if stepper.spec.kind != "step":
        raise SdekitError(
            f"between='bridge' holds G at the start of a step in t, and {stepper.spec.name} solves its linear part "
            "over steps in another clock: leave it out, and save= is stepped to."
        )
    return True


@final
@dataclass(frozen=True)
class Passing:
    """Times that the steps of a grid pass.

    Attributes:
        nodes: The grid, strictly monotone.
        wanted: Times inside of it.
    """

    nodes: Sequence[float]
    wanted: Sequence[float]

    @property
    def needed(self) -> list[int]:
        """The nodes whose states the answer is made from, in order."""
        return sorted({i for t in self.wanted for i in self._around(t)})

    def fill(self, ts: Tensor, xs: Tensor, sde: SDE, path: BrownianPath) -> tuple[Tensor, Tensor]:
        """Times and states as asked for; where the run ended early, as far as it went and its last state.

        Args:
            ts: Of the needed nodes those that it reached, and where it ended.
            xs: The states there.
            sde: The problem.
            path: The one that bridges are of.
        """
        states, found = dict(zip(ts.tolist(), xs, strict=True)), {}
        for t in self.wanted:
            around = [self.nodes[i] for i in self._around(t)]
            if all(node in states for node in around):
                found[t] = states[t] if len(around) == 1 else _within(around[0], around[1], t, states, sde, path)
        reached = [t for t in self.wanted if t in found]
        if len(reached) < len(self.wanted) and (last := float(ts[-1])) not in found:
            found[last] = states[last]
            reached.append(last)
        return torch.tensor(reached, dtype=torch.float64), torch.stack([found[t] for t in reached])

    def _around(self, t: float) -> tuple[int, ...]:
        """The node of this time, or those before and after it."""
        sign = 1.0 if self.nodes[0] < self.nodes[-1] else -1.0
        i = bisect.bisect_left(self.nodes, sign * t, key=lambda node: sign * node)
        return (i,) if self.nodes[i] == t else (i - 1, i)


def _within(s: float, e: float, t: float, states: Mapping[float, Tensor], sde: SDE, path: BrownianPath) -> Tensor:
    share, x = (t - s) / (e - s), states[s]
    bridge = torch.sub(_moved(path, s, t), _moved(path, s, e), alpha=share).to(x.dtype)
    return torch.lerp(x, states[e], share) + times_noise(sde.diffusion(s, x), bridge)


def _moved(path: BrownianPath, s: float, t: float) -> Tensor:
    """What the path did from s to t, in the direction of the run."""
    return path.increment(min(s, t), max(s, t)).w


def bridging_path(noise: Keys | BrownianPath | None, sde: SDE, x: Tensor, passing: Passing) -> BrownianPath | None:
    """The path that bridges are of; None where there is no noise.

    Args:
        noise: That of the run.
        sde: The problem.
        x: Initial states.
        passing: The grid and the times.

    Raises:
        SdekitError: a path in another clock, or one that does not know a time.
    """
    first, last = passing.nodes[0], passing.nodes[-1]
    if isinstance(noise, Keys):
        shape = (len(x), *noise_shape(sde, first, x))
        low, high = min(first, last), max(first, last)
        return BrownianTree(shape, low, high, seed=noise.seed, paths=noise.paths, dtype=x.dtype, device=x.device)
    if isinstance(noise, GridPath | BrownianTree):
        if noise.clock is not None:
            raise SdekitError("between='bridge' needs a path in the clock t: leave out clock=, or give noise=seed.")
        noise.require(passing.wanted)
    return noise
