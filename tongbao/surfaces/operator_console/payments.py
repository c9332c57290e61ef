"""The list of payments: live, filtered, searched, counted, as a file; and one in plain words."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final, Protocol
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.money import Money
from tongbao.kernel.pages import PAGE_MAX
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import Merchant
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import WALLET, Payment, PaymentState, Tally
from tongbao.payments.collecting.queries import PaymentFilter
from tongbao.payments.refunds.queries import refund_by_number
from tongbao.payments.routing.model import RoutingDecision
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.error_map import error_map
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Visit, mode_of
from tongbao.surfaces.page_kit.rendering import figures
from tongbao.surfaces.page_kit.replies import CSV, Reply, leave_for, redirect, stream_reply
from tongbao.surfaces.page_kit.texts import Texts

ROWS: Final = 50
FRESH_FOR: Final = timedelta(seconds=6)
_MERCHANTS_SHOWN: Final = 100
CSV_MARK: Final = "\ufeff".encode()  # what Excel knows UTF-8 by
_CSV_COLUMNS: Final = (
    "payment_id",
    "merchant_id",
    "merchant",
    "mode",
    "merchant_order_no",
    "channel",
    "pay_mode",
    "status",
    "amount",
    "captured",
    "refunded",
    "fee",
    "fee_returned",
    "currency",
    "failure_code",
    "close_reason",
    "created_at",
    "ended_at",
)


class FilterMalformed(Invalid):
    """A filter of the list is none that the page itself offers."""

    code = "console.filter_malformed"
    advice = "Choose from the lists of the page; dates are written as 2026-11-21."
    advice_zh = "请使用页面提供的选项；日期格式为 2026-11-21。"


class Filters(Struct, frozen=True):
    """What the list shows, as its form says it; empty means any."""

    q: str = ""
    merchant: str = ""
    mode: str = ""
    status: str = ""
    channel: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filters:
        """Return the filters of an address."""
        return cls(**{name: query.get(name, "").strip()[:128] for name in cls.__struct_fields__})

    def address(self, path: str = "payments", **changes: str) -> str:
        """Return the address of this list with some things changed."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__} | changes
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"{PREFIX}/{path}{'?' if query else ''}{query}"

    @property
    def merchant_id(self) -> UUID | None:
        """The merchant chosen.

        Raises:
            UnknownId
        """
        return parse("mch", self.merchant) if self.merchant else None

    def wanted(self) -> PaymentFilter:
        """Return the filter for the query.

        Raises:
            FilterMalformed, UnknownId
        """
        try:
            status = PaymentState(self.status) if self.status else None
        except ValueError:
            raise FilterMalformed from None
        first, end = self.period()
        return PaymentFilter(
            merchant_id=self.merchant_id,
            mode=mode_of(self.mode),
            status=status,
            channel=self.channel or None,
            merchant_order_no=self.q or None,
            created_from=first,
            created_to=end,
        )

    def period(self) -> tuple[datetime | None, datetime | None]:
        """Return where the days that were chosen begin and end.

        Raises:
            FilterMalformed
        """
        try:
            first = date.fromisoformat(self.since) if self.since else None
            last = date.fromisoformat(self.until) if self.until else None
        except ValueError:
            raise FilterMalformed from None
        return day_bounds(first)[0] if first else None, day_bounds(last)[1] if last else None

    @property
    def chosen(self) -> dict[str, str]:
        """What is not left at any, by name."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in fields.items() if value}

    @property
    def is_empty(self) -> bool:
        """Whether everything is shown."""
        return self == Filters()


class Row(Struct, frozen=True):
    """One line of the list."""

    payment: Payment
    id: str
    merchant: str
    is_fresh: bool

    @property
    def href(self) -> str:
        """Where the payment's own page is."""
        return f"{PREFIX}/payments/{self.id}"


class Today(Struct, frozen=True):
    """What stands where today, and what nobody knows the end of."""

    day: date
    tallies: Sequence[Tally]
    at_risk: Sequence[Tally]
    open_cases: int

    def count(self, state: str) -> int:
        """Return how many of today's payments are in a state."""
        return sum(tally.payments for tally in self.tallies if tally.state == state)

    def taken(self) -> list[Tally]:
        """Return what came in today; sandbox money is never added to real money."""
        return [tally for tally in self.tallies if tally.state is PaymentState.SUCCEEDED]

    def oldest_unknown(self) -> datetime | None:
        """Return since when the oldest of the unknown waits."""
        return min((tally.oldest_at for tally in self.at_risk), default=None)


