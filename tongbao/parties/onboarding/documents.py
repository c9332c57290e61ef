"""Documents of an application: looked at, kept encrypted, read by who reviews and who registers.

The bytes go to the blob store first and the row names them afterwards: whoever dies in between
leaves bytes that nothing names, which are taken away a day later, never a row without its bytes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.blob_uploads.uploads import begin_upload, name_upload
from tongbao.infra.blobs.model import Blob, Kind
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import base32, new_id, show
from tongbao.kernel.papers.document_types import type_of
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding.applications import locked, touch
from tongbao.parties.onboarding.model import (
    DOCUMENT_BYTES_MAX,
    PREFIX,
    Application,
    ApplicationState,
    Document,
    DocumentKind,
    DocumentTooLarge,
)
from tongbao.parties.onboarding.queries import documents_of


async def add_document(
    db: Db,
    blobs: Blobs,
    application: Application,
    kind: DocumentKind,
    content: bytes,
    *,
    actor: str,
) -> Document:
    """Keep a document, in the place of an earlier one of its kind; the same again changes nothing.

    Raises:
        DocumentTooLarge, DocumentTypeRefused, ApplicationNotOpenForThis, BlobStoreUnavailable,
        UploadLapsed
    """
    if not 0 < len(content) <= DOCUMENT_BYTES_MAX:
        raise DocumentTooLarge(bytes=len(content), bytes_max=DOCUMENT_BYTES_MAX)
    media_type, digest = type_of(content), sha256(content).digest()
    application.check_in(*_OPEN)
    document_id = new_id()
    if known := await _same(db, application.id, kind, digest):
        return known
    key = await begin_upload(db, f"applications/{base32(application.id)}")
    kind_of = Kind(media_type.value)
    await blobs.put(key, content, kind=kind_of, bytes_max=DOCUMENT_BYTES_MAX)
    failpoint("onboarding.after_blob")
    async with db.begin(actor) as tx:
        (await locked(tx, application.id)).check_in(*_OPEN)
        if known := await _same(tx, application.id, kind, digest):
            return known  # somebody sent it twice at once; nobody names these bytes
        await store.REPLACE_DOCUMENT.run(tx, application.id, kind, tx.now)
        document = await store.INSERT_DOCUMENT.one(
            tx,
            document_id,
            application.id,
            application.merchant_id,
            application.mode,
            kind,
            media_type,
            len(content),
            digest,
            key,
            tx.now,
            actor,
        )
        await name_upload(tx, key)
        await touch(tx, application)
        facts = {"kind": kind.value, "sha256": digest.hex(), "bytes": len(content)}
        await audit.record(tx, "application.document_added", show(PREFIX, application.id), facts)
        failpoint("onboarding.before_document_commit")
    return document


async def read_document(blobs: Blobs, document: Document) -> bytes:
    """Return a document's bytes.

    Raises:
        BlobNotFound, BlobDamaged, BlobStoreUnavailable, BlobStoreRefused
    """
    kind = Kind(document.media_type)
    blob = Blob(document.blob_key, kind, document.size, document.sha256.hex())
    return await blobs.get(blob)


async def _same(
    on: Db | Tx, application_id: UUID, kind: DocumentKind, digest: bytes
) -> Document | None:
    found = await documents_of(on, application_id)
    return next((each for each in found if (each.kind, each.sha256) == (kind, digest)), None)


_OPEN: Final = (ApplicationState.DRAFT, ApplicationState.OPENED, ApplicationState.FORWARDED)
