"""Top up, withdraw and transfer: at once in one ledger commit, or later by a task, once.

An order that runs now is one group: the confirmation is taken, the order written, both accounts and
all meters moved, and the money posted, or none of it. One for later is written first and moves
nothing; its task submits the same group under the order's id, so a second run finds it done. What
is refused then is refused for ever: the order fails and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.controls.limits.meters import check_counts, count_writes, used_today
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Handler, Lease, RetryPolicy, Task, cancel_write, enqueue
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, GroupInFlight, Transfer
from tongbao.ledger.rules import posting
from tongbao.parties.bound_cards.moving import CardMoney
from tongbao.parties.e_accounts import _store as store
from tongbao.parties.e_accounts import freezes
from tongbao.parties.e_accounts.model import (
    COMES_IN,
    SCHEDULED_MAX,
    WALLET_KINDS,
    WEAK_TWO,
    EAccount,
    EAccountBarred,
    EAccountMoved,
    EAccountOrder,
    NoBankThere,
    OrderKind,
    OrderOver,
    OrderState,
    PayeeUnavailable,
    RequestDiffers,
    RunAtWrong,
    Timing,
    counts_of,
)
from tongbao.parties.e_accounts.opening import DORMANT_POLICY, FindDormant, run_find_dormant
from tongbao.parties.notices.model import Notice, TellPerson
from tongbao.parties.notices.telling import money_moved
from tongbao.parties.people.model import PREFIX as PERSON

ORDER_POLICY: Final = RetryPolicy(
    attempts_max=200, delays=tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 3600))
)
REPEATED: Final = "e_account.request_repeated"
_RULES: Final = {
    "top_up": "e_account.topped_up",
    "withdrawal": "e_account.withdrawn",
    "transfer": "e_account.transferred",
    "from_wallet": "e_account.came_from_wallet",
    "to_wallet": "e_account.went_to_wallet",
}


class OwnWallets(Protocol):
    """The wallets that people have made their own; wiring says whose they are."""

    async def check(self, on: Db | Tx, wanted: EAccountOrder, now: datetime) -> None:
        """Raise what stands against the wallet's side of an order."""

    async def writes(self, on: Db | Tx, wanted: EAccountOrder, now: datetime) -> tuple[Write, ...]:
        """Return what the order's commit writes of the wallet, if it still is its person's."""


class Teller(Struct, frozen=True):
    """What money is moved with; ``cards`` None: nothing goes over bank cards.

    ``wallets`` None: nothing goes to or comes from wallets.
    """

    db: Db
    ledger: Ledger
    cards: CardMoney | None = None
    wallets: OwnWallets | None = None


class Confirms(Protocol):
    """What lets an order be done once: a person's confirmation, or a card of theirs."""

    def writes(self) -> tuple[Write, ...]:
        """Return the writes that use it up, in the order's own commit."""

    async def take(self, tx: Tx) -> None:
        """Use it up in the caller's transaction."""


class RunOrder(Task, frozen=True, tag="e_accounts.run_order"):
    """Run an order whose time has come."""

    book: int
    order_id: UUID


class Wanted(Struct, frozen=True):
    """What somebody wants moved. ``payee`` and ``run_at`` are given where the kind has them.

    ``payee`` of an order with a wallet is the wallet, on whichever side it is.
    """

    kind: OrderKind
    money: Money
    request_id: str
    payee: UUID | None = None
    timing: Timing = "now"
    run_at: datetime | None = None
    card: UUID | None = None


async def order(
    teller: Teller, account: EAccount, wanted: Wanted, *, level: int, confirmed: Confirms
) -> EAccountOrder:
    """Do what is wanted, now or later; the same request again is answered with the same order.

    Raises:
        RequestDiffers, RunAtWrong, NoBankThere, PayeeUnavailable, EAccountStateWrong,
        EAccountFrozen, EAccountBalanceShort, LimitExceeded, EAccountMoved, ConfirmationUsed,
        GroupInFlight, WalletNotFound, WalletFrozen, DailyLimitExceeded, WalletShort
    """
    now = teller.db.clock.now()
    new = drawn(account, wanted, level, now)
    known = await order_of_request(teller.db, new)
    if known is not None:
        return known
    if new.timing == "scheduled" and not now < new.run_at <= now + SCHEDULED_MAX:
        raise RunAtWrong(param="$.run_at")
    begin = _order_now if new.timing == "now" else _order_later
    try:
        return await begin(teller, account, new, confirmed)
    except (Conflict, Rejected, NotFound):
        known = await order_of_request(teller.db, new)
        if known is None:
            raise
        return known  # the same request a moment before: what it moved stood against this one


