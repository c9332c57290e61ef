"""One payment: where it stands and why, and every piece of evidence in the order it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.clearing.reconciliation.model import BreakState, ReconBreak
from tongbao.clearing.reconciliation.queries import breaks_of_payment
from tongbao.infra import audit
from tongbao.infra.audit import AuditEntry
from tongbao.infra.outbox import EventRow, events_of_resource
from tongbao.infra.webhooks.deliveries import attempts_of, deliveries_of_resource
from tongbao.infra.webhooks.model import WebhookAttempt, WebhookDelivery
from tongbao.kernel.ids import parse, show
from tongbao.ledger.queries import RecordedTransfer, transfers_of_reference
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import Merchant
from tongbao.payments.agreements.records import AgreementExchange
from tongbao.payments.authorisations.model import Completion
from tongbao.payments.authorisations.queries import completions_of_payment
from tongbao.payments.callbacks.model import InboundCallback
from tongbao.payments.callbacks.queries import callbacks_about
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import WALLET, ExchangeRow, Payment
from tongbao.payments.collecting.queries import Timeline
from tongbao.payments.parking.model import VisitExchange
from tongbao.payments.refunds.model import Refund
from tongbao.payments.refunds.queries import refunds_of_payment
from tongbao.payments.routing.model import RoutingDecision
from tongbao.payments.routing.router import decisions_of_payment
from tongbao.payments.splits.model import Return, ShareRow, Split
from tongbao.payments.splits.records import returns_of_payment, splits_of_payment
from tongbao.surfaces.operator_console.books import account_names, t_accounts
from tongbao.surfaces.operator_console.payments import explanation, scores
from tongbao.surfaces.operator_console.visit import Desk, Visit
from tongbao.surfaces.page_kit.evidence import (
    Entry,
    Sheet,
    by_day,
    masked,
    masked_tree,
    readable,
)
from tongbao.surfaces.page_kit.rendering import figures, pretty
from tongbao.surfaces.page_kit.replies import JSON, Reply, file_reply
from tongbao.surfaces.page_kit.texts import Texts

GOOD: Final = frozenset(
    {"succeeded", "authorised", "delivered", "processed", "payment.succeeded", "active"}
)
BAD: Final = frozenset(
    {"failed", "declined", "forged", "mismatched", "rejected", "unreadable", "not_sent"}
)
WAITING: Final = frozenset({"unknown", "no_answer", "pending", "throttled", "orphaned"})


class Dossier(Struct, frozen=True):
    """Everything about one payment, as it lies in the rooms that keep it."""

    story: Timeline
    merchant: Merchant
    refunds: Sequence[Refund]
    completions: Sequence[Completion]
    callbacks: Sequence[InboundCallback]
    transfers: Sequence[RecordedTransfer]
    events: Sequence[EventRow]
    deliveries: Sequence[tuple[WebhookDelivery, Sequence[WebhookAttempt]]]
    acts: Sequence[AuditEntry]
    breaks: Sequence[ReconBreak]
    decisions: Sequence[RoutingDecision]
    splits: Sequence[tuple[Split, Sequence[ShareRow]]]
    returns: Sequence[Return]

    @property
    def payment(self) -> Payment:
        """The payment itself."""
        return self.story.payment


async def show_payment(visit: Visit) -> Reply:
    """Return a payment's page."""
    return await visit.page("payment.html", await _facts(visit))


async def show_live_payment(visit: Visit) -> Reply:
    """Return the part of a payment's page that changes while it is open."""
    return visit.part("payment_body.html", await _facts(visit))


async def show_raw_payment(visit: Visit) -> Reply:
    """Return everything as one JSON document, masked as the page is."""
    dossier = await _gather(visit.desk, parse("pay", visit.params["payment_id"]))
    return file_reply(pretty(_raw(dossier)).encode(), JSON)


