"""A bank, simulated: it takes ISO 20022 payment orders, settles them a little later, and reports.

The last four digits of the creditor's account number choose what becomes of a payment:

    0001  refused at once (AC03)            0004  taken, then sent back instead of settled (AC04)
    0002  pending until the control says    0005  the first order is lost before it is taken
    0003  taken and settled, but the answer to the order never comes
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct, structs

from tongbao.kernel.clock import business_date
from tongbao_sandbox import faults, magic
from tongbao_sandbox.bank_messages import (
    Order,
    OrderMalformed,
    Report,
    Transaction,
    read_order,
    write_rejection,
    write_report,
)
from tongbao_sandbox.clock import china
from tongbao_sandbox.model import Callback, PaymentCode, Trade
from tongbao_sandbox.seam import Keys, Outgoing, Refused, Reply, Request, World

NAME: Final = "bank"
SETTLE_AFTER_S: Final = 2.0
"""Virtual seconds until a payment settles; the setting ``bank.settle_after_s`` overrides."""
XML: Final = (("content-type", "application/xml; charset=utf-8"),)
TEXT: Final = (("content-type", "text/plain; charset=utf-8"),)

faults.allow("pay", "http_500_not_done", "http_500_done", "time_out_done", "time_out_not_done")
faults.allow("pay", "http_502_not_done", "http_502_done", "http_503_not_done")


class Held(Struct, frozen=True):
    """A payment order the bank took, and how its transactions stand."""

    digest: str
    reports: tuple[Report, ...]
    accounts: tuple[str, ...]  # creditor account of each report
    changed_at: datetime


def make_keys() -> Keys:
    """Return the credentials of a fresh customer of the bank."""
    return Keys(
        shown={
            "token": secrets.token_urlsafe(24),
            "debtor_name": "通宝沙箱支付有限公司",
            # A firm's account, and not what by chance could be somebody's card.
            "debtor_account": f"31{secrets.randbelow(10**15):015d}88",
            "debtor_bank": "102290000011",
        },
        kept={"note": "this bank signs nothing"},
    )


class Bank:
    """The simulated institution; see `seam.Channel`."""

    name = NAME
    prefix = "/bank"
    retry_plan: tuple[float, ...] = ()

    def __init__(self, world: World) -> None:
        self._world = world
        self._shown = world.keys[NAME].shown

    def answer(self, request: Request) -> Reply:
        """Take an order (POST /payments) or tell how one stands (GET /payments/{MsgId})."""
        if request.headers.get("authorization") != f"Bearer {self._shown['token']}":
            return Reply(401, (*TEXT, ("www-authenticate", "Bearer")), b"who are you?\n")
        if (request.method, request.path) == ("POST", "/payments"):
            return self._take(request)
        head, _, message_id = request.path.rpartition("/")
        if (request.method, head) == ("GET", "/payments"):
            held = self._held(unquote(message_id))
            return self._report(unquote(message_id), held) if held else Reply(404, TEXT)
        return Reply(404, TEXT)

    def _take(self, request: Request) -> Reply:
        if not request.headers.get("content-type", "").startswith("application/xml"):
            return Reply(415, TEXT, b"send application/xml\n")
        try:
            order = read_order(request.body)
        except OrderMalformed as fault:
            return Reply(400, TEXT, f"{fault}\n".encode())
        digest = sha256(request.body).hexdigest()
        held = self._held(order.message_id)
        if held is not None:
            if held.digest != digest:
                return Reply(409, TEXT, b"this MsgId was used for another order\n")
            return self._report(order.message_id, held)
        return self._take_new(order, digest)

    def _take_new(self, order: Order, digest: str) -> Reply:
        amount = order.transactions[0].money.amount if order.transactions else None
        fault = magic.fault_of(self._world, NAME, "pay", order.message_id, amount).name
        # What is paid elsewhere is done here.
        fault = fault.replace("_unpaid", "_not_done").replace("_paid", "_done")
        if self._is_lost_first(order) or fault.endswith("_not_done"):
            is_silent = not fault.startswith("http")
            return Reply(
                faults.http_status(fault) or 503, TEXT, ending="hold" if is_silent else "answer"
            )
        if reason := order.header_fault():
            now = self._world.clock.now()
            return Reply(200, XML, write_rejection(order.message_id, reason, now=now, **self._id()))
        reports = tuple(
            self._judge(order.message_id, one, is_held=fault == "processing")
            for one in order.transactions
        )
        held = Held(
            digest,
            reports,
            tuple(one.creditor_account for one in order.transactions),
            self._world.clock.now(),
        )
        self._keep(order.message_id, held)
        reply = self._report(order.message_id, held)
        if fault.startswith("http"):
            return Reply(faults.http_status(fault), TEXT)
        is_silent = any(account.endswith("0003") for account in held.accounts)
        if is_silent or fault.startswith("time_out"):
            return structs.replace(reply, ending="hold")
        return reply

    def _is_lost_first(self, order: Order) -> bool:
        """Whether an account ending 0005 makes this bank lose the order, which it does once."""
        if not any(one.creditor_account.endswith("0005") for one in order.transactions):
            return False
        name = f"lost.{order.message_id}"
        if self._world.state.document(NAME, name):
            return False
        self._world.state.put_document(NAME, name, b"", self._world.clock.now())
        return True

    def _judge(self, message_id: str, one: Transaction, *, is_held: bool) -> Report:
        """Return how a new transaction stands, and put its settlement on the agenda."""
        report = Report(
            instruction_id=one.instruction_id,
            end_to_end_id=one.end_to_end_id,
            money=one.money,
            status="ACTC",
            reason=None,
            reason_text="",
            bank_ref=None,
            accepted_at=self._world.clock.now(),
        )
        if (refusal := self._refusal(one)) is not None:
            return _rejected(report, *refusal)
        if one.creditor_account.endswith("0002") or is_held:
            return structs.replace(report, status="PDNG")
        settle_after_s = float(self._world.setting("bank.settle_after_s", SETTLE_AFTER_S))
        when = self._world.clock.now() + timedelta(seconds=settle_after_s)
        action = "return" if one.creditor_account.endswith("0004") else "settle"
        self._world.courier.at(NAME, action, message_id, when=when, argument=one.end_to_end_id)
        return report

    def _refusal(self, one: Transaction) -> tuple[str, str] | None:
        """Return why the bank refuses a transaction at once, as code and words."""
        if one.debtor_account != self._shown["debtor_account"]:
            return "AC02", "付款账号不符"
        if one.money.currency != "CNY":
            return "AM03", "币种不支持"
        if one.money.amount <= 0:
            return "AM01", "金额无效"
        if magic.is_declined(one.money.amount):
            return "AM04", "余额不足"
        return ("AC03", "收款账号不存在") if one.creditor_account.endswith("0001") else None

    def _report(self, message_id: str, held: Held) -> Reply:
        now = self._world.clock.now()
        return Reply(200, XML, write_report(message_id, held.reports, now=now, **self._id()))

    def _id(self) -> dict[str, str]:
        serial = self._world.state.next_number("bank.report")
        return {"report_id": f"RPT{china(self._world.clock.now()):%Y%m%d}{serial:012d}"}

    def _held(self, message_id: str) -> Held | None:
        found = self._world.state.document(NAME, f"order.{message_id}")
        return None if found is None else msgspec.json.decode(found[0], type=Held)

    def _keep(self, message_id: str, held: Held) -> None:
        content = msgspec.json.encode(held)
        self._world.state.put_document(NAME, f"order.{message_id}", content, held.changed_at)

    # What happens later -----------------------------------------------------------------------

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Settle one transaction of an order, or send it back."""
        held = self._held(number)
        if held is None:
            return
        reports = []
        for report in held.reports:
            is_it = report.end_to_end_id == argument and report.status in {"ACTC", "PDNG"}
            reports.append(self._moved(report, action, at) if is_it else report)
        self._keep(number, structs.replace(held, reports=tuple(reports), changed_at=at))

    def _moved(self, report: Report, action: str, at: datetime) -> Report:
        if action == "settle":
            ref = f"{business_date(at):%Y%m%d}{self._world.state.next_number('bank.ref'):010d}"
            return structs.replace(report, status="ACSC", bank_ref=ref, accepted_at=at)
        if action == "return":
            return _rejected(report, "AC04", "收款账户已销户，款项退回")
        return _rejected(report, "MS03", "银行拒绝，未说明原因")

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Decide a pending payment: ``POST payments/{MsgId}`` with ``{"action": "settle"}``."""
        head, _, message_id = path.partition("/")
        held = self._held(message_id)
        if head != "payments" or held is None:
            raise Refused("no such payment")
        if method == "POST":
            if body.get("action") not in {"settle", "reject", "return"}:
                raise Refused("a payment can settle, reject or return")
            for report in held.reports:
                self.act(body["action"], message_id, report.end_to_end_id, self._world.clock.now())
            held = self._held(message_id)
        return held

    # What only payment channels have ------------------------------------------------------------

    def outgoing(self, callback: Callback) -> Outgoing:
        """Refuse: this bank does not call back."""
        del callback
        raise Refused("the bank sends no callbacks")

    def accepted(self, status: int, body: bytes) -> bool:
        """Refuse nothing: there is nothing to accept."""
        del body
        return status == 200

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content: the bank sends no callbacks."""
        return content

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Refuse: a bank shows no codes."""
        del trade, action
        raise Refused("the bank has no codes to scan")

    def new_payment_code(self) -> str:
        """Refuse: a bank makes no payment codes."""
        raise Refused("the bank has no payment codes")

    def code_made(self, code: PaymentCode) -> None:
        """Nothing to prepare."""


def _rejected(report: Report, reason: str, text: str) -> Report:
    return structs.replace(report, status="RJCT", reason=reason, reason_text=text)
