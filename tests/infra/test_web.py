"""The HTTP edge: body limits, routing, strict decoding, problems, scopes, the document."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from litestar import get, post
from msgspec import Meta, Struct

from tests.infra.signed_client import Reply, SignedClient, call
from tongbao.infra.admission.authentication import SigningKey
from tongbao.infra.db import Db
from tongbao.infra.db_failures import LockNotFree, ValueOutOfRange
from tongbao.infra.serving.app import App, RouteWithoutScope
from tongbao.infra.serving.asgi import BODY_MAX
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.settings import Secret
from tongbao.infra.web import problem
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.problem import TooManyRequests, language_of, status_of
from tongbao.infra.web.request import ApiRequest, MalformedJson, decode
from tongbao.kernel.errors import NotFound, Rejected, leaf_refusals
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode

SECRET = "sk_sandbox_correct-horse-battery-staple"
FACTS = ApiFacts(
    title="Test",
    version="2026-11-21",
    description="",
    public_url="https://pay.example",
    docs_url="https://pay.example/docs/refusals",
    scopes={"things:read": "See things.", "things:write": "Make things."},
)


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part."""

    size: Annotated[int, Meta(ge=1)]


class MakeThing(Struct, frozen=True, forbid_unknown_fields=True):
    """What to make."""

    amount: int
    name: Annotated[str, Meta(max_length=8)] = ""
    parts: Annotated[list[Part], Meta(max_length=2)] = []
    owner: UUID | None = None
    labels: dict[str, str] = {}


class Thing(Struct, frozen=True):
    """What was made."""

    amount: int
    name: str


class ThingBroken(Rejected):
    """The thing broke."""

    code = "test.thing_broken"
    advice = "Mend it."
    advice_zh = "请修理。"


class ThingAbsent(NotFound):
    """There is no such thing."""

    code = "test.thing_absent"
    advice = "Look elsewhere."
    advice_zh = "请到别处查找。"


@post("/v1/things", opt=needs("things:write"))
async def make_thing(data: MakeThing, caller: Caller) -> Thing:
    """Make a thing.

    More about it.
    """
    assert caller.mode is Mode.SANDBOX
    return Thing(data.amount, data.name)


@get("/v1/things", opt=needs("things:read"))
async def list_things(
    limit: int | None = None, since: datetime | None = None, name: str = ""
) -> list[Thing]:
    """List things."""
    return [Thing(limit or 0, name)]


@get("/v1/things/{thing_id:str}", opt=needs("things:read", refuses=[ThingAbsent, ThingBroken]))
async def get_thing(thing_id: str) -> Thing:
    """Return a thing."""
    match thing_id:
        case "busy":
            raise LockNotFree
        case "limited":
            raise TooManyRequests
        case "broken":
            raise ThingBroken(param="$.thing", how="twice")
        case "endless":
            raise ValueOutOfRange
        case "bug":
            raise RuntimeError("the secret is sk_live_xyz")
        case "one":
            return Thing(1, "one")
        case _:
            raise ThingAbsent


@get("/v1/mine", opt=needs("things:read"))
async def list_mine(db: Db, caller: Caller) -> list[Thing]:
    """List things, with all that a route may be given."""
    return [Thing(caller.book, type(db).__name__)]


class OneKey:
    """The record of a single key."""

    def __init__(self, *scopes: str, revoked: bool = False) -> None:
        self.caller = Caller(new_id(), new_id(), Mode.SANDBOX, 2, frozenset(scopes))
        self.revoked = revoked
        self.uses = 0

    @property
    def id(self) -> str:
        return show("key", self.caller.key_id)

    async def find(self, key_id: UUID) -> SigningKey | None:
        if key_id != self.caller.key_id:
            return None
        return SigningKey(self.caller, Secret(SECRET), self.revoked)

    async def note_use(self, key: SigningKey) -> None:
        self.uses += 1


HANDLERS = [make_thing, list_things, get_thing]


@pytest.fixture
def keys() -> OneKey:
    return OneKey("things:read", "things:write")


