"""Top-ups from and withdrawals to a bound card, over the bank: exactly once, and never guessed.

    top-up      meters take the amount ─► asked of the card's bank ─► it lands | nothing was taken
    withdrawal  the amount leaves the account ─► the bank is told ─► it is gone | it came back

A charge without an answer is taken back at the bank before the order fails (a card host knows no
inquiry); a payment without an answer is asked about, and repeated under its number only once the
bank says that it has none. An order ends once: each end is a compare-and-set on its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from tongbao.controls.limits.meters import check_counts, count_writes, give_back_writes
from tongbao.controls.limits.model import Count, LimitExceeded
from tongbao.infra import audit
from tongbao.infra.db import Db, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import (
    Again,
    Handler,
    Lease,
    RetryPolicy,
    Task,
    enqueue,
    first_task_write,
    task_write,
)
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import base32, derived_id, show
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Group, GroupInFlight, Transfer
from tongbao.ledger.rules import posting
from tongbao.parties.bound_cards.model import BindingOver, BoundCard
from tongbao.parties.bound_cards.moving import Asking, BankSaid, CardMoney, OverBank, opened
from tongbao.parties.bound_cards.queries import hold_write, let_go_write
from tongbao.parties.e_accounts import _store as store
from tongbao.parties.e_accounts.model import (
    BALANCE,
    IN_OTHERS,
    OUT_ALL,
    OUT_OTHERS,
    EAccount,
    EAccountLeg,
    EAccountMoved,
    EAccountOrder,
    NoBankThere,
    OrderState,
)
from tongbao.parties.e_accounts.orders import (
    REPEATED,
    Confirms,
    Teller,
    Wanted,
    drawn,
    order_of_request,
    order_row,
)
from tongbao.parties.notices.model import Notice, TellPerson
from tongbao.parties.people.model import PREFIX as PERSON

ABSENCE_IS_PROOF_AFTER: Final = timedelta(minutes=10)
"""What the bank does not know so long after it was sent is not on its way any more."""
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 15, 60, 300, 900, 3600))
_NOTICES: Final = {
    "e_account.landed": Notice.MONEY_IN,
    "e_account.left": Notice.MONEY_OUT,
    "e_account.came_back": Notice.ORDER_FAILED,
}
POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=_DELAYS)
"""Nobody gives up while money is on its way; a case for people is the delay that grows."""


class BankSilent(Rejected):
    """The bank did not answer, and the charge was taken back there; nothing was taken."""

    code = "e_account.bank_silent"
    advice = "Top up once more, with a new request_id, or use another card."
    advice_zh = "银行未答复，扣款已冲正。请使用新的 request_id 重试或更换银行卡。"


class BankRefused(Rejected):
    """The bank refused; what had left the account is in it again."""

    code = "e_account.bank_refused"
    advice = "Ask the card's bank, or use another card."
    advice_zh = "银行拒绝了该笔交易，资金未变动或已退回账户，请咨询发卡行或更换银行卡。"


class RunBankOrder(Task, frozen=True, tag="e_accounts.run_bank_order"):
    """Take the next step of an order over a bank."""

    book: int
    order_id: UUID


async def order_over_bank(
    teller: Teller,
    account: EAccount,
    card: BoundCard,
    wanted: Wanted,
    *,
    level: int,
    confirmed: Confirms,
) -> EAccountOrder:
    """Begin a top-up or a withdrawal; the same request again is answered with the same order.

    Raises:
        RequestDiffers, NoBankThere, EAccountStateWrong, EAccountFrozen, EAccountBalanceShort,
        LimitExceeded, EAccountMoved, BindingOver, ConfirmationUsed, GroupInFlight
    """
    new = drawn(account, wanted, level, teller.db.clock.now())
    known = await order_of_request(teller.db, new)
    if known is not None:
        return known
    rail = await means_of(teller).bank.rail_for(new.kind, new.mode)
    if rail is None:
        raise NoBankThere
    leg = EAccountLeg(new.book, new.id, card.id, rail, is_own(account.kind, card), 0, None, 0, "")
    try:
        if new.kind == "top_up":
            return await _begin_top_up(teller.db, account, new, leg, confirmed)
        return await _begin_withdrawal(teller, account, new, leg, confirmed)
    except (Conflict, Rejected, NotFound):
        known = await order_of_request(teller.db, new)
        if known is None:
            raise
        return known  # the same request a moment before: what it took stood against this one


def is_own(kind: str, card: BoundCard) -> bool:
    """Tell whether money of this card is one's own, so that only own-account rules count it.

    A payment account's cards are all of its person's name. Of a bank's classes II and III only
    the bound account of class I is unlimited (银发〔2016〕302号, 〔2018〕16号).
    """
    return kind.startswith("payment_") or card.account_class == 1


async def run_bank_order(teller: Teller, task: RunBankOrder, _lease: Lease) -> Again | None:
    """Take the next step of an order; return when to look again, or None at its end.

    Raises:
        GroupInFlight, EAccountMoved: and is tried again.
    """
    found = await store.GET_ORDER.one(teller.db, task.book, task.order_id)
    if found.state is not OrderState.WAITING:
        return None
    leg = await store.GET_LEG.one(teller.db, task.book, task.order_id)
    await store.COUNT_ASK.run(teller.db, leg.book, leg.order_id)
    step = _collect if found.kind == "top_up" else _pay_out
    if await step(teller, found, leg):
        return None
    return Again(_DELAYS[min(leg.asks, len(_DELAYS) - 1)])


# Beginning


async def _begin_top_up(
    db: Db, account: EAccount, new: EAccountOrder, leg: EAccountLeg, confirmed: Confirms
) -> EAccountOrder:
    """Write the order down; the meters take its amount now, so that it will have room to land."""
    counts = _counts(account, new, leg)
    await check_counts(db, counts, new.made_at)
    async with db.begin(show(PERSON, account.person_id)) as tx:
        locked = await store.LOCK_ACCOUNT.one(tx, account.book, account.id)
        locked.check_acts(tx.now)
        locked.check_takes()
        if not await store.INSERT_ORDER.run(tx, *order_row(new)):
            known = await order_of_request(tx, new)
            if known is not None:
                return known
        await confirmed.take(tx)
        for write in await count_writes(tx, counts, new.made_at):
            if not await write.run(tx):
                await check_counts(tx, counts, new.made_at)
                raise LimitExceeded(meter=BALANCE)
        if not await hold_write(leg.card_id, new.person_id).run(tx):
            raise BindingOver
        await store.INSERT_LEG.run(tx, *_leg_row(leg))
        await enqueue(tx, RunBankOrder(new.book, new.id), key=str(new.id))
        await audit.record(tx, "e_account.top_up_began", new.shown_id, {})
        failpoint("e_accounts.before_top_up_commit")
    return new


async def _begin_withdrawal(
    teller: Teller, account: EAccount, new: EAccountOrder, leg: EAccountLeg, confirmed: Confirms
) -> EAccountOrder:
    """Take the amount out of the account and write the order down, in one commit."""
    db, now, counts = teller.db, new.made_at, _counts(account, new, leg)

    async def check() -> None:
        row = await store.GET_ACCOUNT.one(db, account.book, account.id)
        row.check_gives(new.amount, now)
        await check_counts(db, counts, now)

    await check()
    companions = [
        *confirmed.writes(),
        Write(store.INSERT_ORDER, order_row(new), refusal=REPEATED),
        Write(store.MOVE, (new.book, new.account_id, -new.amount, now), refusal=EAccountMoved.code),
        *await count_writes(db, counts, now),
        hold_write(leg.card_id, new.person_id),
        Write(store.INSERT_LEG, _leg_row(leg)),
        first_task_write(RunBankOrder(new.book, new.id), run_at=now, key=str(new.id)),
    ]
    transfers = _transfers("e_account.leaving", new, leg)
    failpoint("e_accounts.before_withdrawal")
    [result] = await teller.ledger.submit([Group(new.id, new.book, transfers, tuple(companions))])
    failpoint("e_accounts.after_withdrawal")
    if result.happened:
        return new
    if result.status == "in_flight":
        raise GroupInFlight
    known = await order_of_request(db, new)
    if known is not None:
        return known  # the same request, a moment before
    if result.code == BindingOver.code:
        raise BindingOver
    await check()
    raise EAccountMoved(reason=result.code)


# Steps


async def _collect(teller: Teller, found: EAccountOrder, leg: EAccountLeg) -> bool:
    """Take the money from the card, or undo a taking that nobody answered; tell if it is over."""
    now, asked = teller.db.clock.now(), await _asked(teller, found, leg)
    if leg.sends > 1:
        return await _undo(teller, found, leg, asked)
    if not await store.SEND.run(teller.db, leg.book, leg.order_id, leg.sends, now):
        return False  # somebody else is at it
    if leg.sends == 1:  # asked for once, and the answer never came
        return await _undo(teller, found, leg, asked)
    failpoint("e_accounts.before_charge")
    said = await means_of(teller).bank.take(asked)
    failpoint("e_accounts.after_charge")
    if said.verdict == "done":
        return await _land(teller, found, leg, said)
    if said.verdict == "refused":
        return await _nothing_came(teller, found, leg, BankRefused.code, sends=1)
    return False


async def _undo(teller: Teller, found: EAccountOrder, leg: EAccountLeg, asked: OverBank) -> bool:
    said = await means_of(teller).bank.take_back(asked)
    failpoint("e_accounts.after_undo")
    sent_at = leg.sent_at or found.made_at
    is_gone = teller.db.clock.now() >= sent_at + ABSENCE_IS_PROOF_AFTER
    if said.verdict == "done" or (said.verdict == "absent" and is_gone):
        return await _nothing_came(teller, found, leg, BankSilent.code, sends=2)
    return False


async def _pay_out(teller: Teller, found: EAccountOrder, leg: EAccountLeg) -> bool:
    """Tell the bank to pay, or ask what became of it; tell if it is over."""
    now, asked = teller.db.clock.now(), await _asked(teller, found, leg)
    if leg.sends > 0:
        said = await means_of(teller).bank.ask_paid(asked)
        if said.verdict != "absent":
            return await _ended(teller, found, leg, said, sends=leg.sends)
    if not await store.SEND.run(teller.db, leg.book, leg.order_id, leg.sends, now):
        return False
    failpoint("e_accounts.before_payment")
    said = await means_of(teller).bank.pay(asked)
    failpoint("e_accounts.after_payment")
    if said.verdict == "refused" and leg.sends > 0:
        # A refusal of the repeat need not speak of the first.
        again = await means_of(teller).bank.ask_paid(asked)
        said = said if again.verdict in {"refused", "absent"} else again
    return await _ended(teller, found, leg, said, sends=leg.sends + 1)


async def _ended(
    teller: Teller, found: EAccountOrder, leg: EAccountLeg, said: BankSaid, *, sends: int
) -> bool:
    """End a payment by what the bank said of the last of so many sendings; tell if it is over.

    A refusal counts while nobody has sent again, and from then on nobody can.
    """
    account = await store.GET_ACCOUNT.one(teller.db, found.book, found.account_id)
    if said.verdict == "done":
        now = teller.db.clock.now()
        gone = await count_writes(teller.db, [Count(account.metered, BALANCE, -found.amount)], now)
        return await _end(teller, found, leg, "e_account.left", meters=gone, said=said)
    if said.verdict == "refused":
        back = give_back_writes(_counts(account, found, leg), found.made_at)
        row = (leg.book, leg.order_id, sends, teller.db.clock.now())
        last = Write(store.SEND, row, refusal=EAccountMoved.code)
        more = [last, *back]
        return await _end(
            teller, found, leg, "e_account.came_back", meters=more, said=said, sends=sends
        )
    return False


async def _land(teller: Teller, found: EAccountOrder, leg: EAccountLeg, said: BankSaid) -> bool:
    return await _end(teller, found, leg, "e_account.landed", meters=(), said=said, sends=1)


async def _nothing_came(
    teller: Teller, found: EAccountOrder, leg: EAccountLeg, code: str, *, sends: int
) -> bool:
    """Fail a top-up of which nothing was taken, and give its room back."""
    account = await store.GET_ACCOUNT.one(teller.db, found.book, found.account_id)
    async with teller.db.begin("e_accounts") as tx:
        args = (found.book, found.id, OrderState.FAILED, tx.now, code)
        if not await store.KEEP_REFERENCE.run(tx, found.book, found.id, sends, ""):
            return False  # another run is ahead of this one
        if not await store.END_ORDER.run(tx, *args):
            return True
        for write in give_back_writes(_counts(account, found, leg), found.made_at):
            await write.run(tx)
        await let_go_write(leg.card_id, found.person_id).run(tx)
        await audit.record(tx, "e_account.order_failed", found.shown_id, {"code": code})
        await enqueue(tx, TellPerson(found.person_id, Notice.ORDER_FAILED))
        failpoint("e_accounts.before_nothing_commit")
    return True


async def _end(
    teller: Teller,
    found: EAccountOrder,
    leg: EAccountLeg,
    rule: str,
    *,
    meters: Sequence[Write],
    said: BankSaid,
    sends: int | None = None,
) -> bool:
    """Post how an order ended, with everything that goes with it; a second time changes nothing."""
    now, comes = teller.db.clock.now(), rule != "e_account.left"
    state = OrderState.FAILED if rule == "e_account.came_back" else OrderState.DONE
    code = None if state is OrderState.DONE else BankRefused.code
    kept = (found.book, found.id, sends, said.reference[:64])
    land = (found.book, found.account_id, found.amount, now)
    companions = [
        Write(store.KEEP_REFERENCE, kept, refusal=EAccountMoved.code),
        Write(store.END_ORDER, (found.book, found.id, state, now, code), EAccountMoved.code),
        *([Write(store.LAND, land, refusal=EAccountMoved.code)] if comes else []),
        *meters,
        let_go_write(leg.card_id, found.person_id),
        task_write(TellPerson(found.person_id, _NOTICES[rule]), run_at=now),
    ]
    # What is refused stays so under its id, and a later sending may come back all the same.
    group_id = derived_id(found.id, rule if sends is None else f"{rule} {sends}")
    group = Group(group_id, found.book, _transfers(rule, found, leg), tuple(companions))
    failpoint("e_accounts.before_end")
    [result] = await teller.ledger.submit([group])
    failpoint("e_accounts.after_end")
    if result.happened:
        return True
    if result.status == "in_flight":
        raise GroupInFlight
    now_is = await store.GET_ORDER.one(teller.db, found.book, found.id)
    return now_is.state is not OrderState.WAITING


def _counts(account: EAccount, wanted: EAccountOrder, leg: EAccountLeg) -> list[Count]:
    """Return what an order adds to the meters when it begins.

    A top-up takes its room in the balance at once. A withdrawal leaves the balance's meter as it is
    until it is gone, so that what comes back always has room.
    """
    mine, amount = account.metered, wanted.amount
    if wanted.kind == "top_up":
        others = [] if leg.is_own else [Count(mine, IN_OTHERS, amount)]
        return [Count(mine, BALANCE, amount), *others]
    others = [] if leg.is_own else [Count(mine, OUT_OTHERS, amount)]
    return [Count(mine, OUT_ALL, amount), *others]


def _transfers(rule: str, found: EAccountOrder, leg: EAccountLeg) -> tuple[Transfer, ...]:
    accounts = {
        "e_account": AccountKey("e_account", found.currency, found.account_id),
        "channel_receivable": AccountKey("channel_receivable", found.currency, leg.rail_id),
    }
    return posting.transfers(
        rule,
        reference=found.id,
        accounts=accounts,
        amounts={"amount": Money(found.amount, found.currency)},
    )


async def _asked(teller: Teller, found: EAccountOrder, leg: EAccountLeg) -> OverBank:
    asking = Asking(
        base32(found.id),
        leg.rail_id,
        leg.card_id,
        Money(found.amount, found.currency),
        found.made_at,
        found.shown_id,
    )
    return await opened(teller.db, means_of(teller), asking)


def means_of(teller: Teller) -> CardMoney:
    """Return what money goes over cards with.

    Raises:
        NoBankThere
    """
    if teller.cards is None:
        raise NoBankThere
    return teller.cards


def _leg_row(leg: EAccountLeg) -> tuple[object, ...]:
    return (leg.book, leg.order_id, leg.card_id, leg.rail_id, leg.is_own)


def handlers(teller: Teller) -> dict[type[Task], Handler]:
    """Return who does the task of this module."""
    return {RunBankOrder: partial(run_bank_order, teller)}
