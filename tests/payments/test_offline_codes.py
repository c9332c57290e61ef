"""A payment by a code that a phone has made without network, from the phone to the merchant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stage import Stage, new_number
from tongbao_sdk import Refused
from tongbao_sdk.offline_codes import OfflineWallet


async def phone_of(stage: Stage, balance: int = 10_000) -> tuple[str, OfflineWallet, str]:
    """A wallet with money, a phone that has its key, and the key's id."""
    wallets = stage.client.wallets
    wallet = await stage.call(wallets.open, holder_name="张三")
    await stage.call(wallets.top_up, wallet["id"], amount=balance)
    key = await stage.call(wallets.give_offline_key, wallet["id"], device_name="phone")
    return wallet["id"], OfflineWallet(key), key["id"]


async def charge(stage: Stage, code: str, **more: Any) -> Any:
    asked = {"merchant_order_no": new_number(), "amount": 500, "subject": "tea", **more}
    method = {"mode": "payment_code", "auth_code": code}
    return await stage.call(stage.client.payments.create, **asked, method=method)


async def test_a_phone_without_network_pays_and_gets_its_money_back(stage: Stage) -> None:
    wallet_id, phone, _ = await phone_of(stage)

    payment = await charge(stage, phone.code())
    await stage.refund(payment, 500)

    assert (payment["status"], payment["method"]["channel"]) == ("succeeded", "wallet")
    assert (await stage.call(stage.client.wallets.get, wallet_id))["balance"] == 10_000
    assert await stage.events(payment) == ["payment.succeeded"]


async def test_the_same_order_gets_its_payment_and_another_order_nothing(stage: Stage) -> None:
    wallet_id, phone, key_id = await phone_of(stage)
    code, order = phone.code(), new_number()

    first = await charge(stage, code, merchant_order_no=order)
    again = await charge(stage, code, merchant_order_no=order)
    with pytest.raises(Refused) as refused:
        await charge(stage, code)
    await stage.call(stage.client.wallets.revoke_offline_key, key_id)
    after_all = await charge(stage, code, merchant_order_no=order)

    assert first["id"] == again["id"] == after_all["id"]
    assert refused.value.code == "wallet.code_used_or_expired"
    assert (await stage.call(stage.client.wallets.get, wallet_id))["balance"] == 9_500


async def test_a_revoked_phone_is_told_from_a_wrong_code(stage: Stage) -> None:
    _, phone, key_id = await phone_of(stage)
    await stage.call(stage.client.wallets.revoke_offline_key, key_id)

    right = phone.code()
    told = []
    for code in (right, right[:-1] + str((int(right[-1]) + 1) % 10)):
        with pytest.raises(Refused) as refused:
            await charge(stage, code)
        told.append(refused.value.code)

    assert told == ["offline_key.stopped", "wallet.code_used_or_expired"]


async def test_too_much_for_a_phone_without_network_is_a_failed_payment(stage: Stage) -> None:
    wallet_id, phone, _ = await phone_of(stage, balance=100_000)

    payment = await charge(stage, phone.code(), amount=20_001)

    assert payment["status"] == "failed"
    assert payment["failure"]["code"] == "offline_key.limit_exceeded"
    assert payment["failure"]["message_zh"]
    assert (await stage.call(stage.client.wallets.get, wallet_id))["balance"] == 100_000
