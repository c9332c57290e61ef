"""How payments, refunds and agreements take what channels tell of them.

What a later domain takes has a taker of its own there; the table that names them all is in
`tongbao.duties`.
"""

from __future__ import annotations

from tongbao.infra.db import Write
from tongbao.kernel.ids import UnknownId, from_base32
from tongbao.payments.agreements.agreements import Reach, ask_about
from tongbao.payments.agreements.queries import agreement_by_number
from tongbao.payments.authorisations.outcomes import ask_channel as ask_about_completion
from tongbao.payments.authorisations.outcomes import record_completion_news
from tongbao.payments.authorisations.queries import completion_by_number
from tongbao.payments.collecting import chase
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Attempt, AttemptState, Payment
from tongbao.payments.collecting.outcomes import Evidence, Flow, record_news
from tongbao.payments.refunds import queries as refunds
from tongbao.payments.refunds.outcomes import ask_channel, record_refund_news
from tongbao.rails.channels.contract.callbacks import Callback
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Authorised, Closed, Succeeded, Unknown


class Ending:
    """What ends the believing of a callback, to be written with what it causes."""

    def __init__(self, *writes: Write) -> None:
        self.writes = writes
        self.written = False

    def also(self, _payment: Payment, _attempt: Attempt) -> tuple[Write, ...]:
        """Return the writes for the commit of the news."""
        return self.writes


async def take_payment(
    flow: Flow, account: ChannelAccount, callback: Callback, ending: Ending | None = None
) -> bool:
    """Record news of a payment, or of a capture or void; return whether it is one of ours.

    ``ending`` goes into the commit of the news, where that is all there is to do.
    """
    if not _is_number(callback.number):
        return False
    news = callback.outcome
    # Success changes whatever is open, or finds that it is not: only then a memory will do.
    known = flow.reads.recall(callback.number) if isinstance(news, Succeeded) else None
    attempt = known[1] if known else await flow.reads.attempt_by_number(callback.number)
    if attempt is None:
        return await _take_completion(flow, account, callback)
    if attempt.account_id != account.id:
        return False
    says_enough = not isinstance(news, Unknown) and (
        not isinstance(news, Succeeded) or news.money == attempt.money
    )
    ends = ending if says_enough else None
    payment, attempt = await record_news(
        flow,
        attempt,
        news,
        Evidence("callback"),
        known=known[0] if known and says_enough else None,
        also=None if ends is None else ends.also,
    )
    if ends is not None:
        ends.written = True
    if not says_enough and attempt.state.is_open:
        # The channel's own answer decides, not a callback that is vague or of another amount.
        await chase.look_at(flow, payment, attempt)
    return True


async def _take_completion(flow: Flow, account: ChannelAccount, callback: Callback) -> bool:
    completion = await completion_by_number(flow.db, callback.number)
    if completion is None or completion.account_id != account.id:
        return False
    news = callback.outcome
    if not isinstance(news, Unknown):
        evidence = Evidence("callback")
        completion = await record_completion_news(flow, completion, news, evidence)
    if completion.state.is_open:
        # It was vague, or of another amount: the channel's own answer decides.
        await ask_about_completion(flow, completion)
    return True


async def take_refund(flow: Flow, account: ChannelAccount, callback: Callback) -> bool:
    """Record news of a refund, or ask where it is vague; return whether it is one of ours."""
    if not _is_number(callback.number):
        return False
    refund = await refunds.refund_by_number(flow.db, callback.number)
    if refund is None:
        return await _take_taken_back(flow, account, callback)
    attempt = await payments.attempt(flow.db, refund.book, refund.attempt_id)
    if attempt.account_id != account.id:
        return False
    if isinstance(callback.outcome, Authorised | Closed | Unknown):
        if refund.state.is_open:
            await ask_channel(flow, refund)
        return True
    evidence = Evidence("callback", refund_id=refund.id)
    await record_refund_news(flow, refund, callback.outcome, evidence)
    return True


async def _take_taken_back(flow: Flow, account: ChannelAccount, callback: Callback) -> bool:
    """Hear that a payment was taken back by its own number: what we close is, if it was just paid.

    Where it stands as paid in our books, somebody gave money back behind them: that is not ours.
    """
    attempt = await flow.reads.attempt_by_number(callback.number)
    if attempt is None or attempt.account_id != account.id:
        return False
    if attempt.state.is_open:
        payment = await payments.payment(flow.db, attempt.book, attempt.payment_id)
        _, attempt = await chase.look_at(flow, payment, attempt)
    return attempt.state in {AttemptState.CLOSED, AttemptState.DECLINED, AttemptState.VOIDED}


async def take_agreement(reach: Reach, account: ChannelAccount, callback: Callback) -> bool:
    """Ask how an agreement stands: what may be taken is known from the channel's own answer."""
    if not _is_number(callback.number):
        return False
    agreement = await agreement_by_number(reach.db, callback.number)
    if agreement is None or agreement.account_id != account.id:
        return False
    await ask_about(reach, agreement)
    return True


def _is_number(text: str) -> bool:
    """Return whether a number could be one of ours at all."""
    try:
        from_base32(text)
    except UnknownId:
        return False
    return True
