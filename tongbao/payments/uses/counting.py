"""Count a payment where it counts, and give back what one counted that ended unpaid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra.db import Db, Write
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.terminals import limits as terminals
from tongbao.parties.terminals.model import (
    METADATA_KEY,
    PREFIX,
    LimitAmountExceeded,
    LimitCountExceeded,
    LimitCurrencyDiffers,
    LimitEachExceeded,
    TerminalNotFound,
    TerminalSuspended,
)
from tongbao.payments.agreements import agreements
from tongbao.payments.methods.asked import HowAsked

REFUSED: Final = frozenset({agreements.USE_REFUSED, terminals.USE_REFUSED})
"""A place that was free a moment ago was taken: whoever asked looks again and says why."""
AT_TERMINAL: Final[tuple[type[Refusal], ...]] = (
    TerminalNotFound,
    TerminalSuspended,
    LimitCurrencyDiffers,
    LimitEachExceeded,
    LimitCountExceeded,
    LimitAmountExceeded,
)
"""What `at_terminal` refuses."""


async def at_terminal(
    db: Db,
    shown_id: str | None,
    owner: tuple[UUID, Mode],
    *,
    book: int,
    money: Money,
    payment_id: UUID,
) -> tuple[dict[str, str], tuple[Write, ...]]:
    """Return what a payment's metadata say of its terminal, and the writes that count it there.

    Raises:
        UnknownId, TerminalNotFound, TerminalSuspended, LimitCurrencyDiffers, LimitEachExceeded,
        LimitCountExceeded, LimitAmountExceeded
    """
    if shown_id is None:
        return {}, ()
    now = db.clock.now()
    found = await terminals.usable_terminal(db, shown_id, owner, book=book, money=money, now=now)
    writes = terminals.count_writes(book, found.id, payment_id, money, now)
    return told_of(show(PREFIX, found.id)), writes


def told_of(shown_id: str) -> dict[str, str]:
    """Return what a payment's metadata say of its terminal, by the id it is shown with.

    Raises:
        UnknownId
    """
    return {METADATA_KEY: show(PREFIX, parse(PREFIX, shown_id))}


def given_back(
    book: int, payment_id: UUID, how: HowAsked | None, metadata: Mapping[str, str], now: datetime
) -> tuple[Write, ...]:
    """Return the writes that give back what a payment counted, which has ended unpaid."""
    writes: tuple[Write, ...] = ()
    if how is not None and how.agreement_id is not None:
        writes += agreements.release_writes(book, payment_id, now)
    if METADATA_KEY in metadata:  # a merchant may have written that; then nothing was counted
        writes += terminals.release_writes(book, payment_id, now)
    return writes
