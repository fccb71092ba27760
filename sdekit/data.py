"""Data to learn a score from: handwritten digits, and a mixture of nine Gaussians whose score is known."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sdekit import random
from sdekit.errors import SdekitError
from sdekit.laws import GaussianMixture

DIGITS_SEED = 20260101  # of the split; part of what the shipped weights were trained on
HELD_OUT = 360


@final
@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits of scikit-learn, split for good.

    Attributes:
        train: Images in [−1, 1], float32 of shape (1437, 1, 8, 8).
        train_labels: The digits 0 … 9, int64 of shape (1437,).
        held_out: Images that no training sees, shape (360, 1, 8, 8), every digit in proportion.
        held_out_labels: Shape (360,).
        sha256: Of all images and labels in the order of the split.
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
    train, held_out = train_test_split(range(len(raw)), test_size=HELD_OUT, random_state=DIGITS_SEED, stratify=labels)
    images = torch.from_numpy(raw).float().div(8.0).sub(1.0).reshape(-1, 1, 8, 8)
    numbers = torch.from_numpy(labels).long()
    parts = (images[train], numbers[train], images[held_out], numbers[held_out])
    return Digits(*parts, sha256=fingerprint(*parts))


def nine_component_mixture() -> GaussianMixture:
    r"""Nine Gaussians in the plane with means $\{-10, 0, 10\}^2$, covariance 0.1 I and weights drawn once.

    The weights are $w_k \propto -\log u_k$, uniform on the simplex, with u from seed 0.
    """
    keys = random.path_keys(0, 9)
    u = torch.special.ndtr(random.normals(keys, (), stream=random.STREAM_LAW)[0])
    weights = -torch.log(u)
    means = torch.tensor(list(itertools.product((-10.0, 0.0, 10.0), repeat=2)), dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(), means, torch.full((9,), 0.1, dtype=torch.float64))


def fingerprint(*tensors: Tensor) -> str:
    """SHA-256 of the shapes, dtypes and little-endian bytes of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
