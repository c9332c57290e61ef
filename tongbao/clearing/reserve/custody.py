"""Custody accounts and what banks say is on them.

A bank's own paper is recorded as it comes in; whatever a person says, two people say: an account
that is opened or closed, a balance by hand, an explanation of a gap.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.reserve import _store as store
from tongbao.clearing.reserve.model import (
    ACCOUNT,
    GAP,
    CustodyAccount,
    CustodyAccountNotFound,
    CustodyAccountTaken,
    CustodyBalance,
    CustodyNumberMalformed,
    Purpose,
    ReserveGapExplained,
    ReserveGapNotFound,
    Source,
    StatementDayWrong,
)
from tongbao.controls.approvals.approvals import in_transaction
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, exponent_of
from tongbao.parties.identity.model import Permission


class OpenTerms(Struct, frozen=True):
    """An account at a bank that is to count, as `open_terms` makes them.

    Of its number only the end is kept, and a keyed fingerprint (hexadecimal) to know it again by.
    """

    mode: Mode
    currency: str
    purpose: Purpose
    bank: str
    account_tail: str
    account_mac: str
    opened_on: date


class CloseTerms(Struct, frozen=True):
    """An account that counts no more, from a day on."""

    account: str
    closed_on: date


class BalanceTerms(Struct, frozen=True):
    """What an account closed a day with, as a person has read it; ``reference`` says where.

    ``paper`` is the hexadecimal SHA-256 of the bank's file that a person has brought in, if any.
    """

    account: str
    day: date
    amount: int
    reference: str
    source: Source = Source.MANUAL
    paper: str = ""


class ExplainTerms(Struct, frozen=True):
    """Why there is a gap, and what was done."""

    gap: str
    explanation: str


_BLIND: Final = "custody.account"
_NUMBER: Final = re.compile(r"[0-9A-Z]{4,34}")
_FINANCE: Final = Permission.SETTLEMENT_ACT
OPEN: Final = Act(
    "reserve.account_open",
    "Let an account at a bank count as custody",
    "登记备付金银行账户",
    OpenTerms,
    maker=_FINANCE,
    checker=_FINANCE,
)
CLOSE: Final = Act(
    "reserve.account_close",
    "Let a custody account count no more",
    "停用备付金银行账户",
    CloseTerms,
    maker=_FINANCE,
    checker=_FINANCE,
)
BALANCE: Final = Act(
    "reserve.balance",
    "Enter a bank's closing balance by hand",
    "手工录入备付金账户余额",
    BalanceTerms,
    maker=_FINANCE,
    checker=_FINANCE,
)
EXPLAIN: Final = Act(
    "reserve.explain",
    "Explain a gap of the reserve",
    "解释备付金缺口",
    ExplainTerms,
    maker=_FINANCE,
    checker=_FINANCE,
)


def open_terms(
    keyring: Keyring,
    number: str,
    *,
    mode: Mode,
    currency: str,
    purpose: Purpose,
    bank: str,
    opened_on: date,
) -> OpenTerms:
    """Return the terms of opening an account by its whole number.

    Raises:
        CustodyNumberMalformed
    """
    text = plain_number(number)
    if not _NUMBER.fullmatch(text):
        raise CustodyNumberMalformed(param="number")
    mac = account_mac(keyring, text).hex()
    return OpenTerms(mode, currency, purpose, bank, text[-4:], mac, opened_on)


def plain_number(number: str) -> str:
    """Return an account's number without what people and banks put between its digits."""
    return re.sub(r"[^0-9A-Za-z]", "", number).upper()


def account_mac(keyring: Keyring, number: str) -> bytes:
    """Return the keyed fingerprint of a plain number: a bare hash of one could be searched for."""
    return hmac_sha256(keyring.mac_key(_BLIND), number.encode())


async def record_statement(
    tx: Tx, account_id: UUID, day: date, amount: int, *, source: Source, digest: bytes, name: str
) -> CustodyBalance | None:
    """Record what a bank's own paper says an account closed a day with; None when it is known.

    ``digest`` is the SHA-256 of the paper as it came, and ``name`` what it is called. A later
    paper of the same day counts over it.

    Raises:
        CustodyAccountNotFound, StatementDayWrong
    """
    return await _record(tx, account_id, day, amount, (source, name[:200], digest))


async def _record(
    tx: Tx, account_id: UUID, day: date, amount: int, paper: tuple[Source, str, bytes]
) -> CustodyBalance | None:
    account = await store.LOCK_ACCOUNT.first(tx, account_id)
    if account is None:
        raise CustodyAccountNotFound
    if day >= business_date(tx.now) or not account.is_open_on(day):
        raise StatementDayWrong(day=day.isoformat())
    row = (account.id, day, amount, *paper, tx.now, tx.actor)
    recorded = await store.ADD_BALANCE.first(tx, *row)
    if recorded is not None:
        source, _, digest = paper
        facts: dict[str, Fact] = {
            "day": day.isoformat(),
            "amount": amount,
            "version": recorded.version,
            "source": source.value,
            "digest": digest.hex(),
        }
        await audit.record(tx, "reserve.balance_recorded", show(ACCOUNT, account.id), facts)
    return recorded


