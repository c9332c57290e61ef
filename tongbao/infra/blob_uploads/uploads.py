"""A blob is begun before its bytes are put, and named in the commit of the row that names it.

    begun ──its row commits──► named: nothing is left to say
      └──a day later, nobody named it──► dying ──its bytes are gone──► forgotten
    named ──its row names it no more───────┘

A name is made here and used once. So a blob that a row names is never begun any more, and whoever
would name one that is dying is refused in that commit and sends it again: whatever the cleaner
takes away, no row names it or ever will.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from tongbao.infra.blob_uploads import _store as store
from tongbao.infra.blobs.model import check_name
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import base32, new_id

GRACE: Final = timedelta(days=1)
"""Real time: a test clock that is moved must not hurry whoever is uploading."""
_AT_ONCE: Final = 100


class UploadLapsed(Busy):
    """The document took longer than a day to be kept, and was taken away."""

    code = "blob.upload_lapsed"
    advice = "Send the document again."
    advice_zh = "文件上传超时已被清理，请重新上传。"
    retry_after_s = 1


async def begin_upload(db: Db, folder: str) -> str:
    """Return a name below the folder that was never used, for a document that is put next.

    Raises:
        BlobNameMalformed
    """
    name = check_name(f"{folder}/{base32(new_id())}")
    async with db.begin("uploads") as tx:
        await store.BEGIN.run(tx, name, real_now())
    return name


async def name_upload(tx: Tx, name: str) -> None:
    """Let a row of this transaction name the blob, for good.

    Raises:
        UploadLapsed
    """
    if await store.NAME.run(tx, name) == 0:
        raise UploadLapsed


async def disown(tx: Tx, names: Sequence[str]) -> None:
    """Have blobs taken away that no row names once this transaction commits."""
    await store.DISOWN.run(tx, names, real_now())


async def clean_uploads(db: Db, blobs: Blobs, *, grace: timedelta = GRACE) -> int:
    """Take away what was begun so long ago and never named, some at once; say how many.

    Raises:
        BlobStoreUnavailable, BlobStoreRefused: what was not taken away yet is, the next time.
    """
    now = real_now()
    async with db.begin("uploads") as tx:
        dying = await store.CONDEMN.all(tx, now - grace, now, _AT_ONCE)
    failpoint("uploads.after_condemned")
    for name in dying:
        await blobs.delete(name)
        failpoint("uploads.after_blob_deleted")
    if dying:
        async with db.begin("uploads") as tx:
            await store.FORGET.run(tx, dying)
    return len(dying)
