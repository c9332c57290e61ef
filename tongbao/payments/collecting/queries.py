"""Read payments: for the merchant's API, for refunds and clearing above, for the console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.infra.lookups import Lookups
from tongbao.kernel.errors import NotFound
from tongbao.kernel.ids import from_base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import (
    CursorInvalid,
    Page,
    decode_cursor,
    decode_moment,
    page_by_moment,
    page_of,
    page_size,
)
from tongbao.parties.price_plans.model import CardKind, Inputs, Quote, quote
from tongbao.parties.price_plans.queries import price_plan_version
from tongbao.payments.collecting import _raw_store as raw_store
from tongbao.payments.collecting import _store as store
from tongbao.payments.collecting.decisions import UNPAID, Step
from tongbao.payments.collecting.model import (
    Attempt,
    CaseKind,
    ExchangeRow,
    OpenUnknown,
    OverdueAttempt,
    PaidAttempt,
    Payment,
    PaymentCase,
    PaymentState,
    StateChange,
    Tally,
)
from tongbao.rails.channels.contract.outcomes import Succeeded

EXCHANGES_KEPT: Final = Raw(
    "exchange",
    "What channels were asked about payments and refunds",
    "与渠道关于支付和退款的往来报文",
    raw_store.ERASE_EXCHANGES,
)


class PaymentNotFound(NotFound):
    """The caller has no such payment."""

    code = "payment.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查支付标识，并确认 API 密钥属于同一商户与模式。"


class PaymentFilter(Struct, frozen=True):
    """Which payments a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: PaymentState | None = None
    channel: str | None = None
    merchant_order_no: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    metadata: dict[str, str] | None = None


class Timeline(Struct, frozen=True):
    """Everything recorded about one payment's own life, oldest first."""

    payment: Payment
    attempts: list[Attempt]
    changes: list[StateChange]
    exchanges: list[ExchangeRow]
    cases: list[PaymentCase]


RECENT_MAX: Final = 5_000
"""Open payments of this process that are remembered; the oldest goes first."""

Place = tuple[int, UUID]
"""Where a row is: its book and its id."""
Trade = tuple[int, UUID, str]
"""A channel's trade: the book, our account at the channel, and the channel's number."""


class PaymentReads:
    """Reads payments and attempts for everybody who wants some at this moment, in one question.

    What is read is never older than the question, as if each had asked for itself.
    """

    def __init__(self, db: Db) -> None:
        self._payments = Lookups(partial(_payments, db))
        self._attempts = Lookups(partial(_attempts, db))
        self._numbered = Lookups(partial(_numbered, db))
        self._paid_by = Lookups(partial(_paid_by, db))
        self._recent: dict[str, tuple[Payment, Attempt]] = {}

    def remember(self, payment: Payment, attempt: Attempt) -> None:
        """Keep both as they were written a moment ago, for the news that comes of it."""
        if len(self._recent) >= RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[attempt.number] = payment, attempt

    def recall(self, number: str) -> tuple[Payment, Attempt] | None:
        """Return both once as they were written here: what relies on it compares the version."""
        return self._recent.pop(number, None)

    async def both(self, attempt: Attempt) -> tuple[Payment, Attempt]:
        """Return an attempt, which is known to exist, as it is now, and its payment."""
        asked = self._payments.get((attempt.book, attempt.payment_id))
        found = await self._attempts.get((attempt.book, attempt.id))
        payment = await asked
        if payment is None or found is None:
            raise LookupError(attempt.id)
        return payment, found

    async def payment(self, book: int, payment_id: UUID) -> Payment:
        """Return a payment that is known to exist."""
        found = await self._payments.get((book, payment_id))
        if found is None:
            raise LookupError(payment_id)
        return found

    async def attempt_by_number(self, number: str) -> Attempt | None:
        """Return the attempt a channel means by our number, if it is one of ours.

        Raises:
            UnknownId: it is not a number of ours at all.
        """
        return await self._numbered.get(from_base32(number))

    async def attempt_paid_by(self, trade: Trade) -> UUID | None:
        """Return the attempt that a trade of a channel has paid, or was set aside for."""
        return await self._paid_by.get(trade)


