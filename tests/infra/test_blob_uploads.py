"""Blobs that no row names go away, and never one that a row names or is about to name."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.infra.test_blobs import KEYS
from tongbao.infra.blob_uploads.uploads import (
    GRACE,
    UploadLapsed,
    begin_upload,
    clean_uploads,
    name_upload,
)
from tongbao.infra.blobs.folder import FolderShelf
from tongbao.infra.blobs.model import Blob, BlobNameMalformed, BlobNotFound, Kind
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash, arm

NOW = timedelta(0)


@pytest.fixture
async def blobs(module_db: Db, tmp_path: Path) -> Blobs:
    """A store of its own, and nothing begun by a test before."""
    shelf = Blobs(FolderShelf(tmp_path / "shelf"), KEYS, tmp_path / "half")
    await clean_uploads(module_db, shelf, grace=NOW)
    return shelf


async def put(db: Db, blobs: Blobs) -> Blob:
    """A document whose row was not committed yet."""
    name = await begin_upload(db, "tests/one")
    return await blobs.put(name, b"%PDF-1.7 x", kind=Kind.PDF)


async def is_there(blobs: Blobs, blob: Blob) -> bool:
    try:
        await blobs.get(blob)
    except BlobNotFound:
        return False
    return True


async def test_what_nobody_names_goes_after_its_grace_and_what_a_row_names_stays(
    module_db: Db, blobs: Blobs
) -> None:
    orphan, named = await put(module_db, blobs), await put(module_db, blobs)
    async with module_db.begin("test") as tx:
        await name_upload(tx, named.name)

    early = await clean_uploads(module_db, blobs, grace=GRACE)
    both = await is_there(blobs, orphan), await is_there(blobs, named)
    late = await clean_uploads(module_db, blobs, grace=NOW)

    assert (early, both, late) == (0, (True, True), 1)
    assert (await is_there(blobs, orphan), await is_there(blobs, named)) == (False, True)
    assert await clean_uploads(module_db, blobs, grace=NOW) == 0


async def test_the_cleaner_passes_by_what_is_being_named_at_this_moment(
    module_db: Db, blobs: Blobs
) -> None:
    blob = await put(module_db, blobs)

    async with module_db.begin("namer") as tx:
        await name_upload(tx, blob.name)
        cleaned = await clean_uploads(module_db, blobs, grace=NOW)  # while the row is open

    assert cleaned == 0
    assert await clean_uploads(module_db, blobs, grace=NOW) == 0
    assert await is_there(blobs, blob)


async def test_who_names_a_blob_that_is_being_taken_away_is_refused(
    module_db: Db, blobs: Blobs
) -> None:
    blob = await put(module_db, blobs)
    arm("uploads.after_condemned:raise")
    with pytest.raises(SimulatedCrash):
        await clean_uploads(module_db, blobs, grace=NOW)

    with pytest.raises(UploadLapsed):
        async with module_db.begin("namer") as tx:
            await name_upload(tx, blob.name)

    assert await clean_uploads(module_db, blobs, grace=GRACE) == 1  # what is dying waits no more
    assert not await is_there(blobs, blob)


async def test_a_cleaner_that_dies_anywhere_leaves_nothing_behind(
    module_db: Db, blobs: Blobs
) -> None:
    found = [await put(module_db, blobs) for _ in range(3)]
    for place in ("uploads.after_condemned", "uploads.after_blob_deleted"):
        arm(f"{place}:raise")
        with pytest.raises(SimulatedCrash):
            await clean_uploads(module_db, blobs, grace=NOW)

    assert await clean_uploads(module_db, blobs, grace=NOW) == 3
    assert [await is_there(blobs, each) for each in found] == [False, False, False]
    assert await clean_uploads(module_db, blobs, grace=NOW) == 0


async def test_of_namers_and_cleaners_at_once_each_blob_meets_one(
    module_db: Db, blobs: Blobs
) -> None:
    found = [await put(module_db, blobs) for _ in range(12)]

    async def name(blob: Blob) -> bool:
        try:
            async with module_db.begin("namer") as tx:
                await name_upload(tx, blob.name)
        except UploadLapsed:
            return False
        return True

    async def clean() -> bool:
        await clean_uploads(module_db, blobs, grace=NOW)
        return True

    done = await asyncio.gather(*[name(each) for each in found], *[clean() for _ in range(4)])
    await clean_uploads(module_db, blobs, grace=NOW)

    assert [await is_there(blobs, each) for each in found] == done[:12]


async def test_a_name_is_of_its_folder_and_never_the_same(module_db: Db) -> None:
    names = {await begin_upload(module_db, "evidence/a1") for _ in range(3)}
    assert len(names) == 3
    assert all(each.startswith("evidence/a1/") for each in names)
    with pytest.raises(BlobNameMalformed):
        await begin_upload(module_db, "../x")
