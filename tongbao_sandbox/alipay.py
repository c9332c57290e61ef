"""Alipay, simulated: the open platform's gateway, its notifications and its bills."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import structs

from tongbao_sandbox import (
    alipay_agreements,
    alipay_certs,
    alipay_complaints,
    alipay_days,
    alipay_funds,
    alipay_merchants,
    alipay_pages,
    alipay_parking,
    alipay_rest,
    alipay_shares,
    faults,
    magic,
)
from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_crypto import load_private_key, load_public_key, signed_notify
from tongbao_sandbox.alipay_methods import METHODS
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import (
    Ask,
    Identity,
    Refusal,
    check,
    fen_of,
    file_of,
    framed,
    framed_unsigned,
    read_ask,
    read_params,
)
from tongbao_sandbox.clock import plain
from tongbao_sandbox.credentials import new_rsa
from tongbao_sandbox.model import Callback, Fault, PaymentCode, Trade
from tongbao_sandbox.seam import Keys, Outgoing, Refused, Reply, Request, World

_CERTIFICATE: Final = "alipay.open.app.alipaycert.download"
_BILL: Final = "alipay.data.dataservice.bill.downloadurl.query"
_METHODS: Final = {
    **METHODS,
    **alipay_agreements.METHODS,
    **alipay_funds.METHODS,
    **alipay_parking.METHODS,
    **alipay_shares.METHODS,
    **alipay_merchants.METHODS,
    **alipay_complaints.METHODS,
    _BILL: ("bill", alipay_days.download_url_query),
    _CERTIFICATE: ("certificate", alipay_certs.download),
}
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "refund": ("out_request_no",),
    "refund_query": ("out_request_no",),
    "split": ("out_request_no",),
    "split_query": ("out_request_no",),
    "transfer": ("out_biz_no",),
    "transfer_query": ("out_biz_no",),
    "agreement": ("external_agreement_no", "agreement_no"),
    "agreement_query": ("external_agreement_no", "agreement_no"),
    "parking": ("car_number",),
    "applyment": ("external_id",),
    "complaint": ("complain_event_id",),
    "complaint_query": ("complain_event_id",),
    "applyment_query": ("external_id", "order_id"),
}
"""What a request is called by at each point where faults may be scripted."""
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_NOT_DONE: Final = frozenset({"system_error", "retry"})
"""With these too nothing happens; see `faults.is_lost`."""
_LATE_SUCCESS_S: Final = 5.0

faults.allow("pay", "system_error_paid", "system_error_unpaid")
faults.allow("query", "system_error")
faults.allow("refund", "system_error_done", "system_error_not_done", "not_enough")
faults.allow("close", "system_error", "retry", "time_out")
_DONE_OR_NOT: Final = [
    f"{kind}_{how}"
    for kind in ("time_out", "http_500", "http_502", "system_error")
    for how in ("done", "not_done")
]
for _point in ("split", "transfer", "agreement", "receiver", "parking", "applyment", "complaint"):
    faults.allow(_point, *_DONE_OR_NOT, "bad_signature_done", "http_429", "reset", "not_enough")
for _point in (
    "split_query",
    "transfer_query",
    "agreement_query",
    "applyment_query",
    "complaint_query",
):
    faults.allow(
        _point, "http_500", "http_502", "http_429", "time_out", "bad_signature", "system_error"
    )
faults.allow("split", "share_fails", "stuck")
faults.allow("transfer", "dealing", "fail")


def make_keys() -> Keys:
    """Return the keys of a fresh merchant and of Alipay itself, and their certificates."""
    app_private, app_public = new_rsa()
    alipay_private, alipay_public = new_rsa()
    forger_private, _ = new_rsa()
    serial = secrets.randbelow(10**9)
    app_id, seller_id = f"9021000{serial:09d}", f"2088721{serial:09d}"
    certified = alipay_certs.certify(seller_id, app_id, load_public_key(app_public), alipay_private)
    return Keys(
        shown={
            "app_id": app_id,
            "seller_id": seller_id,
            "app_private_key_pem": app_private,
            "app_public_key_pem": app_public,
            "alipay_public_key_pem": alipay_public,
            "app_auth_token": f"202611BB{secrets.token_hex(16)}",
            **certified.shown,
        },
        kept={
            "private_key_pem": alipay_private,
            "forger_private_key_pem": forger_private,
            **certified.kept,
        },
    )


_FILES: Final = (alipay_days.DOWNLOAD_PATH, alipay_complaints.IMAGES)
Framing = Callable[[RSAPrivateKey, str, Mapping[str, Any], str], Reply]


class Alipay:
    """The simulated institution; see `seam.Channel`."""

    name = NAME
    prefix = "/alipay"
    retry_plan: tuple[float, ...] = (
        *(4 * _MINUTE, 10 * _MINUTE, 10 * _MINUTE),
        *(_HOUR, 2 * _HOUR, 6 * _HOUR, 15 * _HOUR),
    )

    def __init__(self, world: World) -> None:
        self._world = world
        keys = world.keys[NAME]
        self._forger = load_private_key(keys.kept["forger_private_key_pem"])
        # A data directory from before certificates goes on with keys alone.
        self._identity = Identity(
            app_id=keys.shown["app_id"],
            app_key=load_public_key(keys.shown["app_public_key_pem"]),
            certificate_number=alipay_certs.number_of(keys.shown.get("app_certificate_pem", "")),
            root_number=alipay_certs.root_number_of(keys.shown.get("root_certificates_pem", "")),
            auth_token=keys.shown.get("app_auth_token", ""),
        )

    # The gateway ------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Answer the gateway in both its protocols, the cashier, and the download of bills."""
        if request.method == "GET" and request.path.startswith(_FILES):
            is_image = request.path.startswith(alipay_complaints.IMAGES)
            file = alipay_complaints.image if is_image else alipay_days.download
            return file(self._world, request)
        if request.path.startswith(alipay_pages.PATH) and request.method == "POST":
            return alipay_pages.decide(self._world, request)
        if request.path.startswith(alipay_pages.SIGN_PATH) and request.method == "POST":
            return alipay_pages.agree(self._world, request)
        if request.method not in {"GET", "POST"}:
            return Reply(404)
        if request.path.startswith(alipay_rest.PREFIX):
            return self._answer_rest(request)
        return self._answer_form(request) if request.path == "/gateway.do" else Reply(404)

    def _answer_form(self, request: Request) -> Reply:
        params = read_params(request)
        try:
            ask = self._read_form(params, request.origin)
            ask = structs.replace(ask, file=file_of(request))
        except Refusal as refusal:
            if params.get("method") in alipay_pages.OPENED:
                return alipay_pages.error_page(refusal)
            if params.get("app_id") != self._identity.app_id:
                return framed_unsigned(refusal.content)
            return self._frame(framed, "error_response", refusal.content)
        if ask.method in alipay_pages.OPENED:
            return alipay_pages.show(self._world, ask)
        return self._carry_out(ask, framed)

    def _read_form(self, params: dict[str, str], origin: str) -> Ask:
        check(params, self._identity, frozenset({*_METHODS, *alipay_pages.OPENED}))
        return read_ask(params, origin)

    def _answer_rest(self, request: Request) -> Reply:
        try:
            ask = alipay_rest.read(request, self._identity, frozenset(_METHODS))
        except Refusal as refusal:
            return self._frame(alipay_rest.framed, "", refusal.content)
        return self._carry_out(ask, alipay_rest.framed)

    def _carry_out(self, ask: Ask, framing: Framing) -> Reply:
        point, method = _METHODS[ask.method]
        fault = self._fault(ask, point)
        if faults.is_lost(fault.name) or fault.name in _NOT_DONE:
            return self._misbehaving(ask, {}, fault, framing)
        self._before(ask, fault)
        try:
            content = method(self._world, ask, fault)
        except Refusal as refusal:
            content = refusal.content
            if refusal.by_gateway:
                return self._frame(framing, "error_response", content, ask)
        self._after(ask, fault)
        return self._misbehaving(ask, content, fault, framing)

    def _fault(self, ask: Ask, point: str) -> Fault:
        take = self._world.faults.take
        if point == "bill":
            return take(NAME, point, "", alipay_days.CALL_FAULTS)
        names = _NUMBERS.get(point, ("out_trade_no",))
        number = next((text for name in names if (text := ask.text(name))), "")
        if not number:
            trade = trades.find(self._world, ask)
            number = trade.number if trade else ""
        if point not in magic.TABLE:
            return take(NAME, point, number)
        return magic.fault_of(self._world, NAME, point, number, fen_of(ask))

    def _before(self, ask: Ask, fault: Fault) -> None:
        if fault.name == "new_key":
            self.new_key()
        if fault.name != "paid_just_before":
            return
        trade = trades.find(self._world, ask)
        if trade is not None and trade.state in {"offered", *trades.OPEN}:
            trades.collect(self._world, trade, self._world.clock.now())

    def _after(self, ask: Ask, fault: Fault) -> None:
        if fault.name != "late_success":
            return
        trade = trades.find(self._world, ask)
        if trade is not None and trade.state in {"offered", "closed"}:
            when = self._world.clock.now() + timedelta(seconds=fault.seconds(_LATE_SUCCESS_S))
            self._world.courier.at(NAME, "late_pay", trade.number, when=when)

    def _misbehaving(
        self, ask: Ask, content: dict[str, Any], fault: Fault, framing: Framing
    ) -> Reply:
        """Return the reply as the scripted fault leaves it."""
        kind, name = fault.name, ask.reply_name
        if kind.startswith("http_5"):
            status, page = faults.error_page(kind)
            return Reply(status, (("content-type", "text/html"),), page)
        if kind == "http_429":
            name = "error_response"
            content = Refusal("40005", "app-call-limited", "应用调用次数超限").content
        if kind == "retry" or kind.startswith("system_error") or not content:
            extra = {"retry_flag": "Y"} if kind == "retry" else {}
            content = Refusal("20000", "ACQ.SYSTEM_ERROR", "系统异常", extra).content
        is_forged = kind.startswith("bad_signature")
        reply = self._frame(framing, name, content, ask, is_forged=is_forged)
        if kind.startswith("time_out"):
            return structs.replace(reply, ending="hold")
        if kind == "reset":
            return structs.replace(reply, ending="reset")
        return structs.replace(reply, delay_s=fault.seconds(3)) if kind == "slow" else reply

    def _frame(
        self,
        framing: Framing,
        name: str,
        content: Mapping[str, Any],
        ask: Ask | None = None,
        *,
        is_forged: bool = False,
    ) -> Reply:
        by_certificate = ask is not None and ask.by_certificate
        key, number = trades.signing_key(self._world, by_certificate=by_certificate)
        return framing(self._forger if is_forged else key, name, content, number)

    # Notifications ------------------------------------------------------------------------------

    def outgoing(self, callback: Callback) -> Outgoing:
        """Sign a notification now; a forged one bears somebody else's signature."""
        genuine = callback.variant == "genuine"
        fields = {**callback.content, "notify_time": plain(self._world.clock.now())}
        by_certificate = "alipay_cert_sn" in fields
        key, number = trades.signing_key(self._world, by_certificate=by_certificate)
        if by_certificate:  # it may have changed since the first try
            fields["alipay_cert_sn"] = number
        signed = signed_notify(key if genuine else self._forger, fields)
        headers = (("content-type", "application/x-www-form-urlencoded; charset=utf-8"),)
        return Outgoing(headers, urlencode(signed).encode())

    def accepted(self, status: int, body: bytes) -> bool:
        """Only the bare word counts, whatever the status says beside it."""
        return status == 200 and body.strip() == b"success"

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the notification with one fen more."""
        if "total_amount" not in content:
            return content
        whole, _, part = content["total_amount"].partition(".")
        return {**content, "total_amount": yuan(int(whole + part) + 1)}

    def new_key(self) -> None:
        """Sign with a new certificate whoever sends the number of theirs; keys alone stay."""
        alipay_certs.rotate(self._world)

    # Customers ----------------------------------------------------------------------------------

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Let a customer pay, decline or abandon; a scanned order becomes a trade."""
        now = self._world.clock.now()
        if trade.state not in {"offered", *trades.OPEN} or trade.expires_at <= now:
            raise Refused(f"the order is {trade.state} and cannot be paid")
        if action == "pay" and magic.is_declined(trade.amount):
            action = "decline"
        if action == "pay":
            trade = trades.collect(self._world, trade, now)
        elif action == "decline" and (trade.mode == "payment_code" or trade.extra.get("held")):
            trade = trades.close(self._world, trade)
        elif trade.state == "offered":
            trade = trades.create(self._world, trade)
        return {"number": trade.number, "state": trade.state, "ref": trade.ref}

    def new_payment_code(self) -> str:
        """Return 18 digits beginning with 25 … 30."""
        return f"{25 + secrets.randbelow(6)}{secrets.randbelow(10**16):016d}"

    def code_made(self, code: PaymentCode) -> None:
        """Nothing to prepare."""

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Carry out what was planned: a password typed, a refund done, a payment come late."""
        if action == "applyment":
            alipay_merchants.go_on(self._world, number, argument)
            return
        trade = self._world.state.trade(NAME, number)
        if trade is None:
            return
        if (action == "pay" and trade.state in trades.OPEN) or (
            action == "late_pay" and trade.state in {"offered", "closed", *trades.OPEN}
        ):
            trades.collect(self._world, trade, at)
        elif action == "settle":
            alipay_shares.finish(self._world, number, argument)
        elif action == "quit" and trade.state in trades.OPEN:
            trades.close(self._world, trade)
        elif action == "finish_refund":
            refund = self._world.state.refund(NAME, number, argument)
            if refund is not None and refund.state == "processing":
                trades.give_back(self._world, trade, refund)

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Do what only Alipay can be told; README.md has the list."""
        told: dict[tuple[str, str], Callable[[], Any]] = {
            ("POST", "visit"): lambda: self._visit(body["url"], body.get("action", "pay")),
            ("POST", "refund"): lambda: self._decide(body["number"], body["state"]),
            ("POST", "split"): lambda: alipay_shares.decide(
                self._world, body["number"], body["state"]
            ),
            ("POST", "transfer"): lambda: alipay_funds.decide(
                self._world, body["number"], body["state"]
            ),
            ("POST", "agreement"): lambda: alipay_agreements.decide(
                self._world, body["number"], body["action"]
            ),
            ("POST", "complain"): lambda: alipay_complaints.complain(
                self._world,
                body["number"],
                body.get("detail", "没有收到货"),
                body.get("images", []),
            ),
            ("POST", "applyment"): lambda: alipay_merchants.decide(
                self._world, body["number"], body["action"]
            ),
            ("POST", "plate"): lambda: alipay_parking.bind_plate(
                self._world, body["plate"], body["number"]
            ),
            ("POST", "rotate-certificate"): lambda: alipay_certs.rotate(self._world),
            ("POST", "bill/make"): lambda: alipay_days.make(self._world, body["day"]),
            ("POST", "bill/forget"): lambda: alipay_days.forget(self._world, body["day"]),
        }
        if (method, path) not in told:
            raise Refused(f"Alipay can be told: {', '.join(name for _, name in told)}")
        return told[method, path]()

    def _visit(self, url: str, action: str) -> Any:
        try:
            ask = self._read_form(alipay_pages.carried(url), "")
        except Refusal as refusal:
            raise Refused(refusal.content["sub_code"]) from None
        return alipay_pages.visit(self._world, ask, action)

    def _decide(self, number: str, state: str) -> Any:
        found = self._world.state.refunds_numbered(NAME, number)
        if not found or found[0].state != "processing":
            raise Refused("no refund of this number is in processing")
        trade = self._world.state.trade(NAME, found[0].trade_number)
        if trade is None or state not in {"done", "abnormal"}:
            raise Refused("a refund becomes done or abnormal")
        finish = trades.give_back if state == "done" else trades.drop_refund
        finish(self._world, trade, found[0])
        return {"number": number, "state": state}
