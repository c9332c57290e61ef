"""Who is there, inside a channel's own app: the browser goes to the channel and comes back.

    page ─► /who ─► the channel ─► /known?code&state ─► page, with a cookie that says who

The customer sees nothing of it. What the channel calls them is sealed in a cookie of a quarter of
an hour, for this checkout and this account only; with the order it goes to the channel. A browser
that comes back without an answer gets a cookie that says so, and is not sent again.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.crypto import SealUnreadable, bind, constant_time_equal
from tongbao.kernel.clock import real_now
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened
from tongbao.payments.checkouts import queries
from tongbao.payments.checkouts.model import Checkout, Offer
from tongbao.rails.channels.capabilities.payers import Identified, Identifying
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode
from tongbao.surfaces.cashier.desk import Visit
from tongbao.surfaces.cashier.scanners import CHANNEL_OF, place_of
from tongbao.surfaces.cashier.scenes import is_safe_to_leave_for
from tongbao.surfaces.page_kit.replies import Header, Reply, cookie_name, redirect

STATE_COOKIE: Final = "tongbao_pay_state"
PAYER_COOKIE: Final = "tongbao_payer"
KEPT_S: Final = 900
_PURPOSE: Final = "cashier.payer"
_CODE_LENGTH_MAX: Final = 256


class Payer(Struct, frozen=True):
    """What the cookie holds, sealed. ``payer_id`` None: the channel was asked and did not say."""

    channel: str
    account_id: UUID
    payer_id: str | None
    until: datetime  # real time

    def __repr__(self) -> str:
        return "Payer(…)"


class _Asking(Struct, frozen=True):
    """The channel that can be asked, and our account there."""

    channel: Identifying
    account: ChannelAccount


async def go_and_ask(visit: Visit) -> Reply:
    """Send the browser to the channel whose app it is in, if that channel can tell who it is.

    By a page and not by a redirect: the visitor may have come here by a form, whose redirects the
    policy of its page keeps within our own site.

    Raises:
        CheckoutNotFound
    """
    checkout = await queries.checkout_of_token(visit.desk.db, visit.params["token"])
    asking = await _asking(visit, checkout)
    if asking is None:
        return redirect(checkout.path)
    state = secrets.token_urlsafe(16)
    back = f"{visit.desk.public_url}{checkout.path}/known"
    address = asking.channel.identity_address(asking.account, back, state)
    if address is None or not is_safe_to_leave_for(address, checkout.mode):
        return redirect(checkout.path)
    page = visit.page("who.html", {"url": address, "channel": asking.account.channel, "mode": None})
    return page.also(_cookie(visit, STATE_COOKIE, state))


async def come_back(visit: Visit) -> Reply:
    """Ask the channel whose code the browser came back with, and keep the answer in the browser.

    Raises:
        CheckoutNotFound, TooManyRequests
    """
    visit.check_pace()
    checkout = await queries.checkout_of_token(visit.desk.db, visit.params["token"])
    asking = await _asking(visit, checkout)
    query = visit.request.query
    if asking is None or not _is_ours(visit, query.get("state", "")):
        return redirect(checkout.path)
    payer_id = None
    code = query.get("code", "")
    if 0 < len(code) <= _CODE_LENGTH_MAX:
        told = (await asking.channel.identify(asking.account, code)).outcome
        payer_id = told.payer_id if isinstance(told, Identified) else None
    until = datetime.fromtimestamp(real_now().timestamp() + KEPT_S, real_now().tzinfo)
    payer = Payer(asking.account.channel, asking.account.id, payer_id, until)
    sealed = visit.desk.keyring.seal(_PURPOSE, msgspec.json.encode(payer), _place(checkout))
    text = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
    return redirect(checkout.path).also(
        _cookie(visit, PAYER_COOKIE, text), _cookie(visit, STATE_COOKIE, "", kept_s=0)
    )


def payer_of(visit: Visit, checkout: Checkout) -> Payer | None:
    """Return who the browser's cookie says is there, or None where it says nothing that stands."""
    name = cookie_name(PAYER_COOKIE, is_https=visit.desk.is_https)
    text = visit.request.cookies.get(name, "")
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        content = visit.desk.keyring.open(_PURPOSE, sealed, _place(checkout))
        payer = msgspec.json.decode(content, type=Payer)
    except (binascii.Error, ValueError, SealUnreadable):
        return None
    return payer if real_now() < payer.until else None


async def must_ask(visit: Visit, checkout: Checkout, offers: list[Offer]) -> bool:
    """Return whether the page can only offer its app's own way once the channel says who it is."""
    own = CHANNEL_OF.get(place_of(visit.request.headers.get("user-agent", "")))
    wanted = any(each.channel == own and each.mode is PayMode.IN_APP for each in offers)
    if not wanted or payer_of(visit, checkout) is not None:
        return False
    asking = await _asking(visit, checkout)
    return (
        asking is not None and asking.channel.identity_address(asking.account, "", "") is not None
    )


async def _asking(visit: Visit, checkout: Checkout) -> _Asking | None:
    """Return whom to ask in the app the page was opened in: our account there, and its channel."""
    own = CHANNEL_OF.get(place_of(visit.request.headers.get("user-agent", "")))
    if own is None or own not in visit.desk.flow.channels:
        return None
    channel = visit.desk.flow.channels[own]
    if not isinstance(channel, Identifying):
        return None
    place = (checkout.merchant_id, checkout.mode, own)
    try:
        account_id = await merchants.channel_account_of(visit.desk.db, *place)
    except ChannelNotOpened:
        return None
    return _Asking(channel, await visit.desk.flow.account(account_id))


def _is_ours(visit: Visit, state: str) -> bool:
    name = cookie_name(STATE_COOKIE, is_https=visit.desk.is_https)
    kept = visit.request.cookies.get(name, "")
    return bool(kept) and constant_time_equal(kept.encode(), state.encode())


def _place(checkout: Checkout) -> bytes:
    return bind("cookie", PAYER_COOKIE, checkout.id)


def _cookie(visit: Visit, name: str, value: str, *, kept_s: int = KEPT_S) -> Header:
    """Return a cookie that comes along when the channel sends the browser back: lax, not strict."""
    is_https = visit.desk.is_https
    parts = [f"{cookie_name(name, is_https=is_https)}={value}", "Path=/", "HttpOnly"]
    parts += ["SameSite=Lax", f"Max-Age={kept_s}", *(["Secure"] if is_https else [])]
    return ("set-cookie", "; ".join(parts))
