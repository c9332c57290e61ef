"""The accounts of a book as columns: what is stored of them, and what the journal adds up to.

Kinds, sides and owners are checked by the chart; limits, states and freezes, which people set, by
the audit log. An account that nobody altered is open, with the floor of its kind and no ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tongbao.infra import audit
from tongbao.infra.audit import AuditEntry
from tongbao.infra.columns import Records
from tongbao.infra.db import Tx
from tongbao.kernel.money import EXPONENTS
from tongbao.ledger.archive.model import OpeningAccount
from tongbao.ledger.audit._store import AccountFamily, LicensedKind
from tongbao.ledger.audit.findings import Breach, Findings, uuid_of
from tongbao.ledger.model import BOOK_SHIFT, NOBODY, AccountState, Side
from tongbao.ledger.rows import LedgerBook
from tongbao.ledger.rules.chart import CHART, OwnerKind

Whole: TypeAlias = NDArray[np.int64]

COUNTERS: Final = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
FROM_THE_BEGINNING: Final = int(np.iinfo(np.int64).min)
_SIDES: Final[Mapping[str, int]] = {Side.CREDIT: 1, Side.DEBIT: 2}
_NO_FLOOR, _NO_CEILING, _NO_LAST = 1, 2, 4
_STATE_SET: Final = "ledger.account_state_set"
_LIMITS_SET: Final = "ledger.account_limits_set"
_FREEZES: Final = {"ledger.book_frozen": True, "ledger.book_thawed": False}
_DAYS: Final = {"general_ledger.day_closed": 0, "general_ledger.day_reopened": 1}
_STATES: Final = {AccountState.OPEN: 1, AccountState.FROZEN: 2, AccountState.CLOSED: 3}
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Closings(Struct, frozen=True):
    """Which accounting days were closed when: through a day, from the batch after one on."""

    after: Whole
    through: Whole  # days since 2000

    def first_open(self, batches: Whole) -> Whole:
        """Return the first day, since 2000, that took entries in each of these batches."""
        if not len(self.after):
            return np.full(len(batches), _LOWEST)
        place = np.searchsorted(self.after, batches, "left") - 1
        return np.where(place < 0, _LOWEST, self.through[np.maximum(place, 0)] + 1)


class Accounts:
    """Every account of a book, at its place in the order of ids.

    One place more, the last, stands for every account that does not exist. The arithmetic is
    written again here on purpose: a proof must not share the code it checks.
    """

    def __init__(self, rows: Records) -> None:
        self.rows = rows
        self.nobody = len(rows)
        self.ids = rows["id"].astype(np.int64)
        self.nulls = rows["nulls"].astype(np.int64)
        self.currency = np.append(rows["currency_number"].astype(np.int64), 0)
        self.is_credit = np.append(rows["side"] == _SIDES[Side.CREDIT], np.False_)
        floor = np.where(self.nulls & _NO_FLOOR, _LOWEST, rows["floor"].astype(np.int64))
        ceiling = np.where(self.nulls & _NO_CEILING, _HIGHEST, rows["ceiling"].astype(np.int64))
        self.floor, self.ceiling = np.append(floor, _LOWEST), np.append(ceiling, _HIGHEST)
        # Limits bind what was decided after this moment, in microseconds since 2000.
        self.limits_since = np.full(len(rows) + 1, FROM_THE_BEGINNING)
        self.counters = np.zeros((len(rows) + 1, 4), np.int64)
        self.touches = np.zeros(len(rows) + 1, np.int64)
        self.last = np.zeros(len(rows) + 1, "V16")

    def places(self, ids: Whole) -> Whole:
        """Return where accounts stand; `nobody` for one that does not exist."""
        if not self.nobody:
            return np.zeros(len(ids), np.int64)
        found = np.minimum(np.searchsorted(self.ids, ids), self.nobody - 1)
        return np.where(self.ids[found] == ids, found, self.nobody)

    def open_with(self, openings: Sequence[OpeningAccount]) -> None:
        """Begin with what accounts had come to, where their older transfers are not here."""
        places = self.places(np.array([each.account for each in openings], np.int64))
        for place, opening in zip(places.tolist(), openings, strict=True):
            self.counters[place] = [getattr(opening, name) for name in COUNTERS]
            self.touches[place] = opening.touches
            self.last[place] = np.void(opening.last_transfer.bytes)

    def posted(self) -> Whole:
        """Return every balance on its normal side, as the journal so far adds up to."""
        net = self.counters[:, 3] - self.counters[:, 1]
        return np.where(self.is_credit, net, -net)

    def outgoing(self) -> Whole:
        """Return what open holds promise away from each account."""
        return np.where(self.is_credit, self.counters[:, 0], self.counters[:, 2])

    def incoming(self) -> Whole:
        """Return what open holds promise to each account."""
        return np.where(self.is_credit, self.counters[:, 2], self.counters[:, 0])

    def members(self, family: AccountFamily) -> NDArray[np.bool_]:
        """Return which accounts are of one kind, currency and side."""
        is_kind: NDArray[np.bool_] = self.rows["kind_number"] == family.kind_number
        is_currency: NDArray[np.bool_] = self.rows["currency_number"] == family.currency_number
        is_side: NDArray[np.bool_] = self.rows["side"] == _SIDES.get(family.side, 0)
        return is_kind & is_currency & is_side

    def said(self, what: str) -> Callable[[int], Breach]:
        """Return how to say one thing about the account at a place."""
        return lambda place: Breach(what, account=int(self.ids[place]))

    def compare(self, found: Findings) -> None:
        """Compare counters, touches and newest transfers with the rows.

        Whoever calls it has applied exactly the transfers up to the watermark.
        """
        found.look("counters", self.nobody)
        found.look("chains", self.nobody)
        for place, name in enumerate(COUNTERS):
            self._compare_column(found, "counters", name, self.counters[:-1, place])
        self._compare_column(found, "chains", "touches", self.touches[:-1])
        found.add_where(
            "chains",
            (self.last[:-1] != self.rows["last_transfer"])
            | (((self.nulls & _NO_LAST) != 0) != (self.touches[:-1] == 0)),
            lambda at: Breach(
                "its newest transfer is another one",
                transfer=uuid_of(self.last[at]),
                account=int(self.ids[at]),
            ),
        )

    def _compare_column(self, found: Findings, check: str, name: str, replayed: Whole) -> None:
        stored = self.rows[name].astype(np.int64)

        def first(at: int) -> Breach:
            what = f"{name} is {stored[at]}, the transfers add up to {replayed[at]}"
            return Breach(what, account=int(self.ids[at]))

        found.add_where(check, stored != replayed, first)


def check_accounts(
    found: Findings,
    accounts: Accounts,
    families: Sequence[AccountFamily],
    licensed: Mapping[str, LicensedKind],
    book: int,
) -> None:
    """Check number, kind, side, owner and currency of every account by chart and licence."""
    rows = accounts.rows
    found.look("accounts", len(rows))
    wrong = accounts.ids >> BOOK_SHIFT != book
    found.add_where("accounts", wrong, accounts.said("the number belongs to another book"))
    seen = np.zeros(len(rows), np.bool_)
    unowned = rows["owner"] == np.void(NOBODY.bytes)
    for family in families:
        members = accounts.members(family)
        seen |= members
        if trouble := _trouble_of(family, licensed.get(family.kind)):
            found.add_where("accounts", members, accounts.said(trouble))
        elif (unowned[members] != (CHART[family.kind].owner is OwnerKind.HOUSE)).any():
            wrong = members & (unowned != (CHART[family.kind].owner is OwnerKind.HOUSE))
            what = f"a {family.kind} has no owner where it should, or one where it should not"
            found.add_where("accounts", wrong, accounts.said(what))
    what = "its owner, kind, currency or time is not that of its opening"
    found.add_where("accounts", rows["as_opened"] == 0, accounts.said(what))
    found.add_where("accounts", ~seen, accounts.said("it is on neither side"))
    found.add_where("accounts", rows["state"] == 0, accounts.said("it is in no known state"))


def check_kinds(found: Findings, licensed: Iterable[LicensedKind]) -> None:
    """Check that the kinds the database licenses are lines of the chart."""
    for row in licensed:
        kind = CHART.get(row.kind)
        found.look("accounts")
        if kind is None or (row.side, row.floor) != (kind.side, kind.floor):
            found.add("accounts", Breach(f"the kind {row.kind} is not as the chart has it"))


def check_balanced(found: Findings, accounts: Accounts, families: Sequence[AccountFamily]) -> None:
    """Add up the stored counters by currency: no transfer is needed to see this one."""
    rows = accounts.rows
    for number, currency in sorted({(each.currency_number, each.currency) for each in families}):
        members = rows["currency_number"] == number
        for name in ("posted", "pending"):
            debits = total(rows[f"debits_{name}"][members])
            credits_ = total(rows[f"credits_{name}"][members])
            found.look("balanced")
            if debits != credits_:
                what = f"{name} debits exceed credits by {debits - credits_} {currency}"
                found.add("balanced", Breach(what))


def _trouble_of(family: AccountFamily, licensed: LicensedKind | None) -> str | None:
    kind = CHART.get(family.kind)
    if kind is None or licensed is None:
        return f"the kind {family.kind} is not licensed"
    if not family.side == kind.side == licensed.side:
        return f"{family.kind} stands on the wrong side"
    if family.currency not in EXPONENTS:
        return f"no books are kept in {family.currency}"
    return None


def total(column: Records) -> int:
    """Return a sum that does not wrap: the halves of every figure are added apart."""
    whole = column.astype(np.int64)
    return (int((whole >> 32).sum()) << 32) + int((whole & 0xFFFFFFFF).sum())


async def check_alterations(
    tx: Tx,
    found: Findings,
    head: LedgerBook,
    accounts: Accounts,
    families: list[AccountFamily],
) -> Closings:
    """Compare what people may alter with the audit log, and say since when it binds."""
    entries = await audit.entries_of_actions(tx, [_STATE_SET, _LIMITS_SET, *_FREEZES, *_DAYS])
    of_book = [entry for entry in entries if entry.subject == f"book {head.book}"]
    _check_head(found, head, of_book)
    places = {f"account {number}": at for at, number in enumerate(accounts.ids.tolist())}
    mine = [entry for entry in entries if entry.subject in places]
    _check_states(found, accounts, places, mine)
    _check_limits(found, accounts, families, places, mine)
    days = [entry for entry in of_book if entry.action in _DAYS]
    return Closings(
        after=np.array([int(entry.facts["last_batch"] or 0) for entry in days], np.int64),
        through=np.array([(_closed_through(entry) - _EPOCH.date()).days for entry in days]),
    )


def _closed_through(entry: AuditEntry) -> date:
    return date.fromisoformat(entry.facts["day"]) - timedelta(days=_DAYS[entry.action])


def _check_head(found: Findings, head: LedgerBook, entries: list[AuditEntry]) -> None:
    found.look("alterations")
    frozen, closed_through = False, None
    for entry in entries:
        if entry.action in _FREEZES:
            frozen = _FREEZES[entry.action]
        elif entry.action in _DAYS:
            closed_through = _closed_through(entry)
    if head.frozen != frozen:
        what = f"the book is{'' if head.frozen else ' not'} frozen; the audit log says otherwise"
        found.add("alterations", Breach(what))
    if head.closed_through != closed_through:
        what = f"the book is closed through {head.closed_through}, by the log {closed_through}"
        found.add("alterations", Breach(what))


def _check_states(
    found: Findings, accounts: Accounts, places: Mapping[str, int], entries: list[AuditEntry]
) -> None:
    state = np.full(accounts.nobody, _STATES[AccountState.OPEN])
    for entry in entries:
        if entry.action == _STATE_SET:
            state[places[entry.subject]] = _STATES.get(entry.facts["to"], 0)
    found.look("alterations", accounts.nobody)
    what = "it is open, frozen or closed, and the audit log says otherwise"
    found.add_where("alterations", accounts.rows["state"] != state, accounts.said(what))


def _check_limits(
    found: Findings,
    accounts: Accounts,
    families: list[AccountFamily],
    places: Mapping[str, int],
    entries: list[AuditEntry],
) -> None:
    rows = accounts.rows
    nulls = np.full(accounts.nobody, _NO_FLOOR | _NO_CEILING)
    floor, ceiling = np.zeros((2, accounts.nobody), np.int64)
    for family in families:
        kind = CHART.get(family.kind)
        if kind is not None and kind.floor is not None:
            members = rows["kind_number"] == family.kind_number
            floor[members], nulls[members] = kind.floor, _NO_CEILING
    for entry in entries:
        if entry.action == _LIMITS_SET:
            at = places[entry.subject]
            nulls[at], floor[at], ceiling[at] = _limits(entry.facts)
            accounts.limits_since[at] = (entry.at - _EPOCH) // timedelta(microseconds=1)
    differs = (
        (rows["nulls"] & (_NO_FLOOR | _NO_CEILING) != nulls)
        | (rows["floor"] != floor)
        | (rows["ceiling"] != ceiling)
    )
    what = "its floor or ceiling is neither its kind's nor that of the audit log"
    found.add_where("alterations", differs, accounts.said(what))


def _limits(facts: Mapping[str, Any]) -> tuple[int, int, int]:
    floor, ceiling = facts["floor"], facts["ceiling"]
    nulls = (_NO_FLOOR if floor is None else 0) | (_NO_CEILING if ceiling is None else 0)
    return nulls, floor or 0, ceiling or 0
