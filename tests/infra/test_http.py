"""What a call tells when the other side misbehaves, and whom the guard keeps from being called."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tongbao.infra.addresses import is_public
from tongbao.infra.http import (
    AddressRefused,
    Guard,
    HttpClient,
    HttpReply,
    LoopbackAllowed,
    NoAnswerError,
    NotSentError,
    PublicOnly,
)

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., Awaitable[str]]
PATIENT_S, IMPATIENT_S = 30.0, 0.3


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``await serve(script)`` returns the origin of a server that follows the script."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(script: Script, *, tls: ssl.SSLContext | None = None) -> str:
        async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            try:
                await script(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(follow, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """Read one request whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def says(reply: bytes, seen: list[bytes] | None = None) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        if seen is not None:
            seen.append(request)
        writer.write(reply)
        await writer.drain()

    return script


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Way: a\r\nX-Way: b\r\n\r\nok"


async def get(
    client: HttpClient, url: str, *, timeout_s: float = PATIENT_S, most: int = 1000
) -> HttpReply:
    return await client.send("GET", url, {}, timeout_s=timeout_s, reply_max_bytes=most)


async def test_a_request_arrives_as_it_was_signed(client: HttpClient, serve: Serve) -> None:
    seen: list[bytes] = []
    url = await serve(says(OK, seen)) + "/v3/a%2Fb/~c?x=%E4%B8%AD&y=1+2&z='"
    reply = await client.send(
        "POST", url, {"X-Key": "v"}, b'{"a": 1}', timeout_s=PATIENT_S, reply_max_bytes=100
    )
    assert (reply.status, reply.body) == (200, b"ok")
    assert reply.headers["x-way"] == "a, b"
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v3/a%2Fb/~c?x=%E4%B8%AD&y=1+2&z=' HTTP/1.1\r\n")
    assert b"\r\nx-key: v\r\n" in head
    assert body == b'{"a": 1}'


@pytest.mark.parametrize("status", [204, 302, 400, 404, 429, 500, 503])
async def test_every_status_is_an_answer(client: HttpClient, serve: Serve, status: int) -> None:
    url = await serve(says(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert (await get(client, url)).status == status


async def test_a_redirect_to_the_metadata_address_is_not_followed(
    client: HttpClient, serve: Serve
) -> None:
    seen: list[bytes] = []
    away = b"HTTP/1.1 302 X\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    reply = await get(client, await serve(says(away, seen)))
    assert (reply.status, len(seen)) == (302, 1)
    assert reply.headers["location"] == "http://169.254.169.254/"


async def test_proxies_of_the_environment_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client = HttpClient()
    assert (await get(client, await serve(says(OK)))).status == 200
    await client.close()


# Nothing left: NotSentError


async def test_a_refused_connection_is_not_sent(client: HttpClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(NotSentError, match="connect_tcp"):
            await get(client, f"http://127.0.0.1:{taken.getsockname()[1]}/")


async def test_a_name_nobody_knows_is_not_sent() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(NotSentError, match="name not resolved"):
        await get(HttpClient(resolve=unknown), "http://nowhere.example/")


async def test_a_resolver_that_never_answers_is_not_sent() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(NotSentError, match="TimeoutError at connect_tcp"):
        await get(HttpClient(resolve=silent), "http://slow.example/", timeout_s=IMPATIENT_S)


async def test_a_connection_closed_before_tls_is_not_sent(client: HttpClient, serve: Serve) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    url = (await serve(hang_up)).replace("http://", "https://")
    with pytest.raises(NotSentError, match="start_tls"):
        await get(client, url)


async def test_a_tls_handshake_that_hangs_is_not_sent(client: HttpClient, serve: Serve) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    url = (await serve(stall)).replace("http://", "https://")
    with pytest.raises(NotSentError, match="start_tls"):
        await get(client, url, timeout_s=IMPATIENT_S)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context for a self-made certificate and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)  # noqa: TID251 - a certificate is dated in real time
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


async def test_a_certificate_nobody_vouches_for_is_not_sent(
    client: HttpClient, serve: Serve, tmp_path: Path
) -> None:
    server, _ = certificate(tmp_path, "merchant.example")
    with pytest.raises(NotSentError, match="start_tls"):
        await get(client, await serve(says(OK), tls=server))


async def test_a_pinned_address_is_still_checked_against_the_name(
    serve: Serve, tmp_path: Path
) -> None:
    server, trusting = certificate(tmp_path, "merchant.example")
    seen: list[bytes] = []
    port = (await serve(says(OK, seen), tls=server)).rpartition(":")[2]
    client = HttpClient(LoopbackAllowed(), resolve=answers("127.0.0.1"), tls=trusting)
    assert (await get(client, f"https://merchant.example:{port}/")).status == 200
    assert f"host: merchant.example:{port}".encode() in seen[0].lower()
    with pytest.raises(NotSentError, match="start_tls"):
        await get(client, f"https://other.example:{port}/")
    await client.close()


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/", "http://user:pw@127.0.0.1/",
     "http://127.0.0.1/#x", "http://127.0.0.1/a b", "http://[::1", "http://例子.中国/",
     "http://a\\@127.0.0.1/", "http://127.0.0.1/\r\nx: y"],
)  # fmt: skip
async def test_what_is_not_a_plain_http_url_is_not_sent(client: HttpClient, url: str) -> None:
    with pytest.raises(NotSentError):
        await get(client, url)
    with pytest.raises(AddressRefused):
        await client.check(url)


