"""The limits of the chains: order one, with the constant that theory gives; a slip in a chain shows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import sdekit as sk
from sdekit import report, study, verify
from sdekit.study import limits
from sdekit.study.parts import plan

SMALL = (64, 128, 256, 512)


@pytest.mark.parametrize("t", limits.TIMES)
@pytest.mark.parametrize("kind", ["marginal", "transition"])
@pytest.mark.parametrize("chain", limits.LIMITS)
def test_the_laws_tend_at_order_one_with_the_constant_of_theory(chain, kind, t):
    limit = limits.LIMITS[chain]
    errors = [limits.distance(limit, kind, n, t) for n in SMALL]
    found = verify.fit_order(SMALL, errors, 1e-14)
    assert abs(found.order - 1.0) < 0.01
    # Richardson: the constant without its next term.
    first = 2.0 * SMALL[-1] * errors[-1] - SMALL[-2] * errors[-2]
    assert first == pytest.approx(limits.constant(limit, kind, t), rel=2e-3)


@pytest.mark.parametrize("chain", limits.LIMITS)
def test_the_ancestral_samplers_tend_at_order_one(chain):
    levels = (32, 64, 128, 256) if chain == "smld" else (64, 128, 192, 256)
    errors = [limits.distance(limits.LIMITS[chain], "ancestral", n, 0.5) for n in levels]
    assert abs(verify.fit_order(levels, errors, 1e-14).order - 1.0) < 0.02


def doubled(levels: int) -> sk.DiscreteVP:
    """β_i = 2 β/L: a wrong limit."""
    return sk.DiscreteVP(2.0 * torch.tensor(limits.ddpm(levels).schedule.betas))


def rooted(levels: int) -> sk.DiscreteVP:
    """The signal kept is 1 − β_i instead of its root."""
    return sk.DiscreteVP(1.0 - (1.0 - torch.tensor(limits.ddpm(levels).schedule.betas)) ** 2)


def late(levels: int) -> sk.DiscreteVP:
    """β_i = β((i − 1)/L)/L, the left ends: the right limit with another constant."""
    betas = torch.tensor(limits.ddpm(levels).schedule.betas)
    return sk.DiscreteVP(torch.cat([torch.tensor([sk.VP().beta_min / levels]), betas[:-1]]))


def arithmetic(levels: int) -> sk.DiscreteVE:
    """Levels of SMLD in arithmetic, not geometric, progression."""
    return sk.DiscreteVE(torch.linspace(0.01, 50.0, levels, dtype=torch.float64))


@pytest.mark.parametrize(
    ("chain", "slip"),
    [("ddpm", doubled), ("ddpm", rooted), ("ddpm", late), ("smld", arithmetic)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_a_slip_in_a_chain_is_seen(chain, slip):
    limit = limits.LIMITS[chain]
    wrong = replace(limit, chain=slip)
    errors = [limits.distance(wrong, "marginal", n, 0.5) for n in SMALL]
    first = 2.0 * SMALL[-1] * errors[-1] - SMALL[-2] * errors[-2]
    assert abs(first / limits.constant(limit, "marginal", 0.5) - 1.0) > 0.2


def test_the_study_has_a_section_of_them(tmp_path):
    folder = tmp_path / "study"
    study.run(folder, problems=["limits"], quick=True, progress=False)
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [r["key"] for r in records] == [f"limits/{c}/{k}/t=0.5" for c in limits.LIMITS for k in limits.KINDS]
    assert all(abs(r["values"]["order"] - 1.0) < 0.01 for r in records)
    page = (folder / report.page.REPORT).read_text()
    for text in ("Discrete chains and their limits", "DDPM → VP", "ancestral sampler", "6 measurements"):
        assert text in page


def test_the_part_runs_only_when_it_is_asked_for():
    for chosen, expected in (["vp-gaussian"], False), (["limits"], True):
        found = {t.part for t in plan(study.Settings.of(chosen, None, None, "cpu", 0, True))}
        assert ("limits" in found) == expected