async def _facts(visit: Visit) -> dict[str, object]:
    dossier = await _gather(visit.desk, parse("pay", visit.params["payment_id"]))
    payment, attempt = dossier.payment, dossier.story.attempts[-1]
    names = await account_names(visit.desk.db, dossier.transfers, dossier.merchant)
    asks_channel = payment.channel != WALLET
    is_open = payment.ended_at is None or any(refund.state.is_open for refund in dossier.refunds)
    return {
        "dossier": dossier,
        "payment": payment,
        "payment_id": show("pay", payment.id),
        "attempt": attempt,
        "why": explanation(payment, dossier.story.changes[-1].why, visit.texts),
        "days": by_day(entries(dossier, visit.texts)),
        "accounts": t_accounts(dossier.transfers, names, visit.request.language),
        "payer": masked(attempt.payer) if attempt.payer else None,
        "may_ask": asks_channel and attempt.state.is_open,
        "may_close": asks_channel and payment.state.is_open,
        "is_live": is_open and visit.request.query.get("live") != "off",
        "is_open": is_open,
        "done": visit.request.query.get("done"),
    }


async def _gather(desk: Desk, payment_id: UUID) -> Dossier:
    db = desk.db
    story = await queries.timeline(db, payment_id)
    payment = story.payment
    refunds = await refunds_of_payment(db, payment.book, payment.id)
    shown = [show("pay", payment.id), *(show("ref", refund.id) for refund in refunds)]
    completions = await completions_of_payment(db, payment)
    numbers = [*(each.number for each in story.attempts), *(each.number for each in refunds)]
    numbers += [each.number for each in completions]
    references = [payment.id, *(refund.id for refund in refunds)]
    return Dossier(
        story=story,
        merchant=await merchants.merchant_with_id(db, payment.merchant_id),
        refunds=refunds,
        completions=completions,
        callbacks=await callbacks_about(db, numbers),
        transfers=[
            transfer
            for reference in references
            for transfer in await transfers_of_reference(db, payment.book, reference)
        ],
        events=[event for each in shown for event in await events_of_resource(db, each)],
        deliveries=[
            (delivery, await attempts_of(db, delivery.id))
            for each in shown
            for delivery in await deliveries_of_resource(db, each)
        ],
        acts=[act for each in shown for act in await audit.entries_of_subject(db, each)],
        breaks=await breaks_of_payment(db, payment.id),
        decisions=await decisions_of_payment(db, payment.book, payment.id),
        splits=await splits_of_payment(db, payment.book, payment.id),
        returns=await returns_of_payment(db, payment.book, payment.id),
    )


