"""Payouts from the merchant's account at Alipay to a person's (单笔转账)."""

from __future__ import annotations

from typing import Any, Final, assert_never

import msgspec
from msgspec import Struct

from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.gateway import Answered, Gateway, Refused, gateway_address
from tongbao.rails.channels.alipay.wire import CURRENCY, moment, yuan
from tongbao.rails.channels.capabilities.transfers import (
    TransferOrder,
    TransferOutcome,
    TransferQueryOutcome,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import decode, followed_by, unsent

PRODUCT: Final = "TRANS_ACCOUNT_NO_PWD"
SCENE: Final = "DIRECT_TRANSFER"
TITLE_MAX: Final = 128

_ERRORS: Final = error_map("alipay")
_UNDER_WAY: Final = frozenset({"DEALING", "WAIT_PAY", "INIT", "APPLIED"})


class _Transfer(Struct, frozen=True):
    """A payout in the answers to both calls; only a query knows the amount."""

    out_biz_no: str = ""
    order_id: str = ""
    status: str = ""
    trans_date: str = ""
    pay_date: str = ""
    trans_amount: str | float = ""
    error_code: str = ""
    fail_reason: str = ""


class AlipayTransfers:
    """What `Alipay` can do about payouts; see `capabilities.transfers.Transferring`."""

    _gateway: Gateway

    async def transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferOutcome]:
        """Pay out. A refusal is believed only when Alipay then knows nothing of the number."""
        if order.money.currency != CURRENCY:
            reason = f"Alipay does not pay out {order.money.currency}"
            return Answer(NotSent(reason), unsent("POST", gateway_address(account), reason))
        heard, exchange = await self._gateway.call(
            account, "alipay.fund.trans.uni.transfer", _content(order), hidden=_hidden(order)
        )
        match heard:
            case Answered():
                outcome = _read(heard.node, order, is_query=False)
                if isinstance(outcome, Closed):
                    outcome = Declined(outcome.code)
                return Answer(outcome, exchange)
            case Refused():
                entry = _ERRORS.find("transfer", heard.sub_code, heard.code)
                meant = answers.meant(entry, heard)
                if isinstance(meant, Declined):
                    return await self._ask_again(account, order, meant, exchange)
                return Answer(meant, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def query_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Ask what became of it."""
        question = {
            "product_code": PRODUCT,
            "biz_scene": order.scene or SCENE,
            "out_biz_no": order.number,
        }
        heard, exchange = await self._gateway.call(
            account, "alipay.fund.trans.common.query", question, hidden=_hidden(order)
        )
        found = answers.read_or_absent(
            heard, "query_transfer", lambda node: _read(node, order, is_query=True)
        )
        return Answer(found, exchange)

    async def _ask_again(
        self,
        account: ChannelAccount,
        order: TransferOrder,
        declined: Declined,
        exchange: Exchange,
    ) -> Answer[TransferOutcome]:
        asked = await self.query_transfer(account, order)
        both = followed_by(exchange, asked.exchange)
        match asked.outcome:
            case Absent() | Closed() | Declined():
                return Answer(declined, both)
            case Succeeded() | Pending() | Unknown():
                return Answer(asked.outcome, both)
            case _:
                assert_never(asked.outcome)


def _content(order: TransferOrder) -> dict[str, Any]:
    payee = {"identity": order.payee, "identity_type": order.payee_kind}
    if order.payee_name:
        payee["name"] = order.payee_name
    content: dict[str, Any] = {
        "out_biz_no": order.number,
        "trans_amount": order.money.decimal_text(),
        "product_code": PRODUCT,
        "biz_scene": order.scene or SCENE,
        "order_title": order.title[:TITLE_MAX],
        "payee_info": payee,
    }
    notes = dict(order.notes)
    if remark := notes.pop("remark", ""):
        content["remark"] = remark
    if notes:
        content["business_params"] = msgspec.json.encode(notes).decode()
    return content


def _hidden(order: TransferOrder) -> tuple[str, ...]:
    """Return what identifies a person: the name, and a login, which is a phone or a mailbox."""
    login = order.payee if order.payee_kind == "ALIPAY_LOGON_ID" else ""
    return tuple(text for text in (order.payee_name, login) if text)


def _read(
    node: bytes, order: TransferOrder, *, is_query: bool
) -> Succeeded | Pending | Declined | Closed | Unknown:
    found = decode(node, _Transfer)
    if found is None or found.out_biz_no != order.number:
        return Unknown("the answer is about another payout")
    if is_query and yuan(str(found.trans_amount)) != order.money:
        return Unknown("contradiction: it is of another amount")
    return _stands(found, order)


def _stands(
    found: _Transfer, order: TransferOrder
) -> Succeeded | Pending | Declined | Closed | Unknown:
    at = moment(found.pay_date or found.trans_date)
    match found.status:
        case "SUCCESS" if found.order_id and at is not None:
            return Succeeded(found.order_id, order.money, at)
        case status if status in _UNDER_WAY:
            return Pending(reason=status)
        case "FAIL" | "REFUND":  # REFUND: the payee's bank sent it back
            return Declined(found.error_code or found.status, found.fail_reason[:256])
        case "CLOSED":
            return Closed("CLOSED")
        case status:
            return Unknown(f"status {status[:32] or 'missing'}")
