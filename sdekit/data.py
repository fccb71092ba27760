"""Data to learn a score from: handwritten digits, and a mixture of nine Gaussians whose score is known."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError, unknown_name
from sdekit.laws import GaussianMixture

SEED = 20260101  # of the split and of the weights: fixed, since the shipped networks were trained on what they give
HELD_OUT = 360


@final
@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits of scikit-learn, split for good.

    Attributes:
        train: Images in [−1, 1], float32 of shape (1437, 1, 8, 8).
        train_labels: The digits 0 … 9, int64 of shape (1437,).
        held_out: Images that no training sees, every digit in proportion, shape (360, 1, 8, 8).
        held_out_labels: Shape (360,).
        sha256: Of all four, in this order.
    """

    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    sha256: str


def digits() -> Digits:
    """The digits, from the copy that scikit-learn installs; grey values 0 … 16 become −1 … 1.

    Raises:
        SdekitError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise SdekitError("The digits come with scikit-learn: pip install 'sdekit[report]'.") from error
    raw, labels = load_digits(return_X_y=True)
    train, held_out = train_test_split(range(len(raw)), test_size=HELD_OUT, random_state=SEED, stratify=labels)
    images = torch.from_numpy(raw).float().div(8.0).sub(1.0).reshape(-1, 1, 8, 8)
    numbers = torch.from_numpy(labels).long()
    parts = (images[train], numbers[train], images[held_out], numbers[held_out])
    return Digits(*parts, sha256=fingerprint(*parts))


def nine_component_mixture() -> GaussianMixture:
    r"""Nine Gaussians in the plane with means $\{-10, 0, 10\}^2$, covariance 0.1 I and random weights.

    The weights are $w_k \propto u_k$ with u uniform on [0, 1], drawn once and for all.
    """
    keys = random.path_keys(SEED, 9)
    weights = torch.special.ndtr(random.normals(keys, (), stream=random.STREAM_LAW)[0])
    means = torch.tensor(list(itertools.product((-10.0, 0.0, 10.0), repeat=2)), dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(), means, torch.full((9,), 0.1, dtype=torch.float64))


def fingerprint(*tensors: Tensor) -> str:
    """SHA-256 of the dtypes, shapes and little-endian bytes of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


class Source(Protocol):
    """Where the data of a training come from."""

    @property
    def sha256(self) -> str:
        """What identifies the data."""

    @property
    def mean(self) -> Tensor:
        """Mean of the data, float32 of shape E."""

    @property
    def std(self) -> float:
        """Root mean square of the data about their mean, over samples and coordinates."""

    @property
    def held_out(self) -> Tensor:
        """Data that no batch holds, float32 of shape (N, *E)."""

    def batch(self, size: int) -> Tensor:
        """Samples drawn with torch's generator as it stands, float32 of shape (size, *E)."""


@final
@dataclass(frozen=True)
class Finite:
    """A finite data set; no image comes twice in a batch."""

    train: Tensor
    held_out: Tensor
    sha256: str

    @cached_property
    def mean(self) -> Tensor:
        return self.train.mean(0)

    @cached_property
    def std(self) -> float:
        return float(self.train.var(0, correction=0).mean().sqrt())

    def batch(self, size: int) -> Tensor:
        return self.train[torch.randperm(len(self.train))[:size]]


@final
@dataclass(frozen=True)
class Endless:
    """A law, sampled afresh for every batch."""

    law: GaussianMixture

    @cached_property
    def sha256(self) -> str:
        return fingerprint(self.law.weights, self.law.mean, self.law.covariance)

    @cached_property
    def mean(self) -> Tensor:
        return self.law.mean.float()

    @cached_property
    def std(self) -> float:
        return float(self.law.variance.mean().sqrt())

    @cached_property
    def held_out(self) -> Tensor:
        return self.law.sample(1024, seed=SEED).float()

    def batch(self, size: int) -> Tensor:
        return self.law.sample(size, seed=int(torch.randint(2**62, ()))).float()


def source(task: str) -> Source:
    """The data of a task: ``digits`` or ``mixture``.

    Raises:
        SdekitError: an unknown task, or scikit-learn is not installed.
    """
    if task == "digits":
        images = digits()
        return Finite(images.train, images.held_out, images.sha256)
    if task == "mixture":
        return Endless(nine_component_mixture())
    raise unknown_name("task", task, ("digits", "mixture"))
