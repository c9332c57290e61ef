"""Read the request log, and forget what is over."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.infra.request_log import _store as store
from tongbao.infra.request_log.model import Line, RequestNotLogged, Wanted
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size

_PRUNED_MAX: Final = 10_000  # in one round, so that no round holds others up


async def line_of_merchant(db: Db, merchant_id: UUID, mode: Mode, line_id: UUID) -> Line:
    """Return one line.

    Raises:
        RequestNotLogged
    """
    line = await store.GET_LINE.first(db, merchant_id, mode, line_id)
    if line is None:
        raise RequestNotLogged
    return line


async def lines_of_merchant(
    db: Db, whose: tuple[UUID, Mode], wanted: Wanted, *, cursor: str | None, limit: int | None
) -> Page[Line]:
    """Return lines, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    lines = await store.LIST_LINES.all(
        db,
        *whose,
        wanted.method,
        wanted.route,
        wanted.status,
        wanted.code,
        wanted.key_id,
        wanted.since,
        wanted.until,
        _last(cursor),
        size + 1,
    )
    return page_of(lines, size, lambda line: line.id)


async def terms_at(on: Db | Tx, day: date) -> list[tuple[Mode, int, str]]:
    """Return for how many days lines are kept, by mode, and why."""
    return [(each.mode, each.days, each.because) for each in await store.TERMS_AT.all(on, day)]


async def prune(db: Db) -> int:
    """Forget lines older than the rule in force says, some thousands at once; return how many.

    The log is in real time, so a test clock that is moved on makes nothing older.
    """
    gone = 0
    now = real_now()
    for mode in Mode:
        days = await store.DAYS_KEPT.first(db, mode, business_date(now))
        if days is None:  # no rule, nothing goes
            continue
        async with db.begin("request_log") as tx:
            gone += await store.PRUNE.run(tx, mode, now - timedelta(days=days), _PRUNED_MAX)
    return gone


def _last(cursor: str | None) -> UUID | None:
    """Return the id of the last line of the page before.

    Raises:
        CursorInvalid
    """
    if cursor is None:
        return None
    try:
        [last] = decode_cursor(cursor)
        return UUID(last)
    except ValueError:
        raise CursorInvalid(param="cursor") from None
