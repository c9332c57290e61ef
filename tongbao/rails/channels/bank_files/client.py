"""A bank that exchanges files, behind the channel contract.

Customers transfer to our account and name the order's number; payouts leave as pain.001. What the
bank booked, in both directions, it tells in camt.054 files, matched by the end-to-end id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.codecs.iso20022 import PayoutOrder, fault_of, write_payment
from tongbao.kernel.ids import UnknownId, from_base32
from tongbao.kernel.money import Money
from tongbao.rails.channels.bank_files import folders
from tongbao.rails.channels.bank_files.secrets import BankFilesSecrets
from tongbao.rails.channels.capabilities.transfers import (
    TransferOrder,
    TransferOutcome,
    TransferQueryOutcome,
)
from tongbao.rails.channels.contract.bills import BillTerms
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    CloseOutcome,
    Declined,
    Exchange,
    NotSent,
    OpenApp,
    Outcome,
    Pending,
    QueryOutcome,
    RefundOutcome,
    RefundQueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import Uncalled, Unfiled, unsent

NOTICE_DAYS: Final = timedelta(days=5)
"""How long after an order's time the bank may still tell of a transfer: over a long week-end."""
_NO_REFUND: Final = "a transfer is given back by a payout"

_Direction = Literal["credit", "debit"]


class BankFiles(Uncalled, Unfiled):
    """Keeps no state: the folders do."""

    name = "bank_files"
    modes = frozenset({PayMode.WEB})
    currencies = frozenset({"CNY"})
    no_file = "the bank sends notices, and no bill of the day"
    bill_terms = BillTerms(
        moved=frozenset(),
        under_way=frozenset(),
        failed=frozenset(),
        returns_refund_fees=False,
        keeps_refund_fees=False,
        quiet_when_empty=True,
    )

    def __init__(self, http: HttpClient, *, clock: Callable[[], datetime] = real_now) -> None:
        del http  # files go by folder
        self._now = clock

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Say where to transfer to, and the number to name; nobody is asked for that."""
        secrets = _secrets(account)
        if reason := _unpayable(order):
            return Answer(NotSent(reason), unsent("TRANSFER", account.gateway, reason))
        shown = {
            "holder": secrets.debtor_name,
            "account": secrets.debtor_account,
            "bank": secrets.debtor_bank,
            "amount": order.money.decimal_text(),
            "currency": order.money.currency,
            "reference": order.number,
        }
        evidence = unsent("TRANSFER", account.gateway, "the customer orders it at their own bank")
        return Answer(Pending(action=OpenApp(shown)), evidence)

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Look whether the bank has told of the transfer."""
        return await self._look(account, order.number, order.money, "credit")

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Find out that no transfer came; nobody can forbid one before its time is over."""
        found = await self._look(account, order.number, order.money, "credit")
        match found.outcome:
            case Succeeded():
                return Answer(found.outcome, found.exchange)
            case Pending() if self._now() >= order.expires_at + NOTICE_DAYS:
                return Answer(Closed("NOT_BOOKED"), found.exchange)
            case Unknown(reason=reason):
                return Answer(Unknown(reason), found.exchange)
            case _:
                reason = "not closed: the transfer may still come"
                return Answer(Unknown(reason), found.exchange)

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Refuse: the bank knows no refund."""
        del refund
        return Answer(NotSent(_NO_REFUND), unsent("TRANSFER", account.gateway, _NO_REFUND))

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Say that there is nothing to ask."""
        del refund
        return Answer(Unknown(_NO_REFUND), unsent("READ", account.gateway, _NO_REFUND))

    async def transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferOutcome]:
        """Leave a pain.001 for the bank, once; ``payee_kind`` is the payee's bank.

        The message is dated by its number, which has a time in it, so a repeat is byte for byte the
        same.
        """
        secrets, url = _secrets(account), account.gateway
        if reason := _untransferable(order):
            return Answer(NotSent(reason), unsent("WRITE", url, reason))
        try:
            message = write_payment(_payout(order), secrets)
            await asyncio.to_thread(folders.leave, secrets.folder, order.number, message)
        except folders.Unwritable as failure:
            reason = str(failure)
            return Answer(Unknown(reason), unsent("WRITE", url, reason))
        written = Exchange("WRITE", f"{url}/out/{order.number}.xml", "pain.001", 0, "", 0)
        return Answer(Pending(reason="written"), written)

    async def query_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Look whether the bank has booked the payout; one that was never written is `Absent`."""
        found = await self._look(account, order.number, order.money, "debit")
        if not isinstance(found.outcome, Pending):
            return Answer(found.outcome, found.exchange)
        is_there = await asyncio.to_thread(folders.was_left, _secrets(account).folder, order.number)
        return Answer(found.outcome if is_there else Absent("NOT_WRITTEN"), found.exchange)

    async def _look(
        self, account: ChannelAccount, number: str, money: Money, direction: _Direction
    ) -> Answer[Succeeded | Pending | Declined | Unknown]:
        secrets, url = _secrets(account), f"{account.gateway}/in"
        if not folders.is_number(number):
            return Answer(Unknown("no number of ours"), unsent("READ", url, "no number of ours"))
        try:
            read = await asyncio.to_thread(
                folders.read_notices, secrets.folder, secrets.debtor_account, number
            )
        except OSError as failure:
            reason = f"the folder cannot be read: {failure.strerror}"
            return Answer(Unknown(reason), unsent("READ", url, reason))
        shown = f"told in {', '.join(read.files) or 'no file'}; unreadable: {len(read.unreadable)}"
        evidence = Exchange("READ", url, number, 0, shown, 0)
        return Answer(_verdict(read, money, direction), evidence)


