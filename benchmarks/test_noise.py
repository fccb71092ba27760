"""Paths that refine: what a walk costs beside the normals alone, and questions at any times beside torchsde."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sdekit as sk
from benchmarks.contests import Call, Contest, Make, Setting, rows
from sdekit.brownian import Levy

_LEVEL = 20


def normals(s: Setting) -> Call:
    def draw() -> None:
        for _ in range(s.steps):
            torch.randn(s.shape, dtype=s.dtype, device=s.device)

    return draw


def walk(levy: Levy) -> Make:
    """All samples take the same steps, from a place half way."""

    def make(s: Setting) -> tuple[Call, Call]:
        tree = sk.BrownianTree(s.shape, seed=0, levy=levy, dtype=s.dtype, device=s.device)

        def ours() -> None:
            place = tree.walk()
            for k in range(s.steps):
                place.step(_LEVEL, (1 << _LEVEL - 1) + k)

        return ours, normals(s)

    return make


def walk_apart(s: Setting) -> tuple[Call, Call]:
    """Every sample from a place of its own, on levels of its own that go up and down."""
    tree = sk.BrownianTree(s.shape, seed=0, dtype=s.dtype, device=s.device)
    dice = torch.Generator().manual_seed(0)
    place = torch.randint(1 << _LEVEL - 8, (s.shape[0],), generator=dice) << 8
    visits = []
    for _ in range(s.steps):  # in units of the level, steps of 1, 2, 4, … as far as the place is a multiple
        most = torch.minimum(((place | 1 << _LEVEL) & -(place | 1 << _LEVEL)).log2().long(), torch.tensor(6))
        size = torch.minimum(torch.randint(4, place.shape, generator=dice), most)
        visits.append(((_LEVEL - size).to(s.device), (place >> size).to(s.device)))
        place = (place + (torch.ones_like(size) << size)) % (1 << _LEVEL)

    def ours() -> None:
        walk = tree.walk()
        for level, index in visits:
            walk.step(level, index)

    return ours, normals(s)


def anywhere(theirs: Callable[[Any, Setting], Any], levels: int = 50) -> Make:
    """Intervals of any length, in no order, on new paths."""

    def make(s: Setting) -> tuple[Call, Call]:
        import torchsde

        dice = random.Random(0)
        asked = [sorted((dice.random(), dice.random())) for _ in range(s.steps)]

        def ask(path: Callable[[float, float], Any]) -> None:
            for start, end in asked:
                path(start, end)

        def ours() -> None:
            tree = sk.BrownianTree(s.shape, seed=0, dtype=s.dtype, device=s.device, depth=levels)
            ask(tree.increment)

        return ours, lambda: ask(theirs(torchsde, s))

    return make


def interval(torchsde: Any, s: Setting) -> Any:
    return torchsde.BrownianInterval(0.0, 1.0, s.shape, dtype=s.dtype, device=s.device, entropy=0)


def virtual(torchsde: Any, s: Setting) -> Any:
    """The one that stores nothing: a tree of its own, down to a tolerance of 1e-6, which 20 levels are."""
    return torchsde.BrownianTree(0.0, torch.zeros(s.shape, dtype=s.dtype, device=s.device), t1=1.0, entropy=0)


_SMALL, _IMAGES = (1000, 1), (64, 3072)

# Add a row here.
CONTESTS = [
    *(Contest("walk of a tree", "torch.randn", walk("none"), shape, 100) for shape in (_SMALL, _IMAGES)),
    *(
        Contest("walk with areas", "torch.randn", walk("space-time"), shape, 100, full=True)
        for shape in (_SMALL, _IMAGES)
    ),
    Contest("walk, steps of its own", "torch.randn", walk_apart, _SMALL, 100, full=True),
    *(
        Contest(
            f"tree of {levels}, any times", beside, anywhere(theirs, levels), shape, 20, needs="torchsde", full=True
        )
        for shape in (_SMALL, _IMAGES)
        for levels, beside, theirs in (
            (50, "torchsde BrownianInterval", interval),
            (20, "torchsde BrownianTree", virtual),
        )
    ),
]


@pytest.mark.parametrize("contest", rows(CONTESTS))
def test_paths_that_refine(timed: Any, contest: Contest, dtype: torch.dtype, device: torch.device) -> None:
    contest.hold(timed, dtype, device)
