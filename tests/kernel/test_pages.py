"""A cursor leads back to the row it was made from, and anything else is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.pages import (
    PAGE_DEFAULT,
    PAGE_MAX,
    CursorInvalid,
    PageSizeInvalid,
    decode_cursor,
    decode_moment,
    encode_cursor,
    encode_moment,
    page_by_moment,
    page_of,
    page_size,
)

MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(st.lists(st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1)), max_size=5))
def test_a_cursor_reads_back_as_the_key_it_was_made_of(keys: list[str | int]) -> None:
    assert decode_cursor(encode_cursor(*keys)) == [str(key) for key in keys]


@given(st.lists(st.text(), max_size=5))
def test_a_cursor_goes_into_an_address_as_it_is(keys: list[str]) -> None:
    assert set(encode_cursor(*keys)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@given(MOMENTS, st.uuids())
def test_a_moment_and_its_row_read_back(at: datetime, row_id: UUID) -> None:
    assert decode_moment(encode_moment(at, row_id)) == (at, row_id)


def test_the_first_page_has_no_cursor() -> None:
    assert decode_moment(None) == (None, None)


@given(st.text())
def test_any_text_is_a_cursor_or_a_refusal(text: str) -> None:
    for decode in (decode_cursor, decode_moment):
        try:
            decode(text)
        except CursorInvalid:
            continue


@pytest.mark.parametrize("text", ["", "!", "e30", "bnVsbA", "W251bGxd", "WzEuNV0", "é"])
def test_what_no_list_made_is_refused(text: str) -> None:
    """Empty text, an object, null, [null], [1.5]."""
    with pytest.raises(CursorInvalid):
        decode_cursor(text)


@pytest.mark.parametrize(
    "keys", [(), ("2026-01-01T00:00:00+00:00",), ("2026-01-01T00:00:00", str(UUID(int=1))),
             ("yesterday", str(UUID(int=1))), ("2026-01-01T00:00:00+00:00", "1"), ("a", "b", "c"),
             ("0001-01-01T00:00:00+23:59", str(UUID(int=1))),
             ("9999-12-31T23:59:59-23:59", str(UUID(int=1)))]
)  # fmt: skip
def test_a_cursor_of_another_list_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(CursorInvalid):
        decode_moment(encode_cursor(*keys))


@given(st.integers(1, PAGE_MAX))
def test_a_size_within_the_limit_is_kept(size: int) -> None:
    assert page_size(size) == size


def test_a_list_without_a_size_has_the_usual_one() -> None:
    assert page_size(None) == PAGE_DEFAULT


@given(st.one_of(st.integers(max_value=0), st.integers(min_value=PAGE_MAX + 1)))
def test_any_other_size_is_refused(size: int) -> None:
    with pytest.raises(PageSizeInvalid):
        page_size(size)


@given(st.lists(st.integers(), unique=True), st.integers(1, 5))
def test_pages_one_after_the_other_have_every_row_once(numbers: list[int], size: int) -> None:
    rows, seen, after = sorted(numbers), list[int](), float("-inf")
    while True:
        page = page_of([each for each in rows if each > after][: size + 1], size, lambda row: row)
        seen += page.items
        if page.next_cursor is None:
            break
        assert len(page.items) == size
        after = int(decode_cursor(page.next_cursor)[0])
    assert seen == rows


def test_a_row_is_named_by_its_id_as_text() -> None:
    rows = [UUID(int=1), UUID(int=2)]
    page = page_of(rows, 1, lambda row: row)
    assert page.items == rows[:1]
    assert page.next_cursor == encode_cursor(str(rows[0]))


@given(st.lists(st.tuples(MOMENTS, st.uuids()), unique=True), st.integers(1, 4))
def test_a_list_by_moments_has_every_row_once(rows: list[tuple[datetime, UUID]], size: int) -> None:
    ordered, seen, cursor = sorted(rows, reverse=True), list[tuple[datetime, UUID]](), None
    while True:
        after = decode_moment(cursor)
        left = [each for each in ordered if after[0] is None or each < after]
        page = page_by_moment(left[: size + 1], size, lambda row: row)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ordered
