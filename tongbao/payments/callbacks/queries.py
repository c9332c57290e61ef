"""What others may ask about callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.payments.callbacks import _store as store
from tongbao.payments.callbacks.model import InboundCallback, NoticeFilter
from tongbao.payments.collecting.queries import cursor_id

BODIES_KEPT: Final = (
    Raw(
        "callback",
        "What channels told, as it came",
        "渠道通知原文",
        store.ERASE_BODIES,
        has_book=False,
    ),
    Raw(
        "refused_callback",
        "What claimed to be from a channel, and is forged or unreadable",
        "伪造或无法识别的通知原文",
        store.ERASE_REFUSED,
        has_book=False,
    ),
)


async def callbacks_about(on: Db | Tx, numbers: Sequence[str]) -> list[InboundCallback]:
    """Return every callback about these numbers of ours, oldest first, for a timeline."""
    return await store.CALLBACKS_ABOUT.all(on, list(numbers))


async def erase_about(tx: Tx, numbers: Sequence[str], at: str) -> int:
    """Erase what channels told about these numbers, digests aside; return of how many notices."""
    return await store.ERASE_ABOUT.run(tx, list(numbers), at)


async def list_aside(
    on: Db | Tx, wanted: NoticeFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[InboundCallback]:
    """Return a page of what channels sent and nobody took, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_ASIDE.all(
        on, wanted.state, wanted.kind, wanted.channel, cursor_id(cursor), size + 1
    )
    return page_of(rows, size, lambda row: row.id)
