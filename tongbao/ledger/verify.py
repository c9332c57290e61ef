"""Prove a book: derive every stored figure again from its transfers and name what differs.

Each book is read in one snapshot, so postings may go on meanwhile. The transfers and requests are
streamed; memory grows with the accounts and the open holds of a book only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date
from tongbao.ledger import _store as store
from tongbao.ledger.chart import CHART
from tongbao.ledger.core import body_hash
from tongbao.ledger.model import (
    BOOK_SHIFT,
    NOBODY,
    AccountKey,
    BookMissing,
    HoldState,
    LedgerAccount,
    LedgerAccountKind,
    LedgerRequest,
    Side,
    Transfer,
    TransferKind,
)

CHECKS: Final = {
    "accounts": "every account is of a licensed kind, with its side and floor",
    "sequence": "the transfers are numbered from 1 to the head without a gap",
    "parties": "every transfer is between two accounts of the book and one currency",
    "dates": "business and value date are those of the moment",
    "floors": "no account ever was below its floor, open holds counted",
    "running_balances": "the balances noted beside each transfer are those of that moment",
    "holds": "every hold ended at most once, as its row says, for no more than was held",
    "overdue_holds": "no open hold is past its time and the grace",
    "requests": "every created group has exactly its transfers, and every transfer its group",
    "bodies": "the transfers are those that were asked for, by their fingerprint",
    "counters": "the four counters of every account are the sum of its transfers",
    "balanced": "debits equal credits in every currency, posted and pending",
}
GRACE: Final = timedelta(days=1)


class Breach(Struct, frozen=True):
    """One broken invariant and where to look."""

    what: str
    seq: int | None = None
    transfer: UUID | None = None
    account: int | None = None
    request: UUID | None = None


class Check(Struct, frozen=True):
    """One invariant of one book: how much was looked at and what was wrong first."""

    book: int
    name: str
    looked_at: int
    breaches: int
    first: Breach | None


class Report(Struct, frozen=True):
    """What verifying found, book by book and check by check."""

    at: datetime
    checks: tuple[Check, ...]

    @property
    def is_sound(self) -> bool:
        """Whether every invariant of every book holds."""
        return all(check.breaches == 0 for check in self.checks)

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that found something."""
        return tuple(check for check in self.checks if check.breaches)


async def verify(db: Db, *, books: Sequence[int] | None = None, grace: timedelta = GRACE) -> Report:
    """Verify the named books, or all; a hold may be open for ``grace`` after its time.

    Raises:
        BookMissing
    """
    known = [head.book for head in await store.LIST_BOOKS.all(db)]
    chosen = known if books is None else list(books)
    for book in chosen:
        if book not in known:
            raise BookMissing(book=book)
    checks: list[Check] = []
    for book in chosen:
        async with db.begin("ledger verify") as tx:
            await store.BEGIN_SNAPSHOT.run(tx)
            await store.TAKE_YOUR_TIME.run(tx)
            checks += await _verify_book(tx, book, tx.now - grace)
    return Report(db.clock.now(), tuple(checks))


async def _verify_book(tx: Tx, book: int, due_before: datetime) -> list[Check]:
    found = _Findings()
    kinds = {kind.kind: kind for kind in await store.LIST_KINDS.all(tx)}
    replay = _Replay(found, due_before)
    async for account in store.ALL_ACCOUNTS.stream(tx, book):
        _check_account(found, account, kinds.get(account.kind))
        replay.add_account(account)
    groups = _Groups(found, replay, store.CREATED_REQUESTS.stream(tx, book))
    async for transfer in store.ALL_TRANSFERS.stream(tx, book):
        replay.take(transfer)
        await groups.take(transfer)
    await groups.finish()
    replay.finish()
    await _check_ends(tx, book, found, replay)
    return [
        Check(book, name, found.looked_at[name], found.breaches[name], found.first.get(name))
        for name in CHECKS
    ]


