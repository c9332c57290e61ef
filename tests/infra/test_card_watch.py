"""Card data is refused where it does not belong, and found where it lies."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.infra.card_watch import (
    MADE_FOR_NUMBERS,
    CardNumberUnexpected,
    SecurityCodeNotTaken,
    check_form,
    check_request,
    scan,
    scan_file,
    without_cards,
)
from tongbao.infra.db import Db
from tongbao.kernel.card_numbers import check_digit, is_luhn, masked, scheme_of, sights

PAN, UNIONPAY = "4929420573595709", "6222021234567890128"
TRACK_2 = f"{PAN}=49121201234500000000"
TRACK_1 = f"%B{PAN}^DOE/JOHN^49121201234500000000?"
WIDE = "".join(chr(ord(digit) - ord("0") + ord("０")) for digit in PAN)
ARABIC = "".join(chr(ord(digit) - ord("0") + 0x0660) for digit in PAN)
IN_BASE64 = b64encode(f'{{"number":"{PAN}"}}'.encode()).decode()
DISGUISES = [
    WIDE,
    ARABIC,
    f"卡号{WIDE}。",
    "４９２９　４２０５　７３５９　５７０９",
    "4929\u00a04205\u00a07359\u00a05709",
    "4929\u20134205\u20137359\u20135709",
    "4929\u200b4205\u200b7359\u200b5709",
    "4929.4205.7359.5709",
    "4929/4205/7359/5709",
    "4929  4205  7359  5709",
    "4929 - 4205 - 7359 - 5709",
    " ".join(PAN),
    "-".join(UNIONPAY),
    f"{UNIONPAY[:6]} {UNIONPAY[6:]}",
    f"No.{PAN}",
    f"card{PAN}",
    f"VISA{PAN}",
    f"{PAN}-12/28",
    f"{PAN}/1228",
    TRACK_2.replace("=", "d"),
    TRACK_2.replace("=", "＝"),
    IN_BASE64,
    b64encode(PAN.encode()).decode(),
    urlsafe_b64encode(f":{PAN}?".encode()).decode().rstrip("="),
    b64encode(b"4929 4205 7359 5709").decode(),
    json.dumps({"number": PAN}),
    json.dumps({"note": json.dumps({"number": PAN})}),
    f"https://shop.example/back?card={PAN}",
    "9558801234567890128",  # ICBC's of old
    "9559912345678901234",  # the Agricultural Bank's
    "4367421234567890129",  # the Construction Bank's
]
"""Card numbers as people and programs write them where they do not belong."""


def check(body: Any, *, path: str = "/v1/payments", query: str = "", **headers: str) -> None:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    check_request(path, query.encode(), pairs, json.dumps(body).encode() if body else b"")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"subject": f"card {PAN}"}, "$.subject"),
        ({"metadata": {"memo": "4929 4205 7359 5709"}}, "$.metadata.memo"),
        ({"metadata": {"memo": "4929-4205-7359-5709"}}, "$.metadata.memo"),
        ({"merchant_order_no": UNIONPAY}, "$.merchant_order_no"),
        ({"metadata": {PAN: "x"}}, "$.metadata"),
        ({"lines": [{"note": PAN}]}, "$.lines.note"),
        ({"amount": int(PAN)}, "$.amount"),
        ({"note": TRACK_2}, "$.note"),
        ({"note": TRACK_1}, "$.note"),
        ({"note": TRACK_2.replace("=", "D")}, "$.note"),
    ],
)
def test_a_number_in_another_field_is_refused_by_the_fields_name(body: Any, param: str) -> None:
    with pytest.raises(CardNumberUnexpected) as refused:
        check(body)
    assert refused.value.param == param
    assert PAN not in str(refused.value)


@pytest.mark.parametrize("said", DISGUISES)
@pytest.mark.parametrize("field", ["subject", "metadata"])
def test_a_number_is_seen_in_whatever_writing(field: str, said: str) -> None:
    body = {"subject": said} if field == "subject" else {"metadata": {"number": said}}
    for as_ascii in (True, False):
        raw = json.dumps(body, ensure_ascii=as_ascii).encode()
        with pytest.raises(CardNumberUnexpected) as refused:
            check_request("/v1/payments", b"", [], raw)
        assert refused.value.param in {"$.subject", "$.metadata.number"}


@pytest.mark.parametrize("said", DISGUISES)
def test_so_it_is_in_a_form_the_query_and_a_header(said: str) -> None:
    with pytest.raises(CardNumberUnexpected) as refused:
        check_form({"reason": said})
    assert refused.value.param == "reason"
    form = urlencode({"reason": said}).encode()
    for query, headers, body in (
        (form, (), b""),
        (b"", [(b"x-trace", said.encode())], b""),
        (b"", (), form),
    ):
        with pytest.raises(CardNumberUnexpected):
            check_request("/v1/payments", query, headers, body)


@pytest.mark.parametrize("said", DISGUISES)
async def test_so_it_is_in_a_table_a_file_and_a_notice_that_nobody_signed(
    module_db: Db, tmp_path: Path, said: str
) -> None:
    log = tmp_path / "log.gz"
    log.write_bytes(gzip.compress(f"fine\n{said}\n".encode()))
    assert {spot.row for spot in scan_file(log)} == {"2"}
    kept = without_cards(f"note={said}&x=1".encode())
    assert [*sights(kept.decode())] == []
    assert kept.endswith(b"&x=1")

    async with module_db.begin("tests") as tx:
        await tx.execute("create table if not exists said (said text, body bytea)", ())
        await tx.execute("delete from said", ())
        await tx.execute("insert into said values ($1, $2)", (said, said.encode()))
    places = {spot.where async for spot in scan(module_db)}
    assert "said.said" in places
    assert not said.isascii() or "said.body" in places


def test_what_has_no_card_is_kept_byte_for_byte() -> None:
    for raw in (b"\xff\xfe\x00", "茶１２３".encode(), b'{"amount":1999}'):
        assert without_cards(raw) is raw


def test_digits_in_disguise_are_seen() -> None:
    hidden = "".join(f"\\u{ord(digit):04x}" for digit in PAN)
    with pytest.raises(CardNumberUnexpected):
        check_request("/v1/payments", b"", [], f'{{"subject":"{hidden}"}}'.encode())
    with pytest.raises(CardNumberUnexpected):
        check_request("/v1/payments", b"", [], f"not json {PAN}".encode())


@pytest.mark.parametrize(
    "body",
    [
        f'{{"x\\"number":"{PAN}"}}',
        f'{{"subject":"\\"number\\":\\"{PAN}\\""}}',
        f'{{"number":"1","subject":"{PAN}"}}',
        f'{{"number":["1"],"subject":"{PAN}","auth_code":"888812345678901234"}}',
    ],
)
def test_a_name_that_only_ends_like_such_a_field_hides_nothing(body: str) -> None:
    msgspec.json.decode(body)
    with pytest.raises(CardNumberUnexpected):
        check_request("/v1/payments", b"", [], body.encode())


@pytest.mark.parametrize(
    "where",
    [
        {"path": f"/v1/payments/{PAN}"},
        {"query": f"merchant_order_no={PAN}"},
        {"query": "q=4929%204205%207359%205709"},
        {"idempotency_key": PAN},
        {"x_trace": f"a {PAN}"},
    ],
)
def test_so_is_one_in_the_path_the_query_or_a_header(where: dict[str, str]) -> None:
    with pytest.raises(CardNumberUnexpected):
        check(None, **where)


@pytest.mark.parametrize(
    "name",
    ["cvn", "CVN2", "cvv", "cvv2", "cvc", "csc", "card_cvv", "security_code", "verification_value"],
)
def test_a_security_code_is_taken_nowhere(name: str) -> None:
    for body in ({name: "123"}, {"card": {"number": PAN, name: "123"}}):
        with pytest.raises(SecurityCodeNotTaken):
            check(body, path="/v1/vault/cards")


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"ｃｖｖ": "123"}},
        {"metadata": {"CVV-2": "123"}},
        {"metadata": {"cvvCode": "123"}},
        {"metadata": {"card cvn": "123"}},
        {"metadata": {"安全码": "123"}},
        {"metadata": {"note": '{"cvn": "123"}'}},
        {"metadata": {"note": '{"a": {"\\u0063vn": "123"}}'}},
        {"subject": "cvv 123"},
        {"subject": "CVV2：１２３"},
        {"subject": "安全码是123"},
        {"number": {"cvn2": "123"}},
    ],
)
def test_nor_is_one_in_whatever_writing(body: dict[str, Any]) -> None:
    for as_ascii in (True, False):
        raw = json.dumps(body, ensure_ascii=as_ascii).encode()
        with pytest.raises(SecurityCodeNotTaken):
            check_request("/v1/payments", b"", [], raw)
    with pytest.raises(SecurityCodeNotTaken):
        check_request("/v1/payments", b"", [], b'{"metadata":{"\\u0063vn":"1"}}')


def test_nor_is_one_in_a_form_or_the_query() -> None:
    for name in ("cvn", "card-cvv2", "安全码"):
        with pytest.raises(SecurityCodeNotTaken):
            check_form({name: "123"})
        with pytest.raises(SecurityCodeNotTaken):
            check_request("/v1/payments", urlencode({name: "123"}).encode(), [], b"")
        with pytest.raises(SecurityCodeNotTaken):
            check_request("/v1/payments", b"", [], urlencode({"a": 1, name: "123"}).encode())


def test_what_only_sounds_like_a_security_code_passes() -> None:
    body = {"subject": "CVC Partners, cvs report", "metadata": {"cid_note": "security", "csv": "1"}}
    check(body, query="q=security+code+of+conduct")
    check_form({"code": "123456", "reason": "verification 12345678"})


@pytest.mark.parametrize("name", sorted(MADE_FOR_NUMBERS))
def test_a_number_may_stand_where_a_field_is_made_for_it(name: str) -> None:
    check({"card": {name: PAN}})


@pytest.mark.parametrize(
    "text",
    [
        "4929420573595708",  # a wrong check digit
        f"1{PAN}",
        f"{PAN}1",
        f"{PAN}.5",
        "20261122131500123456",  # a moment and a number
        "2026112213150012",
        "9900010000000004",  # a token of ours
        "888812345678901234",  # a payment code
        "11010519491231002X",
        f"a{PAN}",
        f"{PAN}f",
        f"id_{PAN}",
        "4929 420573595709",  # no card is printed so
        f"00000000-{PAN[:4]}-{PAN[4:8]}-{PAN[8:12]}-{PAN[12:]}12345678",
        "4929 4205",
    ],
)
def test_what_only_looks_like_one_passes(text: str) -> None:
    assert list(sights(text)) == []
    check({"subject": text}, query=f"a={text}", idempotency_key=text)


@given(st.uuids(), st.binary(min_size=12, max_size=12))
def test_no_random_id_is_taken_for_a_card(uuid: UUID, raw: bytes) -> None:
    """Ids in hex, with a letter among their first or last digits or with dashes."""
    for text in (str(uuid), f"o{raw.hex()}", f"{raw.hex()}z"):
        assert list(sights(text)) == []


def test_ordinary_requests_pass() -> None:
    check(
        {"merchant_order_no": "a8f0", "description": "service", "discid": "x", "csv": PAN},
        idempotency_key="9c1a2b3c-5bcd-4e00-8f00-1234567890ab",
        authorization=PAN,
        traceparent=f"00-4bf92f3577b34da6a3ce929d0e0e4736-{PAN}-01",
    )


@given(st.text(max_size=30), st.sampled_from([PAN, UNIONPAY, TRACK_2]), st.text(max_size=30))
def test_a_number_is_found_between_any_texts_that_are_no_digits(
    before: str, number: str, after: str
) -> None:
    text = f"{before} {number} {after}"
    found = [each.shown for each in sights(text)]
    if not any(letter in "0123456789-.;=^" for letter in before + after):
        assert masked(number.partition("=")[0]) in found
    assert all(number not in each for each in found)


@given(st.integers(0, 10**9 - 1))
def test_every_number_of_a_scheme_with_its_check_digit_is_one(tail: int) -> None:
    digits = f"622202{tail:09d}"
    number = digits + check_digit(digits)
    assert is_luhn(number)
    assert scheme_of(number) == "unionpay"
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert scheme_of(wrong) is None


async def test_a_scan_finds_what_lies_in_tables_and_logs(db: Db, tmp_path: Path) -> None:
    assert [spot async for spot in scan(db, schemas=("public", "vault"))] == []
    await db.execute(
        "insert into event (id, type, merchant_id, mode, resource_id, body, at)"
        " values (gen_random_uuid(), 'a.b', null, 'live', 'x', $1::text::jsonb, now())",
        (json.dumps({"note": f"he paid with {PAN}"}),),
    )
    log = tmp_path / "tongbao.log"
    log.write_text(f'{{"event":"fine"}}\n{{"event":"{TRACK_2}"}}\n')
    found = [spot async for spot in scan(db, files=[log])]
    assert [(each.where, each.shown) for each in found] == [
        ("event.body", masked(PAN)),
        ("tongbao.log", masked(PAN)),
    ]
    assert [each.row for each in scan_file(log)] == ["2"]
    assert PAN not in str(found)