@pytest.fixture
def app(db: Db, keys: OneKey) -> App:
    return App(HANDLERS, db=db, keys=keys, facts=FACTS)


@pytest.fixture
def client(app: App, keys: OneKey) -> SignedClient:
    return SignedClient(app, keys.id, SECRET)


async def test_a_signed_request_is_served(client: SignedClient) -> None:
    made = await client.post("/v1/things", {"amount": 1, "name": "a"})
    listed = await client.get("/v1/things?limit=3&since=2026-11-21T00:00:00Z")

    assert (made.status, made.json) == (201, {"amount": 1, "name": "a"})
    assert (listed.status, listed.json) == (200, [{"amount": 3, "name": ""}])


async def test_no_task_is_started_for_what_a_route_is_given(db: Db, keys: OneKey) -> None:
    client = SignedClient(App([list_mine], db=db, keys=keys, facts=FACTS), keys.id, SECRET)
    loop, started = asyncio.get_running_loop(), []

    def watched(_: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
        started.append(work.cr_code.co_filename)
        return asyncio.Task(work, loop=loop, **named)

    loop.set_task_factory(watched)
    try:
        reply = await client.get("/v1/mine")
    finally:
        loop.set_task_factory(None)
    assert reply.json == [{"amount": 2, "name": "Db"}]
    assert not [each for each in started if "anyio" in each or "litestar" in each]


async def test_every_answer_carries_its_request_id_and_is_not_cached(client: SignedClient) -> None:
    done = await client.get("/v1/things/one")
    refused = await client.get("/v1/things/none")

    for reply in (done, refused):
        assert reply.headers["x-request-id"].startswith("req_")
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        policy = reply.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert refused.json["request_id"] == refused.headers["x-request-id"]
    assert done.headers["x-request-id"] != refused.headers["x-request-id"]


BAD_BODIES: list[tuple[bytes, str, str | None]] = [
    (b"{", "request.malformed_json", None),
    (b"nope", "request.malformed_json", None),
    (b'{"amount": 1} x', "request.malformed_json", None),
    (b'{"amount": 1, "name": "\xff"}', "request.malformed_json", None),
    (b'{"amount": NaN}', "request.malformed_json", None),
    (b'\xef\xbb\xbf{"amount": 1}', "request.malformed_json", None),
    (b"[" * 100_000, "request.wrong_type", "$"),
    (b"[]", "request.wrong_type", "$"),
    (b"null", "request.wrong_type", "$"),
    (b"{}", "request.missing_field", "$.amount"),
    (b'{"amount": 1, "parts": [{}]}', "request.missing_field", "$.parts[0].size"),
    (b'{"amount": 1, "amuont": 2}', "request.unknown_field", "$.amuont"),
    (b'{"amount": 1, "parts": [{"size": 1, "z": 1}]}', "request.unknown_field", "$.parts[0].z"),
    (b'{"amount": "1"}', "request.wrong_type", "$.amount"),
    (b'{"amount": 1.5}', "request.wrong_type", "$.amount"),
    (b'{"amount": 1.0}', "request.wrong_type", "$.amount"),
    (b'{"amount": true}', "request.wrong_type", "$.amount"),
    (b'{"amount": null}', "request.wrong_type", "$.amount"),
    (b'{"amount": 1, "name": 5}', "request.wrong_type", "$.name"),
    (b'{"amount": 1, "labels": {"a": 1}}', "request.wrong_type", "$.labels[...]"),
    (b'{"amount": 1, "name": "123456789"}', "request.invalid_value", "$.name"),
    (b'{"amount": 1, "parts": [{"size": 0}]}', "request.invalid_value", "$.parts[0].size"),
    (
        b'{"amount": 1, "parts": [{"size": 1},{"size": 1},{"size": 1}]}',
        "request.invalid_value",
        "$.parts",
    ),
    (b'{"amount": 1, "owner": "me"}', "request.invalid_value", "$.owner"),
    (b'{"amount": 1e400}', "request.invalid_value", "$.amount"),
    (b'{"amount": 1, "name": "\\u0000"}', "request.invalid_value", "$"),
    (b'{"amount": 1, "name": "\\\\\\u0000"}', "request.invalid_value", "$"),
]


@pytest.mark.parametrize(("body", "code", "param"), BAD_BODIES)
async def test_each_bad_body_has_a_refusal_of_its_own(
    client: SignedClient, body: bytes, code: str, param: str | None
) -> None:
    reply = await client.post("/v1/things", body=body)

    assert (reply.status, reply.code) == (400, code)
    assert reply.json.get("param") == param


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000])
def test_nesting_without_end_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        decode(body, Any)


