"""RFC 9421 signatures and encrypted fields: the RFC's own examples, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.signed_client import Reply, call
from tests.infra.test_web import FACTS, HANDLERS, SECRET, OneKey
from tests.outsiders import DRIVERS, heard_from, python_with
from tongbao.infra import sm2
from tongbao.infra.admission.authentication import SigningKey
from tongbao.infra.admission.message_signatures import (
    ComponentUnknown,
    SignatureInputMalformed,
    SignedMessage,
    read_message_signature,
    read_signatures,
    signature_base,
)
from tongbao.infra.db import Db
from tongbao.infra.public_keys import PublicKey, PublicKeyUnusable, read_public_key, verifies
from tongbao.infra.serving.app import App
from tongbao.kernel.clock import real_now

CLIENT = "http_message_signatures"
APPENDIX = Path(__file__).parents[1] / "vectors" / "rfc9421" / "appendix_b2.json"
VECTORS: dict[str, Any] = json.loads(APPENDIX.read_text())
THING = b'{"amount":1,"name":"tea"}'


@pytest.mark.parametrize("example", VECTORS["examples"], ids=lambda each: str(each["section"]))
def test_the_examples_of_the_rfc_verify_and_nothing_near_them(example: dict[str, str]) -> None:
    message = _message(example)
    [said] = read_signatures(message).values()
    key = str(said.parameters["keyid"])

    def is_signed(signed: bytes) -> bool:
        if key != "test-shared-secret":
            return verifies(read_public_key(VECTORS["keys"][key]), signed, said.signature)
        secret = base64.b64decode(VECTORS["shared_secret"])
        return hmac.digest(secret, signed, "sha256") == said.signature

    signed = signature_base(message, said)
    assert is_signed(signed)
    assert not is_signed(signed + b" ")


def _message(example: Mapping[str, str]) -> SignedMessage:
    sent = VECTORS[example["message"]]
    headers = [(name, value) for name, value in sent["headers"]]
    headers += [("signature-input", example["signature_input"])]
    headers += [("signature", example["signature"])]
    return SignedMessage(
        sent.get("method", ""),
        sent.get("scheme", ""),
        sent.get("target", ""),
        headers,
        sent["body"].encode(),
        sent.get("status"),
    )


# A sender's side, written from the RFC and not from our code.

Sign = Callable[[bytes], bytes]


def _ed25519() -> tuple[str, Sign]:
    key = ed25519.Ed25519PrivateKey.generate()
    return _pem(key.public_key()), key.sign


def _p256() -> tuple[str, Sign]:
    key = ec.generate_private_key(ec.SECP256R1())

    def sign(text: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return _pem(key.public_key()), sign


def _rsa() -> tuple[str, Sign]:
    key = rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(SHA512()), 64)
    return _pem(key.public_key()), lambda text: key.sign(text, pss, SHA512())


def _sm2() -> tuple[str, Sign]:
    provider = sm2.provider()
    if provider is None:
        pytest.skip("this machine has no SM2")
    key = provider.new_key()
    head = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
    der = base64.encodebytes(head + provider.public_key(key)).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{der}-----END PUBLIC KEY-----\n"
    return pem, lambda text: provider.sign(key, text)


def _pem(key: Any) -> str:
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


class PublicOneKey(OneKey):
    """The record of a single key, a public one."""

    public_key: PublicKey | None = None

    async def find(self, key_id: UUID) -> SigningKey | None:
        found = await super().find(key_id)
        if found is None:
            return None
        return SigningKey(found.caller, found.secret, found.revoked, public_key=self.public_key)


class Sender:
    """Signs and sends requests; each part of that can be told to be wrong."""

    def __init__(self, app: App, key_id: str, sign: Sign) -> None:
        self.app, self.key_id, self.sign = app, key_id, sign

    async def send(
        self,
        method: str = "POST",
        target: str = "/v1/things",
        body: bytes = THING,
        *,
        covered: tuple[str, ...] | None = None,
        sent: bytes | None = None,
        more: str = "",
        headers: dict[str, str] | None = None,
        **parameters: object,
    ) -> Reply:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        fields = {"host": "pay.example", "content-type": "application/json"}
        if body:
            fields["content-digest"] = f"sha-256=:{digest}:"
        if covered is None:
            covered = ("@method", "@target-uri", *(["content-digest"] if body else []))
        path, _, query = target.partition("?")
        known = {
            "@method": method,
            "@target-uri": f"http://pay.example{target}",
            "@authority": "pay.example",
            "@path": path,
            "@query": f"?{query}",
            **fields,
            **(headers or {}),
        }
        wanted = {
            "created": int(real_now().timestamp()),
            "nonce": secrets.token_urlsafe(18),
            "keyid": self.key_id,
            "tag": "tongbao",
            **parameters,
        }
        ends = "".join(
            f";{name}={value if isinstance(value, int) else json.dumps(value)}"
            for name, value in wanted.items()
            if value is not None
        )
        signed_as = f"({' '.join(json.dumps(name) for name in covered)}){ends}"
        lines = [f'"{name}": {known.get(name, "")}' for name in covered]
        base = "\n".join([*lines, f'"@signature-params": {signed_as}'])
        fields["signature-input"] = f"ours={signed_as}{more}"
        signature = base64.b64encode(self.sign(base.encode())).decode()
        other = ", other=:AAAA:" if more else ""
        fields["signature"] = f"ours=:{signature}:{other}"
        fields |= headers or {}
        return await call(self.app, method, target, fields, [body if sent is None else sent])


@pytest.fixture
def keys() -> PublicOneKey:
    return PublicOneKey("things:read", "things:write")


@pytest.fixture
def app(db: Db, keys: PublicOneKey) -> App:
    return App(HANDLERS, db=db, keys=keys, facts=FACTS)


@pytest.fixture
def sender(app: App, keys: PublicOneKey) -> Sender:
    pem, sign = _ed25519()
    keys.public_key = read_public_key(pem)
    return Sender(app, keys.id, sign)


@pytest.mark.parametrize("made", [_ed25519, _p256, _rsa, _sm2])
async def test_each_algorithm_is_taken(
    app: App, keys: PublicOneKey, made: Callable[[], tuple[str, Sign]]
) -> None:
    pem, sign = made()
    keys.public_key = read_public_key(pem)
    sender = Sender(app, keys.id, sign)

    assert (await sender.send()).status == 201
    named = keys.public_key.algorithm.value
    assert (await sender.send(alg=named)).status == 201
    assert (await sender.send(alg="rsa-v1_5-sha256")).code == "auth.signature_invalid"

    other = Sender(app, keys.id, made()[1])
    assert (await other.send()).code == "auth.signature_invalid"


async def test_a_shared_secret_signs_like_this_too(app: App, keys: PublicOneKey) -> None:
    sender = Sender(app, keys.id, lambda text: hmac.digest(SECRET.encode(), text, "sha256"))
    assert (await sender.send(alg="hmac-sha256")).status == 201


async def test_the_secret_of_a_public_key_signs_nothing(sender: Sender) -> None:
    sender.sign = lambda text: hmac.digest(SECRET.encode(), text, "sha256")
    assert (await sender.send()).code == "auth.signature_invalid"
    assert (await sender.send(alg="hmac-sha256")).code == "auth.signature_invalid"


async def test_a_signature_works_once(sender: Sender) -> None:
    nonce = secrets.token_urlsafe(18)
    assert (await sender.send(nonce=nonce)).status == 201
    assert (await sender.send(nonce=nonce)).code == "auth.nonce_replayed"


async def test_another_body_than_the_signed_one_is_refused(sender: Sender) -> None:
    changed = THING.replace(b"1", b"9")
    assert (await sender.send(sent=changed)).code == "auth.digest_mismatch"


@pytest.mark.parametrize(
    ("covered", "missing"),
    [
        (("@target-uri", "content-digest"), "@method"),
        (("@method", "content-digest"), "@authority"),
        (("@method", "@authority", "content-digest"), "@path"),
        (("@method", "@authority", "@path", "content-digest"), "@query"),
        (("@method", "@target-uri"), "content-digest"),
        (("@method", "@target-uri", "content-digest"), "idempotency-key"),
    ],
)
async def test_whatever_the_request_does_must_be_covered(
    sender: Sender, covered: tuple[str, ...], missing: str
) -> None:
    headers = {"idempotency-key": "k1"} if missing == "idempotency-key" else {}
    reply = await sender.send(target="/v1/things?a=b", covered=covered, headers=headers)
    assert reply.code == "auth.component_not_covered"
    assert reply.json["facts"] == {"component": missing}


async def test_its_parts_cover_an_address_as_well_as_the_whole(sender: Sender) -> None:
    covered = ("@method", "@authority", "@path", "@query")
    reply = await sender.send("GET", "/v1/things?limit=3", b"", covered=covered)
    assert (reply.status, reply.json[0]["amount"]) == (200, 3)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"tag": "another"}, "auth.signature_input_malformed"),
        ({"nonce": None}, "auth.signature_input_malformed"),
        ({"nonce": "short"}, "auth.signature_input_malformed"),
        ({"created": None}, "auth.signature_input_malformed"),
        ({"created": 1763712000}, "auth.timestamp_stale"),
        ({"expires": 1763712000}, "auth.timestamp_stale"),
        ({"keyid": "key_unheard_of"}, "auth.key_unknown"),
        ({"mystery": "x"}, "auth.signature_input_malformed"),
    ],
)
async def test_what_a_signature_must_say(
    sender: Sender, parameters: dict[str, Any], code: str
) -> None:
    assert (await sender.send(**parameters)).code == code


async def test_a_proxy_may_have_signed_beside_us(sender: Sender) -> None:
    more = ', other=("@method" "@query-param";name="a");created=1;keyid="proxy"'
    assert (await sender.send(more=more)).status == 201


async def test_both_kinds_of_signature_are_not_mixed(sender: Sender) -> None:
    """Who sends the header of the older kind is judged by that one alone."""
    headers = {"authorization": "TONGBAO-HMAC-SHA256 key=x"}
    assert (await sender.send(headers=headers)).code == "auth.header_malformed"


async def test_a_revoked_key_hears_so_once_it_has_proved_itself(
    sender: Sender, keys: PublicOneKey
) -> None:
    keys.revoked = True
    assert (await sender.send()).code == "auth.key_revoked"
    sender.sign = lambda _: bytes(64)
    assert (await sender.send()).code == "auth.signature_invalid"


@pytest.mark.parametrize(
    ("signature_input", "signature"),
    [
        ("", "a=:AAAA:"),
        ("a=()", ""),
        ("a=(),", "a=:AAAA:"),
        ('a=("x" "x");tag="tongbao"', "a=:AAAA:"),
        ("a=();created=01", "a=:AAAA:"),
        ("a=();created=1;created=2", "a=:AAAA:"),
        ("a=(), a=()", "a=:AAAA:"),
        ("a=()", "b=:AAAA:"),
        ("a=()", "a=AAAA"),
        ("a=()", "a=:A:"),
        ("A=()", "A=:AAAA:"),
        ('a=("x', "a=:AAAA:"),
        ("a=()" + " " * 9000, "a=:AAAA:"),
        ('a=("x";"y")', "a=:AAAA:"),
    ],
)
def test_headers_that_are_no_dictionaries_are_refused(signature_input: str, signature: str) -> None:
    headers = [("signature-input", signature_input), ("signature", signature)]
    message = SignedMessage("GET", "https", "/", headers, b"")
    with pytest.raises(SignatureInputMalformed):
        read_message_signature(message)


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_text_is_read_or_refused(signature_input: str, signature: str) -> None:
    headers = [("signature-input", signature_input), ("signature", signature)]
    message = SignedMessage("GET", "https", "/", headers, b"")
    with pytest.raises((SignatureInputMalformed, ComponentUnknown)):
        read_message_signature(message)


GOOD = ["created=1763712000", 'keyid="key_1"', 'nonce="0123456789abcdef"', 'tag="tongbao"']
BESIDE = [
    'created="1"', "created=2", "keyid=1", 'nonce="short"', 'alg="ed25519"', "alg=1", "expires=0",
    "expires=-1", 'expires="1"', 'tag="other"', 'other="1"',
]  # fmt: skip
COMPONENTS = ["@method", "@target-uri", "@authority", "@query", "host", "content-digest", "x-blank"]


@given(
    st.lists(st.sampled_from(BESIDE), max_size=1).flatmap(lambda it: st.permutations(GOOD + it)),
    st.one_of(
        st.permutations(COMPONENTS),
        st.lists(st.sampled_from([*COMPONENTS, "x-not", "@query-param"])),
    ),
    st.sampled_from([(), (), ("host",), ("x-blank",), ("signature",)]),
    st.sampled_from(["a=:b25seQ==:", "a=:b25seQ==:", "b=:b25seQ==:", "a=:b25seQ:", "a=:===:"]),
)
def test_it_makes_no_difference_how_a_signature_is_spaced(
    parameters: list[str], components: list[str], again: tuple[str, ...], signature: str
) -> None:
    """What is written plainly is read in one go: as what has a blank more is read bit by bit."""

    def read(blank: str) -> object:
        listed = " ".join(f'"{each}"' for each in components)
        said = f"a=({listed})" + "".join(f";{blank}{each}" for each in parameters)
        headers = [("host", " Pay.Example:443"), ("idempotency-key", "k"), ("x-blank", " \tx")]
        headers += [("content-digest", "d "), ("signature", signature)]
        headers += [(name, "again") for name in again]
        headers += [("signature-input", said)]
        message = SignedMessage("POST", "https", "/v1/x?a=1", headers, b"")
        try:
            return read_message_signature(message)
        except (SignatureInputMalformed, ComponentUnknown) as refusal:
            return refusal.code, refusal.facts

    assert read("") == read(" ")


def test_headers_made_to_take_long_do_not() -> None:
    for text in ('a=("x"' + ';y="z"' * 1300, "a=(" + '"x"' * 2600, 'a=("' + "\\\\" * 4000):
        message = SignedMessage("GET", "https", "/", [("signature-input", text)], b"")
        with pytest.raises(SignatureInputMalformed):
            read_message_signature(message)


def test_a_component_that_the_message_does_not_have_is_refused() -> None:
    said = 'a=("x-absent");created=1;keyid="key_1";nonce="0123456789abcdef";tag="tongbao"'
    headers = [("signature-input", said), ("signature", "a=:AAAA:")]
    with pytest.raises(ComponentUnknown):
        read_message_signature(SignedMessage("GET", "https", "/", headers, b""))


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no key",
        _pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        _pem(rsa.generate_private_key(65537, 1024).public_key()),
        "-----BEGIN PUBLIC KEY-----\n" + "A" * 3000 + "\n-----END PUBLIC KEY-----",
        # The head of an SM2 key, and no point of its curve.
        "-----BEGIN PUBLIC KEY-----\n"
        + base64.b64encode(
            bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
            + b"\x04"
            + bytes(64)
        ).decode()
        + "\n-----END PUBLIC KEY-----",
    ],
    ids=["empty", "text", "P-384", "RSA of 1024 bits", "too long", "no point"],
)
def test_other_keys_are_refused(pem: str) -> None:
    with pytest.raises(PublicKeyUnusable):
        read_public_key(pem)


# Encrypted fields


def _encrypted(text: str, pointer: str, cipher: str = "A256GCM", method: str = "POST") -> str:
    """Encrypt as the description says, with another library's functions."""
    size = 32 if cipher == "A256GCM" else 16
    info = f"tongbao field {cipher}".encode()
    key = HKDF(SHA256(), size, salt=None, info=info).derive(SECRET.encode())
    iv, place = secrets.token_bytes(12), f"{method}\n/v1/things\n{pointer}\n".encode()
    if cipher == "A256GCM":
        sealed = AESGCM(key).encrypt(iv, text.encode(), place)
    else:
        encryptor = Cipher(SM4(key), GCM(iv)).encryptor()
        encryptor.authenticate_additional_data(place)
        sealed = encryptor.update(text.encode()) + encryptor.finalize() + encryptor.tag
    shown = [base64.urlsafe_b64encode(each).decode().rstrip("=") for each in (iv, sealed)]
    return ".".join(["tbenc", cipher, *shown])


