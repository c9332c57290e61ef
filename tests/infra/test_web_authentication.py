"""Signed requests: what the header may look like, what is signed, how long, and only once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.signed_client import SignedClient, call
from tests.infra.test_web import FACTS, HANDLERS, SECRET, OneKey
from tongbao.infra.admission import _store as store
from tongbao.infra.admission import authentication
from tongbao.infra.admission.authentication import (
    Authorization,
    HeaderMalformed,
    HeaderMissing,
    KeyUnknown,
    SignedRequest,
    authenticate,
    nonces_of,
    prune_nonces,
    read_authorization,
)
from tongbao.infra.admission.nonces import Nonce
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show

KEY_ID = UUID("019a3c00-0000-7000-8000-000000000001")
GOOD = {
    "key": show("key", KEY_ID),
    "timestamp": "1763712000",
    "nonce": "0123456789abcdef",
    "signature": base64.b64encode(b"s" * 32).decode(),
}


def header(**changes: str | None) -> str:
    parts = {**GOOD, **changes}
    shown = ",".join(f"{name}={value}" for name, value in parts.items() if value is not None)
    return f"TONGBAO-HMAC-SHA256 {shown}"


@pytest.fixture
def keys() -> OneKey:
    return OneKey("things:read", "things:write")


@pytest.fixture
def app(db: Db, keys: OneKey) -> App:
    return App(HANDLERS, db=db, keys=keys, facts=FACTS)


@pytest.fixture
def client(app: App, keys: OneKey) -> SignedClient:
    return SignedClient(app, keys.id, SECRET)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> object:
    """``later(seconds)`` moves the edge's real time."""

    def move(seconds: float) -> None:
        moved = real_now() + timedelta(seconds=seconds)
        monkeypatch.setattr(authentication, "real_now", lambda: moved)

    return move


def test_the_signature_is_the_one_the_documentation_describes() -> None:
    """A worked example, computed with openssl."""
    request = SignedRequest("POST", "/v1/payments?x=1", b'{"amount":1}', ())

    text = authentication.signing_text(request, 1763712000, "0123456789abcdef")

    assert text == (
        b"POST\n/v1/payments?x=1\n1763712000\n0123456789abcdef\n"
        b"c2b11e657e12fd177359627ca89412018e2274d0873cfbfcf1fc50f685582e9e\n"
    )
    assert (
        hmac.new(b"sk_sandbox_example", text, hashlib.sha256).hexdigest()
        == "bd21f8cece0aa365343bdf60e70459f433c77942096136a4812dbf2c4315d31a"
    )


def test_the_header_is_read() -> None:
    said = read_authorization([header()])

    assert said == Authorization(KEY_ID, 1763712000, "0123456789abcdef", b"s" * 32)


def test_order_and_a_space_after_the_comma_do_not_matter() -> None:
    parts = [f"{name}={value}" for name, value in reversed(GOOD.items())]

    assert read_authorization(["tongbao-hmac-sha256 " + ", ".join(parts)]).key_id == KEY_ID


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer sk_live_x",
        "TONGBAO-HMAC-SHA256",
        "TONGBAO-HMAC-SHA256 ",
        header(nonce=None),
        header(signature=None),
        header(timestamp=None),
        header(key=None),
        header(nonce="short"),
        header(nonce="n" * 129),
        header(nonce="contains a space!"),
        header(timestamp="-1"),
        header(timestamp="1e9"),
        header(timestamp="１７６３７１２０００"),
        header(timestamp="1" * 13),
        header(signature="not base64"),
        header(signature="abc"),
        header(signature="ab=c"),
        header() + ",nonce=0123456789abcdef",
        header() + ",extra=1",
        header() + ",",
        header().replace(",", ";"),
        header() + "\r\nX: 1",
        header(key="key_" + "0" * 600),
    ],
)
def test_a_malformed_header_is_refused_as_such(value: str) -> None:
    with pytest.raises(HeaderMalformed):
        read_authorization([value])


def test_no_header_and_two_headers_are_told_apart() -> None:
    with pytest.raises(HeaderMissing):
        read_authorization([])
    with pytest.raises(HeaderMalformed):
        read_authorization([header(), header()])


@pytest.mark.parametrize("key", ["key_nonsense", "pay_" + GOOD["key"][4:], "key_" + "z" * 26])
def test_what_is_no_key_id_is_an_unknown_key(key: str) -> None:
    with pytest.raises(KeyUnknown):
        read_authorization([header(key=key)])


