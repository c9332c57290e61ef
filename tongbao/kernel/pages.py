"""Pages: keyset cursors, so that a list never skips or repeats a row while it grows."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Invalid

PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 100

T = TypeVar("T")


class CursorInvalid(Invalid):
    """The cursor was not made by this list."""

    code = "page.cursor_invalid"
    advice = "Send next_cursor exactly as the previous page returned it."
    advice_zh = "请原样传回上一页返回的 next_cursor。"


class PageSizeInvalid(Invalid):
    """The page size is outside 1 … 100."""

    code = "page.size_invalid"
    advice = "Send a limit between 1 and 100."
    advice_zh = "limit 应在 1 到 100 之间。"


class Page(Struct, Generic[T], frozen=True):
    """One page of a list, newest first, and the cursor of the next, if there is one."""

    items: list[T]
    next_cursor: str | None = None


def page_size(limit: int | None) -> int:
    """Return the size to use for a requested one.

    Raises:
        PageSizeInvalid
    """
    if limit is None:
        return PAGE_DEFAULT
    if not 1 <= limit <= PAGE_MAX:
        raise PageSizeInvalid(param="limit")
    return limit


def page_of(rows: list[T], size: int, key: Callable[[T], UUID | int | str]) -> Page[T]:
    """Return the first ``size`` rows of those that one more than that was asked for.

    ``key`` is what the list is sorted by, and goes on behind.
    """
    if len(rows) <= size:
        return Page(rows)
    last = key(rows[size - 1])
    return Page(rows[:size], encode_cursor(str(last) if isinstance(last, UUID) else last))


def page_by_moment(rows: list[T], size: int, key: Callable[[T], tuple[datetime, UUID]]) -> Page[T]:
    """Return the first ``size`` rows, as `page_of` does, of a list sorted by time and then id.

    The cursor is what `decode_moment` reads.
    """
    if len(rows) <= size:
        return Page(rows)
    return Page(rows[:size], encode_moment(*key(rows[size - 1])))


def encode_cursor(*keys: str | int) -> str:
    """Return the opaque text for the sort key of a page's last row."""
    return urlsafe_b64encode(msgspec.json.encode(keys)).decode().rstrip("=")


def decode_cursor(text: str) -> list[str]:
    """Return the sort key a cursor stands for.

    Raises:
        CursorInvalid
    """
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return [str(key) for key in msgspec.json.decode(raw, type=list[str | int])]
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise CursorInvalid(param="cursor") from None


def encode_moment(at: datetime, row_id: UUID) -> str:
    """Return the cursor after a row, for lists sorted by time and then id."""
    return encode_cursor(at.isoformat(), str(row_id))


def decode_moment(cursor: str | None) -> tuple[datetime | None, UUID | None]:
    """Return the time and id that `encode_moment` put down; neither for the first page.

    Raises:
        CursorInvalid
    """
    if cursor is None:
        return None, None
    try:
        at, row_id = decode_cursor(cursor)
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise CursorInvalid(param="cursor")
        return moment.astimezone(UTC), UUID(row_id)
    except (ValueError, OverflowError):  # a time before the first or after the last there is
        raise CursorInvalid(param="cursor") from None
