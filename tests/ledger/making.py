"""Short ways to write accounts, transfers and groups in tests."""

from __future__ import annotations

from uuid import UUID

from msgspec.structs import replace

from tongbao.infra.db import Query, Statement, Write
from tongbao.kernel.ids import derived_id, new_id
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
    return _move(TransferKind.SINGLE, "test/leg", amount, debit, credit, **more)


def pending(amount, debit, credit, **more):
    return _move(TransferKind.PENDING, "test/hold", amount, debit, credit, **more)


def _move(kind, code, amount, debit, credit, **more):
    reference = new_id()
    return Transfer(
        derived_id(reference, "leg"), kind, code, reference, amount, debit, credit, **more
    )


def post(hold, amount=None):
    return _end(hold, TransferKind.POST, "test/post", amount)


def void(hold):
    return _end(hold, TransferKind.VOID, "test/void")


def _end(hold, kind, code, amount=None):
    reference = new_id()
    return Transfer(derived_id(reference, "end"), kind, code, reference, amount, pending_id=hold.id)


def again(transfer, **changes):
    """The same transfer under an id of its own."""
    reference = new_id()
    return replace(transfer, id=derived_id(reference, "leg"), reference=reference, **changes)


def group(*transfers, book=1, companions=(), id=None):  # noqa: A002 - the field's name
    return Group(id or new_id(), book, transfers, tuple(companions))


def note(text, refusal=None, id=None):  # noqa: A002
    return Write(NOTE, (id or new_id(), text), refusal)


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
