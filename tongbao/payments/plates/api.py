"""The routes of plates."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import AmountField, ApiRequest, CurrencyField
from tongbao.kernel.codecs.emv_qr import EmvQrFieldMalformed, EmvQrTooLong
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, exponent_of, positive
from tongbao.kernel.pages import Page
from tongbao.payments.checkouts.api import PublicUrl
from tongbao.payments.plates.model import (
    EmvAsked,
    PlateCurrencyUnknown,
    PlateNotFound,
    PlateView,
    view_plate,
)
from tongbao.payments.plates.plates import (
    PlateAsked,
    list_plates,
    make_plate,
    plate_of_merchant,
    revoke_plate,
)


class MakePlate(Struct, frozen=True, forbid_unknown_fields=True):
    """Put a code on the counter. Without ``amount`` the customer enters it.

    ``name`` tells your plates apart; ``subject`` is what the customer sees they pay for. With
    ``emv`` the plate also has an EMV merchant-presented text, for scanners that want one.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    subject: Annotated[str, Meta(min_length=1, max_length=120)]
    amount: AmountField | None = None
    currency: CurrencyField = "CNY"
    emv: EmvAsked | None = None


_EXAMPLE = MakePlate(
    name="counter 1", subject="tea at the counter", emv=EmvAsked("5814", "CORNER TEA", "HANGZHOU")
)


@post(
    "/v1/plates",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            AmountOutOfRange,
            UnknownCurrency,
            PlateCurrencyUnknown,
            EmvQrTooLong,
            EmvQrFieldMalformed,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create_plate(
    data: MakePlate, request: ApiRequest, db: Db, public_url: PublicUrl, caller: Caller
) -> Response[PlateView]:
    """Make a code plate: an address to print as a QR code, the same for every customer.

    Scanning it opens the cashier. Each payment made there has ``plate_id`` in its metadata.
    """
    exponent_of(data.currency)
    money = positive(data.amount, data.currency) if data.amount is not None else None
    asked = PlateAsked(data.name, data.subject, data.currency, money, data.emv)

    async def fresh(use: Idempotency) -> PlateView:
        plate_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, plate_id)
            plate = await make_plate(
                tx, caller, asked, public_url=public_url.text, plate_id=plate_id
            )
        return view_plate(plate, public_url.text)

    async def resume(plate_id: UUID) -> PlateView:
        plate = await plate_of_merchant(db, plate_id, caller.merchant_id, caller.mode)
        return view_plate(plate, public_url.text)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/plates", opt=needs("payments:read"))
async def list_all_plates(
    db: Db,
    public_url: PublicUrl,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[PlateView]:
    """Return the merchant's plates, newest first, those revoked included."""
    page = await list_plates(db, caller.merchant_id, caller.mode, cursor=cursor, limit=limit)
    return Page([view_plate(each, public_url.text) for each in page.items], page.next_cursor)


@get("/v1/plates/{plate_id:str}", opt=needs("payments:read", refuses=[PlateNotFound]))
async def get_plate(plate_id: str, db: Db, public_url: PublicUrl, caller: Caller) -> PlateView:
    """Return one plate."""
    wanted = parse("plt", plate_id)
    plate = await plate_of_merchant(db, wanted, caller.merchant_id, caller.mode)
    return view_plate(plate, public_url.text)


@post(
    "/v1/plates/{plate_id:str}/revoke",
    status_code=200,
    opt=needs("payments:write", refuses=[PlateNotFound]),
)
async def revoke(plate_id: str, db: Db, public_url: PublicUrl, caller: Caller) -> PlateView:
    """Give a plate up for good: its code opens nothing any more. Safe to repeat.

    Checkouts that were opened by it stay as they are.
    """
    async with db.begin(caller.actor) as tx:
        plate = await revoke_plate(tx, parse("plt", plate_id), caller)
    return view_plate(plate, public_url.text)


ROUTES = [create_plate, list_all_plates, get_plate, revoke]
