"""The server of WeChat Pay API v3: routes, signature checks in the real order, signed answers.

Settings of the control API: ``wechat.fee_ppm``, ``wechat.refund_fee`` (returned | kept),
``wechat.refund_after_s``, ``wechat.bill_summary`` (plain | trimmed), ``wechat.userpaying``
(object | error), ``wechat.signtest_every``, ``wechat.callback_serial``, ``wechat.callback_scheme``,
``wechat.rotation`` ("" | announced | switched | retired).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec.structs import replace

from tongbao_sandbox.model import Callback, PaymentCode, Trade
from tongbao_sandbox.seam import Outgoing, Refused, Reply, Request, World
from tongbao_sandbox.wechat_applyments import MEDIA_PATH, Applyments, parts_of
from tongbao_sandbox.wechat_bill import Bills
from tongbao_sandbox.wechat_combined import Combined
from tongbao_sandbox.wechat_complaints import UPLOAD, Complaints
from tongbao_sandbox.wechat_crypto import SCHEME, Vault, in_window, read_authorization
from tongbao_sandbox.wechat_customers import PAGE, Customers
from tongbao_sandbox.wechat_desk import NAME, ROTATING, Desk, transaction
from tongbao_sandbox.wechat_identity import PATHS as IDENTITY_PATHS
from tongbao_sandbox.wechat_identity import Identities
from tongbao_sandbox.wechat_orders import Orders
from tongbao_sandbox.wechat_papay import Agreements
from tongbao_sandbox.wechat_parking import Parkings
from tongbao_sandbox.wechat_refunds import Refunds
from tongbao_sandbox.wechat_splits import Splits
from tongbao_sandbox.wechat_statements import Statements
from tongbao_sandbox.wechat_transfers import Transfers
from tongbao_sandbox.wechat_wire import Call, Handler, Outcome, Problem

RETRY_PLAN: Final = (
    *(15.0, 15.0, 30.0, 180.0, 600.0, 1200.0, 1800.0, 1800.0, 1800.0, 3600.0),
    *(10800.0, 10800.0, 10800.0, 21600.0, 21600.0),
)
"""Seconds between the tries: 15 resends in 24 hours and 4 minutes."""
ROTATION: Final = ("announced", "switched", "retired")
"""The steps in which the platform certificate changes; `Vault` says what each means."""

_ILL_FORMED: Final = "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》"
_UNVERIFIED: Final = "签名信息错误，验签失败"
_FORGED: Final = "签名错误"
_STALE: Final = "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"


class WechatPay:
    """Satisfies `seam.Channel`."""

    name = NAME
    prefix = "/wechat"
    retry_plan: tuple[float, ...] = RETRY_PLAN

    def __init__(self, world: World) -> None:
        self._world = world
        self._vault = Vault(world.keys[NAME], world.setting)
        self._desk = desk = Desk(world, self._vault)
        self._orders = orders = Orders(desk)
        self._refunds = refunds = Refunds(desk, orders)
        self._bills = bills = Bills(desk)
        self._splits = splits = Splits(desk)
        self._transfers = transfers = Transfers(desk)
        self._agreements = agreements = Agreements(desk, orders)
        self._parkings = parkings = Parkings(desk, orders)
        self._applyments = applyments = Applyments(desk)
        self._complaints = complaints = Complaints(desk, orders)
        self._customers = Customers(desk, orders)
        self._identities = Identities(world, self._vault)
        refund = "/v3/refund/domestic/refunds"
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, _pattern(path), handler)
            for method, path, handler in (
                ("GET", "/v3/certificates", self._certificates),
                *orders.routes("/v3/pay/transactions", partner=False),
                *orders.routes("/v3/pay/partner/transactions", partner=True),
                ("POST", refund, refunds.ask),
                ("GET", f"{refund}/{{number}}", refunds.by_number),
                ("POST", f"{refund}/{{id}}/apply-abnormal-refund", refunds.apply_abnormal),
                *splits.routes(),
                *transfers.routes(),
                *Combined(desk, orders).routes(),
                *agreements.routes(),
                *parkings.routes(),
                *applyments.routes(),
                *complaints.routes(),
                ("GET", "/v3/bill/tradebill", bills.trade_bill),
                *Statements(desk, bills, splits, transfers).routes(),
                ("GET", "/v3/billdownload/file", bills.download),
            )
        ]

    # Requests -------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Answer a merchant's request, or a customer's browser on its way."""
        if request.path == PAGE:
            return self._customers.page(request)
        if request.path in IDENTITY_PATHS:
            return self._identities.answer(request)
        fitting = [
            (method, handler, match)
            for method, pattern, handler in self._routes
            if (match := pattern.fullmatch(request.path))
        ]
        if not fitting:
            return self._reply(404)
        for method, handler, match in fitting:
            if method == request.method:
                return self._handled(request, handler, match)
        return self._reply(405)

    def _handled(self, request: Request, handler: Handler, match: re.Match[str]) -> Reply:
        try:
            scheme = self._authenticate(request)
            variables = {name: unquote(value) for name, value in match.groupdict().items()}
            query = dict(parse_qsl(request.query, keep_blank_values=True))
            wanted = request.headers.get("wechatpay-serial", "")
            outcome = handler(Call(request.origin, variables, query, request.body, wanted))
        except Problem as problem:
            body = msgspec.json.encode(problem.content)
            named = not (problem.status == 401 and _is_pay(request.path))
            return self._reply(problem.status, body, named=named)
        return self._framed(outcome, wanted, scheme)

    def _authenticate(self, request: Request) -> str:
        """Check in the order that was observed: headers, form, time, then the signature.

        Return the scheme the merchant signed in, in which the answer is signed too.
        """
        complete = "accept" in request.headers and "user-agent" in request.headers
        pays = _is_pay(request.path)
        if not complete and not pays:
            raise Problem(400, "INVALID_REQUEST", "Http头缺少Accept或User-Agent")
        said = read_authorization(request.headers.get("authorization", ""))
        if said is None:
            raise Problem(401, "SIGN_ERROR", _UNVERIFIED if pays else _ILL_FORMED)
        if not in_window(said.timestamp):
            raise Problem(401, "SIGN_ERROR", _STALE)
        # The real host has no prefix. A client that signs the address it uses, prefix and all,
        # is as right as one that signs the documented path.
        targets = (request.target, request.prefix + request.target)
        # Of a picture only what describes it is signed: its digest is in there.
        is_picture = request.path in {MEDIA_PATH, UPLOAD}
        body = parts_of(request.body).get("meta", b"") if is_picture else request.body
        if not any(self._vault.is_signed(said, request.method, each, body) for each in targets):
            raise Problem(401, "SIGN_ERROR", _FORGED)
        if not complete:
            raise Problem(400, "INVALID_REQUEST", "Http头缺少Accept或User-Agent")
        return said.scheme

    def _certificates(self, call: Call) -> Outcome:
        return Outcome(self._vault.certificates(call.query.get("algorithm_type", "")))

    def _framed(self, outcome: Outcome, wanted_serial: str, scheme: str) -> Reply:
        """Sign the answer; files go out unsigned, and 204 is signed over nothing."""
        if isinstance(outcome.content, bytes):
            body = outcome.content
            reply = self._reply(outcome.status, body, media=outcome.media)
        else:
            body = b"" if outcome.content is None else msgspec.json.encode(outcome.content)
            signed = self._vault.headers(
                body, wanted_serial=wanted_serial, variant=outcome.variant, scheme=scheme
            )
            reply = self._reply(outcome.status, body, media=outcome.media)
            reply = replace(reply, headers=reply.headers + signed)
        return replace(reply, ending=outcome.ending, delay_s=outcome.delay_s)

    def _reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        media: str = "application/json; charset=utf-8",
        named: bool = True,
    ) -> Reply:
        headers: list[tuple[str, str]] = [("Cache-Control", "no-cache, must-revalidate")]
        if body:
            headers.append(("Content-Type", media))
        if named:
            headers.append(("Request-ID", secrets.token_hex(20).upper()))
        return Reply(status, tuple(headers), body)

    # Callbacks ------------------------------------------------------------------------------

    def outgoing(self, callback: Callback) -> Outgoing:
        """Encrypt the notification and sign it for this try."""
        content = callback.content
        resource = msgspec.json.encode(content["resource"])
        kind = content["original_type"]
        scheme = str(self._world.setting("wechat.callback_scheme", SCHEME))
        body = msgspec.json.encode(
            {
                "id": content["id"],
                "create_time": content["create_time"],
                "resource_type": "encrypt-resource",
                "event_type": content["event_type"],
                "summary": content["summary"],
                "resource": {"original_type": kind, **self._vault.seal(resource, kind, scheme)},
            }
        )
        # Callbacks are signed like answers; a setting chooses the public-key mode for them.
        serial = str(self._world.setting("wechat.callback_serial", ""))
        headers = (
            ("Content-Type", "application/json"),
            ("Accept", "*/*"),
            ("User-Agent", "Mozilla/4.0"),
            ("Request-ID", secrets.token_hex(20).upper()),
            *self._vault.headers(
                body, wanted_serial=serial, variant=callback.variant, scheme=scheme
            ),
        )
        return Outgoing(headers, body)

    def accepted(self, status: int, body: bytes) -> bool:  # noqa: ARG002 - the contract's form
        """Whether the merchant has it: 200 or 204."""
        return status in {200, 204}

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the notification with one fen more than was moved."""
        return {**content, "resource": _one_more(content["resource"])}

    def new_key(self) -> None:
        """Sign with the other one of the platform's two certificates from now on."""
        self._desk.new_key()

    # Customers, agenda, control -------------------------------------------------------------

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Let a customer meet an order."""
        return transaction(self._orders.scanned(trade, action))

    def new_payment_code(self) -> str:
        """Return 18 digits that begin with 10 to 15."""
        return self._orders.new_payment_code()

    def code_made(self, code: PaymentCode) -> None:
        """Need nothing."""

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Do what was put on the agenda."""
        match action:
            case "refund":
                self._refunds.act(number, argument, at)
            case "split":
                self._splits.finish(number, at)
            case "transfer":
                self._transfers.expire(number)
            case "deduct":
                self._agreements.take(number, argument, at)
            case "parking":
                self._parkings.take(number, at)
            case "applyment":
                self._applyments.act(number, argument, at)
            case _:
                self._orders.act(action, number, at)

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Do what only WeChat Pay can be told; README.md has the list."""
        told: dict[tuple[str, str], Callable[[], Any]] = {
            ("POST", "refund"): lambda: self._refunds.settle(body["number"], body["state"]),
            ("POST", "bill/forget"): lambda: self._bills.forget(date.fromisoformat(body["day"])),
            ("POST", "bill/make"): lambda: self._bills.make(date.fromisoformat(body["day"])),
            ("POST", "probe"): lambda: self._probe(body["number"]),
            ("POST", "next-certificate"): self._rotate,
            ("POST", "open"): lambda: self._customers.open(
                body["parameters"], body.get("action", "pay")
            ),
            ("POST", "complain"): lambda: self._complaints.complain(
                body["number"],
                body.get("detail", "东西没收到"),
                body.get("problem", "OTHERS"),
                body.get("images", []),
            ),
            ("POST", "transfer"): lambda: self._transfers.decide(
                body["number"], body.get("action", "confirm")
            ),
            ("POST", "agreement"): lambda: self._agreements.decide(
                body["number"], body.get("action", "sign")
            ),
            ("POST", "plate"): lambda: self._parkings.block(
                body["number"], blocked=body.get("action", "block") == "block"
            ),
            ("POST", "applyment"): lambda: self._applyments.decide(
                body["number"], body["action"], body.get("argument", "")
            ),
        }
        if (method, path) not in told:
            raise Refused(f"WeChat Pay can be told: {', '.join(name for _, name in told)}")
        return told[method, path]()

    def _rotate(self) -> dict[str, Any]:
        """Take the change of the platform certificate one step on; there are three."""
        before = self._world.setting(ROTATING, "")
        if before == ROTATION[-1]:
            raise Refused("the old certificate is gone and there is no third one")
        stage = ROTATION[ROTATION.index(before) + 1] if before else ROTATION[0]
        self._world.state.set_setting(ROTATING, stage)
        return {"rotation": stage}

    def _probe(self, number: str) -> dict[str, Any]:
        trade = self._orders.find(number)
        if trade is None:
            raise Refused("no such order")
        self._orders.probe(trade)
        return {}


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def _is_pay(path: str) -> bool:
    return path.startswith("/v3/pay/")


def _one_more(resource: dict[str, Any]) -> dict[str, Any]:
    """Return a resource with one fen more wherever it names money."""
    told = dict(resource)
    for name, value in resource.items():
        if isinstance(value, dict) and name in {"amount", "receiver"}:
            told[name] = {k: v + 1 if isinstance(v, int) else v for k, v in value.items()}
        elif name == "transfer_amount":
            told[name] = value + 1
        elif name == "sub_orders":
            told[name] = [_one_more(part) for part in value]
    return told
