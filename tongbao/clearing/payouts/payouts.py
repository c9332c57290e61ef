"""Pay out what was settled: instruct the bank under our number, ask, and write down its word.

The order is the one of every effect outside: commit what is about to happen, call without a
transaction, commit the answer. Instructing twice under one number pays once; another number is
never used.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import structlog
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Counter

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.payouts import _store as store
from tongbao.clearing.payouts.model import (
    Payout,
    PayoutContended,
    PayoutNews,
    PayoutState,
    PayoutStep,
    end_event,
    next_payout_step,
)
from tongbao.clearing.settlement_terms.model import PaysBy
from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, first_task_write
from tongbao.kernel.codecs.iso20022 import PayoutOrder
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Transfer
from tongbao.ledger.rules import posting
from tongbao.ledger.steps.commit import commit_together, in_one_transaction, is_committed
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.merchants import bank_account_number
from tongbao.parties.merchants.model import Merchant
from tongbao.rails.channels.accounts import list_accounts, open_accounts
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, Exchange

PAYOUTS: Final = Counter("tongbao_payouts_total", "Payouts that ended, by how", ["result"])
BANK: Final = "bank_transfer"
FILES: Final = "bank_files"
CREDITOR_BANK: Final = "000000000000"
"""Merchants give an account number only, and the bank finds the creditor's bank by it."""

_MOVED_ON: Final = "payout.contended"
_ACTOR: Final = "payouts"
_TRIES_MAX: Final = 8
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 10, 30, 60, 300, 900, 1800, 3600))
_WITHOUT_ACCOUNT: Final = timedelta(hours=1)
PAYOUT_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)
_log: Final = structlog.get_logger()


class SubmitPayout(Task, frozen=True, tag="payouts.submit_payout"):
    """Pay a settlement out, and keep asking until the bank has said how it ended."""

    book: int
    payout_id: UUID


class NewPayout(Struct, frozen=True):
    """What a settlement asks to be paid out."""

    book: int
    settlement_id: UUID
    merchant_id: UUID
    mode: Mode
    money: Money
    pays_by: PaysBy = PaysBy.BANK_API


def payout_writes(
    payout_id: UUID,
    asked: NewPayout,
    *,
    now: datetime,
    pay_at: datetime,
    refusal: str | None = None,
) -> tuple[Write, ...]:
    """Return the writes that make a payout and its task, for the settlement's own commit.

    They only append. ``refusal`` is what to say where the payout is there already.
    """
    payout = Payout(
        book=asked.book,
        id=payout_id,
        settlement_id=asked.settlement_id,
        merchant_id=asked.merchant_id,
        mode=asked.mode,
        amount=asked.money.amount,
        currency=asked.money.currency,
        state=PayoutState.REQUESTED,
        pays_by=asked.pays_by,
        file_id=None,
        account_id=None,
        bank_holder=None,
        bank_account_masked=None,
        bank_account_sealed=None,
        code=None,
        bank_ref=None,
        return_ref=None,
        contradiction=None,
        sends=0,
        queries=0,
        version=1,
        created_at=now,
        ended_at=None,
        returned_at=None,
    )
    row = Write(store.APPEND_PAYOUT, (store.new_payout_row(payout),), refusal=refusal)
    if asked.pays_by is PaysBy.BANK_FILE:
        return (row,)  # it goes with the next file
    task = SubmitPayout(asked.book, payout_id)
    return (
        row,
        first_task_write(task, run_at=pay_at, key=f"payout/{payout_id}"),
    )


async def run_submit_payout(context: Clearing, task: SubmitPayout, _lease: Lease) -> Again | None:
    """Take the next step of a payout; return when to look again, or None at its end."""
    payout = await store.GET_PAYOUT.one(context.db, task.book, task.payout_id)
    if not payout.state.is_open:
        return None
    payout = await pay(context, payout)
    if not payout.state.is_open:
        return None
    if payout.sends == 0:  # nobody to pay it from, or a merchant whose money stays for now
        return Again(_WITHOUT_ACCOUNT)
    return Again(_DELAYS[min(payout.queries, len(_DELAYS) - 1)])


