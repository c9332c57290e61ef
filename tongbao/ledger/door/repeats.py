"""The answer to a group that was asked before: what was recorded, or in what the two differ.

A created group is mostly recorded by its transfers alone, so a repeat is compared with them field
by field; every other group left a request with the fingerprint of its body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np

from tongbao.infra.db import Db, Tx
from tongbao.ledger.decision.records import NO_ID, Batch, Records, days, microseconds
from tongbao.ledger.door import _store as store
from tongbao.ledger.door._store import RecordedCommand
from tongbao.ledger.model import (
    GroupAccountsDiffer,
    GroupAmountDiffers,
    GroupCodeDiffers,
    GroupDiffers,
    GroupInFlight,
    GroupReferenceDiffers,
    Result,
    TransferFlags,
    TransferKind,
)
from tongbao.ledger.rows import LedgerRequest

_Difference = type[GroupDiffers]


async def answer_repeats(
    on: Db | Tx, book: int, batch: Batch, places: Sequence[int]
) -> Mapping[int, Result]:
    """Return what was recorded of these groups of the batch; in flight where nothing is yet."""
    ids = [_uuid(batch.ids[place]) for place in places]
    bounds = batch.starts.tolist()
    commands = [batch.records[bounds[place] : bounds[place + 1]] for place in places]
    named = {_uuid(each) for rows in commands for each in rows["id"]}
    requests = {row.id: row for row in await store.FIND_REQUESTS.all(on, book, ids)}
    recorded = {
        row.id: row for row in await store.FIND_TRANSFERS.all(on, book, list(named.union(ids)))
    }
    answers = {}
    for place, id_, rows in zip(places, ids, commands, strict=True):
        request = requests.get(id_)
        if request is not None:
            answers[place] = _as_requested(request, batch.body_hash(place), rows, recorded)
        elif id_ in recorded:
            answers[place] = _as_recorded(id_, rows, recorded)
        else:
            answers[place] = Result("in_flight", GroupInFlight.code)
    return answers


async def recorded_ids(
    on: Db | Tx, book: int, ids: Sequence[UUID]
) -> tuple[list[bytes], list[bytes]]:
    """Return which of these ids the book has as transfers, and which as requests."""
    transfers = await store.RECORDED_TRANSFERS.all(on, book, ids)
    groups = await store.RECORDED_REQUESTS.all(on, book, ids)
    return [each.bytes for each in transfers], [each.bytes for each in groups]


def _as_requested(
    request: LedgerRequest,
    body_hash: bytes,
    rows: Records,
    recorded: Mapping[UUID, RecordedCommand],
) -> Result:
    if request.body_hash != body_hash:
        why = GroupDiffers
        if request.status == "created":
            why = _difference(rows, recorded, whole_group=False) or GroupDiffers
        return Result("exists_different", why.code, request.seq)
    if request.status == "refused":
        return Result("already_refused", request.code)
    return Result("exists", seq=request.seq)


def _as_recorded(id_: UUID, rows: Records, recorded: Mapping[UUID, RecordedCommand]) -> Result:
    why: _Difference | None = GroupDiffers
    if len(rows) and _uuid(rows["id"][0]) == id_:
        why = _difference(rows, recorded, whole_group=True)
    if why is not None:
        return Result("exists_different", why.code, recorded[id_].seq)
    return Result("exists", seq=recorded[_uuid(rows["id"][-1])].seq)


def _difference(
    rows: Records, recorded: Mapping[UUID, RecordedCommand], *, whole_group: bool
) -> _Difference | None:
    """Return in what the transfers are others than those recorded, or None."""
    before: RecordedCommand | None = None
    for row in rows:
        found = recorded.get(_uuid(row["id"]))
        if found is None or (before is not None and found.seq != before.seq + 1):
            return GroupDiffers
        if why := _row_differs(row, found):
            return why
        before = found
    if whole_group and not _is_whole(rows, recorded):
        return GroupDiffers
    return None


def _is_whole(rows: Records, recorded: Mapping[UUID, RecordedCommand]) -> bool:
    """Return whether the group that was recorded begins and ends where this one does."""
    flags = [recorded[_uuid(each)].flags for each in rows["id"]]
    inner = len(rows) - 1
    return [bool(each & TransferFlags.FOLLOWS) for each in flags] == [False] + [True] * inner and [
        bool(each & TransferFlags.LINKED) for each in flags
    ] == [True] * inner + [False]


def _row_differs(row: np.void, found: RecordedCommand) -> _Difference | None:
    if int(row["code"]) != found.code or int(row["kind"]) != found.kind:
        return GroupCodeDiffers
    if _uuid(row["reference"]) != found.reference:
        return GroupReferenceDiffers
    is_move = found.kind <= TransferKind.PENDING
    accounts = (int(row["debit"]), int(row["credit"]))
    if is_move and accounts != (found.debit_account, found.credit_account):
        return GroupAccountsDiffer
    was_whole = bool(found.flags & TransferFlags.WHOLE)
    if bool(row["flags"] & TransferFlags.WHOLE) != was_whole:
        return GroupAmountDiffers
    if not was_whole and int(row["amount"]) != found.amount:
        return GroupAmountDiffers
    return None if _dates_agree(row, found) and _ends_the_same(row, found) else GroupDiffers


def _dates_agree(row: np.void, found: RecordedCommand) -> bool:
    expires = 0 if found.expires_at is None else microseconds(found.expires_at)
    value = int(row["value_date"]) or days(found.biz_date)
    return int(row["expires_at"]) == expires and value == days(found.value_date)


def _ends_the_same(row: np.void, found: RecordedCommand) -> bool:
    pending = NO_ID if found.pending_id is None else found.pending_id.bytes
    return bool(row["pending_id"].tobytes() == pending)


def _uuid(raw: np.void) -> UUID:
    return UUID(bytes=raw.tobytes())
