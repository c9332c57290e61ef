"""A channel that sets money aside: a small issuer that knows what it did, and is often silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao.kernel.clock import Clock
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.authorisations import Capture, Voiding
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind, CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Authorised,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)


class Held(Struct):
    """Money of a customer that is set aside, and what became of it."""

    money: Money
    ref: str
    at: datetime
    taken: Money | None = None
    taken_ref: str = ""
    taken_as: str = ""  # the capture's number
    is_void: bool = False


class Issuer:
    """Authorises, captures and voids, once per number, and says so unless it is told otherwise.

    ``faults``: by call, what is to happen to the next ones: ``done`` and ``not done`` are silences
    after and before the deed, ``decline``, ``refused`` (nothing was sent) and ``pending``.
    """

    name = "wechat_pay"
    modes = frozenset(PayMode)
    currencies = frozenset({"CNY"})

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.held: dict[str, Held] = {}
        self.refunds: dict[str, RefundOrder] = {}
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.orders: list[PayOrder] = []
        self.sends_callbacks = False

    # What was asked

    async def authorise(self, _account: ChannelAccount, order: PayOrder) -> Answer[Any]:
        assert not order.captures
        self.orders.append(order)
        fault = self._fault("authorise")
        if fault in {"decline", "refused", "not done", "pending"}:
            return self._said(fault)
        held = self.held.setdefault(
            order.number, Held(order.money, f"42{uuid4().int % 10**20:020}", self._clock.now())
        )
        return self._said(fault, self._authorised(held))

    async def query_authorisation(self, _account: ChannelAccount, order: PayOrder) -> Answer[Any]:
        if fault := self._fault("query_authorisation"):
            return self._said(fault)
        held = self.held.get(order.number)
        if held is None:
            return self._said("", Absent("34"))
        return self._said("", Closed("void") if held.is_void else self._authorised(held))

    async def capture(self, _account: ChannelAccount, capture: Capture) -> Answer[Any]:
        fault = self._fault("capture")
        if fault in {"decline", "refused", "not done"}:
            return self._said(fault)
        held = self.held[capture.order.number]
        assert (capture.channel_ref, capture.authorisation_code) == (held.ref, "A12345")
        if held.taken_as not in {"", capture.number} or held.is_void:
            return self._said(fault, Declined("79"))
        assert capture.money.amount <= held.money.amount
        held.taken_as = capture.number
        held.taken = capture.money
        held.taken_ref = held.taken_ref or f"52{uuid4().int % 10**20:020}"
        return self._said(fault, self._taken(held))

    async def query_capture(self, _account: ChannelAccount, capture: Capture) -> Answer[Any]:
        if fault := self._fault("query_capture"):
            return self._said(fault)
        held = self.held[capture.order.number]
        is_it = held.taken_as == capture.number
        return self._said("", self._taken(held) if is_it else Absent("34"))

    async def void(self, _account: ChannelAccount, voiding: Voiding) -> Answer[Any]:
        fault = self._fault("void")
        if fault in {"decline", "refused", "not done"}:
            return self._said(fault)
        held = self.held[voiding.order.number]
        if held.taken is not None:
            return self._said(fault, Declined("79"))
        held.is_void = True
        return self._said(fault, Closed())

    async def close(self, _account: ChannelAccount, order: PayOrder) -> Answer[Any]:
        if fault := self._fault("close"):
            return self._said(fault)
        held = self.held.get(order.number)
        if held is None:
            return self._said("", Absent("34"))
        held.is_void = True
        return self._said("", Closed())

    async def pay(self, _account: ChannelAccount, order: PayOrder) -> Answer[Any]:
        raise AssertionError(f"{order.number} was to be set aside only")

    async def query(self, _account: ChannelAccount, order: PayOrder) -> Answer[Any]:
        raise AssertionError(f"{order.number} was to be set aside only")

    async def refund(self, _account: ChannelAccount, refund: RefundOrder) -> Answer[Any]:
        [held] = [each for each in self.held.values() if each.taken_as == refund.order_number]
        assert (refund.order_money, refund.order_ref) == (held.taken, held.taken_ref)
        self.refunds[refund.number] = refund
        return self._said("", Succeeded(f"62{refund.number}", refund.money, self._clock.now()))

    async def query_refund(self, _account: ChannelAccount, refund: RefundOrder) -> Answer[Any]:
        if refund.number not in self.refunds:
            return self._said("", Absent("34"))
        return self._said("", Succeeded(f"62{refund.number}", refund.money, self._clock.now()))

    # What it says by itself

    def told_of_capture(self, number: str) -> bytes:
        """The letter that says a capture is done."""
        [held] = [each for each in self.held.values() if each.taken_as == number]
        return msgspec.json.encode([number, self._taken(held)])

    def read_callback(
        self, account: ChannelAccount, _headers: Mapping[str, str], body: bytes, _now: datetime
    ) -> Callback:
        number, news = msgspec.json.decode(body, type=tuple[str, Succeeded])
        return Callback(
            CallbackKind.PAYMENT, number, number, account.merchant_number, None, news, ""
        )

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        return CallbackReply(200 if accepted else 400, {}, b"")

    # How it is said

    def _fault(self, call: str) -> str:
        self.asked[call] += 1
        waiting = self.faults.get(call, [])
        return waiting.pop(0) if waiting else ""

    def _said(self, fault: str, meant: Any = None) -> Answer[Any]:
        outcome = {
            "": meant,
            "done": Unknown("no answer"),
            "not done": Unknown("no answer"),
            "silence": Unknown("no answer"),
            "decline": Declined("51"),
            "refused": NotSent("connection refused"),
            "pending": Pending(reason="processing"),
        }[fault]
        return Answer(outcome, Exchange("POST", "https://issuer.test/", "", 200, "", 1))

    def _authorised(self, held: Held) -> Authorised:
        return Authorised(held.ref, held.money, held.at, "customer", "A12345")

    def _taken(self, held: Held) -> Succeeded:
        assert held.taken is not None
        return Succeeded(held.taken_ref, held.taken, self._clock.now())
