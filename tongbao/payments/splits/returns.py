"""Take shares back: asked by the merchant, or by a refund of the payment that was shared.

The rule for refunds: each receiver gives back its part of what is refunded, rounded down, so that
all of it is back when all is refunded. What a receiver cannot give back any more, the merchant
bears, and all of it where the merchant's terms say so. In the book shares come back in the refund's
own commit; a channel is asked for them before it is asked for the refund, or together with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Again, Lease
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import UnknownId, base32, derived_id, from_base32, new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountFrozen, ExceedsBalance, Transfer
from tongbao.ledger.queries import balance_of
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import (
    MOVED_ON,
    TOTAL_BROKEN,
    Evidence,
    StateContended,
    exchange_write,
)
from tongbao.payments.collecting.payments import Taking
from tongbao.payments.refunds import queries as refunds
from tongbao.payments.refunds.model import Refund, RefundState
from tongbao.payments.splits import _store as store
from tongbao.payments.splits.model import (
    ReceiverRow,
    Return,
    ReturnState,
    ShareRow,
    ShareState,
    Split,
    SplitTerms,
    back_of,
)
from tongbao.payments.splits.outcomes import ask_channel, giving
from tongbao.payments.splits.receivers import Sharing, opened
from tongbao.payments.splits.records import (
    DELAYS,
    RETURN_EXCEEDS,
    RETURN_NUMBER_TAKEN,
    ChaseReturn,
    accounts_of,
    back_transfers,
    commit,
    is_overtaken,
    return_event,
    return_row,
    return_writes,
    split_by_number,
    unshared_writes,
)
from tongbao.payments.taking_back.model import SHARES_MOVED, Ready, RefundAsked, TakenBack
from tongbao.rails.channels.capabilities.shares import RefundingShares, SplitReturn
from tongbao.rails.channels.contract.callbacks import Callback
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Pending,
    Succeeded,
    Unknown,
)

_TRIES_MAX: Final = 8
_NEVER_BACK: Final = frozenset({"PERSONAL_OPENID", "PERSONAL_SUB_OPENID"})
"""Whose shares WeChat Pay takes back from nobody: only a merchant's can be asked for."""


class ReturnExceeds(Rejected):
    """More would come back than the receiver has of the share, or the share was never given."""

    code = RETURN_EXCEEDS
    advice = "Ask for no more than the share's amount less amount_returned."
    advice_zh = "回退金额不得超过该分账的剩余可回退金额。"


class ReturnNumberUsed(Conflict):
    """The merchant's return number belongs to another request, for ever."""

    code = "split.return_number_used"
    advice = "Use a new merchant_return_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_return_no，或原样重复首次请求。"


class ReturnNotOffered(Rejected):
    """The channel takes this share back only with a refund, or from nobody."""

    code = "split.return_not_offered"
    advice = "Refund the payment; what the receiver keeps is then the merchant's to bear."
    advice_zh = "该渠道仅支持随退款回退分账，或不支持从个人回退；请直接退款。"


class ReceiverBalanceTooLow(Rejected):
    """The receiver does not have the share any more."""

    code = "split.receiver_balance_too_low"
    advice = "Ask the receiver to top up, or bear it yourself."
    advice_zh = "接收方余额不足，无法回退。"


async def request_return(
    sharing: Sharing, split: Split, share: ShareRow, asked: tuple[str, int], *, take: Taking
) -> Return:
    """Take a share back, or a part; ``asked``: the merchant's number and minor units.

    The same number with the same content returns the return it already made.

    Raises:
        ReturnExceeds, ReturnNumberUsed, ReturnNotOffered, ReceiverBalanceTooLow, AccountFrozen,
        InFlight, StateContended
    """
    flow, (number, amount) = sharing.flow, asked
    receiver = await store.GET_RECEIVER.one(flow.db, share.book, share.receiver_id)
    if split.side == "channel" and not _may_come_back_alone(sharing, receiver):
        raise ReturnNotOffered(channel=receiver.channel or "")
    now = flow.db.clock.now()
    back = return_row(split, share, new_id(), number, amount, is_done=split.side == "book")
    back = replace(back, created_at=now, ended_at=now if split.side == "book" else None)
    transfers: tuple[Transfer, ...] = ()
    if split.side == "book":
        transfers = back_transfers("split.returned", split, receiver, back)
    writes = (take(back.id, now), *return_writes(split, back))
    failpoint("splits.before_return")
    code = await commit(sharing, split.book, transfers, writes)
    failpoint("splits.after_return")
    if code is None:
        flow.nudge()
        return back if split.side == "book" else await ask_for_return(sharing, back)
    if code == RETURN_NUMBER_TAKEN:
        return await _earlier(sharing, share, asked, take)
    raise _refusal(code)


