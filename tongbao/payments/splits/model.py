"""What splits, shares and returns are, and what a channel's word does to them. No I/O.

    split    held ─► (released) ─► requested ─► pending | unknown ─► ended      at a channel
             held ─► ended | cancelled                                          in the book
    share    held | pending ─► succeeded | failed | cancelled
    return   requested ─► pending | unknown ─► succeeded | failed

A split of the book moves money between accounts of the house: shares are given in its own commit,
or held until a day or a word. A split at a channel is an instruction: the channel gives the shares,
and the book follows what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.shares import ShareResult, SplitDone, SplitUnderWay
from tongbao.rails.channels.contract.outcomes import Declined

SHARE_MAX_PPM: Final = 300_000
"""How much of a payment may be given away where nothing else was agreed: WeChat Pay's own default
for service providers is 30 %, and no channel's is higher."""
SHARES_MAX: Final = 50  # as many as WeChat Pay takes in one order
PPM: Final = 1_000_000


class SplitState(StrEnum):
    """Where a split stands; the last two are ends."""

    HELD = "held"
    REQUESTED = "requested"
    PENDING = "pending"
    UNKNOWN = "unknown"
    ENDED = "ended"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether shares may still be given or fail."""
        return self not in {SplitState.ENDED, SplitState.CANCELLED}

    @property
    def is_asked(self) -> bool:
        """Whether the channel has it, or may have."""
        return self in {SplitState.REQUESTED, SplitState.PENDING, SplitState.UNKNOWN}


class ShareState(StrEnum):
    """Where one receiver's share stands."""

    HELD = "held"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether the receiver may still get it."""
        return self in {ShareState.HELD, ShareState.PENDING}


class ReturnState(StrEnum):
    """Where a share that is to come back stands."""

    REQUESTED = "requested"
    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether it may still come back."""
        return self not in {ReturnState.SUCCEEDED, ReturnState.FAILED}


class ReceiverState(StrEnum):
    """Whether somebody may get shares."""

    BINDING = "binding"
    ACTIVE = "active"
    FAILED = "failed"
    UNBINDING = "unbinding"
    UNBOUND = "unbound"


class ReceiverRow(Struct, frozen=True):
    """One row of split_receiver. Who it is at a channel is sealed."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    kind: Literal["merchant", "wallet", "channel"]
    party_id: UUID | None
    account_id: UUID | None
    channel: str | None
    channel_kind: str | None
    account_masked: str
    account_mac: bytes
    sealed: bytes | None
    relation: str
    state: ReceiverState
    code: str | None
    created_at: datetime
    ended_at: datetime | None
    version: int


class SplitTerms(Struct, frozen=True):
    """How much of a payment a merchant may share, and who pays for its refund then."""

    share_max_ppm: int = SHARE_MAX_PPM
    refund_from: Literal["receivers", "merchant"] = "receivers"

    def most_of(self, captured: int) -> int:
        """Return how much of what came in may be shared, in minor units."""
        return captured * self.share_max_ppm // PPM


class Split(Struct, frozen=True):
    """One row of the split table. A channel knows it by `number`."""

    book: int
    id: UUID
    payment_id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_split_no: str
    request_hash: bytes
    currency: str
    amount: int
    side: Literal["book", "channel"]
    kind: Literal["shares", "finish"]
    account_id: UUID | None
    channel_trade: str | None
    releases: Literal["now", "at", "later"]
    release_at: datetime | None
    state: SplitState
    code: str | None
    channel_ref: str | None
    created_at: datetime
    ended_at: datetime | None
    queries: int
    version: int

    @property
    def number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)


class ShareRow(Struct, frozen=True):
    """One row of split_share: what one receiver gets."""

    book: int
    id: UUID
    split_id: UUID
    payment_id: UUID
    receiver_id: UUID
    amount: int
    state: ShareState
    code: str | None
    channel_ref: str | None
    returned: int
    version: int


class Return(Struct, frozen=True):
    """One row of split_return: a share, or a part of it, on its way back."""

    book: int
    id: UUID
    share_id: UUID
    split_id: UUID
    payment_id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_return_no: str
    refund_id: UUID | None
    amount: int
    state: ReturnState
    code: str | None
    channel_ref: str | None
    created_at: datetime
    ended_at: datetime | None
    queries: int
    version: int

    @property
    def number(self) -> str:
        """Our number at the channel."""
        return base32(self.id)


class SharedAtChannel(Struct, frozen=True):
    """A share that a channel gave away (negative) or took back (positive), in minor units."""

    id: UUID
    number_of: UUID  # the split or the return, under whose number the channel has it
    kind: str  # "split" or "split_return", as bills of shares say it
    amount: int
    currency: str
    account_id: UUID | None  # never None at a channel
    at: datetime | None


class PartAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """Who gets a share, and how much: minor units, or millionths of what came in."""

    receiver_id: str
    amount: int | None = None
    ratio_ppm: int | None = None


class SplitAsked(Struct, frozen=True):
    """A merchant's request to share a payment, with every share in minor units."""

    merchant_split_no: str
    parts: Sequence[tuple[UUID, int]]  # receiver and amount
    releases: Literal["now", "at", "later"]
    release_at: datetime | None

    @property
    def total(self) -> int:
        """Return what is given away in all."""
        return sum(amount for _, amount in self.parts)

    def fingerprint(self, payment_id: UUID) -> bytes:
        """Return what makes two requests the same split."""
        parts = sorted((str(who), amount) for who, amount in self.parts)
        meant = (str(payment_id), parts, self.releases, self.release_at)
        return sha256(msgspec.json.encode(meant)).digest()


