"""Frames: what goes in comes out, and what is no frame is refused by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.making import ALICE, BANK, NOTE, SPEND, group, pending, post, single
from tongbao.infra.db import PROGRAM, Write
from tongbao.ledger.decision.records import COMMAND, batch_of
from tongbao.ledger.wire.codec import (
    FRAME_MAX,
    HEADER,
    VERSION,
    Ask,
    Failed,
    FrameMalformed,
    Frames,
    Reply,
    Told,
    VersionForeign,
    VersionsDiffer,
    ask_frame,
    batch_in,
    decode_ask,
    decode_reply,
    empty_frame,
    encode_writes,
    reply_frame,
    writes_of,
)

SHANGHAI = timezone(timedelta(hours=8))
BIGINT = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    BIGINT,
    st.text(),
    st.binary(),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([UTC, SHANGHAI])),
    st.datetimes(),
    st.decimals(allow_nan=False),
    st.timedeltas(),
    st.floats(allow_nan=False),
)
JSON = st.recursive(
    st.none() | st.booleans() | BIGINT | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ARGUMENTS = SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), JSON)


class Colour(StrEnum):
    RED = "red"


class Body(msgspec.Struct):
    id: UUID
    at: datetime
    colour: Colour


def batch(*groups):
    return batch_of(
        groups, {BANK: 1 << 40 | 1, ALICE: 1 << 40 | 2}, {"test/leg": 1, "test/post": 2}
    )


ONE = batch(group(single(5, BANK, ALICE)))
WHOLE = batch(group(single(5, BANK, ALICE), single(6, BANK, ALICE)), group())


def asking(asked, *writes, left_ms=(10,), counts=None):
    """Return a frame that asks for a batch."""
    raw = [encode_writes(each) for each in writes]
    counts = [len(asked.ids)] if counts is None else counts
    return ask_frame(7, 3, asked, left_ms=left_ms, counts=counts, writes=raw)


def through(asked, *writes, **more):
    """Return the question as the other side reads it."""
    [body] = Frames().feed(asking(asked, *writes, **more))
    ask = decode_ask(body)
    assert (ask.first, ask.book) == (7, 3)
    return ask


@settings(max_examples=40)
@given(st.lists(ARGUMENTS))
def test_arguments_arrive_with_their_values_and_types(args):
    arrived = through(ONE, [Write(NOTE, tuple(args), "test.refused")])
    [[write]] = [writes_of(lines) for lines in arrived.writes]
    assert write.statement is NOTE
    assert write.refusal == "test.refused"
    assert write.args == tuple(args)
    assert [type(each) for each in write.args] == [type(each) for each in args]
    for sent, got in zip(args, write.args, strict=True):
        if isinstance(sent, datetime):
            assert sent.utcoffset() == got.utcoffset()


def test_a_word_of_ours_arrives_as_text_and_a_struct_as_its_json():
    body = Body(UUID(int=5), datetime(2026, 1, 2, tzinfo=SHANGHAI), Colour.RED)
    arrived = through(ONE, [Write(NOTE, (Colour.RED, body, (UUID(int=1),)))])
    [write] = writes_of(arrived.writes[0])
    assert write.args[0] == "red"
    assert msgspec.json.encode(write.args[1]) == msgspec.json.encode(body)
    assert write.args[2] == [UUID(int=1)]


def test_what_cannot_travel_fails_before_anything_is_sent():
    with pytest.raises(TypeError, match="object does not travel"):
        encode_writes([Write(NOTE, (object(),))])


def test_only_statements_of_the_program_are_found():
    [[line]] = through(ONE, [Write(SPEND, (1, 2))]).writes
    assert writes_of([line])[0].statement is SPEND
    theirs = {digest: each for digest, each in PROGRAM.items() if each is not SPEND}
    with pytest.raises(VersionsDiffer) as refused:
        writes_of([line], theirs)
    assert refused.value.facts == {"statement": SPEND.digest.hex()[:16]}


def test_batches_arrive_as_they_were():
    hold = pending(9, ALICE, BANK)
    for sent in (
        batch(group(single(5, BANK, ALICE)), group(), group(post(hold), single(1, ALICE, BANK))),
        batch(group(single(0, BANK, ALICE))),
        batch(group()),
        batch(),
    ):
        arrived = batch_in(through(sent))
        for column in ("records", "starts", "ids", "refused"):
            assert np.array_equal(getattr(arrived, column), getattr(sent, column))
        assert arrived.records.dtype == COMMAND


def of_no_kind():
    records = WHOLE.records.copy()
    records["kind"][1] = 6
    return records


@pytest.mark.parametrize(
    "changed",
    [
        {"records": WHOLE.records[:1]},
        {"records": WHOLE.records.view("u1")[:-1]},
        {"records": of_no_kind()},
        {"starts": WHOLE.starts[:-1]},
        {"starts": np.array([0, 3, 2])},
        {"starts": np.array([1, 2, 2])},
        {"starts": np.array([], np.int64)},
        {"ids": WHOLE.ids[:1]},
        {"refused": WHOLE.refused[:1]},
    ],
)
def test_columns_that_do_not_fit_together_are_malformed(changed):
    ask = through(msgspec.structs.replace(WHOLE, **changed), counts=[2])
    with pytest.raises(FrameMalformed):
        batch_in(ask)


@pytest.mark.parametrize(
    ("writes", "counts", "left_ms"),
    [([[]], [2], [9]), ([], [1], [9]), ([], [3, -1], [9, 9]), ([], [1, 1], [9])],
)
def test_callers_and_companions_of_other_groups_are_malformed(writes, counts, left_ms):
    ask = through(WHOLE, *writes, counts=counts, left_ms=left_ms)
    with pytest.raises(FrameMalformed):
        batch_in(ask)
    assert batch_in(through(WHOLE, [], [], counts=[1, 1], left_ms=[9, 9]))


def test_answers_arrive():
    reply = Reply(
        [Told(4, [("created", None, 17), ("refused", "ledger.exceeds_balance", None)])],
        [Failed(5, "ledger.book_missing", {"book": 9, "why": None, "fact": True})],
    )
    [body] = Frames().feed(reply_frame(reply))
    assert decode_reply(body) == reply


@given(st.data())
def test_a_stream_may_be_cut_anywhere(data):
    frames = [asking(ONE, [Write(NOTE, (b"x" * n,))]) for n in range(5)]
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    cutter, bodies = Frames(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        bodies += cutter.feed(stream[begin:end])
    assert bodies == [frame[HEADER.size :] for frame in frames]


@given(st.binary(min_size=1).filter(lambda raw: not b"TB".startswith(raw[:2])))
def test_a_stream_that_is_no_frame_is_refused_at_its_first_bytes(garbage):
    with pytest.raises(FrameMalformed):
        Frames().feed(garbage)


def test_a_frame_that_is_too_long_is_refused_before_it_is_waited_for():
    with pytest.raises(FrameMalformed, match="bytes"):
        Frames().feed(HEADER.pack(b"TB", VERSION, FRAME_MAX + 1))


def test_another_version_is_told_apart_from_garbage():
    with pytest.raises(VersionForeign):
        Frames().feed(HEADER.pack(b"TB", VERSION + 1, 5))
    assert Frames().feed(empty_frame()) == [b""]


@given(st.binary())
def test_a_body_of_garbage_is_malformed_and_nothing_else(garbage):
    for decode in (decode_ask, decode_reply):
        try:
            decoded = decode(garbage)
        except FrameMalformed:
            continue
        assert isinstance(decoded, Ask | Reply)


@given(st.data())
def test_a_good_body_with_bytes_changed_is_read_or_malformed(data):
    args = (
        UUID(int=3),
        date(2026, 1, 1),
        Decimal("1.5"),
        timedelta(1),
        datetime(2026, 1, 1, tzinfo=SHANGHAI),
    )
    frame = asking(ONE, [Write(NOTE, args)])
    body = bytearray(frame[HEADER.size :])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(body)))
    for changed in (bytes(body), bytes(body[:end])):
        try:
            ask = decode_ask(changed)
            batch_in(ask)
            for lines in ask.writes:
                writes_of(lines)
        except (FrameMalformed, VersionsDiffer):
            continue


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x9a\x01\x00\x01\xdd\xff\xff\xff\xff", id="four thousand million callers"),
        pytest.param(b"\x9a\x01\x00\x01\x90\x90\xc6\xff\xff\xff\xff", id="as many bytes"),
        pytest.param(b"\x91" * 100_000, id="lists in lists"),
    ],
)
def test_a_body_that_promises_too_much_is_malformed(body):
    with pytest.raises(FrameMalformed):
        decode_ask(body)
