"""Shares of a payment at Alipay (分账): relations, settling, asking, and what comes back.

A split is addressed by its trade and its own number together, so its reference is the trade's
number. It is asked for asynchronously: the answer only says that it was accepted. A share comes
back only within a refund (`AlipayRefunds.refund_with_shares`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, assert_never

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.gateway import Answered, Gateway, Refused, gateway_address
from tongbao.rails.channels.alipay.wire import CURRENCY, REASON_MAX, moment, yuan
from tongbao.rails.channels.capabilities.shares import (
    Receiver,
    Share,
    ShareResult,
    SplitDone,
    SplitOrder,
    SplitOutcome,
    SplitQueryOutcome,
    SplitReturn,
    SplitUnderWay,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import decode, unsent

SETTLE: Final = "alipay.trade.order.settle"

_ERRORS: Final = error_map("alipay")
_BIND: Final = "alipay.trade.royalty.relation.bind"
_UNBIND: Final = "alipay.trade.royalty.relation.unbind"
_STATES: Final[Mapping[str, Literal["pending", "succeeded", "failed"]]] = {
    "SUCCESS": "succeeded",
    "FAIL": "failed",
    "PROCESSING": "pending",
    "WAITING": "pending",
}
_NONE: Final = Money(0, CURRENCY)


class _Related(Struct, frozen=True):
    result_code: str = ""


class _Accepted(Struct, frozen=True):
    trade_no: str = ""


class _Detail(Struct, frozen=True):
    operation_type: str = ""
    trans_in: str = ""
    amount: str | float = ""
    state: str = ""
    detail_id: str = ""
    error_code: str = ""


class _Found(Struct, frozen=True):
    out_request_no: str = ""
    royalty_detail_list: Sequence[_Detail] = ()


class _Back(Struct, frozen=True):
    trans_out: str = ""
    refund_amount: str | float = ""
    result_code: str = ""


class _Backs(Struct, frozen=True):
    out_request_no: str = ""
    trade_no: str = ""
    gmt_refund_pay: str = ""
    refund_royaltys: Sequence[_Back] = ()


class AlipaySplits:
    """What `Alipay` can do about shares; see `capabilities.shares.Splitting`."""

    _gateway: Gateway

    async def add_receiver(self, account: ChannelAccount, receiver: Receiver) -> Answer[Outcome]:
        """Bind a receiver to the merchant, which Alipay wants before the first share."""
        return await self._relate(account, receiver, _BIND)

    async def remove_receiver(self, account: ChannelAccount, receiver: Receiver) -> Answer[Outcome]:
        """Let Alipay forget the relation."""
        return await self._relate(account, receiver, _UNBIND)

    async def split(self, account: ChannelAccount, split: SplitOrder) -> Answer[SplitOutcome]:
        """Have the shares given away; `SplitUnderWay` says that this was accepted."""
        if not split.shares:
            reason = "there is no share to give"
            return Answer(NotSent(reason), unsent("POST", gateway_address(account), reason))
        return await self._settle(account, split, split.shares, finishes=split.finishes)

    async def unfreeze(self, account: ChannelAccount, split: SplitOrder) -> Answer[SplitOutcome]:
        """Say that no more shares follow, so that the rest is the merchant's."""
        return await self._settle(account, split, (), finishes=True)

    async def query_split(
        self, account: ChannelAccount, split: SplitOrder
    ) -> Answer[SplitQueryOutcome]:
        """Ask what became of each share."""
        question = {"out_request_no": split.number, "trade_no": split.channel_ref}
        heard, exchange = await self._gateway.call(account, f"{SETTLE}.query", question)
        found = answers.read_or_absent(heard, "query_split", lambda node: _read_shares(node, split))
        return Answer(found, exchange)

    async def return_split(self, account: ChannelAccount, back: SplitReturn) -> Answer[Outcome]:
        """Do nothing: Alipay takes a share back only together with a refund."""
        reason = f"share {back.number}: only together with a refund, `refund_with_shares`"
        return Answer(NotSent(reason), unsent("POST", gateway_address(account), reason))

    async def query_split_return(
        self, account: ChannelAccount, back: SplitReturn
    ) -> Answer[QueryOutcome]:
        """Ask what became of a share that came back within the refund of the same number."""
        question = {
            "trade_no": back.split_ref,
            "out_request_no": back.number,
            "query_options": ["gmt_refund_pay", "refund_royaltys"],
        }
        method = "alipay.trade.fastpay.refund.query"
        heard, exchange = await self._gateway.call(account, method, question)
        found = answers.read_or_absent(heard, "query_refund", lambda node: _read_back(node, back))
        return Answer(found, exchange)

    async def _relate(
        self, account: ChannelAccount, receiver: Receiver, method: str
    ) -> Answer[Outcome]:
        # A number of its own each time: what is bound, forgotten and bound again is no repeat.
        entity = {"type": receiver.kind, "account": receiver.account, "memo": receiver.relation}
        if receiver.name:
            entity["name"] = receiver.name
        heard, exchange = await self._gateway.call(
            account,
            method,
            {"receiver_list": [entity], "out_request_no": secrets.token_hex(16)},
            hidden=_hidden(receiver),
        )
        match heard:
            case Answered():
                related = decode(heard.node, _Related)
                if related is None or related.result_code != "SUCCESS":
                    return Answer(Unknown("the answer does not say SUCCESS"), exchange)
                now = self._gateway.now()
                return Answer(Succeeded(receiver.account, _NONE, now), exchange)
            case Refused():
                entry = _ERRORS.find("split", heard.sub_code, heard.code)
                return Answer(answers.meant(entry, heard), exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def _settle(
        self,
        account: ChannelAccount,
        split: SplitOrder,
        shares: Sequence[Share],
        *,
        finishes: bool,
    ) -> Answer[SplitOutcome]:
        content = {
            "out_request_no": split.number,
            "trade_no": split.channel_ref,
            "royalty_mode": "async",
            "royalty_parameters": [_share(share, account.merchant_number) for share in shares],
            "extend_params": {"royalty_finish": "true" if finishes else "false"},
        }
        heard, exchange = await self._gateway.call(account, SETTLE, content)
        match heard:
            case Answered():
                accepted = decode(heard.node, _Accepted)
                if accepted is None or accepted.trade_no != split.channel_ref:
                    return Answer(Unknown("the answer is about another trade"), exchange)
                return Answer(SplitUnderWay(split.channel_ref), exchange)
            case Refused():
                entry = _ERRORS.find("split", heard.sub_code, heard.code)
                meant = answers.meant(entry, heard)
                if isinstance(meant, Pending):
                    return Answer(SplitUnderWay(split.channel_ref), exchange)
                return Answer(meant, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)


def _hidden(receiver: Receiver) -> tuple[str, ...]:
    """Return what identifies a person: the name, and a login, which is a phone or a mailbox."""
    login = receiver.account if receiver.kind == "loginName" else ""
    return tuple(text for text in (receiver.name, login) if text)


def _share(share: Share, seller: str) -> dict[str, Any]:
    return {
        "royalty_type": "transfer",
        "trans_out": seller,
        "trans_out_type": "userId",
        "trans_in": share.receiver.account,
        "trans_in_type": share.receiver.kind,
        "amount": share.money.decimal_text(),
        "desc": share.description[:REASON_MAX],
    }


def _read_shares(
    node: bytes, split: SplitOrder
) -> SplitDone | SplitUnderWay | Declined | Absent | Unknown:
    found = decode(node, _Found)
    if found is None or found.out_request_no not in {"", split.number}:
        return Unknown("the answer is about another split")
    details = [one for one in found.royalty_detail_list if one.operation_type == "transfer"]
    results = [_result(one) for one in details]
    known = [result for result in results if result is not None]
    asked = sorted((share.receiver.account, share.money.amount) for share in split.shares)
    if len(known) != len(results) or asked != sorted(
        (result.account, result.money.amount) for result in known
    ):
        return Unknown("contradiction: the shares are not those we asked for")
    if any(result.state == "pending" for result in known):
        return SplitUnderWay(split.channel_ref, known)
    return SplitDone(split.channel_ref, known)


def _result(detail: _Detail) -> ShareResult | None:
    money, state = yuan(str(detail.amount)), _STATES.get(detail.state)
    if money is None or state is None:
        return None
    return ShareResult(detail.trans_in, money, state, detail.error_code, detail.detail_id)


def _read_back(node: bytes, back: SplitReturn) -> Succeeded | Pending | Declined | Absent | Unknown:
    found = decode(node, _Backs)
    if found is None or found.out_request_no not in {"", back.number}:
        return Unknown("the answer is about another refund")
    ours = [one for one in found.refund_royaltys if one.trans_out == back.receiver.account]
    if not ours:
        return Absent("NO_SHARE")
    [first, *more] = ours
    if more or yuan(str(first.refund_amount)) != back.money:
        return Unknown("contradiction: the share that came back is not the one we asked for")
    at = moment(found.gmt_refund_pay)
    match first.result_code:
        case "SUCCESS" if at is not None:
            return Succeeded(found.trade_no or back.split_ref, back.money, at)
        case "PROCESSING":
            return Pending(reason="PROCESSING")
        case code:
            return Unknown(f"result_code {code[:32] or 'missing'}")
