"""The demo's shop has a price for every way to pay, so its cashier shows what each channel can."""

from __future__ import annotations

import pytest

from tests.stage import Stage
from tests.surfaces.cashing import ALIPAY_APP, DESKTOP, METHOD, PHONE, UNIONPAY_APP, Till, page_of
from tests.surfaces.visitors import reader
from tongbao.kernel.licence import Licence
from tongbao.surfaces.demo.stage import (
    DEMO_FEES,
    SHOP_FEES,
    account_orders,
    further_orders,
    open_accounts,
    open_shop,
)
from tongbao.wiring import SECRETS


@pytest.fixture
async def till(stage: Stage) -> Till:
    """The demo's shop, as the demo opens it."""
    sandbox, platform = stage.sandbox, stage.platform
    orders = account_orders(sandbox.url, sandbox.credentials)
    orders += further_orders(sandbox.url, sandbox.hosts["cards"], sandbox.credentials)
    accounts = await open_accounts(stage.db, platform.keyring, SECRETS, orders)
    licence = Licence.PAYMENT_INSTITUTION
    shop = await open_shop(
        stage.db, platform.keyring, licence, accounts, name="示范店", fees=DEMO_FEES
    )
    return Till(stage, shop)


async def test_every_place_is_offered_what_works_there(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    offered = {}
    for agent in (PHONE, DESKTOP, ALIPAY_APP, UNIONPAY_APP):
        async with reader(stage) as one:
            page = await one.get(page_of(checkout), **{"user-agent": agent})
        offered[agent] = set(METHOD.findall(page.text))

    h5 = {"alipay.h5", "wechat_pay.h5", "unionpay.h5"}
    assert {each for each in offered[PHONE] if each.endswith(".h5")} == h5
    assert {"alipay.web", "unionpay.web", "wechat_pay.qr"} <= offered[DESKTOP]
    assert offered[ALIPAY_APP] == {"alipay.h5"}
    assert offered[UNIONPAY_APP] == {"unionpay.h5"}


def test_no_way_to_pay_has_two_prices() -> None:
    assert len({(line.channel, line.pay_mode) for line in DEMO_FEES}) == len(DEMO_FEES)
    assert set(SHOP_FEES) <= set(DEMO_FEES)
