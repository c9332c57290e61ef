"""Move people's money from and to their bank cards, over the channels that there are.

A card is charged over the card host (ISO 8583), which is asked once and whose silence is reversed;
it is paid by a credit transfer (ISO 20022), which is asked about by its number.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from tongbao.infra.crypto import Keyring
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.codecs.iso20022 import PayoutOrder
from tongbao.kernel.licence import Mode
from tongbao.parties.bound_cards.moving import BankSaid, CardMoney, OverBank
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.accounts import list_accounts, open_accounts
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.contract.orders import CardRead, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    Succeeded,
    Unknown,
)

CARDS: Final = "cards"
BANK: Final = "bank_transfer"
ANY_BANK: Final = "000000000000"
"""The bank finds the card's bank by its number."""
_ON_FILE: Final = "012"
_SUBJECT: Final = "账户充值"
_LIFE: Final = timedelta(minutes=10)


class PeoplesBanks:
    """The ways to the banks of people's cards; keeps no state."""

    def __init__(self, flow: Flow, bank: BankTransfer) -> None:
        self._flow = flow
        self._bank = bank

    async def rail_for(self, kind: str, mode: Mode) -> UUID | None:
        """Return our account for a kind of order: at a card host, or at a bank."""
        channel = CARDS if kind == "top_up" else BANK
        ours = open_accounts(await list_accounts(self._flow.db), mode)
        return next((each.id for each in ours if each.channel == channel), None)

    async def take(self, asked: OverBank) -> BankSaid:
        """Charge the card, once."""
        account = await self._flow.account(asked.rail_id)
        return _said((await self._flow.channels[CARDS].pay(account, _charge(asked))).outcome)

    async def take_back(self, asked: OverBank) -> BankSaid:
        """Reverse the charge; a success that shows here is not believed, but reversed again."""
        account = await self._flow.account(asked.rail_id)
        match (await self._flow.channels[CARDS].close(account, _charge(asked))).outcome:
            case Closed():
                return BankSaid("done")
            case Absent():
                return BankSaid("absent")
            case _:
                return BankSaid("unknown")

    async def pay(self, asked: OverBank) -> BankSaid:
        """Instruct the bank; the same number again is the same payment."""
        account = await self._flow.account(asked.rail_id)
        outcome = (await self._bank.pay_out(account, _transfer(asked))).outcome
        return BankSaid("unknown") if isinstance(outcome, NotSent) else _said(outcome)

    async def ask_paid(self, asked: OverBank) -> BankSaid:
        """Ask the bank what became of the payment."""
        account = await self._flow.account(asked.rail_id)
        return _said((await self._bank.query(account, _transfer(asked))).outcome)


def card_money(flow: Flow, bank: BankTransfer, keys: SealingKeys, keyring: Keyring) -> CardMoney:
    """Return what people's money goes over bank cards with."""
    return CardMoney(PeoplesBanks(flow, bank), keys, keyring)


def _said(outcome: Outcome | QueryOutcome) -> BankSaid:
    match outcome:
        case Succeeded(channel_ref=reference):
            return BankSaid("done", reference)
        case Declined() | NotSent() | Closed():
            return BankSaid("refused")
        case Absent():
            return BankSaid("absent")
        case Pending() | Unknown():
            return BankSaid("unknown")


def _charge(asked: OverBank) -> PayOrder:
    card = CardRead(number=asked.card.number, expiry=asked.card.expiry, entry=_ON_FILE)
    return PayOrder(
        number=asked.number,
        mode=PayMode.CARD,
        money=asked.money,
        subject=_SUBJECT,
        expires_at=asked.made_at + _LIFE,
        card=card,
    )


def _transfer(asked: OverBank) -> PayoutOrder:
    return PayoutOrder(
        number=asked.number,
        money=asked.money,
        creditor_name=asked.name,
        creditor_account=asked.card.number,
        creditor_bank=ANY_BANK,
        created_at=asked.made_at,
        remittance=asked.subject,
    )
