"""Have several orders paid in one go: commit the parts, offer the whole, follow what is said of it.

Nobody chases a part alone: the whole's own task asks about all of them in one call, and closes them
together. What is said of a part goes through `record_news` like any payment's news, so its money
moves on the evidence of its own number and in a commit of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec.json import encode
from msgspec.structs import astuple, replace

from tongbao.infra.db import Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.ids import UnknownId, show
from tongbao.payments.collecting.chase import ABSENCE_IS_PROOF_AFTER
from tongbao.payments.collecting.decisions import News
from tongbao.payments.collecting.model import Attempt, Payment
from tongbao.payments.collecting.outcomes import Evidence, Flow, record_news
from tongbao.payments.collecting.payments import (
    ORDER_TAKEN,
    OrderNumberUsed,
    Taking,
    begun_writes,
    close_payment,
)
from tongbao.payments.combining import _store as store
from tongbao.payments.combining import queries
from tongbao.payments.combining.model import (
    CombinedMember,
    CombinedNumberUsed,
    CombinedPayment,
    CombinedPaymentView,
    CombinedState,
    NewCombined,
    end_of,
    view_combined,
)
from tongbao.payments.combining.terms import begun_parts, combining
from tongbao.rails.channels.capabilities import Combining
from tongbao.rails.channels.contract import (
    Absent,
    Answer,
    Callback,
    ChannelAccount,
    Closed,
    CombinedOrder,
    Declined,
    Exchange,
    NotSent,
    PartFound,
    PayOrder,
    Pending,
    Succeeded,
    Unknown,
)

_NUMBER_TAKEN: Final = "combined.number_taken"
_MOVED_ON: Final = "combined.moved_on"
_FIRST_LOOK: Final = timedelta(seconds=5)
_SLOWEST: Final = timedelta(hours=1)
COMBINED_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(seconds=s) for s in (1, 2, 5, 15, 60, 300))
)

Parts = Sequence[tuple[Payment, Attempt]]


class ChaseCombined(Task, frozen=True, tag="combining.chase"):
    """Find out what became of the parts of a combined payment, until each has its end."""

    book: int
    combined_id: UUID


class CombinedPaymentEnded(Event, frozen=True, kw_only=True, tag="combined_payment.ended"):
    """Every part of a combined payment has its end; each part's merchant heard of its own."""

    object: CombinedPaymentView


async def combine(
    flow: Flow, asked: NewCombined, take: Taking, combined_id: UUID
) -> tuple[CombinedPayment, Parts]:
    """Offer several orders as one payment; the same number and content return what it made.

    Raises:
        CombiningNotOffered, CombiningNotAllowed, CombinedApart, CombinedNumberUsed,
        OrderNumberUsed, MerchantSuspended, ChannelNotOpened, PriceNotAgreed, InFlight
    """
    earlier = await _earlier(flow, asked, take)
    if earlier is not None:
        return earlier
    now = flow.db.clock.now()
    parts, account = await begun_parts(flow, asked, combined_id, now)
    whole = asked.row(combined_id, account.id, now)
    writes = (
        take(whole.id, now),
        Write(store.INSERT_COMBINED, _row(whole), refusal=_NUMBER_TAKEN),
        *_part_writes(whole, parts),
        task_write(
            ChaseCombined(whole.book, whole.id),
            run_at=now + _FIRST_LOOK,
            key=f"combined/{whole.id}",
        ),
    )
    failpoint("combining.before_intention")
    async with flow.db.begin("payments") as tx:
        refused = await write_all(tx, writes)
    failpoint("combining.after_intention")
    if refused == _NUMBER_TAKEN:
        earlier = await _earlier(flow, asked, take)
        if earlier is None:
            raise LookupError(asked.merchant_combined_no)
        return earlier
    if refused is not None:
        raise OrderNumberUsed if refused == ORDER_TAKEN else InFlight
    whole = await _offer(flow, whole, is_first=True)
    return whole, await queries.parts_of(flow.db, whole)


async def _earlier(
    flow: Flow, asked: NewCombined, take: Taking
) -> tuple[CombinedPayment, Parts] | None:
    found = await store.FIND_COMBINED_BY_NUMBER.first(
        flow.db, asked.book, asked.merchant_id, asked.mode, asked.merchant_combined_no
    )
    if found is None:
        return None
    if found.request_hash != asked.fingerprint:
        raise CombinedNumberUsed(merchant_combined_no=asked.merchant_combined_no)
    async with flow.db.begin("payments") as tx:
        await take(found.id, tx.now).run(tx)
    return found, await queries.parts_of(flow.db, found)


