"""The own wallet at the cashier: offered where a price was agreed, paid by what its app scans."""

from __future__ import annotations

import pytest

from tests.stage import Stage
from tests.surfaces.cashing import DESKTOP, METHOD, PHONE, Till, choose, page_of, scene
from tests.surfaces.visitors import reader
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.surfaces.page_kit.qr import draw


@pytest.fixture
async def till(stage: Stage) -> Till:
    lines = [PriceLine("wallet", "qr", 3_000), PriceLine("wechat_pay", "qr", 8_000)]
    async with stage.db.begin("operator") as tx:
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, lines)
    return Till(stage)


@pytest.mark.parametrize("agent", [DESKTOP, f"{PHONE} TongbaoWallet/1.2"])
async def test_the_own_wallet_is_offered_and_pays_what_it_scans(
    stage: Stage, till: Till, agent: str
) -> None:
    wallet = await stage.call(stage.client.wallets.open, holder_name="张三")
    await stage.call(stage.client.wallets.top_up, wallet["id"], amount=10_000)
    checkout = await till.open()
    async with reader(stage) as one:
        page = await one.get(page_of(checkout), **{"user-agent": agent})
        others = [] if "TongbaoWallet" in agent else ["wechat_pay.qr"]
        assert METHOD.findall(page.text) == [*others, "wallet.qr"]
        assert "an electronic account" in page.text
        await choose(one, checkout, "wallet.qr")
        page = await one.get(page_of(checkout), **{"user-agent": agent})
        assert "one of your electronic accounts" in page.text
        code = (await till.as_payment(checkout))["next_action"]["code_url"]
        assert draw(code).path in page.text
        assert (f'href="{code}"' in page.text) == (not others)

        await stage.call(stage.client.wallets.pay, wallet["id"], code)
        page = await one.get(page_of(checkout), **{"user-agent": agent})

    assert scene(page) == "paid"
    assert (await till.seen(checkout))["status"] == "paid"


async def test_another_way_after_the_own_wallets_code_closes_it(stage: Stage, till: Till) -> None:
    checkout = await till.open()
    async with reader(stage) as one:
        await choose(one, checkout, "wallet.qr")
        first = await till.as_payment(checkout)
        await choose(one, checkout, "wechat_pay.qr")

    assert (await stage.read(first))["status"] == "closed"
    assert (await till.as_payment(checkout))["method"]["channel"] == "wechat_pay"