def _check_account(
    found: _Findings, account: LedgerAccount, licensed: LedgerAccountKind | None
) -> None:
    found.looked_at["accounts"] += 1
    kind = CHART.get(account.kind)
    if kind is None or licensed is None:
        found.add("accounts", f"the kind {account.kind} is not licensed", account=account.id)
    elif not (account.side == kind.side == licensed.side):
        found.add("accounts", f"{account.kind} stands on the wrong side", account=account.id)
    elif not (account.floor == kind.floor == licensed.floor):
        found.add("accounts", f"the floor {account.floor} is not the chart's", account=account.id)
    elif account.id >> BOOK_SHIFT != account.book:
        found.add("accounts", "the number belongs to another book", account=account.id)


async def _check_ends(tx: Tx, book: int, found: _Findings, replay: _Replay) -> None:
    """Compare the ends of the streams with the head row and the row counts."""
    head = await store.GET_BOOK.one(tx, book)
    counts = await store.COUNT_ROWS.one(tx, book)
    if head.last_seq != replay.last_seq:
        what = f"the head says {head.last_seq}, the last transfer {replay.last_seq}"
        found.add("sequence", what, seq=head.last_seq)
    if counts.holds != found.looked_at["holds"]:
        orphan = await store.HOLD_WITHOUT_TRANSFER.first(tx, book)
        found.add("holds", "a hold has no pending transfer", transfer=orphan)


class _Findings:
    """Counts of what was looked at and broken, and the first breach of each check."""

    def __init__(self) -> None:
        self.looked_at: Counter[str] = Counter()
        self.breaches: Counter[str] = Counter()
        self.first: dict[str, Breach] = {}

    def add(
        self,
        check: str,
        what: str,
        *,
        seq: int | None = None,
        transfer: UUID | None = None,
        account: int | None = None,
        request: UUID | None = None,
    ) -> None:
        self.breaches[check] += 1
        self.first.setdefault(check, Breach(what, seq, transfer, account, request))


class _Account:
    """An account's row and its counters as the transfers so far add up.

    The arithmetic is written again here on purpose: a proof must not share the code it checks.
    """

    __slots__ = (
        "credits_pending",
        "credits_posted",
        "debits_pending",
        "debits_posted",
        "key",
        "row",
    )

    def __init__(self, row: LedgerAccount) -> None:
        self.row = row
        owner = None if row.owner == NOBODY else row.owner
        self.key = AccountKey(row.kind, row.currency, owner)
        self.debits_pending = self.debits_posted = 0
        self.credits_pending = self.credits_posted = 0

    def posted(self) -> int:
        if self.row.side is Side.CREDIT:
            return self.credits_posted - self.debits_posted
        return self.debits_posted - self.credits_posted

    def is_below_floor(self) -> bool:
        if self.row.floor is None:
            return False
        credit = self.row.side is Side.CREDIT
        held = self.debits_pending if credit else self.credits_pending
        return self.posted() - held < self.row.floor

    def differs(self) -> str | None:
        """Return the first counter whose stored figure is not the replayed one."""
        for name in ("debits_pending", "debits_posted", "credits_pending", "credits_posted"):
            stored, replayed = getattr(self.row, name), getattr(self, name)
            if stored != replayed:
                return f"{name} is {stored}, the transfers add up to {replayed}"
        return None


