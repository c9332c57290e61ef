"""The books: T-accounts of a payment, the trial balance, and the proof that all of it adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import show
from tongbao.ledger.chart import CHART
from tongbao.ledger.model import AccountKey, KindBalance, LedgerBook, Side, TransferKind
from tongbao.ledger.queries import RecordedTransfer, books, sums
from tongbao.ledger.verify import CHECKS, verify
from tongbao.parties.merchants.model import Merchant
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.operator_console.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

_ENDS_HOLD: Final = frozenset({TransferKind.VOID, TransferKind.EXPIRE})


class VerifyRunning(Busy):
    """Somebody's verification of the ledger is still running in this process."""

    code = "console.verify_running"
    advice = "Wait until it has ended and try again."
    advice_zh = "账本校验正在进行，请稍后再试。"
    retry_after_s = 10


class AccountLine(Struct, frozen=True):
    """One movement as its account sees it. A hold has moved nothing yet."""

    seq: int
    code: str
    debit: int | None
    credit: int | None
    balance: int
    effect: str  # posted, held, released
    at: datetime


class TAccount(Struct, frozen=True):
    """One account and what a payment moved in it."""

    key: AccountKey
    title: str
    owner: str
    side: Side
    lines: tuple[AccountLine, ...]


class BookBalance(Struct, frozen=True):
    """One book's trial balance."""

    head: LedgerBook
    kinds: Sequence[KindBalance]

    def totals(self) -> list[tuple[str, int, int]]:
        """Return all debits and all credits by currency; a sound book has them equal."""
        found: dict[str, list[int]] = {}
        for kind in self.kinds:
            total = found.setdefault(kind.currency, [0, 0])
            total[0] += kind.debits_posted
            total[1] += kind.credits_posted
        return [(currency, total[0], total[1]) for currency, total in found.items()]


def account_title(kind: str, language: str) -> str:
    """Return what the chart calls a kind of account."""
    return CHART[kind].zh if language == "zh" else CHART[kind].en


def t_accounts(
    transfers: Sequence[RecordedTransfer], names: Mapping[UUID, str], language: str
) -> list[TAccount]:
    """Return the accounts that transfers touched, each with its own side of them."""
    lines: dict[AccountKey, list[AccountLine]] = {}
    for transfer in sorted(transfers, key=lambda each: each.seq):
        for key, is_debit in ((transfer.debit, True), (transfer.credit, False)):
            lines.setdefault(key, []).append(_line(transfer, is_debit=is_debit))
    return [
        TAccount(
            key=key,
            title=account_title(key.kind, language),
            owner=names.get(key.owner, str(key.owner)) if key.owner else "",
            side=CHART[key.kind].side,
            lines=tuple(moved),
        )
        for key, moved in lines.items()
    ]


def _line(transfer: RecordedTransfer, *, is_debit: bool) -> AccountLine:
    effect = "posted"
    if transfer.kind is TransferKind.PENDING:
        effect = "held"
    elif transfer.kind in _ENDS_HOLD:
        effect = "released"
    return AccountLine(
        seq=transfer.seq,
        code=transfer.code,
        debit=transfer.amount if is_debit else None,
        credit=None if is_debit else transfer.amount,
        balance=transfer.debit_after if is_debit else transfer.credit_after,
        effect=effect,
        at=transfer.at,
    )


async def account_names(
    db: Db, transfers: Sequence[RecordedTransfer], merchant: Merchant
) -> dict[UUID, str]:
    """Return what people call the owners of the accounts that transfers touched."""
    owners = {key.owner for each in transfers for key in (each.debit, each.credit) if key.owner}
    names = {owner: show("wal", owner) for owner in owners}
    names[merchant.id] = merchant.name
    if owners - {merchant.id}:
        for row in await list_accounts(db):
            names[row.id] = row.merchant_number
    return names


async def show_ledger(visit: Visit) -> Reply:
    """Return every book's balances by kind of account."""
    return await visit.page("ledger.html", await _facts(visit))


async def verify_ledger(visit: Visit) -> Reply:
    """Re-derive every figure of every book and show what was found.

    Raises:
        VerifyRunning
    """
    desk = visit.desk
    if desk.verifying.locked():
        raise VerifyRunning
    async with desk.verifying:
        report = await verify(desk.db)
    async with desk.db.begin(visit.operator.actor) as tx:
        facts = {"sound": report.is_sound, "broken": len(report.broken)}
        await audit.record(tx, "ledger.verified", "ledger", facts)
    return await visit.page("ledger.html", await _facts(visit) | {"report": report})


async def _facts(visit: Visit) -> dict[str, object]:
    db = visit.desk.db
    language = visit.request.language
    return {
        "books": [BookBalance(head, await sums(db, head.book)) for head in await books(db)],
        "titles": {kind: account_title(kind, language) for kind in CHART},
        "checks": CHECKS,
        "report": None,
    }
