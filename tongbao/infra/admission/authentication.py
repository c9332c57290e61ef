"""Authentication of API requests: a signature over the raw bytes, checked before they are parsed.

    Authorization: TONGBAO-HMAC-SHA256 key=key_…,timestamp=1763712000,nonce=…,signature=<base64>

The signature is HMAC-SHA256 under the key's secret (its text in UTF-8) of six lines, each ended by
a line feed: method, path with query, timestamp, nonce, hex SHA-256 of the body. A request is good
for 300 seconds either side of our clock, and its nonce once.

A request without that header may carry a signature as of RFC 9421 instead (`message_signatures`),
by the secret or, where the key is a public key of the merchant's own, by that alone.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.infra.admission import _store as store
from tongbao.infra.admission.message_signatures import (
    MessageSignature,
    SignedMessage,
    check_covered,
    read_message_signature,
)
from tongbao.infra.admission.nonces import Nonce, Nonces
from tongbao.infra.changes import Changes
from tongbao.infra.crypto import constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Write
from tongbao.infra.public_keys import PublicKey, SigningAlgorithm, verifies
from tongbao.infra.settings import Secret
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.problem import AUTHENTICATION_SCHEME
from tongbao.infra.web.versions import CURRENT
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Unauthenticated
from tongbao.kernel.ids import UnknownId, parse

WINDOW_S: Final = 300
NONCE_KEPT: Final = timedelta(seconds=2 * WINDOW_S)


class HeaderMissing(Unauthenticated):
    """The request is not signed."""

    code = "auth.header_missing"
    advice = "Sign the request with your API key and send the Authorization header."
    advice_zh = "请使用 API 密钥对请求签名，并携带 Authorization 请求头。"


class HeaderMalformed(Unauthenticated):
    """The Authorization header cannot be read."""

    code = "auth.header_malformed"
    advice = (
        "Send TONGBAO-HMAC-SHA256 key=…,timestamp=<unix seconds>,nonce=<16 to 128 characters>,"
        "signature=<base64>, each once."
    )
    advice_zh = (
        "格式应为 TONGBAO-HMAC-SHA256 key=…,timestamp=<Unix 秒>,nonce=<16 至 128 个字符>,"
        "signature=<base64>，各出现一次。"
    )


class KeyUnknown(Unauthenticated):
    """There is no such API key."""

    code = "auth.key_unknown"
    advice = "Check the key id and that you call the right deployment."
    advice_zh = "请检查密钥标识以及调用的环境是否正确。"


class KeyRevoked(Unauthenticated):
    """The API key was revoked, or replaced and its overlap has ended."""

    code = "auth.key_revoked"
    advice = "Use the merchant's current key."
    advice_zh = "请使用当前有效的密钥。"


class SignatureInvalid(Unauthenticated):
    """The signature does not match the request as it arrived."""

    code = "auth.signature_invalid"
    advice = "Sign method, path with query, timestamp, nonce and body exactly as they are sent."
    advice_zh = "请确保签名内容与实际发送的方法、路径（含查询串）、时间戳、随机串和请求体完全一致。"


class TimestampStale(Unauthenticated):
    """The request was signed too long ago, or by a clock that is ahead."""

    code = "auth.timestamp_stale"
    advice = "Set the clock, and sign each try anew; facts hold our time."
    advice_zh = "请校准系统时间，并在每次发送时重新签名；facts 中为平台时间。"


class NonceReplayed(Unauthenticated):
    """This very signature was used before."""

    code = "auth.nonce_replayed"
    advice = "Sign each try anew with a fresh random nonce; keep the Idempotency-Key."
    advice_zh = "每次发送请使用新的随机串重新签名，Idempotency-Key 保持不变。"


class Authorization(Struct, frozen=True):
    """What the header says; nothing of it is proved yet."""

    key_id: UUID
    timestamp: int
    nonce: str
    signature: bytes


class SignedRequest(Struct, frozen=True):
    """The parts of a request that are signed, as they arrived."""

    method: str
    target: str  # path and query as on the request line
    body: bytes
    authorization: tuple[str, ...]  # every Authorization header
    message: SignedMessage | None = None  # all of it, where it may be signed as of RFC 9421
    digest: bytes | None = None  # SHA-256 of a body that is yet to come, as its header tells it


class SigningKey(Struct, frozen=True):
    """A key as it is on record; its id and rights are in ``caller``.

    Where there is a public key, requests are signed with that one's private half, and the secret
    is for encrypted fields only.
    """

    caller: Caller
    secret: Secret
    revoked: bool
    use_noted: bool = False  # whether its use was written down lately
    public_key: PublicKey | None = None
    version: str = CURRENT  # of the API, that its requests are in
    ends_at: datetime | None = None  # by itself; the key may be remembered beyond that

    @property
    def algorithm(self) -> SigningAlgorithm:
        """Return how requests with this key are signed."""
        return self.public_key.algorithm if self.public_key else SigningAlgorithm.HMAC_SHA256


class SigningKeys(Protocol):
    """Where keys are on record."""

    async def find(self, key_id: UUID) -> SigningKey | None:
        """Return the key, revoked or not."""

    async def note_use(self, key: SigningKey) -> None:
        """Remember, coarsely, that the key was used just now."""


class RememberedKeys(SigningKeys, Protocol):
    """Keys that are asked for many at a time, and remembered until they are changed."""

    @property
    def changes(self) -> Changes:
        """Return by what it is heard of; others that remember hear by the same."""

    async def find_all(self, ids: Iterable[UUID]) -> Mapping[UUID, SigningKey]:
        """Return those of these keys that are on record, revoked or not."""


_FIELD: Final = re.compile(r" ?(key|timestamp|nonce|signature)=([A-Za-z0-9._~+/=-]{1,128})")
# The header as most programs write it, in one go; whatever differs is read field by field.
_USUAL: Final = re.compile(
    rf"{AUTHENTICATION_SCHEME} key=(key_[0-9a-z]{{26}}),timestamp=([0-9]{{1,12}}),"
    r"nonce=([A-Za-z0-9._~+/=-]{16,128}),signature=([A-Za-z0-9+/]{43}=)"
)
_FIELDS: Final = frozenset({"key", "timestamp", "nonce", "signature"})
_NONCE_LENGTH_MIN: Final = 16
_HEADER_LENGTH_MAX: Final = 600


def read_authorization(values: Sequence[str]) -> Authorization:
    """Read the Authorization header, or refuse it without saying more than its form.

    Raises:
        HeaderMissing, HeaderMalformed, KeyUnknown
    """
    if not values:
        raise HeaderMissing
    if len(values) > 1 or len(values[0]) > _HEADER_LENGTH_MAX:
        raise HeaderMalformed
    usual = _USUAL.fullmatch(values[0])
    if usual is not None:
        key, said_at, nonce, signature = usual.groups()
        return Authorization(_key_id(key), int(said_at), nonce, b64decode(signature))
    scheme, _, rest = values[0].partition(" ")
    if scheme.upper() != AUTHENTICATION_SCHEME:
        raise HeaderMalformed
    found: dict[str, str] = {}
    for part in rest.split(","):
        match = _FIELD.fullmatch(part)
        if match is None or match.group(1) in found:
            raise HeaderMalformed
        found[match.group(1)] = match.group(2)
    timestamp = found.get("timestamp", "")
    if found.keys() != _FIELDS or not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise HeaderMalformed
    if len(found["nonce"]) < _NONCE_LENGTH_MIN:
        raise HeaderMalformed
    try:
        raw = b64decode(found["signature"], validate=True)
    except binascii.Error:
        raise HeaderMalformed from None
    return Authorization(_key_id(found["key"]), int(timestamp), found["nonce"], raw)


@lru_cache(maxsize=10_000)
def _key_id(text: str) -> UUID:
    """Return the id of the key.

    Raises:
        KeyUnknown
    """
    try:
        return parse("key", text)
    except UnknownId:
        raise KeyUnknown from None


def signing_text(request: SignedRequest, timestamp: int, nonce: str) -> bytes:
    """Return the bytes that are signed."""
    digest = (request.digest or hashlib.sha256(request.body).digest()).hex()
    lines = (request.method, request.target, str(timestamp), nonce, digest, "")
    return "\n".join(lines).encode("latin-1")


async def authenticate(request: SignedRequest, keys: SigningKeys, nonces: Nonces) -> SigningKey:
    """Return whose key has signed the request; its nonce is used up by that.

    Raises:
        HeaderMissing, HeaderMalformed, SignatureInputMalformed, ComponentUnknown,
        ComponentNotCovered, DigestMismatch, KeyUnknown, KeyRevoked, SignatureInvalid,
        TimestampStale, NonceReplayed
    """
    said, key = await prove(request, keys)
    if not await nonces.use(Nonce(key.caller.key_id, said.nonce)):
        raise NonceReplayed
    await keys.note_use(key)
    return key


async def prove(
    request: SignedRequest, keys: SigningKeys
) -> tuple[Authorization | MessageSignature, SigningKey]:
    """Return what the headers say and whose key has signed; the nonce is yet to be used up.

    Raises:
        HeaderMissing, HeaderMalformed, SignatureInputMalformed, ComponentUnknown,
        ComponentNotCovered, DigestMismatch, KeyUnknown, KeyRevoked, SignatureInvalid,
        TimestampStale
    """
    if request.message is not None and not request.authorization:
        return await _prove_message(request.message, keys)
    said = read_authorization(request.authorization)
    key = await keys.find(said.key_id)
    if key is None:
        raise KeyUnknown
    check_signature(request, said, key)
    return said, key


def check_signature(request: SignedRequest, said: Authorization, key: SigningKey) -> None:
    """Check that the key is good and has signed the request a moment ago.

    Raises:
        KeyRevoked, SignatureInvalid, TimestampStale
    """
    expected = hmac_sha256(
        key.secret.reveal().encode(), signing_text(request, said.timestamp, said.nonce)
    )
    if key.public_key is not None or not constant_time_equal(expected, said.signature):
        raise SignatureInvalid
    _check_good(key, said.timestamp)


async def _prove_message(
    message: SignedMessage, keys: SigningKeys
) -> tuple[MessageSignature, SigningKey]:
    said = read_message_signature(message)
    key = await keys.find(_key_id(said.key_id))
    if key is None:
        raise KeyUnknown
    if said.algorithm not in {None, key.algorithm}:
        raise SignatureInvalid
    if key.public_key is not None:
        is_signed = verifies(key.public_key, said.base, said.signature)
    else:
        expected = hmac_sha256(key.secret.reveal().encode(), said.base)
        is_signed = constant_time_equal(expected, said.signature)
    if not is_signed:
        raise SignatureInvalid
    check_covered(message, said)
    _check_good(key, said.timestamp)
    if said.expires is not None and said.expires < real_now().timestamp():
        raise TimestampStale(our_time=int(real_now().timestamp()))
    return said, key


def _check_good(key: SigningKey, signed_at: int) -> None:
    """Raise unless the key works and has signed a moment ago; asked once it is proved that it has.

    Only who holds the secret learns more than that the signature is wrong.

    Raises:
        KeyRevoked, TimestampStale
    """
    now = real_now()
    if key.revoked or (key.ends_at is not None and key.ends_at <= now):
        raise KeyRevoked
    if abs(now.timestamp() - signed_at) > WINDOW_S:
        raise TimestampStale(our_time=int(now.timestamp()))


def nonces_of(db: Db) -> Nonces:
    """Return the nonces on record, kept for as long as a signature is good."""
    return Nonces(db, kept=NONCE_KEPT)


async def prune_nonces(db: Db) -> None:
    """Forget the nonces of signatures that are stale."""
    await store.PRUNE_NONCES.run(db, real_now())


def nonce_write(said: Authorization) -> Write:
    """Return the write that uses the nonce up in somebody else's commit, or refuses there."""
    row = store.nonce_row(said.key_id, said.nonce, real_now() + NONCE_KEPT)
    return Write(store.APPEND_NONCE, (row,), refusal=NonceReplayed.code)


def nonce_insert(said: Authorization) -> Write:
    """As `nonce_write`, for commits of few, where one statement costs less than a COPY."""
    args = (said.key_id, said.nonce, real_now() + NONCE_KEPT)
    return Write(store.INSERT_NONCE, args, refusal=NonceReplayed.code)