async def pay_out(
    context: Clearing,
    *,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
    on_progress: Progress = in_silence,
) -> list[Payout]:
    """Take the next step of every payout that has not ended, now; return them as they then are.

    Raises:
        PayoutContended
    """
    paid = []
    for payout in await store.OPEN_PAYOUTS.all(context.db, merchant_id, mode):
        paid.append(await pay(context, payout))
        on_progress("pay out", len(paid))
    return paid


async def pay(context: Clearing, payout: Payout) -> Payout:
    """Instruct the bank, or ask what became of it and instruct again if the bank knows of none.

    Raises:
        PayoutContended
    """
    if payout.sends == 0 and not await _is_paid_out(context, payout):
        return payout
    payout = await with_creditor(context, payout)
    if payout.account_id is None:
        return payout
    account = await context.flow.account(payout.account_id)
    order = await order_of(context, payout)
    if payout.state is not PayoutState.REQUESTED or payout.sends > 0:
        payout, is_absent = await _ask(context, account, payout, order)
        if not is_absent or not payout.state.is_open:
            return payout
    return await _instruct(context, account, payout, order)


async def _is_paid_out(context: Clearing, payout: Payout) -> bool:
    """Whether the merchant's standing lets its money out; what the bank has goes on regardless."""
    merchant = await merchants.merchant_with_id(context.db, payout.merchant_id)
    return merchant.is_paid_out


async def _ask(
    context: Clearing, account: ChannelAccount, payout: Payout, order: PayoutOrder
) -> tuple[Payout, bool]:
    """Ask what became of the payout; say too whether the bank never took it."""
    found = await context.bank.query(account, order)
    failpoint("payouts.after_query")
    payout = await record_payout_news(context, payout, "query", found.outcome, found.exchange)
    return payout, isinstance(found.outcome, Absent)


async def _instruct(
    context: Clearing, account: ChannelAccount, payout: Payout, order: PayoutOrder
) -> Payout:
    is_repeat = payout.sends > 0
    if await store.COUNT_SEND.run(context.db, payout.book, payout.id, payout.version) == 0:
        raise PayoutContended
    failpoint("payouts.before_call")
    answer: Answer[PayoutNews] = await context.bank.pay_out(account, order)
    failpoint("payouts.after_call")
    if is_repeat and isinstance(answer.outcome, Declined):
        # A refusal of the repeat need not speak of the first instruction.
        answer = await _confirmed(context, account, order, answer)
    return await record_payout_news(context, payout, "pay_out", answer.outcome, answer.exchange)


async def _confirmed(
    context: Clearing,
    account: ChannelAccount,
    order: PayoutOrder,
    answer: Answer[PayoutNews],
) -> Answer[PayoutNews]:
    found = await context.bank.query(account, order)
    if isinstance(found.outcome, Declined | Absent):
        return Answer(answer.outcome, answer.exchange)
    return Answer(found.outcome, found.exchange)


async def record_payout_news(
    context: Clearing,
    payout: Payout,
    purpose: Literal["pay_out", "query", "file"],
    news: PayoutNews,
    exchange: Exchange,
) -> Payout:
    """Apply the bank's word exactly once and return the row as it is afterwards.

    Raises:
        PayoutContended: others kept winning; nothing was written, and asking again is safe.
    """
    for _ in range(_TRIES_MAX):
        payout = await store.GET_PAYOUT.one(context.db, payout.book, payout.id)
        now = context.db.clock.now()
        step = next_payout_step(payout, news, now)
        writes = (
            *_row_writes(payout, step),
            Write(store.COUNT_QUERY, (payout.book, payout.id)),
            _exchange_write(payout, purpose, news, exchange, now=now),
            *_event_writes(payout, step, now),
        )
        failpoint("payouts.before_outcome")
        refused = await commit_together(
            context.flow.ledger,
            in_one_transaction(context.db, _ACTOR),
            payout.book,
            _transfers(payout, step),
            writes,
        )
        if is_committed(refused, {_MOVED_ON}, payout.id):
            failpoint("payouts.after_outcome")
            context.flow.nudge()
            if step is not None and step.rule is not None:
                PAYOUTS.labels(step.payout.state).inc()
            return await store.GET_PAYOUT.one(context.db, payout.book, payout.id)
    raise PayoutContended


