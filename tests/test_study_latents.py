"""The part on latents and likelihoods: round trips at their orders, probes beside the exact trace, the section."""

from __future__ import annotations

import json

import pytest

from sdekit import data, study
from sdekit.keys import Keys
from sdekit.study import latents
from sdekit.study.parts import plan


def test_records_and_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "_STEPS", 6)
    monkeypatch.setattr(latents, "_TRIP", 4)
    folder = tmp_path / "study"
    study.run(folder, problems=["latents"], quick=True, progress=False)
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    values = {r["key"].removeprefix("latents/"): r["values"] for r in records}
    trips = {name: v["rms"] for name, v in values.items() if name.startswith("trip/")}
    assert trips["trip/v-abm-4/steps=40"] < 0.2 * trips["trip/heun/steps=20"]
    assert trips["trip/heun/steps=20"] < 0.1 * trips["trip/ddim/steps=40"]
    way = values["between/0-1"]
    assert way["error"] < 0.02
    assert len(way["norms"]) == latents.POINTS
    exact, probed = values["likelihood/exact/start=0.04"], values["likelihood/hutchinson/start=0.04"]
    assert (len(exact["bits"]), len(probed["bits"])) == (2, 4)
    assert (exact["products"], probed["products"]) == (64, latents.PROBES)
    assert 1.0 < exact["mean"] < 3.0
    assert exact["over_probes"] == 0.0 < probed["over_probes"]
    for bits, error, truth in zip(probed["bits"], probed["errors"], exact["bits"], strict=False):
        assert abs(bits - truth) < 6.0 * error
    page = (folder / "report.html").read_text()
    for text in ("how likely real digits are", "There and back", "Products: with vectors"):
        assert text in page


def test_round_trips_fall_at_the_order_of_the_method(monkeypatch):
    monkeypatch.setattr(latents, "_TRIP", 4)
    settings = study.Settings.of(["latents"], None, None, "cpu", 0, False)
    for solver, steps, least in (("ddim", (30, 90), 2.6), ("heun", (15, 45), 7.5)):
        errors = [latents._there_and_back(settings, latents.Trip(solver, n), {}).values["rms"] for n in steps]
        assert errors[0] / errors[1] > least


def test_the_ends_of_a_way_are_the_digits_themselves():
    digits = data.digits()
    ends = latents.digits_of((3, 8))
    for end, label in zip(ends, (3, 8), strict=True):
        at = (digits.held_out == end).flatten(1).all(1)
        assert digits.held_out_labels[at].tolist() == [label]
    filled = latents.LEVELS.filled(ends, Keys.of(0, None, 2))
    assert 0.05 < float((filled - ends).abs().max()) <= 0.0625 + 1e-6


@pytest.mark.parametrize(("chosen", "expected"), [(["vp-gaussian"], False), (["latents"], True)])
def test_the_part_runs_only_when_it_is_asked_for(chosen, expected):
    found = {t.part for t in plan(study.Settings.of(chosen, None, None, "cpu", 0, True))}
    assert ("latents" in found) == expected
