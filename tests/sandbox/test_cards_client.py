"""A codec that others wrote is a terminal of the simulated card host, and reads what we write.

PyPI's pyiso8583 knows ISO 8583:1987 by a table of its own, so it is a witness for the frames of
advices, reversals and settlement (0220, 0400, 0500), of which no recorded messages were found.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.outsiders import DRIVERS, heard_from, python_with
from tests.rails.card_host import PAN, account, card, order
from tests.sandboxes import start_sandbox
from tongbao.kernel.codecs.iso8583 import Message, decode, encode
from tongbao.kernel.codecs.iso8583_dialects import CUPS
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.cards import messages
from tongbao.rails.channels.contract.bills import BatchTotals

DRIVE = DRIVERS / "pyiso8583" / "drive.py"
NOWHERE = account("tcp://127.0.0.1:1")
PRICE = Money(1999, "CNY")


def of_ours() -> dict[str, Message]:
    """One message of every kind the channel sends."""
    paid, now = order(), base32(new_id())
    trace, about = messages.trace_of(now), messages.trace_of(paid.number)
    ask = messages.request
    totals = BatchTotals(2, 2799, 1, 500)
    return {
        "purchase": ask(NOWHERE, messages.PURCHASE, trace, PRICE, card=card()),
        "cancel": ask(NOWHERE, messages.PURCHASE_CANCEL, trace, PRICE, original=("0200", about)),
        "balance": ask(NOWHERE, messages.BALANCE, trace, None, card=card()),
        "authorise": ask(NOWHERE, messages.AUTHORISE, trace, PRICE, card=card()),
        "capture": ask(
            NOWHERE,
            messages.CAPTURE,
            trace,
            PRICE,
            original=("0100", about),
            authorisation_code="123456",
        ),
        "refund": ask(NOWHERE, messages.REFUND, trace, PRICE, original=("0200", about)),
        "reversal": messages.reversal(NOWHERE, messages.PURCHASE, now, PRICE, card()),
        "totals": messages.totals_request(NOWHERE, now, totals),
        "sign_in": messages.sign_in(NOWHERE, 7),
    }


ANSWERS: dict[str, dict[str, str]] = {
    "advice answered": {"t": "0230", "3": "200000", "4": "000000000500", "11": "000007"}
    | {"37": "WITNESS00002", "39": "00", "41": "10000001", "42": "898110000000001", "49": "156"},
    "reversal answered": {"t": "0410", "3": "000000", "11": "000007", "39": "25"}
    | {"90": "0200" + "0" * 38, "128": b"0D612014".hex()},
    "settlement answered": {"t": "0510", "11": "000007", "39": "00"}
    | {"48": "002000000002799001000000000500" + "1" + "0" * 31, "64": b"0D612014".hex()},
}


@pytest.fixture(scope="module")
def ours() -> dict[str, Message]:
    return of_ours()


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory, ours: dict[str, Message]) -> dict[str, Any]:
    python = python_with("pyiso8583")
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        sandbox.post("cards/card", number=PAN)
        given = {
            "host": sandbox.hosts["cards"],
            "credentials": sandbox.credentials["cards"],
            "card": {"2": PAN, "14": "4912", "22": "021", "35": f"{PAN}=49121201234500000000"},
            "ours": {name: encode(each, CUPS).hex() for name, each in ours.items()},
            "notes": ANSWERS,
        }
        told = heard_from([python, DRIVE], given)
        shown = sandbox.post("cards/card", number=PAN)
    return {"card": shown, **told}


def test_it_reads_every_kind_of_message_as_it_was_meant(
    heard: dict[str, Any], ours: dict[str, Message]
) -> None:
    assert heard["ours"].keys() == ours.keys()
    for name, message in ours.items():
        read = heard["ours"][name]
        assert read["same"], f"{name}: the codec would have written other bytes"
        fields = {int(at): value for at, value in read["fields"].items() if at.isdigit()}
        fields.pop(1, None)  # the second bitmap
        meant = {
            at: value.hex().upper() if isinstance(value, bytes) else value
            for at, value in message.fields.items()
        }
        assert (read["fields"]["t"], fields) == (message.mti, meant), name


def test_what_it_writes_is_read(heard: dict[str, Any]) -> None:
    for name, note in ANSWERS.items():
        message = decode(bytes.fromhex(heard["written"][name]), CUPS)
        texts = {
            str(at): value.hex() if isinstance(value, bytes) else value
            for at, value in message.fields.items()
        }
        assert {"t": message.mti, **texts} == note


def test_the_host_signs_it_in_with_keys_it_can_open(heard: dict[str, Any]) -> None:
    assert heard["sign_in"] == {"39": "00", "checks": [True, True, True]}


def test_it_pays_gives_back_reverses_captures_and_settles(heard: dict[str, Any]) -> None:
    asked = ["purchase", "refund", "second", "reversal", "authorise", "capture", "totals"]
    assert {name: heard[name]["39"] for name in asked} == dict.fromkeys(asked, "00")
    assert [heard[name]["t"] for name in asked] == [
        *("0210", "0230", "0210", "0410", "0110", "0230", "0510"),
    ]
    assert all(heard[name]["mac_fits"] for name in asked)
    assert heard["refunded_too_much"]["39"] == "64"
    assert heard["totals"]["48"] == "002000000002799001000000000500" + "1" + "0" * 31
    assert heard["card"]["balance"] == 1_000_000 - 1999 + 500 - 800