def _verdict(
    read: folders.Read, money: Money, direction: _Direction
) -> Succeeded | Pending | Declined | Unknown:
    """Return what the bookings of one number come to; only one clear booking is a success."""
    if read.unreadable:
        return Unknown(f"{len(read.unreadable)} of the bank's files cannot be read")
    back: _Direction = "debit" if direction == "credit" else "credit"
    made = [one for one in read.bookings if one.direction == direction and not one.is_reversal]
    undone = [one for one in read.bookings if one.direction == back or one.is_reversal]
    if not made:
        return Unknown("taken back, and never booked") if undone else Pending()
    if len(made) > 1 or made[0].money != money:
        return Unknown("contradiction: several transfers, or one of another amount")
    if not undone:
        return Succeeded(channel_ref=made[0].bank_ref, money=money, at=made[0].at)
    if direction == "debit" and [one.money for one in undone] == [money]:
        return Declined("REVERSED", "the bank took the payout back")
    return Unknown("the bank has taken some of it back")


def _payout(order: TransferOrder) -> PayoutOrder:
    return PayoutOrder(
        number=order.number,
        money=order.money,
        creditor_name=order.payee_name or "",
        creditor_account=order.payee,
        creditor_bank=order.payee_kind,
        created_at=datetime.fromtimestamp((from_base32(order.number).int >> 80) / 1000, UTC),
        remittance=order.title,
    )


def _unpayable(order: PayOrder) -> str | None:
    if order.mode not in BankFiles.modes or not order.captures:
        return f"no {order.mode} here, or none that only authorises"
    if order.money.currency not in BankFiles.currencies:
        return f"the account is not in {order.money.currency}"
    return None if folders.is_number(order.number) else "no number of ours"


def _untransferable(order: TransferOrder) -> str | None:
    if order.money.currency not in BankFiles.currencies:
        return f"the account is not in {order.money.currency}"
    try:
        from_base32(order.number)
    except UnknownId:
        return "no number of ours"
    return fault_of(_payout(order))


def _secrets(account: ChannelAccount) -> BankFilesSecrets:
    if not isinstance(account.secrets, BankFilesSecrets):
        raise TypeError("an account that exchanges files needs BankFilesSecrets")
    return account.secrets
