"""A client that others wrote meets the simulated WeChat Pay and is satisfied with it."""

from typing import Any

import pytest

from tests.sandbox.wechat_driver import heard_by


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return heard_by("drive.py", tmp_path_factory.mktemp("sandbox"))


def test_it_fetches_and_decrypts_the_platform_certificate(heard: dict[str, Any]) -> None:
    assert heard["certificates"] == [heard["keys"]["platform_serial"]]


def test_it_places_the_same_order_twice_and_sees_it_paid(heard: dict[str, Any]) -> None:
    assert heard["native"]["status"] == 200
    assert heard["native"] == heard["native_again"]
    assert heard["query_unpaid"]["body"]["trade_state"] == "NOTPAY"
    paid = heard["query_paid"]["body"]
    assert (paid["trade_state"], paid["amount"]["total"]) == ("SUCCESS", 1999)
    assert heard["query_by_id"] == heard["query_paid"]


def test_it_verifies_and_decrypts_the_callbacks(heard: dict[str, Any]) -> None:
    assert heard["callback"]["event_type"] == "TRANSACTION.SUCCESS"
    assert heard["callback"]["resource"] == heard["query_paid"]["body"]
    assert heard["refund_callback"]["event_type"] == "REFUND.SUCCESS"
    assert heard["refund_callback"]["resource"]["refund_status"] == "SUCCESS"


def test_it_refuses_what_is_forged_and_the_signature_probe(heard: dict[str, Any]) -> None:
    assert heard["forged"] == heard["signtest"] == [False, True]


def test_it_refunds(heard: dict[str, Any]) -> None:
    assert heard["refund"]["body"]["status"] == "PROCESSING"
    done = heard["refund_query"]["body"]
    assert (done["status"], done["amount"]["refund"]) == ("SUCCESS", 500)


def test_it_accepts_the_signed_empty_answer_of_a_close(heard: dict[str, Any]) -> None:
    assert heard["close"] == {"status": 204, "body": None}
    assert heard["close_paid"]["body"]["code"] == "ORDERPAID"
    assert heard["close_unknown"]["status"] == 404


def test_it_charges_payment_codes(heard: dict[str, Any]) -> None:
    assert heard["codepay_pay"]["body"]["trade_state"] == "SUCCESS"
    assert heard["codepay_ask"]["body"]["trade_state"] == "USERPAYING"
    assert heard["codepay_decline"]["body"]["code"] == "NOT_ENOUGH"


@pytest.mark.parametrize(
    ("name", "zipped", "rows"),
    [("trade_bill", True, 3), ("trade_bill_plain", False, 3), ("fund_bill", True, 6)],
)
def test_it_downloads_bills(heard: dict[str, Any], name: str, zipped: bool, rows: int) -> None:
    bill = heard[name]
    assert bill["status"] == [200, 200]
    assert (bill["zipped"], bill["digest_fits"]) == (zipped, True)
    assert len(bill["lines"]) == rows + 3
    assert heard["no_bill"]["status"] == 400


def test_it_works_in_public_key_mode_too(heard: dict[str, Any]) -> None:
    assert heard["public_key_mode"]["status"] == 200
