"""A journal written straight into its tables, commit by commit, as a poster would leave it.

What is built behind the journal is tested on exactly the commits a test wants; the door decides
for itself what goes into one.
"""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from tongbao.infra.db import Db
from tongbao.kernel.ids import derived_id, new_id
from tongbao.ledger.model import BOOK_SHIFT, NOBODY, AccountKey, TransferKind
from tongbao.ledger.rules.chart import CHART

DAY = date(2026, 11, 21)


class Journal:
    """The commits of one book."""

    def __init__(self, db: Db, book: int = 1) -> None:
        self.db = db
        self.book = book
        self.accounts: dict[AccountKey, int] = {}
        self.codes: dict[str, int] = {}
        self.batch = 0
        self.seq = 0

    async def commit(self, *moves, projected: bool = True, at: datetime | None = None) -> int:
        """Write one commit of (debit, credit, amount, code, day, kind) and return its number."""
        at = at or self.db.clock.now()
        first, ids = self.seq + 1, []
        for debit, credit, amount, *more in moves:
            code, day, kind = (*more, *("test/leg", DAY, TransferKind.SINGLE)[len(more) :])
            self.seq += 1
            reference = new_id()
            ids.append(derived_id(reference, "leg"))
            await self.db.execute(
                """insert into ledger_transfer (book, id, seq, debit_account, credit_account,
                       amount, kind, flags, code, reference, pending_id, debit_previous,
                       credit_previous, debit_after, credit_after, biz_date, value_date, at)
                   values ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10, null, null, 0, 0, $11, $11,
                           $12)""",
                (
                    self.book,
                    ids[-1],
                    self.seq,
                    await self._account(debit),
                    await self._account(credit),
                    amount,
                    kind,
                    await self._code(code),
                    reference,
                    new_id() if kind >= TransferKind.POST else None,
                    day,
                    at,
                ),
            )
            if projected and kind in {TransferKind.SINGLE, TransferKind.POST}:
                await self._move(debit, "debits_posted", amount)
                await self._move(credit, "credits_posted", amount)
        self.batch += 1
        await self.db.execute(
            """insert into ledger_batch (book, batch, epoch, first_seq, transfers, requests,
                   spans, digest, hash, at)
               values ($1, $2, 1, $3, $4, 1, $5, $6, $6, $7)""",
            (
                self.book,
                self.batch,
                first,
                len(ids),
                [min(ids), max(ids)] if ids else [],
                bytes(32),
                at,
            ),
        )
        await self.db.execute(
            "update ledger_book set last_seq = $2, last_batch = $3 where book = $1",
            (self.book, self.seq, self.batch),
        )
        if projected:
            await self.db.execute(
                "update ledger_watermark set seq = $2, batch = $3 where book = $1",
                (self.book, self.seq, self.batch),
            )
        return self.batch

    async def _account(self, key: AccountKey) -> int:
        if key not in self.accounts:
            number = (self.book << BOOK_SHIFT) + len(self.accounts) + 1
            await self.db.execute(
                """insert into ledger_account (book, id, kind, owner, currency, side, floor,
                       ceiling, state, debits_pending, debits_posted, credits_pending,
                       credits_posted, touches, last_transfer, opened_at)
                   values ($1, $2, $3, $4, $5, $6, null, null, 'open', 0, 0, 0, 0, 0, null, $7)""",
                (
                    self.book,
                    number,
                    key.kind,
                    key.owner or NOBODY,
                    key.currency,
                    CHART[key.kind].side,
                    self.db.clock.now(),
                ),
            )
            self.accounts[key] = number
        return self.accounts[key]

    async def _code(self, code: str) -> int:
        if code not in self.codes:
            self.codes[code] = len(self.codes) + 1
            await self.db.execute(
                "insert into ledger_code (number, code) values ($1, $2)", (self.codes[code], code)
            )
        return self.codes[code]

    async def _move(self, key: AccountKey, counter: str, amount: int) -> None:
        await self.db.execute(
            f"update ledger_account set {counter} = {counter} + $3, touches = touches + 1,"
            " last_transfer = $4 where book = $1 and id = $2",
            (self.book, self.accounts[key], amount, UUID(int=1)),
        )
