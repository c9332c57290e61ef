"""Posting rules: from a business fact to its transfers, by the table in `posting_rules.toml`.

Transfer ids are derived from the reference, the rule and the leg, so posting the same fact again
makes the same transfers, and the ledger says that they exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from importlib import resources
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.kernel.ids import derived_id
from tongbao.kernel.money import CurrencyMismatch, Money
from tongbao.ledger.model import AccountKey, Transfer, TransferKind
from tongbao.ledger.rules.chart import CHART, OwnerKind

ANY: Final = "any"
"""Written instead of a kind where the caller's account may be of any; the leg then names a role."""


class RuleInvalid(ValueError):
    """A posting rule contradicts itself, the chart or another rule: a bug in the table."""


class FactsDiffer(ValueError):
    """The caller did not give what the rule needs: a bug of the caller."""


class LegKind(StrEnum):
    """What a leg does, as the table says it."""

    SINGLE = "single"
    PENDING = "pending"
    POST = "post"
    VOID = "void"


_MOVES: Final = {LegKind.SINGLE, LegKind.PENDING}
_KINDS: Final = {
    LegKind.SINGLE: TransferKind.SINGLE,
    LegKind.PENDING: TransferKind.PENDING,
    LegKind.POST: TransferKind.POST,
    LegKind.VOID: TransferKind.VOID,
}


class Leg(Struct, frozen=True, forbid_unknown_fields=True):
    """One transfer of a rule.

    ``debit_as`` and ``credit_as`` are the names under which the caller gives the accounts; left
    out, they are given by their kinds.
    """

    name: str
    kind: LegKind
    debit: str | None = None
    credit: str | None = None
    amount: str | None = None
    ends: str | None = None
    debit_as: str | None = None
    credit_as: str | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """What one business fact does to the book."""

    en: str
    zh: str
    legs: list[Leg]


class Line(Struct, frozen=True):
    """One transfer in words, for a person to read before it is posted.

    The accounts of a line that ends a hold are those of the hold.
    """

    leg: str
    kind: TransferKind
    amount: Money | None
    debit: AccountKey | None
    debit_en: str
    debit_zh: str
    credit: AccountKey | None
    credit_en: str
    credit_zh: str


class Preview(Struct, frozen=True):
    """What posting a fact would do, without doing it."""

    rule: str
    en: str
    zh: str
    lines: tuple[Line, ...]


def load_rules(toml: str) -> Mapping[str, Rule]:
    """Return the rules of a table, each checked against the chart and the others.

    Raises:
        RuleInvalid
    """
    try:
        rules = msgspec.toml.decode(toml, type=dict[str, Rule])
    except msgspec.DecodeError as error:
        raise RuleInvalid(str(error)) from error
    pending = {
        f"{name}/{leg.name}"
        for name, rule in rules.items()
        for leg in rule.legs
        if leg.kind is LegKind.PENDING
    }
    for name, rule in rules.items():
        if not rule.legs or not rule.en or not rule.zh:
            raise RuleInvalid(f"{name} lacks legs or a name in English or Chinese")
        if len({leg.name for leg in rule.legs}) != len(rule.legs):
            raise RuleInvalid(f"{name} has two legs of one name")
        for leg in rule.legs:
            _check_leg(f"{name}/{leg.name}", leg, pending)
    return rules


def _check_leg(name: str, leg: Leg, pending: set[str]) -> None:
    if leg.kind in _MOVES:
        if not leg.debit or not leg.credit or not leg.amount or leg.ends:
            raise RuleInvalid(f"{name} must name a debit, a credit and an amount, and end nothing")
        _check_side(name, leg.debit, leg.debit_as)
        _check_side(name, leg.credit, leg.credit_as)
        if (leg.debit_as or leg.debit) == (leg.credit_as or leg.credit):
            raise RuleInvalid(f"{name} would debit and credit one account")
    else:
        if leg.ends not in pending:
            raise RuleInvalid(f"{name} ends {leg.ends}, which no rule holds")
        if leg.debit or leg.credit or leg.debit_as or leg.credit_as:
            raise RuleInvalid(f"{name} takes its accounts from what it ends")
        if leg.amount and leg.kind is LegKind.VOID:
            raise RuleInvalid(f"{name} releases all of what it ends")


def _check_side(name: str, kind: str, role: str | None) -> None:
    if kind == ANY:
        if not role:
            raise RuleInvalid(f"{name} takes an account of any kind and does not name its role")
    elif kind not in CHART:
        raise RuleInvalid(f"{name} names {kind}, which the chart does not have")
    if role is not None and (not role or role in CHART):
        raise RuleInvalid(f"{name} calls an account {role!r}, which is empty or a kind")


