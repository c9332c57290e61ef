"""Callbacks written by hand with the institution's own keys: what no scripted fault would send."""

from __future__ import annotations

import asyncio
from typing import Any, Self
from uuid import uuid4

import httpx2
import msgspec

from tests.stage import Stage
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract import ChannelAccount
from tongbao_sandbox.alipay_crypto import load_private_key, signed_notify
from tongbao_sandbox.credentials import KEPT, SHOWN
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sandbox.seam import Keys
from tongbao_sandbox.wechat_crypto import Vault

AT = "2026-11-21T12:00:00+08:00"
Letter = tuple[dict[str, str], bytes]


class Institution:
    """Signs as the sandbox's channels do, whatever the letter says."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        shown = msgspec.json.decode((sandbox.data_dir / SHOWN).read_bytes())
        kept = msgspec.json.decode((sandbox.data_dir / KEPT).read_bytes())
        self._vault = Vault(Keys(shown=shown["wechat"], kept=kept["wechat"]))
        self._alipay = load_private_key(kept["alipay"]["private_key_pem"])
        self._stranger = load_private_key(kept["alipay"]["forger_private_key_pem"])

    def paid(
        self,
        account: ChannelAccount,
        number: str,
        money: Money,
        *,
        ref: str | None = None,
        mchid: str | None = None,
        app_id: str | None = None,
        waiting: bool = False,
        variant: str = "genuine",
    ) -> Letter:
        """A letter that says the order was paid, or (``waiting``) that it was not yet."""
        merchant, app = mchid or account.merchant_number, app_id or account.app_id
        ref = ref or uuid4().hex[:28]
        if account.channel == "wechat_pay":
            content = {
                "mchid": merchant,
                "appid": app,
                "out_trade_no": number,
                "transaction_id": ref,
                "trade_type": "NATIVE",
                "trade_state": "NOTPAY" if waiting else "SUCCESS",
                "success_time": AT,
                "payer": {"openid": "o-someone"},
                "amount": {"total": money.amount, "payer_total": money.amount, "currency": "CNY"},
            }
            return self._wechat(content, variant)
        fields = {
            "notify_type": "trade_status_sync",
            "notify_id": uuid4().hex,
            "notify_time": "2026-11-21 12:00:01",
            "app_id": app,
            "seller_id": merchant,
            "charset": "utf-8",
            "version": "1.0",
            "trade_no": ref,
            "out_trade_no": number,
            "buyer_id": "2088722000000001",
            "trade_status": "WAIT_BUYER_PAY" if waiting else "TRADE_SUCCESS",
            "total_amount": money.decimal_text(),
            **({} if waiting else {"gmt_payment": "2026-11-21 12:00:00"}),
        }
        key = self._alipay if variant == "genuine" else self._stranger
        form = str(httpx2.QueryParams(signed_notify(key, fields)))
        return {"Content-Type": "application/x-www-form-urlencoded"}, form.encode()

    def _wechat(self, content: dict[str, Any], variant: str) -> Letter:
        sealed = self._vault.seal(msgspec.json.encode(content), "transaction")
        body = msgspec.json.encode(
            {
                "id": uuid4().hex,
                "create_time": AT,
                "resource_type": "encrypt-resource",
                "event_type": "TRANSACTION.SUCCESS",
                "summary": "支付成功",
                "resource": {"original_type": "transaction", **sealed},
            }
        )
        headers = dict(self._vault.headers(body, variant=variant))
        return {"Content-Type": "application/json", **headers}, body


class Postman:
    """Delivers letters to our callback addresses."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.institution = Institution(stage.sandbox)
        self._http = httpx2.AsyncClient(trust_env=False, timeout=10)

    async def account(self, channel: str) -> ChannelAccount:
        """Return our account at the channel."""
        return await self._stage.platform.accounts.get(self._stage.accounts[channel])

    async def deliver(self, account: ChannelAccount, letter: Letter) -> httpx2.Response:
        """Post a letter to the account's address."""
        headers, body = letter
        return await self._http.post(account.notify_url, headers=headers, content=body)

    async def tell(self, channel: str, number: str, money: Money, **lies: Any) -> httpx2.Response:
        """Tell that an order was paid, with whatever is to be wrong about it."""
        account = await self.account(channel)
        letter = await asyncio.to_thread(self.institution.paid, account, number, money, **lies)
        return await self.deliver(account, letter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.aclose()


async def states_of_callbacks(stage: Stage, number: str) -> list[str]:
    """Return what became of every stored callback about a number, oldest first."""
    rows = await stage.db.fetch(
        "select state from inbound_callback where number = $1 order by id", (number,)
    )
    return [row["state"] for row in rows]
