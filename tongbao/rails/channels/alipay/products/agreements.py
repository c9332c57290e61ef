"""Agreements at Alipay (签约代扣): offered as a signed page, asked about, ended.

An agreement's reference is the product it was signed for, a slash, and Alipay's number: a payment
under it must name both.

周期扣款 (``CYCLE_PAY_AUTH_P``) is signed with the rules that Alipay shows the customer and keeps
to: how often, from when on, and how much (``period_rule_params`` of
alipay.user.agreement.page.sign, `alipay/alipay-sdk-java-all`:PeriodRuleParams.java). Days are
counted by the seven at least.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Any, Final, assert_never
from urllib.parse import quote, urlencode

from msgspec import Struct

from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.gateway import Answered, Gateway, Refused, gateway_address
from tongbao.rails.channels.alipay.wire import moment
from tongbao.rails.channels.capabilities.agreements import (
    AgreementEnded,
    AgreementOffered,
    AgreementOrder,
    AgreementOutcome,
    AgreementSigned,
    SignsIn,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Redirect,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import decode, unsent

_ERRORS: Final = error_map("alipay")
_PERSONAL: Final = "_P"
"""How the code of a person's agreement ends; without it, it is the code payments name."""
_PERIODIC: Final = "CYCLE_PAY_AUTH_P"
_SIGNED_AS: Final[Mapping[str, str]] = {_PERIODIC: "GENERAL_WITHHOLDING"}
"""What an agreement is signed as, where that is not what payments under it name."""
_PERIODS: Final[Mapping[str, tuple[str, int]]] = {
    "week": ("DAY", 7),
    "month": ("MONTH", 1),
    "year": ("MONTH", 12),
}
_AT: Final[Mapping[SignsIn, str]] = {
    "page": "QRCODEORSMS",
    "app": "ALIPAYAPP",
    "mini_program": "ALIPAYAPP",
}
"""How the customer gets to the signature, in Alipay's words."""
_LAST_DAY_OF_ALL_MONTHS: Final = 28
_NO_RULES: Final = (
    "a periodic plan says how often, not daily, and how much: period, and limit_each or per period"
)
_IN_THE_APP: Final = (
    "alipays://platformapi/startapp?appId=60000157&appClearTop=false&startMultApp=YES&sign_params="
)
"""What opens Alipay's own app at the signature, from another app (支付宝：无线端唤起签约说明)."""


class _Agreement(Struct, frozen=True):
    agreement_no: str = ""
    external_agreement_no: str = ""
    personal_product_code: str = ""
    status: str = ""
    sign_time: str = ""
    invalid_time: str = ""
    principal_id: str | None = None
    principal_open_id: str | None = None


class AlipayAgreements:
    """What `Alipay` can do about agreements; see `capabilities.agreements.Agreeing`.

    `AgreementOrder.plan` is the personal product code, a slash, and the scene to sign for, such as
    ``GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL``.
    """

    _gateway: Gateway

    @property
    def signs_in(self) -> frozenset[SignsIn]:
        """Return where customers can sign: on Alipay's page, and out of an app or mini-program."""
        return frozenset({"page", "app", "mini_program"})

    async def offer_agreement(
        self, account: ChannelAccount, order: AgreementOrder
    ) -> Answer[AgreementOutcome]:
        """Sign the page on which the customer agrees; no call is made.

        A merchant's app opens ``url``; a mini-program gives ``signStr`` to ``my.paySignCenter``.
        """
        product = order.plan.partition("/")[0]
        rules = _rules(order) if product == _PERIODIC else {}
        if rules is None:
            address = gateway_address(account)
            return Answer(NotSent(_NO_RULES), unsent("POST", address, _NO_RULES))
        content = {
            **_named(order),
            **rules,
            "product_code": _SIGNED_AS.get(product, _product(product)),
            "access_params": {"channel": _AT[order.signs_in]},
            "external_logon_id": order.display_name,
        }
        fields, exchange = await asyncio.to_thread(
            self._gateway.signed_form,
            account,
            "alipay.user.agreement.page.sign",
            content,
            return_url=order.return_url,
            hidden=(order.display_name,),
        )
        signed = urlencode(fields, quote_via=quote)
        return Answer(AgreementOffered(_action(account, signed, order.signs_in)), exchange)

    async def query_agreement(
        self, account: ChannelAccount, order: AgreementOrder
    ) -> Answer[AgreementOutcome]:
        """Ask whether it is signed; before the customer opens the page there is none: `Absent`."""
        heard, exchange = await self._gateway.call(
            account, "alipay.user.agreement.query", _named(order)
        )
        found = answers.read_or_absent(heard, "agreement", lambda node: _read(node, order))
        return Answer(found, exchange)

    async def end_agreement(
        self, account: ChannelAccount, order: AgreementOrder, agreement_ref: str, reason: str
    ) -> Answer[AgreementOutcome]:
        """End it; `Absent` says that there is none (any more), and nothing can be taken."""
        content: dict[str, Any] = {
            **_named(order),
            "agreement_no": agreement_ref.rpartition("/")[2],
        }
        if reason:
            content["extend_params"] = {"UNSIGN_REASON": reason[:256]}
        heard, exchange = await self._gateway.call(
            account, "alipay.user.agreement.unsign", content, notify=True
        )
        match heard:
            case Answered():
                return Answer(AgreementEnded("UNSIGN"), exchange)
            case Refused():
                entry = _ERRORS.find("agreement", heard.sub_code, heard.code)
                if entry.meaning == "absent":
                    return Answer(Absent(heard.shown_code), exchange)
                meant = answers.meant(entry, heard)
                if isinstance(meant, Pending):
                    meant = Unknown(meant.reason)
                return Answer(meant, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)


