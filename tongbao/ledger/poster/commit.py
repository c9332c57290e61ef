"""One group commit: what goes into it, how it is written, and what its callers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Tx, Write, uuids
from tongbao.infra.db_failures import UniqueKeyTaken
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.ledger.decision.core import BookState, Decision, decide
from tongbao.ledger.decision.encoding import (
    JOURNAL_COLUMNS,
    batch_digest,
    chain_hash,
    copy_payload,
)
from tongbao.ledger.decision.memory import HOLD_STATES
from tongbao.ledger.decision.records import (
    COMPANION_REFUSED,
    CREATED,
    REPEATED,
    Batch,
    Records,
    batch_of,
    moment,
    refusal_of,
)
from tongbao.ledger.door.companions import (
    Failed,
    Hopeful,
    Refused,
    Verdict,
    run_companions,
)
from tongbao.ledger.door.names import Accounts
from tongbao.ledger.model import Result
from tongbao.ledger.poster import _store as store
from tongbao.ledger.poster.calls import AllCreated, Call, alone, joined
from tongbao.ledger.poster.lease import LEASE
from tongbao.ledger.poster.projection import Carried, JournalBroken


class Fenced(Exception):
    """Another holder has the book: nothing of this commit is in it."""


class _OnlyAsking(Exception):
    """Undo companions that were only asked what they would say."""


class _Entangled(Exception):
    """Undo every companion: without the groups that were refused, others come out differently."""


class Head:
    """The end of the book's chain of commits, as its holder knows it."""

    __slots__ = ("batch", "epoch", "hash")

    def __init__(self, epoch: int, batch: int, hash_: bytes) -> None:
        self.epoch = epoch
        self.batch = batch
        self.hash = hash_


class Requested(Struct, frozen=True):
    """The answer to a group that its transfers do not stand for, as it is recorded."""

    id: bytes
    body_hash: bytes
    status: Literal["created", "refused"]
    code: str | None
    seq: int | None
    transfer_count: int


