"""Routes of one's own electronic accounts: open, move money, see what is left and what was."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import get, post
from msgspec import Meta, Struct

from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.infra.web.request import AmountField, CurrencyField, InvalidValue
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.ledger.queries import StatementLine
from tongbao.parties.authentication.model import Act, ConfirmationUsed, Level, StepUpRequired
from tongbao.parties.authentication.step_up import Confirmed, level_for, require_step_up
from tongbao.parties.e_accounts import opening, orders, queries
from tongbao.parties.e_accounts.model import (
    ORDER_PREFIX,
    AccountsTooMany,
    EAccount,
    EAccountBalanceShort,
    EAccountClassUnknown,
    EAccountFrozen,
    EAccountMoved,
    EAccountNotEmpty,
    EAccountNotFound,
    EAccountOrder,
    EAccountState,
    EAccountStateWrong,
    NoBankThere,
    OrderNotFound,
    OrderOver,
    OrderState,
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
from tongbao.surfaces.wallet.desk import PREFIX, Desk, step_up

_AT = f"{PREFIX}/e_accounts/{{account_id:str}}"
_STEP_UP: tuple[Any, ...] = (StepUpRequired, ConfirmationUsed)
_MOVES: tuple[Any, ...] = (
    *(EAccountNotFound, EAccountStateWrong, EAccountFrozen, EAccountBalanceShort, EAccountMoved),
    *(LimitExceeded, RequestDiffers, AmountOutOfRange, UnknownCurrency, *_STEP_UP),
)
RequestField = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
IdField = Annotated[str, Meta(min_length=1, max_length=64)]


class OpenEAccount(Struct, frozen=True, forbid_unknown_fields=True):
    """Open an account of class 1, 2 or 3."""

    account_class: Annotated[int, Meta(ge=1, le=3)]


class MoveMoney(Struct, frozen=True, forbid_unknown_fields=True):
    """This much, in minor units; ``request_id`` makes a repeat harmless."""

    amount: AmountField
    request_id: RequestField
    currency: CurrencyField = "CNY"


class SendMoney(Struct, frozen=True, forbid_unknown_fields=True):
    """This much to another account: now, at the next midnight of Shanghai, or at a moment."""

    amount: AmountField
    payee: IdField
    request_id: RequestField
    currency: CurrencyField = "CNY"
    timing: Literal["now", "next_day", "scheduled"] = "now"
    run_at: datetime | None = None


class EAccountView(Struct, frozen=True, kw_only=True):
    """One of one's own electronic accounts."""

    id: str
    object: Literal["e_account"]
    kind: str
    account_class: int
    currency: str
    status: EAccountState
    frozen: Literal["none", "in", "out", "all"]
    balance: int
    opened_at: datetime
    activated_at: datetime | None
    closed_at: datetime | None


class EAccountOrderView(Struct, frozen=True, kw_only=True):
    """What was ordered of an account, and what became of it."""

    id: str
    object: Literal["e_account_order"]
    account_id: str
    kind: Literal["top_up", "withdrawal", "transfer"]
    payee: str | None
    amount: int
    currency: str
    request_id: str
    timing: Literal["now", "next_day", "scheduled"]
    run_at: datetime
    status: OrderState
    code: str | None  # why it failed
    created_at: datetime
    ended_at: datetime | None


class LimitView(Struct, frozen=True, kw_only=True):
    """One limit of the law on the person's accounts of this class, and what is left of it."""

    meter: str
    period: Literal["day", "year", "lifetime", "moment"]
    currency: str
    most: int
    used: int
    left: int
    instrument: str


class LineView(Struct, frozen=True, kw_only=True):
    """One movement; ``change`` is below zero where money went out."""

    order_id: str
    kind: str
    change: int
    balance_after: int
    at: datetime


class BalanceView(Struct, frozen=True, kw_only=True):
    """What an account held at a moment."""

    object: Literal["e_account_balance"]
    account_id: str
    at: datetime
    balance: int
    currency: str


@post(
    f"{PREFIX}/e_accounts",
    opt=needs(SELF, refuses=[EAccountClassUnknown, RealNameTooLow, AccountsTooMany, *_STEP_UP]),
)
async def open_e_account(
    data: OpenEAccount, desk: Desk, licence: Licence, caller: DeviceCaller
) -> EAccountView:
    """Open an account of a class; it takes money once it is activated."""
    person = await current_person(desk.db, caller)
    act = f"e_account.open {data.account_class}"
    confirmed = await step_up(desk, caller, "security", act)
    async with desk.db.begin(caller.actor) as tx:
        await confirmed.take(tx)
        made = await opening.open_account(
            tx,
            licence,
            person,
            data.account_class,
            public_key=caller.current.key.der,
        )
    return _view(made)


@get(f"{PREFIX}/e_accounts", opt=needs(SELF))
async def list_e_accounts(desk: Desk, caller: DeviceCaller) -> list[EAccountView]:
    """Return one's accounts, closed ones too."""
    found = await queries.accounts_of_person(desk.db, caller.mode, caller.current.person_id)
    return [_view(each) for each in found]


