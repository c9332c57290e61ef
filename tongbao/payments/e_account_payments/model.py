"""A payment by an electronic account, and what became of what was given back of it. No I/O.

    refund  landed                  in the account that had paid
            waiting ──the person──► taken    the account was closed, or had no room for it

Limits count what is paid, and a refund gives nothing back to them: no instrument says that it does
(43号, 302号, 16号 and 296号 are silent), and the balance's meter follows the money all the same.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import UnknownId, parse
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.parties.e_accounts.model import PREFIX

RETURNED: Final = "e_account_returned"


class PayeeElsewhere(Rejected):
    """The merchant's money is kept in another book than people's electronic accounts."""

    code = "e_account.payee_elsewhere"
    advice = "Pay this merchant in another way."
    advice_zh = "该商户暂不支持电子账户付款，请更换支付方式。"


class EAccountPaymentNotFound(NotFound):
    """The account has made no such payment."""

    code = "e_account.payment_not_found"
    advice = "List the account's payments to find its id."
    advice_zh = "该账户没有此笔付款，请查询付款列表。"


class ReturnNotFound(NotFound):
    """Nothing of this person's waits under that refund."""

    code = "e_account.return_not_found"
    advice = "List what waits to find its id."
    advice_zh = "没有此笔待领退款，请查询待领列表。"


class ReturnTaken(Conflict):
    """What was given back is in another account already, or was never waiting."""

    code = "e_account.return_taken"
    advice = "Nothing to do; the payment's refunds say where the money is."
    advice_zh = "该退款已入账或已领取，无需重复操作。"


class Whereabouts(StrEnum):
    """Where the money of a refund is."""

    LANDED = "landed"
    WAITING = "waiting"
    TAKEN = "taken"


class EAccountPayment(Struct, frozen=True):
    """One row. ``level`` is how strongly it was confirmed, ``payee`` the merchant's name then."""

    book: int
    payment_id: UUID
    account_id: UUID
    person_id: UUID
    merchant_id: UUID
    mode: Mode
    payee: str
    subject: str
    amount: int
    currency: str
    level: int
    paid_at: datetime


class EAccountRefund(Struct, frozen=True):
    """One row. ``code`` says why the account that had paid did not take it."""

    book: int
    refund_id: UUID
    payment_id: UUID
    account_id: UUID
    person_id: UUID
    merchant_id: UUID
    mode: Mode
    amount: int
    currency: str
    state: Whereabouts
    code: str | None
    made_at: datetime
    taken_at: datetime | None
    taken_to: UUID | None

    @property
    def key(self) -> AccountKey:
        """Return the ledger's account that keeps it while it waits."""
        return AccountKey(RETURNED, self.currency, self.account_id)


class WaitingSum(Struct, frozen=True):
    """How many refunds of a currency wait for their people, and what they come to."""

    currency: str
    refunds: int
    amount: int


def account_of_payer(payer: str | None) -> UUID | None:
    """Return the electronic account that an attempt's payer is, if it is one."""
    try:
        return parse(PREFIX, payer or "")
    except UnknownId:
        return None