def entries(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    """Yield everything that happened, in no order."""
    yield from _changes(dossier, texts)
    yield from _decisions(dossier, texts)
    yield from _attempts(dossier, texts)
    yield from exchange_entries(dossier.story.exchanges, texts)
    yield from callback_entries(dossier.callbacks, texts)
    yield from _postings(dossier, texts)
    yield from _refunds(dossier, texts)
    yield from _completions(dossier, texts)
    yield from _cases(dossier, texts)
    yield from event_entries(dossier.events, texts)
    yield from _deliveries(dossier, texts)
    yield from act_entries(dossier.acts, texts)
    yield from _breaks(dossier, texts)


def tone_of(word: str) -> str:
    """Return how good a state is to hear of."""
    if word in GOOD:
        return "good"
    if word in BAD:
        return "bad"
    return "wait" if word in WAITING else "plain"


def _changes(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for change in dossier.story.changes:
        yield Entry(
            at=dossier.payment.created_at if change.from_state == "new" else change.at,
            rank=0 if change.from_state == "new" else 4,
            kind="state",
            id=f"change-{change.version}",
            title=texts("timeline.state", state=texts.named("state", change.to_state)),
            note=texts("timeline.because", why=texts.named("because", change.why)),
            tone=tone_of(change.to_state),
        )


def _decisions(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for why in dossier.decisions:
        title = texts("timeline.decision", rule=why.rule, by=texts.named("manner", why.manner))
        note = texts("timeline.others", left=len(why.candidates) - 1, out=len(why.excluded))
        sheet = Sheet(texts("timeline.scores"), scores(why, texts))
        name = f"decision-{why.attempt_id.hex}"
        yield Entry(why.at, 1, "decision", name, title, note, sheets=(sheet,))


def _attempts(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for attempt in dossier.story.attempts:
        yield Entry(
            at=attempt.created_at,
            rank=1,
            kind="attempt",
            id=f"attempt-{attempt.number}",
            title=texts(
                "timeline.attempt",
                channel=texts.named("channel", attempt.channel),
                mode=texts.named("pay_mode", attempt.pay_mode),
            ),
            note=texts("timeline.number", number=attempt.number),
            tone=tone_of(attempt.state),
        )


def exchange_entries(
    exchanges: Iterable[ExchangeRow | AgreementExchange | VisitExchange], texts: Texts
) -> Iterator[Entry]:
    """Yield what we asked a channel, and what it said."""
    for exchange in exchanges:
        status = texts("timeline.no_answer") if exchange.status is None else str(exchange.status)
        request = f"{exchange.method} {exchange.url}\n\n{exchange.request}"
        yield Entry(
            at=exchange.at,
            rank=2,
            kind="exchange",
            id=f"exchange-{exchange.id.hex}",
            title=texts(
                "timeline.exchange",
                purpose=texts.named("purpose", exchange.purpose),
                outcome=texts.named("outcome", exchange.outcome),
            ),
            note=texts("timeline.took", status=status, ms=exchange.duration_ms),
            tone=tone_of(exchange.outcome),
            sheets=(
                Sheet(texts("timeline.request"), readable(request)),
                Sheet(texts("timeline.reply"), readable(exchange.reply)),
            ),
        )


def callback_entries(callbacks: Iterable[InboundCallback], texts: Texts) -> Iterator[Entry]:
    """Yield what a channel told us by itself."""
    for callback in callbacks:
        yield Entry(
            at=callback.received_at,
            rank=3,
            kind="callback",
            id=f"callback-{callback.id.hex}",
            title=texts("timeline.callback", state=texts.named("callback", callback.state)),
            note=texts(
                "timeline.copies", count=callback.copies, notification=callback.notification_id[:64]
            ),
            tone=tone_of(callback.state),
            sheets=sheets_of(callback, texts),
        )


def sheets_of(callback: InboundCallback, texts: Texts) -> tuple[Sheet, ...]:
    """Return what a callback says, and how it came."""
    read = callback.callback
    sheets = [Sheet(texts("timeline.content"), readable(read.content))] if read else []
    headers = "\n".join(f"{name}: {value}" for name, value in callback.headers.items())
    raw = callback.body.decode("utf-8", errors="replace")
    sheets.append(Sheet(texts("timeline.as_received"), readable(f"{headers}\n\n{raw}")))
    return tuple(sheets)


def _postings(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for transfer in dossier.transfers:
        yield Entry(
            at=transfer.at,
            rank=5,
            kind="posting",
            id=f"posting-{transfer.seq}",
            title=texts(
                "timeline.posting",
                what=texts.named("posting", transfer.code),
                amount=f"{figures(transfer.amount, transfer.debit.currency)}",
                currency=transfer.debit.currency,
            ),
            note=texts(
                "timeline.posted",
                debit=texts.named("account", transfer.debit.kind),
                credit=texts.named("account", transfer.credit.kind),
                seq=transfer.seq,
            ),
        )


def _refunds(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for refund in dossier.refunds:
        amount = f"{figures(refund.amount, refund.currency)} {refund.currency}"
        yield Entry(
            at=refund.created_at,
            rank=4,
            kind="refund",
            id=f"refund-{refund.number}",
            title=texts("timeline.refund", amount=amount, kind=texts.named("kind", refund.kind)),
            note=texts("timeline.refund_no", no=refund.merchant_refund_no, number=refund.number),
        )
        if refund.ended_at is not None:
            yield Entry(
                at=refund.ended_at,
                rank=6,
                kind="refund",
                id=f"refund-end-{refund.number}",
                title=texts(
                    "timeline.refund_end",
                    amount=amount,
                    state=texts.named("refund_state", refund.state),
                ),
                note=refund.code or refund.channel_ref or "",
                tone=tone_of(refund.state),
            )


def _completions(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for done in dossier.completions:
        amount = f"{figures(done.amount, done.currency)} {done.currency}"
        named, name = texts.named("completion", done.kind), f"completion-{done.number}"
        what = texts("timeline.completion", what=named, amount=amount)
        yield Entry(done.created_at, 4, done.kind, name, what, done.number)
        if done.ended_at is not None:
            state = texts.named("completion_state", done.state)
            end = texts("timeline.completion_end", what=what, state=state)
            note = done.code or done.channel_ref or ""
            yield Entry(done.ended_at, 6, done.kind, f"{name}-end", end, note, tone_of(done.state))


def _cases(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for each in dossier.story.cases:
        yield Entry(
            at=each.opened_at,
            rank=7,
            kind="case",
            id=f"case-{each.id.hex}",
            title=texts("timeline.case", kind=texts.named("case", each.kind)),
            note=each.detail,
            tone="bad" if each.closed_at is None else "plain",
        )
        if each.closed_at is not None:
            yield Entry(
                at=each.closed_at,
                rank=7,
                kind="case",
                id=f"case-end-{each.id.hex}",
                title=texts("timeline.case_closed", kind=texts.named("case", each.kind)),
                note=each.resolution or "",
                tone="good",
            )


def event_entries(events: Iterable[EventRow], texts: Texts) -> Iterator[Entry]:
    """Yield what was published."""
    for event in events:
        yield Entry(
            at=event.at,
            rank=8,
            kind="event",
            id=f"event-{event.id.hex}",
            title=texts("timeline.event", type=event.type),
            note=show("evt", event.id),
            sheets=(Sheet(texts("timeline.content"), pretty(masked_tree(event.body))),),
        )


def _deliveries(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for delivery, tries in dossier.deliveries:
        whd = show("whd", delivery.id)
        yield Entry(
            at=delivery.created_at,
            rank=9,
            kind="delivery",
            id=f"delivery-{delivery.id.hex}",
            title=texts(
                "timeline.delivery",
                type=delivery.event_type,
                state=texts.named("delivery_state", delivery.state),
            ),
            note=texts("timeline.tries", id=whd, count=delivery.attempts),
            tone=tone_of(delivery.state),
            sheets=(_tries_sheet(tries, texts),) if tries else (),
            replays=whd if delivery.closed_at is not None else None,
        )


def _tries_sheet(tries: Sequence[WebhookAttempt], texts: Texts) -> Sheet:
    lines = [
        f"{each.number}. {each.at.isoformat(timespec='milliseconds')}  {each.outcome}"
        f"  {each.status or '—'}  {each.duration_ms} ms\n   {readable(each.reply)}".rstrip()
        for each in tries
    ]
    return Sheet(texts("timeline.each_try"), "\n".join(lines))


def act_entries(acts: Iterable[AuditEntry], texts: Texts) -> Iterator[Entry]:
    """Yield what people did."""
    for act in acts:
        facts = ", ".join(f"{name}: {value}" for name, value in act.facts.items())
        yield Entry(
            at=act.at,
            rank=10,
            kind="act",
            id=f"act-{act.id.hex}",
            title=texts("timeline.act", action=texts.named("action", act.action), actor=act.actor),
            note=facts,
        )


def _breaks(dossier: Dossier, texts: Texts) -> Iterator[Entry]:
    for found in dossier.breaks:
        yield Entry(
            at=found.found_at,
            rank=11,
            kind="break",
            id=f"break-{found.id.hex}",
            title=texts(
                "timeline.break",
                what=texts.named("break", found.break_class),
                amount=f"{figures(found.difference, found.currency)} {found.currency}",
            ),
            note=texts(
                "timeline.on_bill", day=found.day, state=texts.named("break_state", found.state)
            ),
            tone="bad" if found.state is BreakState.OPEN else "plain",
        )


def _raw(dossier: Dossier) -> object:
    """Return the dossier as JSON-like data; bodies are texts, and customers are masked."""
    built = msgspec.to_builtins(dossier)
    for callback, kept in zip(built["callbacks"], dossier.callbacks, strict=True):
        callback["body"] = kept.body.decode("utf-8", errors="replace")
    built["merchant"] = {"id": show("mch", dossier.merchant.id), "name": dossier.merchant.name}
    del built["story"]["payment"]["request_hash"]
    return masked_tree(built)
