"""ISO 8583: every real message comes back byte for byte, and anything else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.codecs.iso8583 import (
    Dialect,
    Field,
    FieldMalformed,
    FieldTooLong,
    FieldUnknown,
    Message,
    MessageTrailing,
    MessageTruncated,
    decode,
    encode,
)
from tongbao.kernel.codecs.iso8583_dialects import CUPS, POS
from tongbao.kernel.codecs.iso8583_parts import (
    POS_FIELD_60,
    CupsHeader,
    TerminalHeader,
    add_cups_header,
    decode_cups_header,
    decode_tlv,
    encode_cups_header,
    encode_terminal_header,
    encode_tlv,
    frame,
    read_balances,
    split_field,
    take_cups_header,
    take_terminal_header,
    unframe,
)
from tongbao.kernel.errors import Refusal

VECTORS = Path(__file__).parents[1] / "vectors" / "iso8583" / "cups_messages.json"
RECORDED: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))
MESSAGES = {one["id"]: one for one in RECORDED["messages"] if "fields" in one}
HEADER = bytes.fromhex(next(m["hex"] for m in RECORDED["messages"] if "fields" not in m))
DIALECTS = {"cups": CUPS, "pos": POS}
REFUSALS = {
    "iso8583.truncated",
    "iso8583.trailing_bytes",
    "iso8583.too_long",
    "iso8583.malformed",
    "iso8583.unknown_field",
}


def recorded(name: str = "test01") -> bytes:
    return bytes.fromhex(MESSAGES[name]["hex"])


# What is real ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_every_recorded_message_comes_back_to_the_byte(name: str) -> None:
    raw = recorded(name)
    message = decode(raw, CUPS)

    assert message.mti == MESSAGES[name]["mti"]
    assert [1, *sorted(message.fields)] == MESSAGES[name]["fields"]
    assert encode(message, CUPS) == raw


def test_the_fields_say_what_the_simulator_meant() -> None:
    fields = decode(recorded(), CUPS).fields

    assert (fields[2], fields[3], fields[11]) == ("6251880000051688", "300000", "863743")
    assert fields[43] == "CHN29000CHINA UNIONPAY SIMULATOR        "
    assert fields[52] == bytes(8)
    assert fields[128] == b"0D612014"
    assert decode(recorded("test02"), CUPS).fields[39] == "14"


def test_a_terminals_sign_in_comes_back_to_the_byte() -> None:
    sample = RECORDED["pos_terminal_sample"]
    raw = bytes.fromhex(sample["hex"])
    header, body = take_terminal_header(unframe(raw))
    message = decode(body, POS)

    assert (header.tpdu, header.header) == (
        sample["expected"]["tpdu"],
        sample["expected"]["header"],
    )
    assert sorted(message.fields) == sample["expected"]["fields"]
    assert (message.fields[11], message.fields[42]) == ("000001", "880210010211160")
    assert split_field(message.text(60), POS_FIELD_60) == {
        "kind": "00",
        "batch": "000001",
        "network_code": "003",
    }
    assert frame(encode_terminal_header(header) + encode(message, POS)) == raw


def test_the_switchs_header_comes_back_to_the_byte() -> None:
    header = decode_cups_header(HEADER)

    assert (header.destination, header.source, header.length) == ("03050001", "00010000", 407)
    assert encode_cups_header(header) == HEADER


def test_chip_data_comes_back_to_the_byte_and_names_its_tags() -> None:
    chip = decode(recorded("test03"), CUPS).fields[55]
    assert isinstance(chip, bytes)
    objects = decode_tlv(chip)

    assert dict(objects)["9F02"] == bytes(6)
    assert dict(objects)["5F2A"] == b"\x01\x56"
    assert encode_tlv(objects) == chip


def test_balances_are_read_in_minor_units() -> None:
    ledger, available = read_balances(decode(recorded("test04"), CUPS).text(54))

    assert (ledger.kind, ledger.currency, ledger.amount) == ("01", "156", 1_797_100)
    assert (available.kind, available.amount) == ("02", 4_810_938)
    assert read_balances("3002156D000000000005")[0].amount == -5


# What is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        (Message("0200", {3: "00000"}), FieldMalformed),
        (Message("0200", {3: "0000000"}), FieldTooLong),
        (Message("0200", {3: "00000x"}), FieldMalformed),
        (Message("0200", {3: "00000٣"}), FieldMalformed),
        (Message("0200", {3: b"000000"}), FieldMalformed),
        (Message("0200", {52: "00000000"}), FieldMalformed),
        (Message("0200", {2: "1" * 20}), FieldTooLong),
        (Message("0200", {35: "62=A"}), FieldMalformed),
        (Message("0200", {41: "终端0001终端"}), FieldMalformed),
        (Message("0200", {38: "12345\n"}), FieldMalformed),
        (Message("0200", {8: "1"}), FieldUnknown),
        (Message("0200", {129: "1"}), FieldUnknown),
        (Message("0200", {0: "1"}), FieldUnknown),
        (Message("02", {}), FieldMalformed),
        (Message("02000", {}), FieldTooLong),
        (Message("02x0", {}), FieldMalformed),
    ],
)
def test_what_does_not_fit_is_not_written(message: Message, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal) as refused:
        encode(message, CUPS)
    assert refused.value.code in REFUSALS


@pytest.mark.parametrize("cut", [0, 3, 4, 11, 19, 20, 21, 100, 360])
def test_a_cut_message_is_truncated(cut: int) -> None:
    with pytest.raises(MessageTruncated):
        decode(recorded()[:cut], CUPS)


def test_bytes_left_over_are_trailing() -> None:
    with pytest.raises(MessageTrailing):
        decode(recorded() + b"\0", CUPS)


def test_a_field_the_dialect_does_not_have_is_unknown() -> None:
    with pytest.raises(FieldUnknown):
        decode(b"0200" + (1 << (64 - 8)).to_bytes(8, "big") + b"00000000", CUPS)


def test_a_length_beyond_the_fields_own_is_too_long() -> None:
    with pytest.raises(FieldTooLong):
        decode(b"0200" + (1 << 62).to_bytes(8, "big") + b"20" + b"1" * 20, CUPS)


def test_a_length_that_is_no_number_is_malformed() -> None:
    with pytest.raises(FieldMalformed):
        decode(b"0200" + (1 << 62).to_bytes(8, "big") + b"1x" + b"1" * 20, CUPS)


def test_a_second_bitmap_that_names_nothing_is_malformed() -> None:
    with pytest.raises(FieldMalformed):
        decode(b"0200" + (1 << 63).to_bytes(8, "big") + bytes(8), CUPS)


def test_a_packed_filler_that_is_no_zero_is_malformed() -> None:
    raw = encode(Message("0200", {2: "123"}), POS)
    assert raw[-3:] == b"\x03\x12\x30"
    with pytest.raises(FieldMalformed):
        decode(raw[:-1] + b"\x31", POS)


def test_a_message_beyond_the_headers_four_digits_is_too_long() -> None:
    wide = Dialect("wide", {48: Field("ans", 9999, 4)})
    with pytest.raises(FieldTooLong):
        encode(Message("0200", {48: "x" * 9999}), wide)
    with pytest.raises(FieldTooLong):
        decode(bytes(10_000), CUPS)


def test_a_message_shows_no_field() -> None:
    message = decode(recorded(), CUPS)
    assert "6251880000051688" not in repr(message)


@pytest.mark.parametrize(
    "raw", [b"", b"\0", b"\0\x05abc", b"\0\x02abc", b"\xff\xff" + bytes(0xFFFF)]
)
def test_a_frame_holds_one_payload(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        unframe(raw)
    assert refused.value.code in REFUSALS


def test_a_header_states_the_length_of_what_follows() -> None:
    payload = add_cups_header(b"abc", destination="03050001", source="00010000")
    assert take_cups_header(payload)[1] == b"abc"
    with pytest.raises(FieldMalformed):
        take_cups_header(payload + b"d")
    with pytest.raises(MessageTruncated):
        take_cups_header(payload[:20])


@pytest.mark.parametrize(
    "raw",
    ["9F", "9F02", "9F0206", "9F02060102", "5A81", "5A817F" + "00" * 127, "5A82", "1F81818101"],
)
def test_chip_data_that_is_none_is_refused(raw: str) -> None:
    with pytest.raises(Refusal) as refused:
        decode_tlv(bytes.fromhex(raw))
    assert refused.value.code in REFUSALS


@pytest.mark.parametrize("text", ["3", "3001156X000001797100", "3001156C00000179710x"])
def test_what_is_no_balance_is_refused(text: str) -> None:
    with pytest.raises(FieldMalformed):
        read_balances(text)


# Anything at all ---------------------------------------------------------------------------------


def values(field: Field, dialect: Dialect) -> st.SearchStrategy[str] | st.SearchStrategy[bytes]:
    sizes = {"min_size": 0 if field.prefix else field.length, "max_size": field.length}
    letters = {
        "n": "0123456789",
        "z": "0123456789=" if dialect.packed else "0123456789=D",
        "an": "".join(chr(code) for code in range(0x20, 0x7F)),
        "ans": "".join(chr(code) for code in range(0x100)),
    }
    if field.kind == "b":
        return st.binary(**sizes)
    return st.text(letters[field.kind], **sizes)


@st.composite
def messages(draw: st.DrawFn, dialect: Dialect) -> Message:
    numbers = draw(st.sets(st.sampled_from(sorted(dialect.fields)), max_size=12))
    mti = draw(st.text("0123456789", min_size=4, max_size=4))
    fields = {number: draw(values(dialect.fields[number], dialect)) for number in sorted(numbers)}
    return Message(mti, fields)


@pytest.mark.parametrize("name", DIALECTS)
@given(data=st.data())
def test_whatever_is_written_is_read_back(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(DIALECTS[name]))
    assert decode(encode(message, DIALECTS[name]), DIALECTS[name]) == message


@pytest.mark.parametrize("name", DIALECTS)
@given(data=st.data())
def test_a_spoilt_message_is_refused_by_name_or_is_another_one(
    name: str, data: st.DataObject
) -> None:
    raw = bytearray(encode(data.draw(messages(DIALECTS[name])), DIALECTS[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    spoilt = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    read_or_refused(spoilt, DIALECTS[name])


@pytest.mark.parametrize("name", DIALECTS)
@given(raw=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, raw: bytes) -> None:
    read_or_refused(raw, DIALECTS[name])


def read_or_refused(raw: bytes, dialect: Dialect) -> None:
    came_back_or_refused(lambda: encode(decode(raw, dialect), dialect), raw)


def came_back_or_refused(read: Callable[[], object], given: object) -> None:
    refusal = None
    try:
        assert read() == given
    except Refusal as refused:
        refusal = refused
    assert refusal is None or refusal.code in REFUSALS


@given(raw=st.binary(max_size=80))
def test_any_bytes_are_chip_data_or_refused(raw: bytes) -> None:
    came_back_or_refused(lambda: encode_tlv(decode_tlv(raw)), raw)


@given(tags=st.lists(st.tuples(st.sampled_from(["9F26", "82", "5F2A", "DF8101"]), st.binary())))
def test_chip_data_is_read_back(tags: list[tuple[str, bytes]]) -> None:
    objects = [(tag, value[:255]) for tag, value in tags]
    assert decode_tlv(encode_tlv(objects)) == objects


@given(raw=st.binary(max_size=60))
def test_any_bytes_are_a_header_or_refused(raw: bytes) -> None:
    for spoilt in (raw, HEADER[:2] + raw, HEADER[: len(raw)] + raw, HEADER[:32] + raw):
        came_back_or_refused(partial(header_again, spoilt), spoilt)


def header_again(raw: bytes) -> bytes:
    return encode_cups_header(decode_cups_header(raw))


@given(
    destination=st.text(max_size=12),
    source=st.text(max_size=12),
    length=st.integers(-1, 10_000),
    batch=st.integers(-1, 256),
)
def test_any_header_is_written_or_refused(
    destination: str, source: str, length: int, batch: int
) -> None:
    header = CupsHeader(destination, source, length, batch=batch)
    came_back_or_refused(lambda: decode_cups_header(encode_cups_header(header)), header)


@pytest.mark.parametrize("tpdu", ["", "60000300", "600003000x", "60 0003000"])
def test_what_is_no_tpdu_is_refused(tpdu: str) -> None:
    with pytest.raises(FieldMalformed):
        encode_terminal_header(TerminalHeader(tpdu, "603100311312"))