def _refusal(code: str) -> Exception:
    known: dict[str, type[Exception]] = {
        RETURN_EXCEEDS: ReturnExceeds,
        TOTAL_BROKEN: ReturnExceeds,
        ExceedsBalance.code: ReceiverBalanceTooLow,
        AccountFrozen.code: AccountFrozen,
        InFlight.code: InFlight,
    }
    return known.get(code, StateContended)()


async def _earlier(
    sharing: Sharing, share: ShareRow, asked: tuple[str, int], take: Taking
) -> Return:
    db, (number, amount) = sharing.flow.db, asked
    split = await store.GET_SPLIT.one(db, share.book, share.split_id)
    whose = (split.book, split.merchant_id, split.mode)
    found = await store.FIND_RETURN_BY_NUMBER.one(db, *whose, number)
    if (found.share_id, found.amount) != (share.id, amount):
        raise ReturnNumberUsed(merchant_return_no=number)
    async with db.begin("splits") as tx:
        await take(found.id, tx.now).run(tx)
    return found


def _may_come_back_alone(sharing: Sharing, receiver: ReceiverRow) -> bool:
    channel: object = sharing.flow.channels.get(receiver.channel or "")
    is_with_refund = isinstance(channel, RefundingShares)
    return not is_with_refund and receiver.channel_kind not in _NEVER_BACK


# --- at a channel ---------------------------------------------------------------------------------


async def ask_for_return(sharing: Sharing, back: Return) -> Return:
    """Have the channel take a share back, or ask what became of it.

    Raises:
        StateContended
    """
    flow = sharing.flow
    split = await store.GET_SPLIT.one(flow.db, back.book, back.split_id)
    if split.account_id is None or not back.state.is_open:
        return back
    account = await flow.account(split.account_id)
    channel, order = giving(sharing, account), await _order(sharing, split, back)
    if back.state is not ReturnState.REQUESTED or not _takes_back_alone(channel):
        found = await channel.query_split_return(account, order)
        failpoint("splits.after_return_query")
        back = await _record(sharing, split, back, found, "query_split_return")
        is_unknown_there = isinstance(found.outcome, Absent) and back.state.is_open
        if not (is_unknown_there and _takes_back_alone(channel)):
            return back
    answer = await channel.return_split(account, order)
    failpoint("splits.after_return_call")
    return await _record(sharing, split, back, answer, "split_return")


def _takes_back_alone(channel: object) -> bool:
    """Whether the channel takes shares back by themselves, and not only with a refund."""
    return not isinstance(channel, RefundingShares)


async def _order(sharing: Sharing, split: Split, back: Return) -> SplitReturn:
    share = await store.GET_SHARE.one(sharing.flow.db, back.book, back.share_id)
    row = await store.GET_RECEIVER.one(sharing.flow.db, back.book, share.receiver_id)
    channel: object = sharing.flow.channels[row.channel or ""]
    # Together with a refund it bears the refund's number; alone its own.
    alone = back.refund_id is None or not isinstance(channel, RefundingShares)
    return SplitReturn(
        back.number if alone or back.refund_id is None else base32(back.refund_id),
        split.number,
        split.channel_ref or split.channel_trade or "",
        opened(sharing.keyring, row),
        Money(back.amount, split.currency),
    )


