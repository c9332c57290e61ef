"""The rows of each side of a rule, read for one day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, datetime, time
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.clearing.matching.model import Entry, Rule, Side, parts_of
from tongbao.clearing.payouts.queries import paid_out_between
from tongbao.clearing.reconciliation.breaks import RULE_PREFIX
from tongbao.clearing.reconciliation.queries import bills_of_day
from tongbao.clearing.sources.ingest import current_file, rows_of_file
from tongbao.clearing.suspense.desk import mode_of_book
from tongbao.clearing.transfers.queries import transferred_between
from tongbao.infra.db import Tx
from tongbao.kernel.clock import BUSINESS_ZONE, day_bounds
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import books, statement_of_days
from tongbao.ledger.rules.chart import CHART, OwnerKind
from tongbao.payments.collecting.queries import attempts_with_ids, paid_between
from tongbao.payments.refunds.queries import given_back_between
from tongbao.payments.splits.records import shared_between
from tongbao.rails.channels.accounts import list_accounts

SOURCE: Final = "source:"
_CHUNK: Final = 1000


class Asked(Struct, frozen=True):
    """A side of a rule, on a day."""

    rule: Rule
    side: Side
    name: str
    day: date
    mode: Mode

    def entry(
        self, place: int, number: str, amount: int, at: datetime, *, line: int = 0,
        kind: str = "", ref: str = "", batch: str = "", order: str = "",
    ) -> Entry:  # fmt: skip
        """Return a row of the side."""
        return Entry(self.side, self.day, place, line, kind, number, ref, batch, amount, at, order)


def is_given(name: str) -> bool:
    """Whether somebody else's papers make the side, which may not be there yet."""
    return name.startswith(SOURCE) or name == "channels"


async def entries_of(tx: Tx, asked: Asked) -> AsyncIterator[Entry]:
    """Yield the rows of a side, in the rule's currency; of a joined one, of each of its parts."""
    readers = {
        "source": _source,
        "channels": _channel_days,
        "payments": _payments,
        "splits": _splits,
        "transfers": _transfers,
        "payouts": _payouts,
        "ledger": _ledger,
    }
    next_place = 0
    for part in parts_of(asked.name):
        word, _, rest = part.partition(":")
        first = next_place
        async for entry in readers[word](tx, asked, rest):
            next_place = first + entry.place + 1
            yield replace(entry, place=first + entry.place) if first else entry


async def _source(tx: Tx, asked: Asked, source: str) -> AsyncIterator[Entry]:
    file = await current_file(tx, source, asked.day)
    if file is None:
        return
    takes_fee = asked.rule.amounts == "net"
    async for row in rows_of_file(tx, file.id):
        if row.currency == asked.rule.currency and row.kind not in asked.rule.ignores:
            amount = row.amount - row.fee if takes_fee else row.amount
            yield asked.entry(
                row.place, row.number, amount, row.at,
                line=row.line, kind=row.kind, ref=row.ref, batch=row.batch,
            )  # fmt: skip


async def _channel_days(tx: Tx, asked: Asked, _rest: str) -> AsyncIterator[Entry]:
    """Yield what each channel account owes of a day that was compared with its whole bill."""
    at = datetime.combine(asked.day, time(23, 59), BUSINESS_ZONE)
    for place, bill in enumerate(await bills_of_day(tx, asked.day)):
        is_ours = bill.mode is asked.mode and bill.currency == asked.rule.currency
        if bill.state.is_final and is_ours and not bill.channel.startswith(RULE_PREFIX):
            net = bill.payment_amount - bill.refund_amount - bill.fee_amount
            if net:
                yield asked.entry(
                    place, base32(bill.account_id), net, at, kind="settlement", batch=bill.channel
                )


