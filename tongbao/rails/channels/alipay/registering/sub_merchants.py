"""Applications for sub-merchants (直付通二级商户): pictures, then everything, then asked about.

Methods, fields and states are those of the vendor's own SDK, below `ant.merchant.expand.indirect`:
`zft.create` (AntMerchantExpandIndirectZftCreateModel), `zftorder.query` (ZftSubMerchantOrder: 99
finished, -1 failed, 031 in audit) and `image.upload`. Our number is the ``external_id``, unique
below us: a failed application is sent again under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.gateway import (
    Answered,
    Gateway,
    Refused,
    gateway_address,
    secrets_of,
)
from tongbao.rails.channels.alipay.registering.pictures import upload
from tongbao.rails.channels.capabilities.registrations import (
    Registered,
    RegistrationOrder,
    RegistrationOutcome,
    RegistrationRejected,
    RegistrationUnderWay,
    RejectedField,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import decode, unsent

CREATE: Final = "ant.merchant.expand.indirect.zft.create"
QUERY: Final = "ant.merchant.expand.indirect.zftorder.query"
_ERRORS: Final = error_map("alipay")
_TEXT_MAX: Final = 200
_HIDDEN: Final = (
    *("legal_person", "id_number", "id_address", "contact", "phone", "email"),
    *("holder", "account_number"),
)
_MERCHANT_TYPES: Final = {"enterprise": "01", "individual_business": "07"}
_LICENCE: Final = "201"  # 营业执照
_IN_AUDIT: Final = "031"
_SIGNING: Final = frozenset({"CREATE", "NOT_CONFIRM"})

_Found = Registered | RegistrationUnderWay | RegistrationRejected | Absent | Unknown


class _Submitted(Struct, frozen=True):
    order_id: str = ""


class _Order(Struct, frozen=True):
    order_id: str = ""
    external_id: str = ""
    status: str = ""
    smid: str = ""
    fk_audit: str = ""
    fk_audit_memo: str = ""
    kz_audit: str = ""
    kz_audit_memo: str = ""
    reason: str = ""
    sub_confirm: str = ""
    sub_sign_qr_code_url: str = ""


class _Orders(Struct, frozen=True):
    orders: Sequence[_Order] = ()


class AlipaySubMerchants:
    """What `Alipay` can do about sub-merchants; see `capabilities.registrations.Registering`."""

    _gateway: Gateway

    async def register(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Upload the pictures, then submit; one that failed is replaced under its number."""
        if reason := _unfit(account):
            return Answer(NotSent(reason), unsent("POST", gateway_address(account), reason))
        images: dict[str, str] = {}
        for kind, picture in order.pictures.items():
            uploaded, seen = await upload(self._gateway, account, picture)
            if isinstance(uploaded, Refused):
                return Answer(_refused(uploaded), seen)
            if not isinstance(uploaded, str):
                return Answer(NotSent(f"picture {kind}: {uploaded.reason}"), seen)
            images[kind] = uploaded
        return await self._apply(account, order, images)

    async def _apply(
        self, account: ChannelAccount, order: RegistrationOrder, images: Mapping[str, str]
    ) -> Answer[RegistrationOutcome]:
        heard, exchange = await self._gateway.call(
            account, CREATE, _content(order, images), hidden=_personal(order)
        )
        match heard:
            case Answered():
                made = decode(heard.node, _Submitted)
                if made is None or not made.order_id:
                    return Answer(Unknown("the answer is no application"), exchange)
                return Answer(RegistrationUnderWay("auditing", made.order_id), exchange)
            case Refused():
                return Answer(_refused(heard), exchange)
            case _:
                return Answer(heard, exchange)

    async def query_registration(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Ask what became of an application, by our number."""
        heard, exchange = await self._gateway.call(
            account, QUERY, {"external_id": order.number}, hidden=_personal(order)
        )
        found = answers.read_or_absent(heard, "query_registration", lambda node: _read(node, order))
        return Answer(found, exchange)

    def sub_account(
        self, account: ChannelAccount, sub_merchant: str
    ) -> tuple[str, Mapping[str, object]]:
        """Return app id and keys of the sub-merchant's account: ours, and its number."""
        return account.app_id, {**asdict(secrets_of(account)), "sub_merchant": sub_merchant}


def _unfit(account: ChannelAccount) -> str:
    keys = secrets_of(account)
    if keys.sub_merchant:
        return "the account is a sub-merchant's, below which nobody can be taken on"
    if keys.protocol != "v1":
        return "pictures go by the form protocol; set `protocol` to v1"
    return ""


def _refused(refused: Refused) -> Declined | NotSent | Unknown:
    text = f"{refused.shown_code}: {refused.message}"
    match _ERRORS.find("registration", refused.sub_code, refused.code).meaning:
        case "declined":
            return Declined(refused.shown_code, refused.message[:_TEXT_MAX])
        case "not_sent":
            return NotSent(text)
        case _:
            return Unknown(text)


def _read(node: bytes, order: RegistrationOrder) -> _Found:
    found = decode(node, _Orders)
    if found is None:
        return Unknown("the answer is no list of applications")
    ours = [each for each in found.orders if each.external_id == order.number]
    if len(ours) != len(found.orders):
        return Unknown("contradiction: external_id is another")
    if not ours:
        return Absent("NO_ORDER")
    # A number that was sent again after a failure has an order for each time; the last one counts.
    return _stands(max(ours, key=lambda each: each.order_id))


def _stands(latest: _Order) -> _Found:
    match latest.status:
        case "99" if latest.smid:
            return Registered(latest.smid, latest.order_id)
        case "-1":
            return RegistrationRejected(_reasons(latest), latest.order_id)
        case status if status == _IN_AUDIT:
            url = latest.sub_sign_qr_code_url or None
            stage: Any = "signing" if latest.sub_confirm in _SIGNING else "auditing"
            return RegistrationUnderWay(stage, latest.order_id, url)
        case status:
            return Unknown(f"status {status[:16] or 'missing'}")


def _reasons(order: _Order) -> list[RejectedField]:
    told = (
        ("fk_audit", order.fk_audit == "REJECT", order.fk_audit_memo),
        ("kz_audit", order.kz_audit == "REJECT", order.kz_audit_memo),
        ("sub_confirm", order.sub_confirm == "FAIL", "签约失败"),
        ("", bool(order.reason), order.reason),
    )
    return [RejectedField(name, memo[:_TEXT_MAX]) for name, is_so, memo in told if is_so]


def _personal(order: RegistrationOrder) -> tuple[str, ...]:
    return tuple(text for name in _HIDDEN if (text := getattr(order, name)))


def _content(order: RegistrationOrder, images: Mapping[str, str]) -> dict[str, Any]:
    is_firm = order.firm_kind == "enterprise"
    signed = order.signed_at.astimezone(BUSINESS_ZONE)
    services = order.terms.get("service", "当面付").split(",")
    content: dict[str, Any] = {
        "external_id": order.number,
        "name": order.legal_name,
        "alias_name": order.short_name,
        "merchant_type": _MERCHANT_TYPES[order.firm_kind],
        "mcc": order.terms.get("mcc", order.mcc),
        "cert_no": order.credit_code,
        "cert_type": _LICENCE,
        "cert_image": images["business_license"],
        "legal_name": order.legal_person,
        "legal_cert_no": order.id_number,
        "legal_cert_front_image": images["legal_id_front"],
        "legal_cert_back_image": images["legal_id_back"],
        "business_address": _address(order),
        "service_phone": order.service_phone,
        "contact_infos": [
            {"name": order.contact, "mobile": order.phone, "email": order.email, "type": "OTHER"}
        ],
        "out_door_images": [images["store_front"]],
        "in_door_images": [images["store_inside"]],
        "biz_cards": [
            {
                "account_holder_name": order.holder,
                "account_no": order.account_number,
                "account_inst_name": order.bank,
                "bank_code": order.bank_number,
                "account_type": "DC",
                "usage_type": "01" if order.account_kind == "corporate" else "02",
            }
        ],
        "default_settle_rule": {
            "default_settle_type": "bankCard",
            "default_settle_target": order.account_number,
        },
        "service": services,
        "sign_time_with_isv": signed.date().isoformat(),
        **({} if is_firm else {"cert_name": order.legal_name}),
    }
    if logon := order.terms.get("binding_alipay_logon_id"):
        content["binding_alipay_logon_id"] = logon
    return content


def _address(order: RegistrationOrder) -> dict[str, str]:
    """Return the shop's address; the first two and four digits are province and city."""
    code = order.area_code
    return {
        "province_code": f"{code[:2]}0000",
        "city_code": f"{code[:4]}00",
        "district_code": code,
        "address": order.store_address,
    }
