"""Routes of one's own electronic accounts: open, move money, see what is left and what was."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import get, post

from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.infra.web.request import InvalidValue
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.authentication.model import Act, ConfirmationUsed, StepUpRequired
from tongbao.parties.authentication.step_up import Confirmed, require_step_up
from tongbao.parties.bound_cards.model import PREFIX as CARD
from tongbao.parties.bound_cards.model import BindingOver, BoundCard, BoundCardNotFound
from tongbao.parties.bound_cards.queries import card_to_use
from tongbao.parties.e_accounts import batches, opening, orders, queries
from tongbao.parties.e_accounts.bank_orders import order_over_bank
from tongbao.parties.e_accounts.batches import BatchNotFound, BatchWrong
from tongbao.parties.e_accounts.model import (
    BATCH_PREFIX,
    ORDER_PREFIX,
    AccountsTooMany,
    EAccount,
    EAccountBalanceShort,
    EAccountBarred,
    EAccountBatch,
    EAccountClassUnknown,
    EAccountFrozen,
    EAccountMoved,
    EAccountNotEmpty,
    EAccountNotFound,
    EAccountOpeningBarred,
    EAccountOrder,
    EAccountStateWrong,
    NoBankThere,
    OrderNotFound,
    OrderOver,
    PayeeUnavailable,
    RealNameTooLow,
    RequestDiffers,
    ReverificationNeeded,
    RunAtWrong,
)
from tongbao.parties.e_accounts.model import (
    PREFIX as ACCOUNT,
)
from tongbao.parties.e_accounts.orders import Teller, Wanted
from tongbao.parties.people.sessions import current_person, holder_of
from tongbao.surfaces.wallet.desk import PREFIX, Desk, done_once, step_up, take
from tongbao.surfaces.wallet.e_account_wire import (
    BalanceView,
    EAccountBatchView,
    EAccountOrderView,
    EAccountView,
    LimitView,
    LineView,
    MoveMoney,
    OpenEAccount,
    SendBatch,
    SendMoney,
    other_side,
    view_account,
    view_batch,
    view_line,
    view_order,
)

_AT = f"{PREFIX}/e_accounts/{{account_id:str}}"
_OPENS = (EAccountClassUnknown, RealNameTooLow, AccountsTooMany, EAccountOpeningBarred)
_STEP_UP: tuple[Any, ...] = (StepUpRequired, ConfirmationUsed)
_MOVES: tuple[Any, ...] = (
    *(EAccountNotFound, EAccountStateWrong, EAccountFrozen, EAccountBalanceShort, EAccountMoved),
    *(LimitExceeded, RequestDiffers, AmountOutOfRange, UnknownCurrency, *_STEP_UP),
    *(BoundCardNotFound, BindingOver, EAccountBarred),
)


@post(f"{PREFIX}/e_accounts", opt=needs(SELF, refuses=[*_OPENS, *_STEP_UP]))
async def open_e_account(
    data: OpenEAccount, desk: Desk, licence: Licence, caller: DeviceCaller
) -> EAccountView:
    """Open an account of a class; it takes money once it is activated."""
    person = await current_person(desk.db, caller)
    act = f"e_account.open {data.account_class}"
    confirmed = await step_up(desk, caller, "security", act)
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        made = await opening.open_account(
            tx,
            licence,
            person,
            data.account_class,
            public_key=caller.current.key.der,
        )
    return view_account(made)


@get(f"{PREFIX}/e_accounts", opt=needs(SELF))
async def list_e_accounts(desk: Desk, caller: DeviceCaller) -> list[EAccountView]:
    """Return one's accounts, closed ones too."""
    found = await queries.accounts_of_person(desk.db, caller.mode, caller.current.person_id)
    return [view_account(each) for each in found]


@get(_AT, opt=needs(SELF, refuses=[EAccountNotFound]))
async def get_e_account(account_id: str, desk: Desk, caller: DeviceCaller) -> EAccountView:
    """Return one account."""
    return view_account(await _account(desk, caller, account_id))


