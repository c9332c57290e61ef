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
STANDARD: Final = {
    "V1": "22 1111122223 112222222223 222 123",
    "V2": "122 112 12223 23",
    "V3": "3 113 12223 11222233 11122333 3 22333",
    "V4": "12233 23333 22 1222",
    "V5": "2 112333 113 222",
    "V6": "122 111111112222 11223333 112233 22222333 2223 33 2222",
    "V7": "222 1111 22 11222 223 22",
    "V8": "1233 1123 133 23",
    "V9": "111 1222",
    "V10": "22 223 22223 1111122222233333 22222 22 222",
    "V11": "2233 22233 11233 1222 23 23 33",
    "V12": "12233 11 22223",
    "V13": "2333 222223 2233 1222233",
    "V14": "22 12223333 122",
    "V15": "12233 12233 1222222 3333",
    "V16": "2 22222 2222 222 2223",
    "V17": "23 22223333 22",
}
"""The level of each requirement of 5.0.0: by chapter a word for each section, a digit for each."""
LEVELS: Final = ("1", "2")
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


def standard() -> dict[str, str]:
    """Return the level of every requirement that the map has to answer, by its id."""
    return {
        f"{chapter}.{section}.{number}": level
        for chapter, sections in STANDARD.items()
        for section, levels in enumerate(sections.split(), 1)
        for number, level in enumerate(levels, 1)
        if level in LEVELS
    }


def faults(rows: Iterable[Requirement], root: Path = ROOT) -> list[str]:
    """Return what is wrong with the map, a sentence each."""
    found, asked = list(rows), standard()
    wrong = [f"{each}: no row" for each in sorted(asked.keys() - {row.id for row in found})]
    wrong += [
        f"{row.id}: not of level {row.level}" for row in found if asked.get(row.id) != row.level
    ]
    wrong += [f"{each} twice" for each, n in Counter(row.id for row in found).items() if n > 1]
    for row in found:
        wrong += [f"{row.id}: {fault}" for fault in _faults_of(row, root)]
    return wrong


def page_lines(generated: str) -> list[str]:
    """Return the page that says how to read the map, with its counts."""
    rows = requirements()
    by_chapter = Counter((row.chapter, row.status) for row in rows)
    by_level = Counter((row.level, row.status) for row in rows)
    names = {f"level {level}": (level, by_level) for level in LEVELS}
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


def _faults_of(row: Requirement, root: Path) -> list[str]:
    wrong = [] if row.status in STATUSES else [f"no status: {row.status}"]
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
