"""What batch transfers are, and what a channel's word does to one of them. No I/O.

    batch   listed ─► running ─► done
              └─► dropped
    item    listed ─► held ─► pending ◄─► unknown ─► succeeded ─► returned
              └─► refused        └──────────────────► failed

An item's number at the channel is its id: it is instructed and asked about under that only.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, assert_never
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Succeeded,
    Unknown,
)

CODE_MAX: Final = 64
REVERSED: Final = "REVERSED"
CAME_BACK: Final = frozenset({"REFUND", REVERSED})
"""What Alipay and a bank's notice say of money that was paid and then sent back."""


class Destination(StrEnum):
    """Where a transfer goes."""

    BANK = "bank"
    WALLET = "wallet"
    WECHAT_PAY = "wechat_pay"
    ALIPAY = "alipay"


class TransferBatchState(StrEnum):
    """How far a batch is."""

    LISTED = "listed"
    RUNNING = "running"
    DONE = "done"
    DROPPED = "dropped"


class TransferState(StrEnum):
    """Where one transfer stands; the last four are ends."""

    LISTED = "listed"
    HELD = "held"
    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"  # the merchant's balance did not cover it; nothing was held
    RETURNED = "returned"

    @property
    def is_open(self) -> bool:
        """Whether the money may still go out."""
        return self in {TransferState.HELD, TransferState.PENDING, TransferState.UNKNOWN}


class TransferBatch(Struct, frozen=True):
    """One row of the transfer_batch table."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    number: str
    digest: bytes
    currency: str
    count: int
    amount: int
    state: TransferBatchState
    created_by: str
    created_at: datetime
    ended_at: datetime | None


class TransferItem(Struct, frozen=True):
    """One row of the transfer_item table; who is paid is sealed."""

    book: int
    id: UUID
    batch_id: UUID
    merchant_id: UUID
    mode: Mode
    line: int
    number: str
    destination: Destination
    payee_masked: str
    payee_sealed: bytes
    amount: int
    currency: str
    note: str
    state: TransferState
    account_id: UUID | None
    code: str | None
    channel_ref: str | None
    action: dict[str, Any] | None
    sends: int
    queries: int
    version: int
    ended_at: datetime | None

    @property
    def money(self) -> Money:
        """What is paid."""
        return Money(self.amount, self.currency)

    @property
    def channel_number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)

    def __repr__(self) -> str:
        return f"TransferItem({self.channel_number}, {self.state}, {self.amount} {self.currency})"


class Payee(Struct, frozen=True):
    """Who is paid, as it is sealed: the account there, its holder, and the bank's number."""

    account: str
    name: str = ""
    bank: str = ""


class CountOfState(Struct, frozen=True):
    """How many items of a batch are in a state, and what they come to."""

    state: TransferState
    count: int
    amount: int


TransferNews = Succeeded | Pending | Declined | NotSent | Unknown | Closed | Absent
"""Anything a channel can say about a transfer."""
Rule = Literal["transfer.succeeded", "transfer.failed", "transfer.returned"]


class TransferStep(Struct, frozen=True):
    """What news does to a transfer: the row as it becomes, and the rule that books it."""

    item: TransferItem
    rule: Rule | None = None


def next_step(item: TransferItem, news: TransferNews, now: datetime) -> TransferStep | None:
    """Return what the news changes, or None when it is no news.

    Only the channel's own word ends a transfer. After a success only its word that the money came
    back counts.
    """
    if item.state is TransferState.SUCCEEDED:
        if isinstance(news, Declined) and news.code in CAME_BACK:
            after = replace(item, state=TransferState.RETURNED, code=news.code, ended_at=now)
            return TransferStep(after, "transfer.returned")
        return None
    return _of_open(item, news, now) if item.state.is_open else None


def _of_open(item: TransferItem, news: TransferNews, now: datetime) -> TransferStep | None:
    step: TransferStep | None = None  # where nothing happened by this call, another may follow
    match news:
        case Succeeded() if news.money == item.money:
            done = replace(
                item,
                state=TransferState.SUCCEEDED,
                code=None,
                action=None,
                channel_ref=news.channel_ref,
                ended_at=now,
            )
            step = TransferStep(done, "transfer.succeeded")
        case Declined(code=code) | Closed(code=code):
            step = _failed(item, code, now)
        case NotSent(reason=reason):
            if item.sends <= 1 and item.state is TransferState.HELD:
                step = _failed(item, f"not_sent: {reason}", now)
        case Pending() | Unknown() | Succeeded():
            step = _open(item, news)
        case Absent():
            pass
        case _:
            assert_never(news)
    return step


def _failed(item: TransferItem, code: str, now: datetime) -> TransferStep:
    after = replace(
        item, state=TransferState.FAILED, code=code[:CODE_MAX], action=None, ended_at=now
    )
    return TransferStep(after, "transfer.failed")


