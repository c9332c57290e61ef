"""The customer of the simulated channels, for payments of the developer's own; and the test clock.

What an institution decides beside its customers is on the sandbox's own panel, which knows no
developers; here are one's own payments and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import msgspec

from tongbao.infra.http import NoAnswerError, NotSentError
from tongbao.infra.request_log.model import Answered, Asked
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Busy, Conflict, Invalid
from tongbao.kernel.ids import parse, show
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import AttemptState
from tongbao.payments.collecting.queries import PaymentFilter
from tongbao.surfaces.developer_portal.request_log import show_answer
from tongbao.surfaces.developer_portal.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.portal.happenings import HAPPENINGS
from tongbao.surfaces.portal.theatre import CHANNELS, SandboxNotThere, Theatre
from tongbao_sdk import Refused, Tongbao, Unanswered
from tongbao_sdk.answering import answered_by

ACTIONS: Final = ("pay", "decline", "abandon")
BEHAVIOURS: Final = ("pay", "decline", "ask_then_pay", "ask_forever")
STEPS: Final = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "31d": timedelta(days=31),
}
AMOUNT_MAX: Final = 5_000_000  # fen: 50,000 yuan
_PAGE: Final = 15
_TIMEOUT_S: Final = 30.0
_READ_MAX: Final = 65_536
_OK: Final = 200
_REFUSED: Final = 400


class SimulatorNotThere(Busy):
    """The simulated channels do not answer."""

    code = "portal.simulator_not_there"
    advice = "Try again in a moment; if it stays, whoever runs this deployment starts the sandbox."
    advice_zh = "模拟渠道暂无应答，请稍后再试；如持续出现，请联系部署方启动沙箱。"


class NothingToDecide(Conflict):
    """The customer has nothing to decide about this payment, or not any more."""

    code = "portal.nothing_to_decide"
    advice = "Ask for another payment: this one has ended, or waits for nobody."
    advice_zh = "该付款已结束或无需顾客操作，请另建一笔。"


class HappeningsUnderWay(Busy):
    """Others are having things happen, and yours waits for its turn."""

    code = "portal.happenings_under_way"
    advice = "Try again in some seconds."
    advice_zh = "请过几秒再试。"


class PaymentFormInvalid(Invalid):
    """The form asks for what the simulator does not have."""

    code = "portal.payment_form_invalid"
    advice = "Choose from the lists, and an amount from 0.01 to 50,000.00."
    advice_zh = "请从列表中选择，金额为 0.01 至 50,000.00。"


async def show_simulator(visit: Visit) -> Reply:
    """List the developer's payments, newest first, with what a customer may do to each."""
    merchant_id, mode = visit.whose
    page = await queries.list_payments(
        visit.desk.db,
        PaymentFilter(merchant_id=merchant_id, mode=mode),
        cursor=visit.request.query.get("cursor"),
        limit=_PAGE,
    )
    last = await queries.last_attempts(visit.desk.db, page.items) if page.items else {}
    waits = {
        payment.id
        for payment in page.items
        if (attempt := last.get(payment.id)) is not None
        and attempt.channel in CHANNELS
        and attempt.state is AttemptState.PENDING
        and payment.state.is_open
    }
    facts = {
        "payments": page.items,
        "waits": waits,
        "actions": ACTIONS,
        "behaviours": BEHAVIOURS,
        "channels": sorted(CHANNELS),
        "happenings": sorted(HAPPENINGS),
        "older": visit.further(page.next_cursor),
    }
    return visit.page("simulator.html", facts)


async def ask_payment(visit: Visit) -> Reply:
    """Ask for a payment through the API, as the developer's own program would.

    Raises:
        PaymentFormInvalid, NoKeyAtHand, SimulatorNotThere
    """
    form = visit.request.form
    channel, behaviour = form.get("channel", ""), form.get("behaviour", "")
    amount = _amount(form.get("amount", ""))
    if channel not in CHANNELS or behaviour not in {"qr", *BEHAVIOURS}:
        raise PaymentFormInvalid
    key = await visit.key_at_hand()
    method: dict[str, Any] = {"channel": channel, "mode": "qr"}
    if behaviour != "qr":
        told = {"channel": CHANNELS[channel], "behaviour": behaviour}
        shown = await _tell(visit, "payment-code", told)
        method |= {"mode": "payment_code", "auth_code": shown["auth_code"]}
    order = {
        "merchant_order_no": uuid4().hex,
        "amount": amount,
        "currency": "CNY",
        "subject": "developer portal",
        "method": method,
    }
    asked = Asked("POST", "/v1/payments", msgspec.json.encode(order), uuid4().hex)
    answered = await visit.ask(key, asked)
    if answered.status >= _REFUSED:
        return show_answer(visit, "POST /v1/payments", answered)
    return visit.back_to("simulator", "payment_asked")