def _action(account: ChannelAccount, signed: str, signs_in: SignsIn) -> Redirect | OpenApp:
    # Inside Alipay all that is signed travels as one value of an address, so it is escaped twice:
    # so does the example of my.paySignCenter in Alipay's documents for mini-programs.
    match signs_in:
        case "page":
            return Redirect(f"{gateway_address(account)}?{signed}")
        case "app":
            return OpenApp({"url": _IN_THE_APP + quote(signed, safe="")})
        case "mini_program":
            return OpenApp({"signStr": quote(signed, safe="")})
        case _:
            assert_never(signs_in)


def _named(order: AgreementOrder) -> dict[str, str]:
    product, _, scene = order.plan.partition("/")
    named = {"external_agreement_no": order.number, "personal_product_code": product}
    return {**named, "sign_scene": scene} if scene else named


def _rules(order: AgreementOrder) -> dict[str, Any] | None:
    """Return the rules of a periodic agreement, or None where the terms do not say enough."""
    terms = order.terms
    limits = (terms.limit_each, terms.limit_per_period) if terms else ()
    known = [limit for limit in limits if limit is not None]
    counted = _PERIODS.get(terms.period or "") if terms else None
    if terms is None or counted is None or not known:
        return None
    kind, count = counted
    begins = terms.begins
    if kind == "MONTH" and begins.day > _LAST_DAY_OF_ALL_MONTHS:
        begins = _next_first(begins)
    rules: dict[str, Any] = {
        "period_type": kind,
        "period": count,
        "execute_time": begins.isoformat(),
        "single_amount": min(known, key=lambda limit: limit.amount).decimal_text(),
    }
    if terms.limit_total is not None:
        rules["total_amount"] = terms.limit_total.decimal_text()
    if terms.payments_max is not None:
        rules["total_payments"] = terms.payments_max
    return {"period_rule_params": rules}


def _next_first(day: date) -> date:
    """Return the first of the next month: Alipay takes no day that some months lack."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _product(personal: str) -> str:
    return personal.removesuffix(_PERSONAL)


def _read(
    node: bytes, order: AgreementOrder
) -> AgreementSigned | AgreementOffered | AgreementEnded | Declined | Unknown:
    found = decode(node, _Agreement)
    if found is None or found.external_agreement_no != order.number:
        return Unknown("the answer is about another agreement")
    if found.personal_product_code not in {"", order.plan.partition("/")[0]}:
        return Unknown("contradiction: it was signed for another product")
    match found.status:
        case "NORMAL":
            return _signed(found, order)
        case "TEMP":
            return AgreementOffered()
        case "STOP":
            return AgreementEnded("STOP")
        case status:
            return Unknown(f"status {status[:32] or 'missing'}")


def _signed(found: _Agreement, order: AgreementOrder) -> AgreementSigned | Unknown:
    at = moment(found.sign_time)
    if at is None or not found.agreement_no:
        return Unknown("a signed agreement without number or time")
    return AgreementSigned(
        f"{_product(order.plan.partition('/')[0])}/{found.agreement_no}",
        found.principal_open_id or found.principal_id,
        at,
        moment(found.invalid_time),
    )
