"""What others may ask about applications, their documents and signatures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.controls.retention.model import Raw
from tongbao.infra.blob_uploads.uploads import disown
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding.model import (
    Application,
    ApplicationNotFound,
    ApplicationState,
    Document,
    DocumentNotFound,
    Personal,
)

PERSONAL = "application.personal"


class ApplicationFilter(Struct, frozen=True):
    """Which applications a list shows; every None means any. ``text`` is matched whole."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    state: ApplicationState | None = None
    text: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def _forget_with_them(tx: Tx, applications: Sequence[UUID]) -> None:
    """Forget the papers and signatures of applications that are being erased."""
    await disown(tx, await store.ERASE_DOCUMENTS.all(tx, applications))
    await store.ERASE_SIGNATURES.run(tx, applications)


UNOPENED_KEPT: Final = Raw(
    "application",
    "Who applied and never became a merchant",
    "未开户成功的商户进件中的个人资料",
    store.ERASE_UNOPENED,
    has_book=False,
    and_with_them=_forget_with_them,
)


async def application_with_id(on: Db | Tx, application_id: UUID) -> Application:
    """Return an application, whoever made it.

    Raises:
        ApplicationNotFound
    """
    found = await store.GET_APPLICATION.first(on, application_id)
    if found is None:
        raise ApplicationNotFound
    return found


async def application_of_caller(on: Db | Tx, caller: Caller, application_id: UUID) -> Application:
    """Return an application that the caller made, in the mode of its key.

    Raises:
        ApplicationNotFound
    """
    found = await application_with_id(on, application_id)
    if (found.merchant_id, found.mode) != (caller.merchant_id, caller.mode):
        raise ApplicationNotFound
    return found


async def application_of_merchant(on: Db | Tx, merchant_id: UUID) -> Application:
    """Return the application that a merchant was opened from.

    Raises:
        ApplicationNotFound
    """
    found = await store.APPLICATION_OF_MERCHANT.first(on, merchant_id)
    if found is None:
        raise ApplicationNotFound
    return found


async def list_applications(
    on: Db | Tx, wanted: ApplicationFilter, *, cursor: str | None, limit: int | None
) -> Page[Application]:
    """Return a page of applications, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_APPLICATIONS.all(
        on,
        wanted.merchant_id,
        wanted.mode,
        wanted.state,
        wanted.text,
        wanted.created_from,
        wanted.created_to,
        before,
        size + 1,
    )
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))


async def documents_of(on: Db | Tx, application_id: UUID) -> list[Document]:
    """Return the documents that count, one of a kind; replaced ones are kept and left out."""
    return await store.DOCUMENTS.all(on, application_id)


async def document_with_id(on: Db | Tx, application_id: UUID, document_id: UUID) -> Document:
    """Return one document of an application, also one that was replaced.

    Raises:
        DocumentNotFound
    """
    found = await store.GET_DOCUMENT.first(on, document_id, application_id)
    if found is None:
        raise DocumentNotFound
    return found


async def signatures_of(on: Db | Tx, application_id: UUID) -> list[store.Signature]:
    """Return what was agreed to, the newest version first. Only a licensed firm may ask."""
    return await store.SIGNATURES.all(on, application_id)


def personal_of(keyring: Keyring, application: Application) -> Personal:
    """Return what identifies persons, opened: for a channel that must be told, and nobody else.

    Raises:
        SealUnreadable
    """
    place = bind("application", "personal_sealed", application.id)
    opened = keyring.open(PERSONAL, application.personal_sealed, place)
    return msgspec.json.decode(opened, type=Personal)