async def _payments(db: Db, places: Sequence[Place]) -> dict[Place, Payment]:
    found = await store.GET_PAYMENTS.all(db, *_columns(places))
    return {(each.book, each.id): each for each in found}


async def _attempts(db: Db, places: Sequence[Place]) -> dict[Place, Attempt]:
    found = await store.GET_ATTEMPTS.all(db, *_columns(places))
    return {(each.book, each.id): each for each in found}


async def _numbered(db: Db, ids: Sequence[UUID]) -> dict[UUID, Attempt]:
    return {each.id: each for each in await store.FIND_ATTEMPTS.all(db, ids)}


async def _paid_by(db: Db, trades: Sequence[Trade]) -> dict[Trade, UUID]:
    found = await store.PAID_BY_TRADES.all(db, *_columns(trades))
    return {(each.book, each.account_id, each.trade): each.id for each in found}


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def payment_of_merchant(on: Db | Tx, payment_id: UUID, merchant: UUID, mode: Mode) -> Payment:
    """Return the merchant's payment.

    Raises:
        PaymentNotFound: also for another merchant's, or another mode's.
    """
    payment = await store.FIND_PAYMENT.first(on, payment_id, merchant, mode)
    if payment is None:
        raise PaymentNotFound
    return payment


async def payments_at(on: Db | Tx, places: Sequence[tuple[int, UUID]]) -> list[Payment]:
    """Return the payments with these ids, each in its book."""
    return await store.GET_PAYMENTS.all(on, *_columns(places))


async def payment_by_order_no(
    on: Db | Tx, book: int, merchant: UUID, mode: Mode, order_no: str
) -> Payment:
    """Return the merchant's payment with this order number.

    Raises:
        PaymentNotFound
    """
    payment = await store.FIND_PAYMENT_BY_ORDER.first(on, book, merchant, mode, order_no)
    if payment is None:
        raise PaymentNotFound
    return payment


async def payment(on: Db | Tx, book: int, payment_id: UUID) -> Payment:
    """Return a payment that is known to exist."""
    return await store.GET_PAYMENT.one(on, book, payment_id)


async def is_replaced(db: Db, attempt: Attempt) -> bool:
    """Whether another attempt of the payment is paid or may be; the schema allows one of them."""
    if attempt.state not in UNPAID:
        return False
    place = (attempt.book, attempt.payment_id, attempt.id)
    return await store.LIVE_BESIDE.first(db, *place) is not None


async def unless_paid_elsewhere(db: Db, reads: PaymentReads, before: Attempt, step: Step) -> Step:
    """Return the step, or a contradiction when it would take a trade's or payment's money twice."""
    tried = step.attempt
    if tried is None or tried.channel_ref is None:
        return step
    if step.rule is not None and await is_replaced(db, before):
        detail = f"{before.number} was {before.state}, another took its place, and it was paid"
        return Step(case=CaseKind.CONTRADICTION, detail=detail)
    other = await reads.attempt_paid_by((tried.book, tried.account_id, tried.channel_ref))
    if other in {None, tried.id}:
        return step
    detail = f"channel number {tried.channel_ref} has paid another order already"
    return Step(case=CaseKind.CONTRADICTION, detail=detail)


async def priced_by_card(on: Db | Tx, payment: Payment, step: Step, news: object) -> Step:
    """Return the step with the price of the card that paid, where the price depends on that."""
    told = news.card if isinstance(news, Succeeded) else None
    if step.payment is None or step.rule != "payment.captured":
        return step
    if told is None or payment.card_kind is None:
        return step
    price = await price_again(on, payment, payment.money, CardKind(told))
    cost = {"fee": price.fee, "refund_returns_fee": price.refund_returns_fee}
    return replace(step, payment=replace(step.payment, card_kind=price.card, **cost))


def payments_begun(
    tx: Tx, start: datetime, end: datetime, merchant_id: UUID | None, mode: Mode | None
) -> AsyncIterator[Payment]:
    """Yield the payments that began in ``[start, end)``, in that order, of all books."""
    return store.PAYMENTS_BEGUN.stream(tx, start, end, merchant_id, mode)


