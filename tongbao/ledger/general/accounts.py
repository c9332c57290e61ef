"""The chart of the general ledger: its accounts as data, and which kinds each one sums up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from typing import Final

import msgspec
from msgspec import Struct

from tongbao.ledger.model import Side
from tongbao.ledger.rules.chart import CHART

_NUMBER: Final = re.compile(r"[1-6]\d{3}(\.\d{2})?")


class GlClass(StrEnum):
    """Where an account stands in the balance sheet or the income statement (科目类别)."""

    ASSET = "asset"
    LIABILITY = "liability"
    COMMON = "common"  # 共同类: its balance may be on either side
    INCOME = "income"
    EXPENSE = "expense"


_SIDES: Final = {
    GlClass.ASSET: {Side.DEBIT},
    GlClass.EXPENSE: {Side.DEBIT},
    GlClass.LIABILITY: {Side.CREDIT},
    GlClass.INCOME: {Side.CREDIT},
    GlClass.COMMON: {Side.DEBIT, Side.CREDIT},
}


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    en: str
    zh: str
    class_: GlClass = msgspec.field(name="class")
    kinds: list[str] = []


class GlAccount(Struct, frozen=True):
    """One account of the general ledger."""

    number: str
    en: str
    zh: str
    gl_class: GlClass
    kinds: tuple[str, ...]


class GlChartInvalid(ValueError):
    """The table contradicts itself or the chart of accounts: a bug in the table."""


def load_accounts(toml: str) -> Mapping[str, GlAccount]:
    """Return the accounts of a table by number, after checking that every kind has one.

    Raises:
        GlChartInvalid
    """
    try:
        entries = msgspec.toml.decode(toml, type=dict[str, _Entry])
    except msgspec.DecodeError as error:
        raise GlChartInvalid(str(error)) from error
    seen: dict[str, str] = {}
    for number, entry in entries.items():
        if not _NUMBER.fullmatch(number) or not entry.en or not entry.zh or not entry.kinds:
            raise GlChartInvalid(f"{number} is badly numbered, lacks a name or sums up nothing")
        for kind in entry.kinds:
            if kind not in CHART:
                raise GlChartInvalid(f"{number} sums up {kind}, which the chart does not have")
            if kind in seen:
                raise GlChartInvalid(f"{kind} is in {seen[kind]} and in {number}")
            if CHART[kind].side not in _SIDES[entry.class_]:
                raise GlChartInvalid(f"{kind} grows on the wrong side for {number}")
            seen[kind] = number
    if missing := CHART.keys() - seen:
        raise GlChartInvalid(f"{min(missing)} has no account in the general ledger")
    return {
        number: GlAccount(number, entry.en, entry.zh, entry.class_, tuple(entry.kinds))
        for number, entry in sorted(entries.items())
    }


GL_ACCOUNTS: Final = load_accounts(
    resources.files("tongbao.ledger.general").joinpath("gl_accounts.toml").read_text("utf-8")
)
NUMBER_OF: Final[Mapping[str, str]] = {
    kind: account.number for account in GL_ACCOUNTS.values() for kind in account.kinds
}
"""The account of the general ledger that each kind is summed up in."""