def _row(whole: CombinedPayment) -> tuple[object, ...]:
    how = None if whole.how is None else encode(whole.how).decode()
    return astuple(replace(whole, how=how))


def _part_writes(whole: CombinedPayment, parts: Parts) -> tuple[Write, ...]:
    writes: list[Write] = []
    # In one order for everybody, or two requests with the same orders would wait for each other.
    for place, (payment, attempt) in sorted(enumerate(parts), key=_order):
        member = CombinedMember(
            book=whole.book,
            combined_id=whole.id,
            place=place,
            merchant_id=payment.merchant_id,
            mode=payment.mode,
            part_book=payment.book,
            payment_id=payment.id,
            attempt_id=attempt.id,
        )
        writes += begun_writes(payment, attempt, "asked with other orders")
        writes.append(Write(store.INSERT_PART, astuple(member)))
    return tuple(writes)


def _order(part: tuple[int, tuple[Payment, Attempt]]) -> tuple[int, UUID, str]:
    _, (payment, _) = part
    return payment.book, payment.merchant_id, payment.merchant_order_no


async def resume(flow: Flow, whole: CombinedPayment) -> tuple[CombinedPayment, Parts]:
    """Carry on where a request was broken off: what nobody was offered is offered now."""
    if whole.state is CombinedState.CREATED:
        whole = await look(flow, whole)
    return whole, await queries.parts_of(flow.db, whole)


async def close_combined(flow: Flow, whole: CombinedPayment) -> tuple[CombinedPayment, Parts]:
    """Call all parts off, at the channel first; a customer who paid first wins.

    Raises:
        StateContended
    """
    for payment, _ in await queries.parts_of(flow.db, whole):
        await close_payment(flow, payment)
    whole = await _finish(flow, await queries.combined(flow.db, whole.book, whole.id))
    return whole, await queries.parts_of(flow.db, whole)


async def chase_combined(flow: Flow, task: ChaseCombined, _lease: Lease) -> Again | None:
    """Take the next look at a combined payment; return when to look again, or None at its end."""
    whole = await queries.combined(flow.db, task.book, task.combined_id)
    if whole.state.is_open:
        whole = await look(flow, whole)
    if not whole.state.is_open:
        return None
    now = flow.db.clock.now()
    gap = min(max((now - whole.created_at) / 2, _FIRST_LOOK), _SLOWEST)
    left = whole.expires_at - now
    return Again(min(gap, left) if left > timedelta() else gap)


async def take_combined(flow: Flow, account: ChannelAccount, callback: Callback) -> bool:
    """Ask about every part of a combined payment that a channel tells of; False: none of ours."""
    try:
        whole = await queries.combined_by_number(flow.db, callback.number)
    except UnknownId:
        return False
    if whole is None or whole.account_id != account.id:
        return False
    await look(flow, whole)
    return True


async def look(flow: Flow, whole: CombinedPayment) -> CombinedPayment:
    """Offer what nobody was offered, ask about all parts, or close them when their time is over."""
    parts = await queries.parts_of(flow.db, whole)
    now = flow.db.clock.now()
    is_over = now >= whole.expires_at or any(
        payment.close_requested_at is not None for payment, _ in parts
    )
    never_shown = whole.state is CombinedState.CREATED
    if never_shown and not is_over and all(attempt.state.is_open for _, attempt in parts):
        return await _offer(flow, whole)
    channel, account, order = await _as_asked(flow, whole, parts)
    if is_over and any(attempt.state.is_open for _, attempt in parts):
        closed = await channel.close_combined(account, order)
        failpoint("combining.after_close")
        news: Closed | None = None
        match closed.outcome:
            case Closed():
                news = closed.outcome
            case Absent(code=code) if now >= whole.created_at + ABSENCE_IS_PROOF_AFTER:
                news = Closed(code)
        if news is not None:
            await _tell_all(flow, parts, news, ("close", closed.exchange))
            return await _finish(flow, whole)
    await _ask(flow, parts, await channel.query_combined(account, order))
    return await _finish(flow, whole)


