"""The study: records that survive a kill, settings that are kept apart, a report that needs nothing but itself."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from sdekit import problems, report, study, verify
from sdekit.errors import SdekitError
from sdekit.report.drawing import spread
from sdekit.steppers import registry
from sdekit.study import convergence, ledger
from sdekit.study.parts import plan

TINY: dict[str, Any] = {
    "problems": ["vp-gaussian"],
    "solvers": ["ddim", "heun", "exact-linear"],
    "steps": [8, 16, 32, 64],
    "quick": True,
}
KILLED = """
import os, signal, sys
from sdekit import study

def tell(done, total, name):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

study.run(sys.argv[1], progress=tell, **{tiny})
""".replace("{tiny}", repr(TINY))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study in seconds."""
    folder = tmp_path_factory.mktemp("tiny") / "study"
    assert study.run(folder, progress=False, **TINY) == folder / "report.html"
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The same folder, to be spoilt."""
    return Path(shutil.copytree(tiny, tmp_path / "study"))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records only: drawing takes most of a small study's time."""
    monkeypatch.setattr(report, "build", lambda folder: folder / "report.html")


def lines(folder: Path) -> list[bytes]:
    return (folder / "results.jsonl").read_bytes().splitlines(keepends=True)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(folder)]


def cut(folder: Path, count: int, rest: bytes = b"") -> None:
    """Leave ``count`` records and a piece of the next."""
    (folder / "results.jsonl").write_bytes(b"".join(lines(folder)[:count]) + rest)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [x for v in value.values() for x in numbers(v)]
    if isinstance(value, list):
        return [x for v in value for x in numbers(v)]
    return [value] if isinstance(value, int | float) else []


# --- records --------------------------------------------------------------------------------------


def test_every_planned_record_is_there_in_order(tiny: Path) -> None:
    settings = study.Settings.of(TINY["problems"], TINY["solvers"], TINY["steps"], "cpu", 0, True)
    assert [r["key"] for r in records(tiny)] == [task.key for task in plan(settings)]
    assert {r["part"] for r in records(tiny)} == {"marginals", "convergence"}


def test_records_carry_provenance_and_finite_numbers(tiny: Path) -> None:
    for record in records(tiny):
        assert {"sdekit", "torch", "python", "seed", "dtype", "device"} <= set(record["provenance"])
        assert all(map(math.isfinite, numbers(record)))
        if not record["key"].endswith("/order"):
            assert record["provenance"]["grid"]["steps"] == record["steps"]
        if "arrays" in record:
            assert ledger.read_arrays(tiny / record["arrays"])
    assert b"seconds" not in (tiny / "results.jsonl").read_bytes()
    assert len((tiny / "timings.jsonl").read_text().splitlines()) == len(records(tiny))


def test_orders_are_those_of_verify(tiny: Path) -> None:
    found = {r["key"]: r["values"] for r in records(tiny)}
    values = found["convergence/vp-gaussian/ddim/eta=1/order"]
    estimate = verify.order(problems.get("vp-gaussian", eta=1.0), "ddim", steps=TINY["steps"])
    assert (values["order"], values["uncertainty"]) == (estimate.order, estimate.uncertainty)
    assert values["declared"] == registry.get("ddim").spec.weak["linear-additive"]
    exact = found["convergence/vp-gaussian/exact-linear/eta=1/order"]
    assert exact["exact"]
    assert exact["verdict"] == "pass"


def test_a_wrong_order_fails() -> None:
    """Negative control: a first-order method that declares 2 must not pass."""
    steps = (16, 32, 64, 128, 256)
    first = verify.fit_order(steps, [1.0 / n + 0.3 / n**2 for n in steps])
    assert convergence.verdict(first, 1.0, 0.02) == "pass"
    assert convergence.verdict(first, 2.0, 0.02) == "fail"
    assert convergence.verdict(first, None, 0.02) == "fail"
    few = verify.fit_order(steps[:2], [0.1, 0.05])
    assert convergence.verdict(few, 1.0, 0.02) == "undecided"


