"""Books spread over plain databases, each with its posters: as near to a cluster as we get here.

What Citus adds, routing a statement to the machine of its book, is not run; that each book needs
nothing from any other is.
"""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from tongbao.infra.db import Db
from tongbao.infra.db_failures import DatabaseUnavailable
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify

BANK = AccountKey("bank", "CNY")
PEOPLE = [AccountKey("wallet", "CNY", UUID(int=0x1000 + number)) for number in range(20)]
BOOKS = {0: (11, 14), 1: (12, 15), 2: (13, 16)}
"""Which database has which books, as a cluster's shards would."""


def move(book: int, amount: int, debit: AccountKey, credit: AccountKey) -> Group:
    reference = new_id()
    leg = derived_id(reference, "leg")
    moved = Transfer(leg, TransferKind.SINGLE, "test/leg", reference, amount, debit, credit)
    return Group(leg, book, (moved,))


@pytest.fixture
async def machines(make_db) -> list[Db]:
    return [await make_db() for _ in BOOKS]


async def test_books_on_three_databases_are_written_at_once_and_each_proves_alone(
    machines: list[Db],
) -> None:
    ledgers = [Ledger(db, Licence.PAYMENT_INSTITUTION) for db in machines]
    for number, ledger in enumerate(ledgers):
        for book in BOOKS[number]:
            await ledger.open_book(book, actor="tests")
    chance = random.Random(7)

    async def caller(number: int, book: int) -> int:
        created = 0
        for _ in range(15):
            payer, payee = chance.sample(PEOPLE, 2)
            results = await ledgers[number].submit(
                [move(book, 100, BANK, payer), move(book, chance.randint(1, 150), payer, payee)]
            )
            created += sum(result.happened for result in results)
        return created

    where = [(number, book) for number, books in BOOKS.items() for book in books]
    counted = await asyncio.gather(*(caller(*each) for each in where for _ in range(3)))

    transfers = 0
    for number, db in enumerate(machines):
        for book in BOOKS[number]:
            held = [await balance_of(db, book, each) for each in PEOPLE]
            bank = await balance_of(db, book, BANK)
            assert sum(each.posted for each in held) == bank.posted > 0
            transfers += await db.pool.fetchval(
                "select last_seq from ledger_book where book = $1", book
            )
        report = await verify(db)
        assert report.is_sound, report.broken
        assert {check.book for check in report.checks} >= set(BOOKS[number])
    assert transfers == sum(counted)
    for ledger in ledgers:
        await ledger.close()


async def test_a_machine_that_is_gone_stops_its_own_books_only(machines: list[Db]) -> None:
    first, second = (Ledger(db, Licence.PAYMENT_INSTITUTION) for db in machines[:2])
    await first.open_book(11, actor="tests")
    await second.open_book(12, actor="tests")
    await machines[0].close()

    with pytest.raises(DatabaseUnavailable):
        await first.submit([move(11, 5, BANK, PEOPLE[0])])
    [result] = await second.submit([move(12, 5, BANK, PEOPLE[0])])

    assert result.status == "created"
    await second.close()
