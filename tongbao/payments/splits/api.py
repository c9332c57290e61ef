"""The routes of splits: who may get shares, giving them, letting them go, taking them back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, InvalidValue, NumberField
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.ledger.model import AccountFrozen
from tongbao.parties.merchants.model import ChannelNotOpened
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.queries import PaymentNotFound, cursor_id
from tongbao.payments.splits import _store as store
from tongbao.payments.splits.model import (
    SHARES_MAX,
    PartAsked,
    ReceiverRow,
    ReceiverView,
    ShareRow,
    Split,
    SplitAsked,
    SplitReturnView,
    SplitView,
    amounts_of,
    view_receiver,
    view_return,
    view_split,
)
from tongbao.payments.splits.outcomes import (
    UnsplitUnanswered,
    UnsplitView,
    ask_channel,
    ask_unsplit,
)
from tongbao.payments.splits.receivers import (
    ReceiverAsked,
    ReceiverNotActive,
    ReceiverNotFound,
    ReceiverNotOffered,
    Sharing,
    bind_receiver,
    unbind_receiver,
)
from tongbao.payments.splits.records import (
    SplitNotFound,
    returns_of_payment,
    shares_of,
    split_of_merchant,
    splits_of_payment,
)
from tongbao.payments.splits.returns import (
    ReceiverBalanceTooLow,
    ReturnExceeds,
    ReturnNotOffered,
    ReturnNumberUsed,
    request_return,
)
from tongbao.payments.splits.splits import (
    PaymentNotShareable,
    SplitBalanceTooLow,
    SplitExceeds,
    SplitNotHeld,
    SplitNumberUsed,
    cancel_split,
    finish_sharing,
    release_split,
    request_split,
)

_Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]


class BindReceiver(Struct, frozen=True, forbid_unknown_fields=True):
    """Let somebody have shares of your payments.

    ``account`` is a merchant's or a wallet's id here, or what the channel knows them by; then
    ``channel`` and ``channel_kind`` (MERCHANT_ID, PERSONAL_OPENID, userId, loginName) are wanted,
    and ``name`` where the channel checks it.
    """

    kind: Literal["merchant", "wallet", "channel"]
    account: Annotated[str, Meta(min_length=1, max_length=64)]
    channel: Annotated[str, Meta(max_length=32)] | None = None
    channel_kind: Annotated[str, Meta(max_length=32)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    relation: Annotated[str, Meta(min_length=1, max_length=32)] = "PARTNER"


class CreateSplit(Struct, frozen=True, forbid_unknown_fields=True):
    """Share a payment. Each share is an amount, or a ratio in millionths of what came in.

    With ``releases`` at, shares are held until ``release_at``; with later, until you release them.
    """

    merchant_split_no: NumberField
    shares: Annotated[list[PartAsked], Meta(min_length=1, max_length=SHARES_MAX)]
    releases: Literal["now", "at", "later"] = "now"
    release_at: datetime | None = None


class FinishSplits(Struct, frozen=True, forbid_unknown_fields=True):
    """Say that no more shares of a payment follow; a channel then frees what is left."""

    merchant_split_no: NumberField


class ReturnShare(Struct, frozen=True, forbid_unknown_fields=True):
    """Take a share back, or a part of it."""

    merchant_return_no: NumberField
    receiver_id: str
    amount: _Amount


class PaymentShares(Struct, frozen=True):
    """Everything shared of a payment, and what came back."""

    amount_shared: int
    splits: list[SplitView]
    returns: list[SplitReturnView]


_RECEIVER = BindReceiver("merchant", "mch_01jd7m9y7x6q3v5k8r2n4t0wzb")
_SPLIT = CreateSplit("S-20261121-0001", [PartAsked("rcv_01jd7m9y7x6q3v5k8r2n4t0wzb", 300)])
_FINISH = FinishSplits("S-20261121-0002")
_RETURN = ReturnShare("B-20261121-0001", "rcv_01jd7m9y7x6q3v5k8r2n4t0wzb", 100)


@post(
    "/v1/split_receivers",
    opt=needs(
        "splits:write",
        idempotent=True,
        refuses=[ReceiverNotOffered, ChannelNotOpened],
        request_example=_RECEIVER,
    ),
)
async def create_receiver(
    data: BindReceiver, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[ReceiverView]:
    """Bind a receiver; at a channel it is binding until the channel has said yes."""
    asked = ReceiverAsked(
        data.kind, data.account, data.relation, data.channel, data.channel_kind, data.name
    )

    async def fresh(use: Idempotency) -> ReceiverView:
        made = await bind_receiver(sharing, caller, asked, take=use.write, receiver_id=new_id())
        return view_receiver(made)

    async def resume(receiver_id: UUID) -> ReceiverView:
        return view_receiver(
            await store.GET_RECEIVER.one(sharing.flow.db, caller.book, receiver_id)
        )

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


@get("/v1/split_receivers", opt=needs("splits:read"))
async def list_receivers(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[ReceiverView]:
    """Return the merchant's receivers, newest first."""
    size = page_size(limit)
    whose = (caller.book, caller.merchant_id, caller.mode)
    rows = await store.LIST_RECEIVERS.all(db, *whose, cursor_id(cursor), size + 1)
    page = page_of(rows, size, lambda row: row.id)
    return Page([view_receiver(each) for each in page.items], page.next_cursor)