async def test_text_that_only_looks_like_an_escaped_nul_is_text(client: SignedClient) -> None:
    reply = await client.post("/v1/things", body=b'{"amount": 1, "name": "\\\\u0000"}')

    assert reply.json["name"] == "\\u0000"


async def test_an_empty_body_where_one_is_needed_says_so(client: SignedClient) -> None:
    assert (await client.post("/v1/things")).code == "request.body_missing"


async def test_a_body_where_none_is_taken_says_so(client: SignedClient) -> None:
    reply = await client.send(
        "GET", "/v1/things", body=b"{}", headers={"content-type": "application/json"}
    )

    assert (reply.status, reply.code) == (400, "request.body_unexpected")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": ""},
    ],
)
async def test_only_plain_json_is_read(client: SignedClient, headers: dict[str, str]) -> None:
    reply = await client.post("/v1/things", {"amount": 1}, headers=headers)

    assert (reply.status, reply.code) == (415, "request.media_type_unsupported")


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=ten", "request.wrong_type", "limit"),
        ("limit=1.5", "request.wrong_type", "limit"),
        ("limit=null", "request.wrong_type", "limit"),
        ("since=Null", "request.wrong_type", "since"),
        ("since=yesterday", "request.invalid_value", "since"),
        ("limt=1", "request.unknown_field", "limt"),
        ("limit=1&limit=2", "request.repeated_parameter", "limit"),
        ("name=a%00b", "request.invalid_value", "query"),
    ],
)
async def test_each_bad_query_has_a_refusal_of_its_own(
    client: SignedClient, query: str, code: str, param: str
) -> None:
    reply = await client.get(f"/v1/things?{query}")

    assert (reply.status, reply.code, reply.json["param"]) == (400, code, param)


async def test_a_value_no_column_keeps_is_the_callers_mistake(client: SignedClient) -> None:
    reply = await client.get("/v1/things/endless")

    assert (reply.status, reply.code) == (400, "request.invalid_value")


async def test_an_announced_oversize_body_is_refused_unread(client: SignedClient) -> None:
    reply = await client.post(
        "/v1/things", {"amount": 1}, headers={"content-length": str(BODY_MAX + 1)}
    )

    assert (reply.status, reply.code) == (413, "request.body_too_large")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["", "-1", "4", "lots"])
async def test_chunked_bytes_are_counted_whatever_was_announced(
    client: SignedClient, length: str
) -> None:
    chunk = b"a" * 65_536

    reply = await client.post(
        "/v1/things", body=chunk, chunks=[chunk] * 17, headers={"content-length": length}
    )

    assert (reply.status, reply.code) == (413, "request.body_too_large")


async def test_a_body_of_exactly_the_limit_is_read(client: SignedClient) -> None:
    body = b'{"amount":1}'.ljust(BODY_MAX)

    reply = await client.post("/v1/things", body=body, chunks=[body[:700], body[700:]])

    assert reply.status == 201


async def test_nobody_is_answered_when_the_client_leaves_halfway(client: SignedClient) -> None:
    reply = await client.post("/v1/things", body=b"{}", chunks=[])

    assert reply.status == 0


