"""Set the stage: accounts at the sandbox's channels, and a shop with a key, prices and channels.

What an operator does by hand for a real firm; the demo and the tests do it in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.identity.keys import create_key
from tongbao.parties.identity.model import scopes_under
from tongbao.parties.merchants.merchants import BankAccount, connect_channel, open_merchant
from tongbao.parties.merchants.model import LateSuccess, Merchant
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import (
    NewAccount,
    SecretTypes,
    add_account,
    list_accounts,
    set_gateway,
)

Credentials = Mapping[str, Mapping[str, str]]
"""What the sandbox hands out, by channel: ``credentials.json``."""

CHANNEL_FEE_PPM: Final = 6_000  # what the sandbox's channels charge: 0.6 %
SHOP_FEES: Final = (
    PriceLine("wechat_pay", "qr", 8_000),
    PriceLine("wechat_pay", "payment_code", 7_000),
    PriceLine("alipay", "qr", 8_000),
    PriceLine("alipay", "payment_code", 7_000),
    PriceLine("wallet", "payment_code", 3_000),
    PriceLine("wallet", "qr", 3_000),
)

_FEES: Final[Mapping[str, Mapping[int, tuple[str, ...]]]] = {
    "wechat_pay": {8_000: ("in_app", "app", "h5"), 7_000: ("agreement",)},
    "alipay": {8_000: ("in_app", "app", "h5", "web"), 7_000: ("agreement",)},
    "unionpay": {6_500: ("qr", "app", "h5", "web"), 6_000: ("payment_code",)},
    "cards": {5_500: ("card",)},
}
DEMO_FEES: Final = SHOP_FEES + tuple(
    PriceLine(channel, mode, ppm)
    for channel, prices in _FEES.items()
    for ppm, modes in prices.items()
    for mode in modes
)
"""A price for every way to pay that the sandbox knows, so that the cashier shows each."""


class Shop(Struct, frozen=True):
    """A merchant that is ready to take money, and the key its program signs with."""

    merchant: Merchant
    key_id: str
    secret: Secret


def account_orders(sandbox_url: str, credentials: Credentials) -> list[NewAccount]:
    """Return our accounts at the sandbox's channels, as its credentials describe them."""
    wechat, alipay, bank = credentials["wechat"], credentials["alipay"], credentials["bank"]
    return [
        NewAccount(
            channel="wechat_pay",
            mode=Mode.SANDBOX,
            gateway=f"{sandbox_url}/wechat",
            merchant_number=wechat["mchid"],
            app_id=wechat["appid"],
            fee_ppm=CHANNEL_FEE_PPM,
            keys={
                "api_v3_key": wechat["api_v3_key"],
                "app_secret": wechat.get("app_secret", ""),
                "merchant_serial": wechat["merchant_serial"],
                "merchant_private_key_pem": wechat["merchant_private_key_pem"],
                "platform_keys": {wechat["platform_serial"]: wechat["platform_certificate_pem"]},
            },
        ),
        NewAccount(
            channel="alipay",
            mode=Mode.SANDBOX,
            gateway=f"{sandbox_url}/alipay",
            merchant_number=alipay["seller_id"],
            app_id=alipay["app_id"],
            fee_ppm=CHANNEL_FEE_PPM,
            keys={
                "app_private_key_pem": alipay["app_private_key_pem"],
                "alipay_public_key_pem": alipay["alipay_public_key_pem"],
            },
        ),
        NewAccount(
            channel="bank_transfer",
            mode=Mode.SANDBOX,
            gateway=f"{sandbox_url}/bank",
            merchant_number=bank["debtor_account"],
            app_id="bank",
            fee_ppm=0,
            keys=dict(bank),
        ),
    ]


def further_orders(sandbox_url: str, card_host: str, credentials: Credentials) -> list[NewAccount]:
    """Return our accounts at UnionPay and at the card host, where the demo plays no scene."""
    unionpay, cards = credentials["unionpay"], credentials["cards"]
    ours = ("merchant_private_key_pem", "merchant_certificate_pem")
    theirs = ("root_certificate_pem", "middle_certificate_pem")
    return [
        NewAccount(
            channel="unionpay",
            mode=Mode.SANDBOX,
            gateway=f"{sandbox_url}/unionpay",
            merchant_number=unionpay["mer_id"],
            app_id="000201",
            fee_ppm=4_000,
            keys={name: unionpay[name] for name in (*ours, *theirs)},
        ),
        NewAccount(
            channel="cards",
            mode=Mode.SANDBOX,
            gateway=card_host,
            merchant_number=cards["merchant_number"],
            app_id=cards["terminal"],
            fee_ppm=4_000,
            keys={name: cards[name] for name in ("master_key", "institution", "switch")},
        ),
    ]


async def open_accounts(
    db: Db, keyring: Keyring, secret_types: SecretTypes, orders: list[NewAccount]
) -> dict[str, UUID]:
    """Register the accounts that are not there yet and return all of them by channel."""
    opened: dict[str, UUID] = {}
    async with db.begin("operator") as tx:
        known = {(row.channel, row.merchant_number): row for row in await list_accounts(tx)}
        for order in orders:
            row = known.get((order.channel, order.merchant_number))
            if row is None:
                row = await add_account(tx, keyring, secret_types, order)
            elif row.gateway != order.gateway:  # the sandbox came back at another port
                row = await set_gateway(tx, row.id, order.gateway)
            opened[order.channel] = row.id
    return opened


async def open_shop(
    db: Db,
    keyring: Keyring,
    licence: Licence,
    accounts: Mapping[str, UUID],
    *,
    name: str,
    late_success: LateSuccess = LateSuccess.REFUND,
    bank_number: str = "6222020200112233445",
    fees: Sequence[PriceLine] = SHOP_FEES,
) -> Shop:
    """Open a merchant with prices, channels and an API key that may do everything."""
    async with db.begin("operator") as tx:
        merchant = await open_merchant(
            tx,
            keyring,
            name=name,
            bank_account=BankAccount(name, Secret(bank_number)),
            late_success=late_success,
        )
        await set_price_plan(tx, merchant.id, Mode.SANDBOX, _fees(licence, fees))
        for channel in sorted({line.channel for line in fees} & accounts.keys()):
            await connect_channel(tx, merchant.id, Mode.SANDBOX, channel, accounts[channel])
        return await _with_key(tx, keyring, licence, merchant)


def _fees(licence: Licence, fees: Sequence[PriceLine]) -> list[PriceLine]:
    return [line for line in fees if line.channel != "wallet" or licence.may_hold_funds]


async def _with_key(tx: Tx, keyring: Keyring, licence: Licence, merchant: Merchant) -> Shop:
    key = await create_key(
        tx,
        keyring,
        merchant.id,
        Mode.SANDBOX,
        licence=licence,
        name="shop program",
        scopes=list(scopes_under(licence)),
    )
    return Shop(merchant, show("key", key.key.id), key.secret)
