"""Customers at the cashier: a shop with every way to pay, checkouts, plates, and phones."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from tests.infra.signed_client import SignedClient
from tests.stage import Stage, new_number
from tests.surfaces.visitors import Reader
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.checkouts import queries
from tongbao.payments.checkouts.checkouts import Visitor
from tongbao.payments.checkouts.model import Checkout
from tongbao.payments.collecting.model import Payment
from tongbao.surfaces.demo.stage import Shop

MODES = ("qr", "h5", "web", "payment_code")
WECHAT_APP = (
    "Mozilla/5.0 (Linux; Android 14; 23127PN0CC) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0"
    " Chrome/122.0.0.0 Mobile Safari/537.36 MicroMessenger/8.0.49.2600(0x28003133)"
)
ALIPAY_APP = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML,"
    " like Gecko) Mobile/15E148 AlipayClient/10.5.88.6000 Language/zh-Hans"
)
UNIONPAY_APP = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML,"
    " like Gecko) Mobile/15E148 (com.unionpay.chsp) (UnionPay/1.0 CloudPay)"
)
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML,"
    " like Gecko) Version/17.4 Mobile/15E148 Safari/604.1"
)
DESKTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


async def price_every_way(stage: Stage, merchant_id: UUID, *further: str) -> None:
    """Agree prices for every way to pay that a browser has, and further ones."""
    lines = [
        PriceLine(channel, mode, 8_000)
        for channel in ("wechat_pay", "alipay")
        for mode in (*MODES, *further)
    ]
    async with stage.db.begin("operator") as tx:
        await set_price_plan(tx, merchant_id, Mode.SANDBOX, lines)


class Till:
    """A merchant's program that opens checkouts and makes plates."""

    def __init__(self, stage: Stage, shop: Shop | None = None) -> None:
        self.stage = stage
        self.shop = shop or stage.shop
        self.api = SignedClient(stage.app, self.shop.key_id, self.shop.secret.reveal())

    async def open(self, amount: int = 1999, **more: Any) -> dict[str, Any]:
        """Open a checkout."""
        body = {"merchant_order_no": new_number(), "subject": "两杯茶", "amount": amount, **more}
        return await self.said("POST", "/v1/checkouts", body)

    async def plate(self, **more: Any) -> dict[str, Any]:
        """Make a plate."""
        return await self.said(
            "POST", "/v1/plates", {"name": "柜台 1", "subject": "柜台收款", **more}
        )

    async def said(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call the API and return its answer, which must be a good one."""
        if method == "GET":
            reply = await self.api.get(path)
        else:
            reply = await self.api.post(path, body, key=new_number())
        assert reply.code is None, reply
        return dict(reply.json)

    async def row(self, checkout: dict[str, Any]) -> Checkout:
        """Return a checkout's row."""
        return await queries.checkout_of_merchant(
            self.stage.db,
            parse("cko", checkout["id"]),
            self.shop.merchant.id,
            Mode.SANDBOX,
        )

    async def latest(self, checkout: dict[str, Any]) -> Payment:
        """Return a checkout's latest try."""
        found = await queries.latest_try(self.stage.db, await self.row(checkout))
        assert found is not None
        return found[0]

    async def seen(self, checkout: dict[str, Any]) -> dict[str, Any]:
        """Return a checkout as the API shows it now."""
        return await self.said("GET", f"/v1/checkouts/{checkout['id']}")

    async def as_payment(self, checkout: dict[str, Any]) -> dict[str, Any]:
        """Return a checkout's latest try as the API shows it."""
        return await self.said(
            "GET", f"/v1/payments/{show('pay', (await self.latest(checkout)).id)}"
        )


def page_of(shown: dict[str, Any]) -> str:
    """Return the path of a checkout's or a plate's page."""
    return urlsplit(shown["url"]).path


METHOD = re.compile(r'name="method" value="([^"]+)"')
SOMEBODY = Visitor("203.0.113.9", "https://pay.example/pay/c/somebody")
SCENE = re.compile(r'data-scene="(\w+)"')


@pytest.fixture
async def till(stage: Stage) -> Till:
    await price_every_way(stage, stage.shop.merchant.id)
    return Till(stage)


def scene(page: Any) -> str:
    [found] = SCENE.findall(page.text)
    return str(found)


async def choose(one: Reader, checkout: dict[str, Any], method: str) -> Any:
    """Press a method's button and go where that leads."""
    return await one.follow(await one.post(f"{page_of(checkout)}/method", {"method": method}))
