"""What a terminal may take: checked before a payment is asked for, counted in its own commit.

A payment that ends unpaid gives its place back. One that is refunded does not: the terminal did
take it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, exponent_of
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.terminals import _store as store
from tongbao.parties.terminals.inventory import terminal_of_merchant, terminal_with_id
from tongbao.parties.terminals.model import (
    PREFIX,
    Limits,
    Meter,
    Terminal,
    TerminalNotFound,
    TerminalState,
    TerminalSuspended,
)

USE_REFUSED: Final = "terminal.use_refused"
"""A place that was free a moment ago was taken; whoever asked looks again and says why."""


async def usable_terminal(
    on: Db | Tx, shown_id: str, owner: tuple[UUID, Mode], *, book: int, money: Money, now: datetime
) -> Terminal:
    """Return a merchant's terminal, by the id it is shown with, that may take this much now.

    Raises:
        UnknownId, TerminalNotFound, TerminalSuspended, LimitCurrencyDiffers, LimitEachExceeded,
        LimitCountExceeded, LimitAmountExceeded
    """
    terminal = await terminal_of_merchant(on, parse(PREFIX, shown_id), *owner)
    if terminal.state is not TerminalState.BOUND:
        raise TerminalSuspended
    meter = await meter_of(on, book, terminal.id)
    meter.check(money, business_date(now))
    return terminal


def count_writes(
    book: int, terminal_id: UUID, payment_id: UUID, money: Money, now: datetime
) -> tuple[Write, ...]:
    """Return the writes that count a payment against its terminal's limits, or refuse it."""
    day, amount = business_date(now), money.amount
    counted = (book, terminal_id, day, amount, money.currency)
    used = (book, payment_id, terminal_id, amount, day, money.currency, now)
    return (
        Write(store.COUNT_PAYMENT, counted, refusal=USE_REFUSED),
        Write(store.INSERT_USE, used),
    )


def release_writes(book: int, payment_id: UUID, now: datetime) -> tuple[Write, ...]:
    """Return the writes that give back what a payment counted, which has ended unpaid."""
    return (
        Write(store.RETURN_USED, (book, payment_id)),
        Write(store.RELEASE_USE, (book, payment_id, now)),
    )


async def meter_of(on: Db | Tx, book: int, terminal_id: UUID) -> Meter:
    """Return a terminal's limits and what was counted.

    Raises:
        TerminalNotFound: it was never assigned to a merchant of this book.
    """
    meter = await store.GET_METER.first(on, book, terminal_id)
    if meter is None:
        raise TerminalNotFound
    return meter


async def set_limits(
    tx: Tx, book: int, terminal: Terminal, limits: Limits, *, currency: str
) -> Meter:
    """Set what the merchant lets a terminal take; the platform's caps stand over it.

    Raises:
        TerminalNotFound, UnknownCurrency
    """
    return await _set(tx, (book, terminal), limits, currency, is_cap=False)


async def set_caps(
    tx: Tx, book: int, terminal: Terminal, limits: Limits, *, currency: str
) -> Meter:
    """Set what the platform lets a terminal take at most.

    Raises:
        TerminalNotFound, UnknownCurrency
    """
    return await _set(tx, (book, terminal), limits, currency, is_cap=True)


class CapsTerms(Struct, frozen=True):
    """What the platform lets a terminal take at most, in minor units; None is no cap."""

    terminal: str
    serial_number: str
    currency: str
    each: int | None
    count: int | None
    amount: int | None


CAPS: Final = Act(
    "terminal.caps",
    "Cap what a terminal may take",
    "设置终端收款上限",
    CapsTerms,
    maker=Permission.TERMINALS_ACT,
    checker=Permission.TERMINALS_ACT,
)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""

    async def apply(tx: Tx, _approval: Approval, terms: CapsTerms) -> None:
        terminal = await terminal_with_id(tx, parse(PREFIX, terms.terminal))
        if terminal.merchant_id is None or terminal.mode is None:
            raise TerminalNotFound
        book = (await merchant_with_id(tx, terminal.merchant_id)).book(terminal.mode)
        wanted = Limits(terms.each, terms.count, terms.amount)
        await set_caps(tx, book, terminal, wanted, currency=terms.currency)

    async def show_caps(_db: Db, _approval: Approval, terms: CapsTerms) -> list[Change]:
        def money(figure: int | None) -> str:
            return "—" if figure is None else Money(figure, terms.currency).decimal_text()

        return [
            Change("terminal", "终端", None, terms.serial_number),
            Change("each", "单笔", None, money(terms.each)),
            Change("a day, payments", "单日笔数", None, str(terms.count or "—")),
            Change("a day", "单日累计", None, money(terms.amount)),
        ]

    return (Bound(CAPS, in_transaction(db, apply), show=show_caps),)


async def _set(
    tx: Tx, of: tuple[int, Terminal], limits: Limits, currency: str, *, is_cap: bool
) -> Meter:
    exponent_of(currency)
    (book, terminal), statement = of, store.SET_CAPS if is_cap else store.SET_LIMITS
    args = (currency, limits.each, limits.count, limits.amount)
    meter = await statement.first(tx, book, terminal.id, *args)
    if meter is None:
        raise TerminalNotFound
    facts: dict[str, Fact] = {"serial": terminal.serial_number, "currency": currency}
    facts |= {"each": limits.each, "count": limits.count, "amount": limits.amount}
    act = "terminal.caps_set" if is_cap else "terminal.limits_set"
    await audit.record(tx, act, show(PREFIX, terminal.id), facts)
    return meter
