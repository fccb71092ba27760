"""The peers part of the study: records, verdicts, what is skipped, and its section of the report."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sdekit import report, study, verify
from sdekit.study import peers, settings
from sdekit.study.parts import plan

FEW = (
    "torchsde/euler/w2",
    "torchdiffeq/euler/flow",
    "diffusers/ddpm/w2",
    "diffusers/sde-dpm++3m/w2",
    "k-diffusion/dpmpp_2m/flow",
    "azula/reab-2/flow",
)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six methods and one replay."""
    monkeypatch.setattr(peers, "QUICK", FEW)
    monkeypatch.setattr(peers, "TOLERANCES", (1e-3,))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.PEERS:
        if find_spec(name.replace("-", "_")) is None:
            pytest.skip(f"{name} is not installed")


def run(folder: Path) -> list[dict[str, Any]]:
    study.run(folder, problems=["peers"], quick=True, progress=False)
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("installed")
def test_records_verdicts_and_the_report(tmp_path):
    folder = tmp_path / "study"
    records = {r["key"].removeprefix("peers/"): r for r in run(folder)}
    assert list(records) == [*FEW, "torchdiffeq/dopri5/tolerance=0.001"]
    verdicts = {name: records[name]["values"]["verdict"] for name in FEW}
    assert verdicts == dict(zip(FEW, ("holds", "holds", "holds", "short", "holds", "short"), strict=True))
    ddpm = records["diffusers/ddpm/w2"]
    assert ddpm["values"]["deviation"] < 0.05
    assert ddpm["provenance"]["grid"]["steps"] == ddpm["steps"][-1] == 320
    assert records["torchdiffeq/dopri5/tolerance=0.001"]["values"]["residual"] < 1e-12
    page = (folder / "report.html").read_text()
    for text in ("Peers under the same microscope", "4 of 6 claims are reached", "sde-DPM++3M (0.92 for 3)", "1.7%"):
        assert text in page
    assert "not installed" not in page
    # Cut after two records and resumed, it ends with the same bytes.
    whole = (folder / "results.jsonl").read_bytes()
    (folder / "results.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    run(folder)
    assert (folder / "results.jsonl").read_bytes() == whole


def test_libraries_that_are_not_there_are_skipped_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    settings.peer_versions.cache_clear()
    try:
        assert run(tmp_path / "study") == []
        page = report.build(tmp_path / "study").read_text()
        assert "not installed: torchsde, torchdiffeq, diffusers, k-diffusion, azula" in page
    finally:
        settings.peer_versions.cache_clear()


def test_the_part_runs_only_when_it_is_asked_for():
    parts = {
        name: {t.part for t in plan(study.Settings.of(chosen, None, None, "cpu", 0, True))}
        for name, chosen in {"without": ["vp-gaussian"], "with": ["peers"]}.items()
    }
    assert "peers" not in parts["without"]
    assert parts["with"] <= {"peers"}


def test_names_are_distinct_and_quick_ones_are_known():
    names = [peer.name for peer in peers.peers()]
    assert len(set(names)) == len(names)
    assert set(FEW) <= set(names)
    assert sum(bool(peer.prototype) for peer in peers.peers()) == 26


def test_a_verdict_accuses_only_on_evidence():
    steps = (16, 32, 64, 128, 256)
    second = verify.fit_order(steps, [1.0 / n**2 + 3.0 / n**3 for n in steps])
    assert [peers.verdict(second, claim) for claim in (1.0, 2.0, 3.0)] == ["more", "holds", "short"]
    bent = verify.fit_order(steps, [1e-2, 9e-3, 1e-4, 9e-5, 1e-6])  # a cusp: no order can be read off
    assert peers.verdict(bent, 4.0) == "undecided"
    assert peers.verdict(verify.fit_order(steps[:2], [0.1, 0.05]), 1.0) == "undecided"
