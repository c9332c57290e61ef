"""Agreements to be charged without being asked (签约代扣), and car plates that are bound to one.

page.sign opened ─► TEMP ── the customer agrees ─► NORMAL ── unsign, or the customer ─► STOP
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from tongbao.kernel.clock import business_date
from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, amount_of, invalid, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused, World

PERIODIC: Final = "CYCLE_PAY_AUTH_P"
SIGN: Final = "alipay.user.agreement.page.sign"
LAST_DAY: Final = 28
"""A month's plan begins on a day that every month has."""
DAYS_MIN: Final = 7
"""A plan counted by days takes no oftener than that."""
ENTRANCES: Final = frozenset({"ALIPAYAPP", "QRCODE", "QRCODEORSMS"})
LIVES: Final = timedelta(days=36500)


class Rules(Struct, frozen=True):
    """What may be taken under a periodic agreement (周期扣款); money in fen."""

    begins: date
    single: int
    total: int | None = None
    payments: int | None = None


class Agreement(Struct, frozen=True):
    """What one customer agreed to; the merchant's number is its key."""

    number: str
    product: str  # the personal product code
    scene: str
    user: str
    state: str  # TEMP, NORMAL, STOP
    made_at: datetime
    agreement_no: str = ""
    signed_at: datetime | None = None
    notify_url: str = ""
    return_url: str = ""
    by_certificate: bool = False
    behaviour: str = "pay"  # or decline: what happens when money is taken under it
    rules: Rules | None = None  # of 周期扣款
    taken: int = 0  # fen
    payments: int = 0


def opened(world: World, ask: Ask) -> Agreement:
    """Record that a customer looks at the page; asked about, Alipay now says TEMP.

    Raises:
        Refusal
    """
    number, product = need(ask, "external_agreement_no"), need(ask, "personal_product_code")
    how = ask.biz.get("access_params")
    if not isinstance(how, dict) or how.get("channel") not in ENTRANCES:
        raise invalid("access_params")
    known = find(world, number)
    if known is not None:
        if known.state != "TEMP" or known.product != product:
            raise Refusal("40004", "USER_AGREEMENT_EXIST", "协议已存在")
        return known
    serial = world.state.next_number("alipay.agreement")
    made = Agreement(
        number=number,
        product=product,
        scene=ask.text("sign_scene"),
        user=f"2088733{serial:09d}",
        state="TEMP",
        made_at=world.clock.now(),
        notify_url=ask.params.get("notify_url", ""),
        return_url=ask.params.get("return_url", ""),
        by_certificate=ask.by_certificate,
        rules=_rules(ask) if product == PERIODIC else None,
    )
    return put(world, made)


def signed(world: World, agreement: Agreement) -> Agreement:
    """Let the customer agree, and tell the merchant."""
    now = world.clock.now()
    serial = world.state.next_number("alipay.agreement_no")
    done = structs.replace(
        agreement, state="NORMAL", signed_at=now, agreement_no=f"{now:%Y%m%d}58{serial:010d}"
    )
    put(world, done)
    by_number = done.number.encode()
    world.state.put_document(NAME, f"agreement-no/{done.agreement_no}", by_number, now)
    _tell(world, done, "dut_user_sign", done.notify_url)
    return done


