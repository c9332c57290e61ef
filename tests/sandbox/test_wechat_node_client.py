"""A client for Node.js that others wrote meets the simulated WeChat Pay."""

from typing import Any

import pytest

from tests.outsiders import CLIENTS, DRIVERS, heard_from, node_with
from tests.sandboxes import start_sandbox

FOLDER = CLIENTS / "wechatpay_axios_plugin"
DRIVE = DRIVERS / "wechatpay_axios_plugin" / "drive.mjs"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    node = node_with(FOLDER, "wechatpay-axios-plugin")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        keys = sandbox.credentials["wechat"]
        given = {"url": sandbox.url, "credentials": keys}
        return {"keys": keys, **heard_from([node, DRIVE, FOLDER], given)}


def test_it_places_an_order_and_sees_it_paid(heard: dict[str, Any]) -> None:
    assert heard["native"]["status"] == 200
    assert heard["query"]["data"]["trade_state"] == "SUCCESS"


def test_it_verifies_and_decrypts_the_callback(heard: dict[str, Any]) -> None:
    callback = heard["callback"]
    assert (callback["verified"], callback["type"]) == (True, "TRANSACTION.SUCCESS")
    assert callback["resource"] == heard["query"]["data"]


def test_it_accepts_the_signed_empty_answer_and_reads_a_refusal(heard: dict[str, Any]) -> None:
    assert heard["close"]["status"] == 204
    assert (heard["unknown"]["status"], heard["unknown"]["data"]["code"]) == (
        404,
        "ORDER_NOT_EXIST",
    )


def test_what_it_signs_for_a_page_opens_wechat_and_nothing_else(heard: dict[str, Any]) -> None:
    assert heard["opened"]["trade_state"] == "SUCCESS"
    assert heard["opened"]["trade_type"] == "JSAPI"
    assert "error" in heard["opened_wrongly"]


def test_it_gets_an_h5_link_and_refunds(heard: dict[str, Any]) -> None:
    assert "prepay_id=" in heard["h5"]["data"]["h5_url"]
    assert heard["refund"]["data"]["status"] == "PROCESSING"


def test_its_encrypted_name_can_be_read(heard: dict[str, Any]) -> None:
    assert heard["receiver"]["status"] == 200
    assert heard["receiver"]["data"]["account"] == "86693852"


def test_it_fetches_the_certificates(heard: dict[str, Any]) -> None:
    [listed] = heard["certificates"]["data"]["data"]
    assert listed["serial_no"] == heard["keys"]["platform_serial"]


def test_it_works_in_public_key_mode(heard: dict[str, Any]) -> None:
    assert heard["public_key"]["status"] == 200


def test_it_refuses_an_answer_with_a_bad_signature(heard: dict[str, Any]) -> None:
    assert heard["forged"]["code"] == "EV3_RES_HEADER_SIGNATURE_DIGEST"
