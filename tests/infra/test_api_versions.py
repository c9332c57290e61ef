"""Versions of the API by date: an older form is read and written, and one form is stored."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.infra.signed_client import SignedClient
from tests.infra.test_web import FACTS, HANDLERS, SECRET, OneKey
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.infra.web.versions import CURRENT, Change, Versions, VersionUnknown, answer_of

HEADER = "tongbao-version"


def _renamed(before: str, now: str) -> Change:
    def older(found: dict[str, Any]) -> dict[str, Any]:
        return {before if name == now else name: value for name, value in found.items()}

    def newer(found: dict[str, Any]) -> dict[str, Any]:
        return {now if name == before else name: value for name, value in found.items()}

    return Change(
        version=CURRENT,
        what=f"{before} is {now}",
        objects=frozenset({"thing"}),
        older=older,
        routes=frozenset({("POST", "/v1/things")}),
        newer=newer,
    )


def test_changes_are_undone_from_the_newest_to_the_oldest() -> None:
    first, second = _renamed("a", "b"), _renamed("b", "c")
    body = msgspec.json.encode({"items": [{"object": "thing", "c": {"object": "other", "c": 1}}]})
    assert msgspec.json.decode(answer_of([first, second], body)) == {
        "items": [{"object": "thing", "a": {"object": "other", "c": 1}}]
    }


def test_only_what_came_after_a_version_is_undone() -> None:
    early = Change(version="2026-10-15", what="x")
    late = Change(version="2026-11-01", what="y")
    versions = Versions("2026-10-01", (early, late))
    assert versions.known == ["2026-10-01", "2026-10-15", "2026-11-01"]
    assert versions.since("2026-10-01") == [early, late]
    assert versions.since("2026-10-15") == [late]
    assert versions.since("2026-11-01") == []
    with pytest.raises(VersionUnknown):
        versions.check("2026-10-02")


@pytest.fixture
def client(db: Db) -> SignedClient:
    keys = OneKey("things:read", "things:write")
    versions = Versions("2026-10-01", (_renamed("sum", "amount"),))
    app = App(HANDLERS, db=db, keys=keys, facts=FACTS, versions=versions)
    return SignedClient(app, keys.id, SECRET)


async def test_a_request_may_be_in_an_older_form(client: SignedClient) -> None:
    old, new = {HEADER: "2026-10-01"}, {HEADER: CURRENT}
    body = {"sum": 7, "name": "tea"}
    made = await client.post("/v1/things", body, headers=old)
    assert (made.status, made.json["amount"]) == (201, 7)
    assert int(made.headers["content-length"]) == len(made.body)
    assert (await client.post("/v1/things", body, headers=new)).code == "request.unknown_field"
    assert (await client.post("/v1/things", body)).code == "request.unknown_field"


async def test_refusals_are_the_same_in_every_form(client: SignedClient) -> None:
    old = {HEADER: "2026-10-01"}
    refused = await client.post("/v1/things", {"sum": 7, "odd": 1}, headers=old)
    assert refused.code in {"request.missing_field", "request.unknown_field"}
    for body in (b"[1]", b"7", b'"x"', b"{"):
        reply = await client.post("/v1/things", body=body, headers=old)
        assert reply.status == 400
    unknown = await client.post("/v1/things", {"amount": 1}, headers={HEADER: "2020-01-01"})
    assert unknown.code == "request.version_unknown"
    assert unknown.json["facts"] == {"oldest": "2026-10-01", "newest": CURRENT}