def test_exact_forward_samples_pass_and_coarse_ones_fail(tmp_path: Path) -> None:
    """Seed 0; the false-alarm rate of the whole part is 1/1000. VE with 20 Euler–Maruyama steps is far off."""
    settings = study.Settings.of(["ve-gaussian"], ["exact-linear", "euler-maruyama"], None, "cpu", 0, False)
    tasks = {t.name: t for t in plan(settings) if t.part == "marginals" and t.name.endswith("t=1")}
    exact = tasks["ve/exact-linear/steps=4/t=1"].compute({}).values
    assert exact["ks"] < exact["ks_critical"]
    assert exact["bias"] < 1e-12
    coarse = tasks["ve/euler-maruyama/steps=20/t=1"].compute({}).values
    assert coarse["ks"] > coarse["ks_critical"]
    assert coarse["ks_own"] < coarse["ks_critical"]


def test_only_the_score_leads_back(tmp_path: Path) -> None:
    """Seed 0. Without it the variance must end at v + (σ/α)², 151²; with it, at the noise floor."""
    settings = study.Settings.of(["vp-mixture"], None, None, "cpu", 0, True)
    tasks = {t.name: t for t in plan(settings) if t.part == "rewind"}
    drift, flow = (tasks[way].compute({}).values for way in ("drift", "flow"))
    assert drift["w2"] == pytest.approx(drift["w2_predicted"], rel=5 / (2 * drift["n"]) ** 0.5)
    assert drift["w2_predicted"] > 100.0
    assert flow["w2"] < 1.5 * flow["w2_floor_high"]


def test_learned_digits_come_close_to_real_ones() -> None:
    """Seed 0: the second-order flow solver at 10 evaluations, beside the range of real against real digits."""
    settings = study.Settings.of(["digits"], ["dpmpp-2m"], None, "cpu", 0, True)
    real, few, more = (task.compute({}).values for task in plan(settings))
    for metric in ("energy", "sliced_w2"):
        assert 0.0 < real[f"{metric}_low"] < real[metric] < real[f"{metric}_high"]
        assert more[metric] < 1.2 * real[f"{metric}_high"]
        assert more[metric] < few[metric]
    assert (few["evaluations"], more["evaluations"], more["n"]) == (5, 10, 360)


# --- killed, cut off, resumed ---------------------------------------------------------------------


@pytest.mark.usefixtures("no_report")
def test_killed_and_resumed_is_byte_identical(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    for count in (2, 9):
        run = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(count)], capture_output=True, check=False)
        assert run.returncode == -9, run.stderr.decode()
        assert len(lines(folder)) == count
        assert not (folder / "report.html").exists()
    with (folder / "results.jsonl").open("ab") as file:
        file.write(lines(tiny)[9][:57])  # a kill while this line was written
    study.run(folder, progress=False, **TINY)
    assert (folder / "results.jsonl").read_bytes() == (tiny / "results.jsonl").read_bytes()
    for record in records(tiny):
        if "arrays" in record:
            assert (folder / record["arrays"]).read_bytes() == (tiny / record["arrays"]).read_bytes()


@pytest.mark.usefixtures("no_report")
def test_a_whole_line_without_its_end_is_computed_again(tiny: Path, copy: Path) -> None:
    cut(copy, 12, lines(tiny)[12].rstrip(b"\n"))
    done: list[int] = []
    study.run(copy, progress=lambda count, total, name: done.append(count), **TINY)
    assert done[0] == 12
    assert lines(copy) == lines(tiny)


def test_lost_arrays_come_back(tiny: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = next(copy / r["arrays"] for r in records(copy) if "arrays" in r)
    lost.unlink()
    with pytest.raises(SdekitError, match=re.escape(lost.name)):
        report.build(copy)
    monkeypatch.setattr(report, "build", lambda folder: folder)
    study.run(copy, progress=False, **TINY)
    assert lost.read_bytes() == (tiny / lost.relative_to(copy)).read_bytes()
    assert lines(copy) == lines(tiny)


@pytest.mark.usefixtures("no_report")
def test_a_full_disk_leaves_earlier_records(tiny: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(copy, 20)
    calls = 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(ledger.os, "fsync", full)
        with pytest.raises(SdekitError, match="No space left"):
            study.run(copy, progress=False, **TINY)
    assert 20 <= len(lines(copy)) < len(lines(tiny))
    assert lines(copy) == lines(tiny)[: len(lines(copy))]
    study.run(copy, progress=False, **TINY)
    assert lines(copy) == lines(tiny)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"seed": 1}, {"quick": False}, {"steps": [8, 16, 32]}, {"solvers": ["ddim"]}])
