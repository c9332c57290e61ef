"""Components and their vulnerabilities: what is known, answered, and beyond its time.

    python -m tools.components [report.json]

The report is of ``pip-audit -f json``. How soon something has to be answered is written in
docs/how-to/keep-components-fresh.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao.kernel.clock import real_now
from tools.house import ROOT

REGISTER: Final = ROOT / "docs" / "known-vulnerabilities.csv"
HEAD: Final = ["id", "package", "severity", "known_since", "answered", "answer"]
DAYS: Final[Mapping[str, int]] = {"critical": 3, "high": 14, "medium": 60, "low": 60}
"""How many days there are, by severity; what is low goes with the next renewal."""


class Known(Struct, frozen=True):
    """A row of the register; ``answered`` None: it is open."""

    id: str
    package: str
    severity: str
    known_since: date
    answered: date | None
    answer: str


def register(path: Path = REGISTER) -> list[Known]:
    """Return every vulnerability that was ever known of a component."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    if head != HEAD:
        raise ValueError(f"the columns of {path} are {head}")
    return [
        Known(
            row[0],
            row[1],
            row[2],
            date.fromisoformat(row[3]),
            date.fromisoformat(row[4]) if row[4] else None,
            row[5],
        )
        for row in rows
    ]


def found_in(report: bytes) -> set[tuple[str, str]]:
    """Return the ids and packages of a report of pip-audit."""
    said: dict[str, Any] = msgspec.json.decode(report)
    return {
        (vulnerability["id"], component["name"])
        for component in said["dependencies"]
        for vulnerability in component.get("vulns", ())
    }


def faults(known: Iterable[Known], today: date, found: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Return what is beyond its time, and what was found and nobody wrote down, a sentence each."""
    wrong = []
    there = set()
    for each in known:
        there.add((each.id, each.package))
        if each.severity not in DAYS:
            wrong.append(f"{each.id}: no severity {each.severity!r}")
        elif each.answered is None and (today - each.known_since).days > DAYS[each.severity]:
            wrong.append(f"{each.id}: {each.package} is open since {each.known_since}")
        elif each.answered is not None and not each.answer:
            wrong.append(f"{each.id}: answered without saying how")
    wrong += [f"{name}: {package} is not in the register" for name, package in set(found) - there]
    return sorted(wrong)


def main() -> None:
    """Print the faults and fail where there are any."""
    found = found_in(Path(sys.argv[1]).read_bytes()) if len(sys.argv) > 1 else set()
    wrong = faults(register(), real_now().date(), found)
    print("\n".join(wrong) or "nothing is beyond its time")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
