"""The benchmark runner: what it reads, shows, writes and refuses. No assertion looks at a time."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import sdekit as sk
from sdekit import bench

RAW: dict[str, Any] = {
    "machine_info": {
        "system": "Linux",
        "release": "6.1",
        "cpu": {"brand_raw": "A processor"},
        "sdekit": {
            "versions": {"sdekit": "0.1.0", "torch": "2.4.0"},
            "threads": 1,
            "heap_trick": True,
            "gpu": None,
            "capability": "AVX512",
        },
    },
    "benchmarks": [
        {
            "name": "test_floor[a]",
            "extra_info": {
                "kind": "contest",
                "work": "normals",
                "ours": "sdekit",
                "beside": "torch.randn",
                "shape": "64x3072",
                "dtype": "float32",
                "device": "cpu",
                "steps": 2,
                "seconds_per_step": 3e-6,
                "beside_seconds_per_step": 2e-6,
                "ratio": 1.5,
                "ratio_of_best": 1.4,
                "target": 2.0,
                "unknown": "left out",
            },
        },
        {
            "name": "test_solver[b]",
            "extra_info": {
                "kind": "solver",
                "work": "ou",
                "ours": "exact-linear",
                "beside": "its evaluations",
                "shape": "1000x1",
                "dtype": "float32",
                "device": "cpu",
                "steps": 20,
                "seconds_per_step": 1e-4,
                "evaluations": 0,
                "error": 1e-16,
            },
        },
    ],
}

SETTINGS = {"quick": True, "select": None, "device": "cpu", "dtype": "float32"}


def shown(raw: dict[str, Any]) -> str:
    text = io.StringIO()
    bench.show(bench.read(raw, SETTINGS), Console(file=text, width=100, color_system="standard", force_terminal=True))
    return text.getvalue()


def test_a_report_keeps_times_ratios_and_where_they_were_taken() -> None:
    report = bench.read(RAW, SETTINGS)
    contest, solver = report.rows
    assert (contest.ratio, contest.target, contest.seconds_per_step) == (1.5, 2.0, 3e-6)
    assert (solver.ratio, solver.evaluations, solver.error) == (None, 0, 1e-16)
    assert report.machine["cpu"] == "A processor"
    assert report.machine["heap_trick"] is True
    assert report.versions["torch"] == "2.4.0"


def test_the_tables_show_ratios_and_say_whether_the_heap_trick_is_on() -> None:
    text = shown(RAW)
    for wanted in ("normals / torch.randn", "exact-linear on ou", "1 thread(s)", "heap trick on", "64x3072"):
        assert wanted in text
    off = {**RAW, "machine_info": {**RAW["machine_info"]}}
    off["machine_info"]["sdekit"] = {**RAW["machine_info"]["sdekit"], "heap_trick": False}
    assert "heap trick off" in shown(off)


@pytest.mark.parametrize(("ratio", "colour"), [(1.9, "\x1b[32m"), (2.1, "\x1b[31m")], ids=["green", "red"])
def test_a_missed_target_is_red(ratio: float, colour: str) -> None:
    row = RAW["benchmarks"][0]
    raw = {**RAW, "benchmarks": [{**row, "extra_info": {**row["extra_info"], "ratio": ratio}}]}
    assert f"{colour}{ratio}" in shown(raw)


def test_without_a_source_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "_FOLDER", tmp_path / "benchmarks")
    with pytest.raises(sk.SdekitError, match="source checkout"):
        bench.run(out=tmp_path / "bench.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "tpu"}, "got 'tpu'"), ({"dtype": "int8"}, "float32, float64; got 'int8'")],
    ids=["device", "dtype"],
)
def test_it_refuses_what_it_cannot_run_on(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(sk.SdekitError, match=message):
        bench.run(out=tmp_path / "bench.json", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_selection_is_run_shown_and_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = bench.run(
        quick=True, out=tmp_path / "new" / "bench.json", select="normals or (dpmpp-2m-vp and 1000x1 and not sde)"
    )
    written = json.loads(out.read_text())
    assert {row["kind"] for row in written["rows"]} == {"contest", "solver"}
    assert all(row["ratio"] > 0 and row["seconds_per_step"] > 0 for row in written["rows"])
    solvers = [row for row in written["rows"] if row["kind"] == "solver"]
    assert all(row["evaluations"] == 20 and 0 < row["error"] < 0.1 for row in solvers)
    assert written["settings"]["quick"] is True
    assert {"torch", "sdekit", "python"} <= set(written["versions"])
    assert "torch.randn" in capfd.readouterr().out


@pytest.mark.slow
def test_an_empty_selection_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(sk.SdekitError, match="No benchmark matches 'nothing-like-this'"):
        bench.run(quick=True, out=tmp_path / "bench.json", select="nothing-like-this")