@given(
    st.one_of(st.text(), st.text(alphabet="TONGBAO-HMACSHA256 key=,timestamp=nonce=signature+/"))
)
def test_any_text_is_read_or_refused(text: str) -> None:
    for value in (text, f"TONGBAO-HMAC-SHA256 {text}", header() + text):
        with suppress(HeaderMalformed, KeyUnknown):
            read_authorization([value])


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "other"]),
        st.text(max_size=200) | st.sampled_from([*GOOD.values()]),
    )
)
def test_any_set_of_fields_is_read_or_refused(fields: dict[str, str]) -> None:
    value = "TONGBAO-HMAC-SHA256 " + ",".join(f"{name}={text}" for name, text in fields.items())

    with suppress(HeaderMalformed, KeyUnknown):
        said = read_authorization([value])

        assert fields.keys() == GOOD.keys()
        assert len(said.nonce) >= 16


@given(st.binary(max_size=64), st.text(max_size=20), st.integers(0, 10**12 - 1))
def test_no_two_requests_sign_the_same_bytes(body: bytes, tail: str, timestamp: int) -> None:
    """Every part ends at a line feed and none can contain one, so parts cannot be moved about."""
    target = "/v1/" + tail.encode().hex()
    one = SignedRequest("POST", target, body, ())
    other = SignedRequest("POST", target + "0", body, ())

    text = authentication.signing_text(one, timestamp, "n" * 16)

    assert text.count(b"\n") == 5
    assert text != authentication.signing_text(other, timestamp, "n" * 16)


async def test_an_unsigned_request_is_refused(client: SignedClient) -> None:
    reply = await client.get("/v1/things/one", signed=False)

    assert (reply.status, reply.code) == (401, "auth.header_missing")
    assert reply.headers["www-authenticate"] == "TONGBAO-HMAC-SHA256"


async def test_nothing_is_told_to_the_unsigned_not_even_what_exists(client: SignedClient) -> None:
    replies = [
        await client.send(method, target, signed=False)
        for method in ("GET", "POST", "DELETE", "OPTIONS")
        for target in ("/v1/things/one", "/v1/nothing")
    ]

    assert {reply.code for reply in replies} == {"auth.header_missing"}


async def test_an_unknown_key_is_refused(app: App) -> None:
    stranger = SignedClient(app, show("key", new_id()), SECRET)

    assert (await stranger.get("/v1/things/one")).code == "auth.key_unknown"


async def test_a_revoked_key_is_refused_by_name_only_to_who_holds_it(db: Db) -> None:
    keys = OneKey("things:read", revoked=True)
    app = App(HANDLERS, db=db, keys=keys, facts=FACTS)

    holder = await SignedClient(app, keys.id, SECRET).get("/v1/things/one")
    guesser = await SignedClient(app, keys.id, "sk_sandbox_guess").get("/v1/things/one")

    assert (holder.status, holder.code) == (401, "auth.key_revoked")
    assert (guesser.status, guesser.code) == (401, "auth.signature_invalid")


async def test_every_signed_part_matters(client: SignedClient) -> None:
    body = b'{"amount":1}'
    signed = client.authorization("POST", "/v1/things", body)
    json = {"content-type": "application/json"}

    async def send(method: str, target: str, body: bytes, value: str) -> str | None:
        sent = await client.send(method, target, body=body, headers=json, authorization=value)
        return sent.code

    wrong = "auth.signature_invalid"
    assert await send("PUT", "/v1/things", body, signed) == wrong
    assert await send("POST", "/v1/things?limit=1", body, signed) == wrong
    assert await send("POST", "/v1/thing%73", body, signed) == wrong
    assert await send("POST", "/v1/things", b'{"amount":2}', signed) == wrong
    assert await send("POST", "/v1/things", b'{"amount": 1}', signed) == wrong
    assert await send("POST", "/v1/things", body, signed.replace("nonce=", "nonce=x")) == wrong
    assert await send("POST", "/v1/things", body, signed) is None


async def test_the_signature_is_checked_on_raw_bytes_before_anything_is_parsed(
    client: SignedClient,
) -> None:
    """Broken JSON with a wrong signature is a wrong signature; with a right one, broken JSON."""
    body = b'{"amount": \xff'

    forged = await client.post("/v1/things", body=body, authorization=header(key=client.key_id))
    genuine = await client.post("/v1/things", body=body)

    assert forged.code == "auth.signature_invalid"
    assert genuine.code == "request.malformed_json"


async def test_chunks_do_not_change_what_was_signed(client: SignedClient) -> None:
    body = b'{"amount":1}'

    reply = await client.post("/v1/things", body=body, chunks=[body[:3], b"", body[3:]])

    assert reply.status == 201


@pytest.mark.parametrize(
    ("age", "code"),
    [(299, None), (-299, None), (302, "auth.timestamp_stale"), (-302, "auth.timestamp_stale")],
)
async def test_a_signature_is_good_for_five_minutes_either_side(
    client: SignedClient, age: int, code: str | None
) -> None:
    timestamp = int(real_now().timestamp()) - age
    signed = client.authorization("GET", "/v1/things/one", b"", timestamp=timestamp)

    reply = await client.get("/v1/things/one", authorization=signed)

    assert reply.code == code
    if code:
        assert abs(reply.json["facts"]["our_time"] - timestamp) in range(300, 310)


