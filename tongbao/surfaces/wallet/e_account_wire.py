"""What routes of electronic accounts take and show, in their forms on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.infra.web.request import AmountField, CurrencyField
from tongbao.kernel.ids import show
from tongbao.ledger.queries import StatementLine
from tongbao.parties.bound_cards.model import PREFIX as CARD
from tongbao.parties.e_accounts.batches import ORDERS_MAX
from tongbao.parties.e_accounts.model import (
    PREFIX as ACCOUNT,
)
from tongbao.parties.e_accounts.model import (
    WALLET_KINDS,
    EAccount,
    EAccountBatch,
    EAccountOrder,
    EAccountState,
    OrderKind,
    OrderState,
    Progress,
)
from tongbao.parties.e_accounts.queries import shown_reference
from tongbao.parties.vault.model import Number
from tongbao.parties.virtual_cards.model import CardLimits, CardState, VirtualCard

RequestField = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
IdField = Annotated[str, Meta(min_length=1, max_length=64)]


class OpenEAccount(Struct, frozen=True, forbid_unknown_fields=True):
    """Open an account of class 1, 2 or 3."""

    account_class: Annotated[int, Meta(ge=1, le=3)]


class MoveMoney(Struct, frozen=True, forbid_unknown_fields=True):
    """This much, in minor units; ``request_id`` makes a repeat harmless.

    ``card`` is a bank card that is bound. Left out, it is the default one in live mode; in the
    sandbox the money then comes from and goes to nowhere, at once.
    """

    amount: AmountField
    request_id: RequestField
    currency: CurrencyField = "CNY"
    card: IdField | None = None


class SendMoney(Struct, frozen=True, forbid_unknown_fields=True):
    """This much to another account: now, at the next midnight of Shanghai, or at a moment."""

    amount: AmountField
    payee: IdField
    request_id: RequestField
    currency: CurrencyField = "CNY"
    timing: Literal["now", "next_day", "scheduled"] = "now"
    run_at: datetime | None = None


class BatchItem(Struct, frozen=True, forbid_unknown_fields=True):
    """One transfer of a batch."""

    amount: AmountField
    payee: IdField


class SendBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """These transfers together, confirmed once: now, at the next midnight, or at a moment."""

    items: Annotated[list[BatchItem], Meta(min_length=1, max_length=ORDERS_MAX)]
    request_id: RequestField
    currency: CurrencyField = "CNY"
    timing: Literal["now", "next_day", "scheduled"] = "now"
    run_at: datetime | None = None


class BatchCount(Struct, frozen=True, kw_only=True):
    """How many orders of a batch stand so, and what they come to."""

    status: OrderState
    orders: int
    amount: int


class EAccountBatchView(Struct, frozen=True, kw_only=True):
    """Transfers that were confirmed together, and how far they have come."""

    id: str
    object: Literal["e_account_batch"]
    account_id: str
    request_id: str
    orders: int
    amount: int
    currency: str
    run_at: datetime
    is_over: bool
    progress: list[BatchCount]
    created_at: datetime


class EAccountView(Struct, frozen=True, kw_only=True):
    """One of one's own electronic accounts."""

    id: str
    object: Literal["e_account"]
    kind: str
    account_class: int
    currency: str
    status: EAccountState
    frozen: Literal["none", "in", "out", "all"]
    balance: int
    available: int  # without what freezes of an amount keep
    opened_at: datetime
    activated_at: datetime | None
    closed_at: datetime | None


class EAccountOrderView(Struct, frozen=True, kw_only=True):
    """What was ordered of an account, and what became of it."""

    id: str
    object: Literal["e_account_order"]
    account_id: str
    kind: OrderKind
    payee: str | None
    card: str | None  # the bank card that it goes over
    amount: int
    currency: str
    request_id: str
    timing: Literal["now", "next_day", "scheduled"]
    run_at: datetime
    status: OrderState
    code: str | None  # why it failed
    created_at: datetime
    ended_at: datetime | None


class LimitView(Struct, frozen=True, kw_only=True):
    """One limit of the law on the person's accounts of this class, and what is left of it."""

    meter: str
    period: Literal["day", "year", "lifetime", "moment"]
    currency: str
    most: int
    used: int
    left: int
    instrument: str


class LineView(Struct, frozen=True, kw_only=True):
    """One movement; ``change`` is below zero where money went out."""

    order_id: str
    kind: str
    change: int
    balance_after: int
    at: datetime


