"""Pay out by a bank's file: make it, send it by four eyes, and take what the bank says of it.

    payouts by file ─► made ─► sent ─► answered     every payout of it has ended
                         │       └► overdue ─┘      the bank's time for that is over
                         └► given up: its payouts wait for the next one

A file is written from its payouts whenever it is asked for, and comes out the same to the byte.
Its payouts are on their way from the moment it may be downloaded. What the bank brings is read
whole or not at all, and once; what it says of each payout counts as its word by any other way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts import _store as store
from tongbao.clearing.payouts.chasing import expect_answer, files_open
from tongbao.clearing.payouts.model import (
    AnswerMalformed,
    NothingToFile,
    Payout,
    PayoutFile,
    PayoutFileHeld,
    PayoutFileMoved,
    PayoutFileNotFound,
    PayoutNews,
    Returned,
)
from tongbao.clearing.payouts.payouts import order_of, record_payout_news, with_creditor
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.codecs.iso20022 import (
    Booking,
    MessageMalformed,
    Payer,
    PaymentStatus,
    PayoutOrder,
    read_bookings,
    read_statuses,
    write_payments,
)
from tongbao.kernel.errors import Fact, Refusal
from tongbao.kernel.ids import UnknownId, base32, from_base32, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, from_decimal_text
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.kernel.papers.sheets import csv_line
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.payments.collecting.queries import cursor_id
from tongbao.rails.channels.bank_files.secrets import BankFilesSecrets
from tongbao.rails.channels.bank_transfer.client import OPEN, REFUSED, SETTLED
from tongbao.rails.channels.bank_transfer.messages import BankSecrets
from tongbao.rails.channels.contract.outcomes import Declined, Exchange, Pending, Succeeded

PREFIX: Final = "pyf"
COUNT_MAX: Final = 5_000
"""Payouts of one file; a bank's portal takes some thousands."""
ANSWER_MAX: Final = 16 * 1024 * 1024
LINES_MAX: Final = 100_000
RESULT_HEADER: Final = ("number", "status", "currency", "amount", "reference", "at", "reason")
"""The columns of a result in CSV; status is paid, refused, pending or returned."""
Layout = Literal["pain001", "csv"]


class FileToSend(Struct, frozen=True):
    """What is approved: this file, with these bytes."""

    file_id: UUID
    count: int
    amount: int
    currency: str
    digest: str


SEND: Final = Act(
    name="payouts.send_file",
    en="Send a file of payouts to the bank",
    zh="向银行发送付款文件",
    terms=FileToSend,
    maker=Permission.SETTLEMENT_ACT.value,
    checker=Permission.SETTLEMENT_ACT.value,
    lasts=timedelta(days=2),
    amounts=lambda terms: [Money(terms.amount, terms.currency)],
)


async def make_file(
    context: Clearing, mode: Mode, currency: str, *, actor: str, layout: Layout = "pain001"
) -> PayoutFile:
    """Put the payouts that wait for a file into one, for one account of ours at a bank.

    Those of merchants whose money stays for now wait on.

    Raises:
        NothingToFile, PayoutFileMoved: somebody else put some of them into another file.
    """
    owners = await store.UNFILED_MERCHANTS.all(context.db, mode, currency)
    held = await _held(context.db, owners)
    waiting = await store.UNFILED.all(context.db, mode, currency, held, COUNT_MAX)
    ready = [fixed for each in waiting if (fixed := await with_creditor(context, each)).account_id]
    if not ready:
        raise NothingToFile
    account_id = ready[0].account_id
    chosen = [each for each in ready if each.account_id == account_id]
    now, file_id = context.db.clock.now(), new_id()
    drawn = PayoutFile(
        id=file_id,
        mode=mode,
        account_id=account_id or file_id,
        layout=layout,
        currency=currency,
        count=len(chosen),
        amount=sum(each.amount for each in chosen),
        digest=bytes(32),
        state="made",
        made_by=actor,
        made_at=now,
        sent_by=None,
        sent_at=None,
    )
    digest = sha256(await _written(context, drawn, chosen)).digest()
    failpoint("payouts.before_file")
    async with context.db.begin(actor) as tx:
        await store.INSERT_FILE.run(
            tx, file_id, mode, account_id, layout, currency, drawn.count, drawn.amount, digest,
            actor, now,
        )  # fmt: skip
        for each in chosen:
            args = (each.book, each.id, file_id, each.version, account_id)
            if not await store.SET_FILE.run(tx, *args):
                raise PayoutFileMoved
        facts: dict[str, Fact] = {"count": drawn.count, "amount": drawn.amount}
        await audit.record(tx, "payouts.file_made", show(PREFIX, file_id), facts)
    return await file_with_id(context.db, file_id)


