"""The list of applications, one with all that was found about it, and what operators do with it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.controls.approvals.model import reason_of
from tongbao.controls.approvals.queries import open_approval
from tongbao.infra import audit
from tongbao.infra.blobs.store import Blobs
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.parties.identity.model import ROLES
from tongbao.parties.merchants.queries import merchant_with_id, merchants_with_ids
from tongbao.parties.onboarding import queries
from tongbao.parties.onboarding.applications import return_application
from tongbao.parties.onboarding.documents import read_document
from tongbao.parties.onboarding.model import PREFIX as APPLICATION
from tongbao.parties.onboarding.model import Application, ApplicationState
from tongbao.parties.onboarding.openings import (
    DECLINE,
    OPEN,
    propose_declining,
    propose_opening,
)
from tongbao.payments.registrations.queries import exchanges_of, registrations_of
from tongbao.surfaces.operator_console.payments import (
    ROWS,
    FilterMalformed,
    Filters,
    merchant_choices,
)
from tongbao.surfaces.operator_console.visit import PREFIX, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, file_reply, redirect

_PICTURE_POLICY: Final = ("content-security-policy", "default-src 'none'; sandbox")


class FormIncomplete(Invalid):
    """A form of the console came without something that its page sends."""

    code = "console.form_incomplete"
    advice = "Open the page again and use its own form."
    advice_zh = "请重新打开页面，并使用页面自带的表单提交。"


async def show_applications(visit: Visit) -> Reply:
    """Return the list, or the one application that was searched for by its id.

    Raises:
        FilterMalformed, UnknownId, CursorInvalid
    """
    desk, filters = visit.desk, Filters.of(visit.request.query)
    if filters.q.startswith(f"{APPLICATION}_"):
        try:
            found = parse(APPLICATION, filters.q)
        except UnknownId:
            raise FilterMalformed from None
        return redirect(_address(found))
    cursor = visit.request.query.get("cursor")
    page = await queries.list_applications(desk.db, wanted(filters), cursor=cursor, limit=ROWS)
    names = await merchants_with_ids(desk.db, [each.merchant_id for each in page.items])
    older = page.next_cursor
    facts = {
        **await merchant_choices(desk),
        "filters": filters,
        "states": list(ApplicationState),
        "channels": [],
        "rows": [
            (show(APPLICATION, each.id), each, names[each.merchant_id].name) for each in page.items
        ],
        "older": filters.address("applications", cursor=older) if older else None,
        "cursor": cursor,
    }
    return await visit.page("applications.html", facts)


async def show_application(visit: Visit) -> Reply:
    """Return one application: what it says, what was checked, its documents and its channels.

    Raises:
        UnknownId, ApplicationNotFound
    """
    desk = visit.desk
    application = await _of(visit)
    shown, opened = show(APPLICATION, application.id), application.opened_merchant_id
    found = await registrations_of(desk.db, application.id)
    may_sign = desk.flow.licence.may_hold_funds
    facts = {
        "application": application,
        "own": _address(application.id),
        "shown": shown,
        "applicant": await merchant_with_id(desk.db, application.merchant_id),
        "opened": await merchant_with_id(desk.db, opened) if opened else None,
        "documents": [
            (show("doc", each.id), each)
            for each in await queries.documents_of(desk.db, application.id)
        ],
        "signatures": await queries.signatures_of(desk.db, application.id) if may_sign else [],
        "registrations": [
            (show("reg", each.id), each, await exchanges_of(desk.db, each.id)) for each in found
        ],
        "waiting": [
            approval
            for act in (OPEN, DECLINE)
            if (approval := await open_approval(desk.db, act, shown)) is not None
        ],
        "acts": await audit.entries_of_subject(desk.db, shown),
        "is_reviewed": application.state is ApplicationState.SUBMITTED,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("application.html", facts)


async def propose_open(visit: Visit) -> Reply:
    """Propose to open the merchant; another operator decides in the inbox.

    Raises:
        FormIncomplete, and what proposing raises
    """
    application_id, version = _seen(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await propose_opening(
            tx, application_id, version=version, reason=_reason(visit), may=_may(visit)
        )
    return redirect(f"{_address(application_id)}?done=proposed")


async def propose_decline(visit: Visit) -> Reply:
    """Propose to decline the application for good.

    Raises:
        FormIncomplete, and what proposing raises
    """
    application_id, version = _seen(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await propose_declining(
            tx, application_id, version=version, reason=_reason(visit), may=_may(visit)
        )
    return redirect(f"{_address(application_id)}?done=proposed")


async def give_back(visit: Visit) -> Reply:
    """Return the application to be corrected, saying what is wrong.

    Raises:
        FormIncomplete, ApplicationNotFound, ApplicationNotOpenForThis, ApplicationChanged,
        ReasonTooShort
    """
    application_id, version = _seen(visit)
    note = reason_of(_reason(visit))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await return_application(tx, application_id, version=version, note=note)
    return redirect(f"{_address(application_id)}?done=returned")


class Pictures:
    """Shows documents to those who review; each look is in the audit log."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def show(self, visit: Visit) -> Reply:
        """Return a picture, and nothing that could act in its place.

        Raises:
            UnknownId, ApplicationNotFound, DocumentNotFound, BlobNotFound, BlobDamaged
        """
        application = await _of(visit)
        document = await queries.document_with_id(
            visit.desk.db, application.id, parse("doc", visit.params["document_id"])
        )
        content = await read_document(self._blobs, document)
        shown = show(APPLICATION, application.id)
        async with visit.desk.db.begin(visit.operator.actor) as tx:
            facts = {"kind": document.kind.value, "sha256": document.sha256.hex()}
            await audit.record(tx, "application.document_seen", shown, facts)
        is_paper = document.media_type == "application/pdf"  # nothing that a browser opens in place
        name = f"{document.kind.value}.pdf" if is_paper else None
        return file_reply(content, document.media_type, name=name).also(
            _PICTURE_POLICY, ("cache-control", "no-store")
        )


def wanted(filters: Filters) -> queries.ApplicationFilter:
    """Return what the page asks the list for.

    Raises:
        FilterMalformed, UnknownId
    """
    try:
        state = ApplicationState(filters.status) if filters.status else None
    except ValueError:
        raise FilterMalformed from None
    first, end = filters.period()
    return queries.ApplicationFilter(
        merchant_id=filters.merchant_id,
        mode=mode_of(filters.mode),
        state=state,
        text=filters.q or None,
        created_from=first,
        created_to=end,
    )


async def _of(visit: Visit) -> Application:
    return await queries.application_with_id(
        visit.desk.db, parse(APPLICATION, visit.params["application_id"])
    )


def _seen(visit: Visit) -> tuple[UUID, int]:
    """Return which application a form is about, and as which version it was looked at."""
    version = visit.request.form.get("version", "")
    if not version.isascii() or not version.isdecimal() or len(version) > 9:
        raise FormIncomplete(param="version")
    return parse(APPLICATION, visit.params["application_id"]), int(version)


def _reason(visit: Visit) -> str:
    return visit.request.form.get("reason", "")


def _may(visit: Visit) -> frozenset[str]:
    return frozenset(ROLES[visit.operator.role])


def _address(application_id: UUID) -> str:
    return f"{PREFIX}/applications/{show(APPLICATION, application_id)}"
