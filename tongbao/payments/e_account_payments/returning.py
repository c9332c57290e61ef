"""Where a refund goes of what an electronic account has paid, and taking what had to wait.

It goes back into the account, whatever freezes stand: it is the person's. An account that was
closed takes nothing, and one whose class has no room under its limit of balance may not; then the
money waits in an account of its own in the book, until the person takes it into any of theirs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import astuple

from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.db import Db, Write
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import MOVED_BEFORE, AccountKey, Group, GroupInFlight
from tongbao.ledger.rules import posting
from tongbao.parties.e_accounts import queries as e_accounts
from tongbao.parties.e_accounts.model import EAccount, EAccountMoved, EAccountStateWrong
from tongbao.parties.e_accounts.orders import Teller
from tongbao.payments.e_account_payments import _store as store
from tongbao.payments.e_account_payments.model import (
    RETURNED,
    EAccountRefund,
    ReturnNotFound,
    ReturnTaken,
    Whereabouts,
)

CHANGED: Final = frozenset({EAccountMoved.code, LimitExceeded.code})
"""Refusals that only say that the account had changed: placed once more, the refund goes."""
_TRIES_MAX: Final = 8


class Placed(Struct, frozen=True):
    """Where a refund goes, by which rule, and what else is written with it."""

    rule: str
    to: AccountKey
    writes: tuple[Write, ...]


class GivenBack(Struct, frozen=True):
    """A refund as this domain needs to know it."""

    book: int
    refund_id: UUID
    payment_id: UUID
    money: Money
    at: datetime


async def place(db: Db, account_id: UUID, given: GivenBack) -> Placed:
    """Return where money given back to an account goes, with the writes of the refund's commit.

    The writes refuse with one of `CHANGED` where the account is not any more as it was seen.
    """
    account = await e_accounts.account_with_id(db, account_id)
    made = await store.GET_PAYMENT.one(db, given.book, given.payment_id)
    code = await _why_not(db, account, given)
    state = Whereabouts.LANDED if code is None else Whereabouts.WAITING
    row = EAccountRefund(
        book=given.book,
        refund_id=given.refund_id,
        payment_id=given.payment_id,
        account_id=account.id,
        person_id=account.person_id,
        merchant_id=made.merchant_id,
        mode=account.mode,
        amount=given.money.amount,
        currency=given.money.currency,
        state=state,
        code=code,
        made_at=given.at,
        taken_at=None,
        taken_to=None,
    )
    kept = Write(store.INSERT_REFUND, astuple(row))
    if code is not None:
        return Placed("refund.by_e_account_waiting", row.key, (kept,))
    landing = await e_accounts.incoming_writes(
        db, account, given.money.amount, given.at, comes_back=True
    )
    return Placed("refund.by_e_account", account.key, (kept, *landing))


async def _why_not(db: Db, account: EAccount, given: GivenBack) -> str | None:
    """Return why an account does not take what is given back, or None when it does."""
    if account.closed_at is not None:
        return EAccountStateWrong.code
    try:
        await e_accounts.check_room(db, account, given.money.amount, given.at)
    except LimitExceeded as refusal:
        return refusal.code
    return None


async def take(teller: Teller, account: EAccount, refund_id: UUID) -> EAccountRefund:
    """Take money that waits into an account of the same person; again changes nothing.

    Raises:
        ReturnNotFound, ReturnTaken, EAccountStateWrong, EAccountFrozen, LimitExceeded,
        EAccountMoved, GroupInFlight
    """
    db = teller.db
    for _ in range(_TRIES_MAX):
        found = await store.GET_REFUND.first(db, account.book, refund_id)
        if found is None or (found.person_id, found.mode) != (account.person_id, account.mode):
            raise ReturnNotFound
        if found.taken_to == account.id:
            return found
        if found.state is not Whereabouts.WAITING:
            raise ReturnTaken
        account = await e_accounts.account_with_id(db, account.id)
        now = db.clock.now()
        account.check_takes()
        await e_accounts.check_room(db, account, found.amount, now)
        transfers = posting.transfers(
            "e_account.return_taken",
            reference=found.refund_id,
            accounts={RETURNED: found.key, "e_account": account.key},
            amounts={"amount": Money(found.amount, found.currency)},
        )
        taken = Write(store.TAKE, (found.book, found.refund_id, now, account.id), ReturnTaken.code)
        writes = await e_accounts.incoming_writes(db, account, found.amount, now, comes_back=False)
        failpoint("e_accounts.before_return_taken")
        # A group of its own: there may be room tomorrow. Row and transfer's id keep it to once.
        group = Group(new_id(), found.book, transfers, (taken, *writes))
        [result] = await teller.ledger.submit([group])
        failpoint("e_accounts.after_return_taken")
        if result.status == "in_flight":
            raise GroupInFlight
        if not result.happened and result.code not in {*CHANGED, *MOVED_BEFORE, ReturnTaken.code}:
            raise EAccountMoved(reason=result.code)
    raise EAccountMoved