async def file_content(context: Clearing, file: PayoutFile) -> bytes:
    """Return a file that may go to the bank.

    Raises:
        PayoutFileMoved: it was not approved, or would not come out as it was approved.
    """
    if file.state == "made":
        raise PayoutFileMoved(state=file.state)
    payouts = await store.PAYOUTS_OF_FILE.all(context.db, file.id, COUNT_MAX + 1)
    content = await _written(context, file, payouts)
    if sha256(content).digest() != file.digest:
        raise PayoutFileMoved
    return content


async def propose_send(tx: Tx, file_id: UUID, *, reason: str) -> Approval:
    """Put a file before other eyes.

    Raises:
        PayoutFileNotFound, PayoutFileMoved, PayoutFileHeld, ReasonTooShort, ApprovalWaiting
    """
    file = await file_with_id(tx, file_id)
    if file.state != "made":
        raise PayoutFileMoved(state=file.state)
    await _check_owners(tx, file_id)
    terms = FileToSend(file.id, file.count, file.amount, file.currency, file.digest.hex())
    return await propose(tx, SEND, show(PREFIX, file.id), terms, reason=reason, mode=file.mode)


async def give_up_file(tx: Tx, file_id: UUID) -> None:
    """Give a file up that was not sent; its payouts wait for the next one.

    Raises:
        PayoutFileNotFound, PayoutFileMoved
    """
    file = await file_with_id(tx, file_id)
    if not await store.DELETE_FILE.run(tx, file.id):
        raise PayoutFileMoved(state=file.state)
    await store.FREE_FILED.run(tx, file.id)
    await audit.record(tx, "payouts.file_given_up", show(PREFIX, file.id), {"count": file.count})


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts of this module with what does them."""
    link: Callable[[Approval], str] = lambda approval: f"/payout-files/{approval.subject}"  # noqa: E731
    return (Bound(SEND, in_transaction(db, _send), show=_show, link=link),)


async def _send(tx: Tx, approval: Approval, wanted: FileToSend) -> None:
    await _check_owners(tx, wanted.file_id)  # one may have been held since it was proposed
    if not await store.SEND_FILE.run(tx, wanted.file_id, approval.checker or "", tx.now):
        raise PayoutFileMoved
    if await store.SEND_FILED.run(tx, wanted.file_id) != wanted.count:
        raise PayoutFileMoved
    await expect_answer(tx, wanted.file_id)


async def _check_owners(tx: Tx, file_id: UUID) -> None:
    held = await _held(tx, await store.MERCHANTS_OF_FILE.all(tx, file_id))
    if held:
        raise PayoutFileHeld(merchant=show("mch", held[0]), count=len(held))


async def _held(on: Db | Tx, owners: Sequence[UUID]) -> list[UUID]:
    """Return those of the merchants whose standing does not let their money out."""
    found = await merchants_with_ids(on, owners)
    return [each.id for each in found.values() if not each.is_paid_out]


async def _show(_db: Db, _approval: Approval, wanted: FileToSend) -> list[Change]:
    total = Money(wanted.amount, wanted.currency).decimal_text()
    return [
        Change(en="payouts", zh="笔数", before=None, after=str(wanted.count)),
        Change(en=f"amount in {wanted.currency}", zh=f"金额 {wanted.currency}", before=None,
               after=total),
        Change(en="SHA-256 of the file", zh="文件 SHA-256", before=None, after=wanted.digest),
    ]  # fmt: skip


async def file_with_id(on: Db | Tx, file_id: UUID) -> PayoutFile:
    """Return a file.

    Raises:
        PayoutFileNotFound
    """
    file = await store.GET_FILE.first(on, file_id)
    if file is None:
        raise PayoutFileNotFound
    return file


async def list_files(
    on: Db | Tx, *, cursor: str | None = None, limit: int | None = None
) -> Page[PayoutFile]:
    """Return a page of files, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    rows = await store.LIST_FILES.all(on, cursor_id(cursor), size + 1)
    return page_of(rows, size, lambda row: row.id)


