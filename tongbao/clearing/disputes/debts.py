"""What merchants owe after disputes: taken from what comes in, before each day's settlement.

A merchant's account never falls below zero. What a chargeback took and the merchant did not have
is kept as a debt; the settlement of a day shows what was collected of it among its lines.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import time, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.daily import DAILY_POLICY, next_moment
from tongbao.clearing.disputes import _store as store
from tongbao.clearing.disputes.model import DebtSmaller, DisputeContended, Owing
from tongbao.controls.approvals.approvals import propose
from tongbao.controls.approvals.model import (
    Act,
    Approval,
    ApprovalDecided,
    Bound,
    Change,
    Effect,
)
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, Task, enqueue
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.ledger.model import (
    MOVED_BEFORE,
    AccountFrozen,
    AccountKey,
    ExceedsBalance,
    Group,
)
from tongbao.ledger.queries import balance_of
from tongbao.ledger.rules import posting
from tongbao.parties.identity.model import Permission
from tongbao.payments.collecting.outcomes import Flow

COLLECT_AT: Final = time(11, 20)
"""Before the day's settlement, which pays out what is left."""
DEBTS_POLICY: Final = DAILY_POLICY
_TRIES_MAX: Final = 8


class CollectDebts(Task, frozen=True, tag="disputes.collect_debts"):
    """Take what merchants owe from what they have, once a day."""


async def seed(tx: Tx) -> None:
    """Start the daily collection, unless it is running."""
    await enqueue(tx, CollectDebts(), run_at=next_moment(tx.now, COLLECT_AT), key="daily")


async def run_collect_debts(flow: Flow, _task: CollectDebts, _lease: Lease) -> Again:
    """Collect every merchant's debt as far as the money goes, and come again tomorrow."""
    await collect_debts(flow)
    now = flow.db.clock.now()
    return Again(max(next_moment(now, COLLECT_AT) - now, timedelta(minutes=1)))


async def collect_debts(flow: Flow, *, merchant_id: UUID | None = None) -> int:
    """Take what is owed from what is there, and return how much, in minor units of all currencies.

    Whoever comes twice, or together with a payment or a refund, collects no fen twice: neither
    account can fall below zero.

    Raises:
        DisputeContended
    """
    collected = 0
    for owing in await store.OWING.all(flow.db, merchant_id):
        collected += await _collect(flow, owing)
    return collected


async def debt_of(flow: Flow, owing: Owing) -> Money:
    """Return what a merchant owes."""
    key = AccountKey("merchant_debt", owing.currency, owing.merchant_id)
    return Money((await balance_of(flow.db, owing.book, key)).posted, owing.currency)


async def _collect(flow: Flow, owing: Owing) -> int:
    payable = AccountKey("merchant_payable", owing.currency, owing.merchant_id)
    debt = AccountKey("merchant_debt", owing.currency, owing.merchant_id)
    for _ in range(_TRIES_MAX):
        owed = (await balance_of(flow.db, owing.book, debt)).available
        there = (await balance_of(flow.db, owing.book, payable)).available
        amount = min(owed, there)
        if amount <= 0:
            return 0
        failpoint("disputes.before_collect")
        group = Group(
            id=new_id(),
            book=owing.book,
            transfers=posting.transfers(
                "merchant_debt.collected",
                reference=new_id(),
                accounts={"merchant_payable": payable, "merchant_debt": debt},
                amounts={"amount": Money(amount, owing.currency)},
            ),
        )
        [result] = await flow.ledger.submit([group])
        failpoint("disputes.after_collect")
        if result.happened:
            return amount
        if result.code == AccountFrozen.code:
            return 0  # tomorrow again: what is frozen is nobody's to take
        if result.code != ExceedsBalance.code and result.status != "in_flight":
            raise RuntimeError(f"the ledger refused to collect a debt: {result.code}")
    raise DisputeContended


class WriteOff(Struct, frozen=True):
    """The terms of giving up what a merchant owes: how much, in minor units."""

    book: int
    merchant_id: UUID
    currency: str
    amount: int


WRITE_OFF: Final = Act(
    name="merchant_debt.write_off",
    en="Write off a merchant's debt",
    zh="核销商户欠款",
    terms=WriteOff,
    maker=Permission.SETTLEMENT_ACT,
    checker=Permission.SETTLEMENT_ACT,
)


async def propose_write_off(
    tx: Tx, owing: Owing, amount: int, *, reason: str, may: Collection[str]
) -> Approval:
    """Ask another person to agree that a merchant's debt is given up.

    Raises:
        MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    terms = WriteOff(owing.book, owing.merchant_id, owing.currency, amount)
    return await propose(
        tx,
        WRITE_OFF,
        f"{show('mch', owing.merchant_id)}/{owing.mode}/{owing.currency}",
        terms,
        reason=reason,
        merchant_id=owing.merchant_id,
        mode=owing.mode,
        may=may,
    )


async def write_off(flow: Flow, effect: Effect) -> None:
    """Give up what was approved, once: the posting carries the approval's own move.

    Raises:
        DebtSmaller: the merchant owes less by now; what is paid need not be written off.
    """
    terms: WriteOff = effect.terms
    group = Group(
        id=new_id(),
        book=terms.book,
        transfers=posting.transfers(
            "merchant_debt.written_off",
            reference=effect.approval.id,
            accounts={
                "merchant_debt": AccountKey("merchant_debt", terms.currency, terms.merchant_id)
            },
            amounts={"amount": Money(terms.amount, terms.currency)},
        ),
        companions=effect.writes,
    )
    [result] = await flow.ledger.submit([group])
    if result.happened or result.code in {ApprovalDecided.code, *MOVED_BEFORE}:
        return
    if result.code == ExceedsBalance.code:
        raise DebtSmaller
    if result.status == "in_flight":
        raise DisputeContended
    raise RuntimeError(f"the ledger refused a write-off: {result.code}")


def bound_write_off(flow: Flow) -> Bound:
    """Return the line of the registry of dangerous acts that writes debts off."""
    return Bound(WRITE_OFF, partial(write_off, flow), show=_shown)


async def _shown(_db: Db, _approval: Approval, terms: WriteOff) -> list[Change]:
    money = Money(terms.amount, terms.currency)
    text = f"{money.decimal_text()} {money.currency}"
    return [Change("written off", "核销金额", None, text)]


async def debts(flow: Flow) -> list[tuple[Owing, Money]]:
    """Return every merchant who owes something, and how much."""
    found = [(owing, await debt_of(flow, owing)) for owing in await store.OWING.all(flow.db, None)]
    return [(owing, money) for owing, money in found if money.amount > 0]
