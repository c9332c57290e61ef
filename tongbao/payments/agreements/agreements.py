"""Offer an agreement, find out whether it is signed, end it, and count what is taken under it.

The chase asks until the customer has signed or the offer is over. A callback is a reason to ask and
nothing to believe: what a merchant may take is written down on the channel's own answer only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import astuple, replace

from tongbao.infra.db import Db, Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Busy, Conflict, NotFound, Rejected
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.payments.agreements import _store as store
from tongbao.payments.agreements.model import (
    SIGNED_HERE,
    Agreement,
    AgreementNotActive,
    AgreementState,
    Asked,
    NewAgreement,
    Period,
    next_agreement,
    over,
)
from tongbao.payments.agreements.views import AgreementView, view_agreement
from tongbao.payments.methods.asked import HowAsked
from tongbao.rails.channels.capabilities.agreements import Agreeing, AgreementOutcome, SignsIn
from tongbao.rails.channels.codes import own_agreement_qr
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, NotSent, ShowQr, Unknown

USE_REFUSED: Final = "agreement.use_refused"
_MOVED_ON: Final = "agreement.moved_on"
_NUMBER_TAKEN: Final = "agreement.number_taken"
_TRIES_MAX: Final = 8
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 10, 30, 60, 300, 600, 1800, 3600))
OFFER_DEFAULT: Final = timedelta(days=1)
AGREEMENT_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)
Taking = Callable[[UUID, datetime], Write]


class AgreementNotOffered(Rejected):
    """The channel takes no money under agreements, or has none signed in that place."""

    code = "agreement.not_offered"
    advice = "Choose another channel; only WeChat Pay and Alipay sign agreements out of apps."
    advice_zh = "该渠道不支持签约代扣或该签约方式，请更换渠道；仅微信支付与支付宝可从应用内签约。"


class AgreementNotFound(NotFound):
    """The caller has no such agreement."""

    code = "agreement.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查协议标识，并确认 API 密钥属于同一商户与模式。"


class AgreementNumberUsed(Conflict):
    """The merchant agreement number belongs to another request, for ever."""

    code = "agreement.number_used"
    advice = "Use a new merchant_agreement_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_agreement_no，或原样重复首次请求。"


class AgreementContended(Busy):
    """Others kept changing the agreement while this was being decided."""

    code = "agreement.contended"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"


class Reach(Struct, frozen=True):
    """What every step needs, built once by wiring: less than a payment does."""

    db: Db
    channels: Mapping[str, Channel]
    account: Callable[[UUID], Awaitable[ChannelAccount]]
    nudge: Callable[[], None]  # wakes this process's worker after a commit
    has_wallets: bool = False  # of the platform's own, to which nobody has to be asked


class ChaseAgreement(Task, frozen=True, tag="agreements.chase"):
    """Find out whether an agreement is signed, and whether one that is to end has ended."""

    book: int
    agreement_id: UUID


class AgreementSignedEvent(Event, frozen=True, kw_only=True, tag="agreement.signed"):
    """The customer signed: money may be taken under the agreement."""

    object: AgreementView


class AgreementFailed(Event, frozen=True, kw_only=True, tag="agreement.failed"):
    """The agreement was refused, or nobody signed it in time."""

    object: AgreementView


class AgreementEndedEvent(Event, frozen=True, kw_only=True, tag="agreement.ended"):
    """The agreement is signed no more; nothing can be taken under it."""

    object: AgreementView


_EVENTS: Final[
    Mapping[AgreementState, type[AgreementSignedEvent | AgreementFailed | AgreementEndedEvent]]
] = {
    AgreementState.ACTIVE: AgreementSignedEvent,
    AgreementState.FAILED: AgreementFailed,
    AgreementState.ENDED: AgreementEndedEvent,
}


def agreeing(channels: Mapping[str, Channel], name: str) -> Agreeing:
    """Return the channel as one that takes agreements.

    Raises:
        AgreementNotOffered
    """
    channel: object = channels.get(name)
    if not isinstance(channel, Agreeing):
        raise AgreementNotOffered(channel=name)
    return channel


def check_offered(reach: Reach, channel: str, signs_in: SignsIn) -> None:
    """Raise unless agreements can be offered over the channel, to be signed there.

    Raises:
        AgreementNotOffered
    """
    places: frozenset[SignsIn] = frozenset({"page"})
    if channel not in SIGNED_HERE or not reach.has_wallets:
        places = agreeing(reach.channels, channel).signs_in
    if signs_in not in places:
        raise AgreementNotOffered(channel=channel, signs_in=signs_in)


async def offer_agreement(
    reach: Reach, asked: NewAgreement, take: Taking, agreement_id: UUID
) -> Agreement:
    """Offer an agreement: commit the intention, ask the channel, commit its answer.

    The same agreement number with the same content returns the agreement it already made.

    Raises:
        AgreementNotOffered, AgreementNumberUsed, InFlight, AgreementContended
    """
    check_offered(reach, asked.channel, asked.signs_in)
    now = reach.db.clock.now()
    agreement = asked.row(agreement_id, now)
    task = ChaseAgreement(agreement.book, agreement.id)
    is_own = asked.channel in SIGNED_HERE
    look_at = agreement.expires_at if is_own else now + _DELAYS[0]
    writes = (
        take(agreement.id, now),
        Write(store.INSERT_AGREEMENT, astuple(agreement), refusal=_NUMBER_TAKEN),
        *((_row_write(agreement, _shown(agreement)),) if is_own else ()),
        task_write(task, run_at=look_at, key=f"agreement/{agreement.id}"),
    )
    failpoint("agreements.before_intention")
    async with reach.db.begin("agreements") as tx:
        refused = await write_all(tx, writes)
    if refused == _NUMBER_TAKEN:
        return await _earlier(reach, asked, take)
    if refused is not None:
        raise InFlight
    failpoint("agreements.after_intention")
    if is_own:
        return replace(_shown(agreement), version=agreement.version + 1)
    return await ask(reach, agreement, "offer", is_first=True)


def _shown(agreement: Agreement) -> Agreement:
    """Return an agreement with the own wallet as its owner may sign it."""
    action = ShowQr(own_agreement_qr(agreement.number))
    return replace(agreement, state=AgreementState.PENDING, action=action)


async def _earlier(reach: Reach, asked: NewAgreement, take: Taking) -> Agreement:
    found = await store.FIND_AGREEMENT_BY_NUMBER.one(
        reach.db, asked.book, asked.merchant_id, asked.mode, asked.merchant_agreement_no
    )
    if found.request_hash != asked.fingerprint:
        raise AgreementNumberUsed(merchant_agreement_no=asked.merchant_agreement_no)
    async with reach.db.begin("agreements") as tx:
        await take(found.id, tx.now).run(tx)
    return found


async def end_agreement(reach: Reach, agreement: Agreement, take: Taking) -> Agreement:
    """End an agreement, at the channel first; nothing is taken under it from now on.

    Raises:
        AgreementNotActive, InFlight, AgreementContended
    """
    if agreement.channel in SIGNED_HERE:
        return await change_own(reach, agreement, ended_by_us, take)
    for _ in range(_TRIES_MAX):
        if agreement.state is not AgreementState.ACTIVE:
            raise AgreementNotActive(status=agreement.state)
        becomes, now = replace(agreement, state=AgreementState.ENDING), reach.db.clock.now()
        task = ChaseAgreement(agreement.book, agreement.id)
        writes = (
            take(agreement.id, now),
            _row_write(agreement, becomes),
            task_write(task, run_at=now + _DELAYS[0], key=f"agreement/{agreement.id}/end"),
        )
        async with reach.db.begin("agreements") as tx:
            refused = await write_all(tx, writes)
        if refused is None:
            failpoint("agreements.after_end_request")
            return await ask(reach, replace(becomes, version=becomes.version + 1), "end")
        if refused != _MOVED_ON:
            raise InFlight
        agreement = await store.GET_AGREEMENT.one(reach.db, agreement.book, agreement.id)
    raise AgreementContended


def ended_by_us(agreement: Agreement, now: datetime) -> Agreement:
    """Return an agreement that is signed here as it ends, for `change_own`.

    Raises:
        AgreementNotActive
    """
    if agreement.state is not AgreementState.ACTIVE:
        raise AgreementNotActive(status=agreement.state)
    return replace(agreement, state=AgreementState.ENDED, ended_at=now)


async def end_all_of_card(tx: Tx, payer: str) -> None:
    """End all that is signed with a bound card, in the caller's transaction."""
    for seen in await store.SIGNED_BY.all(tx, payer):
        each = await store.LOCK_AGREEMENT.one(tx, seen.book, seen.id)
        if each.state.is_signed:
            ended = replace(each, state=AgreementState.ENDED, ended_at=tx.now)
            await write_all(tx, _change_writes(each, ended, tx.now))