async def _record(
    sharing: Sharing, split: Split, back: Return, answer: Answer[object], purpose: str
) -> Return:
    flow, exchange_id = sharing.flow, new_id()
    evidence = Evidence(purpose, purpose, answer.exchange)
    for _ in range(_TRIES_MAX):
        back = await store.GET_RETURN.one(flow.db, back.book, back.id)
        now = flow.db.clock.now()
        becomes = _after(back, answer.outcome)
        if not becomes.state.is_open:
            becomes = replace(becomes, ended_at=now)
        place = (back.book, back.payment_id)
        seen = (
            Write(store.COUNT_RETURN_QUERY, (back.book, back.id)),
            exchange_write(place, exchange_id, evidence, answer.outcome, now),
        )
        if becomes == back:
            await commit(sharing, back.book, (), seen)
            return replace(back, queries=back.queries + 1)
        transfers, writes = await _end_writes(sharing, split, back, becomes)
        failpoint("splits.before_return_outcome")
        code = await commit(sharing, back.book, transfers, (*writes, *seen))
        if code is None:
            flow.nudge()
            return replace(becomes, version=back.version + 1, queries=back.queries + 1)
        if not is_overtaken(code):
            raise RuntimeError(f"the ledger refused a return: {code} for {back.id}")
    raise StateContended


def _after(back: Return, news: object) -> Return:
    """Return what a channel's word makes of a return; only positive evidence ends it."""
    if not back.state.is_open:
        return back
    match news:
        case Succeeded():
            return replace(back, state=ReturnState.SUCCEEDED, channel_ref=news.channel_ref)
        case Declined():
            return replace(back, state=ReturnState.FAILED, code=news.code[:64])
        case Pending():
            return replace(back, state=ReturnState.PENDING)
        case Unknown() if back.state is ReturnState.REQUESTED:
            return replace(back, state=ReturnState.UNKNOWN)
        case _:
            return back


async def _end_writes(
    sharing: Sharing, split: Split, back: Return, becomes: Return
) -> tuple[tuple[Transfer, ...], tuple[Write, ...]]:
    """Return the money and the rows of a return that goes on; the payment's row comes first."""
    state = (becomes.state, becomes.code, becomes.channel_ref, becomes.ended_at)
    update = Write(
        store.UPDATE_RETURN, (back.book, back.id, back.version, *state), refusal=MOVED_ON
    )
    if becomes.state.is_open:
        return (), (update,)
    shown, now = replace(becomes, version=back.version + 1), becomes.ended_at or back.created_at
    told = event_write(return_event(shown), now=now)
    if becomes.state is ReturnState.FAILED:
        lowered = (back.book, back.share_id, -back.amount)
        return (), (Write(store.ADD_RETURNED, lowered, refusal=TOTAL_BROKEN), update, told)
    share = await store.GET_SHARE.one(sharing.flow.db, back.book, back.share_id)
    receiver = await store.GET_RECEIVER.one(sharing.flow.db, back.book, share.receiver_id)
    moved = back_transfers("split.channel_returned", split, receiver, back)
    return moved, (*unshared_writes(split, back.amount), update, told)


async def chase_return(sharing: Sharing, task: ChaseReturn, _lease: Lease) -> Again | None:
    """Take the next step of a return at a channel; None at its end."""
    db = sharing.flow.db
    back = await store.GET_RETURN.one(db, task.book, task.return_id)
    if not back.state.is_open:
        return None
    refund = await _refund_to_wait_for(sharing, back)
    if refund is not None and refund.state is RefundState.FAILED:
        split = await store.GET_SPLIT.one(db, back.book, back.split_id)
        ended = {"code": "refund.failed", "ended_at": db.clock.now()}
        becomes = replace(back, state=ReturnState.FAILED, **ended)
        _, writes = await _end_writes(sharing, split, back, becomes)
        if is_overtaken(await commit(sharing, back.book, (), writes)):
            raise StateContended
        return None
    if refund is None or refund.state is RefundState.SUCCEEDED:
        back = await ask_for_return(sharing, back)
    if not back.state.is_open:
        return None
    return Again(DELAYS[min(back.queries, len(DELAYS) - 1)])


async def _refund_to_wait_for(sharing: Sharing, back: Return) -> Refund | None:
    """Return the refund that a share comes back with, where it comes back no other way."""
    if back.refund_id is None or await _is_alone(sharing, back):
        return None
    return await refunds.refund(sharing.flow.db, back.book, back.refund_id)


async def _is_alone(sharing: Sharing, back: Return) -> bool:
    split = await store.GET_SPLIT.one(sharing.flow.db, back.book, back.split_id)
    if split.account_id is None:
        return True
    account = await sharing.flow.account(split.account_id)
    return _takes_back_alone(sharing.flow.channels[account.channel])