async def test_a_header_that_cannot_be_written_is_not_sent(
    client: HttpClient, serve: Serve
) -> None:
    seen: list[bytes] = []
    url = await serve(says(OK, seen))
    with pytest.raises(NotSentError, match="LocalProtocolError"):
        await client.send("GET", url, {"x": "a\r\nb: c"}, timeout_s=9, reply_max_bytes=9)
    assert seen == []


# Something left: NoAnswerError


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
    )


async def reset_before_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
    )


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("script", [close_at_once, reset, reset_before_reading])
async def test_a_connection_lost_before_the_reply_has_no_answer(
    client: HttpClient, serve: Serve, script: Script
) -> None:
    with pytest.raises(NoAnswerError):
        await get(client, await serve(script))


@pytest.mark.parametrize("script", [say_nothing, drip])
async def test_a_reply_that_outlasts_the_time_has_no_answer(
    client: HttpClient, serve: Serve, script: Script
) -> None:
    with pytest.raises(NoAnswerError) as silence:
        await get(client, await serve(script), timeout_s=IMPATIENT_S, most=10_000_000)
    assert silence.value.duration_ms > 0
    assert "Timeout" in silence.value.reason


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x:\r\n" * 1000 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["cut", "cut chunks", "cut head", "not http", "encoded", "large", "large, no length",
         "large head", "many headers", "two lengths"],
)  # fmt: skip
async def test_a_reply_cut_broken_or_too_large_has_no_answer(
    client: HttpClient, serve: Serve, reply: bytes
) -> None:
    with pytest.raises(NoAnswerError):
        await get(client, await serve(says(reply)), most=1000)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Way: a\r\n\r\n2\r\nok\r\n"


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (CHUNKED + b"0\r\n", b"x: " + b"x" * 4096 + b"\r\n"),
        (CHUNKED + b"0\r\nx: ", b"x" * 4096),
        (CHUNKED + b"1;", b"x" * 4096),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    ],
    ids=["trailers", "a trailer", "an extension", "not yet"],
)
async def test_what_comes_beside_a_body_without_end_has_no_answer(
    client: HttpClient, serve: Serve, beginning: bytes, more: bytes
) -> None:
    """Whoever takes our webhooks could fill our memory with it."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(beginning)
        while True:
            writer.write(more)
            await writer.drain()

    with pytest.raises(NoAnswerError, match="too large"):
        await get(client, await serve(script))


async def test_a_trailer_is_no_header(client: HttpClient, serve: Serve) -> None:
    url = await serve(says(CHUNKED + b"0\r\nX-Way: b\r\n\r\n"))
    assert (await get(client, url)).headers["x-way"] == "a"


@pytest.mark.parametrize(
    "late",
    [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b""],
    ids=["a word", "end"],
)
@pytest.mark.parametrize("is_tls", [False, True])
async def test_what_is_said_between_two_calls_answers_neither(
    serve: Serve, tmp_path: Path, late: bytes, *, is_tls: bool
) -> None:
    """A proxy that is tired of waiting says so: the next call must not take it for its answer."""
    server, trusting = certificate(tmp_path, "merchant.example") if is_tls else (None, None)
    opened: list[asyncio.StreamWriter] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while await request_of(reader):
            writer.write(OK)
            await writer.drain()

    port = (await serve(script, tls=server)).rpartition(":")[2]
    client = HttpClient(LoopbackAllowed(), resolve=answers("127.0.0.1"), tls=trusting)
    url = f"http{'s' if is_tls else ''}://merchant.example:{port}/"
    assert (await get(client, url)).status == 200
    assert (await get(client, url)).status == 200
    assert len(opened) == 1

    # Nothing of the loop runs between these words and the next call.
    words = opened[0].get_extra_info("socket").dup()
    words.send(late) if late else words.shutdown(socket.SHUT_WR)
    words.close()
    assert (await get(client, url)).status == 200
    assert len(opened) == 2
    await client.close()


async def test_a_reply_of_exactly_the_cap_is_an_answer(client: HttpClient, serve: Serve) -> None:
    url = await serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000))
    assert len((await get(client, url, most=1000)).body) == 1000


async def test_a_cancelled_call_stays_cancelled(client: HttpClient, serve: Serve) -> None:
    call = asyncio.create_task(get(client, await serve(say_nothing)))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_after_a_failure_the_client_still_works(client: HttpClient, serve: Serve) -> None:
    with pytest.raises(NoAnswerError):
        await get(client, await serve(close_at_once))
    assert (await get(client, await serve(says(OK)))).status == 200


# Whom the guard keeps from being called


def answers(*rounds: str | Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that gives each round's addresses once, and the last ones from then on."""
    left = [[each] if isinstance(each, str) else list(each) for each in rounds]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


