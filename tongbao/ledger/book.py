"""The one door to the ledger: `Ledger.submit` takes groups and answers what became of each.

One database transaction per group. Locks are taken in one order by everybody: the rows of the
companions as their domain orders them, holds by id, accounts by id, and the book's head row last,
just before the commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from prometheus_client import Counter

from tongbao.infra import audit
from tongbao.infra.db import Db, LockNotFree, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.number_ranges import next_number
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import derived_id
from tongbao.kernel.licence import Licence
from tongbao.ledger import _store as store
from tongbao.ledger.chart import opening_refusal
from tongbao.ledger.core import Decision, State, Writes, body_hash, decide
from tongbao.ledger.model import (
    BOOK_SHIFT,
    NOBODY,
    AccountKey,
    AccountKindNotLicensed,
    AccountMissing,
    AccountNotEmpty,
    AccountState,
    BookFrozen,
    BookMissing,
    Group,
    GroupDiffers,
    GroupInFlight,
    LedgerAccount,
    LedgerHold,
    LedgerRequest,
    Result,
    Transfer,
    TransferKind,
)

EXPIRED_CODE: Final = "hold.expired"
_ACTOR: Final = "ledger"
_NUMBERS: Final = "ledger_account"
_TRIES_MAX: Final = 3
_KNOWN_MAX: Final = 200_000

_GROUPS: Final = Counter(
    "tongbao_ledger_groups", "Groups submitted to the ledger by what became of them", ["status"]
)


class _Refused(Exception):
    """Undo the group and record why."""

    def __init__(self, code: str) -> None:
        self.code = code


class _NotNow(Exception):
    """Undo the group and record nothing."""

    def __init__(self, code: str) -> None:
        self.code = code


class _Overtaken(Exception):
    """Somebody else recorded this group, or one of its transfers, meanwhile: look again."""


class Ledger:
    """The ledger of one deployment, safe for any number of tasks and processes."""

    def __init__(self, db: Db, licence: Licence) -> None:
        self._db = db
        self._licence = licence
        # An account's number never changes, so what was found once need not be asked again.
        self._known: dict[tuple[int, AccountKey], int] = {}

    async def submit(self, groups: Sequence[Group]) -> list[Result]:
        """Decide the groups one after the other and return what became of each.

        A group that does not happen leaves nothing behind but its recorded answer. After an
        exception, submit the same groups again: what was recorded answers as before.

        Raises:
            DatabaseUnavailable: whether the group being submitted happened is unknown.
            BookMissing: a group names a book that was never opened.
        """
        results = []
        for group in groups:
            result = await self._submit_one(group)
            _GROUPS.labels(result.status).inc()
            results.append(result)
        return results

    async def expire_holds(self, now: datetime, limit: int) -> int:
        """Release up to ``limit`` holds that were due at ``now`` and return how many were due.

        Each is an ordinary group with an ordinary transfer, in the order (book, expiry, seq) and
        under an id derived from the hold, so it does not matter how many callers do this at once.
        """
        due = await store.DUE_HOLDS.all(self._db, min(now, self._db.clock.now()), limit)
        for hold in due:
            transfer = Transfer(
                id=derived_id(hold.pending_id, "expire"),
                kind=TransferKind.EXPIRE,
                code=EXPIRED_CODE,
                reference=hold.reference,
                pending_id=hold.pending_id,
            )
            await self.submit([Group(id=transfer.id, book=hold.book, transfers=(transfer,))])
        return len(due)

    async def open_book(self, book: int, *, actor: str) -> None:
        """Open a book, unless it is open already."""
        async with self._db.begin(actor) as tx:
            if await store.OPEN_BOOK.run(tx, book, tx.now):
                await audit.record(tx, "ledger.book_opened", f"book {book}", {})

    async def set_book_frozen(self, book: int, frozen: bool, *, actor: str, because: str) -> None:
        """Stop or resume all postings of a book; groups are answered ``in_flight`` meanwhile.

        Raises:
            BookMissing
        """
        async with self._db.begin(actor) as tx:
            if await store.SET_BOOK_FROZEN.run(tx, book, frozen):
                action = "ledger.book_frozen" if frozen else "ledger.book_thawed"
                await audit.record(tx, action, f"book {book}", {"because": because})
            elif await store.GET_BOOK.first(tx, book) is None:
                raise BookMissing(book=book)

    async def set_account_state(
        self, book: int, key: AccountKey, state: AccountState, *, actor: str, because: str
    ) -> None:
        """Freeze, close or reopen an account.

        Raises:
            AccountMissing, AccountNotEmpty
        """
        async with self._db.begin(actor) as tx:
            account = await store.LOCK_ACCOUNT.first(
                tx, book, key.owner or NOBODY, key.kind, key.currency
            )
            if account is None:
                raise AccountMissing(kind=key.kind)
            if state is AccountState.CLOSED and not _is_empty(account):
                raise AccountNotEmpty(kind=key.kind)
            if await store.SET_ACCOUNT_STATE.run(tx, book, account.id, state):
                facts = {"because": because, "from": account.state.value, "to": state.value}
                await audit.record(tx, "ledger.account_state_set", f"account {account.id}", facts)

    async def _submit_one(self, group: Group) -> Result:
        body = body_hash(group.transfers)
        for attempt in range(_TRIES_MAX):
            # Companions must not run for a group that is recorded; without companions the unique
            # keys find out in time, and the first submission is spared the question.
            if (attempt or group.companions) and (again := await self._earlier(group, body)):
                return again
            try:
                return await self._decide(group, body)
            except _Overtaken:
                continue
            except LockNotFree:
                return await self._earlier(group, body) or Result("in_flight", GroupInFlight.code)
            except _NotNow as reason:
                return await self._earlier(group, body) or Result("in_flight", reason.code)
        return Result("in_flight", GroupInFlight.code)

    async def _earlier(self, group: Group, body: bytes) -> Result | None:
        """Return the recorded answer to the group, if it has one."""
        request = await store.GET_REQUEST.first(self._db, group.book, group.id)
        return None if request is None else _repeated(request, body)

    async def _decide(self, group: Group, body: bytes) -> Result:
        ids, unopenable = await self._resolve(group)
        async with self._db.begin(_ACTOR) as tx:
            try:
                async with _undoable(tx, needed=bool(group.companions)):
                    await _run_companions(tx, group)
                    state = await _locked_state(tx, group, ids, unopenable)
                    decision = decide(state, group, tx.now)
                    _raise_unless_created(decision)
                    result = await _write(tx, group, body, decision.writes)
            except _Refused as refused:
                result = Result("refused", refused.code)
                await _record(tx, group, body, result)
            failpoint("ledger.before_commit")
        failpoint("ledger.after_commit")
        return result

    async def _resolve(
        self, group: Group
    ) -> tuple[dict[AccountKey, int], dict[AccountKey, type[Refusal]]]:
        """Return the number of every account the group names, opening those that are new.

        Accounts open in a commit of their own, before the group's: an account without postings
        harms nobody, and the group then waits for nobody else's opening.
        """
        ids: dict[AccountKey, int] = {}
        unopenable: dict[AccountKey, type[Refusal]] = {}
        new: list[AccountKey] = []
        for key in _keys_of(group):
            number = self._known.get((group.book, key))
            if number is not None:
                ids[key] = number
            elif refusal := opening_refusal(key, self._licence):
                unopenable[key] = refusal
            else:
                new.append(key)
        if new:
            found = await self._find_or_open(group.book, new)
            ids |= found
            # Only a kind that the database itself does not license is left over.
            unopenable |= {key: AccountKindNotLicensed for key in new if key not in found}
        return ids, unopenable

    async def _find_or_open(self, book: int, keys: list[AccountKey]) -> dict[AccountKey, int]:
        found = await self._find(book, keys)
        new = [key for key in keys if key not in found]
        if new:
            if await store.GET_BOOK.first(self._db, book) is None:
                raise BookMissing(book=book)
            numbers = [await next_number(self._db, _NUMBERS) for _ in new]
            ids = [book << BOOK_SHIFT | number for number in numbers]
            await store.OPEN_ACCOUNTS.run(
                self._db, book, ids, *_key_columns(new), self._db.clock.now()
            )
            found |= await self._find(book, new)
        if len(self._known) + len(found) > _KNOWN_MAX:
            self._known.clear()
        self._known |= {(book, key): number for key, number in found.items()}
        return found

    async def _find(self, book: int, keys: list[AccountKey]) -> dict[AccountKey, int]:
        return {
            AccountKey(row.kind, row.currency, None if row.owner == NOBODY else row.owner): row.id
            for row in await store.FIND_ACCOUNTS.all(self._db, book, *_key_columns(keys))
        }


@asynccontextmanager
async def _undoable(tx: Tx, *, needed: bool) -> AsyncIterator[None]:
    """Let what happens inside be undone alone, where there is anything to undo."""
    if not needed:
        yield
        return
    async with tx.savepoint():
        yield


async def _run_companions(tx: Tx, group: Group) -> None:
    for write in group.companions:
        if await write.run(tx) == 0 and write.refusal is not None:
            raise _Refused(write.refusal)


def _raise_unless_created(decision: Decision) -> None:
    code = decision.result.code or ""
    if decision.result.status == "in_flight":
        raise _NotNow(code)
    if decision.result.status == "refused":
        raise _Refused(code)


async def _locked_state(
    tx: Tx,
    group: Group,
    ids: dict[AccountKey, int],
    unopenable: dict[AccountKey, type[Refusal]],
) -> State:
    """Lock the holds and accounts the group touches and return them as they then are."""
    holds: dict[UUID, LedgerHold] = {}
    pending = [transfer.pending_id for transfer in group.transfers if transfer.pending_id]
    if pending:
        for row in await store.LOCK_HOLDS.all(tx, group.book, pending):
            holds[row.pending_id] = LedgerHold(*msgspec.structs.astuple(row))
    numbers = set(ids.values())
    numbers.update(number for hold in holds.values() for number in _accounts_of(hold))
    rows = []
    if numbers:
        transfer_ids = [transfer.id for transfer in group.transfers]
        rows = await store.LOCK_ACCOUNTS.all(tx, group.book, sorted(numbers), transfer_ids)
    if rows:
        frozen = rows[0].frozen
    else:
        frozen = await _is_frozen(tx, group.book)
    return State(
        accounts={row.id: LedgerAccount(*msgspec.structs.astuple(row)[:-2]) for row in rows},
        ids=ids,
        unopenable=unopenable,
        holds=holds,
        recorded=frozenset(rows[0].recorded) if rows else frozenset(),
        frozen=frozen,
    )


async def _is_frozen(tx: Tx, book: int) -> bool:
    head = await store.GET_BOOK.first(tx, book)
    if head is None:
        raise BookMissing(book=book)
    return head.frozen


async def _write(tx: Tx, group: Group, body: bytes, writes: Writes) -> Result:
    """Write a created group, its answer and the book's new head."""
    if writes.transfers:
        await _write_holds(tx, group.book, writes)
    failpoint("ledger.before_head")
    if not writes.transfers:
        await _record(tx, group, body, Result("created"))
        return Result("created")
    first = writes.transfers[0]
    lines, deltas = writes.transfers, writes.deltas
    written = await store.WRITE_GROUP.one(
        tx,
        group.book,
        group.id,
        body,
        len(lines),
        first.at,
        first.biz_date,
        first.value_date,
        [line.id for line in lines],
        [line.debit_account for line in lines],
        [line.credit_account for line in lines],
        [line.amount for line in lines],
        [line.kind for line in lines],
        [line.code for line in lines],
        [line.reference for line in lines],
        [line.pending_id for line in lines],
        [line.whole for line in lines],
        [line.debit_after for line in lines],
        [line.credit_after for line in lines],
        [delta.account for delta in deltas],
        [delta.debits_pending for delta in deltas],
        [delta.debits_posted for delta in deltas],
        [delta.credits_pending for delta in deltas],
        [delta.credits_posted for delta in deltas],
    )
    if not written.heads:
        raise _NotNow(BookFrozen.code)  # frozen since the accounts were locked
    if written.seq is None or written.transfers != len(lines):
        raise _Overtaken
    if written.accounts != len(deltas):
        raise RuntimeError(f"{written.accounts} of {len(deltas)} accounts of book {group.book}")
    return Result("created", seq=written.seq)


