"""The study of one sample as steps double: slope one on a path, none with noise of each run's own; slips show."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count

import pytest
import torch

import sdekit as sk
from sdekit import study
from sdekit.study import refinement
from sdekit.study.parts import plan

STEPS = refinement.QUICK_STEPS


def measured(sampler: refinement.Sampler, steps: tuple[int, ...] = STEPS) -> dict[str, object]:
    return dict(refinement._measure(sampler, "path", steps, 0, 200, {}).values)


def test_the_study_has_a_section_of_it(tmp_path):
    folder = tmp_path / "study"
    study.run(folder, problems=["refinement"], quick=True, progress=False)
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [r["key"] for r in records] == [
        f"refinement/{s.name}/{noise}" for s in refinement.SAMPLERS for noise in refinement.NOISES
    ]
    for record in records:
        values = record["values"]
        assert values["holds"] == (record["noise"] == "path")
        assert (values["slope"] > 0.9) == values["holds"]
        assert abs(values["slope"]) < 0.25 or values["holds"]
    page = (folder / "report.html").read_text()
    for text in ("One sample, more steps", "On one path every sample converges", "refinement", "torch.randn"):
        assert text in page
    assert {p.name for p in (folder / "figures").iterdir()} == {"refinement-all.png", "refinement-one.png"}


def test_the_default_sampler_is_the_default():
    default = next(s for s in refinement.SAMPLERS if s.name == "er-sde-2")
    sde = sk.reverse_time(sk.VP(), sk.exact_score(sk.Gaussian([0.0], 1.0), sk.VP()))
    x = sk.VP().prior((1,)).sample(2)
    assert sk.solve(sde, x, steps=4, noise=0).provenance["method"] == repr(default.stepper)


def test_a_path_that_changes_with_the_steps_is_seen(monkeypatch):
    """Another path whenever it is asked."""
    seeds = count()
    make = refinement.BrownianGrid.on

    class Forgetful:
        @staticmethod
        def on(grid, shape, seed, clock=None):
            path = make(grid, shape, seed, clock=clock)

            def increment(s, t):
                return make(grid, shape, next(seeds), clock=clock).increment(s, t)

            monkeypatch.setattr(path, "increment", increment)
            return path

    monkeypatch.setattr(refinement, "BrownianGrid", Forgetful)
    assert not measured(refinement.SAMPLERS[0], STEPS[:3])["holds"]


def test_order_one_half_is_seen():
    """Noise of size h that belongs to no path, in every step: √h in all."""
    source = torch.Generator().manual_seed(0)

    class Loose(sk.EulerMaruyama):
        def step(self, sde, t0, t1, x, increment, memory):
            z = torch.randn(x.shape, generator=source, dtype=x.dtype)
            return super().step(sde, t0, t1, x, sk.Increment(increment.w + abs(t1 - t0) * z), memory)

    right = refinement.SAMPLERS[0]
    assert measured(right)["holds"]
    assert not measured(replace(right, stepper=Loose()))["holds"]


def test_the_part_runs_only_when_it_is_asked_for():
    for chosen, expected in (["vp-gaussian"], False), (["refinement"], True):
        found = {t.part for t in plan(study.Settings.of(chosen, None, None, "cpu", 0, True))}
        assert ("refinement" in found) == expected
    with pytest.raises(sk.SdekitError, match="did you mean 'refinement'"):
        study.Settings.of(["refinements"], None, None, "cpu", 0, True)