@get(_AT, opt=needs(SELF, refuses=[EAccountNotFound]))
async def get_e_account(account_id: str, desk: Desk, caller: DeviceCaller) -> EAccountView:
    """Return one account."""
    return _view(await _account(desk, caller, account_id))


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
        await confirmed.take(tx)
        return _view(await opening.activate(tx, account))


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
        await confirmed.take(tx)
        return _view(await opening.close_account(tx, account))


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
    return Page([_line(each) for each in page.items], page.next_cursor)


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
    """Put money in from one's own bank; for now the sandbox has one, and nobody else."""
    money = positive(data.amount, data.currency)
    account = await _account(desk, caller, account_id)
    wanted = Wanted("top_up", money, data.request_id)
    done = await orders.order(teller, account, wanted, level=0, confirmed=Confirmed(None))
    return _view_order(done)


@post(f"{_AT}/withdrawals", opt=needs(SELF, refuses=[NoBankThere, *_MOVES]))
async def withdraw_from_e_account(
    account_id: str, data: MoveMoney, desk: Desk, teller: Teller, caller: DeviceCaller
) -> EAccountOrderView:
    """Take money out to one's own bank; for now the sandbox has one, and nobody else."""
    money = positive(data.amount, data.currency)
    account = await _account(desk, caller, account_id)
    wanted = Wanted("withdrawal", money, data.request_id)
    return await _order(desk, teller, caller, account, wanted)


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
    return await _order(desk, teller, caller, account, wanted)


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
    return Page([_view_order(each) for each in page.items], page.next_cursor)


@get(f"{_AT}/orders/{{order_id:str}}", opt=needs(SELF, refuses=[EAccountNotFound, OrderNotFound]))
async def get_e_account_order(
    account_id: str, order_id: str, desk: Desk, caller: DeviceCaller
) -> EAccountOrderView:
    """Return one order, and why it failed if it did."""
    account = await _account(desk, caller, account_id)
    wanted = parse(ORDER_PREFIX, order_id)
    return _view_order(await queries.order_of_account(desk.db, account, wanted))


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
        return _view_order(await orders.cancel(tx, found))


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
    list_e_account_orders,
    get_e_account_order,
    cancel_e_account_order,
]


async def _account(desk: Desk, caller: DeviceCaller, account_id: str) -> EAccount:
    wanted = parse(ACCOUNT, account_id)
    return await queries.account_of_person(desk.db, caller.mode, caller.current.person_id, wanted)


async def _order(
    desk: Desk, teller: Teller, caller: DeviceCaller, account: EAccount, wanted: Wanted
) -> EAccountOrderView:
    """Do what takes money out, confirmed as strongly as amount, day, risk and phone ask for."""
    known = await orders.known_order(desk.db, account, wanted)
    if known is not None:
        return _view_order(known)  # a repeat is confirmed already
    level, confirmed = await _confirmed(desk, caller, account, wanted)
    done = await orders.order(teller, account, wanted, level=level, confirmed=confirmed)
    return _view_order(done)


async def _confirmed(
    desk: Desk, caller: DeviceCaller, account: EAccount, wanted: Wanted
) -> tuple[Level, Confirmed]:
    """Return the right to move exactly this once, and how strongly it was confirmed.

    Raises:
        StepUpRequired
    """
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    amount = wanted.money.amount
    when = wanted.run_at.isoformat() if wanted.run_at else wanted.timing
    act = Act(
        "transfer",
        f"{wanted.kind} {account.shown_id} {wanted.request_id} {when}",
        amount,
        wanted.money.currency,
        "own bank" if wanted.payee is None else show(ACCOUNT, wanted.payee),
        await orders.weak_total(desk.db, account, amount),
    )
    level = await level_for(desk.checks, holder, act)
    return level, await require_step_up(desk.checks, holder, act)


def _view(row: EAccount) -> EAccountView:
    return EAccountView(
        id=row.shown_id,
        object="e_account",
        kind=row.kind,
        account_class=row.account_class,
        currency=row.currency,
        status=row.state,
        frozen=row.frozen,
        balance=row.balance,
        opened_at=row.opened_at,
        activated_at=row.activated_at,
        closed_at=row.closed_at,
    )


def _view_order(row: EAccountOrder) -> EAccountOrderView:
    return EAccountOrderView(
        id=row.shown_id,
        object="e_account_order",
        account_id=show(ACCOUNT, row.account_id),
        kind=row.kind,
        payee=None if row.payee_id is None else show(ACCOUNT, row.payee_id),
        amount=row.amount,
        currency=row.currency,
        request_id=row.request_id,
        timing=row.timing,
        run_at=row.run_at,
        status=row.state,
        code=row.code,
        created_at=row.made_at,
        ended_at=row.ended_at,
    )


def _line(line: StatementLine) -> LineView:
    return LineView(
        order_id=show(ORDER_PREFIX, line.reference),
        kind=line.code.split("/")[0],
        change=line.change,
        balance_after=line.balance_after,
        at=line.at,
    )