@post(
    "/v1/split_receivers/{receiver_id:str}/unbind",
    status_code=200,
    opt=needs("splits:write", idempotent=True, refuses=[ReceiverNotFound, ReceiverNotActive]),
)
async def unbind(
    receiver_id: str, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[ReceiverView]:
    """Let a receiver have no more shares; those on their way stay theirs."""
    target = parse("rcv", receiver_id)

    async def fresh(use: Idempotency) -> ReceiverView:
        row = await _receiver(sharing, caller, target)
        return view_receiver(await unbind_receiver(sharing, row, take=use.write))

    async def resume(found: UUID) -> ReceiverView:
        return view_receiver(await _receiver(sharing, caller, found))

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


async def _receiver(sharing: Sharing, caller: Caller, receiver_id: UUID) -> ReceiverRow:
    whose = (caller.merchant_id, caller.mode)
    row = await store.FIND_RECEIVER.first(sharing.flow.db, caller.book, receiver_id, *whose)
    if row is None:
        raise ReceiverNotFound
    return row


@post(
    "/v1/payments/{payment_id:str}/splits",
    opt=needs(
        "splits:write",
        idempotent=True,
        refuses=[
            PaymentNotFound,
            PaymentNotShareable,
            ReceiverNotFound,
            ReceiverNotActive,
            ReceiverNotOffered,
            SplitExceeds,
            SplitNumberUsed,
            SplitBalanceTooLow,
            AccountFrozen,
        ],
        request_example=_SPLIT,
    ),
)
async def create_split(
    payment_id: str, data: CreateSplit, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[SplitView]:
    """Share a payment with receivers of this platform, or of the channel that collected it."""
    target = parse("pay", payment_id)

    async def fresh(use: Idempotency) -> SplitView:
        payment = await _payment(sharing, caller, target)
        asked = _split_asked(data, payment)
        split, shares = await request_split(
            sharing, payment, asked, take=use.write, split_id=new_id()
        )
        return await _told(sharing, split, shares)

    async def resume(split_id: UUID) -> SplitView:
        split = await store.GET_SPLIT.one(sharing.flow.db, caller.book, split_id)
        return await _view(sharing, split)

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


async def _told(sharing: Sharing, split: Split, shares: list[ShareRow]) -> SplitView:
    """Return the split, after the channel was asked where it is that gives the shares."""
    if split.state.is_asked and split.queries == 0:
        return await _view(sharing, await ask_channel(sharing, split))
    return view_split(split, shares)


async def _view(sharing: Sharing, split: Split) -> SplitView:
    return view_split(split, await shares_of(sharing.flow.db, split))


async def _payment(sharing: Sharing, caller: Caller, payment_id: UUID) -> Payment:
    return await payments.payment_of_merchant(
        sharing.flow.db, payment_id, caller.merchant_id, caller.mode
    )


def _split_asked(data: CreateSplit, payment: Payment) -> SplitAsked:
    amounts = amounts_of(data.shares, payment.captured)
    if amounts is None or any(not 0 < each <= AMOUNT_MAX for each in amounts):
        reason = "each share is an amount or a ratio, of at least one minor unit"
        raise InvalidValue(param="$.shares", reason=reason)
    receivers = [parse("rcv", each.receiver_id) for each in data.shares]
    if len(set(receivers)) != len(receivers):
        raise InvalidValue(param="$.shares", reason="a receiver is there twice")
    if (data.releases == "at") != (data.release_at is not None):
        raise InvalidValue(param="$.release_at", reason="goes with releases at, and only with it")
    if data.release_at is not None and data.release_at.tzinfo is None:
        raise InvalidValue(param="$.release_at", reason="say the offset")
    parts = list(zip(receivers, amounts, strict=True))
    return SplitAsked(data.merchant_split_no, parts, data.releases, data.release_at)


@post(
    "/v1/payments/{payment_id:str}/finish_splits",
    opt=needs(
        "splits:write",
        idempotent=True,
        refuses=[PaymentNotFound, PaymentNotShareable, SplitNumberUsed],
        request_example=_FINISH,
    ),
)
async def finish_splits(
    payment_id: str, data: FinishSplits, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[SplitView]:
    """Finish the sharing of a payment: the rest is yours, and the channel frees it."""
    target = parse("pay", payment_id)

    async def fresh(use: Idempotency) -> SplitView:
        payment = await _payment(sharing, caller, target)
        split = await finish_sharing(
            sharing, payment, data.merchant_split_no, take=use.write, split_id=new_id()
        )
        return await _told(sharing, split, [])

    async def resume(split_id: UUID) -> SplitView:
        split = await store.GET_SPLIT.one(sharing.flow.db, caller.book, split_id)
        return await _view(sharing, split)

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


@get("/v1/payments/{payment_id:str}/splits", opt=needs("splits:read", refuses=[PaymentNotFound]))
async def list_splits(payment_id: str, sharing: Sharing, caller: Caller) -> PaymentShares:
    """Return every split of a payment, and every share that came back or is to."""
    payment = await _payment(sharing, caller, parse("pay", payment_id))
    place = (payment.book, payment.id)
    splits = await splits_of_payment(sharing.flow.db, *place)
    returns = await returns_of_payment(sharing.flow.db, *place)
    return PaymentShares(
        payment.shared,
        [view_split(split, shares) for split, shares in splits],
        [view_return(each) for each in returns],
    )


@post(
    "/v1/payments/{payment_id:str}/unsplit_money",
    status_code=200,
    opt=needs("splits:read", refuses=[PaymentNotFound, PaymentNotShareable, UnsplitUnanswered]),
)
async def ask_unsplit_money(payment_id: str, sharing: Sharing, caller: Caller) -> UnsplitView:
    """Ask the channel (WeChat Pay) how much of a payment may still be shared."""
    return await ask_unsplit(sharing, await _payment(sharing, caller, parse("pay", payment_id)))


@get("/v1/splits/{split_id:str}", opt=needs("splits:read", refuses=[SplitNotFound]))
async def get_split(split_id: str, sharing: Sharing, caller: Caller) -> SplitView:
    """Return one split."""
    return await _view(sharing, await _split(sharing, caller, split_id))


async def _split(sharing: Sharing, caller: Caller, split_id: str) -> Split:
    whose = (caller.merchant_id, caller.mode)
    target = parse("spl", split_id)
    return await split_of_merchant(sharing.flow.db, caller.book, target, *whose)


@post(
    "/v1/splits/{split_id:str}/release",
    status_code=200,
    opt=needs(
        "splits:write", idempotent=True, refuses=[SplitNotFound, SplitNotHeld, AccountFrozen]
    ),
)
async def release(
    split_id: str, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[SplitView]:
    """Give the shares of a split that is held."""

    async def fresh(use: Idempotency) -> SplitView:
        split = await _split(sharing, caller, split_id)
        split = await release_split(sharing, split, use.write)
        return await _told(sharing, split, await shares_of(sharing.flow.db, split))

    async def resume(found: UUID) -> SplitView:
        return await _view(sharing, await store.GET_SPLIT.one(sharing.flow.db, caller.book, found))

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/splits/{split_id:str}/cancel",
    status_code=200,
    opt=needs(
        "splits:write", idempotent=True, refuses=[SplitNotFound, SplitNotHeld, AccountFrozen]
    ),
)
async def cancel(
    split_id: str, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[SplitView]:
    """Call off a split that is held; what was held is yours again."""

    async def fresh(use: Idempotency) -> SplitView:
        split = await _split(sharing, caller, split_id)
        return await _view(sharing, await cancel_split(sharing, split, use.write))

    async def resume(found: UUID) -> SplitView:
        return await _view(sharing, await store.GET_SPLIT.one(sharing.flow.db, caller.book, found))

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/splits/{split_id:str}/returns",
    opt=needs(
        "splits:write",
        idempotent=True,
        refuses=[
            SplitNotFound,
            ReceiverNotFound,
            ReturnExceeds,
            ReturnNotOffered,
            ReturnNumberUsed,
            ReceiverBalanceTooLow,
            AccountFrozen,
        ],
        request_example=_RETURN,
    ),
)
async def create_return(
    split_id: str, data: ReturnShare, request: ApiRequest, sharing: Sharing, caller: Caller
) -> Response[SplitReturnView]:
    """Take a share back from its receiver, in part or in full."""

    async def fresh(use: Idempotency) -> SplitReturnView:
        split = await _split(sharing, caller, split_id)
        wanted = parse("rcv", data.receiver_id)
        found = [
            each for each in await shares_of(sharing.flow.db, split) if each.receiver_id == wanted
        ]
        if not found:
            raise ReceiverNotFound
        asked = (data.merchant_return_no, data.amount)
        return view_return(await request_return(sharing, split, found[0], asked, take=use.write))

    async def resume(return_id: UUID) -> SplitReturnView:
        return view_return(await store.GET_RETURN.one(sharing.flow.db, caller.book, return_id))

    return await answer_once(request, sharing.flow.db, fresh=fresh, resume=resume)


ROUTES: list[HTTPRouteHandler] = [
    create_receiver,
    list_receivers,
    unbind,
    create_split,
    finish_splits,
    list_splits,
    ask_unsplit_money,
    get_split,
    release,
    cancel,
    create_return,
]