async def take_split(sharing: Sharing, account: ChannelAccount, callback: Callback) -> bool:
    """Ask how a split or a return stands that a channel tells of; whether it is one of ours."""
    db = sharing.flow.db
    try:
        found = await split_by_number(db, callback.number)
        back = None if found else await store.FIND_RETURN.first(db, from_base32(callback.number))
    except UnknownId:
        return False
    split = found
    if back is not None:
        split = await store.GET_SPLIT.one(db, back.book, back.split_id)
    if split is None or split.account_id != account.id:
        return False
    if back is not None:
        await ask_for_return(sharing, back)
    else:
        await ask_channel(sharing, split)
    return True


# --- for refunds ----------------------------------------------------------------------------------


class RefundShares:
    """Takes shares back for refunds; see `taking_back.model.SharesTaker`."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    async def with_refund(self, asked: RefundAsked) -> TakenBack:
        """Return what of the shares comes back in the refund's commit, or is asked for from it."""
        if asked.shared == 0:
            return TakenBack()
        db = self._sharing.flow.db
        payment = await payments.payment(db, asked.book, asked.payment_id)
        whose = (payment.merchant_id, payment.mode)
        terms = await store.TERMS.first(db, *whose) or SplitTerms()
        if terms.refund_from == "merchant":
            return TakenBack()
        transfers: list[Transfer] = []
        writes: list[Write] = []
        for share in await store.SHARES_OF_PAYMENT.all(db, asked.book, asked.payment_id):
            moved, written = await self._back(asked, share)
            transfers += moved
            writes += written
        return TakenBack(tuple(transfers), tuple(writes))

    async def _back(
        self, asked: RefundAsked, share: ShareRow
    ) -> tuple[tuple[Transfer, ...], tuple[Write, ...]]:
        sharing, db = self._sharing, self._sharing.flow.db
        amount = back_of(share, asked.captured, asked.back_in_all)
        if share.state is not ShareState.SUCCEEDED or amount == 0:
            return (), ()
        split = await store.GET_SPLIT.one(db, share.book, share.split_id)
        receiver = await store.GET_RECEIVER.one(db, share.book, share.receiver_id)
        in_book = split.side == "book"
        if in_book:
            there = await balance_of(db, split.book, accounts_of(split, receiver)["receiver"])
            amount = min(amount, max(there.available, 0))
        elif receiver.channel_kind in _NEVER_BACK:
            amount = 0
        if amount == 0:
            return (), ()
        return_id = derived_id(asked.refund_id, f"share {share.id}")
        # A colon, because no merchant's number has one: nobody can take the number first.
        back = return_row(
            split, share, return_id, f"refund:{base32(return_id)}", amount, is_done=in_book
        )
        back = replace(back, refund_id=asked.refund_id, created_at=asked.now,
                       ended_at=asked.now if in_book else None)  # fmt: skip
        moved = back_transfers("split.returned", split, receiver, back) if in_book else ()
        written = [
            replace(each, refusal=SHARES_MOVED) if each.refusal else each
            for each in return_writes(split, back)
        ]
        return (moved if sharing.flow.licence.may_hold_funds else ()), tuple(written)

    async def before_refund(self, book: int, refund_id: UUID) -> Ready:
        """Have the channel take back what it takes back alone; what it will not, is borne."""
        sharing = self._sharing
        waiting: list[Return] = []
        for back in await store.RETURNS_OF_REFUND.all(sharing.flow.db, book, refund_id):
            if not back.state.is_open:
                continue
            is_alone = await _is_alone(sharing, back)
            seen = await ask_for_return(sharing, back) if is_alone else back
            if seen.state.is_open:
                waiting.append(seen)
        alone = [back for back in waiting if await _is_alone(sharing, back)]
        if alone:
            return Ready(may_go=False)
        return Ready(backs=await self._orders(waiting))

    async def _orders(self, waiting: Sequence[Return]) -> list[SplitReturn]:
        sharing = self._sharing
        return [
            await _order(
                sharing, await store.GET_SPLIT.one(sharing.flow.db, back.book, back.split_id), back
            )
            for back in waiting
        ]
