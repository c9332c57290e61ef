"""Short ways to write transfers with ids in order."""

from __future__ import annotations

from itertools import count
from uuid import UUID

from tests.ledger.drawing import FRONT
from tongbao.ledger.model import Group, Transfer, TransferKind

_numbers = count(1 << 40)


def new():
    return UUID(int=FRONT | next(_numbers))


REFERENCE = new()


def single(amount, debit, credit, **more):
    return Transfer(
        new(), TransferKind.SINGLE, "test/leg", REFERENCE, amount, debit, credit, **more
    )


def pending(amount, debit, credit, **more):
    return Transfer(
        new(), TransferKind.PENDING, "test/hold", REFERENCE, amount, debit, credit, **more
    )


def ending(kind, hold, amount=None, **more):
    return Transfer(new(), kind, "test/end", REFERENCE, amount, pending_id=hold.id, **more)


def post(hold, amount=None):
    return ending(TransferKind.POST, hold, amount)


def void(hold):
    return ending(TransferKind.VOID, hold)


def group(*transfers, id=None):  # noqa: A002 - the field's name
    """A group that its first transfer stands for, unless it has an id of its own."""
    return Group(id or (transfers[0].id if transfers else new()), 1, transfers)