async def price_again(
    on: Db | Tx, payment: Payment, money: Money, card: CardKind | None = None
) -> Quote:
    """Return what so much of the payment costs, by the prices it began under.

    ``card``: what is known of the card by now.

    Raises:
        PriceNotAgreed
    """
    kept = payment.price
    plan = await price_plan_version(on, payment.merchant_id, payment.mode, kept.version)
    known = card or kept.card or CardKind.ANY
    how = (payment.channel, payment.pay_mode, money)
    return quote(plan, Inputs(*how, kept.day, kept.volume or 0, known))


async def attempt(on: Db | Tx, book: int, attempt_id: UUID) -> Attempt:
    """Return an attempt that is known to exist."""
    return await store.GET_ATTEMPT.one(on, book, attempt_id)


async def attempt_by_number(on: Db | Tx, number: str) -> Attempt | None:
    """Return the attempt a channel means by our number, if it is one of ours.

    Raises:
        UnknownId: it is not a number of ours at all.
    """
    return await store.FIND_ATTEMPT.first(on, from_base32(number))


async def last_attempt(on: Db | Tx, payment: Payment) -> Attempt:
    """Return the payment's latest attempt."""
    return (await store.ATTEMPTS_OF_PAYMENT.all(on, payment.book, payment.id))[-1]


async def last_attempts(on: Db | Tx, page: Sequence[Payment]) -> dict[UUID, Attempt]:
    """Return the latest attempt of each of these payments, by payment."""
    books = list({payment.book for payment in page})
    found = await store.ATTEMPTS_OF.all(on, books, [payment.id for payment in page])
    return {attempt.payment_id: attempt for attempt in found}


async def attempts(on: Db | Tx, payment: Payment) -> list[Attempt]:
    """Return every try of a payment, oldest first."""
    return await store.ATTEMPTS_OF_PAYMENT.all(on, payment.book, payment.id)


async def paid_attempt(on: Db | Tx, payment: Payment) -> Attempt:
    """Return the attempt that took the customer's money."""
    attempts = await store.ATTEMPTS_OF_PAYMENT.all(on, payment.book, payment.id)
    return next(attempt for attempt in attempts if attempt.paid_at is not None)


async def attempt_paid_by(
    on: Db | Tx, book: int, account_id: UUID, channel_ref: str
) -> UUID | None:
    """Return the attempt that a trade of a channel has paid, or was set aside for."""
    return await store.PAID_BY_TRADE.first(on, book, account_id, channel_ref)


async def attempts_with_ids(on: Db | Tx, ids: Sequence[UUID]) -> list[Attempt]:
    """Return those of these attempts that exist, in no order."""
    return await store.ATTEMPTS_WITH_IDS.all(on, list(ids))


def paid_between(
    tx: Tx, account_id: UUID, start: datetime, end: datetime
) -> AsyncIterator[PaidAttempt]:
    """Yield what an account of ours collected in ``[start, end)`` of the channel's time."""
    return store.PAID_BETWEEN.stream(tx, account_id, start, end)


async def export_paid(
    tx: Tx,
    account_id: UUID,
    span: tuple[datetime, datetime],
    currency: str,
    take: Callable[[bytes], Awaitable[None]],
) -> None:
    """Copy out what `paid_between` yields, in PostgreSQL's binary COPY format.

    The columns are the number's id, the payment's id, the book, the amount in minor units, 1 where
    it is in this currency and the channel's time; none is ever null.
    """
    await tx.copy_out(store.EXPORT_PAID, (account_id, *span, currency), take)


async def count_paid(on: Db | Tx, account_id: UUID, start: datetime, end: datetime) -> int:
    """Return how much an account collected in ``[start, end)``: a count that only ever grows."""
    return await store.COUNT_PAID.one(on, account_id, start, end)


