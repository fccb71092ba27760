"""Negative controls: the check of every mutant in the zoo passes what is right and rejects the slip."""

from __future__ import annotations

import pytest
from mutants import TRAPS, ZOO, Mutant
from mutants.checks import ACCEPTED, claim, golden
from mutants.flows import RatioInverted, RatioOne
from mutants.generator import AnotherClock
from mutants.paths import AreaNotReflected, AreaScaled
from mutants.samplers import BatchScaled, EtaNotSquared, LateScore, NoiseOfTheStart

LISTED = [pytest.param(m, id=m.name, marks=[pytest.mark.certify] if m.slow else []) for m in ZOO]


@pytest.mark.parametrize("mutant", LISTED)
def test_the_check_sees_the_slip(mutant: Mutant) -> None:
    assert mutant.check.passes(mutant.right), f"{mutant.check.name} rejects what is right"
    assert not mutant.check.passes(mutant.wrong), f"{mutant.check.name} does not see: {mutant.trap}"


def test_no_trap_is_without_a_check() -> None:
    named = [trap.strip() for trap in TRAPS.replace("\n", " ").split(";")]
    assert len(set(named)) == len(named)
    assert set(named) == {mutant.trap for mutant in ZOO}
    assert len({type(m.wrong) if hasattr(m.wrong, "spec") else m.wrong for m in ZOO}) >= 30
    assert len({mutant.name for mutant in ZOO}) == len(ZOO)


SMOOTH, JAGGED = (16, 32, 64, 128, 256), (48, 96, 192, 384, 768)
BLIND = {
    # why one check is not enough: the slip, and checks that it passes
    RatioInverted: [claim("w2", "vp-gaussian", 0.0, SMOOTH), claim("w2", "vp-gaussian", 0.0, JAGGED, jagged=True)],
    RatioOne: [claim("w2", "vp-gaussian", 0.0, SMOOTH)],
    AnotherClock: [claim("w2", "vp-gaussian", 0.0, SMOOTH)],
    EtaNotSquared: [claim("w2", "vp-gaussian", 0.5, SMOOTH)],
    NoiseOfTheStart: [claim("w2", "vp-gaussian", 1.0, SMOOTH)],
    LateScore: [claim("w2", "vp-gaussian", 1.0, SMOOTH)],
    AreaScaled: [claim("w2", "rotation", None, SMOOTH)],
    AreaNotReflected: [golden(1.0)],  # a law does not know the sign of H
    BatchScaled: [ACCEPTED],  # within the one batch of the probe the size is a number
}


@pytest.mark.parametrize(
    ("slip", "check"),
    [(s, c) for s, cs in BLIND.items() for c in cs],
    ids=lambda v: getattr(v, "__name__", getattr(v, "name", None)),
)
def test_what_a_check_cannot_see(slip, check) -> None:
    """And only what it cannot: should this fail, the check has become sharper."""
    assert check.passes(slip())
