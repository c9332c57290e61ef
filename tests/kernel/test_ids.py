"""Ids are unique, ordered, readable, and refuse what is not theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel import ids
from tongbao.kernel.ids import (
    ALPHABET,
    UnknownId,
    base32,
    derived_id,
    from_base32,
    new_id,
    parse,
    show,
)

UUIDS = st.uuids()
PREFIXES = st.sampled_from(["pay", "att", "ref", "mch", "key", "evt"])


def test_ids_of_one_process_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(5_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [
            one
            for many in pool.map(lambda _: [new_id() for _ in range(500)], range(8))
            for one in many
        ]

    assert len(set(made)) == len(made)
    assert len({(each.int >> 64) for each in made}) == len(made), "the order alone is unique"


def test_an_id_has_the_form_of_rfc_9562() -> None:
    made = new_id()

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"


def test_an_id_begins_with_its_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last_tick", 0)
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_123_500_000)

    made = new_id()

    assert made.int >> 80 == 1_700_000_000_123
    assert made.int >> 64 & 0xFFF == 2048, "half a millisecond of 4096 ticks"


def test_a_clock_that_steps_back_does_not_disturb_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ids, "_last_tick", 0)
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    before = new_id()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_600_000_000_000_000_000)

    after = new_id()

    assert after > before


@given(UUIDS)
def test_text_reads_back_as_the_same_id(value: UUID) -> None:
    text = base32(value)

    assert from_base32(text) == value
    assert len(text) == 26
    assert set(text) <= set(ALPHABET)


@given(UUIDS, UUIDS)
def test_text_sorts_as_the_ids_do(one: UUID, other: UUID) -> None:
    assert (base32(one) < base32(other)) == (one < other)


@given(PREFIXES, UUIDS)
def test_the_public_form_reads_back(prefix: str, value: UUID) -> None:
    assert parse(prefix, show(prefix, value)) == value


@given(UUIDS)
def test_an_id_of_another_kind_is_unknown(value: UUID) -> None:
    with pytest.raises(UnknownId):
        parse("ref", show("pay", value))


@given(st.text(max_size=40))
def test_text_is_the_id_it_shows_or_no_id(text: str) -> None:
    """No two texts are one id, so an id cannot be looked up under another spelling."""
    try:
        value = parse("pay", text)
    except UnknownId:
        return

    assert show("pay", value) == text


@pytest.mark.parametrize(
    "text",
    ["", "0", "0" * 25, "0" * 27, "8" + "0" * 25, "z" * 26, "o" * 26, "I" * 26, "A" * 26,
     "٣" * 26, "0" * 25 + "\n", "-" + "0" * 25],
)  # fmt: skip
def test_what_is_no_id_is_unknown(text: str) -> None:
    """The largest id begins with 7: one bit more would not fit, and would alias a smaller one."""
    with pytest.raises(UnknownId):
        from_base32(text)


@given(UUIDS, UUIDS, st.text(max_size=20), st.text(max_size=20))
def test_a_role_of_a_thing_has_one_id_for_ever(
    one: UUID, other: UUID, role: str, other_role: str
) -> None:
    assert derived_id(one, role) == derived_id(one, role)
    assert (derived_id(one, role) == derived_id(other, other_role)) == (
        (one, role) == (other, other_role)
    )


def test_derived_ids_never_change() -> None:
    """They are stored as what makes a repeat a no-op, so the derivation is for ever."""
    parent = UUID("01a20059-448a-7b1b-96c0-8513745631a6")
    assert derived_id(parent, "capture") == UUID("01a20059-448a-7b1b-a4e4-b7acad4d5a7b")


@given(st.uuids(), st.text())
def test_what_is_derived_lies_beside_its_parent(parent: UUID, role: str) -> None:
    """The ledger finds the transfers of a reference by it, and its month."""
    assert derived_id(parent, role).bytes[:8] == parent.bytes[:8]