async def make_happen(visit: Visit) -> Reply:
    """Have one of the happenings of `tongbao trigger` happen, in the developer's own shop.

    Raises:
        PaymentFormInvalid, ChannelWithout, NoKeyAtHand, SimulatorNotThere, NotHeardYet,
        HappeningsUnderWay
    """
    form = visit.request.form
    happening, channel = HAPPENINGS.get(form.get("event", "")), form.get("channel", "")
    if happening is None or channel not in CHANNELS:
        raise PaymentFormInvalid
    shop, said = await _shop_of(visit)
    theatre = Theatre(shop, visit.desk.sandbox_url, channel)
    if visit.desk.stage_room.locked():
        raise HappeningsUnderWay
    async with visit.desk.stage_room:
        try:
            await asyncio.to_thread(lambda: list(happening(theatre)))
        except SandboxNotThere:
            raise SimulatorNotThere from None
        except (Refused, Unanswered):
            return show_answer(visit, *said[-1])
    return visit.back_to("events", "happened")


async def _shop_of(visit: Visit) -> tuple[Tongbao, list[tuple[str, Answered]]]:
    """Return access to the API in the developer's name, and what it answers as it does.

    It is for a thread: it has each request served on this loop, by the way every page asks.
    """
    key, loop = await visit.key_at_hand(), asyncio.get_running_loop()
    said: list[tuple[str, Answered]] = []

    def answer(
        method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        asked = Asked(method, target, body, headers.get("idempotency-key", uuid4().hex))
        served = asyncio.run_coroutine_threadsafe(visit.ask(key, asked), loop).result(_TIMEOUT_S)
        said.append((f"{method} {target}", served))
        return served.status, served.body

    client = answered_by(answer)
    key_id = show("key", key.id)  # no signature is looked at: the session proves who asks
    return Tongbao(
        visit.desk.public_url, key_id=key_id, secret=key_id, tries_max=1, client=client
    ), said


async def play_customer(visit: Visit) -> Reply:
    """Have the customer pay, decline or walk away, for a payment of the developer's own.

    Raises:
        PaymentNotFound, NothingToDecide, SimulatorNotThere
    """
    action, payment_id = visit.params["action"], parse("pay", visit.params["payment_id"])
    payment = await queries.payment_of_merchant(visit.desk.db, payment_id, *visit.whose)
    attempt = await queries.last_attempt(visit.desk.db, payment)
    if action not in ACTIONS or not payment.state.is_open or attempt.channel not in CHANNELS:
        raise NothingToDecide
    told = {"channel": CHANNELS[attempt.channel], "number": attempt.number, "action": action}
    await _tell(visit, "scan", told)
    return visit.back_to("simulator", "customer_acted")


async def show_clock(visit: Visit) -> Reply:
    """Show business time, and steps to move it by."""
    now = visit.desk.db.clock.now()
    facts = {
        "business_date": business_date(now),
        "offset": visit.desk.db.clock.offset,
        "steps": list(STEPS),
        "may_move": await visit.desk.clock_hand.may_move(visit.developer.merchant_id),
    }
    return visit.page("clock.html", facts)


async def advance_clock(visit: Visit) -> Reply:
    """Move business time forward for the whole deployment, if nobody else's moves along unasked.

    Raises:
        TestClockShared, TestClockOff, TestClockStepInvalid, TestClockTooFar
    """
    step = STEPS.get(visit.request.form.get("step", ""), timedelta())
    developer = visit.developer
    await visit.desk.clock_hand.move(step, developer.merchant_id, developer.actor)
    return visit.back_to("clock", "clock_moved")


async def _tell(visit: Visit, what: str, told: dict[str, str]) -> Any:
    """Tell the simulated channels what a customer does.

    Raises:
        SimulatorNotThere, NothingToDecide
    """
    try:
        reply = await visit.desk.http.send(
            "POST",
            f"{visit.desk.sandbox_url}/control/customer/{what}",
            {"content-type": "application/json"},
            msgspec.json.encode(told),
            timeout_s=_TIMEOUT_S,
            reply_max_bytes=_READ_MAX,
        )
    except (NotSentError, NoAnswerError):
        raise SimulatorNotThere from None
    if reply.status != _OK:
        raise NothingToDecide
    return msgspec.json.decode(reply.body)


def _amount(text: str) -> int:
    """Return an amount of yuan in fen.

    Raises:
        PaymentFormInvalid
    """
    whole, _, part = text.strip().partition(".")
    digits = f"{whole}{part.ljust(2, '0')}"
    if not (digits.isascii() and digits.isdigit() and len(part) <= 2 and len(digits) <= 9):
        raise PaymentFormInvalid
    if not 1 <= int(digits) <= AMOUNT_MAX:
        raise PaymentFormInvalid
    return int(digits)
