"""Short ways to write accounts, transfers and groups in tests."""

from __future__ import annotations

from uuid import UUID, uuid4

from tongbao.infra.db import Query, Statement, Write
from tongbao.ledger.model import AccountKey, Group, Transfer, TransferKind

BANK = AccountKey("bank", "CNY")
FEES = AccountKey("fee_income", "CNY")
ALICE = AccountKey("wallet", "CNY", UUID(int=0xA11CE))
BOB = AccountKey("wallet", "CNY", UUID(int=0xB0B))
MERCHANT = AccountKey("merchant_payable", "CNY", UUID(int=0x3E7C))

NOTE = Statement("insert into note (id, text) values ($1, $2) on conflict do nothing")
SPEND = Statement("update budget set spent = spent + $2 where id = $1 and spent + $2 <= total")
SPENT = Query(int, "select spent from budget where id = $1")
NOTES = Query(str, "select text from note order by text")


def single(amount, debit, credit, **more):
    return Transfer(
        uuid4(), TransferKind.SINGLE, "test/leg", uuid4(), amount, debit, credit, **more
    )


def pending(amount, debit, credit, **more):
    return Transfer(
        uuid4(), TransferKind.PENDING, "test/hold", uuid4(), amount, debit, credit, **more
    )


def post(hold, amount=None):
    return Transfer(uuid4(), TransferKind.POST, "test/post", uuid4(), amount, pending_id=hold.id)


def void(hold):
    return Transfer(uuid4(), TransferKind.VOID, "test/void", uuid4(), pending_id=hold.id)


def group(*transfers, book=1, companions=(), id=None):  # noqa: A002 - the field's name
    return Group(id or uuid4(), book, transfers, tuple(companions))


def note(text, refusal=None, id=None):  # noqa: A002
    return Write(NOTE, (id or uuid4(), text), refusal)


def spend(budget, amount):
    return Write(SPEND, (budget, amount), "test.over_budget")


async def a_calling_domain(db):
    """Make the tables of some domain that writes companions."""
    await db.pool.execute("create table note (id uuid primary key, text text not null)")
    await db.pool.execute("create table budget (id int primary key, total int, spent int)")
    await db.pool.execute("insert into budget values (1, 100, 0), (2, 100, 0)")


async def outcome(ledger, *transfers, **more):
    """Submit one group and return (status, code)."""
    [result] = await ledger.submit([group(*transfers, **more)])
    return result.status, result.code
