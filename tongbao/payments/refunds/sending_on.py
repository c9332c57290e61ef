"""Send a refund on that the customer's card or account could not take (异常退款).

Whose card it is, the merchant says and the channel hears, encrypted for it on the way. In between
it lies sealed, and as soon as the channel has answered it lies nowhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import Evidence, Flow
from tongbao.payments.collecting.payments import Taking
from tongbao.payments.refunds import _store as store
from tongbao.payments.refunds.model import Redirection, RedirectionView, Refund
from tongbao.payments.refunds.outcomes import order_of, record_refund_news
from tongbao.rails.channels.contract.orders import RefundTarget
from tongbao.rails.channels.contract.outcomes import Declined, Pending, Succeeded, Unknown

_SEALED: Final = "refund.redirection"
_BLIND: Final = "refund.blind"
_TAKEN: Final = "refund.redirection_taken"
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 3600))
_KEPT_FOR: Final = timedelta(days=1)
"""How long a card lies sealed that no channel has answered about."""
GIVEN_UP: Final = "refund.redirection_unanswered"
SEND_ON_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)


class RefundNotStuck(Conflict):
    """The refund has ended, or is sent somewhere else already."""

    code = "refund.not_stuck"
    advice = "Send on a refund that is open, once; another card only after the first was refused."
    advice_zh = "仅可转投未完结的退款；如需更换收款账户，请等待上一次被拒绝。"


class SendingOnNotOffered(Rejected):
    """The channel sends no refund anywhere but back."""

    code = "refund.sending_on_not_offered"
    advice = "Give the money back in another way; this channel cannot send it elsewhere."
    advice_zh = "该渠道不支持异常退款转投，请通过其他方式退还。"


class RedirectionNotFound(NotFound):
    """The refund was sent nowhere else."""

    code = "refund.redirection_not_found"
    advice = "Ask for it first, where the refund is stuck."
    advice_zh = "该退款尚未发起异常转投。"


class SendRefundOn(Task, frozen=True, tag="refunds.send_on"):
    """Tell a channel where a stuck refund is to go, until it has answered."""

    book: int
    refund_id: UUID


async def send_on(
    flow: Flow, keyring: Keyring, refund: Refund, to: RefundTarget, take: Taking
) -> Redirection:
    """Seal where a stuck refund is to go, commit that, and tell the channel.

    The same target again returns what it made; another one is taken once the first was refused.

    Raises:
        RefundNotStuck, SendingOnNotOffered, InFlight, StateContended
    """
    payment = await payments.payment(flow.db, refund.book, refund.payment_id)
    if not getattr(flow.channels.get(payment.channel), "sends_refunds_on", False):
        raise SendingOnNotOffered(channel=payment.channel)
    if refund.kind == "late" and to.kind == "merchant_account":
        raise SendingOnNotOffered(kind=refund.kind)  # late money was never the merchant's
    now, text = flow.db.clock.now(), msgspec.json.encode(to)
    same = hmac_sha256(keyring.mac_key(_BLIND), bind("refund", refund.id), text)
    found = await store.GET_REDIRECTION.first(flow.db, refund.book, refund.id)
    if found is not None and found.state != "refused" and found.request_hash == same:
        async with flow.db.begin("refunds") as tx:
            await take(refund.id, tx.now).run(tx)
        return found
    if not refund.state.is_open:
        raise RefundNotStuck(status=refund.state)
    sealed = keyring.seal(_SEALED, text, _place(refund.id))
    whose = (refund.book, refund.id, refund.merchant_id, refund.mode)
    row = Write(store.INSERT_REDIRECTION, (*whose, same, to.kind, sealed, now), refusal=_TAKEN)
    task, key = SendRefundOn(refund.book, refund.id), f"refund/{refund.id}/on/{now.timestamp()}"
    writes = (take(refund.id, now), row, task_write(task, run_at=now + _DELAYS[0], key=key))
    failpoint("refunds.before_redirection")
    async with flow.db.begin("refunds") as tx:
        refused = await write_all(tx, writes)
    if refused is not None:
        raise RefundNotStuck(status=refund.state) if refused == _TAKEN else InFlight
    failpoint("refunds.after_redirection")
    return await _tell(flow, keyring, refund)


async def _tell(flow: Flow, keyring: Keyring, refund: Refund) -> Redirection:
    """Tell the channel, once more, and write down what it says.

    A refusal is of the target only: what becomes of the refund itself is asked as ever.

    Raises:
        StateContended
    """
    place = (refund.book, refund.id)
    row = await store.GET_REDIRECTION.one(flow.db, *place)
    if row.state != "requested" or row.sealed is None:
        return row
    text = keyring.open(_SEALED, row.sealed, _place(refund.id))
    payment = await payments.payment(flow.db, refund.book, refund.payment_id)
    attempt = await payments.paid_attempt(flow.db, payment)
    order = replace(order_of(refund, attempt), to=msgspec.json.decode(text, type=RefundTarget))
    await store.COUNT_REDIRECTION.run(flow.db, *place)
    channel, account = flow.channels[attempt.channel], await flow.account(attempt.account_id)
    answer = await channel.refund(account, order)
    failpoint("refunds.after_redirection_call")
    news = answer.outcome
    is_over = flow.db.clock.now() >= row.asked_at + _KEPT_FOR
    end: tuple[str, str | None] | None = ("refused", GIVEN_UP) if is_over else None
    if isinstance(news, Declined):
        end, news = ("refused", news.code[:64]), Unknown(f"not sent on: {news.code}")
    elif isinstance(news, Pending | Succeeded):
        end = ("accepted", None)
    evidence = Evidence("channel answer", "refund", answer.exchange, refund.id)
    await record_refund_news(flow, refund, news, evidence)
    if end is not None:
        failpoint("refunds.before_redirection_end")
        await store.END_REDIRECTION.run(flow.db, *place, *end, flow.db.clock.now())
    return await store.GET_REDIRECTION.one(flow.db, *place)


async def run_send_on(
    flow: Flow, keyring: Keyring, task: SendRefundOn, _lease: Lease
) -> Again | None:
    """Tell a channel again where a refund is to go, or return when to, until it has answered."""
    refund = await store.GET_REFUND.one(flow.db, task.book, task.refund_id)
    row = await _tell(flow, keyring, refund)
    if row.state != "requested":
        return None
    return Again(_DELAYS[min(row.tries, len(_DELAYS) - 1)])


async def redirection_of(flow: Flow, refund: Refund) -> Redirection:
    """Return where a refund is sent on to.

    Raises:
        RedirectionNotFound
    """
    found = await store.GET_REDIRECTION.first(flow.db, refund.book, refund.id)
    if found is None:
        raise RedirectionNotFound
    return found


def view_redirection(row: Redirection) -> RedirectionView:
    """Return where a refund is sent on to, as the API shows it."""
    return RedirectionView(
        refund_id=show("ref", row.refund_id),
        object="refund_redirection",
        target=row.target,
        status=row.state,
        asked_at=row.asked_at,
        code=row.code or msgspec.UNSET,
        ended_at=row.ended_at or msgspec.UNSET,
    )


def _place(refund_id: UUID) -> bytes:
    return bind("refund_redirection", "sealed", refund_id)
