"""What a body of WeChat Pay's order calls must look like, product by product."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tongbao_sandbox.model import TradeMode
from tongbao_sandbox.wechat_wire import Rule, is_notify_url, is_number, is_positive, read_time

MODES: Final[dict[str, TradeMode]] = {
    "native": "qr",
    "codepay": "payment_code",
    "jsapi": "in_app",
    "app": "app",
    "h5": "h5",
    "papay": "agreement",
    "parking": "agreement",
}
"""How the customer meets an order of each product."""
TRADE_TYPES: Final = {
    "native": "NATIVE",
    "codepay": "MICROPAY",
    "jsapi": "JSAPI",
    "app": "APP",
    "h5": "MWEB",
    "papay": "AUTH",
    "parking": "PARKING",
}
"""How objects and bills name each product."""
LINK_FOR: Final = {
    "qr": timedelta(hours=2),
    "in_app": timedelta(hours=2),
    "app": timedelta(hours=2),
    "h5": timedelta(minutes=5),
}
"""How long what the customer was given is good for."""

_DIRECT: Final = (
    Rule("/appid", str, length_max=32),
    Rule("/mchid", str, length_max=32),
)
_PARTNER: Final = (
    Rule("/sp_appid", str, length_max=32),
    Rule("/sp_mchid", str, length_max=32),
    Rule("/sub_appid", str, required=False, length_max=32),
    Rule("/sub_mchid", str, length_max=32),
)
_COMMON: Final = (
    Rule("/description", str, length_max=127),
    Rule("/out_trade_no", str, check=is_number),
    Rule("/amount", dict),
    Rule("/amount/total", int, check=is_positive),
    Rule("/amount/currency", str, required=False, check=lambda value: value == "CNY"),
    Rule("/time_expire", str, required=False, check=lambda value: read_time(value) is not None),
    Rule("/attach", str, required=False, length_max=128),
    Rule("/goods_tag", str, required=False, length_max=32),
    Rule("/detail", dict, required=False),
    Rule("/scene_info", dict, required=False),
    Rule("/settle_info", dict, required=False),
)
_H5_TYPES: Final = frozenset({"iOS", "Android", "Wap"})
_CALLED_BACK: Final = Rule("/notify_url", str, length_max=256, check=is_notify_url)
_PRODUCTS: Final = {
    "native": (_CALLED_BACK,),
    "app": (_CALLED_BACK,),
    "jsapi": (_CALLED_BACK, Rule("/payer", dict)),
    "h5": (
        _CALLED_BACK,
        Rule("/scene_info", dict),
        Rule("/scene_info/payer_client_ip", str, length_max=45),
        Rule("/scene_info/h5_info", dict),
        Rule("/scene_info/h5_info/type", str, check=lambda value: value in _H5_TYPES),
    ),
    "codepay": (
        Rule("/payer", dict),
        Rule("/payer/auth_code", str, length_max=32),
        Rule("/scene_info", dict),
        Rule("/scene_info/store_info", dict),
        Rule("/scene_info/store_info/id", str),
    ),
}


def rules_of(product: str, *, partner: bool) -> tuple[Rule, ...]:
    """Return the rules of a product's body, in the order in which they are checked."""
    parties = _PARTNER if partner else _DIRECT
    return (*parties, *_COMMON, *_PRODUCTS[product])


def openid_names(body: dict[str, object]) -> tuple[str, ...]:
    """Return under which names a JSAPI order's payer may stand."""
    if "sp_mchid" not in body:
        return ("openid",)
    return ("sub_openid", "sp_openid") if body.get("sub_appid") else ("sp_openid",)
