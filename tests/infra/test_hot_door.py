"""Requests for a hot route take the short way in; what the route leaves goes on from there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import uvloop

from tongbao.infra import http_edge
from tongbao.infra.hot_routes import Answer, HotDoor, HotRequest
from tongbao.infra.http_edge import protocol_with
from tongbao.kernel.errors import Busy

PATH = "/v1/payments"
HEAD = (
    b"POST /v1/payments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"authorization: signed\r\nidempotency-key: one\r\n"
)
MADE = b'{"id": "pay_1"}'
Reader = asyncio.StreamReader
Connect = Callable[[], Any]


class Resting(Busy):
    """Nobody can say now."""

    code = "tests.resting"
    advice = "Come back."
    advice_zh = "稍后再来。"


class Route:
    """Answers what the test puts there; later when ``held`` is set."""

    def __init__(self) -> None:
        self.answer: Answer = MADE
        self.held: list[Callable[[Answer], None]] | None = None
        self.seen: list[HotRequest] = []

    async def asked(self, times: int) -> None:
        """Wait until it was asked so many times."""
        async with asyncio.timeout(10):
            while len(self.seen) < times:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.005)

    def take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        self.seen.append(request)
        if self.held is None:
            answered(self.answer)
        else:
            self.held.append(answered)


class Application:
    """What stands behind: it asks the door first, as ours does, and tells what it got."""

    def __init__(self, door: HotDoor) -> None:
        self.door = door
        self.begun = 0
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        try:
            found = await self.door.ask(scope, body)
        except Resting:
            found = b"resting"
        answer = b"<ordinary>" if found is None else b"<by asgi %b>" % found
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def route() -> Route:
    return Route()


@pytest.fixture
def application(route: Route) -> Application:
    return Application(HotDoor({PATH: route}))


@pytest.fixture
async def connect(application: Application) -> AsyncIterator[Connect]:
    async with serving(application) as connect:
        yield connect


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[Connect]:
    """Serve on the loop that runs; what comes of it opens a connection."""
    config = uvicorn.Config(
        application,
        port=0,
        http=protocol_with(application.door),
        log_config=None,
        lifespan="off",
        forwarded_allow_ips="127.0.0.1",
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
        await asyncio.sleep(0.005)
    port = int(server.servers[0].sockets[0].getsockname()[1])
    opened = []

    async def connect() -> tuple[Reader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    yield connect
    for writer in opened:
        writer.close()
    server.should_exit = True
    await task


def asked(body: bytes = b"{}", *more: bytes, head: bytes = HEAD) -> bytes:
    lines = b"".join(b"%b\r\n" % line for line in more)
    return head + lines + b"content-length: %d\r\n\r\n" % len(body) + body


async def answer_of(reader: Reader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


async def test_a_whole_request_is_answered_by_its_route_alone(
    connect: Connect, route: Route, application: Application
) -> None:
    reader, writer = await connect()
    for place in range(3):
        writer.write(asked(b'{"place": %d}' % place))
        status, headers, body = await answer_of(reader)
        assert (status, body) == (201, MADE)
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"].startswith("req_")
        assert (headers["cache-control"], headers["x-content-type-options"]) == (
            "no-store",
            "nosniff",
        )
        assert "date" in headers
        assert "connection" not in headers
    assert [json.loads(each.signed.body)["place"] for each in route.seen] == [0, 1, 2]
    [first, *_] = route.seen
    assert (first.signed.method, first.signed.target) == ("POST", PATH)
    assert first.signed.authorization == ("signed",)
    assert (first.idempotency_key, first.client_ip) == ("one", "127.0.0.1")
    assert application.bodies == []


async def test_what_the_route_leaves_is_taken_by_the_application_once(
    connect: Connect, route: Route, application: Application
) -> None:
    route.answer = None
    reader, writer = await connect()
    writer.write(asked(b'{"a": 1}'))
    assert (await answer_of(reader))[2] == b"<ordinary>"
    assert application.bodies == [b'{"a": 1}']
    assert len(route.seen) == 1


async def test_a_refusal_is_the_applications_to_say(
    connect: Connect, route: Route, application: Application
) -> None:
    route.answer = Resting()
    reader, writer = await connect()
    writer.write(asked())
    assert (await answer_of(reader))[2] == b"<by asgi resting>"
    assert len(route.seen) == 1


UNUSUAL = {
    "another method": asked(head=HEAD.replace(b"POST", b"PUT")),
    "a query": asked(head=HEAD.replace(b"payments ", b"payments?a=1 ")),
    "another path": asked(head=HEAD.replace(b"payments", b"refunds")),
    "no key": asked(head=HEAD.replace(b"idempotency-key: one\r\n", b"")),
    "an empty key": asked(head=HEAD.replace(b"one", b" ")),
    "not signed": asked(head=HEAD.replace(b"authorization: signed\r\n", b"")),
    "signed twice": asked(b"{}", b"authorization: signed"),
    "a key twice": asked(b"{}", b"idempotency-key: two"),
    "another form": asked(head=HEAD.replace(b"/json", b"/xml")),
    "packed": asked(b"{}", b"content-encoding: gzip"),
    "nothing": asked(b""),
}


@pytest.mark.parametrize("request_", UNUSUAL.values(), ids=UNUSUAL)
async def test_what_is_unusual_is_left_to_the_application(
    connect: Connect, route: Route, request_: bytes
) -> None:
    reader, writer = await connect()
    writer.write(request_)
    assert (await answer_of(reader))[2] == b"<ordinary>"
    assert route.seen == []


async def test_a_body_that_follows_its_head_soon_takes_the_short_way(
    connect: Connect, application: Application
) -> None:
    reader, writer = await connect()
    whole = asked(b'{"long": true}')
    for piece in (whole[:-14], whole[-14:-5], whole[-5:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)
    assert (await answer_of(reader))[2] == MADE
    assert application.bodies == []


async def test_a_body_that_takes_its_time_takes_the_long_way(
    connect: Connect, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_edge, "WHOLE_WITHIN_S", 0.001)
    reader, writer = await connect()
    whole = asked(b'{"long": true}')
    writer.write(whole[:-5])
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.write(whole[-5:])
    assert (await answer_of(reader))[2] == b"<by asgi %b>" % MADE
    assert application.bodies == [b'{"long": true}']


async def test_who_waits_to_be_told_to_go_on_is_told(connect: Connect, route: Route) -> None:
    reader, writer = await connect()
    writer.write(asked(b"{}", b"expect: 100-continue")[:-2])
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"{}")
    assert (await answer_of(reader))[2] == b"<by asgi %b>" % MADE


async def test_who_is_told_to_go_on_after_an_answer_before_need_not_send_first(
    connect: Connect, route: Route
) -> None:
    route.held = []
    reader, writer = await connect()
    writer.write(asked(b"1") + asked(b"2", b"expect: 100-continue")[:-1])
    await route.asked(1)
    first, route.held = route.held[0], None
    first(b"one")
    assert (await answer_of(reader))[2] == b"one"
    async with asyncio.timeout(5):  # nothing more comes until it is told
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"2")
    assert (await answer_of(reader))[2] == b"<by asgi %b>" % MADE


async def test_a_body_that_never_follows_its_head_is_not_waited_for_after_an_answer(
    connect: Connect, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_edge, "WHOLE_WITHIN_S", 0.001)
    reader, writer = await connect()
    writer.write(asked(b"1") + asked(b"22")[:-1])
    assert (await answer_of(reader))[2] == MADE
    async with asyncio.timeout(5):
        while not application.begun:  # noqa: ASYNC110 - it limits how long it waits for a body
            await asyncio.sleep(0.005)


async def test_requests_sent_at_once_are_answered_in_their_order(
    connect: Connect, route: Route
) -> None:
    route.held = []
    reader, writer = await connect()
    other = b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n"
    writer.write(asked(b"1") + other + asked(b"2"))
    for number in (1, 2):
        await route.asked(number)
        assert len(route.held) == number  # the next waits for this one
        route.held[number - 1](b"%d" % number)
    assert [(await answer_of(reader))[2] for _ in range(3)] == [b"1", b"<ordinary>", b"2"]


async def test_the_last_answer_of_a_connection_says_so(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(asked(b"{}", b"connection: close"))
    status, headers, _ = await answer_of(reader)
    assert (status, headers["connection"]) == (201, "close")
    assert await reader.read() == b""


async def test_an_answer_for_who_is_gone_is_for_nobody(connect: Connect, route: Route) -> None:
    route.held = []
    _, writer = await connect()
    writer.write(asked())
    await route.asked(1)
    writer.transport.abort()
    await asyncio.sleep(0.02)
    route.held[0](MADE)
    route.held = None
    reader, writer = await connect()
    writer.write(asked())
    assert (await answer_of(reader))[2] == MADE


async def test_a_trusted_proxy_says_who_the_client_is(connect: Connect, route: Route) -> None:
    reader, writer = await connect()
    writer.write(asked(b"{}", b"x-forwarded-for: 203.0.113.7"))
    await answer_of(reader)
    [seen] = route.seen
    assert seen.client_ip == "203.0.113.7"


async def test_a_trailer_is_no_header(connect: Connect, route: Route) -> None:
    """A proxy sets headers and leaves trailers alone: else a client could name itself."""
    reader, writer = await connect()
    trailers = b"2\r\n{}\r\n0\r\nx-forwarded-for: 203.0.113.9\r\nidempotency-key: two\r\n\r\n"
    head = b"x-forwarded-for: 203.0.113.7\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(HEAD + head + trailers)
    await answer_of(reader)
    [seen] = route.seen
    assert (seen.client_ip, seen.idempotency_key) == ("203.0.113.7", "one")


async def test_what_is_told_400_is_not_begun(connect: Connect, route: Route) -> None:
    reader, writer = await connect()
    writer.write(asked() + b"\0 nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    assert route.seen == []


class Large(Route):
    """Answers with much, a moment later, as one does that asks a database."""

    answer_bytes = 500_000

    def take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        self.seen.append(request)
        answer = b"%d " % len(self.seen) + b"." * self.answer_bytes
        asyncio.get_running_loop().call_soon(answered, answer)


async def test_who_does_not_read_its_answers_is_waited_for() -> None:
    """As by the application's way, which such a client takes: its answers cost memory."""
    route, times = Large(), 60
    application = Application(HotDoor({PATH: route}))
    async with serving(application) as connect:
        reader, writer = await connect()
        writer.write(asked() * times)
        while not application.bodies:
            assert len(route.seen) < times
            await asyncio.sleep(0.005)
        for number in range(1, times + 1):
            assert b"%d .." % number in (await answer_of(reader))[2][:20]


async def test_telling_who_left_raises_nothing_on_the_servers_loop() -> None:
    """uvloop raises where one writes to what is closed, and others of the set are told next."""
    await asyncio.to_thread(uvloop.run, leave_among_several_requests())


async def leave_among_several_requests() -> None:
    route = Route()
    route.held = []
    async with serving(Application(HotDoor({PATH: route}))) as connect:
        reader, writer = await connect()
        writer.write(asked(b"1") + asked(b"2") + asked(b"3"))
        await route.asked(1)
        route.held[0](MADE)
        await answer_of(reader)
        await route.asked(2)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        route.held[1](MADE)
