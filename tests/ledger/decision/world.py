"""A book kept as plain Python, and a poster over it: what database and lane are to the core.

The store takes nothing on trust: it follows every transfer by itself and fails where a limit is
passed, a chain is broken, a figure is wrong, or something is there twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from tongbao.kernel.licence import Licence
from tongbao.ledger.decision.core import BookState, decide
from tongbao.ledger.decision.memory import HOLD_STATES
from tongbao.ledger.decision.records import (
    COMPANION_REFUSED,
    CREATED,
    REPEATED,
    AccountRow,
    HoldRow,
    batch_of,
    moment,
    refusal_of,
)
from tongbao.ledger.model import AccountState, Side, TransferFlags
from tongbao.ledger.rows import LedgerBook
from tongbao.ledger.rules.chart import CHART, opening_refusal

NOW = datetime(2026, 3, 1, 15, 59, 59, tzinfo=UTC)
LATEST = datetime(2026, 3, 1, 15, 0, tzinfo=UTC) + timedelta(minutes=5)
NULL = bytes(16)


class Store:
    """What is committed."""

    def __init__(self, limits=None, states=None):
        self.limits, self.states = limits or {}, states or {}
        self.head = LedgerBook(1, 0, "", NOW, 0, 0, bytes(32), UUID(int=0), False, None, None, NOW)
        self.ids, self.accounts, self.holds = {}, {}, {}
        self.journal, self.answers, self.bodies = {}, {}, {}

    def account(self, key):
        if key not in self.ids:
            number = self.ids[key] = (1 << 40) + len(self.ids) + 1
            kind = CHART[key.kind]
            floor, ceiling = self.limits.get(key, (kind.floor, None))
            self.accounts[number] = AccountRow(
                number, kind.side, floor, ceiling, AccountState(self.states.get(key, "open")),
                key.currency, 0, 0, 0, 0, 0, None,
            )  # fmt: skip
        return self.ids[key]

    def change(self, key, **fields):
        number = self.account(key)
        self.accounts[number] = replace(self.accounts[number], **fields)

    def counters(self):
        return {key: four(self.accounts[number]) for key, number in self.ids.items()}

    def take(self):
        self.head = replace(self.head, epoch=self.head.epoch + 1)
        return self.head

    def commit(self, epoch, last_batch, batch, decision):
        """Write a batch as one transaction would; False when another holder has the book."""
        if (epoch, last_batch) != (self.head.epoch, self.head.last_batch):
            return False
        self._record(batch, decision)
        holds = {**hold_rows(decision.holds_opened), **hold_rows(decision.holds_ended)}
        assert holds.keys() >= hold_rows(decision.holds_opened).keys() - self.holds.keys()
        assert not hold_rows(decision.holds_opened).keys() & self.holds.keys()
        for ended in hold_rows(decision.holds_ended):
            assert self.holds[ended].state == "held"
        self.holds |= holds
        for row in decision.journal:
            self._follow({name: plain(row[name]) for name in row.dtype.names})
        self.head = replace(
            self.head,
            last_seq=self.head.last_seq + len(decision.journal),
            last_batch=last_batch + 1,
            newest_id=max(self.head.newest_id, UUID(bytes=decision.newest_id)),
        )
        assert len(self.journal) == self.head.last_seq
        return True

    def _record(self, batch, decision):
        """Keep the answers, in the way the database keeps them: not all are rows of their own."""
        requests = set(decision.requests.tolist())
        starts = batch.starts.tolist()
        for place, code in enumerate(decision.codes.tolist()):
            one = batch.ids[place].tobytes()
            if code == CREATED and place not in requests:
                assert one == batch.records["id"][starts[place]].tobytes()
            if code == CREATED or place in requests:
                assert one not in self.answers
                why = None if code == CREATED else words(code)
                self.answers[one] = ("refused" if why else "created", why, place in requests)
                self.bodies[one] = batch.body_hash(place)
                count = starts[place + 1] - starts[place] if code == CREATED else 0
                assert (int(decision.seqs[place]) > 0) == (count > 0)

    def _follow(self, row):
        assert row["id"] not in self.journal
        assert row["seq"] == len(self.journal) + 1
        debit, credit = self.accounts[row["debit_account"]], self.accounts[row["credit_account"]]
        held, posted = self._held_and_posted(row)
        for side, account, counters in (
            ("debit", debit, (held, posted, 0, 0)),
            ("credit", credit, (0, 0, held, posted)),
        ):
            last = account.last_transfer.bytes if account.last_transfer else NULL
            assert row[f"{side}_previous"] == last
            sums = [now + more for now, more in zip(four(account), counters, strict=True)]
            account = replace(  # noqa: PLW2901
                account,
                **dict(zip(COUNTERS, sums, strict=True)),
                touches=account.touches + 1,
                last_transfer=UUID(bytes=row["id"]),
            )
            self.accounts[account.id] = account
            out, outgoing = (
                (sums[1], sums[0]) if account.side is Side.CREDIT else (sums[3], sums[2])
            )
            into, incoming = (
                (sums[3], sums[2]) if account.side is Side.CREDIT else (sums[1], sums[0])
            )
            assert row[f"{side}_after"] == into - out
            assert min(sums) >= 0
            assert account.floor is None or into - out - outgoing >= account.floor
            assert account.ceiling is None or into - out + incoming <= account.ceiling
        self.journal[row["id"]] = row

    def _held_and_posted(self, row):
        amount = row["amount"]
        assert amount > 0
        if row["kind"] <= 2:
            return (0, amount) if row["kind"] == 1 else (amount, 0)
        opened = self.journal[row["pending_id"]]
        assert (opened["kind"], opened["debit_account"]) == (2, row["debit_account"])
        if row["kind"] == 3:
            return -opened["amount"], amount
        assert amount == opened["amount"]
        return -amount, 0


class Plan:
    def __init__(self, groups, batch, decision):
        self.groups, self.batch, self.decision = groups, batch, decision


class Poster:
    """A memory over the store; decides ahead of its commits."""

    def __init__(self, store):
        self.store = store
        head = store.take()
        self.epoch, self.last_batch = head.epoch, head.last_batch
        self.state = BookState(head)

    def decide(self, groups, now=NOW, latest=LATEST, *, refused=()):
        """Decide and go on; the companions of the groups at the places ``refused`` said no."""
        batch = batch_of(groups, self._accounts(groups), CODES)
        batch.refused[[*refused]] = COMPANION_REFUSED
        self._fill(batch)
        decision = decide(self.state, batch, now, latest)
        self.state.apply(decision)
        return Plan(groups, batch, decision)

    def commit(self, plan):
        done = self.store.commit(self.epoch, self.last_batch, plan.batch, plan.decision)
        self.last_batch += done
        return done

    def answers(self, plan):
        """Say what each group came to, once the plan is committed."""
        told = []
        for place, code in enumerate(plan.decision.codes.tolist()):
            if code == CREATED:
                told.append(("created", None))
            elif code == REPEATED:
                told.append(self._repeat(plan.batch, place))
            else:
                told.append(("refused" if code > 0 else "in_flight", words(code)))
        return told

    def _repeat(self, batch, place):
        one = batch.ids[place].tobytes()
        if one not in self.store.answers:
            if one in self.store.journal:
                return "exists_different", "ledger.exists_different"
            return "in_flight", "ledger.in_flight"
        if self.store.bodies[one] != batch.body_hash(place):
            return "exists_different", "ledger.exists_different"
        status, code, _ = self.store.answers[one]
        return ("exists", None) if status == "created" else ("already_refused", code)

    def _accounts(self, groups):
        keys = [key for group in groups for t in group.transfers for key in (t.debit, t.credit)]
        return {
            key: opening_refusal(key, Licence.BANK) or self.store.account(key)
            for key in dict.fromkeys(keys)  # in their order, so that a seed says everything
            if key is not None
        }

    def _fill(self, batch):
        store, ids = self.store, [one.bytes for one in self.state.missing_ids(batch)]
        recorded = [one for one in ids if one in store.answers and store.answers[one][2]]
        self.state.remember([one for one in ids if one in store.journal], recorded)
        holds = [one.bytes for one in self.state.missing_holds(batch)]
        self.state.load_holds([store.holds[one] for one in holds if one in store.holds])
        accounts = self.state.missing_accounts(batch)
        self.state.load_accounts([store.accounts[one] for one in accounts if one in store.accounts])


COMPANION = "test.companion"
CODES = {"test/leg": 7, "test/end": 8, "test/hold": 9}
COUNTERS = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")


def four(account):
    return [getattr(account, name) for name in COUNTERS]


def words(code):
    return COMPANION if code == COMPANION_REFUSED else refusal_of(code).code


def plain(value):
    return value.tobytes() if value.dtype.kind == "V" else int(value)


def hold_rows(records):
    return {
        one["pending_id"].tobytes(): HoldRow(
            UUID(bytes=one["pending_id"].tobytes()),
            *(int(one[name]) for name in ("debit_account", "credit_account", "amount")),
            HOLD_STATES[int(one["state"])],
            int(one["posted_amount"]),
            moment(int(one["expires_at"])) if one["expires_at"] else None,
        )
        for one in records
    }


def linked_runs(journal):
    """Return how long each group of the journal is, by its flags."""
    runs, length = [], 0
    for flags in journal["flags"].tolist():
        length += 1
        if not flags & TransferFlags.LINKED:
            runs.append(length)
            length = 0
    assert length == 0
    return runs