async def show_payments(visit: Visit) -> Reply:
    """Return the page, or the one payment that was searched for."""
    filters = Filters.of(visit.request.query)
    if filters.q and (found := await _searched(visit.desk, filters.q)):
        own = f"{PREFIX}/payments/{show('pay', found)}"
        return leave_for(own) if visit.request.is_by_script else redirect(own)
    facts = {
        **await merchant_choices(visit.desk),
        "states": list(PaymentState),
        "channels": sorted({*visit.desk.flow.channels, WALLET}),
    }
    return await visit.page("payments.html", facts | await _list_facts(visit, filters))


async def merchant_choices(desk: Desk) -> dict[str, object]:
    """Return the merchants a filter offers, and whether they are all."""
    known = await merchants.list_merchants(desk.db, cursor=None, limit=_MERCHANTS_SHOWN)
    return {
        "merchants": [(show("mch", each.id), each.name) for each in known.items],
        "merchants_are_all": known.next_cursor is None,
    }


async def show_live_payments(visit: Visit) -> Reply:
    """Return the part of the page that is fetched anew every two seconds."""
    filters = Filters.of(visit.request.query)
    return visit.part("payments_list.html", await _list_facts(visit, filters))


async def export_payments(visit: Visit) -> Reply:
    """Return the filtered list as a file, made while it is sent."""
    filters = Filters.of(visit.request.query)
    wanted = filters.wanted()
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "payments.exported", "payments", filters.chosen)
    day = business_date(visit.desk.db.clock.now()).isoformat()
    return stream_reply(_csv(visit.desk, wanted), CSV, name=f"payments-{day}.csv")


async def _list_facts(visit: Visit, filters: Filters) -> dict[str, object]:
    desk, query = visit.desk, visit.request.query
    cursor = query.get("cursor")
    page = await queries.list_payments(desk.db, filters.wanted(), cursor=cursor, limit=ROWS)
    names = await names_of(desk, page.items)
    now = desk.db.clock.now()
    return {
        "filters": filters,
        "rows": [_row(payment, names, now) for payment in page.items],
        "cursor": cursor,
        "older": filters.address(cursor=page.next_cursor) if page.next_cursor else None,
        "is_live": cursor is None and query.get("live") != "off",
        "today": await _today(desk, filters, now),
    }


def _row(payment: Payment, names: Mapping[UUID, Merchant], now: datetime) -> Row:
    return Row(
        payment=payment,
        id=show("pay", payment.id),
        merchant=names[payment.merchant_id].name,
        is_fresh=now - payment.created_at < FRESH_FOR,
    )


class _OfMerchant(Protocol):
    @property
    def merchant_id(self) -> UUID: ...


async def names_of(desk: Desk, page: Sequence[_OfMerchant]) -> Mapping[UUID, Merchant]:
    """Return the merchants of what is on a page."""
    return await merchants.merchants_with_ids(desk.db, [each.merchant_id for each in page])


async def _searched(desk: Desk, text: str) -> UUID | None:
    """Return the one payment a text can only mean: an id, our number or the channel's."""
    number = text.removeprefix("ref_")
    try:
        if text.startswith("pay_"):
            return parse("pay", text)
        if found := await queries.attempt_by_number(desk.db, number):
            return found.payment_id
        if refund := await refund_by_number(desk.db, number):
            return refund.payment_id
    except UnknownId:
        pass  # then it is not a number of ours
    paid = await queries.payments_by_channel_ref(desk.db, text)
    return paid[0] if len(paid) == 1 else None


async def _today(desk: Desk, filters: Filters, now: datetime) -> Today:
    day, merchant_id, mode = business_date(now), filters.merchant_id, mode_of(filters.mode)

    async def count() -> Today:
        return Today(
            day=day,
            tallies=await queries.tally(
                desk.db, *day_bounds(day), merchant_id=merchant_id, mode=mode
            ),
            at_risk=await queries.money_at_risk(desk.db, merchant_id=merchant_id, mode=mode),
            open_cases=await queries.count_open_cases(desk.db),
        )

    figures: Today = await desk.counted.get((day, merchant_id, mode), count)
    return figures