def amounts_of(parts: Sequence[PartAsked], captured: int) -> list[int] | None:
    """Return every share in minor units, or None where one says no amount or two.

    Ratios are of what came in. Their shares come to what the ratios come to together, rounded down:
    the minor units that are left over go one each to the largest remainders.
    """
    if any((part.amount is None) == (part.ratio_ppm is None) for part in parts):
        return None
    ratios = [part.ratio_ppm or 0 for part in parts]
    rest = PPM - sum(ratios)
    if rest < 0 or min(ratios, default=0) < 0:
        return None
    shares = [each.amount for each in Money(captured, "CNY").allocate([*ratios, rest])]
    return [
        share if part.amount is None else part.amount
        for part, share in zip(parts, shares, strict=False)
    ]


def back_of(share: ShareRow, captured: int, back_in_all: int) -> int:
    """Return what of a share comes back when so much of its payment has been given back in all.

    It is the share's part of that, rounded down, less what came back before; when all is given
    back, all of the share comes back.
    """
    due = share.amount * back_in_all // captured - share.returned
    return min(max(due, 0), share.amount - share.returned)


class ShareStep(Struct, frozen=True):
    """What a channel's word does to a split: its row as it becomes, and the shares that ended."""

    split: Split
    given: Sequence[ShareRow] = ()
    failed: Sequence[ShareRow] = ()


def next_share_step(
    split: Split, shares: Sequence[ShareRow], accounts: dict[UUID, str], news: object, now: datetime
) -> ShareStep | None:
    """Return what a channel's word about a split changes, or None where it changes nothing.

    ``accounts``: who each receiver is at the channel. Only its own word ends a share: what it does
    not say, or says of a share that has ended, is nothing.
    """
    if not split.state.is_asked:
        return None
    match news:
        case SplitDone() | SplitUnderWay():
            return _on_results(split, shares, accounts, news, now)
        case Declined():
            failed = [_failed(each, news.code) for each in shares if each.state.is_open]
            ended = replace(split, state=SplitState.ENDED, code=news.code[:64], ended_at=now)
            return ShareStep(ended, failed=failed)
        case _:
            if split.state is not SplitState.REQUESTED:
                return None
            return ShareStep(replace(split, state=SplitState.UNKNOWN))


def _on_results(
    split: Split,
    shares: Sequence[ShareRow],
    accounts: dict[UUID, str],
    news: SplitDone | SplitUnderWay,
    now: datetime,
) -> ShareStep | None:
    said = {result.account: result for result in news.results}
    given, failed = [], []
    for share in shares:
        result = said.get(accounts[share.receiver_id])
        if not share.state.is_open or result is None or result.money.amount != share.amount:
            continue
        if result.state == "succeeded":
            given.append(_given(share, result))
        elif result.state == "failed":
            failed.append(_failed(share, result.reason or "failed"))
    ended = len(given) + len(failed) == sum(each.state.is_open for each in shares)
    is_over = isinstance(news, SplitDone) and ended
    state = SplitState.ENDED if is_over else SplitState.PENDING
    if not (given or failed) and state is split.state:
        return None
    becomes = replace(split, state=state, channel_ref=news.channel_ref, code=None)
    return ShareStep(replace(becomes, ended_at=now if is_over else None), given, failed)


