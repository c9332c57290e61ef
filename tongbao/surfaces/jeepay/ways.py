"""jeepay's words for ways of paying, and for what the customer is to do next. No I/O.

The codes and the kinds of ``payData`` are those its programs know (docs.jeequan.com 统一下单;
jeequan/jeepay: CS.java), where ``payurl`` is written small although the page says ``payUrl``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from tongbao.payments.methods.asked import MethodAsked
from tongbao.rails.channels.codes import CODE_TAKERS
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import (
    NextAction,
    OpenApp,
    Redirect,
    ShowQr,
    SubmitForm,
)
from tongbao.surfaces.jeepay.model import FieldsUnreadable, WayNotOffered

QR_CASHIER: Final = "QR_CASHIER"
_NEEDS_PLACE_TO_RETURN: Final = frozenset({PayMode.H5, PayMode.WEB})


class Way(Struct, frozen=True):
    """A way of paying, over the first of these channels that the merchant has; none: any."""

    mode: PayMode
    channels: tuple[str, ...] = ()
    app_id: str | None = None  # the channel's product, where it is not the account's own


_WECHAT: Final = ("wechat_pay",)
_ALIPAY: Final = ("alipay",)
_UNIONPAY: Final = ("unionpay",)

WAYS: Final[Mapping[str, Way]] = {
    "AUTO_BAR": Way(PayMode.PAYMENT_CODE),
    "WX_BAR": Way(PayMode.PAYMENT_CODE, CODE_TAKERS["wechat_pay"]),
    "WX_NATIVE": Way(PayMode.QR, _WECHAT),
    "WX_JSAPI": Way(PayMode.IN_APP, _WECHAT),
    "WX_LITE": Way(PayMode.IN_APP, _WECHAT),
    "WX_H5": Way(PayMode.H5, _WECHAT),
    "WX_APP": Way(PayMode.APP, _WECHAT),
    "ALI_BAR": Way(PayMode.PAYMENT_CODE, CODE_TAKERS["alipay"]),
    "ALI_QR": Way(PayMode.QR, _ALIPAY),
    "ALI_JSAPI": Way(PayMode.IN_APP, _ALIPAY),
    "ALI_LITE": Way(PayMode.IN_APP, _ALIPAY),
    "ALI_WAP": Way(PayMode.H5, _ALIPAY),
    "ALI_PC": Way(PayMode.WEB, _ALIPAY),
    "ALI_APP": Way(PayMode.APP, _ALIPAY),
    "YSF_BAR": Way(PayMode.PAYMENT_CODE, CODE_TAKERS["unionpay"]),
    "UP_BAR": Way(PayMode.PAYMENT_CODE, CODE_TAKERS["unionpay"]),
    "UP_QR": Way(PayMode.QR, ("unionpay", "unionpay_qra")),
    "UP_APP": Way(PayMode.APP, _UNIONPAY),
    "UP_WAP": Way(PayMode.H5, _UNIONPAY),
    "UP_PC": Way(PayMode.WEB, _UNIONPAY),
    "UP_B2B": Way(PayMode.WEB, _UNIONPAY, app_id="000202"),
}
"""Not here, and refused: pages inside UnionPay's app (YSF_JSAPI, UP_JSAPI, YSF_LITE), Alipay's
order code (ALI_OC), PP_PC."""

IF_CODES: Final = {
    "wechat_pay": "wxpay",
    "alipay": "alipay",
    "unionpay": "ysfpay",
    "unionpay_qra": "ysfpay",
}
"""What jeepay calls the channels, its ``ifCode``; others keep our name."""


def way_of(code: str) -> Way:
    """Return the way of paying a code stands for.

    Raises:
        WayNotOffered
    """
    way = WAYS.get(code)
    if way is None:
        raise WayNotOffered(param="$.wayCode")
    return way


def channel_extra(text: str) -> dict[str, str]:
    """Return what ``channelExtra`` says by names in lower case without underscores.

    jeepay's server takes ``authCode`` and ``auth_code`` alike, and clients send both.

    Raises:
        FieldsUnreadable
    """
    try:
        said = msgspec.json.decode(text, type=dict[str, str | int | bool | None])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise FieldsUnreadable(param="$.channelExtra") from None
    return {
        name.replace("_", "").lower(): str(value)
        for name, value in said.items()
        if value is not None and value != ""
    }


def without_shown_code(fields: Mapping[str, str]) -> dict[str, str]:
    """Return a call's fields without the code that a customer showed.

    One in ten of UnionPay's codes cannot be told from a card's number by its digits.
    """
    kept = dict(fields)
    try:
        said = msgspec.json.decode(kept.get("channelExtra", ""), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return kept
    rest = {name: value for name, value in said.items() if not _is_shown_code(name, value)}
    return {**kept, "channelExtra": msgspec.json.encode(rest).decode()}


def _is_shown_code(name: str, value: object) -> bool:
    is_code = name.replace("_", "").lower() == "authcode"
    return is_code and isinstance(value, str) and value.isascii() and value.isdigit()


def method_fields(
    way: Way, extra: Mapping[str, str], connected: Collection[str], return_url: str
) -> dict[str, str]:
    """Return a way of paying as the API's requests name it: fields of `MethodAsked`."""
    channel = next((each for each in way.channels if each in connected), None)
    named = channel or (way.channels[0] if way.channels else None)
    payer = extra.get("openid") or extra.get("buyeruserid") or extra.get("buyeropenid")
    fields = {
        "mode": way.mode.value,
        "channel": named,
        "auth_code": extra.get("authcode") if way.mode is PayMode.PAYMENT_CODE else None,
        "payer_id": payer if way.mode is PayMode.IN_APP else None,
        "return_url": return_url if way.mode in _NEEDS_PLACE_TO_RETURN else None,
        "app_id": way.app_id,
    }
    known = set(MethodAsked.__struct_fields__)
    return {name: value for name, value in fields.items() if value is not None and name in known}


