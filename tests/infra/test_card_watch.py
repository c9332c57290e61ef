"""Card data is refused where it does not belong, and found where it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.infra.card_watch import (
    MADE_FOR_NUMBERS,
    CardNumberUnexpected,
    SecurityCodeNotTaken,
    check_request,
    scan,
    scan_file,
)
from tongbao.infra.db import Db
from tongbao.kernel.card_numbers import check_digit, is_luhn, masked, scheme_of, sights

PAN, UNIONPAY = "4929420573595709", "6222021234567890128"
TRACK_2 = f"{PAN}=49121201234500000000"
TRACK_1 = f"%B{PAN}^DOE/JOHN^49121201234500000000?"
BINS = Path(__file__).parents[2] / "tongbao" / "parties" / "card_bins"


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
