"""Read what a bank's own statement closes with (camt.053, MT940)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from tongbao.clearing.reserve.model import Source
from tongbao.clearing.sources.layouts import built_in
from tongbao.clearing.sources.model import SourceFault, SourceRow, SourceTotal
from tongbao.clearing.sources.reading import Tally, read_file
from tongbao.kernel.errors import Invalid
from tongbao.kernel.money import exponent_of

LAYOUT_OF: Final = {Source.CAMT_053: "camt.053", Source.MT940: "mt940"}
"""Which layout reads which kind of paper."""
_EXPONENT: Final = 2  # what the layouts of statements are written for


class PaperUnreadable(Invalid):
    """The file is no whole statement of one account, with a closing that its rows lead to."""

    code = "reserve.paper_unreadable"
    advice = "Give the bank's own file of one account and day, unchanged."
    advice_zh = "请提供银行原始对账单文件：单一账户、单日、内容完整。"


def read_closing(path: Path, source: Source, currency: str) -> tuple[int, bytes]:
    """Return the closing balance of a bank's statement, in minor units, and the file's SHA-256.

    Each row counts: opening and rows must lead to the closing, and no line may be unreadable.

    Raises:
        PaperUnreadable
    """
    if source not in LAYOUT_OF or exponent_of(currency) != _EXPONENT:
        raise PaperUnreadable(reason=f"{source} in {currency}")
    closings: list[int] = []
    tally = Tally()
    for each in read_file(built_in()[LAYOUT_OF[source]], path):
        if isinstance(each, SourceRow):
            tally.take(each)
            if each.currency != currency:
                raise PaperUnreadable(reason=f"a row in {each.currency}", line=each.line)
        elif isinstance(each, SourceTotal):
            if (wrong := tally.contradiction(each)) is not None:
                raise PaperUnreadable(reason=wrong.code, line=wrong.line)
            if each.closing is not None:
                closings.append(each.closing)
        elif isinstance(each, SourceFault):
            raise PaperUnreadable(reason=each.code, line=each.line)
    if len(closings) != 1:
        raise PaperUnreadable(reason=f"{len(closings)} closing balances")
    with path.open("rb") as file:
        return closings[0], hashlib.file_digest(file, "sha256").digest()