async def change_own(
    reach: Reach,
    agreement: Agreement,
    decide: Callable[[Agreement, datetime], Agreement | None],
    take: Taking | None = None,
    stands: Sequence[Write] = (),
) -> Agreement:
    """Change an agreement that is ours alone as is decided on its row: nobody has to be asked.

    ``stands``: writes that change nothing, and refuse where what they speak of is so no more.

    Raises:
        InFlight: another took what is taken here, or something stands no more.
        AgreementContended, and what deciding raises
    """
    for _ in range(_TRIES_MAX):
        agreement = await store.GET_AGREEMENT.one(reach.db, agreement.book, agreement.id)
        now = reach.db.clock.now()
        becomes = decide(agreement, now)
        if becomes is None:
            return agreement
        taking = () if take is None else (take(agreement.id, now),)
        failpoint("agreements.before_own_change")
        async with reach.db.begin("agreements") as tx:
            changing = _change_writes(agreement, becomes, now)
            refused = await write_all(tx, (*stands, *taking, *changing))
        if refused is None:
            failpoint("agreements.after_own_change")
            reach.nudge()
            return replace(becomes, version=becomes.version + 1)
        if refused != _MOVED_ON:
            raise InFlight
    raise AgreementContended


async def ask(
    reach: Reach, agreement: Agreement, what: Asked, *, is_first: bool = False
) -> Agreement:
    """Call the channel about an agreement and write down what it says.

    ``is_first``: nobody has called about it before, so that what was not sent was never sent.

    Raises:
        AgreementNotOffered, AgreementContended
    """
    channel = agreeing(reach.channels, agreement.channel)
    account = await reach.account(agreement.account_id)
    if what == "offer":
        answer = await channel.offer_agreement(account, agreement.order)
    elif what == "query":
        answer = await channel.query_agreement(account, agreement.order)
    else:
        ref = agreement.agreement_ref or ""
        answer = await channel.end_agreement(account, agreement.order, ref, "asked by the merchant")
    failpoint("agreements.after_channel_call")
    if isinstance(answer.outcome, NotSent) and not is_first:
        answer = Answer(Unknown(answer.outcome.reason), answer.exchange)
    return await record(reach, agreement, answer, what)