def test_another_studys_folder_is_refused(copy: Path, other: dict[str, Any]) -> None:
    before = (copy / "results.jsonl").read_bytes()
    with pytest.raises(SdekitError, match=rf"{next(iter(other))}.*--out"):
        study.run(copy, progress=False, **{**TINY, **other})
    assert (copy / "results.jsonl").read_bytes() == before


def test_results_of_unknown_origin_are_refused(copy: Path) -> None:
    (copy / "study.json").unlink()
    with pytest.raises(SdekitError, match="--out"):
        study.run(copy, progress=False, **TINY)


def test_a_damaged_record_is_refused(copy: Path) -> None:
    content = lines(copy)
    (copy / "results.jsonl").write_bytes(b"".join([content[0], b"{]\n", *content[2:]]))
    with pytest.raises(SdekitError, match="Line 2"):
        study.run(copy, progress=False, **TINY)
    with pytest.raises(SdekitError, match="Line 2"):
        report.build(copy)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SdekitError, match="Cannot write"):
        study.run(tmp_path / "file" / "study", progress=False, **TINY)


def test_two_studies_in_one_folder(copy: Path) -> None:
    settings = study.Settings.of(TINY["problems"], TINY["solvers"], TINY["steps"], "cpu", 0, True)
    keys = [task.key for task in plan(settings)]
    with ledger.open_ledger(copy, settings, keys), pytest.raises(SdekitError, match="running"):
        study.run(copy, progress=False, **TINY)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"problems": ["vp-gausian"]}, "vp-gaussian"),
        ({"problems": ["gbm"]}, "problem"),
        ({"solvers": ["dpmpp2m"]}, "dpmpp-2m"),
        ({"solvers": []}, "name some"),
        ({"steps": [64, 32]}, "increasing"),
        ({"steps": [0, 1]}, "increasing"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_wrong_settings_name_the_cure(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SdekitError, match=message):
        study.run(tmp_path / "study", progress=False, **wrong)
    assert not (tmp_path / "study").exists()


# --- the report -----------------------------------------------------------------------------------


def test_the_report_is_self_contained(tiny: Path) -> None:
    page = (tiny / "report.html").read_text()
    assert not re.search(r"https?://", page)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert not re.search(r"@import|url\(|<script|<link(?![^>]*data:)", page)
    assert "{{" not in page
    order = next(r["values"]["order"] for r in records(tiny) if r["key"].endswith("heun/eta=0/order"))
    images = re.findall(r'<img src="data:image/png;base64,', page)
    assert len(images) == len(list((tiny / "figures").glob("*.png")))
    for text in (f"{order:.4f}", "exact-linear", "sdekit study --problems vp-gaussian --solvers", torch.__version__):
        assert text in page


def test_the_report_is_rebuilt_from_records_and_arrays(tiny: Path, tmp_path: Path) -> None:
    for name in ("results.jsonl", "study.json"):
        shutil.copy(tiny / name, tmp_path / name)
    shutil.copytree(tiny / "arrays", tmp_path / "arrays")
    assert report.build(tmp_path).read_bytes() == (tiny / "report.html").read_bytes()


def test_an_unfinished_study_has_a_report(copy: Path) -> None:
    cut(copy, 6)
    page = report.build(copy).read_text()
    assert "Forward marginals" in page
    assert "Orders of convergence" not in page


def test_no_study_no_report(tmp_path: Path) -> None:
    with pytest.raises(SdekitError, match="sdekit study"):
        report.build(tmp_path)


def test_labels_keep_their_distance_and_their_order() -> None:
    places = spread([0.1, 0.11, 0.12, 0.5, 0.98, 0.99], 0.07)
    assert all(b - a >= 0.07 - 1e-12 for a, b in pairwise(places))
    assert places[0] >= 0.0
    assert places[-1] <= 1.0 + 1e-12
    assert abs(places[3] - 0.5) < 1e-12
