"""Every requirement of OWASP ASVS 5.0.0, levels 1 and 2, has an answer that can be looked up."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest
from msgspec.structs import replace

from tools import asvs

FIRST: Final = asvs.requirements()[0]


def test_every_requirement_has_an_answer_and_all_evidence_exists() -> None:
    rows = asvs.requirements()

    assert asvs.faults(rows) == []
    assert len(rows) == len(asvs.standard()) == 253
    assert {row.chapter for row in rows} == set(asvs.CHAPTERS)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"evidence": ["tests/nowhere.py::test_nothing"]}, "no such evidence"),
        ({"evidence": ["tests/architecture/test_asvs.py::test_nothing"]}, "no such evidence"),
        ({"evidence": [], "note": ""}, "neither evidence nor note"),
        ({"status": "met", "evidence": []}, "met without evidence"),
        ({"status": "open", "note": ""}, "without a note"),
        ({"status": "fine"}, "no status"),
        ({"level": "2" if FIRST.level == "1" else "1"}, "not of level"),
        ({"id": "V1.2.10"}, "not of level"),  # of level 3
        ({"id": "V99.1.1"}, "not of level"),
    ],
)
def test_every_fault_of_a_row_is_seen(changed: dict[str, object], fault: str) -> None:
    first, *others = asvs.requirements()

    assert fault in "\n".join(asvs.faults([replace(first, **changed), *others]))


def test_a_requirement_that_is_missing_or_doubled_is_seen() -> None:
    rows = asvs.requirements()

    assert asvs.faults(rows[1:]) == [f"{rows[0].id}: no row"]
    assert f"{rows[1].id} twice" in asvs.faults([rows[1], *rows])
    assert Counter("".join(asvs.STANDARD.values()).replace(" ", "")) == {"1": 70, "2": 183, "3": 92}