class Plan:
    """What one commit is to hold: calls, their groups as one batch, and what becomes of each."""

    def __init__(self, book: int, calls: Sequence[Call]) -> None:
        self.book = book
        self.calls = calls
        self.sealed = asyncio.Event()
        self.is_decided = False
        self.hopeful: Hopeful | None = None
        self.repeats: Mapping[int, Result] = {}
        self.batch: Batch
        self._asked: Batch
        self.decision: Decision
        self.first_seq = 1
        self.now: datetime
        self.latest: datetime
        self.failures: dict[int, Exception] = {}
        self._companion_codes: dict[int, str] = {}
        self.companions: dict[int, Sequence[Write]] = {}
        self.payload = b""
        self.digest = b""
        self.requests: list[Requested] = []
        self.number = 0
        self.hash = b""

    def compose(self, accounts: Accounts, codes: Mapping[str, int]) -> None:
        """Write all the groups as one batch."""
        pieces: list[Batch] = []
        for is_columns, calls in groupby(self.calls, lambda call: call.batch is not None):
            if is_columns:
                pieces += [call.batch for call in calls if call.batch is not None]
            else:
                groups = [group for call in calls for group in call.groups]
                pieces.append(batch_of(groups, accounts, codes))
        self.batch = self._asked = pieces[0] if len(pieces) == 1 else joined(pieces)
        first = 0
        for call in self.calls:
            call.begun = True
            for place, writes in enumerate(call.companions(), start=first):
                if writes:
                    self.companions[place] = writes
            first += len(call)

    def work_out(self, state: BookState, *, hoping: bool) -> None:
        """Decide, and encode what will be sent unless companions may still change it.

        They will not where every one of them takes effect, which is what we may be ``hoping`` for.
        """
        self.decide(state)
        if hoping and self.companions and not self.refused_work():
            self.hopeful = Hopeful(self.work())
        if self.is_firm:
            self.encode()

    def decide(self, state: BookState) -> None:
        """Say what becomes of every group, and let the state move on to that."""
        self.first_seq = state.last_seq + 1
        self.decision = decide(state, self.batch, self.now, self.latest)
        state.apply(self.decision)
        self.is_decided = True
        self.digest = b""

    @property
    def is_firm(self) -> bool:
        """Whether companions will change nothing of the decision, or end the commit."""
        return self.hopeful is not None or not self.companions

    @property
    def appends(self) -> int:
        """How many rows can be written before the commit before has ended."""
        return len(self.decision.journal) + (self.hopeful.appends if self.hopeful else 0)

    @property
    def commits(self) -> bool:
        """Whether there is anything to write."""
        return bool(len(self.decision.journal) or len(self.decision.requests))

    @property
    def last_seq(self) -> int:
        """The book's last transfer once this is committed."""
        return self.first_seq + len(self.decision.journal) - 1

    @property
    def carried(self) -> Carried:
        """What the balances have to follow by, once it has its number."""
        return Carried(self.number, len(self.decision.journal), self.decision.moved)

    def work(self) -> list[tuple[int, Sequence[Write]]]:
        """Return the companions of the groups that are created."""
        codes = self.decision.codes
        return [(place, each) for place, each in self.companions.items() if codes[place] == CREATED]

    def refused_work(self) -> list[tuple[int, Sequence[Write]]]:
        """Return the companions of the groups whose money is refused, where one may refuse too."""
        codes = self.decision.codes
        return [
            (place, each)
            for place, each in self.companions.items()
            if CREATED < codes[place] < COMPANION_REFUSED
            and any(write.refusal is not None for write in each)
        ]

    def exclude(self, verdicts: Mapping[int, Verdict]) -> None:
        """Settle beforehand what becomes of groups whose companions could not be run."""
        refused = self.batch.refused.copy()
        for place, verdict in verdicts.items():
            refused[place] = REPEATED  # nothing is recorded, and there is nothing to be found
            if isinstance(verdict, Refused):
                refused[place] = COMPANION_REFUSED
                self._companion_codes[place] = verdict.code
            elif isinstance(verdict, Failed):
                self.failures[place] = verdict.error
        self.batch = Batch(self.batch.records, self.batch.starts, self.batch.ids, refused)

    def forget_verdicts(self) -> None:
        """Ask every companion again."""
        self.batch = self._asked
        self.failures.clear()
        self._companion_codes.clear()

    def encode(self) -> None:
        """Prepare what the commit sends; done early, while the commit before is under way."""
        if not self.digest:
            journal = self.decision.journal
            self.requests = self._requested()
            self.payload = copy_payload(journal) if len(journal) else b""
            self.digest = batch_digest(journal, self.requests)

    def _requested(self) -> list[Requested]:
        bounds, seqs = self.batch.starts, self.decision.seqs
        rows = []
        for place in self.decision.requests.tolist():
            created = int(self.decision.codes[place]) == CREATED
            count = int(bounds[place + 1] - bounds[place]) if created else 0
            rows.append(
                Requested(
                    id=bytes(self.batch.ids[place]),
                    body_hash=self.batch.body_hash(place),
                    status="created" if created else "refused",
                    code=None if created else self.code_text(place),
                    seq=int(seqs[place]) or None if created else None,
                    transfer_count=count,
                )
            )
        rows.sort(key=lambda row: row.id)  # the digest takes them in an order that rows have
        return rows

    def follow(self, head: Head) -> Head:
        """Return the end of the book once this is committed behind that one."""
        self.encode()
        self.number = head.batch + 1
        self.hash = chain_hash(head.hash, self.number, self.digest)
        return Head(head.epoch, self.number, self.hash)

    def answer(self) -> None:
        """Tell every caller what became of its groups."""
        codes, seqs = self.decision.codes.tolist(), self.decision.seqs.tolist()
        first = 0
        for call in self.calls:
            places = range(first, first + len(call))
            first += len(call)
            if call.answer.done():
                continue  # the caller went away
            failed = [place for place in places if place in self.failures]
            if failed and not call.of_many:
                call.answer.set_exception(self.failures[failed[0]])
                continue
            call.failures = {place - places.start: self.failures[place] for place in failed}
            if call.batch is not None and not any(codes[places.start : places.stop]):
                call.answer.set_result(AllCreated(seqs[places.start : places.stop]))
                continue
            call.answer.set_result([self._result(each, codes[each], seqs[each]) for each in places])

    def _result(self, place: int, code: int, seq: int) -> Result:
        if code == CREATED:
            return Result("created", seq=seq or None)
        if code == REPEATED:
            return self.repeats[place]
        text = self.code_text(place)
        return Result("refused" if code > 0 else "in_flight", text)

    def code_text(self, place: int) -> str:
        """Return in words why a group is not created."""
        return self._companion_codes.get(place) or refusal_of(int(self.decision.codes[place])).code


async def settle_companions(tx: Tx, plan: Plan, state: BookState) -> None:
    """Run the companions of all created groups; decide again without those that cannot.

    Afterwards plan and state say what really happens, as if the groups had come one by one.
    """
    if plan.companions:
        await _settle_created(tx, plan, state)
        await _hear_the_refused(tx, plan, state)