async def _written(context: Clearing, file: PayoutFile, payouts: Sequence[Payout]) -> bytes:
    payer = await _payer(context, file.account_id)
    chosen = sorted(payouts, key=lambda payout: payout.id)
    orders = [await order_of(context, payout) for payout in chosen]
    if file.layout == "pain001":
        return write_payments(orders, payer, number=file.number, created_at=file.made_at)
    return "".join(map(csv_line, _table(orders))).encode()


def _table(orders: Sequence[PayoutOrder]) -> list[Sequence[str]]:
    head = ("number", "name", "account", "bank", "currency", "amount", "purpose")
    rows = [
        (
            order.number,
            order.creditor_name,
            order.creditor_account,
            order.creditor_bank,
            order.money.currency,
            order.money.decimal_text(),
            order.remittance,
        )
        for order in orders
    ]
    return [head, *rows]


async def _payer(context: Clearing, account_id: UUID) -> Payer:
    secrets = (await context.flow.account(account_id)).secrets
    if not isinstance(secrets, BankFilesSecrets | BankSecrets):
        raise TypeError("payouts are paid from an account at a bank")
    return secrets


# What the bank brings


class Answered(Struct, frozen=True):
    """How many lines a bank's file had, how many payouts moved by it, and whether it was known."""

    lines: int
    applied: int
    was_known: bool = False


Elsewhere = Callable[[UUID, PayoutNews, Exchange], Awaitable[bool]]
"""Hears what a bank says of a number that is no payout's; tells whether that changed anything."""


async def take_answer(
    context: Clearing,
    account_id: UUID,
    content: bytes,
    *,
    actor: str,
    elsewhere: Elsewhere | None = None,
) -> Answered:
    """Read a bank's file about payouts of ours and apply every word of it; once, however often.

    Dying in between leaves some applied; bringing the file again applies the rest, because each
    payout's row tells what it has heard.

    Raises:
        AnswerMalformed, PayoutContended
    """
    digest = sha256(content).digest()
    known = await store.ANSWERED.first(context.db, digest)
    payer = await _payer(context, account_id)
    kind, said = _read(content, payer)
    if known is not None:
        return Answered(len(said), known, was_known=True)
    payouts = {
        payout.id: payout
        for payout in await store.PAYOUTS_WITH_IDS.all(context.db, [each for each, _ in said])
        if payout.account_id == account_id
    }
    applied = 0
    for payout_id, news in said:
        payout = payouts.get(payout_id)
        shown = f"{kind} sha256 {digest.hex()}"
        seen = Exchange("FILE", kind, base32(payout_id), None, shown, 0)
        if payout is None:  # of another channel's number, or of nobody: reconciliation meets it
            applied += elsewhere is not None and await elsewhere(payout_id, news, seen)
            continue
        after = await record_payout_news(context, payout, "file", news, seen)
        failpoint("payouts.after_line")
        applied += after.state is not payout.state
        payouts[payout_id] = after
    files = {payout.file_id for payout in payouts.values() if payout.file_id}
    async with context.db.begin(actor) as tx:
        await store.ANSWER_FILE.run(tx, list(files - await files_open(tx, list(files))))
        await store.INSERT_ANSWER.run(
            tx, digest, account_id, kind, len(said), applied, actor, tx.now
        )
        facts: dict[str, Fact] = {"kind": kind, "lines": len(said), "applied": applied}
        await audit.record(tx, "payouts.answer_taken", show("chn", account_id), facts)
    return Answered(len(said), applied)


