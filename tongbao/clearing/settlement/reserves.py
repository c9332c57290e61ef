"""Release what was kept back, when its time is over: every part once, in groups."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.clearing.context import Clearing
from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.model import PAYABLE, ReservePart
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.payments.collecting.queries import cursor_id

_RULE: Final = "settlement.reserve_released"
_MOVED_ON: Final = "settlement.reserve_moved"
_PIECE: Final = 2_000


async def release_reserves(context: Clearing) -> int:
    """Give back what was kept until today or before, and return how many parts that was.

    A part that cannot be given back now, because its account is frozen, is tried again tomorrow.
    """
    now = context.db.clock.now()
    released, after = 0, None
    while parts := await store.PARTS_DUE.all(context.db, business_date(now), after, _PIECE):
        failpoint("settlement.before_reserve")
        results = await context.flow.ledger.submit([_group(part, now) for part in parts])
        released += sum(result.happened for result in results)
        after = parts[-1].settlement_id
    return released


def _group(part: ReservePart, now: datetime) -> Group:
    return Group(
        id=new_id(),  # the part's row keeps it to once; a refusal must not be remembered
        book=part.book,
        transfers=posting.transfers(
            _RULE,
            reference=part.settlement_id,
            accounts={
                kind: AccountKey(kind, part.currency, part.merchant_id)
                for kind in (PAYABLE, "merchant_reserve")
            },
            amounts={"amount": Money(part.amount, part.currency)},
        ),
        companions=(
            Write(store.RELEASE_PART, (part.book, part.settlement_id, now), refusal=_MOVED_ON),
        ),
    )


async def list_reserves(
    on: Db | Tx, merchant: UUID, mode: Mode, *, cursor: str | None = None, limit: int | None = None
) -> Page[ReservePart]:
    """Return a page of what was kept back from a merchant, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.PARTS_OF.all(on, merchant, mode, cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.settlement_id)
