"""What payouts are, and what a bank's word does to them. No I/O.

    requested ─► pending ─► succeeded | failed
         └────► unknown ◄─► pending
    succeeded ─► returned        the bank sends the money back, up to days later

A payout is made with the settlement it pays. Its number is the bank's idempotency key: it is
instructed and asked about under that number only, until the bank has said how it ended.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, assert_never
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from tongbao.clearing.settlement_terms.model import PaysBy
from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)

_CODE_MAX: Final = 64


class PayoutState(StrEnum):
    """Where a payout stands; the last three are ends."""

    REQUESTED = "requested"
    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETURNED = "returned"

    @property
    def is_open(self) -> bool:
        """Whether the money may still go out."""
        return self in {PayoutState.REQUESTED, PayoutState.PENDING, PayoutState.UNKNOWN}


class Payout(Struct, frozen=True):
    """One row of the payout table. The bank knows it by `number`.

    The bank account is fixed with the first instruction; ``contradiction`` is evidence that came
    after the end and says otherwise, for people to look at.
    """

    book: int
    id: UUID
    settlement_id: UUID
    merchant_id: UUID
    mode: Mode
    amount: int
    currency: str
    state: PayoutState
    pays_by: PaysBy
    file_id: UUID | None
    account_id: UUID | None
    bank_holder: str | None
    bank_account_masked: str | None
    bank_account_sealed: bytes | None
    code: str | None
    bank_ref: str | None
    return_ref: str | None
    contradiction: str | None
    sends: int
    queries: int
    version: int
    created_at: datetime
    ended_at: datetime | None
    returned_at: datetime | None

    @property
    def number(self) -> str:
        """Our number at the bank, and the idempotency key of every call about it."""
        return base32(self.id)

    @property
    def money(self) -> Money:
        """What is paid out."""
        return Money(self.amount, self.currency)

    def __repr__(self) -> str:
        return f"Payout({self.number}, {self.state}, {self.amount} {self.currency})"


class PayoutExchange(Struct, frozen=True):
    """One row of payout_exchange: what we sent to the bank and what came back."""

    book: int
    id: UUID
    payout_id: UUID
    purpose: Literal["pay_out", "query", "file"]
    method: str
    url: str
    request: str
    status: int | None
    reply: str
    duration_ms: int
    outcome: str
    at: datetime


class Returned(Struct, frozen=True):
    """The bank sent a payment back after it had paid it."""

    return_ref: str
    money: Money
    at: datetime
    reason: str = ""


PayoutNews = Returned | Succeeded | Pending | Declined | NotSent | Unknown | Absent
"""Anything a bank can say about a payout."""


class PayoutStep(Struct, frozen=True):
    """What news does to a payout: the row as it becomes and the rule that books it."""

    payout: Payout
    rule: Literal["payout.paid", "payout.failed", "payout.returned"] | None = None


def next_payout_step(payout: Payout, news: PayoutNews, now: datetime) -> PayoutStep | None:
    """Return what the news changes, or None when it is no news.

    Only the bank's own word ends a payout. What contradicts the end is noted and moves nothing.
    """
    match news:
        case Succeeded():
            return _on_paid(payout, news, now)
        case Declined():
            return _on_refused(payout, news, now)
        case Returned():
            return _on_returned(payout, news, now)
        case Pending() | Unknown():
            return _on_open(payout, news)
        case NotSent() | Absent():
            return None  # nothing happened by this call; another one may follow
        case _:
            assert_never(news)


def _on_paid(payout: Payout, news: Succeeded, now: datetime) -> PayoutStep | None:
    if payout.state in {PayoutState.SUCCEEDED, PayoutState.RETURNED}:
        return None
    if news.money != payout.money:
        return _contradicted(payout, f"the bank paid {news.money.decimal_text()}")
    if payout.state is PayoutState.FAILED:
        return _contradicted(payout, f"paid as {news.channel_ref} after it had failed")
    paid = replace(
        payout,
        state=PayoutState.SUCCEEDED,
        code=None,
        bank_ref=news.channel_ref,
        ended_at=now,
    )
    return PayoutStep(paid, "payout.paid")


def _on_refused(payout: Payout, news: Declined, now: datetime) -> PayoutStep | None:
    if payout.state is PayoutState.FAILED:
        return None
    if payout.state in {PayoutState.SUCCEEDED, PayoutState.RETURNED}:
        return _contradicted(payout, f"refused with {news.code} after it had been paid")
    code = news.code[:_CODE_MAX]
    return PayoutStep(
        replace(payout, state=PayoutState.FAILED, code=code, ended_at=now), "payout.failed"
    )


def _on_returned(payout: Payout, news: Returned, now: datetime) -> PayoutStep | None:
    """A return gives back what was paid. Of what was never paid it is not believed."""
    if payout.state is PayoutState.RETURNED:
        return None
    if news.money != payout.money:
        return _contradicted(payout, f"the bank returned {news.money.decimal_text()}")
    if payout.state is not PayoutState.SUCCEEDED:
        return _contradicted(
            payout, f"returned as {news.return_ref[:_CODE_MAX]} before it was paid"
        )
    returned = replace(
        payout,
        state=PayoutState.RETURNED,
        code=news.reason[:_CODE_MAX] or None,
        return_ref=news.return_ref[:_CODE_MAX],
        returned_at=now,
    )
    return PayoutStep(returned, "payout.returned")


def _on_open(payout: Payout, news: Pending | Unknown) -> PayoutStep | None:
    target = PayoutState.PENDING if isinstance(news, Pending) else PayoutState.UNKNOWN
    learned_more = payout.state is PayoutState.UNKNOWN and target is PayoutState.PENDING
    if payout.state is not PayoutState.REQUESTED and not learned_more:
        return None
    return PayoutStep(replace(payout, state=target, code=news.reason[:_CODE_MAX] or None))


def _contradicted(payout: Payout, detail: str) -> PayoutStep | None:
    if payout.contradiction is not None:
        return None
    return PayoutStep(replace(payout, contradiction=detail))


class PayoutFile(Struct, frozen=True):
    """One row of payout_file: payouts that a bank gets as one file.

    What is in it is fixed by its payouts; ``digest`` is the SHA-256 it comes out with every time.
    """

    id: UUID
    mode: Mode
    account_id: UUID
    layout: Literal["pain001", "csv"]
    currency: str
    count: int
    amount: int
    digest: bytes
    state: Literal["made", "sent", "overdue", "answered"]
    made_by: str
    made_at: datetime
    sent_by: str | None
    sent_at: datetime | None

    @property
    def number(self) -> str:
        """The message id under which the bank knows it."""
        return base32(self.id)


class PayoutView(Struct, frozen=True, omit_defaults=True):
    """A payout as the API and the webhooks show it."""

    id: str
    object: Literal["payout"]
    mode: Mode
    settlement_id: str
    amount: int
    currency: str
    status: PayoutState
    version: int
    created_at: datetime
    bank_account: str | UnsetType = UNSET
    bank_reference: str | UnsetType = UNSET
    failure_code: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    returned_at: datetime | UnsetType = UNSET


class PayoutSucceeded(Event, frozen=True, kw_only=True, tag="payout.succeeded"):
    """The bank paid the merchant."""

    object: PayoutView
    book: int
    settlement: UUID


class PayoutReturned(Event, frozen=True, kw_only=True, tag="payout.returned"):
    """The bank sent the money back; the merchant is owed it again and settled anew."""

    object: PayoutView
    book: int
    settlement: UUID


class PayoutFailed(Event, frozen=True, kw_only=True, tag="payout.failed"):
    """The bank refused to pay the merchant; the money is owed again and settled anew."""

    object: PayoutView
    book: int
    settlement: UUID


def view_payout(payout: Payout) -> PayoutView:
    """Return the payout as the API and the webhooks show it."""
    is_failed = payout.state in {PayoutState.FAILED, PayoutState.RETURNED}
    return PayoutView(
        id=show("pyo", payout.id),
        object="payout",
        mode=payout.mode,
        settlement_id=show("set", payout.settlement_id),
        amount=payout.amount,
        currency=payout.currency,
        status=payout.state,
        version=payout.version,
        created_at=payout.created_at,
        bank_account=payout.bank_account_masked or UNSET,
        bank_reference=payout.bank_ref or UNSET,
        failure_code=payout.code or UNSET if is_failed else UNSET,
        ended_at=payout.ended_at or UNSET,
        returned_at=payout.returned_at or UNSET,
    )


_EVENT_OF: Final = {
    PayoutState.SUCCEEDED: PayoutSucceeded,
    PayoutState.FAILED: PayoutFailed,
    PayoutState.RETURNED: PayoutReturned,
}


def end_event(payout: Payout) -> Event:
    """Return the event that tells of the payout's end."""
    return _EVENT_OF[payout.state](
        merchant_id=payout.merchant_id,
        mode=payout.mode,
        resource_id=show("pyo", payout.id),
        object=view_payout(payout),
        book=payout.book,
        settlement=payout.settlement_id,
    )


