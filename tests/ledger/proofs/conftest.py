"""A journal written straight into its tables, so that trees need no poster to be tried."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.ids import derived_id, new_id
from tongbao.ledger.proofs.model import Proofs

MERCHANT = UUID(int=0x3E7C)
CUSTOMER = UUID(int=0xA11CE)
CODES = ("test/gross", "test/fee", "test/hold")
AT = datetime(2026, 11, 21, 4, 5, 6, 789_012, tzinfo=UTC)
TRANSFER = (
    *("book", "id", "seq", "debit_account", "credit_account", "amount", "kind", "flags", "code"),
    *("reference", "pending_id", "debit_previous", "credit_previous", "debit_after"),
    *("credit_after", "biz_date", "value_date", "at"),
)


@pytest.fixture
def proofs(db: Db, tmp_path: Path) -> Proofs:
    return Proofs(db, Keyring.from_file(tmp_path / "kek"))


class FalseBook:
    """A book whose journal is written by hand, in commits of any size."""

    def __init__(self, db: Db, book: int = 1) -> None:
        self.db, self.book = db, book
        self.references: list[UUID] = []
        self.ids: list[UUID] = []

    async def open(self) -> None:
        """Open three accounts: a customer's wallet, a merchant's, and the fees."""
        accounts = [
            ("wallet", CUSTOMER, "credit"),
            ("merchant_payable", MERCHANT, "credit"),
            ("fee_income", UUID(int=0), "credit"),
        ]
        for number, (kind, owner, side) in enumerate(accounts, 1):
            await self.db.execute(
                """insert into ledger_account values ($1, $2, $3, $4, 'CNY', $5, null, null, 'open',
                   0, 0, 0, 0, 0, null, $6)""",
                (self.book, self.account(number), kind, owner, side, AT),
            )
        for number, code in enumerate(CODES, 1):
            await self.db.execute(
                "insert into ledger_code values ($1, $2) on conflict do nothing", (number, code)
            )

    def account(self, number: int) -> int:
        return self.book << 40 | number

    async def commit(self, *sizes: int) -> None:
        """Write a batch for each size, each payment two transfers: to the merchant, and the fee."""
        async with self.db.begin("tests") as tx:
            for size in sizes:
                await self._batch(tx, size)

    async def _batch(self, tx: Any, size: int) -> None:
        [head] = await tx.fetch("select * from ledger_book where book = $1", (self.book,))
        seq, number = head["last_seq"], head["last_batch"] + 1
        rows = [self._row(seq + nth) for nth in range(1, size + 1)]
        await tx.copy("ledger_transfer", TRANSFER, rows)
        digest = sha256(repr(rows).encode()).digest()
        hash_ = sha256(head["head_hash"] + number.to_bytes(8, "big") + digest).digest()
        ids = [row[1] for row in rows]
        spans = [min(ids), max(ids)] if ids else []
        await tx.execute(
            "insert into ledger_batch values ($1, $2, 1, $3, $4, 0, $5, $6, $7, $8)",
            (self.book, number, seq + 1, size, spans, digest, hash_, AT),
        )
        await tx.execute(
            "update ledger_book set last_seq = $2, last_batch = $3, head_hash = $4 where book = $1",
            (self.book, seq + size, number, hash_),
        )

    def _row(self, seq: int) -> Sequence[Any]:
        if seq % 2 or not self.references:
            self.references.append(new_id())
        reference = self.references[-1]
        gross = seq % 2 == 1
        id_ = derived_id(reference, "gross" if gross else "fee")
        payer, payee = (1, 2) if gross else (2, 3)
        previous = self.ids[-1] if self.ids else None
        self.ids.append(id_)
        return (
            *(self.book, id_, seq, self.account(payer), self.account(payee), 100 + seq),
            *(1, 1 if gross else 0, 1 if gross else 2, reference, None, previous, None),
            *(-seq, seq * 7, date(2026, 11, 21), date(2026, 11, 20), AT),
        )


@pytest.fixture
async def false_book(db: Db) -> FalseBook:
    book = FalseBook(db)
    await book.open()
    return book
