"""Read one book in one snapshot and lay its journal, commits, answers and accounts together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

import numpy as np
from msgspec import Struct

from tongbao.infra.columns import Records, read_all, read_chunks
from tongbao.infra.db import Db, Tx
from tongbao.ledger.archive.queries import opening_of
from tongbao.ledger.audit import _store as store
from tongbao.ledger.audit.accounts import (
    COUNTERS,
    Accounts,
    check_accounts,
    check_alterations,
    check_balanced,
    check_kinds,
    total,
)
from tongbao.ledger.audit.batches import Batches
from tongbao.ledger.audit.findings import Breach, Check, Findings
from tongbao.ledger.audit.holds import Holds
from tongbao.ledger.audit.replay import Replay
from tongbao.ledger.audit.requests import Requests
from tongbao.ledger.chains import HistoryArchived
from tongbao.ledger.model import BookMissing, Side
from tongbao.ledger.rows import KindBalance, LedgerBook, LedgerWatermark

_ACTOR = "ledger verify"


class _Proof(Struct, frozen=True):
    """A book in the middle of being proved."""

    head: LedgerBook
    watermark: LedgerWatermark | None
    found: Findings
    accounts: Accounts
    holds: Holds
    batches: Batches
    replay: Replay
    begins_after: int  # what was recorded up to this seq is in the archive, or summed up with it

    def take(self, rows: Records) -> None:
        """Take the transfers of whole commits."""
        self.replay.take(rows)
        self.batches.take(rows)


async def books_of(db: Db) -> list[int]:
    """Return the number of every book."""
    return await store.LIST_BOOKS.all(db)


async def prove(
    db: Db,
    book: int,
    checks: Iterable[str],
    due_before: datetime,
    progress: Callable[[int, int, int], None] | None = None,
) -> list[Check]:
    """Derive everything stored of a book from its journal and return what each check found.

    The arithmetic runs beside the event loop, so whoever serves meanwhile goes on serving.
    """
    async with db.begin(_ACTOR) as tx:
        await store.BEGIN_SNAPSHOT.run(tx)
        await store.TAKE_YOUR_TIME.run(tx)
        found = await _prove(tx, book, due_before, progress)
    return [
        Check(book, name, found.looked_at[name], found.breaches[name], found.first.get(name))
        for name in checks
    ]


async def _prove(
    tx: Tx,
    book: int,
    due_before: datetime,
    progress: Callable[[int, int, int], None] | None,
) -> Findings:
    proof = await _begin(tx, book)
    left = np.zeros(0)
    proved = 0

    async def take(rows: Records) -> None:
        nonlocal left, proved
        rows = rows[rows["seq"] > proof.begins_after]
        rows = np.concatenate([left, rows]) if len(left) else rows
        whole = proof.batches.whole(rows)
        await asyncio.to_thread(proof.take, rows[:whole])
        left = rows[whole:]
        proved += whole
        if progress is not None:
            progress(book, proved, proof.head.last_seq)

    await read_chunks(tx, store.JOURNAL, (book,), store.JOURNAL_FIELDS, take)
    await asyncio.to_thread(proof.take, left)
    marks = await read_all(tx, store.MARKS, (book,), store.MARK_FIELDS)
    marks = marks[marks["seq"] > proof.begins_after]
    await asyncio.to_thread(proof.replay.finish, marks)
    await asyncio.to_thread(proof.batches.finish, proof.head, proof.watermark)
    proof.holds.finish(due_before)
    await _check_ends(tx, proof)
    if progress is not None:
        progress(book, proof.head.last_seq, proof.head.last_seq)
    return proof.found


async def _begin(tx: Tx, book: int) -> _Proof:
    """Read everything but the journal, and check what needs no journal."""
    found = Findings()
    head = await store.GET_HEAD.one(tx, book)
    watermark = await store.GET_WATERMARK.first(tx, book)
    accounts = Accounts(await read_all(tx, store.ACCOUNTS, (book,), store.ACCOUNT_FIELDS))
    families = await store.FAMILIES.all(tx, book)
    licensed = {kind.kind: kind for kind in await store.LIST_KINDS.all(tx)}
    check_kinds(found, licensed.values())
    check_accounts(found, accounts, families, licensed, book)
    check_balanced(found, accounts, families)
    if lost := await store.OPENING_WITHOUT_ACCOUNT.first(tx, book):
        found.add("accounts", Breach("it was opened and is not there", account=lost))
    closings = await check_alterations(tx, found, head, accounts, families)
    answers = await read_all(tx, store.REQUESTS, (book,), store.REQUEST_FIELDS)
    commits = await read_all(tx, store.BATCHES, (book,), store.BATCH_FIELDS)
    codes = {row.number: row.code for row in await store.LIST_CODES.all(tx)}
    holds = Holds(found)
    seq = 0 if watermark is None else watermark.seq
    replay = Replay(found, accounts, holds, codes, seq)
    begins_after = await _open(tx, book, accounts, holds, replay)
    answers = answers[answers["batch"] > begins_after]
    return _Proof(
        head=head,
        watermark=watermark,
        found=found,
        accounts=accounts,
        holds=holds,
        batches=Batches(
            found, commits, Requests(found, answers), closings, begins_after=begins_after
        ),
        replay=replay,
        begins_after=replay.last_seq,
    )


async def _open(tx: Tx, book: int, accounts: Accounts, holds: Holds, replay: Replay) -> int:
    """Begin with what the archive left; return the last batch that has something in it."""
    opening = await opening_of(tx, book)
    if opening is None:
        return 0
    accounts.open_with(opening.accounts)
    holds.open_with(opening.holds, opening.holds_begun)
    replay.last_seq = opening.seq
    return opening.batch


async def _check_ends(tx: Tx, proof: _Proof) -> None:
    """Compare the end of the journal with the head, and count the holds."""
    head, found = proof.head, proof.found
    if head.last_seq != proof.replay.last_seq:
        what = f"the head says {head.last_seq}, the last transfer is {proof.replay.last_seq}"
        found.add("sequence", Breach(what, seq=head.last_seq))
    holds = await store.COUNT_HOLDS.one(tx, head.book)
    if holds != proof.holds.begun:
        orphan = await store.HOLD_WITHOUT_TRANSFER.first(tx, head.book)
        found.add("holds", Breach("a hold has no pending transfer", transfer=orphan))


class Difference(Struct, frozen=True):
    """A counter of an account that is not what the journal adds up to."""

    account: int
    counter: str
    stored: int
    replayed: int


class Rebuilt(Struct, frozen=True):
    """The balances of a book after transfer ``seq``, added up from nothing but its journal.

    ``kinds`` is the trial balance; ``differences`` are to the stored accounts, and None when those
    are as of another number.
    """

    book: int
    seq: int
    transfers: int
    kinds: tuple[KindBalance, ...]
    differences: tuple[Difference, ...] | None


async def rebuild(db: Db, book: int, at: int | None = None) -> Rebuilt:
    """Add the balances of a book up from its journal, up to ``at`` or to where they stand.

    Nothing is written. Where older transfers are in the archive, it begins with what they left.

    Raises:
        BookMissing
        HistoryArchived: the number lies in the archive.
    """
    async with db.begin(_ACTOR) as tx:
        await store.BEGIN_SNAPSHOT.run(tx)
        await store.TAKE_YOUR_TIME.run(tx)
        watermark = await store.GET_WATERMARK.first(tx, book)
        if watermark is None:
            raise BookMissing(book=book)
        until = watermark.seq if at is None else at
        accounts = Accounts(await read_all(tx, store.ACCOUNTS, (book,), store.ACCOUNT_FIELDS))
        found = Findings()
        holds = Holds(found)
        replay = Replay(found, accounts, holds, (), until)
        await _open(tx, book, accounts, holds, replay)
        begins_after = replay.last_seq
        if until < begins_after:
            raise HistoryArchived(book=book, seq=until)

        async def take(rows: Records) -> None:
            inside = (rows["seq"] > begins_after) & (rows["seq"] <= until)
            await asyncio.to_thread(replay.take, rows[inside])

        await read_chunks(tx, store.JOURNAL, (book,), store.JOURNAL_FIELDS, take)
        families = await store.FAMILIES.all(tx, book)
    kinds = (_sum(accounts, family) for family in families)
    return Rebuilt(
        book=book,
        seq=until,
        transfers=found.looked_at["sequence"],
        kinds=tuple(kind for kind in kinds if kind is not None),
        differences=_differences(accounts) if until == watermark.seq else None,
    )


def _sum(accounts: Accounts, family: store.AccountFamily) -> KindBalance | None:
    members = accounts.members(family)
    if not members.any() or family.side not in {Side.DEBIT, Side.CREDIT}:
        return None
    return KindBalance(
        family.kind,
        family.currency,
        Side(family.side),
        int(np.count_nonzero(members)),
        *(total(column) for column in accounts.counters[:-1][members].T),
    )


def _differences(accounts: Accounts) -> tuple[Difference, ...]:
    return tuple(
        Difference(int(accounts.ids[at]), name, int(stored[at]), int(replayed[at]))
        for place, name in enumerate(COUNTERS)
        for stored, replayed in [(accounts.rows[name], accounts.counters[:-1, place])]
        for at in np.flatnonzero(stored != replayed).tolist()
    )