def _body(**fields: object) -> bytes:
    return json.dumps({"amount": 1, **fields}).encode()


@pytest.mark.parametrize("cipher", ["A256GCM", "SM4GCM"])
async def test_an_encrypted_field_is_what_it_was(sender: Sender, cipher: str) -> None:
    reply = await sender.send(body=_body(name=_encrypted("龙井", "/name", cipher)))
    assert (reply.status, reply.json["name"]) == (201, "龙井")


@pytest.mark.parametrize(
    "field",
    [
        _encrypted("tea", "/other"),
        _encrypted("tea", "/name", method="PATCH"),
        _encrypted("tea", "/name")[:-2] + "AA",
        "tbenc.",
        "tbenc.A256GCM.AAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAA",
        _encrypted("tea", "/name").replace("A256GCM", "SM4GCM"),
    ],
    ids=["another field", "another method", "changed", "empty", "short", "another cipher"],
)
async def test_a_field_that_was_encrypted_for_elsewhere_is_refused(
    sender: Sender, field: str
) -> None:
    reply = await sender.send(body=_body(name=field))
    assert reply.code == "request.encrypted_field_unreadable"
    assert reply.json["param"] == "/name"


async def test_what_the_field_holds_is_judged_as_if_it_had_been_sent_so(sender: Sender) -> None:
    reply = await sender.send(body=_body(name=_encrypted("tea", "/name"), more="x"))
    assert reply.code == "request.unknown_field"


