"""Put a statement together from its settlement and the ledger, and prove one or all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.payouts.model import Payout
from tongbao.clearing.settlement.model import OWN_RULE, Settlement, SettlementLine
from tongbao.clearing.settlement.queries import (
    SettlementFilter,
    lines_of_settlement,
    list_settlements,
    settled_among,
)
from tongbao.clearing.statements.model import (
    LINES_MAX,
    PayoutReceipt,
    SettlementStatement,
    StatementTooLong,
    Tie,
    check_receiptable,
    faults_of,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import PAGE_MAX
from tongbao.ledger.queries import balance_at, movements, transfers_of_reference
from tongbao.parties.merchants.queries import merchant_with_id

_OWN = f"{OWN_RULE}/"


class Proven(Struct, frozen=True):
    """A settlement that was looked at, and what is not true of it."""

    settlement: Settlement
    faults: list[str]


async def statement_of(on: Db | Tx, settlement: Settlement) -> SettlementStatement:
    """Return a settlement's statement, tied to what the ledger says now.

    Raises:
        StatementTooLong, BalancesBehind, HistoryArchived
    """
    if settlement.line_count > LINES_MAX:
        raise StatementTooLong(lines=settlement.line_count)
    merchant = await merchant_with_id(on, settlement.merchant_id)
    lines = [line async for line in _lines(on, settlement)]
    return SettlementStatement(settlement, merchant.name, lines, await _tie(on, settlement))


async def receipt_of(on: Db | Tx, payout: Payout) -> PayoutReceipt:
    """Return the facts of a payout's receipt.

    Raises:
        ReceiptNotReady
    """
    check_receiptable(payout)
    merchant = await merchant_with_id(on, payout.merchant_id)
    posted = await transfers_of_reference(on, payout.book, payout.id)
    paid = next(each for each in posted if each.code == "payout.paid/amount")
    return PayoutReceipt(
        number=show("pyo", payout.id),
        settlement=show("set", payout.settlement_id),
        merchant=merchant.name,
        holder=payout.bank_holder or "",
        account=payout.bank_account_masked or "",
        amount=payout.amount,
        currency=payout.currency,
        bank_reference=payout.bank_ref or "",
        paid_at=paid.at,
        ledger_book=payout.book,
        ledger_transfer=paid.id,
        ledger_seq=paid.seq,
    )


async def prove_statements(
    on: Db | Tx, *, merchant_id: UUID | None = None, mode: Mode | None = None
) -> AsyncIterator[Proven]:
    """Look at every settlement again, newest first, beside the ledger; yield each with its faults.

    Raises:
        BalancesBehind, HistoryArchived
    """
    cursor = None
    while True:
        wanted = SettlementFilter(merchant_id=merchant_id, mode=mode)
        page = await list_settlements(on, wanted, cursor=cursor, limit=PAGE_MAX)
        for settlement in page.items:
            yield Proven(settlement, faults_of(await statement_of(on, settlement)))
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


async def _lines(on: Db | Tx, settlement: Settlement) -> AsyncIterator[SettlementLine]:
    cursor = None
    while True:
        page = await lines_of_settlement(on, settlement, cursor=cursor, limit=PAGE_MAX)
        for line in page.items:
            yield line
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


async def _tie(on: Db | Tx, settlement: Settlement) -> Tie:
    """Return what the ledger says at the settlement's own posting.

    Of the movements up to there, those after ``through_seq`` may be of later settlements: which,
    is told by the lines of this one and those before it.
    """
    own = await transfers_of_reference(on, settlement.book, settlement.id)
    closing = [each.seq for each in own if each.code.startswith(_OWN)]
    seq = max([settlement.through_seq, settlement.newest_seq, *closing])
    balance = await balance_at(on, settlement.book, settlement.key, seq)
    later: dict[int, int] = {}
    walked = movements(on, settlement.book, settlement.key, after=settlement.through_seq)
    async for each in walked:
        if each.seq <= seq and not each.code.startswith(_OWN):
            later[each.seq] = each.change
    ours = await settled_among(on, settlement, list(later))
    return Tie(seq, balance.posted, sum(later[each] for each in later if each not in ours))
