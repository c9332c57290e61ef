"""EMV QR: the published examples, what is wrong with a code, and that reading loses nothing."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tongbao.kernel.codecs import emv_qr_consumer as consumer
from tongbao.kernel.codecs import emv_qr_merchant as merchant
from tongbao.kernel.codecs.emv_qr import (
    EmvQrChecksumWrong,
    EmvQrFieldMalformed,
    EmvQrFieldMissing,
    EmvQrFieldRepeated,
    EmvQrTooLong,
    EmvQrUnreadable,
)
from tongbao.kernel.codecs.emv_qr_consumer import Constructed, ConsumerQr, Primitive
from tongbao.kernel.codecs.emv_qr_merchant import MerchantQr, Part, Template

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors/emvqr/emvqr_vectors.json").read_text("utf-8")
)
MPM = {each["id"]: each for each in VECTORS["mpm"]}
CPM = {each["id"]: each for each in VECTORS["cpm"]}
ANNEX = MPM["emvco-annex-B7"]["payload"]
REFUSALS = (
    EmvQrChecksumWrong,
    EmvQrFieldMalformed,
    EmvQrFieldMissing,
    EmvQrFieldRepeated,
    EmvQrTooLong,
    EmvQrUnreadable,
)


def sealed(head: str) -> str:
    """The text with the checksum it should have."""
    return f"{head}6304{merchant.checksum(head + '6304')}"


def test_the_checksum_is_the_published_one() -> None:
    assert merchant.checksum("123456789") == VECTORS["crc"]["check_123456789"]


@pytest.mark.parametrize("name", MPM)
def test_a_published_merchants_code_is_read_and_written_again_as_it_was(name: str) -> None:
    payload = MPM[name]["payload"]

    qr = merchant.decode(payload)

    assert payload.endswith(MPM[name]["crc"])
    assert merchant.encode(qr) == payload
    assert merchant.decode(payload[:-4] + payload[-4:].lower()) == qr


def test_the_worked_example_says_what_its_book_says() -> None:
    qr = merchant.decode(ANNEX)

    said: dict[str, Any] = {}
    for each in qr.fields:
        if isinstance(each, Part):
            said[each.tag] = each.value
        else:
            said[each.tag] = {part.tag: part.value for part in each.parts}
    assert said == {**MPM["emvco-annex-B7"]["fields"], "01": "12"}
    assert not qr.is_static
    assert [each.tag for each in qr.accounts] == ["29", "31"]
    assert qr.additional == {"store": "1234", "customer": "***", "terminal": "A6008667", "request": "ME"}  # noqa: E501  # fmt: skip
    assert qr.name_in("zh") == "最佳运输"
    assert qr.name_in("fr") == "BEST TRANSPORT"


def test_a_code_can_be_composed() -> None:
    owner = Template("26", (Part("00", "com.example"), Part("01", "abc")))
    named = Template("64", (Part("00", "ZH"), Part("01", "街角茶铺")))
    terms = {"category": "5812", "currency": "156", "country": "CN", "name": "TEA", "city": "BJ"}

    static = merchant.compose(accounts=[owner], more=[named], **terms)
    dynamic = merchant.compose(accounts=[owner], amount="19.99", **terms)

    text = merchant.encode(static)
    assert text.startswith("000201010211262200" + "11com.example0103abc52045812")
    assert "64140002ZH0104街角茶铺" in text
    assert merchant.decode(text) == static
    assert not dynamic.is_static
    assert merchant.decode(merchant.encode(dynamic)).value(merchant.AMOUNT) == "19.99"


HEAD = "000201010211" + "1502AB" + "52045812" + "5303156" + "5802CN" + "5903TEA" + "6002BJ"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", EmvQrUnreadable),
        ("https://example.com/pay", EmvQrUnreadable),
        (ANNEX[:-1], EmvQrUnreadable),
        (ANNEX.replace("23.72", "93.72"), EmvQrChecksumWrong),
        (ANNEX[:-4] + "A13B", EmvQrChecksumWrong),
        (sealed(HEAD + "6199X"), EmvQrUnreadable),
        (sealed(HEAD + "61"), EmvQrUnreadable),
        (sealed(HEAD + "6١01X"), EmvQrUnreadable),
        (sealed(HEAD[6:]), EmvQrFieldMissing),
        (sealed(HEAD.replace("1502AB", "")), EmvQrFieldMissing),
        (sealed(HEAD.replace("5802CN", "")), EmvQrFieldMissing),
        (sealed(HEAD + "26050101X"), EmvQrFieldMissing),
        (sealed(HEAD + "5303156"), EmvQrFieldRepeated),
        (sealed(HEAD + "62100101A0101B"), EmvQrFieldRepeated),
        (sealed(HEAD.replace("5303156", "5303CNY")), EmvQrFieldMalformed),
        (sealed(HEAD + "5403-12"), EmvQrFieldMalformed),
        (sealed(HEAD + "540612.34\n"), EmvQrFieldMalformed),
        (sealed(HEAD + "63040000"), EmvQrFieldMalformed),
        (sealed(HEAD + "9999" + "x" * 99 + "9899" + "y" * 99), EmvQrUnreadable),
        (sealed(HEAD + "".join(f"{tag}99" + "x" * 99 for tag in range(65, 70))), EmvQrTooLong),
        ("\ud800" + ANNEX, EmvQrUnreadable),
    ],
)
def test_a_wrong_merchants_code_is_refused_for_what_is_wrong(
    text: str, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        merchant.decode(text)


def test_a_code_of_ours_keeps_to_the_lengths_that_others_overrun() -> None:
    owner = Template("26", (Part("00", "com.example"),))
    terms = {"category": "5812", "currency": "156", "country": "CN"}
    with pytest.raises(EmvQrFieldMalformed):
        merchant.compose(accounts=[owner], name="T" * 26, city="BJ", **terms)
    with pytest.raises(EmvQrFieldMalformed):
        merchant.compose(accounts=[owner], name="TEA", city="Sao Joao del Rei", **terms)


def test_what_no_code_can_hold_is_not_written() -> None:
    good = merchant.decode(ANNEX)
    for wrong in (Part("65", "x" * 100), Part("63", "0000"), Part("6", ""), Part("26", "x")):
        with pytest.raises(EmvQrFieldMalformed):
            merchant.encode(MerchantQr((*good.fields, wrong)))
    with pytest.raises(EmvQrFieldMalformed):
        merchant.encode(MerchantQr((*good.fields, Part("65", "\ud800"))))


@given(st.text())
@example(ANNEX)
@example("0" * 513)
def test_no_text_makes_the_merchants_reader_fail(text: str) -> None:
    for tried in (text, sealed(text), sealed(HEAD + text)):
        try:
            read = merchant.decode(tried)
        except REFUSALS:
            continue
        assert merchant.encode(read) == tried


TAGS = st.integers(0, 99).map(lambda number: f"{number:02}")
PARTS = st.builds(Part, TAGS, st.text(max_size=12))
FIELDS = st.one_of(PARTS, st.builds(Template, TAGS, st.lists(PARTS, max_size=3).map(tuple)))


@given(st.lists(FIELDS, max_size=6))
def test_what_the_merchants_writer_writes_is_read_as_it_was_meant(fields: list[Any]) -> None:
    qr = MerchantQr((*merchant.decode(sealed(HEAD)).fields, *fields))
    try:
        text = merchant.encode(qr)
    except REFUSALS:
        return
    assert merchant.decode(text) == qr


def tree(objects: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Objects as tags with hexadecimal values."""
    return [
        (each.tag, each.value.hex().upper() if isinstance(each, Primitive) else tree(each.objects))
        for each in objects
    ]