def _given(share: ShareRow, result: ShareResult) -> ShareRow:
    return replace(share, state=ShareState.SUCCEEDED, channel_ref=result.channel_ref or None)


def _failed(share: ShareRow, code: str) -> ShareRow:
    return replace(share, state=ShareState.FAILED, code=code[:64])


class ShareView(Struct, frozen=True, omit_defaults=True):
    """One receiver's share as the API and the webhooks show it."""

    id: str
    receiver_id: str
    amount: int
    status: ShareState
    amount_returned: int
    code: str | UnsetType = UNSET


class SplitView(Struct, frozen=True, omit_defaults=True):
    """A split as the API and the webhooks show it."""

    id: str
    object: Literal["split"]
    mode: Mode
    payment_id: str
    merchant_split_no: str
    kind: Literal["shares", "finish"]
    side: Literal["book", "channel"]
    amount: int
    currency: str
    status: SplitState
    releases: Literal["now", "at", "later"]
    shares: list[ShareView]
    version: int
    created_at: datetime
    release_at: datetime | UnsetType = UNSET
    code: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class SplitReturnView(Struct, frozen=True, omit_defaults=True):
    """A share on its way back, or come back."""

    id: str
    object: Literal["split_return"]
    mode: Mode
    payment_id: str
    split_id: str
    share_id: str
    merchant_return_no: str
    amount: int
    status: ReturnState
    version: int
    created_at: datetime
    refund_id: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class ReceiverView(Struct, frozen=True, omit_defaults=True):
    """Somebody who may get shares, as the merchant sees them."""

    id: str
    object: Literal["split_receiver"]
    mode: Mode
    kind: Literal["merchant", "wallet", "channel"]
    account: str
    relation: str
    status: ReceiverState
    created_at: datetime
    channel: str | UnsetType = UNSET
    code: str | UnsetType = UNSET


def view_split(split: Split, shares: Sequence[ShareRow]) -> SplitView:
    """Return a split as its merchant may see it."""
    return SplitView(
        id=show("spl", split.id),
        object="split",
        mode=split.mode,
        payment_id=show("pay", split.payment_id),
        merchant_split_no=split.merchant_split_no,
        kind=split.kind,
        side=split.side,
        amount=split.amount,
        currency=split.currency,
        status=split.state,
        releases=split.releases,
        shares=[
            ShareView(
                show("shr", each.id),
                show("rcv", each.receiver_id),
                each.amount,
                each.state,
                each.returned,
                each.code or UNSET,
            )
            for each in shares
        ],
        version=split.version,
        created_at=split.created_at,
        release_at=split.release_at or UNSET,
        code=split.code or UNSET,
        ended_at=split.ended_at or UNSET,
    )


def view_return(back: Return) -> SplitReturnView:
    """Return a return as its merchant may see it."""
    return SplitReturnView(
        id=show("spr", back.id),
        object="split_return",
        mode=back.mode,
        payment_id=show("pay", back.payment_id),
        split_id=show("spl", back.split_id),
        share_id=show("shr", back.share_id),
        merchant_return_no=back.merchant_return_no,
        amount=back.amount,
        status=back.state,
        version=back.version,
        created_at=back.created_at,
        refund_id=UNSET if back.refund_id is None else show("ref", back.refund_id),
        code=back.code or UNSET,
        ended_at=back.ended_at or UNSET,
    )


def view_receiver(row: ReceiverRow) -> ReceiverView:
    """Return a receiver as the merchant may see it."""
    return ReceiverView(
        id=show("rcv", row.id),
        object="split_receiver",
        mode=row.mode,
        kind=row.kind,
        account=row.account_masked,
        relation=row.relation,
        status=row.state,
        created_at=row.created_at,
        channel=row.channel or UNSET,
        code=row.code or UNSET,
    )
