"""Which app opened the page, by its User-Agent, and which ways to pay work inside it, as data.

A channel's own app pays over its own channel and opens no other. A browser can draw a code for any
of them, and where it is a phone's it can also go to the channel and come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from tongbao.payments.checkouts.model import Offer
from tongbao.rails.channels.contract.orders import PayMode


class Place(StrEnum):
    """Where the page was opened."""

    WECHAT = "wechat"
    ALIPAY = "alipay"
    UNIONPAY = "unionpay"
    WALLET = "wallet"  # the platform's own app
    PHONE = "phone"
    DESKTOP = "desktop"


# The first that fits counts: an app's page names its browser too.
_MARKS: Final = (
    ("TongbaoWallet/", Place.WALLET),
    ("MicroMessenger/", Place.WECHAT),
    ("AlipayClient/", Place.ALIPAY),
    ("UnionPay/", Place.UNIONPAY),
    ("com.unionpay.", Place.UNIONPAY),
    ("Mobile", Place.PHONE),
    ("Android", Place.PHONE),
    ("iPhone", Place.PHONE),
)
CHANNEL_OF: Final[Mapping[Place, str]] = {
    Place.WECHAT: "wechat_pay",
    Place.ALIPAY: "alipay",
    Place.UNIONPAY: "unionpay",
    Place.WALLET: "wallet",
}
_PAGES: Final = frozenset({PayMode.H5, PayMode.WEB})
"""One page of the channel's: inside its app they differ in nothing a customer could choose by."""
# In the order they are shown. WeChat refuses its H5 payment inside its own app, where only a page
# that knows the customer's openid can pay; the others take their H5 page there too.
_WORKING: Final[Mapping[Place, tuple[PayMode, ...]]] = {
    Place.WECHAT: (PayMode.IN_APP,),
    Place.ALIPAY: (PayMode.IN_APP, PayMode.H5),
    Place.UNIONPAY: (PayMode.IN_APP, PayMode.H5, PayMode.WEB),
    Place.WALLET: (PayMode.QR,),  # the page links to the code, which the app then pays
    Place.PHONE: (PayMode.H5, PayMode.QR),
    Place.DESKTOP: (PayMode.QR, PayMode.WEB),
}


def place_of(user_agent: str) -> Place:
    """Return where a page was opened; what nobody knows is taken for a desktop's browser."""
    found = (place for mark, place in _MARKS if mark in user_agent)
    return next(found, Place.DESKTOP)


def arrange(
    offers: Sequence[Offer],
    place: Place,
    *,
    remembered: str,
    payer_known_at: str | None,
    given_up: str = "",
) -> list[Offer]:
    """Return the offers that work in a place: the one used last time, then one channel's together.

    Inside a channel's app its page is offered once, though it may be sold both as H5 and as web.
    On a phone, what opens there comes before the codes, which need another phone to scan them; and
    what this customer has just ``given_up`` comes last everywhere. ``payer_known_at`` is the
    channel whose id of the customer is known, without which no page pays inside the channel's app.
    """
    working = _WORKING[place]
    own = CHANNEL_OF.get(place)
    fitting = [
        offer
        for offer in offers
        if offer.mode in working
        and (own is None or offer.channel == own)
        and (offer.mode is not PayMode.IN_APP or offer.channel == payer_known_at)
    ]
    if own is not None:
        pages = [offer for offer in fitting if offer.mode in _PAGES]
        pages.sort(key=lambda offer: working.index(offer.mode))
        fitting = [offer for offer in fitting if offer not in pages[1:]]
    channels = list(dict.fromkeys(offer.channel for offer in offers))
    return sorted(
        fitting,
        key=lambda offer: (
            offer.key == given_up,
            offer.key != remembered,
            place is Place.PHONE and offer.mode is PayMode.QR,
            channels.index(offer.channel),
            working.index(offer.mode),
        ),
    )