def expected(tlv: dict[str, Any]) -> list[tuple[str, Any]]:
    """The vectors' own tree, its readable values as hexadecimal."""
    texts = {"85", "50", "5F20", "5F2D"}
    return [
        (
            tag.partition("#")[0],
            expected(value)
            if isinstance(value, dict)
            else value.encode().hex().upper()
            if tag in texts
            else value,
        )
        for tag, value in tlv.items()
    ]


@pytest.mark.parametrize("name", CPM)
def test_a_published_consumers_code_is_read_and_written_again_as_it_was(name: str) -> None:
    qr = consumer.decode(CPM[name]["base64"])

    if "tlv" in CPM[name]:
        assert sorted(tree(qr.objects)) == sorted(expected(CPM[name]["tlv"]))
    assert consumer.encode(qr) == CPM[name]["base64"]


def test_a_unionpay_code_says_whose_it_is_and_keeps_its_number_out_of_sight() -> None:
    qr = consumer.decode(CPM["unionpay-cpm"]["base64"])
    [application] = qr.applications

    track2 = consumer.track2_of(application)

    assert consumer.is_unionpay(application)
    assert track2 is not None
    assert (track2.number, track2.expiry, track2.service_code) == (
        "6263600100713672",
        "2312",
        "201",
    )
    assert qr.find("9F36") == bytes.fromhex("1122")
    assert "6263600100713672" not in f"{qr}{qr!r}{track2}{application}"
    assert "626360" not in repr(qr)


