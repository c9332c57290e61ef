"""Alipay's own client for Node.js meets the simulated Alipay, by forms and by REST."""

import pytest

from tests.outsiders import CLIENTS, DRIVERS, heard_from, node_with
from tests.sandboxes import start_sandbox

FOLDER = CLIENTS / "alipay_sdk_node"
DRIVE = DRIVERS / "alipay_sdk_node" / "drive.mjs"
MODES = ["key", "certificate"]


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    node = node_with(FOLDER, "alipay-sdk")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        given = {"url": sandbox.url, "credentials": sandbox.credentials["alipay"]}
        return heard_from([node, DRIVE, FOLDER], given)


@pytest.mark.parametrize("mode", MODES)
def test_it_shows_a_code_and_sees_the_payment(heard, mode):
    assert heard[mode]["precreate"]["code"] == "10000"
    assert heard[mode]["query"]["trade_status"] == "TRADE_SUCCESS"
    assert heard[mode]["query"]["total_amount"] == "12.30"


@pytest.mark.parametrize("mode", MODES)
def test_what_it_signs_for_a_browser_and_an_app_is_paid(heard, mode):
    assert (heard[mode]["page"], heard[mode]["app"]) == ("paid", "paid")
    assert heard[mode]["return_verified"]
    assert not heard[mode]["return_tampered"]


@pytest.mark.parametrize("mode", MODES)
def test_it_speaks_the_rest_protocol(heard, mode):
    assert heard[mode]["rest_query"]["trade_status"] == "TRADE_SUCCESS"
    assert "code" not in heard[mode]["rest_query"]
    assert len(heard[mode]["rest_create"]["trade_no"]) == 28
    for refused in (heard[mode]["rest_absent"], heard[mode]["rest_get_absent"]):
        assert (refused["code"], refused["status"]) == ("TRADE_NOT_EXIST", 400)


def test_it_pays_out(heard):
    assert heard["transfer"]["status"] == "SUCCESS"


def test_it_verifies_every_notification_and_no_forgery(heard):
    told = sorted((one["number"], one["by_certificate"]) for one in heard["notices"])
    numbers = [f"{prefix}-{n}" for prefix in ("CERT", "KEY") for n in (1, 2, 3)]
    assert told == [(number, number.startswith("CERT")) for number in numbers]
    assert all(one["verified"] for one in heard["notices"])
    assert not any(one["tampered"] for one in heard["notices"])


def test_it_rejects_bad_signatures(heard):
    assert heard["bad_signature"]["name"] == "AlipayRequestError"
    assert heard["rest_bad_signature"]["name"] == "AlipayRequestError"