async def record(
    reach: Reach, agreement: Agreement, answer: Answer[AgreementOutcome], what: Asked
) -> Agreement:
    """Apply an answer exactly once and return the row as it is afterwards.

    Raises:
        AgreementContended: others kept winning; nothing was written, and asking again is safe.
    """
    exchange_id = new_id()
    for _ in range(_TRIES_MAX):
        agreement = await store.GET_AGREEMENT.one(reach.db, agreement.book, agreement.id)
        now = reach.db.clock.now()
        becomes = next_agreement(agreement, answer.outcome, what, now)
        if becomes is None and what == "query" and not isinstance(answer.outcome, Unknown):
            becomes = over(agreement, now)
        writes = (
            Write(store.COUNT_QUERY, (agreement.book, agreement.id)),
            _exchange_write(agreement, exchange_id, answer, what, now),
            *(() if becomes is None else _change_writes(agreement, becomes, now)),
        )
        failpoint("agreements.before_outcome")
        async with reach.db.begin("agreements") as tx:
            refused = await write_all(tx, writes)
        if refused is None:
            failpoint("agreements.after_outcome")
            reach.nudge()
            return await store.GET_AGREEMENT.one(reach.db, agreement.book, agreement.id)
    raise AgreementContended


def _change_writes(before: Agreement, becomes: Agreement, now: datetime) -> tuple[Write, ...]:
    kind = _EVENTS.get(becomes.state)
    was_signed = before.state.is_signed and becomes.state.is_signed
    if kind is None or becomes.state is before.state or was_signed:
        return (_row_write(before, becomes),)
    event = kind(
        merchant_id=becomes.merchant_id,
        mode=becomes.mode,
        resource_id=show("agr", becomes.id),
        object=view_agreement(replace(becomes, version=becomes.version + 1), now),
    )
    return (_row_write(before, becomes), event_write(event, now=now))


