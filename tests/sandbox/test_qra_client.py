"""XML and signatures that others wrote meet the simulated Qra, and the documents we write.

The second version of WeChat Pay, which npm's wechatpay-axios-plugin speaks, has Qra's documents and
signatures; a client made for Qra was found in neither PyPI nor npm.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.outsiders import CLIENTS, DRIVERS, heard_from, node_with
from tests.sandboxes import start_sandbox
from tongbao.rails.channels.unionpay_qra.crypto import is_authentic, read, signed, written

FOLDER = CLIENTS / "wechatpay_axios_plugin"
DRIVE = DRIVERS / "wechatpay_axios_plugin" / "qra.mjs"
KEY = "9d101c97133837e13dde2d32a5054abb"
FIELDS = {"body": "一杯咖啡 & <1> muffin", "total_fee": "1999", "out_trade_no": "k-1"}


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    node = node_with(FOLDER, "wechatpay-axios-plugin")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        keys = sandbox.credentials["unionpay_qra"]
        ours = {"document": written(signed(KEY, FIELDS)).decode(), "key": KEY}
        given = {"url": sandbox.url, "credentials": keys, "ours": ours}
        return dict(heard_from([node, DRIVE, FOLDER], given))


def test_it_reads_and_believes_what_we_write(heard: dict[str, Any]) -> None:
    assert heard["ours"] == {"genuine": True, "fields": FIELDS}


def test_we_read_and_believe_what_it_writes(heard: dict[str, Any]) -> None:
    fields = read(heard["theirs"].encode())
    assert (fields["body"], fields["total_fee"]) == ("中 & <文>", "1")
    assert is_authentic(KEY, fields)
    assert not is_authentic(KEY, {**fields, "total_fee": "2"})


def test_it_verifies_every_answer_but_the_forged_one(heard: dict[str, Any]) -> None:
    asked = heard.keys() - {"theirs", "forged"}
    assert {name for name in asked if not heard[name]["genuine"]} == set()
    assert heard["forged"]["genuine"] is False


def test_it_is_paid_told_and_gives_back(heard: dict[str, Any]) -> None:
    assert heard["native"]["fields"]["code_url"]
    told, found = heard["callback"]["fields"], heard["query"]["fields"]
    assert found["trade_state"] == "SUCCESS"
    for name in ("out_trade_no", "total_fee", "transaction_id", "time_end"):
        assert told[name] == found[name]
    assert heard["refund"]["fields"]["result_code"] == "0"
    assert heard["refunded"]["fields"]["refund_status_0"] == "SUCCESS"


def test_it_charges_a_code_takes_it_back_and_closes(heard: dict[str, Any]) -> None:
    for name in ("micropay", "reverse", "close"):
        assert heard[name]["fields"]["result_code"] == "0", name
    assert heard["unknown"]["fields"]["result_code"] == "1"
