"""Alipay's own Python client meets the simulated Alipay and is satisfied with it."""

import pytest

from tests.outsiders import DRIVERS, heard_from, pkcs1, python_with
from tests.sandboxes import start_sandbox

DRIVE = DRIVERS / "alipay_sdk_python" / "drive.py"


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    python = python_with("alipay_sdk_python")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        shown = sandbox.credentials["alipay"]
        given = {
            "url": sandbox.url,
            "credentials": shown,
            "private_key": pkcs1(shown["app_private_key_pem"]),
        }
        return heard_from([python, DRIVE], given)


def test_it_shows_a_code_and_sees_the_payment(heard):
    assert heard["precreate"]["ok"]
    assert heard["unscanned"]["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert heard["query"]["trade_status"] == "TRADE_SUCCESS"
    assert heard["query"]["total_amount"] == "12.30"


def test_it_opens_a_trade_and_refunds(heard):
    assert heard["create"]["ok"]
    assert len(heard["create"]["trade_no"]) == 28
    assert heard["refund"] == {"ok": True, "fund_change": "Y"}


def test_what_it_signs_for_a_browser_and_an_app_is_paid(heard):
    assert (heard["page"], heard["app"]) == ("paid", "paid")


def test_it_rejects_a_bad_signature(heard):
    assert heard["bad_signature"]
