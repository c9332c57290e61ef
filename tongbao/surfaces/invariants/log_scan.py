"""Look through logs that were written for what must never be in one.

The process removes it before a line is written; this is the check on that, and on whatever else
writes beside it: proxies, systemd, the database. A finding says where, and never what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from tongbao.infra.telemetry import REMOVED, redact_text

_LINE_MAX: Final = 16_000
"""A longer line is looked at in pieces that overlap, for the redaction cuts what is longer."""
_OVERLAP: Final = 200
_GONE: Final = re.compile(rf"""["']?{re.escape(REMOVED)}["']?""")
_PHONE: Final = re.compile(r"(?<![\d.-])(?:\+?86[ -]?)?1[3-9]\d{9}(?![\d.-])")
_OWN_SECRET: Final = re.compile(r"\b(?:sk_(?:live|sandbox)|tk|whsec)_[A-Za-z0-9_-]{20,}")


class LogFinding(Struct, frozen=True):
    """One line that holds what it must not, by its number, and what kind of thing that is."""

    line: int
    what: str


def scan_log(lines: Iterable[str]) -> Iterator[LogFinding]:
    """Yield each line with a secret, a card number, a payment code or a person's number."""
    for number, line in enumerate(lines, start=1):
        for what in sorted(_found_in(line)):
            yield LogFinding(number, what)


def _found_in(line: str) -> set[str]:
    found = set()
    for start in range(0, max(len(line), 1), _LINE_MAX - _OVERLAP):
        piece = line[start : start + _LINE_MAX]
        if _bare(redact_text(piece)) != _bare(piece.encode(errors="replace").decode()):
            found.add("secret, card or resident id")
        if _OWN_SECRET.search(piece):
            found.add("key of ours")
        if _PHONE.search(piece):
            found.add("phone number")
    return found


def _bare(text: str) -> str:
    """Return a text without what was removed from it before, quotes included."""
    return _GONE.sub("", text)