async def test_a_card_number_is_not_let_in_by_encrypting_it(sender: Sender) -> None:
    field = _encrypted("4111 1111 1111 1111", "/name")
    reply = await sender.send(body=_body(name=field))
    assert reply.code == "card_number.unexpected"
    assert "4111" not in reply.body.decode()


# A client that others wrote


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512"])
async def test_a_library_that_others_wrote_is_understood(
    app: App, keys: PublicOneKey, algorithm: str
) -> None:
    private = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ecdsa-p256-sha256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa-pss-sha512": lambda: rsa.generate_private_key(65537, 2048),
    }[algorithm]()
    keys.public_key = read_public_key(_pem(private.public_key()))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    [headers] = await asyncio.to_thread(
        _signed_by_others,
        {
            "algorithm": algorithm,
            "key": pem,
            "method": "POST",
            "url": "http://pay.example/v1/things",
            "headers": {"host": "pay.example", "content-type": "application/json"},
            "body": THING.decode(),
            "key_id": keys.id,
            "nonce": secrets.token_urlsafe(18),
            "covered": ["@method", "@target-uri", "content-type"],
        },
    )
    sent = {name.lower(): value for name, value in headers.items()}
    assert (await call(app, "POST", "/v1/things", sent, [THING])).status == 201


def _signed_by_others(*requests: dict[str, object]) -> Any:
    return heard_from([python_with(CLIENT), DRIVERS / CLIENT / "drive.py"], requests)
