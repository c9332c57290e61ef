"""Our side of a bank that takes ISO 20022 payments: pay out, and ask what became of it."""

from __future__ import annotations

from typing import Final

from tongbao.infra.http import HttpClient, HttpReply
from tongbao.kernel.codecs.iso20022 import (
    MessageMalformed,
    PaymentStatus,
    PayoutOrder,
    fault_of,
    read_status,
    write_payment,
)
from tongbao.rails.channels.bank_transfer.messages import BankSecrets
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import Request, ask, unsent

TIMEOUT_S: Final = 15.0

SETTLED: Final = frozenset({"ACSC", "ACCC"})
OPEN: Final = frozenset(
    {"RCVD", "PDNG", "ACTC", "ACCP", "ACFC", "ACSP", "ACWC", "ACWP", "ACPD", "PATC", "PRES"}
)
REFUSED: Final = frozenset({"RJCT", "CANC"})

PayoutOutcome = Outcome
PayoutQueryOutcome = Succeeded | Pending | Declined | Absent | Unknown
_Verdict = Succeeded | Pending | Declined | Unknown


class BankTransfer:
    """Pays merchants from our bank account; keeps no state."""

    name = "bank_transfer"

    def __init__(self, http: HttpClient, *, timeout_s: float = TIMEOUT_S) -> None:
        self._http = http
        self._timeout_s = timeout_s

    async def pay_out(self, account: ChannelAccount, order: PayoutOrder) -> Answer[PayoutOutcome]:
        """Instruct the bank; safe to repeat with the same order, which the bank pays once."""
        url = f"{account.gateway}/payments"
        if fault := fault_of(order):
            return Answer(NotSent(fault), unsent("POST", url, fault))
        body = write_payment(order, _secrets(account))
        reply, exchange = await self._ask(account, order, "POST", url, body)
        if isinstance(reply, HttpReply):
            return Answer(_verdict(reply, order), exchange)
        return Answer(reply, exchange)

    async def query(
        self, account: ChannelAccount, order: PayoutOrder
    ) -> Answer[PayoutQueryOutcome]:
        """Ask what became of the order; `Absent` says the bank never took it."""
        url = f"{account.gateway}/payments/{order.number}"
        reply, exchange = await self._ask(account, order, "GET", url, b"")
        if isinstance(reply, NotSent):
            return Answer(Unknown(reply.reason), exchange)
        if isinstance(reply, Unknown):
            return Answer(reply, exchange)
        if reply.status == 404:
            return Answer(Absent("http_404"), exchange)
        return Answer(_verdict(reply, order), exchange)

    async def _ask(
        self, account: ChannelAccount, order: PayoutOrder, method: str, url: str, body: bytes
    ) -> tuple[HttpReply | NotSent | Unknown, Exchange]:
        secrets = _secrets(account)
        request = Request(
            method=method,
            url=url,
            headers={
                "authorization": f"Bearer {secrets.token}",
                "content-type": "application/xml; charset=utf-8",
                "accept": "application/xml",
            },
            body=body,
            shown_url=url,
            shown_body=body.decode(),
            hidden=(secrets.token, order.creditor_account, secrets.debtor_account),
        )
        return await ask(self._http, request, timeout_s=self._timeout_s)


def _secrets(account: ChannelAccount) -> BankSecrets:
    if not isinstance(account.secrets, BankSecrets):
        raise TypeError("a bank account needs BankSecrets")
    return account.secrets


def _verdict(reply: HttpReply, order: PayoutOrder) -> _Verdict:
    """Only a readable status about this very payment is evidence, whatever the HTTP status."""
    try:
        status = read_status(reply.body)
    except MessageMalformed as fault:
        return Unknown(f"http_{reply.status}: {fault}")
    if status.message_id != order.number or status.end_to_end_id not in {None, order.number}:
        return Unknown("the bank spoke about another payment")
    if status.money is not None and status.money != order.money:
        return Unknown("the bank spoke about another amount")
    return _outcome(status)


def _outcome(status: PaymentStatus) -> _Verdict:
    if status.status in REFUSED:
        return Declined(status.reason or status.status, status.reason_text)
    if status.status in OPEN:
        return Pending(reason=status.status)
    if status.status not in SETTLED:
        return Unknown(f"status {status.status}")
    if status.bank_ref is None or status.money is None or status.at is None:
        return Unknown("settled, but without reference, amount or time")
    return Succeeded(channel_ref=status.bank_ref, money=status.money, at=status.at)