def query(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Return an agreement (alipay.user.agreement.query)."""
    del fault
    return success(fields(_existing(world, ask)))


def unsign(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """End an agreement (alipay.user.agreement.unsign)."""
    del fault
    found = _existing(world, ask)
    if found.state != "NORMAL":
        raise Refusal("40004", "USER_AGREEMENT_NOT_EXIST", "用户协议不存在")
    end(world, found, ask.params.get("notify_url", ""))
    return success({})


def end(world: World, agreement: Agreement, notify_url: str = "") -> Agreement:
    """Stop an agreement, and tell the merchant."""
    done = put(world, structs.replace(agreement, state="STOP"))
    _tell(world, done, "dut_user_unsign", notify_url or done.notify_url)
    return done


def usable(world: World, ask: Ask, amount: int) -> Agreement:
    """Return the agreement that a payment names, if money can be taken under it.

    Raises:
        Refusal
    """
    told = ask.biz.get("agreement_params")
    number = told.get("agreement_no") if isinstance(told, dict) else None
    found = _by_agreement_no(world, str(number))
    if found is None:
        raise Refusal("40004", "ACQ.AGREEMENT_NOT_EXIST", "协议不存在")
    if found.state != "NORMAL":
        raise Refusal("40004", "ACQ.AGREEMENT_INVALID", "协议已失效")
    if ask.text("product_code") != found.product.removesuffix("_P"):
        raise Refusal("40004", "ACQ.AGREEMENT_INVALID", "协议与产品不匹配")
    if found.rules is not None:
        _check_rules(found, found.rules, amount, business_date(world.clock.now()))
    return found


def note_payment(world: World, agreement: Agreement, amount: int) -> None:
    """Count what was taken under an agreement."""
    taken, payments = agreement.taken + amount, agreement.payments + 1
    put(world, structs.replace(agreement, taken=taken, payments=payments))


def _rules(ask: Ask) -> Rules:
    """Return the rules of a periodic agreement; without them it is not signed.

    Raises:
        Refusal
    """
    told = ask.biz.get("period_rule_params")
    if not isinstance(told, dict):
        raise invalid("period_rule_params")
    rules = Ask(ask.method, dict(told), {}, "")
    try:
        begins, every = date.fromisoformat(str(told["execute_time"])), int(told["period"])
        payments = int(told["total_payments"]) if "total_payments" in told else None
    except (KeyError, ValueError):
        raise invalid("period_rule_params") from None
    total = amount_of(rules, "total_amount") if "total_amount" in told else None
    is_month = told.get("period_type") == "MONTH"
    if told.get("period_type") not in {"DAY", "MONTH"}:
        raise invalid("period_type")
    if every < (1 if is_month else DAYS_MIN):
        raise invalid("period")
    if is_month and begins.day > LAST_DAY:
        raise invalid("execute_time")
    return Rules(begins, amount_of(rules, "single_amount"), total, payments)


def _check_rules(agreement: Agreement, rules: Rules, amount: int, today: date) -> None:
    troubles = (
        (today < rules.begins, "DATE_NOT_MATCH", "扣款日期不在签约时的允许范围之内"),
        (amount > rules.single, "SINGLE_FEE_EXCEED", "周期扣款的单笔金额超过签约时限制"),
        (
            rules.total is not None and agreement.taken + amount > rules.total,
            "TOTAL_FEE_EXCEED",
            "周期扣款的累计金额超过签约时限制",
        ),
        (
            rules.payments is not None and agreement.payments >= rules.payments,
            "TOTAL_TIMES_EXCEED",
            "周期扣款的总次数超过签约时限制",
        ),
    )
    for is_so, code, words in troubles:
        if is_so:
            raise Refusal("40004", f"ACQ.CYCLE_PAY_{code}", words)


def decide(world: World, number: str, action: str) -> dict[str, Any]:
    """Let the customer end an agreement, or have too little money for it from now on.

    Raises:
        Refused
    """
    found = find(world, number)
    if found is None or found.state != "NORMAL" or action not in {"end", "pay", "decline"}:
        raise Refused("under a signed agreement a customer can end, pay or decline")
    if action == "end":
        found = end(world, found)
    else:
        found = put(world, structs.replace(found, behaviour=action))
    return {"number": number, "state": found.state}


def find(world: World, number: str) -> Agreement | None:
    """Return the agreement with the merchant's number."""
    kept = world.state.document(NAME, f"agreement/{number}")
    return None if kept is None else msgspec.json.decode(kept[0], type=Agreement)


def put(world: World, agreement: Agreement) -> Agreement:
    """Keep an agreement, and return it."""
    content = msgspec.json.encode(agreement)
    world.state.put_document(NAME, f"agreement/{agreement.number}", content, world.clock.now())
    return agreement


def fields(agreement: Agreement) -> dict[str, str]:
    """Return an agreement as answers and notifications show it."""
    told = {
        "external_agreement_no": agreement.number,
        "personal_product_code": agreement.product,
        "sign_scene": agreement.scene,
        "status": agreement.state,
        "principal_id": agreement.user,
        "pricipal_type": "CARD",  # their spelling
        "alipay_logon_id": trades.logon_of(agreement.user),
    }
    if agreement.signed_at is not None:
        told |= {
            "agreement_no": agreement.agreement_no,
            "sign_time": plain(agreement.signed_at),
            "valid_time": plain(agreement.signed_at),
            "invalid_time": plain(agreement.signed_at + LIVES),
        }
    return told


METHODS: Final[dict[str, tuple[str, Callable[[World, Ask, Fault], dict[str, Any]]]]] = {
    "alipay.user.agreement.query": ("agreement_query", query),
    "alipay.user.agreement.unsign": ("agreement", unsign),
}


def _existing(world: World, ask: Ask) -> Agreement:
    if number := ask.text("agreement_no"):
        found = _by_agreement_no(world, number)
    else:
        found = find(world, need(ask, "external_agreement_no"))
    if found is None:
        raise Refusal("40004", "USER_AGREEMENT_NOT_EXIST", "用户协议不存在")
    return found


def _by_agreement_no(world: World, agreement_no: str) -> Agreement | None:
    kept = world.state.document(NAME, f"agreement-no/{agreement_no}")
    return None if kept is None else find(world, kept[0].decode())


def _tell(world: World, agreement: Agreement, kind: str, url: str) -> None:
    app_id = world.keys[NAME].shown["app_id"]
    told = {name: text for name, text in fields(agreement).items() if not name.startswith("pri")}
    content = {
        **told,
        "alipay_user_id": agreement.user,
        "notify_type": kind,
        "notify_id": trades.new_notice_number(world),
        "app_id": app_id,
        "auth_app_id": app_id,
        "charset": "utf-8",
        "version": "1.0",
    }
    if agreement.by_certificate:
        content["alipay_cert_sn"] = trades.signing_key(world, by_certificate=True)[1]
    world.courier.post(NAME, "agreement", agreement.number, url=url, content=content)
