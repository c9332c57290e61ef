"""Channels begun with `tongbao new-channel` keep the contract from their first minute on.

What is not built says so and claims nothing; what is built meets silence and rubbish as every
channel does. A finished channel has a peer in test_contract.py or tests of its own beside this.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.rails.connector import Connector, connectors
from tests.rails.peers import RECORDED, refund_order
from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillFault, BillFile
from tongbao.rails.channels.contract.callbacks import CallbackForged
from tongbao.rails.channels.contract.orders import PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    NotSent,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map

FOUND = connectors()
CALLS = ("pay", "query", "close", "refund", "query_refund", "download_bill")
ENDS = (Succeeded, Declined, Closed, Absent, BillFile)


@pytest.fixture(params=sorted(FOUND))
def connector(request: pytest.FixtureRequest) -> Connector:
    return FOUND[request.param]


def order(mode: PayMode, money: Money) -> PayOrder:
    expires = datetime(2090, 1, 1, tzinfo=UTC)
    return PayOrder("01k9order0000000000000000a", mode, money, "tea", expires, "1234567890")


async def ask(channel: Any, account: Any, call: str, folder: Path) -> Answer[Any]:
    mode = min(channel.modes, default=PayMode.QR)
    placed = order(mode, Money(1999, min(channel.currencies)))
    calls: dict[str, Callable[[], Awaitable[Answer[Any]]]] = {
        "pay": lambda: channel.pay(account, placed),
        "query": lambda: channel.query(account, placed),
        "close": lambda: channel.close(account, placed),
        "refund": lambda: channel.refund(account, refund_order()),
        "query_refund": lambda: channel.query_refund(account, refund_order()),
        "download_bill": lambda: channel.download_bill(account, date(2030, 1, 1), folder),
    }
    return await calls[call]()


def test_a_connector_is_registered_under_its_folder(connector: Connector) -> None:
    assert connector.make.name == connector.name  # type: ignore[attr-defined]
    assert connector.built <= {*CALLS, "read_callback", "parse_bill", "transfer"}
    assert isinstance(json.loads((RECORDED / f"{connector.name}.json").read_text()), list)
    assert error_map(connector.name).entries
    assert "***" in repr(connector.secrets)


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_not_built_says_so_and_asks_nobody(
    connector: Connector, call: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    channel = connector.make(http)
    if call in connector.built:
        pytest.skip("it is built")
    answer = await ask(channel, connector.account(far_end.url), call, tmp_path)
    assert isinstance(answer.outcome, NotSent if call in {"pay", "refund"} else Unknown)
    assert answer.outcome.reason
    assert answer.exchange.status is None
    assert far_end.heard == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("trouble", ["reset", "a page", "http 500"])
async def test_what_is_built_takes_rubbish_for_nothing(
    connector: Connector,
    call: str,
    trouble: str,
    far_end: WireServer,
    http: HttpClient,
    tmp_path: Path,
) -> None:
    pages = {"a page": http_reply(200, {}, b"<html>hello</html>"), "http 500": http_reply(500)}
    far_end.react = lambda _: pages.get(trouble, "reset")
    answer = await ask(connector.make(http), connector.account(far_end.url), call, tmp_path)
    assert not isinstance(answer.outcome, ENDS), answer


@pytest.mark.parametrize("call", ["pay", "refund"])
async def test_a_currency_it_does_not_take_is_not_sent(
    connector: Connector, call: str, far_end: WireServer, http: HttpClient
) -> None:
    channel, account = connector.make(http), connector.account(far_end.url)
    if call == "pay":
        strange = order(min(channel.modes, default=PayMode.QR), Money(1999, "JPY"))
        answer = await channel.pay(account, strange)
    else:
        answer = await channel.refund(account, refund_order(money=Money(500, "JPY")))
    assert isinstance(answer.outcome, NotSent)
    assert far_end.heard == []


@pytest.mark.parametrize("body", [b"", b"{}", b"<xml/>", b"a=b&sign=x", b"\xff\x00"])
def test_a_callback_nobody_signed_is_refused(
    connector: Connector, body: bytes, http: HttpClient
) -> None:
    with pytest.raises(CallbackForged):
        connector.make(http).read_callback(
            connector.account("http://127.0.0.1:9"), {}, body, real_now()
        )


def test_a_bill_of_somebody_else_is_a_fault(
    connector: Connector, http: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "bill"
    path.write_bytes(b"not a bill of anybody\n")
    assert [type(line) for line in connector.make(http).parse_bill(path)] == [BillFault]
