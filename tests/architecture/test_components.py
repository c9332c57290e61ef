"""Vulnerabilities of components are answered in their time; the register says which are known."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
import pytest

from tools.components import DAYS, HEAD, REGISTER, Known, faults, found_in, register
from tools.house import ROOT

DAY = date(2026, 11, 22)


def known(severity: str = "high", *, days: int = 0, answered: date | None = None) -> Known:
    answer = "upgraded" if answered else ""
    return Known("GHSA-1", "thing", severity, DAY - timedelta(days=days), answered, answer)


def test_the_register_can_be_read_and_names_components_of_ours() -> None:
    locked = (ROOT / "requirements-dev.lock").read_text("utf-8")

    assert REGISTER.read_text("utf-8").startswith(",".join(HEAD))
    assert [each for each in register() if f"{each.package}==" not in locked] == []
    assert faults(register(), date(2000, 1, 1)) == []


@pytest.mark.parametrize("severity", DAYS)
def test_what_is_open_has_its_days_and_no_more(severity: str) -> None:
    assert faults([known(severity, days=DAYS[severity])], DAY) == []
    assert faults([known(severity, days=DAYS[severity] + 1)], DAY) == [
        f"GHSA-1: thing is open since {DAY - timedelta(days=DAYS[severity] + 1)}"
    ]
    assert faults([known(severity, days=999, answered=DAY)], DAY) == []


def test_an_answer_says_something_and_a_severity_is_one() -> None:
    silent = msgspec.structs.replace(known(answered=DAY), answer="")

    assert faults([silent], DAY) == ["GHSA-1: answered without saying how"]
    assert faults([known("grave")], DAY) == ["GHSA-1: no severity 'grave'"]


def test_what_a_report_finds_is_in_the_register() -> None:
    report = msgspec.json.encode(
        {
            "dependencies": [
                {"name": "thing", "version": "1", "vulns": [{"id": "GHSA-1"}, {"id": "GHSA-2"}]},
                {"name": "other", "skip_reason": "unknown"},
            ]
        }
    )

    assert faults([known()], DAY, found_in(report)) == ["GHSA-2: thing is not in the register"]


def test_the_days_are_those_that_are_written_down() -> None:
    page = (ROOT / "docs/how-to/keep-components-fresh.md").read_text("utf-8")

    for severity in ("high", "medium"):
        assert f"| {severity} | {DAYS[severity]} days |" in page
    assert f"already | {DAYS['critical']} days |" in page
