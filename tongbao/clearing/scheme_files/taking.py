"""Take a scheme's file: read whole first, then row by row into disputes, each once.

A row's dispute and the note that it was taken are two commits. Whoever dies between them takes the
row again, which `take_scheme_row` has seen before; so a file may be taken as often as one likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from tongbao.clearing.disputes.chargebacks import SchemeRow, take_scheme_row
from tongbao.clearing.disputes.queries import check_scheme
from tongbao.clearing.scheme_files import _store as store
from tongbao.clearing.scheme_files.model import (
    NO_CASE,
    PREFIX,
    Outcome,
    SchemeFile,
    SchemeFileEmpty,
    SchemeFileRefused,
    SchemeFileRow,
    meaning_of,
)
from tongbao.clearing.sources.model import Layout, SourceFault, SourceRow
from tongbao.clearing.sources.reading import Tally, read_and_check
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import UnknownId, new_id, show
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.outcomes import Flow

_BY_TRACE: Final = "ZME"


async def take_scheme_file(
    flow: Flow, layout: Layout, path: Path, *, scheme: str, account_id: UUID, actor: str
) -> SchemeFile:
    """Take a file's rows into disputes and return how it stands; the same file again is the same.

    Raises:
        SchemeUnknown, SchemeFileEmpty, SchemeFileRefused: nothing was taken.
    """
    await check_scheme(flow.db, scheme)
    digest, rows = await asyncio.to_thread(_read, layout, path)
    for row in rows:
        meaning_of(row, scheme)  # every row means something before the first takes effect
    file = await _begun(
        flow.db, (account_id, digest), (scheme, path.name[-200:], layout.name, len(rows)), actor
    )
    done = {each.line for each in await rows_of(flow.db, file.id) if each.outcome == "taken"}
    for row in rows:
        if row.line not in done:
            await _take(flow, file, row)
    async with flow.db.begin(actor) as tx:
        if await store.END.run(tx, file.id, tx.now):
            facts: dict[str, Fact] = {"scheme": scheme, "rows": len(rows), "sha256": digest}
            await audit.record(tx, "scheme_file.taken", show(PREFIX, file.id), facts)
    return await store.FIND.one(flow.db, account_id, digest)


async def rows_of(on: Db | Tx, file_id: UUID) -> list[SchemeFileRow]:
    """Return what became of a file's rows, in order."""
    return await store.ROWS.all(on, file_id)


async def files(on: Db | Tx, limit: int = 50) -> list[SchemeFile]:
    """Return the files taken last, latest first."""
    return await store.FILES.all(on, limit)


def _read(layout: Layout, path: Path) -> tuple[str, Sequence[SourceRow]]:
    rows: list[SourceRow] = []
    for each in read_and_check(layout, path, Tally()):
        if isinstance(each, SourceFault):
            raise SchemeFileRefused(line=each.line, fault=each.code)
        if each.kind != NO_CASE:
            rows.append(each)
    if not rows:
        raise SchemeFileEmpty
    return sha256(path.read_bytes()).hexdigest(), rows


async def _begun(
    db: Db, which: tuple[UUID, str], what: tuple[str, str, str, int], actor: str
) -> SchemeFile:
    (account_id, digest), (scheme, name, layout, count) = which, what
    async with db.begin(actor) as tx:
        args = (account_id, scheme, name, digest, layout, count, actor)
        await store.BEGIN.run(tx, new_id(), *args, tx.now)
    return await store.FIND.one(db, account_id, digest)


async def _take(flow: Flow, file: SchemeFile, row: SourceRow) -> None:
    asked, move = meaning_of(row, file.scheme)
    if "@" in row.ref:
        number, case = await _named_by_trace(flow, file.account_id, row.ref)
        asked = replace(asked, scheme_ref=case or asked.scheme_ref)
    else:
        number = await _number_of(flow, file.account_id, row.ref)
    dispute = None
    if number is not None:
        dispute = await take_scheme_row(flow, file.account_id, SchemeRow(number, asked, move))
    failpoint("scheme_files.after_row")
    outcome: Outcome = "not_ours" if number is None else "contradicts"
    if dispute is not None:
        outcome = "taken"
    async with flow.db.begin(file.taken_by) as tx:
        await store.PUT_ROW.run(
            tx,
            file.id,
            row.line,
            asked.scheme_ref,
            row.ref,
            outcome,
            None if dispute is None else dispute.id,
            tx.now,
        )


async def _number_of(flow: Flow, account_id: UUID, trade: str) -> str | None:
    """Return our number of a trade that was paid over this account, by ours or the channel's."""
    try:
        attempt = await payments.attempt_by_number(flow.db, trade)
    except UnknownId:  # then it is the channel's number, or nobody's
        attempt = None
    if attempt is not None:
        return attempt.number if attempt.account_id == account_id else None
    for payment_id in await payments.payments_by_channel_ref(flow.db, trade):
        found = await payments.timeline(flow.db, payment_id)
        for each in found.attempts:
            if (each.account_id, each.channel_ref) == (account_id, trade):
                return each.number
    return None


async def _named_by_trace(
    flow: Flow, account_id: UUID, named: str
) -> tuple[str, str] | tuple[None, None]:
    """Return our number of the trade and what its case is called, where a row names it by trace.

    The trace number stands in the channel's own number of a trade, before its last digit, and
    its moment is when the trade was paid (a notification of the test gateway has both).
    """
    for each in named.split(","):
        trace, _, moment = each.partition("@")
        start = datetime.fromisoformat(moment)
        async with flow.db.begin("scheme files") as tx:
            end = start + timedelta(seconds=1)
            paid = [one async for one in payments.paid_between(tx, account_id, start, end)]
        for one in paid:
            tried = (await payments.timeline(flow.db, one.payment_id)).attempts
            for attempt in tried:
                ref = attempt.channel_ref or ""
                if attempt.account_id == account_id and ref[-7:-1] == trace:
                    return attempt.number, f"{_BY_TRACE}{ref}"
    return None, None
