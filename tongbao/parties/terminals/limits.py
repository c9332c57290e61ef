"""What a terminal may take: checked before a payment is asked for, counted in its own commit.

A payment that ends unpaid gives its place back. One that is refunded does not: the terminal did
take it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, exponent_of
from tongbao.parties.terminals import _store as store
from tongbao.parties.terminals.inventory import terminal_of_merchant
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