async def _write_holds(tx: Tx, book: int, writes: Writes) -> None:
    opened, ended = writes.holds_opened, writes.holds_ended
    if opened:
        count = await store.OPEN_HOLDS.run(
            tx,
            book,
            [hold.pending_id for hold in opened],
            [hold.debit_account for hold in opened],
            [hold.credit_account for hold in opened],
            [hold.amount for hold in opened],
            [hold.state for hold in opened],
            [hold.posted_amount for hold in opened],
            [hold.expires_at for hold in opened],
        )
        if count != len(opened):
            raise _Overtaken
    if ended:
        count = await store.END_HOLDS.run(
            tx,
            book,
            [hold.pending_id for hold in ended],
            [hold.state for hold in ended],
            [hold.posted_amount for hold in ended],
        )
        if count != len(ended):
            raise RuntimeError(f"a locked hold of book {book} changed")


async def _record(tx: Tx, group: Group, body: bytes, result: Result) -> None:
    """Write down the answer to a group that moved nothing."""
    if not await store.RECORD_REQUEST.run(
        tx, group.book, group.id, body, result.status, result.code, tx.now
    ):
        raise _Overtaken


def _repeated(request: LedgerRequest, body: bytes) -> Result:
    """Return the answer to a group that was answered before."""
    if request.body_hash != body:
        return Result("exists_different", GroupDiffers.code, request.seq)
    if request.status == "refused":
        return Result("refused", request.code)
    return Result("exists", seq=request.seq)


def _keys_of(group: Group) -> Iterable[AccountKey]:
    keys = (key for transfer in group.transfers for key in (transfer.debit, transfer.credit))
    return dict.fromkeys(key for key in keys if key is not None)


def _key_columns(keys: Sequence[AccountKey]) -> tuple[list[str], list[UUID], list[str]]:
    return (
        [key.kind for key in keys],
        [key.owner or NOBODY for key in keys],
        [key.currency for key in keys],
    )


def _accounts_of(hold: LedgerHold) -> tuple[int, int]:
    return hold.debit_account, hold.credit_account


def _is_empty(account: LedgerAccount) -> bool:
    return (
        account.debits_posted == account.credits_posted
        and account.debits_pending == account.credits_pending == 0
    )
