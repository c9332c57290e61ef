"""Alipay's own Python client meets the simulated agreements, car parks and account bill."""

from __future__ import annotations

from typing import Any

import pytest

from tests.outsiders import DRIVERS, heard_from, pkcs1, python_with
from tests.sandboxes import start_sandbox

DRIVE = DRIVERS / "alipay_sdk_python" / "products.py"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Any:
    python = python_with("alipay_sdk_python")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        shown = sandbox.credentials["alipay"]
        given = {
            "url": sandbox.url,
            "credentials": shown,
            "seller": "2088000000000000",
            "private_key": pkcs1(shown["app_private_key_pem"]),
        }
        return heard_from([python, DRIVE], given)


def test_an_agreement_is_signed_charged_and_ended(heard: Any) -> None:
    found = heard["agreement"]
    assert not found["unknown"]["ok"]
    assert found["unknown"]["sub_code"] == "USER_AGREEMENT_NOT_EXIST"
    assert (found["query"]["ok"], found["query"]["status"]) == (True, "NORMAL")
    assert found["query"]["external_agreement_no"] == "AG-1"
    assert found["query"]["sign_time"]
    assert (found["charge"]["ok"], found["charge"]["total_amount"]) == (True, "12.30")
    assert found["ended"]["ok"]
    assert (found["late"]["ok"], found["late"]["sub_code"]) == (False, "ACQ.AGREEMENT_INVALID")


def test_an_agreement_is_signed_in_the_app(heard: Any) -> None:
    for kind in ("app", "mini_program"):
        found = heard["in_app"]
        assert found[kind]["state"] == "NORMAL"
        assert (found[f"{kind}_query"]["ok"], found[f"{kind}_query"]["status"]) == (True, "NORMAL")


def test_a_receiver_gets_shares_from_its_binding_until_it_is_forgotten(heard: Any) -> None:
    found = heard["shares"]
    for step in ("bound", "unbound"):
        assert (found[step]["ok"], found[step]["result_code"]) == (True, "SUCCESS")
    assert found["given"]["ok"]
    assert (found["query"]["ok"], found["query"]["out_request_no"]) == (True, "S1")
    for step in ("stranger", "late"):
        assert (found[step]["ok"], found[step]["sub_code"]) == (
            False,
            "ACQ.ROYALTY_RECEIVER_INVALID",
        )


def test_a_periodic_agreement_keeps_its_rules(heard: Any) -> None:
    found = heard["periodic"]
    assert found["query"]["status"] == "NORMAL"
    assert found["charge"]["ok"]
    assert found["too_much"]["sub_code"] == "ACQ.CYCLE_PAY_SINGLE_FEE_EXCEED"


def test_a_car_drives_in_pays_and_drives_out(heard: Any) -> None:
    found = heard["parking"]
    assert (found["unbound"]["agreement_status"], found["bound"]["agreement_status"]) == ("1", "0")
    assert found["entered"]["ok"]
    assert found["left"]["ok"]
    assert (found["fee"]["ok"], found["fee"]["out_trade_no"]) == (True, "PARK-1")
    assert found["fee"]["total_fee"] == "6.00"
    assert found["fee"]["trade_no"]


def test_the_account_bill_holds_what_was_taken(heard: Any) -> None:
    assert heard["bill"]["ok"]
    lines = heard["bill"]["lines"]
    assert lines[0].startswith("#支付宝账务明细查询")
    for number in ("AG-PAY-1", "AG-PAY-3", "PARK-1"):
        assert any(number in line for line in lines), number
    assert not any("AG-PAY-4" in line for line in lines)
