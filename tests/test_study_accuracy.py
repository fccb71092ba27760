"""The accuracy part of the study: budgets, figures that peers had before, and its section of the report."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

import sdekit as sk
from sdekit import study
from sdekit.study import accuracy, as_used, contenders
from sdekit.study.parts import plan
from sdekit.study.settings import SAMPLERS

peers = pytest.mark.skipif(not all(find_spec(name.replace("-", "_")) for name in SAMPLERS), reason="no peers here")
FEW = (
    "flow/sdekit/v-abm-5-ramp",
    "flow/diffusers/unipc-4",
    "w2/sdekit/er-sde-3",
    "w2/k-diffusion/dpmpp_2m_sde",
    "as-used/sdekit/solve",
    "as-used/azula/vab-3-rectified",
)


def test_no_sampler_exceeds_its_budget():
    """Single-step starts ask more often, so that they get fewer steps."""
    ours = {c.name: c for c in contenders.contenders() if c.library == "sdekit"}
    for name in ("flow/sdekit/deis-4", "flow/sdekit/unipc-4", "flow/sdekit/edm-heun", "w2/sdekit/seeds3"):
        for budget in (5, 10, 20, 23):
            found = ours[name].error(budget)
            assert found is None or budget - 3 < found[0] <= budget
    assert ours["flow/sdekit/unipc-4"].error(3) is None
    assert ours["flow/sdekit/deis-4"].error(20)[1] > ours["flow/sdekit/deis-4-ramp"].error(20)[1]


@peers
@pytest.mark.parametrize("used", [u for u in as_used.used() if u.prototype], ids=lambda u: u.name)
def test_peers_as_used_are_what_they_were(used, monkeypatch):
    """Within 5 % of what an independent prototype measured; on Karras's levels not with timesteps that are one off."""
    figures = dict(zip(as_used.CALLS, used.prototype, strict=True))
    for calls in (10, 50):
        assert used.error(calls) == (calls, pytest.approx(figures[calls], rel=0.05))
    if "Karras" in used.method:
        output = as_used._output
        monkeypatch.setattr(as_used, "_output", lambda sde, t, x, wanted: output(sde, t - 0.001, x, wanted))
        assert used.error(50) != (50, pytest.approx(figures[50], rel=0.05))


@peers
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # diffusers' DEIS
def test_nothing_else_chosen_beats_every_peer_as_used():
    others = [u for u in as_used.used() if u.library != "sdekit"]
    for calls in (10, 20):
        own = as_used.sdekit_error(calls)
        assert own[0] == calls
        assert own[1] < min(u.error(calls)[1] for u in others)


def test_any_grid_and_stepper_as_used():
    flow, _, _ = as_used.problem()
    grid = sk.grids.karras(flow.process, 20)
    calls, error = as_used.sdekit_error(20, grid, "dpmpp-2m")
    assert calls == 20
    assert 1e-3 < error < 1e-2  # the end-point bias: the grid stops at t_min


@peers
def test_records_and_the_report(tmp_path, monkeypatch):
    some, all_used = [c for c in contenders.contenders() if c.name in FEW], as_used.used()
    monkeypatch.setattr(contenders, "contenders", lambda: iter(some))
    monkeypatch.setattr(as_used, "used", lambda: [u for u in all_used if u.name in FEW])
    study.run(tmp_path / "study", problems=["accuracy"], quick=True, progress=False)
    lines = (tmp_path / "study" / "results.jsonl").read_text().splitlines()
    records = {r["key"].removeprefix("accuracy/"): r for r in map(json.loads, lines)}
    assert set(records) == set(FEW)
    for record in records.values():
        assert record["values"]["evaluations"] == record["values"]["budgets"]
    assert records["w2/k-diffusion/dpmpp_2m_sde"]["values"]["errors"][0] == pytest.approx(1.2e-2, rel=0.05)
    page = (tmp_path / "study" / "report.html").read_text()
    for text in ("Accuracy per evaluation", "Flow, on one grid: sdekit is at least as accurate", "vAB-3, rectified"):
        assert text in page


def test_names_are_distinct_and_solvers_can_be_chosen():
    names = [c.name for c in contenders.contenders()] + [u.name for u in as_used.used()]
    assert len(set(names)) == len(names)
    assert set(FEW) <= set(names)
    chosen = study.Settings.of(["accuracy"], ["deis-3"], None, "cpu", 0, True)
    ours = {t.name for t in plan(chosen) if t.about["library"] == "sdekit"}
    assert ours == {"flow/sdekit/deis-3", "flow/sdekit/deis-3-ramp", "flow/sdekit/v-abm-5-ramp", "as-used/sdekit/solve"}
    assert not [*accuracy.tasks(study.Settings.of(["peers"], None, None, "cpu", 0, True))]