INNER = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "::",
    "255.255.255.255", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
async def test_an_inner_address_is_never_called_for_a_merchant(address: str) -> None:
    client = HttpClient(PublicOnly(), resolve=answers(address))
    with pytest.raises(NotSentError, match="address not allowed"):
        await get(client, "https://merchant.example/hook")
    with pytest.raises(AddressRefused):
        await client.check("https://merchant.example/hook")


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
async def test_a_public_address_passes(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    await HttpClient(PublicOnly(), resolve=answers(address)).check("https://merchant.example/")


async def test_one_inner_address_among_public_ones_refuses_the_name() -> None:
    client = HttpClient(PublicOnly(), resolve=answers(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(NotSentError, match="address not allowed"):
        await get(client, "https://merchant.example/hook")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]"]
)
async def test_other_spellings_of_this_machine_are_refused_too(host: str) -> None:
    with pytest.raises(NotSentError):
        await get(HttpClient(PublicOnly()), f"https://{host}:8443/")


async def test_a_name_that_changes_its_address_after_the_check_is_caught_at_the_call(
    serve: Serve,
) -> None:
    seen: list[bytes] = []
    port = (await serve(says(OK, seen))).rpartition(":")[2]
    client = HttpClient(PublicOnly(), resolve=answers("8.8.8.8", "127.0.0.1"))
    await client.check(f"https://rebinding.example:{port}/")
    with pytest.raises(NotSentError, match="address not allowed"):
        await get(client, f"https://rebinding.example:{port}/")
    assert seen == []


async def test_a_name_is_resolved_once_per_connection_and_that_address_called(
    serve: Serve,
) -> None:
    """No second look-up comes between the check and the connection."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    port = (await serve(says(OK))).rpartition(":")[2]
    client = HttpClient(LoopbackAllowed(), resolve=resolve)
    assert (await get(client, f"http://merchant.example:{port}/")).status == 200
    assert asked == ["merchant.example"]
    await client.close()


async def test_when_the_first_address_is_dead_the_next_one_is_tried(serve: Serve) -> None:
    port = (await serve(says(OK))).rpartition(":")[2]
    client = HttpClient(resolve=answers(["127.0.0.2", "127.0.0.1"]))
    assert (await get(client, f"http://merchant.example:{port}/")).status == 200
    await client.close()


@pytest.mark.parametrize(
    ("guard", "url"),
    [
        (PublicOnly(), "http://merchant.example/"),
        (PublicOnly(), "https://merchant.example:25/"),
        (LoopbackAllowed(), "http://merchant.example:22/"),
    ],
)
async def test_plain_http_and_system_ports_are_refused(guard: Guard, url: str) -> None:
    client = HttpClient(guard, resolve=answers("8.8.8.8"))
    with pytest.raises(NotSentError):
        await get(client, url)


async def test_the_demo_guard_allows_this_machine_but_no_inner_network(serve: Serve) -> None:
    client = HttpClient(LoopbackAllowed())
    assert (await get(client, await serve(says(OK)))).status == 200
    for host in ("10.0.0.1", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            await client.check(f"http://{host}/")
    await client.close()


# Downloads

FILE = b"a,b\n" * 5000


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


async def fetch(client: HttpClient, url: str, path: Path, most: int = 1_000_000):
    return await client.download(url, {}, path, timeout_s=PATIENT_S, max_bytes=most)


async def test_a_file_is_fetched_whole_with_its_digest(
    client: HttpClient, serve: Serve, tmp_path: Path
) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(FILE) + FILE
    got = await fetch(client, await serve(says(reply)), tmp_path / "bill.csv")
    assert got.path == tmp_path / "bill.csv"
    assert got.path.read_bytes() == FILE
    assert (got.size, got.sha256) == (len(FILE), hashlib.sha256(FILE).hexdigest())
    assert names_in(tmp_path) == ["bill.csv"]


@pytest.mark.parametrize("most", [len(FILE) - 1, len(FILE)])
async def test_a_file_too_large_or_cut_leaves_nothing(
    client: HttpClient, serve: Serve, tmp_path: Path, most: int
) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(FILE) + 1) + FILE
    with pytest.raises(NoAnswerError):
        await fetch(client, await serve(says(reply)), tmp_path / "bill.csv", most)
    assert names_in(tmp_path) == []


async def test_an_answer_instead_of_a_file_is_returned_and_no_file_made(
    client: HttpClient, serve: Serve, tmp_path: Path
) -> None:
    reply = b"HTTP/1.1 404 X\r\nContent-Length: 4\r\n\r\nnone"
    got = await fetch(client, await serve(says(reply)), tmp_path / "bill.csv")
    assert (got.status, got.path, got.body) == (404, None, b"none")
    assert names_in(tmp_path) == []


# Connections stay open


def answering(replies: Sequence[bytes], connections: list[int]) -> Script:
    """Answer one request after the other on each connection, and count the connections."""
    left = list(replies)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        while left:
            await request_of(reader)
            writer.write(left.pop(0))
            await writer.drain()

    return script


async def test_a_connection_carries_one_request_after_the_other(
    client: HttpClient, serve: Serve
) -> None:
    connections: list[int] = []
    url = await serve(answering([OK, OK, OK], connections))
    for _ in range(3):
        assert (await get(client, url)).body == b"ok"
    assert len(connections) == 1


async def test_calls_at_one_time_have_a_connection_each(client: HttpClient, serve: Serve) -> None:
    connections: list[int] = []
    both = asyncio.Barrier(2)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        await request_of(reader)
        await both.wait()
        writer.write(OK)
        await writer.drain()

    url = await serve(script)
    replies = await asyncio.gather(get(client, url), get(client, url))
    assert [reply.body for reply in replies] == [b"ok", b"ok"]
    assert len(connections) == 2


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
    ],
    ids=["says close", "is old", "says more than was asked"],
)
async def test_a_connection_that_should_end_is_not_used_again(
    client: HttpClient, serve: Serve, first: bytes
) -> None:
    connections: list[int] = []
    url = await serve(answering([first, OK], connections))
    for _ in range(2):
        assert (await get(client, url)).body == b"ok"
    assert len(connections) == 2


async def test_a_connection_that_ended_meanwhile_is_not_used_again(
    client: HttpClient, serve: Serve
) -> None:
    connections: list[int] = []
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        await request_of(reader)
        writer.write(OK)
        await writer.drain()
        ended.set()

    url = await serve(script)
    assert (await get(client, url)).body == b"ok"
    await ended.wait()
    await asyncio.sleep(0.02)
    assert (await get(client, url)).body == b"ok"
    assert len(connections) == 2


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    ],
    ids=["hints before", "no length", "chunks"],
)
async def test_an_answer_is_read_whole_however_it_ends(
    client: HttpClient, serve: Serve, reply: bytes, body: bytes
) -> None:
    assert (await get(client, await serve(says(reply)))).body == body