def cpm(content: bytes) -> str:
    return b64encode(content).decode()


VERSION = bytes.fromhex("8505") + b"CPV01"
ONE = bytes.fromhex("61094F07A0000000555555")


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", EmvQrFieldMissing),
        ("hQVDUFYwMQ", EmvQrUnreadable),
        ("付款码", EmvQrUnreadable),
        (cpm(VERSION), EmvQrFieldMissing),
        (cpm(ONE), EmvQrFieldMissing),
        (cpm(bytes.fromhex("8505") + b"CPV02" + ONE), EmvQrFieldMalformed),
        (cpm(VERSION + VERSION + ONE), EmvQrFieldRepeated),
        (cpm(VERSION + bytes.fromhex("6102" + "5000")), EmvQrFieldMissing),
        (cpm(VERSION + ONE[:-1]), EmvQrUnreadable),
        (cpm(VERSION + ONE + b"\x9f"), EmvQrUnreadable),
        (cpm(VERSION + ONE + b"\x57"), EmvQrUnreadable),
        (cpm(VERSION + ONE + b"\x57\x80"), EmvQrUnreadable),
        (cpm(VERSION + ONE + b"\x57\x83\x00\x00\x00"), EmvQrUnreadable),
        (cpm(VERSION + ONE + b"\x00\x00"), EmvQrUnreadable),
        (cpm(VERSION + ONE + bytes.fromhex("610861066104610261006100")), EmvQrUnreadable),
        (cpm(VERSION + ONE + b"\x57\x82\x01\x90" + b"x" * 400), EmvQrTooLong),
    ],
)
def test_a_wrong_consumers_code_is_refused_for_what_is_wrong(
    text: str, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        consumer.decode(text)


def test_a_track_2_that_is_none_is_refused() -> None:
    wrong = Constructed("61", (Primitive("57", b"\xff"),))
    with pytest.raises(EmvQrFieldMalformed):
        consumer.track2_of(wrong)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_consumers_reader_fail(content: bytes) -> None:
    for tried in (content, VERSION + content, VERSION + ONE + content):
        text = cpm(tried)
        try:
            read = consumer.decode(text)
        except REFUSALS:
            continue
        again = consumer.encode(read)
        assert consumer.decode(again) == read
        assert len(b64decode(again)) <= len(tried), "lengths are written in their shortest form"


@given(st.text())
def test_no_text_makes_the_consumers_reader_fail(text: str) -> None:
    with pytest.raises(REFUSALS):
        consumer.decode(text)


OBJECT_TAGS = st.sampled_from(["50", "57", "5F20", "61", "62", "63", "82", "9F10", "FF", "5f", ""])
PRIMITIVES = st.builds(Primitive, OBJECT_TAGS, st.binary(max_size=20))
OBJECTS = st.recursive(
    PRIMITIVES,
    lambda inner: st.builds(Constructed, OBJECT_TAGS, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=6,
)


@given(st.lists(OBJECTS, max_size=4))
def test_what_the_consumers_writer_writes_is_read_as_it_was_meant(objects: list[Any]) -> None:
    start = consumer.decode(cpm(VERSION + ONE)).objects
    qr = ConsumerQr((*start, *objects))
    try:
        text = consumer.encode(qr)
    except REFUSALS:
        return
    assert consumer.decode(text) == qr
