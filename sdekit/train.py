r"""Learned scores: the two that ship, and the training that made them.

A training is a function of (task, seed, steps). What a step draws, which data, noise levels, noises and units to
drop, comes from a generator seeded with ``key(seed, step)``, so no generator has a state to keep: a run that was
killed and resumed ends in the weights of one that was not, bit for bit on one machine and number of threads.

The log-SNRs of a batch are stratified quantiles of a normal law, cut to the range of the process. What is kept is
the average $\bar\theta \leftarrow b\,\bar\theta + (1 - b)\,\theta$, with $b = \min(b_\infty, (1 + k)/(10 + k))$ at
step k. Files are safetensors, written whole or not at all; nothing is ever unpickled.

References: [vincent2011], [karras2022edm], [loshchilov2019] for AdamW.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sdekit import data, nets, processes
from sdekit.errors import SdekitError, unknown_name
from sdekit.linear import ScheduledProcess
from sdekit.losses import denoising
from sdekit.nets import PREDICTION, Architecture, Denoiser
from sdekit.random import key
from sdekit.score import ModelScore, from_model
from sdekit.solution import read_tensors, require_safetensors, versions, write_tensors

Progress = bool | Callable[[int, int], None]

CHECKPOINT_FORMAT = "sdekit-checkpoint-1"

_SHIPPED = Path(__file__).parent / "weights"
_LOG = logging.getLogger("sdekit")
_LOOKS = 20  # at the held-out loss, in one training
_REPEATS = 4  # noise levels per held-out sample
_INITIAL, _HELD_OUT = -1, -2  # the draws that belong to no step


@final
@dataclass(frozen=True)
class Recipe:
    r"""How a task is trained, apart from data, seed and number of steps.

    Attributes:
        process: The forward process.
        architecture: Of the network.
        steps: Default number of steps.
        batch: Samples per step.
        learning_rate: Its peak: it rises linearly for 100 steps, then falls by half a cosine to 1/50.
        level: Mean and standard deviation of the log-SNRs λ that are trained on.
        weight_decay: Of AdamW.
        average: $b_\infty$.
    """

    process: ScheduledProcess
    architecture: Architecture
    steps: int
    batch: int
    learning_rate: float
    level: tuple[float, float]
    weight_decay: float = 0.01
    average: float = 0.999


RECIPES = {
    "digits": Recipe(
        # σ from a sixth of a grey level to five times the norm of the largest image.
        process=processes.EDM(sigma_min=0.02, sigma_max=40.0),
        architecture=Architecture("unet", (1, 8, 8), width=32, depth=2, dropout=0.1),
        steps=6000,
        batch=64,
        learning_rate=4e-3,
        level=(0.5, 1.2),
    ),
    "mixture": Recipe(
        process=processes.VP(),
        architecture=Architecture("mlp", (2,), width=64, depth=4),
        steps=4000,
        batch=512,
        learning_rate=4e-3,
        level=(0.0, 2.0),
        weight_decay=0.0,
    ),
}


@final
@dataclass(frozen=True)
class Trained:
    """What a file of weights says of itself.

    Attributes:
        path: The file.
        task: ``digits`` or ``mixture``.
        process: The forward process.
        architecture: Of the network.
        parameters: How many numbers were learned.
        steps: Steps of training that were done.
        seed: Of the training.
        held_out_loss: Loss per coordinate on data that no step saw, weighted as in training.
        seconds: That the training took.
        command: That trains the same.
        data_sha256: Of the data.
        versions: Of sdekit, torch and Python.
    """

    path: Path
    task: str
    process: ScheduledProcess
    architecture: Architecture
    parameters: int
    steps: int
    seed: int
    held_out_loss: float
    seconds: float
    command: str
    data_sha256: str
    versions: dict[str, str]


def train(
    task: str,
    out: str | Path | None = None,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    progress: Progress = False,
    checkpoint_every: float = 30.0,
    recipe: Recipe | None = None,
) -> Trained:
    """Train a score and write its weights; a killed run goes on where its last checkpoint was.

    Args:
        task: ``digits`` or ``mixture``.
        out: The file to write; ``TASK.safetensors`` by default. The checkpoint lies beside it, and goes when
            training is done.
        steps: Number of steps; that of the recipe by default.
        minutes: Stop after so long: writes the weights as they are, and keeps the checkpoint, from which the
            same call goes on.
        seed: Of everything random.
        progress: True for a bar on stderr, or a callable ``(done, total)``.
        checkpoint_every: Seconds between checkpoints.
        recipe: Instead of the task's own.

    Returns:
        What :func:`describe` says of the file.

    Raises:
        SdekitError: an unknown task, a checkpoint of another training, a folder that cannot be written, or a
            missing package. All before the first step.
    """
    require_safetensors()
    source, recipe = data.source(task), recipe or RECIPES[task]
    steps = recipe.steps if steps is None else steps
    if steps < 1 or (minutes is not None and not minutes > 0):
        raise SdekitError(f"A training needs steps ≥ 1 and minutes > 0; got steps = {steps}, minutes = {minutes}.")
    path = Path(out or f"{task}.safetensors")
    job = _Job(task, recipe, source, steps, seed)
    run = _Run.start(job)
    checkpoint = path.with_name(f"{path.name}.checkpoint")
    run.resume(checkpoint)
    run.save(checkpoint)
    with _reporter(progress) as report:
        _loop(run, checkpoint, checkpoint_every, minutes, report)
    trained = run.write(path)
    if run.done == steps:
        checkpoint.unlink(missing_ok=True)
    return trained


def load_score(weights: str | Path, process: ScheduledProcess | None = None) -> tuple[ScheduledProcess, ModelScore]:
    """A trained score and its process.

    Args:
        weights: ``digits`` or ``mixture`` for those that ship, else a file that :func:`train` wrote.
        process: Another process for the same network; any without a shift (see :mod:`sdekit.nets`).

    Raises:
        SdekitError: an unknown name, or a file that is missing, damaged or of another kind.
    """
    net, process, _ = nets.read(_file(weights), process)
    return process, from_model(net, process, PREDICTION)


def describe(weights: str | Path) -> Trained:
    """What a file of weights says of itself; arguments and errors as for :func:`load_score`."""
    path = _file(weights)
    net, process, about = nets.read(path)
    try:
        return Trained(path=path, process=process, architecture=net.architecture, **about)
    except TypeError as error:
        raise SdekitError(f"{path} holds a network, but not how it was trained ({error}).") from error


@final
@dataclass(frozen=True)
class _Job:
    """What is to be trained."""

    task: str
    recipe: Recipe
    source: data.Source
    steps: int
    seed: int

    @property
    def identity(self) -> str:
        """Equal for two trainings that end in the same weights."""
        return f"{self.task}, {self.steps} steps, seed {self.seed}, {self.recipe}, data {self.source.sha256}"

    def denoiser(self) -> Denoiser:
        recipe = self.recipe
        with _seeded(self.seed, _INITIAL):
            return Denoiser(recipe.architecture, recipe.process.schedule, self.source.mean, self.source.std)

    def loss(self, net: Callable[[Tensor, Tensor], Tensor], x0: Tensor) -> Tensor:
        """Mean loss per coordinate at log-SNRs and noises drawn with torch's generator as it stands."""
        process, (centre, spread) = self.recipe.process, self.recipe.level
        u = (torch.arange(len(x0)) + torch.rand(len(x0), dtype=torch.float64)) / len(x0)
        lam = centre + spread * torch.special.ndtri(u)
        lam = lam.clamp(process.schedule.lam(process.t_max), process.schedule.lam(process.t_min))
        t = process.schedule.time_at(lam)
        losses = denoising(net, x0, process, t, torch.randn_like(x0), PREDICTION, "edm", self.source.std)
        return losses.mean() / x0[0].numel()

    @torch.no_grad()
    def held_out_loss(self, net: Callable[[Tensor, Tensor], Tensor]) -> float:
        """The loss on data that no step sees, always at the same levels and noises."""
        x0 = self.source.held_out
        with _seeded(0, _HELD_OUT):
            return float(self.loss(net, x0.repeat(_REPEATS, *(1,) * (x0.ndim - 1))))


