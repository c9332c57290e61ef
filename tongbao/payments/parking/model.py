"""What visits to car parks are, and what news from a channel does to them. No I/O.

    created ─► open ◄─► blocked          unknown is a state: nobody answered about the plate
       └────► unknown ◄─┘   └──► left

The plate lies sealed: it says who was where. The fee is a payment like any other, taken under what
the car's owner agreed to at the channel; of a visit's payments at most one can succeed.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, assert_never
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.capabilities.agreements import VisitBlocked, VisitOpen, VisitOutcome
from tongbao.rails.channels.contract.orders import PlateColour
from tongbao.rails.channels.contract.outcomes import Absent, Declined, NotSent, Unknown


class ParkingNotOffered(Rejected):
    """The channel takes no parking fees."""

    code = "parking.not_offered"
    advice = "Choose a channel that takes parking fees: wechat_pay or alipay."
    advice_zh = "该渠道不支持停车代扣，请更换渠道。"


class VisitNotFound(NotFound):
    """The caller has no such visit."""

    code = "parking.visit_not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查停车记录标识，并确认 API 密钥属于同一商户与模式。"


class VisitNumberUsed(Conflict):
    """The merchant's number of the visit belongs to another request, for ever."""

    code = "parking.visit_number_used"
    advice = "Use a new merchant_visit_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_visit_no，或原样重复首次请求。"


class VisitNotChargeable(Conflict):
    """The channel does not take this plate's fees, or has not said that it does."""

    code = "parking.not_chargeable"
    advice = "Let the driver pay in another way, or ask again in a moment if it is unknown."
    advice_zh = "该车牌当前不可代扣，请引导车主使用其他方式缴费；状态未知时请稍后重试。"


class VisitCharged(Conflict):
    """The visit's fee was taken, or may still be."""

    code = "parking.charged"
    advice = "Look at the payment of the visit; charge again only after it ended unpaid."
    advice_zh = "该次停车已发起扣费，请查看对应支付单；仅当其未成功结束后方可再次扣费。"


class VisitTimesWrong(Invalid):
    """The car would leave before it came, or come in the future."""

    code = "parking.times_wrong"
    advice = "Send an entered_at that is past, and a left_at that is not before it."
    advice_zh = "入场时间不得晚于当前时间，离场时间不得早于入场时间。"


class VisitContended(Busy):
    """Others kept changing the visit while this was being decided."""

    code = "parking.contended"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"


class VisitState(StrEnum):
    """Where a visit stands."""

    CREATED = "created"
    UNKNOWN = "unknown"
    OPEN = "open"  # the fee can be taken
    BLOCKED = "blocked"  # it cannot: the driver pays in another way
    LEFT = "left"


class Car(Struct, frozen=True):
    """What lies sealed beside a visit: which car, and where it is looked at on leaving."""

    plate: Annotated[str, Meta(min_length=6, max_length=16)]
    colour: PlateColour
    device: str

    def __repr__(self) -> str:
        return "Car(…)"


class Visit(Struct, frozen=True):
    """One row of parking_visit. The channel knows it by `number`."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_visit_no: str
    request_hash: bytes
    channel: str
    account_id: UUID
    plate_sealed: bytes
    place: str
    lot: str
    free_s: int
    state: VisitState
    visit_ref: str | None  # the channel's number of the entrance
    code: str | None
    entered_at: datetime
    left_at: datetime | None
    exit_told_at: datetime | None
    payment_id: UUID | None  # of its fee: the latest
    charges: int
    created_at: datetime
    version: int

    @property
    def number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)

    def check_chargeable(self) -> str:
        """Return the channel's number of the entrance, or raise where no fee can be taken.

        Raises:
            VisitNotChargeable
        """
        may = self.state in {VisitState.OPEN, VisitState.LEFT}
        if not may or self.visit_ref is None:
            raise VisitNotChargeable(status=self.state, code=self.code)
        return self.visit_ref


class VisitExchange(Struct, frozen=True):
    """One row of parking_exchange: what was told to a channel about a visit."""

    book: int
    id: UUID
    visit_id: UUID
    purpose: str
    method: str
    url: str
    request: str
    status: int | None
    reply: str
    duration_ms: int
    outcome: str
    at: datetime


class VisitFilter(Struct, frozen=True):
    """Which visits a list shows; every None means any."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    status: VisitState | None = None
    channel: str | None = None
    number: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


def next_visit(visit: Visit, news: VisitOutcome) -> Visit | None:
    """Return the visit as the news makes it, or None when it is no news.

    What was not sent or not answered is told again; only the channel's word opens or blocks.
    """
    if visit.state is VisitState.LEFT:
        return None
    match news:
        case VisitOpen(ref=ref):
            becomes = replace(visit, state=VisitState.OPEN, visit_ref=ref, code=None)
        case VisitBlocked(reason=reason):
            becomes = replace(visit, state=VisitState.BLOCKED, code=reason[:64] or "BLOCKED")
        case Declined(code=code) | Absent(code=code):
            becomes = replace(visit, state=VisitState.BLOCKED, code=code[:64])
        case NotSent(reason=reason) | Unknown(reason=reason):
            if visit.state is not VisitState.CREATED:
                return None
            becomes = replace(visit, state=VisitState.UNKNOWN, code=reason[:64])
        case _:
            assert_never(news)
    return becomes if becomes != visit else None


class ParkingVisitView(Struct, frozen=True, omit_defaults=True):
    """A visit as the API and the webhooks show it; the plate is shown to nobody again."""

    id: str
    object: Literal["parking_visit"]
    mode: Mode
    merchant_visit_no: str
    channel: str
    place: str
    lot: str
    free_s: int
    status: VisitState
    version: int
    entered_at: datetime
    created_at: datetime
    left_at: datetime | UnsetType = UNSET
    code: str | UnsetType = UNSET
    payment_id: str | UnsetType = UNSET


def view_visit(visit: Visit) -> ParkingVisitView:
    """Return the visit as the API and the webhooks show it."""
    return ParkingVisitView(
        id=show("prk", visit.id),
        object="parking_visit",
        mode=visit.mode,
        merchant_visit_no=visit.merchant_visit_no,
        channel=visit.channel,
        place=visit.place,
        lot=visit.lot,
        free_s=visit.free_s,
        status=visit.state,
        version=visit.version,
        entered_at=visit.entered_at,
        created_at=visit.created_at,
        left_at=visit.left_at or UNSET,
        code=visit.code or UNSET,
        payment_id=show("pay", visit.payment_id) if visit.payment_id is not None else UNSET,
    )