def transfers(
    rule: str,
    *,
    reference: UUID,
    accounts: Mapping[str, AccountKey],
    amounts: Mapping[str, Money],
    expires_at: datetime | None = None,
) -> tuple[Transfer, ...]:
    """Return the transfers of a business fact; legs whose amount is zero are left out.

    ``accounts`` has the owned accounts by kind, or by role where the leg names one; the platform's
    own need not be named. Accounts and amounts that no leg asks for are ignored. ``expires_at`` is
    given to pending legs.

    Raises:
        FactsDiffer: an account or amount is missing, of another kind, or negative.
        CurrencyMismatch: an account is kept in another currency than the amount.
    """
    if rule not in RULES:
        raise FactsDiffer(f"there is no rule {rule}")
    made = (
        _transfer(rule, leg, reference, accounts, amounts, expires_at=expires_at)
        for leg in RULES[rule].legs
    )
    return tuple(transfer for transfer in made if transfer is not None)


def preview(
    rule: str,
    *,
    reference: UUID,
    accounts: Mapping[str, AccountKey],
    amounts: Mapping[str, Money],
) -> Preview:
    """Return in words what `transfers` would post for the same facts.

    Raises:
        FactsDiffer, CurrencyMismatch
    """
    posted = transfers(rule, reference=reference, accounts=accounts, amounts=amounts)
    lines = []
    for transfer in posted:
        debit, credit = transfer.debit, transfer.credit
        currency = None if debit is None else debit.currency
        amount = transfer.amount
        lines.append(
            Line(
                leg=transfer.code.rpartition("/")[2],
                kind=transfer.kind,
                amount=None if amount is None or currency is None else Money(amount, currency),
                debit=debit,
                debit_en="" if debit is None else CHART[debit.kind].en,
                debit_zh="" if debit is None else CHART[debit.kind].zh,
                credit=credit,
                credit_en="" if credit is None else CHART[credit.kind].en,
                credit_zh="" if credit is None else CHART[credit.kind].zh,
            )
        )
    return Preview(rule, RULES[rule].en, RULES[rule].zh, tuple(lines))


def transfer_id(reference: UUID, rule: str, leg: str) -> UUID:
    """Return the id that a leg of a rule has for a reference."""
    return derived_id(reference, f"{rule}/{leg}")


def _transfer(
    rule: str,
    leg: Leg,
    reference: UUID,
    accounts: Mapping[str, AccountKey],
    amounts: Mapping[str, Money],
    *,
    expires_at: datetime | None,
) -> Transfer | None:
    code = f"{rule}/{leg.name}"
    money = None if leg.amount is None else _money(code, leg.amount, amounts)
    if money is not None and money.amount == 0:
        return None
    debit = credit = None
    if money is not None and leg.debit is not None and leg.credit is not None:
        debit = _account(code, leg.debit, accounts, money.currency, role=leg.debit_as)
        credit = _account(code, leg.credit, accounts, money.currency, role=leg.credit_as)
    return Transfer(
        id=transfer_id(reference, rule, leg.name),
        kind=_KINDS[leg.kind],
        code=code,
        reference=reference,
        amount=None if money is None else money.amount,
        debit=debit,
        credit=credit,
        pending_id=None if leg.ends is None else derived_id(reference, leg.ends),
        expires_at=expires_at if leg.kind is LegKind.PENDING else None,
    )


def _money(code: str, name: str, amounts: Mapping[str, Money]) -> Money:
    money = amounts.get(name)
    if money is None or money.amount < 0:
        raise FactsDiffer(f"{code} needs the amount {name}, which is not negative")
    return money


def _account(
    code: str,
    kind: str,
    accounts: Mapping[str, AccountKey],
    currency: str,
    *,
    role: str | None,
) -> AccountKey:
    given = accounts.get(role or kind)
    if given is None and kind != ANY and CHART[kind].owner is OwnerKind.HOUSE:
        return AccountKey(kind, currency)
    if given is None or kind not in {ANY, given.kind}:
        raise FactsDiffer(f"{code} needs the account {role or kind}")
    if given.currency != currency:
        raise CurrencyMismatch(f"{code}: {given.currency} met {currency}")
    return given


RULES: Final = load_rules(
    resources.files("tongbao.ledger.rules").joinpath("posting_rules.toml").read_text("utf-8")
)
