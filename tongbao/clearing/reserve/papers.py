"""Read what a bank's own statement closes with (camt.053, MT940)."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Final

from tongbao.clearing.reserve.custody import (
    account_mac,
    custody_accounts,
    plain_number,
    record_statement,
)
from tongbao.clearing.reserve.model import CustodyAccount, Source
from tongbao.clearing.sources.layouts import built_in
from tongbao.clearing.sources.model import (
    Closing,
    Completed,
    SourceFault,
    SourceRow,
    SourceTotal,
)
from tongbao.clearing.sources.reading import Tally, read_file
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Tx
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.money import EXPONENTS, exponent_of

LAYOUT_OF: Final = {Source.CAMT_053: "camt.053", Source.MT940: "mt940"}
"""Which layout reads which kind of paper."""
_EXPONENT: Final = 2  # what the layouts of statements are written for


class PaperUnreadable(Invalid):
    """The file is no whole statement of one account, with a closing that its rows lead to."""

    code = "reserve.paper_unreadable"
    advice = "Give the bank's own file of one account and day, unchanged."
    advice_zh = "请提供银行原始对账单文件：单一账户、单日、内容完整。"


def read_closing(path: Path, source: Source, currency: str) -> tuple[int, bytes]:
    """Return the closing balance of a bank's statement, in minor units, and the file's SHA-256.

    Each row counts: opening and rows must lead to the closing, and no line may be unreadable.

    Raises:
        PaperUnreadable
    """
    if source not in LAYOUT_OF or exponent_of(currency) != _EXPONENT:
        raise PaperUnreadable(reason=f"{source} in {currency}")
    closings: list[int] = []
    tally = Tally()
    for each in read_file(built_in()[LAYOUT_OF[source]], path):
        if isinstance(each, SourceRow):
            tally.take(each)
            if each.currency != currency:
                raise PaperUnreadable(reason=f"a row in {each.currency}", line=each.line)
        elif isinstance(each, SourceTotal):
            if (wrong := tally.contradiction(each)) is not None:
                raise PaperUnreadable(reason=wrong.code, line=wrong.line)
            if each.closing is not None:
                closings.append(each.closing)
        elif isinstance(each, SourceFault):
            raise PaperUnreadable(reason=each.code, line=each.line)
    if len(closings) != 1:
        raise PaperUnreadable(reason=f"{len(closings)} closing balances")
    with path.open("rb") as file:
        return closings[0], hashlib.file_digest(file, "sha256").digest()


async def record_closings(keyring: Keyring, tx: Tx, completed: Completed) -> None:
    """Record what a bank's statement that came in as a source's file says of custody accounts.

    An account is known by its whole number, through a keyed fingerprint. The bank's own day counts,
    and a file with a line that could not be read, or that says two things of one day, proves
    nothing: people enter it.
    """
    if completed.faults:
        return
    source = Source.MT940 if completed.format == "mt940" else Source.CAMT_053
    accounts = await custody_accounts(tx, completed.source.mode)
    digest = bytes.fromhex(completed.file.sha256)
    for closing in _once(completed.closings):
        account = _account_of(keyring, accounts, closing)
        if account is not None and closing.day < business_date(tx.now):
            await record_statement(
                tx, account.id, closing.day, closing.amount, source=source, digest=digest,
                name=completed.name,
            )  # fmt: skip


def _once(closings: list[Closing]) -> list[Closing]:
    """Return one of each account and day, without those of which two things are said."""
    said: dict[tuple[str, str, date], set[Closing]] = {}
    for each in closings:
        said.setdefault((each.account, each.currency, each.day), set()).add(each)
    return [each for group in said.values() for each in group if len(group) == 1]


def _account_of(
    keyring: Keyring, accounts: list[CustodyAccount], closing: Closing
) -> CustodyAccount | None:
    if EXPONENTS.get(closing.currency) != _EXPONENT:
        return None
    macs = {account_mac(keyring, number) for number in _numbers_in(closing)}
    found = [
        each for each in accounts
        if each.account_mac in macs and each.currency == closing.currency
        and each.is_open_on(closing.day)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


def _numbers_in(closing: Closing) -> set[str]:
    """Return what may be the number: MT940 may put the bank before it, and the currency after."""
    numbers = {plain_number(closing.account), plain_number(closing.account.rpartition("/")[2])}
    return numbers | {number.removesuffix(closing.currency) for number in numbers}