class Shown(Struct, frozen=True):
    """``payDataType`` and ``payData``."""

    kind: str
    text: str


def shown(action: NextAction | None, wanted: str, picture_url: str) -> Shown | None:
    """Return what the customer is to do as jeepay's clients take it; None when it is nothing.

    ``wanted`` is the kind they asked for, followed where there is a choice.
    """
    wanted = wanted.lower()
    match action:
        case ShowQr(code_url=text):
            return _code(text, wanted, picture_url)
        case Redirect(url=url):
            return _page(url, wanted, picture_url)
        case SubmitForm(url=url, fields=fields):
            return Shown("form", _form("post", url, fields.items()))
        case OpenApp(parameters=parameters):
            return _opened(parameters)
        case None:
            return None


def cashier_shown(url: str, wanted: str, picture_url: str) -> Shown:
    """Return the address of our page as a code to show, a picture of it, or a page to go to."""
    if wanted.lower() == "payurl":
        return Shown("payurl", url)
    return _code(url, wanted.lower(), picture_url)


def _page(url: str, wanted: str, picture_url: str) -> Shown:
    if wanted == "form":
        parts = urlsplit(url)
        bare = urlunsplit(parts._replace(query="", fragment=""))
        return Shown("form", _form("get", bare, parse_qsl(parts.query, keep_blank_values=True)))
    if wanted == "codeimgurl":
        return Shown("codeImgUrl", picture_url)
    return Shown("payurl", url)


def _code(text: str, wanted: str, picture_url: str) -> Shown:
    if wanted == "codeimgurl":
        return Shown("codeImgUrl", picture_url)
    return Shown("codeUrl", text)


def _opened(parameters: Mapping[str, str]) -> Shown:
    """Return what an app or a page inside one is handed, in the form each channel's has there."""
    if "tn" in parameters:  # UnionPay's control takes the bare number
        return Shown("ysfapp", parameters["tn"])
    if "orderString" in parameters:
        return Shown("aliapp", parameters["orderString"])
    if "tradeNO" in parameters:
        handed = {"alipayTradeNo": parameters["tradeNO"]}
        return Shown("aliapp", msgspec.json.encode(handed).decode())
    return Shown("wxapp", msgspec.json.encode(parameters).decode())


def _form(method: str, url: str, fields: Collection[tuple[str, str]]) -> str:
    """Return a page's part that posts itself, as jeepay's clients write it into theirs."""
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields
    )
    return (
        f'<form id="tongbao" method="{method}" action="{escape(url)}">{inputs}</form>'
        '<script>document.getElementById("tongbao").submit();</script>'
    )
