"""The round that forgets what is over goes on under every licence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tongbao.infra.blob_uploads.uploads import begin_upload
from tongbao.infra.blobs.folder import FolderShelf
from tongbao.infra.blobs.model import BlobNotFound, Kind
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.tasks import Again, Lease
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.surfaces.housekeeping import KeepHouse, keep_house

MakeDb = Callable[..., Awaitable[Db]]


@pytest.mark.parametrize("licence", list(Licence))
async def test_a_round_ends_well_under_every_licence(
    make_db: MakeDb, licence: Licence, tmp_path: Path
) -> None:
    db = await make_db(licence=licence)
    blobs = Blobs(FolderShelf(tmp_path), Keyring([bytes(32)]), tmp_path / "half")
    left = await blobs.put(await begin_upload(db, "tests"), b"%PDF-1.7", kind=Kind.PDF)
    await db.execute("update blob_upload set begun_at = begun_at - interval '25 hours'", ())

    again = await keep_house(
        db, Ledger(db, licence), licence, KeepHouse(), Lease(new_id(), attempt=1), blobs=blobs
    )

    with pytest.raises(BlobNotFound):
        await blobs.get(left)
    assert again == Again(timedelta(minutes=1))
