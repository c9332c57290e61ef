"""A sealed month moved to files, once they are proven to have every row, and back."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.infra.failpoints import failpoint
from tongbao.ledger.archive import _store as store
from tongbao.ledger.archive import files
from tongbao.ledger.archive.model import (
    PARENTS,
    LedgerMonth,
    MonthInDefault,
    MonthNotArchived,
    MonthNotSealed,
    partition_of,
)


async def archive_month(db: Db, month: date, into: Path, *, actor: str) -> LedgerMonth:
    """Write a sealed month to a folder under ``into`` and drop its rows, in one transaction.

    The files are on disk and were read again, and the tables compared with them, before anything
    is dropped.

    Raises:
        MonthNotSealed, MonthInDefault, ArchiveFileDiffers, LockNotFree
    """
    for parent in PARENTS:
        if not await store.TABLE_EXISTS.one(db, partition_of(parent, month)):
            raise MonthInDefault(month=f"{month:%Y-%m}")
    folder = into / f"{month:%Y-%m}"
    half = folder.with_suffix(".half")
    async with db.begin(actor) as tx:
        sealed = await store.LOCK_MONTH.first(tx, month)
        if sealed is None or sealed.state != "sealed":
            raise MonthNotSealed(month=f"{month:%Y-%m}")
        await store.NO_LIMIT.run(tx)
        for left in (half, folder):  # of a try that was cut short: the rows are still here
            shutil.rmtree(left, ignore_errors=True)
        books = tuple(await store.MONTH_BOOKS.all(tx, month))
        digest = await files.write_month(tx, month, half, books)
        half.rename(folder)
        manifest = files.read_manifest(folder, digest)
        files.check_files(folder, manifest)
        await files.check_rows(tx, manifest)
        failpoint("ledger.before_month_dropped")
        await store.drop_partitions(tx, month)
        await store.MARK_ARCHIVED.run(tx, month, str(folder), digest, tx.now)
        facts = {"folder": str(folder), "manifest_sha256": digest.hex()}
        await audit.record(tx, "ledger.month_archived", f"{month:%Y-%m}", facts)
        return await store.LOCK_MONTH.one(tx, month)


async def bring_back_month(
    db: Db, month: date, *, actor: str, folder: Path | None = None
) -> LedgerMonth:
    """Load an archived month from its files again; it stays sealed, and the files stay too.

    Raises:
        MonthNotArchived, ArchiveFileDiffers, LockNotFree
    """
    async with db.begin(actor) as tx:
        archived = await store.LOCK_MONTH.first(tx, month)
        if archived is None or archived.state != "archived" or archived.folder is None:
            raise MonthNotArchived(month=f"{month:%Y-%m}")
        await store.NO_LIMIT.run(tx)
        place = folder or Path(archived.folder)
        manifest = files.read_manifest(place, archived.manifest_sha256 or b"")
        files.check_files(place, manifest)
        for parent in PARENTS:
            await store.make_table(tx, parent, month)
            await files.load_rows(tx, manifest, place, parent)
        await files.check_rows(tx, manifest)
        for parent in PARENTS:
            await store.attach(tx, parent, month)
        await store.MARK_BACK.run(tx, month)
        await audit.record(tx, "ledger.month_brought_back", f"{month:%Y-%m}", {})
        back = await store.LOCK_MONTH.one(tx, month)
    for parent in PARENTS:
        await store.freeze(db, partition_of(parent, month))
    return back
