"""The page of one combined payment: all its orders, one sum, and the way to pay it.

The merchant has chosen the way, or lets the customer take another. As on a checkout's
page, a GET changes nothing and what is shown follows from the rows alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from tongbao.kernel.ids import show
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.payments.collecting.model import Payment
from tongbao.payments.combining.choosing import choose, offers_for
from tongbao.payments.combining.combined import look
from tongbao.payments.combining.model import CombinedPayment, CombinedState
from tongbao.payments.combining.queries import combined_of_token, parts_of, path_of
from tongbao.rails.channels.contract.outcomes import OpenApp, Redirect, ShowQr
from tongbao.surfaces.cashier.desk import Visit
from tongbao.surfaces.cashier.scanners import arrange, place_of
from tongbao.surfaces.cashier.scenes import Scene, is_safe_to_leave_for
from tongbao.surfaces.page_kit.qr import draw
from tongbao.surfaces.page_kit.replies import JSON, Reply, file_reply, redirect

_QR_DRAWN_MAX: Final = 1_000
_ENDS: Final = {
    CombinedState.SUCCEEDED: Scene.PAID,
    CombinedState.CLOSED: Scene.CLOSED,
    CombinedState.MIXED: Scene.CONFIRMING,  # people look at it; the customer does not pay again
}


def scene_of(whole: CombinedPayment, now: datetime) -> Scene:
    """Return what the page shows: nobody is asked to pay where money may have moved.

    While it is called off it may still be paid, and who paid first wins.
    """
    if whole.state in _ENDS:
        return _ENDS[whole.state]
    stands = whole.state is CombinedState.PENDING and whole.wish is None
    if not stands or now >= whole.expires_at:
        return Scene.CONFIRMING
    match whole.action:
        case ShowQr():
            return Scene.SCAN
        case Redirect(url=url) if is_safe_to_leave_for(url, whole.mode):
            return Scene.LEAVE
        case OpenApp():
            return Scene.LEAVE
        case _:
            return Scene.CONFIRMING


async def show_combined(visit: Visit) -> Reply:
    """Return the page as things stand.

    Raises:
        CombinedNotFound
    """
    desk, whole = visit.desk, await _whole(visit)
    now, parts = desk.db.clock.now(), await _parts(visit, whole)
    scene, action = scene_of(whole, now), whole.action
    names = await merchants_with_ids(desk.db, [part.merchant_id for part in parts])
    place = place_of(visit.request.headers.get("user-agent", ""))
    symbol = draw(action.code_url[:_QR_DRAWN_MAX]) if isinstance(action, ShowQr) else None
    facts: dict[str, object] = {
        "scene": scene,
        "whole": whole,
        "path": path_of(desk.keyring, whole.id),
        "parts": [(part, names[part.merchant_id].name) for part in parts],
        "mode": whole.mode,
        "key": str(whole.version),
        "number": show("cmb", whole.id),
        "left_s": max(0, int((whole.expires_at - now).total_seconds())),
        "qr": symbol,
        "opens": dict(action.parameters) if isinstance(action, OpenApp) else None,
        "url": action.url if isinstance(action, Redirect) else None,
        "offers": [],
        "place": place,
    }
    if scene in {Scene.SCAN, Scene.LEAVE}:
        offers = await offers_for(desk.flow, whole, now)
        facts["offers"] = arrange(offers, place, remembered="", payer_known_at=None)
    return visit.page("combined.html", facts)


async def tell_combined(visit: Visit) -> Reply:
    """Return what the page's script compares: a key that changes when the whole has moved.

    Asked every few seconds, so it reads one row and not each of fifty orders.

    Raises:
        CombinedNotFound
    """
    whole = await _whole(visit)
    scene = scene_of(whole, visit.desk.db.clock.now())
    return file_reply(msgspec.json.encode({"scene": scene, "key": str(whole.version)}), JSON)


async def choose_way(visit: Visit) -> Reply:
    """Take the way the customer chose, if it is one that is offered; the page says how it went.

    Raises:
        CombinedNotFound, TooManyRequests, StateContended
    """
    visit.check_pace()
    flow, whole = visit.desk.flow, await _whole(visit)
    chosen = visit.request.form.get("method", "")
    offers = await offers_for(flow, whole, flow.db.clock.now())
    offer = next((each for each in offers if each.key == chosen), None)
    if offer is not None:
        await choose(flow, whole, offer)
    return redirect(path_of(visit.desk.keyring, whole.id))


async def check_combined(visit: Visit) -> Reply:
    """Ask the channel about all parts now, unless it was asked a moment ago.

    Raises:
        CombinedNotFound, TooManyRequests, StateContended
    """
    visit.check_pace()
    whole = await _whole(visit)
    if whole.state.is_open and visit.desk.looks.lets_through(str(whole.id)):
        await look(visit.desk.flow, whole)
    return redirect(path_of(visit.desk.keyring, whole.id))


async def _whole(visit: Visit) -> CombinedPayment:
    return await combined_of_token(visit.desk.db, visit.desk.keyring, visit.params["token"])


async def _parts(visit: Visit, whole: CombinedPayment) -> list[Payment]:
    return [payment for payment, _ in await parts_of(visit.desk.db, whole)]
