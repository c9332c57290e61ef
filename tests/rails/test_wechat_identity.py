"""Who opened a page inside WeChat: where the browser is sent, and what its code is worth."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2 as httpx
import pytest
from msgspec.structs import replace

from tests.rails.wechat_shop import WechatShop
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.capabilities.payers import Identified, Identifying
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Declined, NotSent, Unknown
from tongbao_sandbox.launch import RunningSandbox

BACK = "https://shop.example/back?a=b&c=茶"


@pytest.fixture
def shop(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> WechatShop:
    shop = WechatShop(sandbox, http, far_end)
    shop.account = shop.account_with(app_secret=shop.keys["app_secret"])
    return shop


async def browse(shop: WechatShop, account: ChannelAccount | None = None) -> httpx.Response:
    """Let a customer's browser go where it is sent."""
    address = shop.channel.identity_address(account or shop.account, BACK, "state-1")
    assert address is not None
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(address)


async def code_of(shop: WechatShop) -> str:
    return parse_qs(urlsplit((await browse(shop)).headers["location"]).query)["code"][0]


def test_the_channel_says_that_it_can(shop: WechatShop) -> None:
    assert isinstance(shop.channel, Identifying)


def test_the_address_has_its_fields_in_the_one_order_that_is_taken(shop: WechatShop) -> None:
    live = replace(shop.account, mode=Mode.LIVE)
    address = shop.channel.identity_address(live, BACK, "state-1")
    assert address is not None
    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == (
        "https",
        "open.weixin.qq.com",
        "/connect/oauth2/authorize",
        "wechat_redirect",
    )
    assert parse_qsl(parts.query) == [
        ("appid", live.app_id),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", "snsapi_base"),
        ("state", "state-1"),
    ]


def test_an_account_without_the_secret_sends_nobody(shop: WechatShop) -> None:
    assert shop.channel.identity_address(shop.account_with(), BACK, "s") is None


async def test_a_browser_comes_back_with_a_code_that_serves_once(shop: WechatShop) -> None:
    back = await browse(shop)
    assert back.status_code == 302
    query = dict(parse_qsl(urlsplit(back.headers["location"]).query))
    assert back.headers["location"].startswith("https://shop.example/back?a=b&c=")
    assert query["state"] == "state-1"

    first = await shop.channel.identify(shop.account, query["code"])
    again = await shop.channel.identify(shop.account, query["code"])

    assert isinstance(first.outcome, Identified)
    assert len(first.outcome.payer_id) == 28
    assert first.outcome.payer_id not in repr(first.outcome)
    assert isinstance(again.outcome, Declined)
    assert again.outcome.code == "40029"
    for answer in (first, again):
        shown = f"{answer.exchange}"
        assert shop.keys["app_secret"] not in shown
        assert query["code"] not in shown


async def test_a_browser_that_goes_for_another_app_gets_no_code(shop: WechatShop) -> None:
    refused = await browse(shop, replace(shop.account, app_id="wx0000000000000000"))
    assert refused.status_code == 200
    assert "location" not in refused.headers


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"app_id": "wx0000000000000000"}, "40013"), ({"app_secret": "wrong"}, "40125")],
)
async def test_a_wrong_app_or_secret_is_told(
    shop: WechatShop, changes: dict[str, Any], code: str
) -> None:
    account = shop.account
    if "app_secret" in changes:
        account = shop.account_with(**changes)
    else:
        account = replace(account, **changes)
    told = (await shop.channel.identify(account, await code_of(shop))).outcome
    assert isinstance(told, Declined)
    assert told.code == code


@pytest.mark.parametrize("fault", ["http_500", "busy"])
async def test_no_answer_is_no_person(shop: WechatShop, fault: str) -> None:
    shop.sandbox.fault("wechat", "identify", fault)
    told = (await shop.channel.identify(shop.account, await code_of(shop))).outcome
    assert isinstance(told, Unknown)


async def test_a_refused_connection_is_said_so(shop: WechatShop) -> None:
    nowhere = replace(shop.account, gateway="http://127.0.0.1:1")
    told = (await shop.channel.identify(nowhere, "code")).outcome
    assert isinstance(told, NotSent)
