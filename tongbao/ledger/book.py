"""The one door to the ledger: `Ledger.submit` takes groups and answers what became of each.

Every book has one writer, which decides in memory and commits in groups (`tongbao.ledger.poster`).
The door finds the numbers of accounts and codes, hands groups to the lanes of their books, and
makes the rare changes that go past the writer: a frozen book, an account's state and limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, get_args

import structlog
from prometheus_client import Counter

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Busy, NotFound
from tongbao.kernel.ids import derived_id
from tongbao.kernel.licence import Licence
from tongbao.ledger import _store as store
from tongbao.ledger.decision.records import Batch, Codes
from tongbao.ledger.door.names import Names
from tongbao.ledger.model import (
    NOBODY,
    AccountKey,
    AccountMissing,
    AccountNotEmpty,
    AccountState,
    BookElsewhere,
    Group,
    LimitBroken,
    Result,
    Side,
    Status,
    Transfer,
    TransferKind,
)
from tongbao.ledger.poster.calls import Call, codes_of
from tongbao.ledger.poster.lane import Lane, Moved
from tongbao.ledger.poster.lease import altering
from tongbao.ledger.poster.recall import rehearse
from tongbao.ledger.rows import LedgerAccount
from tongbao.ledger.wire.client import Asked
from tongbao.ledger.wire.route import Route
from tongbao.ledger.wire.server import Question

_log = structlog.get_logger()

EXPIRED_CODE: Final = "hold.expired"
DEADLINE_S: Final = 10.0
_WATCH_S: Final = 0.5
Balances = Literal["behind", "with_commit"]

_GROUPS: Final = Counter(
    "tongbao_ledger_groups", "Groups submitted to the ledger by what became of them", ["status"]
)


_GROUPS_BY_STATUS: Final = {status: _GROUPS.labels(status) for status in get_args(Status)}


class Ledger:
    """The ledger of one deployment, safe for any number of tasks and processes."""

    def __init__(
        self,
        db: Db,
        licence: Licence,
        *,
        balances: Balances = "behind",
        sockets: Path | None = None,
    ) -> None:
        """Listen in the folder ``sockets`` for other processes, once a book is kept here."""
        self._db = db
        self._licence = licence
        self._with_balances = balances == "with_commit"
        self._names = Names(db, licence)
        self._lanes: dict[int, Lane] = {}
        self._route = Route(db, self._answer_other, folder=sockets)

    async def submit(
        self, groups: Sequence[Group], *, deadline_s: float = DEADLINE_S
    ) -> list[Result]:
        """Decide the groups of each book one after the other and return what became of each.

        A group that does not happen leaves nothing behind but its recorded answer. After an
        exception, submit the same groups again: what was recorded answers as before.

        Raises:
            DatabaseUnavailable: whether the groups happened is unknown.
            LedgerOverloaded: nothing was decided; too much waits, or it waited too long.
            BookMissing: a group names a book that was never opened.
        """
        deadline = monotonic() + deadline_s
        if not groups:
            return []
        if len(groups) == 1 or len({group.book for group in groups}) == 1:
            results = [*await self._submit(groups, deadline)]
        else:
            results = await self._submit_to_books(groups, deadline)
        for result in results:
            _GROUPS_BY_STATUS[result.status].inc()
        return results

    async def submit_batch(
        self, book: int, batch: Batch, *, deadline_s: float = DEADLINE_S
    ) -> Codes:
        """Decide groups given as columns and return a code for each (see `poster.records`).

        0 says that the group is in the book, by this call or an earlier one; above it, it was
        refused; below it, nothing was decided.

        Raises:
            DatabaseUnavailable, LedgerOverloaded, BookMissing
        """
        call = Call(_answer(), monotonic() + deadline_s, batch=batch)
        return codes_of(await self._put(book, call))

    async def submit_columns(
        self, book: int, batch: Batch, writes: Sequence[Sequence[Write]], *, deadline_s: float
    ) -> list[Result]:
        """As `submit`, for groups given as columns with the companions of each.

        Raises:
            DatabaseUnavailable, LedgerOverloaded, BookMissing
        """
        call = Call(_answer(), monotonic() + deadline_s, batch=batch, writes=writes)
        return [*await self._put(book, call)]

    async def dry_run(self, groups: Sequence[Group]) -> list[Result]:
        """Return what would become of the groups now: nothing is written and no id is used up.

        Companions are not run, so what they would refuse is not seen. Under load the balances are
        those of a moment ago.

        Raises:
            BookMissing
        """
        results: dict[int, Result] = {}
        for book, places in _places_by_book(groups).items():
            its = [groups[place] for place in places]
            answers = await rehearse(self._db, self._names, book, its)
            results |= zip(places, answers, strict=True)
        return [results[place] for place in range(len(groups))]

    def waiting(self, book: int) -> int:
        """Return how many callers of this process wait for the book to decide on them."""
        lane = self._lanes.get(book)
        return 0 if lane is None else lane.callers

    async def expire_holds(self, now: datetime, limit: int) -> int:
        """Release up to ``limit`` holds that were due at ``now`` and return how many were due.

        Each is an ordinary group with an ordinary transfer, in the order (book, expiry, seq) and
        under an id derived from the hold, so it does not matter how many callers do this at once.
        """
        due = await store.DUE_HOLDS.all(self._db, min(now, self._db.clock.now()), limit)
        groups = []
        for hold in due:
            transfer = Transfer(
                id=derived_id(hold.pending_id, "expire"),
                kind=TransferKind.EXPIRE,
                code=EXPIRED_CODE,
                reference=hold.reference,
                pending_id=hold.pending_id,
            )
            groups.append(Group(id=transfer.id, book=hold.book, transfers=(transfer,)))
        await self.submit(groups)
        return len(due)

    async def open_book(self, book: int, *, actor: str) -> None:
        """Open a book, unless it is open already."""
        async with self._db.begin(actor) as tx:
            if await store.OPEN_BOOK.run(tx, book, tx.now, bytes(32), NOBODY):
                await store.OPEN_WATERMARK.run(tx, book)
                await audit.record(tx, "ledger.book_opened", f"book {book}", {})

    async def set_book_frozen(self, book: int, frozen: bool, *, actor: str, because: str) -> None:
        """Stop or resume all postings of a book; groups are answered ``in_flight`` meanwhile.

        Raises:
            BookMissing
        """
        async with altering(self._db, book, actor=actor, needs_balances=False) as (tx, head):
            if head.frozen != frozen:
                await store.SET_BOOK_FROZEN.run(tx, book, frozen)
                action = "ledger.book_frozen" if frozen else "ledger.book_thawed"
                await audit.record(tx, action, f"book {book}", {"because": because})

    async def set_account_state(
        self, book: int, key: AccountKey, state: AccountState, *, actor: str, because: str
    ) -> None:
        """Freeze, close or reopen an account.

        Raises:
            BookMissing, BookStopped, AccountMissing, AccountNotEmpty
        """
        async with altering(self._db, book, actor=actor) as (tx, _):
            account = await _account(tx, book, key)
            if state is AccountState.CLOSED and not _is_empty(account):
                raise AccountNotEmpty(kind=key.kind)
            if state is not account.state:
                await store.SET_ACCOUNT_STATE.run(tx, book, account.id, state)
                facts = {"because": because, "from": account.state.value, "to": state.value}
                await audit.record(tx, "ledger.account_state_set", f"account {account.id}", facts)

    async def set_account_limits(
        self,
        book: int,
        key: AccountKey,
        *,
        floor: int | None,
        ceiling: int | None,
        actor: str,
        because: str,
    ) -> None:
        """Set the least and the most an account may hold, in minor units; None is no limit.

        A limit that the account already breaks is refused: nobody could have meant it.

        Raises:
            BookMissing, BookStopped, AccountMissing, LimitBroken
        """
        async with altering(self._db, book, actor=actor) as (tx, _):
            account = await _account(tx, book, key)
            _check_limits(account, floor, ceiling)
            await store.SET_ACCOUNT_LIMITS.run(tx, book, account.id, floor, ceiling)
            facts = {"because": because, "floor": floor, "ceiling": ceiling}
            facts |= {"floor_before": account.floor, "ceiling_before": account.ceiling}
            await audit.record(tx, "ledger.account_limits_set", f"account {account.id}", facts)

    async def listen(self) -> None:
        """Let other processes ask this one from now on, where it was given a folder for that.

        Raises:
            SocketFolderUnfit
        """
        await self._route.address()

    async def keep_books(self, stop: asyncio.Event) -> None:
        """Take every book that nobody who lives keeps, now and whenever one is left, until told."""
        while not stop.is_set():
            try:
                for book in await store.BOOK_NUMBERS.all(self._db):
                    if not self._lane(book).keeps and await self._route.is_abandoned(book):
                        await self._put(book, Call(_answer(), monotonic() + DEADLINE_S))
            except (Busy, NotFound) as failure:
                _log.warning("ledger_books_not_kept", reason=failure.code)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _WATCH_S)

    def leave_books(self) -> None:
        """Ask the posters of other processes from now on, and never keep a book here."""
        self._route.takes = False

    async def close(self) -> None:
        """Stop every writer of this process; whoever takes a book next goes on from there."""
        await self._route.close()
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            await lane.close()

    async def _submit_to_books(self, groups: Sequence[Group], deadline: float) -> list[Result]:
        """Submit to several books at once; groups of one book keep their order."""
        places = _places_by_book(groups)
        answers = await asyncio.gather(
            *(self._submit([groups[each] for each in its], deadline) for its in places.values())
        )
        results: dict[int, Result] = {}
        for its, answer in zip(places.values(), answers, strict=True):
            results |= zip(its, answer, strict=True)
        return [results[place] for place in range(len(groups))]

    async def _submit(self, groups: Sequence[Group], deadline: float) -> Sequence[Result]:
        book = groups[0].book
        if not self._names.knows(book, groups):
            await self._names.learn(book, groups)
        return await self._put(book, Call(_answer(), deadline, groups=groups))

    async def _put(self, book: int, call: Call) -> Sequence[Result]:
        """Let the call be decided by whoever keeps the book, which may be this process."""
        while True:
            lane = self._lane(book)
            if not lane.keeps:
                asked = self._asked(book, call)
                answers = await self._route.ask(book, asked, deadline=call.deadline)
                if answers is not None:
                    return answers
            lane.put(call)
            try:
                return await call.answer
            except Moved:
                call = call.again(_answer())

    async def _answer_other(self, question: Question) -> list[Result | Exception]:
        """Answer what another process asks, if the book is ours."""
        lane = self._lane(question.book)
        call = Call(
            _answer(),
            monotonic() + question.left_s,
            batch=question.batch,
            writes=question.writes,
            of_many=True,
        )
        lane.put(call)
        try:
            results = await call.answer
        except Moved:
            raise BookElsewhere(book=question.book) from None
        return [call.failures.get(place, result) for place, result in enumerate(results)]

    def _asked(self, book: int, call: Call) -> Asked:
        if call.batch is not None:
            return Asked(batch=call.batch, writes=call.writes)
        return Asked(call.groups, self._names.accounts(book), self._names.codes)

    def _lane(self, book: int) -> Lane:
        lane = self._lanes.get(book)
        if lane is None:
            lane = self._lanes[book] = Lane(
                self._db, book, self._names, claim=self._route, with_balances=self._with_balances
            )
        return lane


def _places_by_book(groups: Sequence[Group]) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group.book, []).append(place)
    return places


def _answer() -> asyncio.Future[Sequence[Result]]:
    return asyncio.get_running_loop().create_future()


async def _account(tx: Tx, book: int, key: AccountKey) -> LedgerAccount:
    account = await store.GET_ACCOUNT.first(tx, book, key.owner or NOBODY, key.kind, key.currency)
    if account is None:
        raise AccountMissing(kind=key.kind)
    return account


def _check_limits(account: LedgerAccount, floor: int | None, ceiling: int | None) -> None:
    """Refuse limits that contradict each other or what the account holds and awaits."""
    net = account.credits_posted - account.debits_posted
    held, incoming = account.debits_pending, account.credits_pending
    if account.side is Side.DEBIT:
        net, held, incoming = -net, incoming, held
    if (floor is not None and net - held < floor) or (
        ceiling is not None and (net + incoming > ceiling or (floor or 0) > ceiling)
    ):
        raise LimitBroken(floor=floor, ceiling=ceiling)


def _is_empty(account: LedgerAccount) -> bool:
    return (
        account.debits_posted == account.credits_posted
        and account.debits_pending == account.credits_pending == 0
    )