async def order_of_request(on: Db | Tx, wanted: EAccountOrder) -> EAccountOrder | None:
    """Return the order that this request has made before, if it has.

    Raises:
        RequestDiffers
    """
    key = (wanted.book, wanted.account_id, wanted.request_id)
    known = await store.ORDER_OF_REQUEST.first(on, *key)
    if known is not None and not known.is_the_same(wanted):
        raise RequestDiffers(order=known.shown_id)
    return known


async def known_order(db: Db, account: EAccount, wanted: Wanted) -> EAccountOrder | None:
    """Return the order that a request has made before, so that nothing is to be confirmed twice.

    Raises:
        RequestDiffers, RunAtWrong
    """
    return await order_of_request(db, drawn(account, wanted, 0, db.clock.now()))


async def weak_total(db: Db, account: EAccount, amount: int) -> int:
    """Return what today's payments without a certificate come to with this one, in minor units.

    43号 第二十四条 counts the day and not the payment.
    """
    return amount + await used_today(db, account.metered, WEAK_TWO, db.clock.now())


async def cancel(tx: Tx, found: EAccountOrder) -> EAccountOrder:
    """Take back an order that has not run; again changes nothing.

    Raises:
        OrderOver
    """
    if found.state is OrderState.CANCELLED:
        return found
    if found.card_id is not None:
        raise OrderOver(status=found.state.value)  # the bank was asked
    ended = await store.END_ORDER.run(tx, found.book, found.id, OrderState.CANCELLED, tx.now, None)
    if not ended:
        now_is = await store.GET_ORDER.one(tx, found.book, found.id)
        if now_is.state is OrderState.CANCELLED:
            return now_is
        raise OrderOver(status=now_is.state.value)
    await cancel_write(RunOrder, str(found.id)).run(tx)
    await audit.record(tx, "e_account.order_cancelled", found.shown_id, {})
    return await store.GET_ORDER.one(tx, found.book, found.id)


async def run_order(teller: Teller, task: RunOrder, _lease: Lease) -> Again | None:
    """Run an order, once: what a run before this one has done is found done.

    Raises:
        GroupInFlight: and is tried again.
    """
    found = await store.GET_ORDER.one(teller.db, task.book, task.order_id)
    if found.state is not OrderState.WAITING:
        return None
    now = teller.db.clock.now()
    if now < found.run_at:
        return Again(found.run_at - now)
    code = await _try_later_order(teller, found, now)
    if code is not None:
        async with teller.db.begin("e_accounts") as tx:
            args = (found.book, found.id, OrderState.FAILED, tx.now, code)
            if await store.END_ORDER.run(tx, *args):
                await audit.record(tx, "e_account.order_failed", found.shown_id, {"code": code})
                await enqueue(tx, TellPerson(found.person_id, Notice.ORDER_FAILED))
            failpoint("e_accounts.before_failure_commit")
    return None


async def _try_later_order(teller: Teller, found: EAccountOrder, now: datetime) -> str | None:
    """Submit an order's group and return why it was refused, or None when it happened."""
    account = await store.GET_ACCOUNT.one(teller.db, found.book, found.account_id)
    ends = Write(
        store.END_ORDER, (found.book, found.id, OrderState.DONE, now, None), OrderOver.code
    )
    try:
        group = await _group(teller, account, found, [ends], now)
    except (PayeeUnavailable, NotFound) as refusal:
        return refusal.code
    failpoint("e_accounts.before_later_order")
    [result] = await teller.ledger.submit([group])
    failpoint("e_accounts.after_later_order")
    if result.happened:
        return None
    if result.status == "in_flight":
        raise GroupInFlight
    return await _reason(teller, account, found, result.code, now)


