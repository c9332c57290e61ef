"""Explain an account at a number of its book: four counters, and the movements that made them so.

The counters are added up from the account's chain of transfers, not read from its row: from its
first transfer on, or, when that is nearer, from what the row says back to the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.kernel.money import Money
from tongbao.ledger import _store as store
from tongbao.ledger._store import ChainRow
from tongbao.ledger.chains import HistoryArchived, chain, entrance
from tongbao.ledger.decision.memory import MARK_EVERY
from tongbao.ledger.model import NOBODY, AccountKey, AccountMissing, Side, TransferKind
from tongbao.ledger.queries import caught_up
from tongbao.ledger.rows import LedgerAccount
from tongbao.ledger.rules.chart import CHART
from tongbao.ledger.rules.posting import RULES

_CHUNK: Final = 5000
_MOVES: Final = frozenset({TransferKind.SINGLE, TransferKind.POST})
Language = Literal["en", "zh"]


class Counters(Struct, frozen=True):
    """The four totals of an account, in minor units."""

    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    def moved(self, row: ChainRow, times: int = 1) -> Counters:
        """Return the totals after a transfer, or with ``times`` -1 before it."""
        held = row.held * times
        posted = row.amount * times if row.kind in _MOVES else 0
        if row.is_debit:
            return Counters(
                self.debits_pending + held,
                self.debits_posted + posted,
                self.credits_pending,
                self.credits_posted,
            )
        return Counters(
            self.debits_pending,
            self.debits_posted,
            self.credits_pending + held,
            self.credits_posted + posted,
        )


class ExplainedLine(Struct, frozen=True):
    """One transfer of the account.

    ``change`` is what it did to the posted balance, on the normal side, and ``held`` what it added
    to the account's open holds; ``other`` is the account on its other side.
    """

    seq: int
    id: UUID
    kind: TransferKind
    code: str
    reference: UUID
    other: AccountKey
    is_debit: bool
    amount: int
    change: int
    held: int
    balance_after: int
    biz_date: date
    at: datetime


class Explanation(Struct, frozen=True):
    """An account after transfer ``seq`` of its book, and its newest movements until then.

    ``derived_from`` says from where the counters were added up. ``noted`` is the posted balance
    that the newest transfer carries: it is equal to the derived one unless something is broken.
    """

    account: AccountKey
    number: int
    side: Side
    seq: int
    counters: Counters
    derived_from: Literal["start", "present"]
    noted: int
    lines: tuple[ExplainedLine, ...]  # newest first

    @property
    def posted(self) -> int:
        """The booked balance, on the normal side."""
        net = self.counters.credits_posted - self.counters.debits_posted
        return net if self.side is Side.CREDIT else -net

    @property
    def held(self) -> int:
        """What open holds have promised away."""
        is_credit = self.side is Side.CREDIT
        return self.counters.debits_pending if is_credit else self.counters.credits_pending

    @property
    def incoming(self) -> int:
        """What may still arrive by open holds."""
        is_credit = self.side is Side.CREDIT
        return self.counters.credits_pending if is_credit else self.counters.debits_pending

    @property
    def agrees(self) -> bool:
        """Whether the derived balance is the one noted beside the newest transfer."""
        return self.posted == self.noted


async def explain(
    on: Db | Tx, book: int, key: AccountKey, *, at: int | None = None, lines: int = 10
) -> Explanation:
    """Derive an account's counters after transfer ``at`` of its book, or as they are now.

    Raises:
        AccountMissing, BalancesBehind
        HistoryArchived: neither the start nor the present of the account can be reached.
    """
    await caught_up(on, book)
    progress = await store.PROGRESS.first(on, book)
    account = await store.GET_ACCOUNT.first(on, book, key.owner or NOBODY, key.kind, key.currency)
    if account is None or progress is None:
        raise AccountMissing(kind=key.kind)
    # The account's row may be as of a later number by now; it is taken back from there.
    seq = progress.balanced_seq if at is None else min(at, progress.balanced_seq)
    newest = await _newest(on, account, seq, lines)
    counters, derived_from = await _derive(on, account, seq)
    return Explanation(
        account=key,
        number=account.id,
        side=account.side,
        seq=seq,
        counters=counters,
        derived_from=derived_from,
        noted=newest[0].balance_after if newest else 0,
        lines=await _explained(on, account, newest[:lines]),
    )


async def _newest(on: Db | Tx, account: LedgerAccount, seq: int, lines: int) -> list[ChainRow]:
    """Return the newest transfers up to a number, at least one where there is one."""
    found: list[ChainRow] = []
    try:
        start = await entrance(on, account, seq)
        async for row in chain(on, account, start, chunk=MARK_EVERY + lines):
            if row.seq <= seq:
                found.append(row)
            if len(found) >= max(1, lines):
                break
    except HistoryArchived:
        if not found:
            raise
    return found


async def _derive(
    on: Db | Tx, account: LedgerAccount, seq: int
) -> tuple[Counters, Literal["start", "present"]]:
    """Add the counters up from whichever end of the chain is nearer, or can be reached."""
    after = await store.MARKS_FROM.one(on, account.book, account.id, seq) * MARK_EVERY
    if 2 * after > account.touches:
        try:
            return await _from_start(on, account, seq), "start"
        except HistoryArchived:
            pass
    return await _from_present(on, account, seq), "present"


async def _from_start(on: Db | Tx, account: LedgerAccount, seq: int) -> Counters:
    counters = Counters()
    async for row in chain(on, account, await entrance(on, account, seq), chunk=_CHUNK):
        if row.seq <= seq:
            counters = counters.moved(row)
    return counters


async def _from_present(on: Db | Tx, account: LedgerAccount, seq: int) -> Counters:
    counters = Counters(
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
    )
    async for row in chain(on, account, account.last_transfer, chunk=_CHUNK, after=seq):
        counters = counters.moved(row, -1)
    return counters


async def _explained(
    on: Db | Tx, account: LedgerAccount, rows: Sequence[ChainRow]
) -> tuple[ExplainedLine, ...]:
    named = await store.PARTIES.all(on, account.book, [row.id for row in rows])
    parties = {each.id: each for each in named}
    explained = []
    for row in rows:
        party = parties[row.id]
        other = (
            (party.credit_kind, party.credit_owner)
            if row.is_debit
            else (party.debit_kind, party.debit_owner)
        )
        sign = 1 if row.is_debit == (account.side is Side.DEBIT) else -1
        explained.append(
            ExplainedLine(
                seq=row.seq,
                id=row.id,
                kind=row.kind,
                code=row.code,
                reference=row.reference,
                other=AccountKey(
                    other[0], account.currency, None if other[1] == NOBODY else other[1]
                ),
                is_debit=row.is_debit,
                amount=row.amount,
                change=sign * row.amount if row.kind in _MOVES else 0,
                held=row.held,
                balance_after=row.balance_after,
                biz_date=row.biz_date,
                at=row.at,
            )
        )
    return tuple(explained)


_WORDS: Final = {
    "en": {
        TransferKind.SINGLE: "moved",
        TransferKind.PENDING: "held",
        TransferKind.POST: "posted a hold of",
        TransferKind.VOID: "voided a hold of",
        TransferKind.EXPIRE: "let a hold expire of",
    },
    "zh": {
        TransferKind.SINGLE: "记账",
        TransferKind.PENDING: "冻结",
        TransferKind.POST: "冻结转记账",
        TransferKind.VOID: "撤销冻结",
        TransferKind.EXPIRE: "冻结到期释放",
    },
}


def in_words(line: ExplainedLine, language: Language) -> str:
    """Return a line as a sentence for a person."""
    currency = line.other.currency
    amount = f"{Money(line.amount, currency).decimal_text()} {currency}"
    balance = f"{Money(line.balance_after, currency).decimal_text()} {currency}"
    kind, (rule, _, leg) = CHART.get(line.other.kind), line.code.partition("/")
    said = _WORDS[language][line.kind]
    fact = RULES.get(rule)
    if language == "zh":
        to = "转至" if line.is_debit else "来自"
        other = line.other.kind if kind is None else kind.zh
        why = line.code if fact is None else f"{fact.zh}（{leg}）"
        return f"第 {line.seq} 笔：{said} {amount}，{to}{other}；{why}；余额 {balance}"
    to = "to" if line.is_debit else "from"
    other = line.other.kind if kind is None else kind.en
    why = line.code if fact is None else f"{fact.en} ({leg})"
    return f"#{line.seq} {said} {amount} {to} “{other}”; {why}; balance {balance}"


def summary(told: Explanation, language: Language) -> str:
    """Return what an account holds, and how that follows from its counters, as a sentence."""
    currency = told.account.currency
    posted, held, incoming, debits, credits_ = (
        Money(amount, currency).decimal_text()
        for amount in (
            told.posted,
            told.held,
            told.incoming,
            told.counters.debits_posted,
            told.counters.credits_posted,
        )
    )
    is_credit = told.side is Side.CREDIT
    if language == "zh":
        net = f"贷 {credits_} − 借 {debits}" if is_credit else f"借 {debits} − 贷 {credits_}"
        doubt = "" if told.agrees else "（与最近一笔所记余额不符，请运行 tongbao ledger verify）"
        return (
            f"截至第 {told.seq} 笔：余额 {posted} {currency} = {net}；"
            f"其中冻结 {held}，待入账 {incoming}{doubt}"
        )
    net = f"credits {credits_} − debits {debits}"
    if not is_credit:
        net = f"debits {debits} − credits {credits_}"
    doubt = "" if told.agrees else " (the newest transfer notes another: run tongbao ledger verify)"
    return (
        f"After #{told.seq}: balance {posted} {currency} = {net}; "
        f"{held} of it held, {incoming} may still arrive{doubt}"
    )
