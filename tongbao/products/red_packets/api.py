"""The routes of red packets, which only a licensed firm has."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import AmountField, ApiRequest, CurrencyField
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.accounts import queries as accounts
from tongbao.parties.accounts.model import (
    DailyLimitExceeded,
    SpendingRefused,
    WalletBarred,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
)
from tongbao.products.red_packets import queries
from tongbao.products.red_packets.grabbing import Grabbers
from tongbao.products.red_packets.hall import Hall
from tongbao.products.red_packets.model import (
    LIFETIME_DEFAULT,
    LIFETIME_MAX_S,
    GrabRefused,
    GrabView,
    Kind,
    RedPacketAsked,
    RedPacketBalanceTooLow,
    RedPacketCurrencyUnknown,
    RedPacketLimitExceeded,
    RedPacketNotEven,
    RedPacketNotFound,
    RedPacketSendingRefused,
    RedPacketTooSmall,
    RedPacketView,
    view_grab,
    view_red_packet,
)
from tongbao.products.red_packets.sending import send_red_packet


class SendRedPacket(Struct, frozen=True, forbid_unknown_fields=True):
    """Put this much aside for so many people. ``amount`` is the whole, in minor units.

    ``equal`` gives everybody the same, ``lucky`` a share by chance of at least 1 minor unit. What
    nobody took after ``expires_in_s`` (a day when not said) goes back to the wallet.
    """

    wallet_id: str
    kind: Kind
    amount: AmountField
    parts: Annotated[int, Meta(ge=1, le=100_000)]
    currency: CurrencyField = "CNY"
    greeting: Annotated[str, Meta(max_length=100)] = ""
    expires_in_s: Annotated[int, Meta(ge=60, le=LIFETIME_MAX_S)] | None = None


class Grab(Struct, frozen=True, forbid_unknown_fields=True):
    """Take a part for this wallet."""

    wallet_id: str


class GrabAnswer(Struct, frozen=True, omit_defaults=True):
    """What became of a grab: the wallet's part, or that there is nothing to take any more."""

    object: Literal["red_packet_grab_answer"]
    outcome: Literal["grabbed", "empty"]
    grab: GrabView | UnsetType = UNSET


_EXAMPLE = SendRedPacket(
    "wal_01hx0000000000000000000000", Kind.LUCKY, 10_000, 10, greeting="恭喜发财"
)


@post(
    "/v1/red_packets",
    opt=needs(
        "red_packets:write",
        idempotent=True,
        refuses=[
            WalletNotFound,
            WalletBarred,
            WalletFrozen,
            WalletCurrencyDiffers,
            DailyLimitExceeded,
            SpendingRefused,
            RedPacketCurrencyUnknown,
            RedPacketTooSmall,
            RedPacketNotEven,
            RedPacketLimitExceeded,
            RedPacketBalanceTooLow,
            RedPacketSendingRefused,
            AmountOutOfRange,
            UnknownCurrency,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create_red_packet(
    data: SendRedPacket, request: ApiRequest, hall: Hall, caller: Caller
) -> Response[RedPacketView]:
    """Fill a red packet from a wallet. Its wallets and those that grab are of one merchant."""
    lifetime = timedelta(seconds=data.expires_in_s) if data.expires_in_s else LIFETIME_DEFAULT
    money = positive(data.amount, data.currency)
    asked = RedPacketAsked(data.kind, money, data.parts, data.greeting, lifetime)
    wallet_id = parse("wal", data.wallet_id)

    async def fresh(use: Idempotency) -> RedPacketView:
        wallet = await accounts.wallet_of_caller(hall.db, caller, wallet_id)
        return view_red_packet(await send_red_packet(hall, wallet, asked, use))

    async def resume(red_packet_id: UUID) -> RedPacketView:
        found = await queries.red_packet_of_caller(hall.db, caller, red_packet_id)
        return view_red_packet(found)

    return await answer_once(request, hall.db, fresh=fresh, resume=resume)


@get("/v1/red_packets", opt=needs("red_packets:read"))
async def list_red_packets(
    db: Db,
    caller: Caller,
    *,
    wallet_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[RedPacketView]:
    """Return red packets, newest first; those one wallet sent, with ``wallet_id``."""
    sender = parse("wal", wallet_id) if wallet_id else None
    page = await queries.red_packets_of_caller(
        db, caller, sender=sender, cursor=cursor, limit=limit
    )
    return Page([view_red_packet(each) for each in page.items], page.next_cursor)


@get(
    "/v1/red_packets/{red_packet_id:str}",
    opt=needs("red_packets:read", refuses=[RedPacketNotFound]),
)
async def get_red_packet(red_packet_id: str, db: Db, caller: Caller) -> RedPacketView:
    """Return one red packet."""
    found = await queries.red_packet_of_caller(db, caller, parse("rpk", red_packet_id))
    return view_red_packet(found)


@post(
    "/v1/red_packets/{red_packet_id:str}/grabs",
    status_code=200,
    opt=needs(
        "red_packets:write",
        refuses=[WalletNotFound, RedPacketNotFound, GrabRefused],
        request_example=Grab("wal_01hx0000000000000000000000"),
    ),
)
async def grab_red_packet(
    red_packet_id: str, data: Grab, grabbers: Grabbers, db: Db, caller: Caller
) -> GrabAnswer:
    """Take a part: one for each wallet, whoever comes first. Safe to repeat without a key.

    ``outcome`` is ``empty`` when every part is gone or the time is over; a wallet that has a part
    gets that one again, for ever.
    """
    wanted = parse("rpk", red_packet_id)
    wallet = await accounts.wallet_of_caller(db, caller, parse("wal", data.wallet_id))
    grab = await grabbers.grab(wallet, wanted)
    if grab is None:
        return GrabAnswer("red_packet_grab_answer", "empty")
    return GrabAnswer("red_packet_grab_answer", "grabbed", view_grab(grab, wallet.currency))


@get(
    "/v1/red_packets/{red_packet_id:str}/grabs",
    opt=needs("red_packets:read", refuses=[RedPacketNotFound]),
)
async def list_grabs(
    red_packet_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[GrabView]:
    """Return who took which part, in the order they came."""
    packet = await queries.red_packet_of_caller(db, caller, parse("rpk", red_packet_id))
    return await queries.grabs_of(db, packet, cursor=cursor, limit=limit)


@get(
    "/v1/wallets/{wallet_id:str}/red_packet_grabs",
    opt=needs("red_packets:read", refuses=[WalletNotFound]),
)
async def list_received(
    wallet_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[GrabView]:
    """Return the parts that a wallet took, newest first."""
    wallet = await accounts.wallet_of_caller(db, caller, parse("wal", wallet_id))
    return await queries.received_by(db, wallet, cursor=cursor, limit=limit)


ROUTES: list[HTTPRouteHandler] = [
    create_red_packet,
    list_red_packets,
    get_red_packet,
    grab_red_packet,
    list_grabs,
    list_received,
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []
