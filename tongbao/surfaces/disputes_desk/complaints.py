"""Complaints for operators: what customers told the channels, in every licence, with the pictures.

An aggregator decides nothing about them: it lists them and hands the merchant's answers on.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import urlencode

from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.images import content_of_image, images_of
from tongbao.clearing.complaints.model import Complaint, ComplaintState, ImageNotFound
from tongbao.clearing.complaints.queries import ComplaintFilter
from tongbao.clearing.disputes.evidence import content_of, file_with_id
from tongbao.clearing.disputes.model import EvidenceNotFound
from tongbao.clearing.disputes.queries import files_of
from tongbao.infra import audit
from tongbao.infra.blobs.store import Blobs
from tongbao.kernel.ids import parse, show
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.surfaces.operator_console.payments import FilterMalformed
from tongbao.surfaces.operator_console.visit import PREFIX, Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, file_reply

_ROWS: Final = 50
_ASKED: Final = ("status", "mode", "merchant", "payment")
_PICTURE_POLICY: Final = ("content-security-policy", "default-src 'none'; sandbox")
_NOT_STORED: Final = ("cache-control", "no-store")


async def show_complaints(visit: Visit) -> Reply:
    """Return customers' complaints, filtered, the newest first.

    Raises:
        FilterMalformed, UnknownId, CursorInvalid
    """
    db, query = visit.desk.db, visit.request.query
    chosen = {name: query.get(name, "").strip()[:64] for name in _ASKED}
    page = await queries.list_complaints(
        db, _wanted(chosen), cursor=query.get("cursor"), limit=_ROWS
    )
    names = await merchants_with_ids(db, [each.merchant_id for each in page.items])
    given = {name: value for name, value in chosen.items() if value}
    older = urlencode({**given, "cursor": page.next_cursor}) if page.next_cursor else None
    facts = {
        "chosen": chosen,
        "states": list(ComplaintState),
        "rows": [(show("cpl", each.id), each, names[each.merchant_id].name) for each in page.items],
        "older": f"{PREFIX}/complaints?{older}" if older else None,
    }
    return await visit.page("complaints.html", facts)


async def show_complaint(visit: Visit) -> Reply:
    """Return one complaint with everything that was said and shown.

    Raises:
        UnknownId, ComplaintNotFound
    """
    db, found = visit.desk.db, await _complaint(visit)
    names = await merchants_with_ids(db, [found.merchant_id])
    facts = {
        "complaint": found,
        "own": f"{PREFIX}/complaints/{show('cpl', found.id)}",
        "merchant": names[found.merchant_id].name,
        "messages": await queries.messages_of(db, found),
        "images": [(show("cpi", each.id), each) for each in await images_of(db, found)],
        "files": [
            (show("evf", each.id), each) for each in await files_of(db, found.book, found.id)
        ],
        "replies": await queries.replies_of(db, found),
    }
    return await visit.page("complaint.html", facts)


async def show_image(blobs: Blobs, visit: Visit) -> Reply:
    """Return a picture that the customer sent along, and note who looked at it.

    Raises:
        UnknownId, ComplaintNotFound, ImageNotFound, BlobNotFound, BlobDamaged
    """
    complaint, wanted = await _complaint(visit), parse("cpi", visit.params["image_id"])
    of_it = {each.id: each for each in await images_of(visit.desk.db, complaint)}
    if wanted not in of_it:
        raise ImageNotFound
    image = of_it[wanted]
    content = await content_of_image(blobs, image)
    await _note(visit, "complaint.image_seen", show("cpi", image.id), image.sha256 or "")
    return file_reply(content, image.media_type or "").also(_PICTURE_POLICY, _NOT_STORED)


async def show_own_file(blobs: Blobs, visit: Visit) -> Reply:
    """Return a file that the merchant handed in, as a download, and note who took it.

    Raises:
        UnknownId, ComplaintNotFound, EvidenceNotFound, BlobNotFound, BlobDamaged
    """
    complaint = await _complaint(visit)
    file = await file_with_id(visit.desk.db, parse("evf", visit.params["file_id"]))
    if file.subject_id != complaint.id:
        raise EvidenceNotFound
    content = await content_of(blobs, file)
    await _note(visit, "evidence.read", show("evf", file.id), file.sha256)
    suffix = file.media_type.partition("/")[2]
    name = f"{show('evf', file.id)}.{suffix}"
    return file_reply(content, file.media_type, name=name).also(_NOT_STORED)


async def _note(visit: Visit, action: str, subject: str, digest: str) -> None:
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, action, subject, {"sha256": digest})


async def _complaint(visit: Visit) -> Complaint:
    wanted = parse("cpl", visit.params["complaint_id"])
    return await queries.complaint_with_id(visit.desk.db, wanted)


def _wanted(chosen: dict[str, str]) -> ComplaintFilter:
    try:
        status = ComplaintState(chosen["status"]) if chosen["status"] else None
    except ValueError:
        raise FilterMalformed from None
    return ComplaintFilter(
        merchant_id=parse("mch", chosen["merchant"]) if chosen["merchant"] else None,
        mode=mode_of(chosen["mode"]),
        status=status,
        payment_id=parse("pay", chosen["payment"]) if chosen["payment"] else None,
    )


def routes(blobs: Blobs) -> tuple[Route, ...]:
    """Return the pages, which there are under every licence."""
    view, one = Permission.VIEW, "/complaints/{complaint_id}"
    return (
        Route("GET", "/complaints", show_complaints, view),
        Route("GET", one, show_complaint, view),
        Route("GET", f"{one}/images/{{image_id}}", partial(show_image, blobs), view),
        Route("GET", f"{one}/files/{{file_id}}", partial(show_own_file, blobs), view),
    )
