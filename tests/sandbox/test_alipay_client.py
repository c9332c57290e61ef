"""A client that others wrote meets the simulated Alipay and is satisfied with it."""

import pytest

from tests.outsiders import DRIVERS, heard_from, python_with
from tests.sandboxes import start_sandbox
from tongbao.kernel.clock import business_date, real_now

DRIVE = DRIVERS / "python_alipay_sdk" / "drive.py"


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    python = python_with("python_alipay_sdk")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        given = {
            "url": sandbox.url,
            "credentials": sandbox.credentials["alipay"],
            "day": str(business_date(real_now())),
        }
        return heard_from([python, DRIVE], given)


def test_it_shows_a_code_and_sees_the_payment(heard):
    assert heard["precreate"]["qr_code"].startswith("https://qr.alipay.com/")
    assert heard["query_unscanned"]["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert heard["query"]["trade_status"] == "TRADE_SUCCESS"
    assert heard["query"]["total_amount"] == "12.30"


def test_it_charges_a_payment_code(heard):
    assert heard["pay"]["code"] == "10000"
    assert heard["pay"]["receipt_amount"] == "100.00"


def test_it_refunds_once(heard):
    assert (heard["refund"]["fund_change"], heard["refund_again"]["fund_change"]) == ("Y", "N")
    assert heard["refund_query"]["refund_status"] == "REFUND_SUCCESS"
    assert heard["refund_query"]["refund_amount"] == "30.00"


def test_it_undoes_and_closes(heard):
    assert heard["cancel"]["action"] == "refund"
    assert heard["close"]["sub_code"] == "ACQ.TRADE_STATUS_ERROR"


def test_it_finds_the_bill_on_the_next_day(heard):
    assert heard["bill_too_early"]["sub_code"] == "isp.bill_not_exist"
    assert heard["bill"]["code"] == "10000"
    assert heard["bill_begins"] == "PK"


def test_its_signed_pages_are_paid_and_what_comes_back_verifies(heard):
    assert {kind: told["state"] for kind, told in heard["pages"].items()} == {
        "web": "paid",
        "h5": "paid",
        "app": "paid",
    }
    for kind in ("web", "h5"):
        assert heard["pages"][kind]["returned"]
        assert not heard["pages"][kind]["tampered"]
    assert heard["pages"]["app"]["result"]["out_trade_no"] == "PAGE-app"


def test_it_asks_with_certificates_shares_and_pays_out(heard):
    found = heard["certificate"]
    assert found["query"]["trade_status"] == "TRADE_SUCCESS"
    assert found["bind"]["result_code"] == "SUCCESS"
    assert found["settle"]["trade_no"] == found["query"]["trade_no"]
    [share] = found["settle_query"]["royalty_detail_list"]
    assert (share["amount"], share["state"]) == ("3.00", "SUCCESS")
    assert found["transfer"]["status"] == "SUCCESS"
    assert found["transfer_query"]["trans_amount"] == "8.80"
    assert found["downloaded"].startswith("-----BEGIN CERTIFICATE-----")


def test_it_verifies_every_notification_and_no_forgery(heard):
    told = [
        (one["fields"]["out_trade_no"], one["fields"]["trade_status"]) for one in heard["notices"]
    ]
    assert sorted(told) == [
        ("CODE-1", "TRADE_SUCCESS"),
        ("CODE-1", "TRADE_SUCCESS"),
        ("QR-1", "TRADE_CLOSED"),
        ("QR-1", "TRADE_SUCCESS"),
    ]
    assert all(one["verified"] for one in heard["notices"])
    assert not heard["tampered_verified"]


def test_it_rejects_a_bad_signature_and_hears_who_is_a_stranger(heard):
    assert heard["bad_signature"] == "AliPayValidationError"
    assert heard["stranger"] == "AliPayException"