async def _settle_created(tx: Tx, plan: Plan, state: BookState) -> None:
    work = plan.work()
    if not work:
        return
    try:
        async with tx.savepoint():
            verdicts = await run_companions(tx, work)
            if verdicts:
                state.revert(plan.decision)
                plan.exclude(verdicts)
                plan.decide(state)
                in_effect = {place for place, _ in work} - verdicts.keys()
                if in_effect != {place for place, _ in plan.work()}:
                    raise _Entangled  # noqa: TRY301 - it only leaves the savepoint
    except _Entangled:
        state.revert(plan.decision)
        await _settle_one_by_one(tx, plan, state)


async def _hear_the_refused(tx: Tx, plan: Plan, state: BookState) -> None:
    """Let the companions of groups whose money was refused say what they would, and undo them.

    Who repeats under a new id what was done before is to hear that from its own rows, and not
    that the money is gone, which the first one took.
    """
    work = plan.refused_work()
    if not work:
        return
    with suppress(_OnlyAsking):
        async with tx.savepoint():
            verdicts = await run_companions(tx, work)
            raise _OnlyAsking
    heard = {place: each for place, each in verdicts.items() if isinstance(each, Refused)}
    if heard:
        state.revert(plan.decision)
        plan.exclude(heard)
        plan.decide(state)


async def _settle_one_by_one(tx: Tx, plan: Plan, state: BookState) -> None:
    """Decide each group and run its companions before the next: slow, and exact by itself."""
    plan.forget_verdicts()
    work = plan.companions
    verdicts: dict[int, Verdict] = {}
    decided: list[Decision] = []
    for place in range(len(plan.batch.ids)):
        decision = decide(state, alone(plan.batch, place), plan.now, plan.latest)
        if decision.codes[0] == CREATED and place in work:
            verdict = await run_companions(tx, [(place, work[place])])
            if verdict:
                verdicts |= verdict
                continue
        state.apply(decision)
        decided.append(decision)
    for decision in reversed(decided):
        state.revert(decision)
    plan.exclude(verdicts)
    plan.decide(state)


async def append_journal(tx: Tx, plan: Plan) -> None:
    """Append the plan's transfers: nobody else writes this book's, so it waits for nobody.

    Raises:
        Fenced: one is there that its holder does not know of.
    """
    if not len(plan.decision.journal):
        return
    try:
        await tx.copy_binary(store.JOURNAL, JOURNAL_COLUMNS, plan.payload)
    except UniqueKeyTaken:
        raise Fenced from None


async def advance(tx: Tx, plan: Plan, head: Head) -> Head:
    """Move the book on to the plan, if the book is where its holder left it; return its new end.

    Raises:
        Fenced
    """
    after = plan.follow(head)
    journal, decision = plan.decision.journal, plan.decision
    failpoint("ledger.before_head")
    advanced = await store.ADVANCE_HEAD.run(
        tx,
        plan.book,
        head.epoch,
        head.batch,
        plan.last_seq,
        after.batch,
        after.hash,
        UUID(bytes=decision.newest_id),
        real_now() + LEASE,
        plan.first_seq,
        len(journal),
        len(decision.requests),
        _uuids(decision.spans),
        plan.digest,
        plan.now,
    )
    if not advanced:
        raise Fenced
    failpoint("ledger.after_head")
    await _write_holds(tx, plan)
    await _write_requests(tx, plan, after.batch)
    return after


async def _write_holds(tx: Tx, plan: Plan) -> None:
    opened, ended = plan.decision.holds_opened, plan.decision.holds_ended
    if len(opened):
        await store.OPEN_HOLDS.run(
            tx,
            plan.book,
            _uuids(opened["pending_id"]),
            opened["debit_account"].tolist(),
            opened["credit_account"].tolist(),
            opened["amount"].tolist(),
            [HOLD_STATES[each] for each in opened["state"].tolist()],
            opened["posted_amount"].tolist(),
            [moment(us) if us else None for us in opened["expires_at"].tolist()],
        )
    if len(ended):
        touched = await store.END_HOLDS.run(
            tx,
            plan.book,
            _uuids(ended["pending_id"]),
            [HOLD_STATES[each] for each in ended["state"].tolist()],
            ended["posted_amount"].tolist(),
        )
        if touched != len(ended):
            raise JournalBroken(f"{touched} of {len(ended)} holds were open")


async def _write_requests(tx: Tx, plan: Plan, batch: int) -> None:
    rows = plan.requests
    if rows:
        await store.RECORD_REQUESTS.run(
            tx,
            plan.book,
            [UUID(bytes=row.id) for row in rows],
            [row.body_hash for row in rows],
            [row.status for row in rows],
            [row.code for row in rows],
            [row.seq for row in rows],
            [row.transfer_count for row in rows],
            batch,
            plan.now,
        )


def _uuids(ids: Records) -> list[UUID]:
    return uuids(ids.tolist())