async def _csv(desk: Desk, wanted: PaymentFilter) -> AsyncIterator[bytes]:
    yield CSV_MARK + csv_line(_CSV_COLUMNS)
    cursor: str | None = None
    while True:
        page = await queries.list_payments(desk.db, wanted, cursor=cursor, limit=PAGE_MAX)
        names = await names_of(desk, page.items)
        yield b"".join(csv_line(_csv_cells(each, names[each.merchant_id])) for each in page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


def _csv_cells(payment: Payment, merchant: Merchant) -> list[str]:
    """Return one payment without anything about its customer."""

    def amount(figure: int) -> str:
        return Money(figure, payment.currency).decimal_text()

    return [
        show("pay", payment.id),
        show("mch", payment.merchant_id),
        merchant.name,
        payment.mode,
        payment.merchant_order_no,
        payment.channel,
        payment.pay_mode,
        payment.state,
        amount(payment.amount),
        amount(payment.captured),
        amount(payment.refunded),
        amount(payment.fee),
        amount(payment.fee_returned),
        payment.currency,
        payment.failure_code or "",
        payment.close_reason or "",
        payment.created_at.isoformat(),
        payment.ended_at.isoformat() if payment.ended_at else "",
    ]


def csv_line(cells: Sequence[str]) -> bytes:
    """Return a line of a file for spreadsheets."""
    out = io.StringIO()
    csv.writer(out).writerow([_harmless(cell) for cell in cells])
    return out.getvalue().encode()


def _harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


def scores(why: RoutingDecision, texts: Texts) -> str:
    """Return who could have taken it, the best first, and who could not and why, a line each."""
    lines = [
        texts(
            "timeline.candidate",
            place=place,
            account=_account(each.channel, each.account_id, texts),
            success=f"{each.success_ppm / 10_000:.2f}",
            cost=figures(each.cost, why.currency),
            value=figures(each.value, why.currency),
            currency=why.currency,
            ms=f"{each.latency_ms:,}",
        )
        for place, each in enumerate(why.candidates, 1)
    ]
    lines += [
        f"✕ {_account(each.channel, each.account_id, texts)}: "
        + texts.named("excluded", each.reason)
        for each in why.excluded
    ]
    if why.shadow_id is not None:
        lines.append(texts("timeline.shadow", account=show("chn", why.shadow_id)))
    return "\n".join(lines)


def _account(channel: str, account_id: UUID, texts: Texts) -> str:
    return f"{texts.named('channel', channel)} {show('chn', account_id)}"


def explanation(payment: Payment, last_why: str, texts: Texts) -> str:
    """Return in plain words where a payment stands and why; its last change says the latter."""
    channel = texts.named("channel", payment.channel)
    if payment.state.is_open and payment.close_requested_at is not None:
        return texts("why.closing", channel=channel)
    match payment.state:
        case PaymentState.PENDING:
            is_code = payment.pay_mode is PayMode.PAYMENT_CODE
            return texts(f"why.pending_{'code' if is_code else 'qr'}", channel=channel)
        case PaymentState.SUCCEEDED:
            key = f"why.told_{last_why.replace(' ', '_')}"
            told = texts.by_key.get(key, texts.by_key["why.told"])
            return told.format(channel=channel) + _given_back(payment, texts)
        case PaymentState.FAILED:
            code = payment.failure_code or ""
            said = error_map(payment.channel).customer_text(code)
            words = said.zh if texts.language == "zh" else said.en
            return texts("why.failed", channel=channel, code=code, words=words)
        case PaymentState.CLOSED | PaymentState.VOIDED:
            late = texts("why.late") if payment.captured else ""
            return texts(f"why.{payment.state}_{payment.close_reason}") + late
        case _:
            return texts(f"why.{payment.state}", channel=channel)


def _given_back(payment: Payment, texts: Texts) -> str:
    if not payment.refunded:
        return ""
    amount = f"{figures(payment.refunded, payment.currency)} {payment.currency}"
    return texts("why.given_back", amount=amount)