def _transfers(payout: Payout, step: PayoutStep | None) -> tuple[Transfer, ...]:
    if step is None or step.rule is None:
        return ()
    return posting.transfers(
        step.rule,
        reference=payout.id,
        accounts={
            "settlement_due": _account_of(payout, "settlement_due"),
            "merchant_payable": _account_of(payout, "merchant_payable"),
        },
        amounts={"amount": payout.money},
    )


def _account_of(payout: Payout, kind: str) -> AccountKey:
    return AccountKey(kind, payout.currency, payout.merchant_id)


def _row_writes(before: Payout, step: PayoutStep | None) -> tuple[Write, ...]:
    if step is None:
        return ()
    after = step.payout
    args = (
        before.book,
        before.id,
        before.version,
        after.state,
        after.code,
        after.bank_ref,
        after.return_ref,
        after.contradiction,
        after.ended_at,
        after.returned_at,
    )
    return (Write(store.UPDATE_PAYOUT, args, refusal=_MOVED_ON),)


def _exchange_write(
    payout: Payout,
    purpose: Literal["pay_out", "query", "file"],
    news: PayoutNews,
    seen: Exchange,
    *,
    now: datetime,
) -> Write:
    return Write(
        store.INSERT_EXCHANGE,
        (
            payout.book,
            new_id(),
            payout.id,
            purpose,
            seen.method,
            seen.url,
            seen.request,
            seen.status,
            seen.reply,
            seen.duration_ms,
            type(news).__name__.lower(),
            now,
        ),
    )


def _event_writes(before: Payout, step: PayoutStep | None, now: datetime) -> tuple[Write, ...]:
    if step is None or step.rule is None:
        return ()
    after = replace(step.payout, version=before.version + 1)
    return (event_write(end_event(after), now=now),)


# To whom, and from which account of ours


async def with_creditor(context: Clearing, payout: Payout) -> Payout:
    """Return the payout with its creditor, which is fixed before the first instruction.

    A merchant without a bank account, or we without an account at a bank, means waiting.
    """
    if payout.account_id is not None:
        return payout
    merchant = await merchants.merchant_with_id(context.db, payout.merchant_id)
    ours = open_accounts(await list_accounts(context.db), payout.mode)
    by_file = payout.pays_by is PaysBy.BANK_FILE
    kinds = (FILES, BANK) if by_file else (BANK,)
    banks = [each.id for kind in kinds for each in ours if each.channel == kind]
    if merchant.bank_account_sealed is None or not banks:
        missing = "merchant" if banks else "ours"
        _log.warning("payout_without_account", payout=show("pyo", payout.id), missing=missing)
        return payout
    async with context.db.begin(_ACTOR) as tx:
        await store.FIX_CREDITOR.run(
            tx,
            payout.book,
            payout.id,
            payout.version,
            banks[0],
            merchant.bank_holder,
            merchant.bank_account_masked,
            merchant.bank_account_sealed,
        )
    return await store.GET_PAYOUT.one(context.db, payout.book, payout.id)


async def order_of(context: Clearing, payout: Payout) -> PayoutOrder:
    """Return the payout in the bank's terms, the same to the byte at every repeat."""
    merchant = await merchants.merchant_with_id(context.db, payout.merchant_id)
    return PayoutOrder(
        number=payout.number,
        money=payout.money,
        creditor_name=payout.bank_holder or "",
        creditor_account=_number_of(context, merchant, payout),
        creditor_bank=CREDITOR_BANK,
        created_at=payout.created_at,
        remittance=f"settlement {show('set', payout.settlement_id)}",
    )


def _number_of(context: Clearing, merchant: Merchant, payout: Payout) -> str:
    as_it_was = replace(merchant, bank_account_sealed=payout.bank_account_sealed)
    number = bank_account_number(as_it_was, context.keyring)
    if number is None:
        raise LookupError("a payout with an account of ours has a creditor")
    return number.reveal()