def _row_write(before: Agreement, becomes: Agreement) -> Write:
    args = (
        before.book,
        before.id,
        before.version,
        becomes.state,
        becomes.agreement_ref,
        becomes.payer,
        None if becomes.action is None else encode(becomes.action).decode(),
        becomes.code,
        becomes.signed_at,
        becomes.ends_at,
        becomes.ended_at,
    )
    return Write(store.UPDATE_AGREEMENT, args, refusal=_MOVED_ON)


def _exchange_write(
    agreement: Agreement,
    exchange_id: UUID,
    answer: Answer[AgreementOutcome],
    what: Asked,
    now: datetime,
) -> Write:
    seen = answer.exchange
    args = (
        agreement.book,
        exchange_id,
        agreement.id,
        what,
        seen.method,
        seen.url,
        seen.request,
        seen.status,
        seen.reply,
        seen.duration_ms,
        type(answer.outcome).__name__.lower(),
        now,
    )
    return Write(store.INSERT_EXCHANGE, args)


async def chase_agreement(reach: Reach, task: ChaseAgreement, _lease: Lease) -> Again | None:
    """Take the next look at an agreement; return when to look again, or None at its end.

    An offer whose making went unanswered was shown to nobody, so it is made again.
    """
    agreement = await store.GET_AGREEMENT.one(reach.db, task.book, task.agreement_id)
    now = reach.db.clock.now()
    if agreement.state is AgreementState.ACTIVE:
        if agreement.ends_at is None or now >= agreement.ends_at + _DELAYS[-1]:
            return None  # what the customer ends early, the channel tells
        if now < agreement.ends_at:
            return Again(agreement.ends_at - now)
    elif agreement.ended_at is not None:
        return None
    agreement = await ask_about(reach, agreement)
    if agreement.ended_at is not None:
        return None
    delay = _DELAYS[min(agreement.queries, len(_DELAYS) - 1)]
    if agreement.state.is_offer and agreement.expires_at > now:
        delay = min(delay, agreement.expires_at - now)
    return Again(delay)


async def ask_about(reach: Reach, agreement: Agreement) -> Agreement:
    """Ask the channel how an agreement stands, and do what is left to do about it.

    Raises:
        AgreementNotOffered, AgreementContended
    """
    if agreement.channel in SIGNED_HERE:
        return await change_own(reach, agreement, over)
    was_shown = agreement.state is AgreementState.PENDING
    if agreement.state.is_offer and not was_shown and agreement.expires_at > reach.db.clock.now():
        found = await ask(reach, agreement, "query")
        return await ask(reach, found, "offer") if found.state.is_offer else found
    found = await ask(reach, agreement, "query")
    if found.state is AgreementState.ENDING:
        return await ask(reach, found, "end")
    return found


def how_under(agreement: Agreement) -> HowAsked:
    """Return what the channel is told of a payment under the agreement."""
    return HowAsked(
        payer_id=agreement.payer,
        agreement_id=agreement.id,
        agreement_ref=agreement.agreement_ref,
    )


def use_writes(
    agreement: Agreement, payment_id: UUID, money: Money, now: datetime
) -> tuple[Write, ...]:
    """Return the writes that count a payment against the agreement's limits, or refuse it."""
    period = agreement.period or Period.DAY
    begins = period.begins(now)
    place = (agreement.book, agreement.id)
    return (
        Write(
            store.USE_AGREEMENT,
            (*place, money.amount, money.currency, begins, now),
            refusal=USE_REFUSED,
        ),
        Write(
            store.INSERT_USE,
            (agreement.book, payment_id, agreement.id, money.amount, begins, now),
        ),
    )


def release_writes(book: int, payment_id: UUID, now: datetime) -> tuple[Write, ...]:
    """Return the writes that give back what a payment counted, which has ended unpaid."""
    return (
        Write(store.RETURN_USED, (book, payment_id)),
        Write(store.RELEASE_USE, (book, payment_id, now)),
    )
