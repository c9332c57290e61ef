"""Propose, check, add and show a dated row, whatever it is about.

A row is never changed or taken away, so what counted on a day can be told for ever. What a kind of
row looks like is a value, `DatedRows`; its Struct is what two people agree to and what is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict, astuple

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact, Refusal

BECAUSE_MAX: Final = 300
_NOTHING: Final = "–"


class DatedRows(Struct, frozen=True):
    """A kind of dated row.

    ``act`` has the row's Struct as its terms, with a field ``valid_from``. ``about`` names the
    fields that say what a row is about: with the day they are its key. ``known`` are groups of
    them that some row must have already, because nobody can mean what nothing looks at. ``sets``
    are the fields that count, each with what it is called in English and Chinese; ``bounds`` of
    numbers are inclusive, and ``None`` where the type allows it ends a figure. ``because`` is the
    field that says who says so. ``insert`` takes the row's fields in order and leaves an existing
    one alone; ``done`` is what the audit log calls it.
    """

    act: Act
    about: tuple[str, ...]
    known: tuple[tuple[str, ...], ...]
    sets: Mapping[str, tuple[str, str]]
    bounds: Mapping[str, tuple[int, int]]
    because: str
    rows: Query[Any]
    insert: Statement
    done: str
    wrong: type[Refusal]
    there: type[Refusal]

    def key_of(self, row: Any) -> tuple[object, ...]:
        """Return what a row is about."""
        return tuple(getattr(row, name) for name in self.about)

    def in_force(self, rows: Iterable[Any], day: date) -> list[Any]:
        """Return the newest row of each thing that has begun on a day."""
        newest: dict[tuple[object, ...], Any] = {}
        for row in rows:
            known = newest.get(self.key_of(row))
            if row.valid_from <= day and (known is None or known.valid_from < row.valid_from):
                newest[self.key_of(row)] = row
        return list(newest.values())


async def propose_row(
    tx: Tx, kind: DatedRows, row: Any, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose a row.

    Raises:
        what the kind calls ``wrong`` and ``there``, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    await _check(tx, kind, row)
    subject = f"{_name(kind, row)} {row.valid_from}"
    return await propose(tx, kind.act, subject, row, reason=reason, may=may)


def bound_rows(db: Db, *kinds: DatedRows) -> tuple[Bound, ...]:
    """Return the act of each kind with what does it."""
    return tuple(_bound(db, kind) for kind in kinds)


def _bound(db: Db, kind: DatedRows) -> Bound:
    async def add(tx: Tx, _approval: Approval, row: Any) -> None:
        await add_row(tx, kind, row)

    async def show(on: Db, _approval: Approval, row: Any) -> list[Change]:
        return await _changes(on, kind, row)

    return Bound(kind.act, in_transaction(db, add), show=show)


async def add_row(tx: Tx, kind: DatedRows, row: Any) -> None:
    """Add a row that two people agreed to.

    Raises:
        what the kind calls ``wrong`` and ``there``
    """
    await _check(tx, kind, row)
    if not await kind.insert.run(tx, *astuple(row)):
        raise kind.there
    facts: dict[str, Fact] = {name: getattr(row, name) for name in kind.sets}
    facts["valid_from"] = row.valid_from.isoformat()
    await audit.record(tx, kind.done, _name(kind, row), facts)
    failpoint("dated_rows.before_commit")


async def _check(tx: Tx, kind: DatedRows, row: Any) -> None:
    if row.valid_from < business_date(tx.now):
        raise kind.wrong(param="valid_from")
    for name, (least, most) in kind.bounds.items():
        figure = getattr(row, name)
        if figure is not None and not least <= figure <= most:
            raise kind.wrong(param=name)
    if not 0 < len(getattr(row, kind.because).strip()) <= BECAUSE_MAX:
        raise kind.wrong(param=kind.because)
    rows = await kind.rows.all(tx)
    for group in kind.known:
        wanted = [getattr(row, name) for name in group]
        if not any([getattr(each, name) for name in group] == wanted for each in rows):
            raise kind.wrong(param=group[0])
    place = (kind.key_of(row), row.valid_from)
    if any((kind.key_of(each), each.valid_from) == place for each in rows):
        raise kind.there


async def _changes(on: Db, kind: DatedRows, row: Any) -> list[Change]:
    rows = kind.in_force(await kind.rows.all(on), row.valid_from)
    before = next((each for each in rows if kind.key_of(each) == kind.key_of(row)), None)
    what = ", ".join(str(each) for each in kind.key_of(row) if each != "")
    return [
        *(
            Change(f"{en}: {what}", f"{zh}：{what}", _shown(before, name), _shown(row, name))
            for name, (en, zh) in kind.sets.items()
        ),
        Change("from the day", "生效日", None, row.valid_from.isoformat()),
        Change("because of", "依据", None, asdict(row)[kind.because]),
    ]


def _shown(row: Any | None, name: str) -> str:
    figure = None if row is None else getattr(row, name)
    return _NOTHING if figure is None else str(int(figure))


def _name(kind: DatedRows, row: Any) -> str:
    return "/".join(str(each) for each in kind.key_of(row))
