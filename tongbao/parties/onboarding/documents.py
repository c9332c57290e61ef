"""Documents of an application: looked at, kept encrypted, read by who reviews and who registers.

The bytes go to the blob store first and the row names them afterwards: whoever dies in between
leaves bytes that nothing names, which are taken away a day later, never a row without its bytes.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from litestar import post
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.blob_uploads.uploads import begin_upload, name_upload
from tongbao.infra.blobs.model import Blob, BlobEmpty, BlobKindDiffers, Kind
from tongbao.infra.blobs.scanning import BlobMalicious, ScannerUnavailable
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.web.caller import Caller, Upload, needs
from tongbao.infra.web.request import ApiRequest
from tongbao.infra.web.uploads import Incoming
from tongbao.kernel.ids import base32, new_id, parse, show
from tongbao.kernel.papers.document_types import DocumentTypeRefused, type_of
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding.applications import locked, touch
from tongbao.parties.onboarding.model import (
    DOCUMENT_BYTES_MAX,
    FILE_BYTES_MAX,
    PREFIX,
    Application,
    ApplicationNotFound,
    ApplicationNotOpenForThis,
    ApplicationState,
    Document,
    DocumentKind,
    DocumentTooLarge,
)
from tongbao.parties.onboarding.queries import application_of_caller, documents_of


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
    if known := await _same(db, application.id, kind, digest):
        return known
    key = await begin_upload(db, _folder(application))
    kind_of = Kind(media_type.value)
    kept = await blobs.put(key, content, kind=kind_of, bytes_max=DOCUMENT_BYTES_MAX)
    return await _name(db, application, kind, kept, actor=actor)


async def add_file(
    db: Db,
    blobs: Blobs,
    application: Application,
    kind: DocumentKind,
    incoming: Incoming,
    *,
    actor: str,
) -> Document:
    """Keep a document that comes piece by piece, otherwise as `add_document`.

    It is looked at whole once it is kept and before a row names it, two at a time: what is refused
    then is a blob that nobody names.

    Raises:
        UploadTooLarge, UploadDigestDiffers, UploadIncomplete, BlobEmpty, BlobKindDiffers,
        DocumentTypeRefused, ApplicationNotOpenForThis, BlobStoreUnavailable, UploadLapsed
    """
    application.check_in(*_OPEN)
    kind_of = Kind(incoming.media_type)
    if kind_of is Kind.PDF and kind not in PAPERS:
        raise DocumentTypeRefused(reason="a picture is needed here", kind=kind.value)
    if known := await _same(db, application.id, kind, incoming.digest):
        return known
    key = await begin_upload(db, _folder(application))
    kept = await blobs.put(key, incoming.pieces(), kind=kind_of, bytes_max=incoming.bytes_max)
    if kind_of is not Kind.PDF:
        async with _LOOKING:
            await asyncio.to_thread(type_of, await blobs.get(kept))
    return await _name(db, application, kind, kept, actor=actor)


async def _name(
    db: Db, application: Application, kind: DocumentKind, kept: Blob, *, actor: str
) -> Document:
    """Let a row name what was kept, in the place of an earlier one of its kind."""
    digest = bytes.fromhex(kept.sha256)
    failpoint("onboarding.after_blob")
    async with db.begin(actor) as tx:
        (await locked(tx, application.id)).check_in(*_OPEN)
        if known := await _same(tx, application.id, kind, digest):
            return known  # somebody sent it twice at once; nobody names these bytes
        await store.REPLACE_DOCUMENT.run(tx, application.id, kind, tx.now)
        document = await store.INSERT_DOCUMENT.one(
            tx,
            new_id(),
            application.id,
            application.merchant_id,
            application.mode,
            kind,
            kept.kind.value,
            kept.size,
            digest,
            kept.name,
            tx.now,
            actor,
        )
        await name_upload(tx, kept.name)
        await touch(tx, application)
        facts = {"kind": kind.value, "sha256": kept.sha256, "bytes": kept.size}
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


def _folder(application: Application) -> str:
    return f"applications/{base32(application.id)}"


PAPERS: Final = (DocumentKind.BANK_PERMIT, DocumentKind.QUALIFICATION)
"""What may be a PDF: read by people here. Channels take pictures alone."""
_LOOKING: Final = asyncio.Semaphore(2)
_OPEN: Final = (ApplicationState.DRAFT, ApplicationState.OPENED, ApplicationState.FORWARDED)
_TYPES: Final = ("image/jpeg", "image/png", "application/pdf")


class DocumentView(Struct, frozen=True):
    """A document as its applicant sees it: what it is, and its digest, never its bytes."""

    id: str
    kind: DocumentKind
    media_type: str
    size: int
    sha256: str
    added_at: datetime


def view_document(document: Document) -> DocumentView:
    """Return a document without its bytes."""
    return DocumentView(
        show("doc", document.id),
        document.kind,
        document.media_type,
        document.size,
        document.sha256.hex(),
        document.added_at,
    )


@post(
    "/v1/applications/{application_id:str}/files",
    status_code=200,
    opt=needs(
        "applications:write",
        upload=Upload(_TYPES, FILE_BYTES_MAX),
        refuses=[
            ApplicationNotFound,
            ApplicationNotOpenForThis,
            BlobEmpty,
            BlobKindDiffers,
            BlobMalicious,
            ScannerUnavailable,
            DocumentTypeRefused,
        ],
    ),
)
async def post_file(
    application_id: str,
    kind: DocumentKind,
    request: ApiRequest,
    *,
    db: Db,
    blobs: Blobs,
    caller: Caller,
) -> DocumentView:
    """Add a document that is a body of its own, kept encrypted while it comes.

    A PDF may be a bank permit or a qualification; everything else is a picture.
    """
    found = await application_of_caller(db, caller, parse(PREFIX, application_id))
    return view_document(
        await add_file(db, blobs, found, kind, request.incoming, actor=caller.actor)
    )