@final
@dataclass
class _Run:
    """A training as it stands; the one thing here that changes."""

    job: _Job
    net: Denoiser
    average: Denoiser
    optimizer: torch.optim.AdamW
    done: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, job: _Job) -> _Run:
        net, recipe = job.denoiser(), job.recipe
        optimizer = torch.optim.AdamW(
            net.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
        )
        return cls(job, net, job.denoiser().eval().requires_grad_(False), optimizer)

    def advance(self) -> None:
        """One step."""
        job, recipe, k = self.job, self.job.recipe, self.done
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(k, job.steps)
        with _seeded(job.seed, k):
            loss = job.loss(self.net, job.source.batch(recipe.batch))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        keep = min(recipe.average, (1 + k) / (10 + k))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(now, 1.0 - keep)
        self.done += 1

    def save(self, checkpoint: Path) -> None:
        """All that :meth:`resume` needs."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in slots.items()}
        meta = {"training": self.job.identity, "done": str(self.done), "seconds": str(self.seconds)}
        write_tensors(checkpoint, tensors, {"format": CHECKPOINT_FORMAT, **meta})

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not checkpoint.exists():
            return
        tensors, meta = read_tensors(checkpoint, CHECKPOINT_FORMAT)
        if meta.get("training") != self.job.identity:
            raise SdekitError(
                f"{checkpoint} belongs to another training ({meta.get('training')}; this is {self.job.identity}). "
                "Delete it, or give another out=."
            )
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, _, slot = name.partition(".")
            state.setdefault(int(index), {})[slot] = value
        try:
            self.net.load_state_dict(_under("net.", tensors))
            self.average.load_state_dict(_under("average.", tensors))
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
            self.done, self.seconds = int(meta["done"]), float(meta["seconds"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise SdekitError(f"{checkpoint} is damaged: {error}. Delete it to start again.") from error
        _LOG.info("resumed %s at step %d", checkpoint, self.done)

    def write(self, path: Path) -> Trained:
        """The averaged weights, with what :func:`describe` will say of them."""
        job = self.job
        trained = Trained(
            path=path,
            task=job.task,
            process=job.recipe.process,
            architecture=job.recipe.architecture,
            parameters=sum(p.numel() for p in self.average.parameters()),
            steps=self.done,
            seed=job.seed,
            held_out_loss=job.held_out_loss(self.average),
            seconds=round(self.seconds, 1),
            command=f"sdekit train {job.task} --steps {job.steps} --seed {job.seed}",
            data_sha256=job.source.sha256,
            versions=versions(),
        )
        elsewhere = ("path", "process", "architecture")
        about = {f.name: getattr(trained, f.name) for f in fields(trained) if f.name not in elsewhere}
        nets.write(path, self.average, trained.process, about)
        return trained


def _loop(
    run: _Run, checkpoint: Path, every: float, minutes: float | None, report: Callable[[int, int, float], None]
) -> None:
    """Steps until all are done or the time is up; ends at a checkpoint."""
    total, before, started = run.job.steps, run.seconds, time.perf_counter()
    saved, held_out = started, math.nan
    while run.done < total:
        run.advance()
        now = time.perf_counter()
        run.seconds = before + now - started
        if run.done % max(1, total // _LOOKS) == 0:
            held_out = run.job.held_out_loss(run.average)
            _LOG.info("%s: step %d of %d, held-out loss %.5f", run.job.task, run.done, total, held_out)
        report(run.done, total, held_out)
        late = minutes is not None and now - started > 60.0 * minutes
        if late or run.done == total or now - saved > every:
            run.save(checkpoint)
            saved = now
        if late:
            break


def _rate(k: int, steps: int) -> float:
    """The learning rate at step k, as a fraction of its peak."""
    return min(1.0, (k + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * k / steps))


@contextmanager
def _seeded(*words: int) -> Iterator[None]:
    """The generator of torch, seeded, and put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(*words))
        yield


@contextmanager
def _reporter(progress: Progress) -> Iterator[Callable[[int, int, float], None]]:
    """What to call after every step, with the held-out loss."""
    if not progress:
        yield lambda done, total, held_out: None
    elif callable(progress):
        told = progress
        yield lambda done, total, held_out: told(done, total)
    else:
        from rich.console import Console
        from rich.progress import Progress as Bars

        with Bars(console=Console(stderr=True)) as bars:
            bar = bars.add_task("train", total=None)
            yield lambda done, total, held_out: bars.update(
                bar, completed=done, total=total, description=f"held-out loss {held_out:.4f}"
            )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _file(weights: str | Path) -> Path:
    """The file of a name or a path."""
    path = _SHIPPED / f"{weights}.safetensors" if weights in RECIPES else Path(weights)
    if not path.exists():
        raise unknown_name("trained score or file", str(weights), RECIPES)
    return path
