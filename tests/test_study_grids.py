"""The grids part of the study: records, what is won, and its section of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdekit import study
from sdekit.study import grids
from sdekit.study.parts import plan

FEW = tuple(c for c in grids.CASES if c.place == "mixture" or (c.place, c.stepper) == ("spectrum", "dpmpp-2m"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network, and with few iterations."""
    monkeypatch.setattr(grids, "CASES", FEW)
    monkeypatch.setattr(grids, "ITERATIONS", {"spectrum": 25, "mixture": 10, "digits": 5})


def run(folder: Path) -> list[dict[str, Any]]:
    study.run(folder, problems=["grids"], quick=True, progress=False)
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("few")
def test_records_and_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    records = {(r["place"], r["made_for"]): r["values"] for r in run(folder)}
    assert list(records) == [(c.place, c.made_for) for c in FEW]
    first = {key: values["errors"][0] for key, values in records.items()}
    assert first["spectrum", "spectrum"] < 0.1 * first["spectrum", "log_snr"]
    assert first["mixture", "mixture"] < 0.6 * first["mixture", "log_snr"]
    assert first["mixture", "covariance"] > 0.9 * first["mixture", "log_snr"]
    for (place, made_for), values in records.items():
        figures = values["prototype"]
        if figures and made_for in ("log_snr", "karras"):
            found = values["few"] if place == "mixture" else values["errors"]
            assert found[0] == pytest.approx(figures[0], rel=0.05)
    page = (folder / "report.html").read_text()
    for text in ("Grids made for a law", "made for: covariance", "prototype", "Other laws are not to be relied on"):
        assert text in page
    # Cut after two records and resumed, it ends with the same bytes.
    whole = (folder / "results.jsonl").read_bytes()
    (folder / "results.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    run(folder)
    assert (folder / "results.jsonl").read_bytes() == whole


def test_the_part_runs_only_when_it_is_asked_for() -> None:
    parts = {
        name: {t.part for t in plan(study.Settings.of(chosen, None, None, "cpu", 0, True))}
        for name, chosen in {"without": ["vp-gaussian"], "with": ["grids"]}.items()
    }
    assert "grids" not in parts["without"]
    assert parts["with"] == {"grids"}


def test_cases_are_distinct_and_figures_belong_to_one() -> None:
    assert len(set(grids.CASES)) == len(grids.CASES)
    assert set(grids.PROTOTYPE) <= {f"{case.place}/{case.made_for}" for case in grids.CASES}


@pytest.mark.certify
def test_what_carries_over_to_the_learned_digits() -> None:
    """At ten calls the grid for smoothed training data beats both plain ones; that for the covariance neither."""
    cases = {case.made_for: case for case in grids.CASES if case.place == "digits"}
    found = {name: grids._measure(case, (10,), {}).values["errors"][0] for name, case in cases.items()}
    plain = min(found["log_snr"], found["karras"])
    assert found["smoothed points"] < 0.75 * plain
    assert found["covariance"] > 0.9 * plain