async def test_unknown_paths_and_methods_are_problems(client: SignedClient) -> None:
    nowhere = await client.get("/v1/nothing")
    deleted = await client.send("DELETE", "/v1/things")
    options = await client.send("OPTIONS", "/v1/things")
    head = await client.send("HEAD", "/v1/things/one")
    trace = await client.send("TRACE", "/v1/things")
    nul = await client.get("/v1/things/a%00b")

    assert (nowhere.status, nowhere.code) == (404, "request.not_found")
    assert (nul.status, nul.code) == (404, "request.not_found")
    for reply in (deleted, options, head, trace):
        assert (reply.status, reply.code) == (405, "request.method_not_allowed")
        assert "GET" in reply.headers["allow"]
        assert "OPTIONS" not in reply.headers["allow"]


async def test_a_refusal_becomes_problem_details(client: SignedClient) -> None:
    reply = await client.get("/v1/things/broken")

    assert reply.status == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["content-language"] == "en"
    assert reply.json == {
        "type": "https://pay.example/docs/refusals#test.thing_broken",
        "title": "The thing broke.",
        "status": 422,
        "code": "test.thing_broken",
        "param": "$.thing",
        "detail": "The thing broke. (how=twice)",
        "advice": "Mend it.",
        "doc_url": "https://pay.example/docs/refusals#test.thing_broken",
        "request_id": reply.headers["x-request-id"],
        "facts": {"how": "twice"},
    }


async def test_advice_is_in_the_readers_language(client: SignedClient) -> None:
    reply = await client.get("/v1/things/broken", headers={"Accept-Language": "zh-CN,en;q=0.5"})

    assert reply.json["advice"] == "请修理。"
    assert reply.headers["content-language"] == "zh"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("en,zh", "en"),
        ("zh,en", "zh"),
        ("fr, zh-TW;q=0.4, en;q=0.3", "zh"),
        ("de;q=0.9", "en"),
        ("zh;q=0", "en"),
        ("zh;q=abc", "en"),
        ("*", "en"),
    ],
)
def test_languages_are_chosen_by_weight(header: str, language: str) -> None:
    assert language_of(header) == language


async def test_a_bug_is_told_without_what_went_wrong(client: SignedClient) -> None:
    reply = await client.get("/v1/things/bug")

    assert (reply.status, reply.code) == (500, "service.internal_error")
    assert b"sk_live" not in reply.body
    assert "RuntimeError" not in reply.body.decode()


async def test_busy_says_when_to_come_back(client: SignedClient) -> None:
    busy = await client.get("/v1/things/busy")
    limited = await client.get("/v1/things/limited")

    assert (busy.status, busy.headers["retry-after"]) == (503, "1")
    assert (limited.status, limited.headers["retry-after"]) == (429, "1")


def test_every_refusal_has_a_status() -> None:
    for refusal in leaf_refusals():
        assert 400 <= status_of(refusal) <= 503


@pytest.mark.parametrize("opt", [{}, needs("things:fly")])
def test_a_route_without_a_known_scope_keeps_the_program_from_starting(
    db: Db, keys: OneKey, opt: dict[str, Any]
) -> None:
    @get("/v1/open", opt=opt)
    async def open_door() -> Thing:
        """Leak."""
        return Thing(1, "")

    with pytest.raises(RouteWithoutScope):
        App([open_door], db=db, keys=keys, facts=FACTS)


async def _let_everybody_in(_request: ApiRequest) -> None:
    """Take the place of the hook that asks for the scope."""


@pytest.mark.parametrize("around", [{"before_request": _let_everybody_in}, {"cache": True}])
def test_a_route_that_goes_round_the_guard_keeps_the_program_from_starting(
    db: Db, keys: OneKey, around: dict[str, Any]
) -> None:
    @get("/v1/back", opt=needs("things:read"), **around)
    async def back_door() -> Thing:
        """Leak."""
        return Thing(1, "")

    with pytest.raises(RouteWithoutScope):
        App([back_door], db=db, keys=keys, facts=FACTS)