class _Replay:
    """Applies the transfers of a book in order to accounts that start at zero."""

    def __init__(self, found: _Findings, due_before: datetime) -> None:
        self._found = found
        self._due_before = due_before
        self._open: dict[UUID, store.ProvedTransfer] = {}
        self.accounts: dict[int, _Account] = {}
        self.last_seq = 0

    def add_account(self, row: LedgerAccount) -> None:
        self.accounts[row.id] = _Account(row)

    def take(self, line: store.ProvedTransfer) -> None:
        """Apply one transfer and check what stands beside it."""
        self._check_line(line)
        debit, credit = (
            self.accounts.get(line.debit_account),
            self.accounts.get(line.credit_account),
        )
        self._found.looked_at["parties"] += 1
        if debit is None or credit is None or debit is credit:
            self._add("parties", "an account of the transfer does not exist", line)
            return
        if debit.row.currency != credit.row.currency:
            self._add("parties", "the accounts are in different currencies", line)
        self._move(line, debit, credit)
        self._check_balances(line, debit, credit)

    def finish(self) -> None:
        """Check what must hold once every transfer was applied."""
        for line in self._open.values():
            if line.hold_state is not HoldState.HELD:
                self._add("holds", f"the hold is {line.hold_state} and no transfer ended it", line)
            elif line.hold_expires_at is not None and line.hold_expires_at < self._due_before:
                self._add("overdue_holds", f"due since {line.hold_expires_at}", line)
        self._found.looked_at["overdue_holds"] += len(self._open)
        self._check_counters()
        self._check_balanced()

    def _check_line(self, line: store.ProvedTransfer) -> None:
        self._found.looked_at["sequence"] += 1
        self._found.looked_at["dates"] += 1
        if line.seq != self.last_seq + 1:
            self._add("sequence", f"{line.seq} comes after {self.last_seq}", line)
        self.last_seq = line.seq
        if not line.biz_date == line.value_date == business_date(line.at):
            self._add("dates", f"{line.biz_date}, {line.value_date} at {line.at}", line)

    def _move(self, line: store.ProvedTransfer, debit: _Account, credit: _Account) -> None:
        if line.kind is TransferKind.SINGLE:
            debit.debits_posted += line.amount
            credit.credits_posted += line.amount
            return
        if line.kind is TransferKind.PENDING:
            debit.debits_pending += line.amount
            credit.credits_pending += line.amount
            self._check_hold_row(line)
            self._open[line.id] = line
            return
        held = self._open.pop(line.pending_id or NOBODY, None)
        if held is None:
            self._add("holds", f"it ends {line.pending_id}, which is not held", line)
            return
        self._check_end(line, held)
        debit.debits_pending -= held.amount
        credit.credits_pending -= held.amount
        if line.kind is TransferKind.POST:
            debit.debits_posted += line.amount
            credit.credits_posted += line.amount

    def _check_hold_row(self, line: store.ProvedTransfer) -> None:
        if line.hold_state is None:
            self._add("holds", "the pending transfer has no hold", line)
            return
        self._found.looked_at["holds"] += 1
        row = (line.hold_amount, line.hold_debit, line.hold_credit)
        if row != (line.amount, line.debit_account, line.credit_account):
            self._add("holds", "the hold has another amount or other accounts", line)

    def _check_end(self, line: store.ProvedTransfer, held: store.ProvedTransfer) -> None:
        accounts = (held.debit_account, held.credit_account)
        expected = {
            TransferKind.POST: (HoldState.POSTED, line.amount),
            TransferKind.VOID: (HoldState.VOIDED, 0),
            TransferKind.EXPIRE: (HoldState.EXPIRED, 0),
        }[line.kind]
        if (line.debit_account, line.credit_account) != accounts:
            self._add("holds", "it ends a hold between other accounts", line)
        elif line.amount > held.amount or (line.whole and line.amount != held.amount):
            self._add("holds", f"{line.amount} of {held.amount} that was held", line)
        elif (held.hold_state, held.hold_posted) != expected:
            self._add("holds", f"the hold says {held.hold_state}, {held.hold_posted}", line)

    def _check_balances(
        self, line: store.ProvedTransfer, debit: _Account, credit: _Account
    ) -> None:
        self._found.looked_at["floors"] += 1
        self._found.looked_at["running_balances"] += 1
        for account, noted in ((debit, line.debit_after), (credit, line.credit_after)):
            if account.is_below_floor():
                self._add("floors", "the account fell below its floor", line, account)
            if account.posted() != noted:
                what = f"{noted} is noted, the transfers add up to {account.posted()}"
                self._add("running_balances", what, line, account)

    def _check_counters(self) -> None:
        for account in self.accounts.values():
            self._found.looked_at["counters"] += 1
            if difference := account.differs():
                self._found.add("counters", difference, account=account.row.id)

    def _check_balanced(self) -> None:
        """Add up the stored counters by currency: no transfer is needed to see this one."""
        posted: Counter[str] = Counter()
        pending: Counter[str] = Counter()
        for account in self.accounts.values():
            row = account.row
            posted[row.currency] += row.debits_posted - row.credits_posted
            pending[row.currency] += row.debits_pending - row.credits_pending
        for name, totals in (("posted", posted), ("pending", pending)):
            for currency, difference in sorted(totals.items()):
                self._found.looked_at["balanced"] += 1
                if difference:
                    what = f"{name} debits exceed credits by {difference} {currency}"
                    self._found.add("balanced", what)

    def _add(
        self,
        check: str,
        what: str,
        line: store.ProvedTransfer,
        account: _Account | None = None,
    ) -> None:
        self._found.add(
            check,
            what,
            seq=line.seq,
            transfer=line.id,
            account=None if account is None else account.row.id,
        )