def _open(item: TransferItem, news: Pending | Unknown | Succeeded) -> TransferStep | None:
    if isinstance(news, Pending):
        action = news.action.parameters if isinstance(news.action, OpenApp) else item.action
        after = replace(item, state=TransferState.PENDING, action=dict(action) if action else None,
                        code=news.reason[:CODE_MAX] or None)  # fmt: skip
    else:
        reason = news.reason if isinstance(news, Unknown) else "another amount"
        if item.state is TransferState.PENDING:
            return None
        after = replace(item, state=TransferState.UNKNOWN, code=reason[:CODE_MAX] or None)
    return None if after == item else TransferStep(after)


class TransferItemView(Struct, frozen=True, omit_defaults=True):
    """One transfer as the API and the webhooks show it."""

    id: str
    object: Literal["transfer"]
    batch_id: str
    line: int
    number: str
    destination: Destination
    payee: str
    amount: int
    currency: str
    note: str
    status: TransferState
    code: str | UnsetType = UNSET
    channel_reference: str | UnsetType = UNSET
    next_action: dict[str, Any] | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class TransferBatchView(Struct, frozen=True, omit_defaults=True):
    """A batch as the API shows it; ``progress`` counts its transfers by status."""

    id: str
    object: Literal["transfer_batch"]
    mode: Mode
    number: str
    currency: str
    count: int
    amount: int
    status: TransferBatchState
    progress: dict[str, int]
    created_at: datetime
    ended_at: datetime | UnsetType = UNSET


class TransferEnded(Event, frozen=True, kw_only=True, tag="transfer.ended"):
    """A transfer of a batch succeeded, failed, was refused or came back."""

    object: TransferItemView


def view_item(item: TransferItem) -> TransferItemView:
    """Return a transfer as the API shows it."""
    return TransferItemView(
        id=show("tri", item.id),
        object="transfer",
        batch_id=show("trb", item.batch_id),
        line=item.line,
        number=item.number,
        destination=item.destination,
        payee=item.payee_masked,
        amount=item.amount,
        currency=item.currency,
        note=item.note,
        status=item.state,
        code=item.code or UNSET,
        channel_reference=item.channel_ref or UNSET,
        next_action=item.action or UNSET,
        ended_at=item.ended_at or UNSET,
    )


def view_batch(batch: TransferBatch, counts: list[CountOfState]) -> TransferBatchView:
    """Return a batch as the API shows it."""
    return TransferBatchView(
        id=show("trb", batch.id),
        object="transfer_batch",
        mode=batch.mode,
        number=batch.number,
        currency=batch.currency,
        count=batch.count,
        amount=batch.amount,
        status=batch.state,
        progress={each.state.value: each.count for each in counts},
        created_at=batch.created_at,
        ended_at=batch.ended_at or UNSET,
    )


class TransferBatchNotFound(NotFound):
    """The caller has no such batch."""

    code = "transfer_batch.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查批次标识，并确认 API 密钥属于同一商户与模式。"


class TransferNumberTaken(Conflict):
    """The merchant's number stands for another file already."""

    code = "transfer_batch.number_taken"
    advice = "Use a new number for another file; the same file under the same number is no repeat."
    advice_zh = "该批次号已用于内容不同的文件，请使用新的批次号。"


class TransferBatchMoved(Conflict):
    """The batch is in another state than this needs, or was changed since."""

    code = "transfer_batch.moved"
    advice = "Look at the batch again; it may be running or given up."
    advice_zh = "批次状态已变更，请重新查看。"


class TransferBalanceTooLow(Rejected):
    """The merchant's balance does not cover the whole batch."""

    code = "transfer_batch.balance_too_low"
    advice = "Wait for more money, or send a smaller file."
    advice_zh = "商户余额不足以覆盖整个批次，请补足余额或拆分文件。"


class TransferNotFound(NotFound):
    """The caller has no such transfer."""

    code = "transfer.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查转账标识，并确认 API 密钥属于同一商户与模式。"


class TransferNotTakenBack(Conflict):
    """The transfer is not waiting for its payee, or goes a way on which nothing is taken back."""

    code = "transfer.not_taken_back"
    advice = "Only what waits for its payee's word can be taken back; look at its status."
    advice_zh = "仅等待收款人确认的转账可以撤回，请查看其状态。"


class TransferFileMalformed(Invalid):
    """The file as a whole cannot be read."""

    code = "transfer_file.malformed"
    advice = "Send UTF-8 CSV with the columns the API reference names, at most 5 000 rows and 2 MB."
    advice_zh = "请上传 UTF-8 编码的 CSV，列名须与文档一致，最多 5000 行、2 MB。"


class TransferContended(Busy):
    """Others kept changing the transfer while this was being decided."""

    code = "transfer.contended"
    advice = "Nothing to do: the transfer is looked at again soon."
    advice_zh = "无需处理，系统稍后会再次处理该笔转账。"
