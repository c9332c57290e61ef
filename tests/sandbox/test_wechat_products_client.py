"""A client that others wrote uses the simulated WeChat Pay's further products."""

from typing import Any

import pytest

from tests.sandbox.wechat_driver import heard_by


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return heard_by("products.py", tmp_path_factory.mktemp("sandbox"))


def test_what_it_signs_for_a_page_and_an_app_opens_wechat(heard: dict[str, Any]) -> None:
    assert heard["opened"] == {"page": "JSAPI", "app": "APP", "state": "SUCCESS"}


def test_it_gets_an_h5_link(heard: dict[str, Any]) -> None:
    assert heard["h5"]["status"] == 200
    assert "prepay_id=" in heard["h5"]["body"]["h5_url"]


def test_it_acts_for_a_sub_merchant(heard: dict[str, Any]) -> None:
    found, keys = heard["partner"], heard["keys"]
    assert found["callback"] == found["query"]
    assert (found["query"]["sp_mchid"], found["query"]["sub_mchid"]) == (
        keys["mchid"],
        keys["sub_mchid"],
    )
    assert "mchid" not in found["query"]
    assert found["refund"]["body"]["status"] == "PROCESSING"
    assert found["close"]["body"]["code"] == "ORDERPAID"


def test_it_combines_orders(heard: dict[str, Any]) -> None:
    found = heard["combined"]
    assert found["callback"] == found["query"]
    assert [part["trade_state"] for part in found["query"]["sub_orders"]] == ["SUCCESS"] * 2


def test_it_shares_takes_back_and_frees(heard: dict[str, Any]) -> None:
    found = heard["splits"]
    assert found["receiver"]["status"] == 200
    assert found["begun"]["body"]["state"] == "PROCESSING"
    assert found["callback"]["event_type"] == "PROFITSHARING"
    assert found["callback"]["resource"]["receiver"]["amount"] == 300
    assert (found["done"]["state"], found["done"]["receivers"][0]["result"]) == (
        "FINISHED",
        "SUCCESS",
    )
    assert found["left"] == 1699
    assert found["back"]["body"] == found["back_query"]["body"]
    assert found["back"]["body"]["result"] == "SUCCESS"
    assert found["freed"]["status"] == found["deleted"]["status"] == 200
    assert found["nothing_left"]["unsplit_amount"] == 0


def test_it_pays_out(heard: dict[str, Any]) -> None:
    found = heard["transfer"]
    assert found["offered"]["body"]["state"] == "WAIT_USER_CONFIRM"
    assert found["offered"]["body"]["package_info"]
    assert found["callback"]["event_type"] == "MCHTRANSFER.BILL.FINISHED"
    assert (found["done"]["state"], found["done"]["transfer_amount"]) == ("SUCCESS", 5000)
    assert found["cancelled"]["state"] == "CANCELLED"


def test_its_encrypted_names_can_be_read(heard: dict[str, Any]) -> None:
    assert heard["stuck"]["body"]["status"] == "PROCESSING"


def test_it_charges_for_parking(heard: dict[str, Any]) -> None:
    found = heard["parking"]
    assert found["found"]["body"]["service_state"] == "NORMAL"
    assert found["taken"]["body"]["trade_state"] == "ACCEPTED"
    assert found["paid"]["trade_state"] == "SUCCESS"


def test_it_follows_a_change_of_the_platform_certificate(heard: dict[str, Any]) -> None:
    assert heard["rotation"] == {"status": 200, "certificates": 2}
