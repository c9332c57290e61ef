"""Applications for sub-merchants (特约商户进件): submitted with everything, then asked about.

The paths, names and states are those of `TheNorthMemory/wechatpay-openapi:docs/v3/applyment4sub`
and `docs/definitions/Applyment.yaml`. Names, numbers, phones and mailboxes go encrypted under a
key of WeChat Pay's. The same business code replaces an application that was rejected, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from tongbao.rails.channels.capabilities.registrations import (
    Registered,
    RegistrationCanceled,
    RegistrationOrder,
    RegistrationOutcome,
    RegistrationRejected,
    RegistrationUnderWay,
    RejectedField,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.exchange import decode, unsent
from tongbao.rails.channels.wechat_pay.crypto import NotEncryptable
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Refused,
    in_path,
    read_or_absent,
    secrets_of,
)
from tongbao.rails.channels.wechat_pay.registering.pictures import upload
from tongbao.rails.channels.wechat_pay.secrets import Partner

PATH: Final = "/v3/applyment4sub/applyment"
_REASONS_MAX: Final = 20
_TEXT_MAX: Final = 200
_UNDER_WAY: Final[Mapping[str, Any]] = {
    "APPLYMENT_STATE_AUDITING": "auditing",
    "APPLYMENT_STATE_TO_BE_CONFIRMED": "verifying",
    "APPLYMENT_STATE_TO_BE_SIGNED": "signing",
    "APPLYMENT_STATE_SIGNING": "opening",
}
_HIDDEN: Final = (
    *("legal_person", "id_number", "id_address", "contact", "phone", "email"),
    *("holder", "account_number"),
)


class _Detail(Struct, frozen=True):
    field: str = ""
    field_name: str = ""
    reject_reason: str = ""


class _Applyment(Struct, frozen=True):
    applyment_state: str = ""
    business_code: str = ""
    applyment_id: int | str = 0
    sub_mchid: str = ""
    sign_url: str = ""
    audit_detail: list[_Detail] = []


_Found = (
    Registered
    | RegistrationUnderWay
    | RegistrationRejected
    | RegistrationCanceled
    | Absent
    | Unknown
)


class _Submitted(Struct, frozen=True):
    applyment_id: int | str = 0


async def register(
    gateway: Gateway, account: ChannelAccount, order: RegistrationOrder
) -> Answer[RegistrationOutcome]:
    """Upload the pictures, then submit the application with everything encrypted that must be."""
    if secrets_of(account).partner is not None:
        reason = "the account is a sub-merchant's, below which nobody can be taken on"
        return Answer(NotSent(reason), unsent("POST", account.gateway + PATH, reason))
    media = await _uploaded(gateway, account, order)
    if isinstance(media, Answer):
        return media
    return await _submit(gateway, account, order, media)


async def _uploaded(
    gateway: Gateway, account: ChannelAccount, order: RegistrationOrder
) -> dict[str, str] | Answer[RegistrationOutcome]:
    """Return the ids of the pictures, or why there are none: nothing else was sent yet."""
    media: dict[str, str] = {}
    for kind, picture in order.pictures.items():
        uploaded, seen = await upload(gateway, account, picture)
        if isinstance(uploaded, Refused):
            return Answer(_refused(uploaded), seen)
        if not isinstance(uploaded, str):
            return Answer(NotSent(f"picture {kind}: {uploaded.reason}"), seen)
        media[kind] = uploaded
    return media


async def _submit(
    gateway: Gateway,
    account: ChannelAccount,
    order: RegistrationOrder,
    media: Mapping[str, str],
) -> Answer[RegistrationOutcome]:
    try:
        sealed, serial = await _sealed(gateway, account, order)
    except NotEncryptable as failure:
        reason = str(failure)
        return Answer(NotSent(reason), unsent("POST", account.gateway + PATH, reason))
    body = msgspec.json.encode(_content(order, sealed, media))
    heard, exchange = await gateway.call(
        account,
        "POST",
        f"{PATH}/",
        body,
        hidden=(*_personal(order), *sealed.values()),
        encrypted_for=serial,
    )
    match heard:
        case Answered():
            made = decode(heard.body, _Submitted)
            if made is None or not made.applyment_id:
                return Answer(Unknown("the answer is no application"), exchange)
            under_way = RegistrationUnderWay("auditing", str(made.applyment_id))
            return Answer(under_way, exchange)
        case Refused():
            return Answer(_refused(heard), exchange)
        case _:
            return Answer(heard, exchange)


async def query(
    gateway: Gateway, account: ChannelAccount, order: RegistrationOrder
) -> Answer[RegistrationOutcome]:
    """Ask what became of an application, by our code."""
    target = f"{PATH}/business_code/{in_path(order.number)}"
    heard, exchange = await gateway.call(account, "GET", target, hidden=_personal(order))
    found = read_or_absent(heard, "query_registration", lambda body: _read(body, order))
    return Answer(found, exchange)


def sub_account(account: ChannelAccount, sub_merchant: str) -> tuple[str, Mapping[str, object]]:
    """Return app id and keys of the sub-merchant's account: the provider's, who calls for it."""
    provider = Partner(sp_mchid=account.merchant_number, sp_appid=account.app_id)
    keys = asdict(secrets_of(account))
    keys["partner"] = asdict(provider)
    keys["app_ids"] = sorted(keys["app_ids"])
    del sub_merchant
    return account.app_id, keys


def _refused(refused: Refused) -> Declined | NotSent | Unknown:
    text = f"{refused.code}: {refused.message}"
    match ERRORS.find("registration", refused.code).meaning:
        case "declined":
            return Declined(refused.code, refused.message[:_TEXT_MAX])
        case "not_sent":
            return NotSent(text)
        case _:
            return Unknown(text)


def _read(body: bytes, order: RegistrationOrder) -> _Found:
    found = decode(body, _Applyment)
    if found is None:
        return Unknown("the answer is no application")
    if found.business_code != order.number:
        return Unknown("contradiction: business_code is another")
    return _stands(found, str(found.applyment_id or ""))


def _stands(found: _Applyment, ref: str) -> _Found:
    state = found.applyment_state
    if state in _UNDER_WAY:
        return RegistrationUnderWay(_UNDER_WAY[state], ref, found.sign_url or None)
    match state:
        case "APPLYMENT_STATE_FINISHED" if found.sub_mchid:
            return Registered(found.sub_mchid, ref)
        case "APPLYMENT_STATE_REJECTED":
            reasons = [
                RejectedField((each.field or each.field_name)[:64], each.reject_reason[:_TEXT_MAX])
                for each in found.audit_detail[:_REASONS_MAX]
            ]
            return RegistrationRejected(reasons, ref)
        case "APPLYMENT_STATE_CANCELED":
            return RegistrationCanceled(ref)
        case "APPLYMENT_STATE_EDITTING":
            return Absent(state)  # it never arrived whole: send it again
        case _:
            return Unknown(f"state {state[:48] or 'missing'}")


def _personal(order: RegistrationOrder) -> tuple[str, ...]:
    return tuple(text for name in _HIDDEN if (text := getattr(order, name)))


async def _sealed(
    gateway: Gateway, account: ChannelAccount, order: RegistrationOrder
) -> tuple[dict[str, str], str]:
    """Return the personal fields encrypted, all under one key, and its serial.

    Raises:
        NotEncryptable
    """
    sealed: dict[str, str] = {}
    serials = set[str]()
    for name in _HIDDEN:
        if text := getattr(order, name):
            sealed[name], serial = await gateway.encrypt(account, text)
            serials.add(serial)
    if len(serials) != 1:
        raise NotEncryptable("WeChat Pay's key changed meanwhile")
    return sealed, serials.pop()


def _content(
    order: RegistrationOrder, sealed: Mapping[str, str], media: Mapping[str, str]
) -> dict[str, Any]:
    is_firm = order.firm_kind == "enterprise"
    identity = {
        "id_card_copy": media["legal_id_front"],
        "id_card_national": media["legal_id_back"],
        "id_card_name": sealed["legal_person"],
        "id_card_number": sealed["id_number"],
        "card_period_begin": order.id_begins.isoformat(),
        "card_period_end": _end(order.id_ends),
    }
    if "id_address" in sealed:
        identity["id_card_address"] = sealed["id_address"]
    return {
        "business_code": order.number,
        "contact_info": {
            "contact_type": "LEGAL" if order.contact == order.legal_person else "SUPER",
            "contact_name": sealed["contact"],
            "mobile_phone": sealed["phone"],
            "contact_email": sealed["email"],
        },
        "subject_info": {
            "subject_type": f"SUBJECT_TYPE_{'ENTERPRISE' if is_firm else 'INDIVIDUAL'}",
            "business_license_info": {
                "license_copy": media["business_license"],
                "license_number": order.credit_code,
                "merchant_name": order.legal_name,
                "legal_person": order.legal_person,
                "license_address": order.firm_address,
                "period_begin": order.license_begins.isoformat(),
                "period_end": _end(order.license_ends),
            },
            "identity_info": {
                "id_doc_type": "IDENTIFICATION_TYPE_IDCARD",
                "id_holder_type": "LEGAL",
                "id_card_info": identity,
                "owner": True,
            },
        },
        "business_info": {
            "merchant_shortname": order.short_name,
            "service_phone": order.service_phone,
            "sales_info": {
                "sales_scenes_type": ["SALES_SCENES_STORE"],
                "biz_store_info": {
                    "biz_store_name": order.store_name,
                    "biz_address_code": order.area_code,
                    "biz_store_address": order.store_address,
                    "store_entrance_pic": [media["store_front"]],
                    "indoor_pic": [media["store_inside"]],
                },
            },
        },
        "settlement_info": {
            **{name: order.terms[name] for name in _SETTLEMENT if name in order.terms},
            **({"qualifications": [media["qualification"]]} if "qualification" in media else {}),
        },
        "bank_account_info": {
            "bank_account_type": f"BANK_ACCOUNT_TYPE_{order.account_kind.upper()}",
            "account_name": sealed["holder"],
            "account_bank": order.bank,
            "bank_address_code": order.bank_area_code,
            "bank_branch_id": order.bank_number,
            "account_number": sealed["account_number"],
        },
    }


_SETTLEMENT: Final = ("settlement_id", "qualification_type", "activities_id", "activities_rate")


def _end(day: date | None) -> str:
    return "长期" if day is None else day.isoformat()