async def test_business_time_has_no_say_in_signatures(db: Db, client: SignedClient) -> None:
    db.clock.offset = timedelta(days=2)

    assert (await client.get("/v1/things/one")).status == 200


async def test_the_same_request_is_served_once(client: SignedClient, keys: OneKey) -> None:
    signed = client.authorization("GET", "/v1/things/one", b"")

    first = await client.get("/v1/things/one", authorization=signed)
    again = await client.get("/v1/things/one", authorization=signed)

    assert first.status == 200
    assert (again.status, again.code) == (401, "auth.nonce_replayed")
    assert keys.uses == 1


async def test_of_many_copies_at_once_one_is_served(client: SignedClient) -> None:
    signed = client.authorization("GET", "/v1/things/one", b"")

    replies = await asyncio.gather(
        *[client.get("/v1/things/one", authorization=signed) for _ in range(8)]
    )

    assert sorted(reply.status for reply in replies) == [200] + [401] * 7


async def test_a_nonce_belongs_to_its_key(db: Db) -> None:
    for _ in range(2):
        keys = OneKey("things:read")
        client = SignedClient(App(HANDLERS, db=db, keys=keys, facts=FACTS), keys.id, SECRET)
        signed = client.authorization("GET", "/v1/things/one", b"", nonce="0123456789abcdef")
        assert (await client.get("/v1/things/one", authorization=signed)).status == 200


async def test_a_forged_request_uses_no_nonce_up(client: SignedClient) -> None:
    nonce = "0123456789abcdef"
    forged = client.authorization("GET", "/v1/other", b"", nonce=nonce)
    genuine = client.authorization("GET", "/v1/things/one", b"", nonce=nonce)

    assert (await client.get("/v1/things/one", authorization=forged)).status == 401
    assert (await client.get("/v1/things/one", authorization=genuine)).status == 200


async def test_a_nonce_is_kept_until_every_signature_with_it_is_stale(
    db: Db, client: SignedClient, later: object
) -> None:
    """Signed by a clock five minutes ahead, a request stays good for ten minutes."""
    timestamp = int(real_now().timestamp()) + 299
    signed = client.authorization("GET", "/v1/things/one", b"", timestamp=timestamp)
    first = await client.get("/v1/things/one", authorization=signed)
    later(595)
    await prune_nonces(db)

    replayed = await client.get("/v1/things/one", authorization=signed)

    assert (first.status, replayed.code) == (200, "auth.nonce_replayed")


async def test_a_waiting_copy_sees_the_nonce_it_waited_for(db: Db) -> None:
    """Forced interleaving: the second insert waits for the first's commit, and then loses."""
    args = (KEY_ID, "0123456789abcdef", real_now() + timedelta(minutes=10), real_now())
    async with db.begin("first") as tx:
        assert await store.USE_NONCE.run(tx, *args) == 1
        second = asyncio.create_task(store.USE_NONCE.run(db, *args))
        await asyncio.sleep(0.05)
        assert not second.done()

    assert await second == 0


async def test_of_equal_nonces_at_one_moment_one_is_good(db: Db) -> None:
    """Those that wait together share a statement, and still each nonce is used once."""
    nonces = nonces_of(db)
    texts = [f"nonce-{number % 7:016d}" for number in range(40)]
    used = await asyncio.gather(*[nonces.use(Nonce(KEY_ID, text)) for text in texts])
    assert sum(used) == 7
    assert not any(await asyncio.gather(*[nonces.use(Nonce(KEY_ID, text)) for text in texts]))
    other = KEY_ID.int + 1
    assert await nonces.use(Nonce(UUID(int=other), texts[0]))


async def test_a_waiting_set_sees_the_nonce_it_waited_for(db: Db) -> None:
    """Forced interleaving: one nonce of the set is just being used elsewhere."""
    args = (KEY_ID, "0123456789abcdef", real_now() + timedelta(minutes=10), real_now())
    nonces = nonces_of(db)
    async with db.begin("first") as tx:
        assert await store.USE_NONCE.run(tx, *args) == 1
        wanted = [Nonce(KEY_ID, "0123456789abcdef"), Nonce(KEY_ID, "fedcba9876543210")]
        waiting = [asyncio.create_task(nonces.use(each)) for each in wanted]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in waiting)
    assert await asyncio.gather(*waiting) == [False, True]


async def test_two_authorization_headers_are_refused(app: App, keys: OneKey, db: Db) -> None:
    request = SignedRequest("GET", "/v1/things/one", b"", (header(), header()))

    with pytest.raises(HeaderMalformed):
        await authenticate(request, keys, nonces_of(db))


async def test_an_oversize_body_is_refused_before_its_signature_is_looked_at(app: App) -> None:
    reply = await call(app, "POST", "/v1/things", {}, [b"a" * 600_000] * 2)

    assert reply.code == "request.body_too_large"
