"""A shop that takes money at every channel that sends callbacks."""

from __future__ import annotations

from tests.stage import Stage
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import NewAccount
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS

CHANNELS = ("wechat_pay", "alipay")
AT_UNIONPAY = ("unionpay", "unionpay_qra")
EVERYWHERE = (*CHANNELS, *AT_UNIONPAY)


async def open_everywhere(stage: Stage) -> None:
    """Let the shop take money at UnionPay, too, and under agreements where there are any."""
    shown = stage.sandbox.credentials
    pems = ("merchant_private_key_pem", "merchant_certificate_pem")
    authority = ("root_certificate_pem", "middle_certificate_pem")
    orders = [
        NewAccount(
            channel="unionpay",
            mode=Mode.SANDBOX,
            gateway=f"{stage.sandbox.url}/unionpay",
            merchant_number=shown["unionpay"]["mer_id"],
            app_id="000201",
            fee_ppm=6000,
            keys={name: shown["unionpay"][name] for name in (*pems, *authority)},
        ),
        NewAccount(
            channel="unionpay_qra",
            mode=Mode.SANDBOX,
            gateway=f"{stage.sandbox.url}/qra",
            merchant_number=shown["unionpay_qra"]["mch_id"],
            app_id="qra",
            fee_ppm=6000,
            keys={"secure_key": shown["unionpay_qra"]["secure_key"]},
        ),
    ]
    stage.accounts |= await open_accounts(stage.db, stage.platform.keyring, SECRETS, orders)
    prices = [PriceLine(channel, "qr", 8_000) for channel in EVERYWHERE]
    prices += [PriceLine(channel, "agreement", 8_000) for channel in CHANNELS]
    merchant = stage.shop.merchant.id
    async with stage.db.begin("operator") as tx:
        await set_price_plan(tx, merchant, Mode.SANDBOX, prices)
        for channel in AT_UNIONPAY:
            account = stage.accounts[channel]
            await connect_channel(tx, merchant, Mode.SANDBOX, channel, account)