@post(
    f"{_AT}/activate",
    status_code=200,
    opt=needs(
        SELF, refuses=[EAccountNotFound, EAccountStateWrong, ReverificationNeeded, *_STEP_UP]
    ),
)
async def activate_e_account(account_id: str, desk: Desk, caller: DeviceCaller) -> EAccountView:
    """Let an account take part, or wake it; one that slept only after a register agreed again."""
    account = await _account(desk, caller, account_id)
    confirmed = await step_up(desk, caller, "security", f"e_account.activate {account.shown_id}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        return view_account(await opening.activate(tx, account))


@post(
    f"{_AT}/close",
    status_code=200,
    opt=needs(SELF, refuses=[EAccountNotFound, EAccountNotEmpty, *_STEP_UP]),
)
async def close_e_account(account_id: str, desk: Desk, caller: DeviceCaller) -> EAccountView:
    """Close an account that is empty, not frozen, and has nothing waiting."""
    account = await _account(desk, caller, account_id)
    confirmed = await step_up(desk, caller, "security", f"e_account.close {account.shown_id}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        return view_account(await opening.close_account(tx, account))


@get(f"{_AT}/limits", opt=needs(SELF, refuses=[EAccountNotFound]))
async def list_e_account_limits(
    account_id: str, desk: Desk, caller: DeviceCaller
) -> list[LimitView]:
    """Return every limit of the law on one's accounts of this class, with what is left."""
    account = await _account(desk, caller, account_id)
    found = await queries.limits_of_account(desk.db, account, desk.db.clock.now())
    return [
        LimitView(
            meter=each.rule.meter,
            period=each.rule.period.value,
            currency=each.rule.currency,
            most=each.most,
            used=each.used,
            left=each.left,
            instrument=each.rule.instrument,
        )
        for each in found
    ]


@get(f"{_AT}/statement", opt=needs(SELF, refuses=[EAccountNotFound]))
async def list_e_account_lines(
    account_id: str,
    desk: Desk,
    caller: DeviceCaller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[LineView]:
    """Return what was moved, newest first, each with the balance after it."""
    account = await _account(desk, caller, account_id)
    page = await queries.statement_of(desk.db, account, cursor=cursor, limit=limit)
    return Page([view_line(each) for each in page.items], page.next_cursor)


@get(f"{_AT}/balance", opt=needs(SELF, refuses=[EAccountNotFound]))
async def get_e_account_balance(
    account_id: str, desk: Desk, caller: DeviceCaller, *, at: datetime | None = None
) -> BalanceView:
    """Return what the account holds, or held at a moment of the past."""
    account, now = await _account(desk, caller, account_id), desk.db.clock.now()
    moment = at or now
    if moment.tzinfo is None:
        raise InvalidValue(param="at", reason="a moment says its zone")
    moment = max(min(moment, now), account.opened_at)  # nothing was there before
    past = await queries.balance_then(desk.db, account, moment)
    return BalanceView(
        object="e_account_balance",
        account_id=account.shown_id,
        at=moment,
        balance=past.posted,
        currency=account.currency,
    )


@post(f"{_AT}/top_ups", opt=needs(SELF, refuses=[NoBankThere, *_MOVES]))
async def top_up_e_account(
    account_id: str, data: MoveMoney, desk: Desk, teller: Teller, caller: DeviceCaller
) -> EAccountOrderView:
    """Put money in from a bank card; the order waits until the card's bank has said its word."""
    money = positive(data.amount, data.currency)
    account = await _account(desk, caller, account_id)
    card = await _card(desk, caller, data)
    if card is None:
        wanted = Wanted("top_up", money, data.request_id)
        done = await orders.order(teller, account, wanted, level=0, confirmed=Confirmed(None))
        return view_order(done)
    wanted = Wanted("top_up", money, data.request_id, card=card.id)
    return await place_order(desk, teller, caller, account, wanted, card=card)


@post(f"{_AT}/withdrawals", opt=needs(SELF, refuses=[NoBankThere, *_MOVES]))
async def withdraw_from_e_account(
    account_id: str, data: MoveMoney, desk: Desk, teller: Teller, caller: DeviceCaller
) -> EAccountOrderView:
    """Take money out to a bank card; it leaves the account now, and comes back if it must."""
    money = positive(data.amount, data.currency)
    account = await _account(desk, caller, account_id)
    card = await _card(desk, caller, data)
    wanted = Wanted("withdrawal", money, data.request_id, card=card.id if card else None)
    return await place_order(desk, teller, caller, account, wanted, card=card)


@post(f"{_AT}/transfers", opt=needs(SELF, refuses=[PayeeUnavailable, RunAtWrong, *_MOVES]))
async def send_from_e_account(
    account_id: str, data: SendMoney, desk: Desk, teller: Teller, caller: DeviceCaller
) -> EAccountOrderView:
    """Send money to another account; what is to be confirmed names this amount and this payee."""
    money = positive(data.amount, data.currency)
    if data.run_at is not None and data.run_at.tzinfo is None:
        raise RunAtWrong(param="$.run_at")
    account = await _account(desk, caller, account_id)
    wanted = Wanted(
        "transfer",
        money,
        data.request_id,
        parse(ACCOUNT, data.payee),
        data.timing,
        data.run_at,
    )
    return await place_order(desk, teller, caller, account, wanted)


@post(f"{_AT}/batches", opt=needs(SELF, refuses=[BatchWrong, RunAtWrong, *_MOVES]))
async def send_batch_from_e_account(
    account_id: str, data: SendBatch, desk: Desk, caller: DeviceCaller
) -> EAccountBatchView:
    """Send to many accounts at once; what is to be confirmed names the sum and every payee."""
    if data.run_at is not None and data.run_at.tzinfo is None:
        raise RunAtWrong(param="$.run_at")
    items = tuple(
        batches.Item(parse(ACCOUNT, each.payee), positive(each.amount, data.currency).amount)
        for each in data.items
    )
    wanted = batches.WantedBatch(data.request_id, items, data.currency, data.timing, data.run_at)
    account = await _account(desk, caller, account_id)

    async def send() -> EAccountBatch:
        batches.check_batch(account, wanted)
        holder = await holder_of(desk.db, desk.checks.keyring, caller)
        act = Act(
            "transfer",
            f"batch {account.shown_id} {wanted.request_id} {wanted.digest.hex()}",
            positive(wanted.amount, data.currency).amount,
            data.currency,
            wanted.payees,
            await orders.weak_total(desk.db, account, wanted.amount),
        )
        confirmed = await require_step_up(desk.checks, holder, act)
        level = confirmed.level
        return await batches.send_batch(desk.db, account, wanted, level=level, confirmed=confirmed)

    made = await done_once(lambda: batches.known_batch(desk.db, account, wanted), send)
    return view_batch(made, await batches.progress_of(desk.db, made))


@get(f"{_AT}/batches/{{batch_id:str}}", opt=needs(SELF, refuses=[EAccountNotFound, BatchNotFound]))
async def get_e_account_batch(
    account_id: str, batch_id: str, desk: Desk, caller: DeviceCaller
) -> EAccountBatchView:
    """Return a batch and how far it has come."""
    found = await _batch(desk, caller, account_id, batch_id)
    return view_batch(found, await batches.progress_of(desk.db, found))


@get(
    f"{_AT}/batches/{{batch_id:str}}/orders",
    opt=needs(SELF, refuses=[EAccountNotFound, BatchNotFound]),
)
async def list_e_account_batch_orders(
    account_id: str,
    batch_id: str,
    desk: Desk,
    caller: DeviceCaller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[EAccountOrderView]:
    """Return the orders of a batch in the order of its items; a failed one says why."""
    found = await _batch(desk, caller, account_id, batch_id)
    page = await batches.orders_of_batch(desk.db, found, cursor=cursor, limit=limit)
    return Page([view_order(each) for each in page.items], page.next_cursor)


@post(
    f"{_AT}/batches/{{batch_id:str}}/cancel",
    status_code=200,
    opt=needs(SELF, refuses=[EAccountNotFound, BatchNotFound]),
)
async def cancel_e_account_batch(
    account_id: str, batch_id: str, desk: Desk, caller: DeviceCaller
) -> EAccountBatchView:
    """Take back every order of a batch that has not run."""
    found = await _batch(desk, caller, account_id, batch_id)
    async with desk.db.begin(caller.actor) as tx:
        await batches.cancel_batch(tx, found)
    return view_batch(found, await batches.progress_of(desk.db, found))


@get(f"{_AT}/orders", opt=needs(SELF, refuses=[EAccountNotFound]))
async def list_e_account_orders(
    account_id: str,
    desk: Desk,
    caller: DeviceCaller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[EAccountOrderView]:
    """Return what was ordered of an account, newest first."""
    account = await _account(desk, caller, account_id)
    page = await queries.orders_of_account(desk.db, account, cursor=cursor, limit=limit)
    return Page([view_order(each) for each in page.items], page.next_cursor)


@get(f"{_AT}/orders/{{order_id:str}}", opt=needs(SELF, refuses=[EAccountNotFound, OrderNotFound]))
async def get_e_account_order(
    account_id: str, order_id: str, desk: Desk, caller: DeviceCaller
) -> EAccountOrderView:
    """Return one order, and why it failed if it did."""
    account = await _account(desk, caller, account_id)
    wanted = parse(ORDER_PREFIX, order_id)
    return view_order(await queries.order_of_account(desk.db, account, wanted))


@post(
    f"{_AT}/orders/{{order_id:str}}/cancel",
    status_code=200,
    opt=needs(SELF, refuses=[EAccountNotFound, OrderNotFound, OrderOver]),
)
async def cancel_e_account_order(
    account_id: str, order_id: str, desk: Desk, caller: DeviceCaller
) -> EAccountOrderView:
    """Take back an order that waits; one that has run stays."""
    account = await _account(desk, caller, account_id)
    async with desk.db.begin(caller.actor) as tx:
        wanted = parse(ORDER_PREFIX, order_id)
        found = await queries.order_of_account(tx, account, wanted)
        return view_order(await orders.cancel(tx, found))


ROUTES = [
    open_e_account,
    list_e_accounts,
    get_e_account,
    activate_e_account,
    close_e_account,
    list_e_account_limits,
    list_e_account_lines,
    get_e_account_balance,
    top_up_e_account,
    withdraw_from_e_account,
    send_from_e_account,
    send_batch_from_e_account,
    get_e_account_batch,
    list_e_account_batch_orders,
    cancel_e_account_batch,
    list_e_account_orders,
    get_e_account_order,
    cancel_e_account_order,
]


async def _account(desk: Desk, caller: DeviceCaller, account_id: str) -> EAccount:
    wanted = parse(ACCOUNT, account_id)
    return await queries.account_of_person(desk.db, caller.mode, caller.current.person_id, wanted)


async def _batch(desk: Desk, caller: DeviceCaller, account_id: str, batch_id: str) -> EAccountBatch:
    account = await _account(desk, caller, account_id)
    return await batches.batch_of_account(desk.db, account, parse(BATCH_PREFIX, batch_id))


async def _card(desk: Desk, caller: DeviceCaller, data: MoveMoney) -> BoundCard | None:
    """Return the card that money goes over: the one that is named, or in live mode the default."""
    if data.card is None and caller.mode is Mode.SANDBOX:
        return None
    named = None if data.card is None else parse(CARD, data.card)
    return await card_to_use(desk.db, caller.current.person_id, caller.mode, named)


async def place_order(
    desk: Desk,
    teller: Teller,
    caller: DeviceCaller,
    account: EAccount,
    wanted: Wanted,
    *,
    card: BoundCard | None = None,
) -> EAccountOrderView:
    """Do what moves money, confirmed as strongly as amount, day, risk and phone ask for.

    Raises:
        StepUpRequired, ConfirmationUsed, and what `order` and `order_over_bank` raise
    """

    async def place() -> EAccountOrder:
        confirmed = await _confirmed(desk, caller, account, wanted)
        level = confirmed.level
        if card is not None:
            return await order_over_bank(
                teller, account, card, wanted, level=level, confirmed=confirmed
            )
        return await orders.order(teller, account, wanted, level=level, confirmed=confirmed)

    return view_order(await done_once(lambda: orders.known_order(desk.db, account, wanted), place))


async def _confirmed(
    desk: Desk, caller: DeviceCaller, account: EAccount, wanted: Wanted
) -> Confirmed:
    """Return the right to move exactly this once.

    Raises:
        StepUpRequired
    """
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    amount = wanted.money.amount
    when = wanted.run_at.isoformat() if wanted.run_at else wanted.timing
    bank = "own bank" if wanted.card is None else show(CARD, wanted.card)
    act = Act(
        "transfer",
        f"{wanted.kind} {account.shown_id} {wanted.request_id} {when}",
        amount,
        wanted.money.currency,
        other_side(wanted.kind, wanted.payee) or bank,
        await orders.weak_total(desk.db, account, amount),
    )
    return await require_step_up(desk.checks, holder, act)
