"""Files that are handed in as evidence: looked at, capped, encrypted, and never changed after."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.clearing.disputes import _store as store
from tongbao.clearing.disputes.model import (
    EvidenceFile,
    EvidenceFull,
    EvidenceNotFound,
)
from tongbao.infra.blob_uploads.uploads import begin_upload, name_upload
from tongbao.infra.blobs.model import Blob, BlobKindDiffers, BlobTooLarge, Kind
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import base32, show
from tongbao.kernel.licence import Mode

FILE_BYTES_MAX: Final = 700 * 1024
"""What fits into one request of a mebibyte when written as base64."""
FILES_MAX: Final = 10
KINDS: Final = (Kind.PDF, Kind.JPEG, Kind.PNG)


class Subject(Protocol):
    """What a file is about: a dispute or a complaint of a merchant."""

    @property
    def book(self) -> int:
        """Where its merchant's money is."""

    @property
    def id(self) -> UUID:
        """Its own id."""

    @property
    def merchant_id(self) -> UUID:
        """Whose it is."""

    @property
    def mode(self) -> Mode:
        """Live or sandbox."""


class HandIn(Struct, frozen=True, forbid_unknown_fields=True):
    """One file, its content as base64. PDF, JPEG or PNG, up to 700 KiB."""

    name: Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[^/\\\x00-\x1f]+$")]
    media_type: Literal["application/pdf", "image/jpeg", "image/png"]
    content: bytes


class FileView(Struct, frozen=True):
    """A file as the API shows it; the content is not given back."""

    id: str
    object: Literal["evidence_file"]
    name: str
    media_type: str
    size: int
    sha256: str


def view_file(file: EvidenceFile) -> FileView:
    """Return the file as the API shows it."""
    shown = show("evf", file.id)
    return FileView(shown, "evidence_file", file.name, file.media_type, file.size, file.sha256)


async def keep_file(
    db: Db, blobs: Blobs, subject: Subject, asked: HandIn, *, actor: str, file_id: UUID
) -> EvidenceFile:
    """Keep a file for a dispute or complaint; the same content a second time is the first one.

    The blob is written before the row that names it: whoever dies in between leaves a blob that
    nobody names, which is taken away a day later, and never a row without its file.

    Raises:
        BlobTooLarge, BlobKindDiffers, BlobEmpty, EvidenceFull, BlobStoreUnavailable,
        UploadLapsed
    """
    if len(asked.content) > FILE_BYTES_MAX:
        raise BlobTooLarge(bytes_max=FILE_BYTES_MAX)
    kind = Kind(asked.media_type)
    if kind not in KINDS:
        raise BlobKindDiffers(kind=asked.media_type)
    digest = sha256(asked.content).hexdigest()
    kept = await store.FILES_OF.all(db, subject.book, subject.id)
    if found := next((each for each in kept if each.sha256 == digest), None):
        return found
    if len(kept) >= FILES_MAX:
        raise EvidenceFull(files_max=FILES_MAX)
    name = await begin_upload(db, f"evidence/{base32(subject.id)}")
    blob = await blobs.put(name, asked.content, kind=kind, bytes_max=FILE_BYTES_MAX)
    failpoint("disputes.after_blob")
    async with db.begin(actor) as tx:
        is_new = await store.INSERT_FILE.run(
            tx,
            subject.book,
            file_id,
            subject.merchant_id,
            subject.mode,
            subject.id,
            asked.name,
            asked.media_type,
            blob.size,
            blob.sha256,
            blob.name,
            actor,
            tx.now,
        )
        if is_new:
            await name_upload(tx, blob.name)
    rows = await store.FILES_OF.all(db, subject.book, subject.id)
    return next(each for each in rows if each.sha256 == digest)


async def content_of(blobs: Blobs, file: EvidenceFile) -> bytes:
    """Return what a file holds, checked against the digest in its row.

    Raises:
        BlobNotFound, BlobDamaged, BlobStoreUnavailable
    """
    return await blobs.get(Blob(file.blob, Kind(file.media_type), file.size, file.sha256))


async def file_with_id(on: Db | Tx, file_id: UUID) -> EvidenceFile:
    """Return a file, whoever's it is.

    Raises:
        EvidenceNotFound
    """
    found = await store.FIND_FILE_ANYWHERE.first(on, file_id)
    if found is None:
        raise EvidenceNotFound
    return found