async def custody_accounts(on: Db | Tx, mode: Mode | None = None) -> list[CustodyAccount]:
    """Return every custody account, those that are closed too."""
    return await store.ACCOUNTS.all(on, mode)


async def custody_account(on: Db | Tx, account_id: UUID) -> CustodyAccount:
    """Return a custody account.

    Raises:
        CustodyAccountNotFound
    """
    found = await store.GET_ACCOUNT.first(on, account_id)
    if found is None:
        raise CustodyAccountNotFound
    return found


async def balances_of(on: Db | Tx, account_id: UUID, limit: int = 31) -> list[CustodyBalance]:
    """Return what banks said of an account, the newest days first."""
    return await store.BALANCES.all(on, account_id, limit)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return what people may do to the reserve, two at a time, with what does it."""
    return (
        Bound(OPEN, in_transaction(db, _open), show=_show_open),
        Bound(CLOSE, in_transaction(db, _close)),
        Bound(BALANCE, in_transaction(db, _balance), show=_show_balance),
        Bound(EXPLAIN, in_transaction(db, _explain), show=_show_gap),
    )


async def _open(tx: Tx, approval: Approval, terms: OpenTerms) -> None:
    exponent_of(terms.currency)
    masked, mac = f"•••• {terms.account_tail[-4:]}", bytes.fromhex(terms.account_mac)
    place = (terms.mode, terms.currency, terms.purpose, terms.bank, masked, mac, terms.opened_on)
    account_id = derived_id(approval.id, "account")
    opened = await store.INSERT_ACCOUNT.first(tx, account_id, *place, approval.shown_id)
    if opened is None:
        raise CustodyAccountTaken(bank=terms.bank[:128])


async def _close(tx: Tx, _approval: Approval, terms: CloseTerms) -> None:
    closed = await store.CLOSE_ACCOUNT.first(tx, parse(ACCOUNT, terms.account), terms.closed_on)
    if closed is None:
        raise CustodyAccountNotFound


async def _balance(tx: Tx, approval: Approval, terms: BalanceTerms) -> None:
    # Without a file the approval is the paper: its digest is of who said what.
    digest = bytes.fromhex(terms.paper) if terms.paper else approval.digest
    paper = (terms.source, f"{terms.reference[:160]} ({approval.shown_id})", digest)
    await _record(tx, parse(ACCOUNT, terms.account), terms.day, terms.amount, paper)


async def _explain(tx: Tx, approval: Approval, terms: ExplainTerms) -> None:
    gap_id = parse(GAP, terms.gap)
    found = await store.GET_GAP.first(tx, gap_id)
    if found is None:
        raise ReserveGapNotFound
    said = (tx.now, terms.explanation, approval.shown_id)
    if await store.EXPLAIN_GAP.first(tx, gap_id, *said) is None:
        raise ReserveGapExplained


async def _show_open(_db: Db, _approval: Approval, terms: OpenTerms) -> list[Change]:
    tail = f"•••• {terms.account_tail[-4:]}"
    return [
        Change("account", "账户", None, f"{terms.bank} {tail} {terms.currency}"),
        Change("fingerprint", "账号指纹", None, terms.account_mac[:16]),
    ]


async def _show_balance(db: Db, _approval: Approval, terms: BalanceTerms) -> list[Change]:
    account = await custody_account(db, parse(ACCOUNT, terms.account))
    before = await store.LAST_BALANCE.first(db, account.id, terms.day)

    def shown(amount: int) -> str:
        return f"{Money(amount, account.currency).decimal_text()} {account.currency}"

    was = None if before is None else f"{before.day}: {shown(before.amount)}"
    where = f"{account.bank} {account.account_masked}"
    return [
        Change("account", "账户", None, where),
        Change(f"balance of {terms.day}", f"{terms.day} 余额", was, shown(terms.amount)),
        Change("from", "来源", None, f"{terms.source} {terms.reference} {terms.paper}"),
    ]


async def _show_gap(db: Db, _approval: Approval, terms: ExplainTerms) -> list[Change]:
    found = await store.GET_GAP.first(db, parse(GAP, terms.gap))
    if found is None:
        return []
    amount = Money(found.amount, found.currency).decimal_text()
    said = f"{found.day} {found.kind} {amount} {found.currency}"
    return [Change("gap", "缺口", said, terms.explanation)]
