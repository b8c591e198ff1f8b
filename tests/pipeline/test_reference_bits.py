"""Whole jobs on small models give the bits that tests/reference_bits.json records; see tests/reference_bits.py."""

import json

import pytest

from tests.reference_bits import CASES, RECORD, compare, environment


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.slow) if name == "demo" else name for name in CASES]
)
def test_a_job_gives_the_recorded_bits(case):
    if environment() not in json.loads(RECORD.read_text(encoding="utf-8")):
        pytest.skip(f"no bits are recorded for {environment()}: `python -m tests.reference_bits --record` records them")
    assert compare(case) == []
