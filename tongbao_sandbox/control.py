"""The control API: how tests and the demo play the customers, the clock and bad luck.

It is no part of any real channel. JSON in, JSON out; README.md lists every route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from tongbao_sandbox import magic
from tongbao_sandbox.delivery import SCAN, PostOffice
from tongbao_sandbox.faults import UnknownFault
from tongbao_sandbox.model import PaymentCode
from tongbao_sandbox.origin import is_own
from tongbao_sandbox.seam import Channel, Refused, Reply, Request, World, decode_object

_ACTIONS: Final = frozenset({"pay", "decline", "abandon"})
_BEHAVIOURS: Final = frozenset({"pay", "ask", "ask_then_pay", "ask_forever", "decline", "cancel"})

LATE_S: Final = 60.0
"""How much later a callback comes that is to be late, in seconds of the virtual clock."""
SENSELESS: Final = (Refused, UnknownFault, ValueError, TypeError, KeyError)
"""What a request raises that makes no sense."""

Query = Mapping[str, str]
Body = dict[str, Any]


class Control:
    """Answers everything below ``/control``."""

    def __init__(
        self, world: World, channels: Mapping[str, Channel], post_office: PostOffice
    ) -> None:
        self._world = world
        self._channels = channels
        self._post = post_office
        self._routes: dict[tuple[str, str], Callable[[Query, Body], Any]] = {
            ("GET", "clock"): self._clock,
            ("POST", "clock"): self._advance,
            ("GET", "settings"): lambda _query, _body: self._world.state.settings(),
            ("POST", "settings"): self._set,
            ("POST", "customer/scan"): self._scan,
            ("POST", "customer/payment-code"): self._new_code,
            ("GET", "faults"): lambda _query, _body: self._world.faults.list(),
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): lambda _query, _body: self._world.faults.clear(),
            ("POST", "bill/faults"): lambda query, body: self._add_fault(
                query, {**body, "on": "bill"}
            ),
            ("GET", "amounts"): lambda query, _body: magic.amounts_of(query["channel"]),
            ("GET", "trades"): self._trades,
            ("GET", "refunds"): self._refunds,
            ("GET", "callbacks"): self._callbacks,
            ("GET", "requests"): self._requests,
        }

    async def answer(self, request: Request) -> Reply:
        """Answer one request; what waits is done outside the transaction."""
        if "origin" in request.headers and not is_own(request):
            return _json(403, {"error": "a page from elsewhere may not tell the sandbox anything"})
        path = request.path.strip("/")
        query = dict(parse_qsl(request.query))
        body = decode_object(request.body or b"{}")
        if body is None:
            return _json(400, {"error": "the body is not a JSON object"})
        if (request.method, path) == ("POST", "settle"):
            return _json(200, {"idle": await self._post.settle(float(body.get("timeout_s", 10)))})
        try:
            with self._world.state.begin():
                result = self.do(request.method, path, query, body)
        except SENSELESS as refusal:
            return _json(400, {"error": f"{type(refusal).__name__}: {refusal}"})
        return _json(200, result) if result is not NOWHERE else _json(404, {"error": "no route"})

    def do(self, method: str, path: str, query: Query, body: Body) -> Any:
        """Do what a route says, inside the caller's transaction; `NOWHERE` where there is none.

        Raises:
            one of `SENSELESS`
        """
        if route := self._routes.get((method, path)):
            return route(query, body)
        head, _, rest = path.partition("/")
        if method == "DELETE" and head == "faults" and rest.isdigit():
            self._world.faults.clear(int(rest))
            return {}
        if method == "POST" and head == "callbacks":
            return self._change_callback(rest, body)
        if channel := self._channels.get(head):
            return channel.control(method, rest, {**query, **body})
        return NOWHERE

    # Clock and settings ---------------------------------------------------------------------

    def _clock(self, _query: Query, _body: Body) -> Any:
        clock = self._world.clock
        return {"now": clock.now(), "offset_s": clock.offset_s}

    def _advance(self, query: Query, body: Body) -> Any:
        self._world.clock.advance(float(body["advance_s"]))
        self._post.kick()
        return self._clock(query, body)

    def _set(self, _query: Query, body: Body) -> Any:
        for name, value in body.items():
            self._world.state.set_setting(name, value)
        return self._world.state.settings()

    # Customers ------------------------------------------------------------------------------

    def _scan(self, _query: Query, body: Body) -> Any:
        action = body.get("action", "pay")
        if action not in _ACTIONS:
            raise Refused(f"a customer can {sorted(_ACTIONS)}, not {action!r}")
        token = body.get("code_url") or body.get("qr_code")
        trade = (
            self._world.state.trade_by_token(token)
            if token
            else self._world.state.trade(body["channel"], body["number"])
        )
        if trade is None:
            raise Refused("no order has this code")
        if after_s := float(body.get("after_s", 0)):
            when = self._world.clock.now() + timedelta(seconds=after_s)
            self._post.at(trade.channel, SCAN, trade.number, when=when, argument=action)
            return {"number": trade.number, "will": action}
        return self._channels[trade.channel].scanned(trade, action)

    def _new_code(self, _query: Query, body: Body) -> Any:
        behaviour = body.get("behaviour", "pay")
        if behaviour not in _BEHAVIOURS:
            raise Refused(f"a payment code can {sorted(_BEHAVIOURS)}, not {behaviour!r}")
        channel = self._channels.get(body["channel"])
        if channel is None:
            raise Refused(f"no channel {body['channel']!r}")
        code = PaymentCode(
            code=channel.new_payment_code(),
            channel=channel.name,
            behaviour=behaviour,
            after_s=float(body.get("after_s", 5)),
            made_at=self._world.clock.now(),
        )
        self._world.state.put_code(code)
        channel.code_made(code)
        return {"auth_code": code.code}

    # Faults and what happened ---------------------------------------------------------------

    def _add_fault(self, _query: Query, body: Body) -> Any:
        if body["channel"] not in self._channels:
            raise Refused(f"no channel {body['channel']!r}")
        fault_id = self._world.faults.add(
            channel=body["channel"],
            on=body["on"],
            number=body.get("number") or "",
            fault=body["fault"],
            times=int(body.get("times", 1)),
        )
        return {"id": fault_id}

    def _trades(self, query: Query, _body: Body) -> Any:
        trades = self._world.state.trades(query.get("channel"))
        return [trade for trade in trades if query.get("number", trade.number) == trade.number]

    def _refunds(self, query: Query, _body: Body) -> Any:
        refunds = self._world.state.refunds(query.get("channel"))
        return [refund for refund in refunds if query.get("number", refund.number) == refund.number]

    def _callbacks(self, query: Query, _body: Body) -> Any:
        return [
            {**msgspec.structs.asdict(callback), "attempts": self._post.attempts(callback.id)}
            for callback in self._post.callbacks(query.get("channel"), query.get("number"))
        ]

    def _change_callback(self, path: str, body: Body) -> Any:
        callback_id, _, change = path.partition("/")
        changes: dict[str, Callable[[int], bool]] = {
            "resend": self._post.resend,
            "lose": self._post.lose,
            "double": self._post.double,
            "late": lambda one: self._post.delay(one, float(body.get("seconds", LATE_S))),
        }
        if change not in changes:
            raise Refused(f"a callback can {sorted(changes)}")
        if not callback_id.isdigit() or not changes[change](int(callback_id)):
            raise Refused("no such callback, or it waits no more")
        return {"id": int(callback_id)}

    def _requests(self, query: Query, _body: Body) -> Any:
        return self._world.state.exchanges(int(query.get("last", 100)))


NOWHERE: Final = object()
"""What is answered to an unknown route."""


def _json(status: int, content: Any) -> Reply:
    headers = (("Content-Type", "application/json"),)
    return Reply(status, headers, msgspec.json.encode(content))
