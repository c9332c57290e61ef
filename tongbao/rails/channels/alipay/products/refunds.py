"""Refunds at Alipay, and the shares that come back with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never

from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.gateway import Answered, Gateway, Refused
from tongbao.rails.channels.alipay.wire import refund_content, refund_question, share_back
from tongbao.rails.channels.capabilities.shares import SplitReturn
from tongbao.rails.channels.contract.orders import ChannelAccount, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Exchange,
    NotSent,
    Pending,
    RefundOutcome,
    RefundQueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import followed_by

_ERRORS: Final = error_map("alipay")


class AlipayRefunds:
    """What `Alipay` can do about money that goes back."""

    _gateway: Gateway

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back; only ``fund_change=Y`` says that this call did, so else it asks."""
        return await self._send_refund(account, refund, refund_content(refund))

    async def refund_with_shares(
        self, account: ChannelAccount, refund: RefundOrder, backs: Sequence[SplitReturn]
    ) -> Answer[RefundOutcome]:
        """Give money back and take these shares back from their receivers, as one.

        Each of ``backs`` bears the refund's number; what became of it, `query_split_return` asks.
        """
        shares = [share_back(back, account.merchant_number) for back in backs]
        content = {**refund_content(refund), "refund_royalty_parameters": shares}
        return await self._send_refund(account, refund, content)

    async def _send_refund(
        self, account: ChannelAccount, refund: RefundOrder, content: Mapping[str, Any]
    ) -> Answer[RefundOutcome]:
        heard, exchange = await self._gateway.call(account, "alipay.trade.refund", content)
        match heard:
            case Answered():
                outcome = answers.refunded(heard.node, refund)
                if outcome is not None:
                    return Answer(outcome, exchange)
                undecided = Unknown("no money moved by this call, and no such refund found")
                return await self._ask_refund(account, refund, exchange, absent=undecided)
            case Refused():
                entry = _ERRORS.find("refund", heard.sub_code, heard.code)
                if not entry.ask:
                    return Answer(answers.meant(entry, heard), exchange)
                return await self._ask_refund(
                    account, refund, exchange, absent=answers.meant(entry, heard)
                )
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""
        heard, exchange = await self._gateway.call(
            account, "alipay.trade.fastpay.refund.query", refund_question(refund)
        )
        match heard:
            case Answered():
                return Answer(answers.found(heard.node, refund, self._gateway.now()), exchange)
            case Refused():
                entry = _ERRORS.find("query_refund", heard.sub_code, heard.code)
                if entry.meaning == "absent":
                    return Answer(Absent(heard.shown_code), exchange)
                return Answer(Unknown(f"refund query refused: {heard.shown_code}"), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    async def _ask_refund(
        self,
        account: ChannelAccount,
        refund: RefundOrder,
        exchange: Exchange,
        *,
        absent: Pending | Declined | NotSent | Unknown,
    ) -> Answer[RefundOutcome]:
        """Ask about a refund whose first answer decides nothing."""
        asked = await self.query_refund(account, refund)
        both = followed_by(exchange, asked.exchange)
        match asked.outcome:
            case Absent():
                return Answer(absent, both)
            case Succeeded() | Pending() | Declined() | Unknown():
                return Answer(asked.outcome, both)
            case _:
                assert_never(asked.outcome)
