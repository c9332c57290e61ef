"""Ask, before a car comes, whether fees can be taken from its plate. Nothing of it is kept."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.errors import Busy
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.parking.model import ParkingNotOffered
from tongbao.rails.channels.capabilities.agreements import VisitBlocked, VisitOpen, VisitOutcome
from tongbao.rails.channels.contract.orders import ChannelAccount, PlateColour
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent


@runtime_checkable
class LookingUpPlates(Protocol):
    """Says, before a car comes, whether fees can be taken from its plate."""

    async def look_up_plate(
        self, account: ChannelAccount, plate: str, colour: PlateColour, payer_id: str
    ) -> Answer[VisitOutcome]:
        """Ask about a customer's plate; `VisitOpen` has no ``ref`` here."""


class PlateUnanswered(Busy):
    """The channel gave no answer that can be trusted; nothing has happened."""

    code = "parking.plate_unanswered"
    advice = "Ask again in a moment; a question changes nothing."
    advice_zh = "未收到可信应答，查询不改变任何状态，请稍后重试。"
    retry_after_s = 2


class ParkingPlateView(Struct, frozen=True, omit_defaults=True):
    """Whether a plate's fees can be taken without its driver's doing; the plate is not repeated."""

    object: Literal["parking_plate"]
    channel: str
    status: Literal["open", "blocked"]
    code: str | UnsetType = UNSET


async def look_up_plate(
    flow: Flow,
    of: tuple[UUID, Mode],
    channel_name: str,
    plate: tuple[str, PlateColour],
    *,
    payer_id: str,
) -> ParkingPlateView:
    """Ask the channel about a customer's plate.

    Raises:
        ParkingNotOffered, PlateUnanswered, MerchantSuspended, ChannelNotOpened
    """
    channel: object = flow.channels.get(channel_name)
    if not isinstance(channel, LookingUpPlates):
        raise ParkingNotOffered(channel=channel_name)
    merchant = await merchants.merchant_with_id(flow.db, of[0])
    merchant.check_active()
    account_id = await merchants.channel_account_of(flow.db, *of, channel_name)
    account = await flow.account(account_id)
    if not account.is_open:
        raise ChannelNotOpened(channel=channel_name)
    answer = await channel.look_up_plate(account, *plate, payer_id)
    match answer.outcome:
        case VisitOpen():
            return ParkingPlateView("parking_plate", channel_name, "open")
        case VisitBlocked(reason=code) | Declined(code=code) | Absent(code=code):
            return ParkingPlateView("parking_plate", channel_name, "blocked", code)
        case NotSent(reason=reason):
            raise ParkingNotOffered(channel=channel_name, reason=reason)
        case _:
            raise PlateUnanswered
