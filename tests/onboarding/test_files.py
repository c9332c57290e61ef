"""Documents that come as a body of their own: digest first, bounded, kept while they come."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest

from tests.kernel.test_document_types import HOSTILE, chunk, png
from tests.onboarding.applicants import Applicant, body
from tests.stage import Stage, new_number
from tests.surfaces.test_message_signing import own_key
from tongbao.infra.serving.asgi import BODY_MAX
from tongbao.kernel.ids import parse, show
from tongbao.parties.onboarding.documents import read_document
from tongbao.parties.onboarding.model import FILE_BYTES_MAX
from tongbao.parties.onboarding.queries import documents_of
from tongbao_sdk import Refused

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\n%%EOF\n"


def large_png(size: int) -> bytes:
    """A picture that holds so many bytes of text."""
    plain = png()
    return plain[:33] + chunk(b"tEXt", b"Comment\0" + b"x" * size) + plain[33:]


def digest_of(content: bytes) -> str:
    return f"sha-256=:{b64encode(sha256(content).digest()).decode()}:"


async def send(
    applicant: Applicant,
    made: dict[str, Any],
    content: bytes,
    *,
    kind: str = "store_front",
    pieces: list[bytes] | None = None,
    **headers: str | None,
) -> Any:
    """Send a file; a header of None is left out."""
    told: dict[str, str | None] = {
        "content_type": "image/png",
        "content_digest": digest_of(content),
        **headers,
    }
    return await applicant.client.send(
        "POST",
        f"/v1/applications/{made['id']}/files?kind={kind}",
        body=content,
        chunks=pieces or [content],
        headers={name.replace("_", "-"): value for name, value in told.items() if value},
    )


async def kept(applicant: Applicant, made: dict[str, Any]) -> list[Any]:
    return await documents_of(applicant.db, parse("app", made["id"]))


async def test_a_file_larger_than_any_body_is_kept_while_it_comes(
    applicant: Applicant, stage: Stage
) -> None:
    made, content = await applicant.apply(), large_png(3 * BODY_MAX)
    pieces = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]

    reply = await send(applicant, made, content, pieces=pieces)
    again = await send(applicant, made, content, pieces=pieces)

    [document] = await kept(applicant, made)
    assert reply.status == again.status == 200, reply.body
    assert reply.json["sha256"] == sha256(content).hexdigest()
    assert reply.json["id"] == again.json["id"] == show("doc", document.id)
    assert await read_document(stage.platform.blobs, document) == content


async def test_the_largest_file_arrives_by_the_sdk(applicant: Applicant, stage: Stage) -> None:
    made = await applicant.apply()
    room = FILE_BYTES_MAX - len(large_png(0))
    add = stage.client.applications.add_file

    told = await stage.call(add, made["id"], "store_front", large_png(room), "image/png")
    with pytest.raises(Refused) as refused:
        await stage.call(add, made["id"], "store_front", large_png(room + 1), "image/png")

    assert told["size"] == FILE_BYTES_MAX
    assert (refused.value.status, refused.value.code) == (413, "upload.too_large")


async def test_a_file_too_large_is_refused_before_it_is_read(applicant: Applicant) -> None:
    made, unread = await applicant.apply(), [b"never read"]

    reply = await send(applicant, made, b"", pieces=unread, content_length=str(FILE_BYTES_MAX + 1))

    assert (reply.status, reply.code) == (413, "upload.too_large")
    assert reply.json["facts"] == {"bytes_max": FILE_BYTES_MAX}


async def test_a_file_that_does_not_say_how_large_it_is_is_cut_off(applicant: Applicant) -> None:
    made, content = await applicant.apply(), png() + bytes(FILE_BYTES_MAX)
    pieces = [content[at : at + BODY_MAX] for at in range(0, len(content), BODY_MAX)]

    reply = await send(applicant, made, content, pieces=pieces)

    assert (reply.status, reply.code) == (413, "upload.too_large")
    assert await kept(applicant, made) == []


@pytest.mark.parametrize(
    ("status", "code", "changes"),
    [
        (401, "auth.signature_invalid", {"content_digest": None}),
        (401, "auth.signature_invalid", {"content_digest": "sha-256=:short=:"}),
        (401, "auth.signature_invalid", {"content_digest": digest_of(b"another")}),
        (400, "upload.digest_differs", {"pieces": [png(4, 4)]}),
        (400, "upload.incomplete", {"pieces": []}),
        (415, "upload.type_unsupported", {"content_type": "image/svg+xml"}),
        (415, "upload.type_unsupported", {"content_type": "application/json"}),
        (415, "upload.type_unsupported", {"content_encoding": "gzip"}),
        (422, "blob.kind_differs", {"content_type": "image/jpeg"}),
        (422, "document.type_refused", {"content_type": "application/pdf"}),
        (400, "request.missing_field", {"kind": ""}),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_kept(
    applicant: Applicant, status: int, code: str, changes: dict[str, Any]
) -> None:
    made = await applicant.apply()
    if changes.get("pieces") == []:  # who sent it is gone in the middle
        reply = await cut_off(applicant, made)
    elif changes.get("kind") == "":
        path = f"/v1/applications/{made['id']}/files"
        headers = {"content-type": "image/png", "content-digest": digest_of(png())}
        reply = await applicant.client.send("POST", path, body=png(), headers=headers)
    else:
        reply = await send(applicant, made, png(), **changes)

    assert (reply.status, reply.code) == (status, code), reply.body
    assert await kept(applicant, made) == []


async def cut_off(applicant: Applicant, made: dict[str, Any]) -> Any:
    """Say that more comes, and leave."""
    app = applicant.client.app

    async def leaving(scope: Any, receive: Any, respond: Any) -> None:
        async def first() -> Any:
            return {**await receive(), "more_body": True} if waiting.pop() else await receive()

        waiting = [False, True]
        await app(scope, first, respond)

    applicant.client.app = leaving
    return await send(applicant, made, png())


@pytest.mark.parametrize("name", ["zip behind a png", "png of a wall of pixels", "html", "pdf"])
async def test_a_hostile_file_is_looked_at_whole_before_a_row_names_it(
    applicant: Applicant, name: str
) -> None:
    made = await applicant.apply()

    reply = await send(applicant, made, HOSTILE[name]())

    assert reply.status == 422
    assert reply.code in {"document.type_refused", "blob.kind_differs"}
    assert await kept(applicant, made) == []


async def test_a_paper_may_be_a_pdf_and_stays_with_us(applicant: Applicant) -> None:
    made = await applicant.apply()

    reply = await send(applicant, made, PDF, kind="qualification", content_type="application/pdf")

    assert (reply.status, reply.json["media_type"]) == (200, "application/pdf")


async def test_other_bodies_are_bounded_as_before(applicant: Applicant) -> None:
    made = await applicant.apply()

    reply = await applicant.client.post(
        f"/v1/applications/{made['id']}/documents", body=bytes(BODY_MAX + 1)
    )

    assert (reply.status, reply.code) == (413, "request.body_too_large")


async def test_a_stranger_adds_no_file(applicant: Applicant, stage: Stage) -> None:
    made, stranger = await applicant.apply(), await stage.open_shop()
    add = stage.client_of(stranger).applications.add_file

    with pytest.raises(Refused) as refused:
        await stage.call(add, made["id"], "store_front", png(), "image/png")

    assert refused.value.code == "application.not_found"


async def test_a_file_may_be_signed_by_a_key_pair(stage: Stage) -> None:
    client, _ = await own_key(stage, "ed25519")
    made = await stage.call(client.applications.create, new_number(), body())

    told = await stage.call(
        client.applications.add_file, made["id"], "store_front", png(), "image/png"
    )

    assert told["sha256"] == sha256(png()).hexdigest()