class BalanceView(Struct, frozen=True, kw_only=True):
    """What an account held at a moment."""

    object: Literal["e_account_balance"]
    account_id: str
    at: datetime
    balance: int
    currency: str


class IssueVirtualCard(Struct, frozen=True, forbid_unknown_fields=True):
    """Issue a card of an account; ``request_id`` makes a repeat harmless."""

    request_id: RequestField
    limits: CardLimits = CardLimits()


class ChargeCard(Struct, frozen=True, forbid_unknown_fields=True):
    """Take this much from a virtual card."""

    card_number: Annotated[str, Meta(pattern=r"^[0-9]{16}(?!\n)$")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])(?!\n)$", description="YYMM")]
    amount: AmountField
    request_id: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,32}$")]
    currency: CurrencyField = "CNY"

    def __repr__(self) -> str:
        return "ChargeCard(…)"


class CardChargeView(Struct, frozen=True, kw_only=True):
    """What a virtual card has paid. Whose card it is, is not told."""

    object: Literal["card_charge"]
    order_id: str
    amount: int
    currency: str
    paid_at: datetime


class VirtualCardView(Struct, frozen=True, kw_only=True):
    """A virtual card of an account; ``number`` and ``expiry`` are there when it was issued only."""

    id: str
    object: Literal["virtual_card"]
    account_id: str
    bin: str
    last4: str
    status: CardState
    number: str | None
    expiry: str | None
    limits: CardLimits
    used: int
    uses: int
    expires_at: datetime
    created_at: datetime


def view_virtual_card(row: VirtualCard, number: Number | None = None) -> VirtualCardView:
    """Return a virtual card as its person sees it; with its number when it was issued."""
    return VirtualCardView(
        id=row.shown_id,
        object="virtual_card",
        account_id=show(ACCOUNT, row.account_id),
        bin=row.bin,
        last4=row.last4,
        status=row.state,
        number=number.number if number else None,
        expiry=number.expiry if number else None,
        limits=CardLimits(row.each_max, row.day_max, row.total_max),
        used=row.used,
        uses=row.uses,
        expires_at=row.expires_at,
        created_at=row.created_at,
    )


def view_account(row: EAccount) -> EAccountView:
    """Return an account as its person sees it."""
    return EAccountView(
        id=row.shown_id,
        object="e_account",
        kind=row.kind,
        account_class=row.account_class,
        currency=row.currency,
        status=row.state,
        frozen=row.frozen,
        balance=row.balance,
        available=row.available,
        opened_at=row.opened_at,
        activated_at=row.activated_at,
        closed_at=row.closed_at,
    )


def view_order(row: EAccountOrder) -> EAccountOrderView:
    """Return an order as its person sees it."""
    return EAccountOrderView(
        id=row.shown_id,
        object="e_account_order",
        account_id=show(ACCOUNT, row.account_id),
        kind=row.kind,
        payee=other_side(row.kind, row.payee_id),
        card=None if row.card_id is None else show(CARD, row.card_id),
        amount=row.amount,
        currency=row.currency,
        request_id=row.request_id,
        timing=row.timing,
        run_at=row.run_at,
        status=row.state,
        code=row.code,
        created_at=row.made_at,
        ended_at=row.ended_at,
    )


def other_side(kind: OrderKind, payee_id: UUID | None) -> str | None:
    """Return the public id of the account or the wallet on the other side, if there is one."""
    if payee_id is None:
        return None
    return show("wal" if kind in WALLET_KINDS else ACCOUNT, payee_id)


def view_batch(row: EAccountBatch, progress: Sequence[Progress]) -> EAccountBatchView:
    """Return a batch as its person sees it."""
    return EAccountBatchView(
        id=row.shown_id,
        object="e_account_batch",
        account_id=show(ACCOUNT, row.account_id),
        request_id=row.request_id,
        orders=row.orders,
        amount=row.amount,
        currency=row.currency,
        run_at=row.run_at,
        is_over=all(each.state is not OrderState.WAITING for each in progress),
        progress=[
            BatchCount(status=each.state, orders=each.orders, amount=each.amount)
            for each in progress
        ],
        created_at=row.made_at,
    )


def view_line(line: StatementLine) -> LineView:
    """Return a movement as its person sees it."""
    return LineView(
        order_id=shown_reference(line),
        kind=line.code.split("/")[0],
        change=line.change,
        balance_after=line.balance_after,
        at=line.at,
    )