async def payments_span(
    on: Db | Tx, account_id: UUID, start: datetime, end: datetime
) -> tuple[UUID, UUID] | None:
    """Return the payments behind the first and the last thing collected; None: nothing was."""
    first = await store.FIRST_PAID.first(on, account_id, start, end)
    last = await store.LAST_PAID.first(on, account_id, start, end)
    return None if first is None or last is None else (first, last)


async def overdue_attempts(on: Db | Tx, account_id: UUID, before: datetime) -> list[OverdueAttempt]:
    """Return an account's open attempts whose payments ran out of time before a moment."""
    return await store.OVERDUE_ATTEMPTS.all(on, account_id, before)


async def list_payments(
    on: Db | Tx, wanted: PaymentFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Payment]:
    """Return a page of payments, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_PAYMENTS.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.status,
        wanted.channel,
        wanted.merchant_order_no,
        wanted.created_from,
        wanted.created_to,
        cursor_id(cursor),
        size + 1,
        wanted.metadata,
    )
    return page_of(rows, size, lambda row: row.id)


def cursor_id(cursor: str | None) -> UUID | None:
    """Return the id a page's cursor stands for.

    Raises:
        CursorInvalid
    """
    if cursor is None:
        return None
    try:
        [text] = decode_cursor(cursor)
        return UUID(text)
    except ValueError:
        raise CursorInvalid(param="cursor") from None


async def timeline(on: Db | Tx, payment_id: UUID) -> Timeline:
    """Return everything recorded about a payment, for a person who must judge it.

    Raises:
        PaymentNotFound
    """
    found = await store.FIND_PAYMENT_ANYWHERE.first(on, payment_id)
    if found is None:
        raise PaymentNotFound
    return Timeline(
        payment=found,
        attempts=await store.ATTEMPTS_OF_PAYMENT.all(on, found.book, found.id),
        changes=await store.CHANGES_OF_PAYMENT.all(on, found.book, found.id),
        exchanges=await store.EXCHANGES_OF_PAYMENT.all(on, found.book, found.id),
        cases=await store.CASES_OF_PAYMENT.all(on, found.book, found.id),
    )


async def payments_by_channel_ref(on: Db | Tx, channel_ref: str) -> list[UUID]:
    """Return the payments a channel took the money of under this number of its own."""
    return await store.PAYMENTS_BY_CHANNEL_REF.all(on, channel_ref)


async def tally(
    on: Db | Tx,
    since: datetime,
    until: datetime,
    *,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
) -> list[Tally]:
    """Return how many payments of a half-open period stand in which state, and for how much."""
    return await store.TALLY.all(on, since, until, merchant_id, mode)


async def money_at_risk(
    on: Db | Tx, *, merchant_id: UUID | None = None, mode: Mode | None = None
) -> list[Tally]:
    """Return the payments nobody knows the end of: their money may be here or not."""
    return await store.TALLY_UNKNOWN.all(on, merchant_id, mode)


async def unknown_by_account(on: Db | Tx) -> dict[UUID, OpenUnknown]:
    """Return how many attempts of each account nobody knows the end of."""
    return {each.account_id: each for each in await store.UNKNOWN_BY_ACCOUNT.all(on)}


async def open_cases(on: Db | Tx, limit: int = 50) -> list[PaymentCase]:
    """Return the newest cases that nobody has closed."""
    return await store.OPEN_CASES.all(on, limit)


async def count_open_cases(on: Db | Tx) -> int:
    """Return how many cases wait for a person."""
    return await store.COUNT_OPEN_CASES.one(on)


async def closed_cases(
    on: Db | Tx, *, cursor: str | None = None, limit: int | None = None
) -> Page[PaymentCase]:
    """Return a page of the cases people have closed, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.CLOSED_CASES.all(on, *decode_moment(cursor), size + 1)
    return page_by_moment(rows, size, lambda row: (row.opened_at, row.id))


async def erase_exchanges_of(tx: Tx, payment: Payment, at: str) -> int:
    """Erase what channels were asked about a payment, digests aside; return how many there were."""
    return await raw_store.ERASE_EXCHANGES_OF.run(tx, payment.book, payment.id, at)