async def _reason(
    teller: Teller, account: EAccount, found: EAccountOrder, code: str | None, now: datetime
) -> str:
    """Return the code that says most about a refusal."""
    try:
        await _check(teller, account.id, found, now)
    except (Conflict, Rejected, NotFound) as refusal:
        return refusal.code
    return code or EAccountMoved.code


async def _order_now(
    teller: Teller, account: EAccount, new: EAccountOrder, confirmed: Confirms
) -> EAccountOrder:
    db, now = teller.db, new.made_at
    await _check(teller, account.id, new, now)
    done = replace(new, state=OrderState.DONE, ended_at=now)
    first = [*confirmed.writes(), Write(store.INSERT_ORDER, order_row(done), refusal=REPEATED)]
    group = await _group(teller, account, new, first, now)
    failpoint("e_accounts.before_order")
    [result] = await teller.ledger.submit([group])
    failpoint("e_accounts.after_order")
    if result.happened:
        return done
    if result.status == "in_flight":
        raise GroupInFlight
    known = await order_of_request(db, new)
    if known is not None:
        return known  # the same request, a moment before
    await _check(teller, account.id, new, now)
    raise EAccountMoved(reason=result.code)


async def _order_later(
    teller: Teller, account: EAccount, new: EAccountOrder, confirmed: Confirms
) -> EAccountOrder:
    async with teller.db.begin(show(PERSON, account.person_id)) as tx:
        locked = await store.LOCK_ACCOUNT.one(tx, account.book, account.id)
        if new.kind in COMES_IN:
            locked.check_acts(tx.now)
            locked.check_takes()
        else:
            locked.check_gives(0, tx.now)
        await _wallet_writes(teller, tx, new, tx.now)  # a wallet is the person's, or nothing waits
        if not await store.INSERT_ORDER.run(tx, *order_row(new)):
            known = await order_of_request(tx, new)
            if known is not None:
                return known
        await confirmed.take(tx)
        task = RunOrder(new.book, new.id)
        await enqueue(tx, task, run_at=new.run_at, key=str(new.id))
        await audit.record(tx, "e_account.order_waits", new.shown_id, {"timing": new.timing})
        failpoint("e_accounts.before_later_commit")
    return new


async def _check(teller: Teller, account_id: UUID, wanted: EAccountOrder, now: datetime) -> None:
    """Raise what stands against an order now; what nothing is said of may still be refused.

    Raises:
        NoBankThere, PayeeUnavailable, EAccountStateWrong, EAccountFrozen, EAccountBalanceShort,
        LimitExceeded, WalletNotFound, WalletFrozen, WalletShort
    """
    db = teller.db
    account = await store.GET_ACCOUNT.one(db, wanted.book, account_id)
    if wanted.kind in {"top_up", "withdrawal"} and wanted.mode is not Mode.SANDBOX:
        raise NoBankThere
    if teller.wallets is not None and wanted.kind in WALLET_KINDS:
        await teller.wallets.check(db, wanted, now)
    if wanted.kind in COMES_IN:
        account.check_acts(now)
        account.check_takes()
    else:
        account.check_gives(wanted.amount, now)
    payee = await _payee(db, wanted)
    if payee is None:
        await check_counts(db, counts_of(account, wanted, None), now)
        return
    try:
        payee.check_takes()
        theirs = [each for each in counts_of(account, wanted, payee) if each.of == payee.metered]
        if payee.metered != account.metered:
            await check_counts(db, theirs, now)
    except (Conflict, Rejected):
        if payee.person_id == account.person_id:
            raise  # their own: they hear which rule it is, and what is left of it
        raise PayeeUnavailable from None  # what stands against others is nobody's business
    mine = [each for each in counts_of(account, wanted, payee) if each.of == account.metered]
    await check_counts(db, mine, now)


async def _payee(on: Db | Tx, wanted: EAccountOrder) -> EAccount | None:
    """Return the account that a transfer goes to; of no other kind is there one.

    Raises:
        PayeeUnavailable
    """
    if wanted.kind != "transfer":
        return None
    if wanted.payee_id is None or wanted.payee_id == wanted.account_id:
        raise PayeeUnavailable
    found = await store.GET_ACCOUNT.first(on, wanted.book, wanted.payee_id)
    if found is None or found.mode is not wanted.mode or found.currency != wanted.currency:
        raise PayeeUnavailable
    return found


