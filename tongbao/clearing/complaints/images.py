"""Pictures of complaints: the customer's fetched into the document store, ours sent up.

A picture is asked for until it is here, gone, or proved to be none; nobody waits for it. The blob
is written before the row that names it, as with every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from tongbao.clearing.complaints import _store as store
from tongbao.clearing.complaints.model import (
    Complaint,
    Image,
    ImageNotFound,
    ImageNotSendable,
    ImageState,
    Reply,
    ReplyImage,
)
from tongbao.clearing.disputes.evidence import content_of
from tongbao.clearing.disputes.queries import files_of
from tongbao.infra.blob_uploads.uploads import begin_upload, name_upload
from tongbao.infra.blobs.model import Blob, Kind
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.kernel.ids import base32, derived_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.papers.document_types import type_of
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.capabilities.complaints import Complaining, ComplaintFound
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Declined, Unknown
from tongbao.rails.channels.exchange import IMAGES_MAX

BYTES_MAX: Final = 5 * 1024 * 1024
"""The largest picture that a channel gives; the table says so too."""
_OF_ONE_MAX: Final = 60
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 60, 600, 3600))
FETCH_POLICY: Final = RetryPolicy(attempts_max=30, delays=_DELAYS)


class FetchImages(Task, frozen=True, tag="complaints.fetch_images"):
    """Fetch what a customer sent along from the channel."""

    book: int
    complaint_id: UUID


def image_writes(complaint: Complaint, found: ComplaintFound, now: datetime) -> list[Write]:
    """Return the writes that want every picture of a customer's, and have them fetched."""
    wanted = [
        (each.ref, ref) for each in found.messages if each.who == "customer" for ref in each.images
    ][:_OF_ONE_MAX]
    if not wanted:
        return []
    place = (complaint.book, complaint.id)
    rows = [
        Write(
            store.INSERT_IMAGE,
            (
                complaint.book,
                derived_id(complaint.id, f"image {ref}"),
                complaint.id,
                *(complaint.merchant_id, complaint.mode, ref, message_ref, now),
            ),
        )
        for message_ref, ref in wanted
    ]
    key = f"images/{complaint.id}/{len(wanted)}"
    return [*rows, task_write(FetchImages(*place), run_at=now, key=key)]


async def run_fetch_images(
    flow: Flow, blobs: Blobs, task: FetchImages, _lease: Lease
) -> Again | None:
    """Fetch what is wanted; return when to try the rest again, or None when nothing is left."""
    complaint = await store.GET_COMPLAINT.one(flow.db, task.book, task.complaint_id)
    account = await flow.account(complaint.account_id)
    images = await store.IMAGES_OF.all(flow.db, complaint.book, complaint.id)
    ends = [
        await _fetch(flow, blobs, account, each)
        for each in images
        if each.state is ImageState.WANTED
    ]
    return None if all(ends) else Again(_DELAYS[-1])


async def _fetch(flow: Flow, blobs: Blobs, account: ChannelAccount, image: Image) -> bool:
    """Fetch one picture and write down what became of it; return whether that is its end."""
    channel = flow.channels[account.channel]
    if not isinstance(channel, Complaining):
        raise TypeError(f"{account.channel} takes no complaints")
    answer = await channel.read_complaint_image(account, image.channel_ref)
    failpoint("complaints.after_image")
    match answer.outcome:
        case bytes():
            await _keep(flow.db, blobs, image, answer.outcome)
        case Absent():
            await _end(flow.db, image, ImageState.GONE)
        case Declined():
            await _end(flow.db, image, ImageState.REFUSED)
        case Unknown():
            return False
    return True


async def _keep(db: Db, blobs: Blobs, image: Image, content: bytes) -> None:
    name = await begin_upload(db, f"complaint/{base32(image.complaint_id)}")
    media_type = type_of(content).value
    blob = await blobs.put(name, content, kind=Kind(media_type), bytes_max=BYTES_MAX)
    failpoint("complaints.after_image_blob")
    async with db.begin("complaints") as tx:
        what = (ImageState.KEPT, media_type, blob.size, blob.sha256, blob.name, tx.now)
        if await store.END_IMAGE.run(tx, image.book, image.id, *what):
            await name_upload(tx, blob.name)


async def _end(db: Db, image: Image, state: ImageState) -> None:
    nothing = (None, None, None, None)
    await store.END_IMAGE.run(db, image.book, image.id, state, *nothing, db.clock.now())


async def images_of(on: Db | Tx, complaint: Complaint) -> list[Image]:
    """Return what the customer sent along, in the order it was seen."""
    return await store.IMAGES_OF.all(on, complaint.book, complaint.id)


async def image_of_merchant(on: Db | Tx, image_id: UUID, merchant: UUID, mode: Mode) -> Image:
    """Return a picture of one of the merchant's complaints.

    Raises:
        ImageNotFound: also for another merchant's, or another mode's.
    """
    found = await store.FIND_IMAGE.first(on, image_id, merchant, mode)
    if found is None:
        raise ImageNotFound
    return found


async def content_of_image(blobs: Blobs, image: Image) -> bytes:
    """Return the picture, checked against the digest in its row.

    Raises:
        ImageNotFound: it is not here, or is none.
        BlobNotFound, BlobDamaged, BlobStoreUnavailable
    """
    if image.blob is None or image.media_type is None:
        raise ImageNotFound
    return await blobs.get(
        Blob(image.blob, Kind(image.media_type), image.size or 0, image.sha256 or "")
    )


async def attach_images(tx: Tx, complaint: Complaint, reply: Reply, files: Sequence[UUID]) -> None:
    """Write down which files go with an answer, in the answer's own commit.

    Raises:
        ImageNotSendable
    """
    kept = {each.id: each for each in await files_of(tx, complaint.book, complaint.id)}
    if len(files) > IMAGES_MAX or len(set(files)) < len(files):
        raise ImageNotSendable(images_max=IMAGES_MAX)
    for place, file_id in enumerate(files):
        if file_id not in kept or not kept[file_id].media_type.startswith("image/"):
            raise ImageNotSendable
        await store.INSERT_REPLY_IMAGE.run(tx, reply.book, reply.id, place, file_id)


async def sent_up(
    flow: Flow, blobs: Blobs, account: ChannelAccount, complaint: Complaint, reply: Reply
) -> list[str] | Declined | None:
    """Return what the channel calls an answer's pictures, having sent up what it has not yet.

    Declined: it does not take one of them. None: it did not say; the answer waits.
    """
    channel = flow.channels[account.channel]
    files = {each.id: each for each in await files_of(flow.db, complaint.book, complaint.id)}
    refs = []
    for each in await store.REPLY_IMAGES.all(flow.db, reply.book, reply.id):
        if each.channel_ref is not None:
            refs.append(each.channel_ref)
            continue
        if not isinstance(channel, Complaining):
            raise TypeError(f"{account.channel} takes no complaints")
        file = files[each.file_id]
        content = await content_of(blobs, file)
        answer = await channel.send_complaint_image(account, file.media_type, content)
        failpoint("complaints.after_image_sent")
        if isinstance(answer.outcome, Declined):
            return answer.outcome
        if not isinstance(answer.outcome, str):
            return None
        refs.append(await _written(flow.db, each, answer.outcome))
    return refs


async def _written(db: Db, image: ReplyImage, ref: str) -> str:
    await store.SENT_UP.run(db, image.book, image.reply_id, image.place, ref[:512])
    return ref
