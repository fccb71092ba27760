"""The Langevin part of the study: what is exact, what is guaranteed, what is sampled, and its section of the report."""

from __future__ import annotations

import json

import pytest

from sdekit import study
from sdekit.study import langevin
from sdekit.study.parts import plan


@pytest.mark.statistical
def test_records_and_the_report(tmp_path, monkeypatch):
    """Spreads within 5 standard errors of one with Metropolis steps (false alarm 6e-7 each)."""
    monkeypatch.setattr(langevin, "DIMENSIONS", (1, 16))
    monkeypatch.setattr(langevin, "RATIOS", (0.04,))
    folder = tmp_path / "study"
    study.run(folder, problems=["langevin"], quick=True, progress=False)
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    values = {r["key"].removeprefix("langevin/"): r["values"] for r in records}
    for gamma in (0.1, 0.01):
        bias = values[f"ula/gamma={gamma:g}"]
        assert bias["w2"] == pytest.approx(bias["predicted"], rel=2.5 * gamma)
    for epsilon in (1.0, 0.1):
        reached = values[f"ula/epsilon={epsilon:g}"]
        assert reached["squared"] < epsilon
        assert reached["slack"] > 100
    errors = {name: values[f"law/{name}"]["errors"] for name in ("reverse-diffusion", "reverse-diffusion+a-share")}
    assert errors["reverse-diffusion+a-share"][-1] < 0.3 * errors["reverse-diffusion"][-1]
    assert values["law/dpmpp-2s+a-share"]["order"] == pytest.approx(1.0, abs=0.03)
    for d in (1, 16):
        unbiased, ratio = (values[f"spread/{name}/d={d}/r=0.16"] for name in ("metropolis", "snr"))
        assert abs(unbiased["ratio"] - 1.0) < 5 * unbiased["error"]
        assert 0.9 < unbiased["acceptance"] < 1.0
        assert ratio["ratio"] > 1.0 + 5 * ratio["error"]
    page = (folder / "report.html").read_text()
    for text in ("Langevin chains and correctors", "better than its guarantee", "for small steps"):
        assert text in page


def test_the_part_runs_only_when_it_is_asked_for():
    parts = {
        name: {t.part for t in plan(study.Settings.of(chosen, None, None, "cpu", 0, True))}
        for name, chosen in {"without": ["vp-gaussian"], "with": ["langevin"]}.items()
    }
    assert "langevin" not in parts["without"]
    assert parts["with"] == {"langevin"}


def test_a_step_at_a_time_is_many_at_once():
    law = langevin.target()
    whole, parts = langevin.after(law, 0.05, 130), langevin.after(langevin.after(law, 0.05, 65), 0.05, 65)
    assert float((whole.variance - parts.variance).abs().max()) < 1e-14
