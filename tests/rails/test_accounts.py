from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.rails.peers import AlipayPeer, WechatPeer
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.crypto import Keyring, SealUnreadable
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.rails.channels._store import AccountState, ChannelAccountRow
from tongbao.rails.channels.accounts import (
    ChannelAccountExists,
    ChannelAccountNotFound,
    ChannelAccounts,
    ChannelKeysMalformed,
    ChannelUnknown,
    GatewayMalformed,
    NewAccount,
    add_account,
    list_accounts,
    open_accounts,
    replace_keys,
    set_state,
)
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets

TYPES = {"wechat_pay": WechatPaySecrets, "alipay": AlipaySecrets}


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.from_file(tmp_path / "file.key")


def opening(**changes: Any) -> NewAccount:
    account = WechatPeer().account("https://api.mch.weixin.qq.com")
    fields: dict[str, Any] = {
        "channel": "wechat_pay",
        "mode": Mode.LIVE,
        "gateway": account.gateway,
        "merchant_number": account.merchant_number,
        "app_id": account.app_id,
        "fee_ppm": 6000,
        "keys": msgspec.to_builtins(account.secrets),
    }
    return NewAccount(**{**fields, **changes})


async def add(db: Db, keyring: Keyring, **changes: Any) -> ChannelAccountRow:
    async with db.begin("operator") as tx:
        return await add_account(tx, keyring, TYPES, opening(**changes))


async def test_an_account_opens_with_the_keys_it_was_given(db: Db, keyring: Keyring) -> None:
    row = await add(db, keyring)
    accounts = ChannelAccounts(db, keyring, TYPES, "https://pay.example/")
    account = await accounts.get(row.id)
    given = WechatPeer().account("https://api.mch.weixin.qq.com")
    assert account.secrets == given.secrets
    assert account.merchant_number == given.merchant_number
    assert account.fee_ppm == 6000
    assert account.notify_url == f"https://pay.example/callbacks/wechat_pay/{row.notify_token}"
    assert await accounts.of_token(row.notify_token) == account
    [entry] = await entries_of_subject(db, show("chn", row.id))
    assert entry.action == "channel_account.added"


@pytest.mark.parametrize("token", ["\0", "a" * 31 + "\0", "", "é" * 32, "a" * 10_000])
async def test_an_address_that_is_none_costs_nobody_else_an_answer(
    db: Db, keyring: Keyring, token: str
) -> None:
    """What is looked up at one moment is looked up together, and anybody may send to an address."""
    row = await add(db, keyring)
    accounts = ChannelAccounts(db, keyring, TYPES, "https://pay.example/")

    unknown, account = await asyncio.gather(
        accounts.of_token(token), accounts.get(row.id), return_exceptions=True
    )

    assert isinstance(unknown, ChannelAccountNotFound)
    assert isinstance(account, ChannelAccount)
    assert account.id == row.id


async def test_keys_are_sealed_and_never_printed(db: Db, keyring: Keyring, tmp_path: Path) -> None:
    row = await add(db, keyring)
    key = WechatPeer.api_v3_key
    assert key.encode() not in row.sealed_secrets
    account = await ChannelAccounts(db, keyring, TYPES, "https://pay.example").get(row.id)
    for shown in (repr(row), repr(account), repr(opening()), str(account), f"{account}"):
        assert key not in shown
        assert "PRIVATE" not in shown
    other = Keyring.from_file(tmp_path / "other.key")
    with pytest.raises(SealUnreadable):
        await ChannelAccounts(db, other, TYPES, "https://pay.example").get(row.id)


async def test_keys_cannot_be_moved_to_another_account(db: Db, keyring: Keyring) -> None:
    one, two = await add(db, keyring), await add(db, keyring, merchant_number="1230000110")
    await db.execute(
        "update channel_account set sealed_secrets = $2 where id = $1",
        (two.id, one.sealed_secrets),
    )
    with pytest.raises(SealUnreadable):
        await ChannelAccounts(db, keyring, TYPES, "https://pay.example").get(two.id)


async def test_one_merchant_number_is_registered_once(db: Db, keyring: Keyring) -> None:
    await add(db, keyring)
    with pytest.raises(ChannelAccountExists):
        await add(db, keyring)
    await add(db, keyring, mode=Mode.SANDBOX)  # the other world is another account
    assert len(await list_accounts(db)) == 2


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"channel": "paypal"}, ChannelUnknown),
        ({"keys": {}}, ChannelKeysMalformed),
        ({"keys": {"api_v3_key": 5}}, ChannelKeysMalformed),
        ({"channel": "alipay"}, ChannelKeysMalformed),
        ({"gateway": "http://api.example"}, GatewayMalformed),
        ({"gateway": "https://api.example/"}, GatewayMalformed),
        ({"gateway": "ftp://api.example", "mode": Mode.SANDBOX}, GatewayMalformed),
    ],
)
async def test_what_cannot_be_an_account_is_refused(
    db: Db, keyring: Keyring, changes: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal) as refused:
        await add(db, keyring, **changes)
    assert WechatPeer.api_v3_key not in str(refused.value)
    assert await list_accounts(db) == []


async def test_keys_are_replaced_under_the_same_account(db: Db, keyring: Keyring) -> None:
    row = await add(db, keyring)
    accounts = ChannelAccounts(db, keyring, TYPES, "https://pay.example")
    await accounts.get(row.id)
    keys = {**opening().keys, "api_v3_key": "n" * 32}
    async with db.begin("operator") as tx:
        await replace_keys(tx, keyring, TYPES, row.id, keys)
    accounts.forget()
    secrets = (await accounts.get(row.id)).secrets
    assert isinstance(secrets, WechatPaySecrets)
    assert secrets.api_v3_key == "n" * 32


async def test_a_closed_account_is_still_asked_and_refunded(db: Db, keyring: Keyring) -> None:
    row = await add(db, keyring)
    async with db.begin("operator") as tx:
        await set_state(tx, row.id, AccountState.CLOSED)
    rows = await list_accounts(db)
    assert open_accounts(rows, Mode.LIVE) == []
    accounts = ChannelAccounts(db, keyring, TYPES, "https://pay.example")
    assert (await accounts.get(row.id)).id == row.id


async def test_nobodys_id_and_token_are_not_found(db: Db, keyring: Keyring) -> None:
    accounts = ChannelAccounts(db, keyring, TYPES, "https://pay.example")
    with pytest.raises(ChannelAccountNotFound):
        await accounts.get(new_id())
    with pytest.raises(ChannelAccountNotFound):
        await accounts.of_token("0" * 32)
    async with db.begin("operator") as tx:
        with pytest.raises(ChannelAccountNotFound):
            await set_state(tx, new_id(), AccountState.CLOSED)
        with pytest.raises(ChannelAccountNotFound):
            await replace_keys(tx, keyring, TYPES, new_id(), {})


async def test_alipay_keys_too(db: Db, keyring: Keyring) -> None:
    given = AlipayPeer().account("https://openapi.alipay.com")
    keys = msgspec.to_builtins(given.secrets)
    row = await add(db, keyring, channel="alipay", gateway=given.gateway, keys=keys)
    account = await ChannelAccounts(db, keyring, TYPES, "https://pay.example").get(row.id)
    assert account.secrets == given.secrets