_Said = list[tuple[UUID, PayoutNews]]


def _read(content: bytes, payer: Payer) -> tuple[str, _Said]:
    """Return the kind of a file and what it says, in its order; all of it or nothing.

    Raises:
        AnswerMalformed
    """
    if not content or len(content) > ANSWER_MAX:
        raise AnswerMalformed(reason="size")
    try:
        if content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] != b"<":
            return "csv", _of_table(content)
        if b"pain.002.001" in content[:4096]:
            return "pain.002", _of_statuses(read_statuses(content))
        return "camt", _of_bookings(read_bookings(content, payer.debtor_account))
    except (MessageMalformed, Refusal, ValueError, csv.Error) as fault:
        raise AnswerMalformed(reason=str(fault)[:80]) from None


def _of_statuses(statuses: Sequence[PaymentStatus]) -> _Said:
    said: _Said = []
    for each in statuses:
        payout_id = _payout_id(each.end_to_end_id)
        if payout_id is None:
            continue
        if each.status in REFUSED:
            said.append((payout_id, Declined(each.reason or each.status, each.reason_text)))
        elif each.status in SETTLED and each.bank_ref and each.money and each.at:
            said.append((payout_id, Succeeded(each.bank_ref, each.money, each.at)))
        elif each.status in SETTLED | OPEN:
            said.append((payout_id, Pending(reason=each.status)))
    return said


def _of_bookings(bookings: Sequence[Booking]) -> _Said:
    """Debits are payments, credits and reversals are what came back; payments count first."""
    paid: _Said = []
    back: _Said = []
    for each in bookings:
        payout_id = _payout_id(each.end_to_end_id)
        if payout_id is None:
            continue
        if each.direction == "debit" and not each.is_reversal:
            paid.append((payout_id, Succeeded(each.bank_ref, each.money, each.at)))
        else:
            back.append((payout_id, Returned(each.bank_ref, each.money, each.at, "RETURNED")))
    return [*paid, *back]


def _of_table(content: bytes) -> _Said:
    table = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    rows = [row for _, row in zip(range(LINES_MAX + 2), table, strict=False)]
    if not rows or tuple(rows[0]) != RESULT_HEADER or len(rows) > LINES_MAX + 1:
        raise ValueError("the header is another, or there are too many lines")
    said: _Said = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(RESULT_HEADER):
            raise ValueError(f"line {number}: {len(row)} columns")
        values = dict(zip(RESULT_HEADER, row, strict=True))
        payout_id = _payout_id(values["number"])
        if payout_id is None:
            raise ValueError(f"line {number}: no number of ours")
        said.append((payout_id, _of_row(values, number)))
    return said


def _of_row(values: Mapping[str, str], number: int) -> PayoutNews:
    reference, reason = values["reference"].strip()[:64], values["reason"].strip()[:64]
    match values["status"]:
        case "refused":
            return Declined(reason or "REFUSED")
        case "pending":
            return Pending(reason=reason)
        case "paid" | "returned" if reference:
            money = from_decimal_text(values["amount"], values["currency"])
            at = datetime.fromisoformat(values["at"])
            if at.tzinfo is None:
                raise ValueError(f"line {number}: a time without its zone")
            if values["status"] == "paid":
                return Succeeded(reference, money, at)
            return Returned(reference, money, at, reason)
        case _:
            raise ValueError(f"line {number}: status or reference")


def _payout_id(number: str | None) -> UUID | None:
    try:
        return from_base32(number or "")
    except UnknownId:
        return None
