"""The certificates that the package ships: strong orders are sure, and the documentation's lines have one each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import sdekit as sk
from sdekit.verify import certificates
from sdekit.verify.certificates import SURE, Certificate

LINES = re.findall(
    r"<!-- measured: (\S+) (\S+) -->", Path(__file__).parents[1].joinpath("docs/verification.md").read_text()
)


def blunt(found: list[Certificate]) -> list[Certificate]:
    """Strong orders that say too little."""
    strong = [c for c in found if c.kind == "strong" and c.uncertainty is not None]
    return [c for c in strong if c.uncertainty > SURE]


@pytest.mark.parametrize("stepper", sk.STEPPERS)
def test_strong_orders_are_sure(stepper):
    found = certificates.load(stepper)
    assert not blunt(found)
    assert all(c.holds for c in found)


def test_an_order_that_is_not_sure_is_seen():
    one = next(c for c in certificates.load("milstein-general") if c.fact == "strong/general")
    assert blunt([one, replace(one, uncertainty=0.0526)]) == [replace(one, uncertainty=0.0526)]


@pytest.mark.parametrize(("stepper", "fact"), LINES)
def test_lines_of_the_documentation(stepper, fact):
    """The certificate is there, is sharp, and is of the order that the line names."""
    c = certificates.by_fact(certificates.load(stepper))[fact]
    assert c.sharp
    assert c.order == pytest.approx(c.declared, abs=4 * c.uncertainty + 0.005)


def test_there_are_lines():
    assert len(LINES) > 20
