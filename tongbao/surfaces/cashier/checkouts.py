"""The page of one checkout, and what a customer does on it.

Every address can be opened again, gone back to or reloaded: a GET changes nothing, a form answers
with a redirect, and what the page shows follows from the rows alone.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from tongbao.kernel.ids import show
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.checkouts import queries
from tongbao.payments.checkouts.checkouts import Visitor, give_up, try_paying
from tongbao.payments.checkouts.model import Checkout, Offer
from tongbao.payments.checkouts.offers import offers_for
from tongbao.payments.collecting.chase import look_at
from tongbao.payments.collecting.model import view_payment
from tongbao.rails.channels.codes import OWN_QR
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import OpenApp, Redirect, ShowQr, SubmitForm
from tongbao.surfaces.cashier.desk import Visit
from tongbao.surfaces.cashier.payers import must_ask, payer_of
from tongbao.surfaces.cashier.scanners import Place, arrange, place_of
from tongbao.surfaces.cashier.scenes import (
    Scene,
    Standing,
    is_safe_to_leave_for,
    origin_of,
    scene_of,
)
from tongbao.surfaces.page_kit.qr import draw
from tongbao.surfaces.page_kit.replies import JSON, Header, Reply, cookie_name, file_reply, redirect

METHOD_COOKIE: Final = "tongbao_pay_by"
_METHOD_KEPT_S: Final = 180 * 86_400
_QR_DRAWN_MAX: Final = 1_000  # characters; a channel's code has some sixty


async def show_checkout(visit: Visit) -> Reply:
    """Return the page as things stand.

    Raises:
        CheckoutNotFound
    """
    standing = await _standing(visit)
    now = visit.desk.db.clock.now()
    scene = scene_of(standing, now)
    checkout, payment = standing.checkout, standing.payment
    merchant = await merchants.merchant_with_id(visit.desk.db, checkout.merchant_id)
    facts: dict[str, object] = {
        "scene": scene,
        "checkout": checkout,
        "payment": payment,
        "payee": merchant.name,
        "mode": checkout.mode,
        "key": standing.key,
        "back_url": _back_url(checkout),
        "number": show("pay", payment.id) if payment else show("cko", checkout.id),
    }
    match scene:
        case Scene.CHOOSE:
            offers = await offers_for(visit.desk.flow, checkout, now)
            if await must_ask(visit, checkout, offers):
                return redirect(f"{checkout.path}/who")
            facts |= _choices(visit, standing, offers)
        case Scene.SCAN:
            facts |= _code(visit, standing)
        case Scene.LEAVE:
            action = standing.attempt.action if standing.attempt is not None else None
            facts["opens"] = dict(action.parameters) if isinstance(action, OpenApp) else None
        case _:
            pass
    if payment is not None and scene in {Scene.SCAN, Scene.LEAVE}:
        facts["left_s"] = max(0, int((payment.expires_at - now).total_seconds()))
    return visit.page("checkout.html", facts)


async def tell_state(visit: Visit) -> Reply:
    """Return what the page's script compares: a key that changes when the page would.

    Raises:
        CheckoutNotFound
    """
    standing = await _standing(visit)
    scene = scene_of(standing, visit.desk.db.clock.now())
    told = {"scene": scene, "key": standing.key}
    return file_reply(msgspec.json.encode(told), JSON)


async def choose_method(visit: Visit) -> Reply:
    """Try the way the customer chose, if it is one that is offered.

    Raises:
        CheckoutNotFound, TooManyRequests, CheckoutClosed, CheckoutTriedTooOften, and what refuses
        a payment
    """
    visit.check_pace()
    checkout = (await _standing(visit)).checkout
    offers = await offers_for(visit.desk.flow, checkout, visit.desk.db.clock.now())
    chosen = visit.request.form.get("method", "")
    offer = next((each for each in offers if each.key == chosen), None)
    if offer is None:
        return redirect(checkout.path)  # it has gone since: the page says what is left
    visitor = Visitor(
        visit.client_ip,
        f"{visit.desk.public_url}{checkout.path}",
        _payer_id(visit, checkout, offer),
    )
    payment, attempt = await try_paying(visit.desk.flow, checkout, offer, visitor)
    stands = (payment.channel, payment.pay_mode) == (offer.channel, offer.mode)
    leaves = stands and isinstance(attempt.action, Redirect | SubmitForm)
    scene = scene_of(Standing(checkout, payment, attempt), visit.desk.db.clock.now())
    to = f"{checkout.path}/go" if leaves and scene is Scene.LEAVE else checkout.path
    if stands and isinstance(attempt.action, OpenApp):
        to = f"{checkout.path}?open=1"
    return redirect(to).also(_remember(offer, is_https=visit.desk.is_https))


def _payer_id(visit: Visit, checkout: Checkout, offer: Offer) -> str | None:
    """Return what the channel calls the customer, where the way to pay needs it."""
    payer = payer_of(visit, checkout)
    wants = offer.mode is PayMode.IN_APP and payer is not None and payer.channel == offer.channel
    return payer.payer_id if payer is not None and wants else None


async def leave(visit: Visit) -> Reply:
    """Send the browser to the channel: by itself where it may, with a button in any case.

    Not by a redirect of the form that chose: the page's policy lets forms go to us only. The page
    in between is not come back to: going back leads to the checkout.

    Raises:
        CheckoutNotFound
    """
    standing = await _standing(visit)
    checkout = standing.checkout
    action = standing.attempt.action if standing.attempt is not None else None
    if scene_of(standing, visit.desk.db.clock.now()) is not Scene.LEAVE:
        return redirect(checkout.path)
    if not isinstance(action, Redirect | SubmitForm):
        return redirect(checkout.path)
    if not is_safe_to_leave_for(action.url, checkout.mode):
        raise ValueError(f"a channel asks to send a customer to {action.url[:64]!r}")
    fields = action.fields if isinstance(action, SubmitForm) else None
    facts = {
        "checkout": checkout,
        "payment": standing.payment,
        "url": action.url,
        "fields": fields,
        "mode": checkout.mode,
    }
    goes_to = f"'self' {origin_of(action.url)}" if fields is not None else "'self'"
    return visit.page("leave.html", facts, form_action=goes_to)


async def choose_another(visit: Visit) -> Reply:
    """Close the try that stands at its channel; the page then says whether it could be.

    Raises:
        CheckoutNotFound, TooManyRequests, StateContended
    """
    visit.check_pace()
    checkout = (await _standing(visit)).checkout
    await give_up(visit.desk.flow, checkout)
    return redirect(checkout.path).also(_remember(None, is_https=visit.desk.is_https))


async def check_now(visit: Visit) -> Reply:
    """Ask the channel about the try that stands, unless it was asked a moment ago.

    Raises:
        CheckoutNotFound, TooManyRequests, StateContended
    """
    visit.check_pace()
    standing = await _standing(visit)
    payment, attempt = standing.payment, standing.attempt
    if payment is None or attempt is None or not attempt.state.is_open:
        return redirect(standing.checkout.path)
    if visit.desk.looks.lets_through(str(payment.id)):
        await look_at(visit.desk.flow, payment, attempt)
    return redirect(standing.checkout.path)


async def _standing(visit: Visit) -> Standing:
    checkout = await queries.checkout_of_token(visit.desk.db, visit.params["token"])
    latest = await queries.latest_try(visit.desk.db, checkout)
    return Standing(checkout, *latest) if latest is not None else Standing(checkout)


def _choices(visit: Visit, standing: Standing, offers: list[Offer]) -> dict[str, object]:
    """Return the ways to pay that are up and work here, and what became of the last one."""
    asked = visit.request
    place = place_of(asked.headers.get("user-agent", ""))
    remembered = asked.cookies.get(cookie_name(METHOD_COOKIE, is_https=visit.desk.is_https), "")
    last = standing.payment
    given_up = Offer(last.channel, last.pay_mode).key if last is not None else ""
    payer = payer_of(visit, standing.checkout)
    payable = payer.channel if payer is not None and payer.payer_id is not None else None
    shown = arrange(offers, place, remembered=remembered, payer_known_at=payable, given_up=given_up)
    failure = None
    if standing.payment is not None and standing.attempt is not None:
        view = view_payment(standing.payment, standing.attempt)
        failure = view.failure or None
    return {
        "place": place,
        "offers": shown,
        "remembered": "" if remembered == given_up else remembered,
        "elsewhere": bool(offers) and not shown and place not in {Place.PHONE, Place.DESKTOP},
        "failure": failure,
        "last": last,
    }


def _code(visit: Visit, standing: Standing) -> dict[str, object]:
    """Return the code to scan, drawn; on a phone the own wallet's app also opens by a link."""
    action = standing.attempt.action if standing.attempt is not None else None
    text = action.code_url if isinstance(action, ShowQr) else ""
    symbol = draw(text[:_QR_DRAWN_MAX])
    place = place_of(visit.request.headers.get("user-agent", ""))
    has_app = text.startswith(OWN_QR) and place in {Place.PHONE, Place.WALLET}
    return {"qr_path": symbol.path, "qr_size": symbol.size, "app_url": text if has_app else None}


def _back_url(checkout: Checkout) -> str | None:
    """Return where the merchant wants the customer back, with which checkout it was about."""
    if checkout.return_url is None:
        return None
    parts = urlsplit(checkout.return_url)
    query = [*parse_qsl(parts.query, keep_blank_values=True)]
    query.append(("checkout_id", show("cko", checkout.id)))
    return urlunsplit(parts._replace(query=urlencode(query)))


def _remember(offer: Offer | None, *, is_https: bool) -> Header:
    """Return the header that keeps the way to pay, and nothing of who paid, for half a year.

    None forgets it: who has just given a way up is not led to it again. Lax and not strict:
    customers come from the merchant's pages.
    """
    name = cookie_name(METHOD_COOKIE, is_https=is_https)
    kept, kept_s = (offer.key, _METHOD_KEPT_S) if offer is not None else ("", 0)
    parts = [f"{name}={kept}", "Path=/", "HttpOnly", "SameSite=Lax"]
    parts += [f"Max-Age={kept_s}", *(["Secure"] if is_https else [])]
    return ("set-cookie", "; ".join(parts))