class _Groups:
    """Lays the created requests, in order of seq, beside the transfers."""

    def __init__(
        self, found: _Findings, replay: _Replay, requests: AsyncIterator[LedgerRequest]
    ) -> None:
        self._found = found
        self._replay = replay
        self._requests = requests
        self._current: LedgerRequest | None = None
        self._lines: list[store.ProvedTransfer] = []

    async def take(self, line: store.ProvedTransfer) -> None:
        """Add a transfer to the group it should belong to."""
        if self._current is None:
            self._current = await anext(self._requests, None)
        self._lines.append(line)
        if self._current is None:
            self._found.add("requests", "no group asked for it", seq=line.seq, transfer=line.id)
            self._lines.clear()
        elif line.seq >= (self._current.seq or 0):
            self._close(self._current)
            self._current = None

    async def finish(self) -> None:
        """Name the requests that no transfer was left for."""
        if self._current is None:
            self._current = await anext(self._requests, None)
        while self._current is not None:
            self._close(self._current)
            self._current = await anext(self._requests, None)

    def _close(self, request: LedgerRequest) -> None:
        lines, self._lines = self._lines, []
        self._found.looked_at["requests"] += 1
        self._found.looked_at["bodies"] += 1
        last = lines[-1].seq if lines else None
        if len(lines) != request.transfer_count or last != request.seq:
            what = f"the group has {len(lines)} of its {request.transfer_count} transfers"
            self._found.add("requests", what, seq=request.seq, request=request.id)
        elif any(line.at != request.at for line in lines):
            self._found.add(
                "requests", "the group has two times", seq=request.seq, request=request.id
            )
        elif body_hash([self._asked(line) for line in lines]) != request.body_hash:
            self._found.add(
                "bodies",
                "the transfers are not those that were asked for",
                seq=request.seq,
                transfer=lines[0].id,
                request=request.id,
            )

    def _asked(self, line: store.ProvedTransfer) -> Transfer:
        """Return the transfer as it must have been asked for."""
        names_accounts = line.kind in {TransferKind.SINGLE, TransferKind.PENDING}
        return Transfer(
            id=line.id,
            kind=line.kind,
            code=line.code,
            reference=line.reference,
            amount=None if line.whole else line.amount,
            debit=self._key(line.debit_account) if names_accounts else None,
            credit=self._key(line.credit_account) if names_accounts else None,
            pending_id=line.pending_id,
            expires_at=line.hold_expires_at,
        )

    def _key(self, account: int) -> AccountKey | None:
        known = self._replay.accounts.get(account)
        return None if known is None else known.key
