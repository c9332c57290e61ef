"""The map of OWASP ASVS 5.0.0: which requirement is met, by which test, and what is open.

``docs/asvs.csv`` has a row for every requirement of levels 1 and 2. The standard's sentences are
under CC BY-SA and are not repeated: the map has their ids and levels, and notes in our own words.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from tools.house import ROOT

MAP: Final = ROOT / "docs" / "asvs.csv"
COUNTS: Final = {"1": 70, "2": 183}
"""How many requirements of each level the standard has: counted in its own list of 5.0.0."""
STATUSES: Final = {
    "met": "done, and the evidence shows it",
    "partly": "done in part; the note says what is missing",
    "open": "not done",
    "not_applicable": "there is nothing here that it speaks of; the note says why",
}
CHAPTERS: Final = {
    "V1": "encoding", "V2": "business logic", "V3": "browsers", "V4": "HTTP", "V5": "files",
    "V6": "authentication", "V7": "sessions", "V8": "authorization", "V9": "sealed tokens",
    "V10": "OAuth", "V11": "cryptography", "V12": "TLS", "V13": "configuration", "V14": "data",
    "V15": "code", "V16": "logs", "V17": "WebRTC",
}  # fmt: skip
HEAD: Final = ["id", "level", "status", "evidence", "note"]
_ID: Final = re.compile(r"V\d{1,2}\.\d{1,2}\.\d{1,2}")


class Requirement(Struct, frozen=True):
    """A row; ``evidence`` names tests as ``path::name`` and other files by their path."""

    id: str
    level: str
    status: str
    evidence: list[str]
    note: str

    @property
    def chapter(self) -> str:
        """Return the chapter it stands in."""
        return self.id.partition(".")[0]


def requirements() -> list[Requirement]:
    """Return every row of the map, in its order."""
    with MAP.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    if head != HEAD:
        raise ValueError(f"the columns of {MAP} are {head}")
    return [Requirement(row[0], row[1], row[2], row[3].split(), row[4]) for row in rows]


def faults(rows: Iterable[Requirement], root: Path = ROOT) -> list[str]:
    """Return what is wrong with the map, a sentence each."""
    found = list(rows)
    wrong = [f"{level}: {n} rows" for level, n in _levels(found).items() if COUNTS.get(level) != n]
    wrong += [f"{each} twice" for each, n in Counter(row.id for row in found).items() if n > 1]
    for row in found:
        wrong += [f"{row.id}: {fault}" for fault in _faults_of(row, root)]
    return wrong


def page_lines(generated: str) -> list[str]:
    """Return the page that says how to read the map, with its counts."""
    rows = requirements()
    by_chapter = Counter((row.chapter, row.status) for row in rows)
    by_level = Counter((row.level, row.status) for row in rows)
    names = {f"level {level}": (level, by_level) for level in COUNTS}
    chapters = {f"{key} {name}": (key, by_chapter) for key, name in CHAPTERS.items()}
    return [
        "# Security: the map of OWASP ASVS",
        generated,
        "",
        "[asvs.csv](../asvs.csv) has a row for each requirement of levels 1 and 2 of OWASP",
        "ASVS 5.0.0: its id, its level, a status, the evidence and a note. Read the requirement",
        "itself in the standard. Evidence is a test (`path::name`: run it with",
        "`pytest path::name`) or a file to read. A test fails when a requirement is missing, when",
        "evidence names what is not there, or when a row has neither evidence nor note. The",
        "statuses are our own judgement; nobody from outside has checked them.",
        "",
        *[f"- **{status}**: {meaning}." for status, meaning in STATUSES.items()],
        "",
        f"| | {' | '.join(STATUSES)} |",
        f"| --- {'| ---: ' * len(STATUSES)}|",
        *[_counted(name, *of) for name, of in {**names, **chapters}.items()],
        "",
        "## Open",
        "",
        *[f"- {row.id} (level {row.level}): {row.note}." for row in rows if row.status == "open"],
        "",
        "## Met in part",
        "",
        *[f"- {row.id} (level {row.level}): {row.note}." for row in rows if row.status == "partly"],
    ]


def _counted(name: str, key: str, counts: Counter[tuple[str, str]]) -> str:
    return f"| {name} | {' | '.join(str(counts[key, status]) for status in STATUSES)} |"


def _levels(rows: Iterable[Requirement]) -> dict[str, int]:
    return {**dict.fromkeys(COUNTS, 0), **Counter(row.level for row in rows)}


def _faults_of(row: Requirement, root: Path) -> list[str]:
    wrong = [f"no id: {row.id}"] if not _ID.fullmatch(row.id) or row.chapter not in CHAPTERS else []
    if row.status not in STATUSES:
        wrong.append(f"no status: {row.status}")
    if not row.evidence and not row.note:
        wrong.append("neither evidence nor note")
    if row.status == "met" and not row.evidence:
        wrong.append("met without evidence")
    if row.status != "met" and not row.note:
        wrong.append("without a note")
    return wrong + [f"no such evidence: {each}" for each in row.evidence if not _is(each, root)]


def _is(evidence: str, root: Path) -> bool:
    path, _, name = evidence.partition("::")
    file = root / path
    if not file.is_file():
        return False
    written = rf"^(async )?def {re.escape(name)}\("
    return not name or re.search(written, file.read_text("utf-8"), re.MULTILINE) is not None
