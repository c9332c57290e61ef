"""Short ways to fund accounts and look at both sides of a movement."""

from __future__ import annotations

from tests.ledger.making import BANK, group, single
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import Group, Transfer, TransferKind
from tongbao.ledger.movements.model import MoveOrder
from tongbao.ledger.queries import balance_of


def order(payer, payee, amount, *, book=1, to_book=2, reference=None, **more):
    money = Money(amount, payer.currency)
    return MoveOrder(book, payer, to_book, payee, money, reference or new_id(), **more)


async def fund(ledger: Ledger, key, amount, *, book=1):
    reference = new_id()
    leg = Transfer(
        derived_id(reference, "fund"),
        TransferKind.SINGLE,
        "test/fund",
        reference,
        amount,
        BANK,
        key,
    )
    [result] = await ledger.submit([Group(leg.id, book, (leg,))])
    assert result.happened


async def posted(db, key, *, book=1):
    return (await balance_of(db, book, key)).posted


async def pay(ledger, debit, credit, amount, *, book=1):
    """Submit one ordinary transfer."""
    [result] = await ledger.submit([group(single(amount, debit, credit), book=book)])
    return result
