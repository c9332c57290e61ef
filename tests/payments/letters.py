"""Callbacks written by hand with the institution's own keys: what no scripted fault would send."""

from __future__ import annotations

import asyncio
from typing import Any, Self
from uuid import uuid4

import httpx2
import msgspec

from tests.stage import Stage
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao_sandbox.alipay_crypto import load_private_key, signed_notify
from tongbao_sandbox.credentials import KEPT, SHOWN
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sandbox.seam import Keys
from tongbao_sandbox.unionpay_crypto import Signer
from tongbao_sandbox.unionpay_crypto import signed as signed_form
from tongbao_sandbox.unionpay_qra import document
from tongbao_sandbox.wechat_crypto import Vault

AT = "2026-11-21T12:00:00+08:00"
Letter = tuple[dict[str, str], bytes]


class Institution:
    """Signs as the sandbox's channels do, whatever the letter says."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        shown = msgspec.json.decode((sandbox.data_dir / SHOWN).read_bytes())
        kept = msgspec.json.decode((sandbox.data_dir / KEPT).read_bytes())
        self._vault = Vault(Keys(shown=shown["wechat"], kept=kept["wechat"]))
        self._alipay_key = load_private_key(kept["alipay"]["private_key_pem"])
        self._stranger = load_private_key(kept["alipay"]["forger_private_key_pem"])
        self._shown, self._kept = shown, kept

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
            return self.sealed(content, "transaction", "TRANSACTION.SUCCESS", variant)
        if account.channel == "unionpay":
            return self._unionpay(number, money, ref, merchant, app_id, variant)
        if account.channel == "unionpay_qra":
            return self._qra(number, money, ref, merchant, variant)
        return self._alipay(
            {
                "notify_type": "trade_status_sync",
                "seller_id": merchant,
                "trade_no": ref,
                "out_trade_no": number,
                "buyer_id": "2088722000000001",
                "trade_status": "WAIT_BUYER_PAY" if waiting else "TRADE_SUCCESS",
                "total_amount": money.decimal_text(),
                **({} if waiting else {"gmt_payment": "2026-11-21 12:00:00"}),
            },
            app,
            variant,
        )

    def _unionpay(
        self,
        number: str,
        money: Money,
        ref: str,
        merchant: str,
        app_id: str | None,
        variant: str,
        **changes: str,
    ) -> Letter:
        """UnionPay tells of successes only, so its old news is the same news told anew."""
        fields = {
            "version": "5.1.0",
            "encoding": "UTF-8",
            "bizType": app_id or "000000",
            "accessType": "0",
            "merId": merchant,
            "orderId": number,
            "txnType": "01",
            "txnSubType": "07",
            "txnTime": "20261121115930",
            "txnAmt": str(money.amount),
            "currencyCode": "156",
            "queryId": ref,
            "traceNo": ref[-7:-1],
            "traceTime": "1121120000",
            "settleDate": "1121",
            "respCode": "00",
            "respMsg": "success",
            "reqReserved": uuid4().hex,
            **changes,
        }
        kept, who = self._kept["unionpay"], "signer" if variant == "genuine" else "forger"
        signer = Signer(kept[f"{who}_private_key_pem"], kept[f"{who}_certificate_pem"])
        form = httpx2.QueryParams(signed_form(fields, "01", key="", signer=signer))
        headers = {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"}
        return headers, str(form).encode()

    def held(
        self,
        account: ChannelAccount,
        number: str,
        money: Money,
        *,
        ref: str | None = None,
        mchid: str | None = None,
        variant: str = "genuine",
        is_taken: bool = False,
    ) -> Letter:
        """UnionPay's letter that so much was set aside, or that so much of it was collected."""
        merchant, ref = mchid or account.merchant_number, ref or uuid4().hex[:28]
        kind = ("03", "00") if is_taken else ("02", "05")
        changes = dict(zip(("txnType", "txnSubType"), kind, strict=True))
        return self._unionpay(number, money, ref, merchant, None, variant, **changes)

    def _qra(self, number: str, money: Money, ref: str, merchant: str, variant: str) -> Letter:
        """Qra, too, tells of successes only."""
        fields = {
            "version": "2.0",
            "charset": "UTF-8",
            "sign_type": "MD5",
            "status": "0",
            "result_code": "0",
            "pay_result": "0",
            "mch_id": merchant,
            "out_trade_no": number,
            "total_fee": str(money.amount),
            "fee_type": "CNY",
            "trade_type": "pay.unionpay.native",
            "transaction_id": ref,
            "time_end": "20261121120000",
            "nonce_str": uuid4().hex,
        }
        key = self._shown["unionpay_qra"]["secure_key"]
        if variant != "genuine":
            key = self._kept["unionpay_qra"]["forger_key"]
        return {"Content-Type": "text/xml;charset=UTF-8"}, document(key, fields)

    def refunded(
        self,
        account: ChannelAccount,
        order: tuple[str, str, Money],
        number: str,
        money: Money,
        *,
        ref: str | None = None,
        mchid: str | None = None,
        variant: str = "genuine",
    ) -> Letter:
        """A letter that says so much went back of an order: our number, theirs, what was paid."""
        paid_number, paid_ref, paid = order
        merchant, ref = mchid or account.merchant_number, ref or uuid4().hex[:28]
        if account.channel == "unionpay":
            changes = {"txnType": "04", "txnSubType": "00", "origQryId": paid_ref}
            return self._unionpay(number, money, ref, merchant, None, variant, **changes)
        if account.channel == "wechat_pay":
            content = {
                "mchid": merchant,
                "out_trade_no": paid_number,
                "transaction_id": paid_ref,
                "out_refund_no": number,
                "refund_id": ref,
                "refund_status": "SUCCESS",
                "success_time": AT,
                "user_received_account": "支付用户零钱",
                "amount": {"total": paid.amount, "refund": money.amount},
            }
            return self.sealed(content, "refund", "REFUND.SUCCESS", variant)
        return self._alipay(
            {
                "notify_type": "trade_status_sync",
                "seller_id": merchant,
                "trade_no": paid_ref,
                "out_trade_no": paid_number,
                "out_biz_no": number,
                "trade_status": "TRADE_SUCCESS",
                "total_amount": paid.decimal_text(),
                "refund_fee": money.decimal_text(),
                "gmt_payment": "2026-11-21 12:00:00",
                "gmt_refund": "2026-11-21 12:00:01.000",
            },
            account.app_id,
            variant,
        )

    def transferred(
        self,
        account: ChannelAccount,
        number: str,
        money: Money,
        *,
        waiting: bool = False,
        mchid: str | None = None,
        variant: str = "genuine",
    ) -> Letter:
        """A letter that says a transfer has reached its payee, or (``waiting``) not yet."""
        if account.channel == "wechat_pay":
            content = {
                "mchid": mchid or account.merchant_number,
                "out_bill_no": number,
                "transfer_bill_no": "1330000071100999991182020050700019480001",
                "state": "WAIT_USER_CONFIRM" if waiting else "SUCCESS",
                "transfer_amount": money.amount,
                "create_time": AT,
                "update_time": AT,
            }
            return self.sealed(content, "mch_payment", "MCHTRANSFER.BILL.FINISHED", variant)
        content = {
            "out_biz_no": number,
            "status": "DEALING" if waiting else "SUCCESS",
            "trans_amount": money.decimal_text(),
            "product_code": "TRANS_ACCOUNT_NO_PWD",
        }
        return self._alipay(
            {
                "msg_method": "alipay.fund.trans.order.changed",
                "biz_content": msgspec.json.encode(content).decode(),
            },
            "another" if mchid else account.app_id,
            variant,
        )

    def agreed(
        self,
        account: ChannelAccount,
        number: str,
        *,
        ended: bool = False,
        mchid: str | None = None,
        app_id: str | None = None,
        variant: str = "genuine",
    ) -> Letter:
        """A letter that says an agreement is signed, or (``ended``) signed no more."""
        if account.channel == "wechat_pay":
            content = {
                "mchid": mchid or account.merchant_number,
                "appid": app_id or account.app_id,
                "out_contract_code": number,
                "contract_id": "123124412412423431",
                "contract_state": "TERMINATED" if ended else "SIGNED",
                "openid": "o-someone",
            }
            event = "ENTRUST.TERMINATE" if ended else "ENTRUST.SIGN"
            return self.sealed(content, "entrust", event, variant)
        return self._alipay(
            {
                "notify_type": "dut_user_unsign" if ended else "dut_user_sign",
                "external_agreement_no": number,
                "agreement_no": "20265322001234567890",
                "status": "UNSIGN" if ended else "NORMAL",
            },
            app_id or ("another" if mchid else account.app_id),
            variant,
        )

    def _alipay(self, fields: dict[str, str], app_id: str, variant: str) -> Letter:
        told = {
            "notify_id": uuid4().hex,
            "notify_time": "2026-11-21 12:00:01",
            "app_id": app_id,
            "charset": "utf-8",
            "version": "1.0",
            **fields,
        }
        key = self._alipay_key if variant == "genuine" else self._stranger
        form = str(httpx2.QueryParams(signed_notify(key, told)))
        return {"Content-Type": "application/x-www-form-urlencoded"}, form.encode()

    def sealed(
        self, content: dict[str, Any], kind: str, event: str, variant: str = "genuine"
    ) -> Letter:
        """WeChat Pay's letter about anything."""
        sealed = self._vault.seal(msgspec.json.encode(content), kind)
        body = msgspec.json.encode(
            {
                "id": uuid4().hex,
                "create_time": AT,
                "resource_type": "encrypt-resource",
                "event_type": event,
                "summary": "通知",
                "resource": {"original_type": kind, **sealed},
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
