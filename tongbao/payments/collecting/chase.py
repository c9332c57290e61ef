"""Chase an attempt until its end is known: ask, offer again, or close, and never guess.

The chase is a task that was enqueued with the attempt itself, so it outlives any process. It ends
only when the attempt does; what no query can settle, the channel's bill will.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, task_write
from tongbao.kernel.ids import base32, new_id
from tongbao.parties.price_plans.model import CardKind, PriceNotAgreed, inputs_at
from tongbao.parties.price_plans.queries import price_plan_at, quote_with_volume
from tongbao.payments.collecting import _store as store
from tongbao.payments.collecting.decisions import UNPAID, Instead, News
from tongbao.payments.collecting.model import (
    AT_THE_COUNTER,
    WALLET,
    Attempt,
    AttemptState,
    CaseKind,
    NewPayment,
    Payment,
)
from tongbao.payments.collecting.outcomes import (
    MOVED_ON,
    Also,
    ChaseAttempt,
    Evidence,
    Flow,
    open_case,
    record_news,
)
from tongbao.payments.methods.asked import HowAsked
from tongbao.payments.routing.model import Decision, NoChannelLeft, NoChannelUp
from tongbao.rails.channels.capabilities.authorisations import Authorising
from tongbao.rails.channels.codes import own_qr
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import Paced

FIRST_LOOK: Final = timedelta(seconds=5)
FIRST_LOOK_AT_CODES: Final = timedelta(seconds=2)
TRIES_MAX: Final = 3
"""At how many accounts a payment is tried while its request waits."""
CODE_WINDOW: Final = timedelta(seconds=30)
"""How long a customer may take to confirm a payment code before we reverse it (Alipay and WeChat
both advise 30 s of polling, then cancel)."""
ABSENCE_IS_PROOF_AFTER: Final = timedelta(seconds=60)
"""A request to pay cannot still be on its way this long after we gave up on its answer."""

UNDECIDED_AFTER: Final = timedelta(hours=1)
"""How long after its time people are told that a payment is still open."""
LATE_LOOKS_FOR: Final = timedelta(days=3)
"""How long a success that was told after the end is looked into."""

_CODE_DELAYS: Final = (2, 3, 5, 5, 5, 5, 10, 30, 60, 300, 600, 1800, 3600)
_QR_DELAYS: Final = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_PLAINLY: Final = HowAsked()
_WALLET_LOOKS_MIN: Final = timedelta(seconds=1)
CHASE_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(seconds=s) for s in (1, 2, 5, 15, 60, 300))
)


def chase_write(attempt: Attempt, now: datetime) -> Write:
    """Return the write that starts the chase of a new attempt."""
    return task_write(
        ChaseAttempt(attempt.book, attempt.id),
        run_at=now + (FIRST_LOOK_AT_CODES if _is_settled_at_once(attempt) else FIRST_LOOK),
        key=f"chase/{attempt.id}",
    )


async def collect(
    flow: Flow,
    payment: Payment,
    attempt: Attempt,
    asked: NewPayment,
    *,
    also: Also | None = None,
) -> tuple[Payment, Attempt]:
    """Make an attempt's first call, and the next one's where the channel provably refused.

    ``also``: what goes into the commit of the last one's answer.

    Raises:
        StateContended
    """
    if attempt.channel == WALLET:
        return await look_at(flow, payment, attempt)
    decision = asked.decision
    while True:
        channel, account = flow.channels[attempt.channel], await flow.account(attempt.account_id)
        order = pay_order(payment, attempt, asked)
        answer = await offer(channel, account, order)
        failpoint("payments.after_channel_call")
        purpose = "pay" if order.captures else "authorise"
        evidence = Evidence("channel answer", purpose=purpose, exchange=answer.exchange)
        decision = await _elsewhere(flow, attempt, decision, answer.outcome)
        instead = None if decision is None else await _instead(flow, payment, attempt, decision)
        payment, after = await record_news(
            flow, attempt, answer.outcome, evidence, instead=instead, known=payment, also=also
        )
        if after.id == attempt.id:
            if after.state is AttemptState.PENDING:
                flow.reads.remember(payment, after)
            return payment, after
        attempt = after


async def _elsewhere(
    flow: Flow, attempt: Attempt, decided: Decision | None, news: News
) -> Decision | None:
    """Return where else a payment may be tried that the channel has provably not taken.

    A channel that was named stays, and a payment code goes only where it can be charged.
    """
    is_refusal = isinstance(news, NotSent) or (isinstance(news, Declined) and news.retry_elsewhere)
    if not is_refusal or decided is None or decided.asked.channel is not None:
        return None
    tried = decided.asked.tried | {attempt.account_id}
    if len(tried) >= TRIES_MAX:
        return None
    try:
        now = flow.db.clock.now()
        return await flow.router.place(replace(decided.asked, at=now, tried=tried))
    except (NoChannelLeft, NoChannelUp):
        return None


async def _instead(
    flow: Flow, payment: Payment, attempt: Attempt, decision: Decision
) -> Instead | None:
    """Return the attempt to make where it was decided, in the place of this one."""
    now, chosen = flow.db.clock.now(), decision.chosen
    plan = await price_plan_at(flow.db, attempt.merchant_id, attempt.mode, now)
    inputs = inputs_at(chosen.channel, attempt.pay_mode, attempt.money, now)
    if decision.asked.card:  # the card is the same, whoever takes its money
        inputs = replace(inputs, card=CardKind(decision.asked.card))
    try:
        price = await quote_with_volume(flow.db, payment.book, plan, inputs)
    except PriceNotAgreed:
        return None  # until a moment ago it was
    over = {"channel": chosen.channel, "account_id": chosen.account_id}
    new = replace(attempt, id=new_id(), state=AttemptState.CREATED, created_at=now, **over)
    cost = (price.fee, price.refund_returns_fee)
    why = (price.version, price.day, price.volume, price.card)
    moved = (payment.book, payment.id, payment.version + 1, chosen.channel, *cost, *why)
    writes = (
        Write(store.MOVE_PAYMENT, moved, refusal=MOVED_ON),
        Write(store.INSERT_ATTEMPT, store.attempt_row(new)),
        chase_write(new, now),
        *flow.router.writes(decision, new.id, now),
    )
    return Instead(new, price, writes)


async def chase_attempt(flow: Flow, task: ChaseAttempt, _lease: Lease) -> Again | None:
    """Take the next look at an attempt; return when to look again, or None at its end."""
    attempt = await store.GET_ATTEMPT.one(flow.db, task.book, task.attempt_id)
    payment = await flow.reads.payment(task.book, attempt.payment_id)
    if task.late:
        return await _look_again(flow, payment, attempt)
    if not attempt.state.is_open:
        return None
    payment, attempt = await look_at(flow, payment, attempt)
    if not attempt.state.is_open:
        return None
    now = flow.db.clock.now()
    if now >= payment.expires_at + UNDECIDED_AFTER:
        detail = "its time is over, and the channel has not said what became of it"
        await open_case(flow, payment, CaseKind.UNDECIDED, detail)
    return Again(_next_look(flow, payment, attempt, now))


async def look_at(flow: Flow, payment: Payment, attempt: Attempt) -> tuple[Payment, Attempt]:
    """Ask the channel about an open attempt once, or close it when its time is over."""
    if attempt.channel == WALLET:
        return await _look_at_own_wallet(flow, payment, attempt)
    account = await flow.account(attempt.account_id)
    channel = flow.channels[attempt.channel]
    move = next_move(payment, attempt, flow.db.clock.now())
    order = pay_order(payment, attempt)
    answer = await _ask(channel, account, order, move)
    if move == "offer" and isinstance(answer.outcome, Declined):
        answer = await _unless_made_earlier(channel, account, order, answer)
    failpoint("payments.after_query")
    news = _as_proof(answer.outcome, (payment, attempt), move, flow.db.clock.now())
    purpose = {"ask": "query", "offer": "pay", "close": "close"}[move]
    if not order.captures:
        purpose = {"query": "query_authorisation", "pay": "authorise"}.get(purpose, purpose)
    return await record_news(
        flow, attempt, news, Evidence(purpose, purpose=purpose, exchange=answer.exchange)
    )


async def _look_at_own_wallet(
    flow: Flow, payment: Payment, attempt: Attempt
) -> tuple[Payment, Attempt]:
    """Show a code that the own wallet pays, or close it.

    Nobody else has to be asked, so nothing is ever unknown: who confirms changes these very rows,
    and of a confirmation and a closing at once one finds that they have changed.
    """
    move = next_move(payment, attempt, flow.db.clock.now())
    if move == "ask":
        return payment, attempt
    shown = Pending(ShowQr(own_qr(attempt.number)))
    news: News = shown if move == "offer" else Closed()
    return await record_news(flow, attempt, news, Evidence("own wallet"), known=payment)


async def _ask(
    channel: Channel, account: ChannelAccount, order: PayOrder, move: str
) -> Answer[News]:
    if move == "offer":
        return await offer(channel, account, order)
    if move == "close":
        if order.mode in AT_THE_COUNTER or not order.captures:
            # Reversing gives a customer's money back, so who has paid meanwhile is found first.
            found = await query(channel, account, order)
            if isinstance(found.outcome, Succeeded | Authorised | Declined | Closed):
                return found
        return await channel.close(account, order)
    return await query(channel, account, order)


async def offer(channel: Channel, account: ChannelAccount, order: PayOrder) -> Answer[News]:
    """Make the first call of an order, or repeat it: to collect, or only to set money aside.

    Raises:
        TypeError: the channel cannot set money aside, and nobody may have been promised that.
    """
    if order.captures:
        return await channel.pay(account, order)
    return await authorising(channel).authorise(account, order)


async def query(channel: Channel, account: ChannelAccount, order: PayOrder) -> Answer[News]:
    """Ask what became of an order, of either kind."""
    if order.captures:
        return await channel.query(account, order)
    return await authorising(channel).query_authorisation(account, order)


def authorising(channel: Channel) -> Authorising:
    """Return the channel as one that sets money aside.

    Raises:
        TypeError
    """
    if not isinstance(channel, Authorising):
        raise TypeError(f"{channel.name} cannot set money aside")
    return channel


async def _unless_made_earlier(
    channel: Channel, account: ChannelAccount, order: PayOrder, declined: Answer[News]
) -> Answer[News]:
    """Return the refusal of a repeat once the channel says that no earlier call made the order."""
    found = await query(channel, account, order)
    return declined if isinstance(found.outcome, Absent | Closed | Declined) else found


async def _look_again(flow: Flow, payment: Payment, attempt: Attempt) -> Again | None:
    """Find out whether money came in for an attempt that has ended.

    One that the channel cannot tell about is closed or reversed once more, which says it: whatever
    a payment code paid goes back by that.
    """
    if attempt.state not in UNPAID or attempt.authorised_at is not None:
        return None
    account = await flow.account(attempt.account_id)
    channel, order = flow.channels[attempt.channel], pay_order(payment, attempt)
    purpose, answer = "query", await query(channel, account, order)
    if isinstance(answer.outcome, Unknown):
        purpose, answer = "close", await channel.close(account, order)
    failpoint("payments.after_late_query")
    evidence = Evidence(purpose, purpose, answer.exchange, is_fresh=True)
    payment, attempt = await record_news(flow, attempt, answer.outcome, evidence)
    # Open still, the payment has another attempt: where that ends unpaid, this money is late money.
    may_be_late = isinstance(answer.outcome, Succeeded) and payment.state.is_open
    if isinstance(answer.outcome, Succeeded | Authorised | Closed | Declined) and not may_be_late:
        return None
    now = flow.db.clock.now()
    if payment.ended_at is not None and now >= payment.ended_at + LATE_LOOKS_FOR:
        detail = "the channel told of a success after the end and never confirmed it"
        await open_case(flow, payment, CaseKind.UNDECIDED, detail)
        return None  # the channel's bill says it in the end
    return Again(_next_look(flow, payment, attempt, now))


def next_move(
    payment: Payment, attempt: Attempt, now: datetime
) -> Literal["ask", "offer", "close"]:
    """Return what to do about an open attempt now.

    A QR or a page whose making went unanswered was never shown to anybody, so it is offered again
    under the same number, and so is a deduction under an agreement: the channel makes one of it.
    A payment code or a card is never sent twice: it is asked about, then reversed.
    """
    if payment.close_requested_at is not None or now >= payment.expires_at:
        return "close"
    if attempt.pay_mode in AT_THE_COUNTER:
        return "close" if now >= attempt.created_at + CODE_WINDOW else "ask"
    never_shown = attempt.action is None and attempt.state is not AttemptState.PENDING
    return "offer" if never_shown else "ask"


def _as_proof(news: News, about: tuple[Payment, Attempt], move: str, now: datetime) -> News:
    payment, attempt = about
    match news:
        case NotSent():
            return Unknown(news.reason)  # this repeat did not leave; an earlier one may have
        case Absent() if move == "close" and now >= _absence_is_proof_from(payment, attempt):
            return Closed(news.code)
        case _:
            return news


def _absence_is_proof_from(payment: Payment, attempt: Attempt) -> datetime:
    """Return when an order that the channel does not know can no longer be paid.

    Nobody scanned a QR that the channel does not know. What the customer's own browser or app
    carries to the channel makes the order there only then, so it must have run out first. Any
    other request may still be on its way, until it cannot be.
    """
    if attempt.pay_mode is PayMode.QR:
        return attempt.created_at
    if attempt.pay_mode is PayMode.AGREEMENT:  # sent again and again until it is to be closed
        last = min(payment.close_requested_at or payment.expires_at, payment.expires_at)
    else:
        last = attempt.created_at if attempt.action is None else payment.expires_at
    return last + ABSENCE_IS_PROOF_AFTER


def _is_settled_at_once(attempt: Attempt) -> bool:
    return attempt.pay_mode in AT_THE_COUNTER or attempt.pay_mode is PayMode.AGREEMENT


def _next_look(flow: Flow, payment: Payment, attempt: Attempt, now: datetime) -> timedelta:
    if attempt.channel == WALLET:
        return max(payment.expires_at - now, _WALLET_LOOKS_MIN)  # until then nothing is to be done
    channel, looks = flow.channels[attempt.channel], attempt.queries
    if isinstance(channel, Paced) and now < payment.expires_at:
        gaps = channel.query_delays(attempt.pay_mode)
        delay = gaps[min(max(looks - 1, 0), len(gaps) - 1)]
    else:
        delays = _CODE_DELAYS if _is_settled_at_once(attempt) else _QR_DELAYS
        delay = timedelta(seconds=delays[min(looks, len(delays) - 1)])
    deadlines = [payment.expires_at]
    if attempt.pay_mode in AT_THE_COUNTER:
        deadlines.append(attempt.created_at + CODE_WINDOW)
    left = [deadline - now for deadline in deadlines if deadline > now]
    return min([delay, *left])


def pay_order(payment: Payment, attempt: Attempt, asked: NewPayment | None = None) -> PayOrder:
    """Return the order in the channel's terms; only the first call knows the code or the card."""
    how = attempt.how or _PLAINLY
    return PayOrder(
        number=attempt.number,
        mode=attempt.pay_mode,
        money=attempt.money,
        subject=payment.subject,
        expires_at=payment.expires_at,
        auth_code=asked.auth_code if asked is not None else None,
        client_ip=attempt.client_ip,
        payer_id=how.payer_id,
        return_url=how.return_url,
        agreement_ref=how.agreement_ref,
        captures=payment.capture_within_s is None,
        card=asked.card if asked is not None else None,
        card_terminal=how.card_terminal,
        app_id=how.app_id,
        combined=base32(how.combined_try or how.combined_id) if how.combined_id else None,
        visit=base32(how.visit_id) if how.visit_id is not None else None,
        stay=asked.stay if asked is not None else None,
    )