@pytest.mark.parametrize("held", [[], ["things:read"], ["things:write"]])
async def test_each_route_asks_for_exactly_its_scope(db: Db, held: list[str]) -> None:
    """The matrix of routes and scopes, made from the routes themselves."""
    keys = OneKey(*held)
    app = App(HANDLERS, db=db, keys=keys, facts=FACTS)
    client = SignedClient(app, keys.id, SECRET)

    for operation in app.operations:
        reply = await client.send(operation.method, operation.path.replace("{thing_id}", "one"))
        assert (reply.code == "auth.scope_missing") == (operation.access.scope not in held)
        assert (reply.status == 403) == (operation.access.scope not in held)


async def test_a_test_helper_answers_sandbox_keys_only(db: Db) -> None:
    @post("/v1/test_helpers/things", opt=needs("things:write", sandbox_only=True))
    async def help_thing() -> Thing:
        """Help."""
        return Thing(1, "")

    keys = OneKey("things:write")
    app = App([help_thing], db=db, keys=keys, facts=FACTS)
    client = SignedClient(app, keys.id, SECRET)
    allowed = await client.post("/v1/test_helpers/things")
    keys.caller = Caller(keys.caller.key_id, new_id(), Mode.LIVE, 1, keys.caller.scopes)
    refused = await client.post("/v1/test_helpers/things")

    assert allowed.status == 201
    assert (refused.status, refused.code) == (403, "auth.sandbox_only")


async def test_a_mounted_app_has_rights_of_its_own(db: Db, keys: OneKey) -> None:
    seen: list[tuple[str, bytes]] = []

    async def callbacks(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append((scope["path"], message["body"]))
        if scope["path"].endswith("/bug"):
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    app = App(HANDLERS, db=db, keys=keys, facts=FACTS, mounts={"/callbacks": callbacks})
    under = await call(app, "POST", "/callbacks/wechat_pay", {}, [b"<xml", b"/>"])
    beside = await call(app, "POST", "/callbacks_more", {}, [b""])
    large = await call(app, "POST", "/callbacks/a", {}, [b"a" * (BODY_MAX + 1)])
    bug = await call(app, "POST", "/callbacks/bug", {}, [b""])
    nul = await call(app, "POST", "/callbacks/\0", {}, [b""])

    assert (under.status, under.body) == (200, b"ok")
    assert seen[0] == ("/callbacks/wechat_pay", b"<xml/>")
    assert beside.code == "auth.header_missing"
    assert large.code == "request.body_too_large"
    assert bug.code == "service.internal_error"
    assert nul.code == "request.not_found"


async def test_the_server_is_told_that_it_may_start_and_stop(app: App) -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_document_is_open_to_read_and_describes_the_routes(app: App) -> None:
    reply: Reply = await call(app, "GET", "/v1/openapi.json", {}, [b""])
    written = await call(app, "POST", "/v1/openapi.json", {}, [b""])

    document = reply.json
    assert document == json.loads(json.dumps(app.document))
    assert written.code == "request.method_not_allowed"
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/v1/things", "/v1/things/{thing_id}"}
    made = document["paths"]["/v1/things"]["post"]
    assert made["operationId"] == "make_thing"
    assert made["summary"] == "Make a thing"
    assert made["description"] == "More about it."
    assert made["x-scope"] == "things:write"
    body = made["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/MakeThing"}
    assert document["components"]["schemas"]["MakeThing"]["additionalProperties"] is False
    listed = document["paths"]["/v1/things"]["get"]
    assert [each["name"] for each in listed["parameters"]] == ["limit", "since", "name"]
    shown = document["paths"]["/v1/things/{thing_id}"]["get"]["responses"]
    assert "test.thing_absent" in shown["404"]["content"][problem.MEDIA_TYPE]["examples"]
    assert {"200", "401", "403", "404", "422", "500", "503", "4XX", "5XX"} <= set(shown)


async def test_every_refusal_an_answer_may_have_is_in_the_document(app: App) -> None:
    for path in app.document["paths"].values():
        for operation in path.values():
            assert "auth.scope_missing" in json.dumps(operation["responses"]["403"])