async def _group(
    teller: Teller,
    account: EAccount,
    wanted: EAccountOrder,
    first: Sequence[Write],
    now: datetime,
) -> Group:
    """Return everything that an order does, as one group under its id."""
    db, payee = teller.db, await _payee(teller.db, wanted)
    change = wanted.amount if wanted.kind in COMES_IN else -wanted.amount
    moves = [(account.id, change)]
    if wanted.kind == "transfer" and wanted.payee_id is not None:
        moves.append((wanted.payee_id, wanted.amount))
    # What goes out is looked at by its own movement.
    may_act = Write(store.MAY_ACT, (wanted.book, account.id, now), refusal=EAccountBarred.code)
    companions = [
        *first,
        *await _wallet_writes(teller, db, wanted, now),
        *([may_act] if wanted.kind in COMES_IN else ()),
        *(
            Write(store.MOVE, (wanted.book, each, by, now), refusal=EAccountMoved.code)
            for each, by in sorted(moves)
        ),
        *await count_writes(db, counts_of(account, wanted, payee), now),
        *money_moved(account.person_id, change, now, payee=payee.person_id if payee else None),
    ]
    return Group(wanted.id, wanted.book, _transfers(account, wanted, payee), tuple(companions))


async def _wallet_writes(
    teller: Teller, on: Db | Tx, wanted: EAccountOrder, now: datetime
) -> tuple[Write, ...]:
    """Return what an order writes of the wallet on its other side, if it has one.

    Raises:
        WalletNotFound
    """
    if wanted.kind not in WALLET_KINDS:
        return ()
    if teller.wallets is None:
        raise NoBankThere
    return await teller.wallets.writes(on, wanted, now)


def _transfers(
    account: EAccount, wanted: EAccountOrder, payee: EAccount | None
) -> tuple[Transfer, ...]:
    accounts = {"e_account": account.key, "sending_account": account.key}
    if payee is not None:
        accounts["receiving_account"] = payee.key
    if wanted.kind in WALLET_KINDS:
        accounts["wallet"] = AccountKey("wallet", wanted.currency, wanted.payee_id)
    money = Money(wanted.amount, wanted.currency)
    return posting.transfers(
        _RULES[wanted.kind], reference=wanted.id, accounts=accounts, amounts={"amount": money}
    )


def drawn(account: EAccount, wanted: Wanted, level: int, now: datetime) -> EAccountOrder:
    """Return an order as it is written down.

    Raises:
        RunAtWrong
    """
    if (wanted.timing == "scheduled") != (wanted.run_at is not None):
        raise RunAtWrong(param="$.run_at")
    run_at = wanted.run_at or now
    if wanted.timing == "next_day":
        run_at = day_bounds(business_date(now))[1]
    return EAccountOrder(
        book=account.book,
        id=new_id(),
        account_id=account.id,
        person_id=account.person_id,
        mode=account.mode,
        kind=wanted.kind,
        payee_id=wanted.payee,
        amount=wanted.money.amount,
        currency=wanted.money.currency,
        request_id=wanted.request_id,
        timing=wanted.timing,
        run_at=run_at,
        level=level,
        state=OrderState.WAITING,
        code=None,
        made_at=now,
        ended_at=None,
        card_id=wanted.card,
    )


def order_row(new: EAccountOrder) -> tuple[object, ...]:
    """Return an order's values in the order of its insert."""
    return (
        *(new.book, new.id, new.account_id, new.person_id, new.mode, new.kind, new.payee_id),
        *(new.amount, new.currency, new.request_id, new.timing, new.run_at, new.level, new.state),
        *(new.made_at, new.ended_at, new.card_id, new.batch_id),
    )


POLICIES: Final[Mapping[type[Task], RetryPolicy]] = {
    RunOrder: ORDER_POLICY,
    FindDormant: DORMANT_POLICY,
    freezes.MindFreeze: freezes.MIND_POLICY,
}
"""How often each task of this domain is tried."""


def handlers(teller: Teller) -> Mapping[type[Task], Handler]:
    """Return who does each task of this domain."""
    return {
        RunOrder: partial(run_order, teller),
        FindDormant: partial(run_find_dormant, teller.db),
        **freezes.handlers(teller.db),
    }