async def _offer(flow: Flow, whole: CombinedPayment, *, is_first: bool = False) -> CombinedPayment:
    """Offer the whole at the channel; safe to repeat, as the number and the parts are the same."""
    parts = await queries.parts_of(flow.db, whole)
    channel, account, order = await _as_asked(flow, whole, parts)
    answer = await channel.pay_combined(account, order)
    failpoint("combining.after_channel_call")
    told = ("pay", answer.exchange)
    match answer.outcome:
        case Pending(action=action) if action is not None:
            shown = replace(whole, state=CombinedState.PENDING, action=action, code=None)
            whole = await _change(flow, whole, shown)
            failpoint("combining.after_offer")
            await _tell_all(flow, parts, Pending(), told)
            return whole
        case Declined() | NotSent() as no if is_first:
            code = no.code if isinstance(no, Declined) else "channel.not_reached"
            whole = await _change(flow, whole, replace(whole, code=code[:64]))
            await _tell_all(flow, parts, no, told)
            return await _finish(flow, whole)
        case _ if is_first:
            await _tell_all(flow, parts, Unknown("the whole was not offered for sure"), told)
            return whole
        case again:  # an earlier call may have made it, and somebody may have paid it
            asked = await channel.query_combined(account, order)
            if isinstance(asked.outcome, Absent) and isinstance(again, Declined):
                await _tell_all(flow, parts, again, told)
            await _ask(flow, parts, asked)
            return await _finish(flow, whole)


async def _ask(
    flow: Flow, parts: Parts, answer: Answer[tuple[PartFound, ...] | Absent | Unknown]
) -> None:
    """Record what was said of each part, by the evidence of its own number."""
    failpoint("combining.after_query")
    if isinstance(answer.outcome, Absent | Unknown):
        return
    found = {each.number: each.outcome for each in answer.outcome}
    for _, attempt in parts:
        news = found[attempt.number]
        is_late = not attempt.state.is_open
        if is_late and not isinstance(news, Succeeded):
            continue
        evidence = Evidence("query", "query", answer.exchange, is_fresh=is_late)
        await record_news(flow, attempt, news, evidence)


async def _tell_all(flow: Flow, parts: Parts, news: News, told: tuple[str, Exchange]) -> None:
    """Record the same news of every part that is open: it was said of the whole."""
    purpose, exchange = told
    for _, attempt in parts:
        if attempt.state.is_open:
            await record_news(flow, attempt, news, Evidence("channel answer", purpose, exchange))


async def _finish(flow: Flow, whole: CombinedPayment) -> CombinedPayment:
    """Write down and tell how the whole ended, once every part has; else return it as it is."""
    payments = [payment for payment, _ in await queries.parts_of(flow.db, whole)]
    end = end_of(payments)
    if end is None or not whole.state.is_open:
        return whole
    ended = replace(whole, state=end, ended_at=flow.db.clock.now())
    event = CombinedPaymentEnded(
        merchant_id=whole.merchant_id,
        mode=whole.mode,
        resource_id=show("cmb", whole.id),
        object=view_combined(replace(ended, version=whole.version + 1), payments),
    )
    failpoint("combining.before_end")
    return await _change(flow, whole, ended, event_write(event, now=flow.db.clock.now()))


async def _change(
    flow: Flow, before: CombinedPayment, becomes: CombinedPayment, *further: Write
) -> CombinedPayment:
    """Change the row if it is still as it was, and return it as it is then."""
    action = None if becomes.action is None else encode(becomes.action).decode()
    args = (becomes.state, action, becomes.code, becomes.ended_at)
    update = Write(
        store.UPDATE_COMBINED, (before.book, before.id, before.version, *args), refusal=_MOVED_ON
    )
    async with flow.db.begin("payments") as tx:
        refused = await write_all(tx, (update, *further))
    flow.nudge()
    if refused is None:
        return replace(becomes, version=before.version + 1)
    return await queries.combined(flow.db, before.book, before.id)


async def _as_asked(
    flow: Flow, whole: CombinedPayment, parts: Parts
) -> tuple[Combining, ChannelAccount, CombinedOrder]:
    """Return the channel, who asks there, and the combined order in its terms."""
    channel = combining(flow.channels, whole.channel)
    how = whole.how
    order = PayOrder(
        number=whole.number,
        mode=whole.pay_mode,
        money=whole.money,
        subject=parts[0][0].subject,
        expires_at=whole.expires_at,
        client_ip=whole.client_ip,
        payer_id=how.payer_id if how is not None else None,
        return_url=how.return_url if how is not None else None,
        app_id=how.app_id if how is not None else None,
    )
    members = []
    for payment, attempt in parts:
        own = await flow.account(attempt.account_id)
        part = PayOrder(
            number=attempt.number,
            mode=attempt.pay_mode,
            money=attempt.money,
            subject=payment.subject,
            expires_at=payment.expires_at,
        )
        members.append(channel.part_of(own, part))
    return channel, await flow.account(whole.account_id), CombinedOrder(order, members)