class PayoutNotFound(NotFound):
    """The caller has no such payout."""

    code = "payout.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查付款标识，并确认 API 密钥属于同一商户与模式。"


class PayoutFileNotFound(NotFound):
    """There is no such file."""

    code = "payout_file.not_found"
    advice = "List the files to find its id."
    advice_zh = "请通过付款文件列表查找正确的标识。"


class NothingToFile(Rejected):
    """No payout waits for a file, or none whose merchant has a bank account."""

    code = "payout_file.nothing"
    advice = "Nothing to do: payouts by file appear after a settlement."
    advice_zh = "当前没有待出文件的付款。"


class PayoutFileMoved(Conflict):
    """The file is in another state than this needs, or its payouts have changed."""

    code = "payout_file.moved"
    advice = "Look at the file again; it may have been sent or given up."
    advice_zh = "付款文件状态已变更，请重新查看。"


class PayoutFileHeld(Rejected):
    """The file has payouts of merchants whose money stays for now."""

    code = "payout_file.merchant_held"
    advice = "Give the file up and make another one; it leaves these merchants out."
    advice_zh = "文件含资金被冻结转出的商户，请作废后重新生成。"


class AnswerMalformed(Invalid):
    """The bank's file cannot be read, so nothing of it counts."""

    code = "payout_answer.malformed"
    advice = "Bring the whole file as the bank sent it: pain.002, camt.053, camt.054 or the CSV."
    advice_zh = "请提供银行原始文件：pain.002、camt.053、camt.054 或结果 CSV。"


class PayoutContended(Busy):
    """Others kept changing the payout while this was being decided."""

    code = "payout.contended"
    advice = "Nothing to do: the payout is looked at again soon."
    advice_zh = "无需处理，系统稍后会再次处理该笔付款。"