async def _payments(tx: Tx, asked: Asked, channel: str) -> AsyncIterator[Entry]:
    """Yield what was collected and given back, by the channels' own time."""
    place, (start, end) = 0, day_bounds(asked.day)
    accounts = await _accounts(tx, asked.mode, channel)
    for account_id, name in accounts.items():
        async for paid in paid_between(tx, account_id, start, end):
            if paid.currency == asked.rule.currency:
                yield asked.entry(
                    place, base32(paid.id), paid.amount, paid.paid_at,
                    kind="payment", ref=base32(paid.payment_id), batch=name,
                    order=base32(paid.id),
                )  # fmt: skip
                place += 1
    back = [
        each async for each in given_back_between(tx, asked.mode, start, end)
        if each.currency == asked.rule.currency
    ]  # fmt: skip
    for first in range(0, len(back), _CHUNK):
        some = back[first : first + _CHUNK]
        paid_by = {
            each.id: each for each in await attempts_with_ids(tx, [one.attempt_id for one in some])
        }
        for one in some:
            name_of = accounts.get(paid_by[one.attempt_id].account_id)
            if name_of is not None:
                yield asked.entry(
                    place, base32(one.id), -one.amount, one.channel_at,
                    kind="refund", ref=base32(one.id), batch=name_of,
                    order=paid_by[one.attempt_id].taken_number,
                )  # fmt: skip
                place += 1


async def _splits(tx: Tx, asked: Asked, channel: str) -> AsyncIterator[Entry]:
    """Yield the shares that channels gave away, out, and what they took back, in."""
    place, accounts = 0, await _accounts(tx, asked.mode, channel)
    async for each in shared_between(tx, asked.mode, *day_bounds(asked.day)):
        name = None if each.account_id is None else accounts.get(each.account_id)
        if name is not None and each.at is not None and each.currency == asked.rule.currency:
            yield asked.entry(
                place, base32(each.number_of), each.amount, each.at,
                kind=each.kind, ref=base32(each.id), batch=name, order=base32(each.number_of),
            )  # fmt: skip
            place += 1


async def _transfers(tx: Tx, asked: Asked, channel: str) -> AsyncIterator[Entry]:
    """Yield what transfers took out of accounts at channels, by when they ended here."""
    place, span = 0, day_bounds(asked.day)
    for account_id, name in (await _accounts(tx, asked.mode, channel)).items():
        for item in await transferred_between(tx, account_id, *span):
            if item.ended_at is not None and item.currency == asked.rule.currency:
                number = item.channel_number
                yield asked.entry(
                    place, number, -item.amount, item.ended_at,
                    kind="transfer", ref=item.channel_ref or "", batch=name, order=number,
                )  # fmt: skip
                place += 1


async def _accounts(tx: Tx, mode: Mode, wanted: str) -> dict[UUID, str]:
    """Return our accounts at channels, and at which: one, those at one channel, or every one."""
    channel, _, account = wanted.partition("/")
    return {
        row.id: row.channel
        for row in await list_accounts(tx)
        if row.mode is mode and channel in {"", row.channel} and account in {"", base32(row.id)}
    }


async def _payouts(tx: Tx, asked: Asked, _rest: str) -> AsyncIterator[Entry]:
    """Yield payouts as the bank's statement should show them: out when paid, in when returned."""
    span, place = day_bounds(asked.day), 0
    for payout in await paid_out_between(tx, asked.mode, asked.rule.currency, *span):
        moments = (
            ("payout", -payout.amount, payout.bank_ref, payout.ended_at),
            ("return", payout.amount, payout.return_ref, payout.returned_at),
        )
        for kind, amount, ref, at in moments:
            if at is not None and span[0] <= at < span[1]:
                yield asked.entry(
                    place, payout.number, amount, at,
                    kind=kind, ref=ref or "",
                    batch=base32(payout.file_id) if payout.file_id else "",
                )  # fmt: skip
                place += 1


async def _ledger(tx: Tx, asked: Asked, kind: str) -> AsyncIterator[Entry]:
    """Yield the postings of the accounting day to accounts of a kind, in every book of the mode."""
    owners: list[UUID | None] = [None]
    if CHART[kind].owner is OwnerKind.CHANNEL_ACCOUNT:
        owners = list(await _accounts(tx, asked.mode, ""))
    place, day = 0, asked.day
    for book in [each.book for each in await books(tx)]:
        if mode_of_book(book) is not asked.mode:
            continue
        for owner in owners:
            key = AccountKey(kind, asked.rule.currency, owner)
            for line in (await statement_of_days(tx, book, key, day, day)).lines:
                yield asked.entry(
                    place, base32(line.reference), line.change, line.at,
                    kind=line.code, ref=base32(line.transfer_id),
                    batch=base32(owner) if owner else "",
                )  # fmt: skip
                place += 1
