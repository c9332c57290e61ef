"""The page a code plate opens, and the plate's own code as an image."""

from __future__ import annotations

from markupsafe import escape

from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import (
    AmountMalformed,
    AmountOutOfRange,
    Money,
    exponent_of,
    from_decimal_text,
    positive,
)
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import MerchantState
from tongbao.payments.plates.model import Plate
from tongbao.payments.plates.plates import open_at_plate, plate_of_token
from tongbao.surfaces.cashier.desk import Visit
from tongbao.surfaces.page_kit.qr import draw
from tongbao.surfaces.page_kit.replies import Reply, file_reply, redirect

SVG = "image/svg+xml"


async def show_plate(visit: Visit) -> Reply:
    """Return the page of a plate: whom the customer pays, and how much.

    Raises:
        PlateNotFound, PlateRevoked
    """
    plate = await plate_of_token(visit.desk.db, visit.params["token"])
    return await _page(visit, plate)


async def begin_at_plate(visit: Visit) -> Reply:
    """Open a checkout for the amount and go there; nothing is written before this form is sent.

    Raises:
        PlateNotFound, PlateRevoked, TooManyRequests, PlateAmountDiffers, PlateBusy,
        MerchantSuspended, CheckoutsTooMany
    """
    visit.check_pace()
    plate = await plate_of_token(visit.desk.db, visit.params["token"])
    try:
        money = _money(plate, visit.request.form.get("amount", ""))
    except (AmountMalformed, AmountOutOfRange) as refused:
        return await _page(visit, plate, refused=refused, status=422)
    checkout = await open_at_plate(visit.desk.db, plate, money)
    return redirect(checkout.path)


async def draw_plate(visit: Visit) -> Reply:
    """Return the plate's code as an SVG image, to be printed at any size.

    Raises:
        PlateNotFound, PlateRevoked
    """
    plate = await plate_of_token(visit.desk.db, visit.params["token"])
    text = f"{visit.desk.public_url}{plate.path}"
    if visit.request.query.get("as") == "emv" and plate.emv_text is not None:
        text = plate.emv_text
    symbol = draw(text)
    size = symbol.size
    image = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}"'
        f' shape-rendering="crispEdges"><title>{escape(plate.name)}</title>'
        f'<path fill="#fff" d="M0,0h{size}v{size}h-{size}z"/>'
        f'<path d="{symbol.path}"/></svg>'
    )
    return file_reply(image.encode(), SVG)


async def _page(
    visit: Visit, plate: Plate, *, refused: Refusal | None = None, status: int = 200
) -> Reply:
    merchant = await merchants.merchant_with_id(visit.desk.db, plate.merchant_id)
    facts = {
        "plate": plate,
        "payee": merchant.name,
        "mode": plate.mode,
        "is_open": merchant.state is MerchantState.ACTIVE,
        "decimals": exponent_of(plate.currency),
        "given": visit.request.form.get("amount", ""),
        "refused": refused,
    }
    return visit.page("plate.html", facts, status=status)


def _money(plate: Plate, text: str) -> Money:
    """Return what the customer entered, or the plate's own amount whatever was sent.

    Raises:
        AmountMalformed, AmountOutOfRange
    """
    if plate.amount is not None:
        return Money(plate.amount, plate.currency)
    given = from_decimal_text(text.replace(",", "").replace("，", ""), plate.currency)
    return positive(given.amount, given.currency)
