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
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import UnknownId, from_base32, new_id, show
from tongbao.payments.collecting.chase import ABSENCE_IS_PROOF_AFTER
from tongbao.payments.collecting.decisions import News
from tongbao.payments.collecting.model import Attempt, Payment
from tongbao.payments.collecting.outcomes import Evidence, Flow, record_news
from tongbao.payments.collecting.payments import (
    ORDER_TAKEN,
    OrderNumberUsed,
    Taking,
    close_payment,
)
from tongbao.payments.combining import _store as store
from tongbao.payments.combining import queries
from tongbao.payments.combining.model import (
    CombinedNumberUsed,
    CombinedPayment,
    CombinedPaymentView,
    CombinedState,
    NewCombined,
    end_of,
    view_combined,
)
from tongbao.payments.combining.terms import begun_parts, combining, part_writes, parts_again
from tongbao.payments.methods.asked import HowAsked
from tongbao.rails.channels.capabilities.combined_orders import CombinedOrder, Combining, PartFound
from tongbao.rails.channels.contract.callbacks import Callback
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)

_NUMBER_TAKEN: Final = "combined.number_taken"
MOVED_ON_TO: Final = "combined.moved_on"
_FIRST_LOOK: Final = timedelta(seconds=5)
_TRY_MIN: Final = timedelta(minutes=1)
_BACK: Final = "back:"
TRIES_MAX: Final = 20
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
        *part_writes(whole, parts),
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
    async with flow.db.begin("payments") as tx:  # nothing else is tried from here on
        await store.FIX_WAY.run(tx, whole.book, whole.id)
    whole = await queries.combined(flow.db, whole.book, whole.id)
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
    if whole is None:
        return False
    if callback.number != whole.number:
        return await _look_back(flow, whole, from_base32(callback.number), account)
    if whole.account_id != account.id:
        return False
    await look(flow, whole)
    return True


async def _look_back(
    flow: Flow, whole: CombinedPayment, try_id: UUID, told_by: ChannelAccount
) -> bool:
    """Ask about the parts of an earlier try, which is closed: late money is given back."""
    earlier = replace(whole, try_id=None if try_id == whole.id else try_id)
    parts = await queries.parts_of(flow.db, earlier)
    attempt = parts[0][1]
    if attempt.account_id != told_by.id:
        return False
    earlier = replace(
        earlier,
        channel=attempt.channel,
        account_id=attempt.account_id,
        pay_mode=attempt.pay_mode,
        how=attempt.how,
    )
    channel, account, order = await _as_asked(flow, earlier, parts)
    await _ask(flow, parts, await channel.query_combined(account, order))
    return True


async def look(flow: Flow, whole: CombinedPayment) -> CombinedPayment:
    """Offer what nobody was offered, ask about all parts, or close them when their time is over."""
    parts = await queries.parts_of(flow.db, whole)
    now = flow.db.clock.now()
    wants_another = whole.state is CombinedState.PENDING and whole.wish is not None
    is_over = (
        wants_another
        or now >= whole.expires_at
        or any(payment.close_requested_at is not None for payment, _ in parts)
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
            case Absent(code=code) if now >= parts[0][1].created_at + ABSENCE_IS_PROOF_AFTER:
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
            shown = replace(whole, state=CombinedState.PENDING, action=action, code=None, wish=None)
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
    now = flow.db.clock.now()
    may_go_on = whole.tries < TRIES_MAX and now + _TRY_MIN <= whole.expires_at
    if end is CombinedState.CLOSED and whole.wish is not None and may_go_on:
        return await _next_try(flow, whole, payments)
    return await _end(flow, whole, payments, end)


async def _next_try(
    flow: Flow, whole: CombinedPayment, before: Sequence[Payment]
) -> CombinedPayment:
    """Begin the way that is wished, now that the one before is closed, and offer it.

    Should it be refused, the way before is tried once more: nobody's order dies of a choice.
    """
    way = (whole.wish or "").removeprefix(_BACK)
    channel, _, mode = way.partition(".")
    now, try_id = flow.db.clock.now(), new_id()
    leaves = PayMode(mode) is not PayMode.QR
    back_to = whole.how.return_url if whole.how is not None else None
    asked = NewCombined(
        merchant_id=whole.merchant_id,
        mode=whole.mode,
        book=whole.book,
        merchant_combined_no=whole.merchant_combined_no,
        channel=channel,
        pay_mode=PayMode(mode),
        how=HowAsked(return_url=back_to) if leaves else None,
        client_ip=whole.client_ip,
        expires_in=whole.expires_at - now,
        parts=parts_again(whole, before),
        chooses=True,
    )
    try:
        parts, account = await begun_parts(flow, asked, whole.id, now, try_id=try_id)
    except Refusal as refusal:
        code = replace(whole, code=refusal.code[:64])
        return await _end(flow, code, before, CombinedState.CLOSED)
    becomes = replace(
        whole,
        state=CombinedState.CREATED,
        action=None,
        code=None,
        channel=channel,
        account_id=account.id,
        pay_mode=asked.pay_mode,
        how=asked.how,
        try_id=try_id,
        wish=None if (whole.wish or "").startswith(_BACK) else _BACK + whole.way,
        tries=whole.tries + 1,
    )
    how = None if becomes.how is None else encode(becomes.how).decode()
    row = (channel, account.id, asked.pay_mode, how, try_id, becomes.wish)
    begin = Write(store.BEGIN_TRY, (whole.book, whole.id, whole.version, *row), refusal=MOVED_ON_TO)
    failpoint("combining.before_next_try")
    async with flow.db.begin("payments") as tx:
        refused = await write_all(tx, (begin, *part_writes(becomes, parts)))
    failpoint("combining.after_next_try")
    if refused == ORDER_TAKEN:
        taken = replace(whole, code=OrderNumberUsed.code)
        return await _end(flow, taken, before, CombinedState.CLOSED)
    if refused is not None:
        return await queries.combined(flow.db, whole.book, whole.id)
    return await _offer(flow, replace(becomes, version=whole.version + 1), is_first=True)


async def _end(
    flow: Flow, whole: CombinedPayment, payments: Sequence[Payment], end: CombinedState
) -> CombinedPayment:
    ended = replace(whole, state=end, ended_at=flow.db.clock.now(), wish=None)
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
    args = (becomes.state, action, becomes.code, becomes.ended_at, becomes.wish)
    update = Write(
        store.UPDATE_COMBINED, (before.book, before.id, before.version, *args), refusal=MOVED_ON_TO
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
